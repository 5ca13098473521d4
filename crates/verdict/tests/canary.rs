//! The verdict on a Canary of Flagger, phase by phase, including leftovers of the previous run.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use pretty_assertions::assert_eq;
use scene::{Judged, expected, image, metadata, now, observed, read, template};
use serde_json::{Value, json};
use slipway_verdict::{Expected, FailureReason, Next, Observed, Workload, next};

/// Before our write, which was at 12:00:00.
const BEFORE: &str = "2026-11-01T11:00:00Z";
const AFTER: &str = "2026-11-01T12:00:40Z";

struct Scene {
    live: Value,
    primary: Option<Value>,
    expected: Expected,
}

fn primary(image: &str, available: i64) -> Value {
    json!({
        "metadata": {"name": "shop-primary", "generation": 2},
        "spec": {"replicas": 2, "selector": {}, "template": template(image)},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available},
    })
}

/// In a phase since a time; the primary runs another image.
fn at(phase: &str, since: &str) -> Scene {
    Scene {
        live: json!({
            "metadata": metadata(4),
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
                "service": {"port": 80},
                "analysis": {"interval": "10s", "threshold": 5, "maxWeight": 50, "stepWeight": 10, "webhooks": [
                    {"name": "load", "url": "http://load/"},
                    {"name": "start", "type": "confirm-rollout", "url": "http://gate/start"},
                    {"name": "promote", "type": "confirm-promotion", "url": "http://gate/promote"},
                ]},
            },
            "status": {
                "phase": phase, "failedChecks": 0, "canaryWeight": 0, "iterations": 0,
                "lastAppliedSpec": "tried", "lastPromotedSpec": "serves", "lastTransitionTime": since,
                "conditions": [{"type": "Promoted", "status": "Unknown", "reason": phase,
                    "lastUpdateTime": since, "lastTransitionTime": since, "message": "Canary analysis failed, Deployment scaled to zero."}],
            },
        }),
        primary: Some(primary(&image("cd"), 2)),
        expected: expected(),
    }
}

impl Scene {
    fn bend(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.live.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    fn primary(mut self, primary: Option<Value>) -> Self {
        self.primary = primary;
        self
    }

    /// The primary serves our image.
    fn promoted(self) -> Self {
        self.primary(Some(primary(&image("ab"), 2)))
    }

    fn observed(&self) -> Observed {
        let mut observed = observed(Some(Workload::Canary(read(&self.live))), &[], &[]);
        observed.primary = self.primary.as_ref().map(read);
        observed
    }

    fn judge(&self) -> Judged {
        Judged::at(&self.expected, &self.observed(), now())
    }

    fn next(&self) -> Next {
        let expected = Expected {
            promotes: true,
            restored: None,
            ..self.expected.clone()
        };
        next(&expected, self.observed().workload.as_ref().unwrap())
    }
}

#[test]
fn phases_on_the_way() {
    for (phase, words) in [
        ("", "Flagger is setting up shop-primary for the first time"),
        (
            "Initializing",
            "Flagger is setting up shop-primary for the first time",
        ),
        (
            "Waiting",
            "the new version waits to be tried: Flagger asks its webhook start",
        ),
        (
            "Progressing",
            "the new version is tried with 0 % of the traffic, up to 50 %",
        ),
        (
            "WaitingPromotion",
            "the new version is tried and waits for promotion: Flagger asks its webhook promote",
        ),
        ("Promoting", "tried; shop-primary takes the new version"),
        ("Finalising", "promoted; traffic goes back to the primary"),
        ("Dreaming", "Flagger says Dreaming"),
    ] {
        assert_eq!(at(phase, AFTER).judge().waits(words), None);
        // While it goes on, what the primary runs already does not make it complete.
        at(phase, AFTER).promoted().judge().waits(words);
    }
    at("Progressing", AFTER)
        .bend("/status/canaryWeight", json!(30))
        .bend("/status/failedChecks", json!(2))
        .judge()
        .waits(
            "the new version is tried with 30 % of the traffic, up to 50 %; 2 of 5 failed checks that end it",
        );
    at("Progressing", AFTER)
        .bend("/spec/analysis", json!({"iterations": 10, "threshold": 0}))
        .bend("/status/iterations", json!(4))
        .bend("/spec/suspend", json!(true))
        .judge()
        .waits(
            "the new version is tried: iteration 4 of 10; it is suspended: set its spec.suspend to false to let it go on",
        );
    for phase in ["Terminating", "Terminated"] {
        at(phase, AFTER)
            .judge()
            .fails(FailureReason::Deleted, &["Flagger"]);
    }
    // Just created, without any status.
    at("", AFTER)
        .bend("/status", json!({}))
        .judge()
        .waits("Flagger is setting up shop-primary for the first time");
}

#[test]
fn succeeded_is_complete_when_the_primary_has_our_image() {
    for phase in ["Succeeded", "Initialized"] {
        at(phase, AFTER).promoted().judge().completes();
        at(phase, AFTER)
            .primary(Some(primary(&image("ab"), 1)))
            .judge()
            .waits(
                "the primary is not up yet: Waiting for deployment \"shop-primary\" rollout to finish: 1 of 2 updated \
                 replicas are available...",
            );
        // What was deployed runs already, and Flagger has nothing to do.
        at(phase, BEFORE).promoted().judge().completes();
    }
    let mut stuck = primary(&image("ab"), 0);
    stuck["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    at("Succeeded", AFTER).primary(Some(stuck)).judge().fails(
        FailureReason::ProgressDeadlineExceeded,
        &["the primary does not come up"],
    );
    let mut none = primary(&image("ab"), 0);
    none["spec"]["replicas"] = json!(0);
    none["status"] = json!({"observedGeneration": 2});
    at("Succeeded", AFTER)
        .primary(Some(none))
        .judge()
        .fails(FailureReason::ScaledToZero, &["primary"]);
}

#[test]
fn a_success_of_the_run_before_is_none_of_ours() {
    let other = format!("shop-primary runs {}", image("cd"));
    let leftover = |phase: &str, why: &str| {
        format!("waiting for Flagger to take up the new version ({phase} is of the run before: {why})")
    };
    for phase in ["Succeeded", "Initialized"] {
        // Also when that run ended after our write: the primary tells.
        for since in [BEFORE, AFTER] {
            at(phase, since).judge().waits(&leftover(phase, &other));
        }
        at(phase, AFTER)
            .primary(None)
            .judge()
            .waits(&leftover(phase, "shop-primary is not seen"));
    }
    at("Succeeded", BEFORE)
        .bend("/spec/suspend", json!(true))
        .judge()
        .waits(&format!(
            "{}; it is suspended: set its spec.suspend to false",
            leftover("Succeeded", &other)
        ));
    // A target without a primary Deployment: the time decides, and the condition's before the status'.
    let daemon = |since: &str| {
        at("Succeeded", since)
            .primary(None)
            .bend("/spec/targetRef/kind", json!("DaemonSet"))
    };
    daemon(AFTER).judge().completes();
    daemon(BEFORE)
        .bend("/status/lastTransitionTime", json!(AFTER))
        .judge()
        .waits(&leftover("Succeeded", "its last run was before this change"));
    // Versions without conditions.
    daemon(AFTER)
        .bend("/status/conditions", Value::Null)
        .judge()
        .completes();
}

#[test]
fn failed_is_aborted_when_it_is_this_run() {
    at("Failed", AFTER).judge().fails(
        FailureReason::Aborted,
        &[
            "the version before serves everything",
            "Canary analysis failed",
            "events",
        ],
    );
    at("Failed", AFTER)
        .bend("/status/canaryWeight", json!(100))
        .judge()
        .fails(
            FailureReason::Aborted,
            &["the primary did not come up, and the canary serves"],
        );
    // While it is Failed, Flagger sets lastTransitionTime with every look: only the condition tells when it was.
    let leftover = || at("Failed", BEFORE).bend("/status/lastTransitionTime", json!(AFTER));
    leftover().judge().waits(
        "waiting for Flagger to take up the new version (Failed is of the run before: its last run was before this change)",
    );
    // In the second of our write nothing of ours can have failed.
    at("Failed", scene::CREATED).judge().waits(
        "waiting for Flagger to take up the new version (Failed is of the run before: its last run was before this change)",
    );
    // Back to what serves: there is nothing to try, and the phase stays.
    let back = || {
        leftover()
            .promoted()
            .bend("/status/lastAppliedSpec", json!("serves"))
    };
    back().judge().completes();
    // Our image in the primary proves nothing while something else was tried.
    leftover().promoted().judge().waits(
        "waiting for Flagger to take up the new version (Failed is of the run before: its last run was before this change)",
    );
}

#[test]
fn somebody_elses_word_is_waited_for() {
    assert_eq!(
        at("Waiting", AFTER).next(),
        Next::Ask("Flagger asks its webhook start".to_owned())
    );
    assert_eq!(
        at("WaitingPromotion", AFTER).next(),
        Next::Ask("Flagger asks its webhook promote".to_owned())
    );
    assert_eq!(
        at("WaitingPromotion", AFTER)
            .bend("/spec/analysis/webhooks", Value::Null)
            .next(),
        Next::Ask("Flagger waits for a confirmation".to_owned())
    );
    for phase in [
        "",
        "Initializing",
        "Initialized",
        "Progressing",
        "Promoting",
        "Finalising",
        "Succeeded",
        "Failed",
    ] {
        assert_eq!(at(phase, AFTER).next(), Next::Wait, "{phase}");
    }
    let marked = |phase| {
        let mut scene = at(phase, AFTER);
        scene.live["metadata"]["annotations"]["deploy.slipway.dev/skips-analysis"] = json!("true");
        scene
    };
    assert_eq!(marked("Succeeded").next(), Next::Settle);
    assert_eq!(marked("Failed").next(), Next::Settle);
    assert_eq!(marked("Progressing").next(), Next::Wait);
}

#[test]
fn what_is_no_longer_ours_has_its_own_outcome() {
    at("Succeeded", AFTER)
        .promoted()
        .bend("/metadata/uid", json!("w-2"))
        .bend("/metadata/creationTimestamp", json!(AFTER))
        .judge()
        .fails(FailureReason::Replaced, &["Canary"]);
    let mut other = at("Succeeded", AFTER).promoted();
    other.live["metadata"]["annotations"]["deploy.slipway.dev/epoch"] = json!("8");
    other
        .judge()
        .fails(FailureReason::SupersededEpoch, &["epoch 8 after 7"]);
}
