//! Trace context through a real gRPC server and client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_client::TraceServiceClient,
    trace_service_server::{TraceService, TraceServiceServer},
};
use slipway_model::TraceContext;
use slipway_telemetry::{
    Capture, SpanKind, Status as SpanStatus, TelemetryConfig, TraceClient, TraceClientLayer,
    TraceServerLayer, WithTraceContext, capture, current_trace_context,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Server},
};
use tower::Layer;
use tracing::{Dispatch, dispatcher, info_span};

const METHOD: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Any unary service would do; this one remembers the contexts that it sees, and answers as it is told.
#[derive(Clone, Default)]
struct Probe {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Mutex<Option<Status>>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// What the handler would record with what it starts.
    given: Option<TraceContext>,
    /// What a call made by the handler would send on.
    current: Option<TraceContext>,
}

#[tonic::async_trait]
impl TraceService for Probe {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // On another turn than the one that the layer called us in.
        tokio::task::yield_now().await;
        self.seen.lock().unwrap().push(Seen {
            given: request.trace_context(),
            current: current_trace_context(),
        });
        match self.answer.lock().unwrap().clone() {
            Some(status) => Err(status),
            None => Ok(Response::new(ExportTraceServiceResponse::default())),
        }
    }
}

struct Rig {
    client: TraceServiceClient<TraceClient<Channel>>,
    channel: TraceClient<Channel>,
    probe: Probe,
    captured: Capture,
    dispatch: Dispatch,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Rig {
    /// On the test's only thread, where the subscriber is the default one as long as the returned guard lives.
    async fn start() -> (Self, dispatcher::DefaultGuard) {
        let config = TelemetryConfig {
            log_filter: "off".to_owned(),
            ..TelemetryConfig::default()
        };
        let (telemetry, dispatch, captured) = capture(&config).unwrap();
        let guard = dispatcher::set_default(&dispatch);
        let service = telemetry.service("build-svc").unwrap();
        let probe = Probe::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder()
            .layer(TraceServerLayer::new(&service))
            .add_service(TraceServiceServer::new(probe.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(async move { server.await.unwrap() });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = TraceClientLayer.layer(channel.connect().await.unwrap());
        let rig = Self {
            client: TraceServiceClient::new(channel.clone()),
            channel,
            probe,
            captured,
            dispatch,
            stop,
            server,
        };
        (rig, guard)
    }

    async fn call(&mut self, context: Option<TraceContext>) -> Result<(), Status> {
        let request = Request::new(ExportTraceServiceRequest::default()).with_trace_context(context);
        self.client.export(request).await.map(drop)
    }

    fn seen(&self) -> Seen {
        *self.probe.seen.lock().unwrap().last().unwrap()
    }

    /// Once this many spans have ended.
    async fn ended(&self, count: usize) -> Vec<(String, opentelemetry_sdk::trace::SpanData)> {
        let wait = async {
            while self.captured.spans().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the spans did not end");
        self.captured.spans()
    }

    /// After the server has finished with every call.
    async fn spans(self) -> Vec<(String, opentelemetry_sdk::trace::SpanData)> {
        drop((self.client, self.channel));
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        drop(self.dispatch);
        self.captured.spans()
    }
}

fn release() -> TraceContext {
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        .parse()
        .unwrap()
}

fn text(span: &opentelemetry_sdk::trace::SpanData, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)?;
    Some(found.value.to_string())
}

#[tokio::test]
async fn a_given_context_reaches_the_handler_and_parents_the_server_span() {
    let (mut rig, _guard) = Rig::start().await;
    rig.call(Some(release())).await.unwrap();
    let seen = rig.seen();
    assert_eq!(seen.given, Some(release()));
    let spans = rig.spans().await;
    assert_eq!(spans.len(), 1);
    let (service, span) = &spans[0];
    assert_eq!(service, "build-svc");
    assert_eq!(span.name, METHOD);
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.span_context.trace_id().to_bytes(), release().trace_id.0);
    assert_eq!(span.parent_span_id.to_bytes(), release().span_id.0);
    assert!(span.parent_span_is_remote);
    assert_eq!(text(span, "rpc.system.name").as_deref(), Some("grpc"));
    assert_eq!(text(span, "rpc.method").as_deref(), Some(METHOD));
    assert_eq!(text(span, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(text(span, "error.type"), None);
    assert_eq!(span.status, SpanStatus::Unset);
    // What the handler does is below the server's span.
    let current = seen.current.unwrap();
    assert_eq!(current.trace_id, release().trace_id);
    assert_eq!(current.span_id.0, span.span_context.span_id().to_bytes());
}

#[tokio::test]
async fn the_current_span_is_sent_when_none_is_given() {
    let (mut rig, _guard) = Rig::start().await;
    let span = info_span!("caller");
    let context = {
        use tracing::Instrument;
        let call = async {
            let context = current_trace_context().unwrap();
            rig.call(None).await.unwrap();
            context
        };
        call.instrument(span).await
    };
    assert_eq!(rig.seen().given, Some(context));
    // A given one wins over the current span.
    let span = info_span!("other");
    {
        use tracing::Instrument;
        rig.call(Some(release())).instrument(span).await.unwrap();
    }
    assert_eq!(rig.seen().given, Some(release()));
}

#[tokio::test]
async fn a_call_without_or_with_a_malformed_context_begins_a_trace() {
    let (mut rig, _guard) = Rig::start().await;
    rig.call(None).await.unwrap();
    let first = rig.seen();
    assert!(first.given.is_some());
    assert_eq!(first.given, first.current);

    let mut request = Request::new(ExportTraceServiceRequest::default());
    request
        .metadata_mut()
        .insert("traceparent", "00-nonsense-01".parse().unwrap());
    rig.client.export(request).await.unwrap();
    let second = rig.seen();
    assert_eq!(second.given, second.current);
    assert_ne!(first.given.unwrap().trace_id, second.given.unwrap().trace_id);
    assert_eq!(rig.spans().await.len(), 2);
}

#[tokio::test]
async fn the_status_decides_whose_error_it_is() {
    let (mut rig, _guard) = Rig::start().await;
    let statuses = [
        (Code::NotFound, "NOT_FOUND", false),
        (Code::FailedPrecondition, "FAILED_PRECONDITION", false),
        (Code::Internal, "INTERNAL", true),
        (Code::Unavailable, "UNAVAILABLE", true),
    ];
    for (count, (code, name, ours)) in (1..).zip(statuses) {
        *rig.probe.answer.lock().unwrap() = Some(Status::new(code, "told so"));
        assert_eq!(rig.call(None).await.unwrap_err().code(), code);
        // The span ends once the answer is sent, which the client may see first.
        let spans = rig.ended(count).await;
        let (_, span) = spans.last().unwrap();
        assert_eq!(text(span, "rpc.response.status_code").as_deref(), Some(name));
        assert_eq!(matches!(span.status, SpanStatus::Error { .. }), ours, "{name}");
        assert_eq!(text(span, "error.type").is_some(), ours, "{name}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_seen() {
    let (mut rig, _guard) = Rig::start().await;
    let mut grpc = tonic::client::Grpc::new(rig.channel.clone());
    grpc.ready().await.unwrap();
    let path = "/slipway.nothing.v1.Nothing/Do".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
    let error = grpc
        .unary(Request::new(ExportTraceServiceRequest::default()), path, codec)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    rig.call(None).await.unwrap();
    drop(grpc);
    let spans = rig.spans().await;
    assert_eq!(
        text(&spans[0].1, "rpc.response.status_code").as_deref(),
        Some("UNIMPLEMENTED")
    );
}
