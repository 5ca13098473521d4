//! Runs handlers: one at a time per aggregate in the order given, many aggregates at once, a bounded number in all.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use slipway_model::Fault;
use tokio::task::JoinSet;

use crate::{BusConfig, Envelope, Handler};

/// An event to handle, with the key by which its bus knows it.
pub(crate) struct Delivery<R> {
    pub(crate) reference: R,
    pub(crate) envelope: Arc<Envelope>,
}

/// The outcome.
pub(crate) struct Outcome<R> {
    pub(crate) reference: R,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) result: Result<(), Fault<String>>,
}

pub(crate) struct Dispatcher<R> {
    handler: Arc<dyn Handler>,
    concurrency: usize,
    buffer: usize,
    timeout: Duration,
    running: JoinSet<(String, Outcome<R>)>,
    /// By aggregate: what waits behind the event that is running or ready. An aggregate is a key as long as it has
    /// either.
    lanes: HashMap<String, VecDeque<Delivery<R>>>,
    /// Aggregates with nothing running and at least one event waiting, in the order in which they became so.
    ready: VecDeque<String>,
    waiting: usize,
}

impl<R: Send + 'static> Dispatcher<R> {
    pub(crate) fn new(handler: Arc<dyn Handler>, config: &BusConfig) -> Self {
        Self {
            handler,
            concurrency: config.concurrency.max(1),
            buffer: config.buffer.max(1),
            timeout: config.handler_timeout,
            running: JoinSet::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
        }
    }

    /// How many more may be pushed now.
    pub(crate) fn room(&self) -> usize {
        self.buffer.saturating_sub(self.waiting + self.running.len())
    }

    pub(crate) fn push(&mut self, delivery: Delivery<R>) {
        let lane = format!("{}:{}", delivery.envelope.origin(), delivery.envelope.subject());
        self.waiting += 1;
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.push_back(delivery);
        } else {
            self.lanes.insert(lane.clone(), VecDeque::from([delivery]));
            self.ready.push_back(lane);
        }
        self.start();
    }

    /// The next outcome; `None` when nothing runs. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Outcome<R>> {
        loop {
            // A task ends with an error only when it was aborted: panics are turned into outcomes.
            let (lane, outcome) = match self.running.join_next().await? {
                Ok(done) => done,
                Err(_) => continue,
            };
            match self.lanes.get(&lane) {
                Some(queue) if !queue.is_empty() => self.ready.push_back(lane),
                _ => {
                    self.lanes.remove(&lane);
                }
            }
            self.start();
            return Some(outcome);
        }
    }

    /// Drops what has not started; what is running continues.
    pub(crate) fn stop_starting(&mut self) {
        self.ready.clear();
        self.lanes.clear();
        self.waiting = 0;
    }

    fn start(&mut self) {
        while self.running.len() < self.concurrency {
            let Some(lane) = self.ready.pop_front() else {
                return;
            };
            let Some(delivery) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
                continue;
            };
            self.waiting -= 1;
            let (handler, timeout) = (Arc::clone(&self.handler), self.timeout);
            self.running.spawn(async move {
                let Delivery { reference, envelope } = delivery;
                let handled = AssertUnwindSafe(handler.handle(&envelope)).catch_unwind();
                let result = match tokio::time::timeout(timeout, handled).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(panic)) => Err(Fault::transient(format!(
                        "handler panicked: {}",
                        panic_text(panic.as_ref())
                    ))),
                    Err(_) => Err(Fault::transient(format!("handler took longer than {timeout:?}"))),
                };
                let outcome = Outcome {
                    reference,
                    envelope,
                    result,
                };
                (lane, outcome)
            });
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
