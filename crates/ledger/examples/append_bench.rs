//! Durable appends a second, beside what the database does by itself.
//!
//! ```sh
//! cargo run --release -p slipway-ledger --example append_bench            # own PostgreSQL (with fsync) and SQLite file
//! cargo run --release -p slipway-ledger --example append_bench -- URL     # that database, which should be empty
//! ```

use std::{
    process::Command as Process,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, Index, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, Id, Timestamp};

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

/// The smallest useful aggregate.
struct Counter;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    count: u64,
    note: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Counted { by: u64, note: String },
}

impl Decider for Counter {
    const KIND: &'static str = "counter";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = u64;
    type Event = Event;
    type Effect = ();
    type Refusal = std::convert::Infallible;

    fn decide(_: &Id, _: &State, by: u64, _: Timestamp) -> Result<Vec<Event>, Self::Refusal> {
        Ok(vec![Event::Counted {
            by,
            note: "about as long as a short event is".to_owned(),
        }])
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        let Event::Counted { by, note } = event;
        state.count += by;
        state.note.clone_from(note);
    }

    fn index(_: &State) -> Index {
        Index {
            status: "counting".to_owned(),
            service: "web".to_owned(),
            ..Index::default()
        }
    }

    fn is_final(_: &State) -> bool {
        false
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if let Some(url) = std::env::args().nth(1) {
        return measure(&url).await;
    }
    let server = slipway_testbed::Postgres::start_with(true).await?;
    let url = server.create_database().await?;
    println!("postgresql");
    match pgbench(&server, &url) {
        Ok(figure) => println!("  pgbench, 32 clients, single-row inserts {figure:>8.0}/s"),
        Err(error) => println!("  pgbench is not available: {error}"),
    }
    measure(&url).await?;
    println!("sqlite");
    let dir = slipway_testbed::TestDir::new("append-bench")?;
    measure(&format!("sqlite://{}/ledger.db", dir.path().display())).await
}

async fn measure(url: &str) -> Result<(), Failure> {
    let ledger = Ledger::open(LedgerConfig::new(url).origin("bench")).await?;
    for tasks in [1, 64, 256] {
        let figure = appends(&ledger, tasks).await?;
        println!("  appends, {tasks:>3} tasks                      {figure:>8.0}/s");
    }
    ledger.close().await;
    Ok(())
}

/// Each task on an aggregate of its own, one append after the other, after one that fills the cache.
async fn appends(ledger: &Ledger, tasks: usize) -> Result<f64, Failure> {
    let meta = Meta::from(Actor::system("bench"));
    let ids: Vec<Id> = (0..tasks).map(|_| Id::generate("bench")).collect();
    for id in &ids {
        ledger.execute::<Counter>(id, || 1, &meta).await?;
    }
    let begin = Instant::now();
    let running: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let (ledger, meta) = (ledger.clone(), meta.clone());
            tokio::spawn(async move {
                let mut count = 0_u32;
                while begin.elapsed() < SPAN {
                    ledger.execute::<Counter>(&id, || 1, &meta).await?;
                    count += 1;
                }
                Ok::<_, Failure>(count)
            })
        })
        .collect();
    let mut sum = 0.0;
    for task in running {
        sum += f64::from(task.await??);
    }
    Ok(sum / begin.elapsed().as_secs_f64())
}

/// The floor: single-row inserts, prepared, from 32 clients.
fn pgbench(server: &slipway_testbed::Postgres, url: &str) -> Result<f64, Failure> {
    let bin = slipway_testbed::tool("pgbench")?;
    let dir = slipway_testbed::TestDir::new("pgbench")?;
    let script = dir.path().join("insert.sql");
    std::fs::write(
        &script,
        "INSERT INTO floor (data) VALUES ('about as long as a short event is, with its envelope');\n",
    )?;
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let run = |program: &std::path::Path, args: &[&str]| -> Result<String, Failure> {
        let output = Process::new(program)
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "slipway",
                "-p",
                &server.port().to_string(),
            ])
            .args(args)
            .env("PGPASSWORD", server.password())
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    };
    let table = "CREATE TABLE floor (id bigserial PRIMARY KEY, data text NOT NULL, at timestamptz NOT NULL DEFAULT now())";
    run(&slipway_testbed::tool("psql")?, &["-d", &database, "-c", table])?;
    let seconds = SPAN.as_secs().to_string();
    let script = script.to_string_lossy();
    let text = run(
        &bin,
        &[
            "-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &seconds, "-f", &script, &database,
        ],
    )?;
    let figure = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    figure.ok_or_else(|| format!("pgbench said: {text}").into())
}
