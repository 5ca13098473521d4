//! What a person needs to see when a deployment failed: pods at fault, why their containers ended, the last lines of
//! their current run and of the one before, and the cluster's events about them and about their controllers. Limited in
//! size and redacted; what cannot be read is left out, not waited for.

mod log;
mod tell;

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, ContainerStatus, Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::Selector,
};
use slipway_model::{Fault, Reason, Timestamp};
use slipway_verdict::{
    Target, Workload, WorkloadKind,
    evidence::{PodEvidence, Redactor, RunLog, at_fault, bound, of_runs, together},
    owned_by, pods,
};

use super::{Kubernetes, call, fault::unavailable, observe, workload};

/// Different faults of one workload's pods; the worst come first. Pods with the same fault count once.
const MAX_FAULTS: usize = 3;
/// How many pods of one fault are asked for a log, until one has it.
const MAX_ASKED: usize = 3;
/// Names that are listed of other pods with the same fault.
const MAX_NAMES: usize = 10;
const MAX_CONTAINERS: usize = 4;
const MAX_EVENTS: usize = 5;
/// Of one Application.
const MAX_WORKLOADS: usize = 3;
/// All containers of a deployment together.
const MAX_ENTRIES: usize = 16;
/// For one log or one list of events: most clusters take some milliseconds, and what hangs is left out.
const ONE: Duration = Duration::from_secs(5);
/// For everything together.
const TIME: Duration = Duration::from_secs(20);

/// Collects the evidence of one target now. Events from before `since`, when the deployment began, are about another one.
///
/// # Errors
/// When the API server cannot be asked at all.
pub async fn collect(
    cluster: &Kubernetes,
    target: &Target,
    since: Timestamp,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    in_time(of_target(&Scene { cluster, since }, target)).await
}

/// Collects the evidence of one Job now.
///
/// # Errors
/// As [`collect`].
pub async fn collect_job(
    cluster: &Kubernetes,
    namespace: &str,
    job: &str,
    since: Timestamp,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    in_time(of_job(&Scene { cluster, since }, namespace, job)).await
}

/// Where evidence is collected, and of which time.
#[derive(Clone, Copy)]
struct Scene<'a> {
    cluster: &'a Kubernetes,
    since: Timestamp,
}

async fn in_time(
    gather: impl Future<Output = Result<Vec<PodEvidence>, Fault<Reason>>>,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let late = |_| unavailable(format!("evidence: not collected within {} s", TIME.as_secs()));
    let mut evidence = tokio::time::timeout(TIME, gather).await.map_err(late)??;
    evidence.truncate(MAX_ENTRIES);
    let mut evidence: Vec<PodEvidence> = evidence.into_iter().map(PodEvidence::told).collect();
    bound(&mut evidence);
    Ok(evidence)
}

async fn of_target(scene: &Scene<'_>, target: &Target) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let namespace = target.namespace.as_str();
    match target.kind {
        WorkloadKind::Application => of_application(scene, namespace, &target.name).await,
        kind => of_workload(scene, namespace, kind, &target.name).await,
    }
}

/// An object in words, such as `ReplicaSet/shop-7d9`.
fn called(kind: &str, metadata: &ObjectMeta) -> String {
    format!("{kind}/{}", metadata.name.as_deref().unwrap_or_default())
}

async fn of_application(
    scene: &Scene<'_>,
    namespace: &str,
    name: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let Some(live) = observe::read(scene.cluster, namespace, WorkloadKind::Application, name).await? else {
        return Ok(Vec::new());
    };
    let own = maker(scene, namespace, "Application", &live).await;
    let Workload::Application(application) = workload::typed(WorkloadKind::Application, live)? else {
        return Ok(own.into_iter().collect());
    };
    let mut evidence = Vec::from_iter(own);
    // If the application deploys into another cluster, its pods cannot be read here.
    if !observe::is_here(&application) {
        return Ok(evidence);
    }
    let healthy = |one: &&slipway_verdict::application::ResourceStatus| {
        one.health
            .as_ref()
            .is_some_and(|health| health.status == "Healthy")
    };
    let runs = |one: &&slipway_verdict::application::ResourceStatus| {
        one.kind == "Job" || observe::runs_pods(&one.kind).is_some()
    };
    // Those with a fault; if all are healthy, a check failed, and logs of all of them may tell why.
    let all = || application.status.resources.iter().filter(runs);
    let mut chosen: Vec<_> = all().filter(|one| !healthy(one)).collect();
    if chosen.is_empty() {
        chosen = all().collect();
    }
    for one in chosen.into_iter().take(MAX_WORKLOADS) {
        let Some(namespace) = observe::namespace_of(&application, one) else {
            continue;
        };
        let found = match observe::runs_pods(&one.kind) {
            Some(kind) => of_workload(scene, namespace, kind, &one.name).await,
            None => of_job(scene, namespace, &one.name).await,
        };
        match found {
            Ok(found) => evidence.extend(found),
            Err(error) => tracing::debug!(kind = one.kind, name = one.name, %error, "no evidence"),
        }
    }
    Ok(evidence)
}

async fn of_workload(
    scene: &Scene<'_>,
    namespace: &str,
    kind: WorkloadKind,
    name: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    if kind == WorkloadKind::Canary {
        return match observe::read(scene.cluster, namespace, kind, name).await? {
            Some(live) => of_canary(scene, namespace, &live).await,
            None => Ok(Vec::new()),
        };
    }
    let Some(found) = observe::workload(scene.cluster, namespace, kind, name).await? else {
        return Ok(Vec::new());
    };
    let current = slipway_verdict::current(&found.workload, &found.observed);
    let mut makers = vec![(kind.to_string(), found.live)];
    if let Some(set) = current.replica_set {
        makers.push(("ReplicaSet".to_owned(), plain(set)));
    }
    Ok(of_pods(scene, namespace, &makers, current.pods).await)
}

/// What Flagger says, and the pods of the workload that it rolls out. It scales that to zero when it gives up.
async fn of_canary(
    scene: &Scene<'_>,
    namespace: &str,
    live: &DynamicObject,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let mut evidence = Vec::from_iter(maker(scene, namespace, "Canary", live).await);
    let of = |field: &str| {
        live.data
            .pointer(&format!("/spec/targetRef/{field}"))
            .and_then(|value| value.as_str())
    };
    let kind = of("kind").and_then(observe::runs_pods);
    if let (Some(kind), Some(name)) = (kind, of("name")) {
        evidence.extend(Box::pin(of_workload(scene, namespace, kind, name)).await?);
    }
    Ok(evidence)
}

async fn of_job(scene: &Scene<'_>, namespace: &str, name: &str) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let jobs: Api<Job> = Api::namespaced(scene.cluster.client().clone(), namespace);
    let Some(job) = call("read the Job", jobs.get_opt(name)).await? else {
        return Ok(Vec::new());
    };
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    let Some(selector) = selector else {
        return Ok(Vec::new());
    };
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client().clone(), namespace);
    let list = ListParams::default().labels(&selector.to_string());
    let mut found = call("list pods", pods.list(&list)).await?.items;
    found.retain(|pod| owned_by(&pod.metadata, job.metadata.uid.as_deref()));
    let makers = [("Job".to_owned(), plain(&job))];
    Ok(of_pods(scene, namespace, &makers, found.iter().collect()).await)
}

/// The worst of the pods, and what the cluster says about their controllers.
async fn of_pods(
    scene: &Scene<'_>,
    namespace: &str,
    makers: &[(String, DynamicObject)],
    mut suspects: Vec<&Pod>,
) -> Vec<PodEvidence> {
    // The worst first, then those not ready, then the others: a failed check does not put a pod at fault, and logs
    // still help.
    suspects.sort_by_key(|pod| {
        let weight = pods::ailing(pod).map_or(0, |(weight, _)| weight);
        let newest = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map(slipway_verdict::micros);
        (
            std::cmp::Reverse(weight),
            pods::ready(pod).is_some(),
            std::cmp::Reverse(newest),
            pod.metadata.name.clone(),
        )
    });
    let mut faults = together(suspects);
    faults.truncate(MAX_FAULTS);
    let makers = makers
        .iter()
        .map(|(kind, live)| maker(scene, namespace, kind, live));
    let pods = faults.iter().map(|pods| of_fault(scene, namespace, pods));
    let (makers, pods) = futures::join!(join_all(makers), join_all(pods));
    pods.into_iter()
        .flatten()
        .chain(makers.into_iter().flatten())
        .collect()
}

/// Warnings about a controller of pods, such as an exhausted quota; empty if there are none.
async fn maker(scene: &Scene<'_>, namespace: &str, kind: &str, live: &DynamicObject) -> Option<PodEvidence> {
    let events = events(scene, namespace, kind, &live.metadata).await;
    let warned = events
        .iter()
        .any(|event| event.type_.as_deref() == Some("Warning"));
    let state = tell::complaint(&live.data);
    if !warned && state.is_none() {
        return None;
    }
    let redactor = Redactor::default();
    Some(PodEvidence {
        pod: called(kind, &live.metadata),
        state: state
            .map(|state| tell::line(&redactor, &state))
            .unwrap_or_default(),
        events: tell::events(&redactor, &events),
        ..PodEvidence::default()
    })
}

/// The pods of one fault, told by the first of them whose log can be read; the worst comes first.
async fn of_fault(scene: &Scene<'_>, namespace: &str, pods: &[&Pod]) -> Vec<PodEvidence> {
    let mut told = Vec::new();
    let mut of = None;
    for pod in pods.iter().take(MAX_ASKED) {
        let found = of_pod(scene, namespace, pod, pods.len() == 1).await;
        let has_log = |one: &PodEvidence| !one.log_tail.is_empty() || !one.previous_log_tail.is_empty();
        let complete = found.iter().any(has_log);
        if of.is_none() || complete {
            of = pod.metadata.name.clone();
            told = found;
        }
        if complete {
            break;
        }
    }
    let others = pods.iter().filter_map(|pod| pod.metadata.name.clone());
    let others: Vec<String> = others.filter(|name| Some(name) != of.as_ref()).collect();
    for one in &mut told {
        one.others = u32::try_from(others.len()).unwrap_or(u32::MAX);
        one.other_pods = others.iter().take(MAX_NAMES).cloned().collect();
    }
    told
}

/// `alone`: no other pod has the same fault.
async fn of_pod(scene: &Scene<'_>, namespace: &str, pod: &Pod, alone: bool) -> Vec<PodEvidence> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut containers: Vec<&ContainerStatus> = pods::containers(pod).filter(|one| at_fault(one)).collect();
    let sound = containers.is_empty();
    if sound {
        containers = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
            .collect();
    }
    containers.truncate(MAX_CONTAINERS);
    let api: Api<Pod> = Api::namespaced(scene.cluster.client().clone(), namespace);
    // Of a pod that was there before and has no fault, what it said before is about another deployment.
    let is_older = slipway_verdict::created(&pod.metadata).is_some_and(|created| created < scene.since);
    let since = (sound && is_older).then_some(scene.since);
    let of_container = |status: &ContainerStatus| {
        let (api, name, status) = (api.clone(), name.clone(), status.clone());
        let redactor = specification(pod, &status.name)
            .map(Redactor::of)
            .unwrap_or_default();
        async move {
            let (log_tail, previous_log_tail, log_missing) =
                logs(&api, &name, &status, since, &redactor).await;
            // How often it was started again differs from pod to pod.
            let state = if alone {
                tell::state(&status)
            } else {
                tell::condition(&status)
            };
            PodEvidence {
                pod: name,
                container: status.name.clone(),
                state: tell::line(&redactor, &state),
                exit_code: pods::exit_code(&status),
                log_tail,
                previous_log_tail,
                log_missing,
                ..PodEvidence::default()
            }
        }
    };
    let (mut evidence, events) = futures::join!(
        join_all(containers.into_iter().map(of_container)),
        events(scene, namespace, "Pod", &pod.metadata)
    );
    if evidence.is_empty() {
        evidence.push(PodEvidence {
            pod: name,
            state: tell::line(&Redactor::default(), &tell::pod_state(pod)),
            log_missing: "the pod has not started".to_owned(),
            ..PodEvidence::default()
        });
    }
    // Events belong to the pod, and are listed once.
    if let Some(first) = evidence.first_mut() {
        let all = pod.spec.iter().flat_map(|spec| &spec.containers);
        let redactor = all.map(Redactor::of).next().unwrap_or_default();
        first.events = tell::events(&redactor, &events);
    }
    evidence
}

fn specification<'a>(pod: &'a Pod, container: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers).find(|one| one.name == container)
}

/// The last lines of the current run, or of the last run if none is running, those of the run before it, and what is to be
/// said of a log that is missing.
async fn logs(
    pods: &Api<Pod>,
    pod: &str,
    status: &ContainerStatus,
    since: Option<Timestamp>,
    redactor: &Redactor,
) -> (Vec<String>, Vec<String>, String) {
    let read = |previous| async move {
        let tail = log::tail(pods, (pod, &status.name), previous, since, redactor);
        let late = |_| RunLog::Missing(format!("it was not read within {} s", ONE.as_secs()));
        let log = tokio::time::timeout(ONE, tail).await.unwrap_or_else(late);
        if let RunLog::Missing(why) = &log {
            tracing::debug!(pod, container = status.name, previous, why, "no log");
        }
        log
    };
    let state = status.state.as_ref();
    let running = state.is_some_and(|state| state.running.is_some());
    if status.restart_count == 0 {
        let started = running || state.is_some_and(|state| state.terminated.is_some());
        if !started {
            return (Vec::new(), Vec::new(), "the container has not started".to_owned());
        }
        return of_runs(read(false).await, None, running);
    }
    let (now, before) = futures::join!(read(false), read(true));
    of_runs(now, Some(before), running)
}

/// Those of the cluster's events about one object that say something about this deployment.
async fn events(scene: &Scene<'_>, namespace: &str, kind: &str, about: &ObjectMeta) -> Vec<Event> {
    let all = events_of(scene.cluster, namespace, kind, about).await;
    tell::relevant(all, scene.since, MAX_EVENTS)
}

/// The cluster's events about one object.
pub(crate) async fn events_of(
    cluster: &Kubernetes,
    namespace: &str,
    kind: &str,
    about: &ObjectMeta,
) -> Vec<Event> {
    let name = about.name.as_deref().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(cluster.client().clone(), namespace);
    let list = ListParams::default()
        .fields(&format!("involvedObject.name={name},involvedObject.kind={kind}"))
        .limit(500);
    let found = match tokio::time::timeout(ONE, call("list events", api.list(&list))).await {
        Ok(Ok(found)) => found.items,
        Ok(Err(error)) => {
            tracing::debug!(kind, name, %error, "no events");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    // An earlier object may have had the same name, and its events remain.
    let same = |event: &Event| {
        let object = &event.involved_object;
        object.name.as_deref() == Some(name)
            && (object.uid.is_none() || about.uid.is_none() || object.uid == about.uid)
    };
    found.into_iter().filter(same).collect()
}

/// Without its type.
fn plain<T: serde::Serialize>(object: &T) -> DynamicObject {
    let value = serde_json::to_value(object).unwrap_or_default();
    serde_json::from_value(value).unwrap_or_else(|_| DynamicObject {
        types: None,
        metadata: ObjectMeta::default(),
        data: serde_json::Value::Null,
    })
}
