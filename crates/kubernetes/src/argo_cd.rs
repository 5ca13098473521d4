//! Argo CD's Applications: requests a refresh, begins or ends a sync, in the same way as Argo CD's own API server.
//!
//! A sync is the top-level `operation` of the Application. It is written only if there is none, together with the
//! removal of the last one's outcome, and holds only for the version that was read (the CRD has no status subresource):
//! a writer that loses that race decides again. The epoch of the target's lane and the operation's id are written with
//! it, so that a deployment that resumes after a crash finds what it did, and one that was overtaken does nothing.

use std::ops::ControlFlow;

use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use slipway_model::{CommitSha, Fault, Id, Reason};
use slipway_verdict::{
    Applied, COMMIT, DEPLOYMENT, EPOCH, TARGET, Target, WorkloadKind,
    application::{Application, Next, OPERATION, Phase, REFRESH, Sync, USERNAME},
    created,
    sync_window::{AppProject, SyncWindow},
};

use super::{
    Kubernetes,
    apply::FIELD_MANAGER,
    call,
    fault::{fault_of, refused, unavailable},
    race, workload,
};

/// Where Argo CD is usually installed.
const HOME: &str = "argocd";

/// What is to be synced, and on whose behalf.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub deployment: &'a Id,
    pub sync: &'a Sync,
    pub epoch: u64,
    /// Objects that were removed from git are deleted.
    pub prune: bool,
    /// Added to those of the application; one with the same name is replaced.
    pub options: &'a [String],
}

/// The result of asking for a sync.
#[derive(Debug)]
pub enum Started {
    /// It was written.
    Written(Applied),
    /// It was not written: the live object says that something else is next.
    Otherwise {
        next: Next,
        live: Box<Application>,
        /// As it stands.
        applied: Applied,
    },
    /// There is no such Application.
    Gone,
}

/// Asks the controller to refresh from git; `hard`: bypassing its cache of manifests.
///
/// # Errors
/// Also refused when there is no such Application.
pub async fn refresh(cluster: &Kubernetes, target: &Target, hard: bool) -> Result<Applied, Fault<Reason>> {
    let _permit = cluster.write_permit().await?;
    let kind = if hard { "hard" } else { "normal" };
    let patch = json!({"metadata": {"annotations": {REFRESH: kind}}});
    let parameters = patch_params();
    let live = call(
        &format!("refresh Application {}", target.name),
        api(cluster, target).patch(&target.name, &parameters, &Patch::Merge(&patch)),
    )
    .await?;
    Ok(applied(&live))
}

/// Writes the sync if `decide` says so for the object as it is. Asking twice has the effect of asking once: an object
/// that carries the operation's id is not written again unless `decide` says so.
///
/// # Errors
/// When the API server cannot be asked, refuses, or every try lost against another writer.
pub async fn start(
    cluster: &Kubernetes,
    target: &Target,
    order: &Order<'_>,
    decide: impl Fn(&Application) -> Next + Send + std::marker::Sync,
) -> Result<Started, Fault<Reason>> {
    let what = format!("sync Application {}", target.name);
    let _permit = cluster.write_permit().await?;
    let write = |raw: &DynamicObject, live: &Application| match decide(live) {
        Next::StartSync => ControlFlow::Continue(operation_patch(raw, order)),
        next => ControlFlow::Break(Started::Otherwise {
            next,
            live: Box::new(live.clone()),
            applied: applied(raw),
        }),
    };
    slipway_faults::point("deploy.sync.before");
    let outcome = rewrite(cluster, target, &what, write).await?;
    slipway_faults::point("deploy.sync.after");
    Ok(match outcome {
        Rewritten::Written(live) => Started::Written(applied(&live)),
        Rewritten::Left(started) => started,
        Rewritten::Gone => Started::Gone,
    })
}

/// Ends a sync of ours that has not ended: one that is running is terminated as `argocd app terminate-op` does, one
/// that has not begun is removed. Returns whether there was anything to end.
///
/// # Errors
/// A [`Fault`], as the API server answered.
pub async fn terminate(
    cluster: &Kubernetes,
    target: &Target,
    operation: &str,
) -> Result<bool, Fault<Reason>> {
    let what = format!("terminate the sync of Application {}", target.name);
    let write = |_: &DynamicObject, live: &Application| {
        let pending = live.operation.as_ref().filter(|one| one.id() == Some(operation));
        let state = live.status.operation_state.as_ref();
        let state = state.filter(|state| state.operation.id() == Some(operation));
        match (pending, state) {
            (Some(_), Some(state)) if state.phase == Phase::Running => {
                let phase = "/status/operationState/phase";
                ControlFlow::Continue(json!([{"op": "replace", "path": phase, "value": "Terminating"}]))
            }
            (Some(_), None) => ControlFlow::Continue(json!([{"op": "remove", "path": "/operation"}])),
            _ => ControlFlow::Break(()),
        }
    };
    let _permit = cluster.write_permit().await?;
    Ok(matches!(
        rewrite(cluster, target, &what, write).await?,
        Rewritten::Written(_)
    ))
}

/// The sync windows of the application's project. `None` when the project may not be read, or is not where Argo CD says
/// it is: then what the controller says has to do.
///
/// # Errors
/// A transient fault, when the API server cannot be asked.
pub async fn windows(
    cluster: &Kubernetes,
    target: &Target,
    live: &Application,
) -> Result<Option<Vec<SyncWindow>>, Fault<Reason>> {
    let homes = match live.status.controller_namespace.as_str() {
        // Older versions do not report it.
        "" => vec![target.namespace.as_str(), HOME],
        namespace => vec![namespace],
    };
    let project = match live.spec.project.as_str() {
        "" => "default",
        project => project,
    };
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "AppProject"));
    for namespace in homes {
        let projects: Api<DynamicObject> = Api::namespaced_with(cluster.client().clone(), namespace, &kind);
        let what = format!("read AppProject {namespace}/{project}");
        match call(&what, projects.get_opt(project)).await {
            Ok(None) => {}
            Ok(Some(found)) => {
                let project: AppProject = parse(&found, "AppProject")?;
                return Ok(Some(project.spec.sync_windows));
            }
            Err(Fault::Permanent(error)) => {
                tracing::debug!(%error, "the project's sync windows are not known");
            }
            Err(away) => return Err(away),
        }
    }
    Ok(None)
}

enum Rewritten<T> {
    Written(Box<DynamicObject>),
    /// As `write` said.
    Left(T),
    Gone,
}

/// Reads the object, and writes what `write` makes of it if there was no other write in between; otherwise reads again.
async fn rewrite<T>(
    cluster: &Kubernetes,
    target: &Target,
    what: &str,
    write: impl Fn(&DynamicObject, &Application) -> ControlFlow<T, Value> + Send,
) -> Result<Rewritten<T>, Fault<Reason>> {
    let api = api(cluster, target);
    // A patch that no longer applies and one that never will are answered alike; the version tells them apart.
    let mut last: Option<(String, Fault<Reason>)> = None;
    for _ in 0..race::TRIES {
        let Some(raw) = call(what, api.get_opt(&target.name)).await? else {
            return Ok(Rewritten::Gone);
        };
        let version = raw.resource_version().unwrap_or_default();
        if let Some((before, fault)) = last.take()
            && before == version
        {
            return Err(fault);
        }
        let live: Application = parse(&raw, "Application")?;
        let changes = match write(&raw, &live) {
            ControlFlow::Continue(changes) => changes,
            ControlFlow::Break(left) => return Ok(Rewritten::Left(left)),
        };
        let mut operations =
            vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
        operations.extend(changes.as_array().cloned().unwrap_or_default());
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
            .map_err(|error| refused(format!("{what}: {error}")))?;
        let parameters = patch_params();
        let patch = Patch::<()>::Json(patch);
        let outcome = tokio::time::timeout(super::CALL_TIMEOUT, api.patch(&target.name, &parameters, &patch));
        match outcome.await {
            Ok(Ok(written)) => return Ok(Rewritten::Written(Box::new(written))),
            Ok(Err(error)) => match &error {
                kube::Error::Api(status) if status.code == 404 => return Ok(Rewritten::Gone),
                kube::Error::Api(status) if matches!(status.code, 409 | 422) => {
                    last = Some((version, fault_of(what, &error)));
                    race::lost(&what).await;
                }
                _ => return Err(fault_of(what, &error)),
            },
            Err(_) => {
                return Err(unavailable(format!(
                    "{what}: no answer within {} s",
                    super::CALL_TIMEOUT.as_secs()
                )));
            }
        }
    }
    Err(race::given_up(&what))
}

/// The changes that request the sync.
fn operation_patch(live: &DynamicObject, order: &Order<'_>) -> Value {
    let policy = &live.data["spec"]["syncPolicy"];
    let mut changes = vec![json!({
        "op": "add", "path": "/operation",
        "value": operation(order, &options(&policy["syncOptions"], order.options), &policy["retry"]),
    })];
    if !live.data["status"]["operationState"].is_null() {
        changes.push(json!({"op": "remove", "path": "/status/operationState"}));
    }
    if live.metadata.annotations.is_none() {
        changes.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let epoch = order.epoch.to_string();
    let annotations = [
        (OPERATION, order.sync.operation.as_str()),
        (EPOCH, &epoch),
        (TARGET, &order.sync.lane),
        (DEPLOYMENT, order.deployment.as_str()),
        (COMMIT, order.sync.revision.as_str()),
    ];
    for (key, value) in annotations {
        let path = format!(
            "/metadata/annotations/{}",
            key.replace('~', "~0").replace('/', "~1")
        );
        changes.push(json!({"op": "add", "path": path, "value": value}));
    }
    Value::Array(changes)
}

/// As Argo CD's API server writes it, with the full commit id (argo-cd#28778).
fn operation(order: &Order<'_>, options: &[String], retry: &Value) -> Value {
    let revision: &CommitSha = &order.sync.revision;
    let mut operation = json!({
        "initiatedBy": {"username": USERNAME, "automated": false},
        "info": [
            {"name": OPERATION, "value": order.sync.operation},
            {"name": DEPLOYMENT, "value": order.deployment.as_str()},
        ],
        "sync": {
            "revision": revision.as_str(),
            "prune": order.prune,
            "syncStrategy": {"hook": {}},
        },
    });
    if !options.is_empty() {
        operation["sync"]["syncOptions"] = json!(options);
    }
    if retry.is_object() {
        operation["retry"] = retry.clone();
        // A retry that goes to the branch's head would no longer sync our commit.
        if let Some(retry) = operation["retry"].as_object_mut() {
            retry.remove("refresh");
        }
    }
    operation
}

/// The application's own options, in the way its API server takes them over, and ours.
fn options(own: &Value, ours: &[String]) -> Vec<String> {
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    let own = own.as_array().into_iter().flatten().filter_map(Value::as_str);
    let kept = own.filter(|option| !ours.iter().any(|one| name(one) == name(option)));
    kept.map(str::to_owned).chain(ours.iter().cloned()).collect()
}

fn api(cluster: &Kubernetes, target: &Target) -> Api<DynamicObject> {
    let resource = workload::resource(WorkloadKind::Application);
    Api::namespaced_with(cluster.client().clone(), target.namespace.as_str(), &resource)
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: &DynamicObject, kind: &str) -> Result<T, Fault<Reason>> {
    serde_json::to_value(object)
        .and_then(serde_json::from_value)
        .map_err(|error| refused(format!("read the {kind}: unexpected answer: {error}")))
}

fn applied(live: &DynamicObject) -> Applied {
    Applied {
        uid: live.uid().unwrap_or_default(),
        generation: live.metadata.generation.unwrap_or(0),
        created_at: created(&live.metadata),
        previous: None,
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use slipway_verdict::application::{Sync, WhenBlocked};

    use super::{Order, operation_patch, options};

    #[test]
    fn the_operation_is_what_the_api_server_writes() {
        let sync = Sync {
            operation: "dep-1/shop".to_owned(),
            revision: "1".repeat(40).parse().unwrap(),
            lane: "prod/shop/Application/shop".to_owned(),
            descendants: Vec::new(),
            when_busy: WhenBlocked::Wait,
            when_closed: WhenBlocked::Wait,
            restores: false,
            require_synced: false,
        };
        let order = Order {
            deployment: &"dep-1".parse().unwrap(),
            sync: &sync,
            epoch: 7,
            prune: true,
            options: &["ServerSideApply=true".to_owned()],
        };
        let live = json!({
            "metadata": {"name": "shop"},
            "spec": {"syncPolicy": {
                "syncOptions": ["CreateNamespace=true", "ServerSideApply=false"],
                "retry": {"limit": 3, "refresh": true},
            }},
            "status": {"operationState": {"phase": "Failed"}},
        });
        let mut document = live.clone();
        let patch = operation_patch(&serde_json::from_value(live).unwrap(), &order);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut document, &patch).unwrap();
        assert_eq!(
            document["operation"],
            json!({
                "initiatedBy": {"username": "slipway", "automated": false},
                "info": [
                    {"name": "deploy.slipway.dev/operation", "value": "dep-1/shop"},
                    {"name": "deploy.slipway.dev/deployment", "value": "dep-1"},
                ],
                "sync": {
                    "revision": "1".repeat(40), "prune": true, "syncStrategy": {"hook": {}},
                    "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
                },
                "retry": {"limit": 3},
            })
        );
        assert_eq!(document["status"], json!({}));
        assert_eq!(
            document["metadata"]["annotations"],
            json!({
                "deploy.slipway.dev/operation": "dep-1/shop",
                "deploy.slipway.dev/epoch": "7",
                "deploy.slipway.dev/target": "prod/shop/Application/shop",
                "deploy.slipway.dev/deployment": "dep-1",
                "deploy.slipway.dev/commit": "1".repeat(40),
            })
        );
    }

    #[test]
    fn options_of_the_same_name_take_the_others_place() {
        let ours = ["Prune=false".to_owned()];
        assert_eq!(options(&Value::Null, &ours), ["Prune=false"]);
        assert_eq!(
            options(&json!(["Prune=true", "Validate=false"]), &ours),
            ["Validate=false", "Prune=false"]
        );
    }
}
