//! A pod's status as the kubelet writes it, from the states of its containers.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{self, condition, list, text};

/// One container's part of the status.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) image: String,
    /// `{"waiting"|"running"|"terminated": {…}}`
    pub(crate) state: Value,
    pub(crate) last_state: Value,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) restarts: i64,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
}

pub(crate) fn waiting(reason: &str, message: &str) -> Value {
    if message.is_empty() {
        json!({"waiting": {"reason": reason}})
    } else {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

pub(crate) fn terminated(code: i32, started: &Value, now: Timestamp, container_id: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started,
                          "finishedAt": object::stamp(now), "containerID": container_id}})
}

impl ContainerStatus {
    /// How a container begins: fresh, or from the stored status before a restart of the cluster.
    pub(crate) fn begin(container: &Value, pod: &Value, now: Timestamp) -> Self {
        let name = text(container, &["name"]);
        let stored = list(pod, &["status", "containerStatuses"])
            .iter()
            .find(|status| status["name"] == name);
        let stored = stored.unwrap_or(&Value::Null);
        let mut restarts = stored["restartCount"].as_i64().unwrap_or(0);
        let mut last_state = stored.get("lastState").cloned().unwrap_or_else(|| json!({}));
        let running = &stored["state"]["running"];
        if running.is_object() {
            // It was running when the cluster ended, so its end was not observed. A reboot of a node looks like this.
            restarts += i64::from(text(pod, &["spec", "restartPolicy"]) != "Never");
            last_state = terminated(255, &running["startedAt"], now, text(stored, &["containerID"]));
            last_state["terminated"]["reason"] = json!("Unknown");
        } else if stored["state"]["terminated"].is_object() {
            last_state = stored["state"].clone();
            restarts += i64::from(text(pod, &["spec", "restartPolicy"]) == "Always");
        }
        Self {
            name: name.to_owned(),
            image: text(container, &["image"]).to_owned(),
            state: waiting("ContainerCreating", ""),
            last_state,
            ready: false,
            started: false,
            restarts,
            image_id: text(stored, &["imageID"]).to_owned(),
            container_id: text(stored, &["containerID"]).to_owned(),
        }
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "name": self.name, "image": self.image, "imageID": self.image_id, "state": self.state,
            "lastState": self.last_state, "ready": self.ready, "started": self.started,
            "restartCount": self.restarts,
        });
        if !self.container_id.is_empty() {
            value["containerID"] = json!(self.container_id);
        }
        value
    }

    fn is(&self, state: &str) -> bool {
        self.state[state].is_object()
    }
}

/// The pod's phase (`kubelet.getPhase`).
fn phase(containers: &[ContainerStatus], restart_policy: &str) -> &'static str {
    let never_ran = |c: &&ContainerStatus| c.is("waiting") && !c.last_state["terminated"].is_object();
    if containers.iter().any(|c| never_ran(&c)) {
        return "Pending";
    }
    let over = containers.iter().all(|c| c.is("terminated"));
    if !over || restart_policy == "Always" {
        return "Running";
    }
    let failed = containers.iter().any(|c| c.state["terminated"]["exitCode"] != 0);
    match (failed, restart_policy) {
        (false, _) => "Succeeded",
        (true, "OnFailure") => "Running",
        (true, _) => "Failed",
    }
}

/// The pod with the status that follows from its containers; the times of unchanged conditions stay.
pub(crate) fn write(pod: &Value, containers: &[ContainerStatus], now: Timestamp) -> Value {
    let mut new = pod.clone();
    let phase = phase(containers, text(pod, &["spec", "restartPolicy"]));
    let unready: Vec<&str> = containers
        .iter()
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let stamp = object::stamp(now);
    let (ready, reason, message) = match (unready.is_empty(), phase) {
        (true, _) => ("True", None, String::new()),
        (false, "Succeeded") => ("False", Some("PodCompleted"), String::new()),
        (false, "Failed") => ("False", Some("PodFailed"), String::new()),
        (false, _) => (
            "False",
            Some("ContainersNotReady"),
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let conditions: Vec<Value> = [
        (
            "Initialized",
            "True",
            reason.filter(|reason| *reason == "PodCompleted"),
        ),
        ("Ready", ready, reason),
        ("ContainersReady", ready, reason),
        ("PodScheduled", "True", None),
    ]
    .into_iter()
    .map(|(kind, status, reason)| {
        let since = condition(pod, kind).filter(|old| old["status"] == status);
        let since = since.map_or_else(|| json!(stamp), |old| old["lastTransitionTime"].clone());
        let mut condition =
            json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
        if let Some(reason) = reason {
            condition["reason"] = json!(reason);
            if !message.is_empty() {
                condition["message"] = json!(message);
            }
        }
        condition
    })
    .collect();
    let start = match text(pod, &["status", "startTime"]) {
        "" => stamp,
        start => start.to_owned(),
    };
    let statuses: Vec<Value> = containers.iter().map(ContainerStatus::to_value).collect();
    new["status"] = json!({
        "phase": phase, "conditions": conditions, "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "startTime": start,
        "containerStatuses": statuses, "qosClass": text(pod, &["status", "qosClass"]),
    });
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: Value, last_state: Value) -> ContainerStatus {
        ContainerStatus {
            name: "app".to_owned(),
            image: "a".to_owned(),
            state,
            last_state,
            ready: false,
            started: false,
            restarts: 0,
            image_id: String::new(),
            container_id: String::new(),
        }
    }

    #[test]
    fn the_phase_follows_the_containers() {
        let over = |code: i32| json!({"terminated": {"exitCode": code}});
        let table = [
            (waiting("ContainerCreating", ""), json!({}), "Always", "Pending"),
            (waiting("CrashLoopBackOff", ""), over(1), "Always", "Running"),
            (json!({"running": {}}), json!({}), "Always", "Running"),
            (over(0), json!({}), "Always", "Running"),
            (over(0), json!({}), "Never", "Succeeded"),
            (over(1), json!({}), "Never", "Failed"),
            (over(1), json!({}), "OnFailure", "Running"),
        ];
        for (state, last, policy, expected) in table {
            assert_eq!(
                phase(&[container(state.clone(), last)], policy),
                expected,
                "{state} {policy}"
            );
        }
    }

    #[test]
    fn conditions_keep_their_time_while_they_say_the_same() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let pod = json!({"spec": {"restartPolicy": "Always"}, "status": {}});
        let mut app = container(json!({"running": {}}), json!({}));
        let first = write(&pod, std::slice::from_ref(&app), at(1));
        let second = write(&first, std::slice::from_ref(&app), at(2));
        assert_eq!(first, second);
        app.ready = true;
        let third = write(&second, &[app], at(3));
        assert_eq!(
            condition(&third, "Ready").unwrap()["lastTransitionTime"],
            "1970-01-01T00:00:03Z"
        );
        assert_eq!(
            condition(&third, "PodScheduled").unwrap()["lastTransitionTime"],
            "1970-01-01T00:00:01Z"
        );
    }

    #[test]
    fn a_container_that_ran_when_the_cluster_ended_was_restarted() {
        let stored = json!({"status": {"containerStatuses": [{"name": "app", "restartCount": 2, "imageID": "i",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}}]}});
        let status = ContainerStatus::begin(
            &json!({"name": "app", "image": "a"}),
            &stored,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (status.restarts, &status.last_state["terminated"]["exitCode"]),
            (3, &json!(255))
        );
        let fresh = ContainerStatus::begin(
            &json!({"name": "app", "image": "a"}),
            &json!({}),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!((fresh.restarts, fresh.last_state), (0, json!({})));
    }
}
