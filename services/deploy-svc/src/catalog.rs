//! What this installation deploys: one validated YAML of services, their environments, targets, gates and checks.
//!
//! The file is read in two steps. [`file`] holds its shape; serde refuses unknown keys and names line and key.
//! [`validate`] then checks what a shape cannot say, and names the path, such as
//! `services.shop.environments[1].policy`. What exists as a [`Catalog`] is consistent. What the schema has a place
//! for and this version cannot do (Argo CD, other workloads, a gate before the sync, …) is refused there with the
//! words "not supported yet".

pub mod duration;
mod file;
mod store;
mod validate;

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_model::{BranchName, ImageName, Name};

pub use store::{CatalogStore, Problem as CatalogReadError};

/// The largest catalog that is read, in bytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Services and environments, fixed at the time it was read. Compare by [`hash`](Self::hash).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// SHA-256 of the file's bytes, `sha256:` and 64 hexadecimal digits.
    hash: String,
    environments: Vec<Name>,
    services: Vec<Service>,
}

/// One service: where its source is, what image it becomes, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: Name,
    /// URL of the source repository, without credentials.
    pub repository: String,
    /// The image's name without tag.
    pub image: ImageName,
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
    /// Folder of the repository that is the build context; `.` is its root.
    #[serde(default = "dot")]
    pub context: String,
    /// The Dockerfile's path within the context.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Build arguments beside those that Slipway sets.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// Name of a builder in build-svc's configuration; left out, its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Name>,
    /// The stage of a multi-stage Dockerfile; left out, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How long a build may take.
    #[serde(default = "thirty_minutes", with = "duration")]
    pub timeout: Duration,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub name: Name,
    /// Name of a policy of approval-svc; `none` asks nobody.
    pub policy: Name,
    pub gitops: GitOps,
    pub target: Target,
    pub supersede: Supersede,
    pub timeout: Timeouts,
    pub checks: Vec<Check>,
    pub verify: Verify,
}

/// Where the wanted image is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitOps {
    /// Name of the repository in gitops-svc's configuration.
    pub repository: Name,
    /// Left out, the branch that gitops-svc has configured for the repository.
    pub branch: Option<BranchName>,
    /// The kustomization's folder, from the repository's root.
    pub path: String,
    /// The image's name as the manifests write it, which is what kustomize matches.
    pub image: String,
}

/// The thing in a cluster that a release replaces. Its [`key`](Self::key) names its lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Name of a cluster in this service's configuration.
    pub cluster: Name,
    pub namespace: Name,
    pub kind: WorkloadKind,
    pub name: String,
}

impl Target {
    /// `cluster/namespace/kind/name`.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.cluster, self.namespace, self.kind, self.name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

/// The kinds of workload that this version deploys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    Deployment,
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment => f.write_str("Deployment"),
        }
    }
}

/// What a newer release does to an older one that waits for the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supersede {
    /// Ends the older one if it has changed nothing yet.
    #[default]
    Newest,
    /// Waits until the older one is through.
    Wait,
}

/// How long the steps of one environment may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            gate: one_day(),
            change: ten_minutes(),
            deploy: ten_minutes(),
        }
    }
}

/// How the rollout is judged beyond what `kubectl rollout status` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Fail as soon as a pod of the new template has a fault that does not heal by itself.
    #[serde(default = "yes")]
    pub fail_early: bool,
    /// How often a container may have restarted before a crash loop counts as such a fault.
    #[serde(default = "three")]
    pub crash_loop_restarts: u32,
    /// How long a pod may find no node before that counts as such a fault.
    #[serde(default = "five_minutes", with = "duration")]
    pub unschedulable_after: Duration,
    /// Require that the running containers' image digest is the one deployed.
    #[serde(default = "yes")]
    pub digest: bool,
}

impl Verify {
    /// Only what kubectl looks at.
    pub const AS_KUBECTL: Self = Self {
        fail_early: false,
        crash_loop_restarts: u32::MAX,
        unschedulable_after: Duration::MAX,
        digest: false,
    };
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            fail_early: yes(),
            crash_loop_restarts: three(),
            unschedulable_after: five_minutes(),
            digest: yes(),
        }
    }
}

/// Something that must answer before a deployment counts as verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: Name,
    #[serde(flatten)]
    pub kind: CheckKind,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    Http(HttpCheck),
}

/// A GET through the API server's service proxy, in the target's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Name of the Service.
    pub service: Name,
    /// Its port, by name or number.
    pub port: Port,
    #[serde(default = "slash")]
    pub path: String,
    #[serde(default = "ok")]
    pub expect_status: u16,
    /// A text that the first 64 KiB of the body must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// How often it is asked before the answer is no.
    #[serde(default = "ten")]
    pub attempts: u32,
    /// For one attempt.
    #[serde(default = "two_seconds", with = "duration")]
    pub timeout: Duration,
    /// Between the end of one attempt and the next.
    #[serde(default = "half_a_second", with = "duration")]
    pub interval: Duration,
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Number(u16),
    Name(Name),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// A name that the catalog does not have, and those it has.
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

/// Why a catalog is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The YAML or its shape: line and column count from 1.
    #[error("line {line}, column {column}: {}{message}", at(.path))]
    Shape {
        line: u64,
        column: u64,
        /// Where in the structure, such as `services[0].environments[1].policy`; empty for the whole.
        path: String,
        message: String,
    },
    /// What is well-formed and yet makes no sense; every such place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Meaning(Vec<Fault>),
}

fn at(path: &str) -> String {
    match path {
        "" | "." => String::new(),
        path => format!("{path}: "),
    }
}

/// One place of a catalog that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// Such as `services.shop.environments[1].policy`.
    pub path: String,
    pub message: String,
}

impl Catalog {
    /// Reads and checks a catalog.
    ///
    /// # Errors
    /// [`CatalogError`], naming line and key, or each path that makes no sense.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let file = file::read(text)?;
        let (environments, services) = validate::check(file).map_err(CatalogError::Meaning)?;
        Ok(Self {
            hash: format!("sha256:{}", hex::encode(Sha256::digest(text))),
            environments,
            services,
        })
    }

    /// Reads and checks a catalog file of at most [`MAX_BYTES`].
    ///
    /// # Errors
    /// When the file cannot be read or is not a catalog; the path is named.
    pub fn read(path: &Path) -> Result<Self, CatalogReadError> {
        store::read(path)
    }

    /// SHA-256 of the file's bytes: `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// All environments, in the order of promotion.
    pub fn environments(&self) -> &[Name] {
        &self.environments
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
            // A wrong name comes from outside: cut, so that an error never carries a whole upload.
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
fn slash() -> String {
    "/".to_owned()
}
const fn yes() -> bool {
    true
}
const fn ok() -> u16 {
    200
}
const fn three() -> u32 {
    3
}
const fn ten() -> u32 {
    10
}
const fn half_a_second() -> Duration {
    Duration::from_millis(500)
}
const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}
const fn five_minutes() -> Duration {
    Duration::from_secs(300)
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
