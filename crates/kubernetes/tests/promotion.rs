//! Promote and abort: the writes of Argo Rollouts' own commands and Flagger's own rollback, and what is refused. The
//! tests play the controllers' part.
#![allow(clippy::unwrap_used)]

mod world;

use http_body_util::BodyExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_kubernetes::{
    Kubernetes,
    promotion::{Outcome, abort, promote, settle},
    watch::Scope,
};
use slipway_model::{Fault, Reason};
use slipway_verdict::{Target, WorkloadKind};
use world::{A, World, run, spec, target};

/// A Rollout of three steps, of which the second waits for a person.
async fn rollout(world: &World, status: Value) -> Target {
    world.define("argo-rollouts-rollout.yaml").await;
    let target = target(WorkloadKind::Rollout, &world.namespace().await, "shop");
    let mut spec = spec(WorkloadKind::Deployment, 2, A);
    spec["strategy"] = json!({"canary": {"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}]}});
    create(world, &target, spec).await;
    says(world, &target, status).await;
    target
}

async fn canary(world: &World, status: Value) -> Target {
    world.define("flagger.yaml").await;
    let target = target(WorkloadKind::Canary, &world.namespace().await, "shop");
    let spec = json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        "service": {"port": 80},
        "analysis": {"interval": "10s", "threshold": 5, "maxWeight": 50, "stepWeight": 10, "webhooks": [
            {"name": "start", "type": "confirm-rollout", "url": "http://gate/start"},
            {"name": "release-gate", "type": "confirm-promotion", "url": "http://gate/promote"},
        ]},
    });
    create(world, &target, spec).await;
    says(world, &target, status).await;
    target
}

/// The kind is served a moment after its definition was written.
async fn create(world: &World, target: &Target, spec: Value) {
    let object = json!({
        "apiVersion": target.kind.api_version(), "kind": target.kind.as_str(),
        "metadata": {"name": target.name}, "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    loop {
        match world
            .api(target)
            .create(&kube::api::PostParams::default(), &object)
            .await
        {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The controller's part.
async fn says(world: &World, target: &Target, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    let api = world.api(target);
    api.patch_status(&target.name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn live(world: &World, target: &Target) -> Value {
    world.api(target).get(&target.name).await.unwrap().data
}

fn paused() -> Value {
    json!({
        "observedGeneration": "1", "phase": "Paused", "controllerPause": true, "currentStepIndex": 1,
        "currentPodHash": "new", "stableRS": "old",
        "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-11-01T12:00:00Z"}],
    })
}

fn refused(outcome: Result<Outcome, Fault<Reason>>) -> String {
    match outcome {
        Err(Fault::Permanent(reason)) => reason.message,
        other => panic!("{other:?}"),
    }
}

fn nothing(outcome: Result<Outcome, Fault<Reason>>) -> String {
    match outcome {
        Ok(Outcome::Nothing(words)) => words,
        other => panic!("{other:?}"),
    }
}

fn cluster(world: &World) -> Kubernetes {
    world.cluster(Scope::Namespace)
}

#[tokio::test]
async fn a_pause_is_cleared_and_no_step_skipped() {
    run(false, async |world| {
        let target = rollout(world, paused()).await;
        let cluster = cluster(world);
        assert_eq!(promote(&cluster, &target, false).await.unwrap(), Outcome::Done);
        let now = live(world, &target).await;
        assert!(now["status"]["pauseConditions"].is_null());
        // The controller sees by these that it was promoted, and goes on itself.
        assert_eq!(now["status"]["controllerPause"], true);
        assert_eq!(now["status"]["currentStepIndex"], 1);
        // Asked again before the controller has gone on.
        let words = nothing(promote(&cluster, &target, false).await);
        assert!(words.contains("not paused"), "{words}");
        assert_eq!(live(world, &target).await["status"]["currentStepIndex"], 1);
    })
    .await;
}

#[tokio::test]
async fn somebodys_pause_ends_too() {
    run(false, async |world| {
        let target = rollout(world, paused()).await;
        world.merge(&target, json!({"spec": {"paused": true}})).await;
        assert_eq!(
            promote(&cluster(world), &target, false).await.unwrap(),
            Outcome::Done
        );
        let now = live(world, &target).await;
        assert_eq!(now["spec"]["paused"], false);
        assert!(now["status"]["pauseConditions"].is_null());
    })
    .await;
}

#[tokio::test]
async fn an_analysis_without_a_conclusion_is_passed() {
    run(false, async |world| {
        let mut status = paused();
        status["pauseConditions"][0]["reason"] = json!("InconclusiveAnalysisRun");
        status["canary"] = json!({"currentStepAnalysisRunStatus": {"name": "a", "status": "Inconclusive"}});
        let target = rollout(world, status).await;
        assert_eq!(
            promote(&cluster(world), &target, false).await.unwrap(),
            Outcome::Done
        );
        let now = live(world, &target).await;
        assert!(now["status"]["pauseConditions"].is_null());
        assert_ne!(now["status"]["controllerPause"], true);
        assert_eq!(now["status"]["currentStepIndex"], 2);
    })
    .await;
}

#[tokio::test]
async fn a_full_promotion_and_an_abort() {
    run(false, async |world| {
        let cluster = cluster(world);
        let target = rollout(world, paused()).await;
        assert_eq!(promote(&cluster, &target, true).await.unwrap(), Outcome::Done);
        assert_eq!(live(world, &target).await["status"]["promoteFull"], true);

        let target = rollout(world, paused()).await;
        assert_eq!(abort(&cluster, &target).await.unwrap(), Outcome::Done);
        assert_eq!(live(world, &target).await["status"]["abort"], true);
        assert!(nothing(abort(&cluster, &target).await).contains("already"));
        assert!(refused(promote(&cluster, &target, false).await).contains("aborted"));

        says(
            world,
            &target,
            json!({"stableRS": "new", "abort": null, "pauseConditions": null}),
        )
        .await;
        assert!(nothing(promote(&cluster, &target, true).await).contains("serves everything already"));
        assert!(nothing(abort(&cluster, &target).await).contains("roll back instead"));
    })
    .await;
}

/// Argo Rollouts before 0.10: the status is a part of the object like others.
#[tokio::test]
async fn without_a_status_subresource_all_goes_into_one_write() {
    run(false, async |world| {
        let target = rollout(world, paused()).await;
        world.merge(&target, json!({"spec": {"paused": true}})).await;
        let old = world.through(Scope::Namespace, |request| {
            let status = request.method() == http::Method::PATCH && request.uri().path().ends_with("/status");
            status.then(|| {
                world::refusal(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                )
            })
        });
        assert_eq!(promote(&old, &target, false).await.unwrap(), Outcome::Done);
        // The CRD here has the subresource, so that the API server takes the spec and leaves the status: that it was
        // asked for in one write is what can be seen.
        assert_eq!(live(world, &target).await["spec"]["paused"], false);
    })
    .await;
}

#[tokio::test]
async fn a_canary_waits_for_its_gate_or_is_promoted_fully() {
    run(false, async |world| {
        let cluster = cluster(world);
        let target = canary(
            world,
            json!({"phase": "WaitingPromotion", "iterations": 0, "failedChecks": 0, "canaryWeight": 50}),
        )
        .await;
        let words = refused(promote(&cluster, &target, false).await);
        assert!(words.contains("webhook release-gate"), "{words}");

        assert_eq!(promote(&cluster, &target, true).await.unwrap(), Outcome::Done);
        assert_eq!(live(world, &target).await["spec"]["skipAnalysis"], true);
        assert!(nothing(promote(&cluster, &target, true).await).contains("skipped already"));
        // After the run nothing of it is left.
        says(world, &target, json!({"phase": "Succeeded"})).await;
        assert_eq!(settle(&cluster, &target).await.unwrap(), Outcome::Done);
        assert!(live(world, &target).await["spec"]["skipAnalysis"].is_null());
        nothing(settle(&cluster, &target).await);
        nothing(promote(&cluster, &target, true).await);
    })
    .await;
}

/// What the Canary's owner set is not ours to take back.
#[tokio::test]
async fn a_canary_that_always_skips_its_analysis_stays_so() {
    run(false, async |world| {
        let target = canary(
            world,
            json!({"phase": "Succeeded", "iterations": 0, "failedChecks": 0, "canaryWeight": 0}),
        )
        .await;
        world
            .merge(&target, json!({"spec": {"skipAnalysis": true}}))
            .await;
        nothing(settle(&cluster(world), &target).await);
        assert_eq!(live(world, &target).await["spec"]["skipAnalysis"], true);
    })
    .await;
}

#[tokio::test]
async fn a_canary_is_rolled_back_as_after_failed_checks() {
    run(false, async |world| {
        let cluster = cluster(world);
        let target = canary(
            world,
            json!({"phase": "Progressing", "iterations": 0, "failedChecks": 1, "canaryWeight": 20}),
        )
        .await;
        assert_eq!(abort(&cluster, &target).await.unwrap(), Outcome::Done);
        let now = live(world, &target).await;
        assert_eq!(now["status"]["failedChecks"], 5, "the threshold of its analysis");
        assert_eq!(now["status"]["canaryWeight"], 20, "traffic is Flagger's to move");
        assert!(nothing(abort(&cluster, &target).await).contains("about to roll back"));

        for (phase, words) in [("Waiting", "confirm-rollout"), ("Promoting", "then roll back")] {
            says(world, &target, json!({"phase": phase})).await;
            let said = refused(abort(&cluster, &target).await);
            assert!(said.contains(words), "{said}");
        }
        says(world, &target, json!({"phase": "Failed"})).await;
        assert!(nothing(abort(&cluster, &target).await).contains("no run is under way"));
    })
    .await;
}

#[tokio::test]
async fn others_have_no_steps() {
    run(false, async |world| {
        let cluster = cluster(world);
        let namespace = world.namespace().await;
        let deployment = target(WorkloadKind::Deployment, &namespace, "shop");
        assert!(refused(promote(&cluster, &deployment, false).await).contains("no steps"));
        world.define("argo-rollouts-rollout.yaml").await;
        let absent = target(WorkloadKind::Rollout, &namespace, "absent");
        assert!(refused(abort(&cluster, &absent).await).contains("not there"));
    })
    .await;
}

/// Another writer comes between our read and our write: its change is examined before anything is done.
#[tokio::test]
async fn a_write_holds_for_what_was_read() {
    run(false, async |world| {
        let target = rollout(world, paused()).await;
        let stale = live_object(world, &target).await;
        // The controller goes on in between: the step that waits is a later one.
        says(
            world,
            &target,
            json!({"pauseConditions": null, "phase": "Progressing"}),
        )
        .await;
        let once = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let lagging = world.through(Scope::Namespace, move |request| {
            let read =
                request.method() == http::Method::GET && request.uri().path().ends_with("/rollouts/shop");
            let first = read && once.swap(false, std::sync::atomic::Ordering::SeqCst);
            first.then(|| answer(&stale))
        });
        let words = nothing(promote(&lagging, &target, false).await);
        assert!(words.contains("not paused"), "{words}");
    })
    .await;
}

/// Replaces the API server's answer.
fn answer(body: &Value) -> world::Answer {
    let body =
        http_body_util::Full::new(bytes::Bytes::from(body.to_string())).map_err(|never| match never {});
    http::Response::new(body.boxed_unsync())
}

async fn live_object(world: &World, target: &Target) -> Value {
    serde_json::to_value(world.api(target).get(&target.name).await.unwrap()).unwrap()
}
