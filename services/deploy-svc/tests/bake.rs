//! Bakes measured by a real Prometheus, which scrapes a page of the test.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::HeaderMap,
    routing::{get, post},
};
use deploy_domain::{
    catalog::{Bake, Target, Verify, WorkloadKind},
    deployment::{Action, DeploymentRequest, limits},
    result::Measurement,
};
use deploy_svc::testing::measure;
use serde_json::{Value, json};
use slipway_model::{Actor, Image, Images, Name, Timestamp};
use slipway_probe::{PrometheusConfig, Prometheuses};
use slipway_testbed::{Prometheus, eventually, holds, within};
use slipway_verdict::analysis::{self, Sample, Verdict};
use tokio::net::TcpListener;

/// Of the scrapes; the page is asked for with the same time limit.
const SCRAPE: Duration = Duration::from_millis(500);

/// The page that is scraped.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<String>>);

impl Page {
    fn set(&self, text: &str) {
        text.clone_into(&mut self.0.lock().unwrap());
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

struct World {
    page: Page,
    servers: Prometheuses,
    _prometheus: Prometheus,
}

impl World {
    async fn new(text: &str) -> Self {
        let page = Page::default();
        page.set(text);
        let shown = page.clone();
        let metrics = move || async move { shown.0.lock().unwrap().clone() };
        let address = serve(Router::new().route("/metrics", get(metrics))).await;
        let prometheus = Prometheus::start(address, SCRAPE).await.unwrap();
        Self {
            page,
            servers: open(json!({"main": {"url": prometheus.url()}})),
            _prometheus: prometheus,
        }
    }

    async fn measure(&self, bake: &Bake) -> Vec<Measurement> {
        let request = request();
        let measured = measure(&self.servers, &request, bake, Timestamp::now());
        within("it is measured", measured).await
    }

    /// Measures again and again until the last measurements are as wanted.
    async fn until(&self, bake: &Bake, wanted: impl Fn(&[Measurement]) -> bool) -> Vec<Measurement> {
        eventually("it is measured as wanted", async || {
            holds(self.measure(bake).await, |last| wanted(last))
        })
        .await
    }
}

fn open(configs: Value) -> Prometheuses {
    let configs: BTreeMap<Name, PrometheusConfig> = serde_json::from_value(configs).unwrap();
    Prometheuses::open(&configs).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "it is written where it is given")]
fn bake(metrics: Value) -> Bake {
    let bake: Bake = serde_json::from_value(json!({"for": "10m", "metrics": metrics})).unwrap();
    assert_eq!(bake.check(), []);
    bake
}

/// What all measurements say, as a deployment counts them.
fn judge(bake: &Bake, measurements: &[Measurement], ended: bool) -> Verdict {
    analysis::worst(bake.metrics.iter().map(|metric| {
        let own = measurements.iter().filter(|one| one.metric == metric.name);
        let samples = own.map(|one| Sample {
            value: one.value,
            message: &one.message,
        });
        analysis::judge(metric.name.as_str(), &limits(metric), samples, ended)
    }))
}

fn request() -> DeploymentRequest {
    DeploymentRequest {
        service: "shop".parse().unwrap(),
        environment: "prod".parse().unwrap(),
        target: Target {
            cluster: "main".parse().unwrap(),
            namespace: "shop-prod".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "shop".to_owned(),
        },
        images: Images::one(Image {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
            digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
            tags: Vec::new(),
        }),
        source: None,
        epoch: 1,
        action: Action::Apply,
        jobs: Default::default(),
        checks: Vec::new(),
        bake: None,
        pauses: Default::default(),
        verify: Verify::default(),
        timeout: Duration::from_secs(60),
        create_namespace: false,
        restores: None,
        follows_steps: false,
        rolls_back: None,
        reverts: None,
        correlation_id: String::new(),
        labels: Default::default(),
        requested_by: Actor::system("test"),
        shared: Default::default(),
        holds_lane: false,
    }
}

#[tokio::test]
async fn a_number_is_a_value_and_all_else_is_told() {
    let world = World::new(
        "errors{app=\"shop\",env=\"prod\",ns=\"shop-prod\"} 0.25\nerrors{app=\"other\"} 1\nzero 0\n",
    )
    .await;
    let metric = |name: &str, query: &str| json!({"name": name, "query": query, "max": 1});
    let bake = bake(json!([
        metric(
            "mine",
            r#"errors{app="{{service}}", env='{{environment}}', ns=~"{{namespace}}", job="test"}"#
        ),
        metric("scalar", "scalar(sum(errors))"),
        metric("window", r#"max_over_time(errors{app="{{target}}"}[{{window}}])"#),
        metric("none", r#"errors{app="nobody"}"#),
        metric("several", "errors"),
        metric("nan", "zero / zero"),
        metric("infinite", "1 / zero"),
        metric("wrong", "sum("),
        metric("matrix", "errors[5m]"),
    ]));
    let found = world
        .until(&bake, |found| {
            found.iter().filter(|one| one.value.is_some()).count() == 3
        })
        .await;
    let names: Vec<&str> = found.iter().map(|one| one.metric.as_str()).collect();
    let order: Vec<&str> = bake.metrics.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, order);
    let values: Vec<Option<f64>> = found.iter().take(3).map(|one| one.value).collect();
    assert_eq!(values, [Some(0.25), Some(1.25), Some(0.25)]);
    for (one, words) in found.iter().skip(3).zip([
        "no data",
        "gives 2 series",
        "the value is NaN",
        "the value is +Inf",
        "bad_data: ",
        "gives a matrix",
    ]) {
        assert!(
            one.value.is_none() && one.message.contains(words),
            "{one:?}, not {words}"
        );
    }
    assert!(
        found[3..]
            .iter()
            .all(|one| one.message.starts_with("prometheus main: ")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_version_is_good_or_bad_by_what_is_measured() {
    let world = World::new("error_rate 0.01\n").await;
    let watched = bake(json!([
        {"name": "errors", "query": "error_rate", "max": 0.05, "failure_limit": 1, "inconclusive_limit": 1000},
    ]));
    // Until the first scrape there is no value, which is tolerated and is not a success.
    let mut measured = world.until(&watched, |found| found[0].value == Some(0.01)).await;
    assert_eq!(judge(&watched, &measured, true), Verdict::Passed);
    assert!(matches!(judge(&watched, &measured, false), Verdict::Measuring(_)));

    // It gets worse: one bad value is borne, the second one decides.
    world.page.set("error_rate 0.5\n");
    measured.extend(world.until(&watched, |found| found[0].value == Some(0.5)).await);
    assert!(
        matches!(judge(&watched, &measured, false), Verdict::Measuring(_)),
        "{measured:?}"
    );
    measured.extend(world.measure(&watched).await);
    let Verdict::Failed(words) = judge(&watched, &measured, false) else {
        panic!("{measured:?}");
    };
    assert_eq!(
        words,
        "metric errors: 0.5 is above max 0.05; bad in 2 of 3 measurements, failure_limit is 1"
    );

    // The metric goes away: inconclusive once that is no longer allowed.
    world.page.set("something_else 1\n");
    let silent = world.until(&watched, |found| found[0].value.is_none()).await;
    assert_eq!(silent[0].message, "prometheus main: no data");
    let strict = bake(json!([{"name": "errors", "query": "error_rate", "max": 1, "inconclusive_limit": 0}]));
    assert!(matches!(judge(&strict, &silent, false), Verdict::Inconclusive(_)));
}

#[tokio::test]
async fn a_prometheus_that_is_not_there_says_nothing_about_the_version() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let servers = open(json!({
        "closed": {"url": format!("http://{address}")},
        "silent": {"url": format!("http://{}", silent.local_addr().unwrap()), "timeout": "100ms"},
    }));
    let metric = |name: &str, prometheus: Value| json!({"name": name, "query": "up", "min": 1, "prometheus": prometheus});
    let bake = bake(json!([
        metric("closed", json!("closed")),
        metric("silent", json!("silent")),
        metric("unknown", json!("elsewhere")),
        metric("unnamed", Value::Null),
    ]));
    let found = measure(&servers, &request(), &bake, Timestamp::now()).await;
    for (one, words) in found.iter().zip([
        "prometheus closed: connect to 127.0.0.1",
        "prometheus silent: no answer within 100ms",
        "no prometheus elsewhere in this service's configuration; there are: closed, silent",
        "the metric must name a prometheus",
    ]) {
        assert!(
            one.value.is_none() && one.message.starts_with(words),
            "{one:?}, not {words}"
        );
    }
    assert!(matches!(judge(&bake, &found, true), Verdict::Inconclusive(_)));
}

#[tokio::test]
async fn the_token_is_sent_and_bodies_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let query = |headers: HeaderMap, body: String| async move {
        let token = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        match token.as_deref() {
            Some("Bearer s3cret") if body.contains("query=long") => "x".repeat(3 << 20),
            Some("Bearer s3cret") => {
                r#"{"status": "success", "data": {"resultType": "scalar", "result": [1, "7"]}}"#.to_owned()
            }
            _ => "who are you".to_owned(),
        }
    };
    let address = serve(Router::new().route("/prometheus/api/v1/query", post(query))).await;
    let url = format!("http://{address}/prometheus/");
    let servers = open(json!({
        "with": {"url": url, "bearer_token_file": file},
        "without": {"url": url},
        "lost": {"url": url, "bearer_token_file": "/does/not/exist"},
    }));
    let metric =
        |name: &str, query: &str| json!({"name": name, "query": query, "min": 1, "prometheus": name});
    let mut bake = bake(json!([
        metric("with", "up"),
        metric("without", "up"),
        metric("lost", "up")
    ]));
    let found = measure(&servers, &request(), &bake, Timestamp::now()).await;
    assert_eq!(found[0].value, Some(7.0), "{found:?}");
    assert!(
        found[1].message.contains("answered 200 \"who are you\""),
        "{found:?}"
    );
    assert!(
        found[2]
            .message
            .contains("bearer_token_file /does/not/exist: No such file"),
        "{found:?}"
    );

    bake.metrics.truncate(1);
    "long".clone_into(&mut bake.metrics[0].query);
    let found = measure(&servers, &request(), &bake, Timestamp::now()).await;
    assert!(found[0].message.contains("longer than 1 MiB"), "{found:?}");

    // A token that was renewed is taken up.
    "up".clone_into(&mut bake.metrics[0].query);
    std::fs::write(&file, "other").unwrap();
    let found = measure(&servers, &request(), &bake, Timestamp::now()).await;
    assert!(found[0].message.contains("who are you"), "{found:?}");
}
