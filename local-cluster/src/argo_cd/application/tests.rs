use super::*;

fn now() -> Timestamp {
    "2026-03-02T09:30:00Z".parse().unwrap()
}

fn application(patch: &Value) -> Value {
    let mut application = json!({
        "metadata": {"name": "web", "namespace": "argocd"},
        "spec": {"source": {"repoURL": "/r", "path": "."}, "destination": {"namespace": "shop"},
                 "syncPolicy": {"automated": {}}},
        "status": {"reconciledAt": "2026-03-02T09:29:00Z",
            "sync": {"status": "OutOfSync", "revision": "aaa"},
            "resources": [{"kind": "Deployment", "name": "web", "status": "OutOfSync"}]}});
    application["status"]["sync"]["comparedTo"] = compared_to(&application);
    json_patch::merge(&mut application, patch);
    application
}

#[test]
fn refreshes_are_asked_for_or_due() {
    let poll = Duration::from_secs(120);
    let annotated = |kind: &str| application(&json!({"metadata": {"annotations": {REFRESH: kind}}}));
    let table = [
        (application(&json!({})), false, false, None),
        (application(&json!({})), true, false, Some(Refresh::Recent)),
        (application(&json!({})), false, true, Some(Refresh::Latest)),
        (annotated("normal"), false, false, Some(Refresh::Latest)),
        (annotated("hard"), false, false, Some(Refresh::Hard)),
        (
            application(&json!({"status": {"reconciledAt": null}})),
            false,
            false,
            Some(Refresh::Latest),
        ),
        (
            application(&json!({"status": {"reconciledAt": "2026-03-02T09:28:00Z"}})),
            false,
            false,
            Some(Refresh::Latest),
        ),
        (
            application(&json!({"spec": {"source": {"path": "other"}}})),
            false,
            false,
            Some(Refresh::Latest),
        ),
    ];
    for (application, touched, forced, expected) in table {
        let found = needs_refresh(&application, touched, forced, poll, now());
        assert_eq!(found, expected, "{application}");
    }
}

#[test]
fn a_commit_is_tried_once_and_drift_is_healed_late() {
    let attempted = |phase: &str, revision: &str, finished: &str, automated: Value| {
        application(&json!({"spec": {"syncPolicy": {"automated": automated}},
            "status": {"operationState": {"phase": phase, "message": "why", "finishedAt": finished,
                "operation": {"sync": {}}, "syncResult": {"revision": revision}}}}))
    };
    let (long_ago, just_now) = ("2026-03-02T09:00:00Z", "2026-03-02T09:29:58Z");
    let start = |application: &Value| match auto_sync(application, Duration::from_secs(5), now()) {
        AutoSync::Start(operation) => {
            assert_eq!(operation["initiatedBy"]["automated"], true);
            assert_eq!(operation["sync"]["revision"], "aaa");
            "start".to_owned()
        }
        AutoSync::Nothing => "nothing".to_owned(),
        AutoSync::Later(left) => format!("in {} s", left.as_secs()),
        AutoSync::Refuse(why) => why,
    };
    let pruning =
        json!([{"kind": "ConfigMap", "name": "old", "status": "OutOfSync", "requiresPruning": true}]);
    let table = [
        (application(&json!({})), "start"),
        (application(&json!({"spec": {"syncPolicy": null}})), "nothing"),
        (
            application(&json!({"spec": {"syncPolicy": {"automated": {"enabled": false}}}})),
            "nothing",
        ),
        (
            application(&json!({"status": {"sync": {"status": "Synced"}}})),
            "nothing",
        ),
        (
            application(&json!({"status": {"sync": {"status": "Unknown"}}})),
            "nothing",
        ),
        (application(&json!({"operation": {"sync": {}}})), "nothing"),
        (
            application(&json!({"status": {"operationState": {"phase": "Running"}}})),
            "nothing",
        ),
        (application(&json!({"status": {"resources": pruning}})), "nothing"),
        (
            application(
                &json!({"status": {"resources": pruning}, "spec": {"syncPolicy": {"automated": {"prune": true}}}}),
            ),
            "Skipping sync attempt to aaa: auto-sync will wipe out all resources",
        ),
        (
            attempted("Failed", "aaa", long_ago, json!({})),
            "Failed last sync attempt to aaa: why",
        ),
        (attempted("Failed", "bbb", long_ago, json!({})), "start"),
        (attempted("Succeeded", "aaa", long_ago, json!({})), "nothing"),
        (
            attempted("Succeeded", "aaa", long_ago, json!({"selfHeal": true})),
            "start",
        ),
        (
            attempted("Succeeded", "aaa", just_now, json!({"selfHeal": true})),
            "in 3 s",
        ),
        (
            attempted("Succeeded", "bbb", just_now, json!({"selfHeal": true})),
            "start",
        ),
    ];
    for (application, expected) in table {
        assert_eq!(start(&application), expected, "{application}");
    }
}

#[test]
fn retries_back_off() {
    let of = |retry: Value| json!({"retry": retry});
    let fast = json!({"limit": 3, "backoff": {"duration": "100ms", "factor": 3, "maxDuration": "1s"}});
    let table = [
        (of(json!({})), 0, Ok(5_000)),
        (of(json!({})), 2, Ok(20_000)),
        (of(json!({})), 20, Ok(180_000)),
        (of(fast.clone()), 0, Ok(100)),
        (of(fast.clone()), 1, Ok(300)),
        (of(fast), 5, Ok(1_000)),
        (of(json!({"backoff": {"duration": "7"}})), 0, Ok(7_000)),
        (
            of(json!({"backoff": {"duration": "x"}})),
            0,
            Err("time: invalid duration \"x\"".to_owned()),
        ),
    ];
    for (operation, retries, expected) in table {
        let found = retry_after(&operation, retries).map(|d| d.as_millis());
        assert_eq!(found, expected, "{operation}");
    }
}

#[test]
fn conditions_keep_their_time() {
    let mut conditions = Vec::new();
    set_condition(&mut conditions, "SyncError", Some("a"), now());
    let later = now() + SignedDuration::from_secs(60);
    set_condition(&mut conditions, "SyncError", Some("a"), later);
    assert_eq!(conditions[0]["lastTransitionTime"], "2026-03-02T09:30:00Z");
    set_condition(&mut conditions, "SyncError", Some("b"), later);
    assert_eq!(conditions.len(), 1);
    set_condition(&mut conditions, "SyncError", None, later);
    assert!(conditions.is_empty());
}

#[test]
fn names_and_faults() {
    let mut application = application(&json!({"metadata": {"annotations": {FAULTS: "slow, retry"}}}));
    assert!(
        has_fault(&application, "retry")
            && has_fault(&application, "slow")
            && !has_fault(&application, "error")
    );
    assert_eq!(instance(&application), "web");
    application["metadata"]["namespace"] = json!("team");
    assert_eq!(instance(&application), "team_web");
}
