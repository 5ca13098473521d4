//! What a person needs to see when a deployment failed: pods at fault, why their containers ended, their last log
//! lines and the cluster's events about them. Bounded in size; what cannot be read is left out, not waited for.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ContainerStatus, Event, Pod},
};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use slipway_verdict::{
    Observed, Target, cut, deployment::current_pods, evidence::PodEvidence, pods as faults,
};

use super::{ApiFault, Kubernetes, call};

/// Lines of log kept per container and run.
const LOG_LINES: i64 = 50;
/// Longest line kept, in characters.
const LINE: usize = 500;
/// All log lines of one deployment together, in bytes: evidence is stored in an event and shown in API answers.
const ALL_LOGS: usize = 32 * 1024;
/// Read at most so much of one log, in bytes.
const READ: i64 = 64 * 1024;
const MAX_PODS: usize = 3;
const MAX_EVENTS: usize = 10;
/// For everything together.
const TIME: Duration = Duration::from_secs(20);

/// Collects the evidence of one target now.
///
/// # Errors
/// When the API server cannot be asked at all.
pub async fn collect(cluster: &Kubernetes, target: &Target) -> Result<Vec<PodEvidence>, ApiFault> {
    tokio::time::timeout(TIME, gather(cluster, target))
        .await
        .unwrap_or_else(|_| {
            Err(ApiFault::Away(format!(
                "evidence: not collected within {} s",
                TIME.as_secs()
            )))
        })
}

async fn gather(cluster: &Kubernetes, target: &Target) -> Result<Vec<PodEvidence>, ApiFault> {
    let client = cluster.client();
    let namespace = target.namespace.as_str();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let Some(live) = call("read the Deployment", deployments.get_opt(&target.name)).await? else {
        return Ok(Vec::new());
    };
    let labels = live
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .unwrap_or_default();
    let selector: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let list = ListParams::default().labels(&selector.join(","));
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let observed = Observed {
        workload: None,
        primary: None,
        gone: false,
        replica_sets: call("list ReplicaSets", sets.list(&list))
            .await?
            .items
            .into_iter()
            .map(Into::into)
            .collect(),
        pods: call("list pods", pods.list(&list))
            .await?
            .items
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    let current = current_pods(&live, &observed);
    let mut suspects = current.pods.clone();
    // The worst first, then those not ready, then the others: a failed check has no pod at fault, and logs still help.
    suspects.sort_by_key(|pod| {
        let weight = faults::ailing(pod).map_or(0, |(weight, _)| weight);
        (std::cmp::Reverse(weight), ready(pod), pod.metadata.name.clone())
    });
    suspects.truncate(MAX_PODS);
    let mut evidence = Vec::new();
    if let (true, Some(set)) = (suspects.is_empty(), current.replica_set) {
        // No pod at all: quota or admission tells in the ReplicaSet's events.
        let name = set.metadata.name.clone().unwrap_or_default();
        let events = events(cluster, namespace, &name).await;
        if !events.is_empty() {
            evidence.push(PodEvidence {
                pod: name,
                container: String::new(),
                state: "no pods".to_owned(),
                exit_code: None,
                log_tail: Vec::new(),
                previous_log_tail: Vec::new(),
                events,
            });
        }
    }
    for pod in suspects {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let events = events(cluster, namespace, &name).await;
        let mut containers: Vec<&ContainerStatus> =
            faults::containers(pod).filter(|one| at_fault(one)).collect();
        if containers.is_empty() {
            containers = pod
                .status
                .iter()
                .flat_map(|status| status.container_statuses.iter().flatten())
                .collect();
        }
        for status in containers {
            evidence.push(PodEvidence {
                pod: name.clone(),
                container: status.name.clone(),
                state: state(status),
                exit_code: faults::exit_code(status),
                log_tail: logs(&pods, &name, status).await,
                previous_log_tail: Vec::new(),
                events: events.clone(),
            });
        }
        if faults::containers(pod).next().is_none() {
            let state = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.clone())
                .unwrap_or_default();
            let container = String::new();
            evidence.push(PodEvidence {
                pod: name,
                container,
                state,
                exit_code: None,
                log_tail: Vec::new(),
                previous_log_tail: Vec::new(),
                events,
            });
        }
    }
    bound(&mut evidence);
    Ok(evidence)
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Not ready, and not an init container that did its work.
fn at_fault(status: &ContainerStatus) -> bool {
    let ended_well = status
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|ended| ended.exit_code == 0);
    !status.ready && !ended_well
}

fn state(status: &ContainerStatus) -> String {
    let Some(state) = &status.state else {
        return "unknown".to_owned();
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "waiting".to_owned());
        return match waiting.message.as_deref() {
            Some(message) => format!("{reason}: {}", cut(message)),
            None => reason,
        };
    }
    if let Some(ended) = &state.terminated {
        return ended.reason.clone().unwrap_or_else(|| "ended".to_owned());
    }
    if status.ready {
        "Running, ready".to_owned()
    } else {
        "Running, not ready".to_owned()
    }
}

/// The last lines of the run before and of the present one.
async fn logs(pods: &Api<Pod>, pod: &str, status: &ContainerStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let runs: &[bool] = if status.restart_count > 0 {
        &[true, false]
    } else {
        &[false]
    };
    for previous in runs {
        let parameters = LogParams {
            container: Some(status.name.clone()),
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(READ),
            previous: *previous,
            ..LogParams::default()
        };
        match call("read the log", pods.logs(pod, &parameters)).await {
            Ok(text) => {
                let all: Vec<&str> = text.lines().collect();
                let last = all.len().saturating_sub(usize::try_from(LOG_LINES).unwrap_or(0));
                lines.extend(all[last..].iter().map(|line| clean(line)));
            }
            // A container that never started has no log, and its state says so.
            Err(error) => tracing::debug!(pod, %error, "no log"),
        }
    }
    lines
}

/// One line without control characters, cut.
fn clean(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .take(LINE)
        .collect()
}

/// The cluster's events about one object, oldest first.
async fn events(cluster: &Kubernetes, namespace: &str, name: &str) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(cluster.client().clone(), namespace);
    let list = ListParams::default()
        .fields(&format!("involvedObject.name={name}"))
        .limit(100);
    let found = match call("list events", api.list(&list)).await {
        Ok(found) => found.items,
        Err(error) => {
            tracing::debug!(name, %error, "no events");
            return Vec::new();
        }
    };
    let mut events: Vec<Event> = found
        .into_iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(name))
        .collect();
    events.sort_by_key(|event| {
        let last = event.last_timestamp.as_ref().map(slipway_verdict::micros);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0.as_microsecond()))
    });
    let skip = events.len().saturating_sub(MAX_EVENTS);
    events.iter().skip(skip).map(event_words).collect()
}

/// Such as `Warning BackOff (3x): Back-off restarting failed container`.
fn event_words(event: &Event) -> String {
    let kind = event.type_.as_deref().unwrap_or("Normal");
    let reason = event.reason.as_deref().unwrap_or("Unknown");
    let times = event
        .count
        .filter(|count| *count > 1)
        .map(|count| format!(" ({count}x)"))
        .unwrap_or_default();
    format!(
        "{kind} {reason}{times}: {}",
        cut(event.message.as_deref().unwrap_or_default())
    )
}

/// Drops the oldest lines of the longest logs until all fit.
fn bound(evidence: &mut [PodEvidence]) {
    let size = |one: &PodEvidence| one.log_tail.iter().map(|line| line.len() + 1).sum::<usize>();
    let mut total: usize = evidence.iter().map(size).sum();
    while total > ALL_LOGS {
        let Some(longest) = evidence.iter_mut().max_by_key(|one| size(one)) else {
            return;
        };
        if longest.log_tail.is_empty() {
            return;
        }
        total -= longest.log_tail.remove(0).len() + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL_LOGS, PodEvidence, bound, clean};

    #[test]
    fn logs_are_bounded_from_their_beginning() {
        let one = |count: usize| PodEvidence {
            pod: "p".to_owned(),
            container: "c".to_owned(),
            state: String::new(),
            exit_code: None,
            log_tail: (0..count).map(|line| format!("{line:0>499}")).collect(),
            previous_log_tail: Vec::new(),
            events: Vec::new(),
        };
        let mut evidence = [one(100), one(10)];
        bound(&mut evidence);
        let total: usize = evidence
            .iter()
            .flat_map(|one| &one.log_tail)
            .map(|line| line.len() + 1)
            .sum();
        assert!(total <= ALL_LOGS);
        assert_eq!(evidence[1].log_tail.len(), 10, "the short one stays whole");
        assert!(
            evidence[0].log_tail.last().unwrap().ends_with("99"),
            "the last lines stay"
        );
        assert_eq!(clean("a\u{1b}[31mb\tc\r"), "a[31mb\tc");
    }
}
