//! Logs, traces and metrics of Slipway's services: OpenTelemetry over OTLP/gRPC, JSON logs, trace context in gRPC.
//!
//! A process has **one** subscriber ([`init`]) and any number of [`Service`] handles, since `slipway dev` runs four
//! services in one process. Each handle has its own OpenTelemetry resource (`service.name`), queue and meter; all share
//! one connection to the collector. The OpenTelemetry context carries which service a live span belongs to:
//! [`TraceServerLayer`] and [`Service::in_scope`] put it there, children inherit it, and spans without it belong to the
//! process's own service. Nothing else here is global.
//!
//! Two kinds of span are exported:
//! * **live** spans, made with the `tracing` macros, which are lost when the process dies before they end;
//! * **step** spans with given ids and times ([`StepSpans`]), which deploy-svc derives from the ledger. Exporting one
//!   twice sends the same ids, so collectors store it once.
//!
//! Without an endpoint nothing is exported, and spans cost next to nothing; trace context is still propagated.

mod context;
mod logs;
mod metrics;
pub mod names;
mod pipeline;
mod rpc;
mod spans;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use context::{WithTraceContext, current_trace_context, set_parent};
pub use logs::LogFormat;
pub use metrics::{Metrics, RunResult, WaitKind};
use opentelemetry::{Context, context::FutureExt as _, trace::TracerProvider as _};
pub use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_otlp::{ExporterBuildError, RetryPolicy, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
pub use pipeline::{Capture, ExportError};
use pipeline::{Router, Sink};
pub use rpc::{TraceClient, TraceClientLayer, TraceServer, TraceServerLayer};
use serde::Deserialize;
use slipway_model::TraceContext;
pub use spans::{SpanRecord, StepSpans};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, filter::FilterFn, layer::SubscriberExt, registry::Registry, util::SubscriberInitExt,
};

/// To connect to the collector, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a process says about itself, and where it sends it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `service.name` of everything that is not in the scope of a [`Service`]: the service's own name, or the process's
    /// when it runs several.
    pub service_name: String,
    /// Where the collector listens for OTLP over gRPC, such as `http://127.0.0.1:4317`; https uses the system's
    /// roots. Without it nothing is exported. Headers come from `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otlp_endpoint: Option<String>,
    /// How log lines on standard error look.
    pub log_format: LogFormat,
    /// Which log lines, such as `info` or `info,slipway_ledger=debug` (tracing-subscriber's `EnvFilter`).
    pub log_filter: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: "slipway".to_owned(),
            otlp_endpoint: None,
            log_format: LogFormat::default(),
            log_filter: "info".to_owned(),
        }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log_filter {filter:?} is not valid: {reason}: write levels and targets, such as info,slipway_ledger=debug"
    )]
    LogFilter { filter: String, reason: String },
    #[error("otlp_endpoint {endpoint:?} is not valid: {reason}: write http://host:port or https://host:port")]
    Endpoint { endpoint: String, reason: String },
    #[error("otlp_endpoint is set, and telemetry was set up outside of a tokio runtime: call it inside one")]
    NoRuntime,
    #[error("otlp exporter: {0}")]
    Exporter(#[from] ExporterBuildError),
    #[error("telemetry is set up twice in this process: call init once and share the handle")]
    Twice,
}

/// Sets up the process: call it once, inside the runtime, and keep the handle for [`Telemetry::shutdown`].
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let (telemetry, dispatch) = build(config)?;
    dispatch.try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(telemetry)
}

/// As [`init`], without installing the subscriber for the process: for tests, with `tracing::dispatcher::set_default`.
pub fn build(config: &TelemetryConfig) -> Result<(Telemetry, Dispatch), TelemetryError> {
    let exporting = match &config.otlp_endpoint {
        Some(endpoint) => Exporting::Otlp(channel(endpoint)?),
        None => Exporting::Off,
    };
    assemble(config, exporting)
}

/// As [`build`], keeping spans in memory instead of exporting them.
pub fn capture(config: &TelemetryConfig) -> Result<(Telemetry, Dispatch, Capture), TelemetryError> {
    let captured = Capture::default();
    let (telemetry, dispatch) = assemble(config, Exporting::Memory(captured.clone()))?;
    Ok((telemetry, dispatch, captured))
}

fn assemble(config: &TelemetryConfig, exporting: Exporting) -> Result<(Telemetry, Dispatch), TelemetryError> {
    let filter =
        EnvFilter::builder()
            .parse(&config.log_filter)
            .map_err(|error| TelemetryError::LogFilter {
                filter: config.log_filter.clone(),
                reason: error.to_string(),
            })?;
    let router = Router::default();
    let sampler = match exporting {
        Exporting::Off => Sampler::AlwaysOff,
        _ => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
    };
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_span_processor(router.clone())
        .with_resource(Resource::builder_empty().build())
        .build();
    let telemetry = Telemetry {
        inner: Arc::new(Inner {
            service_name: config.service_name.clone(),
            exporting,
            router,
            services: Mutex::default(),
        }),
    };
    // So that spans outside every scope have somewhere to go.
    telemetry.service(&config.service_name)?;

    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("slipway"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(FilterFn::new(|metadata| {
            metadata.is_span() && *metadata.level() <= LevelFilter::INFO && is_ours(metadata.target())
        }));
    let subscriber = Registry::default()
        .with(spans)
        .with(logs::layer(config.log_format, &config.service_name).with_filter(filter));
    Ok((telemetry, Dispatch::new(subscriber)))
}

/// Spans of libraries are not exported: HTTP/2 frames and the exporter's own calls would drown the rest.
fn is_ours(target: &str) -> bool {
    const LIBRARIES: [&str; 9] = [
        "h2",
        "hyper",
        "hyper_util",
        "tonic",
        "tower",
        "opentelemetry",
        "redis",
        "sqlx",
        "kube_client",
    ];
    let root = target.split("::").next().unwrap_or(target);
    !LIBRARIES.contains(&root)
}

fn channel(endpoint: &str) -> Result<Channel, TelemetryError> {
    let invalid = |reason: String| TelemetryError::Endpoint {
        endpoint: endpoint.to_owned(),
        reason,
    };
    // The channel's tasks need a runtime.
    tokio::runtime::Handle::try_current().map_err(|_| TelemetryError::NoRuntime)?;
    let parsed = Endpoint::from_shared(endpoint.to_owned()).map_err(|error| invalid(error.to_string()))?;
    let parsed = match parsed.uri().scheme_str() {
        Some("http") => parsed,
        Some("https") => parsed
            .tls_config(ClientTlsConfig::new().with_enabled_roots())
            .map_err(|error| invalid(error.to_string()))?,
        _ => return Err(invalid("the scheme is missing or not http(s)".to_owned())),
    };
    Ok(parsed
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXPORT_TIMEOUT)
        .connect_lazy())
}

/// Where telemetry goes.
#[derive(Debug, Clone)]
enum Exporting {
    Off,
    Otlp(Channel),
    Memory(Capture),
}

/// The process's telemetry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    service_name: String,
    exporting: Exporting,
    router: Router,
    services: Mutex<HashMap<String, Service>>,
}

impl Telemetry {
    /// Telemetry that goes nowhere, without a subscriber: for tests of other things.
    pub fn disabled() -> Self {
        Self {
            inner: Arc::new(Inner {
                service_name: "slipway".to_owned(),
                exporting: Exporting::Off,
                router: Router::default(),
                services: Mutex::default(),
            }),
        }
    }

    /// The handle of a service of this process; the same one for the same name.
    ///
    /// # Errors
    /// When the exporter's settings in the environment (`OTEL_EXPORTER_OTLP_…`) are not valid.
    pub fn service(&self, name: &str) -> Result<Service, TelemetryError> {
        let mut services = self.inner.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(name) {
            return Ok(service.clone());
        }
        // Takes attributes from OTEL_RESOURCE_ATTRIBUTES too.
        let resource = Resource::builder()
            .with_service_name(name.to_owned())
            .with_attributes([
                KeyValue::new(names::SERVICE_NAMESPACE, "slipway"),
                KeyValue::new(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let (sink, metrics) = match &self.inner.exporting {
            Exporting::Off => (Sink::Off, Metrics::disabled()),
            Exporting::Memory(capture) => (
                Sink::Memory(name.to_owned(), capture.clone()),
                Metrics::disabled(),
            ),
            Exporting::Otlp(channel) => {
                let exporter = || {
                    opentelemetry_otlp::SpanExporter::builder()
                        .with_tonic()
                        .with_channel(channel.clone())
                        // The pipeline retries itself, for longer.
                        .with_retry_policy(RetryPolicy::disabled())
                        .build()
                };
                let sink = Sink::exporting(name, &resource, exporter()?, exporter()?);
                let metrics = opentelemetry_otlp::MetricExporter::builder()
                    .with_tonic()
                    .with_channel(channel.clone())
                    .build()?;
                (sink, Metrics::exporting(metrics, resource))
            }
        };
        let default = name == self.inner.service_name;
        self.inner.router.add(name, sink.clone(), default);
        let service = Service {
            name: name.into(),
            sink,
            metrics,
        };
        services.insert(name.to_owned(), service.clone());
        Ok(service)
    }

    /// Sends what is queued: spans, then metrics. Waits at most `timeout` for each service.
    pub async fn flush(&self, timeout: Duration) -> Result<(), ExportError> {
        let services: Vec<Service> = {
            let services = self.inner.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.values().cloned().collect()
        };
        let flushes = services.iter().map(|service| async move {
            service.sink.flush(timeout).await?;
            service.metrics.flush(timeout).await
        });
        futures::future::try_join_all(flushes).await.map(drop)
    }

    /// As [`Telemetry::flush`], as the last thing a process does. What cannot be sent is lost, and logged.
    pub async fn shutdown(&self, timeout: Duration) {
        if let Err(error) = self.flush(timeout).await {
            tracing::warn!(%error, "telemetry is lost at shutdown");
        }
    }
}

/// Which service a span belongs to, as carried in the OpenTelemetry context.
#[derive(Debug, Clone)]
struct ServiceScope(Arc<str>);

/// The telemetry of one service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    name: Arc<str>,
    sink: Sink,
    metrics: Metrics,
}

impl Service {
    /// A service whose telemetry goes nowhere.
    pub fn disabled(name: &str) -> Self {
        Self {
            name: name.into(),
            sink: Sink::Off,
            metrics: Metrics::disabled(),
        }
    }

    /// `service.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For spans with given ids and times.
    pub fn step_spans(&self) -> StepSpans {
        StepSpans::new(self.sink.clone())
    }

    /// The instruments of this service.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Runs a future so that spans begun in it without a parent, and all below them, belong to this service. Does not
    /// reach into tasks that the future spawns; wrap those too.
    pub fn in_scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        future.with_context(self.context(None))
    }

    /// Makes a span that was not entered yet belong to this service, as a child of `parent` if there is one.
    pub fn adopt(&self, span: &tracing::Span, parent: Option<TraceContext>) {
        set_parent(span, self.context(parent));
    }

    /// The context of this service under a remote parent.
    pub(crate) fn context(&self, parent: Option<TraceContext>) -> Context {
        let context = Context::new().with_value(ServiceScope(Arc::clone(&self.name)));
        context::with_remote_parent(context, parent)
    }
}
