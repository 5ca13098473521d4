//! Operations: a sync from its request to its end (`processRequestedAppOperation` and `SyncAppState` of Argo CD).
//!
//! A request is in `.operation`, and also in `status.operationState` while it is worked on; at its end it is removed
//! from `.operation`, unless another one has been written there meanwhile, which is then started.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_verdict::sync_window::{Answer, AppProject, Subject, may_sync};

use crate::api::delete::{self, Options};
use crate::argo_cd::Shared;
use crate::argo_cd::application::{self, has_fault, signed};
use crate::argo_cd::course::{Course, LOOK, Outcome};
use crate::argo_cd::desired;
use crate::object::{self, list, number, text};

/// How often a sync that a window blocks is checked.
const BLOCKED: Duration = Duration::from_secs(1);
/// The minimum duration of a sync with the fault `slow`.
const SLOW: Duration = Duration::from_secs(3);
/// How long a failed sync waits with the fault `retry`, if the operation does not say.
const FAULT_RETRY: &str = "1s";
/// How many entries `status.history` has.
const HISTORY: usize = 10;

/// The result of working on an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to do.
    Idle,
    /// Check again after this long.
    Wait(Duration),
    /// It ended just now.
    Ended,
}

/// Works on the Application's operation as far as possible without waiting.
pub(super) async fn process(shared: &Shared, application: &Arc<Value>) -> Turn {
    let Some(application) = begin(shared, application) else {
        return Turn::Idle;
    };
    let mut state = application["status"]["operationState"].clone();
    if text(&state, &["phase"]) == "Terminating" {
        terminate(shared, &state);
        return end(
            shared,
            &application,
            state,
            "Failed",
            "Operation terminated".to_owned(),
        );
    }
    if state["finishedAt"].is_string() {
        match retry_at(&application, &state) {
            Ok(at) if at > Timestamp::now() => {
                return Turn::Wait(until(at));
            }
            Ok(_) => {
                object::as_map(&mut state).remove("finishedAt");
                object::as_map(&mut state).remove("syncResult");
                shared.save(&application, &state);
            }
            Err(error) => return end(shared, &application, state, "Error", error),
        }
    }
    match run(shared, &application, &mut state).await {
        Outcome::Wait(message, wait) => {
            state["message"] = json!(message);
            shared.save(&application, &state);
            Turn::Wait(wait)
        }
        Outcome::End(phase, message) => end(shared, &application, state, phase, message),
    }
}

fn until(at: Timestamp) -> Duration {
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    left.max(Duration::from_millis(10))
}

/// Takes up a request, unless one is in progress. Returns the Application in its new state.
fn begin(shared: &Shared, application: &Arc<Value>) -> Option<Arc<Value>> {
    if application::in_progress(application) {
        return Some(Arc::clone(application));
    }
    let operation = &application["operation"];
    let done = &application["status"]["operationState"]["operation"];
    if !operation.is_object() || has_fault(application, "operation-left") && operation == done {
        return None;
    }
    let now = object::stamp(Timestamp::now());
    let begun = shared.change(application, |new| {
        if new["operation"] == *operation && !application::in_progress(new) {
            new["status"]["operationState"] =
                json!({"operation": operation, "phase": "Running", "startedAt": now});
        }
    });
    begun
        .inspect_err(|error| tracing::debug!(%error, "operation not taken up"))
        .ok()
        .filter(|application| application::in_progress(application))
}

fn retries(state: &Value) -> i64 {
    number(state, &["retryCount"]).unwrap_or(0)
}

/// The operation, with the effect of the faults on its retries.
fn retried(application: &Value, state: &Value) -> Value {
    let mut operation = state["operation"].clone();
    if has_fault(application, "retry") && application::retry_limit(&operation) == 0 {
        operation["retry"]["limit"] = json!(1);
        if !operation["retry"]["backoff"]["duration"].is_string() {
            operation["retry"]["backoff"]["duration"] = json!(FAULT_RETRY);
        }
    }
    operation
}

fn retry_at(application: &Value, state: &Value) -> Result<Timestamp, String> {
    let finished = object::time(state, &["finishedAt"]).unwrap_or_default();
    let wait = application::retry_after(&retried(application, state), retries(state) - 1)?;
    Ok(finished.checked_add(signed(wait)).unwrap_or(Timestamp::MAX))
}

/// Ends an operation, or lets a failed one wait for its next try.
fn end(shared: &Shared, application: &Value, mut state: Value, phase: &'static str, message: String) -> Turn {
    let now = Timestamp::now();
    let terminated = text(&state, &["phase"]) == "Terminating";
    let operation = retried(application, &state);
    let (limit, before) = (application::retry_limit(&operation), retries(&state));
    state["finishedAt"] = json!(object::stamp(now));
    if phase != "Succeeded" && !terminated && (before < limit || limit < 0) {
        let wait = application::retry_after(&operation, before);
        if let Ok(wait) = wait {
            let at = now.checked_add(signed(wait)).unwrap_or(now);
            let attempt = before + 1;
            state["phase"] = json!("Running");
            state["retryCount"] = json!(attempt);
            let time = at.strftime("%-I:%M%p");
            state["message"] = json!(format!("{message}. Retrying attempt #{attempt} at {time}."));
            shared.save(application, &state);
            return Turn::Wait(until(at));
        }
    }
    state["phase"] = json!(phase);
    state["message"] = json!(if before > 0 && phase != "Succeeded" {
        format!("{message} (retried {before} times).")
    } else {
        message
    });
    let stale = phase == "Succeeded" && has_fault(application, "stale-health");
    if stale && is_same_second(application, now) {
        // The earlier comparison must be recognisable as earlier.
        return Turn::Wait(LOOK);
    }
    let left = has_fault(application, "operation-left");
    let ended = shared.change(application, |new| {
        if new["operation"] == state["operation"] && !left {
            object::as_map(new).remove("operation");
        }
        if phase == "Succeeded" {
            remember(new, &state);
        }
        if stale {
            new["status"]["sync"] = json!({"status": "Synced", "revision": state["syncResult"]["revision"],
                                           "comparedTo": application::compared_to(new)});
        }
        new["status"]["operationState"] = state;
    });
    match ended {
        Ok(_) => Turn::Ended,
        Err(error) => {
            tracing::debug!(%error, "operation not ended");
            Turn::Wait(LOOK)
        }
    }
}

fn is_same_second(application: &Value, now: Timestamp) -> bool {
    object::time(application, &["status", "reconciledAt"]).is_some_and(|at| at >= object::seconds(now))
}

/// Adds a full sync to the history (`persistRevisionHistory`).
fn remember(application: &mut Value, state: &Value) {
    let sync = &state["operation"]["sync"];
    if sync["dryRun"] == true || !list(sync, &["resources"]).is_empty() {
        return;
    }
    let mut history = list(application, &["status", "history"]).to_vec();
    let id = history
        .last()
        .and_then(|h| number(h, &["id"]))
        .map_or(0, |id| id + 1);
    history.push(json!({
        "id": id, "revision": state["syncResult"]["revision"], "source": state["syncResult"]["source"],
        "deployStartedAt": state["startedAt"], "deployedAt": state["finishedAt"],
        "initiatedBy": state["operation"]["initiatedBy"],
    }));
    let kept = number(application, &["spec", "revisionHistoryLimit"]);
    let kept = kept
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(HISTORY);
    let first = history.len().saturating_sub(kept);
    application["status"]["history"] = Value::Array(history.split_off(first));
}

/// Deletes the hooks that are running.
fn terminate(shared: &Shared, state: &Value) {
    for result in list(state, &["syncResult", "resources"]) {
        if result["hookType"].is_string() && result["hookPhase"] == "Running" {
            let group = text(result, &["group"]);
            let version = text(result, &["version"]);
            let api = if group.is_empty() {
                version.to_owned()
            } else {
                format!("{group}/{version}")
            };
            if let Some(resource) = shared.store.registry().by_kind(&api, text(result, &["kind"])) {
                let (namespace, name) = (text(result, &["namespace"]), text(result, &["name"]));
                if let Err(error) =
                    delete::delete_object(&shared.store, resource, namespace, name, &Options::default())
                {
                    tracing::debug!(%error, name, "hook not deleted");
                }
            }
        }
    }
}

/// Whether a window of the project keeps the Application from being synced at that time; one that cannot be read does.
/// `manual` is a sync that was not started by auto-sync.
pub(super) fn is_blocked(application: &Value, project: &Value, manual: bool, now: Timestamp) -> bool {
    let name = object::name(application);
    let windows = match AppProject::deserialize(project) {
        Ok(project) => project.spec.sync_windows,
        Err(error) => {
            tracing::warn!(%error, name, "the project of an application cannot be read");
            return true;
        }
    };
    let destination = &application["spec"]["destination"];
    let subject = Subject {
        name,
        namespace: text(destination, &["namespace"]),
        cluster: text(destination, &["name"]),
        server: text(destination, &["server"]),
    };
    let now = slipway_model::Timestamp::from_micros(now.as_microsecond());
    match may_sync(&windows, subject, manual, now) {
        Answer::Open => false,
        Answer::Closed { words, .. } => {
            tracing::debug!(name, window = words, "a sync window is closed");
            true
        }
    }
}

async fn run(shared: &Shared, application: &Value, state: &mut Value) -> Outcome {
    let operation = state["operation"].clone();
    if !operation["sync"].is_object() {
        return Outcome::End(
            "Failed",
            "Invalid operation request: no operation specified".to_owned(),
        );
    }
    if let Err(error) = desired::check_destination(application) {
        return Outcome::End("Failed", error);
    }
    let Some(project) = shared.project(application) else {
        let name = text(application, &["spec", "project"]);
        let message = format!("Application referencing project {name} which does not exist");
        return Outcome::End("Error", message);
    };
    let manual = operation["initiatedBy"]["automated"] != true;
    if is_blocked(application, &project, manual, Timestamp::now()) {
        return Outcome::Wait("Sync operation blocked by sync window".to_owned(), BLOCKED);
    }
    if has_fault(application, "slow") {
        let started = object::time(state, &["startedAt"]).unwrap_or_default();
        if Timestamp::now().duration_since(started) < signed(SLOW) {
            return Outcome::Wait("one or more tasks are running".to_owned(), LOOK);
        }
    }
    let revision = [
        text(state, &["syncResult", "revision"]),
        text(&operation, &["sync", "revision"]),
        desired::target_revision(application),
    ];
    let revision = revision
        .into_iter()
        .find(|r| !r.is_empty())
        .unwrap_or("HEAD")
        .to_owned();
    let desired = match shared.desired(application, &revision, false).await {
        Ok(desired) => desired,
        Err(error) => return Outcome::End("Error", format!("ComparisonError: {error}")),
    };
    state["syncResult"]["revision"] = json!(desired.commit);
    state["syncResult"]["source"] = application["spec"]["source"].clone();
    if has_fault(application, "retry") && retries(state) == 0 {
        return Outcome::End(
            "Failed",
            "one or more objects failed to apply, reason: a retry was ordered".to_owned(),
        );
    }
    let course = Course {
        shared,
        application,
        operation: &operation,
        desired: &desired,
    };
    course.run(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_the_project_hold_syncs_back() {
        // A Monday.
        let now: Timestamp = "2026-03-02T09:30:00Z".parse().unwrap();
        let server = "https://kubernetes.default.svc";
        let application = json!({"metadata": {"name": "shop-web"}, "spec": {
            "destination": {"namespace": "shop", "server": server}}});
        let deny = |mut more: Value| {
            let mut window = json!({"kind": "deny", "schedule": "0 9 * * *", "duration": "1h"});
            object::as_map(&mut window).extend(std::mem::take(object::as_map(&mut more)));
            json!({"metadata": {"name": "default"}, "spec": {"syncWindows": [window]}})
        };
        // (the project, whether it blocks an automated sync, and a manual one)
        let table = [
            (json!({"spec": {}}), false, false),
            (deny(json!({"applications": ["shop-*"]})), true, true),
            (deny(json!({"applications": ["till"]})), false, false),
            (deny(json!({"namespaces": ["{shop,bar}"]})), true, true),
            (deny(json!({"clusters": ["https://*"]})), true, true),
            (
                deny(json!({"applications": ["*"], "duration": "30m"})),
                false,
                false,
            ),
            (
                deny(json!({"applications": ["*"], "manualSync": true})),
                true,
                false,
            ),
            (
                deny(json!({"applications": ["*"], "manualSync": true, "schedule": "x"})),
                true,
                true,
            ),
        ];
        for (project, automated, by_hand) in table {
            assert_eq!(
                is_blocked(&application, &project, false, now),
                automated,
                "{project}"
            );
            assert_eq!(
                is_blocked(&application, &project, true, now),
                by_hand,
                "by hand: {project}"
            );
        }
    }
}
