//! The Job controller's decision: pods to create and to delete, what counts as done, and the status.
//!
//! After `k8s.io/kubernetes/pkg/controller/job`. A pod that ended is counted in three steps, so that none is counted
//! twice or missed, no matter when the cluster is stopped: its uid is noted in the status, its finalizer is removed,
//! its uid is turned into a count.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::controllers::pods::{self, earlier, is_active, is_over};
use crate::object::{self, at, list, number, text};

/// The finalizer of pods that are still to be counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The longest pause before a failed pod's successor.
const MAX_BACK_OFF: Duration = Duration::from_secs(600);

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// The status, except for `active`.
    pub(crate) status: Value,
    /// How many pods are active once those below are deleted, before new ones are created.
    pub(crate) active: usize,
    /// How many pods to make.
    pub(crate) create: usize,
    /// Names of pods to delete; they count as failed.
    pub(crate) delete: Vec<String>,
    /// Names of pods to delete that do not count at all.
    pub(crate) discard: Vec<String>,
    /// Names of pods whose finalizer is removed once the status is stored.
    pub(crate) release: Vec<String>,
    /// Type, reason and message.
    pub(crate) events: Vec<(&'static str, String, String)>,
    /// The Job itself has lived long enough.
    pub(crate) expired: bool,
    pub(crate) look_again: Option<Timestamp>,
}

pub(crate) fn is_tracked(pod: &Value) -> bool {
    list(pod, &["metadata", "finalizers"])
        .iter()
        .any(|finalizer| finalizer == TRACKING)
}

/// A pod created from the Job's template.
pub(crate) fn pod(job: &Value) -> Value {
    let mut pod = pods::from_template(job, at(job, &["spec", "template"]));
    pod["metadata"]["finalizers"] = json!([TRACKING]);
    pod
}

fn has_failed(pod: &Value) -> bool {
    let phase = text(pod, &["status", "phase"]);
    phase == "Failed" || object::is_deleting(pod) && phase != "Succeeded"
}

fn has_ended(pod: &Value) -> bool {
    has_failed(pod) || is_over(pod)
}

fn ended_at(pod: &Value) -> Option<Timestamp> {
    list(pod, &["status", "containerStatuses"])
        .iter()
        .filter_map(|status| object::time(status, &["state", "terminated", "finishedAt"]))
        .max()
        .or_else(|| object::time(pod, &["metadata", "deletionTimestamp"]))
        .or_else(|| object::created(pod))
}

/// Decides the next step for the pods that the Job controls.
pub(crate) fn reconcile(job: &Value, pods: &[Arc<Value>], back_off: Duration, now: Timestamp) -> Plan {
    let mut pass = Pass {
        job,
        pods,
        now,
        conditions: list(job, &["status", "conditions"]).to_vec(),
        start: object::time(job, &["status", "startTime"]),
        end: at(job, &["status", "completionTime"]).clone(),
        plan: Plan::default(),
    };
    let tally = pass.tally();
    if let Some(since) = pass.finished() {
        pass.after_the_end(since);
    } else if !object::is_deleting(job) {
        pass.suspend_or_resume();
        if pass.start.is_none() && !pass.is_suspended() {
            pass.start = Some(object::seconds(now));
        }
        pass.judge(&tally);
        if pass.target().is_some() {
            pass.wind_up(&tally);
        } else if pass.is_suspended() {
            let active = pass.active();
            pass.plan.discard = active.iter().map(|pod| object::name(pod).to_owned()).collect();
        } else {
            pass.size(&tally, back_off);
        }
    }
    pass.finish(&tally)
}

/// Pods that ended: counts, and the uids that have yet to be turned into counts.
struct Tally {
    succeeded: usize,
    failed: usize,
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
}

impl Tally {
    fn all_succeeded(&self) -> usize {
        self.succeeded + self.uncounted_succeeded.len()
    }

    fn all_failed(&self) -> usize {
        self.failed + self.uncounted_failed.len()
    }
}

struct Pass<'a> {
    job: &'a Value,
    pods: &'a [Arc<Value>],
    now: Timestamp,
    conditions: Vec<Value>,
    start: Option<Timestamp>,
    end: Value,
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn spec(&self, field: &str) -> Option<i64> {
        number(self.job, &["spec", field])
    }

    fn is_suspended(&self) -> bool {
        at(self.job, &["spec", "suspend"]) == true
    }

    fn active(&self) -> Vec<&'a Value> {
        let pods = self.pods.iter().map(AsRef::as_ref);
        pods.filter(|pod| is_active(pod)).collect()
    }

    fn terminating(&self) -> usize {
        let going = |pod: &&Arc<Value>| object::is_deleting(pod) && !is_over(pod);
        self.pods.iter().filter(going).count()
    }

    fn condition(&self, kind: &str) -> Option<&Value> {
        self.conditions
            .iter()
            .find(|c| c["type"] == kind && c["status"] == "True")
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = object::stamp(self.now);
        self.conditions.retain(|c| c["type"] != kind);
        self.conditions.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now,
        }));
    }

    fn event(&mut self, kind: &'static str, reason: &str, message: &str) {
        self.plan
            .events
            .push((kind, reason.to_owned(), message.to_owned()));
    }

    /// Since when the Job is complete or failed.
    fn finished(&self) -> Option<Timestamp> {
        let end = self.condition("Complete").or_else(|| self.condition("Failed"))?;
        Some(object::time(end, &["lastTransitionTime"]).unwrap_or(self.now))
    }

    fn target(&self) -> Option<&Value> {
        self.condition("FailureTarget")
            .or_else(|| self.condition("SuccessCriteriaMet"))
    }

    /// Counts the pods that ended, each once.
    fn tally(&mut self) -> Tally {
        let tracked: Vec<&Value> = self
            .pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| is_tracked(pod))
            .collect();
        let before = |field: &str| {
            let count = number(self.job, &["status", field]).unwrap_or(0);
            usize::try_from(count).unwrap_or(0)
        };
        let noted = |field: &str| -> (Vec<String>, usize) {
            let uids = list(self.job, &["status", "uncountedTerminatedPods", field]);
            let (waiting, done): (Vec<&str>, Vec<&str>) = uids
                .iter()
                .filter_map(Value::as_str)
                .partition(|uid| tracked.iter().any(|pod| object::uid(pod) == *uid));
            (waiting.into_iter().map(str::to_owned).collect(), done.len())
        };
        let (mut uncounted_succeeded, succeeded) = noted("succeeded");
        let (mut uncounted_failed, failed) = noted("failed");
        for pod in tracked.into_iter().filter(|pod| has_ended(pod)) {
            let uid = object::uid(pod).to_owned();
            if !uncounted_succeeded.contains(&uid) && !uncounted_failed.contains(&uid) {
                if has_failed(pod) {
                    uncounted_failed.push(uid);
                } else {
                    uncounted_succeeded.push(uid);
                }
            }
            self.plan.release.push(object::name(pod).to_owned());
        }
        Tally {
            succeeded: before("succeeded") + succeeded,
            failed: before("failed") + failed,
            uncounted_succeeded,
            uncounted_failed,
        }
    }

    fn after_the_end(&mut self, since: Timestamp) {
        let Some(ttl) = self.spec("ttlSecondsAfterFinished") else {
            return;
        };
        let at = since.checked_add(SignedDuration::from_secs(ttl)).unwrap_or(since);
        if at <= self.now {
            self.plan.expired = true;
        } else {
            self.plan.look_again = Some(at);
        }
    }

    fn suspend_or_resume(&mut self) {
        let was = self.condition("Suspended").is_some();
        match (self.is_suspended(), was) {
            (true, false) => {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                self.event("Normal", "Suspended", "Job suspended");
                self.start = None;
            }
            (false, true) => {
                self.set("Suspended", "False", "JobResumed", "Job resumed");
                self.event("Normal", "Resumed", "Job resumed");
                self.start = Some(object::seconds(self.now));
            }
            _ => {}
        }
    }

    /// Sets the condition that says how the Job will end, once that is known.
    fn judge(&mut self, tally: &Tally) {
        if self.target().is_some() {
            return;
        }
        let limit = self.spec("backoffLimit").unwrap_or(6);
        if i64::try_from(tally.all_failed()).is_ok_and(|failed| failed > limit) || self.restarted(limit) {
            let message = "Job has reached the specified backoff limit";
            return self.set("FailureTarget", "True", "BackoffLimitExceeded", message);
        }
        if let Some((seconds, start)) = self.spec("activeDeadlineSeconds").zip(self.start)
            && !self.is_suspended()
        {
            let deadline = start
                .checked_add(SignedDuration::from_secs(seconds))
                .unwrap_or(start);
            if deadline <= self.now {
                let message = "Job was active longer than specified deadline";
                return self.set("FailureTarget", "True", "DeadlineExceeded", message);
            }
            self.plan.look_again = Some(deadline);
        }
        let succeeded = i64::try_from(tally.all_succeeded()).unwrap_or(i64::MAX);
        let reached = match self.spec("completions") {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active().is_empty(),
        };
        if reached && !self.is_suspended() {
            let message = "Reached expected number of succeeded pods";
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", message);
        }
    }

    /// Whether containers under `OnFailure` were restarted as often as the limit allows.
    fn restarted(&self, limit: i64) -> bool {
        if text(self.job, &["spec", "template", "spec", "restartPolicy"]) != "OnFailure" {
            return false;
        }
        let restarts: i64 = self
            .active()
            .into_iter()
            .flat_map(|pod| list(pod, &["status", "containerStatuses"]))
            .filter_map(|status| number(status, &["restartCount"]))
            .sum();
        restarts > 0 && restarts >= limit
    }

    /// Ends what is still running; the last condition is set when nothing is and everything is counted.
    fn wind_up(&mut self, tally: &Tally) {
        let active = self.active();
        self.plan.delete = active.iter().map(|pod| object::name(pod).to_owned()).collect();
        let is_counted = tally.uncounted_failed.is_empty() && tally.uncounted_succeeded.is_empty();
        if !active.is_empty() || self.terminating() > 0 || !is_counted {
            return;
        }
        let Some(target) = self.target().cloned() else {
            return;
        };
        let (reason, message) = (text(&target, &["reason"]), text(&target, &["message"]));
        if target["type"] == "FailureTarget" {
            self.set("Failed", "True", reason, message);
            self.event("Warning", reason, message);
        } else {
            self.set("Complete", "True", reason, message);
            self.event("Normal", "Completed", "Job completed");
            self.end = json!(object::stamp(self.now));
        }
    }

    /// The number of pods that are allowed at a time and still wanted.
    fn size(&mut self, tally: &Tally, back_off: Duration) {
        let mut active = self.active();
        let parallelism = usize::try_from(self.spec("parallelism").unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec("completions") {
            Some(completions) => usize::try_from(completions)
                .unwrap_or(0)
                .saturating_sub(tally.all_succeeded())
                .min(parallelism),
            None if tally.all_succeeded() > 0 => active.len(),
            None => parallelism,
        };
        if active.len() > wanted {
            active.sort_by_key(|pod| (object::is_ready(pod), std::cmp::Reverse(object::created(pod))));
            let excess = active.len() - wanted;
            let excess = active.into_iter().take(excess);
            self.plan.discard = excess.map(|pod| object::name(pod).to_owned()).collect();
            return;
        }
        let mut there = active.len();
        if text(self.job, &["spec", "podReplacementPolicy"]) == "Failed" {
            there += self.terminating();
        }
        let missing = wanted.saturating_sub(there);
        let wait = if missing == 0 { None } else { self.pause(back_off) };
        match wait {
            Some(until) if until > self.now => {
                self.plan.look_again = earlier(self.plan.look_again, Some(until));
            }
            _ => self.plan.create = missing,
        }
    }

    /// Until when to wait with the next pod: longer with each failure since the last success.
    fn pause(&self, first: Duration) -> Option<Timestamp> {
        let mut ended: Vec<(Option<Timestamp>, bool)> = self
            .pods
            .iter()
            .filter(|pod| has_ended(pod))
            .map(|pod| (ended_at(pod), has_failed(pod)))
            .collect();
        ended.sort_unstable();
        let failures = ended.iter().rev().take_while(|(_, failed)| *failed).count();
        let doublings = u32::try_from(failures.checked_sub(1)?)
            .unwrap_or(u32::MAX)
            .min(20);
        let pause = first.saturating_mul(1 << doublings).min(MAX_BACK_OFF);
        let last = ended.last()?.0?;
        last.checked_add(SignedDuration::try_from(pause).ok()?).ok()
    }

    fn finish(mut self, tally: &Tally) -> Plan {
        let active = self.active();
        let gone = self.plan.delete.len() + self.plan.discard.len();
        self.plan.active = active.len().saturating_sub(gone);
        let mut uncounted = json!({});
        for (field, uids) in [
            ("succeeded", &tally.uncounted_succeeded),
            ("failed", &tally.uncounted_failed),
        ] {
            if !uids.is_empty() {
                uncounted[field] = json!(uids);
            }
        }
        let ready = active.iter().filter(|pod| object::is_ready(pod)).count();
        let mut status = json!({
            "ready": ready, "terminating": self.terminating(), "uncountedTerminatedPods": uncounted,
        });
        for (field, value) in [("succeeded", tally.succeeded), ("failed", tally.failed)] {
            if value > 0 {
                status[field] = json!(value);
            }
        }
        if let Some(start) = self.start {
            status["startTime"] = json!(object::stamp(start));
        }
        if !self.end.is_null() {
            status["completionTime"] = self.end;
        }
        if !self.conditions.is_empty() {
            status["conditions"] = Value::Array(self.conditions);
        }
        self.plan.status = status;
        self.plan
    }
}

#[cfg(test)]
mod tests;
