//! What the shape of the catalog cannot say: references that must resolve, limits, and what is not supported yet.

use std::{collections::HashMap, time::Duration};

use slipway_model::{BranchName, Name};

use super::{
    BranchPattern, BranchRule, Build, Check, CheckKind, Environment, Fault, GitOps, HttpCheck, Service,
    Target, Timeouts, WorkloadKind,
    file::{
        File, FileBranchRule, FileCheck, FileEnvironment, FileGitOps, FileService, FileTarget, Gate, Kind,
        Mode, Strategy,
    },
};

const HOUR: Duration = Duration::from_secs(3600);
/// The longest that build-svc lets a build run.
const MAX_BUILD: Duration = HOUR.saturating_mul(6);
const MAX_GATE: Duration = HOUR.saturating_mul(24 * 30);
const MAX_STEP: Duration = HOUR.saturating_mul(24);
/// Attempts × (timeout + interval) of one check stays below this, so that a check cannot outlive its deployment unseen.
const MAX_CHECK: Duration = HOUR;

/// Collects every fault, so that a person fixes them in one go.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            message: message.into(),
        });
    }

    fn unsupported(&mut self, path: impl Into<String>, what: &str, instead: &str) {
        self.add(path, format!("{what} is not supported yet: {instead}"));
    }

    fn require(&mut self, holds: bool, path: impl Into<String>, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    fn period(&mut self, path: String, value: Duration, max: Duration) {
        if value.is_zero() || value > max {
            self.add(
                path,
                format!("must be more than 0 s and at most {} s", max.as_secs()),
            );
        }
    }
}

pub(super) fn check(file: File) -> Result<(Vec<Name>, Vec<Service>), Vec<Fault>> {
    let mut faults = Faults::default();
    faults.require(
        !file.environments.is_empty(),
        "environments",
        "name at least one environment",
    );
    duplicates(&file.environments, "environments", &mut faults);
    let names: Vec<Name> = file.services.iter().map(|service| service.name.clone()).collect();
    duplicates(&names, "services", &mut faults);
    let order: HashMap<Name, usize> = file.environments.iter().cloned().zip(0..).collect();
    let services = file
        .services
        .into_iter()
        .map(|service| check_service(service, &order, &mut faults))
        .collect();
    if faults.0.is_empty() {
        Ok((file.environments, services))
    } else {
        Err(faults.0)
    }
}

fn duplicates(names: &[Name], path: &str, faults: &mut Faults) {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            faults.add(
                format!("{path}[{index}]"),
                format!("{name} is there already: names must be unique"),
            );
        }
    }
}

fn check_service(service: FileService, order: &HashMap<Name, usize>, faults: &mut Faults) -> Service {
    let path = format!("services.{}", service.name);
    check_repository(&service.repository, &format!("{path}.repository"), faults);
    check_build(&service.build, &format!("{path}.build"), faults);

    faults.require(
        !service.environments.is_empty(),
        format!("{path}.environments"),
        "name at least one environment",
    );
    let names: Vec<Name> = service.environments.iter().map(|e| e.name.clone()).collect();
    duplicates(&names, &format!("{path}.environments"), faults);
    let branches = service
        .branches
        .into_iter()
        .enumerate()
        .map(|(index, rule)| check_rule(rule, &format!("{path}.branches[{index}]"), &names, order, faults))
        .collect();
    let mut environments: Vec<Environment> = Vec::new();
    for (index, environment) in service.environments.into_iter().enumerate() {
        let path = format!("{path}.environments[{index}]");
        if !order.contains_key(&environment.name) {
            let known: Vec<&str> = sorted(order);
            faults.add(
                format!("{path}.name"),
                format!(
                    "{} is not one of the catalog's environments: {}",
                    environment.name,
                    known.join(", ")
                ),
            );
        }
        let environment = check_environment(environment, &path, service.image.as_str(), faults);
        if let Some(other) = environments
            .iter()
            .find(|other| other.target == environment.target)
        {
            faults.add(
                format!("{path}.target"),
                format!(
                    "is the target of environment {} already: each needs its own",
                    other.name
                ),
            );
        }
        environments.push(environment);
    }
    environments.sort_by_key(|environment| order.get(&environment.name).copied());
    Service {
        name: service.name,
        repository: service.repository,
        image: service.image,
        build: service.build,
        branches,
        environments,
    }
}

fn sorted(order: &HashMap<Name, usize>) -> Vec<&str> {
    let mut known: Vec<(&usize, &str)> = order.iter().map(|(name, at)| (at, name.as_str())).collect();
    known.sort_unstable();
    known.into_iter().map(|(_, name)| name).collect()
}

fn check_repository(url: &str, path: &str, faults: &mut Faults) {
    let printable = !url.is_empty() && url.len() <= 2000 && url.bytes().all(|b| b.is_ascii_graphic());
    faults.require(
        printable && !url.starts_with('-'),
        path,
        "write an https, ssh or file URL of a git repository",
    );
    // A password in a URL would end up in logs and image labels.
    let authority = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let user_info = authority.rsplit_once('@').map_or("", |(user, _)| user);
    faults.require(
        !user_info.contains(':'),
        path,
        "must not hold a password: give build-svc credentials in its own configuration",
    );
}

fn check_build(build: &Build, path: &str, faults: &mut Faults) {
    check_path(&build.context, &format!("{path}.context"), faults);
    check_path(&build.dockerfile, &format!("{path}.dockerfile"), faults);
    faults.period(format!("{path}.timeout"), build.timeout, MAX_BUILD);
    for name in build.args.keys() {
        let ok = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !ok {
            faults.add(
                format!("{path}.args"),
                format!("{name:?} is not a build argument's name: use A-Z, a-z, 0-9 and _"),
            );
        }
    }
}

/// A path that stays inside its repository.
fn check_path(text: &str, path: &str, faults: &mut Faults) {
    let confined = !text.is_empty()
        && text.len() <= 1000
        && !text.starts_with(['/', '-'])
        && !text.contains(['\\', '\0', '\n'])
        && text.split('/').all(|part| part != "..");
    faults.require(
        confined,
        path,
        "must be a path within the repository, without a leading / and without ..",
    );
}

fn check_rule(
    rule: FileBranchRule,
    path: &str,
    names: &[Name],
    order: &HashMap<Name, usize>,
    faults: &mut Faults,
) -> BranchRule {
    // What remains without its wildcards must be able to be a branch.
    let plain = rule.pattern.replace('*', "x");
    faults.require(
        plain.parse::<BranchName>().is_ok() && rule.pattern.matches('*').count() <= 4,
        format!("{path}.pattern"),
        "write a branch name in which * stands for any text without /, and ** for any text; at most four *",
    );
    faults.require(
        !rule.environments.is_empty(),
        format!("{path}.environments"),
        "name at least one environment",
    );
    duplicates(&rule.environments, &format!("{path}.environments"), faults);
    for (index, name) in rule.environments.iter().enumerate() {
        if !names.contains(name) {
            let known: Vec<&str> = names.iter().map(Name::as_str).collect();
            faults.add(
                format!("{path}.environments[{index}]"),
                format!(
                    "{name} is not one of this service's environments: {}",
                    known.join(", ")
                ),
            );
        }
    }
    let mut environments = rule.environments;
    environments.sort_by_key(|name| order.get(name).copied());
    BranchRule {
        pattern: BranchPattern(rule.pattern),
        environments,
    }
}

fn check_environment(
    environment: FileEnvironment,
    path: &str,
    image: &str,
    faults: &mut Faults,
) -> Environment {
    if environment.gate == Gate::BeforeSync {
        faults.unsupported(
            format!("{path}.gate"),
            "a gate before the sync",
            "leave it out, or write before_commit",
        );
    }
    if environment.bake.is_some() {
        faults.unsupported(
            format!("{path}.bake"),
            "watching metrics after the rollout",
            "leave it out",
        );
    }
    if environment.jobs.is_some() {
        faults.unsupported(format!("{path}.jobs"), "running Jobs", "leave it out");
    }
    let Timeouts { gate, change, deploy } = environment.timeout;
    faults.period(format!("{path}.timeout.gate"), gate, MAX_GATE);
    faults.period(format!("{path}.timeout.change"), change, MAX_STEP);
    faults.period(format!("{path}.timeout.deploy"), deploy, MAX_STEP);
    faults.period(
        format!("{path}.verify.unschedulable_after"),
        environment.verify.unschedulable_after,
        MAX_STEP,
    );
    let names: Vec<Name> = environment
        .checks
        .iter()
        .map(|check| check.name.clone())
        .collect();
    duplicates(&names, &format!("{path}.checks"), faults);
    faults.require(
        names.len() <= 20,
        format!("{path}.checks"),
        "name at most 20 checks",
    );
    Environment {
        name: environment.name,
        policy: environment.policy,
        gate: super::Gate::BeforeCommit,
        gitops: Some(check_gitops(environment.gitops, &format!("{path}.gitops"), image, faults)),
        action: super::Action::Apply,
        argo_cd: super::ArgoCd::default(),
        pauses: super::Pauses::Wait,
        jobs: super::Jobs::default(),
        bake: None,
        on_failure: super::OnFailure::RollBack,
        target: check_target(environment.target, &format!("{path}.target"), faults),
        supersede: environment.supersede,
        timeout: environment.timeout,
        checks: environment
            .checks
            .into_iter()
            .enumerate()
            .filter_map(|(index, check)| check_check(check, &format!("{path}.checks[{index}]"), faults))
            .collect(),
        verify: environment.verify,
    }
}

fn check_gitops(gitops: FileGitOps, path: &str, image: &str, faults: &mut Faults) -> GitOps {
    check_path(&gitops.path, &format!("{path}.path"), faults);
    let strategy = match gitops.strategy {
        Strategy::Kustomize => None,
        Strategy::Helm => Some("editing Helm values"),
        Strategy::Manifest => Some("editing plain manifests"),
        Strategy::Marker => Some("a marker commit"),
    };
    if let Some(what) = strategy {
        faults.unsupported(format!("{path}.strategy"), what, "write kustomize");
    }
    if gitops.mode == Mode::PullRequest {
        faults.unsupported(format!("{path}.mode"), "changing by pull request", "write push");
    }
    let name = gitops.image.unwrap_or_else(|| image.to_owned());
    let ok = !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
    faults.require(
        ok,
        format!("{path}.image"),
        "write the image's name as the manifests have it, without tag",
    );
    GitOps {
        repository: gitops.repository,
        branch: gitops.branch,
        path: gitops.path,
        image: name,
        strategy: super::Strategy::Kustomize,
        mode: super::Mode::Push,
    }
}

fn check_target(target: FileTarget, path: &str, faults: &mut Faults) -> Target {
    let unsupported = match target.kind {
        Kind::Deployment => None,
        Kind::StatefulSet => Some("a StatefulSet"),
        Kind::DaemonSet => Some("a DaemonSet"),
        Kind::Application => Some("an Application of Argo CD"),
        Kind::Rollout => Some("a Rollout of Argo Rollouts"),
        Kind::Canary => Some("a Canary of Flagger"),
    };
    if let Some(what) = unsupported {
        faults.unsupported(format!("{path}.kind"), what, "write Deployment");
    }
    // RFC 1123 subdomain, as the names of Deployments are.
    let ok = target.name.len() <= 253 && target.name.split('.').all(|label| label.parse::<Name>().is_ok());
    faults.require(
        ok,
        format!("{path}.name"),
        "use a-z, 0-9, - and ., beginning and ending with a letter or digit (RFC 1123)",
    );
    Target {
        cluster: target.cluster,
        namespace: target.namespace,
        kind: WorkloadKind::Deployment,
        name: target.name,
    }
}

fn check_check(check: FileCheck, path: &str, faults: &mut Faults) -> Option<Check> {
    let others = [("grpc", check.grpc), ("tcp", check.tcp), ("job", check.job)];
    let mut refused = false;
    for (kind, given) in others {
        if given.is_some() {
            faults.unsupported(
                format!("{path}.{kind}"),
                &format!("a {kind} check"),
                "write an http check",
            );
            refused = true;
        }
    }
    match check.http {
        Some(http) => {
            check_http(&http, &format!("{path}.http"), faults);
            Some(Check {
                name: check.name,
                kind: CheckKind::Http(http),
            })
        }
        None => {
            faults.require(refused, path, "say what to ask: add http");
            None
        }
    }
}

fn check_http(http: &HttpCheck, path: &str, faults: &mut Faults) {
    let path_ok = http.path.starts_with('/')
        && http.path.len() <= 2000
        && http.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
        && http.path.split(['/', '?']).all(|part| part != "..");
    faults.require(
        path_ok,
        format!("{path}.path"),
        "write an absolute path, percent-encoded, without .. and #",
    );
    faults.require(
        (100..=599).contains(&http.expect_status),
        format!("{path}.expect_status"),
        "must be an HTTP status from 100 to 599",
    );
    faults.require(
        (1..=1000).contains(&http.patience.attempts),
        format!("{path}.attempts"),
        "must be from 1 to 1000",
    );
    faults.require(
        !http.patience.timeout.is_zero(),
        format!("{path}.timeout"),
        "must be more than 0 s",
    );
    let longest = http
        .patience
        .timeout
        .saturating_add(http.patience.interval)
        .saturating_mul(http.patience.attempts);
    faults.require(
        longest <= MAX_CHECK,
        path,
        "all attempts with timeout and interval must fit into one hour",
    );
    if let Some(text) = &http.body_contains {
        faults.require(
            (1..=4096).contains(&text.len()),
            format!("{path}.body_contains"),
            "must have 1 to 4096 bytes",
        );
    }
}
