//! The nodes: objects alone, since every pod runs on this machine.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::write;
use crate::object;
use crate::resources::NODES;
use crate::store::Store;

/// Marks the nodes that the cluster makes itself.
const OWN: &str = "local-cluster.slipway.dev/node";
/// What every node can hold, by its own account: the same on every machine, so that what fits here fits there.
const CPU: &str = "16";
const MEMORY: &str = "64Gi";
const PODS: &str = "10000";

/// The status of a node as its kubelet would write it.
pub(crate) fn status(name: &str, now: Timestamp) -> Value {
    let stamp = object::stamp(now);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": stamp, "lastTransitionTime": stamp})
    };
    let size = json!({"cpu": CPU, "memory": MEMORY, "pods": PODS});
    json!({
        "capacity": size, "allocatable": size,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "local-cluster", "kernelVersion": "",
            "containerRuntimeVersion": "local-cluster://1", "kubeletVersion": "v1.33.0-local-cluster",
            "kubeProxyVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}

/// Sees to it that there are the nodes `local-1` to `local-COUNT`, and none beyond of those it made before.
pub(crate) fn register(store: &Store, count: usize) {
    let names: Vec<String> = (1..=count).map(|number| format!("local-{number}")).collect();
    for name in &names {
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", OWN: "true",
            }},
        });
        let created =
            write::prepare_new(&NODES, &mut node, Timestamp::now()).and_then(|()| store.create(&NODES, node));
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
