//! `slipway parked …` across services, of which some answer and some do not.

#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    fs,
    path::Path,
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use pretty_assertions::assert_eq;
use serde::{Deserialize, Serialize};
use slipway_events::{BusConfig, MemoryBus};
use slipway_ledger::{Decider, EffectKey, EffectRun, Effects, Index, Ledger, LedgerConfig, Meta, Page};
use slipway_model::{Actor, Id, Reason, Timestamp};
use slipway_server::{Config, ConfigError, ServiceHost, ServiceSettings, TokenHash, Wiring, config::parse};
use tokio_util::sync::CancellationToken;

/// A build that nobody can do.
struct Build;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    ordered: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Ordered {},
}

impl Decider for Build {
    const KIND: &'static str = "build";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = ();
    type Event = Event;
    type Effect = ();
    type Refusal = Infallible;

    fn decide(_: &Id, _: &State, (): (), _: Timestamp) -> Result<Vec<Event>, Infallible> {
        Ok(vec![Event::Ordered {}])
    }

    fn evolve(state: &mut State, _: &Event, _: Timestamp) {
        state.ordered = true;
    }

    fn effects(_: &Id, state: &State) -> Vec<(EffectKey, ())> {
        let effect = (EffectKey::new("image", 1), ());
        state.ordered.then_some(effect).into_iter().collect()
    }

    fn index(_: &State) -> Index {
        Index {
            service: "shop".to_owned(),
            ..Index::default()
        }
    }

    fn is_final(_: &State) -> bool {
        false
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Effects<Build> for Nobody {
    async fn perform(&self, _: EffectRun<Build>) -> Result<Option<()>, Reason> {
        Ok(None)
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

/// A database in which these builds are parked.
async fn parked(url: &str, ids: &[&str]) {
    let ledger = Ledger::open(LedgerConfig::new(url)).await.unwrap();
    let stop = CancellationToken::new();
    let running = slipway_ledger::Executor::builder(ledger.clone())
        .max_claims(1)
        .register::<Build>(Arc::new(Nobody))
        .spawn(stop.clone());
    for id in ids {
        let meta = Meta::from(Actor::system("test"));
        ledger
            .execute::<Build>(&id.parse().unwrap(), || (), &meta)
            .await
            .unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    while ledger.parked(None, &Page::default()).await.unwrap().items.len() < ids.len() {
        assert!(Instant::now() < until, "not parked in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.drain().await;
    ledger.close().await;
}

/// Serves a database, and gives the URL.
async fn serve(name: &'static str, database: &str, stop: CancellationToken) -> String {
    let mut text =
        format!("database: {{url: '{database}'}}\nserver:\n  listen: 127.0.0.1:0\n  principals:\n");
    for (subject, actions) in [("alice", "read, operate"), ("bob", "read")] {
        let hash = String::from(TokenHash::of(subject));
        text +=
            &format!("  - {{subject: {subject}, token_sha256: {hash}, roles: [{{actions: [{actions}]}}]}}\n");
    }
    let config: Config<Nothing> = parse("x.yaml", &text).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let wiring = Wiring::new(
        listener,
        Arc::new(MemoryBus::new(BusConfig::default())),
        slipway_telemetry::Service::disabled(name),
    );
    let host = ServiceHost::open(name, &config, wiring, stop).await.unwrap();
    tokio::spawn(async move { host.serve().await.unwrap() });
    url
}

async fn slipway(folder: &Path, user: &str, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_slipway"))
        .args(["--context", "context.yaml", "--as", user, "parked"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("SLIPWAY_CONTEXT")
        .env_remove("SLIPWAY_USER")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_things_of_all_services_are_listed_shown_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let database = |name: &str| format!("sqlite://{}/{name}.db", path.display());
    parked(&database("build"), &["bld-1", "bld-2"]).await;
    let stop = CancellationToken::new();
    let build = serve("build-svc", &database("build"), stop.clone()).await;
    let gitops = serve("gitops-svc", &database("gitops"), stop.clone()).await;
    for user in ["alice", "bob"] {
        fs::write(path.join(user), user).unwrap();
    }
    // deploy-svc is not there, and the file says nothing of approval-svc.
    let context = |deploy: &str| {
        let yaml = format!(
            "build: {build}\ngitops: {gitops}\ndeploy: \"{deploy}\"\nuser: alice\ntoken_files: {{alice: alice, bob: bob}}\n"
        );
        fs::write(path.join("context.yaml"), yaml).unwrap();
    };
    context("");
    let listed = slipway(path, "bob", &["list"]).await;
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    let table = text(&listed.stdout);
    for word in ["KIND", "build", "bld-1", "bld-2", "shop", "NO_OUTCOME"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert_eq!(text(&listed.stderr), "");

    context("http://127.0.0.1:1");
    let listed = slipway(path, "bob", &["list", "-o", "json"]).await;
    assert_eq!(listed.status.code(), Some(1), "the list is not whole");
    let named = text(&listed.stderr);
    assert!(
        named.contains("deploy-svc") && !named.contains("build-svc"),
        "{named}"
    );
    let json: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let mut ids: Vec<&str> = json["parked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["bld-1", "bld-2"]);
    assert_eq!(json["parked"][0]["error"]["code"], "NO_OUTCOME");
    context("");

    let none = slipway(path, "bob", &["list", "--kind", "change"]).await;
    assert_eq!(
        (none.status.code(), text(&none.stderr).as_str()),
        (Some(0), "nothing is parked\n")
    );
    let one = slipway(path, "bob", &["list", "--limit", "1", "-o", "json"]).await;
    let one: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one["parked"].as_array().unwrap().len(), 1);

    let shown = slipway(path, "bob", &["get", "build", "bld-1"]).await;
    let words = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    for word in [
        "build bld-1\n",
        "after 1 attempt\n",
        "error    NO_OUTCOME: effect image#1",
        "slipway parked resume build bld-1",
        "\"ordered\": true",
    ] {
        assert!(words.contains(word), "{word}: {words}");
    }

    let refused = slipway(path, "bob", &["resume", "build", "bld-1"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("PERMISSION_DENIED"), "{refused:?}");
    let resumed = slipway(path, "alice", &["resume", "build", "bld-1"]).await;
    assert_eq!(text(&resumed.stdout), "build bld-1 resumed\n", "{resumed:?}");
    // Nobody works on it here, so it stays as it is.
    let again = slipway(path, "alice", &["resume", "build", "bld-1"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("NOT_PARKED"), "{again:?}");
    let absent = slipway(path, "alice", &["resume", "change", "chg-1"]).await;
    assert!(text(&absent.stderr).contains("NOT_FOUND"), "{absent:?}");
    context("http://127.0.0.1:1");
    let absent = slipway(path, "alice", &["resume", "release", "rel-1"]).await;
    let words = text(&absent.stderr);
    assert!(words.contains("deploy-svc does not answer"), "{words}");
    stop.cancel();
}
