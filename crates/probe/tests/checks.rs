//! Checks against real servers: HTTP with and without TLS, gRPC health, TCP; and the addresses that they refuse.
#![allow(clippy::unwrap_used)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use slipway_check::{Check, CheckResult};
use slipway_kubernetes::{ClusterConfigs, Clusters, Kubernetes};
use slipway_model::Name;
use slipway_probe::{Checker, ChecksConfig};
use slipway_testbed::within;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Barrier, mpsc},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A cluster whose API server was never started: checks to URLs do not need it.
async fn nowhere() -> Kubernetes {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let configs: ClusterConfigs = serde_json::from_value(json!({"x": {"kubeconfig": file}})).unwrap();
    let clusters = Clusters::open(&configs).await.unwrap();
    clusters.get(&"x".parse().unwrap()).unwrap().clone()
}

/// With these ranges opened.
fn checker(allow: &[&str]) -> Checker {
    let config: ChecksConfig = serde_json::from_value(json!({"allow": allow})).unwrap();
    Checker::new(&config)
}

#[allow(clippy::needless_pass_by_value, reason = "it is written where it is given")]
fn check(name: &str, kind: Value) -> Check {
    let mut check = json!({"name": name});
    check
        .as_object_mut()
        .unwrap()
        .extend(kind.as_object().unwrap().clone());
    let check: Check = serde_json::from_value(check).unwrap();
    assert_eq!(check.check(), [], "{check:?}");
    check
}

async fn run(checker: &Checker, checks: &[Check]) -> Vec<CheckResult> {
    let namespace: Name = "shop".parse().unwrap();
    let cluster = nowhere().await;
    let run = checker.run(&cluster, &namespace, checks);
    within("the checks end", run).await.unwrap()
}

async fn one(kind: Value) -> CheckResult {
    run(&checker(&["127.0.0.0/8", "::1"]), &[check("it", kind)])
        .await
        .remove(0)
}

#[track_caller]
fn assert_result(result: &CheckResult, passed: bool, attempts: u32, words: &[&str]) {
    assert_eq!(
        (result.passed, result.attempts),
        (passed, attempts),
        "{}",
        result.last_answer
    );
    for part in words {
        assert!(
            result.last_answer.contains(part),
            "{part:?} in {:?}",
            result.last_answer
        );
    }
}

/// A server on a port of its own, until dropped.
struct Running {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(router: Router) -> Running {
    let (listener, address) = listen().await;
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Running { address, task }
}

/// Runs each connection through `handle`.
async fn accept<F, T>(handle: F) -> Running
where
    F: Fn(tokio::net::TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(stream));
        }
    });
    Running { address, task }
}

#[tokio::test]
async fn http_is_asked_until_it_answers_as_expected() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let flaky = move || async move {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (StatusCode::SERVICE_UNAVAILABLE, "warming up"),
            _ => (StatusCode::OK, "all is well"),
        }
    };
    let server = serve(Router::new().route("/health", get(flaky))).await;
    let health =
        json!({"http": {"url": server.url(), "path": "/health", "interval": "1ms", "body_contains": "well"}});
    assert_result(
        &one(health.clone()).await,
        true,
        3,
        &["200 \"all is well\"", &server.url()],
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);

    asked.store(0, Ordering::SeqCst);
    let mut twice = health;
    twice["http"]["attempts"] = json!(2);
    assert_result(&one(twice).await, false, 2, &["503 \"warming up\", expected 200"]);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn headers_body_and_json_are_looked_at() {
    let echo = |headers: HeaderMap| async move {
        let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let body = json!({"tenant": of("x-tenant"), "host": of("host"), "agent": of("user-agent"), "parts": [{"up": true}, {"up": true}]});
        (
            [("x-version", "1.4"), ("content-type", "application/json")],
            body.to_string(),
        )
    };
    let server = serve(Router::new().route("/echo", get(echo))).await;
    let ask = |more: Value| {
        let mut http = json!({"url": server.url(), "path": "/echo?x=%20y", "attempts": 1});
        http.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        one(json!({"http": http}))
    };
    let fine = ask(json!({
        "headers": {"X-Tenant": "a", "User-Agent": "probe"},
        "expect_headers": {"X-Version": "1.4"},
        "expect_json": {"$.tenant": "a", "$.agent": "probe", "$.parts[*].up": [true, true], "$.host": server.address.to_string()},
    }));
    assert_result(&fine.await, true, 1, &["200"]);
    let named = ask(json!({"headers": {"Host": "shop.example"}, "expect_json": {"$.host": "shop.example"}}));
    assert_result(&named.await, true, 1, &["200"]);
    let header = ask(json!({"expect_headers": {"x-version": "2"}}));
    assert_result(
        &header.await,
        false,
        1,
        &["header x-version is \"1.4\", expected \"2\""],
    );
    let path = ask(json!({"expect_json": {"$.tenant": "b"}}));
    assert_result(&path.await, false, 1, &["$.tenant is null, expected \"b\""]);
}

#[tokio::test]
async fn bodies_are_bounded_and_silence_is_told() {
    let router = Router::new()
        .route("/long", get(|| async { format!("{}end", "x".repeat(1 << 20)) }))
        .route("/never", get(std::future::pending::<&str>))
        .route(
            "/moved",
            get(|| async {
                (
                    StatusCode::FOUND,
                    [("location", "http://169.254.169.254/latest/meta-data")],
                )
            }),
        );
    let server = serve(router).await;
    let ask = |path: &str, more: Value| {
        let mut http = json!({"url": server.url(), "path": path, "attempts": 1});
        http.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        one(json!({"http": http}))
    };
    let long = ask("/long", json!({"body_contains": "end"})).await;
    assert_result(&long, false, 1, &["200 \"xxx", "expected a body with \"end\""]);
    assert!(long.last_answer.len() < 1000, "{}", long.last_answer.len());
    assert_result(
        &ask("/never", json!({"timeout": "50ms"})).await,
        false,
        1,
        &["no answer within 50ms"],
    );
    let moved = ask("/moved", json!({})).await;
    assert_result(
        &moved,
        false,
        1,
        &[
            "302 to \"http://169.254.169.254/latest/meta-data\"",
            "do not follow",
        ],
    );
    assert_result(
        &ask("/moved", json!({"expect_status": 302})).await,
        true,
        1,
        &["302"],
    );

    // Speaks, and nothing of HTTP.
    let rude = accept(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    let spoken = one(json!({"http": {"url": rude.url(), "attempts": 1}})).await;
    assert_result(&spoken, false, 1, &["invalid HTTP version"]);
    // A body that goes on for ever, a little at a time.
    let drip = accept(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let dripped = one(json!({"http": {"url": drip.url(), "attempts": 1, "timeout": "200ms"}})).await;
    assert_result(&dripped, false, 1, &["no answer within 200ms"]);
}

/// An authority of its own, and what servers need of it.
struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self { ca, folder }
    }

    fn file(&self) -> String {
        self.folder.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    fn acceptor(&self, name: &str, alpn: &[u8]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Serves a router over TLS.
async fn serve_tls(acceptor: TlsAcceptor, router: Router) -> Running {
    accept(move |stream| {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        async move {
            // Who does not trust the certificate goes.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper_util::service::TowerToHyperService::new(router);
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

#[tokio::test]
async fn https_trusts_the_systems_authorities_and_those_of_ca_file() {
    let authority = Authority::new();
    let host = |headers: HeaderMap| async move { headers["host"].to_str().unwrap().to_owned() };
    let router = Router::new().route("/", get(host));
    let server = serve_tls(authority.acceptor("localhost", b"http/1.1"), router).await;
    let named = format!("https://localhost:{}", server.address.port());

    let trusted = json!({"http": {"url": named, "ca_file": authority.file(), "attempts": 1}});
    let words = format!("200 \"localhost:{}\"", server.address.port());
    assert_result(&one(trusted).await, true, 1, &[&words]);
    let stranger = one(json!({"http": {"url": named, "attempts": 2, "interval": "1ms"}})).await;
    assert_result(&stranger, false, 2, &["TLS with localhost", "UnknownIssuer"]);
    let other = json!({"http": {"url": format!("https://{}", server.address), "ca_file": authority.file(), "attempts": 1}});
    assert_result(
        &one(other).await,
        false,
        1,
        &["TLS with 127.0.0.1", "not valid for name"],
    );
    let missing = json!({"http": {"url": named, "ca_file": "/does/not/exist.pem", "attempts": 5}});
    assert_result(
        &one(missing).await,
        false,
        1,
        &["ca_file /does/not/exist.pem: No such file"],
    );
    let file = authority.folder.path().join("empty.pem");
    std::fs::write(&file, "nothing").unwrap();
    let empty = json!({"http": {"url": named, "ca_file": file, "attempts": 5}});
    assert_result(&one(empty).await, false, 1, &["holds no certificate"]);
}

/// Serves grpc.health.v1, with `shop.v1.Shop` serving and `shop.v1.Till` not.
async fn health(acceptor: Option<TlsAcceptor>) -> Running {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop.v1.Shop", tonic_health::ServingStatus::Serving)
        .await;
    reporter
        .set_service_status("shop.v1.Till", tonic_health::ServingStatus::NotServing)
        .await;
    let router = tonic::service::Routes::new(service).into_axum_router();
    match acceptor {
        Some(acceptor) => serve_tls(acceptor, router).await,
        None => serve(router).await,
    }
}

#[tokio::test]
async fn grpc_health_must_be_serving() {
    let server = health(None).await;
    let ask = |service: &str| {
        one(
            json!({"grpc": {"address": server.address.to_string(), "service": service, "attempts": 2, "interval": "1ms"}}),
        )
    };
    assert_result(&ask("").await, true, 1, &[": SERVING"]);
    assert_result(&ask("shop.v1.Shop").await, true, 1, &[": SERVING"]);
    assert_result(
        &ask("shop.v1.Till").await,
        false,
        2,
        &["NOT_SERVING, expected SERVING"],
    );
    assert_result(
        &ask("shop.v1.None").await,
        false,
        2,
        &["gRPC status NotFound", "service not registered"],
    );

    // A server without it, one that is silent, and none.
    let plain = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let other = one(json!({"grpc": {"address": plain.address.to_string(), "attempts": 1}})).await;
    assert_result(&other, false, 1, &["gRPC status"]);
    let silent = accept(|mut stream| async move {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
    })
    .await;
    let silence = json!({"grpc": {"address": silent.address.to_string(), "attempts": 1, "timeout": "50ms"}});
    assert_result(&one(silence).await, false, 1, &["no answer within 50ms"]);
    let (listener, address) = listen().await;
    drop(listener);
    let refused = one(json!({"grpc": {"address": address.to_string(), "attempts": 1}})).await;
    assert_result(&refused, false, 1, &["refused"]);
}

#[tokio::test]
async fn grpc_health_over_tls() {
    let authority = Authority::new();
    let server = health(Some(authority.acceptor("localhost", b"h2"))).await;
    let address = format!("localhost:{}", server.address.port());
    let trusted = json!({"grpc": {"address": address, "tls": true, "ca_file": authority.file(), "service": "shop.v1.Shop", "attempts": 1}});
    assert_result(&one(trusted).await, true, 1, &["SERVING"]);
    let stranger = json!({"grpc": {"address": address, "tls": true, "attempts": 1}});
    assert_result(&one(stranger).await, false, 1, &["UnknownIssuer"]);
    let plain = json!({"grpc": {"address": address, "attempts": 1, "timeout": "5s"}});
    assert_result(&one(plain).await, false, 1, &["grpc.health.v1"]);
}

#[tokio::test]
async fn tcp_is_a_connection_that_is_accepted() {
    let (listener, address) = listen().await;
    let open = json!({"tcp": {"address": address.to_string()}});
    assert_result(&one(open.clone()).await, true, 1, &["connected"]);
    drop(listener);
    let mut closed = open;
    closed["tcp"]["attempts"] = json!(3);
    closed["tcp"]["interval"] = json!("1ms");
    assert_result(&one(closed).await, false, 3, &["connect to 127.0.0.1", "refused"]);
    let nobody = json!({"tcp": {"address": "does-not-exist.invalid:80", "attempts": 1, "timeout": "30s"}});
    assert_result(&one(nobody).await, false, 1, &["resolve does-not-exist.invalid"]);
}

#[tokio::test]
async fn checks_go_where_they_may_and_nowhere_else() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let server = accept(move |_| {
        let arrived = arrived.clone();
        async move { arrived.send(()).unwrap() }
    })
    .await;
    let port = server.address.port();
    let strict = Checker::default();
    let ask = |kind: Value| {
        let (strict, check) = (strict.clone(), check("it", kind));
        async move { run(&strict, &[check]).await.remove(0) }
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "[::1]",
        "127.1",
    ] {
        let address = format!("{host}:{port}");
        for kind in [
            json!({"http": {"url": format!("http://{address}"), "attempts": 5}}),
            json!({"http": {"url": format!("https://{address}"), "attempts": 5}}),
            json!({"grpc": {"address": address, "attempts": 5}}),
            json!({"tcp": {"address": address, "attempts": 5}}),
        ] {
            // Once: it would be no better the next time.
            assert_result(
                &ask(kind).await,
                false,
                1,
                &["may not connect to", "checks.allow"],
            );
        }
    }
    for url in [
        "http://169.254.169.254",
        "http://[fd00:ec2::254]",
        "http://100.100.100.200",
        "http://[fe80::1]",
        "http://224.0.0.1",
    ] {
        let result = ask(json!({"http": {"url": url, "path": "/latest/meta-data/", "attempts": 5}})).await;
        assert_result(&result, false, 1, &["may not connect to"]);
    }
    assert!(arrivals.try_recv().is_err(), "nobody has been connected to");

    // What the configuration opens is open, and the rest is not.
    let opened = checker(&["127.0.0.1"]);
    let tcp = |address: String| check("it", json!({"tcp": {"address": address, "attempts": 1}}));
    assert_result(
        &run(&opened, &[tcp(format!("127.0.0.1:{port}"))]).await[0],
        true,
        1,
        &[],
    );
    arrivals.recv().await.unwrap();
    assert_result(
        &run(&opened, &[tcp(format!("127.0.0.2:{port}"))]).await[0],
        false,
        1,
        &["may not"],
    );
}

/// Stored requests may be older than the rules of the catalog: they are held when they are run, too.
#[tokio::test]
async fn what_the_catalog_would_refuse_is_refused() {
    let opened = checker(&["127.0.0.1"]);
    for (kind, words) in [
        (
            json!({"http": {"url": "http://bob:pw@127.0.0.1"}}),
            "must not contain a user",
        ),
        (
            json!({"http": {"url": "file:///etc/passwd"}}),
            "must begin with http",
        ),
        (json!({"http": {"url": "http://127.0.0.1:0"}}), "must have a port"),
        (json!({"tcp": {"address": "127.0.0.1"}}), "write host:port"),
        (
            json!({"grpc": {"address": "bob@127.0.0.1:80"}}),
            "write host:port",
        ),
    ] {
        let mut stored = json!({"name": "it"});
        stored
            .as_object_mut()
            .unwrap()
            .extend(kind.as_object().unwrap().clone());
        let stored: Check = serde_json::from_value(stored).unwrap();
        assert_result(&run(&opened, &[stored]).await[0], false, 1, &[words]);
    }
    // The path of a proxied check is the API server's path: it may not climb, and headers may not be the API server's.
    let names = json!({"service": "shop", "port": "http", "attempts": 1});
    for (more, words) in [
        (json!({"path": "/../../secrets/till"}), "without .."),
        (json!({"path": "/%2e%2e/%2e%2e/secrets/till"}), "without .."),
        (
            json!({"headers": {"Impersonate-User": "admin"}}),
            "would be the API server's",
        ),
    ] {
        let mut http = names.clone();
        http.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let stored: Check = serde_json::from_value(json!({"name": "it", "http": http})).unwrap();
        assert_result(&run(&opened, &[stored]).await[0], false, 1, &[words]);
    }
}

#[tokio::test]
async fn checks_run_together_and_each_to_its_end() {
    let barrier = Arc::new(Barrier::new(2));
    let meet = move || {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            "met"
        }
    };
    let server = serve(Router::new().route("/meet", get(meet))).await;
    let meeting = |name: &str| {
        check(
            name,
            json!({"http": {"url": server.url(), "path": "/meet", "attempts": 1, "timeout": "30s"}}),
        )
    };
    let failing = check(
        "third",
        json!({"http": {"url": server.url(), "path": "/none", "attempts": 2, "interval": "1ms"}}),
    );
    let results = run(
        &checker(&["127.0.0.1"]),
        &[meeting("first"), failing, meeting("second")],
    )
    .await;
    assert_result(&results[0], true, 1, &["met"]);
    assert_result(&results[1], false, 2, &["404"]);
    assert_result(&results[2], true, 1, &["met"]);
    let names: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["first", "third", "second"]);
}

#[tokio::test]
async fn who_stops_asking_closes_the_connection() {
    let (told, mut tell) = mpsc::unbounded_channel();
    let server = accept(move |mut stream| {
        let told = told.clone();
        async move {
            told.send("asked").unwrap();
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            told.send("gone").unwrap();
        }
    })
    .await;
    let address = server.address.to_string();
    for kind in [
        json!({"http": {"url": server.url(), "timeout": "5m"}}),
        json!({"grpc": {"address": address, "timeout": "5m"}}),
    ] {
        let waiting = check("it", kind);
        let checks = tokio::spawn(async move { run(&checker(&["127.0.0.1"]), &[waiting]).await });
        assert_eq!(within("it is asked", tell.recv()).await, Some("asked"));
        checks.abort();
        assert_eq!(within("it is gone", tell.recv()).await, Some("gone"));
    }
}
