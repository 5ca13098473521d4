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
use slipway_model::{Fault, Reason};
use slipway_verdict::{
    Target, Workload, WorkloadKind,
    evidence::{PodEvidence, Redactor, bound},
    owned_by, pods,
};

use super::{Kubernetes, call, fault::unavailable, observe, workload};

/// Of one workload; the worst come first.
const MAX_PODS: usize = 3;
const MAX_CONTAINERS: usize = 4;
const MAX_EVENTS: usize = 10;
/// Of one Application.
const MAX_WORKLOADS: usize = 3;
/// All containers of a deployment together.
const MAX_ENTRIES: usize = 16;
/// For one log or one list of events: most clusters take some milliseconds, and what hangs is left out.
const ONE: Duration = Duration::from_secs(5);
/// For everything together.
const TIME: Duration = Duration::from_secs(20);

/// Collects the evidence of one target now.
///
/// # Errors
/// When the API server cannot be asked at all.
pub async fn collect(cluster: &Kubernetes, target: &Target) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    in_time(of_target(cluster, target)).await
}

/// Collects the evidence of one Job now.
///
/// # Errors
/// As [`collect`].
pub async fn collect_job(
    cluster: &Kubernetes,
    namespace: &str,
    job: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    in_time(of_job(cluster, namespace, job)).await
}

async fn in_time(
    gather: impl Future<Output = Result<Vec<PodEvidence>, Fault<Reason>>>,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let late = |_| unavailable(format!("evidence: not collected within {} s", TIME.as_secs()));
    let mut evidence = tokio::time::timeout(TIME, gather).await.map_err(late)??;
    evidence.truncate(MAX_ENTRIES);
    bound(&mut evidence);
    Ok(evidence)
}

async fn of_target(cluster: &Kubernetes, target: &Target) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let namespace = target.namespace.as_str();
    match target.kind {
        WorkloadKind::Application => of_application(cluster, namespace, &target.name).await,
        kind => of_workload(cluster, namespace, kind, &target.name).await,
    }
}

/// An object in words, such as `ReplicaSet/shop-7d9`.
fn called(kind: &str, metadata: &ObjectMeta) -> String {
    format!("{kind}/{}", metadata.name.as_deref().unwrap_or_default())
}

async fn of_application(
    cluster: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let Some(live) = observe::read(cluster, namespace, WorkloadKind::Application, name).await? else {
        return Ok(Vec::new());
    };
    let own = maker(cluster, namespace, "Application", &live).await;
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
            Some(kind) => of_workload(cluster, namespace, kind, &one.name).await,
            None => of_job(cluster, namespace, &one.name).await,
        };
        match found {
            Ok(found) => evidence.extend(found),
            Err(error) => tracing::debug!(kind = one.kind, name = one.name, %error, "no evidence"),
        }
    }
    Ok(evidence)
}

async fn of_workload(
    cluster: &Kubernetes,
    namespace: &str,
    kind: WorkloadKind,
    name: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    if kind == WorkloadKind::Canary {
        return match observe::read(cluster, namespace, kind, name).await? {
            Some(live) => of_canary(cluster, namespace, &live).await,
            None => Ok(Vec::new()),
        };
    }
    let Some(found) = observe::workload(cluster, namespace, kind, name).await? else {
        return Ok(Vec::new());
    };
    let current = slipway_verdict::current(&found.workload, &found.observed);
    let mut makers = vec![(kind.to_string(), found.live)];
    if let Some(set) = current.replica_set {
        makers.push(("ReplicaSet".to_owned(), plain(set)));
    }
    Ok(of_pods(cluster, namespace, &makers, current.pods).await)
}

/// What Flagger says, and the pods of the workload that it rolls out. It scales that to zero when it gives up.
async fn of_canary(
    cluster: &Kubernetes,
    namespace: &str,
    live: &DynamicObject,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let mut evidence = Vec::from_iter(maker(cluster, namespace, "Canary", live).await);
    let of = |field: &str| {
        live.data
            .pointer(&format!("/spec/targetRef/{field}"))
            .and_then(|value| value.as_str())
    };
    let kind = of("kind").and_then(observe::runs_pods);
    if let (Some(kind), Some(name)) = (kind, of("name")) {
        evidence.extend(Box::pin(of_workload(cluster, namespace, kind, name)).await?);
    }
    Ok(evidence)
}

async fn of_job(
    cluster: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let jobs: Api<Job> = Api::namespaced(cluster.client().clone(), namespace);
    let Some(job) = call("read the Job", jobs.get_opt(name)).await? else {
        return Ok(Vec::new());
    };
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    let Some(selector) = selector else {
        return Ok(Vec::new());
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let list = ListParams::default().labels(&selector.to_string());
    let mut found = call("list pods", pods.list(&list)).await?.items;
    found.retain(|pod| owned_by(&pod.metadata, job.metadata.uid.as_deref()));
    let makers = [("Job".to_owned(), plain(&job))];
    Ok(of_pods(cluster, namespace, &makers, found.iter().collect()).await)
}

/// The worst of the pods, and what the cluster says about their controllers.
async fn of_pods(
    cluster: &Kubernetes,
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
    suspects.truncate(MAX_PODS);
    let makers = makers
        .iter()
        .map(|(kind, live)| maker(cluster, namespace, kind, live));
    let pods = suspects.into_iter().map(|pod| of_pod(cluster, namespace, pod));
    let (makers, pods) = futures::join!(join_all(makers), join_all(pods));
    pods.into_iter()
        .flatten()
        .chain(makers.into_iter().flatten())
        .collect()
}

/// Warnings about a controller of pods, such as an exhausted quota; empty if there are none.
async fn maker(
    cluster: &Kubernetes,
    namespace: &str,
    kind: &str,
    live: &DynamicObject,
) -> Option<PodEvidence> {
    let events = events(cluster, namespace, kind, &live.metadata).await;
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
        container: String::new(),
        state: state
            .map(|state| tell::line(&redactor, &state))
            .unwrap_or_default(),
        exit_code: None,
        log_tail: Vec::new(),
        previous_log_tail: Vec::new(),
        events: tell::events(&redactor, &events),
    })
}

async fn of_pod(cluster: &Kubernetes, namespace: &str, pod: &Pod) -> Vec<PodEvidence> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut containers: Vec<&ContainerStatus> =
        pods::containers(pod).filter(|one| tell::at_fault(one)).collect();
    if containers.is_empty() {
        containers = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
            .collect();
    }
    containers.truncate(MAX_CONTAINERS);
    let api: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let of_container = |status: &ContainerStatus| {
        let (api, name, status) = (api.clone(), name.clone(), status.clone());
        let redactor = specification(pod, &status.name)
            .map(Redactor::of)
            .unwrap_or_default();
        async move {
            let (log_tail, previous_log_tail) = logs(&api, &name, &status, &redactor).await;
            PodEvidence {
                pod: name,
                container: status.name.clone(),
                state: tell::line(&redactor, &tell::state(&status)),
                exit_code: pods::exit_code(&status),
                log_tail,
                previous_log_tail,
                events: Vec::new(),
            }
        }
    };
    let (mut evidence, events) = futures::join!(
        join_all(containers.into_iter().map(of_container)),
        events(cluster, namespace, "Pod", &pod.metadata)
    );
    if evidence.is_empty() {
        evidence.push(PodEvidence {
            pod: name,
            container: String::new(),
            state: tell::line(&Redactor::default(), &tell::pod_state(pod)),
            exit_code: None,
            log_tail: Vec::new(),
            previous_log_tail: Vec::new(),
            events: Vec::new(),
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

/// The last lines of the current run, or of the last run if none is running, and of the run before it.
async fn logs(
    pods: &Api<Pod>,
    pod: &str,
    status: &ContainerStatus,
    redactor: &Redactor,
) -> (Vec<String>, Vec<String>) {
    let read = |previous| async move {
        let tail = log::tail(pods, pod, &status.name, previous, redactor);
        match tokio::time::timeout(ONE, tail).await {
            Ok(Ok(lines)) => lines,
            // A container that never started has no log, and its state says so.
            Ok(Err(error)) => {
                tracing::debug!(pod, container = status.name, previous, %error, "no log");
                Vec::new()
            }
            Err(_) => {
                tracing::debug!(pod, container = status.name, previous, "no log in time");
                Vec::new()
            }
        }
    };
    if status.restart_count == 0 {
        return (read(false).await, Vec::new());
    }
    let (now, before) = futures::join!(read(false), read(true));
    // While a container waits to be restarted, the kubelet returns its last run in both cases.
    let waits = status.state.as_ref().is_some_and(|state| state.running.is_none());
    if waits && now == before {
        return (now, Vec::new());
    }
    (now, before)
}

/// The cluster's events about one object.
pub(crate) async fn events(
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
    let mut events: Vec<Event> = found.into_iter().filter(same).collect();
    events.sort_by_key(tell::when);
    let skip = events.len().saturating_sub(MAX_EVENTS);
    events.split_off(skip)
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
