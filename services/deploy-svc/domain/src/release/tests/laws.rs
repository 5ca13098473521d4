//! The laws of every decider, checked for releases.

use pretty_assertions::{assert_eq, assert_ne};
use slipway_testbed::{Origin, decider_laws};

use super::{play::*, *};

fn said(command: &ReleaseCommand) -> Origin {
    match command {
        ReleaseCommand::Observed { key, .. } if key.step.ends_with(":observe") => {
            Origin::Report(Some(key.clone()))
        }
        ReleaseCommand::Recorded { key, .. } => Origin::Report(Some(key.clone())),
        ReleaseCommand::Started { key, .. }
        | ReleaseCommand::Observed { key, .. }
        | ReleaseCommand::Stumbled { key, .. }
        | ReleaseCommand::GiveUp { key } => Origin::Outcome(Some(key.clone())),
        ReleaseCommand::Request(_)
        | ReleaseCommand::LaneGranted { .. }
        | ReleaseCommand::Supersede { .. }
        | ReleaseCommand::Cancel { .. }
        | ReleaseCommand::Wake => Origin::Caller,
    }
}

/// What the backend of a step may report about it.
fn observation(step: &str) -> impl Strategy<Value = Observation> + use<> {
    let name = step.split(':').next().unwrap_or_default().to_owned();
    let reason = || Reason::new("BROKEN", "it is broken");
    let another = || Reason::new("WRONG_IMAGE", "it is another one");
    let waiting = (any::<bool>(), any::<bool>()).prop_map(|(human, checks)| {
        Observation::Pending(Waiting {
            kind: if human {
                WaitingKind::Human
            } else {
                WaitingKind::Machine
            },
            message: if checks { "checks" } else { "pods" }.to_owned(),
            retry: None,
            until: None,
        })
    });
    let ends = prop::sample::select(vec![Ends::Well, Ends::NoOp, Ends::Unnamed]);
    let succeeded = ends.prop_map(move |ends| Observation::Succeeded {
        result: "well".to_owned(),
        facts: facts(&name, ends),
    });
    let ended = prop::sample::select(vec![
        Observation::Skipped(reason()),
        Observation::Failed(reason()),
        Observation::Failed(another()),
        Observation::Errored(reason()),
        Observation::Cancelled(reason()),
    ]);
    prop_oneof![4 => waiting, 8 => succeeded, 1 => ended]
}

/// What an effect or poll under this key may report.
fn word(key: &EffectKey) -> BoxedStrategy<ReleaseCommand> {
    let stumbled = ReleaseCommand::Stumbled {
        key: key.clone(),
        reason: Reason::new("UNAVAILABLE", "connection refused"),
    };
    if key.step.ends_with(":give-up") {
        return Just(ReleaseCommand::GiveUp { key: key.clone() }).boxed();
    }
    let (started, observed) = (key.clone(), key.clone());
    let recorded = prop::sample::select(vec![Before::Absent, first::present(&[]), first::present(&["a"])]);
    let of = key.clone();
    let recorded = recorded.prop_map(move |before| ReleaseCommand::Recorded {
        key: of.clone(),
        before,
    });
    let reference: Id = format!("ref-{}", key.attempt).parse().unwrap();
    prop_oneof![
        u32::from(!key.step.ends_with(":stop")) * 4 => observation(&key.step).prop_map(move |observation| ReleaseCommand::Started {
            key: started.clone(),
            reference: reference.clone(),
            observation,
        }),
        4 => observation(&key.step).prop_map(move |observation| ReleaseCommand::Observed {
            key: observed.clone(),
            observation,
        }),
        1 => Just(stumbled),
        2 => recorded,
    ]
    .boxed()
}

#[test]
fn a_release_keeps_to_the_laws_of_deciders() {
    let id: Id = "rel-1".parse().unwrap();
    let catalogs = [
        CATALOG.to_owned(),
        environment(&[GIT]),
        environment(&[GIT, "gate: before_sync"]),
        environment(&[MARKER, "action: restart", JOBS, "on_failure: stay"]),
    ];
    let requests: Vec<Request> = catalogs.iter().map(|catalog| request_by(catalog)).collect();
    decider_laws::<Release, _>(&id, said, |state, key| {
        if state.plan.is_none() {
            let requests = prop::sample::select(requests.clone());
            return requests
                .prop_map(|request| ReleaseCommand::Request(Box::new(request)))
                .boxed();
        }
        let lane = state.active_step().filter(|step| step.kind == StepKind::Lane);
        if let Some(environment) = lane.and_then(|step| step.environment) {
            let granted = ReleaseCommand::LaneGranted {
                environment,
                epoch: 7,
            };
            return prop_oneof![4 => Just(granted), 1 => key.prop_flat_map(|key| word(&key))].boxed();
        }
        let stop = ReleaseCommand::Cancel {
            by: Actor::system("test"),
            reason: "enough".to_owned(),
        };
        let supersede = ReleaseCommand::Supersede {
            by: "rel-9".parse().unwrap(),
        };
        prop_oneof![
            20 => key.prop_flat_map(|key| word(&key)),
            1 => Just(stop),
            1 => Just(supersede),
        ]
        .boxed()
    });
}

#[test]
fn a_turn_that_nobody_stands_for_is_refused() {
    let run = Run::requested();
    let granted = ReleaseCommand::LaneGranted {
        environment: 0,
        epoch: 1,
    };
    let refused = Release::decide(&run.id, &run.state, granted, run.now);
    assert!(
        matches!(refused, Err(ReleaseRefusal::Impossible(_))),
        "{refused:?}"
    );
}

#[test]
fn the_word_of_an_older_try_changes_nothing() {
    let mut run = Run::requested();
    let old = run.key();
    let reason = Reason::new("UNAVAILABLE", "connection refused");
    run.tell(ReleaseCommand::Stumbled {
        key: old.clone(),
        reason,
    });
    run.now = Release::wake_at(&run.state).unwrap();
    run.tell(ReleaseCommand::Wake);
    assert_ne!(run.key(), old);
    let observation = Observation::Failed(Reason::new("LATE", "from before"));
    assert_eq!(
        run.tell(ReleaseCommand::Observed {
            key: old,
            observation
        }),
        vec![]
    );
}
