//! Earlier templates of a workload.
//!
//! A Deployment's earlier templates are in its ReplicaSets, with the Deployment's annotations of that time; those of a
//! StatefulSet or DaemonSet are in its ControllerRevisions.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, ReplicaSet},
    core::v1::PodTemplateSpec,
};
use kube::{ResourceExt, api::DynamicObject};
use serde_json::Value;
use slipway_model::{Fault, ImageRef, Reason};
use slipway_verdict::{TEMPLATE_HASH, WorkloadKind};

use crate::{Kubernetes, fault::refused, live::owned};

/// Annotation with what ran before our last write of the image, as JSON: a repeated write must not mistake its own
/// result for that.
pub(crate) const PREVIOUS: &str = "deploy.slipway.dev/previous";
/// Annotation of a Deployment and its ReplicaSets with the number of the template.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The same of a Rollout.
const ROLLOUT_REVISION: &str = "rollout.argoproj.io/revision";
const ROLLOUTS_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";

/// A template that the workload had or has.
#[derive(Debug, Clone)]
pub(crate) struct Revision {
    pub(crate) number: i64,
    /// As it is stored, so that fields that this program does not know are not lost.
    pub(crate) raw: Value,
    pub(crate) template: PodTemplateSpec,
    /// The Deployment's annotations of that time.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Revision {
    pub(crate) fn runs(&self, image: &ImageRef) -> bool {
        let spec = self.template.spec.iter();
        spec.flat_map(|spec| &spec.containers)
            .filter_map(|container| container.image.as_deref()?.parse::<ImageRef>().ok())
            .any(|one| one == *image)
    }
}

/// The templates that are kept, including the current one.
///
/// # Errors
/// When they cannot be listed, or this kind does not keep any.
pub(crate) async fn revisions(
    cluster: &Kubernetes,
    kind: WorkloadKind,
    live: &DynamicObject,
) -> Result<Vec<Revision>, Fault<Reason>> {
    let of_sets = async |revision, hash| {
        let sets = owned::<ReplicaSet>(cluster, live).await?;
        Ok(sets
            .iter()
            .filter_map(|set| of_set(set, revision, hash))
            .collect())
    };
    match kind {
        WorkloadKind::Deployment => of_sets(REVISION, TEMPLATE_HASH).await,
        WorkloadKind::Rollout => of_sets(ROLLOUT_REVISION, ROLLOUTS_TEMPLATE_HASH).await,
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
            let found = owned::<ControllerRevision>(cluster, live).await?;
            Ok(found.iter().filter_map(of_controller_revision).collect())
        }
        WorkloadKind::Application | WorkloadKind::Canary => Err(refused(format!(
            "{kind} {}: its kind keeps no earlier revisions; revert the commit instead",
            live.name_any()
        ))),
    }
}

pub(crate) fn of_set(set: &DynamicObject, revision: &str, hash: &str) -> Option<Revision> {
    let annotations = set.metadata.annotations.clone().unwrap_or_default();
    let number = annotations.get(revision)?.parse().ok()?;
    let mut raw = set.data.pointer("/spec/template")?.clone();
    // It names the ReplicaSet, and it is up to the controller to add it.
    if let Some(labels) = raw.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(hash);
    }
    Some(Revision {
        number,
        template: serde_json::from_value(raw.clone()).ok()?,
        raw,
        annotations,
    })
}

fn of_controller_revision(revision: &DynamicObject) -> Option<Revision> {
    // A patch that replaces the template: {"spec": {"template": {…, "$patch": "replace"}}}.
    let mut raw = revision.data.pointer("/data/spec/template")?.clone();
    raw.as_object_mut()?.remove("$patch");
    Some(Revision {
        number: revision.data.get("revision")?.as_i64()?,
        template: serde_json::from_value(raw.clone()).ok()?,
        raw,
        annotations: BTreeMap::new(),
    })
}

/// Equal as templates: an absent map and an empty one are the same.
pub(crate) fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let metadata = |template: &PodTemplateSpec| {
        let metadata = template.metadata.clone().unwrap_or_default();
        (
            metadata.labels.unwrap_or_default(),
            metadata.annotations.unwrap_or_default(),
        )
    };
    one.spec == other.spec && metadata(one) == metadata(other)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::of_controller_revision;

    #[test]
    fn a_controller_revision_is_a_patch_of_the_template() {
        let template = json!({
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"containers": [{"name": "shop", "image": "r.example/shop:1"}]},
        });
        let mut patch = template.clone();
        patch["$patch"] = json!("replace");
        let object = json!({
            "metadata": {"name": "shop-5f6"}, "revision": 4, "data": {"spec": {"template": patch}},
        });
        let revision = of_controller_revision(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(revision.number, 4);
        assert_eq!(revision.raw, template);
    }
}
