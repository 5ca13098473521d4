//! Plays a release to its end: every step succeeds except for those that a test names.

use super::*;

pub(super) const HEAD: &str = r"
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        target: { cluster: local, namespace: dev, name: shop }
";
pub(super) const GIT: &str = "gitops: { repository: platform, path: apps/shop/dev }";
pub(super) const MARKER: &str = "gitops: { repository: platform, strategy: marker }";
pub(super) const JOBS: &str =
    "jobs: { before: [{ name: migrate, pod: { containers: [{ name: migrate }] } }] }";

/// One environment with these keys in addition to its name and target.
pub(super) fn environment(keys: &[&str]) -> String {
    let policy = if keys.iter().any(|key| key.starts_with("policy:")) {
        ""
    } else {
        "policy: two"
    };
    let keys = keys.iter().chain([&policy]).filter(|key| !key.is_empty());
    keys.fold(HEAD.to_owned(), |text, key| format!("{text}        {key}\n"))
}

/// How a step's backend ends it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Well,
    /// The image or change was there already.
    NoOp,
    /// There was no image by digest before it.
    Unnamed,
    Failed,
    Errored,
    Skipped,
    /// It is cancelled while it runs, and its backend stops it.
    Cancelled,
    /// It is cancelled while it runs, and its backend was faster.
    CancelledTooLate,
    /// The lane was lost before its order was given.
    Lost,
    /// Its time is up, and its backend stops it.
    Late,
    /// Its time is up, and its backend never answers.
    Silent,
}

/// A release whose steps all succeed except for these. Steps are named by their kind.
pub(super) fn play(catalog: &str, but: &[(&str, Ends)]) -> Run {
    let mut run = Run::by(catalog);
    for _ in 0..20 {
        let Some(step) = run.state.active_step() else {
            break;
        };
        let (name, kind) = (step.name.clone(), step.kind.as_str());
        let ends = but
            .iter()
            .find(|(of, _)| *of == kind)
            .map_or(Ends::Well, |(_, ends)| *ends);
        play_step(&mut run, &name, ends);
    }
    assert!(run.state.status.is_final(), "it does not end");
    run
}

pub(super) fn begin(run: &mut Run, name: &str) {
    if run.active().ends_with("/lane") {
        return;
    }
    let waiting = Waiting::new(WaitingKind::Machine, "working");
    run.tell(ReleaseCommand::Started {
        key: run.key(),
        reference: format!("ref-{name}").parse().unwrap(),
        observation: Observation::Pending(waiting),
    });
}

pub(super) fn observe(run: &mut Run, observation: Observation) {
    if !run.state.status.is_final() {
        run.tell(ReleaseCommand::Observed {
            key: run.key(),
            observation,
        });
    }
}

pub(super) fn cancel(run: &mut Run) {
    run.tell(ReleaseCommand::Cancel {
        by: Actor::system("test"),
        reason: String::new(),
    });
}

pub(super) fn facts(name: &str, ends: Ends) -> Facts {
    match (name.rsplit('/').next().unwrap(), ends) {
        ("build", _) => Facts::Built {
            images: images("b"),
            authors: Vec::new(),
        },
        ("change", Ends::NoOp) => change(Some(images("b")), true),
        ("change", Ends::Unnamed) => change(None, false),
        ("change", _) => change(Some(images("a")), false),
        ("revert", _) => change(Some(images("b")), false),
        _ => Facts::None,
    }
}

pub(super) fn play_step(run: &mut Run, name: &str, ends: Ends) {
    let reason = |code: &str| Reason::new(code, format!("{code} happened"));
    let well = Observation::Succeeded {
        result: String::new(),
        facts: facts(name, ends),
    };
    match ends {
        Ends::Well | Ends::NoOp | Ends::Unnamed => run.end(name, well),
        Ends::Failed => run.end(name, Observation::Failed(reason("BROKEN"))),
        Ends::Errored => run.end(name, Observation::Errored(reason("UNKNOWN"))),
        Ends::Skipped => run.end(name, Observation::Skipped(reason("NOTHING_TO_PUT_BACK"))),
        Ends::Cancelled | Ends::CancelledTooLate => {
            begin(run, name);
            cancel(run);
            let late = ends == Ends::CancelledTooLate;
            observe(
                run,
                if late {
                    well
                } else {
                    Observation::Cancelled(reason("CANCELLED"))
                },
            );
        }
        Ends::Lost => {
            run.tell(ReleaseCommand::Supersede {
                by: "rel-9".parse().unwrap(),
            });
            observe(run, Observation::Cancelled(reason("SUPERSEDED")));
        }
        Ends::Late | Ends::Silent => {
            begin(run, name);
            run.now = Release::wake_at(&run.state).unwrap();
            run.tell(ReleaseCommand::Wake);
            if ends == Ends::Late {
                observe(run, Observation::Cancelled(reason("CANCELLED")));
                return;
            }
            run.now = Release::wake_at(&run.state).unwrap();
            run.tell(ReleaseCommand::Wake);
            run.tell(ReleaseCommand::GiveUp { key: run.key() });
        }
    }
}

/// The kinds of the steps in their order, without the build.
pub(super) fn steps(run: &Run) -> String {
    let kinds: Vec<&str> = run
        .state
        .steps
        .iter()
        .skip(1)
        .map(|step| step.kind.as_str())
        .collect();
    kinds.join(" ")
}

pub(super) fn message(run: &Run) -> &str {
    run.state.reason.as_ref().map_or("", |reason| &reason.message)
}
