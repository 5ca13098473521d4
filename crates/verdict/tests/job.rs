//! The verdict on a Job: conditions in, outcome and message out.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use k8s_openapi::api::batch::v1::Job;
use scene::Judged;
use serde_json::{Value, json};
use slipway_verdict::{FailureReason, job};

fn judge(spec: Value, status: Value) -> Judged {
    let live: Job =
        serde_json::from_value(json!({"metadata": {"name": "migrate"}, "spec": spec, "status": status}))
            .unwrap();
    Judged(job::judge(&live))
}

fn ended(kind: &str, reason: &str, message: &str) -> Value {
    json!([
        {"type": "Suspended", "status": "False"},
        {"type": kind, "status": "True", "reason": reason, "message": message},
    ])
}

#[test]
fn it_runs() {
    let spec = || json!({"template": {}});
    judge(spec(), json!({})).waits("the Job waits for a pod");
    judge(spec(), json!({"active": 1})).waits("the Job runs");
    judge(spec(), json!({"active": 1, "failed": 1})).waits("the Job runs; 1 pod has failed so far");
    judge(
        json!({"template": {}, "completions": 4}),
        json!({"active": 2, "succeeded": 1, "failed": 2}),
    )
    .waits("the Job runs: 1 of 4 completions; 2 pods have failed so far");
    judge(json!({"template": {}, "suspend": true}), json!({}))
        .waits("the Job is suspended: set its spec.suspend to false to let it run");
    // Announced, and not yet so (Kubernetes 1.31 and later).
    judge(
        spec(),
        json!({"conditions": ended("SuccessCriteriaMet", "CompletionsReached", "")}),
    )
    .waits("the Job has completed; its pods are terminating");
    judge(
        spec(),
        json!({"conditions": ended("FailureTarget", "BackoffLimitExceeded", "reached"), "failed": 1}),
    )
    .waits("the Job is about to fail: reached; 1 pod has failed so far");
    // A condition that does not hold says nothing.
    judge(spec(), json!({"conditions": [{"type": "Failed", "status": "False"}, {"type": "Complete", "status": "Unknown"}]}))
        .waits("the Job waits for a pod");
}

#[test]
fn it_ends() {
    judge(
        json!({"template": {}}),
        json!({"conditions": ended("Complete", "", ""), "succeeded": 1, "failed": 2}),
    )
    .completes();
    for (spec, status, words) in [
        (
            json!({"template": {}, "backoffLimit": 2}),
            json!({"failed": 3, "conditions": ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")}),
            "the Job failed: its pods failed 3 times; backoffLimit allows 2 retries",
        ),
        (
            json!({"template": {}, "activeDeadlineSeconds": 30}),
            json!({"conditions": ended("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")}),
            "the Job failed: it did not end within its activeDeadlineSeconds of 30 s",
        ),
        (
            json!({"template": {}}),
            json!({"conditions": ended("Failed", "PodFailurePolicy", "Container app for pod default/x failed with exit code 42")}),
            "the Job failed: its podFailurePolicy ended it: Container app for pod default/x failed with exit code 42",
        ),
        (
            json!({"template": {}}),
            json!({"conditions": ended("Failed", "MaxFailedIndexesExceeded", "too many")}),
            "the Job failed: MaxFailedIndexesExceeded: too many",
        ),
    ] {
        judge(spec, status).fails(FailureReason::JobFailed, &[words]);
    }
}

#[test]
fn it_is_deleted() {
    let going = |conditions: Value| -> Job {
        let metadata = json!({"name": "migrate", "deletionTimestamp": "2026-11-01T12:00:00Z"});
        serde_json::from_value(
            json!({"metadata": metadata, "spec": {"template": {}}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    };
    Judged(job::judge(&going(json!([])))).fails(FailureReason::Deleted, &["before it ended"]);
    // ttlSecondsAfterFinished takes away what has ended.
    Judged(job::judge(&going(ended("Complete", "", "")))).completes();
    Judged(job::deleted()).fails(FailureReason::Deleted, &["how far it got is not known"]);
}
