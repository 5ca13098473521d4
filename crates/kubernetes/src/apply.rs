//! Applies one commit's manifests to the cluster: server-side apply, fenced by the lane's epoch.
//!
//! Every object carries the epoch, the target whose lane granted it, the deployment and the commit. Before a write the
//! live object is read; one that carries a higher epoch of the same target is never overwritten, and the write holds
//! only for the version that was read, so that a writer that stalled in between has to read again. The target itself is
//! checked first and written last: once its epoch is written, everything else is done.

pub mod manifests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::{self, ApiResource, Scope},
};
use serde_json::{Value, json};
use slipway_model::{Fault, Id, Reason};

use super::{
    Kubernetes, call,
    fault::{self, fault_of, refused, unavailable},
    race,
};
use manifests::Manifest;
use slipway_verdict::{Applied, COMMIT, DEPLOYMENT, EPOCH, TARGET, Target, annotation, created, epoch_of};

/// The field manager of everything that Slipway writes.
pub const FIELD_MANAGER: &str = "slipway";

/// What is written, and on whose behalf.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    pub deployment: &'a Id,
    pub target: &'a Target,
    pub epoch: u64,
    /// Of the GitOps repository; empty if git does not know the target.
    pub commit: &'a str,
}

/// Where kinds are served in a cluster, from discovery. A cluster keeps what it has; only kinds that were found are
/// remembered.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Arc<Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>>);

impl Kinds {
    fn known(&self, kind: &GroupVersionKind) -> Option<(ApiResource, Scope)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(kind)
            .cloned()
    }

    fn remember(&self, kind: &GroupVersionKind, found: (ApiResource, Scope)) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind.clone(), found);
    }
}

/// Applies all of them, the target last, and returns what became of the target.
///
/// # Errors
/// What was written before an error stays; the same call again continues.
pub async fn apply(
    cluster: &Kubernetes,
    manifests: Vec<Manifest>,
    write: &Write<'_>,
) -> Result<Applied, Fault<Reason>> {
    let mut objects = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let api = resolve(cluster, &manifest, write.target).await?;
        objects.push((api, manifest));
    }
    if let Some((api, manifest)) = objects
        .iter()
        .find(|(_, manifest)| manifest.is_target(write.target))
    {
        read(api, manifest, write).await?;
    }
    objects.sort_by_key(|(_, manifest)| (manifest.is_target(write.target), manifest.rank()));
    let mut applied = Applied::default();
    for (api, manifest) in objects {
        let is_target = manifest.is_target(write.target);
        slipway_faults::point("deploy.apply.before");
        let written = {
            let _place = cluster.write_permit().await?;
            put(&api, &manifest, write).await?
        };
        slipway_faults::point("deploy.apply.after");
        if is_target {
            applied = Applied {
                uid: written.uid().unwrap_or_default(),
                generation: written.metadata.generation.unwrap_or(0),
                created_at: created(&written.metadata),
                previous: None,
            };
        }
    }
    Ok(applied)
}

/// The namespace and API that the object belongs to.
async fn resolve(
    cluster: &Kubernetes,
    manifest: &Manifest,
    target: &Target,
) -> Result<Api<DynamicObject>, Fault<Reason>> {
    let (resource, scope) = match cluster.kinds.known(&manifest.kind) {
        Some(known) => known,
        None => {
            let found = discover(cluster.client(), manifest).await?;
            cluster.kinds.remember(&manifest.kind, found.clone());
            found
        }
    };
    let client = cluster.client().clone();
    match (scope, manifest.namespace.as_deref()) {
        (Scope::Cluster, _) => Ok(Api::all_with(client, &resource)),
        (Scope::Namespaced, Some(namespace)) if namespace != target.namespace.as_str() => {
            Err(refused(format!(
                "{manifest} is meant for namespace {namespace}, and this target is in {}: other namespaces are not \
                 supported yet",
                target.namespace
            )))
        }
        (Scope::Namespaced, _) => Ok(Api::namespaced_with(client, target.namespace.as_str(), &resource)),
    }
}

async fn discover(client: &Client, manifest: &Manifest) -> Result<(ApiResource, Scope), Fault<Reason>> {
    let absent = || {
        let (kind, version) = (&manifest.kind.kind, manifest.kind.api_version());
        refused(format!(
            "{manifest}: the cluster has no kind {kind} in {version}; is its CRD installed?"
        ))
    };
    match bounded(discovery::pinned_kind(client, &manifest.kind)).await {
        Ok(Ok((resource, capabilities))) => Ok((resource, capabilities.scope)),
        Ok(Err(kube::Error::Discovery(_))) => Err(absent()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(absent()),
        Ok(Err(error)) => Err(fault_of(&manifest.to_string(), &error)),
        Err(words) => Err(unavailable(format!("{manifest}: {words}"))),
    }
}

/// Reads the live object and refuses if a later epoch wrote it.
async fn read(
    api: &Api<DynamicObject>,
    manifest: &Manifest,
    write: &Write<'_>,
) -> Result<Option<DynamicObject>, Fault<Reason>> {
    let live = call(&format!("read {manifest}"), api.get_opt(&manifest.name)).await?;
    if let Some(live) = &live {
        fence(live, &manifest.to_string(), write)?;
    }
    Ok(live)
}

/// Refuses if a later turn of the same lane wrote the object.
///
/// # Errors
/// With the code [`fault::SUPERSEDED`].
pub(crate) fn fence(live: &DynamicObject, object: &str, write: &Write<'_>) -> Result<(), Fault<Reason>> {
    let meta = live.meta();
    let epoch = epoch_of(meta);
    // Epochs of another target's lane say nothing about ours: shared objects belong to the last writer.
    let same_lane = annotation(meta, TARGET) == Some(write.target.key().as_str());
    if same_lane && epoch > write.epoch {
        let by = annotation(meta, DEPLOYMENT).unwrap_or("another deployment");
        return Err(Fault::refused(
            fault::SUPERSEDED,
            format!(
                "{object} carries epoch {epoch}, written by {by}, which is later than this one's {}: left as it is",
                write.epoch
            ),
        ));
    }
    Ok(())
}

async fn put(
    api: &Api<DynamicObject>,
    manifest: &Manifest,
    write: &Write<'_>,
) -> Result<DynamicObject, Fault<Reason>> {
    let what = format!("apply {manifest}");
    let mut body = manifest.object.clone();
    annotate(&mut body, write);
    let mut adopted = false;
    for _ in 0..race::TRIES {
        let outcome = match read(api, manifest, write).await? {
            // Only once: field ownership is worth a try, but not worth failing the deployment.
            Some(live) if !adopted && created_by_us(&live).is_some() => {
                adopt(api, &manifest.name, &live, &what).await?;
                adopted = true;
                continue;
            }
            Some(live) => {
                body["metadata"]["resourceVersion"] = json!(live.resource_version());
                let parameters = PatchParams::apply(FIELD_MANAGER).force();
                bounded(api.patch(&manifest.name, &parameters, &Patch::Apply(&body))).await
            }
            None => {
                // An apply cannot say "only if it does not exist"; a create can, and is turned into one by `adopt`.
                let parameters = PostParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let object: DynamicObject = serde_json::from_value(body.clone())
                    .map_err(|error| refused(format!("{what}: {error}")))?;
                bounded(api.create(&parameters, &object)).await
            }
        };
        match outcome {
            Ok(Ok(written)) if created_by_us(&written).is_some() => {
                adopt(api, &manifest.name, &written, &what).await?;
                return Ok(written);
            }
            Ok(Ok(written)) => return Ok(written),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                race::lost(manifest).await;
            }
            Ok(Err(error)) => return Err(fault_of(&what, &error)),
            Err(words) => return Err(unavailable(format!("{what}: {words}"))),
        }
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
    }
    Err(race::given_up(&what))
}

pub(crate) async fn bounded<T>(call: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(super::CALL_TIMEOUT, call)
        .await
        .map_err(|_| format!("no answer within {} s", super::CALL_TIMEOUT.as_secs()))
}

fn annotate(body: &mut Value, write: &Write<'_>) {
    let annotations = &mut body["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    for (key, value) in marks(write) {
        annotations[key] = json!(value);
    }
}

/// The annotations that say on whose behalf something is written.
pub(crate) fn marks(write: &Write<'_>) -> impl Iterator<Item = (&'static str, String)> {
    let commit = (!write.commit.is_empty()).then(|| (COMMIT, write.commit.to_owned()));
    [
        (EPOCH, write.epoch.to_string()),
        (TARGET, write.target.key()),
        (DEPLOYMENT, write.deployment.to_string()),
    ]
    .into_iter()
    .chain(commit)
}

/// Where a create by us appears among the managed fields as an update. Fields owned that way would outlive their
/// removal from the manifests.
fn created_by_us(object: &DynamicObject) -> Option<usize> {
    object.metadata.managed_fields.iter().flatten().position(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Update")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })
}

/// Turns our create into an apply, as `kubectl apply --server-side` does with what it finds (client-go's csaupgrade).
async fn adopt(
    api: &Api<DynamicObject>,
    name: &str,
    live: &DynamicObject,
    what: &str,
) -> Result<(), Fault<Reason>> {
    let Some(index) = created_by_us(live) else {
        return Ok(());
    };
    let fields = live.metadata.managed_fields.clone().unwrap_or_default();
    let applied_already = fields.iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    });
    let at = format!("/metadata/managedFields/{index}");
    let version =
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": live.resource_version()});
    let change = if applied_already {
        json!({"op": "remove", "path": at})
    } else {
        json!({"op": "replace", "path": format!("{at}/operation"), "value": "Apply"})
    };
    let patch: json_patch::Patch = serde_json::from_value(json!([version, change]))
        .map_err(|error| refused(format!("{what}: {error}")))?;
    match bounded(api.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))).await {
        Ok(Ok(_)) => Ok(()),
        // Another writer came in between: the next turn finds it again.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        Ok(Err(error)) => Err(fault_of(what, &error)),
        Err(words) => Err(unavailable(format!("{what}: {words}"))),
    }
}
