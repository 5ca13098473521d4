//! Turns and their order, as tables and over random sequences.

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_testbed::{Origin, decider_laws};

use super::*;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn run(state: &mut LaneState, command: LaneCommand) -> Vec<LaneEvent> {
    let now = Timestamp::from_micros(0);
    let events = Lane::decide(&id("lane"), state, command, now).unwrap();
    for event in &events {
        Lane::evolve(state, event, now);
    }
    events
}

/// Enters without saying when it was started, as before that was recorded.
fn enter(state: &mut LaneState, holder: &str, yields: bool) -> Vec<LaneEvent> {
    run(
        state,
        LaneCommand::Enter {
            holder: id(holder),
            service: name("shop"),
            yields,
            started: None,
        },
    )
}

fn enter_at(state: &mut LaneState, holder: &str, yields: bool, started: i64) -> Vec<LaneEvent> {
    enter_of(state, "shop", holder, yields, started)
}

/// One of several services that share the lane.
fn enter_of(
    state: &mut LaneState,
    service: &str,
    holder: &str,
    yields: bool,
    started: i64,
) -> Vec<LaneEvent> {
    run(
        state,
        LaneCommand::Enter {
            holder: id(holder),
            service: name(service),
            yields,
            started: Some(Timestamp::from_micros(started)),
        },
    )
}

fn change(state: &mut LaneState, holder: &str) {
    run(state, LaneCommand::Change { holder: id(holder) });
}

fn leave(state: &mut LaneState, holder: &str, through: bool) -> Vec<LaneEvent> {
    run(
        state,
        LaneCommand::Leave {
            holder: id(holder),
            through,
        },
    )
}

fn line(state: &LaneState) -> Vec<&str> {
    state
        .waiting
        .iter()
        .map(|ticket| ticket.holder.as_str())
        .collect()
}

fn superseded(holder: &str, by: &str) -> LaneEvent {
    LaneEvent::Superseded {
        holder: id(holder),
        by: id(by),
    }
}

#[test]
fn a_free_lane_is_granted_at_once_with_a_new_epoch() {
    let mut lane = LaneState::default();
    enter(&mut lane, "a", true);
    assert_eq!(lane.holder.as_ref().unwrap().epoch, 1);
    assert_eq!(
        enter(&mut lane, "a", true),
        vec![],
        "entering twice changes nothing"
    );
    leave(&mut lane, "a", true);
    enter(&mut lane, "b", true);
    assert_eq!(lane.holder.as_ref().unwrap().epoch, 2);
}

#[test]
fn a_newer_ticket_supersedes_a_holder_that_changed_nothing() {
    let mut lane = LaneState::default();
    enter(&mut lane, "a", true);
    let events = enter(&mut lane, "b", true);
    assert!(events.contains(&LaneEvent::Superseded {
        holder: id("a"),
        by: id("b")
    }));
    assert!(lane.holds(&id("b")));
    assert!(
        Lane::decide(
            &id("lane"),
            &lane,
            LaneCommand::Change { holder: id("a") },
            Timestamp::from_micros(0)
        )
        .is_err()
    );
}

#[test]
fn a_holder_that_began_to_change_runs_to_its_end_and_the_last_comer_is_next() {
    let mut lane = LaneState::default();
    enter(&mut lane, "a", true);
    run(&mut lane, LaneCommand::Change { holder: id("a") });
    enter(&mut lane, "b", true);
    enter(&mut lane, "c", true);
    assert!(lane.holds(&id("a")));
    assert_eq!(
        lane.waiting.iter().map(|t| t.holder.as_str()).collect::<Vec<_>>(),
        ["c"],
        "c superseded b"
    );
    leave(&mut lane, "a", true);
    assert!(lane.holds(&id("c")));
}

#[test]
fn those_that_wait_are_never_superseded() {
    let mut lane = LaneState::default();
    enter(&mut lane, "a", false);
    enter(&mut lane, "b", false);
    enter(&mut lane, "c", true);
    assert!(lane.holds(&id("a")));
    leave(&mut lane, "a", true);
    assert!(lane.holds(&id("b")));
    leave(&mut lane, "b", true);
    assert!(lane.holds(&id("c")));
}

#[test]
fn one_that_was_started_first_and_comes_last_is_superseded_by_a_newer_one_that_is_there() {
    for changed in [false, true] {
        let mut lane = LaneState::default();
        enter_at(&mut lane, "newer", true, 2);
        if changed {
            change(&mut lane, "newer");
        }
        let events = enter_at(&mut lane, "older", true, 1);
        assert!(events.contains(&superseded("older", "newer")), "{events:?}");
        assert!(lane.holds(&id("newer")), "the newer one goes on");
        assert_eq!(line(&lane), [""; 0]);
    }
}

#[test]
fn one_that_was_started_first_never_takes_back_what_a_newer_one_brought() {
    for yields in [true, false] {
        let mut lane = LaneState::default();
        enter_at(&mut lane, "newer", true, 2);
        change(&mut lane, "newer");
        leave(&mut lane, "newer", true);
        let events = enter_at(&mut lane, "older", yields, 1);
        assert!(events.contains(&superseded("older", "newer")), "{events:?}");
        assert_eq!(lane.holder, None);
        enter_at(&mut lane, "newest", yields, 3);
        assert!(
            lane.holds(&id("newest")),
            "a holder of an old commit is a new holder"
        );
    }
}

#[test]
fn a_newer_one_that_did_not_get_through_keeps_nobody_out() {
    let mut lane = LaneState::default();
    enter_at(&mut lane, "newer", true, 2);
    change(&mut lane, "newer");
    leave(&mut lane, "newer", false);
    enter_at(&mut lane, "older", true, 1);
    assert!(lane.holds(&id("older")), "the newer one was put back");
}

#[test]
fn one_that_waits_for_its_turn_stands_before_those_that_are_newer_and_goes_when_one_got_through() {
    let setting = || {
        let mut lane = LaneState::default();
        enter_at(&mut lane, "b", false, 2);
        change(&mut lane, "b");
        enter_at(&mut lane, "d", false, 4);
        enter_at(&mut lane, "c", false, 3);
        enter_at(&mut lane, "a", false, 1);
        assert_eq!(line(&lane), ["a", "c", "d"]);
        lane
    };
    let mut lane = setting();
    leave(&mut lane, "b", false);
    assert!(lane.holds(&id("a")), "b was put back, so a is next");

    let mut lane = setting();
    let events = leave(&mut lane, "b", true);
    assert!(events.contains(&superseded("a", "b")), "{events:?}");
    assert!(lane.holds(&id("c")));
    assert_eq!(line(&lane), ["d"]);
}

#[test]
fn a_newer_one_supersedes_only_those_that_are_older_than_itself() {
    let mut lane = LaneState::default();
    enter_at(&mut lane, "a", true, 1);
    change(&mut lane, "a");
    enter_at(&mut lane, "d", true, 4);
    let events = enter_at(&mut lane, "c", false, 3);
    assert!(!events.contains(&superseded("d", "c")), "{events:?}");
    assert_eq!(line(&lane), ["c", "d"], "c waits, and before d");
    assert_eq!(
        lane.newer_than(None, Some(Timestamp::from_micros(2))),
        Some(&id("d"))
    );
    assert_eq!(lane.newer_than(None, Some(Timestamp::from_micros(4))), None);
    assert_eq!(lane.newer_than(None, None), None);
}

#[test]
fn who_leaves_the_line_has_brought_nothing() {
    let mut lane = LaneState::default();
    enter_at(&mut lane, "a", false, 1);
    enter_at(&mut lane, "b", false, 2);
    leave(&mut lane, "b", true);
    assert_eq!(lane.through, []);
}

#[test]
fn services_that_share_a_lane_take_turns_and_never_supersede_each_other() {
    // A neighbour that is newer waits, even for a holder that has changed nothing.
    let mut lane = LaneState::default();
    enter_of(&mut lane, "payment", "pay-1", true, 1);
    let events = enter_of(&mut lane, "campaign", "camp-1", true, 2);
    assert!(!events.contains(&superseded("pay-1", "camp-1")), "{events:?}");
    assert!(lane.holds(&id("pay-1")));
    assert_eq!(line(&lane), ["camp-1"]);
    // One of its own service takes over from one that has changed nothing, wherever that is.
    let events = enter_of(&mut lane, "campaign", "camp-2", true, 3);
    assert!(events.contains(&superseded("camp-1", "camp-2")), "{events:?}");
    let events = enter_of(&mut lane, "payment", "pay-2", true, 4);
    assert!(events.contains(&superseded("pay-1", "pay-2")), "{events:?}");
    assert!(lane.holds(&id("camp-2")), "it was started first");
    // A neighbour that went through says nothing about what is older and of another service.
    change(&mut lane, "camp-2");
    enter_of(&mut lane, "frontend", "front-1", true, 0);
    leave(&mut lane, "camp-2", true);
    assert!(lane.holds(&id("front-1")));
    let events = enter_of(&mut lane, "campaign", "camp-0", true, 2);
    assert!(events.contains(&superseded("camp-0", "camp-2")), "{events:?}");
    leave(&mut lane, "front-1", true);
    assert!(lane.holds(&id("pay-2")));
}

#[test]
fn records_without_a_service_count_as_of_the_same() {
    let mut lane = LaneState::default();
    let now = Timestamp::from_micros(0);
    let entered = |holder: &str, ticket, started| LaneEvent::Entered {
        holder: id(holder),
        ticket,
        yields: true,
        started: Some(Timestamp::from_micros(started)),
        service: None,
    };
    Lane::evolve(&mut lane, &entered("old", 1, 2), now);
    let events = enter_of(&mut lane, "shop", "older", true, 1);
    assert!(events.contains(&superseded("older", "old")), "{events:?}");
    let events = enter_of(&mut lane, "shop", "newer", true, 3);
    assert!(events.contains(&superseded("old", "newer")), "{events:?}");
}

#[test]
fn it_keeps_to_the_laws_of_deciders() {
    let said = |_: &LaneCommand| Origin::Caller;
    decider_laws::<Lane, _>(&id("lane"), said, |_, _| any_command());
}

fn any_command() -> impl Strategy<Value = LaneCommand> {
    let started = proptest::option::of((0..6_i64).prop_map(Timestamp::from_micros));
    (0..4u8, 0..6u8, any::<bool>(), started).prop_map(|(what, who, flag, started)| {
        let service = name(if who % 2 == 0 { "shop" } else { "cart" });
        let holder = id(&format!("r{who}"));
        match what {
            0 | 1 => LaneCommand::Enter {
                holder,
                service,
                yields: flag,
                started,
            },
            2 => LaneCommand::Change { holder },
            _ => LaneCommand::Leave {
                holder,
                through: flag,
            },
        }
    })
}

/// Whether it releases the first of the two services.
fn first_service(holder: &Id) -> bool {
    holder.as_str().ends_with(['0', '2', '4'])
}

proptest! {
    /// One holder, growing epochs, none lost: every one that entered holds, waits, was superseded or left.
    #[test]
    fn one_at_a_time_and_nobody_forgotten(
        commands in proptest::collection::vec(any_command(), 0..80)
    ) {
        let mut lane = LaneState::default();
        let mut inside = std::collections::BTreeSet::new();
        let mut epoch = 0;
        for command in commands {
            // Only the holder may say that it changes something.
            let refused = matches!(&command, LaneCommand::Change { holder } if !lane.holds(holder));
            let events = match Lane::decide(&id("lane"), &lane, command, Timestamp::from_micros(0)) {
                Ok(events) => events,
                Err(refusal) => {
                    prop_assert!(refused, "{}", refusal);
                    continue;
                }
            };
            for event in &events {
                match event {
                    LaneEvent::Entered { holder, .. } => { inside.insert(holder.clone()); }
                    LaneEvent::Superseded { holder, by } => {
                        prop_assert_eq!(first_service(holder), first_service(by));
                        let changed = lane.holder.as_ref().is_some_and(|turn| turn.holder == *holder && turn.changed);
                        prop_assert!(!changed, "superseded after it changed something");
                        inside.remove(holder);
                    }
                    LaneEvent::Left { holder, .. } => { inside.remove(holder); }
                    LaneEvent::Granted { epoch: granted, holder, .. } => {
                        prop_assert!(*granted > epoch);
                        epoch = *granted;
                        let turn = lane.waiting.iter().find(|one| one.holder == *holder);
                        let started = turn.and_then(|turn| turn.started);
                        let service = turn.and_then(|turn| turn.service.as_ref());
                        let through = lane.last_through(service);
                        let late = through.is_some_and(|through| started.is_some_and(|at| at < through.started));
                        prop_assert!(!late, "what a newer one brought is taken back");
                    }
                    LaneEvent::Changed { .. } => {}
                }
                Lane::evolve(&mut lane, event, Timestamp::from_micros(0));
            }
            let mut known: std::collections::BTreeSet<Id> = lane.waiting.iter().map(|t| t.holder.clone()).collect();
            known.extend(lane.holder.iter().map(|turn| turn.holder.clone()));
            prop_assert_eq!(&known, &inside);
            prop_assert!(lane.holder.is_some() || lane.waiting.is_empty(), "a free lane with a line");
        }
    }
}
