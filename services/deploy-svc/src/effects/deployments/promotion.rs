//! Canary and blue-green rollouts that pause: promotes and aborts them, as requested by a person or the catalog.

use std::{collections::BTreeSet, time::Duration};

use deploy_domain::deployment::{Ask, DeploymentRequest};
use slipway_kubernetes::{
    Clusters, Kubernetes,
    fault::refused,
    promotion::{self, Outcome},
};
use slipway_model::{Fault, Reason};
use slipway_verdict::{Expected, Managed, Next, Target, Workload, WorkloadKind, application};

use super::{Run, rollout, workloads};

/// Between tries to reach an API server that is unreachable. The deployment's own deadline ends them.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells the rollout what was requested, or reports why that cannot be done.
pub(super) async fn tell(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<String> {
    let target = &request.target;
    loop {
        let Some(ask) = &run.snapshot.state.ask else {
            return Some("it is no longer requested".to_owned());
        };
        let told = if target.kind == WorkloadKind::Application {
            tell_those_inside(clusters, cluster, run, request, ask).await
        } else {
            tell_one(cluster, target, ask).await
        };
        match told {
            Ok(Outcome::Done) => return None,
            Ok(Outcome::Nothing(why)) => return Some(why),
            Err(Fault::Permanent(reason)) => return Some(reason.message),
            Err(Fault::Transient { error, .. }) => {
                tracing::warn!(deployment = %run.id, target = %target, code = error.code, %error, "not delivered; it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn tell_one(cluster: &Kubernetes, target: &Target, ask: &Ask) -> Result<Outcome, Fault<Reason>> {
    match ask {
        Ask::Promote { full } => promotion::promote(cluster, target, *full).await,
        Ask::Abort { .. } => promotion::abort(cluster, target).await,
    }
}

/// Tells each Rollout and Canary of the Application that carries our image. It is done if one of them takes it.
async fn tell_those_inside(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
    ask: &Ask,
) -> Result<Outcome, Fault<Reason>> {
    let (workloads, managed) = workloads::look(clusters, cluster, &request.target).await?;
    let name = &request.target.name;
    if let Managed::Unreadable(why) = &managed {
        return Err(refused(format!(
            "the workloads of Application {name} cannot be read: {why}"
        )));
    }
    let expected = rollout::expected(&run.snapshot.state, request);
    let (mut done, mut declined) = (false, Vec::new());
    for one in application::with_steps(&expected, &managed) {
        let Some((target, there)) = workloads.target(one).zip(workloads.cluster()) else {
            continue;
        };
        match tell_one(there, &target, ask).await {
            Ok(Outcome::Done) => done = true,
            Ok(Outcome::Nothing(why)) => declined.push(format!("{one}: {why}")),
            Err(Fault::Permanent(reason)) => declined.push(format!("{one}: {}", reason.message)),
            Err(away) => return Err(away),
        }
    }
    if done {
        return Ok(Outcome::Done);
    }
    if declined.is_empty() {
        return Err(refused(format!(
            "Application {name} has no Rollout (Argo Rollouts) and no Canary (Flagger) whose steps could be promoted or \
             aborted"
        )));
    }
    Ok(Outcome::Nothing(declined.join("; ")))
}

/// Promotes if that is this service's own decision, once for each version of the object.
#[derive(Debug, Default)]
pub(super) struct Promoter {
    /// The versions that were promoted.
    given: BTreeSet<String>,
}

impl Promoter {
    /// Carries out what the workload waits for, if that is up to us.
    pub(super) async fn look(
        &mut self,
        cluster: &Kubernetes,
        target: &Target,
        expected: &Expected,
        live: &Workload,
    ) {
        let next = slipway_verdict::next(expected, live);
        if matches!(next, Next::Wait | Next::Ask(_)) {
            return;
        }
        let version = live.metadata().resource_version.clone();
        if version
            .as_ref()
            .is_some_and(|version| self.given.contains(version))
        {
            return;
        }
        let told = match next {
            Next::Promote => promotion::promote(cluster, target, false).await,
            _ => promotion::settle(cluster, target).await,
        };
        match told {
            Ok(outcome) => {
                tracing::info!(target = %target, ?next, ?outcome, "told the rollout");
                self.given.extend(version);
            }
            Err(Fault::Permanent(error)) => {
                tracing::warn!(target = %target, ?next, code = error.code, %error, "the rollout does not accept it");
                self.given.extend(version);
            }
            // The next check tries again.
            Err(Fault::Transient { error, .. }) => {
                tracing::debug!(target = %target, ?next, code = error.code, %error, "not told");
            }
        }
    }
}
