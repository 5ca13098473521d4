//! Deployments through Argo CD: local-cluster's Application controller renders from git and applies. A real cluster
//! has none that these tests may order faults from: there they are skipped, and `argo_cd_api` is what remains.
#![allow(clippy::unwrap_used)]

mod argo;
#[macro_use]
mod cluster;
mod first;
mod release;

use std::sync::Arc;

use argo::{Git, application, applications, custom, live, merge, sync, value};
use cluster::{Bench, failed, succeeded};
use deploy_domain::{
    catalog::{ArgoCd, Blocked, Verify, WorkloadKind},
    deployment::{DeploymentCommand, DeploymentRequest, DeploymentStatus},
    release::ReleaseStatus,
};
use first::{Backends, Files, message, steps};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_model::{CommitSha, Images};
use slipway_testbed::{eventually, holds};

cluster_tests! {
    configure: |config| config.argo_cd = Some(local_cluster::ArgoCd::default()),
    tests: [
        exactly_our_commit_while_the_branch_has_moved_on => LocalCluster,
        a_branch_that_differs_says_nothing_of_our_commit => LocalCluster,
        the_image_is_followed_to_its_pods => LocalCluster,
        another_image_than_ours_is_told => LocalCluster,
        pods_that_never_become_ready_fail_it => LocalCluster,
        auto_sync_is_followed => LocalCluster,
        auto_sync_that_has_nothing_to_do => LocalCluster,
        auto_sync_of_another_branch_never_sees_the_commit => LocalCluster,
        another_sync_is_waited_for => LocalCluster,
        another_sync_refuses => LocalCluster,
        a_closed_window_is_waited_for => LocalCluster,
        a_closed_window_refuses => LocalCluster,
        auto_sync_waits_for_its_window => LocalCluster,
        a_retry_is_not_the_end => LocalCluster,
        an_operation_left_standing_is_no_new_sync => LocalCluster,
        health_of_before_is_not_believed => LocalCluster,
        a_crash_loop_inside_ends_it_early => LocalCluster,
        an_object_that_left_git_is_a_warning => LocalCluster,
        an_application_that_appears_later_is_waited_for => LocalCluster,
        a_failed_hook_is_told => LocalCluster,
        what_cannot_be_applied_is_told => LocalCluster,
        a_commit_that_does_not_render_is_told => LocalCluster,
        two_applications_are_one => LocalCluster,
        one_of_two_that_fails_is_named => LocalCluster,
        a_revert_rolls_back => LocalCluster,
        objects_that_left_git_are_pruned => LocalCluster,
        a_cancelled_sync_is_terminated => LocalCluster,
        the_first_release_of_an_application_that_is_synced_by_hand_is_put_back => LocalCluster,
        the_first_release_of_an_application_that_syncs_by_itself_is_put_back => LocalCluster,
    ],
    faults: [],
}

fn faults(faults: &str) -> Value {
    json!({"metadata": {"annotations": {"local-cluster.slipway.dev/faults": faults}}})
}

fn automated() -> Value {
    json!({"spec": {"syncPolicy": {"automated": {}}}})
}

fn refusing() -> ArgoCd {
    ArgoCd {
        when_busy: Blocked::Refuse,
        when_closed: Blocked::Refuse,
        ..ArgoCd::default()
    }
}

async fn stored(bench: &Bench, name: &str) -> Option<String> {
    let map = bench.api::<ConfigMap>().get_opt(name).await.unwrap()?;
    map.data?.remove("value")
}

/// A repository whose first commit has `old` in `shop`, and an application that follows it.
async fn world(bench: &Bench, more: Value) -> Git {
    let git = Git::new();
    git.commit("shop", &[value("shop", "old")]);
    application(bench, "shop", &git.url(), more).await;
    git
}

async fn exactly_our_commit_while_the_branch_has_moved_on(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let later = git.commit("till", &[value("till", "theirs")]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    succeeded(&state);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
    let live = live(bench, "shop").await;
    let operation = &live["status"]["operationState"];
    assert_eq!(operation["syncResult"]["revision"], ours.as_str());
    assert_eq!(operation["operation"]["initiatedBy"]["username"], "slipway");
    assert_eq!(live["status"]["sync"]["revision"], later.as_str());
}

async fn a_branch_that_differs_says_nothing_of_our_commit(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let later = git.commit("shop", &[value("shop", "theirs")]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    succeeded(&state);
    assert_eq!(
        stored(bench, "shop").await.as_deref(),
        Some("ours"),
        "and not the later one"
    );
    let live = live(bench, "shop").await;
    assert_eq!(live["status"]["sync"]["status"], "OutOfSync");
    assert_eq!(live["status"]["sync"]["revision"], later.as_str());
}

async fn cancel(bench: &Bench, id: &slipway_model::Id) {
    let cancel = DeploymentCommand::Cancel {
        message: "enough".to_owned(),
    };
    let state = bench.tell(id, cancel).await;
    assert_eq!(state.status, DeploymentStatus::Cancelled);
}

/// The workload `shop` at a version, with a deadline that a test can wait for.
fn shop(bench: &Bench, version: &slipway_model::Digest, mode: &str) -> Vec<Value> {
    let mut objects = bench.shop(WorkloadKind::Deployment, version, mode);
    objects[1]["spec"]["progressDeadlineSeconds"] = json!(5);
    objects
}

async fn the_image_is_followed_to_its_pods(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let first = git.commit("shop", &shop(bench, &bench.a, "ok"));
    succeeded(&bench.run(sync(bench, &first, 1, ArgoCd::default())).await);
    let ready = async || {
        let live = bench.deployments().get("shop").await.unwrap();
        let status = live.status.unwrap();
        (
            status.updated_replicas,
            status.available_replicas,
            status.replicas,
        )
    };
    assert_eq!(ready().await, (Some(2), Some(2), Some(2)));
    let second = git.commit("shop", &shop(bench, &bench.b, "ok"));
    let request = DeploymentRequest {
        images: Images::one(bench.built(&bench.b)),
        ..sync(bench, &second, 2, ArgoCd::default())
    };
    succeeded(&bench.run(request).await);
    assert_eq!(ready().await, (Some(2), Some(2), Some(2)));
}

async fn another_image_than_ours_is_told(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let commit = git.commit("shop", &shop(bench, &bench.b, "ok"));
    let id = bench.start(sync(bench, &commit, 1, ArgoCd::default())).await;
    let words = format!("its pods run {}@{}, and not {}", bench.image, bench.b, bench.a);
    bench.until(&id, |state| state.progress.contains(&words)).await;
    failed(&bench.end_of(&id).await, "WRONG_IMAGE", &[&words]);
}

/// Restarts that are not reached before the progress deadline.
const PATIENT: u32 = 100;

async fn pods_that_never_become_ready_fail_it(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let commit = git.commit("shop", &shop(bench, &bench.a, "crash"));
    let mut request = sync(bench, &commit, 1, ArgoCd::default());
    request.verify.crash_loop_restarts = PATIENT;
    let state = bench.run(request).await;
    let object = format!(
        "Deployment {}/shop: no progress within 5 s: pod shop-",
        bench.namespace
    );
    failed(&state, "PROGRESS_DEADLINE_EXCEEDED", &[&object]);
    let lines = state
        .evidence
        .iter()
        .flat_map(|pod| pod.log_tail.iter().chain(&pod.previous_log_tail));
    let told = lines
        .into_iter()
        .any(|line| line.contains("cannot open the database"));
    assert!(told, "{:?}", state.evidence);
}

async fn auto_sync_is_followed(bench: &Bench) {
    let git = world(bench, automated()).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    succeeded(&state);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
    let live = live(bench, "shop").await;
    let operation = &live["status"]["operationState"]["operation"];
    assert_eq!(
        operation["initiatedBy"]["automated"], true,
        "we wrote none: {operation}"
    );
}

async fn auto_sync_that_has_nothing_to_do(bench: &Bench) {
    let git = world(bench, automated()).await;
    let first = git.commit("shop", &[value("shop", "ours")]);
    succeeded(&bench.run(sync(bench, &first, 1, ArgoCd::default())).await);
    let same = git.commit("till", &[value("till", "other")]);
    succeeded(&bench.run(sync(bench, &same, 2, ArgoCd::default())).await);
}

async fn auto_sync_of_another_branch_never_sees_the_commit(bench: &Bench) {
    let git = Git::new();
    let old = git.commit("shop", &[value("shop", "old")]);
    git.branch("stable");
    let more = json!({"spec": {"syncPolicy": {"automated": {}}, "source": {"targetRevision": "stable"}}});
    application(bench, "shop", &git.url(), more).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    let words = format!(
        "Argo CD sees {} and not {}; it follows stable of {}",
        old.short(),
        ours.short(),
        git.url()
    );
    let state = bench
        .until(&id, |state| {
            state.progress.contains(&words) || state.status.is_final()
        })
        .await;
    if state.status.is_final() {
        // It had not yet synced what it follows when the deployment began.
        failed(&state, "SUPERSEDED", &["stable of"]);
    } else {
        cancel(bench, &id).await;
    }
    assert_ne!(stored(bench, "shop").await.as_deref(), Some("ours"));
}

/// Somebody's sync, as `argocd app sync` asks for it.
async fn anna_syncs(bench: &Bench, commit: &CommitSha) {
    let operation = json!({"operation": {
        "initiatedBy": {"username": "anna"}, "sync": {"revision": commit.as_str(), "syncStrategy": {"hook": {}}},
    }});
    merge(bench, "shop", operation).await;
}

async fn another_sync_is_waited_for(bench: &Bench) {
    let git = world(bench, faults("slow")).await;
    let theirs = git.commit("shop", &[value("shop", "theirs")]);
    let ours = git.commit("shop", &[value("shop", "ours")]);
    anna_syncs(bench, &theirs).await;
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    let words = format!("a sync of {} by anna is under way: waiting", theirs.short());
    bench.until(&id, |state| state.progress.contains(&words)).await;
    succeeded(&bench.end_of(&id).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
    let live = live(bench, "shop").await;
    let history: Vec<&Value> = live["status"]["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["revision"])
        .collect();
    assert_eq!(history, [theirs.as_str(), ours.as_str()]);
}

async fn another_sync_refuses(bench: &Bench) {
    let git = world(bench, faults("slow")).await;
    let theirs = git.commit("shop", &[value("shop", "theirs")]);
    let ours = git.commit("shop", &[value("shop", "ours")]);
    anna_syncs(bench, &theirs).await;
    let state = bench.run(sync(bench, &ours, 1, refusing())).await;
    failed(&state, "SYNC_BUSY", &[theirs.short(), "by anna is under way"]);
    assert_ne!(stored(bench, "shop").await.as_deref(), Some("ours"));
}

/// A project of the test's own with one window that is closed all the time.
async fn closed(bench: &Bench) -> Value {
    let name = bench.namespace.as_str();
    let project = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
            "syncWindows": [{
                "kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["shop"],
                "description": "frozen",
            }],
        },
    });
    custom(bench.cluster.client(), "argocd", "AppProject")
        .create(&PostParams::default(), &serde_json::from_value(project).unwrap())
        .await
        .unwrap();
    json!({"spec": {"project": name}})
}

async fn open(bench: &Bench) {
    custom(bench.cluster.client(), "argocd", "AppProject")
        .patch(
            bench.namespace.as_str(),
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"syncWindows": null}})),
        )
        .await
        .unwrap();
}

async fn a_closed_window_is_waited_for(bench: &Bench) {
    let project = closed(bench).await;
    let git = world(bench, project).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    bench
        .until(&id, |state| {
            state
                .progress
                .contains("deny window \"* * * * *\" for 1h (UTC): frozen does not let it be synced")
        })
        .await;
    assert!(
        live(bench, "shop").await["operation"].is_null(),
        "nothing was asked for"
    );
    open(bench).await;
    succeeded(&bench.end_of(&id).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
}

async fn a_closed_window_refuses(bench: &Bench) {
    let project = closed(bench).await;
    let git = world(bench, project).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let state = bench.run(sync(bench, &ours, 1, refusing())).await;
    failed(&state, "SYNC_WINDOW_CLOSED", &["frozen", "when_closed is refuse"]);
    assert_eq!(stored(bench, "shop").await, None);
}

async fn auto_sync_waits_for_its_window(bench: &Bench) {
    let mut more = closed(bench).await;
    more["spec"]["syncPolicy"] = json!({"automated": {}});
    let git = world(bench, more).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    bench
        .until(&id, |state| {
            state.progress.contains("frozen does not let it be synced")
        })
        .await;
    open(bench).await;
    succeeded(&bench.end_of(&id).await);
    let state = bench.run(sync(bench, &ours, 2, refusing())).await;
    succeeded(&state);
}

async fn a_retry_is_not_the_end(bench: &Bench) {
    let mut more = faults("retry");
    more["spec"] = json!({"syncPolicy": {"retry": {"limit": 1, "backoff": {"duration": "4s"}}}});
    let git = world(bench, more).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    let state = bench
        .until(&id, |state| {
            state.progress.contains("failed and will be tried again")
        })
        .await;
    assert!(!state.status.is_final(), "{state:?}");
    succeeded(&bench.end_of(&id).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
}

async fn an_operation_left_standing_is_no_new_sync(bench: &Bench) {
    let git = world(bench, faults("operation-left")).await;
    let first = git.commit("shop", &[value("shop", "first")]);
    succeeded(&bench.run(sync(bench, &first, 1, ArgoCd::default())).await);
    assert!(live(bench, "shop").await["operation"].is_object(), "it was left");
    let second = git.commit("shop", &[value("shop", "second")]);
    succeeded(&bench.run(sync(bench, &second, 2, ArgoCd::default())).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("second"));
}

async fn health_of_before_is_not_believed(bench: &Bench) {
    let git = world(bench, faults("stale-health")).await;
    let commit = git.commit("shop", &shop(bench, &bench.a, "ok"));
    succeeded(&bench.run(sync(bench, &commit, 1, ArgoCd::default())).await);
    // The second one breaks; the application still says Healthy, of the first.
    let commit = git.commit("shop", &shop(bench, &bench.b, "crash"));
    let mut request = DeploymentRequest {
        images: Images::one(bench.built(&bench.b)),
        ..sync(bench, &commit, 2, ArgoCd::default())
    };
    request.verify.crash_loop_restarts = PATIENT;
    let state = bench.run(request).await;
    failed(&state, "PROGRESS_DEADLINE_EXCEEDED", &["Deployment", "pod shop-"]);
}

async fn a_crash_loop_inside_ends_it_early(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let commit = git.commit("shop", &bench.shop(WorkloadKind::Deployment, &bench.a, "crash"));
    let mut request = sync(bench, &commit, 1, ArgoCd::default());
    request.verify.crash_loop_restarts = 1;
    let state = bench.run(request).await;
    let object = format!("Deployment {}/shop: pod shop-", bench.namespace);
    failed(&state, "CRASH_LOOP", &[&object, "CrashLoopBackOff"]);
    assert!(
        state.evidence.iter().all(|one| one.pod.contains("shop")),
        "{:?}",
        state.evidence
    );
}

async fn an_object_that_left_git_is_a_warning(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let first = git.commit("shop", &bench.shop(WorkloadKind::Deployment, &bench.a, "ok"));
    succeeded(&bench.run(sync(bench, &first, 1, ArgoCd::default())).await);
    git.commit("shop", &[value("extra", "old")]);
    let with_extra = git.commit("till", &[value("till", "other")]);
    succeeded(&bench.run(sync(bench, &with_extra, 2, ArgoCd::default())).await);
    let without = git.remove("shop/configmap-extra.yaml");
    let strict = ArgoCd {
        require_synced: true,
        ..ArgoCd::default()
    };
    let id = bench.start(sync(bench, &without, 3, strict)).await;
    bench
        .until(&id, |state| {
            state.progress.contains("extra left git and is not pruned")
        })
        .await;
    cancel(bench, &id).await;
    let state = bench.run(sync(bench, &without, 4, ArgoCd::default())).await;
    succeeded(&state);
    let [warning] = &state.warnings[..] else {
        panic!("{:?}", state.warnings)
    };
    assert!(warning.contains("extra left git and is not pruned"), "{warning}");
}

async fn an_application_that_appears_later_is_waited_for(bench: &Bench) {
    let git = Git::new();
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    bench
        .until(&id, |state| {
            state.progress.contains("for Application shop in namespace")
        })
        .await;
    application(bench, "shop", &git.url(), json!({})).await;
    succeeded(&bench.end_of(&id).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
}

async fn a_failed_hook_is_told(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let mut pod = bench.template(&bench.a, "crash");
    pod["spec"]["restartPolicy"] = json!("Never");
    let hook = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "migrate", "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
        "spec": {"backoffLimit": 0, "template": pod},
    });
    let ours = git.commit("shop", &[value("shop", "ours"), hook]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    let place = format!("Job {}/migrate (PreSync hook): ", bench.namespace);
    failed(&state, "SYNC_FAILED", &[&place, "backoff limit"]);
    assert_eq!(stored(bench, "shop").await, None, "nothing else was changed");
}

async fn what_cannot_be_applied_is_told(bench: &Bench) {
    let git = world(bench, faults("sync-fails")).await;
    let ours = git.commit("shop", &[value("shop", "ours")]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    let place = format!("ConfigMap {}/shop: ", bench.namespace);
    failed(&state, "SYNC_FAILED", &[&place, "a failure was ordered"]);
}

async fn a_commit_that_does_not_render_is_told(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let mut broken = value("shop", "ours");
    broken["apiVersion"] = json!("");
    let ours = git.commit("shop", &[broken]);
    let state = bench.run(sync(bench, &ours, 1, ArgoCd::default())).await;
    failed(&state, "SYNC_FAILED", &["Object 'Kind' is missing"]);
}

async fn two_applications_are_one(bench: &Bench) {
    let git = world(bench, json!({})).await;
    git.commit("shop", &[value("shop", "ours")]);
    let ours = git.commit("shop-jobs", &[value("shop-jobs", "ours")]);
    application(bench, "shop-jobs", &git.url(), faults("slow")).await;
    let both = ArgoCd {
        also: vec!["shop-jobs".to_owned()],
        ..ArgoCd::default()
    };
    let id = bench.start(sync(bench, &ours, 1, both)).await;
    bench
        .until(&id, |state| state.progress.starts_with("shop-jobs: the sync of"))
        .await;
    succeeded(&bench.end_of(&id).await);
    assert_eq!(stored(bench, "shop").await.as_deref(), Some("ours"));
    assert_eq!(stored(bench, "shop-jobs").await.as_deref(), Some("ours"));
}

async fn one_of_two_that_fails_is_named(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let ours = git.commit("shop-jobs", &[value("shop-jobs", "ours")]);
    application(bench, "shop-jobs", &git.url(), faults("sync-fails")).await;
    let both = ArgoCd {
        also: vec!["shop-jobs".to_owned()],
        ..ArgoCd::default()
    };
    let state = bench.run(sync(bench, &ours, 1, both)).await;
    failed(&state, "SYNC_FAILED", &["shop-jobs: ", "a failure was ordered"]);
}

async fn a_revert_rolls_back(bench: &Bench) {
    for (epoch, policy) in [(1, json!({})), (3, automated())] {
        let name = format!("v{epoch}");
        let git = Git::new();
        let good = git.commit("shop", &[value("shop", &name)]);
        application(bench, "shop", &git.url(), policy).await;
        succeeded(&bench.run(sync(bench, &good, epoch, ArgoCd::default())).await);
        let bad = git.commit("shop", &[value("shop", "bad")]);
        let id = bench.start(sync(bench, &bad, epoch + 1, ArgoCd::default())).await;
        succeeded(&bench.end_of(&id).await);
        assert_eq!(stored(bench, "shop").await.as_deref(), Some("bad"));
        let back = git.revert(&bad);
        let request = DeploymentRequest {
            rolls_back: Some(id),
            ..sync(bench, &back, epoch + 2, ArgoCd::default())
        };
        succeeded(&bench.run(request).await);
        assert_eq!(stored(bench, "shop").await, Some(name));
        applications(bench)
            .delete("shop", &DeleteParams::default())
            .await
            .unwrap();
        eventually("the application is gone", async || {
            holds(
                applications(bench).get_opt("shop").await.unwrap(),
                Option::is_none,
            )
        })
        .await;
    }
}

async fn objects_that_left_git_are_pruned(bench: &Bench) {
    let git = world(bench, json!({})).await;
    let first = git.commit("shop", &[value("shop", "ours"), value("extra", "old")]);
    succeeded(&bench.run(sync(bench, &first, 1, ArgoCd::default())).await);
    let second = git.remove("shop/configmap-extra.yaml");
    let id = bench.start(sync(bench, &second, 2, ArgoCd::default())).await;
    bench
        .until(&id, |state| {
            state
                .progress
                .contains("extra left git and is not pruned; allow it with argo_cd.prune")
        })
        .await;
    cancel(bench, &id).await;
    let prune = ArgoCd {
        prune: true,
        ..ArgoCd::default()
    };
    succeeded(&bench.run(sync(bench, &second, 3, prune)).await);
    assert_eq!(stored(bench, "extra").await, None);
}

async fn a_cancelled_sync_is_terminated(bench: &Bench) {
    let git = world(bench, json!({})).await;
    // A hook that does not end by itself.
    let mut pod = bench.template(&bench.a, "ok");
    pod["spec"]["restartPolicy"] = json!("Never");
    let hook = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "migrate", "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
        "spec": {"backoffLimit": 0, "template": pod},
    });
    let ours = git.commit("shop", &[value("shop", "ours"), hook]);
    let id = bench.start(sync(bench, &ours, 1, ArgoCd::default())).await;
    bench
        .until(&id, |state| state.progress.contains("is running: waiting for"))
        .await;
    cancel(bench, &id).await;
    let live = eventually("the operation ends", async || {
        let live = live(bench, "shop").await;
        holds(live, |live| live["status"]["operationState"]["phase"] == "Failed")
    })
    .await;
    assert_eq!(
        live["status"]["operationState"]["message"],
        "Operation terminated"
    );
    assert!(live["operation"].is_null());
    assert_eq!(stored(bench, "shop").await, None);
}

/// It ran before, synced by somebody, with a tag in git.
async fn is_put_back(bench: &Bench, policy: Value) {
    let tag = bench.namespace.to_string();
    bench.tag(&tag, &bench.a).await;
    let tagged = format!("{}:{tag}", bench.image);
    let of = |image: &str, mode: &str| {
        let mut objects = shop(bench, &bench.a, mode);
        objects[1]["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        objects[1]["spec"]["strategy"] = json!({"type": "Recreate"});
        objects
    };
    let git = Git::new();
    let before = git.commit("shop", &of(&tagged, "ok"));
    application(bench, "shop", &git.url(), policy).await;
    let earlier = DeploymentRequest {
        verify: Verify {
            digest: false,
            ..Verify::default()
        },
        ..sync(bench, &before, 1, ArgoCd::default())
    };
    succeeded(&bench.run(earlier).await);

    let (old, new) = (of(&tagged, "ok"), of(&bench.image(&bench.b), "crash"));
    let git = Arc::new(git);
    let committed = Arc::clone(&git);
    let backends = Backends {
        built: bench.built(&bench.b),
        tagged: tagged.clone(),
        commit: Box::new(move |files| match files {
            Files::New => committed.commit("shop", &new),
            _ => committed.commit("shop", &old),
        }),
    };
    let state = first::release(bench, WorkloadKind::Application, backends).await;
    let said = message(&state);
    assert_eq!(state.status, ReleaseStatus::RolledBack, "{said}");
    assert_eq!(steps(&state), ["change", "deploy", "revert", "redeploy"]);
    let restored = state.restored(Some(0)).unwrap();
    assert_eq!(restored.digests, std::slice::from_ref(&bench.a), "{said}");
    let live = bench.deployments().get("shop").await.unwrap();
    let image = live.spec.unwrap().template.spec.unwrap().containers[0]
        .image
        .clone();
    assert_eq!(image.as_deref(), Some(tagged.as_str()));
    assert_eq!(live.status.unwrap().available_replicas, Some(2));
}

async fn the_first_release_of_an_application_that_is_synced_by_hand_is_put_back(bench: &Bench) {
    is_put_back(bench, json!({})).await;
}

async fn the_first_release_of_an_application_that_syncs_by_itself_is_put_back(bench: &Bench) {
    is_put_back(bench, automated()).await;
}
