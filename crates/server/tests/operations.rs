//! What every service offers its operators: work that fails ten times is parked, found, and resumed; on PostgreSQL and
//! on SQLite.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pretty_assertions::assert_eq;
use serde::{Deserialize, Serialize};
use slipway_events::MemoryBus;
use slipway_ledger::{Decider, EffectKey, EffectRun, Effects, Index, Ledger, Meta};
use slipway_model::{Actor, Id, Reason, Timestamp};
use slipway_proto::operations::v1::{
    GetParkedRequest, ListParkedRequest, Parked, ResumeParkedRequest,
    operations_service_client::OperationsServiceClient,
};
use slipway_server::{
    Channel, ClientConfig, Config, ConfigError, ErrorView, Listeners, ServiceHost, ServiceSettings,
    TokenHash, Wiring, config::parse,
};
use slipway_telemetry::Service;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A saw that is to be mended before it saws.
struct Saw;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    service: String,
    environment: String,
    sawn: bool,
}

#[derive(Debug, Clone)]
enum Command {
    Order { service: String, environment: String },
    Sawn,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Ordered { service: String, environment: String },
    Sawn {},
}

impl Decider for Saw {
    const KIND: &'static str = "saw";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Refusal = Infallible;

    fn decide(_: &Id, _: &State, command: Command, _: Timestamp) -> Result<Vec<Event>, Infallible> {
        Ok(vec![match command {
            Command::Order { service, environment } => Event::Ordered { service, environment },
            Command::Sawn => Event::Sawn {},
        }])
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        match event.clone() {
            Event::Ordered { service, environment } => {
                (state.service, state.environment) = (service, environment);
            }
            Event::Sawn {} => state.sawn = true,
        }
    }

    fn effects(_: &Id, state: &State) -> Vec<(EffectKey, ())> {
        let ordered = !state.service.is_empty();
        (ordered && !state.sawn)
            .then(|| (EffectKey::new("saw", 1), ()))
            .into_iter()
            .collect()
    }

    fn index(state: &State) -> Index {
        Index {
            service: state.service.clone(),
            environment: state.environment.clone(),
            correlation: "rel-1".to_owned(),
            ..Index::default()
        }
    }

    fn is_final(state: &State) -> bool {
        state.sawn
    }
}

#[derive(Default)]
struct Hands {
    mended: AtomicBool,
    tries: AtomicUsize,
}

#[async_trait::async_trait]
impl Effects<Saw> for Hands {
    async fn perform(&self, _: EffectRun<Saw>) -> Result<Option<Command>, Reason> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        assert!(self.mended.load(Ordering::SeqCst), "the saw is broken");
        Ok(Some(Command::Sawn))
    }

    fn actor(&self) -> Actor {
        Actor::system("test")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl ServiceSettings for Nothing {
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

struct Hosted {
    url: String,
    ledger: Ledger,
    hands: Arc<Hands>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Hosted {
    async fn start(database: &str) -> Self {
        let role = |actions: &str, scope: &str| format!("{{actions: [{actions}]{scope}}}");
        let mut text =
            format!("database: {{url: '{database}'}}\nserver:\n  listen: 127.0.0.1:0\n  principals:\n");
        for (subject, roles) in [
            ("operator", role("read, operate", "")),
            ("reader", role("read", "")),
            (
                "shop",
                role("read, operate", ", services: ['shop'], environments: ['dev']"),
            ),
            ("starter", role("start", "")),
        ] {
            let hash = String::from(TokenHash::of(subject));
            text += &format!("  - {{subject: {subject}, token_sha256: {hash}, roles: [{roles}]}}\n");
        }
        let config: Config<Nothing> = parse("x.yaml", &text).unwrap();
        let listeners = Listeners::bind(&config.server).await.unwrap();
        let url = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let bus = Arc::new(MemoryBus::new(slipway_events::BusConfig::default()));
        let wiring = Wiring::new(listeners, bus, Service::disabled("x-svc"));
        let shutdown = CancellationToken::new();
        let mut host = ServiceHost::open("x-svc", &config, wiring, shutdown.clone())
            .await
            .unwrap();
        let hands = Arc::new(Hands::default());
        let registered = Arc::clone(&hands);
        // Ten tries, as in every service, but without the pauses between them.
        host.execute(|executor| {
            executor
                .backoff(Duration::from_millis(5), Duration::from_millis(10))
                .register::<Saw>(registered)
        });
        let ledger = host.ledger().clone();
        let task = tokio::spawn(async move { host.serve().await.unwrap() });
        Self {
            url,
            ledger,
            hands,
            shutdown,
            task,
        }
    }

    fn client(&self, who: &str) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(ClientConfig::new(&self.url, who).connect("x").unwrap())
    }

    async fn order(&self, id: &str, service: &str, environment: &str) {
        let command = || Command::Order {
            service: service.to_owned(),
            environment: environment.to_owned(),
        };
        let meta = Meta::from(Actor::system("test"));
        self.ledger
            .execute::<Saw>(&id.parse().unwrap(), command, &meta)
            .await
            .unwrap();
    }

    async fn list(&self, who: &str, request: ListParkedRequest) -> Vec<Parked> {
        self.client(who)
            .list_parked(request)
            .await
            .unwrap()
            .into_inner()
            .parked
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn resume(id: &str) -> ResumeParkedRequest {
    ResumeParkedRequest {
        kind: "saw".to_owned(),
        id: id.to_owned(),
    }
}

fn get(kind: &str, id: &str) -> GetParkedRequest {
    GetParkedRequest {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn parked_listed_shown_and_resumed(database: &str) {
    let hosted = Hosted::start(database).await;
    hosted.order("saw-1", "shop", "dev").await;
    eventually("it is parked", async || {
        !hosted
            .list("reader", ListParkedRequest::default())
            .await
            .is_empty()
    })
    .await;
    assert_eq!(hosted.hands.tries.load(Ordering::SeqCst), 10);
    let list = hosted.list("reader", ListParkedRequest::default()).await;
    let [listed] = &list[..] else {
        panic!("{list:?}");
    };
    let names = [&listed.kind, &listed.id, &listed.service, &listed.environment];
    assert_eq!(names, ["saw", "saw-1", "shop", "dev"]);
    assert_eq!((listed.correlation_id.as_str(), listed.attempts), ("rel-1", 10));
    assert_eq!(listed.state, "", "lists are without");
    let error = listed.error.clone().unwrap();
    assert_eq!(error.code, "PANICKED");
    assert!(error.message.contains("the saw is broken"), "{error:?}");

    let shown = hosted.client("reader").get_parked(get("saw", "saw-1")).await;
    let shown = shown.unwrap().into_inner().parked.unwrap();
    let state: serde_json::Value = serde_json::from_str(&shown.state).unwrap();
    assert_eq!(
        state,
        serde_json::json!({"service": "shop", "environment": "dev", "sawn": false})
    );
    assert_eq!(
        Parked {
            state: String::new(),
            ..shown
        },
        *listed
    );

    hosted.hands.mended.store(true, Ordering::SeqCst);
    let resumed = hosted.client("operator").resume_parked(resume("saw-1")).await;
    assert_eq!(resumed.unwrap().into_inner().parked.unwrap().error, Some(error));
    let id: Id = "saw-1".parse().unwrap();
    eventually("it is sawn", async || {
        let saw = hosted.ledger.get::<Saw>(&id).await.unwrap().unwrap();
        saw.state.sawn && saw.parked.is_none()
    })
    .await;
    assert!(
        hosted
            .list("reader", ListParkedRequest::default())
            .await
            .is_empty()
    );
    let again = hosted.client("operator").resume_parked(resume("saw-1")).await;
    let again = ErrorView::of(&again.unwrap_err());
    assert_eq!(
        (again.code, again.reason.as_str()),
        (Code::FailedPrecondition, "NOT_PARKED")
    );
    let shown = hosted.client("reader").get_parked(get("saw", "saw-1")).await;
    assert_eq!(ErrorView::of(&shown.unwrap_err()).reason, "NOT_PARKED");
    hosted.end().await;
}

#[tokio::test]
async fn what_fails_ten_times_is_parked_listed_shown_and_resumed_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/x.db", folder.path().display());
    parked_listed_shown_and_resumed(&database).await;
}

#[tokio::test]
async fn what_fails_ten_times_is_parked_listed_shown_and_resumed_on_postgresql() {
    let postgres = slipway_testbed::postgres().await.unwrap();
    parked_listed_shown_and_resumed(&postgres.create_database().await.unwrap()).await;
}

#[tokio::test]
async fn roles_cover_what_is_seen_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let hosted = Hosted::start(&format!("sqlite://{}/x.db", folder.path().display())).await;
    for (id, service, environment) in [
        ("saw-1", "shop", "dev"),
        ("saw-2", "shop", "prod"),
        ("saw-3", "cart", "dev"),
        ("saw-4", "cart", ""),
    ] {
        hosted.order(id, service, environment).await;
    }
    let names = async |who: &str, request: ListParkedRequest| {
        let list = hosted.list(who, request).await;
        let mut names: Vec<String> = list.into_iter().map(|one| one.id).collect();
        names.sort();
        names
    };
    let all = ListParkedRequest::default;
    eventually("all are parked", async || {
        names("operator", all()).await.len() == 4
    })
    .await;
    assert_eq!(names("reader", all()).await, ["saw-1", "saw-2", "saw-3", "saw-4"]);
    assert_eq!(names("shop", all()).await, ["saw-1"], "only what its role covers");
    let of_kind = |kind: &str| ListParkedRequest {
        kind: kind.to_owned(),
        ..all()
    };
    assert_eq!(names("reader", of_kind("saw")).await.len(), 4);
    assert!(names("reader", of_kind("hammer")).await.is_empty());

    // By pages, of which the caller sees only its own.
    let (mut seen, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListParkedRequest {
            page_size: 1,
            page_token: token,
            ..all()
        };
        let answer = hosted
            .client("shop")
            .list_parked(request)
            .await
            .unwrap()
            .into_inner();
        seen.extend(answer.parked.into_iter().map(|one| one.id));
        pages += 1;
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (vec!["saw-1".to_owned()], 4));

    // What is asked wrongly, what is not there, and what the role does not cover.
    let view = |status: tonic::Status| {
        let view = ErrorView::of(&status);
        (view.code, view.reason, view.field)
    };
    let told = |code, reason: &str, field: &str| (code, reason.to_owned(), field.to_owned());
    let invalid = |field| told(Code::InvalidArgument, "INVALID_FIELD", field);
    let denied = told(Code::PermissionDenied, "PERMISSION_DENIED", "");
    let absent = told(Code::NotFound, "NOT_FOUND", "");
    let list = async |who: &str, request| view(hosted.client(who).list_parked(request).await.unwrap_err());
    assert_eq!(list("starter", all()).await, denied);
    assert_eq!(list("reader", of_kind("No Kind")).await, invalid("kind"));
    let bad_page = ListParkedRequest {
        page_token: "x".to_owned(),
        ..all()
    };
    assert_eq!(list("reader", bad_page).await, invalid("page_token"));
    let shown = async |who: &str, request| view(hosted.client(who).get_parked(request).await.unwrap_err());
    assert_eq!(shown("reader", get("saw", "saw-9")).await, absent);
    assert_eq!(shown("reader", get("hammer", "saw-1")).await, absent);
    assert_eq!(shown("reader", get("saw", "")).await, invalid("id"));
    assert_eq!(shown("reader", get("", "saw-1")).await, invalid("kind"));
    assert_eq!(shown("shop", get("saw", "saw-2")).await, denied);
    let resumed = async |who: &str, id| view(hosted.client(who).resume_parked(resume(id)).await.unwrap_err());
    assert_eq!(
        resumed("reader", "saw-1").await,
        denied,
        "to read is not to operate"
    );
    assert_eq!(resumed("shop", "saw-2").await, denied);
    assert_eq!(resumed("operator", "saw-9").await, absent);

    hosted.hands.mended.store(true, Ordering::SeqCst);
    hosted
        .client("shop")
        .resume_parked(resume("saw-1"))
        .await
        .unwrap();
    eventually("one is sawn", async || names("reader", all()).await.len() == 3).await;
    hosted.end().await;
}
