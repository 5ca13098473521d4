//! What differs between two answers, and what may differ in any two.

use std::{fmt, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value, json};

/// One field of one answer.
#[derive(Debug)]
pub(crate) struct Difference {
    /// `topic/request`.
    pub(crate) request: String,
    /// A JSON pointer into the answer.
    pub(crate) field: String,
    real: Option<Value>,
    here: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        let (request, field) = (&self.request, &self.field);
        let (real, here) = (word(&self.real), word(&self.here));
        write!(f, "{request} {field}: recorded {real}, here {here}")
    }
}

/// The fields in which the answers of a topic differ.
pub(crate) fn differences(topic: &str, recorded: &Value, given: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    let (recorded, given) = (recorded.as_object().unwrap(), given.as_object().unwrap());
    for name in recorded
        .keys()
        .chain(given.keys().filter(|name| !recorded.contains_key(*name)))
    {
        let request = format!("{topic}/{name}");
        walk(&request, "", recorded.get(name), given.get(name), &mut found);
    }
    found
}

fn walk(request: &str, field: &str, real: Option<&Value>, here: Option<&Value>, found: &mut Vec<Difference>) {
    match (real, here) {
        (Some(Value::Object(real)), Some(Value::Object(here))) => {
            for key in real
                .keys()
                .chain(here.keys().filter(|key| !real.contains_key(*key)))
            {
                let field = format!("{field}/{}", key.replace('~', "~0").replace('/', "~1"));
                walk(request, &field, real.get(key), here.get(key), found);
            }
        }
        (Some(Value::Array(real)), Some(Value::Array(here))) if real.len() == here.len() => {
            for (at, (real, here)) in real.iter().zip(here).enumerate() {
                walk(request, &format!("{field}/{at}"), Some(real), Some(here), found);
            }
        }
        (real, here) if real == here => {}
        (real, here) => found.push(Difference {
            request: request.to_owned(),
            field: field.to_owned(),
            real: real.cloned(),
            here: here.cloned(),
        }),
    }
}

/// Fields whose value is another one each time.
const EACH_TIME: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "startTime",
    "completionTime",
    "startedAt",
    "finishedAt",
    "podIP",
    "hostIP",
    "ip",
    "clusterIP",
    "clusterIPs",
    "podIPs",
    "containerID",
    "nodeName",
    "host",
    "pod-template-hash",
    "controller-uid",
    "continue",
    "uniqueName",
    "controller.kubernetes.io/hash",
    "controller-revision-hash",
];

/// Names that controllers made, addresses, times, in the order in which they are replaced.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let patterns = [
        (
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "UID",
        ),
        (r"\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b", "ADDRESS"),
        (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "TIME"),
        (
            r"resourceVersion: [0-9]+|ResourceVersion: [0-9]+",
            "resourceVersion: VERSION",
        ),
        (
            r"\b(web|crash|sick|missing)-[0-9a-z]{5,10}-[0-9a-z]{5}(\b|_)",
            "${1}-HASH-ID${2}",
        ),
        (r"core\.PodTemplateSpec\{.*\}: ", "core.PodTemplateSpec{…}: "),
        // Go's comparison of two objects changes its white space on purpose.
        (
            r"(?s)\(only additions to existing tolerations\).*",
            "(only additions to existing tolerations)",
        ),
        (
            r"\b(web|crash|sick|missing|agent|db|all|partial|probed)-[0-9bcdf]{7,10}\b",
            "${1}-HASH",
        ),
        (
            r"\b(migrate|agent|default-token|failing)-[0-9a-z]{5}\b",
            "${1}-ID",
        ),
        (r"\bsha256:[0-9a-f]{64}\b", "sha256:DIGEST"),
        // Any tag of the digest, also of a run before.
        (r"\bIMAGE:[0-9a-f]{8}\b", "IMAGE:1"),
        // After the names, which may end like one.
        (r"\b[0-9.]+(ms|µs|s)\b", "DURATION"),
        (r"pod-template-hash=[0-9a-z]+", "pod-template-hash=HASH"),
        (r"\.[0-9a-f]{16}$", ".EVENT"),
        (r"\bdefault-scheduler-[0-9a-z-]+", "default-scheduler-HOST"),
        (r"\b(node-1|local-[0-9])\b", "NODE"),
    ];
    let compiled = patterns.map(|(pattern, name)| (Regex::new(pattern).unwrap(), name));
    compiled.into()
});

/// Replaces what is another one each time: times, addresses, generated names.
pub(crate) fn plain(value: &mut Value, namespace: &str, image: &str) {
    match value {
        Value::Object(fields) => object(fields, namespace, image),
        Value::Array(items) => {
            // A real cluster records what controllers and kubelets own; see the README.
            items.retain(|item| {
                let manager = item["manager"].as_str().unwrap_or_default();
                !matches!(
                    manager,
                    "kube-controller-manager" | "kube-scheduler" | "kubelet" | "kube-apiserver"
                )
            });
            items.iter_mut().for_each(|item| plain(item, namespace, image));
        }
        Value::String(text) => *text = plain_text(text, namespace, image),
        _ => {}
    }
}

fn object(fields: &mut Map<String, Value>, namespace: &str, image: &str) {
    let before = std::mem::take(fields);
    for (key, mut value) in before {
        // Up to 1.23 an account's token was made in a secret, somewhat later than the account.
        if key == "secrets" {
            continue;
        }
        let each_time = EACH_TIME.contains(&key.as_str());
        // `f:time: {}` in managedFields, and conditions that are null, stay what they are.
        match &mut value {
            Value::String(text) if each_time && !text.is_empty() => value = json!("EACH TIME"),
            Value::Array(items) if each_time && !items.is_empty() => value = json!(["EACH TIME"]),
            Value::Number(_) if key == "count" => value = json!("EACH TIME"),
            value => plain(value, namespace, image),
        }
        let empty = value.as_array().is_some_and(Vec::is_empty);
        if key != "managedFields" || !empty {
            fields.insert(plain_text(&key, namespace, image), value);
        }
    }
}

fn plain_text(text: &str, namespace: &str, image: &str) -> String {
    let repository = image.rsplit_once(':').map_or(image, |(repository, _)| repository);
    let mut text = text.replace(namespace, "NAMESPACE");
    text = text.replace(image, "IMAGE:1").replace(repository, "IMAGE");
    for (pattern, name) in PATTERNS.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text
}
