//! What a gate before the sync relies on: the Applications that would sync the commit are synced by hand. Checked
//! before the commit is made, and again before it is synced, since Argo CD does not ask for approval.

use deploy_domain::{catalog::Gate, plan::PlannedEnvironment, release::StepKind};
use slipway_kubernetes::Clusters;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Target, Workload, WorkloadKind, application};

use crate::backends::steps::Order;

/// Rejects the step if an Application would sync the commit before it is approved, or before its turn.
pub(super) async fn check(clusters: &Clusters, order: Order<'_>) -> Result<(), Fault<Reason>> {
    let Some((_, planned)) = order.environment else {
        return Ok(());
    };
    let commits = matches!(order.step.kind, StepKind::Change | StepKind::Deploy);
    if commits && planned.gate == Gate::BeforeSync {
        by_hand(clusters, planned, "before it is approved: turn its automated sync policy off, or write gate: before_commit in the catalog").await?;
    }
    if order.step.kind == StepKind::Change {
        for (_, other) in order.plan.written_by(&planned.name) {
            by_hand(clusters, other, "before its turn, since it is written with an earlier environment: turn its automated sync policy off, or leave written_with out in the catalog").await?;
        }
    }
    Ok(())
}

/// Rejects an environment whose Applications are not synced by hand; `why` says what that would do.
async fn by_hand(clusters: &Clusters, planned: &PlannedEnvironment, why: &str) -> Result<(), Fault<Reason>> {
    let target = &planned.target;
    if target.kind != WorkloadKind::Application {
        return Ok(());
    }
    let cluster = match clusters.get(&target.cluster) {
        Ok(cluster) => cluster,
        Err(unknown) => return Err(refused("UNKNOWN_CLUSTER", unknown.to_string())),
    };
    let further = planned.argo_cd.also.iter().map(|name| Target {
        name: name.clone(),
        ..target.clone()
    });
    for target in std::iter::once(target.clone()).chain(further) {
        match cluster.read(&target).await {
            Ok(Some(Workload::Application(live))) if live.automated() => {
                return Err(refused(
                    "AUTO_SYNC",
                    format!(
                        "Application {} syncs by itself, so what is committed reaches the cluster {why}",
                        target.name
                    ),
                ));
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                let failure = application::not_there(&target, false);
                return Err(refused(failure.reason.code(), failure.message));
            }
            Err(Fault::Permanent(reason)) => return Err(refused("APPLICATION_REFUSED", reason.message)),
            Err(Fault::Transient { error, .. }) => {
                let words = format!("cluster {}: {error}", target.cluster);
                return Err(Fault::unavailable("CLUSTER", words));
            }
        }
    }
    Ok(())
}

fn refused(code: &str, words: String) -> Fault<Reason> {
    Fault::refused(code, words)
}
