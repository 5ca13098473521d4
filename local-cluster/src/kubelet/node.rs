//! What a node reports about itself.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;

/// What every node claims to be able to hold: the same on every machine, so that what fits on one fits on all.
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
