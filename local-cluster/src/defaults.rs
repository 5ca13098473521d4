//! What the API server fills in when a field is omitted, for the kinds served here.
//!
//! Source of the values: `k8s.io/kubernetes/pkg/apis/{core,apps}/v1/defaults.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::custom;
use crate::object::{as_map, entry};
use crate::resources::Resource;

fn default(map: &mut Map<String, Value>, field: &str, value: impl FnOnce() -> Value) {
    let slot = map.entry(field.to_owned()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value();
    }
}

/// Fills in the defaults of the object's kind.
pub(crate) fn apply(resource: &Resource, object: &mut Value) {
    match resource.built_in() {
        "Deployment" => deployment(object),
        "ReplicaSet" => {
            let spec = entry(object, "spec");
            default(spec, "replicas", || json!(1));
            template(spec);
        }
        "Pod" => pod(entry(object, "spec")),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "Job" => job(object),
        "Secret" => secret(object),
        "ResourceQuota" => quantities(entry(object, "spec"), "hard"),
        "Service" => service(object),
        "Namespace" => namespace(object),
        "CustomResourceDefinition" => custom::default(object),
        _ => {
            if let Some(custom) = resource.custom {
                custom.schema.fill(object);
            }
        }
    }
}

fn deployment(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "replicas", || json!(1));
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "progressDeadlineSeconds", || json!(600));
    default(spec, "strategy", || json!({}));
    let strategy = as_map(&mut spec["strategy"]);
    default(strategy, "type", || json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", || json!({}));
        let rolling = as_map(&mut strategy["rollingUpdate"]);
        default(rolling, "maxUnavailable", || json!("25%"));
        default(rolling, "maxSurge", || json!("25%"));
    }
    template(spec);
}

fn stateful_set(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "replicas", || json!(1));
    default(spec, "podManagementPolicy", || json!("OrderedReady"));
    default(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        || json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "updateStrategy", || json!({}));
    let strategy = as_map(&mut spec["updateStrategy"]);
    default(strategy, "type", || json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", || json!({}));
        default(as_map(&mut strategy["rollingUpdate"]), "partition", || json!(0));
    }
    template(spec);
}

fn daemon_set(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "updateStrategy", || json!({}));
    let strategy = as_map(&mut spec["updateStrategy"]);
    default(strategy, "type", || json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", || json!({}));
        let rolling = as_map(&mut strategy["rollingUpdate"]);
        default(rolling, "maxUnavailable", || json!(1));
        default(rolling, "maxSurge", || json!(0));
    }
    template(spec);
}

/// With the selector and labels that `pkg/registry/batch/job` generates.
fn job(object: &mut Value) {
    let (uid, name) = (
        crate::object::uid(object).to_owned(),
        crate::object::name(object).to_owned(),
    );
    let spec = entry(object, "spec");
    let is_single = |value: Option<&Value>| value.is_none_or(Value::is_null);
    if is_single(spec.get("completions")) && is_single(spec.get("parallelism")) {
        spec.insert("completions".to_owned(), json!(1));
    }
    default(spec, "parallelism", || json!(1));
    default(spec, "backoffLimit", || json!(6));
    default(spec, "completionMode", || json!("NonIndexed"));
    default(spec, "suspend", || json!(false));
    default(spec, "podReplacementPolicy", || json!("TerminatingOrFailed"));
    template(spec);
    if uid.is_empty() || spec.get("manualSelector") == Some(&json!(true)) {
        return;
    }
    default(
        spec,
        "selector",
        || json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
    let metadata = entry(&mut spec["template"], "metadata");
    default(metadata, "labels", || json!({}));
    let labels = as_map(&mut metadata["labels"]);
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        default(labels, key, || json!(value));
    }
    let labels = metadata["labels"].clone();
    // A Job without labels has those of its pods.
    let own = crate::object::metadata(object)
        .entry("labels")
        .or_insert_with(|| json!({}));
    if as_map(own).is_empty() {
        *own = labels;
    }
}

/// `stringData` becomes part of `data`, in base64.
fn secret(object: &mut Value) {
    let object = as_map(object);
    default(object, "type", || json!("Opaque"));
    if let Some(Value::Object(plain)) = object.remove("stringData") {
        let data = as_map(object.entry("data").or_insert_with(|| json!({})));
        for (key, value) in plain {
            let encoded = BASE64.encode(value.as_str().unwrap_or(""));
            data.insert(key, Value::from(encoded));
        }
    }
}

fn template(spec: &mut Map<String, Value>) {
    default(spec, "template", || json!({}));
    let template = as_map(&mut spec["template"]);
    default(template, "metadata", || json!({}));
    // Go writes the zero time as null; it is dropped, so that templates compare equal regardless of who wrote them.
    as_map(&mut template["metadata"]).remove("creationTimestamp");
    default(template, "spec", || json!({}));
    pod_spec(as_map(&mut template["spec"]));
}

fn pod_spec(spec: &mut Map<String, Value>) {
    default(spec, "restartPolicy", || json!("Always"));
    default(spec, "terminationGracePeriodSeconds", || json!(30));
    default(spec, "dnsPolicy", || json!("ClusterFirst"));
    default(spec, "securityContext", || json!({}));
    default(spec, "schedulerName", || json!("default-scheduler"));
    // The old name is served next to the new one, as the real server does.
    if let Some(account) = spec.get("serviceAccountName").filter(|a| a.is_string()).cloned() {
        spec.insert("serviceAccount".to_owned(), account);
    }
    for field in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(field) else {
            continue;
        };
        for item in containers.iter_mut().filter(|c| c.is_object()) {
            container(as_map(item));
        }
    }
}

/// With what the admission plugins fill in: ServiceAccount, Priority, DefaultTolerationSeconds. There is no volume with a
/// token, since nothing is mounted.
fn pod(spec: &mut Map<String, Value>) {
    default(spec, "serviceAccountName", || json!("default"));
    pod_spec(spec);
    default(spec, "enableServiceLinks", || json!(true));
    default(spec, "preemptionPolicy", || json!("PreemptLowerPriority"));
    default(spec, "priority", || json!(0));
    default(spec, "tolerations", || json!([]));
    if let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") {
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let matches = |field: &Value, value: &str| field.is_null() || field == "" || field == value;
            let there = |t: &Value| matches(&t["key"], key) && matches(&t["effect"], "NoExecute");
            if !tolerations.iter().any(there) {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
                }));
            }
        }
    }
    if let Some(Value::Array(containers)) = spec.get_mut("containers") {
        // What is limited and not requested is requested as far as it is limited.
        for container in containers.iter_mut() {
            let Some(Value::Object(limits)) = container["resources"].get("limits").cloned() else {
                continue;
            };
            let requests = entry(&mut container["resources"], "requests");
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    default(container, "terminationMessagePath", || {
        json!("/dev/termination-log")
    });
    default(container, "terminationMessagePolicy", || json!("File"));
    default(container, "resources", || json!({}));
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    default(container, "imagePullPolicy", || json!(pull_policy(&image)));
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        for port in ports.iter_mut().filter(|p| p.is_object()) {
            default(as_map(port), "protocol", || json!("TCP"));
        }
    }
    for field in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(field).filter(|p| p.is_object()) else {
            continue;
        };
        let probe = as_map(probe);
        default(probe, "timeoutSeconds", || json!(1));
        default(probe, "periodSeconds", || json!(10));
        default(probe, "successThreshold", || json!(1));
        default(probe, "failureThreshold", || json!(3));
        if let Some(http) = probe.get_mut("httpGet").filter(|h| h.is_object()) {
            let http = as_map(http);
            default(http, "path", || json!("/"));
            default(http, "scheme", || json!("HTTP"));
        }
    }
    // Quantities may be written as numbers; they are kept as text.
    if let Some(resources) = container.get_mut("resources").filter(|r| r.is_object()) {
        for kind in ["limits", "requests"] {
            quantities(as_map(resources), kind);
        }
    }
}

fn quantities(parent: &mut Map<String, Value>, field: &str) {
    if let Some(Value::Object(quantities)) = parent.get_mut(field) {
        for quantity in quantities.values_mut().filter(|q| q.is_number()) {
            *quantity = Value::from(quantity.to_string());
        }
    }
}

/// `Always` for a moving tag, `IfNotPresent` for a fixed one.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains('@') {
        "IfNotPresent"
    } else if last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest") {
        "Always"
    } else {
        "IfNotPresent"
    }
}

fn service(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "type", || json!("ClusterIP"));
    default(spec, "sessionAffinity", || json!("None"));
    default(spec, "internalTrafficPolicy", || json!("Cluster"));
    default(spec, "ipFamilies", || json!(["IPv4"]));
    default(spec, "ipFamilyPolicy", || json!("SingleStack"));
    // An address is not assigned, since nothing would answer there: the service proxy is the way in.
    default(spec, "clusterIP", || json!("None"));
    let address = spec["clusterIP"].clone();
    default(spec, "clusterIPs", || json!([address]));
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports.iter_mut().filter(|p| p.is_object()) {
            let port = as_map(port);
            default(port, "protocol", || json!("TCP"));
            let number = port.get("port").cloned().unwrap_or(Value::Null);
            default(port, "targetPort", || number);
        }
    }
    entry(object, "status")
        .entry("loadBalancer")
        .or_insert_with(|| json!({}));
}

fn namespace(object: &mut Value) {
    let name = crate::object::name(object).to_owned();
    let metadata = crate::object::metadata(object);
    let labels = as_map(metadata.entry("labels").or_insert_with(|| json!({})));
    labels.insert("kubernetes.io/metadata.name".to_owned(), Value::from(name));
    let spec = entry(object, "spec");
    default(spec, "finalizers", || json!(["kubernetes"]));
    entry(object, "status")
        .entry("phase")
        .or_insert_with(|| json!("Active"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::DEPLOYMENTS;

    #[test]
    fn a_deployment_is_filled_in_as_the_real_server_does() {
        let mut object = json!({"spec": {"template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
            {"name": "app", "image": "registry.example.com/a:1", "ports": [{"containerPort": 8080}],
             "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}}}]}}}});
        apply(&DEPLOYMENTS, &mut object);
        assert_eq!(
            object["spec"],
            json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                    "containers": [{"name": "app", "image": "registry.example.com/a:1",
                        "ports": [{"containerPort": 8080, "protocol": "TCP"}], "resources": {},
                        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080, "scheme": "HTTP"},
                            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                        "imagePullPolicy": "IfNotPresent"}],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "securityContext": {}, "schedulerName": "default-scheduler"}}})
        );
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let table = [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("host:5000/a", "Always"),
            ("host:5000/a@sha256:00", "IfNotPresent"),
        ];
        for (image, expected) in table {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
