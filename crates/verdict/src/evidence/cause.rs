//! Which pods have the same fault: it is told once for all of them.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pods;

/// Reasons of a container whose image cannot be had; the kubelet alternates between them.
const NO_IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// What is wrong with a pod, without what differs between pods of the same fault: names, times, counts.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    /// Of each container at fault.
    Containers(Vec<(String, ContainerCause)>),
    /// The pod has none, or none is at fault: its phase and reason, or why it cannot be scheduled.
    Pod(String),
}

#[derive(Debug, PartialEq, Eq)]
enum ContainerCause {
    NoImage(String),
    /// It ends, is started again and ends again; what it is doing at the moment says nothing.
    Ends(i32, String),
    Waits(String),
    NotReady,
    Ready(Option<i32>),
}

/// Groups pods by their cause. Groups and their members keep the order in which they come.
pub fn together<'a>(all: impl IntoIterator<Item = &'a Pod>) -> Vec<Vec<&'a Pod>> {
    let mut groups: Vec<(Cause, Vec<&'a Pod>)> = Vec::new();
    for pod in all {
        let cause = of(pod);
        match groups.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, pods)) => pods.push(pod),
            None => groups.push((cause, vec![pod])),
        }
    }
    groups.into_iter().map(|(_, pods)| pods).collect()
}

/// Not ready, and not one that completed.
pub fn at_fault(status: &ContainerStatus) -> bool {
    let ended_well = status
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|ended| ended.exit_code == 0);
    !status.ready && !ended_well
}

fn of(pod: &Pod) -> Cause {
    let named = |status: &ContainerStatus| (status.name.clone(), of_container(status));
    let wrong: Vec<_> = pods::containers(pod)
        .filter(|one| at_fault(one))
        .map(named)
        .collect();
    if !wrong.is_empty() {
        return Cause::Containers(wrong);
    }
    let status = pod.status.as_ref();
    let all: Vec<_> = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(named)
        .collect();
    if !all.is_empty() {
        return Cause::Containers(all);
    }
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let words = match (unscheduled, status) {
        (Some(condition), _) => [&condition.reason, &condition.message],
        (None, Some(status)) => [&status.phase, &status.reason],
        (None, None) => [&None, &None],
    };
    Cause::Pod(words.map(|text| text.as_deref().unwrap_or_default()).join(": "))
}

fn of_container(status: &ContainerStatus) -> ContainerCause {
    let code = pods::exit_code(status);
    if status.ready {
        return ContainerCause::Ready(code);
    }
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let waiting = waiting.map(|waiting| waiting.reason.clone().unwrap_or_default());
    if waiting
        .as_deref()
        .is_some_and(|reason| NO_IMAGE.contains(&reason))
    {
        return ContainerCause::NoImage(status.image.clone());
    }
    let last = status.last_state.as_ref();
    let ended = state
        .and_then(|state| state.terminated.as_ref())
        .or_else(|| last.and_then(|last| last.terminated.as_ref()));
    match (ended, waiting) {
        (Some(ended), _) => ContainerCause::Ends(ended.exit_code, ended.reason.clone().unwrap_or_default()),
        (None, Some(reason)) => ContainerCause::Waits(reason),
        (None, None) => ContainerCause::NotReady,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value)] // what `json!` makes

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::together;

    fn pod(name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    fn container(more: Value) -> Value {
        let mut status =
            json!({"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"containerStatuses": [status]})
    }

    fn grouped(pods: &[Pod]) -> Vec<Vec<&str>> {
        together(pods)
            .into_iter()
            .map(|group| {
                group
                    .into_iter()
                    .filter_map(|pod| pod.metadata.name.as_deref())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn pods_of_one_fault_are_together_whatever_they_do_at_the_moment() {
        let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error"}});
        let back_off = |name: &str, restarts: u32, code: i32| {
            let message = format!("back-off {restarts}0s restarting failed container=app pod={name}_ns(uid)");
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
            pod(
                name,
                container(json!({"state": waiting, "restartCount": restarts, "lastState": ended(code)})),
            )
        };
        let pods = [
            back_off("a", 1, 3),
            back_off("b", 4, 3),
            back_off("c", 2, 1),
            // Just ended, and running again for a moment.
            pod("d", container(json!({"state": ended(3)}))),
            pod(
                "e",
                container(json!({"state": {"running": {}}, "restartCount": 3, "lastState": ended(3)})),
            ),
            pod("f", container(json!({"state": {"running": {}}}))),
            pod(
                "g",
                container(json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "1"}}})),
            ),
            pod(
                "h",
                container(json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "2"}}})),
            ),
            pod(
                "i",
                container(json!({"state": {"waiting": {"reason": "CreateContainerConfigError"}}})),
            ),
            pod("j", container(json!({"state": {"running": {}}, "ready": true}))),
            pod("k", container(json!({"state": {"running": {}}, "ready": true}))),
            pod(
                "l",
                container(json!({"state": {"running": {}}, "ready": true, "lastState": ended(5)})),
            ),
        ];
        assert_eq!(
            grouped(&pods),
            [
                &["a", "b", "d", "e"][..],
                &["c"],
                &["f"],
                &["g", "h"],
                &["i"],
                &["j", "k"],
                &["l"],
            ]
        );
    }

    #[test]
    fn pods_without_containers_are_together_by_what_the_cluster_says_of_them() {
        let unscheduled = |name: &str, message: &str| {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
            pod(name, json!({"phase": "Pending", "conditions": [condition]}))
        };
        let pods = [
            unscheduled("a", "0/3 nodes are available"),
            unscheduled("b", "0/3 nodes are available"),
            unscheduled("c", "persistentvolumeclaim not found"),
            pod(
                "d",
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory: 1 Mi"}),
            ),
            pod(
                "e",
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory: 2 Mi"}),
            ),
            pod("f", json!({})),
        ];
        assert_eq!(grouped(&pods), [&["a", "b"][..], &["c"], &["d", "e"], &["f"]]);
    }

    /// One container of two at fault is another fault than both.
    #[test]
    fn each_container_counts() {
        let of = |name: &str, ready: bool| {
            let running = json!({"running": {}});
            let one = |container: &str, ready: bool| json!({"name": container, "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": running});
            pod(
                name,
                json!({"containerStatuses": [one("app", false), one("proxy", ready)]}),
            )
        };
        let pods = [of("a", true), of("b", false), of("c", true)];
        assert_eq!(grouped(&pods), [&["a", "c"][..], &["b"]]);
    }
}
