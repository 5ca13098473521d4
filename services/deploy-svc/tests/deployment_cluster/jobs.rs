//! Jobs before and after a rollout.

use deploy_domain::{
    catalog::{Jobs, WorkloadKind},
    deployment::{DeploymentCommand, DeploymentRequest, DeploymentState, DeploymentStatus},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_testbed::{eventually, holds};

use crate::cluster::{Bench, failed, succeeded};

/// One that runs the application's own image in a mode.
fn job(name: &str, mode: &str) -> Value {
    let container = json!({"name": "main", "env": [{"name": "MODE", "value": mode}]});
    json!({"name": name, "pod": {"terminationGracePeriodSeconds": 1, "containers": [container]}, "timeout": "60s"})
}

async fn request(bench: &Bench, before: &[Value], after: &[Value]) -> DeploymentRequest {
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "ok"))
        .await;
    let jobs: Jobs = serde_json::from_value(json!({"before": before, "after": after})).unwrap();
    DeploymentRequest {
        jobs,
        ..bench.request(&bench.a, 1)
    }
}

async fn found(bench: &Bench, state: &DeploymentState, index: usize) -> Option<Job> {
    bench.api::<Job>().get_opt(&state.jobs[index].job).await.unwrap()
}

pub(crate) async fn jobs_run_before_and_after(bench: &Bench) {
    let before = [job("migrate", "migrate"), job("seed", "migrate")];
    let state = bench
        .run(request(bench, &before, &[job("smoke", "migrate")]).await)
        .await;
    succeeded(&state);
    let names: Vec<&str> = state.jobs.iter().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["migrate", "seed", "smoke"]);
    for (index, result) in state.jobs.iter().enumerate() {
        assert!(result.succeeded, "{result:?}");
        assert!(
            result.log_tail.iter().any(|line| line == "3 tables migrated"),
            "{result:?}"
        );
        let live = found(bench, &state, index)
            .await
            .expect("it stays to be looked at");
        let annotations = live.metadata.annotations.unwrap();
        assert_eq!(annotations["deploy.slipway.dev/epoch"], "1");
        let spec = live.spec.unwrap();
        assert_eq!(spec.backoff_limit, Some(0));
        let image = spec.template.spec.unwrap().containers[0].image.clone().unwrap();
        assert!(
            image.ends_with(bench.a.as_str()),
            "the released one where none is named: {image}"
        );
    }
}

pub(crate) async fn a_job_before_that_fails_changes_nothing_else(bench: &Bench) {
    let before = [job("migrate", "crash"), job("seed", "migrate")];
    let state = bench.run(request(bench, &before, &[]).await).await;
    failed(
        &state,
        "JOB_FAILED",
        &[
            "job migrate failed",
            "exit code 3",
            "cannot open the database",
            "nothing else was changed",
        ],
    );
    assert_eq!(state.jobs.len(), 1, "{:?}", state.jobs);
    let tail = &state.jobs[0].log_tail;
    assert!(
        tail.len() <= 50 && tail.last().unwrap().contains("cannot open the database"),
        "{tail:?}"
    );
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_none(),
        "nothing was applied"
    );
}

pub(crate) async fn a_job_after_that_fails_is_told_with_its_log(bench: &Bench) {
    let state = bench
        .run(request(bench, &[], &[job("smoke", "crash")]).await)
        .await;
    failed(&state, "JOB_FAILED", &["job smoke failed", "exit code 3"]);
    let job = &state.jobs[0].job;
    let pods: Vec<&str> = state.evidence.iter().map(|one| one.pod.as_str()).collect();
    assert!(
        pods.iter().any(|pod| pod.starts_with(job.as_str())),
        "the pods of {job} are at fault, not the target's: {pods:?}"
    );
    assert!(bench.deployments().get_opt("shop").await.unwrap().is_some());
}

pub(crate) async fn a_job_that_takes_too_long_is_stopped(bench: &Bench) {
    let mut slow = job("migrate", "ok");
    // A kubelet that is busy needs some seconds to start it.
    slow["timeout"] = json!("15s");
    let state = bench.run(request(bench, &[slow], &[]).await).await;
    failed(&state, "JOB_FAILED", &["did not end within 15 s"]);
    let tail = &state.jobs[0].log_tail;
    assert!(
        tail.iter().any(|line| line.contains("starting in mode")),
        "read before it was stopped: {tail:?}"
    );
    gone(bench, &state.jobs[0].job).await;
}

pub(crate) async fn cancel_stops_the_job_and_its_pods(bench: &Bench) {
    let id = bench
        .start(request(bench, &[job("migrate", "ok")], &[]).await)
        .await;
    bench
        .until(&id, |state| state.progress.contains("the Job runs"))
        .await;
    let name = slipway_kubernetes::jobs::name(&id, &"migrate".parse().unwrap());
    assert!(bench.api::<Job>().get_opt(&name).await.unwrap().is_some());
    let cancel = DeploymentCommand::Cancel {
        message: "enough".to_owned(),
    };
    assert_eq!(bench.tell(&id, cancel).await.status, DeploymentStatus::Cancelled);
    let state = bench
        .until(&id, |state| state.status.is_final() && state.stray.is_none())
        .await;
    assert_eq!((state.status, state.stray), (DeploymentStatus::Cancelled, None));
    gone(bench, &name).await;
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_none(),
        "nothing was applied"
    );
}

pub(crate) async fn what_is_no_pod_is_refused(bench: &Bench) {
    let mut broken = job("migrate", "ok");
    broken["pod"]["containers"][0]["image"] = json!("");
    broken["pod"]["restartPolicy"] = json!("Sometimes");
    let state = bench.run(request(bench, &[broken], &[]).await).await;
    failed(&state, "JOB_REFUSED", &["create Job migrate", "restartPolicy"]);
}

/// Waits until the Job and its pods have left; the deletion is the cluster's to finish.
async fn gone(bench: &Bench, name: &str) {
    eventually("the Job and its pods are gone", async || {
        let job = bench.api::<Job>().get_opt(name).await.unwrap();
        let list = kube::api::ListParams::default().labels(&format!("job-name={name}"));
        let pods = bench.api::<Pod>().list(&list).await.unwrap().items;
        holds((job, pods), |(job, pods)| job.is_none() && pods.is_empty())
    })
    .await;
}
