//! From finished spans to the collector: one bounded queue per service, retried while the collector is away.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use opentelemetry::{Context, KeyValue, trace::Span as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{info, warn};

use crate::ServiceScope;

/// Spans that wait for the worker; more are dropped, and counted. Together with the next limit, a few MB of memory at
/// most.
const QUEUE: usize = 2048;
/// Spans that the worker holds while the collector is unreachable.
const HELD: usize = 2048;
/// Spans per request.
const BATCH: usize = 512;
/// A span waits at most this long to share a request with others.
const DELAY: Duration = Duration::from_secs(1);
/// After this many failures in a row (about ten minutes) the oldest batch is dropped: it may be that batch that the
/// collector refuses.
const GIVE_UP: u32 = 25;

/// Where `on_start` notes the service for `on_end`; removed before export.
const SCOPE_KEY: &str = "slipway.scope";

/// Why spans were not exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The collector is unreachable or refused.
    #[error("telemetry export: {0}")]
    Failed(String),
    /// The collector did not answer in time.
    #[error("telemetry export: no answer within {0:?}")]
    Timeout(Duration),
    /// The runtime is shutting down.
    #[error("telemetry export: the exporter has ended")]
    Ended,
}

/// Where one service's finished spans go.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Off,
    Memory(String, Capture),
    Otlp(Arc<Otlp>),
}

#[derive(Debug)]
pub(crate) struct Otlp {
    jobs: mpsc::Sender<Job>,
    dropped: Arc<AtomicU64>,
    /// For spans whose sender waits for the collector's response. Exporters must not be called concurrently.
    direct: tokio::sync::Mutex<SpanExporter>,
}

#[derive(Debug)]
enum Job {
    Span(Box<SpanData>),
    Flush(oneshot::Sender<Result<(), ExportError>>),
}

impl Sink {
    /// Two exporters over one connection: one for the queue, one for [`Sink::deliver`]. Needs a runtime.
    pub(crate) fn exporting(
        service: &str,
        resource: &Resource,
        mut queued: SpanExporter,
        mut direct: SpanExporter,
    ) -> Self {
        queued.set_resource(resource);
        direct.set_resource(resource);
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            service: service.to_owned(),
            exporter: queued,
            held: Vec::new(),
            dropped: Arc::clone(&dropped),
            failures: 0,
            delays: delays(),
        };
        tokio::spawn(worker.run(receiver));
        Self::Otlp(Arc::new(Otlp {
            jobs,
            dropped,
            direct: tokio::sync::Mutex::new(direct),
        }))
    }

    pub(crate) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Queues a finished span; drops it when the queue is full.
    pub(crate) fn offer(&self, span: SpanData) {
        match self {
            Self::Off => {}
            Self::Memory(service, capture) => capture.push(service, span),
            Self::Otlp(otlp) => {
                if otlp.jobs.try_send(Job::Span(Box::new(span))).is_err() {
                    otlp.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends spans now and waits for the collector's response.
    pub(crate) async fn deliver(&self, spans: Vec<SpanData>) -> Result<(), ExportError> {
        match self {
            Self::Off => Ok(()),
            Self::Memory(service, capture) => {
                for span in spans {
                    capture.push(service, span);
                }
                Ok(())
            }
            Self::Otlp(otlp) => {
                let exporter = otlp.direct.lock().await;
                for batch in spans.chunks(BATCH) {
                    let exported = exporter.export(batch.to_vec()).await;
                    exported.map_err(|error| ExportError::Failed(error.to_string()))?;
                }
                Ok(())
            }
        }
    }

    /// Sends what is queued and waits for the collector's response.
    pub(crate) async fn flush(&self, timeout: Duration) -> Result<(), ExportError> {
        let Self::Otlp(otlp) = self else { return Ok(()) };
        let flush = async {
            let (done, answer) = oneshot::channel();
            let sent = otlp.jobs.send(Job::Flush(done)).await;
            sent.map_err(|_| ExportError::Ended)?;
            answer.await.unwrap_or(Err(ExportError::Ended))
        };
        tokio::time::timeout(timeout, flush)
            .await
            .unwrap_or(Err(ExportError::Timeout(timeout)))
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(DELAY)
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

struct Worker {
    service: String,
    exporter: SpanExporter,
    /// Oldest first.
    held: Vec<SpanData>,
    dropped: Arc<AtomicU64>,
    /// In a row.
    failures: u32,
    delays: ExponentialBackoff,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next: Option<Instant> = None;
        loop {
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                job = jobs.recv(), if self.held.len() < HELD => match job {
                    Some(Job::Span(span)) => {
                        self.held.push(*span);
                        next.get_or_insert_with(|| Instant::now() + DELAY);
                        if self.failures == 0 && self.held.len() >= BATCH {
                            next = Some(Instant::now());
                        }
                    }
                    Some(Job::Flush(done)) => {
                        // A caller that stopped waiting does not need an answer.
                        let _ = done.send(self.export_all().await);
                        next = self.schedule();
                    }
                    None => {
                        // All handles are gone: one last try.
                        let _ = self.export_all().await;
                        return;
                    }
                },
                () = due => {
                    let _ = self.export_all().await;
                    next = self.schedule();
                }
            }
        }
    }

    fn schedule(&mut self) -> Option<Instant> {
        if self.held.is_empty() {
            return None;
        }
        let delay = self.delays.next().unwrap_or(DELAY);
        Some(Instant::now() + delay)
    }

    async fn export_all(&mut self) -> Result<(), ExportError> {
        while !self.held.is_empty() {
            let count = self.held.len().min(BATCH);
            let result = self.exporter.export(self.held[..count].to_vec()).await;
            match result {
                Ok(()) => {
                    self.held.drain(..count);
                    let dropped = self.dropped.swap(0, Ordering::Relaxed);
                    if dropped > 0 {
                        warn!(
                            service = self.service,
                            dropped, "spans were dropped, since the queue was full"
                        );
                    }
                    if self.failures > 0 {
                        info!(service = self.service, "telemetry collector is back");
                        self.failures = 0;
                        self.delays = delays();
                    }
                }
                Err(error) => {
                    if self.failures == 0 {
                        warn!(service = self.service, %error, "telemetry collector is away, spans wait");
                    }
                    self.failures += 1;
                    if self.failures.is_multiple_of(GIVE_UP) {
                        warn!(service = self.service, dropped = count, %error, "spans are given up");
                        self.held.drain(..count);
                    }
                    return Err(ExportError::Failed(error.to_string()));
                }
            }
        }
        Ok(())
    }
}

/// The one span processor of the process: gives each finished span to the sink of its service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Router {
    sinks: Arc<RwLock<Sinks>>,
}

#[derive(Debug)]
struct Sinks {
    by_service: HashMap<String, Sink>,
    default: Sink,
}

impl Default for Sinks {
    fn default() -> Self {
        Self {
            by_service: HashMap::new(),
            default: Sink::Off,
        }
    }
}

impl Router {
    pub(crate) fn add(&self, service: &str, sink: Sink, default: bool) {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        if default {
            sinks.default = sink.clone();
        }
        sinks.by_service.insert(service.to_owned(), sink);
    }
}

impl SpanProcessor for Router {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        if let Some(ServiceScope(service)) = cx.get::<ServiceScope>() {
            span.set_attribute(KeyValue::new(SCOPE_KEY, Arc::clone(service)));
        }
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let scope = span
            .attributes
            .iter()
            .position(|attribute| attribute.key.as_str() == SCOPE_KEY)
            .map(|index| span.attributes.swap_remove(index).value);
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        let sink = scope
            .and_then(|scope| sinks.by_service.get(scope.as_str().as_ref()))
            .unwrap_or(&sinks.default);
        sink.offer(span);
    }

    /// Nothing: [`crate::Telemetry::flush`] does it, without blocking a thread.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Spans kept in memory, for tests.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    spans: Arc<Mutex<Vec<(String, SpanData)>>>,
}

impl Capture {
    fn push(&self, service: &str, span: SpanData) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.push((service.to_owned(), span));
    }

    /// All spans that have ended so far, each with its service, in the order in which they ended.
    pub fn spans(&self) -> Vec<(String, SpanData)> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
