//! Applies one commit's manifests to the cluster: server-side apply, fenced by the lane's epoch.
//!
//! Every object carries the epoch, the target whose lane granted it, the deployment and the commit. Before a write the
//! live object is read; one that carries a higher epoch of the same target is never overwritten, and the write holds
//! only for the version that was read, so that a writer that stalled in between has to read again. The target itself is
//! checked first and written last: once its epoch is written, everything else is done.

mod definitions;
pub mod manifests;
mod takeover;
mod trial;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
use definitions::Definitions;
use manifests::Manifest;
use slipway_verdict::{Applied, COMMIT, DEPLOYMENT, EPOCH, TARGET, Target, annotation, created, epoch_of};
use trial::Trial;

/// How often discovery is asked for a kind whose definition is established, and in which intervals.
const DISCOVERY_TRIES: u32 = 50;
const DISCOVERY_EVERY: Duration = Duration::from_millis(200);

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
    let definitions = Definitions::of(&manifests);
    let mut objects = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        // Before their definition is there, the cluster does not know them.
        let api = if definitions.define(&manifest.kind) {
            None
        } else {
            Some(resolve(cluster, &manifest, write.target).await?)
        };
        objects.push((api, manifest));
    }
    if let Some((Some(api), manifest)) = objects
        .iter()
        .find(|(_, manifest)| manifest.is_target(write.target))
    {
        read(api, manifest, write).await?;
    }
    let mut trial = Trial::of(&objects, write.target).await?;
    objects.sort_by_key(|(_, manifest)| (manifest.is_target(write.target), manifest.rank()));
    let mut applied = Applied::default();
    for (api, manifest) in objects {
        let is_target = manifest.is_target(write.target);
        let api = match api {
            Some(api) => api,
            None => resolve_defined(cluster, &manifest, write.target).await?,
        };
        slipway_faults::point("deploy.apply.before");
        let written = {
            let _place = cluster.write_permit().await?;
            put(&api, &manifest, write).await?
        };
        slipway_faults::point("deploy.apply.after");
        if let Some(trial) = &mut trial {
            trial.written(&manifest, &written);
        }
        if definitions::is_definition(&manifest) {
            definitions::established(&api, &manifest).await?;
        }
        if is_target {
            applied = Applied {
                uid: written.uid().unwrap_or_default(),
                generation: written.metadata.generation.unwrap_or(0),
                created_at: created(&written.metadata),
                previous: None,
            };
        }
    }
    match trial {
        Some(trial) => trial.end(write.target).map(|()| applied),
        None => Ok(applied),
    }
}

/// As [`resolve`], for a kind whose definition has just been established: discovery lags behind that.
async fn resolve_defined(
    cluster: &Kubernetes,
    manifest: &Manifest,
    target: &Target,
) -> Result<Api<DynamicObject>, Fault<Reason>> {
    let mut tries = 0;
    loop {
        match resolve(cluster, manifest, target).await {
            Err(Fault::Permanent(_)) if tries < DISCOVERY_TRIES => {
                tries += 1;
                tokio::time::sleep(DISCOVERY_EVERY).await;
            }
            resolved => return resolved,
        }
    }
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
    for attempt in 0..race::TRIES {
        let outcome = match read(api, manifest, write).await? {
            // Controllers write to what was just made, so that this may be lost to one of them. In the end field ownership
            // is not worth failing the deployment.
            Some(live) if !adopted && takeover::is_due(&live) => {
                let taken = takeover::take_over(api, &manifest.name, &live, &what).await?;
                adopted = taken || attempt + 2 >= race::TRIES;
                if !taken {
                    race::lost(manifest).await;
                }
                continue;
            }
            Some(live) => {
                body["metadata"]["resourceVersion"] = json!(live.resource_version());
                let parameters = PatchParams::apply(FIELD_MANAGER).force();
                bounded(api.patch(&manifest.name, &parameters, &Patch::Apply(&body))).await
            }
            None => {
                // An apply cannot say "only if it does not exist"; a create can, and is turned into one by the takeover.
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
            Ok(Ok(written)) if takeover::is_due(&written) => {
                takeover::take_over(api, &manifest.name, &written, &what).await?;
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
