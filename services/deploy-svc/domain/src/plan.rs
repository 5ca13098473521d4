//! The plan of a release: everything it will do, made from the catalog when it starts and fixed from then on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_model::{BranchName, CommitSha, GitTag, Id, Images, Name, ServiceImage, duration};

use crate::catalog::{
    Action, ArgoCd, Bake, Build, Catalog, Check, Configured, Environment, Gate, GitOps, Jobs, OnFailure,
    Pauses, Released, Service, Shared, Supersede, Target, Tier, Timeouts, UnknownName, Verify,
};

/// How long a canary is watched after its release has ended, where the catalog does not say it.
const CANARY_WATCH: Duration = Duration::from_secs(3600);
/// The policy that needs no approval.
pub const NO_POLICY: &str = "none";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub service: Name,
    pub commit: CommitSha,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Of the commit; it becomes a tag of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_tag: Option<GitTag>,
    pub repository_url: String,
    pub images: Images<ServiceImage>,
    pub build: Build,
    /// What the version's template comes to; empty: the short commit id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// In the order of promotion; at least one.
    pub environments: Vec<PlannedEnvironment>,
    pub catalog_hash: String,
    /// SHA-256 over all of the above: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedEnvironment {
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Earlier environments of this plan that the catalog requires for a release to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Name>,
    pub policy: Name,
    #[serde(default, skip_serializing_if = "is_default")]
    pub gate: Gate,
    /// The environment of this plan whose change writes this one's image as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_with: Option<Name>,
    /// `None`: the image is set in the cluster, and git does not manage it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitops: Option<GitOps>,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Shared::is_empty")]
    pub shared: Shared,
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_namespace: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub action: Action,
    #[serde(default, skip_serializing_if = "is_default")]
    pub argo_cd: ArgoCd,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pauses: Pauses,
    /// How long its canary is watched after the release has ended, where the catalog says so.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration::option")]
    pub canary_watch: Option<Duration>,
    #[serde(default, skip_serializing_if = "Jobs::is_empty")]
    pub jobs: Jobs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// A newer release may supersede this one while it has changed nothing here.
    pub yields: bool,
    pub timeout: Timeouts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    pub verify: Verify,
}

/// What is to be released.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanRequest {
    pub service: String,
    pub commit: CommitSha,
    pub branch: Option<BranchName>,
    pub git_tag: Option<GitTag>,
    /// Empty: those of the branch, or all when no branch is given.
    pub environments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    #[error(
        "branch {branch} matches none of the branches of service {service} in the catalog: name the environments, or add a pattern"
    )]
    BranchReleasesNothing { service: Name, branch: BranchName },
    #[error("service {0} has no environments in the catalog")]
    NoEnvironments(Name),
    #[error(
        "the version of service {service} is made from {placeholder}, which this release does not have: name its {}, or write an alternative in build.version, such as {{{{{placeholder}|short_commit}}}}",
        what(.placeholder)
    )]
    NoVersion { service: Name, placeholder: String },
    #[error(
        "environment {environment} requires {}, which this release leaves out: add {}, or leave {environment} out",
        all(.requires), all(.add)
    )]
    LeftOut {
        environment: Name,
        /// What it requires and the release does not include.
        requires: Vec<Name>,
        /// Everything to add so that the release includes what its environments require.
        add: Vec<Name>,
    },
}

/// What a release has to name for a placeholder.
fn what(placeholder: &str) -> String {
    let names = placeholder.split('|').map(|name| match name.trim() {
        "git_tag" => "Git tag (--git-tag)",
        _ => "branch (--branch)",
    });
    names.collect::<Vec<_>>().join(" or ")
}

fn all(names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    names.join(" and ")
}

impl Plan {
    /// What will keep its release from succeeding, as far as the names say; with the remedy.
    pub fn warnings(&self, configured: &Configured) -> Vec<String> {
        let image = &self.images.only().repository;
        if image.registry().is_some() {
            return Vec::new();
        }
        let mut clusters: Vec<&str> = self
            .environments
            .iter()
            .map(|planned| &planned.target.cluster)
            .filter(|cluster| !configured.image_folders.contains(cluster))
            .map(Name::as_str)
            .collect();
        clusters.sort_unstable();
        clusters.dedup();
        if clusters.is_empty() {
            return Vec::new();
        }
        let (noun, verb) = match clusters.len() {
            1 => ("cluster", "pulls"),
            _ => ("clusters", "pull"),
        };
        vec![format!(
            "image {image} has no registry host, so build-svc keeps it in a folder, but {noun} {} {verb} images from a \
             registry: name one in the catalog (image: registry.example/team/{image}), and add it to `registries` in the \
             configuration of build-svc ({{ prefix: registry.example/team, kind: oci, username: USER, password_file: FILE }})",
            clusters.join(", ")
        )]
    }

    /// Plans `request` according to `catalog`.
    ///
    /// # Errors
    /// A service or environment that the catalog does not have, a branch that is not released anywhere, or environments
    /// without those that they require.
    pub fn make(catalog: &Catalog, request: &PlanRequest) -> Result<Self, PlanError> {
        let service = catalog.service(&request.service)?;
        let chosen = chosen(service, request)?;
        if chosen.is_empty() {
            return Err(PlanError::NoEnvironments(service.name.clone()));
        }
        check_required(service, &chosen)?;
        let version = version(service, request)?;
        let plan = Self {
            service: service.name.clone(),
            commit: request.commit.clone(),
            branch: request.branch.clone(),
            git_tag: request.git_tag.clone(),
            repository_url: service.repository.clone(),
            images: service.images.clone(),
            build: service.build.clone(),
            version,
            environments: together(chosen.into_iter().map(planned).collect()),
            catalog_hash: catalog.hash().to_owned(),
            hash: String::new(),
        };
        Ok(plan.hashed())
    }

    /// The environments that the change of this one writes as well, in the order of promotion.
    pub fn written_by(&self, environment: &Name) -> impl Iterator<Item = (usize, &PlannedEnvironment)> {
        let all = self.environments.iter().enumerate();
        all.filter(move |(_, planned)| planned.written_with.as_ref() == Some(environment))
    }

    /// Whether the image is also tagged `latest`.
    pub fn is_latest(&self) -> bool {
        self.build.latest.includes(self.branch.as_ref())
    }

    /// With the hash of what it contains.
    #[must_use]
    pub fn hashed(mut self) -> Self {
        self.hash.clear();
        // Field order and map order are fixed, so the text is canonical for this type.
        let text = serde_json::to_vec(&self).unwrap_or_default();
        self.hash = format!("sha256:{}", hex::encode(Sha256::digest(text)));
        self
    }
}

fn version(service: &Service, request: &PlanRequest) -> Result<String, PlanError> {
    let Some(template) = &service.build.version else {
        return Ok(String::new());
    };
    let released = Released {
        commit: &request.commit,
        branch: request.branch.as_ref(),
        git_tag: request.git_tag.as_ref(),
    };
    template
        .fill(released)
        .map_err(|placeholder| PlanError::NoVersion {
            service: service.name.clone(),
            placeholder,
        })
}

impl PlannedEnvironment {
    /// The lanes that are held while it is changed, in the order in which they are entered: the same for all that
    /// share some of them, so that none waits for another in a circle.
    ///
    /// # Errors
    /// A target whose names are too long for an id, which the catalog does not allow.
    pub fn lanes(&self) -> Result<Vec<Id>, slipway_model::Invalid> {
        lanes(&self.target, &self.shared)
    }

    /// How long its canary is watched after the release has ended; `None`: there is nothing to watch.
    pub fn watches_canary_for(&self) -> Option<Duration> {
        let period = self.canary_watch.unwrap_or(CANARY_WATCH);
        (self.target.kind.may_have_steps() && !period.is_zero()).then_some(period)
    }

    /// Whether no approval is needed.
    pub fn requires_no_approval(&self) -> bool {
        self.policy.as_str() == NO_POLICY
    }
}

/// The lanes of a target and of what it shares, in the order in which they are entered.
///
/// # Errors
/// A target whose names are too long for an id, which the catalog does not allow.
pub fn lanes(target: &Target, shared: &Shared) -> Result<Vec<Id>, slipway_model::Invalid> {
    let mut lanes = shared.lanes.clone();
    lanes.push(target.key().parse()?);
    lanes.sort();
    lanes.dedup();
    Ok(lanes)
}

fn chosen<'a>(service: &'a Service, request: &PlanRequest) -> Result<Vec<&'a Environment>, PlanError> {
    let mut names: Vec<String> = request.environments.clone();
    if names.is_empty()
        && let Some(branch) = &request.branch
    {
        let of_branch = service
            .environments_of(branch)
            .ok_or_else(|| PlanError::BranchReleasesNothing {
                service: service.name.clone(),
                branch: branch.clone(),
            })?;
        names = of_branch.iter().map(ToString::to_string).collect();
    }
    for name in &names {
        service.environment(name)?;
    }
    let is_wanted = |environment: &&Environment| {
        names.is_empty() || names.iter().any(|name| *name == environment.name.as_str())
    };
    Ok(service.environments.iter().filter(is_wanted).collect())
}

/// Rejects environments without those that they require, and names all that have to be added.
fn check_required(service: &Service, chosen: &[&Environment]) -> Result<(), PlanError> {
    let mut names: Vec<&Name> = chosen.iter().map(|environment| &environment.name).collect();
    let left_out = |environment: &Environment, names: &[&Name]| -> Vec<Name> {
        let required = environment.requires.iter();
        required.filter(|name| !names.contains(name)).cloned().collect()
    };
    let Some((environment, requires)) = chosen
        .iter()
        .map(|environment| (&environment.name, left_out(environment, &names)))
        .find(|(_, requires)| !requires.is_empty())
    else {
        return Ok(());
    };
    // Required environments come earlier, so that one pass from the last to the first finds all.
    let mut add = Vec::new();
    for environment in service.environments.iter().rev() {
        if names.contains(&&environment.name) {
            let required = environment.requires.iter().filter(|name| !names.contains(name));
            let required: Vec<&Name> = required.collect();
            add.extend(required.iter().copied().cloned());
            names.extend(required);
        }
    }
    let place = |name: &Name| service.environments.iter().position(|one| one.name == *name);
    add.sort_by_key(place);
    Err(PlanError::LeftOut {
        environment: environment.clone(),
        requires,
        add,
    })
}

/// Of environments that are written together, the first one of the plan has the change: the catalog's may be left out.
fn together(mut environments: Vec<PlannedEnvironment>) -> Vec<PlannedEnvironment> {
    let group = |planned: &PlannedEnvironment| {
        let leader = planned.written_with.as_ref();
        leader.unwrap_or(&planned.name).clone()
    };
    let groups: Vec<Name> = environments.iter().map(group).collect();
    let names: Vec<Name> = environments.iter().map(|planned| planned.name.clone()).collect();
    for (index, planned) in environments.iter_mut().enumerate() {
        let first = groups.iter().position(|other| *other == groups[index]);
        planned.written_with = first
            .filter(|first| *first < index)
            .and_then(|first| names.get(first).cloned());
    }
    environments
}

fn planned(environment: &Environment) -> PlannedEnvironment {
    PlannedEnvironment {
        name: environment.name.clone(),
        tier: environment.tier,
        requires: environment.requires.clone(),
        policy: environment.policy.clone(),
        gate: environment.gate,
        written_with: environment.written_with.clone(),
        gitops: environment.gitops.clone(),
        target: environment.target.clone(),
        create_namespace: environment.create_namespace,
        shared: environment.shared.clone(),
        action: environment.action,
        argo_cd: environment.argo_cd.clone(),
        pauses: environment.pauses,
        canary_watch: environment.canary_watch,
        jobs: environment.jobs.clone(),
        bake: environment.bake.clone(),
        on_failure: environment.on_failure,
        yields: environment.supersede == Supersede::Newest,
        timeout: environment.timeout,
        checks: environment.checks.clone(),
        verify: environment.verify,
    }
}

/// Additions to plans are not serialised when they have no effect, so that older plans keep their hash.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
