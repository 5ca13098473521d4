//! Changes of a workload as it is in the cluster: read, fenced by the lane's epoch, written only on the version that
//! was read.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, Selector},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Applied, DEPLOYMENT, EPOCH, Previous, annotation, created, epoch_of};

use crate::{
    Kubernetes,
    apply::{Write, bounded, fence, marks},
    call,
    fault::{fault_of, refused, unavailable},
    race,
    workload::resource,
};

/// What to do about the object that was read.
pub(crate) enum Change {
    /// Nothing: this deployment has written it already.
    None(DynamicObject),
    /// Replace the whole object with a changed one.
    Replace(DynamicObject),
    /// Server-side apply of these fields as that manager.
    Apply(Value, &'static str),
}

/// Reads the target, has `decide` say what to write, and writes that with an optimistic lock, repeatedly while others
/// write in between.
///
/// # Errors
/// : refused when the target does not exist, superseded when a later epoch wrote it.
pub(crate) async fn change<F, T>(
    cluster: &Kubernetes,
    write: &Write<'_>,
    manager: &'static str,
    decide: F,
) -> Result<DynamicObject, Fault<Reason>>
where
    F: Fn(DynamicObject) -> T,
    T: Future<Output = Result<Change, Fault<Reason>>>,
{
    let target = write.target;
    let object = format!("{} {}", target.kind, target.name);
    let api: Api<DynamicObject> = Api::namespaced_with(
        cluster.client().clone(),
        target.namespace.as_str(),
        &resource(target.kind),
    );
    let _place = cluster.write_permit().await?;
    for _ in 0..race::TRIES {
        let live = call(&format!("read {object}"), api.get_opt(&target.name)).await?;
        let Some(live) = live else {
            return Err(refused(format!(
                "{object} is not in namespace {}: there is nothing to change",
                target.namespace
            )));
        };
        fence(&live, &object, write)?;
        let version = live.resource_version();
        slipway_faults::point("deploy.change.before");
        let outcome = match decide(live).await? {
            Change::None(live) => return Ok(live),
            Change::Replace(mut changed) => {
                changed.metadata.resource_version = version;
                changed.metadata.managed_fields = None;
                let parameters = PostParams {
                    field_manager: Some(manager.to_owned()),
                    ..PostParams::default()
                };
                bounded(api.replace(&target.name, &parameters, &changed)).await
            }
            Change::Apply(mut fields, manager) => {
                fields["metadata"]["resourceVersion"] = Value::from(version);
                let parameters = PatchParams::apply(manager).force();
                bounded(api.patch(&target.name, &parameters, &Patch::Apply(&fields))).await
            }
        };
        match outcome {
            Ok(Ok(written)) => {
                slipway_faults::point("deploy.change.after");
                return Ok(written);
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                race::lost(&object).await;
            }
            Ok(Err(error)) => return Err(fault_of(&format!("change {object}"), &error)),
            Err(words) => return Err(unavailable(format!("change {object}: {words}"))),
        }
    }
    Err(race::given_up(&format_args!("change {object}")))
}

/// Whether this deployment has written the object already: then it is not written again.
pub(crate) fn written_by(live: &DynamicObject, write: &Write<'_>) -> bool {
    annotation(live.meta(), DEPLOYMENT) == Some(write.deployment.as_str())
        && annotation(live.meta(), EPOCH).is_some()
        && epoch_of(live.meta()) == write.epoch
}

/// Records in the object's annotations on whose behalf it is written.
pub(crate) fn mark(object: &mut DynamicObject, write: &Write<'_>) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    for (key, value) in marks(write) {
        annotations.insert(key.to_owned(), value);
    }
}

/// The result of the write.
pub(crate) fn applied(written: &DynamicObject, previous: Option<Previous>) -> Applied {
    Applied {
        uid: written.uid().unwrap_or_default(),
        generation: written.metadata.generation.unwrap_or(0),
        created_at: created(&written.metadata),
        previous,
    }
}

/// A part of the object in its own type.
///
/// # Errors
/// Refused if it does not have that shape.
pub(crate) fn part<T: DeserializeOwned>(
    live: &DynamicObject,
    pointer: &str,
) -> Result<Option<T>, Fault<Reason>> {
    let Some(value) = live.data.pointer(pointer).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|error| refused(format!("{pointer} of {}: {error}", live.name_any())))
}

/// The template of its pods.
///
/// # Errors
/// Refused, when it has none.
pub(crate) fn template(live: &DynamicObject) -> Result<PodTemplateSpec, Fault<Reason>> {
    part(live, "/spec/template")?.ok_or_else(|| refused(format!("{} has no pod template", live.name_any())))
}

/// Those objects of a kind that it owns, in full.
///
/// # Errors
/// When they cannot be listed.
pub(crate) async fn owned<K: Resource<DynamicType = ()>>(
    cluster: &Kubernetes,
    live: &DynamicObject,
) -> Result<Vec<DynamicObject>, Fault<Reason>> {
    let namespace = live.namespace().unwrap_or_default();
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().clone(), &namespace, &resource);
    let selector: Option<LabelSelector> = part(live, "/spec/selector")?;
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    let list = ListParams::default().labels(&selector.map(|one| one.to_string()).unwrap_or_default());
    let found = call(&format!("list {}s", resource.kind), api.list(&list)).await?;
    let uid = live.metadata.uid.as_deref();
    let ours = |object: &DynamicObject| slipway_verdict::owned_by(object.meta(), uid);
    Ok(found.items.into_iter().filter(ours).collect())
}
