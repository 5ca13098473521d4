//! The nodes: only objects, since every pod runs on this machine.

use jiff::Timestamp;
use serde_json::json;

use crate::api::prepare;
use crate::object;
use crate::resources::NODES;
use crate::store::Store;

/// Marks the nodes that the cluster makes itself.
const OWN: &str = "local-cluster.slipway.dev/node";

/// Makes sure that the nodes `local-1` to `local-COUNT` exist, and none beyond those that it created before.
pub(crate) fn register(store: &Store, count: usize) {
    let names: Vec<String> = (1..=count).map(|number| format!("local-{number}")).collect();
    for name in &names {
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", OWN: "true",
            }},
        });
        let created = prepare::prepare_new(&NODES, &mut node, Timestamp::now())
            .and_then(|()| store.create(&NODES, node));
        if let Err(error) = created
            && error.reason != "AlreadyExists"
        {
            tracing::error!(%error, name, "a node is missing");
        }
    }
    for node in store.list(&NODES, None).0 {
        let name = object::name(&node);
        if object::label(&node, OWN) == "true" && !names.iter().any(|known| known == name) {
            let removed = store.remove(&NODES, "", name, |_| Ok(()));
            if let Err(error) = removed {
                tracing::debug!(%error, name, "node not removed");
            }
        }
    }
}
