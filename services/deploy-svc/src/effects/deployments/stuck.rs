//! A pod of another version that holds up a StatefulSet: it is deleted, or where that is not allowed, named.

use slipway_kubernetes::{Kubernetes, stuck, watch::View};
use slipway_model::{Fault, Timestamp};
use slipway_verdict::{Expected, Target, Workload, stateful_set};

/// Deletes such pods, each once.
#[derive(Debug, Default)]
pub(super) struct Replacer {
    /// The uid of the last one, and why it was not deleted.
    last: Option<(String, Option<String>)>,
}

/// What is known about what holds up the rollout.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    /// What a person has to do.
    pub advice: Option<String>,
    /// When to look again.
    pub look_again: Option<Timestamp>,
}

impl Replacer {
    pub(super) async fn look(
        &mut self,
        cluster: &Kubernetes,
        target: &Target,
        expected: &Expected,
        view: &View,
    ) -> HeldUp {
        let Some(Workload::StatefulSet(live)) = &view.observed.workload else {
            return HeldUp::default();
        };
        let Some(stuck) = stateful_set::stuck(expected, live, &view.observed) else {
            return HeldUp::default();
        };
        if Timestamp::now() < stuck.since {
            return HeldUp {
                advice: None,
                look_again: Some(stuck.since),
            };
        }
        let uid = stuck.pod.metadata.uid.clone().unwrap_or_default();
        let pod = stuck.pod.metadata.name.as_deref().unwrap_or_default();
        if self.last.as_ref().is_none_or(|(last, _)| *last != uid) {
            match stuck::delete(cluster, target, stuck.pod).await {
                Ok(()) => {
                    tracing::info!(target = %target, pod, "deleted: it is of another version, and its controller waits for it");
                    self.last = Some((uid, None));
                }
                Err(Fault::Permanent(error)) => self.last = Some((uid, Some(error.message))),
                // The next look tries again.
                Err(Fault::Transient { error, .. }) => {
                    tracing::debug!(target = %target, pod, code = error.code, %error, "not deleted");
                }
            }
        }
        let refused = self.last.as_ref().and_then(|(_, refused)| refused.as_ref());
        HeldUp {
            advice: refused.map(|refused| {
                format!(
                    "pod {pod} is of another version and does not become ready, and the StatefulSet's controller waits \
                     for it (kubernetes#67250): delete it (`kubectl -n {} delete pod {pod}`); Slipway could not: {refused}",
                    target.namespace
                )
            }),
            look_again: None,
        }
    }
}
