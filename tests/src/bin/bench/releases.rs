//! Whole releases through four processes, with backends that answer at once: what the suite itself costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use slipway_proto::release::v1::{Release, StartReleaseRequest, release::Status};
use slipway_tests::{Clients, Suite, clients::told};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{Figure, per_second, percentile, rate};

/// Deploy targets; releases to the same target follow each other.
pub(crate) const LANES: usize = 500;
/// Divides the lanes, so that each worker has its own.
const AT_ONCE: usize = 250;
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURE: Duration = Duration::from_secs(15);
/// The load while the time between steps is measured.
const OFFERED: u32 = 10;

pub(crate) async fn measure(suite: &Suite) -> Vec<Figure> {
    let calls = raw_calls(&suite.addresses(0).urls[3]).await;
    let clients = suite.client("alice", 0);
    eprintln!("{OFFERED} releases a second …");
    let gaps = gaps(&clients).await;
    eprintln!("as many releases as go …");
    let through = throughput(&clients).await;
    let floor = format!("{} raw gRPC calls", rate(calls));
    let (p50, p99) = (percentile(&gaps, 50), percentile(&gaps, 99));
    vec![
        Figure::new(
            format!("whole releases over {LANES} lanes, {AT_ONCE} at once"),
            rate(through),
            &floor,
            "≥ 50/s",
            through >= 50.0,
        ),
        Figure::new(
            format!("from one step's end to the next one's start, {OFFERED} releases/s offered"),
            format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
            &floor,
            "p50 < 15 ms",
            p50 < 15.0,
        ),
    ]
}

/// No-op unary calls per second, over one connection.
async fn raw_calls(url: &str) -> f64 {
    let channel = Endpoint::from_shared(url.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let workers: Vec<_> = (0..32)
        .map(|_| {
            let (mut health, done, stop) = (HealthClient::new(channel.clone()), done.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    health.check(HealthCheckRequest::default()).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    join_all(workers).await;
    per_second(done.load(Ordering::Relaxed), began.elapsed())
}

/// Successful releases per second, with this many in progress all the time.
async fn throughput(clients: &Clients) -> f64 {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|worker| {
            let (clients, done, stop) = (clients.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                // Separate lanes, so that no release supersedes one that is still in progress.
                let mut number = u64::try_from(worker).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    one(&clients, number).await;
                    number += u64::try_from(AT_ONCE).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURE).await;
    let rate = per_second(done.load(Ordering::Relaxed) - before, began.elapsed());
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    rate
}

/// The times between steps of evenly spaced releases, in milliseconds, sorted.
async fn gaps(clients: &Clients) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / OFFERED);
    let mut workers = Vec::new();
    let began = Instant::now();
    let mut number = 1_000_000;
    while began.elapsed() < MEASURE {
        ticks.tick().await;
        number += 1;
        let clients = clients.clone();
        workers.push(tokio::spawn(async move { one(&clients, number).await }));
    }
    let mut gaps = Vec::new();
    for worker in workers {
        let release = worker.await.unwrap();
        for pair in release.steps.windows(2) {
            if let (Some(end), Some(start)) = (&pair[0].end_time, &pair[1].start_time) {
                gaps.push(millis(start) - millis(end));
            }
        }
    }
    gaps.sort_by(f64::total_cmp);
    gaps
}

/// One release of a new commit, from start to end.
async fn one(clients: &Clients, number: u64) -> Release {
    let lane = usize::try_from(number).unwrap() % LANES;
    let request = StartReleaseRequest {
        service: format!("lane-{lane}"),
        commit: format!("{number:040x}"),
        ..StartReleaseRequest::default()
    };
    let started = clients.try_start(request).await.unwrap();
    let release = clients.finished(&started.id).await;
    assert_eq!(release.status(), Status::Succeeded, "{}", told(Some(&release)));
    release
}

#[allow(clippy::cast_precision_loss)] // milliseconds of this century
fn millis(time: &prost_types::Timestamp) -> f64 {
    (time.seconds % 1_000_000) as f64 * 1e3 + f64::from(time.nanos) / 1e6
}
