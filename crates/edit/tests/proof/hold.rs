//! Runs a property over many generated cases, and shows that it is not vacuous.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};
use regex::Regex;

use super::images::{DIGEST, Want};

/// What became of one case.
pub(crate) enum Outcome {
    Done,
    /// And why.
    Refused(String),
    /// The text is not YAML, or contains no image.
    Nothing,
}

/// Runs a property, and makes sure that it is not vacuous: this many of a hundred cases are edited, not refused.
pub(crate) fn hold<S: Strategy>(
    name: &str,
    cases: u32,
    least: u32,
    strategy: &S,
    one: impl Fn(S::Value) -> Outcome,
) {
    let names = Regex::new(r#"["`(].*["`)]|[0-9]+"#).unwrap();
    let (done, nothing) = (Cell::new(0), Cell::new(0));
    let refused = RefCell::new(BTreeMap::<String, u32>::new());
    // The same cases each time; PROPTEST_CASES asks for a longer search among others.
    let (cases, rng_seed) = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (Config::default().cases, Config::default().rng_seed),
        None => (cases, RngSeed::Fixed(1)),
    };
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(strategy, |value| {
        match one(value) {
            Outcome::Done => done.set(done.get() + 1),
            Outcome::Refused(why) => {
                let kind = names.replace_all(&why, "…").into_owned();
                *refused.borrow_mut().entry(kind).or_default() += 1;
            }
            Outcome::Nothing => nothing.set(nothing.get() + 1),
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("{name}: {reason}\nfor {value:?}"),
        Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
    }
    let (done, nothing, refused) = (done.get(), nothing.get(), refused.into_inner());
    println!("{name}: {done} edited, {nothing} without an image, refused {refused:#?}");
    assert!(
        done * 100 >= least * (cases - nothing),
        "{name}: too few were edited"
    );
    assert!(nothing * 2 <= cases, "{name}: too few hold an image");
}

pub(crate) fn dice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

/// Tags of every kind, most of those that YAML takes for something else.
pub(crate) fn tags() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,16}",
        "v[0-9]\\.[0-9]{1,2}\\.[0-9]",
        "[0-9]{1,10}",
        "[0-9]{1,4}[eE][0-9]{1,3}",
        "[0-9]{1,3}\\.[0-9]{0,3}",
        "0[xob]?[0-9a-f_]{1,4}",
        "[0-9]{1,3}_[0-9_.]{1,3}",
        "20[0-9]{2}-[01]?[0-9]-[0-3]?[0-9]",
        prop_oneof![
            Just("true"),
            Just("False"),
            Just("YES"),
            Just("no"),
            Just("On"),
            Just("off"),
            Just("y"),
            Just("N"),
            Just("null"),
            Just("Null"),
            Just("inf"),
            Just("NaN"),
        ]
        .prop_map(str::to_owned),
    ]
}

pub(crate) fn wanted() -> impl Strategy<Value = Want> {
    let given = (any::<bool>(), any::<bool>(), any::<bool>());
    (given, tags()).prop_filter_map("one part at least", |((name, tag, digest), text)| {
        let part = |given: bool, text: &str| if given { text } else { "" }.to_owned();
        (name || tag || digest).then(|| Want {
            name: part(name, "r.example:5000/new/name"),
            tag: part(tag, &text),
            digest: part(digest, DIGEST),
        })
    })
}
