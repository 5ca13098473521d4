//! The shape of the catalog file, and nothing of its meaning.

use serde::{Deserialize, de::IgnoredAny};
use slipway_model::{BranchName, ImageName, Name};

use super::{Build, CatalogError, HttpCheck, Supersede, Timeouts, Verify};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) environments: Vec<Name>,
    #[serde(default)]
    pub(super) services: Vec<FileService>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileService {
    pub(super) name: Name,
    pub(super) repository: String,
    pub(super) image: ImageName,
    #[serde(default)]
    pub(super) build: Build,
    #[serde(default)]
    pub(super) branches: Vec<FileBranchRule>,
    pub(super) environments: Vec<FileEnvironment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBranchRule {
    pub(super) pattern: String,
    pub(super) environments: Vec<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEnvironment {
    pub(super) name: Name,
    pub(super) policy: Name,
    #[serde(default)]
    pub(super) gate: Gate,
    pub(super) gitops: FileGitOps,
    pub(super) target: FileTarget,
    #[serde(default)]
    pub(super) supersede: Supersede,
    #[serde(default)]
    pub(super) timeout: Timeouts,
    #[serde(default)]
    pub(super) checks: Vec<FileCheck>,
    #[serde(default)]
    pub(super) verify: Verify,
    /// Watching metrics after the rollout.
    pub(super) bake: Option<IgnoredAny>,
    /// Jobs before and after the rollout.
    pub(super) jobs: Option<IgnoredAny>,
}

/// Where the people stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gate {
    #[default]
    BeforeCommit,
    BeforeSync,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileGitOps {
    pub(super) repository: Name,
    pub(super) branch: Option<BranchName>,
    pub(super) path: String,
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) strategy: Strategy,
    #[serde(default)]
    pub(super) mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    #[default]
    Kustomize,
    Helm,
    Manifest,
    Marker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    #[default]
    Push,
    PullRequest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTarget {
    pub(super) cluster: Name,
    pub(super) namespace: Name,
    #[serde(default)]
    pub(super) kind: Kind,
    pub(super) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) enum Kind {
    #[default]
    Deployment,
    StatefulSet,
    DaemonSet,
    /// Of Argo CD.
    Application,
    /// Of Argo Rollouts.
    Rollout,
    /// Of Flagger.
    Canary,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCheck {
    pub(super) name: Name,
    pub(super) http: Option<HttpCheck>,
    pub(super) grpc: Option<IgnoredAny>,
    pub(super) tcp: Option<IgnoredAny>,
    pub(super) job: Option<IgnoredAny>,
}

/// Parses the YAML into its shape.
pub(super) fn read(text: &str) -> Result<File, CatalogError> {
    let mut path = String::new();
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    })
    .map_err(|error| {
        let location = error.location();
        CatalogError::Shape {
            line: location.map_or(0, |at| at.line()),
            column: location.map_or(0, |at| at.column()),
            path: path.clone(),
            message: message(&error),
        }
    })
}

/// The error's words without the position, which has its own fields.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let position = error
        .location()
        .map(|at| format!(" at line {}, column {}", at.line(), at.column()))
        .unwrap_or_default();
    text.replace(&position, "").trim().to_owned()
}
