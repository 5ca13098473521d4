//! The databases, and a decider whose states and events are defined by the test.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use slipway_ledger::{
    Decider, EffectKey, EffectRun, Effects, Executor, ExecutorBuilder, ExecutorHandle, Index, Ledger,
    LedgerConfig, Meta,
};
use slipway_model::{Actor, Authentication, Id, Principal, Reason, Timestamp};
use slipway_testbed::within;
use tokio_util::sync::CancellationToken;

/// One empty database.
pub(crate) struct Database {
    pub(crate) url: String,
    _dir: Option<tempfile::TempDir>,
}

impl Database {
    pub(crate) async fn postgres() -> Self {
        let url = slipway_testbed::postgres()
            .await
            .unwrap()
            .create_database()
            .await
            .unwrap();
        Self { url, _dir: None }
    }

    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite://{}/ledger.db", dir.path().display()),
            _dir: Some(dir),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// One replica.
    pub(crate) async fn open(&self) -> Ledger {
        Ledger::open(self.config()).await.unwrap()
    }

    pub(crate) fn config(&self) -> LedgerConfig {
        LedgerConfig::new(&self.url).origin("test").max_connections(4)
    }

    /// Changes rows behind the ledger's back.
    pub(crate) async fn meddle(&self, sql: &'static str) {
        use sqlx::Connection as _;
        if self.is_postgres() {
            let mut conn = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut conn).await.unwrap();
        } else {
            let mut conn = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut conn).await.unwrap();
        }
    }
}

impl Database {
    /// A number that is asked for behind the ledger's back.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        use sqlx::Connection as _;
        if self.is_postgres() {
            let mut conn = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
        } else {
            let mut conn = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
        }
    }
}

/// Something with any effects, polls and timers.
pub(crate) struct Job;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) count: i64,
    /// Attempt of each step that must be going on.
    pub(crate) steps: BTreeMap<String, u32>,
    pub(crate) finished: Vec<String>,
    pub(crate) polls: bool,
    pub(crate) poll_millis: u64,
    pub(crate) seen: i64,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) woken: u32,
    pub(crate) closed: bool,
    pub(crate) service: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    Added {
        amount: i64,
    },
    Labelled {
        service: String,
        labels: BTreeMap<String, String>,
    },
    Started {
        step: String,
        attempt: u32,
    },
    Stopped {
        step: String,
    },
    Finished {
        step: String,
        attempt: u32,
    },
    Polling {
        millis: u64,
    },
    Seen {
        value: i64,
    },
    Timed {
        at: Timestamp,
    },
    Woken,
    Closed,
}

#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Whatever the state.
    Record(Vec<Event>),
    Add(i64),
    /// Refused below zero.
    Take(i64),
    /// Refused when the count is lower.
    AtLeast(i64),
    /// Changes nothing when that attempt is not the one that is going on.
    Finish(EffectKey),
    /// Changes nothing when it was seen before.
    See(i64),
    Wake,
    Refuse,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

impl slipway_ledger::Refusal for Refusal {
    fn kind(&self) -> slipway_ledger::RefusalKind {
        slipway_ledger::RefusalKind::FailedPrecondition("REFUSED")
    }
}

impl Decider for Job {
    const KIND: &'static str = "job";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Refusal = Refusal;

    fn decide(_id: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let refuse = |why: &str| Err(Refusal(why.to_owned()));
        match command {
            Command::Record(events) => Ok(events),
            Command::Add(amount) => Ok(vec![Event::Added { amount }]),
            Command::Take(amount) if state.count < amount => refuse("not enough"),
            Command::Take(amount) => Ok(vec![Event::Added { amount: -amount }]),
            Command::AtLeast(count) if state.count < count => refuse("too few"),
            Command::AtLeast(_) => Ok(vec![Event::Added { amount: 0 }]),
            Command::Finish(key) if state.steps.get(&key.step) == Some(&key.attempt) => {
                Ok(vec![Event::Finished {
                    step: key.step,
                    attempt: key.attempt,
                }])
            }
            Command::Finish(_) => Ok(vec![]),
            Command::See(value) if value == state.seen => Ok(vec![]),
            Command::See(value) => Ok(vec![Event::Seen { value }]),
            Command::Wake if state.wake_at.is_some_and(|at| at <= now) => Ok(vec![Event::Woken]),
            Command::Wake => Ok(vec![]),
            Command::Refuse => refuse("no"),
        }
    }

    fn evolve(state: &mut State, event: &Event, _at: Timestamp) {
        match event.clone() {
            Event::Added { amount } => state.count += amount,
            Event::Labelled { service, labels } => (state.service, state.labels) = (service, labels),
            Event::Started { step, attempt } => drop(state.steps.insert(step, attempt)),
            Event::Stopped { step } => drop(state.steps.remove(&step)),
            Event::Finished { step, attempt } => {
                state.steps.remove(&step);
                state.finished.push(format!("{step}#{attempt}"));
            }
            Event::Polling { millis } => (state.polls, state.poll_millis) = (millis > 0, millis),
            Event::Seen { value } => state.seen = value,
            Event::Timed { at } => state.wake_at = Some(at),
            Event::Woken => {
                state.wake_at = None;
                state.woken += 1;
            }
            Event::Closed => state.closed = true,
        }
    }

    fn effects(_id: &Id, state: &State) -> Vec<(EffectKey, ())> {
        state
            .steps
            .iter()
            .map(|(step, attempt)| (EffectKey::new(step, *attempt), ()))
            .collect()
    }

    fn polls(_id: &Id, state: &State) -> Vec<(EffectKey, ())> {
        if state.polls {
            vec![(EffectKey::new("poll", 0), ())]
        } else {
            vec![]
        }
    }

    fn poll_every(state: &State) -> Duration {
        Duration::from_millis(state.poll_millis)
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        state.wake_at
    }

    fn wake() -> Option<Command> {
        Some(Command::Wake)
    }

    fn index(state: &State) -> Index {
        Index {
            status: if state.closed { "closed" } else { "open" }.to_owned(),
            service: state.service.clone(),
            labels: state.labels.clone(),
            correlation: format!("c-{}", state.service),
            ..Index::default()
        }
    }

    fn is_final(state: &State) -> bool {
        state.closed
    }
}

/// Does what the test says, and counts.
pub(crate) struct Hands {
    pub(crate) runs: Arc<AtomicUsize>,
    act: Box<dyn Fn(EffectRun<Job>) -> BoxFuture<'static, Outcome> + Send + Sync>,
}

type Outcome = Result<Option<Command>, Reason>;

impl Hands {
    pub(crate) fn new<F>(act: impl Fn(EffectRun<Job>) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Option<Command>> + Send + 'static,
    {
        Self::trying(move |run| {
            let done = act(run);
            async move { Ok(done.await) }
        })
    }

    /// Whose outcomes cannot always be had.
    pub(crate) fn trying<F>(act: impl Fn(EffectRun<Job>) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Arc::new(Self {
            runs: Arc::default(),
            act: Box::new(move |run| Box::pin(act(run))),
        })
    }

    /// Finishes every step at once.
    pub(crate) fn quick() -> Arc<Self> {
        Self::new(|run| async move { Some(Command::Finish(run.key)) })
    }

    /// Waits until it is cancelled.
    pub(crate) fn slow() -> Arc<Self> {
        Self::new(|run| async move {
            run.cancelled.cancelled().await;
            None
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Effects<Job> for Hands {
    async fn perform(&self, run: EffectRun<Job>) -> Outcome {
        self.runs.fetch_add(1, Ordering::SeqCst);
        (self.act)(run).await
    }

    fn actor(&self) -> Actor {
        Actor::system("test")
    }
}

/// An executor with short leases and pauses.
pub(crate) fn executor(ledger: &Ledger) -> ExecutorBuilder {
    listen();
    Executor::builder(ledger.clone())
        .lease(Duration::from_secs(3))
        .backoff(Duration::from_millis(20), Duration::from_millis(50))
}

pub(crate) fn start(ledger: &Ledger, hands: &Arc<Hands>) -> (ExecutorHandle, CancellationToken) {
    let stop = CancellationToken::new();
    (
        executor(ledger)
            .register::<Job>(Arc::clone(hands) as _)
            .spawn(stop.clone()),
        stop,
    )
}

/// What is logged as an error, by all tests of this process.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Collects errors, each as its message and fields.
struct Errors;

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR && metadata.is_event()
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Words(String);
        impl tracing::field::Visit for Words {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                let _ = write!(self.0, "{field}={value:?} ");
            }

            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                let _ = write!(self.0, "{field}={value} ");
            }
        }
        let mut words = Words(String::new());
        event.record(&mut words);
        ERRORS.lock().unwrap().push(words.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The errors that are logged about an id, in their order.
pub(crate) fn errors_about(id: &Id) -> Vec<String> {
    let about = format!("id={id} ");
    let errors = ERRORS.lock().unwrap();
    errors
        .iter()
        .filter(|error| error.contains(&about))
        .cloned()
        .collect()
}

/// Collects what is logged from now on.
fn listen() {
    static LISTENS: std::sync::Once = std::sync::Once::new();
    LISTENS.call_once(|| tracing::subscriber::set_global_default(Errors).unwrap());
}

pub(crate) fn id(text: &str) -> Id {
    text.parse().unwrap()
}

pub(crate) fn meta() -> Meta {
    Meta::new(
        Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        None,
    )
}

pub(crate) async fn record(ledger: &Ledger, id: &Id, events: Vec<Event>) {
    ledger
        .execute::<Job>(id, || Command::Record(events.clone()), &meta())
        .await
        .unwrap();
}

pub(crate) fn started(step: &str, attempt: u32) -> Event {
    Event::Started {
        step: step.to_owned(),
        attempt,
    }
}

/// Waits until the state is as wanted, by the watch that users have.
pub(crate) async fn until(ledger: &Ledger, id: &Id, wanted: impl Fn(&State) -> bool) -> State {
    use futures::StreamExt as _;
    let mut states = std::pin::pin!(ledger.watch::<Job>(id, None));
    let wait = async {
        while let Some(snapshot) = states.next().await {
            let state = snapshot.unwrap().state;
            if wanted(&state) {
                return state;
            }
        }
        panic!("the watch ended");
    };
    within("the state comes", wait).await
}
