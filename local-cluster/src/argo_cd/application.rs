//! An Application's specification and status, and the decisions of its controller that do not need a cluster: when to
//! refresh, when to sync by itself, when to retry.
//!
//! After `argo-cd/controller/appcontroller.go` (needRefreshAppStatus, autoSync) and
//! `pkg/apis/application/v1alpha1/types.go` (RetryStrategy.NextRetryAt).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use slipway_model::duration::go;

use crate::object::{self, annotation, at, list, number, text};

/// Asks for a refresh; the controller removes it.
pub(crate) const REFRESH: &str = "argocd.argoproj.io/refresh";
/// Keeps an Application until its resources are deleted.
pub(crate) const CASCADE: &str = "resources-finalizer.argocd.argoproj.io";
/// Simulated faults, separated by commas.
const FAULTS: &str = "local-cluster.slipway.dev/faults";
/// Where Applications live; in other namespaces their instance name carries the namespace.
pub(crate) const HOME: &str = "argocd";

/// How a retry waits if the operation does not say.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(180);
const RETRY_FACTOR: i64 = 2;
/// How often auto-sync retries.
const AUTO_SYNC_RETRIES: i64 = 5;

pub(crate) fn has_fault(application: &Value, fault: &str) -> bool {
    annotation(application, FAULTS)
        .split(',')
        .any(|f| f.trim() == fault)
}

/// The name that tracking ids carry.
pub(crate) fn instance(application: &Value) -> String {
    match object::namespace(application) {
        HOME => object::name(application).to_owned(),
        namespace => format!("{namespace}_{}", object::name(application)),
    }
}

/// Whether an operation is in progress (`isOperationInProgress`).
pub(crate) fn in_progress(application: &Value) -> bool {
    matches!(phase(application), "Running" | "Terminating")
}

pub(crate) fn phase(application: &Value) -> &str {
    text(application, &["status", "operationState", "phase"])
}

/// What a comparison was made for.
pub(crate) fn compared_to(application: &Value) -> Value {
    let spec = &application["spec"];
    let mut compared = json!({"source": spec["source"], "destination": spec["destination"]});
    if spec["ignoreDifferences"].is_array() {
        compared["ignoreDifferences"] = spec["ignoreDifferences"].clone();
    }
    compared
}

/// How thoroughly to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refresh {
    /// With the last commit.
    Recent,
    /// Asking git for the current revision.
    Latest,
    /// Rendering again, too.
    Hard,
}

/// Whether to compare now; `touched` when a resource of the Application changed, `forced` after an operation.
pub(crate) fn needs_refresh(
    application: &Value,
    touched: bool,
    forced: bool,
    poll: Duration,
    now: Timestamp,
) -> Option<Refresh> {
    let reconciled = object::time(application, &["status", "reconciledAt"]);
    let compared = at(application, &["status", "sync", "comparedTo"]);
    let due = reconciled.is_none_or(|at| now.duration_since(at) >= signed(poll));
    match annotation(application, REFRESH) {
        "hard" => Some(Refresh::Hard),
        "" if forced || due || *compared != compared_to(application) => Some(Refresh::Latest),
        "" => touched.then_some(Refresh::Recent),
        _ => Some(Refresh::Latest),
    }
}

pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// When a failed operation is retried: `retries` is how often it already was.
///
/// # Errors
/// When the operation's settings cannot be read.
pub(crate) fn retry_after(operation: &Value, retries: i64) -> Result<Duration, String> {
    let backoff = at(operation, &["retry", "backoff"]);
    let read = |field: &str, otherwise: Duration| match text(backoff, &[field]) {
        "" => Ok(otherwise),
        // A bare number counts seconds.
        text => match text.parse() {
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(_) => go::parse(text).ok_or_else(|| format!("time: invalid duration \"{text}\"")),
        },
    };
    let (first, most) = (
        read("duration", RETRY_AFTER)?,
        read("maxDuration", RETRY_AFTER_AT_MOST)?,
    );
    let factor = number(backoff, &["factor"]).unwrap_or(RETRY_FACTOR).max(1);
    let factor = i32::try_from(factor).unwrap_or(i32::MAX);
    let retries = i32::try_from(retries.clamp(0, 30)).unwrap_or(30);
    let seconds = first.as_secs_f64() * f64::from(factor).powi(retries);
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(most).min(most))
}

/// How often a failed operation is retried; negative means for ever.
pub(crate) fn retry_limit(operation: &Value) -> i64 {
    number(operation, &["retry", "limit"]).unwrap_or(0)
}

/// What auto-sync does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AutoSync {
    Nothing,
    /// Check again after this long.
    Later(Duration),
    /// Write this operation.
    Start(Value),
    /// Nothing, and say why in a SyncError condition.
    Refuse(String),
}

/// Whether the Application syncs by itself after a comparison, whose result is in its status.
pub(crate) fn auto_sync(application: &Value, self_heal: Duration, now: Timestamp) -> AutoSync {
    let (policy, status) = (at(application, &["spec", "syncPolicy"]), &application["status"]);
    let automated = &policy["automated"];
    let resources = list(status, &["resources"]);
    if !automated.is_object() || automated["enabled"] == false {
        return AutoSync::Nothing;
    }
    if application["operation"].is_object() || in_progress(application) || object::is_deleting(application) {
        return AutoSync::Nothing;
    }
    if text(status, &["sync", "status"]) != "OutOfSync" {
        return AutoSync::Nothing;
    }
    let prune = automated["prune"] == true;
    let out_of_sync = || resources.iter().filter(|r| r["status"] == "OutOfSync");
    if !prune && out_of_sync().all(|r| r["requiresPruning"] == true) {
        return AutoSync::Nothing;
    }
    let revision = text(status, &["sync", "revision"]);
    let mut sync = json!({"revision": revision, "prune": prune});
    if policy["syncOptions"].is_array() {
        sync["syncOptions"] = policy["syncOptions"].clone();
    }
    let last = &status["operationState"];
    if text(last, &["syncResult", "revision"]) == revision && last["operation"]["sync"].is_object() {
        if text(last, &["phase"]) != "Succeeded" {
            return AutoSync::Refuse(format!(
                "Failed last sync attempt to {revision}: {}",
                text(last, &["message"])
            ));
        }
        if automated["selfHeal"] != true {
            return AutoSync::Nothing;
        }
        let finished = object::time(last, &["finishedAt"]).unwrap_or(Timestamp::UNIX_EPOCH);
        let left = signed(self_heal) - now.duration_since(finished);
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            return AutoSync::Later(left);
        }
        let attempts = number(last, &["operation", "sync", "autoHealAttemptsCount"]).unwrap_or(0);
        sync["autoHealAttemptsCount"] = json!(attempts + 1);
        let name = |r: &Value| json!({"group": r["group"], "kind": r["kind"], "namespace": r["namespace"], "name": r["name"]});
        sync["resources"] = out_of_sync().map(name).collect();
    }
    let everything = !resources.is_empty() && resources.iter().all(|r| r["requiresPruning"] == true);
    if prune && automated["allowEmpty"] != true && everything {
        return AutoSync::Refuse(format!(
            "Skipping sync attempt to {revision}: auto-sync will wipe out all resources"
        ));
    }
    let retry = match &policy["retry"] {
        Value::Null => json!({"limit": AUTO_SYNC_RETRIES}),
        retry => retry.clone(),
    };
    AutoSync::Start(json!({"initiatedBy": {"automated": true}, "sync": sync, "retry": retry}))
}

/// Sets or removes a condition; if it says the same, it keeps its time.
pub(crate) fn set_condition(conditions: &mut Vec<Value>, kind: &str, message: Option<&str>, now: Timestamp) {
    let same = |c: &Value| c["type"] == kind && message.is_some_and(|message| c["message"] == message);
    if conditions.iter().any(same) {
        return;
    }
    conditions.retain(|c| c["type"] != kind);
    if let Some(message) = message {
        conditions.push(json!({"type": kind, "message": message, "lastTransitionTime": object::stamp(now)}));
    }
}

#[cfg(test)]
mod tests;
