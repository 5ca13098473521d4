//! A real server over real connections, plain and with TLS.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

mod probe;

use std::time::Duration;

use probe::{Probe, Running, principals};
use slipway_proto::approval::v1::{
    Approval, GetApprovalRequest, WatchApprovalsRequest, approval_service_client::ApprovalServiceClient,
};
use slipway_server::{Channel, ClientConfig, ErrorView, ServerConfig};
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

fn config() -> ServerConfig {
    ServerConfig {
        principals: principals(),
        ..ServerConfig::default()
    }
}

async fn get(channel: Channel, id: &str) -> Result<Approval, Status> {
    ApprovalServiceClient::new(channel)
        .get_approval(GetApprovalRequest { id: id.to_owned() })
        .await
        .map(|response| response.into_inner().approval.unwrap_or_default())
}

#[tokio::test]
async fn callers_are_known_by_their_tokens() {
    let server = Running::start(config()).await;
    let error = get(server.anonymous(), "whoami").await.unwrap_err();
    assert_eq!(ErrorView::of(&error).reason, "UNAUTHENTICATED");
    assert!(error.message().contains("no token"), "{error}");

    let error = get(server.channel("not-a-token"), "whoami").await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(!error.message().contains("not-a-token"), "{error}");

    assert_eq!(
        get(server.channel("alice-token"), "whoami").await.unwrap().id,
        "token/alice"
    );
    server.stop().await;
}

#[tokio::test]
async fn roles_are_scoped() {
    let server = Running::start(config()).await;
    for (token, id, allowed) in [
        ("alice-token", "approve shop-web staging", true),
        ("alice-token", "approve shop-web prod", false),
        ("alice-token", "approve identity staging", false),
        ("alice-token", "cancel shop-web staging", false),
        ("nobody-token", "read shop-web staging", false),
        ("admin-token", "cancel identity prod", true),
    ] {
        let result = get(server.channel(token), id).await;
        match result {
            Ok(_) => assert!(allowed, "{token} {id}"),
            Err(error) => {
                assert!(!allowed, "{token} {id}: {error}");
                assert_eq!(error.code(), Code::PermissionDenied);
                let action = id.split(' ').next().unwrap();
                assert!(error.message().contains(action), "{error}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_configured_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = slipway_server::Tls {
        certificate: certificate.clone(),
        key,
    };
    let server = Running::start(ServerConfig {
        tls: Some(tls),
        ..config()
    })
    .await;

    let url = format!("https://localhost:{}", server.address.port());
    let trusting = ClientConfig {
        ca_file: Some(certificate),
        ..ClientConfig::new(&url, "alice-token")
    };
    assert_eq!(
        get(trusting.connect("x").unwrap(), "whoami").await.unwrap().id,
        "token/alice"
    );

    // A client that trusts another certificate does not talk to it.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_file = folder.path().join("other.crt");
    std::fs::write(&other_file, other.cert.pem()).unwrap();
    let wary = ClientConfig {
        ca_file: Some(other_file),
        ..ClientConfig::new(&url, "alice-token")
    };
    assert_eq!(
        get(wary.connect("x").unwrap(), "whoami")
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );

    // Nor does plain text get an answer.
    assert!(get(server.channel("alice-token"), "whoami").await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn tls_material_that_is_not_there_is_named() {
    let tls = slipway_server::Tls {
        certificate: "/nonexistent.crt".into(),
        key: "/nonexistent.key".into(),
    };
    let config = ServerConfig {
        tls: Some(tls),
        ..config()
    };
    let error = slipway_server::Server::builder("x", &config, slipway_proto::DESCRIPTORS).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("server.tls.certificate: /nonexistent.crt"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_text_stays_on_loopback() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    // The configuration names a loopback address; what counts is where the listener is.
    let error = slipway_server::Server::builder("x", &config(), slipway_proto::DESCRIPTORS)
        .unwrap()
        .serve(listener, tokio_util::sync::CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("server.tls: is required"),
        "{error}"
    );
}

#[tokio::test]
async fn messages_are_bounded() {
    let server = Running::start(ServerConfig {
        max_message_bytes: 1000,
        ..config()
    })
    .await;
    assert!(get(server.channel("alice-token"), &"x".repeat(900)).await.is_ok());
    let error = get(server.channel("alice-token"), &"x".repeat(5000))
        .await
        .unwrap_err();
    assert!(
        matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{error:?}"
    );
    server.stop().await;

    let server = Running::start(config()).await;
    let error = get(server.channel("alice-token"), &"x".repeat(5 << 20))
        .await
        .unwrap_err();
    assert!(
        matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{error:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn unary_requests_have_a_deadline_and_streams_have_none() {
    let timeout = Duration::from_millis(50);
    let server = Running::start(ServerConfig {
        request_timeout: timeout,
        ..config()
    })
    .await;
    let mut client = ApprovalServiceClient::new(server.channel("alice-token"));
    let mut stream = client
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap()
        .into_inner();

    let error = get(server.channel("alice-token"), "wait").await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );

    // The stream began before that request and outlives it.
    server.probe.tell("still here");
    assert_eq!(
        stream.message().await.unwrap().unwrap().approval.unwrap().id,
        "still here"
    );
    drop(stream);
    server.stop().await;

    // A caller may ask for less than the server allows.
    let server = Running::start(config()).await;
    let mut client = ApprovalServiceClient::new(server.channel("alice-token"));
    let mut request = Request::new(GetApprovalRequest {
        id: "wait".to_owned(),
    });
    request.set_timeout(timeout);
    let error = client.get_approval(request).await.unwrap_err();
    assert!(
        matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{error:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn too_many_at_once_are_refused() {
    let server = Running::start(ServerConfig {
        max_concurrent_requests: 1,
        max_concurrent_streams: 1,
        ..config()
    })
    .await;
    let first = tokio::spawn(get(server.channel("alice-token"), "wait"));
    server.probe.entered().await;
    let error = get(server.channel("alice-token"), "whoami").await.unwrap_err();
    assert_eq!(ErrorView::of(&error).reason, "LIMIT_EXCEEDED");
    // Health still answers, and streams count apart.
    assert_eq!(health(&server).await, ServingStatus::Serving);
    let mut client = ApprovalServiceClient::new(server.channel("alice-token"));
    let stream = client
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap();
    let error = client
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    drop(stream);
    server.probe.release();
    assert_eq!(first.await.unwrap().unwrap().id, "waited");
    assert!(get(server.channel("alice-token"), "whoami").await.is_ok());
    server.stop().await;
}

async fn health(server: &Running) -> ServingStatus {
    let mut client = HealthClient::new(server.anonymous());
    client
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status()
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let server = Running::start(config()).await;
    let channel = server.channel("alice-token");
    let mut client = ApprovalServiceClient::new(channel.clone());
    let mut stream = client
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap()
        .into_inner();
    server.probe.tell("before");
    assert_eq!(
        stream.message().await.unwrap().unwrap().approval.unwrap().id,
        "before"
    );
    let mut watch = HealthClient::new(server.anonymous());
    let name = "slipway.approval.v1.ApprovalService".to_owned();
    let mut watch = watch
        .watch(HealthCheckRequest {
            service: name.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );

    let in_flight = tokio::spawn(get(channel.clone(), "wait"));
    server.probe.entered().await;
    server.shutdown.cancel();

    // Health says so first, on the watch and when asked.
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(health(&server).await, ServingStatus::NotServing);
    // The stream ends with a status that says: come again.
    let error = stream.message().await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::Unavailable, "UNAVAILABLE")
    );
    assert!(error.message().contains("shutting down"), "{error}");
    // Nothing new is begun.
    let error = get(channel.clone(), "whoami").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    // What was in flight is answered.
    assert!(!server.ended());
    server.probe.release();
    assert_eq!(in_flight.await.unwrap().unwrap().id, "waited");
    server.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let server = Running::start(ServerConfig {
        drain_timeout: Duration::from_millis(20),
        ..config()
    })
    .await;
    let stuck = tokio::spawn(get(server.channel("alice-token"), "wait"));
    server.probe.entered().await;
    server.stop().await;
    stuck.abort();
}

#[tokio::test]
async fn reflection_lists_what_is_served_to_those_with_a_token() {
    let server = Running::start(config()).await;
    let wanted = ["grpc.health.v1.Health", "slipway.approval.v1.ApprovalService"];

    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel("alice-token"));
    let answers = client
        .server_reflection_info(tokio_stream::once(ask.clone()))
        .await
        .unwrap();
    let answer = answers
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, wanted);

    let ask_alpha = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(wanted[1].to_owned()),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel("alice-token"));
    let answers = client
        .server_reflection_info(tokio_stream::once(ask_alpha))
        .await
        .unwrap();
    let answer = answers
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    assert!(matches!(
        answer,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(ref file)
            if !file.file_descriptor_proto.is_empty()
    ));

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.anonymous());
    let error = client
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    server.stop().await;
}

#[tokio::test]
async fn trace_contexts_travel() {
    let server = Running::start(config()).await;
    let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = Request::new(GetApprovalRequest {
        id: "trace".to_owned(),
    });
    request
        .extensions_mut()
        .insert(text.parse::<slipway_model::TraceContext>().unwrap());
    let mut client = ApprovalServiceClient::new(server.channel("alice-token"));
    let seen = client
        .get_approval(request)
        .await
        .unwrap()
        .into_inner()
        .approval
        .unwrap()
        .id;
    assert!(seen.contains("0af7651916cd43dd8448eb211c80319c"), "{seen}");
    server.stop().await;
}

#[tokio::test]
async fn handlers_do_not_see_the_token() {
    let server = Running::start(config()).await;
    assert_eq!(
        get(server.channel("alice-token"), "authorization")
            .await
            .unwrap()
            .id,
        "none"
    );
    server.stop().await;
}

#[test]
fn the_probe_is_the_service_that_reflection_names() {
    use tonic::server::NamedService;
    type Served = slipway_proto::approval::v1::approval_service_server::ApprovalServiceServer<Probe>;
    assert_eq!(Served::NAME, "slipway.approval.v1.ApprovalService");
}
