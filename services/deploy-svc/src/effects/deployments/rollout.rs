//! Follows one rollout through the shared watch until the verdict is final; records progress on the way.

use std::time::Duration;

use deploy_domain::{
    catalog::Pauses,
    deployment::{Action, DeploymentCommand, DeploymentRequest, DeploymentState, Reason},
};
use slipway_kubernetes::{Kubernetes, managed::Complaints, watch::View};
use slipway_model::{ImageRef, Timestamp};
use slipway_verdict::{Expected, Next, Verdict};
use tokio::time::Instant;

use super::{
    Run,
    progress::Progress,
    promotion::Promoter,
    stuck::{HeldUp, Replacer},
};

/// If a watch shows nothing, there may be nothing to show, or it may be dead: after this long the API server is asked.
const QUIET: Duration = Duration::from_secs(30);
/// The same after the watch was interrupted, since its recovery is not notified.
const QUIET_AFTER_FAULT: Duration = Duration::from_secs(3);
/// Ends with the verdict's command.
pub(super) async fn follow(
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let expected = expected(&run.snapshot.state, request);
    let mut subscription = cluster.follow(&request.target);
    let mut progress = Progress::new(run);
    let mut promoter = Promoter::default();
    let mut complaints = Complaints::default();
    // When the watch, or the API server, was last heard of.
    let mut heard = Instant::now();
    let mut replacer = Replacer::default();
    // The last time that the API server was asked, and whether it answered.
    let mut asked: Option<(Instant, Result<(), String>)> = None;
    loop {
        let mut view = subscription.view();
        view.observed.events.clone_from(&complaints.events);
        if let Some(live) = view.observed.workload.as_ref().filter(|_| view.synced) {
            promoter.look(cluster, &request.target, &expected, live).await;
        }
        let held_up = if view.synced {
            replacer.look(cluster, &request.target, &expected, &view).await
        } else {
            HeldUp::default()
        };
        let (message, look_again) = match judge(cluster, request, &expected, &mut view).await {
            Verdict::Complete => return Some(DeploymentCommand::RolledOut { key: run.key.clone() }),
            Verdict::Failed(failure) => {
                let reason = Reason::new(failure.reason.code(), failure.message);
                return Some(DeploymentCommand::Refused {
                    key: run.key.clone(),
                    reason,
                });
            }
            Verdict::Progressing { message, look_again } => {
                let message = match held_up.advice {
                    Some(advice) => format!("{message}; {advice}"),
                    None => message,
                };
                let look_again = [look_again, held_up.look_again].into_iter().flatten().min();
                (message, look_again)
            }
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
                progress.away(message).await;
            }
            None if waits_for_a_person(&expected, &view) => progress.ask(message).await,
            None => progress.say(message).await,
        }
        tokio::select! {
            () = subscription.changed() => {
                heard = Instant::now();
                asked = asked.filter(|(_, answer)| answer.is_ok());
            }
            () = until(look_again) => {}
            () = tokio::time::sleep_until(complaints.due_at()) => {
                let namespace = request.target.namespace.as_str();
                complaints.read(cluster, namespace, subscription.peek()).await;
            }
            () = tokio::time::sleep_until(heard + quiet) => {
                let answer = cluster.read(&request.target).await.map(drop).map_err(|fault| fault.to_string());
                heard = Instant::now();
                asked = Some((Instant::now(), answer));
            }
            () = progress.due() => progress.flush().await,
        }
    }
}

fn waits_for_a_person(expected: &Expected, view: &View) -> bool {
    let live = view.observed.workload.as_ref();
    live.is_some_and(|live| matches!(slipway_verdict::next(expected, live), Next::Ask(_)))
}

/// What the deployment expects.
pub(in crate::effects) fn expected(state: &DeploymentState, request: &DeploymentRequest) -> Expected {
    Expected {
        image: wanted(request),
        epoch: request.epoch,
        applied: state.applied.clone().unwrap_or_default(),
        verify: request.verify,
        since: state.applied_at.unwrap_or_else(Timestamp::now),
        sync: None,
        promotes: request.pauses == Pauses::Promote,
        restored: request.restores.clone(),
        moving_tag: request.action == Action::Restart,
    }
}

/// The image as the template must name it. The target of an undo may be named by tag only; its digest is not known
/// then.
fn wanted(request: &DeploymentRequest) -> ImageRef {
    match &request.action {
        Action::Undo { to } => to.image.clone(),
        _ => request.image_ref(),
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

#[cfg(test)]
mod tests {
    use deploy_domain::deployment::DeploymentEvent;
    use pretty_assertions::assert_eq;
    use slipway_verdict::Previous;

    use super::{Action, DeploymentRequest, wanted};

    #[test]
    fn an_undo_wants_the_image_as_the_template_of_then_names_it() {
        let event = include_str!("../../../tests/golden/deployment/requested.v2.json");
        let DeploymentEvent::Requested { request, .. } = serde_json::from_str(event).unwrap() else {
            panic!("{event}");
        };
        assert_eq!(wanted(&request), request.image_ref());
        for image in ["registry.example/shop:1a2b3c4", "registry.example/other"] {
            let to = Previous {
                revision: 4,
                image: image.parse().unwrap(),
            };
            let undo = DeploymentRequest {
                action: Action::Undo { to },
                ..(*request).clone()
            };
            assert_eq!(wanted(&undo).to_string(), image);
        }
    }
}
