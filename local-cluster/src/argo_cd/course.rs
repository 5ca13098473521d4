//! One sync at one commit: the namespace, the dry run, then step by step what `sync.rs` decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::delete::{self, Options, Policy};
use crate::api::server_side::Apply;
use crate::argo_cd::application::has_fault;
use crate::argo_cd::desired::Desired;
use crate::argo_cd::sync::{self, Plan, Progress, Step, Task};
use crate::argo_cd::target::{self, Key, Phase};
use crate::argo_cd::{MANAGER, Shared};
use crate::object::{self, list, text};
use crate::resources::NAMESPACES;

/// How often a waiting sync is checked.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// How far a sync got.
pub(super) enum Outcome {
    Wait(String, Duration),
    End(&'static str, String),
}

/// One sync at one commit.
pub(super) struct Course<'a> {
    pub(super) shared: &'a Shared,
    pub(super) application: &'a Value,
    pub(super) operation: &'a Value,
    pub(super) desired: &'a Desired,
}

impl Course<'_> {
    fn tasks(&self, state: &Value) -> Vec<Task> {
        let sync = &self.operation["sync"];
        let started = object::time(state, &["startedAt"])
            .unwrap_or_default()
            .as_second();
        let short: String = self.desired.commit.chars().take(7).collect();
        let (mut live, extra) = self.shared.live(self.application, &self.desired.targets);
        let suffix = |phase: Phase| format!("{short}-{}-{started}", phase.as_str().to_lowercase());
        let make = |live: &BTreeMap<Key, Arc<Value>>| {
            let plan = Plan {
                targets: &self.desired.targets,
                live,
                extra: &extra,
                results: list(state, &["syncResult", "resources"]),
                only: list(sync, &["resources"]),
                hooks: list(sync, &["resources"]).is_empty() && !sync["syncStrategy"]["apply"].is_object(),
                prune: sync["prune"] == true,
            };
            sync::tasks(&plan, suffix)
        };
        // Hooks get their names only here.
        let registry = self.shared.store.registry();
        for task in make(&live).iter().filter(|task| task.hook && task.live.is_none()) {
            let target = task.target.as_ref().unwrap_or(&Value::Null);
            if let Some(resource) = target::resource_of(registry, target)
                && let Some(object) = self
                    .shared
                    .store
                    .get(resource, &task.key.namespace, &task.key.name)
            {
                live.insert(task.key.clone(), object);
            }
        }
        make(&live)
    }

    /// Continues as far as possible without waiting; results are written to `state`.
    pub(super) fn run(&self, state: &mut Value) -> Outcome {
        let sync = &self.operation["sync"];
        let first = list(state, &["syncResult", "resources"]).is_empty();
        if first && has(list(sync, &["syncOptions"]), "CreateNamespace=true") && sync["dryRun"] != true {
            self.create_namespace();
        }
        if first {
            let mut tasks = self.tasks(state);
            if self.validate(&mut tasks) {
                record(state, &tasks);
                let reasons: Vec<&str> = tasks
                    .iter()
                    .filter(|t| t.status == "SyncFailed")
                    .map(|t| t.message.as_str())
                    .collect();
                let message = format!(
                    "one or more objects failed to apply (dry run), reason: {}",
                    reasons.join(",")
                );
                return Outcome::End("Failed", message);
            }
        }
        if sync["dryRun"] == true {
            return Outcome::End("Succeeded", "successfully synced (dry run)".to_owned());
        }
        loop {
            let mut tasks = self.tasks(state);
            let step = sync::step(&mut tasks);
            self.clear_hooks(&tasks);
            let outcome = match step {
                Step::Wait(message) => Some(Outcome::Wait(message, LOOK)),
                Step::Succeeded(message) => Some(Outcome::End("Succeeded", message.to_owned())),
                Step::Failed(message) => Some(Outcome::End("Failed", message)),
                Step::Run(indices) => {
                    let carried_out = indices.iter().filter(|i| self.carry_out(&mut tasks[**i])).count();
                    // An earlier hook that is not gone yet delays the others of its wave.
                    (carried_out == 0)
                        .then(|| Outcome::Wait("waiting for deletion of hooks of before".to_owned(), LOOK))
                }
            };
            record(state, &tasks);
            if let Some(outcome) = outcome {
                return outcome;
            }
            state["message"] = json!("one or more tasks are running");
            self.shared.save(self.application, state);
        }
    }

    fn create_namespace(&self) {
        let name = text(self.application, &["spec", "destination", "namespace"]);
        if name.is_empty() || self.shared.store.get(&NAMESPACES, "", name).is_some() {
            return;
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        if let Err(error) = self
            .apply(false)
            .to(&self.shared.store, &NAMESPACES, ("", name), &namespace)
        {
            tracing::warn!(%error, name, "namespace not created");
        }
    }

    fn apply(&self, dry_run: bool) -> Apply<'static> {
        Apply {
            manager: MANAGER,
            force: true,
            subresource: "",
            dry_run,
        }
    }

    /// Tries everything in a dry run: by the API server where it is to apply, otherwise as kubectl would alone, which
    /// knows kinds and no rules. Marks what fails; returns whether anything does. Objects of kinds that this same sync
    /// defines cannot be tried.
    fn validate(&self, tasks: &mut [Task]) -> bool {
        let defines = tasks
            .iter()
            .any(|task| task.key.kind == "CustomResourceDefinition");
        let mut failed = false;
        for task in tasks.iter_mut().filter(|task| task.progress.is_none()) {
            let Some(target) = task.target.clone() else {
                continue;
            };
            if task.live.is_some() && replaces(task) {
                // It is recreated: the existing object is irrelevant.
                continue;
            }
            let error = match target::resource_of(self.shared.store.registry(), &target) {
                None if defines => continue,
                None => unknown_kind(&task.key),
                Some(_) if !self.server_side() => continue,
                Some(resource) => {
                    let place = (task.key.namespace.as_str(), task.key.name.as_str());
                    match self.apply(true).to(&self.shared.store, resource, place, &target) {
                        Ok(_) => continue,
                        Err(error) => error.message,
                    }
                }
            };
            task.set("SyncFailed", Progress::Failed, error);
            failed = true;
        }
        failed
    }

    fn server_side(&self) -> bool {
        let policy = list(self.application, &["spec", "syncPolicy", "syncOptions"]);
        let asked = list(self.operation, &["sync", "syncOptions"]);
        [policy, asked]
            .iter()
            .any(|options| has(options, "ServerSideApply=true"))
    }

    /// Applies or prunes. Returns whether the task made progress.
    fn carry_out(&self, task: &mut Task) -> bool {
        let store = &self.shared.store;
        let place = (task.key.namespace.clone(), task.key.name.clone());
        let place = (place.0.as_str(), place.1.as_str());
        let Some(target) = task.target.clone() else {
            let options = Options {
                policy: Policy::Foreground,
                ..Options::default()
            };
            let resource = task
                .live
                .as_deref()
                .and_then(|live| target::resource_of(store.registry(), live));
            let result =
                resource.map(|resource| delete::delete_object(store, resource, place.0, place.1, &options));
            match result {
                Some(Err(error)) if error.code != 404 => {
                    task.set("SyncFailed", Progress::Failed, error.message);
                }
                _ => task.set("Pruned", Progress::Succeeded, "pruned"),
            }
            return true;
        };
        let Some(resource) = target::resource_of(store.registry(), &target) else {
            task.set("SyncFailed", Progress::Failed, unknown_kind(&task.key));
            return true;
        };
        let name = format!(
            "{}.{}/{}",
            task.key.kind.to_lowercase(),
            task.key.group,
            task.key.name
        )
        .replace("./", "/");
        if !task.hook && has_fault(self.application, "sync-fails") {
            let message = format!("{name} could not be applied: a failure was ordered");
            task.set("SyncFailed", Progress::Failed, message);
            return true;
        }
        if task.live.is_some() && replaces(task) {
            let gone = delete::delete_object(store, resource, place.0, place.1, &Options::default());
            if !gone.is_ok_and(|(_, gone)| gone) {
                return false;
            }
            task.live = None;
        }
        let before = task.live.as_deref().map(object::resource_version);
        match self.apply(false).to(store, resource, place, &target) {
            Ok((stored, code)) => {
                let what = match (code, before) {
                    (201, _) => "created",
                    (_, Some(before)) if before == object::resource_version(&stored) => "unchanged",
                    _ => "configured",
                };
                let status = if task.hook { "" } else { "Synced" };
                task.set(status, Progress::Running, format!("{name} {what}"));
                task.live = Some(stored);
            }
            Err(error) => task.set("SyncFailed", Progress::Failed, error.message),
        }
        true
    }

    /// Deletes the hooks that must not outlive their end.
    fn clear_hooks(&self, tasks: &[Task]) {
        for task in tasks.iter().filter(|task| task.hook && task.live.is_some()) {
            let moment = match task.progress {
                Some(Progress::Succeeded) => "HookSucceeded",
                Some(Progress::Failed) => "HookFailed",
                _ => continue,
            };
            let Some(target) = task
                .target
                .as_ref()
                .filter(|target| target::is_deleted(target, moment))
            else {
                continue;
            };
            if let Some(resource) = target::resource_of(self.shared.store.registry(), target) {
                let (namespace, name) = (&task.key.namespace, &task.key.name);
                let deleted =
                    delete::delete_object(&self.shared.store, resource, namespace, name, &Options::default());
                if let Err(error) = deleted {
                    tracing::debug!(%error, name, "hook not deleted");
                }
            }
        }
    }
}

/// Whether the task is a hook that replaces the previous one.
fn replaces(task: &Task) -> bool {
    let deleted = |target| target::is_deleted(target, "BeforeHookCreation");
    task.hook && task.target.as_ref().is_some_and(deleted)
}

fn unknown_kind(key: &Key) -> String {
    format!(
        "The Kubernetes API could not find {}/{} for requested resource {}/{}. Make sure the \"{}\" CRD is installed on the destination cluster.",
        key.group, key.kind, key.namespace, key.name, key.kind
    )
}

fn record(state: &mut Value, tasks: &[Task]) {
    state["syncResult"]["resources"] = tasks.iter().filter_map(Task::result).collect();
}

fn has(options: &[Value], option: &str) -> bool {
    options.iter().any(|o| o == option)
}
