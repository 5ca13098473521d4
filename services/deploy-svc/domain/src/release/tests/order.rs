//! The order of steps for every shape of environment, and what is reverted when one of them fails.

use Ends::*;
use ReleaseStatus as Status;
use pretty_assertions::assert_eq;

use super::{play::*, *};

type Row<'a> = (&'a [(&'a str, Ends)], &'a str, ReleaseStatus, &'a str);

fn table(keys: &[&str], rows: &[Row<'_>]) {
    let catalog = environment(keys);
    for (but, wanted, status, code) in rows {
        let run = play(&catalog, but);
        assert_eq!(
            (steps(&run).as_str(), run.ended()),
            (*wanted, (*status, *code)),
            "{keys:?} {but:?}: {}",
            message(&run)
        );
    }
}

#[test]
fn a_gate_before_the_commit() {
    table(
        &[GIT],
        &[
            (&[], "lane gate change deploy", Status::Succeeded, ""),
            (&[("gate", Failed)], "lane gate", Status::Failed, "BROKEN"),
            (&[("gate", Lost)], "lane gate", Status::Superseded, "SUPERSEDED"),
            (
                &[("gate", Late)],
                "lane gate",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("change", Failed)],
                "lane gate change",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Errored)],
                "lane gate change",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("change", Cancelled)],
                "lane gate change",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane gate change revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", Failed)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Errored)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "UNKNOWN",
            ),
            (
                &[("deploy", Late)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Silent)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", CancelledTooLate)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", NoOp), ("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Unnamed), ("deploy", Failed)],
                "lane gate change deploy revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Unnamed), ("deploy", Late)],
                "lane gate change deploy revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Failed), ("revert", Failed)],
                "lane gate change deploy revert",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed), ("redeploy", Failed)],
                "lane gate change deploy revert redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed), ("redeploy", Silent)],
                "lane gate change deploy revert redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
        ],
    );
}

#[test]
fn a_gate_before_the_sync() {
    table(
        &[GIT, "gate: before_sync"],
        &[
            (&[], "lane change gate deploy", Status::Succeeded, ""),
            (&[("change", Failed)], "lane change", Status::Failed, "BROKEN"),
            (
                &[("change", Lost)],
                "lane change",
                Status::Superseded,
                "SUPERSEDED",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane change revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            // Nothing was synced: git is reverted, and the answer is final.
            (
                &[("gate", Failed)],
                "lane change gate revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("gate", Cancelled)],
                "lane change gate revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("gate", Late)],
                "lane change gate revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("gate", Silent)],
                "lane change gate revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("gate", CancelledTooLate)],
                "lane change gate revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", NoOp), ("gate", Failed)],
                "lane change gate",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("gate", Failed), ("revert", Failed)],
                "lane change gate revert",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed)],
                "lane change gate deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Cancelled)],
                "lane change gate deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
    let nobody = play(&environment(&[GIT, "gate: before_sync", "policy: none"]), &[]);
    assert_eq!(steps(&nobody), "lane change gate deploy");
    let gate = nobody
        .state
        .steps
        .iter()
        .find(|step| step.kind == StepKind::Gate)
        .unwrap();
    assert_eq!(gate.result, "policy none requires no approval");
}

#[test]
fn jobs_before_anything_else_is_changed() {
    table(
        &[GIT, JOBS],
        &[
            (&[], "lane gate prepare change deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane gate prepare",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("prepare", Errored)],
                "lane gate prepare",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("prepare", Lost)],
                "lane gate prepare",
                Status::Superseded,
                "SUPERSEDED",
            ),
            (
                &[("prepare", Cancelled)],
                "lane gate prepare",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", CancelledTooLate)],
                "lane gate prepare",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", Late)],
                "lane gate prepare",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Failed)],
                "lane gate prepare change deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
        ],
    );
    table(
        &[GIT, JOBS, "gate: before_sync"],
        &[
            (&[], "lane change gate prepare deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane change gate prepare revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("prepare", Cancelled)],
                "lane change gate prepare revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", CancelledTooLate)],
                "lane change gate prepare revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", Late)],
                "lane change gate prepare revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
        ],
    );
}

#[test]
fn without_git_the_rollout_is_undone_in_the_cluster() {
    table(
        &[],
        &[
            (&[], "lane gate deploy", Status::Succeeded, ""),
            (&[("gate", Failed)], "lane gate", Status::Failed, "BROKEN"),
            (
                &[("deploy", Failed)],
                "lane gate deploy redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Late)],
                "lane gate deploy redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate deploy redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", CancelledTooLate)],
                "lane gate deploy redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", Lost)],
                "lane gate deploy",
                Status::Superseded,
                "SUPERSEDED",
            ),
            // Nothing was there before, or nothing was changed.
            (
                &[("deploy", Failed), ("redeploy", Skipped)],
                "lane gate deploy redeploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("deploy", Errored), ("redeploy", Skipped)],
                "lane gate deploy redeploy",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("deploy", Failed), ("redeploy", Failed)],
                "lane gate deploy redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
        ],
    );
    table(
        &[JOBS],
        &[
            (&[], "lane gate prepare deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane gate prepare",
                Status::Failed,
                "BROKEN",
            ),
        ],
    );
}

#[test]
fn a_version_that_is_to_stay_stays_unless_it_is_cancelled() {
    table(
        &[GIT, "on_failure: stay"],
        &[
            (
                &[("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("deploy", Late)],
                "lane gate change deploy",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
    table(
        &[GIT, "on_failure: stay", "gate: before_sync"],
        &[(
            &[("gate", Failed)],
            "lane change gate revert",
            Status::Failed,
            "BROKEN",
        )],
    );
    table(
        &["on_failure: stay"],
        &[(
            &[("deploy", Failed)],
            "lane gate deploy",
            Status::Failed,
            "BROKEN",
        )],
    );
}

#[test]
fn a_moving_tag_is_not_moved_back() {
    table(
        &[MARKER, "action: restart"],
        &[
            (&[], "lane gate change deploy", Status::Succeeded, ""),
            (
                &[("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane gate change revert",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
}

/// The marker commit comes first, then people are asked; what is not restarted is recorded by a second marker.
#[test]
fn a_marker_before_the_gate_is_followed_by_one_that_says_no() {
    table(
        &[MARKER, "action: restart", "gate: before_sync", JOBS],
        &[
            (&[], "lane change gate prepare deploy", Status::Succeeded, ""),
            (
                &[("gate", Failed)],
                "lane change gate revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("gate", Cancelled)],
                "lane change gate revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", Failed)],
                "lane change gate prepare revert",
                Status::Failed,
                "BROKEN",
            ),
            // The tag was restarted: what runs is not put back, and git says when it was.
            (
                &[("deploy", Failed)],
                "lane change gate prepare deploy",
                Status::Failed,
                "BROKEN",
            ),
            // Only the record is missing.
            (
                &[("gate", Failed), ("revert", Errored)],
                "lane change gate revert",
                Status::Failed,
                "BROKEN",
            ),
        ],
    );
}

#[test]
fn a_restart_that_is_refused_before_it_is_ordered_is_recorded_too() {
    let catalog = environment(&[MARKER, "action: restart", "gate: before_sync"]);
    let mut run = Run::by(&catalog);
    for name in ["build", "dev/lane", "dev/change", "dev/gate"] {
        play_step(&mut run, name, Well);
    }
    let moved = Reason::new("TAG_MOVED", "latest names another image");
    run.tell(ReleaseCommand::Observed {
        key: run.key(),
        observation: Observation::Failed(moved),
    });
    assert_eq!(run.active(), "dev/revert");
    play_step(&mut run, "dev/revert", Failed);
    assert_eq!(run.state.status, Status::Failed);
    assert_eq!(
        message(&run),
        "latest names another image. Nothing was restarted, but git does not say so: the second marker commit failed: BROKEN happened"
    );
}
