//! StatefulSets, DaemonSets, Jobs, nodes and quotas: kubectl and the kube client against the cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::time::Duration;

use common::{Place, add_image};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use local_cluster::{Cluster, PretendPods};
use serde_json::{Value, json};

/// A cluster of so many nodes whose pods are pretended.
async fn pretended(place: &Place, nodes: usize) -> Cluster {
    let mut config = place.config();
    config.nodes = nodes;
    config.pretend_pods = Some(PretendPods {
        ready_after: Duration::from_millis(1),
    });
    Cluster::start(config).await.unwrap()
}

/// A workload of the kind with one container.
fn workload(kind: &str, name: &str, image: &str, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": image}]}}}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    json_patch::merge(&mut object["spec"], spec);
    object
}

fn job(name: &str, image: &str, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                                       "containers": [{"name": "app", "image": image}]}}}});
    json_patch::merge(&mut object["spec"], spec);
    object
}

async fn rollout(place: &Place, workload: &str) -> String {
    place.run(&["rollout", "status", workload, "--timeout=60s"]).await
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn images(pods: &Value) -> Vec<&str> {
    let items = pods["items"].as_array().unwrap();
    items
        .iter()
        .map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap())
        .collect()
}

/// The condition of that type, `Null` where there is none.
fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|c| c["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_rolled_restarted_and_undone() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    place
        .apply(&workload("StatefulSet", "db", "db:1", &json!({"replicas": 3})))
        .await;
    let status = rollout(&place, "statefulset/db").await;
    assert!(
        status.contains("partitioned roll out complete: 3 new pods"),
        "{status}"
    );
    let pods = place.get(&["pods", "-l", "app=db"]).await;
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);
    assert_eq!(
        pods["items"][1]["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
        "1"
    );

    // The sequence of statuses of a rollout, as a client sees it.
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let api: Api<StatefulSet> = Api::default_namespaced(kube::Client::try_from(config).unwrap());
    let version = api.get("db").await.unwrap().metadata.resource_version.unwrap();
    place.run(&["set", "image", "statefulset/db", "app=db:2"]).await;
    rollout(&place, "statefulset/db").await;
    let params = WatchParams::default().fields("metadata.name=db").timeout(30);
    let mut events = api.watch(&params, &version).await.unwrap().boxed();
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        let WatchEvent::Modified(set) = event else {
            continue;
        };
        let status = set.status.unwrap();
        let observed = status.observed_generation == set.metadata.generation;
        let numbers = (
            observed,
            status.ready_replicas.unwrap_or(0),
            status.current_replicas.unwrap_or(0),
            status.updated_replicas.unwrap_or(0),
        );
        let is_over = status.current_revision == status.update_revision && observed;
        if seen.last() != Some(&numbers) {
            seen.push(numbers);
        }
        if is_over {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            (false, 3, 3, 3),
            (true, 3, 2, 0),
            (true, 2, 2, 1),
            (true, 3, 1, 1),
            (true, 2, 1, 2),
            (true, 3, 0, 2),
            (true, 2, 0, 3),
            (true, 3, 3, 3),
        ]
    );

    let history = place.run(&["rollout", "history", "statefulset/db"]).await;
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    place.run(&["rollout", "undo", "statefulset/db"]).await;
    rollout(&place, "statefulset/db").await;
    assert_eq!(images(&place.get(&["pods", "-l", "app=db"]).await), ["db:1"; 3]);
    let history = place.run(&["rollout", "history", "statefulset/db"]).await;
    assert!(!history.contains("\n1 ") && history.contains("\n3 "), "{history}");
    place.run(&["rollout", "restart", "statefulset/db"]).await;
    rollout(&place, "statefulset/db").await;
    place.run(&["scale", "statefulset/db", "--replicas=1"]).await;
    place
        .until(&["pods", "-l", "app=db"], |pods| names(pods) == ["db-0"])
        .await;
    let table = place
        .run(&["get", "statefulsets,controllerrevisions", "-o", "wide"])
        .await;
    for word in ["READY", "CONTROLLER", "REVISION", "statefulset.apps/db"] {
        assert!(table.contains(word), "no {word} in {table}");
    }
    place.run(&["describe", "statefulset", "db"]).await;
    place
        .run(&[
            "delete",
            "statefulset",
            "db",
            "--cascade=foreground",
            "--timeout=60s",
        ])
        .await;
    assert_eq!(
        names(&place.get(&["pods,controllerrevisions"]).await),
        Vec::<&str>::new()
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_holds_pods_back_and_a_broken_one_stays() {
    let place = Place::new();
    for tag in ["1", "2"] {
        add_image(&place.images(), "db", tag, &[]).await;
    }
    let cluster = place.start().await;
    let partitioned = json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
    place
        .apply(&workload("StatefulSet", "db", "db:1", &partitioned))
        .await;
    rollout(&place, "statefulset/db").await;
    place
        .apply(&workload("StatefulSet", "db", "db:2", &partitioned))
        .await;
    let status = rollout(&place, "statefulset/db").await;
    assert!(
        status.contains("partitioned roll out complete: 1 new pods"),
        "{status}"
    );
    assert_eq!(images(&place.get(&["pods"]).await), ["db:1", "db:2"]);
    place
        .apply(&workload("StatefulSet", "db", "db:missing", &partitioned))
        .await;
    place
        .until(&["pod", "db-1"], |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["state"]["waiting"]["reason"] == "ImagePullBackOff"
        })
        .await;
    // The right template does not replace it, somebody must.
    place
        .apply(&workload("StatefulSet", "db", "db:2", &partitioned))
        .await;
    place
        .until(&["statefulset", "db"], |set| {
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
        })
        .await;
    assert_eq!(images(&place.get(&["pods"]).await), ["db:1", "db:missing"]);
    place.run(&["delete", "pod", "db-1"]).await;
    rollout(&place, "statefulset/db").await;
    assert_eq!(images(&place.get(&["pods"]).await), ["db:1", "db:2"]);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_follows_the_nodes_and_is_rolled() {
    let place = Place::new();
    let cluster = pretended(&place, 3).await;
    let nodes = place.get(&["nodes"]).await;
    assert_eq!(names(&nodes), ["local-1", "local-2", "local-3"]);
    assert_eq!(condition(&nodes["items"][0], "Ready")["status"], "True");
    let spec = json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}});
    place
        .apply(&workload("DaemonSet", "agent", "agent:1", &spec))
        .await;
    place
        .until(&["daemonset", "agent"], |set| {
            set["status"]["observedGeneration"] == 1 && set["status"]["desiredNumberScheduled"] == 0
        })
        .await;
    place
        .run(&["label", "nodes", "local-1", "local-3", "disk=ssd"])
        .await;
    place
        .until(&["daemonset", "agent"], |set| {
            set["status"]["numberAvailable"] == 2
        })
        .await;
    let pods = place.get(&["pods", "-l", "app=agent"]).await;
    let mut on: Vec<&str> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["spec"]["nodeName"].as_str().unwrap())
        .collect();
    on.sort_unstable();
    assert_eq!(on, ["local-1", "local-3"]);
    assert_eq!(
        pods["items"][0]["metadata"]["labels"]["pod-template-generation"],
        "1"
    );

    place
        .run(&["set", "image", "daemonset/agent", "app=agent:2"])
        .await;
    let status = rollout(&place, "daemonset/agent").await;
    assert!(
        status.contains("daemon set \"agent\" successfully rolled out"),
        "{status}"
    );
    let set = place.get(&["daemonset", "agent"]).await;
    assert_eq!(
        set["metadata"]["annotations"]["deprecated.daemonset.template.generation"],
        "2"
    );
    place.run(&["rollout", "undo", "daemonset/agent"]).await;
    rollout(&place, "daemonset/agent").await;
    place
        .until(&["pods", "-l", "app=agent"], |pods| {
            images(pods) == ["agent:1"; 2]
        })
        .await;
    place.run(&["rollout", "restart", "daemonset/agent"]).await;
    rollout(&place, "daemonset/agent").await;
    let history = place.run(&["rollout", "history", "daemonset/agent"]).await;
    assert!(history.contains("\n3 ") && history.contains("\n4 "), "{history}");
    let table = place.run(&["get", "daemonsets,nodes", "-o", "wide"]).await;
    for word in [
        "DESIRED",
        "NODE SELECTOR",
        "disk=ssd",
        "CONTAINER-RUNTIME",
        "Ready",
    ] {
        assert!(table.contains(word), "no {word} in {table}");
    }

    place.run(&["label", "node", "local-3", "disk-"]).await;
    place
        .until(&["pods", "-l", "app=agent"], |pods| names(pods).len() == 1)
        .await;
    place.run(&["delete", "node", "local-1"]).await;
    place
        .until(&["pods", "-l", "app=agent"], |pods| names(pods).is_empty())
        .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_as_processes_to_their_end() {
    let place = Place::new();
    add_image(&place.images(), "migrate", "1", &[("BEHAVIOUR", "done")]).await;
    add_image(&place.images(), "migrate", "bad", &[("BEHAVIOUR", "crash")]).await;
    add_image(&place.images(), "migrate", "long", &[("BEHAVIOUR", "sleep")]).await;
    let cluster = place.start().await;
    place
        .run(&[
            "create",
            "secret",
            "generic",
            "work",
            "--from-literal=TASK=tables",
        ])
        .await;
    let env = json!({"template": {"spec": {"containers": [{"name": "app", "image": "migrate:1",
        "envFrom": [{"secretRef": {"name": "work"}}]}]}}});
    place.apply(&job("good", "migrate:1", &env)).await;
    place
        .run(&["wait", "--for=condition=complete", "job/good", "--timeout=60s"])
        .await;
    let log = place.run(&["logs", "job/good"]).await;
    assert!(log.contains("done with tables"), "{log}");
    let pods = place
        .get(&["pods", "-l", "batch.kubernetes.io/job-name=good"])
        .await;
    assert_eq!(pods["items"][0]["status"]["phase"], "Succeeded");
    assert_eq!(pods["items"][0]["metadata"]["finalizers"], Value::Null);
    let good = place.get(&["job", "good"]).await;
    assert_eq!(
        (&good["status"]["succeeded"], &good["status"]["active"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(
        pods["items"][0]["metadata"]["labels"]["controller-uid"],
        good["metadata"]["uid"]
    );

    for (name, policy, failed) in [("never", "Never", 2), ("restarting", "OnFailure", 1)] {
        let spec = json!({"backoffLimit": 1, "template": {"spec": {"restartPolicy": policy}}});
        place.apply(&job(name, "migrate:bad", &spec)).await;
        let target = format!("job/{name}");
        place
            .run(&["wait", "--for=condition=failed", &target, "--timeout=60s"])
            .await;
        let job = place.get(&["job", name]).await;
        assert_eq!(condition(&job, "Failed")["reason"], "BackoffLimitExceeded");
        assert_eq!(condition(&job, "FailureTarget")["status"], "True");
        assert_eq!(job["status"]["failed"], failed, "{job:#}");
    }
    place
        .apply(&job("late", "migrate:long", &json!({"activeDeadlineSeconds": 1})))
        .await;
    place
        .run(&["wait", "--for=condition=failed", "job/late", "--timeout=60s"])
        .await;
    let late = place.get(&["job", "late"]).await;
    assert_eq!(condition(&late, "Failed")["reason"], "DeadlineExceeded");
    assert!(names(&place.get(&["pods", "-l", "job-name=late"]).await).is_empty());

    place
        .apply(&job("gone", "migrate:1", &json!({"ttlSecondsAfterFinished": 0})))
        .await;
    place
        .until(&["jobs,pods"], |all| {
            !names(all).iter().any(|name| name.starts_with("gone"))
        })
        .await;
    // A job that runs is deleted with its pod, whose finalizer comes off.
    place.apply(&job("long", "migrate:long", &json!({}))).await;
    place
        .until(&["job", "long"], |job| job["status"]["ready"] == 1)
        .await;
    let table = place.run(&["get", "jobs"]).await;
    for word in ["COMPLETIONS", "Complete", "Failed", "Running", "1/1"] {
        assert!(table.contains(word), "no {word} in {table}");
    }
    place.run(&["describe", "job", "long"]).await;
    place.run(&["delete", "job", "long", "--timeout=60s"]).await;
    place
        .until(&["pods", "-l", "job-name=long"], |pods| names(pods).is_empty())
        .await;
    place
        .run(&["create", "job", "by-hand", "--image=migrate:1"])
        .await;
    place
        .run(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"])
        .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_after_a_restart_with_another_pod() {
    let place = Place::new();
    add_image(&place.images(), "migrate", "long", &[("BEHAVIOUR", "sleep")]).await;
    let cluster = place.start().await;
    place.apply(&job("long", "migrate:long", &json!({}))).await;
    let ready = |job: &Value| job["status"]["ready"] == 1;
    place.until(&["job", "long"], ready).await;
    let before = place.get(&["pods", "-l", "job-name=long"]).await;
    cluster.shutdown().await;

    let cluster = place.start().await;
    let job = place
        .until(&["job", "long"], |job| ready(job) && job["status"]["failed"] == 1)
        .await;
    assert_eq!(job["status"]["active"], 1);
    let first = place.get(&["pod", names(&before)[0]]).await;
    assert_eq!(first["status"]["phase"], "Failed");
    let container = &first["status"]["containerStatuses"][0];
    assert_eq!(
        (
            &container["state"]["terminated"]["exitCode"],
            &container["restartCount"]
        ),
        (&json!(143), &json!(0)),
        "ended with the cluster, and never started again"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_suspended_and_resumed() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    place
        .apply(&job("later", "work:1", &json!({"suspend": true})))
        .await;
    place
        .until(&["job", "later"], |job| {
            condition(job, "Suspended")["status"] == "True"
        })
        .await;
    assert!(names(&place.get(&["pods"]).await).is_empty());
    place
        .run(&["patch", "job", "later", "-p", "{\"spec\":{\"suspend\":false}}"])
        .await;
    place
        .run(&["wait", "--for=condition=complete", "job/later", "--timeout=60s"])
        .await;
    let failing = json!({"backoffLimit": 0, "template": {"metadata": {"annotations": {
        "local-cluster.slipway.dev/pretended-exit-code": "2"}}}});
    place.apply(&job("failing", "work:1", &failing)).await;
    place
        .run(&["wait", "--for=condition=failed", "job/failing", "--timeout=60s"])
        .await;
    let pods = place.get(&["pods", "-l", "job-name=failing"]).await;
    let terminated = &pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_node_waits_for_one() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    let table = [
        (
            "picky",
            json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "huge",
            json!({"template": {"spec": {"containers": [{"name": "app", "image": "web:1",
                "resources": {"requests": {"cpu": "1000"}}}]}}}),
            "0/1 nodes are available: 1 Insufficient cpu.",
        ),
    ];
    for (name, spec, message) in &table {
        place.apply(&workload("Deployment", name, "web:1", spec)).await;
        let label = format!("app={name}");
        let pods = place
            .until(&["pods", "-l", &label], |pods| {
                condition(&pods["items"][0], "PodScheduled")["reason"] == "Unschedulable"
            })
            .await;
        let scheduled = condition(&pods["items"][0], "PodScheduled");
        assert_eq!(
            (&scheduled["status"], &scheduled["message"]),
            (&json!("False"), &json!(message))
        );
        assert_eq!(pods["items"][0]["status"]["phase"], "Pending");
        let events = place
            .get(&["events", "--field-selector", "reason=FailedScheduling"])
            .await;
        assert!(events.to_string().contains(message), "{events:#}");
    }
    place.run(&["label", "node", "local-1", "disk=ssd"]).await;
    rollout(&place, "deployment/picky").await;
    let pods = place.get(&["pods", "-l", "app=picky"]).await;
    assert_eq!(pods["items"][0]["spec"]["nodeName"], "local-1");

    place.run(&["cordon", "local-1"]).await;
    place
        .apply(&workload("Deployment", "late", "web:1", &json!({})))
        .await;
    place
        .until(&["pods", "-l", "app=late"], |pods| {
            let condition = condition(&pods["items"][0], "PodScheduled");
            condition["message"] == "0/1 nodes are available: 1 node(s) were unschedulable."
        })
        .await;
    place.run(&["uncordon", "local-1"]).await;
    rollout(&place, "deployment/late").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_pods_and_says_so_all_the_way_up() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    place.run(&["create", "quota", "few", "--hard=pods=2"]).await;
    place
        .apply(&workload("Deployment", "web", "web:1", &json!({"replicas": 3})))
        .await;
    let deployment = place
        .until(&["deployment", "web"], |deployment| {
            condition(deployment, "ReplicaFailure")["status"] == "True"
                && deployment["status"]["readyReplicas"] == 2
        })
        .await;
    let failure = condition(&deployment, "ReplicaFailure");
    let message = failure["message"].as_str().unwrap();
    assert_eq!(failure["reason"], "FailedCreate");
    assert!(
        message.starts_with("pods \"web-")
            && message.ends_with(
                "is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"
            ),
        "{message}"
    );
    let sets = place.get(&["replicasets"]).await;
    assert_eq!(
        condition(&sets["items"][0], "ReplicaFailure")["reason"],
        "FailedCreate"
    );
    let events = place
        .get(&["events", "--field-selector", "reason=FailedCreate"])
        .await;
    assert!(events.to_string().contains("Error creating: pods"), "{events:#}");
    place
        .until(&["resourcequota", "few"], |quota| {
            quota["status"] == json!({"hard": {"pods": "2"}, "used": {"pods": "2"}})
        })
        .await;
    let refused = place.fail(&["run", "more", "--image=web:1"]).await;
    assert!(
        refused.contains("Forbidden") && refused.contains("exceeded quota: few"),
        "{refused}"
    );
    place
        .run(&[
            "patch",
            "resourcequota",
            "few",
            "-p",
            "{\"spec\":{\"hard\":{\"pods\":\"5\"}}}",
        ])
        .await;
    rollout(&place, "deployment/web").await;
    let deployment = place
        .until(&["deployment", "web"], |deployment| {
            condition(deployment, "ReplicaFailure").is_null()
        })
        .await;
    assert_eq!(deployment["status"]["availableReplicas"], 3);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_is_refused_with_its_field() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    let claims = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]});
    let surge = json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "cpu", "namespace": "default"}, "spec": {"hard": {"requests.cpu": 1}}});
    let table = [
        (
            workload("StatefulSet", "db", "db:1", &claims),
            "spec.volumeClaimTemplates: Forbidden",
        ),
        (
            workload("DaemonSet", "agent", "agent:1", &surge),
            "spec.updateStrategy.rollingUpdate.maxSurge: Forbidden",
        ),
        (
            job(
                "indexed",
                "work:1",
                &json!({"completionMode": "Indexed", "completions": 2}),
            ),
            "spec.completionMode: Forbidden",
        ),
        (quota, "spec.hard[requests.cpu]: Forbidden"),
    ];
    let path = place.dir.path().join("refused.json");
    for (object, expected) in table {
        std::fs::write(&path, object.to_string()).unwrap();
        let refused = place
            .fail(&["apply", "--server-side", "-f", path.to_str().unwrap()])
            .await;
        assert!(refused.contains(expected), "{refused}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_service_accounts_are_kept() {
    let place = Place::new();
    let cluster = pretended(&place, 1).await;
    place
        .run(&["create", "secret", "generic", "keys", "--from-literal=token=hush"])
        .await;
    place.run(&["create", "serviceaccount", "robot"]).await;
    let secret = place.get(&["secret", "keys"]).await;
    assert_eq!(
        (&secret["type"], &secret["data"]["token"]),
        (&json!("Opaque"), &json!("aHVzaA=="))
    );
    let plain = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain", "namespace": "default"},
        "stringData": {"token": "hush"}});
    place.apply(&plain).await;
    let stored = place.get(&["secret", "plain"]).await;
    assert_eq!(
        (&stored["data"]["token"], &stored["stringData"]),
        (&json!("aHVzaA=="), &Value::Null)
    );
    place
        .until(&["serviceaccounts"], |accounts| {
            names(accounts) == ["default", "robot"]
        })
        .await;
    let table = place.run(&["get", "secrets,serviceaccounts"]).await;
    assert!(table.contains("Opaque") && table.contains("SECRETS"), "{table}");
    assert!(!table.contains("hush"), "{table}");
    cluster.shutdown().await;
}

/// Posted with the typed client, as operators do.
#[tokio::test(flavor = "multi_thread")]
async fn typed_clients_read_what_they_get() {
    let place = Place::new();
    let cluster = pretended(&place, 2).await;
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::default_namespaced(client.clone());
    let object = serde_json::from_value(job("typed", "work:1", &json!({}))).unwrap();
    let created = jobs.create(&PostParams::default(), &object).await.unwrap();
    let spec = created.spec.unwrap();
    assert_eq!((spec.completions, spec.backoff_limit), (Some(1), Some(6)));
    let done = kube::runtime::wait::conditions::is_job_completed();
    kube::runtime::wait::await_condition(jobs, "typed", done)
        .await
        .unwrap();
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
    assert_eq!(nodes.list(&Default::default()).await.unwrap().items.len(), 2);
    cluster.shutdown().await;
}
