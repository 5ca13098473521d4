//! Follows one rollout through the shared watch until the verdict stands; records progress on the way.

use std::time::Duration;

use slipway_kubernetes::{Kubernetes, watch::View};
use slipway_ledger::Meta;
use slipway_model::{Actor, Timestamp};
use slipway_verdict::{Expected, Verdict};
use tokio::time::{Instant, sleep_until};

use super::Run;
use crate::{
    catalog::Pauses,
    deployment::{Deployment, DeploymentCommand, DeploymentRequest, Reason},
};

/// Words about progress are recorded at most so often: each is an event for everyone who watches.
const WORDS_EVERY: Duration = Duration::from_secs(1);

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
    let state = &run.snapshot.state;
    let expected = Expected {
        image: request.image_ref(),
        epoch: request.epoch,
        applied: state.applied.clone().unwrap_or_default(),
        verify: request.verify,
        since: state.applied_at.unwrap_or_else(Timestamp::now),
        sync: None,
        promotes: request.pauses == Pauses::Promote,
    };
    let target = &request.target;
    let mut subscription = cluster.follow(target);
    let mut words = Words {
        run,
        recorded: (state.progress.clone(), state.fault.is_some()),
        pending: None,
        next: Instant::now(),
    };
    // The last time that the API server was asked, and whether it answered.
    let mut asked: Option<(Instant, Result<(), String>)> = None;
    loop {
        let mut view = subscription.view();
        if view.synced && view.observed.workload.is_none() {
            view.observed.gone = gone(cluster, request).await;
        }
        let (message, look_again) = match judge(&expected, &view) {
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

fn judge(expected: &Expected, view: &View) -> Verdict {
    if view.synced {
        slipway_verdict::judge(expected, &view.observed, Timestamp::now())
    } else {
        Verdict::Progressing {
            message: "reading the cluster's state".to_owned(),
            look_again: None,
        }
    }
}

/// The watch does not show it: either it lags behind our own write, or the object is gone. The API server knows.
async fn gone(cluster: &Kubernetes, request: &DeploymentRequest) -> bool {
    matches!(cluster.read(&request.target).await, Ok(None))
}

async fn until(time: Option<Timestamp>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}

/// Records what is being waited for, without flooding.
struct Words<'a> {
    run: &'a Run,
    recorded: (String, bool),
    pending: Option<(String, bool)>,
    next: Instant,
}

impl Words<'_> {
    async fn say(&mut self, message: String, fault: bool) {
        let words = (message, fault);
        self.pending = (words != self.recorded).then_some(words);
        if Instant::now() >= self.next {
            self.flush().await;
        }
    }

    /// Ends when something waits to be recorded and may be.
    async fn due(&self) {
        match self.pending {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    async fn flush(&mut self) {
        let Some((message, fault)) = self.pending.take() else {
            return;
        };
        let key = self.run.key.clone();
        let command = || DeploymentCommand::Progress {
            key: key.clone(),
            message: message.clone(),
            fault,
        };
        let meta = Meta::new(Actor::system("deploy"), self.run.traceparent);
        match self
            .run
            .ledger
            .execute::<Deployment>(&self.run.id, command, &meta)
            .await
        {
            Ok(_) => self.recorded = (message, fault),
            // The verdict matters, the words do not.
            Err(error) => tracing::debug!(deployment = %self.run.id, %error, "progress not recorded"),
        }
        self.next = Instant::now() + WORDS_EVERY;
    }
}
