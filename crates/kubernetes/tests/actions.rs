//! Restart, undo and set image: kubectl's rules, fenced by epochs, and done once however often they are requested.
#![allow(clippy::unwrap_used)]

mod world;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{ResourceExt, api::DynamicObject};
use pretty_assertions::assert_eq;
use serde_json::json;
use slipway_kubernetes::{
    Kubernetes,
    apply::{self, manifests},
    fault,
    restart::{RESTARTED_AT, restart},
    set_image::set_image,
    undo::undo,
    watch::Scope,
};
use slipway_model::{Fault, ImageRef, Reason};
use slipway_verdict::{DEPLOYMENT, EPOCH, Previous, Target, WorkloadKind};
use world::{A, B, World, id, image, run, seen, spec, target, write};

const KINDS: [WorkloadKind; 3] = [
    WorkloadKind::Deployment,
    WorkloadKind::StatefulSet,
    WorkloadKind::DaemonSet,
];

/// One workload without pods, whose controller has seen it.
async fn workload(world: &World, cluster: &Kubernetes, kind: WorkloadKind) -> Target {
    let target = target(kind, &world.namespace().await, "shop");
    world.create(&target, spec(kind, 0, A)).await;
    settled(cluster, &target).await;
    target
}

/// Waits until the controller has seen, and numbered, the current version.
async fn settled(cluster: &Kubernetes, target: &Target) {
    let mut subscription = cluster.follow(target);
    let api = kube::Api::<DynamicObject>::namespaced_with(
        cluster.client().clone(),
        target.namespace.as_str(),
        &slipway_kubernetes::workload::resource(target.kind),
    );
    loop {
        let live = api.get(&target.name).await.unwrap();
        let seen = live
            .data
            .pointer("/status/observedGeneration")
            .and_then(|value| value.as_i64());
        let numbered = target.kind != WorkloadKind::Deployment
            || live
                .annotations()
                .contains_key("deployment.kubernetes.io/revision");
        if seen == live.metadata.generation && numbered {
            return;
        }
        subscription.changed().await;
    }
}

async fn live(world: &World, target: &Target) -> DynamicObject {
    world.api(target).get(&target.name).await.unwrap()
}

async fn template(world: &World, target: &Target) -> PodTemplateSpec {
    serde_json::from_value(live(world, target).await.data["spec"]["template"].clone()).unwrap()
}

async fn images(world: &World, target: &Target) -> Vec<String> {
    let containers = template(world, target).await.spec.unwrap().containers;
    containers
        .into_iter()
        .filter_map(|container| container.image)
        .collect()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Fault<Reason>>) -> String {
    match outcome {
        Err(Fault::Permanent(reason)) if reason.code == fault::REFUSED => reason.message,
        other => panic!("{other:?}"),
    }
}

fn superseded<T: std::fmt::Debug>(outcome: Result<T, Fault<Reason>>) -> String {
    match outcome {
        Err(Fault::Permanent(reason)) if reason.code == fault::SUPERSEDED => reason.message,
        other => panic!("{other:?}"),
    }
}

fn ours(digest: &str) -> ImageRef {
    image(digest).parse().unwrap()
}

#[tokio::test]
async fn a_restart_is_done_once_for_each_deployment() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        for kind in KINDS {
            let target = workload(world, &cluster, kind).await;
            let first = id("restart-1");
            let before = live(world, &target).await.metadata.generation;
            let applied = restart(&cluster, &write(&first, &target, 1)).await.unwrap();
            assert_eq!(
                Some(applied.generation),
                before.map(|before| before + 1),
                "{kind}"
            );
            let now = live(world, &target).await;
            assert_eq!(now.annotations()[DEPLOYMENT], "restart-1");
            assert_eq!(now.annotations()[EPOCH], "1");
            assert_eq!(now.metadata.uid, Some(applied.uid.clone()));
            let stamp = template(world, &target)
                .await
                .metadata
                .unwrap()
                .annotations
                .unwrap()[RESTARTED_AT]
                .clone();
            let again = restart(&cluster, &write(&first, &target, 1)).await.unwrap();
            assert_eq!(again, applied, "{kind}: the same again is the same");
            restart(&cluster, &write(&id("restart-2"), &target, 2))
                .await
                .unwrap();
            let later = template(world, &target)
                .await
                .metadata
                .unwrap()
                .annotations
                .unwrap()[RESTARTED_AT]
                .clone();
            assert!(later > stamp);
            let late = restart(&cluster, &write(&first, &target, 1)).await;
            let words = superseded(late);
            assert!(
                words.contains("carries epoch 2") && words.contains("this one's 1"),
                "{words}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_restarted_is_refused() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let target = workload(world, &cluster, WorkloadKind::Deployment).await;
        world.merge(&target, json!({"spec": {"paused": true}})).await;
        let words = refused(restart(&cluster, &write(&id("d"), &target, 1)).await);
        assert!(words.contains("paused"), "{words}");
        let absent = Target {
            name: "nobody".to_owned(),
            ..target.clone()
        };
        let words = refused(restart(&cluster, &write(&id("d"), &absent, 1)).await);
        assert!(words.contains("Deployment nobody is not in namespace"), "{words}");
        let canary = Target {
            kind: WorkloadKind::Canary,
            ..target
        };
        refused(restart(&cluster, &write(&id("d"), &canary, 1)).await);
    })
    .await;
}

#[tokio::test]
async fn an_image_is_set_and_undone_for_every_kind() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        for kind in KINDS {
            let target = workload(world, &cluster, kind).await;
            let before = template(world, &target).await;
            let (first, second) = (id("set-1"), id("undo-2"));
            let applied = set_image(&cluster, &write(&first, &target, 1), &ours(B))
                .await
                .unwrap();
            let previous = applied.previous.clone().unwrap();
            assert_eq!(
                previous,
                Previous {
                    revision: 1,
                    image: ours(A)
                },
                "{kind}"
            );
            assert_eq!(
                images(world, &target).await,
                [image(B), format!("{}proxy:1", world::prefix())]
            );
            let env = template(world, &target).await.spec.unwrap().containers[0]
                .env
                .clone();
            assert_eq!(
                env,
                before.spec.as_ref().unwrap().containers[0].env,
                "{kind}: nothing else changes"
            );
            let again = set_image(&cluster, &write(&first, &target, 1), &ours(B))
                .await
                .unwrap();
            assert_eq!(
                again, applied,
                "{kind}: what ran before is what ran before the first time"
            );
            settled(&cluster, &target).await;

            let undone = undo(&cluster, &write(&second, &target, 2), &previous)
                .await
                .unwrap();
            assert_eq!(undone.previous, None);
            assert_eq!(template(world, &target).await.spec, before.spec, "{kind}");
            assert_eq!(live(world, &target).await.annotations()[DEPLOYMENT], "undo-2");
            let again = undo(&cluster, &write(&second, &target, 2), &previous)
                .await
                .unwrap();
            assert_eq!(again, undone, "{kind}: the same again is the same");
            let late = set_image(&cluster, &write(&first, &target, 1), &ours(B)).await;
            superseded(late);
            settled(&cluster, &target).await;
            let words = refused(undo(&cluster, &write(&id("undo-3"), &target, 3), &previous).await);
            assert!(
                words.contains("nothing to undo") || words.contains("no revision 1 any more"),
                "{kind}: {words}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_undone_deployment_gets_its_replica_set_back() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let target = workload(world, &cluster, WorkloadKind::Deployment).await;
        let mut subscription = cluster.follow(&target);
        let one = seen(&mut subscription, |view| view.observed.replica_sets.len() == 1).await;
        let first = one.observed.replica_sets[0].metadata.name.clone();
        let write_one = set_image(&cluster, &write(&id("set"), &target, 1), &ours(B))
            .await
            .unwrap();
        seen(&mut subscription, |view| view.observed.replica_sets.len() == 2).await;
        settled(&cluster, &target).await;
        undo(
            &cluster,
            &write(&id("undo"), &target, 2),
            &write_one.previous.unwrap(),
        )
        .await
        .unwrap();
        settled(&cluster, &target).await;
        let view = seen(&mut subscription, |view| {
            let revisions = view.observed.replica_sets.iter().filter_map(|set| {
                let annotations = set.metadata.annotations.as_ref()?;
                annotations.get("deployment.kubernetes.io/revision").cloned()
            });
            revisions.max().as_deref() == Some("3")
        })
        .await;
        assert_eq!(
            view.observed.replica_sets.len(),
            2,
            "no third one: the template is the same"
        );
        let newest = view.observed.replica_sets.iter().find(|set| {
            set.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"] == "3"
        });
        assert_eq!(newest.unwrap().metadata.name, first);
        let labels = template(world, &target).await.metadata.unwrap().labels.unwrap();
        assert!(!labels.contains_key("pod-template-hash"), "{labels:?}");
    })
    .await;
}

#[tokio::test]
async fn an_image_of_another_name_is_nobodys_to_set() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let target = workload(world, &cluster, WorkloadKind::Deployment).await;
        let other: ImageRef = format!("{}till@{B}", world::prefix()).parse().unwrap();
        let words = refused(set_image(&cluster, &write(&id("d"), &target, 1), &other).await);
        assert!(
            words.contains("has no container that runs") && words.contains("shop@"),
            "{words}"
        );
        assert_eq!(images(world, &target).await[0], image(A));
    })
    .await;
}

#[tokio::test]
async fn setting_an_image_takes_nothing_of_what_was_applied_before() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let target = target(WorkloadKind::Deployment, &world.namespace().await, "shop");
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
            "spec": spec(target.kind, 0, A),
        });
        let objects = manifests::parse(&manifest.to_string()).unwrap();
        let first = id("apply-1");
        apply::apply(&cluster, objects.clone(), &write(&first, &target, 1))
            .await
            .unwrap();
        settled(&cluster, &target).await;
        let before = template(world, &target).await;
        set_image(&cluster, &write(&id("set-2"), &target, 2), &ours(B))
            .await
            .unwrap();
        let after = template(world, &target).await;
        assert_eq!(images(world, &target).await[0], image(B));
        assert_eq!(
            after.spec.as_ref().unwrap().containers[0].env,
            before.spec.as_ref().unwrap().containers[0].env
        );
        assert_eq!(after.metadata, before.metadata);
        // And applying manifests takes the image back.
        apply::apply(&cluster, objects, &write(&id("apply-3"), &target, 3))
            .await
            .unwrap();
        assert_eq!(template(world, &target).await, before);
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_is_applied_as_the_target() {
    run(false, async |world| {
        world.define("flagger.yaml").await;
        let cluster = world.cluster(Scope::Cluster);
        let target = target(WorkloadKind::Canary, &world.namespace().await, "shop");
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "shop"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
                "service": {"port": 80},
                "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10},
            },
        });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
            "spec": spec(WorkloadKind::Deployment, 0, A),
        });
        let objects = manifests::parse(&format!("{canary}\n---\n{deployment}\n")).unwrap();
        manifests::verify(&objects, &target, &ours(A)).unwrap();
        assert!(manifests::verify(&objects, &target, &ours(B)).is_err());
        let deployment = id("apply-1");
        let applied = loop {
            match apply::apply(&cluster, objects.clone(), &write(&deployment, &target, 1)).await {
                // The API server serves a kind a moment after its definition.
                Err(Fault::Permanent(reason)) if reason.message.contains("is its CRD installed") => {}
                outcome => break outcome.unwrap(),
            }
        };
        let live = live(world, &target).await;
        assert_eq!(live.metadata.uid, Some(applied.uid));
        assert_eq!(live.metadata.generation, Some(applied.generation));
    })
    .await;
}
