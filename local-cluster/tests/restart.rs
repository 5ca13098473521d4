//! What outlives the cluster, and what must not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Place, add_image, gone, is_alive, server, web};
use serde_json::json;
use slipway_testbed::{Images, Registry};

/// The cluster as a process of its own.
fn program(place: &Place) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_local-cluster"))
        .arg("--data")
        .arg(place.dir.path().join("data"))
        .arg("--images")
        .arg(place.images())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("export KUBECONFIG="), "{line}");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_leaves_nothing_and_loses_nothing() {
    let place = Place::new();
    add_image(
        &place.images(),
        "web",
        "1",
        &[("VERSION", "one"), ("BEHAVIOUR", "child")],
    )
    .await;
    let mut cluster = program(&place);
    place.apply(&web("web:1", 1, &BTreeMap::new())).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    let pid = place.ask("web", "/pid").await;
    let pod = place.get(&["pods"]).await["items"][0].clone();
    let kubeconfig = std::fs::read(place.dir.path().join("data/kubeconfig")).unwrap();
    cluster.kill().unwrap();
    cluster.wait().unwrap();
    gone(&pid).await;

    let mut cluster = program(&place);
    assert_eq!(
        std::fs::read(place.dir.path().join("data/kubeconfig")).unwrap(),
        kubeconfig
    );
    let again = place
        .until(&["pods"], |pods| {
            let status = &pods["items"][0]["status"]["containerStatuses"][0];
            status["ready"] == true && status["restartCount"] == 1
        })
        .await["items"][0]
        .clone();
    assert_eq!(again["metadata"]["uid"], pod["metadata"]["uid"]);
    let last = &again["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(255), &json!("Unknown"))
    );
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(place.ask("web", "/version").await, "one");
    let next = place.ask("web", "/pid").await;
    assert!(is_alive(&next));
    // An orderly end stops the pods, too.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(cluster.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(cluster.wait().unwrap().success());
    assert!(!is_alive(&next));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_cluster() {
    let place = Place::new();
    let cluster = place.start().await;
    let second = local_cluster::Cluster::start(place.config()).await.unwrap_err();
    assert!(matches!(second, local_cluster::Error::InUse(_)), "{second}");
    let version = place.get(&["namespace", "default"]).await["metadata"]["resourceVersion"].clone();
    let address = cluster.address();
    cluster.shutdown().await;
    let cluster = place.start().await;
    assert_eq!(cluster.address(), address);
    assert_eq!(
        place.get(&["namespace", "default"]).await["metadata"]["resourceVersion"],
        version
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_executable_that_is_no_shim_is_refused() {
    let place = Place::new();
    let mut config = place.config();
    config.shim = Some("/bin/true".into());
    let error = local_cluster::Cluster::start(config).await.unwrap_err();
    assert!(error.to_string().contains("run_if_requested"), "{error}");
    let mut config = place.config();
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = local_cluster::Cluster::start(config).await.unwrap_err();
    assert!(matches!(error, local_cluster::Error::NotLoopback(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_from_a_registry_on_loopback() {
    let place = Place::new();
    let registry = Registry::start().await.unwrap();
    let name = registry.image("team/web");
    let images = Images::new(place.dir.path().join("elsewhere"), Some(name.clone()));
    let digest = images.add(&server(), &[("VERSION", "pulled")]).unwrap();
    images.tag("1", &digest).await.unwrap();
    let cluster = place.start().await;
    let image = format!("{name}@{digest}");
    place.apply(&web(&image, 1, &BTreeMap::new())).await;
    place
        .run(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(place.ask("web", "/version").await, "pulled");
    let pods = place.get(&["pods"]).await;
    assert_eq!(
        pods["items"][0]["status"]["containerStatuses"][0]["imageID"],
        image
    );

    place
        .apply(&web(&format!("{name}:none"), 1, &BTreeMap::new()))
        .await;
    place
        .until(&["pods"], |pods| pods.to_string().contains("ImagePullBackOff"))
        .await;
    cluster.shutdown().await;
}
