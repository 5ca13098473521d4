//! The API server: TLS, the token, and which handler answers which path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::request::{Answer, Representation, Request};
use crate::api::route::{ObjectPath, Target};
use crate::faults::Faults;
use crate::kubelet::logs::Logs;
use crate::metrics::{Metrics, Subject};
use crate::status::{ApiError, ApiResult};
use crate::store::Store;

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod discovery;
pub(crate) mod fields;
mod log;
pub(crate) mod patch;
pub(crate) mod prepare;
mod protobuf;
pub(crate) mod proxy;
mod read;
mod request;
mod route;
mod scale;
pub(crate) mod schema;
pub(crate) mod server_side;
mod table;
mod watch;
pub(crate) mod write;

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The text format of Prometheus.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the handlers share.
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) token: String,
    pub(crate) address: SocketAddr,
    pub(crate) http: proxy::HttpClient,
    pub(crate) shutdown: CancellationToken,
    pub(crate) faults: Faults,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `app.shutdown`.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, tls: TlsAcceptor, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection(Arc::clone(&app), stream, tls.clone()));
            }
            Err(error) => {
                // Probably out of file descriptors: wait for some to become free.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(app: Arc<App>, stream: TcpStream, tls: TlsAcceptor) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let shutdown = app.shutdown.clone();
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, std::convert::Infallible>(answer(&app, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = shutdown.cancelled() => {}
        result = connection => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
        }
    }
}

async fn answer(app: &App, incoming: http::Request<Incoming>) -> Answer {
    let (method, path) = (incoming.method().clone(), incoming.uri().path().to_owned());
    let watch = incoming.uri().query().is_some_and(is_watch);
    let target = route::parse(app.store.registry(), &path);
    let subject = subject(&target, &incoming, watch);
    let answer = match dispatch(app, target, watch, incoming).await {
        Ok(answer) => answer,
        Err(error) => refusal(&error),
    };
    app.metrics.answered(&subject, answer.status().as_u16());
    tracing::debug!(%method, path, status = answer.status().as_u16(), "request");
    answer
}

fn refusal(error: &ApiError) -> Answer {
    let mut answer = request::json(error.code, &error.to_status());
    if let Some(seconds) = error.retry_after() {
        let headers = answer.headers_mut();
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn is_watch(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// What the metrics count a request as (`k8s.io/apiserver/pkg/endpoints/metrics`).
fn subject<B>(target: &ApiResult<Target>, request: &http::Request<B>, watch: bool) -> Subject {
    let mut subject = Subject {
        verb: match request.method().as_str() {
            "GET" | "HEAD" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        },
        group: String::new(),
        version: String::new(),
        resource: String::new(),
        subresource: String::new(),
        scope: "",
    };
    let Ok(Target::Object(path)) = target else {
        return subject;
    };
    let named_by_field = || {
        let query = request.uri().query().unwrap_or("");
        query.contains("fieldSelector=metadata.name%3D") || query.contains("fieldSelector=metadata.name=")
    };
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let applies = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    subject.verb = match (subject.verb, path.subresource.as_deref()) {
        (_, Some("proxy" | "log")) => "CONNECT",
        ("GET", _) if watch => "WATCH",
        ("GET", _) if path.name.is_none() => "LIST",
        ("PATCH", _) if applies => "APPLY",
        ("DELETE", _) if path.name.is_none() => "DELETECOLLECTION",
        (verb, _) => verb,
    };
    subject.scope = if path.name.is_some() || named_by_field() {
        "resource"
    } else if path.namespace.is_some() {
        "namespace"
    } else {
        "cluster"
    };
    path.resource.group.clone_into(&mut subject.group);
    path.resource.version.clone_into(&mut subject.version);
    path.resource.plural.clone_into(&mut subject.resource);
    subject.subresource = path.subresource.clone().unwrap_or_default();
    subject
}

fn authorize(app: &App, headers: &HeaderMap) -> ApiResult<()> {
    let given = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let given = given.strip_prefix("Bearer ").unwrap_or("").trim();
    if bool::from(given.as_bytes().ct_eq(app.token.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::unauthorized())
    }
}

async fn dispatch(
    app: &App,
    target: ApiResult<Target>,
    watch: bool,
    incoming: http::Request<Incoming>,
) -> ApiResult<Answer> {
    // Bodies of unauthenticated clients are not even read.
    if !matches!(target, Ok(Target::Health)) {
        authorize(app, incoming.headers())?;
    }
    if !matches!(target, Ok(Target::Metrics)) {
        app.faults.admit(watch).await?;
    }
    let registry = app.store.registry();
    let target = target?;
    let request = Request::read(incoming).await?;
    if let Target::Object(path) = target {
        return object(app, &path, &request).await;
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(ApiError::method_not_allowed("this path is for reading"));
    }
    let missing = || ApiError::unknown_path("the server could not find the requested resource");
    let ok = |value| Ok(request::json(200, &value));
    let aggregated = match request.representation() {
        Representation::Discovery { version } => Some(version),
        _ => None,
    };
    let discovery = |core: bool, version: &str| {
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        Ok(request::body(
            200,
            &kind,
            discovery::aggregated(registry, core, version).to_string().into(),
        ))
    };
    match (target, aggregated) {
        (Target::Health, _) => Ok(request::body(200, "text/plain", "ok".into())),
        (Target::Metrics, _) => Ok(request::body(200, METRICS_TEXT, app.metrics.text().into())),
        (Target::Root, _) => ok(discovery::root(registry)),
        (Target::Version, _) => ok(discovery::version()),
        (Target::Api, Some(version)) => discovery(true, &version),
        (Target::Apis, Some(version)) => discovery(false, &version),
        (Target::Api, None) => ok(discovery::api_versions(&app.address.to_string())),
        (Target::Apis, None) => ok(discovery::api_groups(registry)),
        (Target::Group(group), _) => ok(discovery::api_group(registry, &group).ok_or_else(missing)?),
        (Target::Resources { group, version }, _) => {
            ok(discovery::resource_list(registry, &group, &version).ok_or_else(missing)?)
        }
        (Target::OpenApiIndex, _) => ok(discovery::openapi_index(registry)),
        (Target::OpenApi { group, version }, _) => {
            ok(discovery::openapi(registry, &group, &version).ok_or_else(missing)?)
        }
        (Target::OpenApiV2, _) => Ok(openapi_v2(&request)),
        (Target::Object(_), _) => Err(missing()),
    }
}

/// Old clients request the document as protobuf. An empty body is an empty document: nothing to validate against.
fn openapi_v2(request: &Request) -> Answer {
    let accept = request
        .headers
        .get(http::header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    if accept.contains("protobuf") && !accept.contains("application/json") {
        // Requested with an `@`, which media types must not contain; answered without, as the real server does.
        let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return request::body(200, kind, axum::body::Body::empty());
    }
    request::json(200, &discovery::openapi_v2())
}

async fn object(app: &App, path: &ObjectPath, request: &Request) -> ApiResult<Answer> {
    let refuse =
        || ApiError::method_not_allowed("the server does not allow this method on the requested resource");
    let method = request.method.as_str();
    let Some(name) = path.name.as_deref() else {
        return match method {
            "GET" if request.flag("watch") => watch::watch(app, path, request).await,
            "GET" | "HEAD" => read::list(app, path, request).await,
            "POST" => write::create(app, path, request).await,
            "DELETE" => delete::delete_collection(app, path, request).await,
            _ => Err(refuse()),
        };
    };
    match (path.subresource.as_deref(), method) {
        (None, "GET") if request.flag("watch") => watch::watch(app, path, request).await,
        (None, "GET" | "HEAD") => read::get(app, path, name, request).await,
        (None, "PUT") => write::update(app, path, name, request).await,
        (None, "PATCH") => write::patch(app, path, name, request).await,
        (None, "DELETE") => delete::delete(app, path, name, request).await,
        (Some("status"), method) if path.resource.status => match method {
            "GET" => read::get(app, path, name, request).await,
            "PUT" => write::update(app, path, name, request).await,
            "PATCH" => write::patch(app, path, name, request).await,
            _ => Err(refuse()),
        },
        (Some("scale"), _) if path.resource.scale => scale::scale(app, path, name, request).await,
        (Some("log"), "GET") if path.resource.built_in() == "Pod" => log::log(app, path, name, request).await,
        (Some("proxy"), _) if matches!(path.resource.built_in(), "Pod" | "Service") => {
            proxy::proxy(app, path, name, request).await
        }
        (Some(other), _) => Err(ApiError::unknown_path(format!(
            "the server could not find the requested resource: local-cluster does not serve {}/{other}",
            path.resource.plural
        ))),
        _ => Err(refuse()),
    }
}
