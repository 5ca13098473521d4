//! The steps of a deployment.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStep {
    /// The change that failed is reverted in git.
    Revert,
    /// Jobs before the change.
    Before,
    #[default]
    Apply,
    Rollout,
    Checks,
    /// Jobs after the rollout.
    After,
    /// Metrics are watched; each measurement is an attempt.
    Bake,
    Evidence,
}

impl fmt::Display for DeploymentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revert => "revert",
            Self::Before => "before",
            Self::Apply => "apply",
            Self::Rollout => "rollout",
            Self::Checks => "checks",
            Self::After => "after",
            Self::Bake => "bake",
            Self::Evidence => "evidence",
        })
    }
}
