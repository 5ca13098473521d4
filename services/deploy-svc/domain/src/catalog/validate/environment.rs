//! One environment: whether its target, its GitOps repository, its gate and its action fit together.

use std::time::Duration;

use slipway_check::Faults;
use slipway_model::Name;

use super::{
    super::{
        Action, ArgoCd, Environment, Gate, GitOps, Mode, Pauses, Shared, Strategy, Target, Tier, Timeouts,
        WorkloadKind, file,
        file::{FileEnvironment, FileGitOps, FileTarget, FileTimeouts},
    },
    HOUR, check_path, jobs, watching,
};

/// For anything that may wait for a person, a sync window or a merge.
const MAX_WAIT: Duration = HOUR.saturating_mul(24 * 30);
const MAX_STEP: Duration = HOUR.saturating_mul(24);
/// Applications that are synced together.
const MAX_ALSO: usize = 20;
/// The longest that an Application that does not exist yet may be waited for.
const MAX_APPEAR: Duration = Duration::from_secs(3600);

pub(super) fn check(
    environment: FileEnvironment,
    tier: Option<Tier>,
    path: &str,
    image: &str,
    faults: &mut Faults,
) -> Environment {
    let FileEnvironment {
        name,
        policy,
        requires,
        depends_on: _,
        ci: _,
        gate,
        written_with,
        gitops,
        target,
        action,
        argo_cd,
        pauses,
        canary_watch,
        jobs,
        checks,
        bake,
        verify,
        on_failure,
        supersede,
        timeout,
    } = environment;
    let create_namespace = target.create_namespace;
    let target = check_target(target, &format!("{path}.target"), faults);
    let gitops = gitops.map(|gitops| check_gitops(gitops, &target, &format!("{path}.gitops"), image, faults));
    let rules = Rules {
        path,
        kind: target.kind,
        gitops: gitops.as_ref(),
        gate,
        action,
    };
    rules.check_kind(faults);
    rules.check_gate(faults);
    rules.check_action(faults);
    rules.check_argo_cd(argo_cd.as_ref(), &target, faults);
    rules.check_pauses(pauses, faults);
    rules.check_canary_watch(canary_watch, faults);
    let timeout = rules.timeouts(&timeout);
    rules.check_timeouts(&timeout, faults);
    let deadline = verify.progress_deadline;
    faults.period(
        format!("{path}.verify.unschedulable_after"),
        verify.unschedulable_after,
        MAX_STEP,
    );
    if let Some(deadline) = deadline {
        faults.period(format!("{path}.verify.progress_deadline"), deadline, MAX_STEP);
    }
    jobs::check(&jobs, target.kind, &format!("{path}.jobs"), faults);
    if let Some(bake) = &bake {
        watching::check_bake(bake, &format!("{path}.bake"), faults);
    }
    Environment {
        name,
        tier,
        requires,
        policy,
        gate,
        written_with,
        gitops,
        action,
        argo_cd: argo_cd.unwrap_or_default(),
        pauses: pauses.unwrap_or_default(),
        canary_watch,
        jobs,
        bake,
        on_failure,
        supersede,
        timeout,
        checks: watching::checks(checks, &format!("{path}.checks"), faults),
        verify,
        target,
        create_namespace,
        shared: Shared::default(),
    }
}

/// What one part of an environment implies for another.
struct Rules<'a> {
    path: &'a str,
    kind: WorkloadKind,
    gitops: Option<&'a GitOps>,
    gate: Gate,
    action: Action,
}

impl Rules<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn is_application(&self) -> bool {
        self.kind == WorkloadKind::Application
    }

    /// Whether the target has pods of its own, from a template that Kubernetes itself rolls out.
    fn is_plain(&self) -> bool {
        matches!(
            self.kind,
            WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet
        )
    }

    fn check_kind(&self, faults: &mut Faults) {
        if self.gitops.is_none() && !self.is_plain() {
            faults.add(
                self.at("gitops"),
                format!(
                    "is missing: of {}, the image comes from git; only the image of a Deployment, StatefulSet or DaemonSet can be set in the cluster. Add gitops with the repository that holds it",
                    article(self.kind)
                ),
            );
        }
    }

    fn check_gate(&self, faults: &mut Faults) {
        if self.gate != Gate::BeforeSync {
            return;
        }
        faults.require(
            self.gitops.is_some(),
            self.at("gate"),
            "before_sync is between commit and sync, and without gitops there is no commit: write before_commit",
        );
    }

    /// A restart uses what a moving tag points to at that time; git only records when.
    fn check_action(&self, faults: &mut Faults) {
        let marker = self
            .gitops
            .is_some_and(|gitops| gitops.strategy == Strategy::Marker);
        match self.action {
            Action::Restart => {
                faults.require(
                    self.is_plain(),
                    self.at("action"),
                    "only a Deployment, StatefulSet or DaemonSet can be restarted: write apply",
                );
                faults.require(
                    marker,
                    self.at("action"),
                    "a restart uses nothing from git: give gitops the strategy marker, or write apply",
                );
            }
            Action::Apply => faults.require(
                !marker,
                self.at("gitops.strategy"),
                "a marker commit changes no manifest, so there is nothing to apply: write action: restart, or another strategy",
            ),
        }
    }

    fn check_argo_cd(&self, argo_cd: Option<&ArgoCd>, target: &Target, faults: &mut Faults) {
        let Some(argo_cd) = argo_cd else { return };
        faults.require(
            self.is_application(),
            self.at("argo_cd"),
            "is for targets of kind Application only: leave it out",
        );
        faults.require(
            argo_cd.also.len() <= MAX_ALSO,
            self.at("argo_cd.also"),
            "name at most 20 Applications",
        );
        faults.require(
            argo_cd.appear_within <= MAX_APPEAR,
            self.at("argo_cd.appear_within"),
            "is too long: an Application is waited for at most 1h",
        );
        for (index, name) in argo_cd.also.iter().enumerate() {
            let at = self.at(&format!("argo_cd.also[{index}]"));
            check_object_name(name, &at, faults);
            faults.require(
                *name != target.name && !argo_cd.also[..index].contains(name),
                at,
                "is synced already: name each further Application once",
            );
        }
        for (index, option) in argo_cd.sync_options.iter().enumerate() {
            let known = option
                .split_once('=')
                .is_some_and(|(name, value)| !name.is_empty() && !value.is_empty() && option.len() <= 200);
            faults.require(
                known && option.bytes().all(|b| b.is_ascii_graphic()),
                self.at(&format!("argo_cd.sync_options[{index}]")),
                "write it as Argo CD does, NAME=VALUE, such as ServerSideApply=true",
            );
        }
    }

    fn check_pauses(&self, pauses: Option<Pauses>, faults: &mut Faults) {
        faults.require(
            pauses.is_none() || self.kind.may_have_steps(),
            self.at("pauses"),
            "only a Rollout or a Canary, also one inside an Application, pauses for a person: leave it out",
        );
        faults.require(
            self.kind != WorkloadKind::Canary || pauses != Some(Pauses::Promote),
            self.at("pauses"),
            "promote has no effect on a Canary, since the service that answers Flagger's webhooks confirm-rollout and confirm-promotion decides: leave it out",
        );
    }

    fn check_canary_watch(&self, period: Option<Duration>, faults: &mut Faults) {
        let Some(period) = period else { return };
        faults.require(
            self.kind.may_have_steps(),
            self.at("canary_watch"),
            "only a Rollout or a Canary, also one inside an Application, can fail after its release: leave it out",
        );
        faults.require(
            period <= MAX_WAIT,
            self.at("canary_watch"),
            "is too long: a canary is watched for at most 30 days after its release, and with 0s not at all",
        );
    }

    /// Those that are written, else the defaults. How long a canary takes is not known from the catalog.
    fn timeouts(&self, written: &FileTimeouts) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            gate: written.gate.unwrap_or(default.gate),
            change: written.change.unwrap_or(default.change),
            deploy: written.deploy.unwrap_or(default.deploy),
            follows_steps: written.deploy.is_none() && !self.is_plain(),
        }
    }

    fn check_timeouts(&self, timeout: &Timeouts, faults: &mut Faults) {
        let merges = self.gitops.is_some_and(|gitops| gitops.mode == Mode::PullRequest);
        // A sync window, or a person at a pause, may delay a deployment.
        let change = if merges { MAX_WAIT } else { MAX_STEP };
        let deploy = if self.is_plain() { MAX_STEP } else { MAX_WAIT };
        faults.period(self.at("timeout.gate"), timeout.gate, MAX_WAIT);
        faults.period(self.at("timeout.change"), timeout.change, change);
        faults.period(self.at("timeout.deploy"), timeout.deploy, deploy);
    }
}

fn article(kind: WorkloadKind) -> String {
    match kind {
        WorkloadKind::Application => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn check_gitops(gitops: FileGitOps, target: &Target, path: &str, image: &str, faults: &mut Faults) -> GitOps {
    use file::Strategy as Requested;
    let FileGitOps {
        repository,
        branch,
        path: folder,
        image: name,
        strategy: requested,
        file,
        value,
        mode,
    } = gitops;
    let name = name.unwrap_or_else(|| image.to_owned());
    let ok = !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
    faults.require(
        ok,
        format!("{path}.image"),
        "write the image's name as the manifests have it, without tag",
    );
    // Argo CD renders by itself; a restart does not render anything.
    let rendered_here = target.kind != WorkloadKind::Application && requested != Requested::Marker;
    if requested == Requested::Helm && target.kind != WorkloadKind::Application {
        faults.add(
            format!("{path}.strategy"),
            format!(
                "Helm charts are rendered by Argo CD alone, not for {}: make the target an Application, or write kustomize or manifest",
                article(target.kind)
            ),
        );
    }
    if requested == Requested::Manifest {
        faults.require(
            name == image,
            format!("{path}.image"),
            "with the strategy manifest, the file names the image as this service has it: leave it out",
        );
    }
    let mut need = |key: &str, given: Option<String>, wanted: bool, why: &str| match (given, wanted) {
        (Some(text), true) => text,
        (None, true) => {
            faults.add(format!("{path}.{key}"), format!("is missing: {why}"));
            String::new()
        }
        (Some(_), false) => {
            faults.add(
                format!("{path}.{key}"),
                format!("is not for this strategy: {why}"),
            );
            String::new()
        }
        (None, false) => String::new(),
    };
    let file = need(
        "file",
        file,
        matches!(requested, Requested::Helm | Requested::Manifest),
        "the strategies helm and manifest edit one file, and no other does",
    );
    let value = need(
        "value",
        value,
        requested == Requested::Helm,
        "the strategy helm, and no other, sets a value, such as image or web.image.tag",
    );
    if !file.is_empty() {
        check_path(&file, &format!("{path}.file"), faults);
    }
    let folder = match (folder, requested) {
        (Some(_), Requested::Marker) => {
            faults.add(
                format!("{path}.path"),
                "is not for this strategy: a marker commit changes no folder, and none is rendered",
            );
            String::new()
        }
        (None, Requested::Marker) => String::new(),
        (Some(folder), _) => {
            check_path(&folder, &format!("{path}.path"), faults);
            folder
        }
        (None, Requested::Helm | Requested::Manifest) if !rendered_here => folder_of(&file),
        (None, _) => {
            faults.add(
                format!("{path}.path"),
                match requested {
                    Requested::Manifest => {
                        "is missing: name the folder that is rendered and applied; its kustomization lists the file under resources"
                    }
                    _ => "is missing: name the folder of the kustomization",
                },
            );
            String::new()
        }
    };
    GitOps {
        repository,
        branch,
        path: folder,
        image: name,
        strategy: match requested {
            Requested::Kustomize => Strategy::Kustomize,
            Requested::Helm => {
                check_value(&value, &format!("{path}.value"), faults);
                Strategy::Helm { file, value }
            }
            Requested::Manifest => Strategy::Manifest { file },
            Requested::Marker => Strategy::Marker,
        },
        mode,
    }
}

fn folder_of(file: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) => folder.to_owned(),
        None => ".".to_owned(),
    }
}

/// gitops-svc checks the whole grammar; this keeps what cannot be valid out of the plan.
fn check_value(value: &str, path: &str, faults: &mut Faults) {
    let ok = value.len() <= 500
        && !value.starts_with('.')
        && !value.ends_with('.')
        && !value.contains("..")
        && !value.contains(char::is_control);
    faults.require(
        ok,
        path,
        "write the keys with dots between, list items by [INDEX] or [KEY=VALUE], such as web.image or workers[name=mail].image",
    );
}

fn check_target(target: FileTarget, path: &str, faults: &mut Faults) -> Target {
    check_object_name(&target.name, &format!("{path}.name"), faults);
    if target.create_namespace && target.kind == WorkloadKind::Application {
        faults.add(
            format!("{path}.create_namespace"),
            "is not for Applications: Argo CD makes the namespace that one deploys to, with sync_options: \
             [CreateNamespace=true]",
        );
    }
    Target {
        cluster: target.cluster,
        namespace: target.namespace,
        kind: target.kind,
        name: target.name,
    }
}

/// An RFC 1123 subdomain, like the names of these kinds.
fn check_object_name(name: &str, path: &str, faults: &mut Faults) {
    let ok = name.len() <= 253 && name.split('.').all(|label| label.parse::<Name>().is_ok());
    faults.require(
        ok,
        path,
        "use a-z, 0-9, - and ., beginning and ending with a letter or digit (RFC 1123)",
    );
}
