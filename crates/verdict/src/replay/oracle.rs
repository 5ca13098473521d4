//! What a controller's own tool was asked, and what it answers by its own rules.
//!
//! `argocd app wait` (exit code 0: reached what its flags ask for; 20: it did not), `kubectl argo rollouts status`,
//! the phase of a Canary, and `kubectl wait` for a Job.

use super::{
    Recorded,
    cluster::{Cluster, Key},
};
use crate::{
    WorkloadKind,
    application::{Application, Phase},
    objects::rollout::Rollout,
};

/// What a tool waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Application(Key, Wants),
    Rollout(Key),
    /// Until a phase, if one was named.
    Canary(Key, Option<String>),
    /// Until the Job has succeeded, or has failed.
    Job(Key, End),
}

/// The flags of `argocd app wait`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent flags")]
pub(super) struct Wants {
    pub(super) sync: bool,
    pub(super) health: bool,
    pub(super) operation: bool,
    pub(super) suspended: bool,
    pub(super) degraded: bool,
}

/// How a Job can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed,
}

/// What a tool says, in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Complete,
    Failed,
    WaitsForAPerson,
    GoesOn,
    /// It gave up waiting.
    NotComplete,
    /// The operation has ended.
    OperationEnded,
    /// Something that has no counterpart in a verdict.
    Other,
}

/// Reads what a tool was asked; `None` if it is none of the above.
pub(super) fn question(
    tool: &str,
    run: &Recorded,
    namespace: Option<&str>,
    cluster: &Cluster,
) -> Option<Question> {
    let arguments = Arguments::of(&run.args);
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let namespace = arguments.value(&["-n", "--namespace"]).or(namespace);
    let key = |name: &str| (namespace.unwrap_or_default().to_owned(), name.to_owned());
    match tool {
        "argocd" => {
            let name = words.strip_prefix(&["app", "wait"])?.first()?;
            let name = name.rsplit('/').next()?;
            let known = cluster.names(WorkloadKind::Application, None);
            let found = known.into_iter().find(|key| key.1 == name)?;
            Some(Question::Application(found, Wants::of(&arguments)))
        }
        "kubectl-argo-rollouts" => {
            let name = words.strip_prefix(&["status"])?.first()?;
            Some(Question::Rollout(key(name)))
        }
        "canary status" => {
            let known = cluster.names(WorkloadKind::Canary, namespace);
            let until = words.strip_prefix(&["until"]).and_then(|rest| rest.first());
            let [only] = &known[..] else { return None };
            Some(Question::Canary(
                only.clone(),
                until.map(|phase| (*phase).to_owned()),
            ))
        }
        "kubectl" => {
            let named = words.strip_prefix(&["kubectl"]).unwrap_or(&words);
            let named = named.strip_prefix(&["wait"])?;
            let (kind, name) = named.first()?.split_once('/')?;
            let is_job = matches!(kind, "job" | "jobs" | "job.batch" | "jobs.batch");
            let condition = arguments.value(&["--for"])?.strip_prefix("condition=")?;
            let (condition, wanted) = condition.split_once('=').unwrap_or((condition, "true"));
            let end = match condition.to_ascii_lowercase().as_str() {
                "complete" => End::Complete,
                "failed" => End::Failed,
                _ => return None,
            };
            (is_job && wanted.eq_ignore_ascii_case("true")).then(|| Question::Job(key(name), end))
        }
        _ => None,
    }
}

/// Flags and words of a command line.
struct Arguments {
    words: Vec<String>,
    flags: Vec<(String, Option<String>)>,
}

impl Arguments {
    fn of(args: &[String]) -> Self {
        /// Flags of these tools that take no value.
        const SWITCHES: &[&str] = &[
            "--sync",
            "--health",
            "--operation",
            "--suspended",
            "--degraded",
            "--delete",
            "--hydrated",
            "--watch",
            "-w",
            "--grpc-web",
            "--insecure",
            "--plaintext",
            "--core",
            "--all",
        ];
        let mut read = Self {
            words: Vec::new(),
            flags: Vec::new(),
        };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if !arg.starts_with('-') {
                read.words.push(arg.clone());
            } else if let Some((flag, value)) = arg.split_once('=') {
                read.flags.push((flag.to_owned(), Some(value.to_owned())));
            } else if SWITCHES.contains(&arg.as_str()) {
                read.flags.push((arg.clone(), None));
            } else {
                read.flags.push((arg.clone(), rest.next().cloned()));
            }
        }
        read
    }

    fn value(&self, names: &[&str]) -> Option<&str> {
        let found = self.flags.iter().find(|(flag, _)| names.contains(&flag.as_str()));
        found.and_then(|(_, value)| value.as_deref())
    }

    fn is_set(&self, name: &str) -> bool {
        let found = self.flags.iter().find(|(flag, _)| flag == name);
        found.is_some_and(|(_, value)| value.as_deref() != Some("false"))
    }
}

impl Wants {
    fn of(arguments: &Arguments) -> Self {
        let given = Self {
            sync: arguments.is_set("--sync"),
            health: arguments.is_set("--health"),
            operation: arguments.is_set("--operation"),
            suspended: arguments.is_set("--suspended"),
            degraded: arguments.is_set("--degraded"),
        };
        if given == Self::default() && !arguments.is_set("--delete") && !arguments.is_set("--hydrated") {
            return Self {
                sync: true,
                health: true,
                operation: true,
                ..given
            };
        }
        given
    }

    /// Whether it waits for what makes a rollout complete.
    pub(super) const fn for_completion(self) -> bool {
        self.health && !self.suspended && !self.degraded
    }

    /// Whether the tool is content with the application as it is (`checkResourceStatus`).
    pub(super) fn are_met(self, live: &Application) -> bool {
        let health = live.status.health.status.as_str();
        let healthy = match health {
            "Healthy" => self.health,
            "Suspended" => self.suspended,
            "Degraded" => self.degraded,
            _ => false,
        };
        let synced = !self.sync || live.status.sync.status == "Synced";
        let free = !self.operation || live.operation.is_none();
        (healthy || !(self.health || self.suspended || self.degraded)) && synced && free
    }

    /// What exit code 0 means.
    pub(super) const fn reached(self) -> Said {
        match self {
            Self {
                health: false,
                suspended: true,
                degraded: false,
                ..
            } => Said::WaitsForAPerson,
            Self {
                health: false,
                suspended: false,
                degraded: true,
                ..
            } => Said::Failed,
            Self {
                health: true,
                suspended: false,
                degraded: false,
                ..
            } => Said::Complete,
            Self {
                sync: false,
                health: false,
                operation: true,
                suspended: false,
                degraded: false,
            } => Said::OperationEnded,
            _ => Said::Other,
        }
    }
}

/// What `kubectl argo rollouts status` prints of a Rollout (`GetRolloutPhase`).
pub(super) fn rollout_line(live: &Rollout) -> String {
    let generation = live.metadata.generation.unwrap_or(0);
    let observed = live.status.observed_generation.as_deref();
    let (phase, message) = if observed.and_then(|text| text.parse::<i64>().ok()) != Some(generation) {
        ("Progressing", "waiting for rollout spec update to be observed")
    } else if !live.is_observed() {
        (
            "Progressing",
            "waiting for rollout spec update to be observed for the reference workload",
        )
    } else if live.status.controller_pause && live.pauses().is_empty() {
        ("Progressing", "waiting for rollout to unpause")
    } else {
        let message = live.status.message.as_deref().unwrap_or_default();
        (live.status.phase.as_deref().unwrap_or_default(), message)
    };
    if message.is_empty() {
        phase.to_owned()
    } else {
        format!("{phase} - {message}")
    }
}

/// The meaning of such a line; `None` for lines that say nothing of the Rollout.
pub(super) fn of_rollout_line(line: &str, live: Option<&Rollout>) -> Option<Said> {
    Some(match line.split(" - ").next()?.trim() {
        "Healthy" => Said::Complete,
        "Degraded" => Said::Failed,
        "Paused" if live.is_some_and(goes_on_by_itself) => Said::GoesOn,
        "Paused" => Said::WaitsForAPerson,
        "Progressing" => Said::GoesOn,
        _ => return None,
    })
}

/// Whether the pause has a duration.
fn goes_on_by_itself(live: &Rollout) -> bool {
    let index = usize::try_from(live.status.current_step_index.unwrap_or(0)).unwrap_or(0);
    let step = live.steps().get(index).and_then(|step| step.pause.as_ref());
    !live.spec.paused
        && live.pauses().iter().all(|pause| match pause.reason.as_str() {
            "CanaryPauseStep" => step.is_some_and(|step| step.duration.is_some()),
            "BlueGreenPause" => {
                let strategy = live.spec.strategy.blue_green.as_ref();
                strategy.is_some_and(|strategy| {
                    strategy.auto_promotion_enabled != Some(false)
                        || strategy.auto_promotion_seconds.unwrap_or(0) > 0
                })
            }
            _ => false,
        })
}

/// The meaning of a Canary's phase.
pub(super) fn of_canary_phase(phase: &str) -> Said {
    match phase {
        "Succeeded" | "Initialized" => Said::Complete,
        "Failed" => Said::Failed,
        "Waiting" | "WaitingPromotion" => Said::WaitsForAPerson,
        "Initializing" | "Progressing" | "Promoting" | "Finalising" => Said::GoesOn,
        _ => Said::Other,
    }
}

/// What the operation of an application came to.
pub(super) fn of_operation(live: &Application) -> Said {
    match live.status.operation_state.as_ref().map(|state| state.phase) {
        Some(Phase::Failed | Phase::Error) => Said::Failed,
        Some(Phase::Succeeded) => Said::Other,
        _ => Said::GoesOn,
    }
}
