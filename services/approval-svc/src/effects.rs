//! An approval waits for people and for time. The executor keeps its timer; nothing else has to be carried out.

use approval_domain::approval::{Approval, Command};
use async_trait::async_trait;
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, Reason};

/// Recorded as the author of expiries.
#[derive(Debug)]
pub(crate) struct Timers;

#[async_trait]
impl Effects<Approval> for Timers {
    async fn perform(&self, run: EffectRun<Approval>) -> Result<Option<Command>, Reason> {
        match run.effect {}
    }

    fn actor(&self) -> Actor {
        Actor::system("approval-timer")
    }
}
