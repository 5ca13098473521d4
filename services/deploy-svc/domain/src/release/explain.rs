//! What an unsuccessful release tells people: the state that it leaves, and what they can do.

use slipway_verdict::before::Before;

use super::{EnvironmentProgress, Reason, ReleaseState, StepKind, StepStatus, ended::Ended};
use crate::{catalog::OnFailure, plan::PlannedEnvironment};

/// The reason with a further sentence.
pub(super) fn with(reason: Reason, add: Option<String>) -> Reason {
    match add {
        Some(add) => Reason::new(
            reason.code,
            format!("{}. {add}", reason.message.trim_end_matches('.')),
        ),
        None => reason,
    }
}

/// `on_failure: stay`.
pub(super) fn stays(state: &ReleaseState, planned: &PlannedEnvironment) -> String {
    let index = state.index_of(planned);
    let progress = index.and_then(|index| state.environments.get(index));
    let change = progress.and_then(|progress| progress.change.as_ref());
    let by_git = change
        .filter(|change| !change.no_op)
        .map(|change| format!("revert change {} of {}, or ", change.change, repository(planned)));
    format!(
        "It stays in {} for people to look at ({}). To put it back, {}{}release a good commit",
        planned.name,
        name_of(planned.on_failure),
        by_git.unwrap_or_default(),
        deployment(state, index)
            .map(|deployment| format!("roll back deployment {deployment}, or "))
            .unwrap_or_default(),
    )
}

const fn name_of(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::RollBack => "on_failure: roll_back",
        OnFailure::Stay => "on_failure: stay",
    }
}

/// A restart used what the tag points to; nothing in git says what it pointed to before.
pub(super) fn restarted(planned: &PlannedEnvironment) -> String {
    format!(
        "{} follows a moving tag, so what ran before cannot be put back from here: move the tag to a good image and restart it, or release a good commit",
        planned.target
    )
}

/// That git lacks the second marker, if it does.
pub(super) fn not_recorded(ended: Ended<'_>) -> Option<String> {
    let good = matches!(ended.status, StepStatus::Succeeded | StepStatus::Skipped);
    let because = ended.reason.map_or("no reason given", |reason| &reason.message);
    (!good).then(|| {
        format!("Nothing was restarted, but git does not say so: the second marker commit failed: {because}")
    })
}

/// What was reverted, and what was not, when nothing was deployed after it.
pub(super) fn not_redeployed(state: &ReleaseState, ended: Ended<'_>) -> Option<String> {
    if ended.kind == StepKind::Redeploy {
        return ended.reason.map(|reason| reason.message.clone());
    }
    let planned = state.planned(ended.environment)?;
    let progress = state.environments.get(ended.environment?)?;
    if !progress.deployed {
        return None;
    }
    let (repository, target) = (repository(planned), &planned.target);
    Some(match progress.before {
        Some(Before::Absent) => format!(
            "{repository} is as it was before. {target} did not exist before this release, so there is nothing to put back, and the new version is still there: delete it, or release a good commit"
        ),
        _ => format!(
            "{repository} is as it was before, but it did not name the image by digest, and what ran before is not known, so what {target} runs now was not verified: look at it"
        ),
    })
}

/// What is put back was named by tag: which image that is, and where it stands now.
pub(super) fn redeployed_by_tag(state: &ReleaseState, ended: Ended<'_>) -> Option<String> {
    let planned = state.planned(ended.environment)?;
    let progress = state.environments.get(ended.environment?)?;
    let restored = state.restored(ended.environment)?;
    let (image, repository) = (&restored.image, repository(planned));
    Some(match (&progress.pin, restored.digests.as_slice()) {
        (Some(pin), [digest, ..]) => format!(
            "What ran before is put back. Its tag leads to another image by now, so {repository} names it by its digest: {} (commit {})",
            image.name.at(digest),
            pin.commit.short()
        ),
        (_, []) => format!(
            "{repository} names what ran before, {image}, by tag, and no pod told its digest, so that is not verified"
        ),
        (None, _) => format!("What ran before, {image}, is put back, with the digest that its pods had"),
    })
}

/// The end that needs a person most: the first failure, the second one, the state that this leaves, and what to do.
pub(super) fn rollback_failed(state: &ReleaseState, ended: Ended<'_>) -> Reason {
    let failure = state.failure.as_ref();
    let first = failure.map_or("it was stopped", |failure| &failure.reason.message);
    let then = ended.reason.map_or("no reason given", |reason| &reason.message);
    let message = format!(
        "{}; then putting back the previous image failed: {}. {}",
        first.trim_end_matches('.'),
        then.trim_end_matches('.'),
        remedy(state, ended)
            .unwrap_or_else(|| "Look at the environment, then release a good commit".to_owned())
    );
    Reason::new("ROLLBACK_FAILED", message)
}

fn remedy(state: &ReleaseState, ended: Ended<'_>) -> Option<String> {
    let index = ended.environment?;
    let planned = state.planned(ended.environment)?;
    let progress = state.environments.get(index)?;
    let (environment, target) = (&planned.name, &planned.target);
    Some(match (ended.kind, progress) {
        (
            StepKind::Revert,
            EnvironmentProgress {
                change: Some(change), ..
            },
        ) => format!(
            "{} still asks for the new image in {environment} (commit {}): revert change {} by hand (`slipway gitops revert {}`), see what {target} runs, then release a good commit",
            repository(planned),
            change.commit.short(),
            change.change,
            change.change,
        ),
        (
            _,
            EnvironmentProgress {
                revert: Some(revert), ..
            },
        ) => format!(
            "{} asks for the previous image again (commit {}), but {target} was not seen to run it: {}, and have that commit applied or release a good one",
            repository(planned),
            revert.commit.short(),
            look(state, index),
        ),
        _ if planned.gitops.is_some() => format!(
            "{target} may still run the new image: {}, make git and the cluster good by hand, or release a good commit",
            look(state, index),
        ),
        // Set in the cluster. The undo may have been written without becoming ready, so that the previous revision is
        // the failed one: a bare `rollout undo` would restore that again.
        _ => {
            let object = format!("{}/{}", target.kind.as_str().to_lowercase(), target.name);
            let namespace = &target.namespace;
            format!(
                "{target} may run the new image, the previous one, or neither: {}; to go back by hand, take the revision of a good image from `kubectl -n {namespace} rollout history {object}` and name it, `kubectl -n {namespace} rollout undo {object} --to-revision=N` (without --to-revision it may bring the failed image again); or release a good commit",
                look(state, index),
            )
        }
    })
}

/// Where the evidence can be seen.
fn look(state: &ReleaseState, environment: usize) -> String {
    latest(state, Some(environment), &[StepKind::Redeploy, StepKind::Deploy]).map_or_else(
        || "look at it".to_owned(),
        |deployment| format!("look at it (`slipway deployment get {deployment}`)"),
    )
}

fn repository(planned: &PlannedEnvironment) -> String {
    planned.gitops.as_ref().map_or_else(
        || "git".to_owned(),
        |gitops| format!("repository {}", gitops.repository),
    )
}

/// The deployment of an environment.
fn deployment(state: &ReleaseState, environment: Option<usize>) -> Option<&slipway_model::Id> {
    latest(state, environment, &[StepKind::Deploy])
}

/// The subject of the last step of one of these kinds, if it got as far as having one.
fn latest<'a>(
    state: &'a ReleaseState,
    environment: Option<usize>,
    kinds: &[StepKind],
) -> Option<&'a slipway_model::Id> {
    let steps = state.steps.iter().rev();
    steps
        .filter(|step| step.environment == environment && kinds.contains(&step.kind))
        .find_map(|step| step.reference.as_ref())
}
