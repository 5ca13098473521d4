//! The environment of a container's process: from the image, ConfigMaps, Secrets and the pod.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::kubelet::image::Image;
use crate::kubelet::refusal::{Refusal, misconfigured};
use crate::object::{self, at, list, text};

/// Where variables of the environment come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    /// As named in the kubelet's messages, alone and with its namespace.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ConfigMap => ("configmap", "ConfigMap"),
            Self::Secret => ("secret", "Secret"),
        }
    }

    /// The text under a key.
    fn value(self, object: &Value, key: &str) -> Option<String> {
        let text = object["data"][key].as_str()?;
        match self {
            Self::ConfigMap => Some(text.to_owned()),
            Self::Secret => {
                let bytes = BASE64.decode(text).ok()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }
}

/// The variables that a container's process gets.
///
/// # Errors
/// When a ConfigMap, a Secret, a key or a field is missing.
pub(super) fn environment(
    image: &Image,
    pod: &Value,
    container: &Value,
    ports: &Value,
    find: impl Fn(Source, &str) -> Option<Value>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut env = BTreeMap::new();
    for variable in image.run.env.iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    env.insert("HOSTNAME".to_owned(), object::name(pod).to_owned());
    let lookup = |source: Source, reference: &Value| -> Result<Option<Value>, Refusal> {
        let name = text(reference, &["name"]);
        match find(source, name) {
            Some(found) => Ok(Some(found)),
            None if reference["optional"] == true => Ok(None),
            None => Err(misconfigured(format!(
                "{} \"{name}\" not found",
                source.names().0
            ))),
        }
    };
    for source in list(container, &["envFrom"]) {
        let prefix = text(source, &["prefix"]);
        let (kind, reference) = if source["secretRef"].is_object() {
            (Source::Secret, &source["secretRef"])
        } else {
            (Source::ConfigMap, &source["configMapRef"])
        };
        let Some(found) = lookup(kind, reference)? else {
            continue;
        };
        for key in found["data"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            if let Some(value) = kind.value(&found, key) {
                env.insert(format!("{prefix}{key}"), value);
            }
        }
    }
    for variable in list(container, &["env"]) {
        let name = text(variable, &["name"]).to_owned();
        let source = &variable["valueFrom"];
        let by_key = [
            (Source::ConfigMap, &source["configMapKeyRef"]),
            (Source::Secret, &source["secretKeyRef"]),
        ];
        let by_key = by_key.into_iter().find(|(_, reference)| reference.is_object());
        let value = if let Some((kind, reference)) = by_key {
            let key = text(reference, &["key"]);
            let Some(found) = lookup(kind, reference)? else {
                continue;
            };
            match kind.value(&found, key) {
                Some(value) => value,
                None if reference["optional"] == true => continue,
                None => {
                    let (namespace, name) = (object::namespace(pod), text(reference, &["name"]));
                    return Err(misconfigured(format!(
                        "couldn't find key {key} in {} {namespace}/{name}",
                        kind.names().1
                    )));
                }
            }
        } else if source["fieldRef"].is_object() {
            field(pod, text(source, &["fieldRef", "fieldPath"]))?
        } else {
            expand(text(variable, &["value"]), &env)
        };
        env.insert(name, value);
    }
    // Last, since the manifest cannot choose the port. `PORT_NAME` distinguishes further ports.
    for port in list(container, &["ports"]) {
        let name = text(port, &["name"]).to_ascii_uppercase().replace('-', "_");
        if let Some(local) = ports[port["containerPort"].to_string()].as_u64()
            && !name.is_empty()
        {
            env.insert(format!("PORT_{name}"), local.to_string());
        }
    }
    if let Some(port) = ports["PORT"].as_u64() {
        env.insert("PORT".to_owned(), port.to_string());
    }
    Ok(env)
}

/// The downward API's fields.
fn field(pod: &Value, path: &str) -> Result<String, Refusal> {
    let quoted = |kind: &str| {
        path.strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix("['"))
            .and_then(|rest| rest.strip_suffix("']"))
    };
    if let Some(key) = quoted("metadata.labels") {
        return Ok(object::label(pod, key).to_owned());
    }
    if let Some(key) = quoted("metadata.annotations") {
        return Ok(object::annotation(pod, key).to_owned());
    }
    match path {
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName" => Ok(at(pod, &path.split('.').collect::<Vec<_>>())
            .as_str()
            .unwrap_or("")
            .to_owned()),
        "status.podIP" | "status.hostIP" => Ok("127.0.0.1".to_owned()),
        other => Err(misconfigured(format!("fieldPath {other} is not supported"))),
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, unknown names stay.
pub(super) fn expand(value: &str, env: &BTreeMap<String, String>) -> String {
    let (mut text, mut rest) = (String::new(), value);
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            text.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')'))
            && let Some(value) = env.get(name)
        {
            text.push_str(value);
            rest = after;
        } else {
            text.push('$');
            rest = &rest[1..];
        }
    }
    text + rest
}
