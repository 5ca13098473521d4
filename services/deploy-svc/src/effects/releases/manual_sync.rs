//! What a gate before the sync relies on: the Applications that would sync the commit are synced by hand. Checked
//! before the commit is made, and again before it is synced, since Argo CD does not ask for approval.

use deploy_domain::{catalog::Gate, release::StepKind};
use slipway_kubernetes::Clusters;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Target, Workload, WorkloadKind, application};

use crate::backends::steps::Order;

/// Rejects the step if an Application would sync the commit before it is approved.
pub(super) async fn check(clusters: &Clusters, order: Order<'_>) -> Result<(), Fault<Reason>> {
    let Some((_, planned)) = order.environment else {
        return Ok(());
    };
    let target = &planned.target;
    let commits = matches!(order.step.kind, StepKind::Change | StepKind::Deploy);
    if planned.gate != Gate::BeforeSync || target.kind != WorkloadKind::Application || !commits {
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
                        "Application {} syncs by itself, so what is committed reaches the cluster before it is approved: turn its automated sync policy off, or write gate: before_commit in the catalog",
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
