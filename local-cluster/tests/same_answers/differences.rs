//! Where local-cluster answers differently, and why that is right.

use super::compare::Difference;

/// A request and a field, each with `*` for anything, and the reason: the release after 1.20.2 that changed it, as far
/// as known, or what local-cluster does otherwise by design (see its README).
type Expected = (&'static str, &'static str, &'static str);

const TYPES: &str = "by design: the words of the decoder, which are others in each release as well";
const VALUES: &str = "values are shown as JSON since 1.34";
const NESTED: &str = "a struct of which nobody has a field any more goes with its defaults since 1.20.6 and 1.21 (structured-merge-diff 4.0.3)";
const SUBRESOURCE: &str =
    "writes of subresources are recorded by themselves, and what they cannot change is not, after 1.20";
const STATUS: &str = "a status that a write cannot change is not recorded, after 1.20";
const NO_TOKEN: &str = "by design: nothing is mounted; since 1.24 tokens are not in secrets either";
const PORTS: &str = "by design: where the ports of a pod are is in an annotation";
const NOT_SERVED: &str = "by design: what is not served is answered with what is";
const JOB_LABELS: &str = "labels with a prefix since 1.27";
const JOB_FIELDS: &str = "a field of Jobs after 1.20";
const JOB_STATUS: &str = "a column of Jobs since 1.31";
const REPORTER: &str = "filled in after 1.20";
const RESTARTS: &str = "restarts are text with their age since 1.22";
const NAMESPACE_LABEL: &str = "a label with the namespace's name since 1.21";
const SERVICE_FIELDS: &str = "filled in since 1.21 or 1.22";

const EXPECTED: &[Expected] = &[
    // Server-side apply and what is recorded of writes.
    ("apply/a probe of another kind", "*", NESTED),
    ("apply/recreate instead of some", "*", NESTED),
    (
        "*service*",
        "*/fieldsV1/f:spec/f:selector/*",
        "a Service's selector is owned as a whole since 1.21",
    ),
    ("*", "*/managedFields/0/fieldsV1/f:status", STATUS),
    ("pods/no pods", "/body/metadata/managedFields", SUBRESOURCE),
    (
        "definitions/*status*",
        "/body/metadata/managedFields",
        SUBRESOURCE,
    ),
    (
        "definitions/table",
        "/body/rows/0/object/metadata/managedFields",
        SUBRESOURCE,
    ),
    (
        "*",
        "*/template/metadata/creationTimestamp",
        "omitted when it is null since 1.34",
    ),
    // Refusals.
    ("apply/a value of the wrong type", "/body/message", TYPES),
    ("refusals/a bad quantity", "/body/message", TYPES),
    ("refusals/a number for text", "/body/message", TYPES),
    ("refusals/not an object", "/body/message", TYPES),
    (
        "refusals/a request above its limit",
        "*/message",
        "names the limit after 1.20",
    ),
    ("refusals/a selector *", "*/message", VALUES),
    ("refusals/no progress allowed", "*/message", VALUES),
    ("jobs/a job cannot be changed", "*/message", VALUES),
    (
        "kinds/a stateful set cannot be changed there",
        "*/message",
        "more fields may be changed after 1.20",
    ),
    (
        "definitions/a value of the wrong type",
        "/body/details/causes/0/reason",
        "a reason of its own since 1.24",
    ),
    ("refusals/an unknown resource", "/body/message", NOT_SERVED),
    ("refusals/an unknown group", "/body", NOT_SERVED),
    ("refusals/an unknown path", "/body/*", NOT_SERVED),
    (
        "pods/a pod cannot be changed",
        "*/message",
        "by design: nothing of a pod's spec can be changed",
    ),
    // Services and the proxy.
    ("*service*", "*nternalTrafficPolicy", SERVICE_FIELDS),
    ("apply/a new service", "/body/spec/ipFamil*", SERVICE_FIELDS),
    (
        "lists/table of services",
        "/body/rows/0/cells/2",
        "by design: Services have no address",
    ),
    ("pods/proxy to a closed port", "/code", "503 since 1.21"),
    ("pods/proxy to a closed port", "/body/code", "503 since 1.21"),
    ("pods/proxy to a closed port", "/body/reason", "503 since 1.21"),
    (
        "pods/proxy to a closed port",
        "/body/message",
        "by design: ports are mapped, so there is none to try",
    ),
    // Tables.
    (
        "*",
        "*/columnDefinitions/*/description",
        "by design: columns have no descriptions",
    ),
    ("*/table of nothing", "/body/columnDefinitions", JOB_STATUS),
    ("jobs/table of jobs", "/body/columnDefinitions", JOB_STATUS),
    ("jobs/table of jobs", "/body/rows/0/cells", JOB_STATUS),
    ("*/table of *", "/body/columnDefinitions/3/type", RESTARTS),
    ("pods/table of pods", "/body/rows/0/cells/3", RESTARTS),
    ("failing/table of a crash loop", "/body/rows/0/cells/3", RESTARTS),
    // Pods.
    ("*", "*/spec/volumes", NO_TOKEN),
    ("*", "*/spec/containers/0/volumeMounts", NO_TOKEN),
    ("*", "*/status/hostIPs", "a field since 1.28"),
    ("*/pods*", "/body/items/0/metadata/annotations", PORTS),
    ("failing/a *", "/body/items/0/metadata/annotations", PORTS),
    ("*/table of *", "/body/rows/0/object/metadata/annotations", PORTS),
    ("kinds/its pod", "/body/metadata/annotations", PORTS),
    (
        "kinds/its pod",
        "/body/metadata/labels/apps.kubernetes.io~1pod-index",
        "a label since 1.28",
    ),
    // Events.
    ("*/event*", "/body/items/*/reportingComponent", REPORTER),
    ("*/event*", "/body/items/*/reportingInstance", REPORTER),
    (
        "pods/events of the deployment",
        "/body/items/0/message",
        "since 1.31 it says from how many",
    ),
    (
        "pods/event when a container is created",
        "/body/items/0/message",
        "with a colon after 1.20",
    ),
    (
        "failing/events of a back-off",
        "/body/items/0/message",
        "names the container after 1.20",
    ),
    // Jobs.
    ("jobs/*", "*batch.kubernetes.io~1*", JOB_LABELS),
    (
        "jobs/*",
        "/body/spec/selector/matchLabels/controller-uid",
        JOB_LABELS,
    ),
    ("jobs/*", "*ompletionMode", JOB_FIELDS),
    ("jobs/*", "*odReplacementPolicy", JOB_FIELDS),
    ("jobs/*", "*uspend", JOB_FIELDS),
    ("jobs/*", "*/metadata/generation", JOB_FIELDS),
    ("jobs/*", "/body/status/ready", JOB_FIELDS),
    ("jobs/*", "/body/status/terminating", JOB_FIELDS),
    ("jobs/*", "/body/status/uncountedTerminatedPods", JOB_FIELDS),
    (
        "jobs/*",
        "/body/status/conditions",
        "why it ends is a condition of its own, since 1.31",
    ),
    // The other kinds.
    ("kinds/*", "*axSurge", "a field of DaemonSets after 1.20"),
    (
        "kinds/*",
        "*ersistentVolumeClaimRetentionPolicy",
        "filled in since 1.27",
    ),
    (
        "kinds/*",
        "/body/status/availableReplicas",
        "a field of StatefulSets after 1.20",
    ),
    ("namespaces/*", "*/metadata/labels", NAMESPACE_LABEL),
    ("namespaces/*", "*/fieldsV1/f:metadata", NAMESPACE_LABEL),
];

/// Differences that nothing explains, and explanations that explain nothing.
pub(crate) fn unexpected(found: &[Difference]) -> Vec<String> {
    let explains = |(request, field, _): &Expected, difference: &Difference| {
        matches(request, &difference.request) && matches(field, &difference.field)
    };
    let unexplained = found
        .iter()
        .filter(|difference| !EXPECTED.iter().any(|expected| explains(expected, difference)))
        .map(ToString::to_string);
    let idle = EXPECTED
        .iter()
        .filter(|expected| !found.iter().any(|difference| explains(expected, difference)))
        .map(|(request, field, reason)| format!("no longer differs: {request} {field} ({reason})"));
    unexplained.chain(idle).collect()
}

/// Whether the text is as the pattern, in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |last| {
        last.is_empty() || rest.is_empty() || text.ends_with(last)
    })
}
