//! The status of a Deployment: its counts and its conditions.

use jiff::SignedDuration;
use serde_json::json;

use super::Pass;
use crate::controllers::conditions::{self, Condition};
use crate::controllers::replicaset;
use crate::object::{self, at, condition, number, text};

/// Pods, by what they are.
pub(super) struct Counts {
    pub(super) replicas: i64,
    pub(super) updated: i64,
    pub(super) ready: i64,
    pub(super) available: i64,
    pub(super) unavailable: i64,
}

impl Pass<'_> {
    pub(super) fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        conditions::set(
            &mut self.conditions,
            Condition::new(kind, status, reason, message, self.now),
        );
    }

    pub(super) fn check_paused(&mut self) {
        if self.deadline().is_none() {
            return;
        }
        let reason = conditions::find(&self.conditions, "Progressing")
            .map_or("", |c| c.reason.as_str())
            .to_owned();
        if reason == "ProgressDeadlineExceeded" {
            return;
        }
        let paused = at(self.deployment, &["spec", "paused"]) == true;
        if paused && reason != "DeploymentPaused" {
            self.set(
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused",
            );
        } else if !paused && reason == "DeploymentPaused" {
            self.set(
                "Progressing",
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed",
            );
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let available = self.sum("availableReplicas");
        Counts {
            replicas: self.sum("replicas"),
            updated: self.new.map_or(0, |index| self.sets[index].status("replicas")),
            ready: self.sum("readyReplicas"),
            available,
            unavailable: (self.total() - available).max(0),
        }
    }

    /// Whether the rollout is over. (The status written by this pass is for the current generation.)
    pub(super) fn is_complete(&self, counts: &Counts) -> bool {
        let replicas = self.replicas();
        counts.updated == replicas && counts.replicas == replicas && counts.available == replicas
    }

    /// The numbers and the Available condition.
    pub(super) fn plain_status(&mut self) {
        let counts = self.counts();
        let least = self.replicas() - self.fences().1;
        if counts.available >= least {
            let message = "Deployment has minimum availability.";
            self.set("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            self.set("Available", "False", "MinimumReplicasUnavailable", message);
        }
        let mut status = json!({"observedGeneration": object::generation(self.deployment)});
        for (field, value) in [
            ("replicas", counts.replicas),
            ("updatedReplicas", counts.updated),
            ("readyReplicas", counts.ready),
            ("availableReplicas", counts.available),
            ("unavailableReplicas", counts.unavailable),
        ] {
            if value != 0 {
                status[field] = json!(value);
            }
        }
        let collisions = at(self.deployment, &["status", "collisionCount"]);
        if !collisions.is_null() {
            status["collisionCount"] = collisions.clone();
        }
        self.decision.status = status;
    }

    /// The status with the Progressing condition, as a rollout progresses, ends or stalls.
    pub(super) fn rollout_status(&mut self) {
        self.plain_status();
        self.progress();
        self.replica_failure();
    }

    /// Takes over the condition that pods were refused, from the new ReplicaSet if it has it, otherwise from an old
    /// one.
    fn replica_failure(&mut self) {
        let order = self.new.into_iter().chain(self.old());
        let failure = order
            .filter_map(|index| condition(&self.sets[index].object, replicaset::FAILURE))
            .next()
            .cloned();
        match failure {
            Some(failure) => {
                let since = object::time(&failure, &["lastTransitionTime"]).unwrap_or(self.now);
                let (reason, message) = (text(&failure, &["reason"]), text(&failure, &["message"]));
                let condition = Condition::new(replicaset::FAILURE, "True", reason, message, since);
                conditions::set(&mut self.conditions, condition);
            }
            None => conditions::remove(&mut self.conditions, replicaset::FAILURE),
        }
    }

    fn progress(&mut self) {
        let counts = self.counts();
        let before = |field: &str| number(self.deployment, &["status", field]).unwrap_or(0);
        let current = conditions::find(&self.conditions, "Progressing").cloned();
        let Some(deadline) = self.deadline() else {
            conditions::remove(&mut self.conditions, "Progressing");
            return;
        };
        let is_done = counts.replicas == counts.updated
            && current
                .as_ref()
                .is_some_and(|c| c.reason == "NewReplicaSetAvailable");
        let what = match self.new {
            Some(index) => format!("ReplicaSet \"{}\"", self.sets[index].name()),
            None => format!("Deployment \"{}\"", object::name(self.deployment)),
        };
        let progressing = counts.updated > before("updatedReplicas")
            || counts.replicas - counts.updated < before("replicas") - before("updatedReplicas")
            || counts.ready > before("readyReplicas")
            || counts.available > before("availableReplicas");
        if !is_done {
            if self.is_complete(&counts) {
                let message = format!("{what} has successfully progressed.");
                self.set("Progressing", "True", "NewReplicaSetAvailable", &message);
            } else if progressing {
                let message = format!("{what} is progressing.");
                let mut condition =
                    Condition::new("Progressing", "True", "ReplicaSetUpdated", &message, self.now);
                if let Some(current) = current.filter(|c| c.status == "True") {
                    condition.last_transition = current.last_transition;
                }
                // Set again even if it is unchanged: the deadline counts from its update time.
                conditions::remove(&mut self.conditions, "Progressing");
                conditions::set(&mut self.conditions, condition);
            } else if self.has_timed_out(deadline) {
                let message = format!("{what} has timed out progressing.");
                self.set("Progressing", "False", "ProgressDeadlineExceeded", &message);
            }
        }
        self.decision.look_again = conditions::find(&self.conditions, "Progressing")
            .filter(|c| {
                !matches!(
                    c.reason.as_str(),
                    "NewReplicaSetAvailable" | "ProgressDeadlineExceeded"
                )
            })
            .and_then(|c| {
                c.last_update
                    .checked_add(SignedDuration::from_secs(deadline + 1))
                    .ok()
            });
    }

    pub(super) fn has_timed_out(&self, deadline: i64) -> bool {
        conditions::find(&self.conditions, "Progressing").is_some_and(|condition| {
            match condition.reason.as_str() {
                "NewReplicaSetAvailable" => false,
                "ProgressDeadlineExceeded" => true,
                _ => self.now.duration_since(condition.last_update) > SignedDuration::from_secs(deadline),
            }
        })
    }
}
