//! What outlives the cluster, and what must not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Place, add_image, add_image_with, gone, is_alive, server, web};
use serde_json::json;

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
    );
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

/// A registry (the Distribution one) with an image that was put into its storage by the API.
#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_from_a_registry_on_loopback() {
    let place = Place::new();
    let elsewhere = place.dir.path().join("elsewhere");
    let digest = add_image_with(&elsewhere, "team/web", "1", &[("VERSION", "pulled")], server());
    let (mut registry, port) = registry(&place);
    push(&elsewhere.join("team/web"), port, &digest).await;
    let cluster = place.start().await;
    let image = format!("127.0.0.1:{port}/team/web@{digest}");
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
        .apply(&web(
            &format!("127.0.0.1:{port}/team/web:none"),
            1,
            &BTreeMap::new(),
        ))
        .await;
    place
        .until(&["pods"], |pods| pods.to_string().contains("ImagePullBackOff"))
        .await;
    cluster.shutdown().await;
    registry.kill().unwrap();
    registry.wait().unwrap();
}

fn registry(place: &Place) -> (Child, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = json!({"version": 0.1, "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": place.dir.path().join("registry")}},
        "http": {"addr": format!("127.0.0.1:{port}")}});
    let path = place.dir.path().join("registry.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is needed for this test");
    (child, port)
}

/// Pushes a layout's image with the client that the cluster pulls with.
async fn push(layout: &std::path::Path, port: u16, digest: &str) {
    use oci_client::client::{ClientConfig, ClientProtocol};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = oci_client::Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let blob = |digest: &str| std::fs::read(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let reference: oci_client::Reference = format!("127.0.0.1:{port}/team/web:1").parse().unwrap();
    client
        .store_auth_if_needed(
            reference.resolve_registry(),
            &oci_client::secrets::RegistryAuth::Anonymous,
        )
        .await;
    let manifest: serde_json::Value = serde_json::from_slice(&blob(digest)).unwrap();
    let mut blobs = vec![manifest["config"]["digest"].as_str().unwrap().to_owned()];
    blobs.extend(
        manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["digest"].as_str().unwrap().to_owned()),
    );
    for digest in blobs {
        // The registry needs a moment until it listens.
        slipway_testbed::eventually("the registry takes it", async || {
            client.push_blob(&reference, blob(&digest), &digest).await
        })
        .await;
    }
    let media_type = "application/vnd.oci.image.manifest.v1+json".parse().unwrap();
    client
        .push_manifest_raw(&reference, blob(digest), media_type)
        .await
        .unwrap();
}
