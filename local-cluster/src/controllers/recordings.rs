//! Recordings of a real control plane, for the tests of the decisions.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use serde_json::Value;

use crate::object;

/// The objects at a moment, by resource and name.
pub(super) type Objects = BTreeMap<(String, String), Value>;

/// The lines of a recording about objects, and what was done to them.
pub(super) fn lines(scenario: &str) -> Vec<Value> {
    let path = slipway_testbed::data(&format!("recordings/{scenario}.jsonl.gz"));
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["kind"] == "action" || line["kind"] == "watch")
        .collect()
}

/// The moments at which everything had settled: nothing more happened for a while.
pub(super) fn states_of_rest(lines: &[Value]) -> Vec<(i64, Objects)> {
    let mut objects = Objects::new();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line["kind"] != "watch" {
            continue;
        }
        let object = &line["event"]["object"];
        let key = (
            line["resource"].as_str().unwrap().to_owned(),
            object::name(object).to_owned(),
        );
        if line["event"]["type"] == "DELETED" {
            objects.remove(&key);
        } else {
            objects.insert(key, object.clone());
        }
        let at = line["t_ms"].as_i64().unwrap();
        let next = lines
            .get(index + 1)
            .map_or(i64::MAX, |next| next["t_ms"].as_i64().unwrap());
        if next - at >= 90 {
            found.push((at, objects.clone()));
        }
    }
    found
}

/// The objects of one resource.
pub(super) fn all(objects: &Objects, resource: &str) -> Vec<Arc<Value>> {
    objects
        .iter()
        .filter(|(key, _)| key.0 == resource)
        .map(|(_, object)| Arc::new(object.clone()))
        .collect()
}

/// The statuses that were written, each once if several writes were the same.
pub(super) fn statuses(lines: &[Value], resource: &str) -> Vec<Value> {
    let mut statuses: Vec<Value> = lines
        .iter()
        .filter(|line| line["resource"] == resource)
        .map(|line| line["event"]["object"]["status"].clone())
        .collect();
    statuses.dedup();
    statuses
}
