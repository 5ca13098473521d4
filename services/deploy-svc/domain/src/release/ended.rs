//! The end of a step, from which the next one is derived.

use super::{Facts, Reason, StepKind, StepStatus};

/// How a step ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub kind: StepKind,
    pub environment: Option<usize>,
    pub status: StepStatus,
    pub reason: Option<&'a Reason>,
    pub facts: &'a Facts,
    /// Its step backend accepted the order.
    pub ordered: bool,
}
