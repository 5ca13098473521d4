//! The target of a watch, through the shared watches of its cluster.

use slipway_kubernetes::{Clusters, Kubernetes, managed::ManagedWorkloads, watch::Subscription};
use slipway_model::Timestamp;
use slipway_verdict::{Expected, Late, Managed, Target, Workload, late};

use super::Subject;
use crate::effects::deployments::expected;

/// One canary, with what it belongs to.
pub(super) struct FollowedCanary<'a> {
    clusters: &'a Clusters,
    cluster: &'a Kubernetes,
    target: &'a Target,
    expected: Expected,
    subscription: Subscription,
    /// Of an Application.
    workloads: ManagedWorkloads,
}

/// The current view of it.
pub(super) enum Look {
    /// The lists have not arrived.
    Reading,
    /// Why nothing certain is known of it.
    Away(String),
    Judged(Late),
}

impl<'a> FollowedCanary<'a> {
    pub(super) fn new(clusters: &'a Clusters, cluster: &'a Kubernetes, subject: &'a Subject) -> Self {
        Self {
            clusters,
            cluster,
            target: &subject.request.target,
            expected: expected(&subject.state, &subject.request),
            subscription: cluster.follow(&subject.request.target),
            workloads: ManagedWorkloads::default(),
        }
    }

    /// As the watches show it. What may be out of date is not judged.
    pub(super) async fn look(&mut self) -> Look {
        let away = |words: String| Look::Away(format!("cluster {}: {words}", self.cluster.name()));
        let view = self.subscription.view();
        if let Some(fault) = view.fault {
            return away(format!("cannot be watched: {}", fault.words));
        }
        if !view.synced {
            return Look::Reading;
        }
        let mut observed = view.observed;
        match &observed.workload {
            Some(Workload::Application(live)) => {
                self.workloads.follow(self.clusters, self.cluster, live);
                match self.workloads.view() {
                    Some(Managed::Unreadable(why)) => return away(why),
                    Some(managed) => observed.managed = managed,
                    None => return Look::Reading,
                }
            }
            Some(_) => {}
            // Either the watch lags behind, or the object is gone. The API server knows.
            None => match self.cluster.read(self.target).await {
                Ok(found) => observed.gone = found.is_none(),
                Err(fault) => return away(fault.to_string()),
            },
        }
        let lane = self.target.key();
        Look::Judged(late(&self.expected, &lane, &observed, Timestamp::now()))
    }

    /// Waits for the next change of it, of what it manages, or of the watches' health.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.subscription.changed() => {}
            () = self.workloads.changed() => {}
        }
    }

    /// Asks the API server: a watch that turns out to be behind is restarted.
    pub(super) async fn read_again(&self) {
        self.workloads.read_again().await;
        if let Err(fault) = self.cluster.read(self.target).await {
            tracing::debug!(target = %self.target, %fault, "not read");
        }
    }
}
