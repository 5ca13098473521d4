//! The Application controller: real git repositories, syncs by hand and by itself, hooks, windows, faults.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::time::Duration;

use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use slipway_testbed::{eventually, holds};
use stage::Stage;

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "app", "image": image}]}}}})
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}})
}

fn annotated(mut object: Value, annotations: &Value) -> Value {
    object["metadata"]["annotations"] = annotations.clone();
    object
}

/// The facts by which a sync is known to be over: see the rules of Argo CD.
fn is_done(app: &Value, commit: &str) -> bool {
    let (status, state) = (&app["status"], &app["status"]["operationState"]);
    state["phase"] == "Succeeded"
        && state["syncResult"]["revision"] == commit
        && status["sync"]["status"] == "Synced"
        && status["sync"]["revision"] == commit
        && status["health"]["status"] == "Healthy"
        && status["reconciledAt"].as_str() >= state["finishedAt"].as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_by_hand_follows_git() {
    let stage = Stage::new().await;
    let first = stage.repository.commit(&[
        ("web.yaml", deployment("a:1")),
        ("settings.json", config_map("settings", "1")),
    ]);
    stage.create(&json!({})).await;
    let app = stage
        .until("compared", |app| app["status"]["reconciledAt"].is_string())
        .await;
    assert_eq!(app["status"]["sync"]["status"], "OutOfSync");
    assert_eq!(app["status"]["sync"]["revision"], first.as_str());
    assert_eq!(app["status"]["health"]["status"], "Missing");
    assert!(app["operation"].is_null());

    stage.sync("one", json!({"revision": first})).await;
    let app = stage.until("done", |app| is_done(app, &first)).await;
    let state = &app["status"]["operationState"];
    assert_eq!(state["message"], "successfully synced (all tasks run)");
    assert!(app["operation"].is_null(), "taken and removed");
    let results = state["syncResult"]["resources"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[1]["message"], "deployment.apps/web created");
    assert_eq!(results[1]["syncPhase"], "Sync");
    assert_eq!(app["status"]["history"][0]["revision"], first.as_str());
    let live = stage
        .api("default", "apps", "v1", "Deployment")
        .get("web")
        .await
        .unwrap();
    assert_eq!(
        live.annotations()["argocd.argoproj.io/tracking-id"],
        "web:apps/Deployment:default/web"
    );

    // A new commit is seen by a refresh; a file less wants pruning.
    let second = stage.repository.commit(&[("web.yaml", deployment("a:2"))]);
    let app = stage.refresh().await;
    assert_eq!(app["status"]["sync"]["status"], "OutOfSync");
    let resources = app["status"]["resources"].as_array().unwrap();
    assert!(
        resources
            .iter()
            .any(|r| r["kind"] == "ConfigMap" && r["requiresPruning"] == true)
    );
    stage.sync("two", json!({"revision": "main"})).await;
    let app = stage.ended("two").await;
    assert_eq!(
        app["status"]["operationState"]["syncResult"]["revision"],
        second.as_str()
    );
    let skipped = &app["status"]["operationState"]["syncResult"]["resources"];
    assert!(
        skipped
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["status"] == "PruneSkipped"),
        "{skipped}"
    );
    stage
        .sync("three", json!({"revision": second, "prune": true}))
        .await;
    stage.until("done", |app| is_done(app, &second)).await;
    let maps = stage.api("default", "", "v1", "ConfigMap");
    assert!(maps.get_opt("settings").await.unwrap().is_none());

    // Exactly the commit asked for, though the branch is further.
    stage.sync("back", json!({"revision": first})).await;
    let app = stage.ended("back").await;
    assert_eq!(
        app["status"]["operationState"]["syncResult"]["revision"],
        first.as_str()
    );
    let app = stage
        .until("compared", |app| app["status"]["sync"]["status"] == "OutOfSync")
        .await;
    assert_eq!(app["status"]["sync"]["revision"], second.as_str());
    stage.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automated_applications_sync_prune_and_heal() {
    let stage = Stage::with(|argo_cd| argo_cd.poll = Duration::from_millis(300)).await;
    let first = stage
        .repository
        .commit(&[("web.yaml", deployment("a:1")), ("c.yaml", config_map("c", "1"))]);
    stage
        .create(&json!({"spec": {
            "destination": {"namespace": "shop"},
            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}, "syncOptions": ["CreateNamespace=true"]}}}))
        .await;
    let app = stage.until("done", |app| is_done(app, &first)).await;
    assert_eq!(
        app["status"]["operationState"]["operation"]["initiatedBy"]["automated"],
        true
    );

    // Polling finds the next commit.
    let second = stage.repository.commit(&[("web.yaml", deployment("a:2"))]);
    stage.until("done", |app| is_done(app, &second)).await;
    assert!(
        stage
            .api("shop", "", "v1", "ConfigMap")
            .get_opt("c")
            .await
            .unwrap()
            .is_none()
    );

    // Drift is undone.
    let deployments = stage.api("shop", "apps", "v1", "Deployment");
    let drift = Patch::Merge(json!({"spec": {"replicas": 3}}));
    deployments
        .patch("web", &PatchParams::default(), &drift)
        .await
        .unwrap();
    eventually("the drift is undone", async || {
        let live = deployments.get("web").await.unwrap();
        holds(live, |live| live.data["spec"]["replicas"] == 1)
    })
    .await;
    let app = stage.until("healed", |app| is_done(app, &second)).await;
    assert_eq!(
        app["status"]["operationState"]["operation"]["sync"]["autoHealAttemptsCount"],
        1
    );

    // A commit that cannot be applied is tried once, with its retries.
    let mut broken = deployment("a:3");
    broken["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    stage
        .patch(&json!({"spec": {"syncPolicy": {"retry": {"limit": 1, "backoff": {"duration": "100ms"}}}}}))
        .await;
    let third = stage.repository.commit(&[("web.yaml", broken)]);
    let app = stage
        .until("failed", |app| {
            let state = &app["status"]["operationState"];
            state["phase"] == "Failed" && state["syncResult"]["revision"] == third.as_str()
        })
        .await;
    let message = app["status"]["operationState"]["message"].as_str().unwrap();
    assert!(
        message.contains("completed unsuccessfully, reason: ") && message.ends_with("(retried 1 times)."),
        "{message}"
    );
    let app = stage
        .until("told", |app| {
            app["status"]["conditions"][0]["type"] == "SyncError"
        })
        .await;
    assert_eq!(app["status"]["operationState"]["phase"], "Failed");

    // With its finalizer the Application takes its resources along.
    stage
        .patch(&json!({"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}}))
        .await;
    stage
        .applications()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the application is gone", async || {
        let found = stage.applications().get_opt("web").await.unwrap();
        holds(found, Option::is_none)
    })
    .await;
    assert!(deployments.get_opt("web").await.unwrap().is_none());
    stage.cluster.shutdown().await;
}

/// A Job that is a hook; its pretended pod ends with this code.
fn hook(phase: &str, exit_code: i32) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": phase.to_lowercase(),
        "annotations": {"argocd.argoproj.io/hook": phase}},
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"annotations": {"local-cluster.slipway.dev/pretended-exit-code": exit_code.to_string()}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a:1"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_waves_are_waited_for() {
    let stage = Stage::new().await;
    let late = annotated(
        config_map("late", "1"),
        &json!({"argocd.argoproj.io/sync-wave": "3"}),
    );
    let files = |before: Value| {
        [
            ("a.yaml", before),
            ("b.yaml", deployment("a:1")),
            ("c.yaml", late.clone()),
            ("d.yaml", hook("PostSync", 0)),
            ("e.yaml", hook("SyncFail", 0)),
        ]
    };
    let result = |app: &Value, name: &str| {
        let all = app["status"]["operationState"]["syncResult"]["resources"]
            .as_array()
            .cloned();
        let found = all.unwrap_or_default().into_iter().find(|r| r["name"] == name);
        found.unwrap_or_default()
    };
    let jobs = stage.api("default", "batch", "v1", "Job");

    // A hook that hangs holds everything up; the operation is ended from outside.
    let mut hangs = hook("PreSync", 0);
    hangs["spec"]["suspend"] = json!(true);
    let hanging = stage.repository.commit(&files(hangs));
    stage.create(&json!({})).await;
    stage.sync("hangs", json!({"revision": hanging})).await;
    let app = stage
        .until("waiting", |app| {
            app["status"]["operationState"]["message"] == "waiting for completion of hook batch/Job/presync"
        })
        .await;
    assert_eq!(app["status"]["operationState"]["phase"], "Running");
    assert_eq!(result(&app, "presync")["hookPhase"], "Running");
    assert!(app["operation"].is_object(), "it stands until the end");
    assert!(
        stage
            .api("default", "apps", "v1", "Deployment")
            .get_opt("web")
            .await
            .unwrap()
            .is_none()
    );
    stage
        .patch(&json!({"status": {"operationState": {"phase": "Terminating"}}}))
        .await;
    let app = stage.ended("hangs").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Failed");
    assert_eq!(app["status"]["operationState"]["message"], "Operation terminated");

    let good = stage.repository.commit(&files(hook("PreSync", 0)));
    stage.sync("good", json!({"revision": good})).await;
    let app = stage.ended("good").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Succeeded", "{app:#}");
    for (name, kind) in [("presync", "PreSync"), ("postsync", "PostSync")] {
        assert_eq!(result(&app, name)["hookType"], kind);
        assert_eq!(result(&app, name)["hookPhase"], "Succeeded");
    }
    assert_eq!(result(&app, "late")["status"], "Synced");
    assert!(jobs.get_opt("syncfail").await.unwrap().is_none());

    // The next time the hook runs anew, and fails.
    let uid = jobs.get("presync").await.unwrap().uid();
    let bad = stage.repository.commit(&files(hook("PreSync", 1)));
    stage.sync("bad", json!({"revision": bad})).await;
    let app = stage.ended("bad").await;
    let state = &app["status"]["operationState"];
    assert_eq!(state["phase"], "Failed");
    assert_eq!(
        state["message"],
        "one or more synchronization tasks completed unsuccessfully"
    );
    let failed = result(&app, "presync");
    assert_eq!(
        (&failed["hookPhase"], &failed["hookType"]),
        (&json!("Failed"), &json!("PreSync"))
    );
    assert!(
        failed["message"].as_str().unwrap().contains("backoff limit"),
        "{failed}"
    );
    assert_eq!(result(&app, "syncfail")["hookPhase"], "Succeeded");
    assert_eq!(result(&app, "web"), Value::Null);
    assert_ne!(jobs.get("presync").await.unwrap().uid(), uid);
    stage.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_hold_syncs_back() {
    let stage = Stage::new().await;
    let commit = stage.repository.commit(&[("c.yaml", config_map("c", "1"))]);
    let projects = stage.api("argocd", "argoproj.io", "v1alpha1", "AppProject");
    let windows = async |manual: bool| {
        let window = json!({"kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"],
                            "manualSync": manual});
        let patch = Patch::Merge(json!({"spec": {"syncWindows": [window]}}));
        projects
            .patch("default", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    windows(false).await;
    stage
        .create(&json!({"spec": {"syncPolicy": {"automated": {}}}}))
        .await;
    let app = stage
        .until("compared", |app| app["status"]["reconciledAt"].is_string())
        .await;
    assert!(
        app["operation"].is_null() && app["status"]["operationState"].is_null(),
        "{app:#}"
    );
    stage.sync("one", json!({"revision": commit})).await;
    let blocked = "Sync operation blocked by sync window";
    let app = stage
        .until("blocked", |app| {
            app["status"]["operationState"]["message"] == blocked
        })
        .await;
    assert_eq!(app["status"]["operationState"]["phase"], "Running");
    windows(true).await;
    let app = stage.ended("one").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Succeeded");
    stage.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operation_waits_for_the_end_of_the_first() {
    let stage = Stage::new().await;
    let commit = stage.repository.commit(&[("c.yaml", config_map("c", "1"))]);
    stage
        .create(&json!({"metadata": {"annotations": {"local-cluster.slipway.dev/faults": "slow"}}}))
        .await;
    stage.sync("one", json!({"revision": commit})).await;
    stage
        .until("running", |app| {
            app["status"]["operationState"]["phase"] == "Running"
        })
        .await;
    stage
        .patch(&json!({"operation": {"sync": {"revision": commit, "prune": true},
                                     "info": [{"name": "id", "value": "two"}]}}))
        .await;
    let app = stage.get().await;
    assert_eq!(
        app["status"]["operationState"]["operation"]["info"][0]["value"],
        "one"
    );
    let app = stage.ended("two").await;
    assert_eq!(app["status"]["history"].as_array().unwrap().len(), 2);
    assert!(app["operation"].is_null());
    stage.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_as_ordered() {
    let stage = Stage::new().await;
    let commit = stage.repository.commit(&[("c.yaml", config_map("c", "1"))]);
    let order = async |faults: Value| {
        stage
            .patch(&json!({"metadata": {"annotations": {"local-cluster.slipway.dev/faults": faults}}}))
            .await;
    };
    stage.create(&json!({})).await;

    order(json!("sync-fails")).await;
    stage.sync("fails", json!({"revision": commit})).await;
    let app = stage.ended("fails").await;
    let state = &app["status"]["operationState"];
    assert_eq!(state["phase"], "Failed");
    let result = &state["syncResult"]["resources"][0];
    assert_eq!(
        (&result["status"], &result["hookPhase"]),
        (&json!("SyncFailed"), &json!("Failed"))
    );
    assert!(
        state["message"]
            .as_str()
            .unwrap()
            .contains(result["message"].as_str().unwrap())
    );

    order(json!("error")).await;
    stage.sync("errs", json!({"revision": commit})).await;
    let app = stage.ended("errs").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Error");
    let app = stage.refresh().await;
    assert_eq!(app["status"]["conditions"][0]["type"], "ComparisonError");
    assert_eq!(app["status"]["sync"]["status"], "Unknown");

    order(json!("retry")).await;
    stage.sync("retries", json!({"revision": commit})).await;
    let app = stage
        .until("waiting", |app| {
            app["status"]["operationState"]["retryCount"] == 1
        })
        .await;
    let state = &app["status"]["operationState"];
    assert_eq!(state["phase"], "Running");
    assert!(
        state["finishedAt"].is_string() && state["message"].as_str().unwrap().contains("Retrying attempt #1")
    );
    let app = stage.ended("retries").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Succeeded");
    stage.until("done", |app| is_done(app, &commit)).await;

    order(json!("operation-left")).await;
    stage.sync("left", json!({"revision": commit})).await;
    let app = stage.ended("left").await;
    assert_eq!(app["operation"]["info"][0]["value"], "left");
    let app = stage.refresh().await;
    assert_eq!(
        app["status"]["operationState"]["phase"], "Succeeded",
        "and not begun again"
    );
    stage.patch(&json!({"operation": null})).await;

    // A Deployment that is not ready leaves the Application Healthy until somebody asks.
    order(json!("stale-health")).await;
    let mut paused = deployment("a:1");
    paused["spec"]["paused"] = json!(true);
    let next = stage.repository.commit(&[("web.yaml", paused)]);
    stage.sync("stale", json!({"revision": next})).await;
    let app = stage.ended("stale").await;
    assert_eq!(app["status"]["health"]["status"], "Healthy");
    assert_eq!(
        (
            &app["status"]["sync"]["status"],
            &app["status"]["sync"]["revision"]
        ),
        (&json!("Synced"), &json!(next))
    );
    assert!(app["status"]["reconciledAt"].as_str() < app["status"]["operationState"]["finishedAt"].as_str());
    let app = stage.refresh().await;
    assert_eq!(app["status"]["health"]["status"], "Suspended");
    assert!(app["status"]["reconciledAt"].as_str() >= app["status"]["operationState"]["finishedAt"].as_str());
    stage.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kustomizations_are_built_and_what_is_wrong_is_said() {
    let stage = Stage::new().await;
    let folder = stage.repository.path().join("app");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("kustomization.yaml"),
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamePrefix: pre-\nresources: [c.yaml]\n",
    )
    .unwrap();
    std::fs::write(folder.join("c.yaml"), config_map("c", "1").to_string()).unwrap();
    stage.repository.git(&["add", "--all"]);
    stage.repository.git(&["commit", "--quiet", "-m", "kustomized"]);
    let commit = stage.repository.git(&["rev-parse", "HEAD"]);
    stage.create(&json!({})).await;
    stage.sync("one", json!({"revision": commit})).await;
    let app = stage.until("done", |app| is_done(app, &commit)).await;
    assert_eq!(app["status"]["sourceType"], "Kustomize");
    assert!(
        stage
            .api("default", "", "v1", "ConfigMap")
            .get_opt("pre-c")
            .await
            .unwrap()
            .is_some()
    );

    stage
        .patch(&json!({"spec": {"source": {"path": "missing"}}}))
        .await;
    let app = stage
        .until("told", |app| {
            app["status"]["conditions"][0]["type"] == "ComparisonError"
        })
        .await;
    let message = app["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("missing: app path does not exist"), "{message}");
    stage.sync("two", json!({"revision": "f".repeat(40)})).await;
    let app = stage.ended("two").await;
    assert_eq!(app["status"]["operationState"]["phase"], "Error");
    stage.patch(&json!({"spec": {"project": "nobody"}})).await;
    let app = stage.refresh().await;
    assert_eq!(app["status"]["conditions"][0]["type"], "InvalidSpecError");
    assert_eq!(app["status"]["health"]["status"], "Unknown");

    // After a restart it goes on with what it knows.
    stage
        .patch(&json!({"spec": {"project": "default", "source": {"path": "app"}}}))
        .await;
    let stage = stage.restart().await;
    stage.sync("three", json!({"revision": "main"})).await;
    let app = stage.until("done", |app| is_done(app, &commit)).await;
    assert_eq!(app["status"]["history"].as_array().unwrap().len(), 2);
    assert_eq!(app["status"]["conditions"], Value::Null);
    stage.cluster.shutdown().await;
}
