//! What this installation deploys: one validated YAML of services, their environments, targets, gates and checks.
//!
//! The file is read in two steps. [`file`] defines its shape; serde rejects unknown keys and names line and key.
//! [`validate`] then checks what a shape cannot say, and names the path, such as
//! `services.shop.environments[1].policy`. What exists as a [`Catalog`] is consistent. What only the cluster knows,
//! such as whether an Application really is synced by hand, is checked at deployment.

mod bake;
mod configured;
mod delivery;
mod file;
mod job;
mod shared;
mod steps;
mod validate;
mod version;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
pub use slipway_check::{Check, CheckKind, Fault, GrpcCheck, HttpCheck, Patience, Port, TcpCheck};
use slipway_model::{BranchName, Images, Name, ServiceImage, duration};
pub use slipway_verdict::{Target, Verify, WorkloadKind};

pub use bake::{Bake, Metric};
pub use configured::Configured;
pub use delivery::{Action, ArgoCd, Blocked, Gate, OnFailure, Pauses};
pub use job::{Job, Jobs, time_of};
pub use shared::{Neighbour, Shared};
pub use version::{Latest, Released, VersionTemplate};

/// The largest catalog that is accepted, in bytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Services and environments, fixed at the time it was read. Compare by [`hash`](Self::hash).
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// SHA-256 of the file's bytes, `sha256:` and 64 hexadecimal digits.
    hash: String,
    services: Vec<Service>,
}

/// One service: where its source is, what images it is built into, and where it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: Name,
    /// URL of the source repository, without credentials.
    pub repository: String,
    /// The images it is built into. The short form of the catalog gives its one image the service's name.
    pub images: Images<ServiceImage>,
    pub build: Build,
    /// Which branches release to which environments; the first pattern that matches counts.
    pub branches: Vec<BranchRule>,
    /// In the order of promotion.
    pub environments: Vec<Environment>,
}

/// How the image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The folder in the repository that is the build context; `.` is its root.
    #[serde(default = "dot")]
    pub context: String,
    /// The Dockerfile's path within the context.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Build arguments in addition to those that Slipway sets.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// Name of a builder in build-svc's configuration; if omitted, its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Name>,
    /// The stage of a multi-stage Dockerfile; if omitted, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How long a build may take.
    #[serde(default = "thirty_minutes", with = "duration")]
    pub timeout: Duration,
    /// The version for people: the build argument `VERSION` and the image's label. If omitted, the short commit id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionTemplate>,
    /// Which images are also tagged `latest`.
    #[serde(default, skip_serializing_if = "Latest::is_never")]
    pub latest: Latest,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            context: dot(),
            dockerfile: dockerfile(),
            args: BTreeMap::new(),
            builder: None,
            target: None,
            timeout: thirty_minutes(),
            version: None,
            latest: Latest::Never,
        }
    }
}

/// The environments that commits of matching branches go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchRule {
    pub pattern: BranchPattern,
    /// In the order of promotion.
    pub environments: Vec<Name>,
}

/// A branch name in which `*` stands for any text without `/`, and `**` for any text (as in GitHub's filters).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BranchPattern(String);

impl BranchPattern {
    /// Whether `branch` is one of these. Linear in the length of both for the patterns that people write.
    pub fn matches(&self, branch: &BranchName) -> bool {
        glob(self.0.as_bytes(), branch.as_str().as_bytes())
    }
}

impl fmt::Display for BranchPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        [b'*', rest @ ..] => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|skip| glob(rest, &text[skip..]))
        }
        [byte, rest @ ..] => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

/// One environment of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    pub name: Name,
    /// What the catalog says of the environment for all services.
    pub tier: Option<Tier>,
    /// Environments of the service that come earlier and that a release to this one includes.
    pub requires: Vec<Name>,
    /// Name of a policy of approval-svc; `none` needs no approval.
    pub policy: Name,
    pub gate: Gate,
    /// An earlier environment of the service, in whose commit this one's image is written.
    pub written_with: Option<Name>,
    /// `None`: the image is set in the cluster, and git does not manage it.
    pub gitops: Option<GitOps>,
    pub target: Target,
    /// The target's namespace is made if it does not exist.
    pub create_namespace: bool,
    /// What it has in common with environments of other services.
    pub shared: Shared,
    pub action: Action,
    /// Of an Application.
    pub argo_cd: ArgoCd,
    pub pauses: Pauses,
    /// How long a canary is watched after its release has ended, where that is written.
    pub canary_watch: Option<Duration>,
    pub jobs: Jobs,
    pub bake: Option<Bake>,
    pub on_failure: OnFailure,
    pub supersede: Supersede,
    pub timeout: Timeouts,
    pub checks: Vec<Check>,
    pub verify: Verify,
}

/// What an environment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    Development,
    Test,
    Staging,
    Production,
}

/// Where the wanted image is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitOps {
    /// Name of the repository in gitops-svc's configuration.
    pub repository: Name,
    /// If omitted, the branch that gitops-svc has configured for the repository.
    pub branch: Option<BranchName>,
    /// The folder of the kustomization that is rendered, from the repository's root. If Argo CD renders, it only says
    /// where the image is; for a marker it is empty.
    pub path: String,
    /// The image's name as the manifests write it, which is what kustomize matches.
    pub image: String,
    #[serde(default, skip_serializing_if = "Strategy::is_kustomize")]
    pub strategy: Strategy,
    #[serde(default, skip_serializing_if = "Mode::is_push")]
    pub mode: Mode,
}

/// Which text of the repository names the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Strategy {
    /// The `images` entry of the kustomization at `path`.
    #[default]
    Kustomize,
    /// A value of a Helm values file.
    Helm {
        file: String,
        /// Such as `image` or `web.image.tag`.
        value: String,
    },
    /// The containers of a plain manifest that use the image.
    Manifest { file: String },
    /// An empty commit, for environments that follow a moving tag.
    Marker,
}

impl Strategy {
    fn is_kustomize(&self) -> bool {
        *self == Self::Kustomize
    }
}

/// How the change gets into the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As configured in gitops-svc for the repository, which is a push unless it says otherwise.
    #[default]
    Push,
    /// By a pull request that is followed until it is merged.
    PullRequest,
}

impl Mode {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_push(&self) -> bool {
        *self == Self::Push
    }
}

/// What a newer release does to an older one that is waiting for the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supersede {
    /// Ends the older one if it has changed nothing yet.
    #[default]
    Newest,
    /// Waits until the older one is done.
    Wait,
}

/// How long the steps of one environment may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the request for approval to its expiry.
    #[serde(default = "one_day", with = "duration")]
    pub gate: Duration,
    /// Until the commit is pushed.
    #[serde(default = "ten_minutes", with = "duration")]
    pub change: Duration,
    /// From the beginning of the apply to the last passed check.
    #[serde(default = "ten_minutes", with = "duration")]
    pub deploy: Duration,
    /// `deploy` is not written: it becomes longer by the steps of a canary, which are known when the deployment begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_steps: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            gate: one_day(),
            change: ten_minutes(),
            deploy: ten_minutes(),
            follows_steps: false,
        }
    }
}

/// A name that the catalog does not have, and those that it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} {name:?}{within} in the catalog: {}", there_are(.known))]
pub struct UnknownName {
    /// `service` or `environment`.
    pub what: &'static str,
    pub name: String,
    within: String,
    pub known: Vec<String>,
}

fn there_are(known: &[String]) -> String {
    match known {
        [] => "it is empty".to_owned(),
        names => format!("there are {}", names.join(", ")),
    }
}

/// Why a text is not a valid catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The YAML or its shape: line and column count from 1.
    #[error("line {line}, column {column}: {}{message}", at(.path))]
    Shape {
        line: u64,
        column: u64,
        /// Where in the structure, such as `services[0].environments[1].policy`; empty for the whole.
        path: String,
        message: String,
    },
    /// What is well-formed but inconsistent; every such place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Meaning(Vec<Fault>),
}

fn at(path: &str) -> String {
    match path {
        "" | "." => String::new(),
        path => format!("{path}: "),
    }
}

impl Catalog {
    /// Reads and checks a catalog of at most [`MAX_BYTES`].
    ///
    /// # Errors
    /// [`CatalogError`], naming line and key, or each inconsistent path.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        if text.len() > MAX_BYTES {
            return Err(CatalogError::TooLarge);
        }
        let file = file::read(text)?;
        let services = validate::check(file).map_err(CatalogError::Meaning)?;
        Ok(Self {
            hash: format!("sha256:{}", hex::encode(Sha256::digest(text))),
            services,
        })
    }

    /// SHA-256 of the file's bytes: `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// All services, as the file orders them.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of that name.
    ///
    /// # Errors
    /// [`UnknownName`], which lists the services there are.
    pub fn service(&self, name: &str) -> Result<&Service, UnknownName> {
        find("service", name, String::new(), &self.services, |s| &s.name)
    }
}

impl Service {
    /// The service's environment of that name.
    ///
    /// # Errors
    /// [`UnknownName`], which lists the service's environments.
    pub fn environment(&self, name: &str) -> Result<&Environment, UnknownName> {
        let within = format!(" of service {}", self.name);
        find("environment", name, within, &self.environments, |e| &e.name)
    }

    /// The environments that commits of `branch` go to; `None` when no rule names the branch.
    pub fn environments_of(&self, branch: &BranchName) -> Option<&[Name]> {
        let rule = self.branches.iter().find(|rule| rule.pattern.matches(branch))?;
        Some(&rule.environments)
    }
}

fn find<'a, T>(
    what: &'static str,
    name: &str,
    within: String,
    all: &'a [T],
    name_of: impl Fn(&T) -> &Name,
) -> Result<&'a T, UnknownName> {
    all.iter()
        .find(|one| name_of(one).as_str() == name)
        .ok_or_else(|| UnknownName {
            what,
            // A wrong name comes from outside: it is truncated, so that an error never carries a whole upload.
            name: name.chars().take(120).collect(),
            within,
            known: all.iter().map(|one| name_of(one).to_string()).collect(),
        })
}

fn dot() -> String {
    ".".to_owned()
}
fn dockerfile() -> String {
    "Dockerfile".to_owned()
}
const fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}
const fn thirty_minutes() -> Duration {
    Duration::from_secs(1800)
}
const fn one_day() -> Duration {
    Duration::from_secs(86_400)
}
