//! A thousand rollouts verified at once in one process: memory, CPU, and open watches; compared with as many `kubectl
//! rollout status` as this machine can take.

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use slipway_proto::deploy::v1::{ListDeploymentsRequest, deployment::Status};
use slipway_testbed::{Postgres, patience};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    task::JoinHandle,
};

use super::scene::Scene;
use crate::{Figure, idle::memory};

const DEPLOYMENTS: usize = 1000;
const PODS: usize = 2;
/// Long enough for all to be requested before the first is complete.
const READY_AFTER: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 64;
/// Processes of kubectl.
const KUBECTLS: usize = 30;
const SAMPLE: Duration = Duration::from_secs(1);
/// The length of the busiest CPU interval, in samples.
const BUSY: usize = 5;
/// Deployments, ReplicaSets and pods, of one cluster.
const KINDS: usize = 3;
const MEGABYTE: f64 = 1024.0 * 1024.0;

pub(crate) async fn measure(server: &Postgres) -> Vec<Figure> {
    eprintln!("{DEPLOYMENTS} rollouts at once …");
    let scene = Scene::start("bench-scale", server, DEPLOYMENTS, PODS, READY_AFTER).await;
    let process = scene.service.id();
    let idle = memory(process, "VmRSS:");
    let mut events = scene.events().await;
    let (began, spent) = (Instant::now(), cpu(process));
    let samples = Samples::start(process);
    let ids: HashSet<String> = stream::iter(&scene.names)
        .map(|name| scene.deploy(name, 1))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let asked = began.elapsed();
    let most = verifying(&scene).await;
    let watches = scene.api.watches().await;
    let kubectl = kubectl_cost(&scene).await;
    let mut left: HashSet<String> = ids.into_iter().map(|id| format!("deployment/{id}")).collect();
    let mut failed = 0;
    while !left.is_empty() {
        let event = tokio::time::timeout(patience(), events.recv()).await;
        let (_, event) = event.expect("the rollouts end").unwrap();
        let succeeded = event.r#type.contains("succeeded");
        if (succeeded || event.r#type.contains(".failed") || event.r#type.contains("errored"))
            && left.remove(&event.subject)
        {
            failed += usize::from(!succeeded);
        }
    }
    let span = began.elapsed();
    let used = (cpu(process) - spent).as_secs_f64() / span.as_secs_f64();
    let busiest = samples.busiest();
    let peak = memory(process, "VmHWM:");
    let name = |what: &str| format!("{DEPLOYMENTS} rollouts of {PODS} pods at once: {what}");
    let (resident, kubectl_cpu) = kubectl;
    #[allow(clippy::cast_precision_loss)] // small counts
    let many = KUBECTLS as f64;
    vec![
        Figure::new(
            name("verified at the same time, and succeeded"),
            format!(
                "{most}, {} (asked for within {:.1} s)",
                DEPLOYMENTS - failed,
                asked.as_secs_f64()
            ),
            "",
            format!("{DEPLOYMENTS}, {DEPLOYMENTS}"),
            most == DEPLOYMENTS && failed == 0,
        ),
        Figure::new(
            name("peak memory"),
            format!("{:.0} MB ({:.0} MB idle)", peak / MEGABYTE, idle / MEGABYTE),
            format!(
                "{KUBECTLS} × kubectl: {:.0} MB, {:.1} MB each",
                resident / MEGABYTE,
                resident / MEGABYTE / many
            ),
            "< 200 MB",
            peak < 200.0 * MEGABYTE,
        ),
        Figure::new(
            name("CPU from the first request to the last event"),
            format!(
                "{used:.2} cores over {:.0} s, busiest {BUSY} s {busiest:.2}",
                span.as_secs_f64()
            ),
            format!(
                "{KUBECTLS} × kubectl to get there: {:.1} s, {:.2} s each",
                kubectl_cpu,
                kubectl_cpu / many
            ),
            "< 1 core",
            used < 1.0,
        ),
        Figure::new(
            name("watches open on the API server"),
            watches.to_string(),
            format!("{KUBECTLS} × kubectl: {KUBECTLS}"),
            format!("≤ {KINDS} kinds × 1 cluster"),
            watches <= KINDS,
        ),
    ]
}

/// The CPU time that a process has used, sampled repeatedly.
struct Samples {
    taken: Arc<Mutex<Vec<(Instant, Duration)>>>,
    task: JoinHandle<()>,
}

impl Samples {
    fn start(process: u32) -> Self {
        let taken: Arc<Mutex<Vec<(Instant, Duration)>>> = Arc::default();
        let to = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE);
            loop {
                ticks.tick().await;
                to.lock().unwrap().push((Instant::now(), cpu(process)));
            }
        });
        Self { taken, task }
    }

    /// Cores used in the busiest interval.
    fn busiest(self) -> f64 {
        self.task.abort();
        let taken = self.taken.lock().unwrap();
        let cores = taken.windows(BUSY + 1).map(|span| {
            let (first, last) = (span[0], span[BUSY]);
            (last.1 - first.1).as_secs_f64() / (last.0 - first.0).as_secs_f64()
        });
        cores.fold(0.0, f64::max)
    }
}

/// Waits until all are watched, or some have ended before that, and counts those that are.
async fn verifying(scene: &Scene) -> usize {
    let began = Instant::now();
    loop {
        let (mut watched, mut early, mut token) = (0, 0, String::new());
        loop {
            let request = ListDeploymentsRequest {
                page_size: 500,
                page_token: token,
                ..ListDeploymentsRequest::default()
            };
            let mut client = scene.clients.deployments.clone();
            let page = client.list_deployments(request).await.unwrap().into_inner();
            for deployment in &page.deployments {
                match deployment.status() {
                    Status::Verifying => watched += 1,
                    Status::Applying => {}
                    _ => early += 1,
                }
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        if watched + early == DEPLOYMENTS {
            return watched;
        }
        assert!(began.elapsed() < patience(), "only {watched} are watched");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Resident memory in bytes, and CPU time in seconds, of processes that are all waiting for a rollout.
async fn kubectl_cost(scene: &Scene) -> (f64, f64) {
    let mut processes: Vec<_> = scene
        .names
        .iter()
        .take(KUBECTLS)
        .map(|name| scene.kubectl(name))
        .collect();
    for process in &mut processes {
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        assert!(
            line.is_some_and(|line| line.starts_with("Waiting")),
            "kubectl waits"
        );
    }
    let (mut resident, mut used) = (0.0, 0.0);
    for process in &processes {
        let id = process.id().unwrap();
        resident += memory(id, "VmRSS:");
        used += cpu(id).as_secs_f64();
    }
    for mut process in processes {
        process.kill().await.unwrap();
    }
    (resident, used)
}

/// The CPU time that a process has used.
fn cpu(process: u32) -> Duration {
    /// `USER_HZ`, which is the same on every Linux that Rust runs on.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may contain anything; utime and stime are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: f64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    Duration::from_secs_f64(ticks / TICKS)
}
