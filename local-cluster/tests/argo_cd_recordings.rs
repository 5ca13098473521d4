//! The Application controller beside real ones: what Argo CD 3.5.1 was asked in the recordings is asked of local-cluster,
//! and after each step the Application settles in the same state.
//!
//! Not held to: `argocd-suspended`, since no controller moves Rollouts here, and what the tests name beside the step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_testbed::{eventually, holds};
use stage::Stage;

/// What an Application says of itself when nothing moves any more.
fn settled(app: &Value) -> Value {
    let status = &app["status"];
    let mut resources: Vec<String> = status["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let word = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            let flag = |name: &str| {
                if one[name] == true {
                    format!(" {name}")
                } else {
                    String::new()
                }
            };
            format!(
                "{} {} {}{}{}",
                word("kind"),
                word("name"),
                word("status"),
                flag("hook"),
                flag("requiresPruning")
            )
        })
        .collect();
    resources.sort();
    // Hooks are listed here when their sync has ended, there while it runs as well.
    if status["operationState"]["phase"] == "Running" {
        resources.retain(|one| !one.ends_with(" hook requiresPruning"));
    }
    let conditions: Vec<&Value> = status["conditions"].as_array().into_iter().flatten().collect();
    let state = &status["operationState"];
    let message = match state["phase"].as_str() {
        // It may still be that of the operation before.
        Some("Running") => "",
        // What follows the reason is the API server's own words.
        _ => state["message"]
            .as_str()
            .unwrap_or_default()
            .split(", reason:")
            .next()
            .unwrap(),
    };
    json!({
        "sync": status["sync"]["status"], "health": status["health"]["status"], "phase": state["phase"],
        "message": message, "operation": app["operation"].is_object(), "resources": resources,
        "conditions": conditions.iter().map(|one| &one["type"]).collect::<Vec<_>>(),
    })
}

/// The last state before each of the recording's actions but the first, and the one at its end. What is done at once,
/// a commit and what makes it known, is one action.
fn recorded(scenario: &str) -> Vec<Value> {
    let path = slipway_testbed::data(&format!("recordings/controllers/argocd-{scenario}.jsonl.gz"));
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(path).unwrap())).lines();
    let (mut states, mut last, mut before) = (Vec::new(), Value::Null, None);
    for line in lines {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let time = line["t_ms"].as_i64().unwrap_or_default();
        if line["kind"] == "action" && line["action"] != "result" {
            if before.is_some_and(|before| time - before > 500) {
                states.push(last.clone());
            }
            before = Some(time);
        }
        let resource = line["resource"].as_str().unwrap_or_default();
        if line["kind"] == "watch" && resource.starts_with("applications") {
            last = settled(&line["event"]["object"]);
        }
    }
    states.push(last);
    states
}

/// A run beside a recording.
struct Run {
    stage: Stage,
    scenario: &'static str,
    states: std::vec::IntoIter<Value>,
}

impl Run {
    async fn of(scenario: &'static str) -> Self {
        Self {
            stage: Stage::new().await,
            scenario,
            states: recorded(scenario).into_iter(),
        }
    }

    /// Waits until it has settled as the real one did after this step.
    async fn as_recorded(&mut self, step: &str) {
        let wanted = self.states.next().expect("a state of this step");
        let what = format!("{}: {step}: {wanted:#}", self.scenario);
        let stage = &self.stage;
        eventually(&what, async || {
            holds(settled(&stage.get().await), |now| *now == wanted)
        })
        .await;
    }

    /// Commits, and asks for a sync of exactly that.
    async fn sync(&self, files: &[(&str, Value)]) -> String {
        let commit = self.stage.repository.commit(files);
        self.ask("test", json!({"revision": commit})).await;
        commit
    }

    /// Sent without a look at the operation that is already there.
    async fn ask(&self, user: &str, sync: Value) {
        let operation = json!({"initiatedBy": {"username": user}, "sync": sync});
        self.stage.patch(&json!({"operation": operation})).await;
    }

    async fn refresh(&self, files: &[(&str, Value)]) {
        self.stage.repository.commit(files);
        let refresh = json!({"argocd.argoproj.io/refresh": "normal"});
        self.stage
            .patch(&json!({"metadata": {"annotations": refresh}}))
            .await;
    }

    async fn end(mut self) {
        assert_eq!(
            self.states.next(),
            None,
            "{}: every state was compared",
            self.scenario
        );
        self.stage.cluster.shutdown().await;
    }
}

fn by_itself() -> Value {
    json!({"spec": {"syncPolicy": {"automated": {}}}})
}

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "shop"}},
            "template": {"metadata": {"labels": {"app": "shop"}},
                         "spec": {"containers": [{"name": "app", "image": image}]}}}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn shop(image: &str) -> [(&'static str, Value); 2] {
    [("service.yaml", service()), ("shop.yaml", deployment(image))]
}

#[tokio::test(flavor = "multi_thread")]
async fn it_syncs_by_itself() {
    let mut run = Run::of("auto").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&by_itself()).await;
    run.as_recorded("first").await;
    run.refresh(&shop("a:2")).await;
    run.as_recorded("a new version").await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_stops_rendering_recovers() {
    let mut run = Run::of("broken").await;
    let first = shop("a:1");
    run.stage.repository.commit(&first);
    run.stage.create(&by_itself()).await;
    run.as_recorded("first").await;
    let broken = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["service.yaml", "shop.yaml", "missing.yaml"]});
    let [service, shop] = shop("a:1");
    run.refresh(&[service, shop, ("kustomization.yaml", broken)])
        .await;
    run.as_recorded("broken").await;
    run.refresh(&first).await;
    run.as_recorded("mended").await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_misses_its_deadline_is_degraded_and_put_back() {
    let mut run = Run::of("crash").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&by_itself()).await;
    run.as_recorded("first").await;
    let mut never = deployment("a:2");
    never["spec"]["progressDeadlineSeconds"] = json!(1);
    never["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "none-such"});
    run.refresh(&[("service.yaml", service()), ("shop.yaml", never)])
        .await;
    run.as_recorded("crash").await;
    run.refresh(&shop("a:1")).await;
    run.as_recorded("back").await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_seen_and_healed_where_that_is_wanted() {
    let mut run = Run::of("drift").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&json!({})).await;
    run.sync(&shop("a:1")).await;
    run.as_recorded("first").await;
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    run.stage
        .api("default", "apps", "v1", "Deployment")
        .patch("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    run.as_recorded("scaled").await;
    let heal = json!({"spec": {"syncPolicy": {"automated": {"selfHeal": true}}}});
    run.stage.patch(&heal).await;
    run.as_recorded("healed").await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_git_waits_for_pruning() {
    let mut run = Run::of("prune").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&json!({})).await;
    run.sync(&shop("a:1")).await;
    run.as_recorded("first").await;
    let commit = run.sync(&[("shop.yaml", deployment("a:1"))]).await;
    run.as_recorded("no service").await;
    run.ask("test", json!({"revision": commit, "prune": true})).await;
    run.as_recorded("pruned").await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_fails_the_sync() {
    let mut run = Run::of("refused").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&json!({})).await;
    run.sync(&shop("a:1")).await;
    run.as_recorded("first").await;
    let mut other = deployment("a:1");
    other["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    other["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    run.sync(&[("service.yaml", service()), ("shop.yaml", other)])
        .await;
    run.as_recorded("an immutable selector").await;
    run.end().await;
}

/// A hook before the sync; its pretended pod ends with this code, or is not made.
fn hook(end: Option<i32>) -> Value {
    let code = end.unwrap_or_default().to_string();
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hook",
        "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
        "spec": {"backoffLimit": 0, "suspend": end.is_none(), "template": {
            "metadata": {"annotations": {"local-cluster.slipway.dev/pretended-exit-code": code}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a:1"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sync_waits_for_the_hook_of_the_first() {
    let mut run = Run::of("second").await;
    run.stage.repository.commit(&shop("a:1"));
    run.stage.create(&json!({})).await;
    run.sync(&shop("a:1")).await;
    run.as_recorded("first").await;
    let [service, shop] = shop("a:2");
    let commit = run.sync(&[service, shop, ("hook.yaml", hook(None))]).await;
    run.as_recorded("hangs").await;
    run.ask("other", json!({"revision": commit})).await;
    run.as_recorded("another is asked for").await;
    // What was asked for meanwhile begins here when the first has ended; a real controller removes it with the first.
    run.states.next();
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_fails_the_sync() {
    let mut run = Run::of("hook").await;
    let [service, shop] = shop("a:1");
    let files = [service, shop, ("hook.yaml", hook(Some(1)))];
    run.stage.repository.commit(&files);
    run.stage.create(&json!({})).await;
    run.sync(&files).await;
    run.as_recorded("first").await;
    // The recording ends before the hook of its second sync is seen again.
    run.states.next();
    run.end().await;
}
