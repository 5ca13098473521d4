//! Real kubectl against the cluster, with real processes behind the pods.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Place, add_image, add_image_with, gone, web};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_and_its_rollback() {
    let place = Place::new();
    let first = add_image(&place.images(), "team/web", "1", &[("VERSION", "one")]).await;
    let second = add_image(&place.images(), "team/web", "2", &[("VERSION", "two")]).await;
    add_image(
        &place.images(),
        "team/web",
        "bad",
        &[("VERSION", "bad"), ("BEHAVIOUR", "unhealthy")],
    )
    .await;
    let cluster = place.start().await;
    let image = |digest: &str| format!("registry.example.com/team/web:x@{digest}");

    let applied = place.apply(&web(&image(&first), 2, &BTreeMap::new())).await;
    assert!(
        applied.contains("deployment.apps/web serverside-applied"),
        "{applied}"
    );
    let status = place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert!(status.contains("successfully rolled out"), "{status}");
    assert_eq!(place.ask("web", "/version").await, "one");
    assert_eq!(place.ask("http:web:80", "/version").await, "one");

    let table = place
        .run(&["get", "pods,deployments,replicasets,services", "-o", "wide"])
        .await;
    for column in [
        "READY",
        "STATUS",
        "UP-TO-DATE",
        "AVAILABLE",
        "DESIRED",
        "CLUSTER-IP",
        "2/2",
        "1/1",
        "Running",
    ] {
        assert!(table.contains(column), "no {column} in {table}");
    }
    let pods = place.get(&["pods"]).await;
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    assert_eq!(
        status["imageID"],
        format!("registry.example.com/team/web@{first}")
    );

    place.apply(&web(&image(&second), 2, &BTreeMap::new())).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(place.ask("web", "/version").await, "two");

    place.run(&["rollout", "undo", "deployment/web"]).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(place.ask("web", "/version").await, "one");
    let history = place.run(&["rollout", "history", "deployment/web"]).await;
    assert!(
        history.contains('2') && history.contains('3') && !history.contains("\n1"),
        "{history}"
    );

    // The bad version never gets ready: the old pods stay, the deadline passes.
    place
        .run(&[
            "set",
            "image",
            "deployment/web",
            "app=registry.example.com/team/web:bad",
        ])
        .await;
    let failed = place
        .fail(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert!(failed.contains("exceeded its progress deadline"), "{failed}");
    assert_eq!(place.ask("web", "/version").await, "one");
    let events = place.run(&["get", "events"]).await;
    assert!(
        events.contains("Readiness probe failed: HTTP probe failed with statuscode: 500"),
        "{events}"
    );
    let described = place.run(&["describe", "deployment", "web"]).await;
    assert!(described.contains("ProgressDeadlineExceeded"), "{described}");
    place.run(&["describe", "pods"]).await;
    place.run(&["describe", "service", "web"]).await;

    let pid = place.ask("web", "/pid").await;
    place.run(&["delete", "deployment", "web", "--timeout=60s"]).await;
    place
        .until(&["pods"], |pods| {
            pods["items"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    gone(&pid).await;
    let refused = place
        .fail(&["get", "--raw", "/api/v1/namespaces/default/services/web/proxy/"])
        .await;
    assert!(
        refused.contains("no endpoints available for service"),
        "{refused}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_and_the_previous_kept() {
    let place = Place::new();
    add_image(&place.images(), "web", "1", &[("VERSION", "one")]).await;
    let cluster = place.start().await;
    place.apply(&web("web:1", 1, &BTreeMap::new())).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    let log = place.run(&["logs", "deployment/web"]).await;
    for line in ["version one starts\n", "listening\n", "a word on stderr\n"] {
        assert!(log.contains(line), "{log}");
    }
    // Which line is the last is for the two streams to settle between them.
    let last = place.run(&["logs", "deployment/web", "--tail=1"]).await;
    assert_eq!(last.lines().count(), 1, "{last}");
    let stamped = place
        .run(&["logs", "deployment/web", "--timestamps", "--tail=1"])
        .await;
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert_eq!(
        place
            .run(&["logs", "deployment/web", "--limit-bytes=4"])
            .await
            .len(),
        4
    );

    let mut follower = place
        .kubectl(&["logs", "-f", "deployment/web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let reader =
        tokio::task::spawn_blocking(move || lines.map(|l| l.unwrap()).find(|l| l.starts_with("asked for")));
    place.ask("web", "/version").await;
    assert_eq!(reader.await.unwrap().as_deref(), Some("asked for /version"));
    follower.kill().unwrap();
    follower.wait().unwrap();

    // The container ends itself and is started again.
    place
        .output(&[
            "get",
            "--raw",
            "/api/v1/namespaces/default/services/web/proxy/exit",
        ])
        .await;
    let pods = place
        .until(&["pods"], |pods| {
            let status = &pods["items"][0]["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && status["ready"] == true
        })
        .await;
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 4);
    let previous = place.run(&["logs", "deployment/web", "--previous"]).await;
    assert!(previous.contains("asked for /exit"), "{previous}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_in_the_pods_status() {
    let place = Place::new();
    add_image(&place.images(), "web", "crash", &[("BEHAVIOUR", "crash")]).await;
    let dynamic = std::path::Path::new(env!("CARGO_BIN_EXE_local-cluster"));
    add_image_with(&place.images(), "web", "dynamic", &[], dynamic).await;
    let cluster = place.start().await;
    let table = [
        (
            "web:missing",
            "ImagePullBackOff",
            "Back-off pulling image \"web:missing\"",
        ),
        (
            "web:crash",
            "CrashLoopBackOff",
            "restarting failed container=app pod=",
        ),
        ("web:dynamic", "CreateContainerError", "dynamically linked"),
    ];
    for (image, reason, message) in table {
        place.apply(&web(image, 1, &BTreeMap::new())).await;
        let seen = |pods: &Value| {
            pods["items"].as_array().is_some_and(|pods| {
                pods.iter().any(|pod| {
                    let status = &pod["status"]["containerStatuses"][0];
                    let waiting = &status["state"]["waiting"];
                    status["image"] == image
                        && waiting["reason"] == reason
                        && waiting["message"].as_str().is_some_and(|m| m.contains(message))
                })
            })
        };
        let pods = place.until(&["pods"], seen).await;
        if reason == "CrashLoopBackOff" {
            let text = pods.to_string();
            assert!(text.contains("\"exitCode\":3"), "{text}");
        }
        let what = format!("kubectl get pods says {reason}");
        slipway_testbed::eventually(&what, async || {
            let said = place.run(&["get", "pods"]).await;
            slipway_testbed::holds(said, |said| said.contains(reason))
        })
        .await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_with_a_word() {
    let place = Place::new();
    let cluster = place.start().await;
    let raw = place
        .fail(&["get", "--raw", "/apis/apps/v1/namespaces/default/horses"])
        .await;
    assert!(raw.contains("does not serve horses.apps"), "{raw}");
    let mut objects = web("web:1", 1, &BTreeMap::new());
    objects["items"][0]["spec"]["template"]["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    let path = place.dir.path().join("volumes.json");
    std::fs::write(&path, objects["items"][0].to_string()).unwrap();
    let path = path.to_str().unwrap();
    for apply in [
        vec!["apply", "--server-side", "-f", path],
        vec!["apply", "-f", path],
        vec!["create", "-f", path],
    ] {
        let refused = place.fail(&apply).await;
        assert!(
            refused.contains("spec.template.spec.volumes: Forbidden"),
            "{refused}"
        );
    }
    objects["items"][0]["spec"]["template"]["spec"]
        .as_object_mut()
        .unwrap()
        .remove("volumes");
    objects["items"][0]["spec"]["replicass"] = json!(1);
    std::fs::write(path, objects["items"][0].to_string()).unwrap();
    let refused = place.fail(&["create", "-f", path]).await;
    assert!(refused.contains("unknown field \"spec.replicass\""), "{refused}");
    let refused = place.fail(&["exec", "deploy/web", "--", "ls"]).await;
    assert!(refused.contains("not found"), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_config_maps_and_the_everyday_verbs() {
    let place = Place::new();
    add_image(&place.images(), "web", "1", &[("VERSION", "one")]).await;
    let cluster = place.start().await;
    place
        .run(&["create", "configmap", "settings", "--from-literal=MODE=fast"])
        .await;
    let mut objects = web("web:1", 1, &BTreeMap::new());
    objects["items"][0]["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "MODE"}}}]);
    let path = place.dir.path().join("objects.json");
    std::fs::write(&path, objects.to_string()).unwrap();
    // Client-side apply twice: create, then a strategic merge patch that changes nothing.
    place.run(&["apply", "-f", path.to_str().unwrap()]).await;
    let again = place.run(&["apply", "-f", path.to_str().unwrap()]).await;
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(place.ask("web", "/env/MODE").await, "fast");
    place.run(&["scale", "deployment/web", "--replicas=3"]).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(
        place.get(&["deployment", "web"]).await["status"]["availableReplicas"],
        3
    );
    place.run(&["annotate", "deployment/web", "note=1"]).await;
    place.run(&["label", "deployment/web", "team=a"]).await;
    place.run(&["rollout", "restart", "deployment/web"]).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    place
        .run(&[
            "wait",
            "--for=condition=Available",
            "deployment/web",
            "--timeout=60s",
        ])
        .await;
    assert_eq!(
        place.run(&["get", "deploy", "-l", "team=a", "-o", "name"]).await,
        "deployment.apps/web\n"
    );

    place.run(&["create", "namespace", "dev"]).await;
    place
        .run(&[
            "-n",
            "dev",
            "create",
            "deployment",
            "web",
            "--image=web:1",
            "--port=8080",
        ])
        .await;
    place
        .run(&[
            "-n",
            "dev",
            "rollout",
            "status",
            "deployment/web",
            "--timeout=60s",
        ])
        .await;
    place.run(&["delete", "namespace", "dev", "--timeout=60s"]).await;
    assert!(place.run(&["-n", "dev", "get", "all"]).await.is_empty());
    let refused = place.fail(&["-n", "dev", "create", "configmap", "late"]).await;
    assert!(refused.contains("namespaces \"dev\" not found"), "{refused}");
    cluster.shutdown().await;
}
