//! Approvals wait for people and for time. Time is the executor's to keep; there is nothing else to do for them.

use async_trait::async_trait;
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, Reason};

use crate::approval::{Approval, Command};

/// Recorded as the author of expiries.
#[derive(Debug)]
pub struct Timers;

#[async_trait]
impl Effects<Approval> for Timers {
    async fn perform(&self, run: EffectRun<Approval>) -> Result<Option<Command>, Reason> {
        match run.effect {}
    }

    fn actor(&self) -> Actor {
        Actor::system("approval-timer")
    }
}
