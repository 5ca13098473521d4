//! Reading and writing the parts that every Kubernetes object has, on plain JSON values.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Where the kind is stored, namespace, name.
pub(crate) type Key = (&'static str, String, String);

/// The value at a path of field names; `Null` if there is none.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .fold(object, |value, field| value.get(field).unwrap_or(&Value::Null))
}

pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or("")
}

pub(crate) fn number(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).as_i64()
}

pub(crate) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub(crate) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "labels", key])
}

pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "annotations", key])
}

pub(crate) fn generation(object: &Value) -> i64 {
    number(object, &["metadata", "generation"]).unwrap_or(0)
}

pub(crate) fn resource_version(object: &Value) -> u64 {
    text(object, &["metadata", "resourceVersion"])
        .parse()
        .unwrap_or(0)
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_string()
}

pub(crate) fn created(object: &Value) -> Option<Timestamp> {
    time(object, &["metadata", "creationTimestamp"])
}

pub(crate) fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    at(object, path).as_str().and_then(|t| t.parse().ok())
}

/// A time as `metav1.Time` writes it: RFC 3339, whole seconds, UTC.
pub(crate) fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whole seconds, since that is what the API can store.
pub(crate) fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The object at `field`, created if it is missing or null.
pub(crate) fn entry<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let parent = as_map(object);
    as_map(parent.entry(field.to_owned()).or_insert_with(|| json!({})))
}

/// The value as a map, replaced by an empty one if it is anything else.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made an object above"),
    }
}

pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    entry(object, "metadata")
}

pub(crate) fn set_annotation(object: &mut Value, key: &str, value: &str) {
    let metadata = metadata(object).entry("annotations").or_insert_with(|| json!({}));
    as_map(metadata).insert(key.to_owned(), Value::from(value));
}

/// The owner that controls the object: `(uid, kind, name)`.
pub(crate) fn controller(object: &Value) -> Option<(&str, &str, &str)> {
    list(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| owner["controller"] == Value::Bool(true))
        .map(|owner| {
            (
                text(owner, &["uid"]),
                text(owner, &["kind"]),
                text(owner, &["name"]),
            )
        })
}

/// An owner reference that makes `owner` the controller.
pub(crate) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The status condition of that type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, &["status", "conditions"])
        .iter()
        .find(|c| c["type"] == kind)
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// The characters of generated names (`k8s.io/apimachinery/pkg/util/rand`): no vowels, nothing that looks alike.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five random characters, as `generateName` appends.
pub(crate) fn name_suffix() -> String {
    (0..5)
        .map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())]))
        .collect()
}

/// Digits written in the alphabet of generated names, so that they do not spell words (`rand.SafeEncodeString`).
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()]))
        .collect()
}

/// JSON text with sorted keys: equal values have equal text.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let fields: Vec<String> = keys
                .into_iter()
                .map(|k| format!("{}:{}", Value::from(k.as_str()), canonical(&map[k])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}
