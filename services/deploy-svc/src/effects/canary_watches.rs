//! Carries out what the watches over canaries ask for: follow the target after the release has ended, and start the
//! deployment that puts back what ran before.

mod followed;
mod put_back;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchCommand, CanaryWatchEffect, Watched},
    deployment::{Deployment, DeploymentRequest, DeploymentState},
};
use slipway_kubernetes::Clusters;
use slipway_ledger::{EffectRun, Effects, executor::codes};
use slipway_model::{Actor, Reason};
use slipway_verdict::{Failure, Late};
use tokio::time::Instant;

use crate::{backends::gitops::Reverts, effects::deployments::newest};
use followed::{FollowedCanary, Look};

/// The shortest interval between two searches for later deployments, however often the target changes.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// If a watch shows nothing for this long, the API server is asked: the watch may be dead.
const QUIET: Duration = Duration::from_secs(300);

/// What watches over canaries are carried out with.
#[derive(Clone)]
pub struct CanaryWatchEffects {
    pub clusters: Clusters,
    pub reverts: Arc<dyn Reverts>,
}

impl fmt::Debug for CanaryWatchEffects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CanaryWatchEffects")
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

type Run = EffectRun<CanaryWatch>;

/// On whose behalf watches act.
fn actor() -> Actor {
    Actor::system("deploy")
}

#[async_trait]
impl Effects<CanaryWatch> for CanaryWatchEffects {
    async fn perform(&self, run: Run) -> Result<Option<CanaryWatchCommand>, Reason> {
        let Some(subject) = Subject::of(&run).await? else {
            return Ok(None);
        };
        let step = async {
            match run.effect {
                CanaryWatchEffect::Follow => self.follow(&run, &subject).await,
                CanaryWatchEffect::PutBack => self.put_back(&run, &subject).await,
            }
        };
        tokio::select! {
            command = Box::pin(step) => command,
            () = run.cancelled.cancelled() => Ok(None),
        }
    }

    fn actor(&self) -> Actor {
        actor()
    }
}

/// The deployment whose canary is watched.
struct Subject {
    watched: Watched,
    state: DeploymentState,
    request: DeploymentRequest,
}

impl Subject {
    async fn of(run: &Run) -> Result<Option<Self>, Reason> {
        let Some(watched) = run.snapshot.state.watched.clone() else {
            return Ok(None);
        };
        let found = run.ledger.get::<Deployment>(&watched.deployment).await;
        let state = found.map_err(unrecorded)?.map(|found| found.state);
        Ok(state.and_then(|state| {
            let request = state.request.clone()?;
            Some(Self {
                watched,
                state,
                request,
            })
        }))
    }

    /// Why it is not what was deployed last.
    async fn superseded(&self, run: &Run) -> Result<Option<Reason>, Reason> {
        let since = newest::deployed_since(&run.ledger, &self.watched.deployment, &self.request).await;
        Ok(since.map_err(unrecorded)?.map(|newer| {
            let words = format!(
                "{newer} was deployed to {} after {}",
                self.request.target, self.watched.deployment
            );
            Reason::new("SUPERSEDED", words)
        }))
    }
}

impl CanaryWatchEffects {
    /// Follows the target until the canary has failed, or cannot fail any more.
    async fn follow(&self, run: &Run, subject: &Subject) -> Result<Option<CanaryWatchCommand>, Reason> {
        let (key, request) = (run.key.clone(), &subject.request);
        if subject.state.applied_at.is_none() {
            let words = format!("{} changed nothing in the cluster", subject.watched.deployment);
            let reason = Reason::new("NOT_APPLIED", words);
            return Ok(Some(CanaryWatchCommand::Passed { key, reason }));
        }
        let mut away = Away::new(run);
        let cluster = match self.clusters.get(&request.target.cluster) {
            Ok(cluster) => cluster,
            Err(unknown) => {
                away.say(Some(unknown.to_string())).await;
                return std::future::pending().await;
            }
        };
        let mut canary = FollowedCanary::new(&self.clusters, cluster, subject);
        let mut searched: Option<Instant> = None;
        loop {
            if searched.is_none_or(|at| at.elapsed() >= SEARCH_EVERY) {
                if let Some(reason) = subject.superseded(run).await? {
                    return Ok(Some(CanaryWatchCommand::Superseded { key, reason }));
                }
                searched = Some(Instant::now());
            }
            match canary.look().await {
                Look::Reading => {}
                Look::Away(words) => away.say(Some(words)).await,
                Look::Judged(late) => {
                    away.say(None).await;
                    if let Some(command) = ended(run, late) {
                        return Ok(Some(command));
                    }
                }
            }
            if tokio::time::timeout(QUIET, canary.changed()).await.is_err() {
                canary.read_again().await;
            }
        }
    }
}

/// What the judgement comes to while the target is followed; `None`: it goes on.
fn ended(run: &Run, late: Late) -> Option<CanaryWatchCommand> {
    let key = run.key.clone();
    match late {
        Late::Stands => None,
        Late::Failed(failure) => {
            let reason = reason_of(failure);
            tracing::warn!(canary_watch = %run.id, code = reason.code, %reason, "a canary failed after its release had ended");
            Some(CanaryWatchCommand::Failed { key, reason })
        }
        Late::Superseded(failure) => Some(CanaryWatchCommand::Superseded {
            key,
            reason: reason_of(failure),
        }),
        Late::NoCanary => Some(CanaryWatchCommand::Passed {
            key,
            reason: Reason::new("NO_CANARY", "the Application has no Rollout and no Canary"),
        }),
    }
}

fn reason_of(failure: Failure) -> Reason {
    Reason::new(failure.reason.code(), failure.message)
}

fn unrecorded(error: impl fmt::Display) -> Reason {
    Reason::new(codes::LEDGER, error.to_string())
}

/// Records that the cluster cannot be watched, and that it can be again; not each change of the words between.
struct Away<'a> {
    run: &'a Run,
    recorded: bool,
}

impl<'a> Away<'a> {
    fn new(run: &'a Run) -> Self {
        Self {
            run,
            recorded: run.snapshot.state.fault.is_some(),
        }
    }

    async fn say(&mut self, words: Option<String>) {
        let key = self.run.key.clone();
        let command = match words {
            Some(words) if !self.recorded => CanaryWatchCommand::Away {
                key,
                reason: Reason::new(slipway_kubernetes::fault::UNAVAILABLE, words),
            },
            None if self.recorded => CanaryWatchCommand::Back { key },
            _ => return,
        };
        match self.run.tell(command, actor()).await {
            Ok(_) => self.recorded = !self.recorded,
            // It is said again at the next look.
            Err(error) => tracing::debug!(canary_watch = %self.run.id, %error, "not recorded"),
        }
    }
}
