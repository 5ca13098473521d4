//! The shape of the catalog file; its meaning is checked elsewhere.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use slipway_model::{BranchName, ImageName, Name, ServiceImage, duration};

use super::{
    Action, ArgoCd, Bake, Build, CatalogError, Gate, GrpcCheck, HttpCheck, Jobs, Mode, OnFailure, Pauses,
    Supersede, TcpCheck, Tier, Verify, WorkloadKind,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) environments: Vec<Declared>,
    #[serde(default)]
    pub(super) services: Vec<FileService>,
}

/// One of the catalog's environments: `prod`, or `{ name: prod, tier: production }`.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: Name,
    pub(super) tier: Option<Tier>,
}

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            name: Name,
            tier: Option<Tier>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Declared;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an environment's name, or {name: NAME, tier: TIER}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Declared, E> {
                let name = text.parse().map_err(E::custom)?;
                Ok(Declared { name, tier: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Declared, A::Error> {
                let Long { name, tier } = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Declared { name, tier })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A key that has a meaning but is not supported yet: whether it is present, with any value or none.
#[derive(Debug, Default)]
pub(super) struct Reserved(pub(super) bool);

impl<'de> Deserialize<'de> for Reserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileService {
    pub(super) name: Name,
    pub(super) repository: String,
    /// The repository of the service's one image; or else `images`.
    pub(super) image: Option<ImageName>,
    pub(super) images: Option<Vec<ServiceImage>>,
    #[serde(default)]
    pub(super) build: Build,
    #[serde(default)]
    pub(super) branches: Vec<FileBranchRule>,
    #[serde(default)]
    pub(super) depends_on: Reserved,
    #[serde(default)]
    pub(super) ci: Reserved,
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
    /// Environments of this service that come before it in a release.
    #[serde(default)]
    pub(super) requires: Vec<Name>,
    #[serde(default)]
    pub(super) depends_on: Reserved,
    #[serde(default)]
    pub(super) ci: Reserved,
    #[serde(default)]
    pub(super) gate: Gate,
    /// An earlier environment of this service whose commit writes this one's image as well.
    pub(super) written_with: Option<Name>,
    /// If omitted, the image is set in the cluster, and git does not manage it.
    pub(super) gitops: Option<FileGitOps>,
    pub(super) target: FileTarget,
    #[serde(default)]
    pub(super) action: Action,
    /// For an Application. Present and empty is not the same as absent.
    pub(super) argo_cd: Option<ArgoCd>,
    /// For a Rollout or Canary.
    pub(super) pauses: Option<Pauses>,
    /// For a Rollout or Canary, also inside an Application.
    #[serde(default, with = "duration::option")]
    pub(super) canary_watch: Option<Duration>,
    /// Jobs before and after the rollout.
    #[serde(default)]
    pub(super) jobs: Jobs,
    #[serde(default)]
    pub(super) checks: Vec<FileCheck>,
    /// Watching metrics after the rollout.
    pub(super) bake: Option<Bake>,
    #[serde(default)]
    pub(super) verify: Verify,
    #[serde(default)]
    pub(super) on_failure: OnFailure,
    #[serde(default)]
    pub(super) supersede: Supersede,
    #[serde(default)]
    pub(super) timeout: FileTimeouts,
}

/// `Timeouts`, and whether they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTimeouts {
    #[serde(default, with = "duration::option")]
    pub(super) gate: Option<Duration>,
    #[serde(default, with = "duration::option")]
    pub(super) change: Option<Duration>,
    #[serde(default, with = "duration::option")]
    pub(super) deploy: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileGitOps {
    pub(super) repository: Name,
    pub(super) branch: Option<BranchName>,
    /// The folder that is rendered; required if anything is.
    pub(super) path: Option<String>,
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) strategy: Strategy,
    /// The file that names the image: Helm values, or a plain manifest.
    pub(super) file: Option<String>,
    /// The path of the image within Helm values.
    pub(super) value: Option<String>,
    #[serde(default)]
    pub(super) mode: Mode,
}

/// Everything besides its name is in separate keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    #[default]
    Kustomize,
    Helm,
    Manifest,
    Marker,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTarget {
    pub(super) cluster: Name,
    pub(super) namespace: Name,
    #[serde(default = "deployment")]
    pub(super) kind: WorkloadKind,
    pub(super) name: String,
    /// The namespace is made if it does not exist.
    #[serde(default)]
    pub(super) create_namespace: bool,
}

const fn deployment() -> WorkloadKind {
    WorkloadKind::Deployment
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCheck {
    pub(super) name: Name,
    pub(super) http: Option<HttpCheck>,
    pub(super) grpc: Option<GrpcCheck>,
    pub(super) tcp: Option<TcpCheck>,
    /// Not a kind of check; see `jobs`.
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

/// The error's message without the position, which has its own fields.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let position = error
        .location()
        .map(|at| format!(" at line {}, column {}", at.line(), at.column()))
        .unwrap_or_default();
    text.replace(&position, "").trim().to_owned()
}
