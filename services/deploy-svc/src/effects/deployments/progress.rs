//! Records what an effect waits for, without flooding: each record is an event for everyone who watches.

use std::time::Duration;

use deploy_domain::deployment::{Deployment, DeploymentCommand};
use slipway_kubernetes::fault;
use slipway_ledger::{Decider as _, executor::log_retry};
use slipway_model::{Actor, Reason};
use tokio::time::{Instant, sleep_until};

use super::Run;

/// The shortest interval between records of progress.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Progress that is followed by something else this soon is not recorded: the transition of a workload from one state
/// to the next arrives in several pieces, and the verdict should not wait for the ledger to write each.
const SETTLED: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Note {
    Waiting { message: String, human: bool },
    Away(Reason),
}

/// The progress of one effect.
pub(super) struct Progress<'a> {
    run: &'a Run,
    recorded: Note,
    pending: Option<Note>,
    next: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let state = &run.snapshot.state;
        Self {
            run,
            recorded: match &state.fault {
                Some(fault) => Note::Away(fault.clone()),
                None => Note::Waiting {
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
        self.note(Note::Waiting { message, human }).await;
    }

    /// That the cluster cannot be asked.
    pub(super) async fn away(&mut self, message: String) {
        self.note(Note::Away(Reason::new(fault::UNAVAILABLE, message)))
            .await;
    }

    /// It is waiting for a person to act.
    pub(super) async fn ask(&mut self, message: String) {
        let human = true;
        self.note(Note::Waiting { message, human }).await;
    }

    async fn note(&mut self, note: Note) {
        let pending = (note != self.recorded).then_some(note);
        if pending.is_some() && self.pending.is_none() {
            self.next = self.next.max(Instant::now() + SETTLED);
        }
        self.pending = pending;
        if Instant::now() >= self.next {
            self.flush().await;
        }
    }

    /// Ends when something is waiting to be recorded and may be.
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
            Note::Waiting { message, human } => DeploymentCommand::Progress { key, message, human },
            Note::Away(reason) => DeploymentCommand::Away { key, reason },
        };
        match self.run.tell(command, Actor::system("deploy")).await {
            Ok(deployment) => {
                if let Some(retry) = Deployment::retry(&deployment.state) {
                    log_retry(Deployment::KIND, &self.run.id, &retry);
                }
                self.recorded = said;
            }
            // The verdict matters, the progress does not.
            Err(error) => tracing::debug!(deployment = %self.run.id, %error, "progress not recorded"),
        }
        self.next = Instant::now() + RECORD_EVERY;
    }
}
