//! Starts the deployment that puts back what ran before a canary that failed late: unless something else was deployed
//! since, the canary is tried again, or git has moved on.

use std::time::Duration;

use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchCommand, CanaryWatchRefusal},
    deployment::{DeploymentRequest, Revert, Source},
    lane::Lane,
    plan::{PlannedEnvironment, lanes},
    release::{Release, ReleaseState, release_trace, root_span},
};
use slipway_ledger::{ExecuteError, Meta, TransactError, Tx};
use slipway_model::{Fault, Id, Images, Reason, Timestamp, TraceContext};
use slipway_verdict::Late;

use super::{
    CanaryWatchEffects, Run, Subject, actor,
    followed::{FollowedCanary, Look},
    reason_of, unrecorded,
};
use crate::{
    backends::gitops::{RevertTarget, Revertible},
    effects::deployments::{LaneError, request_as_of},
};

/// How long the lists of the target may take.
const SYNC: Duration = Duration::from_secs(30);

/// Why the deployment was not requested.
#[derive(Debug, thiserror::Error)]
enum PutBackError {
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error(transparent)]
    Watch(#[from] ExecuteError<CanaryWatchRefusal>),
}

/// What is put back.
struct Back {
    request: DeploymentRequest,
    /// When the release was started.
    started: Option<Timestamp>,
}

impl CanaryWatchEffects {
    pub(super) async fn put_back(
        &self,
        run: &Run,
        subject: &Subject,
    ) -> Result<Option<CanaryWatchCommand>, Reason> {
        if let Some(command) = self.before(run, subject).await? {
            return Ok(Some(command));
        }
        let back = match self.back(run, subject).await? {
            Ok(back) => back,
            Err(Fault::Permanent(reason)) => {
                tracing::error!(canary_watch = %run.id, target = %subject.request.target, code = reason.code, %reason, "git names a version whose canary failed: a person must look");
                let key = run.key.clone();
                return Ok(Some(CanaryWatchCommand::Declined { key, reason }));
            }
            Err(Fault::Transient { error: reason, .. }) => {
                let key = run.key.clone();
                return Ok(Some(CanaryWatchCommand::Stumbled { key, reason }));
            }
        };
        slipway_faults::point("deploy.canary.before");
        let ordered = order(run, back).await;
        slipway_faults::point("deploy.canary.after");
        ordered
    }

    /// What keeps it from being put back now.
    async fn before(&self, run: &Run, subject: &Subject) -> Result<Option<CanaryWatchCommand>, Reason> {
        let key = run.key.clone();
        if let Some(reason) = subject.superseded(run).await? {
            return Ok(Some(CanaryWatchCommand::Superseded { key, reason }));
        }
        if let Some(holder) = lane_holder(run, subject).await? {
            return Ok(Some(CanaryWatchCommand::LaneHeld { key, holder }));
        }
        // Much can have happened while the lane was waited for.
        Ok(match self.look_again(subject).await {
            Ok(Late::Failed(_)) => None,
            Ok(Late::Superseded(failure)) => Some(CanaryWatchCommand::Superseded {
                key,
                reason: reason_of(failure),
            }),
            Ok(Late::Stands | Late::NoCanary) => Some(CanaryWatchCommand::Recovered { key }),
            Err(words) => {
                let reason = Reason::new(slipway_kubernetes::fault::UNAVAILABLE, words);
                Some(CanaryWatchCommand::Stumbled { key, reason })
            }
        })
    }

    async fn look_again(&self, subject: &Subject) -> Result<Late, String> {
        let cluster = self.clusters.get(&subject.request.target.cluster);
        let cluster = cluster.map_err(|unknown| unknown.to_string())?;
        let mut canary = FollowedCanary::new(&self.clusters, cluster, subject);
        let judged = async {
            loop {
                match canary.look().await {
                    Look::Judged(late) => return Ok(late),
                    Look::Away(words) => return Err(words),
                    Look::Reading => canary.changed().await,
                }
            }
        };
        let judged = tokio::time::timeout(SYNC, judged).await;
        judged.unwrap_or_else(|_| {
            Err(format!(
                "cluster {} cannot be watched: {} was not read within {} s",
                cluster.name(),
                subject.request.target,
                SYNC.as_secs()
            ))
        })
    }

    /// What is deployed to put it back. The fault is permanent if nothing can be, such as where git has moved on.
    async fn back(&self, run: &Run, subject: &Subject) -> Result<Result<Back, Fault<Reason>>, Reason> {
        let (watched, lost) = (&subject.watched, &subject.request);
        let found = run.ledger.get::<Release>(&watched.release).await;
        let release = found.map_err(unrecorded)?.map(|found| found.state);
        let Some((release, planned)) = release.as_ref().and_then(|release| {
            let planned = planned(release, subject)?;
            Some((release, planned))
        }) else {
            let words = format!(
                "{} has no plan for {}; this is a defect",
                watched.release, watched.environment
            );
            return Ok(Err(Fault::refused("INTERNAL", words)));
        };
        let Some(source) = &lost.source else {
            let words = format!("{} has no commit; this is a defect", watched.deployment);
            return Ok(Err(Fault::refused("NO_SOURCE", words)));
        };
        let found = match self.revertible(run, subject, planned, source).await {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let back = lost
            .clone()
            .rolling_back(&watched.deployment, planned.timeout.change, actor());
        Ok(Ok(Back {
            request: DeploymentRequest {
                images: Images::one(found.image),
                reverts: Some(Revert {
                    change: found.change,
                    reason: why(run, subject),
                }),
                ..back
            },
            started: release.requested_at,
        }))
    }

    /// The change that is reverted: git has nothing newer.
    async fn revertible(
        &self,
        run: &Run,
        subject: &Subject,
        planned: &PlannedEnvironment,
        source: &Source,
    ) -> Result<Revertible, Fault<Reason>> {
        let target = RevertTarget {
            service: &subject.watched.service,
            environment: &subject.watched.environment,
            source,
            image: subject.request.images.only(),
            trace: trace(run, subject),
        };
        let found = self.reverts.find(&target).await?;
        let moved_on = match &planned.gitops {
            Some(place) => self.reverts.moved_on(&target, place, &found.change).await?,
            None => None,
        };
        match moved_on {
            Some(reason) => Err(Fault::Permanent(reason)),
            None => Ok(found),
        }
    }
}

fn planned<'a>(release: &'a ReleaseState, subject: &Subject) -> Option<&'a PlannedEnvironment> {
    let environments = &release.plan.as_ref()?.environments;
    environments
        .iter()
        .find(|planned| planned.name == subject.watched.environment)
}

/// Who holds one of the target's lanes, or waits for it.
async fn lane_holder(run: &Run, subject: &Subject) -> Result<Option<Id>, Reason> {
    let request = &subject.request;
    for lane in lanes(&request.target, &request.shared).map_err(unrecorded)? {
        let found = run.ledger.get::<Lane>(&lane).await.map_err(unrecorded)?;
        let busy = found.and_then(|found| found.state.first().cloned());
        if busy.is_some() {
            return Ok(busy);
        }
    }
    Ok(None)
}

/// Requests the deployment, takes the lane for it and records it, all in one transaction: it happens once.
async fn order(run: &Run, back: Back) -> Result<Option<CanaryWatchCommand>, Reason> {
    let key = run.key.clone();
    let deployment = Id::derived("dep", &[run.id.as_str()]);
    let meta = Meta::new(actor(), run.traceparent);
    let ordered = run.ledger.transact(&meta, |tx: Tx| {
        let (watch, deployment) = (run.id.clone(), deployment.clone());
        let (request, started) = (back.request.clone(), back.started);
        let command = CanaryWatchCommand::PuttingBack {
            key: run.key.clone(),
            deployment: deployment.clone(),
        };
        async move {
            let watch = tx.decide::<CanaryWatch>(&watch, command).await?;
            // Another try was first.
            if watch.state.deployment.as_ref() == Some(&deployment) {
                request_as_of(&tx, &deployment, request, started).await?;
            }
            Ok::<_, PutBackError>(())
        }
    });
    match ordered.await {
        Ok(()) => Ok(None),
        Err(TransactError::Aborted(PutBackError::Lane(LaneError::Busy { holder, .. }))) => {
            Ok(Some(CanaryWatchCommand::LaneHeld { key, holder }))
        }
        Err(error) => Err(unrecorded(error)),
    }
}

/// Why, in one line, for the commit's message.
fn why(run: &Run, subject: &Subject) -> String {
    let failure = run.snapshot.state.failure.as_ref();
    let words = failure.map_or("", |failure| failure.message.as_str());
    let line = words.lines().next().unwrap_or_default();
    format!(
        "the canary failed after {} had ended: {line}",
        subject.watched.release
    )
}

/// It belongs to the release.
fn trace(run: &Run, subject: &Subject) -> TraceContext {
    let release = &subject.watched.release;
    run.traceparent.unwrap_or_else(|| TraceContext {
        trace_id: release_trace(release),
        span_id: root_span(release),
        sampled: true,
    })
}
