//! Local ports: every declared container port is a free loopback port, the first of them is `PORT`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::object::{self, list, text};

/// Where a pod records its ports: `{"CONTAINER": {"PORT": 20001, "8080": 20001}}`, as JSON text.
pub(crate) const ANNOTATION: &str = "local-cluster.slipway.dev/ports";

/// Below the range from which the kernel takes the ports of outgoing connections, so that none of those conflict.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// The ports that are in use.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    taken: Mutex<BTreeSet<u16>>,
}

impl Ports {
    /// A port on which nothing listens; `wanted` if it is free.
    pub(crate) fn take(&self, wanted: Option<u16>) -> Option<u16> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let start = fastrand::u16(FIRST..=LAST);
        let port = wanted
            .into_iter()
            .chain(start..=LAST)
            .chain(FIRST..start)
            .find(|port| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())?;
        taken.insert(port);
        Some(port)
    }

    pub(crate) fn release(&self, ports: &[u16]) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for port in ports {
            taken.remove(port);
        }
    }

    /// Ports for a container: `PORT` and each declared port, the same as before if possible.
    pub(crate) fn assign(&self, container: &Value, before: &Value) -> Option<Map<String, Value>> {
        let old = |key: &str| before[key].as_u64().and_then(|port| u16::try_from(port).ok());
        let mut map = Map::new();
        for port in list(container, &["ports"]) {
            let key = port["containerPort"].to_string();
            if map.contains_key(&key) {
                continue;
            }
            let local = self.take(old(&key))?;
            map.entry("PORT").or_insert(json!(local));
            map.insert(key, json!(local));
        }
        if map.is_empty() {
            map.insert("PORT".to_owned(), json!(self.take(old("PORT"))?));
        }
        Some(map)
    }
}

/// The ports a pod carries.
pub(crate) fn of_pod(pod: &Value) -> Value {
    serde_json::from_str(object::annotation(pod, ANNOTATION)).unwrap_or_default()
}

/// The local port behind a container's port, given by number or name.
pub(crate) fn resolve_in(container: &Value, ports: &Value, port: &Value) -> Option<u16> {
    let declared = list(container, &["ports"]);
    let number = match port {
        Value::String(name) => match name.parse::<u16>() {
            Ok(number) => json!(number),
            Err(_) => declared.iter().find(|p| text(p, &["name"]) == name)?["containerPort"].clone(),
        },
        number => number.clone(),
    };
    let mapped = &ports[number.to_string()];
    // A container that does not declare anything still listens on PORT: every number means that.
    let mapped = if mapped.is_null() && declared.is_empty() {
        &ports["PORT"]
    } else {
        mapped
    };
    mapped.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// The local port behind a pod's port, given by number or name.
pub(crate) fn resolve(pod: &Value, port: &Value) -> Option<u16> {
    let ports = of_pod(pod);
    list(pod, &["spec", "containers"])
        .iter()
        .find_map(|container| resolve_in(container, &ports[text(container, &["name"])], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_ports_are_found_by_number_and_name() {
        let annotation = json!({"app": {"PORT": 20_001, "8080": 20_001, "9090": 20_002}}).to_string();
        let pod = json!({"metadata": {"annotations": {ANNOTATION: annotation}}, "spec": {"containers": [
            {"name": "app", "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090}]}]}});
        let table = [
            (json!(8080), Some(20_001)),
            (json!("http"), Some(20_001)),
            (json!(9090), Some(20_002)),
            (json!("9090"), Some(20_002)),
            (json!("none"), None),
            (json!(1), None),
        ];
        for (port, expected) in table {
            assert_eq!(resolve(&pod, &port), expected, "{port}");
        }
    }

    #[test]
    fn ports_are_not_given_out_twice() {
        let ports = Ports::default();
        let container = json!({"ports": [{"containerPort": 8080}, {"containerPort": 9090}]});
        let first = ports.assign(&container, &Value::Null).unwrap();
        assert_eq!(first["PORT"], first["8080"]);
        assert_ne!(first["8080"], first["9090"]);
        let second = ports.assign(&container, &Value::Object(first.clone())).unwrap();
        assert_ne!(second["8080"], first["8080"]);
    }
}
