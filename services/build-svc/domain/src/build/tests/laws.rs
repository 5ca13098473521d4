//! What holds for any sequence of commands.

use proptest::prelude::*;
use slipway_testbed::{Origin, decider_laws};

use super::*;

/// Anything that a caller or an effect may say, in a state where this key may or may not be wanted.
fn any_command(key: impl Strategy<Value = EffectKey>) -> impl Strategy<Value = Command> {
    let digest = any::<bool>().prop_map(|other| {
        let digit = if other { "cd" } else { "ab" };
        format!("sha256:{}", digit.repeat(32)).parse::<Digest>().unwrap()
    });
    let phase = prop::sample::select(vec![
        Phase::Fetching,
        Phase::Building,
        Phase::Pushing,
        Phase::Tagging,
    ]);
    (key, digest, phase, 0..15, any::<bool>()).prop_map(|(key, digest, phase, which, flag)| match which {
        0 => Command::Request(request()),
        1 | 2 => Command::Begin { key },
        3 => Command::Fetched {
            key,
            authors: if flag {
                vec!["a@example.com".into()]
            } else {
                vec![]
            },
        },
        4 | 5 => Command::Advance { key, phase },
        6 => Command::Pushed { key, digest },
        7 => Command::Tagged {
            key,
            tags: vec![],
            kept: vec![],
        },
        8 => Command::Finished {
            key,
            digest,
            tags: vec![],
        },
        9 => Command::Fail {
            key,
            reason: reason(),
            log_tail: vec![],
        },
        10 | 11 => fault(key),
        12 => Command::Found {
            key,
            build: "bld-0".parse().unwrap(),
            digest,
            authors: vec!["a@example.com".into()],
        },
        13 if flag => Command::Cancel {
            reason: "enough".into(),
        },
        _ => Command::Wake,
    })
}

fn said(command: &Command) -> Origin {
    match command {
        Command::Request(_) | Command::Cancel { .. } | Command::Wake => Origin::Caller,
        Command::Begin { key } | Command::Fetched { key, .. } | Command::Advance { key, .. } => {
            Origin::Report(Some(key.clone()))
        }
        Command::Pushed { key, .. }
        | Command::Found { key, .. }
        | Command::Tagged { key, .. }
        | Command::Finished { key, .. }
        | Command::Fail { key, .. }
        | Command::Fault { key, .. } => Origin::Outcome(Some(key.clone())),
    }
}

#[test]
fn it_keeps_to_the_laws_of_deciders() {
    decider_laws::<Build, _>(&id(), said, |state, key| {
        let first = if state.request.is_none() { 20 } else { 1 };
        prop_oneof![
            first => Just(Command::Request(request())),
            12 => any_command(key),
        ]
    });
}

proptest! {
    #[test]
    fn whatever_comes_a_build_stays_sound(
        commands in prop::collection::vec((any_command((prop_oneof![Just(STEP_IMAGE), Just(STEP_TAGS)], 1_u32..4)
            .prop_map(|(step, attempt)| EffectKey::new(step, attempt))), 0_i64..120), 0..60)
    ) {
        let mut state = State::default();
        let mut now = 0;
        for (command, later) in commands {
            now += later;
            let before = state.clone();
            for event in Build::decide(&id(), &state, command, at(now)).unwrap_or_default() {
                Build::evolve(&mut state, &event, at(now));
            }
            // Attempts only grow, the digest never changes.
            prop_assert!(state.attempt >= before.attempt && state.attempt <= 3);
            prop_assert!(before.digest.is_none() || state.digest == before.digest);
            if state.request.is_some() {
                // Something is always in progress: an effect, a timer, or nothing because it is over.
                let busy = !effects(&state).is_empty() || Build::wake_at(&state).is_some();
                prop_assert_eq!(busy, !state.status.is_final());
                prop_assert!(state.status != Status::Succeeded || state.digest.is_some());
                prop_assert_eq!(state.ended_at.is_some(), state.status.is_final());
            }
        }
    }
}
