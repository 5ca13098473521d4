//! One pass over an Application: its operation, its deletion, the comparison with git, and whether to sync by itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::delete::{self, Options, Policy};
use crate::api::server_side::Apply;
use crate::argo_cd::application::{
    self, AutoSync, CASCADE, REFRESH, Refresh, has_fault, set_condition, signed,
};
use crate::argo_cd::desired::{self, Desired};
use crate::argo_cd::health::{self, Status};
use crate::argo_cd::operation::{self, Turn};
use crate::argo_cd::target::{self, Key};
use crate::argo_cd::{Key as ApplicationKey, MANAGER, Shared};
use crate::object::{self, annotation, at, list, text};

/// How often a waiting deletion is checked.
const DELETION: Duration = Duration::from_millis(200);
/// How often a repository that does not answer is asked again, at most.
const UNWELL: Duration = Duration::from_secs(10);

/// Works on an Application. Returns when to check again, if not only when something changes.
pub(super) async fn work(shared: &Shared, key: &ApplicationKey) -> Option<Duration> {
    let application = shared.application(key)?;
    if object::is_deleting(&application) {
        return finalize(shared, &application);
    }
    let turn = operation::process(shared, &application).await;
    let application = shared.application(key)?;
    let mut waits = Vec::new();
    if let Turn::Wait(wait) = turn {
        waits.push(wait);
    }
    let now = Timestamp::now();
    let touched = shared.touched_in(key) == Some(Duration::ZERO);
    let asked = !annotation(&application, REFRESH).is_empty();
    // With this fault the comparison from before the sync stays until a refresh is requested.
    let unseen = is_behind(&application) || application::in_progress(&application);
    let stale = has_fault(&application, "stale-health") && unseen && !asked;
    let refresh = application::needs_refresh(
        &application,
        touched,
        turn == Turn::Ended,
        shared.config.poll,
        now,
    );
    if let Some(refresh) = refresh.filter(|_| !stale) {
        shared.untouch(key);
        waits.extend(compare(shared, key, &application, refresh).await);
    } else if let Some(at) = object::time(&application, &["status", "reconciledAt"]).filter(|_| !stale) {
        let left = signed(shared.config.poll) - now.duration_since(at);
        waits.push(Duration::try_from(left).unwrap_or_default());
        // Its policy may have changed since the comparison.
        waits.extend(sync_by_itself(shared, key, &application));
    }
    if !stale {
        waits.extend(shared.touched_in(key));
    }
    waits.into_iter().min()
}

/// Whether a sync succeeded after the last comparison.
fn is_behind(application: &Value) -> bool {
    let finished = object::time(application, &["status", "operationState", "finishedAt"]);
    let reconciled = object::time(application, &["status", "reconciledAt"]);
    application::phase(application) == "Succeeded" && finished > reconciled
}

/// Deletes the resources of an Application that is being deleted, if its finalizer asks for that.
fn finalize(shared: &Shared, application: &Value) -> Option<Duration> {
    let cascades = |f: &Value| f.as_str().is_some_and(|f| f.starts_with(CASCADE));
    if !list(application, &["metadata", "finalizers"])
        .iter()
        .any(cascades)
    {
        return None;
    }
    let (live, extra) = shared.live(application, &[]);
    let options = Options {
        policy: Policy::Foreground,
        ..Options::default()
    };
    for key in &extra {
        let Some(object) = live.get(key).filter(|object| !object::is_deleting(object)) else {
            continue;
        };
        if let Some(resource) = target::resource_of(shared.store.registry(), object)
            && let Err(error) =
                delete::delete_object(&shared.store, resource, &key.namespace, &key.name, &options)
        {
            tracing::debug!(%error, name = key.name, "resource not deleted");
        }
    }
    let (_, left) = shared.live(application, &[]);
    if !left.is_empty() {
        return Some(DELETION);
    }
    let released = shared.change(application, |new| {
        if let Some(Value::Array(finalizers)) = object::metadata(new).get_mut("finalizers") {
            finalizers.retain(|f| !cascades(f));
        }
    });
    if let Err(error) = released {
        tracing::debug!(%error, "finalizer not removed");
    }
    None
}

/// What a comparison found.
struct Comparison {
    sync: &'static str,
    revision: String,
    health: Status,
    resources: Vec<Value>,
    images: Vec<String>,
    source_type: &'static str,
    errors: [(&'static str, Option<String>); 3],
}

/// Compares with git and writes the status; syncs if the Application says so. Returns when to check again.
async fn compare(
    shared: &Shared,
    key: &ApplicationKey,
    application: &Arc<Value>,
    refresh: Refresh,
) -> Option<Duration> {
    let found = look(shared, application, refresh).await;
    let now = Timestamp::now();
    let failed = found.sync == "Unknown";
    let asked = annotation(application, REFRESH).to_owned();
    let written = shared.change(application, |new| {
        // Only the request that was seen: a new one may have come.
        if annotation(new, REFRESH) == asked
            && let Some(Value::Object(annotations)) = object::metadata(new).get_mut("annotations")
        {
            annotations.remove(REFRESH);
        }
        let compared = application::compared_to(application);
        let mut conditions = list(new, &["status", "conditions"]).to_vec();
        for (kind, message) in &found.errors {
            set_condition(&mut conditions, kind, message.as_deref(), now);
        }
        let status = object::entry(new, "status");
        let before = status.get("health").cloned().unwrap_or_default();
        let same = before["status"] == found.health.as_str() && before["lastTransitionTime"].is_string();
        let since = if same {
            before["lastTransitionTime"].clone()
        } else {
            json!(object::stamp(now))
        };
        status.insert(
            "health".to_owned(),
            json!({"status": found.health.as_str(), "lastTransitionTime": since}),
        );
        status.insert(
            "sync".to_owned(),
            json!({"status": found.sync, "revision": found.revision, "comparedTo": compared}),
        );
        status.insert("reconciledAt".to_owned(), json!(object::stamp(now)));
        if !shared.config.resource_health {
            status.insert("resourceHealthSource".to_owned(), json!("appTree"));
        }
        if !failed {
            status.insert("resources".to_owned(), Value::Array(found.resources.clone()));
            status.insert("summary".to_owned(), json!({"images": found.images}));
            status.insert("sourceType".to_owned(), json!(found.source_type));
        } else if let Some(Value::Array(resources)) = status.get_mut("resources") {
            // Nothing is known to be wanted.
            for resource in resources {
                resource["status"] = json!("Unknown");
                resource["requiresPruning"] = json!(true);
            }
        }
        if conditions.is_empty() {
            status.remove("conditions");
        } else {
            status.insert("conditions".to_owned(), Value::Array(conditions));
        }
    });
    match written {
        Ok(written) if !failed => sync_by_itself(shared, key, &written),
        Ok(_) => Some(shared.config.poll.min(UNWELL)),
        Err(error) => {
            tracing::debug!(%error, "comparison not written");
            Some(DELETION)
        }
    }
}

/// Starts a sync if there is one to start. Returns when to check again.
fn sync_by_itself(shared: &Shared, key: &ApplicationKey, application: &Arc<Value>) -> Option<Duration> {
    let now = Timestamp::now();
    let poll = Some(shared.config.poll);
    let decision = application::auto_sync(application, shared.config.self_heal, now);
    if !matches!(decision, AutoSync::Refuse(_)) {
        condition(shared, application, None, now);
    }
    let operation = match decision {
        AutoSync::Nothing => return poll,
        AutoSync::Later(wait) => {
            // By then it is compared again: the drift may be gone.
            shared.touch(key, wait.max(Duration::from_millis(50)));
            return poll;
        }
        AutoSync::Refuse(why) => {
            condition(shared, application, Some(&why), now);
            return poll;
        }
        AutoSync::Start(operation) => operation,
    };
    let project = shared.project(application)?;
    if operation::is_blocked(application, &project, false, Timestamp::now()) {
        return poll;
    }
    let sync = application["status"]["sync"].clone();
    let started = shared.change(application, |new| {
        // Others write operations, too: theirs takes precedence.
        if new["status"]["sync"] == sync && !new["operation"].is_object() && !application::in_progress(new) {
            new["operation"] = operation;
            object::as_map(&mut new["status"]).remove("operationState");
        }
    });
    if let Err(error) = started {
        tracing::debug!(%error, "sync not started");
    }
    Some(Duration::ZERO)
}

/// Says why auto-sync does nothing, or that there is nothing to say.
fn condition(shared: &Shared, application: &Value, message: Option<&str>, now: Timestamp) {
    let mut conditions = list(application, &["status", "conditions"]).to_vec();
    set_condition(&mut conditions, "SyncError", message, now);
    if conditions == list(application, &["status", "conditions"]) {
        return;
    }
    let written = shared.change(application, |new| {
        if conditions.is_empty() {
            object::entry(new, "status").remove("conditions");
        } else {
            new["status"]["conditions"] = Value::Array(conditions);
        }
    });
    if let Err(error) = written {
        tracing::debug!(%error, "condition not written");
    }
}

async fn look(shared: &Shared, application: &Value, refresh: Refresh) -> Comparison {
    let before = text(application, &["status", "sync", "revision"]);
    let mut found = Comparison {
        sync: "Unknown",
        revision: before.to_owned(),
        health: Status::Unknown,
        resources: Vec::new(),
        images: Vec::new(),
        source_type: "Directory",
        errors: [
            ("InvalidSpecError", None),
            ("ComparisonError", None),
            ("RepeatedResourceWarning", None),
        ],
    };
    let project = shared.project(application).map(|_| ()).ok_or_else(|| {
        let name = text(application, &["spec", "project"]);
        format!("Application referencing project {name} which does not exist")
    });
    if let Err(error) = project.and_then(|()| desired::check_destination(application)) {
        found.errors[0].1 = Some(error);
        return found;
    }
    let revision = match refresh {
        Refresh::Recent if crate::argo_cd::git::is_commit(before) => before,
        _ => desired::target_revision(application),
    };
    let desired = shared
        .desired(application, revision, refresh == Refresh::Hard)
        .await;
    let desired = match desired {
        Ok(desired) => desired,
        Err(error) => {
            found.errors[1].1 = Some(error);
            let (live, _) = shared.live(application, &[]);
            let live: Vec<Option<&Value>> = live.values().map(|object| Some(object.as_ref())).collect();
            found.health = health::of_application(&live);
            return found;
        }
    };
    if let Some(key) = desired.repeated.first() {
        found.errors[2].1 = Some(format!(
            "Resource {} appeared 2 times among application resources.",
            key.display()
        ));
    }
    found.revision.clone_from(&desired.commit);
    if desired.kustomized {
        found.source_type = "Kustomize";
    }
    fill(shared, application, &desired, &mut found);
    found
}

fn fill(shared: &Shared, application: &Value, desired: &Desired, found: &mut Comparison) {
    let (live, extra) = shared.live(application, &desired.targets);
    let ignored = list(application, &["spec", "ignoreDifferences"]);
    let mut all = Vec::new();
    found.sync = "Synced";
    for target in &desired.targets {
        let key = Key::of(target);
        let object = live.get(&key).map(AsRef::as_ref);
        if target::is_hook(target) {
            found
                .resources
                .extend(object.map(|object| hook(shared, &key, object)));
            continue;
        }
        let status = match object {
            Some(object) if is_as_wanted(shared, &key, target, object, ignored) => "Synced",
            _ => "OutOfSync",
        };
        all.push(object);
        found.resources.push(entry(shared, &key, target, object, status));
    }
    for key in &extra {
        let Some(object) = live.get(key).map(AsRef::as_ref) else {
            continue;
        };
        if target::is_hook(object) {
            found.resources.push(hook(shared, key, object));
            continue;
        }
        let mut entry = entry(shared, key, object, Some(object), "OutOfSync");
        entry["requiresPruning"] = json!(true);
        all.push(Some(object));
        found.resources.push(entry);
    }
    if found.resources.iter().any(|r| r["status"] == "OutOfSync") {
        found.sync = "OutOfSync";
    }
    found.health = health::of_application(&all);
    for object in all.into_iter().flatten() {
        for containers in [
            &["spec", "template", "spec", "containers"][..],
            &["spec", "containers"],
        ] {
            let images = list(object, containers)
                .iter()
                .map(|c| text(c, &["image"]).to_owned());
            found.images.extend(images);
        }
    }
    found.images.sort();
    found.images.dedup();
}

/// A hook that is there: it is not compared with git, and goes by its own rules.
fn hook(shared: &Shared, key: &Key, object: &Value) -> Value {
    let mut entry = entry(shared, key, object, Some(object), "");
    object::as_map(&mut entry).remove("status");
    entry["hook"] = json!(true);
    entry["requiresPruning"] = json!(true);
    entry
}

fn entry(shared: &Shared, key: &Key, object: &Value, live: Option<&Value>, status: &str) -> Value {
    let version = text(object, &["apiVersion"]).rsplit('/').next().unwrap_or("");
    let mut entry = json!({"version": version, "kind": key.kind, "name": key.name, "status": status});
    for (field, value) in [("group", &key.group), ("namespace", &key.namespace)] {
        if !value.is_empty() {
            entry[field] = json!(value);
        }
    }
    let wave = target::wave(object);
    if wave != 0 {
        entry["syncWave"] = json!(wave);
    }
    if shared.config.resource_health {
        match live.map(health::of) {
            None => entry["health"] = json!({"status": Status::Missing.as_str()}),
            Some(Some(health)) if health.message.is_empty() => {
                entry["health"] = json!({"status": health.status.as_str()});
            }
            Some(Some(health)) => {
                entry["health"] = json!({"status": health.status.as_str(), "message": health.message});
            }
            Some(None) => {}
        }
    }
    entry
}

/// Whether applying would change nothing: Argo CD's server-side diff.
fn is_as_wanted(shared: &Shared, key: &Key, target: &Value, live: &Value, ignored: &[Value]) -> bool {
    let Some(resource) = target::resource_of(shared.store.registry(), target) else {
        return false;
    };
    let apply = Apply {
        manager: MANAGER,
        force: true,
        subresource: "",
        dry_run: true,
    };
    let place = (key.namespace.as_str(), key.name.as_str());
    let mut live = live.clone();
    let mut predicted = loop {
        let Ok((predicted, _)) = apply.to(&shared.store, resource, place, target) else {
            return false;
        };
        if object::resource_version(&predicted) == object::resource_version(&live) {
            break Value::clone(&predicted);
        }
        // It changed since it was read, which is not a difference to git.
        match shared.store.get(resource, place.0, place.1) {
            Some(newer) => live = Value::clone(&newer),
            None => return false,
        }
    };
    for object in [&mut predicted, &mut live] {
        for field in ["managedFields", "resourceVersion", "generation"] {
            object::metadata(object).remove(field);
        }
        object::as_map(object).remove("status");
        for rule in ignored.iter().filter(|rule| is_about(rule, key)) {
            for pointer in list(rule, &["jsonPointers"]).iter().filter_map(Value::as_str) {
                forget(object, pointer);
            }
        }
    }
    predicted == live
}

fn is_about(rule: &Value, key: &Key) -> bool {
    let fits = |field: &str, value: &str| matches!(text(rule, &[field]), wanted if wanted.is_empty() || wanted == value || wanted == "*");
    fits("group", &key.group)
        && fits("kind", &key.kind)
        && fits("name", &key.name)
        && fits("namespace", &key.namespace)
        && (!text(rule, &["kind"]).is_empty() || at(rule, &["group"]).is_string())
}

/// Removes what a JSON pointer refers to.
fn forget(object: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return;
    };
    if let Some(Value::Object(map)) = object.pointer_mut(parent) {
        map.remove(&last.replace("~1", "/").replace("~0", "~"));
    }
}
