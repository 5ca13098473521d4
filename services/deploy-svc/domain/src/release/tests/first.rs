//! The first release of an application that ran before: its manifests name the image by tag.

use ReleaseStatus as Status;
use pretty_assertions::assert_eq;
use slipway_verdict::before::{Before, RunningContainer};

use super::{play::*, *};

pub(super) fn present(fills: &[&str]) -> Before {
    Before::Present {
        containers: vec![RunningContainer {
            name: "app".to_owned(),
            image: "registry.example/shop:v1".to_owned(),
            digests: fills
                .iter()
                .map(|fill| format!("sha256:{}", fill.repeat(64)).parse().unwrap())
                .collect(),
        }],
    }
}

/// To the redeploy or the end: what ran is recorded, the change replaces a tag, and the deployment crashes.
fn crashed(before: Option<Before>) -> Run {
    let mut run = Run::by(&environment(&[GIT]));
    for step in ["build", "dev/lane", "dev/gate"] {
        run.succeed(step);
    }
    if let Some(before) = before {
        let key = run.key();
        run.tell(ReleaseCommand::Recorded { key, before });
    }
    let facts = change(None, false);
    let result = String::new();
    run.end("dev/change", Observation::Succeeded { result, facts });
    run.fail("dev/deploy", "CRASH_LOOP");
    run.succeed("dev/revert");
    run
}

#[test]
fn what_ran_is_recorded_once_and_before_the_change() {
    let mut run = Run::by(&environment(&[GIT]));
    for step in ["build", "dev/lane", "dev/gate"] {
        run.succeed(step);
    }
    let key = run.key();
    let recorded = |run: &mut Run, fill, key: &EffectKey| {
        let (before, key) = (present(&[fill]), key.clone());
        run.tell(ReleaseCommand::Recorded { key, before }).len()
    };
    assert_eq!(recorded(&mut run, "a", &key), 1);
    assert_eq!(recorded(&mut run, "c", &key), 0);
    assert_eq!(run.key(), key, "the order is still to be given");
    begin(&mut run, "dev/change");
    assert_eq!(recorded(&mut run, "c", &key), 0);
    assert_eq!(run.state.environments[0].before, Some(present(&["a"])));
}

#[test]
fn what_ran_is_put_back() {
    for (before, redeploys, status, words) in [
        (
            Some(present(&["a"])),
            &[][..],
            Status::RolledBack,
            "registry.example/shop:v1, is put back, with the digest",
        ),
        (
            Some(present(&[])),
            &[],
            Status::RolledBack,
            "no pod told its digest",
        ),
        (
            Some(present(&[])),
            &["WRONG_IMAGE"],
            Status::RollbackFailed,
            "WRONG_IMAGE happened",
        ),
        (
            Some(present(&["a"])),
            &["CRASH_LOOP"],
            Status::RollbackFailed,
            "CRASH_LOOP happened",
        ),
        (
            Some(Before::Absent),
            &[],
            Status::Failed,
            "did not exist before this release",
        ),
        (None, &[], Status::Failed, "was not verified"),
    ] {
        let mut run = crashed(before.clone());
        for code in redeploys {
            run.fail("dev/redeploy", code);
        }
        if run.active() == "dev/redeploy" {
            run.succeed("dev/redeploy");
        }
        assert_eq!(run.state.status, status, "{before:?}: {}", message(&run));
        assert!(message(&run).contains("CRASH_LOOP happened"), "{}", message(&run));
        assert!(message(&run).contains(words), "{}", message(&run));
    }
}

/// A tag that leads to another image by now, or to none, is not what ran: git is made to name that by its digest.
#[test]
fn what_its_tag_no_longer_leads_to_is_pinned() {
    for code in ["WRONG_IMAGE", "IMAGE_NOT_FOUND"] {
        for (again, status) in [(None, Status::RolledBack), (Some(code), Status::RollbackFailed)] {
            let mut run = crashed(Some(present(&["a", "c"])));
            begin(&mut run, "dev/redeploy");
            let first = run.key();
            observe(
                &mut run,
                Observation::Failed(Reason::new(code, "it is another one")),
            );
            let facts = change(None, false);
            let result = String::new();
            run.end("dev/pin", Observation::Succeeded { result, facts });
            let step = run.state.active_step().unwrap();
            assert_eq!((step.name.as_str(), step.attempt), ("dev/redeploy", 2));
            begin(&mut run, "dev/redeploy");
            let late = Observation::Failed(Reason::new(code, "too late"));
            let late = ReleaseCommand::Observed {
                key: first,
                observation: late,
            };
            assert_eq!(run.tell(late), [], "of the redeploy before");
            match again {
                None => run.succeed_running(),
                Some(code) => observe(&mut run, Observation::Failed(Reason::new(code, "still"))),
            }
            assert_eq!(
                steps(&run),
                "lane gate change deploy revert redeploy pin redeploy"
            );
            assert_eq!(run.state.status, status, "{}", message(&run));
            if again.is_none() {
                let digest = format!("registry.example/shop@sha256:{} (commit 2222222)", "a".repeat(64));
                assert!(message(&run).contains(&digest), "{}", message(&run));
            }
        }
    }
}
