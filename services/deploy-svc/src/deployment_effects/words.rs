//! Records what an effect waits for, without flooding: each time it is an event for everyone who watches.

use std::time::Duration;

use slipway_ledger::Meta;
use slipway_model::Actor;
use tokio::time::{Instant, sleep_until};

use super::Run;
use crate::deployment::{Deployment, DeploymentCommand};

/// Words about progress are recorded at most so often.
const WORDS_EVERY: Duration = Duration::from_secs(1);

/// The words of one effect.
pub(super) struct Words<'a> {
    run: &'a Run,
    recorded: (String, bool),
    pending: Option<(String, bool)>,
    next: Instant,
}

impl<'a> Words<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let state = &run.snapshot.state;
        Self {
            run,
            recorded: (state.progress.clone(), state.fault.is_some()),
            pending: None,
            next: Instant::now(),
        }
    }

    /// What is being waited for; `fault`: since the far side cannot be asked.
    pub(super) async fn say(&mut self, message: String, fault: bool) {
        let words = (message, fault);
        self.pending = (words != self.recorded).then_some(words);
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
