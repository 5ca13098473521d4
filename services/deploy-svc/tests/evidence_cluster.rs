//! Evidence of every kind of workload, and checks through the API server's proxy, against a cluster; see
//! `cluster/mod.rs` for which.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod cluster;

use std::{collections::BTreeMap, time::Duration};

use cluster::{Bench, failed, succeeded};
use deploy_domain::{
    catalog::{Check, Target, WorkloadKind},
    result::CheckResult,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DynamicObject, ListParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use slipway_kubernetes::{evidence, proxy::Get};
use slipway_model::Timestamp;
use slipway_probe::Checker;
use slipway_testbed::{eventually, holds};
use slipway_verdict::evidence::PodEvidence;

cluster_tests! {
    configure: |_| {},
    tests: [
        a_crash_loop_of_a_deployment,
        a_crash_loop_of_a_stateful_set,
        a_crash_loop_of_a_daemon_set,
        the_run_before_is_told_apart,
        pods_of_one_fault_are_told_once,
        only_the_present_version_is_looked_at,
        an_image_that_is_not_there,
        a_pod_without_a_node,
        a_quota_that_is_used_up,
        a_job_that_failed,
        a_rollout_and_a_canary,
        an_application,
        what_is_not_there_has_no_evidence,
        a_service_that_is_not_there_is_told,
        checks_through_the_proxy,
    ],
    faults: [],
}

/// The API of a kind in the test's namespace.
fn api(bench: &Bench, version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(
        bench.cluster.client().clone(),
        bench.namespace.as_str(),
        &resource,
    )
}

async fn create(bench: &Bench, object: Value) -> DynamicObject {
    let of = |field: &str| object[field].as_str().unwrap().to_owned();
    let api = api(bench, &of("apiVersion"), &of("kind"));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

fn target(bench: &Bench, kind: WorkloadKind) -> Target {
    bench.request_of(kind, &bench.a, 1).target
}

/// Before anything that these tests do.
const BEFORE: Timestamp = Timestamp::from_micros(0);

async fn collect(bench: &Bench, kind: WorkloadKind) -> Vec<PodEvidence> {
    evidence::collect(&bench.cluster, &target(bench, kind), BEFORE)
        .await
        .unwrap()
}

/// Collects until some of it is as wanted.
async fn evidence_of(
    bench: &Bench,
    kind: WorkloadKind,
    wanted: impl Fn(&PodEvidence) -> bool,
) -> Vec<PodEvidence> {
    eventually("there is evidence as wanted", async || {
        holds(collect(bench, kind).await, |found| found.iter().any(&wanted))
    })
    .await
}

/// Creates the workload `shop`, whose template is changed by `change`.
async fn workload(bench: &Bench, kind: WorkloadKind, mode: &str, change: impl Fn(&mut Value)) {
    for mut object in bench.shop(kind, &bench.a, mode) {
        if let Some(template) = object.pointer_mut("/spec/template") {
            change(template);
        }
        create(bench, object).await;
    }
}

const LICENCE: &str = "correct-horse-battery";

fn leaks(template: &mut Value) {
    let env = template.pointer_mut("/spec/containers/0/env").unwrap();
    env.as_array_mut()
        .unwrap()
        .push(json!({"name": "LICENCE_KEY", "value": LICENCE}));
}

/// A container that ended with 4 and logged what it should not have.
async fn leaking(bench: &Bench, kind: WorkloadKind) {
    workload(bench, kind, "leak", leaks).await;
    let loops = |one: &PodEvidence| {
        one.state.starts_with("CrashLoopBackOff")
            && one.events.iter().any(|event| event.contains("BackOff"))
            && (whole(&one.log_tail) || whole(&one.previous_log_tail))
    };
    let found = evidence_of(bench, kind, loops).await;
    let one = found.iter().find(|one| loops(one)).unwrap();
    assert!(one.pod.starts_with("shop-") && one.container == "app", "{one:?}");
    assert_eq!(one.exit_code, Some(4));
    // It may be started again between the look at it and at its log: then the whole run is the one before.
    for lines in [&one.log_tail, &one.previous_log_tail] {
        tells_no_secret(lines);
        if whole(lines) {
            tells_the_rest(lines);
        }
    }
    let run = |lines: &[String]| lines.iter().find(|line| line.starts_with("run ")).cloned();
    let before = run(&one.previous_log_tail);
    assert!(
        before.is_none() || before != run(&one.log_tail),
        "one run is told twice: {one:?}"
    );
}

/// Whether the last line is there.
fn whole(lines: &[String]) -> bool {
    lines.last().is_some_and(|line| line.starts_with("Authorization"))
}

#[track_caller]
fn tells_the_rest(lines: &[String]) {
    for line in [
        "connecting to postgres://[redacted]@db:5432/shop, password=[redacted]",
        "licence [redacted]",
        "Authorization: [redacted]",
    ] {
        assert!(lines.iter().any(|have| have == line), "{line:?} in {lines:?}");
    }
}

#[track_caller]
fn tells_no_secret(lines: &[String]) {
    for secret in ["hunter2", LICENCE, "abcdef0123456789", "\u{1b}"] {
        assert!(
            !lines.iter().any(|line| line.contains(secret)),
            "{secret:?} in {lines:?}"
        );
    }
}

async fn a_crash_loop_of_a_deployment(bench: &Bench) {
    leaking(bench, WorkloadKind::Deployment).await;
}

async fn a_crash_loop_of_a_stateful_set(bench: &Bench) {
    leaking(bench, WorkloadKind::StatefulSet).await;
}

async fn a_crash_loop_of_a_daemon_set(bench: &Bench) {
    leaking(bench, WorkloadKind::DaemonSet).await;
}

async fn the_run_before_is_told_apart(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    // One of the two pods falls over and is started again.
    let get = Get {
        namespace: bench.namespace.as_str(),
        service: "shop",
        port: "http",
        path: "/crash",
        headers: &BTreeMap::new(),
        timeout: Duration::from_secs(10),
    };
    let _ = bench.cluster.get_service(&get).await;
    let found = evidence_of(bench, WorkloadKind::Deployment, |one| {
        one.state.starts_with("Running, ready") && !one.previous_log_tail.is_empty()
    })
    .await;
    let fallen = found
        .iter()
        .find(|one| !one.previous_log_tail.is_empty())
        .unwrap();
    assert_eq!(fallen.exit_code, Some(5), "{fallen:?}");
    assert!(fallen.state.contains("1 restart"), "{fallen:?}");
    assert_eq!(fallen.previous_log_tail.last().unwrap(), "falling over");
    assert!(
        !fallen.log_tail.iter().any(|line| line == "falling over"),
        "{fallen:?}"
    );
    assert!(
        fallen.log_tail.iter().any(|line| line.starts_with("starting")),
        "{fallen:?}"
    );
    let other = found
        .iter()
        .find(|one| one.pod != fallen.pod && !one.pod.contains('/'))
        .unwrap();
    assert!(
        other.previous_log_tail.is_empty() && other.exit_code.is_none(),
        "{other:?}"
    );
}

async fn pods_of_one_fault_are_told_once(bench: &Bench) {
    for mut object in bench.shop(WorkloadKind::Deployment, &bench.a, "crash") {
        if object.pointer("/spec/replicas").is_some() {
            object["spec"]["replicas"] = json!(4);
        }
        create(bench, object).await;
    }
    let told = |one: &PodEvidence| {
        one.others == 3
            && one.state.starts_with("CrashLoopBackOff")
            && one.events.iter().any(|event| event.contains("BackOff"))
    };
    let found = evidence_of(bench, WorkloadKind::Deployment, told).await;
    let pods: Vec<&PodEvidence> = found.iter().filter(|one| !one.pod.contains('/')).collect();
    let [one] = pods[..] else {
        panic!("one for all four: {found:?}")
    };
    assert_eq!((one.state.as_str(), one.exit_code), ("CrashLoopBackOff", Some(3)));
    assert_eq!(one.other_pods.len(), 3);
    assert!(!one.other_pods.contains(&one.pod), "{one:?}");
    assert!(!one.telling.is_empty() && one.log_missing.is_empty(), "{one:?}");
    // What happened before a deployment began is about another one.
    let later = Timestamp::now() + Duration::from_secs(3600);
    let target = target(bench, WorkloadKind::Deployment);
    let found = evidence::collect(&bench.cluster, &target, later).await.unwrap();
    assert!(found.iter().all(|one| one.events.is_empty()), "{found:?}");
}

async fn only_the_present_version_is_looked_at(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let pods: Api<Pod> = bench.api();
    let names = async || -> Vec<String> {
        let list = pods
            .list(&ListParams::default().labels("app=shop"))
            .await
            .unwrap();
        list.items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect()
    };
    let old = names().await;
    let state = bench.deploy(&bench.b, "crash", 2).await;
    failed(&state, "CRASH_LOOP", &["pod shop-"]);
    assert!(!state.evidence.is_empty(), "{state:?}");
    assert!(
        state.evidence.iter().all(|one| !old.contains(&one.pod)),
        "{old:?} are of the version before: {:?}",
        state.evidence
    );
}

async fn an_image_that_is_not_there(bench: &Bench) {
    let absent = format!("sha256:{}", "00".repeat(32)).parse().unwrap();
    let image = bench.image(&absent);
    workload(bench, WorkloadKind::StatefulSet, "missing", |template| {
        template["spec"]["containers"][0]["image"] = json!(image);
    })
    .await;
    let found = evidence_of(bench, WorkloadKind::StatefulSet, |one| {
        one.state.contains("ImagePull") && one.events.iter().any(|event| event.starts_with("Warning Failed"))
    })
    .await;
    assert_eq!(found[0].pod, "shop-0");
    assert!(
        found[0].log_tail.is_empty() && found[0].exit_code.is_none(),
        "{found:?}"
    );
}

async fn a_pod_without_a_node(bench: &Bench) {
    workload(bench, WorkloadKind::Deployment, "ok", |template| {
        template["spec"]["nodeSelector"] = json!({"slipway.dev/none": "such"});
    })
    .await;
    let found = evidence_of(bench, WorkloadKind::Deployment, |one| {
        one.state.contains("cannot be scheduled")
            && one.events.iter().any(|event| event.contains("FailedScheduling"))
    })
    .await;
    assert!(
        found
            .iter()
            .all(|one| one.container.is_empty() && one.log_tail.is_empty()),
        "{found:?}"
    );
}

async fn a_quota_that_is_used_up(bench: &Bench) {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
    });
    create(bench, quota).await;
    let quotas = api(bench, "v1", "ResourceQuota");
    eventually("the quota is in force", async || {
        let quota = quotas.get("none").await.unwrap();
        holds(quota, |quota| quota.data.pointer("/status/hard/pods").is_some())
    })
    .await;
    for kind in [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
    ] {
        if kind == WorkloadKind::Deployment {
            workload(bench, kind, "ok", |_| {}).await;
        } else {
            create(bench, bench.shop(kind, &bench.a, "ok").remove(1)).await;
        }
        let maker = match kind {
            WorkloadKind::Deployment => "ReplicaSet/shop-",
            WorkloadKind::StatefulSet => "StatefulSet/shop",
            _ => "DaemonSet/shop",
        };
        let found = evidence_of(bench, kind, |one| {
            one.pod.starts_with(maker)
                && one
                    .events
                    .iter()
                    .any(|event| event.contains("FailedCreate") && event.contains("exceeded quota"))
        })
        .await;
        if kind == WorkloadKind::Deployment {
            let told = evidence_of(bench, kind, |one| one.state.contains("ReplicaFailure")).await;
            assert!(
                told.iter().any(|one| one.state.contains("exceeded quota: none")),
                "{told:?}"
            );
        }
        assert!(
            found.iter().all(|one| one.pod.contains('/')),
            "there is no pod: {found:?}"
        );
    }
}

async fn a_job_that_failed(bench: &Bench) {
    let mut template = bench.template(&bench.a, "leak");
    leaks(&mut template);
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("readinessProbe");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"},
        "spec": {"backoffLimit": 0, "template": {"spec": template["spec"]}},
    });
    create(bench, job).await;
    let of_job = async || {
        evidence::collect_job(&bench.cluster, bench.namespace.as_str(), "migrate", BEFORE)
            .await
            .unwrap()
    };
    let failed = |one: &PodEvidence| one.state.contains("BackoffLimitExceeded");
    let found = eventually("the Job has failed", async || {
        holds(of_job().await, |found| found.iter().any(failed))
    })
    .await;
    let pod = &found[0];
    assert!(
        pod.pod.starts_with("migrate-") && pod.container == "app",
        "{found:?}"
    );
    assert_eq!((pod.state.as_str(), pod.exit_code), ("Error", Some(4)));
    tells_the_rest(&pod.log_tail);
    tells_no_secret(&pod.log_tail);
    assert_eq!(found.last().unwrap().pod, "Job/migrate");
}

/// Makes sure that the cluster knows a kind; its definition stays.
async fn define(bench: &Bench, file: &str, (version, kind): (&str, &str)) {
    let (group, version) = version.split_once('/').unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    cluster::definitions::define(bench.cluster.client(), file, &resource).await;
}

/// Creates an object with a status, in whichever way its definition wants.
async fn with_status(bench: &Bench, object: Value) -> DynamicObject {
    let status = object["status"].clone();
    let created = create(bench, object).await;
    if !created.data["status"].is_null() && created.data["status"] == status {
        return created;
    }
    let types = created.types.clone().unwrap();
    let api = api(bench, &types.api_version, &types.kind);
    let name = created.metadata.name.as_deref().unwrap();
    let patch = kube::api::Patch::Merge(json!({"status": status}));
    api.patch_status(name, &Default::default(), &patch).await.unwrap()
}

/// Nobody needs to control these: what is looked at is what stands in them.
async fn a_rollout_and_a_canary(bench: &Bench) {
    let rollouts = ("argoproj.io/v1alpha1", "Rollout");
    define(bench, "argo-rollouts-rollout.yaml", rollouts).await;
    let canaries = ("flagger.app/v1beta1", "Canary");
    define(bench, "flagger.yaml", canaries).await;

    let hash = "5d4f7c6b9";
    let mut template = bench.template(&bench.a, "crash");
    let selector = json!({"matchLabels": {"app": "shop"}});
    let rollout = with_status(
        bench,
        json!({
            "apiVersion": rollouts.0, "kind": rollouts.1, "metadata": {"name": "shop"},
            "spec": {"replicas": 1, "selector": selector, "template": template, "strategy": {"canary": {}}},
            "status": {
                "observedGeneration": "1", "currentPodHash": hash, "phase": "Degraded",
                "conditions": [{"type": "Progressing", "status": "False", "reason": "RolloutAborted", "message": "by analysis",
                                "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }),
    )
    .await;
    template["metadata"]["labels"]["rollouts-pod-template-hash"] = json!(hash);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("shop-{hash}"),
            "labels": {"rollouts-pod-template-hash": hash, "app": "shop"},
            "ownerReferences": [{
                "apiVersion": rollouts.0, "kind": rollouts.1, "name": "shop", "uid": rollout.metadata.uid, "controller": true,
            }],
        },
        "spec": {
            "replicas": 1, "template": template,
            "selector": {"matchLabels": {"app": "shop", "rollouts-pod-template-hash": hash}},
        },
    });
    create(bench, set).await;
    let found = evidence_of(bench, WorkloadKind::Rollout, |one| one.exit_code == Some(3)).await;
    assert!(found[0].pod.starts_with(&format!("shop-{hash}-")), "{found:?}");
    let own = found.iter().find(|one| one.pod == "Rollout/shop").unwrap();
    assert_eq!(own.state, "Progressing, RolloutAborted: by analysis");

    // A Canary tells of the workload that it points to.
    let deployment = bench.shop(WorkloadKind::Deployment, &bench.a, "crash").remove(1);
    let renamed = |mut object: Value| {
        object["metadata"]["name"] = json!("till");
        object["spec"]["selector"]["matchLabels"]["app"] = json!("till");
        object["spec"]["template"]["metadata"]["labels"]["app"] = json!("till");
        object
    };
    create(bench, renamed(deployment)).await;
    with_status(
        bench,
        json!({
            "apiVersion": canaries.0, "kind": canaries.1, "metadata": {"name": "shop"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "till"},
                "service": {"port": 80},
                "analysis": {"interval": "1m", "threshold": 1, "maxWeight": 50, "stepWeight": 10},
            },
            "status": {
                "phase": "Failed",
                "conditions": [{"type": "Promoted", "status": "False", "reason": "Failed", "message": "Canary analysis failed",
                                "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }),
    )
    .await;
    let found = evidence_of(bench, WorkloadKind::Canary, |one| one.exit_code == Some(3)).await;
    assert_eq!(found[0].pod, "Canary/shop", "{found:?}");
    assert_eq!(found[0].state, "Promoted, Failed: Canary analysis failed");
    assert!(found[1].pod.starts_with("till-"), "{found:?}");
}

async fn an_application(bench: &Bench) {
    let applications = ("argoproj.io/v1alpha1", "Application");
    define(bench, "argocd-application.yaml", applications).await;
    create(
        bench,
        bench.shop(WorkloadKind::Deployment, &bench.a, "ok").remove(1),
    )
    .await;
    let till = bench.shop(WorkloadKind::StatefulSet, &bench.a, "crash").remove(1);
    create(bench, till).await;
    let resource = |kind: &str, health: &str| {
        json!({
            "group": "apps", "version": "v1", "kind": kind, "namespace": bench.namespace, "name": "shop",
            "status": "Synced", "health": {"status": health},
        })
    };
    let application = |name: &str, server: &str| {
        json!({
            "apiVersion": applications.0, "kind": applications.1, "metadata": {"name": name},
            "spec": {
                "project": "default",
                "source": {"repoURL": "https://git.example/platform.git", "path": "shop", "targetRevision": "main"},
                "destination": {"server": server, "namespace": bench.namespace},
            },
            "status": {
                "conditions": [{"type": "SyncError", "message": "one or more objects failed", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "resources": [
                    {"version": "v1", "kind": "Service", "namespace": bench.namespace, "name": "shop", "status": "Synced"},
                    resource("Deployment", "Healthy"),
                    resource("StatefulSet", "Degraded"),
                ],
            },
        })
    };
    with_status(bench, application("shop", "https://kubernetes.default.svc")).await;
    with_status(bench, application("far", "https://far.example")).await;
    let found = evidence_of(bench, WorkloadKind::Application, |one| one.exit_code == Some(3)).await;
    assert_eq!(found[0].pod, "Application/shop");
    assert_eq!(found[0].state, "SyncError: one or more objects failed");
    let pods: Vec<&str> = found[1..]
        .iter()
        .map(|one| one.pod.as_str())
        .filter(|pod| !pod.contains('/'))
        .collect();
    assert_eq!(pods, ["shop-0"], "the healthy Deployment is left out: {found:?}");

    // Another cluster's pods are not looked for in this one.
    let far = Target {
        name: "far".to_owned(),
        ..target(bench, WorkloadKind::Application)
    };
    let found = evidence::collect(&bench.cluster, &far, BEFORE).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
}

async fn what_is_not_there_has_no_evidence(bench: &Bench) {
    for kind in [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
    ] {
        assert_eq!(collect(bench, kind).await, []);
    }
    let job = evidence::collect_job(&bench.cluster, bench.namespace.as_str(), "none", BEFORE).await;
    assert_eq!(job.unwrap(), []);
}

async fn checked(bench: &Bench, more: Value) -> CheckResult {
    let mut http = json!({
        "service": "shop", "port": "http", "path": "/health", "namespace": bench.namespace, "attempts": 3, "interval": "100ms",
    });
    http.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let check: Check = serde_json::from_value(json!({"name": "it", "http": http})).unwrap();
    assert_eq!(check.check(), []);
    // The namespace that is given is not the Service's: the check names it, as for an Application.
    let other = "default".parse().unwrap();
    let results = Checker::default().run(&bench.cluster, &other, &[check]).await;
    results.unwrap().remove(0)
}

/// By the API server, wherever its pods run.
async fn a_service_that_is_not_there_is_told(bench: &Bench) {
    let missing = checked(bench, json!({"service": "nobody", "attempts": 1})).await;
    assert!(
        !missing.passed && missing.last_answer.contains("not found"),
        "{missing:?}"
    );
}

async fn checks_through_the_proxy(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let fine = json!({"body_contains": "all is well", "expect_headers": {"content-length": "11"}});
    let passed = checked(bench, fine).await;
    assert!(
        passed.passed && passed.last_answer.contains("200 \"all is well\""),
        "{passed:?}"
    );
    let by_number = checked(bench, json!({"port": 80})).await;
    assert!(by_number.passed, "{by_number:?}");
    let header = checked(bench, json!({"expect_headers": {"content-length": "12"}})).await;
    assert_eq!((header.passed, header.attempts), (false, 3), "{header:?}");
    assert!(
        header.last_answer.contains("header content-length is \"11\""),
        "{header:?}"
    );
    let json = checked(bench, json!({"expect_json": {"$.status": "ok"}})).await;
    assert!(
        !json.passed && json.last_answer.contains("expected JSON"),
        "{json:?}"
    );
    let elsewhere = checked(bench, json!({"namespace": null})).await;
    assert!(
        !elsewhere.passed && elsewhere.last_answer.contains("not found"),
        "{elsewhere:?}"
    );
}
