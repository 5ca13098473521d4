//! What the store guarantees across restarts, damage and time.

use super::*;
use crate::resources::{CONFIG_MAPS, NAMESPACES};
use serde_json::json;
use std::io::Write;

fn config_map(name: &str, value: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
           "data": {"v": value.to_string()}})
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
}

#[tokio::test]
async fn objects_and_versions_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.journal");
    let store = Store::open(&path).unwrap();
    store.create(&NAMESPACES, namespace()).unwrap();
    store.create(&CONFIG_MAPS, config_map("a", 1)).unwrap();
    let changed = store
        .update(&CONFIG_MAPS, "default", "a", |_| Ok(config_map("a", 2)))
        .unwrap();
    store.create(&CONFIG_MAPS, config_map("b", 1)).unwrap();
    store.remove(&CONFIG_MAPS, "default", "b", |_| Ok(())).unwrap();
    let version = store.version();
    store.durable(version).await.unwrap();
    store.close();
    // A torn last line is what a power cut leaves.
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"00000000 {\"op\"")
        .unwrap();

    let again = Store::open(&path).unwrap();
    assert_eq!(again.version(), version);
    assert_eq!(again.get(&CONFIG_MAPS, "default", "a").unwrap(), changed);
    assert!(again.get(&CONFIG_MAPS, "default", "b").is_none());
    let changes = again
        .watch(object::resource_version(&changed))
        .next()
        .await
        .unwrap();
    let kinds: Vec<ChangeKind> = changes.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Deleted]);
    again.close();
}

#[test]
fn damage_before_the_last_line_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.journal");
    let store = Store::open(&path).unwrap();
    store.create(&NAMESPACES, namespace()).unwrap();
    store.create(&CONFIG_MAPS, config_map("a", 1)).unwrap();
    store.close();
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("Namespace", "Namespice", 1);
    std::fs::write(&path, text).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
}

#[test]
fn a_compacted_journal_holds_the_same_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.journal");
    let store = Store::open(&path).unwrap();
    store.create(&NAMESPACES, namespace()).unwrap();
    let mut big = config_map("a", 0);
    big["data"]["fill"] = Value::from("x".repeat(256 * 1024));
    store.create(&CONFIG_MAPS, big.clone()).unwrap();
    for n in 0..100 {
        let mut next = big.clone();
        next["data"]["v"] = Value::from(n.to_string());
        store.update(&CONFIG_MAPS, "default", "a", |_| Ok(next)).unwrap();
    }
    let version = store.version();
    store.close();
    assert!(std::fs::metadata(&path).unwrap().len() < COMPACT_AT * 2);
    let again = Store::open(&path).unwrap();
    assert_eq!(again.version(), version);
    assert_eq!(
        again.get(&CONFIG_MAPS, "default", "a").unwrap()["data"]["v"],
        "99"
    );
    again.close();
}

#[tokio::test]
async fn a_feed_that_is_too_old_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("objects.journal")).unwrap();
    assert_eq!(store.watch(0).check().unwrap_err().code, 410);
    store.create(&NAMESPACES, namespace()).unwrap();
    assert!(store.watch(1).check().is_ok());
    store.close();
}

#[test]
fn equal_updates_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("objects.journal")).unwrap();
    store.create(&NAMESPACES, namespace()).unwrap();
    let first = store.create(&CONFIG_MAPS, config_map("a", 1)).unwrap();
    let second = store
        .update(&CONFIG_MAPS, "default", "a", |old| Ok(old.clone()))
        .unwrap();
    assert_eq!(first, second);
    store.close();
}
