//! The course of a sync: phases, waves, hooks, pruning, and its result.
//!
//! After `argoproj/gitops-engine/pkg/sync/sync_context.go`. Every step is decided afresh from the manifests, the live
//! objects and the results so far, so a sync continues after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::argo_cd::health::{self, Status};
use crate::argo_cd::target::{self, Key, Phase};
use crate::object::{self, text};

/// The state of one object (`hookPhase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Succeeded,
    Failed,
}

impl Progress {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Succeeded, Self::Failed]
            .into_iter()
            .find(|progress| progress.as_str() == text)
    }
}

/// One object's part in a sync.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) version: String,
    pub(crate) phase: Phase,
    pub(crate) wave: i64,
    pub(crate) hook: bool,
    /// What git wants; `None` for an object to be pruned.
    pub(crate) target: Option<Value>,
    pub(crate) live: Option<Arc<Value>>,
    /// `Synced`, `SyncFailed`, `Pruned`, `PruneSkipped`; empty until there is one.
    pub(crate) status: &'static str,
    pub(crate) progress: Option<Progress>,
    pub(crate) message: String,
}

/// The result codes, as constants to compare with.
fn code(text: &str) -> &'static str {
    ["Synced", "SyncFailed", "Pruned", "PruneSkipped"]
        .into_iter()
        .find(|code| *code == text)
        .unwrap_or("")
}

impl Task {
    fn is_pending(&self) -> bool {
        self.progress.is_none()
    }

    fn has_failed(&self) -> bool {
        self.progress == Some(Progress::Failed)
    }

    pub(crate) fn is_prune(&self) -> bool {
        self.target.is_none()
    }

    /// The entry of `syncResult.resources`.
    pub(crate) fn result(&self) -> Option<Value> {
        let progress = self.progress?;
        let mut result = json!({
            "group": self.key.group, "version": self.version, "kind": self.key.kind,
            "namespace": self.key.namespace, "name": self.key.name,
            "message": self.message, "hookPhase": progress.as_str(), "syncPhase": self.phase.as_str(),
        });
        if !self.status.is_empty() {
            result["status"] = json!(self.status);
        }
        if self.hook {
            result["hookType"] = json!(self.phase.as_str());
        }
        Some(result)
    }

    pub(crate) fn set(&mut self, status: &'static str, progress: Progress, message: impl Into<String>) {
        self.status = status;
        self.progress = Some(progress);
        self.message = message.into();
    }
}

/// In which order kinds are applied within a wave.
const KINDS: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicaSet",
    "Deployment",
    "StatefulSet",
    "Job",
];

fn kind_order(kind: &str) -> usize {
    KINDS
        .iter()
        .position(|known| *known == kind)
        .unwrap_or(KINDS.len())
}

/// What a sync consists of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The placed objects of the commit.
    pub(crate) targets: &'a [Value],
    /// The live objects of the Application, and those that targets name.
    pub(crate) live: &'a BTreeMap<Key, Arc<Value>>,
    /// The keys of live objects that belong to the Application and are no longer in git.
    pub(crate) extra: &'a [Key],
    /// `syncResult.resources` so far.
    pub(crate) results: &'a [Value],
    /// Only these (`sync.resources`); everything when empty.
    pub(crate) only: &'a [Value],
    pub(crate) prune: bool,
    /// Whether hooks run: not for a partial sync, and not with the strategy `apply`.
    pub(crate) hooks: bool,
}

fn is_wanted(only: &[Value], key: &Key) -> bool {
    only.is_empty()
        || only.iter().any(|wanted| {
            text(wanted, &["group"]) == key.group
                && text(wanted, &["kind"]) == key.kind
                && text(wanted, &["name"]) == key.name
                && matches!(text(wanted, &["namespace"]), ns if ns.is_empty() || ns == key.namespace)
        })
}

/// The tasks of a sync in order, with their results so far. `suffix` names hooks that have no name of their own.
pub(crate) fn tasks(plan: &Plan<'_>, suffix: impl Fn(Phase) -> String) -> Vec<Task> {
    let mut tasks = Vec::new();
    for target in plan.targets {
        let hook = target::is_hook(target);
        if hook && !plan.hooks {
            continue;
        }
        for phase in target::phases(target) {
            let mut target = target.clone();
            if object::name(&target).is_empty() {
                let base = text(&target, &["metadata", "generateName"]).to_owned();
                let metadata = object::metadata(&mut target);
                metadata.remove("generateName");
                metadata.insert("name".to_owned(), Value::from(format!("{base}{}", suffix(phase))));
            }
            let key = Key::of(&target);
            if !is_wanted(plan.only, &key) {
                continue;
            }
            tasks.push(Task {
                live: plan.live.get(&key).cloned(),
                version: version(&target),
                phase,
                wave: target::wave(&target),
                hook,
                target: Some(target),
                status: "",
                progress: None,
                message: String::new(),
                key,
            });
        }
    }
    let last_wave = tasks
        .iter()
        .filter(|t| t.phase == Phase::Sync)
        .map(|t| t.wave)
        .max()
        .unwrap_or(0);
    for key in plan.extra.iter().filter(|key| is_wanted(plan.only, key)) {
        let live = plan.live.get(key).cloned();
        let mut task = Task {
            key: key.clone(),
            version: live.as_deref().map(version).unwrap_or_default(),
            phase: Phase::Sync,
            wave: last_wave,
            hook: false,
            target: None,
            live,
            status: "",
            progress: None,
            message: String::new(),
        };
        if !plan.prune {
            task.set("PruneSkipped", Progress::Succeeded, "ignored (requires pruning)");
        } else if task
            .live
            .as_deref()
            .is_some_and(|live| target::has_option(live, "Prune=false"))
        {
            task.set("PruneSkipped", Progress::Succeeded, "ignored (no prune)");
        }
        tasks.push(task);
    }
    // What was pruned is not live any more; its result stays.
    for result in plan.results.iter().filter(|r| r["status"] == "Pruned") {
        let key = key_of(result);
        if !tasks.iter().any(|task| task.key == key) {
            tasks.push(Task {
                key,
                version: text(result, &["version"]).to_owned(),
                phase: Phase::Sync,
                wave: last_wave,
                hook: false,
                target: None,
                live: None,
                status: "",
                progress: None,
                message: String::new(),
            });
        }
    }
    for task in &mut tasks {
        let before = plan
            .results
            .iter()
            .find(|r| text(r, &["syncPhase"]) == task.phase.as_str() && key_of(r) == task.key);
        if let Some(before) = before
            && let Some(progress) = Progress::parse(text(before, &["hookPhase"]))
        {
            task.set(
                code(text(before, &["status"])),
                progress,
                text(before, &["message"]),
            );
        }
    }
    tasks.sort_by_key(|t| {
        (
            t.phase,
            t.wave,
            t.is_prune(),
            kind_order(&t.key.kind),
            t.key.clone(),
        )
    });
    tasks
}

fn version(object: &Value) -> String {
    let api_version = text(object, &["apiVersion"]);
    api_version.rsplit('/').next().unwrap_or("").to_owned()
}

fn key_of(result: &Value) -> Key {
    let of = |field: &str| text(result, &[field]).to_owned();
    Key {
        group: of("group"),
        kind: of("kind"),
        namespace: of("namespace"),
        name: of("name"),
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Just wait, for the reason in the message.
    Wait(String),
    /// Carry out these tasks (indices).
    Run(Vec<usize>),
    Succeeded(&'static str),
    Failed(String),
}

/// Checks the running tasks, then decides.
pub(crate) fn step(tasks: &mut [Task]) -> Step {
    for task in tasks.iter_mut().filter(|t| t.progress == Some(Progress::Running)) {
        look(task);
    }
    let steps = |task: &Task| (task.phase, task.wave);
    let regular: Vec<usize> = (0..tasks.len())
        .filter(|i| tasks[*i].phase != Phase::SyncFail)
        .collect();
    let multi_step = regular
        .windows(2)
        .any(|pair| steps(&tasks[pair[0]]) != steps(&tasks[pair[1]]));
    let running: Vec<&Task> = tasks
        .iter()
        .filter(|t| t.progress == Some(Progress::Running) && (t.hook || multi_step))
        .collect();
    if let Some(first) = running.first() {
        let what = if first.hook {
            "completion of hook"
        } else {
            "healthy state of"
        };
        let more = match running.len() {
            1 => String::new(),
            n => format!(
                " and {} more {}",
                n - 1,
                if first.hook { "hooks" } else { "resources" }
            ),
        };
        return Step::Wait(format!("waiting for {what} {}{more}", first.key.display()));
    }
    let going = |t: &&Task| t.status == "Pruned" && t.live.is_some();
    if let Some(pruned) = tasks.iter().find(going) {
        return Step::Wait(format!("waiting for deletion of {}", pruned.key.display()));
    }
    if let Some(failed) = regular.iter().map(|i| &tasks[*i]).find(|t| t.has_failed()) {
        let on_failure: Vec<usize> = (0..tasks.len())
            .filter(|i| tasks[*i].phase == Phase::SyncFail && tasks[*i].is_pending())
            .collect();
        if !on_failure.is_empty() {
            return Step::Run(on_failure);
        }
        let not_applied: Vec<String> = tasks
            .iter()
            .filter(|t| t.status == "SyncFailed")
            .map(|t| t.message.clone())
            .collect();
        return Step::Failed(if not_applied.is_empty() {
            debug_assert!(failed.has_failed());
            "one or more synchronization tasks completed unsuccessfully".to_owned()
        } else {
            format!(
                "one or more synchronization tasks completed unsuccessfully, reason: {}",
                not_applied.join(",")
            )
        });
    }
    let Some(next) = regular.iter().map(|i| &tasks[*i]).find(|t| t.is_pending()) else {
        return Step::Succeeded("successfully synced (all tasks run)");
    };
    let next = steps(next);
    Step::Run(
        regular
            .into_iter()
            .filter(|i| tasks[*i].is_pending() && steps(&tasks[*i]) == next)
            .collect(),
    )
}

/// The current state of a running task.
fn look(task: &mut Task) {
    let Some(live) = task.live.clone() else {
        if task.hook {
            task.set(task.status, Progress::Failed, "hook was deleted");
        }
        return;
    };
    let Some(health) = health::of(&live) else {
        return task.set(task.status, Progress::Succeeded, task.message.clone());
    };
    let message = if health.message.is_empty() {
        task.message.clone()
    } else {
        health.message
    };
    match health.status {
        Status::Healthy => task.set(task.status, Progress::Succeeded, message),
        Status::Degraded => task.set(task.status, Progress::Failed, message),
        // A suspended hook is waited for, like anything in progress.
        _ => {}
    }
}

#[cfg(test)]
mod tests;
