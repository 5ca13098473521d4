//! How long a deployment may take when its rollout has steps.

use std::time::Duration;

use deploy_domain::deployment::{
    DeploymentCommand as Command, DeploymentEvent as Event, DeploymentRequest, DeploymentStep as Step,
};
use pretty_assertions::assert_eq;
use slipway_verdict::steps::Steps;

use crate::life::{Life, START, request};

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn known(life: &Life, time: Duration, people: bool) -> Command {
    Command::StepsKnown {
        key: life.key(),
        steps: Steps { time, people },
    }
}

fn with(timeout: Duration, follows_steps: bool) -> Life {
    Life::new(DeploymentRequest {
        timeout,
        follows_steps,
        ..request(false)
    })
}

#[test]
fn three_pauses_of_ten_minutes_fit_into_the_default() {
    let mut life = with(minutes(10), true);
    assert_eq!(life.state.deadline, Some(START + minutes(10)));
    let events = life.tell(known(&life, minutes(30), false));
    assert_eq!(
        events,
        [Event::DeadlineSet {
            deadline: START + Duration::from_secs(60 * 47 + 30),
            basis: "it may take 47m 30s, since its rollout has 30m of pauses and analyses; timeout.deploy in the \
                    catalog sets another time"
                .to_owned()
        }]
    );
    assert_eq!(life.tell(known(&life, minutes(30), false)), [], "once is enough");
    let mut life = life.applied();
    life.now = START + minutes(40);
    life.tell(Command::Progress {
        key: life.key(),
        message: "paused at step 5 of 6".to_owned(),
        human: false,
    });
    assert_eq!(life.state.step, Step::Rollout);
    life.wake();
    assert_eq!(life.now, START + Duration::from_secs(60 * 47 + 30));
    let failing = life.state.failing.as_ref().unwrap();
    assert_eq!(
        failing.message,
        "not verified within 2850 s: paused at step 5 of 6"
    );
}

#[test]
fn a_pause_for_a_person_is_given_a_day() {
    let mut life = with(minutes(10), true);
    life.tell(known(&life, Duration::ZERO, true));
    assert_eq!(life.state.deadline, Some(START + minutes(10 + 24 * 60)));
}

#[test]
fn a_written_time_stays_and_is_warned_of_where_it_is_too_short() {
    let mut life = with(minutes(20), false);
    life.tell(known(&life, minutes(30), false));
    assert_eq!(life.state.deadline, Some(START + minutes(20)));
    assert_eq!(
        life.state.deadline_basis,
        "timeout.deploy gives it 20m, and its rollout has 30m of pauses and analyses: it will be put back unless \
         somebody promotes it before; write at least 47m 30s in the catalog, or leave timeout.deploy out"
    );
    let mut life = with(minutes(31), false);
    assert_eq!(life.tell(known(&life, minutes(30), false)), []);
}

#[test]
fn what_has_no_steps_or_comes_late_changes_nothing() {
    let mut life = with(minutes(10), true);
    assert_eq!(life.tell(known(&life, Duration::ZERO, false)), []);
    let mut life = life.applied();
    assert_eq!(life.tell(known(&life, minutes(30), false)), []);
    assert_eq!(life.state.deadline, Some(START + minutes(10)));
}
