//! One Application of a deployment, and what it manages: what is known of it, and what is done with it next.

use std::time::Duration;

use deploy_domain::catalog::ArgoCd;
use slipway_kubernetes::{
    Clusters, Kubernetes,
    argo_cd::{self, Order, Started},
    managed::ManagedWorkloads,
    watch::{Subscription, View},
};
use slipway_model::{Fault, Reason, Timestamp};
use slipway_verdict::{
    Applied, Expected, Failure, Managed, Target, Verdict, Workload,
    application::{self, Application, Next, Situation, Sync},
    sync_window::SyncWindow,
};
use tokio::time::Instant;

use crate::effects::deployments::{Run, promotion::Promoter};

/// How long a project's windows are remembered: people change them while a sync waits.
const WINDOWS_FOR: Duration = Duration::from_secs(30);

/// One application, with what is known about it.
pub(super) struct FollowedApplication {
    pub(super) target: Target,
    subscription: Subscription,
    /// What it manages, in the cluster that it deploys to.
    pub(super) workloads: ManagedWorkloads,
    promoter: Promoter,
    /// What it manages, as of the last look.
    managed: Managed,
    /// Whether a workload of it waits for a person.
    pub(super) asks: bool,
    /// What a person should know once it is complete.
    pub(super) warnings: Vec<String>,
    expected: Expected,
    pub(super) sync: Sync,
    /// When a refresh from git was last requested.
    asked: Option<Timestamp>,
    /// Whether it was there.
    pub(super) seen: bool,
    /// Why the watch may be behind, as of the last look.
    pub(super) fault: Option<String>,
    windows: Option<Vec<SyncWindow>>,
    /// When the windows were read.
    windows_at: Option<Instant>,
}

/// The current view of one application.
pub(super) enum Look {
    Live(Box<Application>, Next),
    /// Why nothing is known about it.
    Unknown(Next),
    Gone,
}

/// What a look is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To begin the sync: that does not need the workloads.
    Sync,
    Verdict,
}

pub(super) enum Begun {
    Yes(Applied),
    Failed(Failure),
    Not(Next),
}

impl FollowedApplication {
    pub(super) fn new(cluster: &Kubernetes, target: Target, expected: Expected, sync: Sync) -> Self {
        Self {
            seen: !expected.applied.uid.is_empty(),
            subscription: cluster.follow(&target),
            workloads: ManagedWorkloads::default(),
            promoter: Promoter::default(),
            managed: Managed::Unknown,
            asks: false,
            warnings: Vec::new(),
            target,
            expected,
            sync,
            asked: None,
            fault: None,
            windows: None,
            windows_at: None,
        }
    }

    /// Waits for the next change of it, or of what it manages.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.subscription.changed() => {}
            () = self.workloads.changed() => {}
        }
    }

    /// As the watch shows it, and what is next.
    pub(super) async fn look(
        &mut self,
        clusters: &Clusters,
        cluster: &Kubernetes,
        purpose: Purpose,
    ) -> Result<Look, Fault<Reason>> {
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
        self.workloads.follow(clusters, cluster, &live);
        match self.workloads.view() {
            Some(managed) => self.managed = managed,
            None if purpose == Purpose::Verdict => {
                return Ok(Look::Unknown(wait("reading the state of its workloads")));
            }
            None => self.managed = Managed::Unknown,
        }
        let next = self.next(&live);
        Ok(Look::Live(Box::new(Application::clone(&live)), next))
    }

    /// It does not exist yet: an ApplicationSet may be about to make it.
    pub(super) fn is_awaited(&self, until: Timestamp) -> Next {
        let Target { namespace, name, .. } = &self.target;
        Next::Wait {
            message: format!(
                "waiting until {until} for Application {name} in namespace {namespace} to appear"
            ),
            look_again: Some(until),
        }
    }

    pub(super) fn not_there(&self) -> Failure {
        application::not_there(&self.target, self.seen)
    }

    fn next(&self, live: &Application) -> Next {
        application::next(&self.expected, live, &self.situation(), Timestamp::now())
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            windows: self.windows.as_deref(),
            asked: self.asked,
            managed: Some(&self.managed),
        }
    }

    /// Promotes what waits for us, and tells whether a person is waited for.
    async fn promote(&mut self) -> bool {
        let steps = application::steps(&self.expected, &self.managed);
        let mut asks = false;
        for (one, next) in steps {
            asks |= matches!(next, slipway_verdict::Next::Ask(_));
            let Some((target, there)) = self.workloads.target(one).zip(self.workloads.cluster()) else {
                continue;
            };
            if let Some(live) = &one.observed.workload {
                let expected = application::expected_of_one(&self.expected);
                self.promoter.look(there, &target, &expected, live).await;
            }
        }
        asks
    }

    async fn know_windows(&mut self, cluster: &Kubernetes, live: &Application) -> Result<(), Fault<Reason>> {
        if self.windows_at.is_none_or(|at| at.elapsed() >= WINDOWS_FOR) {
            self.windows = argo_cd::windows(cluster, &self.target, live).await?;
            self.windows_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Requests the sync, or a refresh from git.
    pub(super) async fn begin(
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
    pub(super) async fn advance(
        &mut self,
        clusters: &Clusters,
        cluster: &Kubernetes,
        run: &Run,
        argo_cd: &ArgoCd,
    ) -> Result<Verdict, Fault<Reason>> {
        let next = match self.look(clusters, cluster, Purpose::Verdict).await? {
            Look::Gone => return Ok(Verdict::Failed(self.not_there())),
            Look::Unknown(next) => next,
            Look::Live(live, next) => {
                self.asks = self.promote().await;
                self.warnings =
                    application::warnings(&self.expected, &live, &self.situation(), Timestamp::now());
                next
            }
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

fn wait(message: &str) -> Next {
    Next::Wait {
        message: message.to_owned(),
        look_again: None,
    }
}
