//! What is written to Applications of Argo CD, against an API server without Argo CD: the tests play its controller.
//! See `cluster/mod.rs` for which cluster.
#![allow(clippy::unwrap_used)]

mod argo;
#[macro_use]
mod cluster;

use std::time::Duration;

use argo::{application, applications, define, live, merge, sync};
use cluster::{Bench, failed, succeeded};
use deploy_domain::{
    catalog::{ArgoCd, Blocked, Target, WorkloadKind},
    deployment::{DeploymentCommand, DeploymentState, DeploymentStatus},
};
use futures::future::join_all;
use kube::{
    api::{DeleteParams, WatchEvent, WatchParams},
    core::DynamicObject,
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_kubernetes::argo_cd::{self, Order, Started};
use slipway_model::{CommitSha, Id, Timestamp};
use slipway_verdict::application::{Next, Sync, WhenBlocked};

cluster_tests! {
    configure: |_| {},
    tests: [
        a_sync_is_written_as_argo_cds_api_server_does,
        asking_twice_is_asking_once,
        a_race_is_decided_again,
        an_older_turn_writes_nothing,
        another_operation_is_never_overwritten,
        our_own_that_was_left_standing_is,
        a_sync_is_terminated,
        a_sync_that_a_window_holds_back_does_not_outlive_its_refusal,
        an_application_that_is_not_there_is_named,
        the_sync_of_somebody_else_ends_ours,
        several_begin_together_or_not_at_all,
        it_is_deleted_meanwhile,
    ],
    faults: [],
}

const URL: &str = "https://git.example/ops";

fn ours() -> CommitSha {
    "1".repeat(40).parse().unwrap()
}

fn theirs() -> CommitSha {
    "2".repeat(40).parse().unwrap()
}

fn clock() -> String {
    // The cluster writes whole seconds.
    format!("{}Z", &Timestamp::now().to_string()[..19])
}

/// Waits until the object is as wanted.
async fn until(bench: &Bench, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    use futures::StreamExt;
    loop {
        let api = applications(bench);
        let list = api.list(&Default::default()).await.unwrap();
        let version = list.metadata.resource_version.unwrap_or_default();
        let found = list
            .items
            .into_iter()
            .find(|object| object.metadata.name.as_deref() == Some(name));
        if let Some(found) = found.map(|found| serde_json::to_value(found).unwrap())
            && wanted(&found)
        {
            return found;
        }
        let mut events = Box::pin(api.watch(&WatchParams::default(), &version).await.unwrap());
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Modified(object) | WatchEvent::Added(object) = event {
                let object: DynamicObject = object;
                let is_it = object.metadata.name.as_deref() == Some(name);
                let object = serde_json::to_value(object).unwrap();
                if is_it && wanted(&object) {
                    return object;
                }
            }
        }
    }
}

/// What the controller writes when a sync of the revision has ended and the cluster was compared.
fn done(operation: &Value, revision: &CommitSha) -> Value {
    let now = clock();
    json!({
        "operation": null,
        "metadata": {"annotations": {"argocd.argoproj.io/refresh": null}},
        "status": {
            "operationState": {
                "operation": operation, "phase": "Succeeded", "message": "successfully synced (all tasks run)",
                "startedAt": now, "finishedAt": now,
                "syncResult": {"revision": revision.as_str(), "source": {"repoURL": URL, "path": "shop"}},
            },
            "sync": {"status": "Synced", "revision": revision.as_str(),
                "comparedTo": {"destination": {}, "source": {"repoURL": URL}}},
            "health": {"status": "Healthy"},
            "reconciledAt": now,
        },
    })
}

fn yesterday() -> Value {
    json!({"status": {"operationState": {
        "operation": {"initiatedBy": {"username": "anna"}, "sync": {"revision": theirs().as_str()}},
        "phase": "Failed", "startedAt": "2026-01-01T12:00:00Z", "finishedAt": "2026-01-01T12:00:05Z",
        "syncResult": {"revision": theirs().as_str(), "source": {"repoURL": URL}},
    }}})
}

async fn shop(bench: &Bench, more: Value) {
    define(bench.cluster.client()).await;
    application(bench, "shop", URL, more).await;
}

fn target(bench: &Bench, name: &str) -> Target {
    Target {
        cluster: "test".parse().unwrap(),
        namespace: bench.namespace.clone(),
        kind: WorkloadKind::Application,
        name: name.to_owned(),
    }
}

fn wanted(bench: &Bench, id: &str) -> Sync {
    Sync {
        operation: id.to_owned(),
        revision: ours(),
        lane: target(bench, "shop").key(),
        descendants: Vec::new(),
        when_busy: WhenBlocked::Wait,
        when_closed: WhenBlocked::Wait,
        restores: false,
        require_synced: false,
    }
}

async fn a_sync_is_written_as_argo_cds_api_server_does(bench: &Bench) {
    let policy =
        json!({"spec": {"syncPolicy": {"syncOptions": ["CreateNamespace=true"], "retry": {"limit": 2}}}});
    shop(bench, policy).await;
    merge(bench, "shop", yesterday()).await;
    let options = ArgoCd {
        prune: true,
        sync_options: vec!["ServerSideApply=true".to_owned()],
        ..ArgoCd::default()
    };
    let id = bench.start(sync(bench, &ours(), 3, options)).await;
    let asked = until(bench, "shop", |live| live["operation"].is_object()).await;
    assert_eq!(
        asked["operation"],
        json!({
            "initiatedBy": {"username": "slipway", "automated": false},
            "info": [
                {"name": "deploy.slipway.dev/operation", "value": format!("{id}/shop")},
                {"name": "deploy.slipway.dev/deployment", "value": id.as_str()},
            ],
            "sync": {
                "revision": ours().as_str(), "prune": true, "syncStrategy": {"hook": {}},
                "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
            },
            "retry": {"limit": 2},
        })
    );
    assert!(asked["status"]["operationState"].is_null(), "{asked}");
    let annotations = &asked["metadata"]["annotations"];
    assert_eq!(annotations["deploy.slipway.dev/epoch"], "3");
    assert_eq!(annotations["deploy.slipway.dev/deployment"], id.as_str());
    assert_eq!(annotations["deploy.slipway.dev/commit"], ours().as_str());
    // Running, then done.
    let running = json!({"status": {"operationState": {
        "operation": asked["operation"], "phase": "Running", "message": "one or more tasks are running",
        "startedAt": clock(),
    }}});
    merge(bench, "shop", running).await;
    bench
        .until(&id, |state| {
            state.progress.contains("is running: one or more tasks")
        })
        .await;
    merge(bench, "shop", done(&asked["operation"], &ours())).await;
    let state = bench.end_of(&id).await;
    succeeded(&state);
    let applied = state.applied.unwrap();
    assert_eq!(applied.uid, asked["metadata"]["uid"]);
}

async fn asking_twice_is_asking_once(bench: &Bench) {
    shop(bench, json!({})).await;
    let id: Id = "dep-1".parse().unwrap();
    let wanted = wanted(bench, "dep-1/shop");
    let order = Order {
        deployment: &id,
        sync: &wanted,
        epoch: 1,
        prune: false,
        options: &[],
    };
    let start = async || {
        argo_cd::start(&bench.cluster, &target(bench, "shop"), &order, |live| {
            if live.asked_for(&wanted) {
                Next::Complete
            } else {
                Next::StartSync
            }
        })
        .await
        .unwrap()
    };
    assert!(matches!(start().await, Started::Written(_)));
    let before = live(bench, "shop").await;
    assert!(matches!(
        start().await,
        Started::Otherwise {
            next: Next::Complete,
            ..
        }
    ));
    // Also when the controller has taken it up, and when another's outcome has taken its place.
    merge(bench, "shop", done(&before["operation"], &ours())).await;
    assert!(matches!(start().await, Started::Otherwise { .. }));
    merge(bench, "shop", yesterday()).await;
    assert!(matches!(start().await, Started::Otherwise { .. }));
    assert!(live(bench, "shop").await["operation"].is_null());
}

async fn a_race_is_decided_again(bench: &Bench) {
    shop(bench, json!({})).await;
    let id: Id = "dep-1".parse().unwrap();
    let syncs: Vec<Sync> = (0..8).map(|n| wanted(bench, &format!("dep-{n}/shop"))).collect();
    // Eight at once, each of which would write where nothing stands.
    let place = target(bench, "shop");
    let all = syncs.iter().map(|wanted| {
        let (id, place) = (&id, &place);
        async move {
            let order = Order {
                deployment: id,
                sync: wanted,
                epoch: 1,
                prune: false,
                options: &[],
            };
            argo_cd::start(&bench.cluster, place, &order, |live| match &live.operation {
                None => Next::StartSync,
                Some(_) => Next::Complete,
            })
            .await
            .unwrap()
        }
    });
    let outcomes = join_all(all).await;
    let written = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Started::Written(_)))
        .count();
    assert_eq!(written, 1, "{outcomes:?}");
}

async fn an_older_turn_writes_nothing(bench: &Bench) {
    let lane = target(bench, "shop").key();
    let newer = json!({"metadata": {"annotations": {
        "deploy.slipway.dev/epoch": "9", "deploy.slipway.dev/target": lane,
        "deploy.slipway.dev/deployment": "dep-9",
    }}});
    shop(bench, newer).await;
    let before = live(bench, "shop").await["metadata"]["resourceVersion"].clone();
    let state = bench.run(sync(bench, &ours(), 8, ArgoCd::default())).await;
    failed(
        &state,
        "SUPERSEDED_EPOCH",
        &["dep-9 took its place (epoch 9 after 8)"],
    );
    assert_eq!(live(bench, "shop").await["metadata"]["resourceVersion"], before);
}

fn annas() -> Value {
    json!({"operation": {
        "initiatedBy": {"username": "anna"}, "sync": {"revision": theirs().as_str(), "syncStrategy": {"hook": {}}},
    }})
}

async fn another_operation_is_never_overwritten(bench: &Bench) {
    shop(bench, annas()).await;
    let refuse = ArgoCd {
        when_busy: Blocked::Refuse,
        ..ArgoCd::default()
    };
    let state = bench.run(sync(bench, &ours(), 1, refuse)).await;
    failed(
        &state,
        "SYNC_BUSY",
        &["a sync of 2222222 by anna is under way", "when_busy is refuse"],
    );
    // By default it waits.
    let id = bench.start(sync(bench, &ours(), 2, ArgoCd::default())).await;
    bench
        .until(&id, |state| {
            state.progress.contains("by anna is under way: waiting")
        })
        .await;
    let between = live(bench, "shop").await;
    assert_eq!(between["operation"]["initiatedBy"]["username"], "anna");
    merge(bench, "shop", done(&between["operation"], &theirs())).await;
    let asked = until(bench, "shop", |live| {
        live["operation"]["initiatedBy"]["username"] == "slipway"
    })
    .await;
    merge(bench, "shop", done(&asked["operation"], &ours())).await;
    succeeded(&bench.end_of(&id).await);
}

async fn our_own_that_was_left_standing_is(bench: &Bench) {
    shop(bench, json!({})).await;
    let id = bench.start(sync(bench, &ours(), 1, ArgoCd::default())).await;
    let asked = until(bench, "shop", |live| live["operation"].is_object()).await;
    let mut left = done(&asked["operation"], &ours());
    left["operation"] = asked["operation"].clone();
    merge(bench, "shop", left).await;
    succeeded(&bench.end_of(&id).await);
    assert!(live(bench, "shop").await["operation"].is_object());

    let next = bench.start(sync(bench, &theirs(), 2, ArgoCd::default())).await;
    let asked = until(bench, "shop", |live| {
        live["operation"]["sync"]["revision"] == theirs().as_str()
    })
    .await;
    merge(bench, "shop", done(&asked["operation"], &theirs())).await;
    succeeded(&bench.end_of(&next).await);
}

async fn a_sync_is_terminated(bench: &Bench) {
    shop(bench, annas()).await;
    let place = target(bench, "shop");
    let end = async || {
        argo_cd::terminate(&bench.cluster, &place, "dep-1/shop")
            .await
            .unwrap()
    };
    assert!(!end().await, "another's is left alone");
    let info = json!([{"name": "deploy.slipway.dev/operation", "value": "dep-1/shop"}]);
    let mut own = annas();
    own["operation"]["info"] = info;
    merge(bench, "shop", own.clone()).await;
    let state = json!({"status": {"operationState": {
        "operation": own["operation"], "phase": "Running", "startedAt": clock(),
    }}});
    merge(bench, "shop", state).await;
    assert!(end().await);
    let after = live(bench, "shop").await;
    assert_eq!(after["status"]["operationState"]["phase"], "Terminating");
    assert!(after["operation"].is_object(), "the controller ends it");
    assert!(!end().await, "once is enough");
    // One that has not begun is taken away.
    merge(bench, "shop", json!({"status": {"operationState": null}})).await;
    assert!(end().await);
    assert!(live(bench, "shop").await["operation"].is_null());
}

/// The project may not be read here, or is not there: the controller's own word tells.
async fn a_sync_that_a_window_holds_back_does_not_outlive_its_refusal(bench: &Bench) {
    shop(bench, json!({})).await;
    let refuse = ArgoCd {
        when_closed: Blocked::Refuse,
        ..ArgoCd::default()
    };
    let id = bench.start(sync(bench, &ours(), 1, refuse)).await;
    let asked = until(bench, "shop", |live| live["operation"].is_object()).await;
    let held = json!({"status": {"operationState": {
        "operation": asked["operation"], "phase": "Running", "message": "Sync operation blocked by sync window",
        "startedAt": clock(),
    }}});
    merge(bench, "shop", held).await;
    failed(
        &bench.end_of(&id).await,
        "SYNC_WINDOW_CLOSED",
        &["a sync window of its project", "when_closed is refuse"],
    );
    let after = live(bench, "shop").await;
    assert_eq!(after["status"]["operationState"]["phase"], "Terminating");
}

async fn an_application_that_is_not_there_is_named(bench: &Bench) {
    define(bench.cluster.client()).await;
    let at_once = ArgoCd {
        appear_within: Duration::ZERO,
        ..ArgoCd::default()
    };
    let state = bench.run(sync(bench, &ours(), 1, at_once)).await;
    failed(
        &state,
        "APPLICATION_NOT_FOUND",
        &["there is no Application shop in namespace", "create it"],
    );
}

async fn the_sync_of_somebody_else_ends_ours(bench: &Bench) {
    shop(bench, json!({})).await;
    let id = bench.start(sync(bench, &ours(), 1, ArgoCd::default())).await;
    until(bench, "shop", |live| live["operation"].is_object()).await;
    bench
        .until(&id, |state| state.status == DeploymentStatus::Verifying)
        .await;
    let mut annas = annas();
    annas["operation"]["info"] = Value::Null;
    annas["status"] = json!({"operationState": null});
    merge(bench, "shop", annas).await;
    let state: DeploymentState = bench.end_of(&id).await;
    failed(&state, "SUPERSEDED", &["anna synced 2222222 in place of 1111111"]);
}

async fn several_begin_together_or_not_at_all(bench: &Bench) {
    shop(bench, json!({})).await;
    application(bench, "shop-jobs", URL, annas()).await;
    let both = ArgoCd {
        also: vec!["shop-jobs".to_owned()],
        ..ArgoCd::default()
    };
    let id = bench.start(sync(bench, &ours(), 1, both)).await;
    bench
        .until(&id, |state| {
            state.progress.contains("shop-jobs: a sync of 2222222 by anna")
        })
        .await;
    assert!(
        live(bench, "shop").await["operation"].is_null(),
        "not one without the other"
    );
    let theirs_now = live(bench, "shop-jobs").await["operation"].clone();
    merge(bench, "shop-jobs", done(&theirs_now, &theirs())).await;
    for name in ["shop-jobs", "shop"] {
        let asked = until(bench, name, |live| {
            live["operation"]["initiatedBy"]["username"] == "slipway"
        })
        .await;
        assert_eq!(
            asked["operation"]["info"][0]["value"],
            format!("{id}/{name}").as_str()
        );
        if name == "shop-jobs" {
            let state = bench.tell(&id, DeploymentCommand::Wake).await;
            assert!(!state.status.is_final());
        }
        merge(bench, name, done(&asked["operation"], &ours())).await;
    }
    succeeded(&bench.end_of(&id).await);
}

async fn it_is_deleted_meanwhile(bench: &Bench) {
    shop(bench, json!({})).await;
    let id = bench.start(sync(bench, &ours(), 1, ArgoCd::default())).await;
    bench
        .until(&id, |state| state.status == DeploymentStatus::Verifying)
        .await;
    applications(bench)
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    failed(
        &bench.end_of(&id).await,
        "DELETED",
        &["Application shop in namespace", "was deleted meanwhile"],
    );
}
