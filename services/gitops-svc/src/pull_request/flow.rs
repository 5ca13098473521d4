//! Works on pull requests.

use slipway_ledger::EffectRun;

use crate::change::{Change, Command};

/// One run of an effect of a change that goes by a pull request.
pub(crate) struct Flow<'a> {
    pub(crate) run: &'a EffectRun<Change>,
}

impl Flow<'_> {
    pub(crate) async fn perform(&self) -> Option<Command> {
        tracing::warn!(id = %self.run.id, "not there yet");
        None
    }
}
