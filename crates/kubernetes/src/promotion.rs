//! Promotes and aborts progressive rollouts, with the same writes as the tools' own commands.
//!
//! **Argo Rollouts** (`kubectl argo rollouts promote` and `abort`): a pause ends when `status.pauseConditions` is
//! cleared and `spec.paused` is false, `status.promoteFull` skips all that is left, `status.abort` ends it. The plugin
//! skips a running step if nothing is paused; here that is refused, since asking twice would skip the next one
//! unnoticed.
//!
//! **Flagger** has no commands. It asks webhooks (`confirm-rollout`, `confirm-promotion`), which approval-svc or
//! another gate answers, so a promotion is refused, naming them. A full promotion sets `spec.skipAnalysis`: Flagger
//! then promotes at its next check, whatever its gates say; [`settle`] takes it back after the run. An abort sets
//! `status.failedChecks` to the analysis' threshold, at which Flagger rolls back as it does after failed checks:
//! traffic first, then the canary's pods, then the phase Failed. Its webhooks of type `rollback` do the same, but only
//! the author of the Canary can add them.
//!
//! Every write holds for the version that was read, so that a pause or run that began in between is left alone.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use slipway_model::{Fault, Reason};
use slipway_verdict::{
    Target, Workload, WorkloadKind, annotation,
    canary::SKIPPED,
    objects::{canary::Canary, rollout::Rollout},
};

use crate::{
    Kubernetes, call,
    fault::{fault_of, refused},
    race,
    workload::{resource, typed},
};

/// The field manager of these writes. A separate one: an apply of the manifests must not revert them.
const FIELD_MANAGER: &str = "slipway-promotion";

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It is in that state already, or there is nothing to do it to. The reason, for people.
    Nothing(String),
}

/// What to write, as JSON merge patches.
#[derive(Debug, Default)]
struct Patches {
    /// Of the status, which is written first.
    status: Option<Value>,
    /// Of the object.
    object: Option<Value>,
}

/// The decision on the object that was read.
enum Plan {
    Write(Patches),
    Nothing(String),
    Refuse(String),
}

/// Lets a paused rollout continue to its next pause, or with `full` past all steps, pauses and analyses.
///
/// # Errors
/// A permanent fault if the kind has no steps, or its promotion is not up to us; a transient fault otherwise.
pub async fn promote(cluster: &Kubernetes, target: &Target, full: bool) -> Result<Outcome, Fault<Reason>> {
    write(cluster, target, "promote", |live| match live {
        Workload::Rollout(live) => promote_rollout(live, full),
        Workload::Canary(live) => promote_canary(live, full),
        _ => no_steps(target),
    })
    .await
}

/// Ends a rollout: the previous version serves everything again.
///
/// # Errors
/// As [`promote`].
pub async fn abort(cluster: &Kubernetes, target: &Target) -> Result<Outcome, Fault<Reason>> {
    write(cluster, target, "abort", |live| match live {
        Workload::Rollout(live) => abort_rollout(live),
        Workload::Canary(live) => abort_canary(live),
        _ => no_steps(target),
    })
    .await
}

/// Reverts what a full promotion set for one run. To be called when the run has ended; does nothing if it was not set.
///
/// # Errors
/// As [`promote`].
pub async fn settle(cluster: &Kubernetes, target: &Target) -> Result<Outcome, Fault<Reason>> {
    write(cluster, target, "settle", |live| match live {
        Workload::Canary(live) if annotation(&live.metadata, SKIPPED).is_some() => Plan::Write(Patches {
            status: None,
            object: Some(json!({
                "metadata": {"annotations": {SKIPPED: null}},
                "spec": {"skipAnalysis": null},
            })),
        }),
        _ => Plan::Nothing("nothing was set for one run".to_owned()),
    })
    .await
}

fn no_steps(target: &Target) -> Plan {
    Plan::Refuse(format!(
        "a {} has no steps to promote or abort; Rollouts (Argo Rollouts) and Canaries (Flagger) have",
        target.kind
    ))
}

fn promote_rollout(live: &Rollout, full: bool) -> Plan {
    let mut patches = Patches::default();
    if live.status.abort {
        return Plan::Refuse("it was aborted, so there is nothing to promote: deploy again".to_owned());
    }
    if live.spec.paused {
        patches.object = Some(json!({"spec": {"paused": false}}));
    }
    if full {
        if !live.is_fully_promoted() {
            patches.status = Some(json!({"status": {"promoteFull": true}}));
        }
    } else if !live.pauses().is_empty() {
        let mut status = json!({"pauseConditions": null});
        // After an inconclusive analysis the step itself would ask again.
        if live.status.controller_pause && is_inconclusive(live) && !live.steps().is_empty() {
            let steps = i64::try_from(live.steps().len()).unwrap_or(i64::MAX);
            let next = (i64::from(live.status.current_step_index.unwrap_or(0)) + 1).min(steps);
            status["controllerPause"] = json!(false);
            status["currentStepIndex"] = json!(next);
        }
        patches.status = Some(json!({"status": status}));
    }
    match patches {
        Patches {
            status: None,
            object: None,
        } if live.is_fully_promoted() => {
            Plan::Nothing("the current version serves everything already".to_owned())
        }
        Patches {
            status: None,
            object: None,
        } => Plan::Nothing("it is not paused: it goes on by itself".to_owned()),
        patches => Plan::Write(patches),
    }
}

fn is_inconclusive(live: &Rollout) -> bool {
    let run = live.status.canary.current_step_analysis_run_status.as_ref();
    run.and_then(|run| run.status.as_deref()) == Some("Inconclusive")
}

fn abort_rollout(live: &Rollout) -> Plan {
    if live.status.abort {
        return Plan::Nothing("it is aborted already".to_owned());
    }
    if live.is_fully_promoted() {
        return Plan::Nothing(
            "the current version serves everything: there is no rollout to abort; roll back instead"
                .to_owned(),
        );
    }
    Plan::Write(Patches {
        status: Some(json!({"status": {"abort": true}})),
        object: None,
    })
}

fn promote_canary(live: &Canary, full: bool) -> Plan {
    if !full {
        let gates = live.gates();
        return match live.phase() {
            "Waiting" | "WaitingPromotion" if gates.is_empty() => Plan::Refuse(
                "Flagger waits for a webhook that the Canary does not name: look at its analysis.webhooks"
                    .to_owned(),
            ),
            "Waiting" | "WaitingPromotion" => Plan::Refuse(format!(
                "Flagger asks its webhook {}: approve there, or promote fully, which skips it",
                gates.join(", ")
            )),
            phase => Plan::Nothing(format!("it does not wait for a promotion (phase {phase})")),
        };
    }
    match live.phase() {
        "Progressing" | "Waiting" | "WaitingPromotion" if live.spec.skip_analysis => {
            Plan::Nothing("its analysis is skipped already".to_owned())
        }
        // Before confirm-rollout nothing of the new version is running, and Flagger asks that gate first anyway.
        "Waiting" => Plan::Refuse(format!(
            "Flagger asks its webhook {} before it tries the new version: approve there",
            live.gates().join(", ")
        )),
        "Progressing" | "WaitingPromotion" => Plan::Write(Patches {
            status: None,
            object: Some(json!({
                "metadata": {"annotations": {SKIPPED: "true"}},
                "spec": {"skipAnalysis": true},
            })),
        }),
        phase => Plan::Nothing(format!("no run is under way (phase {phase})")),
    }
}

fn abort_canary(live: &Canary) -> Plan {
    let status = &live.status;
    match live.phase() {
        _ if live.is_running() && status.failed_checks >= live.threshold() => {
            Plan::Nothing("Flagger is about to roll back already".to_owned())
        }
        _ if live.is_running() => Plan::Write(Patches {
            status: Some(json!({"status": {"failedChecks": live.threshold()}})),
            object: None,
        }),
        "Waiting" => Plan::Refuse(
            "Flagger has not begun to try the new version: keep its confirm-rollout gate closed, and take the change \
             back"
                .to_owned(),
        ),
        "Promoting" | "Finalising" => Plan::Refuse(
            "the new version was promoted already and is being taken over: wait for the end, then roll back".to_owned(),
        ),
        phase => Plan::Nothing(format!("no run is under way (phase {phase})")),
    }
}

/// Reads, decides and writes, again if another writer came in between.
async fn write(
    cluster: &Kubernetes,
    target: &Target,
    verb: &str,
    plan: impl Fn(&Workload) -> Plan,
) -> Result<Outcome, Fault<Reason>> {
    let what = format!("{verb} the {} {}", target.kind, target.name);
    if !matches!(target.kind, WorkloadKind::Rollout | WorkloadKind::Canary) {
        return match no_steps(target) {
            Plan::Refuse(words) => Err(refused(words)),
            _ => Ok(Outcome::Nothing(String::new())),
        };
    }
    let api: Api<DynamicObject> = Api::namespaced_with(
        cluster.client().clone(),
        target.namespace.as_str(),
        &resource(target.kind),
    );
    // The status may have been written but not the object: what is left is decided again, but counts as done.
    let mut wrote = false;
    for _ in 0..race::TRIES {
        let Some(object) = call(&what, api.get_opt(&target.name)).await? else {
            return Err(refused(format!("{what}: it is not there")));
        };
        let version = object.metadata.resource_version.clone();
        let patches = match plan(&typed(target.kind, object)?) {
            Plan::Write(patches) => patches,
            Plan::Nothing(_) if wrote => return Ok(Outcome::Done),
            Plan::Nothing(why) => return Ok(Outcome::Nothing(why)),
            Plan::Refuse(why) => return Err(refused(format!("{what}: {why}"))),
        };
        match put(&api, &target.name, version, patches, &mut wrote).await {
            Ok(()) => return Ok(Outcome::Done),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                race::lost(&what).await;
            }
            Err(error) => return Err(fault_of(&what, &error)),
        }
    }
    Err(race::given_up(&what))
}

async fn put(
    api: &Api<DynamicObject>,
    name: &str,
    mut version: Option<String>,
    patches: Patches,
    wrote: &mut bool,
) -> Result<(), kube::Error> {
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let at = |mut patch: Value, version: &Option<String>| {
        patch["metadata"]["resourceVersion"] = json!(version);
        Patch::Merge(patch)
    };
    let mut object = patches.object;
    if let Some(status) = patches.status {
        match bounded(api.patch_status(name, &parameters, &at(status.clone(), &version))).await {
            Ok(written) => {
                version = written.metadata.resource_version;
                *wrote = true;
            }
            // Old CRDs (Argo Rollouts before 0.10) have no status subresource: everything goes into one write.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                let mut all = object.take().unwrap_or_else(|| json!({}));
                all["status"] = status["status"].clone();
                object = Some(all);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(object) = object {
        bounded(api.patch(name, &parameters, &at(object, &version))).await?;
        *wrote = true;
    }
    Ok(())
}

/// A conflict must be distinguished from other errors, which [`call`] would not do.
async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(crate::CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}
