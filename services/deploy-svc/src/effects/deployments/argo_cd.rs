//! Applies and follows through Argo CD: requests a refresh from git or a sync, and follows it to the verdict.
//!
//! What is next for each application is decided by `slipway_verdict::application::next`; this file carries it out, for
//! the target and for those that are deployed together with it: none is synced before all of them may be, and the
//! deployment is complete when all are.

mod followed;

use std::time::Duration;

use deploy_domain::{
    catalog::{ArgoCd, Blocked},
    deployment::{Action, DeploymentCommand, DeploymentRequest},
};
use futures::future::{join_all, select_all};
use slipway_kubernetes::{Clusters, Kubernetes, argo_cd, evidence};
use slipway_model::{Actor, Fault, Reason, Timestamp};
use slipway_verdict::{
    Applied, Failure, FailureReason, Target, Verdict,
    application::{self, Next, Sync, WhenBlocked},
    evidence::PodEvidence,
};
use tokio::time::Instant;

use super::{Run, progress::Progress, rollout, workloads};
use followed::{Begun, FollowedApplication, Look, Purpose};

/// If a watch shows nothing, there may be nothing to show, or it may be dead: after this long the API server is asked.
const QUIET: Duration = Duration::from_secs(30);
/// The same after something could not be asked.
const QUIET_AFTER_FAULT: Duration = Duration::from_secs(3);
/// Workloads of an Application of which evidence is collected.
const MAX_WORKLOADS: usize = 3;
/// Requests the sync, or a refresh from git if Argo CD syncs by itself, as soon as that is possible.
pub(super) async fn apply(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let mut all = match Applications::new(clusters, cluster, run, request) {
        Ok(all) => all,
        Err(reason) => return Some(refused(run, reason)),
    };
    let mut progress = Progress::new(run);
    loop {
        let (step, fault) = match all.ask().await {
            Ok(SyncRequest::Accepted(applied)) => {
                let key = run.key.clone();
                return Some(DeploymentCommand::Applied { key, applied });
            }
            Ok(SyncRequest::Failed(failure)) => return Some(failed(run, failure)),
            Ok(SyncRequest::Waits(step)) => (step, None),
            Err(Fault::Permanent(reason)) => {
                return Some(refused(run, Reason::new("SYNC_REFUSED", reason.message)));
            }
            Err(Fault::Transient { error, .. }) => (Step::default(), Some(error.message)),
        };
        all.pause(step, fault, &mut progress).await;
    }
}

/// Follows the sync and its result. Ends with the verdict's command.
pub(super) async fn follow(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let mut all = match Applications::new(clusters, cluster, run, request) {
        Ok(all) => all,
        Err(reason) => return Some(refused(run, reason)),
    };
    let mut progress = Progress::new(run);
    loop {
        let (step, fault) = match all.advance().await {
            Ok(Verdict::Complete) => {
                let key = run.key.clone();
                all.warn(run).await;
                return Some(DeploymentCommand::RolledOut { key });
            }
            Ok(Verdict::Failed(failure)) => {
                // A sync that a window holds back would begin when it opens.
                if failure.reason == FailureReason::SyncWindowClosed {
                    stop(cluster, run, request).await;
                }
                return Some(failed(run, failure));
            }
            Ok(Verdict::Progressing { message, look_again }) => (Step { message, look_again }, None),
            Err(Fault::Permanent(reason)) => {
                return Some(refused(run, Reason::new("SYNC_REFUSED", reason.message)));
            }
            Err(Fault::Transient { error, .. }) => (Step::default(), Some(error.message)),
        };
        all.pause(step, fault, &mut progress).await;
    }
}

/// Ends the syncs of this deployment that have not ended, because it is cancelled. What cannot be ended is logged: the
/// sync then continues without a deployment that waits for it.
pub(super) async fn stop(cluster: &Kubernetes, run: &Run, request: &DeploymentRequest) {
    let Action::Sync { argo_cd } = &request.action else {
        return;
    };
    let ends = targets(request, argo_cd).map(async |target| {
        let ended = argo_cd::terminate(cluster, &target, &operation(run, &target)).await;
        match ended {
            Ok(ended) => tracing::info!(application = target.name, ended, "sync terminated"),
            Err(fault) => tracing::warn!(application = target.name, %fault, "sync not terminated"),
        }
    });
    join_all(ends).await;
}

/// Evidence of the workloads that carry our image; empty if none of them can be seen.
pub(super) async fn evidence(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
    since: Timestamp,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let (workloads, managed) = workloads::look(clusters, cluster, &request.target).await?;
    let expected = rollout::expected(&run.snapshot.state, request);
    let targets = application::ours(&expected, &managed)
        .into_iter()
        .filter_map(|one| workloads.target(one));
    let Some(there) = workloads.cluster() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for target in targets.take(MAX_WORKLOADS) {
        found.extend(evidence::collect(there, &target, since).await?);
    }
    Ok(found)
}

/// The applications of one deployment.
struct Applications<'a> {
    clusters: &'a Clusters,
    cluster: &'a Kubernetes,
    run: &'a Run,
    argo_cd: &'a ArgoCd,
    followed: Vec<FollowedApplication>,
}

/// What is being waited for.
#[derive(Default)]
struct Step {
    message: String,
    look_again: Option<Timestamp>,
}

/// What became of the request to sync.
enum SyncRequest {
    /// By every Application; this is the answer of the target itself.
    Accepted(Applied),
    Failed(Failure),
    /// Not made yet, and why.
    Waits(Step),
}

impl<'a> Applications<'a> {
    fn new(
        clusters: &'a Clusters,
        cluster: &'a Kubernetes,
        run: &'a Run,
        request: &'a DeploymentRequest,
    ) -> Result<Self, Reason> {
        let defect = |what: &str| Reason::new("INTERNAL", format!("{what}; this is a defect"));
        let Action::Sync { argo_cd } = &request.action else {
            return Err(defect("the target is not synced by Argo CD"));
        };
        let source = request
            .source
            .as_ref()
            .ok_or_else(|| Reason::new("NO_SOURCE", "there is no commit to sync; this is a defect"))?;
        let followed = targets(request, argo_cd)
            .map(|target| {
                let sync = Sync {
                    operation: operation(run, &target),
                    revision: source.commit.clone(),
                    lane: request.target.key(),
                    descendants: Vec::new(),
                    when_busy: when(argo_cd.when_busy),
                    when_closed: when(argo_cd.when_closed),
                    restores: request.rolls_back.is_some(),
                    require_synced: argo_cd.require_synced,
                };
                let mut expected = rollout::expected(&run.snapshot.state, request);
                expected.sync = Some(sync.clone());
                if target != request.target {
                    // What was recorded, and the image, are the target's.
                    expected.applied = Applied::default();
                    expected.verify.digest = false;
                }
                FollowedApplication::new(cluster, target, expected, sync)
            })
            .collect();
        Ok(Self {
            clusters,
            cluster,
            run,
            argo_cd,
            followed,
        })
    }

    /// Requests all syncs, once none of them has to wait. One that was requested already is left alone.
    async fn ask(&mut self) -> Result<SyncRequest, Fault<Reason>> {
        let (clusters, cluster, count) = (self.clusters, self.cluster, self.followed.len());
        let until = self
            .run
            .snapshot
            .state
            .since
            .map(|since| since + self.argo_cd.appear_within);
        let looks = self
            .followed
            .iter_mut()
            .map(|one| one.look(clusters, cluster, Purpose::Sync));
        let looks: Vec<Look> = join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        let mut verdicts = Vec::with_capacity(count);
        for (one, look) in self.followed.iter().zip(&looks) {
            let verdict = match look {
                Look::Gone => match until.filter(|until| !one.seen && Timestamp::now() < *until) {
                    Some(until) => application::verdict(one.is_awaited(until)),
                    None => return Ok(SyncRequest::Failed(named(&one.target, count, &one.not_there()))),
                },
                Look::Live(live, _) if live.asked_for(&one.sync) || live.automated() => Verdict::Complete,
                Look::Live(_, Next::StartSync) => Verdict::Complete,
                Look::Live(_, Next::Failed(failure)) => {
                    return Ok(SyncRequest::Failed(named(&one.target, count, failure)));
                }
                Look::Live(_, next) | Look::Unknown(next) => application::verdict(next.clone()),
            };
            verdicts.push((one.target.name.clone(), verdict));
        }
        if let Verdict::Progressing { message, look_again } = application::combine(&verdicts) {
            return Ok(SyncRequest::Waits(Step { message, look_again }));
        }
        // One after the other, the target last: what was recorded about it means that all were requested.
        let mut applied = Applied::default();
        for one in self.followed.iter_mut().rev() {
            match one.begin(cluster, self.run, self.argo_cd).await? {
                Begun::Yes(asked) => applied = asked,
                Begun::Failed(failure) => {
                    return Ok(SyncRequest::Failed(named(&one.target, count, &failure)));
                }
                Begun::Not(next) => {
                    let waiting = (one.target.name.clone(), application::verdict(next));
                    return Ok(SyncRequest::Waits(Step::of(waiting)));
                }
            }
        }
        Ok(SyncRequest::Accepted(applied))
    }

    /// Does what is next for each application, and returns the state of all of them.
    async fn advance(&mut self) -> Result<Verdict, Fault<Reason>> {
        let (clusters, cluster, run, argo_cd) = (self.clusters, self.cluster, self.run, self.argo_cd);
        let steps = self
            .followed
            .iter_mut()
            .map(|one| one.advance(clusters, cluster, run, argo_cd));
        let verdicts = join_all(steps).await;
        let mut named = Vec::with_capacity(verdicts.len());
        for (one, verdict) in self.followed.iter().zip(verdicts) {
            named.push((one.target.name.clone(), verdict?));
        }
        Ok(application::combine(&named))
    }

    /// Records what a person should know although all of them are complete.
    async fn warn(&self, run: &Run) {
        let several = self.followed.len() > 1;
        let of_one = |one: &FollowedApplication| -> Vec<String> {
            let name = &one.target.name;
            let named = |warning: &String| match several {
                true => format!("{name}: {warning}"),
                false => warning.clone(),
            };
            one.warnings.iter().map(named).collect()
        };
        let warnings: Vec<String> = self.followed.iter().flat_map(of_one).collect();
        if warnings.is_empty() {
            return;
        }
        let key = run.key.clone();
        let command = DeploymentCommand::Warn { key, warnings };
        // The verdict matters, and does not wait for the warnings.
        if let Err(error) = run.tell(command, Actor::system("deploy")).await {
            tracing::warn!(deployment = %run.id, %error, "warnings not recorded");
        }
    }

    /// Waits until something can have changed.
    async fn pause(&mut self, step: Step, fault: Option<String>, progress: &mut Progress<'_>) {
        let cluster = self.cluster;
        let watch = self.followed.iter().find_map(|one| one.fault.clone());
        let fault = fault.or(watch);
        let quiet = if fault.is_some() { QUIET_AFTER_FAULT } else { QUIET };
        match fault {
            Some(fault) => {
                let message = format!("cluster {}: {fault}", cluster.name());
                progress.away(message).await;
            }
            None if self.followed.iter().any(|one| one.asks) => progress.ask(step.message).await,
            None => progress.say(step.message).await,
        }
        let until = tokio::time::sleep(quiet);
        tokio::pin!(until);
        loop {
            let due = self
                .followed
                .iter()
                .filter_map(|one| one.workloads.complaints_due())
                .min();
            let changed = async {
                select_all(self.followed.iter_mut().map(|one| Box::pin(one.changed()))).await;
            };
            tokio::select! {
                () = changed => return,
                () = moment(due) => {
                    let reads = self.followed.iter_mut().map(|one| one.workloads.read_complaints());
                    if join_all(reads).await.contains(&true) {
                        return;
                    }
                }
                () = reached(step.look_again) => return,
                () = &mut until => break,
                () = progress.due() => progress.flush().await,
            }
        }
        // The answer is compared with the watch, which is restarted if it is behind.
        join_all(self.followed.iter().map(|one| one.workloads.read_again())).await;
        let reads = self.followed.iter().map(|one| cluster.read(&one.target));
        for read in join_all(reads).await {
            if let Err(fault) = read {
                progress
                    .away(format!("cluster {}: {fault}", cluster.name()))
                    .await;
            }
        }
    }
}

impl Step {
    fn of((name, verdict): (String, Verdict)) -> Self {
        match verdict {
            Verdict::Progressing { message, look_again } => Self {
                message: format!("{name}: {message}"),
                look_again,
            },
            Verdict::Complete | Verdict::Failed(_) => Self::default(),
        }
    }
}

/// The target first, then those deployed with it.
fn targets<'a>(
    request: &'a DeploymentRequest,
    argo_cd: &'a ArgoCd,
) -> impl Iterator<Item = Target> + Send + 'a {
    let also = argo_cd.also.iter().map(|name| Target {
        name: name.clone(),
        ..request.target.clone()
    });
    std::iter::once(request.target.clone()).chain(also)
}

/// The same for the same deployment and application: asking twice has the effect of asking once.
fn operation(run: &Run, target: &Target) -> String {
    format!("{}/{}", run.id, target.name)
}

const fn when(blocked: Blocked) -> WhenBlocked {
    match blocked {
        Blocked::Wait => WhenBlocked::Wait,
        Blocked::Refuse => WhenBlocked::Refuse,
    }
}

/// Among several, a failure needs a name.
fn named(target: &Target, count: usize, failure: &Failure) -> Failure {
    let mut failure = failure.clone();
    if count > 1 {
        failure.message = format!("{}: {}", target.name, failure.message);
    }
    failure
}

fn failed(run: &Run, failure: Failure) -> DeploymentCommand {
    refused(run, Reason::new(failure.reason.code(), failure.message))
}

fn refused(run: &Run, reason: Reason) -> DeploymentCommand {
    let key = run.key.clone();
    DeploymentCommand::Refused { key, reason }
}

async fn moment(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn reached(time: Option<Timestamp>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
