//! What the application's own workloads change about the decision.

use std::time::Duration;

use slipway_model::Timestamp;

use super::{Decision, failed};
use crate::{
    Failure, FailureReason, Managed, ManagedWorkload,
    application::{
        Next, OperationState, Phase, ResourceResult, at,
        managed::{self, Review},
        words,
    },
};

/// How long a failure of a workload must have lasted after the sync wrote it: until then the watch of the workload may
/// show it as it was before.
const SETTLE: Duration = Duration::from_secs(3);

/// How much of our commit has reached the cluster.
enum Reached<'a> {
    Nothing,
    These(&'a [ResourceResult]),
    Everything,
}

impl Decision<'_> {
    pub(super) fn managed(&self) -> &Managed {
        self.situation.managed.unwrap_or(&Managed::Unknown)
    }

    /// The verdict of the workloads that the sync has written.
    pub(super) fn review(&self) -> Option<Review> {
        let reached = self.reached();
        let counts = |one: &ManagedWorkload| match &reached {
            Reached::Nothing => false,
            Reached::Everything => true,
            Reached::These(results) => results.iter().any(|result| {
                result.status == "Synced"
                    && result.hook_type.is_empty()
                    && result.kind == one.kind.as_str()
                    && result.namespace == one.namespace
                    && result.name == one.name
            }),
        };
        managed::review(self.expected, self.managed(), self.now, counts)
    }

    /// The verdict of the workloads, whoever wrote them.
    pub(super) fn review_of_what_runs(&self) -> Option<Review> {
        managed::review(self.expected, self.managed(), self.now, |_| true)
    }

    /// The operation that carries our commit into the cluster.
    fn carrier(&self) -> Option<&OperationState> {
        let state = self.state()?;
        let ours = self
            .sync
            .is_some_and(|sync| state.operation.id() == Some(sync.operation.as_str()));
        let tried = state.operation.sync.as_ref().is_some_and(|sync| sync.dry_run);
        let wanted = ours || self.is_about(&state.operation, Some(state)).wanted;
        // One that waits to replace it makes what this one wrote obsolete.
        let replaced = self.pending().is_some_and(|pending| *pending != state.operation);
        (wanted && !tried && !replaced).then_some(state)
    }

    fn reached(&self) -> Reached<'_> {
        let Some(sync) = self.sync else {
            return Reached::Everything;
        };
        match self.carrier() {
            Some(state) if state.phase == Phase::Succeeded => Reached::Everything,
            Some(state) => match &state.sync_result {
                // Before the first object it is the result of the operation before.
                Some(result) if self.wanted(&result.revision) => Reached::These(&result.resources),
                _ => Reached::Nothing,
            },
            // A commit that changes nothing is not synced.
            None if self.live.automated() && self.pending().is_none() => {
                let compared = &self.live.status.sync;
                let ours = compared.revision == sync.revision.as_str();
                if ours && compared.status == "Synced" {
                    Reached::Everything
                } else {
                    Reached::Nothing
                }
            }
            None => Reached::Nothing,
        }
    }

    /// The decision, with what the workloads add to it: while Argo CD still waits, one that has failed decides.
    pub(super) fn with_workloads(&self, next: Next) -> Next {
        match next {
            Next::Failed(failure) => self.despite_failed_sync(failure),
            Next::Wait { message, look_again } => match self.failure_of_workload() {
                Some(Ok(failure)) => Next::Failed(failure),
                Some(Err(at)) => Next::Wait {
                    message,
                    look_again: [look_again, Some(at)].into_iter().flatten().min(),
                },
                None => {
                    let again = self.review().and_then(|review| review.look_again);
                    Next::Wait {
                        message: self.with_detail(message),
                        look_again: [look_again, again].into_iter().flatten().min(),
                    }
                }
            },
            Next::Refresh { hard, message } => match self.failure_of_workload() {
                Some(Ok(failure)) => Next::Failed(failure),
                _ => Next::Refresh {
                    hard,
                    message: self.with_detail(message),
                },
            },
            next @ (Next::StartSync | Next::Complete) => next,
        }
    }

    /// The failure of a workload, or when it begins to count.
    fn failure_of_workload(&self) -> Option<Result<Failure, Timestamp>> {
        let failure = self.review()?.failure?;
        let wrote = self
            .carrier()
            .and_then(|state| at(state.finished_at.as_ref()).or_else(|| at(state.started_at.as_ref())));
        let counts = wrote.unwrap_or(self.expected.since) + SETTLE;
        Some(if self.now >= counts || self.sync.is_none() {
            Ok(failure)
        } else {
            Err(counts)
        })
    }

    /// What is missing from the workloads, or why they cannot be asked.
    fn with_detail(&self, message: String) -> String {
        if let Managed::Unreadable(why) = self.managed() {
            return format!("{message}; its workloads cannot be read: {why}");
        }
        match self.review().and_then(|review| review.missing()) {
            Some(missing) if !message.contains(&missing) => format!("{message}; {missing}"),
            _ => message,
        }
    }

    /// A sync back to the version before that failed: if that version never stopped running, nothing was replaced.
    fn despite_failed_sync(&self, failure: Failure) -> Next {
        let of_sync = matches!(
            failure.reason,
            FailureReason::SyncFailed | FailureReason::ComparisonFailed
        );
        if of_sync && self.runs_as_before() {
            return Next::Complete;
        }
        Next::Failed(failure)
    }

    /// The sync failed before it had written any object, and the version that it was to restore runs and is well.
    pub(super) fn runs_as_before(&self) -> bool {
        self.sync.is_some_and(|sync| sync.restores)
            && !self.has_written()
            && self
                .review_of_what_runs()
                .is_some_and(|review| review.is_complete())
    }

    /// Whether the operation that carries our commit got as far as writing objects, hooks apart.
    fn has_written(&self) -> bool {
        let result = self.carrier().and_then(|state| state.sync_result.as_ref());
        result.is_some_and(|result| {
            self.wanted(&result.revision) && result.resources.iter().any(|one| one.hook_type.is_empty())
        })
    }

    /// Our commit was synced and our workloads are well: what Argo CD still finds different does not count.
    pub(super) fn is_enough(&self, looked_since: bool) -> bool {
        let strict = self.sync.is_none_or(|sync| sync.require_synced);
        looked_since && !strict && self.review().is_some_and(|review| review.is_complete())
    }

    /// The application is Degraded: because of a workload of ours, of a neighbour, or of something else.
    pub(super) fn degraded(&self) -> Degraded {
        let review = self.review();
        if let Some(failure) = review.as_ref().and_then(|review| review.failure.clone()) {
            return Degraded::Ours(failure);
        }
        if review.as_ref().is_some_and(Review::is_complete) && !self.neighbours().is_empty() {
            return Degraded::Neighbour;
        }
        let told = words::of_health(self.live, "Degraded");
        let words = match (review.and_then(|review| review.missing()), self.managed()) {
            (Some(missing), _) => missing,
            (None, Managed::Unreadable(why)) => format!("{told}; its workloads cannot be read: {why}"),
            (None, _) => told,
        };
        Degraded::Unknown(format!("Degraded: {words}"))
    }

    /// Workloads without our image that are not well.
    pub(super) fn neighbours(&self) -> Vec<String> {
        managed::ailing_neighbours(self.expected, self.managed(), self.now)
    }

    /// Our workloads are well, and what Argo CD waits for is a neighbour's.
    pub(super) fn waits_for_neighbours(&self) -> bool {
        self.review().is_some_and(|review| review.is_complete()) && !self.neighbours().is_empty()
    }

    /// What is missing from our workloads although Argo CD is content.
    pub(super) fn unproven(&self) -> Option<Next> {
        let review = self.review()?;
        if let Some(failure) = self.failure_of_workload() {
            return Some(match failure {
                Ok(failure) => Next::Failed(failure),
                Err(again) => Next::Wait {
                    message: "Argo CD says Healthy; its workloads are looked at".to_owned(),
                    look_again: Some(again),
                },
            });
        }
        Some(Next::Wait {
            message: format!("synced; {}", review.missing()?),
            look_again: review.look_again,
        })
    }

    /// What a person should know of a rollout that is complete.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Managed::Unreadable(why) = self.managed() {
            warnings.push(format!(
                "its workloads cannot be read ({why}): Argo CD's word alone counts"
            ));
        }
        if let Some(state) = self
            .carrier()
            .filter(|state| matches!(state.phase, Phase::Failed | Phase::Error))
        {
            warnings.push(format!(
                "the sync still fails, and the version before, which never stopped running, serves: {}",
                words::sync_failed(state)
            ));
        } else if let Some(Next::Failed(failure)) = self.errors().filter(|_| self.runs_as_before()) {
            warnings.push(format!(
                "Argo CD still cannot compare with git, and the version before, which never stopped running, serves: {}",
                failure.message
            ));
        } else if self.live.status.sync.status == "OutOfSync" && self.compares_with_ours() {
            warnings.push(format!(
                "synced, but Argo CD still finds a difference from git: {}",
                words::out_of_sync(self.live)
            ));
        }
        for neighbour in self.neighbours() {
            warnings.push(format!(
                "a neighbour in the same Application is not well: {neighbour}"
            ));
        }
        for idle in self.review_of_what_runs().iter().flat_map(|review| &review.idle) {
            warnings.push(format!("{idle} is scaled to zero: nothing of it runs"));
        }
        warnings
    }
}

/// Why an application is Degraded.
pub(super) enum Degraded {
    Ours(Failure),
    Neighbour,
    Unknown(String),
}

impl Degraded {
    pub(super) fn failure(self) -> Option<Next> {
        match self {
            Self::Ours(failure) => Some(Next::Failed(failure)),
            Self::Unknown(message) => Some(failed(FailureReason::Degraded, &message)),
            Self::Neighbour => None,
        }
    }
}
