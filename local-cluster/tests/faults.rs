//! Faults to order, as the kube client sees them, and the metrics that count watches.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::pin::Pin;
use std::time::{Duration, Instant};

use common::Place;
use futures::{AsyncBufReadExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use local_cluster::{Cluster, Throttled};
use slipway_testbed::{eventually, holds, within};

/// A client that does not try again by itself: the tests want to see the refusals.
async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason),
        other => panic!("{other:?}"),
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<ConfigMap>, kube::Error>> + Send>>;

async fn watch(api: &Api<ConfigMap>, version: &str) -> Result<Events, kube::Error> {
    Ok(api.watch(&WatchParams::default(), version).await?.boxed())
}

async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    within("something comes", stream.next()).await
}

async fn version(api: &Api<ConfigMap>) -> String {
    let list = api.list(&ListParams::default()).await.unwrap();
    list.metadata.resource_version.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_requests_are_told_to_wait() {
    let place = Place::new();
    let cluster = place.start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    cluster.faults().throttle(2);
    for _ in 0..2 {
        let refused = api.list(&ListParams::default()).await;
        let Err(kube::Error::Api(status)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
        assert_eq!(status.details.unwrap().retry_after_seconds, 1);
    }
    api.list(&ListParams::default()).await.unwrap();

    // Those that are spared are not counted either.
    cluster.faults().throttle_only(1, Throttled::Watches);
    let now = version(&api).await;
    assert_eq!(code(watch(&api, &now).await.map(|_| ())).0, 429);
    let _open = watch(&api, &now).await.unwrap();

    // A client as it comes waits as long as it is told, and goes on.
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let patient: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    cluster.faults().throttle(1);
    patient.list(&ListParams::default()).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_watches_break_off_and_start_again() {
    let place = Place::new();
    let cluster = place.start().await;
    let client = client(&cluster).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    // As the bytes come: the client's own watch takes a broken stream for an ended one.
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={}",
        version(&api).await
    );
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let mut lines = client.request_stream(request).await.unwrap().lines();
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let first = next(&mut lines).await.unwrap().unwrap();
    assert!(first.contains("\"ADDED\""), "{first}");
    cluster.faults().drop_watches();
    let broken = next(&mut lines).await;
    assert!(matches!(broken, Some(Err(_))), "no clean end: {broken:?}");

    // The runtime's watcher misses nothing.
    let mut names = watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(async |event| event.ok().map(|map| map.name_any()))
        .boxed();
    assert_eq!(next(&mut names).await.unwrap(), "a");
    cluster.faults().drop_watches();
    api.create(&PostParams::default(), &config_map("b"))
        .await
        .unwrap();
    loop {
        if next(&mut names).await.unwrap() == "b" {
            break;
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_watches_must_list_again() {
    let place = Place::new();
    let cluster = place.start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    let before = version(&api).await;
    let mut plain = watch(&api, &before).await.unwrap();
    let mut runtime = watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .boxed();
    loop {
        if matches!(next(&mut runtime).await, Some(Ok(watcher::Event::InitDone))) {
            break;
        }
    }
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    loop {
        if matches!(next(&mut runtime).await, Some(Ok(watcher::Event::Apply(_)))) {
            break;
        }
    }
    cluster.faults().expire_watches();
    let mut expired = None;
    while let Some(event) = next(&mut plain).await {
        if let WatchEvent::Error(status) = event.unwrap() {
            expired = Some((status.code, status.reason));
        }
    }
    assert_eq!(expired, Some((410, "Expired".to_owned())));
    assert_eq!(code(watch(&api, &before).await.map(|_| ())).0, 410);
    let _open = watch(&api, &version(&api).await).await.unwrap();
    // The runtime's watcher begins anew by itself.
    loop {
        if matches!(next(&mut runtime).await, Some(Ok(watcher::Event::InitDone))) {
            break;
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_is_503_until_it_is_over() {
    let place = Place::new();
    let cluster = place.start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    let mut open = watch(&api, &version(&api).await).await.unwrap();
    cluster.faults().unavailable(Duration::from_secs(3600));
    assert_eq!(
        code(api.list(&ListParams::default()).await),
        (503, "ServiceUnavailable".to_owned())
    );
    assert_eq!(
        code(api.create(&PostParams::default(), &config_map("a")).await).0,
        503
    );
    cluster.faults().unavailable(Duration::ZERO);
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert!(matches!(next(&mut open).await, Some(Ok(WatchEvent::Added(_)))));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_late_but_in_order() {
    let place = Place::new();
    let cluster = place.start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    let mut events = watch(&api, &version(&api).await).await.unwrap();
    let delay = Duration::from_millis(300);
    cluster.faults().delay_watches(delay);
    let begun = Instant::now();
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    for name in ["a", "b", "c"] {
        match next(&mut events).await.unwrap().unwrap() {
            WatchEvent::Added(map) => assert_eq!(map.name_any(), name),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() >= delay);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_requests_are_answered_in_the_end() {
    let place = Place::new();
    let cluster = place.start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    let stall = Duration::from_millis(300);
    let begun = Instant::now();
    cluster.faults().stall(stall);
    api.list(&ListParams::default()).await.unwrap();
    assert!(begun.elapsed() >= stall);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_open_watches() {
    let place = Place::new();
    let cluster = place.start().await;
    let client = client(&cluster).await;
    let metrics = async || {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap()
    };
    let watches = |text: &str| -> Vec<String> {
        let ours = |line: &&str| {
            line.starts_with("apiserver_longrunning_requests{")
                && line.contains("resource=\"configmaps\"")
                && !line.ends_with(" 0")
        };
        text.lines().filter(ours).map(str::to_owned).collect()
    };
    let all: Api<ConfigMap> = Api::all(client.clone());
    let one: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let now = version(&all).await;
    let (first, second) = (watch(&all, &now).await.unwrap(), watch(&one, &now).await.unwrap());
    let line = |scope: &str| {
        format!(
            "apiserver_longrunning_requests{{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"WATCH\",version=\"v1\"}} 1"
        )
    };
    let text = metrics().await;
    assert_eq!(watches(&text), [line("cluster"), line("namespace")]);
    assert!(
        text.lines()
            .any(|line| line.starts_with("apiserver_request_total{code=\"200\"")
                && line.contains("resource=\"configmaps\"")
                && line.contains("verb=\"LIST\"")),
        "{text}"
    );
    drop((first, second));
    eventually("the watches end", async || {
        holds(metrics().await, |text| watches(text).is_empty())
    })
    .await;
    cluster.shutdown().await;
}
