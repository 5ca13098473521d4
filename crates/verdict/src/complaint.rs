//! What the cluster itself complains about in its events: failing probes, quotas, volumes.

use k8s_openapi::{
    api::core::v1::{Event, Pod},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use slipway_model::Timestamp;

use crate::{
    Observed, cut, micros,
    pods::{self, Current},
};

/// The complaint that a person should know of: about a pod of the current version that is not ready, or about what
/// should create the pods.
pub(crate) fn most_telling(current: &Current<'_>, observed: &Observed, now: Timestamp) -> Option<String> {
    let unready: Vec<&Pod> = pods::living(&current.pods)
        .filter(|pod| !pods::is_ready(pod))
        .collect();
    let about_pods = observed.events.iter().filter_map(|event| {
        let pod = unready
            .iter()
            .find(|pod| is_about(event, pod.metadata.uid.as_deref()))?;
        let words = format!("pod {}: {}", pods::name(pod), describe(event, now)?);
        Some((last_seen(event), words))
    });
    let newest = |one: &(Option<Timestamp>, String), other: &(Option<Timestamp>, String)| {
        // By text among equals, so that the message does not jump from pod to pod.
        one.0.cmp(&other.0).then_with(|| other.1.cmp(&one.1))
    };
    about_pods.max_by(newest).map(|(_, words)| words).or_else(|| {
        let refusals = observed
            .events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("FailedCreate"));
        let of_makers = refusals.filter(|event| {
            let set = current.replica_set.and_then(|set| set.metadata.uid.as_deref());
            let own = observed
                .workload
                .as_ref()
                .and_then(|live| live.metadata().uid.as_deref());
            [set, own]
                .iter()
                .any(|uid| uid.is_some() && is_about(event, *uid))
        });
        of_makers
            .map(|event| (last_seen(event), pods::not_created(event.message.as_deref())))
            .max_by(newest)
            .map(|(_, words)| words)
    })
}

/// A message about what is missing, and the complaint where the pods' own states do not tell why.
pub(crate) fn added(message: String, current: &Current<'_>, observed: &Observed, now: Timestamp) -> String {
    if pods::worst(&current.pods).is_some() {
        return message;
    }
    let refused = current.replica_set.and_then(pods::refused);
    let cause = refused
        .map(|refused| refused.words)
        .or_else(|| most_telling(current, observed, now));
    match cause {
        Some(cause) if !message.contains(&cause) => format!("{message}; {cause}"),
        _ => message,
    }
}

fn is_about(event: &Event, uid: Option<&str>) -> bool {
    uid.is_some() && event.involved_object.uid.as_deref() == uid
}

/// What an event says of a pod that is not ready; nothing for those that its state tells already.
fn describe(event: &Event, now: Timestamp) -> Option<String> {
    let message = event.message.as_deref().unwrap_or_default().trim();
    let words = match event.reason.as_deref()? {
        "Unhealthy" => probe(message),
        reason @ ("FailedMount"
        | "FailedAttachVolume"
        | "FailedMapVolume"
        | "FailedCreatePodSandBox"
        | "FailedPostStartHook"
        | "NetworkNotReady") => format!("{reason}: {}", cut(message)),
        _ => return None,
    };
    let count = event
        .series
        .as_ref()
        .and_then(|series| series.count)
        .or(event.count)
        .unwrap_or(1);
    let ago = last_seen(event).map(|time| now.since(time).as_secs());
    Some(match (count, ago) {
        (1, Some(ago)) => format!("{words} ({ago} s ago)"),
        (count, Some(ago)) => format!("{words} ({count} times, last {ago} s ago)"),
        (count, None) => format!("{words} ({count} times)"),
    })
}

/// Such as `readiness probe: HTTP 503`.
fn probe(message: &str) -> String {
    let message = message
        .strip_prefix("(combined from similar events): ")
        .unwrap_or(message);
    let parts = message
        .split_once(" probe failed: ")
        .or_else(|| message.split_once(" probe errored: "));
    let Some((kind, why)) = parts.filter(|(kind, _)| matches!(*kind, "Readiness" | "Liveness" | "Startup"))
    else {
        return cut(message);
    };
    let why = why.trim();
    let status = why.strip_prefix("HTTP probe failed with statuscode: ");
    let why = status.map_or_else(|| cut(why), |status| format!("HTTP {status}"));
    format!("{} probe: {why}", kind.to_lowercase())
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let precise = |time: &MicroTime| Timestamp::from_micros(time.0.as_microsecond());
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    series
        .map(precise)
        .or_else(|| {
            event
                .last_timestamp
                .as_ref()
                .map(|time| Timestamp::from_micros(micros(time)))
        })
        .or_else(|| event.event_time.as_ref().map(precise))
}
