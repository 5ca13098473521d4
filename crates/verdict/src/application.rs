//! The verdict on an Application of Argo CD, and what is to be done with it next. Only the fields that are looked at
//! are read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use slipway_model::{CommitSha, Timestamp};

use crate::{Expected, UNSEEN, Verdict, progressing};

/// The sync that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Our id of it, carried in `operation.info`.
    pub operation: String,
    /// Exactly this commit.
    pub revision: CommitSha,
}

/// `argoproj.io/v1alpha1` Application.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

/// Judges one Application.
pub fn judge(_expected: &Expected, _live: &Application, _now: Timestamp) -> Verdict {
    progressing(UNSEEN.to_owned())
}
