//! Follows one rollout through the shared watch until the verdict stands; records progress on the way.

use std::time::Duration;

use slipway_kubernetes::{Kubernetes, watch::View};
use slipway_model::Timestamp;
use slipway_verdict::{Expected, Verdict};
use tokio::time::Instant;

use super::{Run, promotion::Promoter, words::Words};
use crate::{
    catalog::Pauses,
    deployment::{DeploymentCommand, DeploymentRequest, Reason},
};

/// A watch that shows nothing may have nothing to show, or be dead: after so long the API server is asked.
const QUIET: Duration = Duration::from_secs(30);
/// The same after the watch was interrupted, since taking it up again makes no sound.
const QUIET_AFTER_FAULT: Duration = Duration::from_secs(3);
/// Ends with the verdict's command.
pub(super) async fn follow(
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let expected = expected(run, request);
    let mut subscription = cluster.follow(&request.target);
    let mut words = Words::new(run);
    let mut promoter = Promoter::default();
    // The last time that the API server was asked, and whether it answered.
    let mut asked: Option<(Instant, Result<(), String>)> = None;
    loop {
        let mut view = subscription.view();
        if let Some(live) = view.observed.workload.as_ref().filter(|_| view.synced) {
            promoter.look(cluster, &request.target, &expected, live).await;
        }
        let (message, look_again) = match judge(cluster, request, &expected, &mut view).await {
            Verdict::Complete => return Some(DeploymentCommand::RolledOut { key: run.key.clone() }),
            Verdict::Failed(failure) => {
                let reason = Reason::new(failure.reason.code(), failure.message);
                return Some(DeploymentCommand::Refused {
                    key: run.key.clone(),
                    reason,
                });
            }
            Verdict::Progressing { message, look_again } => (message, look_again),
        };
        let fault = match (&view.fault, &asked) {
            (Some(fault), Some((at, Ok(())))) if fault.at < *at => None,
            (Some(fault), _) => Some(fault.words.as_str()),
            (None, Some((_, Err(words)))) => Some(words.as_str()),
            (None, _) => None,
        };
        let quiet = if fault.is_some() { QUIET_AFTER_FAULT } else { QUIET };
        match fault {
            Some(fault) => {
                let message = format!("cluster {} cannot be watched: {fault}", cluster.name());
                words.say(message, true).await;
            }
            None => words.say(message, false).await,
        }
        tokio::select! {
            () = subscription.changed() => asked = asked.filter(|(_, answer)| answer.is_ok()),
            () = until(look_again) => {}
            () = tokio::time::sleep(quiet) => {
                let answer = cluster.read(&request.target).await.map(drop).map_err(|fault| fault.to_string());
                asked = Some((Instant::now(), answer));
            }
            () = words.due() => words.flush().await,
        }
    }
}

/// What the deployment wants to see.
pub(super) fn expected(run: &Run, request: &DeploymentRequest) -> Expected {
    let state = &run.snapshot.state;
    Expected {
        image: request.image_ref(),
        epoch: request.epoch,
        applied: state.applied.clone().unwrap_or_default(),
        verify: request.verify,
        since: state.applied_at.unwrap_or_else(Timestamp::now),
        sync: None,
        promotes: request.pauses == Pauses::Promote,
    }
}

async fn judge(
    cluster: &Kubernetes,
    request: &DeploymentRequest,
    expected: &Expected,
    view: &mut View,
) -> Verdict {
    if !view.synced {
        return Verdict::Progressing {
            message: "reading the cluster's state".to_owned(),
            look_again: None,
        };
    }
    if view.observed.workload.is_none() {
        // Either the watch lags behind our own write, or the object is gone. The API server knows.
        view.observed.gone = matches!(cluster.read(&request.target).await, Ok(None));
    }
    slipway_verdict::judge(expected, &view.observed, Timestamp::now())
}

async fn until(time: Option<Timestamp>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
