//! `kubectl rollout undo`, by kubectl's rules (kubectl 1.32, `rollback.go`): restores the template of an earlier
//! revision.

use std::collections::BTreeMap;

use kube::{ResourceExt, api::DynamicObject};
use serde_json::Value;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Applied, Previous, WorkloadKind};

use crate::{
    Kubernetes,
    apply::Write,
    fault::refused,
    live::{self, Change, applied, change, mark, written_by},
    revisions::{PREVIOUS, REVISION, Revision, revisions, same},
};

const FIELD_MANAGER: &str = "slipway-undo";
/// Annotations that are about the current object and not the template, as listed by kubectl.
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// Rolls the target back to an earlier revision. Repeating it for the same deployment changes nothing.
///
/// # Errors
/// Refused if that revision is not kept any more, or is the current one already.
pub async fn undo(cluster: &Kubernetes, write: &Write<'_>, to: &Previous) -> Result<Applied, Fault<Reason>> {
    let written = change(cluster, write, FIELD_MANAGER, |live| async move {
        if written_by(&live, write) {
            return Ok(Change::None(live));
        }
        let revisions = revisions(cluster, write.target.kind, &live).await?;
        decide(live, &revisions, write, to)
    })
    .await?;
    Ok(applied(&written, None))
}

fn decide(
    mut live: DynamicObject,
    revisions: &[Revision],
    write: &Write<'_>,
    to: &Previous,
) -> Result<Change, Fault<Reason>> {
    let kind = write.target.kind;
    let object = format!("{kind} {}", write.target.name);
    if live.data.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Err(refused(format!(
            "{object} is paused, so nothing would be rolled back: kubectl rollout resume it first"
        )));
    }
    let present = live::template(&live)?;
    // A template that is used again gets a new number; the image identifies it then.
    let found = revisions
        .iter()
        .find(|one| one.number == to.revision)
        .or_else(|| {
            let others = revisions.iter().filter(|one| !same(&one.template, &present));
            others
                .filter(|one| one.runs(&to.image))
                .max_by_key(|one| one.number)
        });
    let Some(found) = found else {
        let mut kept: Vec<i64> = revisions.iter().map(|one| one.number).collect();
        kept.sort_unstable();
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        return Err(refused(format!(
            "{object} has no revision {} any more; there are: {} (spec.revisionHistoryLimit says how many are kept)",
            to.revision,
            if kept.is_empty() {
                "none".to_owned()
            } else {
                kept.join(", ")
            }
        )));
    };
    if same(&found.template, &present) {
        return Err(refused(format!(
            "{object}: there is nothing to undo, its template is that of revision {} already",
            found.number
        )));
    }
    live.data["spec"]["template"] = found.raw.clone();
    if kind == WorkloadKind::Deployment {
        let before = live.metadata.annotations.take().unwrap_or_default();
        let mut annotations: BTreeMap<String, String> = before
            .into_iter()
            .filter(|(key, _)| KEPT.contains(&key.as_str()))
            .collect();
        let its = found.annotations.iter();
        annotations.extend(
            its.filter(|(key, _)| !KEPT.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        live.metadata.annotations = Some(annotations);
    }
    live.annotations_mut().remove(PREVIOUS);
    mark(&mut live, write);
    Ok(Change::Replace(live))
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use slipway_model::{Fault, Id};
    use slipway_verdict::{Previous, Target, WorkloadKind};

    use super::{Change, Revision, decide};
    use crate::{apply::Write, revisions::of_set};

    fn template(image: &str) -> Value {
        json!({
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"containers": [{"name": "shop", "image": image}]},
        })
    }

    fn set(number: u32, image: &str) -> Revision {
        let mut template = template(image);
        template["metadata"]["labels"]["pod-template-hash"] = json!("7d9");
        let set = serde_json::from_value(json!({
            "metadata": {"name": "shop-7d9", "annotations": {
                "deployment.kubernetes.io/revision": number.to_string(),
                "deployment.kubernetes.io/desired-replicas": "9",
                "note": format!("of {number}"),
                "deploy.slipway.dev/epoch": "1",
            }},
            "spec": {"selector": {}, "template": template},
        }));
        of_set(&set.unwrap(), super::REVISION, "pod-template-hash").unwrap()
    }

    fn undo(paused: bool, revisions: &[Revision], to: i64) -> Result<DynamicObject, String> {
        let live: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "shop", "annotations": {
                "deployment.kubernetes.io/revision": "3",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "note": "of 3",
                "gone": "with 3",
            }},
            "spec": {"paused": paused, "template": template("r.example/shop:3")},
        }))
        .unwrap();
        let (deployment, target) = ("undo-1".parse::<Id>().unwrap(), target());
        let write = Write {
            deployment: &deployment,
            target: &target,
            epoch: 7,
            commit: "",
        };
        let to = Previous {
            revision: to,
            image: "r.example/shop:2".parse().unwrap(),
        };
        match decide(live, revisions, &write, &to) {
            Ok(Change::Replace(changed)) => Ok(changed),
            Ok(_) => Err("no change".to_owned()),
            Err(Fault::Permanent(reason)) => Err(reason.message),
            Err(error) => panic!("{error}"),
        }
    }

    fn target() -> Target {
        Target {
            cluster: "c".parse().unwrap(),
            namespace: "n".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "shop".to_owned(),
        }
    }

    #[test]
    fn a_deployment_gets_the_template_and_the_annotations_of_its_replica_set() {
        let history = [set(2, "r.example/shop:2"), set(3, "r.example/shop:3")];
        let changed = undo(false, &history, 2).unwrap();
        assert_eq!(
            changed.data["spec"]["template"],
            template("r.example/shop:2"),
            "without the hash"
        );
        let annotations = serde_json::to_value(changed.metadata.annotations).unwrap();
        assert_eq!(
            annotations,
            json!({
                "deployment.kubernetes.io/revision": "3",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "note": "of 2",
                "deploy.slipway.dev/epoch": "7",
                "deploy.slipway.dev/target": "c/n/Deployment/shop",
                "deploy.slipway.dev/deployment": "undo-1",
            })
        );
    }

    #[test]
    fn a_revision_with_a_new_number_is_found_by_its_image() {
        let history = [set(5, "r.example/shop:2"), set(3, "r.example/shop:3")];
        let changed = undo(false, &history, 2).unwrap();
        assert_eq!(changed.data["spec"]["template"], template("r.example/shop:2"));
    }

    #[test]
    fn what_cannot_be_undone_is_refused_with_words() {
        let history = [set(3, "r.example/shop:3"), set(1, "r.example/shop:1")];
        for (paused, to, words) in [
            (false, 3, "nothing to undo"),
            (false, 2, "no revision 2 any more; there are: 1, 3"),
            (true, 1, "paused"),
        ] {
            let refused = undo(paused, &history, to).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
