//! Keeps the fields of each object that are used; the rest, which is most of it, is not stored.

use std::{
    hash::{DefaultHasher, Hasher},
    io,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use slipway_verdict::TEMPLATE_HASH;

/// The same, of Argo Rollouts.
const ROLLOUTS_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
/// Where a slim template, in memory only, carries the hash of the full one: two that differ in what was dropped must
/// stay different, since a Deployment's ReplicaSet is the one with the equal template.
const WHOLE: &str = "deploy.slipway.dev/whole-template";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Of the managed fields, who wrote and when is kept, but not what.
pub(super) fn metadata(metadata: &mut ObjectMeta) {
    for entry in metadata.managed_fields.iter_mut().flatten() {
        entry.fields_v1 = None;
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Names and images are kept, and a hash of everything.
pub(super) fn template(template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    // The controllers add these to what they copy from the workload.
    let mut own = Vec::new();
    if let Some(labels) = &mut metadata.labels {
        for key in [TEMPLATE_HASH, ROLLOUTS_TEMPLATE_HASH] {
            own.extend(labels.remove_entry(key));
        }
    }
    let whole = hash(template);
    let metadata = template.metadata.get_or_insert_default();
    if !own.is_empty() {
        metadata.labels.get_or_insert_default().extend(own);
    }
    metadata
        .annotations
        .get_or_insert_default()
        .insert(WHOLE.to_owned(), whole);
    if let Some(spec) = &mut template.spec {
        pod_spec(spec);
    }
}

pub(super) fn pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut PodSpec) {
    let whole = std::mem::take(spec);
    let slim = |container: Container| Container {
        name: container.name,
        image: container.image,
        restart_policy: container.restart_policy,
        ..Container::default()
    };
    *spec = PodSpec {
        containers: whole.containers.into_iter().map(slim).collect(),
        init_containers: whole
            .init_containers
            .map(|containers| containers.into_iter().map(slim).collect()),
        node_name: whole.node_name,
        restart_policy: whole.restart_policy,
        ..PodSpec::default()
    };
}

fn hash(template: &PodTemplateSpec) -> String {
    struct Into(DefaultHasher);
    impl io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut into = Into(DefaultHasher::new());
    match serde_json::to_writer(&mut into, template) {
        Ok(()) => format!("{:016x}", into.0.finish()),
        // Cannot happen; if it did, nothing would equal anything.
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::json;

    use super::template;

    fn slim(value: serde_json::Value) -> PodTemplateSpec {
        let mut whole: PodTemplateSpec = serde_json::from_value(value).unwrap();
        template(&mut whole);
        whole
    }

    #[test]
    fn templates_that_differ_in_what_is_dropped_stay_different() {
        let with = |level: &str, labels: serde_json::Value| {
            slim(json!({
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "a", "image": "b", "env": [{"name": "LEVEL", "value": level}]}]},
            }))
        };
        let one = with("debug", json!({"app": "a"}));
        let hashed = with("debug", json!({"app": "a", "pod-template-hash": "7d9"}));
        let other = with("info", json!({"app": "a"}));
        assert!(one.spec.as_ref().unwrap().containers[0].env.is_none());
        assert_ne!(one, other);
        let annotations = |template: &PodTemplateSpec| template.metadata.clone().unwrap().annotations;
        assert_eq!(
            annotations(&one),
            annotations(&hashed),
            "the controller's label does not count"
        );
        let labels = hashed.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["pod-template-hash"], "7d9", "and stays");
    }
}
