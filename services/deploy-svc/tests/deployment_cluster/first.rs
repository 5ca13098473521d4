//! The first release of an application that ran before, to targets that Slipway applies itself: what ran is put back.

use std::sync::Arc;

use deploy_domain::{
    catalog::WorkloadKind,
    release::{ReleaseState, ReleaseStatus},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_kubernetes::workload::resource;
use slipway_testbed::{eventually, holds};

use crate::{
    cluster::Bench,
    releases::{Backends, Files, message, release, steps},
};

/// What the tests change about the workload.
type Change = fn(&mut Value);

/// Where a test is: the objects as git has them, by tag.
struct Scene<'a> {
    bench: &'a Bench,
    kind: WorkloadKind,
    change: Change,
    tag: String,
}

impl Scene<'_> {
    fn objects(&self, image: &str, mode: &str) -> Vec<Value> {
        let mut objects = self.bench.shop(self.kind, &self.bench.a, mode);
        let container = objects[1]
            .pointer_mut("/spec/template/spec/containers/0")
            .unwrap();
        container["image"] = json!(image);
        (self.change)(&mut objects[1]);
        objects
    }

    fn tagged(&self) -> String {
        format!("{}:{}", self.bench.image, self.tag)
    }

    async fn text(&self, image: &str, mode: &str) -> String {
        self.bench.render(&self.objects(image, mode)).await;
        self.bench.rendered.0.lock().await.clone()
    }

    /// What runs before there is Slipway.
    async fn create(&self) {
        for object in self.objects(&self.tagged(), "ok") {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let kind = object.types.clone().unwrap();
            let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(kind).unwrap());
            let namespace = self.bench.namespace.as_str();
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.bench.cluster.client().clone(), namespace, &kind);
            api.create(&PostParams::default(), &object).await.unwrap();
        }
        let pods = self.pods().await;
        eventually("it runs", async || {
            holds(self.digests().await, |digests| digests.len() == pods)
        })
        .await;
    }

    /// How many it has: two, or one on each node.
    async fn pods(&self) -> usize {
        if self.kind != WorkloadKind::DaemonSet {
            return 2;
        }
        let nodes: Api<Node> = Api::all(self.bench.cluster.client().clone());
        nodes.list(&Default::default()).await.unwrap().items.len()
    }

    /// The digests of containers that are ready.
    async fn digests(&self) -> Vec<String> {
        let pods = self.bench.api::<Pod>().list(&Default::default()).await.unwrap();
        let statuses = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| pod.status?.container_statuses?.pop());
        statuses
            .filter(|status| status.ready)
            .filter_map(|status| Some(status.image_id.split_once('@')?.1.to_owned()))
            .collect()
    }

    /// The image that the workload is to run.
    async fn image(&self) -> String {
        let namespace = self.bench.namespace.as_str();
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.bench.cluster.client().clone(),
            namespace,
            &resource(self.kind),
        );
        let live = api.get("shop").await.unwrap();
        let image = live.data.pointer("/spec/template/spec/containers/0/image");
        image.and_then(Value::as_str).unwrap().to_owned()
    }

    /// Releases a version that crashes, to its end. Also what git says then, beside what it said at first.
    async fn release(&self) -> (ReleaseState, String, String) {
        let bench = self.bench;
        let after = self.text(&bench.image(&bench.b), "crash").await;
        let before = self.text(&self.tagged(), "ok").await;
        let (rendered, tagged, old) = (Arc::clone(&bench.rendered), self.tagged(), before.clone());
        let backends = Backends {
            built: bench.built(&bench.b),
            tagged: self.tagged(),
            commit: Box::new(move |files| {
                let (commit, text) = match files {
                    Files::New => ("2", after.clone()),
                    Files::Before => ("3", old.clone()),
                    Files::Pinned(digest) => ("4", old.replace(&tagged, &format!("{tagged}@{digest}"))),
                };
                *rendered.0.try_lock().unwrap() = text;
                commit.repeat(40).parse().unwrap()
            }),
        };
        let state = release(bench, self.kind, backends).await;
        let now = bench.rendered.0.lock().await.clone();
        (state, before, now)
    }
}

/// Nothing runs while the new version is tried.
fn recreate(workload: &mut Value) {
    workload["spec"]["strategy"] = json!({"type": "Recreate"});
}

fn parallel(workload: &mut Value) {
    workload["spec"]["podManagementPolicy"] = json!("Parallel");
}

async fn is_put_back(bench: &Bench, kind: WorkloadKind, change: Change) {
    let tag = bench.namespace.to_string();
    bench.tag(&tag, &bench.a).await;
    let scene = Scene {
        bench,
        kind,
        change,
        tag,
    };
    scene.create().await;
    let (state, before, now) = scene.release().await;
    let said = message(&state);
    assert_eq!(state.status, ReleaseStatus::RolledBack, "{said}");
    assert!(
        said.contains("CrashLoopBackOff") && said.contains("is put back, with the digest"),
        "{said}"
    );
    assert_eq!(steps(&state), ["change", "deploy", "revert", "redeploy"]);
    assert_eq!(now, before, "git is as it was, byte for byte");
    assert_eq!(scene.image().await, scene.tagged());
    assert_eq!(scene.digests().await, vec![bench.a.as_str(); scene.pods().await]);
}

pub(crate) async fn a_deployment_is_put_back(bench: &Bench) {
    is_put_back(bench, WorkloadKind::Deployment, |_| {}).await;
}

pub(crate) async fn a_deployment_that_is_recreated_is_put_back(bench: &Bench) {
    is_put_back(bench, WorkloadKind::Deployment, recreate).await;
}

pub(crate) async fn a_stateful_set_is_put_back(bench: &Bench) {
    is_put_back(bench, WorkloadKind::StatefulSet, |_| {}).await;
}

pub(crate) async fn a_parallel_stateful_set_is_put_back(bench: &Bench) {
    is_put_back(bench, WorkloadKind::StatefulSet, parallel).await;
}

pub(crate) async fn a_daemon_set_is_put_back(bench: &Bench) {
    is_put_back(bench, WorkloadKind::DaemonSet, |_| {}).await;
}

pub(crate) async fn what_its_tag_no_longer_leads_to_is_pinned(bench: &Bench) {
    let tag = bench.namespace.to_string();
    bench.tag(&tag, &bench.a).await;
    let kind = WorkloadKind::Deployment;
    let scene = Scene {
        bench,
        kind,
        change: |workload| {
            recreate(workload);
            // Or the kubelet runs what it has pulled under that tag before.
            workload["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        },
        tag,
    };
    scene.create().await;
    bench.tag(&scene.tag, &bench.b).await;
    let (state, before, now) = scene.release().await;
    let said = message(&state);
    assert_eq!(state.status, ReleaseStatus::RolledBack, "{said}");
    assert_eq!(
        steps(&state),
        ["change", "deploy", "revert", "redeploy", "pin", "redeploy"]
    );
    let pinned = format!("{}@{}", scene.tagged(), bench.a);
    assert!(
        said.contains(bench.a.as_str()) && said.contains("names it by its digest"),
        "{said}"
    );
    assert_eq!(now, before.replace(&scene.tagged(), &pinned));
    assert_eq!(scene.image().await, pinned);
    assert_eq!(scene.digests().await, [bench.a.as_str(); 2]);
}

pub(crate) async fn what_did_not_exist_is_not_put_back(bench: &Bench) {
    let tag = bench.namespace.to_string();
    bench.tag(&tag, &bench.a).await;
    let kind = WorkloadKind::Deployment;
    let scene = Scene {
        bench,
        kind,
        change: |_| {},
        tag,
    };
    let (state, before, now) = scene.release().await;
    let said = message(&state);
    assert_eq!(state.status, ReleaseStatus::Failed, "{said}");
    assert_eq!(steps(&state), ["change", "deploy", "revert"]);
    assert!(said.contains("did not exist before this release"), "{said}");
    assert_eq!(now, before);
}
