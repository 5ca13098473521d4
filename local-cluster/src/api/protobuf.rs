//! Reading the protobuf bodies that kubectl 1.32 and later sends with `kubectl create …`.
//!
//! Only the messages and fields that those commands write are known (`k8s.io/api/*/generated.proto`); anything else is
//! refused, so that nothing is silently lost. Answers are always JSON, which those clients accept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// What every Kubernetes protobuf body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// The maximum nesting of messages.
const MAX_DEPTH: u32 = 16;

/// How a field's bytes become JSON. Plain fields are always on the wire, so an absent one does not mean zero.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
    /// A number that may be absent: Go's pointer.
    Optional,
    Flag,
    TextMap,
    /// Values are bytes, in base64.
    BytesMap,
    /// Values are quantities: messages that contain a text.
    QuantityMap,
    NumberOrText,
    Message(&'static [Field]),
    /// Meaningless in a request.
    Ignored,
}

type Field = (u64, &'static str, Kind);

/// Whether a field is a list, by its name: these are.
const LISTS: &[&str] = &[
    "containers",
    "command",
    "args",
    "ports",
    "env",
    "clusterIPs",
    "finalizers",
    "ownerReferences",
    "scopes",
];

const METADATA: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (4, "selfLink", Kind::Ignored),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Ignored),
    (8, "creationTimestamp", Kind::Ignored),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (14, "finalizers", Kind::Text),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Ignored),
    (3, "status", Kind::Ignored),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (4, "immutable", Kind::Flag),
];
const SECRET: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Flag),
];
const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (4, "automountServiceAccountToken", Kind::Flag),
];
const RESOURCE_QUOTA: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[(1, "hard", Kind::QuantityMap), (2, "scopes", Kind::Text)]),
    ),
    (3, "status", Kind::Ignored),
];
const JOB: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(JOB_SPEC)),
    (3, "status", Kind::Ignored),
];
const JOB_SPEC: &[Field] = &[
    (1, "parallelism", Kind::Optional),
    (2, "completions", Kind::Optional),
    (3, "activeDeadlineSeconds", Kind::Optional),
    (6, "template", Kind::Message(TEMPLATE)),
    (7, "backoffLimit", Kind::Optional),
    (8, "ttlSecondsAfterFinished", Kind::Optional),
    (9, "completionMode", Kind::Text),
    (10, "suspend", Kind::Flag),
];
const SERVICE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(SERVICE_SPEC)),
    (3, "status", Kind::Ignored),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Kind::Message(SERVICE_PORT)),
    (2, "selector", Kind::TextMap),
    (3, "clusterIP", Kind::Text),
    (4, "type", Kind::Text),
    (7, "sessionAffinity", Kind::Text),
    (8, "loadBalancerIP", Kind::Text),
    (10, "externalName", Kind::Text),
    (11, "externalTrafficPolicy", Kind::Text),
    (12, "healthCheckNodePort", Kind::Number),
    (13, "publishNotReadyAddresses", Kind::Flag),
    (18, "clusterIPs", Kind::Text),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "protocol", Kind::Text),
    (3, "port", Kind::Number),
    (4, "targetPort", Kind::NumberOrText),
    (5, "nodePort", Kind::Number),
];
const DEPLOYMENT: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(DEPLOYMENT_SPEC)),
    (3, "status", Kind::Ignored),
];
const DEPLOYMENT_SPEC: &[Field] = &[
    (1, "replicas", Kind::Optional),
    (2, "selector", Kind::Message(&[(1, "matchLabels", Kind::TextMap)])),
    (3, "template", Kind::Message(TEMPLATE)),
    (4, "strategy", Kind::Message(&[(1, "type", Kind::Text)])),
    (5, "minReadySeconds", Kind::Number),
    (6, "revisionHistoryLimit", Kind::Optional),
    (7, "paused", Kind::Flag),
    (9, "progressDeadlineSeconds", Kind::Optional),
];
const TEMPLATE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(POD_SPEC)),
];
const POD_SPEC: &[Field] = &[
    (2, "containers", Kind::Message(CONTAINER)),
    (3, "restartPolicy", Kind::Text),
    (4, "terminationGracePeriodSeconds", Kind::Optional),
    (6, "dnsPolicy", Kind::Text),
    (8, "serviceAccountName", Kind::Text),
    (9, "serviceAccount", Kind::Text),
    (10, "nodeName", Kind::Text),
    (11, "hostNetwork", Kind::Flag),
    (12, "hostPID", Kind::Flag),
    (13, "hostIPC", Kind::Flag),
    (16, "hostname", Kind::Text),
    (17, "subdomain", Kind::Text),
    (19, "schedulerName", Kind::Text),
    (24, "priorityClassName", Kind::Text),
];
const CONTAINER: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "image", Kind::Text),
    (3, "command", Kind::Text),
    (4, "args", Kind::Text),
    (5, "workingDir", Kind::Text),
    (6, "ports", Kind::Message(CONTAINER_PORT)),
    (
        7,
        "env",
        Kind::Message(&[(1, "name", Kind::Text), (2, "value", Kind::Text)]),
    ),
    (13, "terminationMessagePath", Kind::Text),
    (14, "imagePullPolicy", Kind::Text),
    (16, "stdin", Kind::Flag),
    (17, "stdinOnce", Kind::Flag),
    (18, "tty", Kind::Flag),
    (20, "terminationMessagePolicy", Kind::Text),
];
const CONTAINER_PORT: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "hostPort", Kind::Number),
    (3, "containerPort", Kind::Number),
    (4, "protocol", Kind::Text),
    (5, "hostIP", Kind::Text),
];

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("the message is cut short")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

/// The next field's number and content.
fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, Wire<'a>)>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|error| error.to_string())?;
            let (content, rest) = bytes.split_at_checked(length).ok_or("the message is cut short")?;
            *bytes = rest;
            Wire::Bytes(content)
        }
        other => return Err(format!("wire type {other} is not known")),
    };
    Ok(Some((tag >> 3, wire)))
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Map entries and small messages: the strings and numbers by field number.
fn parts(mut bytes: &[u8]) -> Result<[Value; 4], String> {
    let mut parts = [Value::Null, Value::Null, Value::Null, Value::Null];
    while let Some((number, wire)) = next(&mut bytes)? {
        let slot = usize::try_from(number)
            .ok()
            .and_then(|n| parts.get_mut(n))
            .ok_or("a field is not known")?;
        *slot = match wire {
            Wire::Number(number) => json!(number),
            Wire::Bytes(bytes) => json!(utf8(bytes)?),
        };
    }
    Ok(parts)
}

/// A map entry whose value is bytes.
fn entry(mut bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let (mut key, mut value) = ("", &[][..]);
    while let Some((number, wire)) = next(&mut bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return Err("a field is not known".to_owned()),
        }
    }
    Ok((key, value))
}

fn message(fields: &'static [Field], mut bytes: &[u8], depth: u32) -> Result<Value, String> {
    let depth = depth.checked_sub(1).ok_or("messages are nested too deeply")?;
    let mut object = Map::new();
    while let Some((number, wire)) = next(&mut bytes)? {
        let Some((_, name, kind)) = fields.iter().find(|(known, ..)| *known == number) else {
            // Plain fields and messages are written even when nothing was set.
            if matches!(wire, Wire::Bytes([]) | Wire::Number(0)) {
                continue;
            }
            return Err(format!("field {number} is not understood in protobuf, send JSON"));
        };
        let value = match (kind, wire) {
            (Kind::Ignored, _) => continue,
            (Kind::Text, Wire::Bytes(bytes)) => match utf8(bytes)? {
                "" if !LISTS.contains(name) => continue,
                text => json!(text),
            },
            (Kind::Number, Wire::Number(0)) | (Kind::Flag, Wire::Number(0)) => continue,
            (Kind::Number | Kind::Optional, Wire::Number(number)) => json!(number.cast_signed()),
            (Kind::Flag, Wire::Number(_)) => json!(true),
            (Kind::NumberOrText, Wire::Bytes(bytes)) => match parts(bytes)? {
                [_, kind, _, text] if kind == 1 => text,
                [_, _, number, _] if number == 0 || number.is_null() => continue,
                [_, _, number, _] => number,
            },
            (Kind::TextMap, Wire::Bytes(bytes)) => {
                let [_, key, value, _] = parts(bytes)?;
                let map = object.entry(*name).or_insert_with(|| json!({}));
                let value = if value.is_null() { json!("") } else { value };
                map[key.as_str().unwrap_or("")] = value;
                continue;
            }
            (Kind::BytesMap | Kind::QuantityMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                let value = match kind {
                    Kind::BytesMap => json!(BASE64.encode(value)),
                    _ => parts(value)?[1].clone(),
                };
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
                continue;
            }
            (Kind::Message(fields), Wire::Bytes(bytes)) => {
                let value = message(fields, bytes, depth).map_err(|why| format!("{name}: {why}"))?;
                if value.as_object().is_some_and(Map::is_empty) {
                    continue;
                }
                value
            }
            _ => return Err(format!("{name} has a wire type that does not fit")),
        };
        if LISTS.contains(name) {
            if let Value::Array(items) = object.entry(*name).or_insert_with(|| json!([])) {
                items.push(value);
            }
        } else {
            object.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

/// Reads a body.
///
/// # Errors
/// When it is not a Kubernetes protobuf, or contains a kind or field that is not known here.
pub(crate) fn read(body: &[u8]) -> Result<Value, String> {
    let mut bytes = body
        .strip_prefix(MAGIC)
        .ok_or("the body does not start as Kubernetes protobuf does")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, wire)) = next(&mut bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let [_, version, name, _] = parts(bytes)?;
                version.as_str().unwrap_or("").clone_into(&mut api_version);
                name.as_str().unwrap_or("").clone_into(&mut kind);
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let fields = match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "ResourceQuota") => RESOURCE_QUOTA,
        ("v1", "Service") => SERVICE,
        ("batch/v1", "Job") => JOB,
        ("apps/v1", "Deployment") => DEPLOYMENT,
        _ => {
            return Err(format!(
                "{kind} in {api_version} is not understood in protobuf, send JSON"
            ));
        }
    };
    let mut object = message(fields, raw, MAX_DEPTH)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [field(1, b"settings"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"MODE"), field(2, b"fast")].concat();
        let raw = [field(1, &metadata), field(2, &entry)].concat();
        assert_eq!(
            read(&body("ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"MODE": "fast"}})
        );
    }

    #[test]
    fn maps_of_bytes_and_quantities_are_read() {
        let secret = field(2, &[field(1, b"token"), field(2, b"hush")].concat());
        assert_eq!(
            read(&body("Secret", &secret)).unwrap()["data"],
            json!({"token": "aHVzaA=="})
        );
        let pods = [field(1, b"pods"), field(2, &field(1, b"3"))].concat();
        let quota = field(2, &field(1, &pods));
        assert_eq!(
            read(&body("ResourceQuota", &quota)).unwrap()["spec"]["hard"],
            json!({"pods": "3"})
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let unknown = field(9, b"x");
        assert!(
            read(&body("ConfigMap", &unknown))
                .unwrap_err()
                .contains("field 9")
        );
        assert!(
            read(&body("Endpoints", b""))
                .unwrap_err()
                .contains("Endpoints in v1")
        );
        assert!(read(b"{}").is_err());
        let whole = body("ConfigMap", &field(1, &field(1, b"name")));
        for cut in MAGIC.len() + 1..whole.len() {
            // Never a panic, whatever is missing.
            let _ = read(&whole[..cut]);
        }
    }
}
