//! What every service's process does, whatever it serves: three listeners, readiness, and a shutdown in order and in
//! time.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use serde::Deserialize;
use slipway_events::MemoryBus;
use slipway_server::{
    Config, ConfigError, LIVE, Listeners, READY, RunError, ServiceHost, ServiceSettings, Wiring,
    config::parse,
};
use slipway_telemetry::Service;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl ServiceSettings for Nothing {
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// A host on free ports, whose `http` listener answers on `/hook`, with whatever else `add` gives it.
struct Hosted {
    _folder: tempfile::TempDir,
    http: SocketAddr,
    ops: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

async fn host(server: &str, add: impl FnOnce(&mut ServiceHost)) -> Hosted {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "database: {{url: 'sqlite://{}/x.db'}}\nserver:\n  listen: 127.0.0.1:0\n  http_listen: 127.0.0.1:0\n  ops_listen: 127.0.0.1:0\n{server}",
        folder.path().display()
    );
    let config: Config<Nothing> = parse("x.yaml", &text).unwrap();
    let listeners = Listeners::bind(&config.server).await.unwrap();
    let address =
        |listener: &Option<tokio::net::TcpListener>| listener.as_ref().unwrap().local_addr().unwrap();
    let (http, ops) = (address(&listeners.http), address(&listeners.ops));
    let bus = Arc::new(MemoryBus::new(slipway_events::BusConfig::default()));
    let wiring = Wiring::new(listeners, bus, Service::disabled("x-svc"));
    let shutdown = CancellationToken::new();
    let mut host = ServiceHost::open("x-svc", &config, wiring, shutdown.clone())
        .await
        .unwrap();
    add(&mut host);
    let router = Router::new().route("/hook", get(|| async { "hooked" })).route(
        "/slow",
        get(|| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow"
        }),
    );
    let task = tokio::spawn(host.http(router).serve());
    Hosted {
        _folder: folder,
        http,
        ops,
        shutdown,
        task,
    }
}

/// Status and body.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A peer of TLS may leave without saying goodbye.
    let _ = stream.read_to_string(&mut answer).await;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = answer
        .split("\r\n\r\n")
        .nth(1)
        .unwrap_or_default()
        .trim()
        .to_owned();
    (status, body)
}

async fn plain(address: SocketAddr, path: &str) -> (u16, String) {
    ask(TcpStream::connect(address).await.unwrap(), path).await
}

#[tokio::test]
async fn three_listeners_answer_and_readiness_ends_with_the_shutdown() {
    let draining = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&draining);
    let hosted = host("", |host| {
        host.background("last", |stop| async move {
            stop.cancelled().await;
            // Still there while the process drains.
            tokio::time::sleep(Duration::from_millis(500)).await;
            seen.store(true, Ordering::Release);
        });
    })
    .await;
    assert_eq!(plain(hosted.http, "/hook").await, (200, "hooked".to_owned()));
    assert_eq!(plain(hosted.http, "/absent").await.0, 404);
    assert_eq!(plain(hosted.ops, LIVE).await, (200, "ok".to_owned()));
    assert_eq!(plain(hosted.ops, READY).await, (200, "ok".to_owned()));
    assert_eq!(
        plain(hosted.ops, "/hook").await.0,
        404,
        "each listener has its own paths"
    );

    let slow = tokio::spawn(plain(hosted.http, "/slow"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    hosted.shutdown.cancel();
    assert_eq!(
        slow.await.unwrap(),
        (200, "slow".to_owned()),
        "what is in flight finishes"
    );
    let (status, body) = plain(hosted.ops, READY).await;
    assert_eq!((status, body.as_str()), (503, "not serving"));
    assert_eq!(plain(hosted.ops, LIVE).await.0, 200, "it lives while it drains");
    hosted.task.await.unwrap().unwrap();
    assert!(
        draining.load(Ordering::Acquire),
        "the background has ended before"
    );
}

#[tokio::test]
async fn a_shutdown_ends_within_its_grace_period() {
    let hosted = host("  drain_timeout: 100ms\n  grace_period: 600ms\n", |host| {
        host.background("stuck", |_| std::future::pending());
    })
    .await;
    plain(hosted.ops, READY).await;
    let began = Instant::now();
    hosted.shutdown.cancel();
    hosted.task.await.unwrap().unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn http_speaks_tls_where_grpc_does() {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let tls = format!(
        "  tls: {{certificate: {}, key: {}}}\n",
        certificate.display(),
        key.display()
    );
    let hosted = host(&tls, |_| ()).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // A peer that never completes its handshake does not hold up others.
    let _silent = TcpStream::connect(hosted.http).await.unwrap();
    let stream = TcpStream::connect(hosted.http).await.unwrap();
    let stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    assert_eq!(ask(stream, "/hook").await, (200, "hooked".to_owned()));
    assert_eq!(plain(hosted.ops, READY).await.0, 200, "ops stays plain");
    hosted.shutdown.cancel();
    hosted.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificate_and_key_must_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let two = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    std::fs::write(&certificate, one.cert.pem()).unwrap();
    std::fs::write(&key, two.signing_key.serialize_pem()).unwrap();
    let text = format!(
        "database: {{url: 'sqlite:///x.db'}}\nserver: {{tls: {{certificate: {}, key: {}}}}}\n",
        certificate.display(),
        key.display()
    );
    let config: Config<Nothing> = parse("x.yaml", &text).unwrap();
    config.check().unwrap();
    let error = config.check_files().unwrap_err().to_string();
    assert!(error.starts_with("server.tls.key: "), "{error}");
}
