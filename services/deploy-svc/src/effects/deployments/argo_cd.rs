//! Applies and follows through Argo CD: requests a refresh from git or a sync, and follows it to the verdict.
//!
//! What is next for each application is decided by `slipway_verdict::application::next`; this file carries it out, for
//! the target and for those that are deployed together with it: none is synced before all of them may be, and the
//! deployment is complete when all are.

use std::time::Duration;

use deploy_domain::{
    catalog::{ArgoCd, Blocked},
    deployment::{Action, DeploymentCommand, DeploymentRequest},
};
use futures::future::{join_all, select_all};
use slipway_kubernetes::{
    Kubernetes,
    argo_cd::{self, Order, Started},
    watch::{Subscription, View},
};
use slipway_model::{Fault, Reason, Timestamp};
use slipway_verdict::{
    Applied, Expected, Failure, FailureReason, Target, Verdict, Workload,
    application::{self, Application, Next, Situation, Sync, WhenBlocked},
    sync_window::SyncWindow,
};
use tokio::time::Instant;

use super::{Run, progress::Progress, rollout};

/// If a watch shows nothing, there may be nothing to show, or it may be dead: after this long the API server is asked.
const QUIET: Duration = Duration::from_secs(30);
/// The same after something could not be asked.
const QUIET_AFTER_FAULT: Duration = Duration::from_secs(3);
/// How long a project's windows are remembered: people change them while a sync waits.
const WINDOWS_FOR: Duration = Duration::from_secs(30);

/// Requests the sync, or a refresh from git if Argo CD syncs by itself, as soon as that is possible.
pub(super) async fn apply(
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let mut all = match Applications::new(cluster, run, request) {
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
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Option<DeploymentCommand> {
    let mut all = match Applications::new(cluster, run, request) {
        Ok(all) => all,
        Err(reason) => return Some(refused(run, reason)),
    };
    let mut progress = Progress::new(run);
    loop {
        let (step, fault) = match all.advance().await {
            Ok(Verdict::Complete) => {
                let key = run.key.clone();
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

/// The applications of one deployment.
struct Applications<'a> {
    cluster: &'a Kubernetes,
    run: &'a Run,
    argo_cd: &'a ArgoCd,
    followed: Vec<FollowedApplication>,
}

/// One application, with what is known about it.
struct FollowedApplication {
    target: Target,
    subscription: Subscription,
    expected: Expected,
    sync: Sync,
    /// When a refresh from git was last requested.
    asked: Option<Timestamp>,
    /// Whether it was there.
    seen: bool,
    /// Why the watch may be behind, as of the last look.
    fault: Option<String>,
    windows: Option<Vec<SyncWindow>>,
    /// When the windows were read.
    windows_at: Option<Instant>,
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
    fn new(cluster: &'a Kubernetes, run: &'a Run, request: &'a DeploymentRequest) -> Result<Self, Reason> {
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
                    restores: false,
                    require_synced: false,
                };
                let mut expected = rollout::expected(run, request);
                expected.sync = Some(sync.clone());
                if target != request.target {
                    // What was recorded, and the image, are the target's.
                    expected.applied = Applied::default();
                    expected.verify.digest = false;
                }
                FollowedApplication {
                    seen: !expected.applied.uid.is_empty(),
                    subscription: cluster.follow(&target),
                    target,
                    expected,
                    sync,
                    asked: None,
                    fault: None,
                    windows: None,
                    windows_at: None,
                }
            })
            .collect();
        Ok(Self {
            cluster,
            run,
            argo_cd,
            followed,
        })
    }

    /// Requests all syncs, once none of them has to wait. One that was requested already is left alone.
    async fn ask(&mut self) -> Result<SyncRequest, Fault<Reason>> {
        let (cluster, count) = (self.cluster, self.followed.len());
        let looks = self.followed.iter_mut().map(|one| one.look(cluster));
        let looks: Vec<Look> = join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        let mut verdicts = Vec::with_capacity(count);
        for (one, look) in self.followed.iter().zip(&looks) {
            let verdict = match look {
                Look::Gone => return Ok(SyncRequest::Failed(named(&one.target, count, &one.not_there()))),
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
        let (cluster, run, argo_cd) = (self.cluster, self.run, self.argo_cd);
        let steps = self
            .followed
            .iter_mut()
            .map(|one| one.advance(cluster, run, argo_cd));
        let verdicts = join_all(steps).await;
        let mut named = Vec::with_capacity(verdicts.len());
        for (one, verdict) in self.followed.iter().zip(verdicts) {
            named.push((one.target.name.clone(), verdict?));
        }
        Ok(application::combine(&named))
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
            None => progress.say(step.message).await,
        }
        let until = tokio::time::sleep(quiet);
        tokio::pin!(until);
        loop {
            let changed = select_all(
                self.followed
                    .iter_mut()
                    .map(|one| Box::pin(one.subscription.changed())),
            );
            tokio::select! {
                _ = changed => return,
                () = reached(step.look_again) => return,
                () = &mut until => break,
                () = progress.due() => progress.flush().await,
            }
        }
        // The answer is compared with the watch, which is restarted if it is behind.
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

/// The current view of one application.
enum Look {
    Live(Box<Application>, Next),
    /// Why nothing is known about it.
    Unknown(Next),
    Gone,
}

enum Begun {
    Yes(Applied),
    Failed(Failure),
    Not(Next),
}

impl FollowedApplication {
    /// As the watch shows it, and what is next.
    async fn look(&mut self, cluster: &Kubernetes) -> Result<Look, Fault<Reason>> {
        let View {
            synced,
            observed,
            fault,
        } = self.subscription.view();
        self.fault = fault.map(|fault| format!("cannot be watched: {}", fault.words));
        if !synced {
            return Ok(Look::Unknown(wait("reading the cluster's state")));
        }
        let live = match observed.workload {
            Some(Workload::Application(live)) => live,
            // Either the watch lags behind, or the object is gone. The API server knows.
            _ => match cluster.read(&self.target).await? {
                Some(Workload::Application(live)) => live,
                _ => return Ok(Look::Gone),
            },
        };
        self.seen = true;
        self.know_windows(cluster, &live).await?;
        let next = self.next(&live);
        Ok(Look::Live(Box::new(Application::clone(&live)), next))
    }

    fn not_there(&self) -> Failure {
        application::not_there(&self.target, self.seen)
    }

    fn next(&self, live: &Application) -> Next {
        let situation = Situation {
            windows: self.windows.as_deref(),
            asked: self.asked,
            managed: None,
        };
        application::next(&self.expected, live, &situation, Timestamp::now())
    }

    async fn know_windows(&mut self, cluster: &Kubernetes, live: &Application) -> Result<(), Fault<Reason>> {
        if self.windows_at.is_none_or(|at| at.elapsed() >= WINDOWS_FOR) {
            self.windows = argo_cd::windows(cluster, &self.target, live).await?;
            self.windows_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Requests the sync, or a refresh from git.
    async fn begin(
        &mut self,
        cluster: &Kubernetes,
        run: &Run,
        argo_cd: &ArgoCd,
    ) -> Result<Begun, Fault<Reason>> {
        match self.start(cluster, run, argo_cd).await? {
            Started::Written(applied) => Ok(Begun::Yes(applied)),
            Started::Gone => Ok(Begun::Failed(self.not_there())),
            Started::Otherwise { live, .. } if live.automated() => {
                let applied = argo_cd::refresh(cluster, &self.target, false).await?;
                Ok(Begun::Yes(applied))
            }
            Started::Otherwise { live, applied, .. } if live.asked_for(&self.sync) => Ok(Begun::Yes(applied)),
            Started::Otherwise {
                next: Next::Failed(failure),
                ..
            } => Ok(Begun::Failed(failure)),
            Started::Otherwise { next, .. } => Ok(Begun::Not(next)),
        }
    }

    async fn start(
        &self,
        cluster: &Kubernetes,
        run: &Run,
        argo_cd: &ArgoCd,
    ) -> Result<Started, Fault<Reason>> {
        let order = Order {
            deployment: &run.id,
            sync: &self.sync,
            epoch: self.expected.epoch,
            prune: argo_cd.prune,
            options: &argo_cd.sync_options,
        };
        argo_cd::start(cluster, &self.target, &order, |live| self.next(live)).await
    }

    /// Does what is next, and returns its state.
    async fn advance(
        &mut self,
        cluster: &Kubernetes,
        run: &Run,
        argo_cd: &ArgoCd,
    ) -> Result<Verdict, Fault<Reason>> {
        let next = match self.look(cluster).await? {
            Look::Gone => return Ok(Verdict::Failed(self.not_there())),
            Look::Unknown(next) | Look::Live(_, next) => next,
        };
        match &next {
            Next::Refresh { hard, .. } => {
                // Whatever the answer: not again at once.
                self.asked = Some(Timestamp::now());
                match argo_cd::refresh(cluster, &self.target, *hard).await {
                    Ok(_) => {}
                    // Argo CD refreshes by itself now and then.
                    Err(Fault::Permanent(error)) => {
                        tracing::warn!(application = self.target.name, code = error.code, %error, "no refresh");
                    }
                    Err(away) => return Err(away),
                }
            }
            Next::StartSync => {
                if let Started::Otherwise { next, .. } = self.start(cluster, run, argo_cd).await? {
                    return Ok(application::verdict(next));
                }
            }
            Next::Wait { .. } | Next::Complete | Next::Failed(_) => {}
        }
        Ok(application::verdict(next))
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

fn wait(message: &str) -> Next {
    Next::Wait {
        message: message.to_owned(),
        look_again: None,
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

async fn reached(time: Option<Timestamp>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
