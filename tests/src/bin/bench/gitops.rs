//! Writing a GitOps repository: gitops-svc compared with what a CI job does for each change.
//!
//! Baseline and service take turns within one run, on repositories that start with the same content.

mod baseline;
mod edits;
mod remote;
mod writer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use baseline::{Baseline, Stranger};
use remote::{LARGE, Remote, SMALL};
use slipway_testbed::{Postgres, TestDir};
use writer::{Load, Writer};

use crate::{Figure, per_second, percentile, rate};

/// How often each of them takes its turn.
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(1500);
const MEASURE: Duration = Duration::from_secs(5);
const WRITERS: usize = 64;
/// Changes of a single writer, in each round.
const ALONE: usize = 15;
/// The scenario in which nothing is rendered before it is committed.
const UNRENDERED: &str = "unrendered";
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// One repository, the service that writes it, and the results.
struct Scenario {
    remote: Remote,
    writer: Arc<Writer>,
    load: Load,
    /// Milliseconds from the first request, with a mirror that did not exist yet, until it was pushed.
    first: f64,
}

impl Scenario {
    async fn new(folder: &TestDir, name: &str, remote: Remote, database: &str) -> Self {
        let renders = name != UNRENDERED;
        let writer = Writer::start(&folder.path().join(name), &remote, database, renders).await;
        let writer = Arc::new(writer);
        let began = std::time::Instant::now();
        let change = writer.write().await;
        let mut load = Load::default();
        let first = began.elapsed().as_secs_f64() * 1e3;
        load.commits.insert(change.id, change.commit);
        for change in writer.all(WRITERS).await {
            load.commits.insert(change.id, change.commit);
        }
        Self {
            remote,
            writer,
            load,
            first,
        }
    }

    async fn turn(&mut self) {
        self.load.add(self.writer.load(WRITERS, WARM_UP, MEASURE).await);
    }

    /// Changes that are not on the remote as exactly one commit, the one that the service named.
    fn lost(&self) -> usize {
        let written = self.remote.written();
        let log = self.remote.shas();
        let lost = self
            .load
            .commits
            .iter()
            .filter(|(id, commit)| written.get(*id) != Some(&1) || !log.contains(*commit));
        lost.count()
    }
}

pub(crate) async fn measure() -> Vec<Figure> {
    eprintln!("gitops-svc …");
    let folder = TestDir::new("bench-gitops").unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = Postgres::start_with(true).await.unwrap();
    let mut figures = vec![edits::measure()];

    let job_remote = Remote::new(&path("job.git"), SMALL, false);
    let jobs = Arc::new(Baseline::new(&path("jobs")));
    let mut scenarios = HashMap::new();
    for (name, size, partial) in [
        ("alone", SMALL, false),
        ("small", SMALL, false),
        (UNRENDERED, SMALL, false),
        ("sqlite", SMALL, false),
        ("stranger", SMALL, false),
        ("large", LARGE, false),
        ("large-partial", LARGE, true),
    ] {
        let database = match name {
            "sqlite" => format!("sqlite://{}", path("ledger.db").display()),
            _ => server.create_database().await.unwrap(),
        };
        let remote = Remote::new(&path(&format!("{name}.git")), size, partial);
        let scenario = Scenario::new(&folder, name, remote, &database).await;
        scenarios.insert(name, scenario);
    }

    let mut job_alone = Vec::new();
    let (mut job_times, mut job_span) = (Vec::new(), Duration::ZERO);
    let (mut stranger_count, mut stranger_span) = (0, Duration::ZERO);
    let job_remote = Arc::new(job_remote);
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS} …", round + 1);
        let alone = scenarios.get_mut("alone").unwrap();
        for _ in 0..ALONE {
            let (jobs, remote) = (Arc::clone(&jobs), Arc::clone(&job_remote));
            let took = tokio::task::spawn_blocking(move || jobs.write(&remote))
                .await
                .unwrap();
            job_alone.push(took.as_secs_f64() * 1e3);
            let began = std::time::Instant::now();
            let change = alone.writer.write().await;
            alone.load.times.push(began.elapsed().as_secs_f64() * 1e3);
            alone.load.commits.insert(change.id, change.commit);
        }
        let (jobs, remote) = (Arc::clone(&jobs), Arc::clone(&job_remote));
        let (times, span) = tokio::task::spawn_blocking(move || jobs.load(&remote, 8, MEASURE))
            .await
            .unwrap();
        job_times.extend(times);
        job_span += span;
        for name in ["small", UNRENDERED, "large", "large-partial", "sqlite"] {
            scenarios.get_mut(name).unwrap().turn().await;
        }
        let scenario = scenarios.get_mut("stranger").unwrap();
        let stranger = Stranger::start(&path(&format!("stranger-{round}")), &scenario.remote);
        scenario.turn().await;
        let (count, span) = tokio::task::spawn_blocking(|| stranger.stop()).await.unwrap();
        stranger_count += count;
        stranger_span += span;
    }
    job_alone.sort_by(f64::total_cmp);
    job_times.sort_by(f64::total_cmp);
    let jobs_rate = per_second(job_times.len() as u64, job_span);

    let alone = &mut scenarios.get_mut("alone").unwrap().load.times;
    alone.sort_by(f64::total_cmp);
    let (ours, theirs) = (percentile(alone, 50), percentile(&job_alone, 50));
    figures.push(Figure::new(
        "gitops-svc, one writer alone: request to pushed",
        format!("p50 {ours:.1} ms ({:.2} ×)", ours / theirs),
        format!("{theirs:.1} ms CI job"),
        "≤ 0.4 × the CI job",
        ours <= 0.4 * theirs,
    ));
    let beside = format!(
        "{} CI jobs, 8 at once, p99 {:.1} s",
        rate(jobs_rate),
        percentile(&job_times, 99) / 1e3
    );
    let small = scenarios["small"].load.rate();
    for (name, what) in [("small", "PostgreSQL"), ("sqlite", "SQLite")] {
        let scenario = &scenarios[name];
        let (through, p99) = (scenario.load.rate(), percentile(&scenario.load.times, 99));
        figures.push(Figure::new(
            format!("gitops-svc on {what}, {WRITERS} writers of one repository: durable on the remote"),
            format!(
                "{} ({:.0} ×), p50 {:.0} ms, p99 {p99:.0} ms",
                rate(through),
                through / jobs_rate,
                percentile(&scenario.load.times, 50)
            ),
            &beside,
            "≥ 200/s, p99 < 1 s",
            through >= 200.0 && p99 < 1e3,
        ));
    }
    let without = scenarios[UNRENDERED].load.rate();
    figures.push(Figure::new(
        "the same on PostgreSQL, rendered before it is committed",
        format!("{} ({:.2} ×)", rate(small), small / without),
        format!("{} not rendered", rate(without)),
        "≥ 0.8 × not rendered",
        small >= 0.8 * without,
    ));
    let scenario = &scenarios["stranger"];
    let through = scenario.load.rate();
    let theirs = scenario.remote.written();
    let found = theirs
        .iter()
        .filter(|(name, _)| name.starts_with("stranger "))
        .map(|(_, count)| count)
        .sum::<usize>();
    let lost = scenario.lost() + stranger_count.abs_diff(found);
    figures.push(Figure::new(
        "the same while a stranger pushes every 100 ms",
        format!(
            "{} ({:.2} ×), {lost} lost of {} and {stranger_count}",
            rate(through),
            through / small,
            scenario.load.commits.len(),
        ),
        format!(
            "{} alone; the stranger's {}",
            rate(small),
            rate(per_second(stranger_count as u64, stranger_span))
        ),
        "≥ 0.5 × alone, none lost",
        through >= 0.5 * small && lost == 0,
    ));
    for name in ["large", "large-partial"] {
        let scenario = &scenarios[name];
        let through = scenario.load.rate();
        let (peak, mirror) = (scenario.writer.peak(), scenario.writer.mirror() as f64);
        let what = match name {
            "large" => "10,000 files and 5,000 commits",
            _ => "the same, objects may be left out",
        };
        figures.push(Figure::new(
            format!("{what}: durable on the remote"),
            format!(
                "{} ({:.2} × slower), p99 {:.0} ms",
                rate(through),
                small / through,
                percentile(&scenario.load.times, 99)
            ),
            format!("{} small", rate(small)),
            "≤ 2 × slower",
            through * 2.0 >= small,
        ));
        figures.push(Figure::new(
            format!("{what}: most memory resident"),
            format!(
                "{:.0} MB; mirror {:.1} MB, first change after {:.0} ms",
                peak / MEGABYTE,
                mirror / MEGABYTE,
                scenario.first
            ),
            format!(
                "{:.0} MB, {:.1} MB small",
                scenarios["small"].writer.peak() / MEGABYTE,
                scenarios["small"].writer.mirror() as f64 / MEGABYTE
            ),
            "< 150 MB",
            peak < 150.0 * MEGABYTE,
        ));
    }
    let (mut changes, mut lost) = (0, 0);
    for scenario in scenarios.values() {
        changes += scenario.load.commits.len();
        lost += scenario.lost();
    }
    figures.push(Figure::new(
        "changes not in exactly one commit of the remote",
        format!("{lost} of {changes}"),
        "",
        "0",
        lost == 0,
    ));
    figures
}
