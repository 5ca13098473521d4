//! Describes pods, containers, objects and events in words.

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use serde_json::Value;
use slipway_model::Timestamp;
use slipway_verdict::{
    cut,
    evidence::{Redactor, clean},
    pods,
};

/// Cleaned, redacted and cut.
pub(super) fn line(redactor: &Redactor, text: &str) -> String {
    cut(&redactor.text(&clean(text)))
}

/// Such as `CrashLoopBackOff, 3 restarts` or `Running, not ready`.
pub(super) fn state(status: &ContainerStatus) -> String {
    let words = condition(status);
    match status.restart_count {
        0 => words,
        1 => format!("{words}, 1 restart"),
        count => format!("{words}, {count} restarts"),
    }
}

/// The same without what differs between pods of one fault.
pub(super) fn condition(status: &ContainerStatus) -> String {
    let Some(state) = &status.state else {
        return "unknown".to_owned();
    };
    let mut words = if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "waiting".to_owned());
        // The message of a back-off only counts seconds and names the pod.
        let message = waiting.message.as_deref();
        with(reason, message.filter(|message| !message.starts_with("back-off")))
    } else if let Some(ended) = &state.terminated {
        let reason = ended.reason.clone().unwrap_or_else(|| "ended".to_owned());
        with(reason, ended.message.as_deref())
    } else if status.ready {
        "Running, ready".to_owned()
    } else {
        "Running, not ready".to_owned()
    };
    // If it waits to be restarted, what ended the previous run is what matters.
    let before = status
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    if let (None, Some(before)) = (&state.terminated, before)
        && let Some(reason) = before.reason.as_deref().filter(|reason| *reason != "Error")
    {
        words = format!("{words}; before: {reason}");
    }
    words
}

/// For a pod whose containers say nothing: no node, evicted, or not begun.
pub(super) fn pod_state(pod: &Pod) -> String {
    if let Some((_, words)) = pods::ailing(pod) {
        return words;
    }
    let Some(status) = &pod.status else {
        return "unknown".to_owned();
    };
    let phase = status.phase.clone().unwrap_or_else(|| "unknown".to_owned());
    match &status.reason {
        Some(reason) => with(format!("{phase}, {reason}"), status.message.as_deref()),
        None => with(phase, status.message.as_deref()),
    }
}

fn with(reason: String, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {}", cut(message)),
        None => reason,
    }
}

/// What a controller of pods reports as wrong: conditions that mean failure, and Argo's and Flagger's own messages.
pub(super) fn complaint(live: &Value) -> Option<String> {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    let wrong = |condition: &&Value| {
        let of = |field: &str| condition[field].as_str().unwrap_or_default();
        matches!(
            (of("type"), of("status")),
            ("ReplicaFailure" | "Failed" | "InvalidSpec", "True") | ("Progressing" | "Promoted", "False")
        ) || (of("status").is_empty() && of("type").ends_with("Error"))
    };
    let words: Vec<String> = conditions
        .into_iter()
        .flatten()
        .filter(wrong)
        .map(|condition| {
            let of = |field: &str| condition[field].as_str().unwrap_or_default();
            let what = match of("reason") {
                "" => of("type").to_owned(),
                reason => format!("{}, {reason}", of("type")),
            };
            with(what, Some(of("message")))
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// When it happened last, in microseconds.
pub(super) fn when(event: &Event) -> Option<i64> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let last = event.last_timestamp.as_ref().map(slipway_verdict::micros);
    series
        .or(event.event_time.as_ref())
        .map(|time| time.0.as_microsecond())
        .max(last)
}

/// Those that say something about this deployment, oldest first: since it began; warnings alone, where there are any; the
/// last ones.
pub(super) fn relevant(mut events: Vec<Event>, since: Timestamp, most: usize) -> Vec<Event> {
    // Old events have whole seconds.
    let second = since.as_micros().div_euclid(1_000_000) * 1_000_000;
    events.retain(|event| when(event).is_none_or(|when| when >= second));
    let warns = |event: &Event| event.type_.as_deref() == Some("Warning");
    if events.iter().any(warns) {
        events.retain(warns);
    }
    events.sort_by_key(when);
    let skip = events.len().saturating_sub(most);
    events.split_off(skip)
}

/// Oldest first, in the order of arrival.
pub(super) fn events(redactor: &Redactor, events: &[Event]) -> Vec<String> {
    events.iter().map(|event| line(redactor, &words(event))).collect()
}

/// Such as `Warning BackOff (3x): Back-off restarting failed container`.
fn words(event: &Event) -> String {
    let kind = event.type_.as_deref().unwrap_or("Normal");
    let reason = event.reason.as_deref().unwrap_or("Unknown");
    let series = event.series.as_ref().and_then(|series| series.count);
    let times = series
        .or(event.count)
        .filter(|count| *count > 1)
        .map(|count| format!(" ({count}x)"))
        .unwrap_or_default();
    format!(
        "{kind} {reason}{times}: {}",
        event.message.as_deref().unwrap_or_default().trim()
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
    use serde_json::{Value, json};
    use slipway_verdict::evidence::Redactor;

    use slipway_model::Timestamp;
    use slipway_verdict::evidence::at_fault;

    use super::{complaint, condition, events, pod_state, relevant, state, when};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    fn container(more: &Value) -> ContainerStatus {
        let mut status =
            json!({"name": "shop", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        of(status)
    }

    #[test]
    fn containers_tell_how_they_are() {
        for (more, words, fault) in [
            (json!({}), "unknown", true),
            (
                json!({"state": {"running": {}}, "ready": true}),
                "Running, ready",
                false,
            ),
            (json!({"state": {"running": {}}}), "Running, not ready", true),
            (
                json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}),
                "ImagePullBackOff: not found",
                true,
            ),
            (
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=shop"}}, "restartCount": 3,
                       "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}),
                "CrashLoopBackOff; before: OOMKilled, 3 restarts",
                true,
            ),
            (
                json!({"state": {"running": {}}, "restartCount": 1,
                       "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}),
                "Running, not ready, 1 restart",
                true,
            ),
            (
                json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}),
                "Completed",
                false,
            ),
            (
                json!({"state": {"terminated": {"exitCode": 2, "reason": "Error", "message": "no disk"}}}),
                "Error: no disk",
                true,
            ),
        ] {
            let status = container(&more);
            assert_eq!((state(&status).as_str(), at_fault(&status)), (words, fault));
            assert!(!condition(&status).contains("restart"));
        }
    }

    #[test]
    fn pods_without_containers_tell_why() {
        let unscheduled = json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let evicted = json!({"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}});
        for (pod, words) in [
            (unscheduled, "pod p cannot be scheduled: 0/3 nodes are available"),
            (evicted, "pod p: Evicted: low on memory"),
            (json!({"status": {"phase": "Pending"}}), "Pending"),
            (json!({}), "unknown"),
        ] {
            assert_eq!(pod_state(&of::<Pod>(pod)), words);
        }
    }

    #[test]
    fn makers_of_pods_tell_what_is_wrong() {
        let conditions = |list: Value| json!({"status": {"conditions": list}});
        for (live, words) in [
            (json!({}), None),
            (
                conditions(json!([{"type": "Available", "status": "False"}])),
                None,
            ),
            (
                conditions(json!([{"type": "Progressing", "status": "True", "reason": "x"}])),
                None,
            ),
            (
                conditions(
                    json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}]),
                ),
                Some("ReplicaFailure, FailedCreate: exceeded quota: q"),
            ),
            (
                conditions(json!([
                    {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached it"},
                    {"type": "Promoted", "status": "False", "message": "Canary analysis failed"}
                ])),
                Some("Failed, BackoffLimitExceeded: Job has reached it; Promoted: Canary analysis failed"),
            ),
            (
                conditions(json!([{"type": "ComparisonError", "message": "no such path"}])),
                Some("ComparisonError: no such path"),
            ),
        ] {
            assert_eq!(complaint(&live).as_deref(), words);
        }
    }

    #[test]
    fn events_are_told_with_how_often() {
        let event = |more: Value| -> Event {
            let mut event = json!({"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "BackOff", "message": "m "});
            event
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            of(event)
        };
        let told = |event: Event| events(&Redactor::default(), &[event]).remove(0);
        assert_eq!(told(event(json!({}))), "Warning BackOff: m");
        assert_eq!(told(event(json!({"count": 3}))), "Warning BackOff (3x): m");
        assert_eq!(
            told(event(json!({"series": {"count": 4}}))),
            "Warning BackOff (4x): m"
        );
        assert_eq!(
            told(event(
                json!({"message": "\u{1b}[1mpull https://bob:pw@registry/x failed"})
            )),
            "Warning BackOff: pull https://[redacted]@registry/x failed"
        );
        // Of this deployment's time, the warnings alone, where there are any, and the last ones.
        let at = |kind: &str, reason: &str, second: u32| {
            let time = format!("2026-01-01T00:00:{second:02}Z");
            event(json!({"type": kind, "reason": reason, "lastTimestamp": time}))
        };
        let since: Timestamp = "2026-01-01T00:00:10.4Z".parse().unwrap();
        let reasons = |events: Vec<Event>, most| {
            let events = relevant(events, since, most);
            events
                .into_iter()
                .filter_map(|event| event.reason)
                .collect::<Vec<_>>()
        };
        let all = || {
            vec![
                at("Normal", "Pulled", 30),
                at("Warning", "BackOff", 20),
                at("Warning", "Failed", 10),
                at("Warning", "Unhealthy", 9),
                at("Normal", "Completed", 1),
            ]
        };
        assert_eq!(reasons(all(), 5), ["Failed", "BackOff"]);
        assert_eq!(reasons(all(), 1), ["BackOff"]);
        let normal = vec![
            at("Normal", "Completed", 1),
            at("Normal", "Pulled", 30),
            event(json!({"type": "Normal"})),
        ];
        assert_eq!(
            reasons(normal, 5),
            ["BackOff", "Pulled"],
            "one without a time stays"
        );
        let old = event(json!({"lastTimestamp": "2026-01-01T00:00:00Z"}));
        let new = event(json!({"eventTime": "2026-01-01T00:00:00.5Z"}));
        assert!(when(&old) < when(&new));
        let again = event(
            json!({"eventTime": "2025-01-01T00:00:00.5Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.5Z"}}),
        );
        assert!(when(&new) < when(&again));
    }
}
