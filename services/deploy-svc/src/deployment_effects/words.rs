//! Records what an effect waits for, without flooding: each time it is an event for everyone who watches.

use std::time::Duration;

use slipway_kubernetes::fault;
use slipway_ledger::{Decider as _, executor::log_retry};
use slipway_model::{Actor, Reason};
use tokio::time::{Instant, sleep_until};

use super::Run;
use crate::deployment::{Deployment, DeploymentCommand};

/// Words about progress are recorded at most so often.
const WORDS_EVERY: Duration = Duration::from_secs(1);
/// Words that something else follows so soon are not recorded: what a workload shows on its way from one state to the
/// next comes in several pieces, and the verdict is not to wait for the ledger to take each.
const SETTLED: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Waiting { message: String, human: bool },
    Away(Reason),
}

/// The words of one effect.
pub(super) struct Words<'a> {
    run: &'a Run,
    recorded: Said,
    pending: Option<Said>,
    next: Instant,
}

impl<'a> Words<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let state = &run.snapshot.state;
        Self {
            run,
            recorded: match &state.fault {
                Some(fault) => Said::Away(fault.clone()),
                None => Said::Waiting {
                    message: state.progress.clone(),
                    human: state.human,
                },
            },
            pending: None,
            next: Instant::now(),
        }
    }

    /// What is being waited for.
    pub(super) async fn say(&mut self, message: String) {
        let human = false;
        self.note(Said::Waiting { message, human }).await;
    }

    /// That the cluster cannot be asked.
    pub(super) async fn away(&mut self, message: String) {
        self.note(Said::Away(Reason::new(fault::UNAVAILABLE, message)))
            .await;
    }

    /// That somebody's word is waited for.
    pub(super) async fn ask(&mut self, message: String) {
        let human = true;
        self.note(Said::Waiting { message, human }).await;
    }

    async fn note(&mut self, words: Said) {
        let pending = (words != self.recorded).then_some(words);
        if pending.is_some() && self.pending.is_none() {
            self.next = self.next.max(Instant::now() + SETTLED);
        }
        self.pending = pending;
        if Instant::now() >= self.next {
            self.flush().await;
        }
    }

    /// Ends when something waits to be recorded and may be.
    pub(super) async fn due(&self) {
        match self.pending {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn flush(&mut self) {
        let Some(said) = self.pending.take() else {
            return;
        };
        let key = self.run.key.clone();
        let command = match said.clone() {
            Said::Waiting { message, human } => DeploymentCommand::Progress { key, message, human },
            Said::Away(reason) => DeploymentCommand::Away { key, reason },
        };
        match self.run.tell(command, Actor::system("deploy")).await {
            Ok(deployment) => {
                if let Some(retry) = Deployment::retry(&deployment.state) {
                    log_retry(Deployment::KIND, &self.run.id, &retry);
                }
                self.recorded = said;
            }
            // The verdict matters, the words do not.
            Err(error) => tracing::debug!(deployment = %self.run.id, %error, "progress not recorded"),
        }
        self.next = Instant::now() + WORDS_EVERY;
    }
}
