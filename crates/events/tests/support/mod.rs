//! What the suites share: events to publish, and handlers that report what they see.

#![allow(dead_code, reason = "each suite uses a part")]

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use slipway_events::{Bus, BusConfig, CancellationToken, Envelope, Handler};
use slipway_model::{Fault, Timestamp};
use slipway_testbed::{eventually, holds, within};
use tokio::{sync::mpsc, task::JoinHandle};

/// Short times, so that claims and retries come soon; the handler's timeout long, so that only its own test sees it.
pub(crate) fn quick() -> BusConfig {
    BusConfig {
        max_deliveries: 3,
        retry_delay: Duration::from_millis(10),
        max_retry_delay: Duration::from_millis(40),
        claim_idle: Duration::from_millis(300),
        handler_timeout: Duration::from_secs(60),
        ..BusConfig::default()
    }
}

pub(crate) fn event(origin: &str, id: &str, seq: u64) -> Envelope {
    Envelope::builder(origin, "build", id.parse().unwrap(), seq)
        .event_type("moved")
        .time(Timestamp::from_micros(1_700_000_000_000_000))
        .correlation("rel-1")
        .data(format!(r#"{{"seq":{seq}}}"#))
        .build()
        .unwrap()
}

pub(crate) fn events(origin: &str, id: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Envelope> {
    seqs.map(|seq| event(origin, id, seq)).collect()
}

/// A handler made of a function.
pub(crate) struct Run<F>(pub(crate) F);

#[async_trait]
impl<F, T> Handler for Run<F>
where
    F: Fn(Envelope) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), Fault<String>>> + Send + 'static,
{
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>> {
        (self.0)(event.clone()).await
    }
}

/// A consumer that runs until it is stopped (in order) or killed (as by `kill -9`, within this process).
pub(crate) struct Running {
    pub(crate) task: JoinHandle<()>,
    pub(crate) shutdown: CancellationToken,
}

impl Running {
    pub(crate) fn start<H: Handler>(bus: &Arc<dyn Bus>, group: &str, consumer: &str, handler: H) -> Self {
        Self::of(bus, &["build"], group, consumer, handler)
    }

    pub(crate) fn of<H: Handler>(
        bus: &Arc<dyn Bus>,
        origins: &[&str],
        group: &str,
        consumer: &str,
        handler: H,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let (bus, token) = (Arc::clone(bus), shutdown.clone());
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let (group, consumer) = (group.to_owned(), consumer.to_owned());
        let task = tokio::spawn(async move {
            let origins: Vec<&str> = origins.iter().map(String::as_str).collect();
            bus.consume(&origins, &group, &consumer, Arc::new(handler), token)
                .await;
        });
        Self { task, shutdown }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within("the consumer ends", self.task).await.unwrap();
    }

    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) struct Seen(mpsc::UnboundedReceiver<Envelope>);

impl Seen {
    pub(crate) async fn next(&mut self) -> Envelope {
        within("something is handled", self.0.recv())
            .await
            .expect("the handler is gone")
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Envelope> {
        let mut seen = Vec::with_capacity(count);
        while seen.len() < count {
            seen.push(self.next().await);
        }
        seen
    }

    pub(crate) async fn seqs(&mut self, count: usize) -> Vec<u64> {
        self.take(count).await.iter().map(Envelope::seq).collect()
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// A handler that reports each event and says yes.
pub(crate) fn recorder() -> (impl Handler + Clone, Seen) {
    reporting(|_| async { Ok(()) })
}

/// A handler that reports each event before it does as told.
pub(crate) fn reporting<F, T>(then: F) -> (impl Handler + Clone, Seen)
where
    F: Fn(Envelope) -> T + Send + Sync + Clone + 'static,
    T: Future<Output = Result<(), Fault<String>>> + Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let handler = Reporting { sender, then };
    (handler, Seen(receiver))
}

#[derive(Clone)]
struct Reporting<F> {
    sender: mpsc::UnboundedSender<Envelope>,
    then: F,
}

#[async_trait]
impl<F, T> Handler for Reporting<F>
where
    F: Fn(Envelope) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), Fault<String>>> + Send + 'static,
{
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>> {
        let _ = self.sender.send(event.clone());
        (self.then)(event.clone()).await
    }
}

/// Waits until there are this many dead letters.
pub(crate) async fn dead(bus: &Arc<dyn Bus>, count: usize) {
    eventually("letters are dead", async || {
        let dead = bus.dead_letters(10).await.unwrap();
        holds(dead, |dead| dead.len() >= count)
    })
    .await;
}
