//! `kubectl set image` for environments that git does not manage: server-side apply of the image alone, for the
//! containers that run another version of it.

use kube::{ResourceExt, api::DynamicObject};
use serde_json::{Map, Value, json};
use slipway_model::{Fault, ImageRef, Reason};
use slipway_verdict::{Applied, Previous, WorkloadKind, annotation};

use crate::{
    Kubernetes,
    apply::{FIELD_MANAGER, Write, marks},
    fault::{refused, unavailable},
    live::{self, Change, applied, change, mark, written_by},
    revisions::{PREVIOUS, REVISION, revisions, same},
};

/// The manager where [`FIELD_MANAGER`] has applied more than images, from manifests: applying less as the same manager
/// would take the rest away.
const IMAGE_MANAGER: &str = "slipway-image";

/// Sets the image of the target's containers that run it already, in any version. Repeating it for the same deployment
/// changes nothing. `previous` in the result is what ran before.
///
/// # Errors
/// Refused if no container runs an image of that name; transient while the controller has not numbered the current
/// version.
pub async fn set_image(
    cluster: &Kubernetes,
    write: &Write<'_>,
    image: &ImageRef,
) -> Result<Applied, Fault<Reason>> {
    let written = change(cluster, write, IMAGE_MANAGER, |live| async move {
        if written_by(&live, write) && annotation(&live.metadata, PREVIOUS).is_some() {
            return Ok(Change::None(live));
        }
        let ours = RunningImage::of(&live, write, image)?;
        let previous = Previous {
            revision: revision(cluster, write.target.kind, &live).await?,
            image: ours.before.clone(),
        };
        let previous =
            serde_json::to_string(&previous).map_err(|error| refused(format!("{PREVIOUS}: {error}")))?;
        Ok(ours.change(live, write, image, previous))
    })
    .await?;
    let previous = annotation(&written.metadata, PREVIOUS).and_then(|text| serde_json::from_str(text).ok());
    Ok(applied(&written, previous))
}

/// The containers that run the image.
struct RunningImage {
    containers: Vec<String>,
    init_containers: Vec<String>,
    /// The image that the first of them runs.
    before: ImageRef,
}

impl RunningImage {
    fn of(live: &DynamicObject, write: &Write<'_>, image: &ImageRef) -> Result<Self, Fault<Reason>> {
        let template = live::template(live)?;
        let spec = template.spec.unwrap_or_default();
        let (mut before, mut others) = (None, Vec::new());
        let mut select = |containers: &[k8s_openapi::api::core::v1::Container]| {
            let mut names = Vec::new();
            for container in containers {
                let runs = container.image.as_deref().unwrap_or_default();
                match runs.parse::<ImageRef>() {
                    Ok(parsed) if parsed.name == image.name => {
                        before.get_or_insert(parsed);
                        names.push(container.name.clone());
                    }
                    _ => others.push(runs.to_owned()),
                }
            }
            names
        };
        let containers = select(&spec.containers);
        let init_containers = select(&spec.init_containers.unwrap_or_default());
        let Some(before) = before.filter(|_| !containers.is_empty()) else {
            return Err(refused(format!(
                "{} {} has no container that runs {}; its images are {}",
                write.target.kind,
                write.target.name,
                image.name,
                others.join(", ")
            )));
        };
        Ok(Self {
            containers,
            init_containers,
            before,
        })
    }

    fn change(
        &self,
        mut live: DynamicObject,
        write: &Write<'_>,
        image: &ImageRef,
        previous: String,
    ) -> Change {
        let image = image.to_string();
        // Lists in the schema of a custom resource have no keys to merge by.
        if write.target.kind == WorkloadKind::Rollout {
            for (list, names) in [
                ("containers", &self.containers),
                ("initContainers", &self.init_containers),
            ] {
                let all = live.data.pointer_mut(&format!("/spec/template/spec/{list}"));
                for container in all.and_then(Value::as_array_mut).into_iter().flatten() {
                    let named = |name: &String| container["name"] == json!(name);
                    if names.iter().any(named) {
                        container["image"] = json!(image);
                    }
                }
            }
            mark(&mut live, write);
            live.annotations_mut().insert(PREVIOUS.to_owned(), previous);
            return Change::Replace(live);
        }
        let mut annotations: Map<String, Value> = marks(write)
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        annotations.insert(PREVIOUS.to_owned(), json!(previous));
        let list = |names: &[String]| -> Vec<Value> {
            names
                .iter()
                .map(|name| json!({"name": name, "image": image}))
                .collect()
        };
        let mut spec = json!({"containers": list(&self.containers)});
        if !self.init_containers.is_empty() {
            spec["initContainers"] = json!(list(&self.init_containers));
        }
        let fields = json!({
            "apiVersion": write.target.kind.api_version(),
            "kind": write.target.kind.as_str(),
            "metadata": {"name": write.target.name, "annotations": annotations},
            "spec": {"template": {"spec": spec}},
        });
        let manager = if applied_more(&live) {
            IMAGE_MANAGER
        } else {
            FIELD_MANAGER
        };
        Change::Apply(fields, manager)
    }
}

/// Whether we have applied more than images to it: fields that applying images alone would remove.
fn applied_more(live: &DynamicObject) -> bool {
    let entries = live.metadata.managed_fields.iter().flatten();
    let mut applied = entries.filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    });
    applied.any(|entry| {
        entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| !only_images(&fields.0, &[]))
    })
}

/// Whether a set of fields contains nothing but annotations and containers' images. `at` is the current path.
fn only_images(fields: &Value, at: &[&str]) -> bool {
    let Some(fields) = fields.as_object() else {
        return true;
    };
    fields.iter().all(|(key, below)| {
        let path = [at, &[key.as_str()]].concat();
        let fine = match path.as_slice() {
            [.., "."] => true,
            ["f:metadata"] | ["f:metadata", "f:annotations", ..] => true,
            ["f:spec"] | ["f:spec", "f:template"] | ["f:spec", "f:template", "f:spec"] => true,
            ["f:spec", "f:template", "f:spec", list, rest @ ..] => {
                matches!(*list, "f:containers" | "f:initContainers")
                    && match rest {
                        [] => true,
                        [item] => item.starts_with("k:"),
                        [_, field] => matches!(*field, "f:name" | "f:image"),
                        _ => false,
                    }
            }
            _ => false,
        };
        fine && only_images(below, &path)
    })
}

/// The number of the current template.
async fn revision(
    cluster: &Kubernetes,
    kind: WorkloadKind,
    live: &DynamicObject,
) -> Result<i64, Fault<Reason>> {
    let number = |pointer: &str| live.data.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let unseen = number("/status/observedGeneration") < live.metadata.generation.unwrap_or(0);
    if unseen && kind != WorkloadKind::Rollout {
        return Err(unavailable(format!(
            "{kind} {}: its controller has not seen the current version yet, so it has no revision to go back to",
            live.name_any()
        )));
    }
    if kind == WorkloadKind::Deployment
        && let Some(number) = annotation(&live.metadata, REVISION).and_then(|text| text.parse().ok())
    {
        return Ok(number);
    }
    let present = live::template(live)?;
    let revisions = revisions(cluster, kind, live).await?;
    let own = revisions.iter().filter(|one| same(&one.template, &present));
    // If the API server's defaults differ from those of the controller's version, take the newest one.
    let newest = || revisions.iter().map(|one| one.number).max();
    Ok(own.map(|one| one.number).max().or_else(newest).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::only_images;

    #[test]
    fn what_manifests_own_is_more_than_images() {
        let images = json!({
            "f:metadata": {"f:annotations": {"f:deploy.slipway.dev/epoch": {}}},
            "f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"shop\"}": {".": {}, "f:name": {}, "f:image": {}},
            }}}},
        });
        assert!(only_images(&images, &[]));
        let mut replicas = images.clone();
        replicas["f:spec"]["f:replicas"] = json!({});
        assert!(!only_images(&replicas, &[]));
        let mut env = images;
        env["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"shop\"}"]["f:env"] = json!({});
        assert!(!only_images(&env, &[]));
    }
}
