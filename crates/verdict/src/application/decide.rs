//! Decides what to do next with one Application.

mod health;
mod workloads;

use std::time::Duration;

use slipway_model::Timestamp;

use super::{
    Application, Next, Operation, OperationState, Phase, REFRESH, REFRESH_EVERY, Situation, Sync,
    WhenBlocked, at, moved_on, words,
};
use crate::{
    DEPLOYMENT, Expected, Failure, FailureReason, TARGET, UNSEEN, annotation, cut, epoch_of,
    sync_window::{self, Answer},
};

/// How long an error in comparing with git may last before it counts as one that will not pass by itself.
const COMPARISON_PATIENCE: Duration = Duration::from_secs(60);
/// What to do after another's sync.
const DEPLOY_AGAIN: &str = "look at what runs, and deploy again if ours is right";
/// The controller's message about a sync that a window holds back.
const BLOCKED: &str = "blocked by sync window";

/// Decides what is next for the application. The sync has been requested if `expected.applied` or the object itself
/// says so; `expected.since` is when.
pub fn next(expected: &Expected, live: &Application, situation: &Situation<'_>, now: Timestamp) -> Next {
    let decision = Decision {
        expected,
        sync: expected.sync.as_ref(),
        live,
        situation,
        now,
    };
    if let Some(end) = decision.identity() {
        return end;
    }
    let next = match decision.sync {
        None => decision.errors().unwrap_or_else(|| decision.health(None)),
        Some(sync) if live.automated() => decision.automated(sync),
        Some(sync) => decision.manual(sync),
    };
    decision.with_workloads(next)
}

/// What a person should know of an application whose rollout is complete.
pub fn warnings(
    expected: &Expected,
    live: &Application,
    situation: &Situation<'_>,
    now: Timestamp,
) -> Vec<String> {
    let decision = Decision {
        expected,
        sync: expected.sync.as_ref(),
        live,
        situation,
        now,
    };
    decision.warnings()
}

struct Decision<'a> {
    expected: &'a Expected,
    /// `None`: nothing is synced, and the current state is all there is to report.
    sync: Option<&'a Sync>,
    live: &'a Application,
    situation: &'a Situation<'a>,
    now: Timestamp,
}

impl Decision<'_> {
    /// Whether this is the object that was written, and it has not been taken over.
    fn identity(&self) -> Option<Next> {
        let (metadata, applied) = (&self.live.metadata, &self.expected.applied);
        let uid = metadata.uid.as_deref().unwrap_or_default();
        if !applied.uid.is_empty() && applied.uid != uid {
            return Some(failed(
                FailureReason::Replaced,
                "it was deleted and made anew by someone else",
            ));
        }
        if metadata.deletion_timestamp.is_some() {
            return Some(failed(FailureReason::Deleted, "it is being deleted"));
        }
        // The CRD has no status subresource: every write of the controller raises the generation too.
        if metadata.generation.unwrap_or(0) < applied.generation {
            return Some(wait(UNSEEN));
        }
        let epoch = epoch_of(metadata);
        let lane = annotation(metadata, TARGET);
        let same_lane = lane.is_some() && lane == self.sync.map(|sync| sync.lane.as_str());
        if same_lane && epoch > self.expected.epoch {
            let by = annotation(metadata, DEPLOYMENT).unwrap_or("another deployment");
            let ours = self.expected.epoch;
            let message = format!(
                "{by} took its place (epoch {epoch} after {ours}): that one answers for what runs now, look at it"
            );
            return Some(failed(FailureReason::SupersededEpoch, &message));
        }
        None
    }

    fn state(&self) -> Option<&OperationState> {
        self.live.status.operation_state.as_ref()
    }

    /// The operation that waits for the controller or is in progress; one that was left behind is neither.
    fn pending(&self) -> Option<&Operation> {
        let pending = self.live.operation.as_ref();
        pending.filter(|_| !self.live.leftover())
    }

    fn wanted(&self, revision: &str) -> bool {
        self.sync.is_none_or(|sync| {
            sync.revision.as_str() == revision || sync.descendants.iter().any(|one| one.as_str() == revision)
        })
    }

    /// Whether Argo CD compares the cluster with our commit.
    fn compares_with_ours(&self) -> bool {
        let sync = &self.live.status.sync;
        self.wanted(&sync.revision) || sync.revisions.iter().any(|one| self.wanted(one))
    }

    /// The target of an operation: its result if there is one, otherwise what was requested.
    fn is_about(&self, operation: &Operation, state: Option<&OperationState>) -> Revision<'_> {
        let result = state.and_then(|state| state.sync_result.as_ref());
        let found = result.map(|result| (result.revision.clone(), &result.revisions));
        let asked = operation.sync.as_ref();
        let asked = asked.map(|sync| (sync.revision.clone(), &sync.revisions));
        let known = |(one, several): (String, &Vec<String>)| {
            std::iter::once(one)
                .chain(several.iter().cloned())
                .filter(|revision| !revision.is_empty())
                .collect::<Vec<_>>()
        };
        let mut revisions = found.map(known).unwrap_or_default();
        if revisions.is_empty() {
            revisions = asked.map(known).unwrap_or_default();
        }
        let wanted = revisions.iter().any(|revision| self.wanted(revision));
        Revision {
            wanted,
            words: revisions
                .first()
                .map_or_else(|| "its branch".to_owned(), |one| words::short(one).to_owned()),
            full: revisions.first().is_some_and(|one| words::short(one) != one),
            sync: self.sync,
        }
    }

    /// An application that is synced on request.
    fn manual(&self, sync: &Sync) -> Next {
        let ours = |operation: &Operation| operation.id() == Some(&sync.operation);
        if let Some(state) = self.state()
            && ours(&state.operation)
        {
            return self.ours(sync, state);
        }
        if self.pending().is_some_and(ours) {
            return wait("Argo CD's controller has not begun the sync yet");
        }
        if self.live.asked_for(sync) || !self.expected.applied.uid.is_empty() {
            self.displaced()
        } else {
            self.begin(sync)
        }
    }

    /// Nothing has been requested yet.
    fn begin(&self, sync: &Sync) -> Next {
        if let Some(operation) = self.live.operation.as_ref() {
            // One of our own that was left behind may be overwritten; another's must be removed by its author.
            let own = self.live.leftover() && operation.id().is_some();
            if !own {
                return self.busy(sync, operation);
            }
        }
        if self.live.spec.sources.len() > 1 {
            return failed(
                FailureReason::SyncFailed,
                "it has several sources, and which of them is the GitOps repository cannot be known: let Argo CD \
                 sync it by itself, or give it one source",
            );
        }
        self.closed(sync, true).unwrap_or(Next::StartSync)
    }

    fn busy(&self, sync: &Sync, operation: &Operation) -> Next {
        let by = words::initiator(operation);
        let revision = self.is_about(operation, None).words;
        let mut message = format!("a sync of {revision} by {by} is under way");
        if self.live.leftover() {
            message = format!(
                "a sync of {revision} by {by} has ended, but was left standing in .operation; remove it to go on"
            );
        }
        match sync.when_busy {
            WhenBlocked::Wait => wait(&format!("{message}: waiting for its end")),
            WhenBlocked::Refuse => failed(
                FailureReason::SyncBusy,
                &format!("{message}, and argo_cd.when_busy is refuse"),
            ),
        }
    }

    /// The meaning of a closed window for a sync that has not begun.
    fn closed(&self, sync: &Sync, manual: bool) -> Option<Next> {
        let windows = self.situation.windows?;
        let Answer::Closed { until, words } =
            sync_window::may_sync(windows, self.live.subject(), manual, self.now)
        else {
            return None;
        };
        Some(match sync.when_closed {
            WhenBlocked::Refuse => failed(
                FailureReason::SyncWindowClosed,
                &format!("{words} does not let it be synced now, and argo_cd.when_closed is refuse"),
            ),
            WhenBlocked::Wait => Next::Wait {
                message: match until {
                    Some(until) => format!("{words} does not let it be synced before {until}"),
                    None => format!("{words} does not let it be synced within a year"),
                },
                look_again: until,
            },
        })
    }

    /// The controller itself says that a window holds the sync back: it begins when the window opens.
    fn held_back(&self, sync: &Sync, manual: bool) -> Next {
        match (self.closed(sync, manual), sync.when_closed) {
            (Some(known), _) => known,
            (None, WhenBlocked::Refuse) => failed(
                FailureReason::SyncWindowClosed,
                "a sync window of its project does not let it be synced now, and argo_cd.when_closed is refuse",
            ),
            (None, WhenBlocked::Wait) => {
                wait("a sync window of its project does not let it be synced now: waiting until it opens")
            }
        }
    }

    /// Our own operation is running or has ended.
    fn ours(&self, sync: &Sync, state: &OperationState) -> Next {
        if !state.phase.ended() {
            return self.under_way(sync, state, true);
        }
        // Written without clearing the state, as the API server would have done: about to replace ours.
        if let Some(other) = self.pending().filter(|other| **other != state.operation) {
            let by = words::initiator(other);
            return wait(&format!("another sync, by {by}, is about to begin"));
        }
        if state.phase != Phase::Succeeded {
            return failed(FailureReason::SyncFailed, &words::sync_failed(state));
        }
        self.succeeded(state)
    }

    fn under_way(&self, sync: &Sync, state: &OperationState, manual: bool) -> Next {
        let revision = self.is_about(&state.operation, Some(state)).words;
        let message = cut(&state.message);
        match state.phase {
            Phase::Terminating => wait(&format!("the sync of {revision} is being terminated: {message}")),
            // Not final: it will be retried.
            _ if state.finished_at.is_some() => wait(&format!(
                "the sync of {revision} failed and will be tried again: {message}"
            )),
            _ if state.message.contains(BLOCKED) => self.held_back(sync, manual),
            _ if message.is_empty() => wait(&format!("the sync of {revision} is running")),
            _ => wait(&format!("the sync of {revision} is running: {message}")),
        }
    }

    /// An operation that concerns us succeeded: whether it synced the right commit, and the result.
    fn succeeded(&self, state: &OperationState) -> Next {
        let Some(result) = &state.sync_result else {
            return self.refresh("the sync succeeded, but Argo CD does not say what it synced".to_owned());
        };
        let about = self.is_about(&state.operation, Some(state));
        if !about.wanted {
            let (by, revision) = (words::initiator(&state.operation), words::short(&result.revision));
            return failed(
                FailureReason::Superseded,
                &format!("{by} synced {revision} {}: {DEPLOY_AGAIN}", about.instead()),
            );
        }
        self.settled(Some(state))
    }

    /// Our sync was requested, and the object no longer shows it.
    fn displaced(&self) -> Next {
        let state = self.state();
        let (operation, state) = match (self.pending(), state) {
            (Some(pending), _) => (pending, None),
            (None, Some(state)) => (&state.operation, Some(state)),
            (None, None) => {
                return failed(
                    FailureReason::SyncFailed,
                    "the sync was removed before it began; deploy again to sync",
                );
            }
        };
        let by = words::initiator(operation);
        let about = self.is_about(operation, state);
        let ended = state.is_some_and(|state| state.phase.ended());
        let tried = operation.sync.as_ref().is_some_and(|sync| sync.dry_run);
        if !ended && (about.wanted || tried || !about.full) {
            return wait(&format!("a sync of {} by {by} is under way", about.words));
        }
        let exactly = self.sync.is_some_and(|sync| {
            let result = state.and_then(|state| state.sync_result.as_ref());
            result.is_some_and(|result| result.revision == sync.revision.as_str())
        });
        // It replaced ours, and says nothing about ours: ours is requested again, which changes nothing.
        if tried || exactly {
            return Next::StartSync;
        }
        match state {
            Some(state) if about.wanted && state.phase == Phase::Succeeded => self.succeeded(state),
            Some(state) if about.wanted => failed(FailureReason::SyncFailed, &words::sync_failed(state)),
            _ => failed(
                FailureReason::Superseded,
                &format!("{by} synced {} {}: {DEPLOY_AGAIN}", about.words, about.instead()),
            ),
        }
    }

    /// An application that Argo CD syncs by itself once it has seen the commit.
    fn automated(&self, sync: &Sync) -> Next {
        let compared = &self.live.status.sync;
        let sees = self.compares_with_ours();
        let state = self.state();
        if let Some(pending) = self.pending() {
            let running = state.filter(|state| !state.phase.ended());
            let about = self.is_about(pending, running);
            return match running {
                Some(state) if about.wanted => self.under_way(sync, state, false),
                Some(state) if state.message.contains(BLOCKED) => self.held_back(sync, false),
                _ => {
                    let by = words::initiator(pending);
                    wait(&format!("a sync of {} by {by} is under way", about.words))
                }
            };
        }
        if let Some(state) = state.filter(|state| state.phase.ended())
            && self.is_about(&state.operation, Some(state)).wanted
            && !state.operation.sync.as_ref().is_some_and(|sync| sync.dry_run)
        {
            return match state.phase {
                Phase::Succeeded => self.succeeded(state),
                // Auto-sync tries a commit once.
                _ => failed(FailureReason::SyncFailed, &words::sync_failed(state)),
            };
        }
        if !sees {
            return self.elsewhere(sync);
        }
        if let Some(end) = self.condition("SyncError") {
            return end;
        }
        if compared.status == "OutOfSync" {
            let closed = self.closed(sync, false);
            let about = words::out_of_sync(self.live);
            return closed.unwrap_or_else(|| {
                self.refresh(format!(
                    "Argo CD sees the commit and has not begun to sync it: {about}"
                ))
            });
        }
        // The commit does not change anything in this application.
        self.settled(None)
    }

    /// Argo CD compares with a commit other than ours: not yet ours, or not any more, or never.
    fn elsewhere(&self, sync: &Sync) -> Next {
        let status = &self.live.status;
        let seen = &status.sync.revision;
        let since = self.expected.since;
        let reconciled = at(status.reconciled_at.as_ref());
        let looked = self
            .situation
            .asked
            .zip(reconciled)
            .is_some_and(|(asked, reconciled)| reconciled >= asked.max(since));
        if let Some(end) = self.errors() {
            return end;
        }
        let ours = sync.revision.short();
        let after = self.state().filter(|state| {
            let started = at(state.started_at.as_ref());
            let finished = at(state.finished_at.as_ref());
            let synced = state
                .sync_result
                .as_ref()
                .is_some_and(|result| result.revision == *seen);
            state.phase.ended()
                && synced
                && started.is_some_and(|time| time >= since)
                && reconciled > finished
        });
        if let Some(state) = after.filter(|_| looked && !self.looking()) {
            let by = words::initiator(&state.operation);
            let message = format!(
                "{by} synced {} and not {ours}; whether it contains {ours} cannot be known here. It follows {}: \
                 {DEPLOY_AGAIN}. Without auto-sync, exactly the commit of each deployment is synced",
                words::short(seen),
                words::sources(self.live)
            );
            return failed(FailureReason::Superseded, &message);
        }
        let sees = if seen.is_empty() {
            "no commit yet".to_owned()
        } else {
            words::short(seen).to_owned()
        };
        self.refresh(format!(
            "Argo CD sees {sees} and not {ours}; it follows {}",
            words::sources(self.live)
        ))
    }

    /// The state after the operation, or without one since `expected.since`.
    fn settled(&self, state: Option<&OperationState>) -> Next {
        let status = &self.live.status;
        let floor = state
            .and_then(|state| at(state.finished_at.as_ref()))
            .unwrap_or_else(|| whole_second(self.expected.since));
        // Earlier health and comparison say nothing about now (argo-cd#4669).
        let Some(compared) = at(status.reconciled_at.as_ref()).filter(|time| *time >= floor) else {
            return self.refresh("Argo CD has not looked at the application since its sync".to_owned());
        };
        if let Some(end) = self.errors() {
            return end;
        }
        let sync = &status.sync;
        let at_ours = self.compares_with_ours();
        let revision = words::short(&sync.revision);
        match sync.status.as_str() {
            "Synced" if at_ours => {}
            // Our commit was synced, and nothing differs from the later one: for the application they are the same.
            "Synced" if compared > floor => {}
            "Synced" => return self.refresh(format!("Argo CD has compared with {revision} only")),
            // Exactly ours was synced. A difference from a commit that was not requested says nothing about it.
            "OutOfSync" if !at_ours && compared > floor && moved_on::synced_whole(self.sync, state) => {
                if moved_on::lacks_later_objects_alone(self.live, state) {
                    return self.images(floor).unwrap_or(Next::Complete);
                }
            }
            "OutOfSync" if self.is_enough(compared > floor) => {}
            "OutOfSync" => {
                let what = words::out_of_sync(self.live);
                return self.refresh(if at_ours {
                    format!("synced, but the cluster differs from git: {what}")
                } else {
                    format!("synced, but its branch has moved to {revision}, which differs: {what}")
                });
            }
            _ => return self.refresh("Argo CD does not know how the cluster compares with git".to_owned()),
        }
        self.health(Some((floor, compared)))
    }

    /// What keeps Argo CD from comparing with git at all.
    fn errors(&self) -> Option<Next> {
        self.condition("InvalidSpecError")
            .or_else(|| self.condition("ComparisonError"))
    }

    fn condition(&self, kind: &str) -> Option<Next> {
        let conditions = &self.live.status.conditions;
        let found = conditions.iter().find(|condition| condition.kind == kind)?;
        let message = format!("{kind}: {}", cut(&found.message));
        let since = at(found.last_transition_time.as_ref());
        let until = since.unwrap_or(self.expected.since).max(self.expected.since) + COMPARISON_PATIENCE;
        if self.expected.verify.fail_early && self.now >= until {
            let reason = if kind == "SyncError" {
                FailureReason::SyncFailed
            } else {
                FailureReason::ComparisonFailed
            };
            return Some(failed(reason, &message));
        }
        // The renderer caches its errors for a while; a hard refresh bypasses that.
        let hard = found.message.contains("(cached)");
        Some(match self.ask(hard, message) {
            Next::Wait { message, look_again } if self.expected.verify.fail_early => Next::Wait {
                message,
                look_again: Some(look_again.map_or(until, |time| time.min(until))),
            },
            next => next,
        })
    }

    fn looking(&self) -> bool {
        annotation(&self.live.metadata, REFRESH).is_some()
    }

    fn refresh(&self, message: String) -> Next {
        self.ask(false, message)
    }

    /// Requests a refresh from git, unless one is pending or was requested just now.
    fn ask(&self, hard: bool, message: String) -> Next {
        if self.looking() {
            return Next::Wait {
                message: format!("{message}; Argo CD has been asked to look"),
                look_again: None,
            };
        }
        match self.situation.asked.map(|asked| asked + REFRESH_EVERY) {
            Some(again) if self.now < again => Next::Wait {
                message,
                look_again: Some(again),
            },
            _ => Next::Refresh { hard, message },
        }
    }
}

/// Compares an operation's target with the expected one.
struct Revision<'a> {
    wanted: bool,
    /// For people.
    words: String,
    /// It is a commit, not a branch.
    full: bool,
    sync: Option<&'a Sync>,
}

impl Revision<'_> {
    fn instead(&self) -> String {
        self.sync
            .map(|sync| format!("in place of {}", sync.revision.short()))
            .unwrap_or_default()
    }
}

/// The cluster writes times in whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    let micros = time.as_micros();
    Timestamp::from_micros(micros - micros.rem_euclid(1_000_000))
}

fn wait(message: &str) -> Next {
    Next::Wait {
        message: message.to_owned(),
        look_again: None,
    }
}

fn failed(reason: FailureReason, message: &str) -> Next {
    Next::Failed(Failure {
        reason,
        message: message.to_owned(),
    })
}
