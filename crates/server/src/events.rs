//! Publishes a service's events: to the bus, and to callers of `StreamEvents`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{Stream, StreamExt, stream};
use slipway_events::{Bus, Envelope, EnvelopeError, type_name};
use slipway_ledger::{FeedFilter, FeedItem, Ledger, Sink, SinkError, StoredEvent};
use slipway_proto::common::v1 as proto;
use tonic::Status;

use crate::{Action, ApiError, Caller, convert};

/// A stream without events sends a heartbeat this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Publishes the ledger's events to the bus, from one replica at a time. The bus may be unreachable: what it misses
/// comes later.
pub(crate) fn bus_sink(ledger: &Ledger, bus: Arc<dyn Bus>) -> Arc<dyn Sink> {
    Arc::new(BusSink {
        bus,
        origin: ledger.origin().to_owned(),
    })
}

struct BusSink {
    bus: Arc<dyn Bus>,
    origin: String,
}

#[async_trait]
impl Sink for BusSink {
    async fn publish(&self, batch: &[StoredEvent]) -> Result<String, SinkError> {
        let mut envelopes = Vec::with_capacity(batch.len());
        for event in batch {
            match envelope(&self.origin, event) {
                Ok(envelope) => envelopes.push(envelope),
                // It will never become valid, and must not block those behind it.
                Err(error) => {
                    let StoredEvent { kind, id, seq, .. } = event;
                    tracing::error!(%error, kind, %id, seq, "an event cannot be published");
                }
            }
        }
        self.bus.publish(&envelopes).await.map_err(SinkError::new)
    }

    async fn last_entry(&self) -> Result<Option<String>, SinkError> {
        self.bus.last_entry(&self.origin).await.map_err(SinkError::new)
    }
}

/// An event of the ledger as it goes over the bus.
///
/// # Errors
/// Names the attribute that CloudEvents does not allow.
pub fn envelope(origin: &str, event: &StoredEvent) -> Result<Envelope, EnvelopeError> {
    Envelope::builder(origin, &event.kind, event.id.clone(), event.seq)
        .event_type(&event.event_type)
        .time(event.at)
        .traceparent(event.traceparent)
        .correlation(&event.correlation)
        .service(&event.service)
        .environment(&event.environment)
        .data(&event.data)
        .build()
}

/// An event as `StreamEvents` shows it.
pub fn event(origin: &str, item: &FeedItem) -> proto::Event {
    let FeedItem { cursor, event } = item;
    proto::Event {
        cursor: cursor.clone(),
        id: format!("{}/{}/{}", event.kind, event.id, event.seq),
        source: format!("/slipway/{origin}"),
        r#type: type_name(&event.kind, &event.event_type),
        subject: format!("{}/{}", event.kind, event.id),
        time: Some(convert::timestamp(event.at)),
        sequence: event.seq,
        traceparent: event
            .traceparent
            .map(|trace| trace.to_string())
            .unwrap_or_default(),
        correlation_id: event.correlation.clone(),
        service: event.service.clone(),
        environment: event.environment.clone(),
        data: event.data.clone(),
    }
}

/// The events after `cursor`, then each new one; `None` is a heartbeat, every 5 s without an event. An empty
/// correlation id and an empty list of kinds mean all. Shows everything: only for callers that may read everything; for
/// others see [`stream_events_to`].
///
/// # Errors
/// A cursor that is not one of this service's.
pub fn stream_events(
    ledger: &Ledger,
    cursor: &str,
    correlation_id: &str,
    kinds: &[&str],
) -> Result<impl Stream<Item = Result<Option<proto::Event>, Status>> + Send + use<> + 'static, ApiError> {
    stream_where(ledger, cursor, correlation_id, kinds, |_| true)
}

/// As [`stream_events`], showing only what the caller may read.
///
/// # Errors
/// Also when the caller may read nothing at all.
pub fn stream_events_to(
    caller: Caller,
    ledger: &Ledger,
    cursor: &str,
    correlation_id: &str,
    kinds: &[&str],
) -> Result<impl Stream<Item = Result<Option<proto::Event>, Status>> + Send + use<> + 'static, ApiError> {
    caller.require_somewhere(Action::Read)?;
    stream_where(ledger, cursor, correlation_id, kinds, move |event| {
        caller.may(Action::Read, &event.service, &event.environment)
    })
}

fn stream_where<F>(
    ledger: &Ledger,
    cursor: &str,
    correlation_id: &str,
    kinds: &[&str],
    shows: F,
) -> Result<impl Stream<Item = Result<Option<proto::Event>, Status>> + Send + use<F> + 'static, ApiError>
where
    F: Fn(&StoredEvent) -> bool + Send + 'static,
{
    let filter = FeedFilter {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        correlation: Some(convert::key("correlation_id", correlation_id)?).filter(|id| !id.is_empty()),
        ..FeedFilter::default()
    };
    let feed = Box::pin(ledger.feed(cursor, filter)?);
    let origin = ledger.origin().to_owned();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    heartbeat.reset();
    let start = Some((feed, heartbeat, shows));
    Ok(stream::unfold(start, move |streaming| {
        let origin = origin.clone();
        async move {
            let (mut feed, mut heartbeat, shows) = streaming?;
            loop {
                tokio::select! {
                    biased;
                    item = feed.next() => match item? {
                        Ok(item) if !shows(&item.event) => {}
                        Ok(item) => {
                            heartbeat.reset();
                            return Some((Ok(Some(event(&origin, &item))), Some((feed, heartbeat, shows))));
                        }
                        Err(error) => return Some((Err(ApiError::from(error).into()), None)),
                    },
                    _ = heartbeat.tick() => return Some((Ok(None), Some((feed, heartbeat, shows)))),
                }
            }
        }
    }))
}
