//! Durable appends per second on PostgreSQL, compared with what `pgbench` inserts into the same server, and on SQLite.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, Index, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, Id, Timestamp};
use slipway_testbed::{Postgres, TestDir, tool};

use crate::{Figure, rate};

/// How long each figure is measured, after a short warm-up.
const MEASURE: Duration = Duration::from_secs(6);
const WARM_UP: Duration = Duration::from_secs(1);
/// Roughly the size of an event of a release.
const NOTE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// Counts.
struct Counter;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Counted { note: String },
}

impl Decider for Counter {
    const KIND: &'static str = "counter";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = ();
    type Event = Event;
    type Effect = ();
    type Refusal = std::convert::Infallible;

    fn decide(_: &Id, _: &State, (): (), _: Timestamp) -> Result<Vec<Event>, Self::Refusal> {
        Ok(vec![Event::Counted {
            note: NOTE.to_owned(),
        }])
    }

    fn evolve(state: &mut State, _: &Event, _: Timestamp) {
        state.count += 1;
    }

    fn index(_: &State) -> Index {
        Index {
            status: "counting".to_owned(),
            service: "bench".to_owned(),
            ..Index::default()
        }
    }

    fn is_final(_: &State) -> bool {
        false
    }
}

pub(crate) async fn measure() -> Vec<Figure> {
    eprintln!("ledger …");
    let server = Postgres::start_with(true).await.unwrap();
    let floor_url = server.create_database().await.unwrap();
    let password = server.password().to_owned();
    let port = server.port();
    let floor = tokio::task::spawn_blocking(move || pgbench(&floor_url, port, &password))
        .await
        .unwrap();
    let beside = format!("{} pgbench, 32 clients", rate(floor));
    let mut figures = Vec::new();
    for (tasks, times) in [(64, 1.0), (256, 2.0)] {
        let url = server.create_database().await.unwrap();
        let figure = appends(&url, tasks).await;
        figures.push(Figure::new(
            format!("ledger on PostgreSQL, {tasks} tasks: durable appends"),
            format!("{} ({:.2} ×)", rate(figure), figure / floor),
            &beside,
            format!("≥ {times} × the floor"),
            figure >= times * floor,
        ));
    }
    let folder = TestDir::new("bench").unwrap();
    let sqlite = appends(&format!("sqlite://{}/ledger.db", folder.path().display()), 64).await;
    figures.push(Figure::new(
        "ledger on SQLite, 64 tasks: durable appends",
        rate(sqlite),
        "",
        "≥ 5.0 k/s",
        sqlite >= 5000.0,
    ));
    figures
}

/// Single-row inserts per second, as measured by PostgreSQL's own benchmark.
fn pgbench(url: &str, port: u16, password: &str) -> f64 {
    let folder = TestDir::new("pgbench").unwrap();
    let script = folder.path().join("insert.sql");
    fs::write(
        &script,
        format!("INSERT INTO inserted (note) VALUES ('{NOTE}');\n"),
    )
    .unwrap();
    let database = url.rsplit_once('/').unwrap().1;
    let connect = |program: &str| {
        let mut command = Command::new(tool(program).unwrap());
        command.env("PGPASSWORD", password).args([
            "--host=127.0.0.1",
            "--username=slipway",
            &format!("--port={port}"),
        ]);
        command
    };
    let table = "CREATE TABLE inserted (id bigserial PRIMARY KEY, note text NOT NULL)";
    let made = connect("psql")
        .args(["--quiet", &format!("--dbname={database}"), "--command", table])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let seconds = format!("--time={}", MEASURE.as_secs());
    let output = connect("pgbench")
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=32",
            "--jobs=2",
            &seconds,
            "--file",
        ])
        .arg(&script)
        .arg(database)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Appends per second by this many tasks, each to its own aggregate.
async fn appends(url: &str, tasks: usize) -> f64 {
    let ledger = Ledger::open(LedgerConfig::new(url).origin("bench"))
        .await
        .unwrap();
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (ledger, done, stop) = (ledger.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                let id: Id = format!("counter-{task}").parse().unwrap();
                let meta = Meta::from(Actor::system("bench"));
                while !stop.load(Ordering::Relaxed) {
                    ledger.execute::<Counter>(&id, || (), &meta).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURE).await;
    #[allow(clippy::cast_precision_loss)] // counts of a few seconds
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    ledger.close().await;
    rate
}
