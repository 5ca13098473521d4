//! The decision about one Application of Argo CD: each rule from a small object.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use std::{sync::Arc, time::Duration};

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{
    Applied, Expected, Failure, FailureReason, Managed, Observed, Verdict, Verify, Workload,
    application::{
        Application, Next, OPERATION, REFRESH, REFRESH_EVERY, Situation, Sync, WhenBlocked, combine, next,
    },
    judge,
    sync_window::SyncWindow,
};

const OURS: &str = "1111111111111111111111111111111111111111";
const THEIRS: &str = "2222222222222222222222222222222222222222";
const CHILD: &str = "3333333333333333333333333333333333333333";
const ID: &str = "dep-1/shop";
const SINCE: &str = "2026-11-02T12:00:00.250Z";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Seconds after 12:00:00.
fn clock(seconds: u32) -> String {
    format!("2026-11-02T12:{:02}:{:02}Z", seconds / 60, seconds % 60)
}

fn operation(id: Option<&str>, by: &str, revision: &str) -> Value {
    let info: Vec<Value> = id
        .into_iter()
        .map(|id| json!({"name": OPERATION, "value": id}))
        .collect();
    json!({
        "info": info,
        "initiatedBy": {"username": by, "automated": by.is_empty()},
        "sync": {"revision": revision, "syncStrategy": {"hook": {}}},
    })
}

fn ours() -> Value {
    operation(Some(ID), "slipway", OURS)
}

/// An application whose sync is done, which may be bent.
struct Scene {
    app: Value,
    expected: Expected,
    windows: Option<Vec<SyncWindow>>,
    asked: Option<Timestamp>,
    managed: Managed,
    now: Timestamp,
}

impl Scene {
    /// Synced by us from 12:00:01 to 12:00:05, compared at 12:00:06.
    fn done() -> Self {
        let app = json!({
            "metadata": {"name": "shop", "uid": "a-1", "generation": 9},
            "spec": {
                "project": "default",
                "source": {"repoURL": "https://git.example/ops", "path": "shop", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            },
            "status": {
                "operationState": {
                    "operation": ours(), "phase": "Succeeded", "message": "successfully synced",
                    "startedAt": clock(1), "finishedAt": clock(5),
                    "syncResult": {"revision": OURS, "resources": []},
                },
                "sync": {"status": "Synced", "revision": OURS},
                "health": {"status": "Healthy"},
                "reconciledAt": clock(6),
                "resources": [{"kind": "Deployment", "namespace": "shop", "name": "shop", "status": "Synced",
                    "health": {"status": "Healthy"}}],
            },
        });
        Self {
            app,
            expected: Expected {
                image: format!("registry.example/shop@sha256:{}", "ab".repeat(32))
                    .parse()
                    .unwrap(),
                epoch: 7,
                applied: Applied {
                    uid: "a-1".to_owned(),
                    generation: 4,
                    ..Applied::default()
                },
                verify: Verify::default(),
                since: time(SINCE),
                sync: Some(Sync {
                    operation: ID.to_owned(),
                    revision: OURS.parse().unwrap(),
                    lane: "prod/shop/Application/shop".to_owned(),
                    descendants: Vec::new(),
                    when_busy: WhenBlocked::Wait,
                    when_closed: WhenBlocked::Wait,
                    restores: false,
                    require_synced: false,
                }),
                promotes: false,
                restored: None,
                moving_tag: false,
            },
            windows: None,
            asked: None,
            managed: Managed::Unknown,
            now: time("2026-11-02T12:00:10Z"),
        }
    }

    /// Before anything was requested; another client synced an older commit yesterday.
    fn fresh() -> Self {
        Self::done()
            .with(|scene| scene.expected.applied = Applied::default())
            .set(
                "/status/operationState/operation",
                operation(None, "anna", THEIRS),
            )
            .set("/status/operationState/startedAt", json!("2026-11-01T12:00:00Z"))
            .set("/status/operationState/finishedAt", json!("2026-11-01T12:00:05Z"))
            .set("/status/operationState/syncResult/revision", json!(THEIRS))
            .set("/status/sync/revision", json!(THEIRS))
            .set("/status/reconciledAt", json!("2026-11-02T11:59:00Z"))
    }

    /// It syncs by itself, and has done so with our commit.
    fn automated() -> Self {
        Self::done()
            .set("/spec/syncPolicy", json!({"automated": {"prune": true}}))
            .set("/status/operationState/operation", operation(None, "", OURS))
    }

    fn with(mut self, bend: impl FnOnce(&mut Self)) -> Self {
        bend(&mut self);
        self
    }

    fn set(mut self, path: &str, value: Value) -> Self {
        let (parent, key) = path.rsplit_once('/').unwrap();
        self.app.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    fn sync(self, bend: impl FnOnce(&mut Sync)) -> Self {
        self.with(|scene| bend(scene.expected.sync.as_mut().unwrap()))
    }

    fn live(&self) -> Application {
        serde_json::from_value(self.app.clone()).unwrap()
    }

    fn next(&self) -> Next {
        let situation = Situation {
            windows: self.windows.as_deref(),
            asked: self.asked,
            managed: Some(&self.managed),
        };
        next(&self.expected, &self.live(), &situation, self.now)
    }

    fn verdict(&self) -> Verdict {
        let observed = Observed {
            workload: Some(Workload::Application(Arc::new(self.live()))),
            ..Observed::default()
        };
        judge(&self.expected, &observed, self.now)
    }
}

/// What a decision is, in short, so that tables can be read.
fn short(next: &Next) -> String {
    match next {
        Next::Refresh { hard: false, .. } => "refresh".to_owned(),
        Next::Refresh { hard: true, .. } => "hard refresh".to_owned(),
        Next::StartSync => "start".to_owned(),
        Next::Wait { .. } => "wait".to_owned(),
        Next::Complete => "complete".to_owned(),
        Next::Failed(failure) => failure.reason.code().to_owned(),
    }
}

fn words(next: &Next) -> String {
    match next {
        Next::Refresh { message, .. } | Next::Wait { message, .. } => message.clone(),
        Next::Failed(failure) => failure.message.clone(),
        Next::StartSync | Next::Complete => String::new(),
    }
}

#[track_caller]
fn expect(scene: &Scene, outcome: &str, message: &str) {
    let next = scene.next();
    assert_eq!(short(&next), outcome, "{next:?}");
    assert!(
        words(&next).contains(message),
        "{message:?} is not in {:?}",
        words(&next)
    );
}

fn refuse(sync: &mut Sync) {
    sync.when_busy = WhenBlocked::Refuse;
    sync.when_closed = WhenBlocked::Refuse;
}

#[test]
fn done_is_all_of_it() {
    expect(&Scene::done(), "complete", "");
    // One bend each: none of them is done.
    let state = "/status/operationState";
    let bends: Vec<(Scene, &str, &str)> = vec![
        (
            Scene::done()
                .set(
                    &format!("{state}/operation"),
                    operation(Some("dep-0/shop"), "slipway", THEIRS),
                )
                .set(&format!("{state}/syncResult/revision"), json!(THEIRS)),
            "SUPERSEDED",
            "slipway synced 2222222 in place of 1111111",
        ),
        (
            Scene::done()
                .set(&format!("{state}/phase"), json!("Running"))
                .set(&format!("{state}/finishedAt"), Value::Null),
            "wait",
            "running",
        ),
        (
            Scene::done().set(&format!("{state}/syncResult/revision"), json!(THEIRS)),
            "SUPERSEDED",
            "2222222",
        ),
        (
            Scene::done().set(&format!("{state}/syncResult"), Value::Null),
            "refresh",
            "does not say what",
        ),
        (
            Scene::done().set("/status/sync/status", json!("OutOfSync")),
            "refresh",
            "differs",
        ),
        (
            Scene::done().set("/status/sync/status", json!("Unknown")),
            "refresh",
            "does not know",
        ),
        (
            Scene::done().set("/status/health/status", json!("Progressing")),
            "wait",
            "rolling out",
        ),
        (
            Scene::done().set("/status/health/status", json!("Missing")),
            "refresh",
            "not there",
        ),
        (
            Scene::done().set("/status/health/status", json!("Unknown")),
            "wait",
            "Unknown",
        ),
        (
            Scene::done().set("/status/health", json!({})),
            "refresh",
            "not known",
        ),
        (
            Scene::done().set("/status/reconciledAt", json!(clock(4))),
            "refresh",
            "has not looked",
        ),
        (
            Scene::done().set("/status/reconciledAt", Value::Null),
            "refresh",
            "has not looked",
        ),
    ];
    for (scene, outcome, message) in &bends {
        expect(scene, outcome, message);
        assert!(!matches!(scene.verdict(), Verdict::Complete));
    }
    assert_eq!(Scene::done().verdict(), Verdict::Complete);
}

#[test]
fn a_look_in_the_same_second_counts_for_our_commit_alone() {
    let same = Scene::done().set("/status/reconciledAt", json!(clock(5)));
    expect(&same, "complete", "");
    let before = same.set("/status/sync/revision", json!(THEIRS));
    expect(&before, "refresh", "compared with 2222222 only");
}

#[test]
fn a_branch_that_has_moved_on() {
    // The later commit changes nothing of this application.
    let scene = Scene::done().set("/status/sync/revision", json!(CHILD));
    expect(&scene, "complete", "");
    // It does: that says nothing of ours, which was synced, and is healthy at a look after that.
    let differs = || {
        Scene::done()
            .set("/status/sync/revision", json!(CHILD))
            .set("/status/sync/status", json!("OutOfSync"))
            .set("/status/resources/0/status", json!("OutOfSync"))
    };
    let words = "its branch has moved to 3333333, which differs: Deployment shop/shop differs";
    let result = "/status/operationState/syncResult";
    let image = format!("registry.example/shop@sha256:{}", "cd".repeat(32));
    let deployment = json!({"kind": "Deployment", "namespace": "shop", "name": "shop", "status": "Synced"});
    let ill = |name: &str, health: &str| {
        json!({"kind": "Deployment", "namespace": "shop", "name": name, "status": "OutOfSync",
            "health": {"status": health}})
    };
    let missing = |objects: Value| {
        differs()
            .set("/status/health/status", json!("Missing"))
            .set(&format!("{result}/resources"), json!([deployment]))
            .set("/status/resources", objects)
    };
    for (scene, outcome, message) in [
        (differs(), "complete", ""),
        // Of the same second, or before: that look may be one from before the sync.
        (
            differs().set("/status/reconciledAt", json!(clock(5))),
            "refresh",
            words,
        ),
        (
            differs().set("/status/reconciledAt", json!(clock(4))),
            "refresh",
            "has not looked",
        ),
        (
            differs().set("/status/health/status", json!("Progressing")),
            "wait",
            "rolling out",
        ),
        (
            differs().set("/status/health/status", json!("Degraded")),
            "DEGRADED",
            "Degraded",
        ),
        (
            differs().set("/status/summary", json!({"images": [image]})),
            "refresh",
            "its pods run",
        ),
        // At our commit it is ours that is not there.
        (
            differs().set("/status/sync/revision", json!(OURS)),
            "refresh",
            "the cluster differs from git",
        ),
        (
            differs().set(
                &format!("{result}/resources"),
                json!([{"kind": "Service", "name": "old", "status": "PruneSkipped"}]),
            ),
            "refresh",
            words,
        ),
        // A commit that contains ours was synced: not exactly ours.
        (
            differs()
                .set(&format!("{result}/revision"), json!(CHILD))
                .set("/status/sync/revision", json!(THEIRS))
                .sync(|sync| sync.descendants = vec![CHILD.parse().unwrap()]),
            "refresh",
            "its branch has moved to 2222222",
        ),
        // The later commit brings another object, which is not there yet.
        (
            missing(json!([ill("shop", "Healthy"), ill("till", "Missing")])),
            "complete",
            "",
        ),
        (
            missing(json!([ill("shop", "Missing"), ill("till", "Missing")])),
            "refresh",
            "not there",
        ),
        (
            missing(json!([ill("shop", "Progressing"), ill("till", "Missing")])),
            "refresh",
            "not there",
        ),
        (
            missing(json!([ill("shop", "Healthy"), ill("till", "Missing")]))
                .set("/status/sync/revision", json!(OURS)),
            "refresh",
            "the cluster differs from git",
        ),
        (
            Scene::automated()
                .set("/status/sync/revision", json!(CHILD))
                .set("/status/sync/status", json!("OutOfSync")),
            "complete",
            "",
        ),
    ] {
        expect(&scene, outcome, message);
    }
    // A commit that is known to contain ours is accepted in its place.
    let scene = Scene::done()
        .set("/status/operationState/operation", operation(None, "anna", CHILD))
        .set("/status/operationState/syncResult/revision", json!(CHILD))
        .set("/status/sync/revision", json!(CHILD));
    expect(&scene, "SUPERSEDED", "anna synced 3333333 in place of 1111111");
    let known = scene.sync(|sync| sync.descendants = vec![CHILD.parse().unwrap()]);
    expect(&known, "complete", "");
    let running = known
        .set("/status/operationState/phase", json!("Running"))
        .set("/operation", operation(None, "anna", CHILD));
    expect(&running, "wait", "by anna is under way");
}

#[test]
fn running_in_all_its_forms() {
    let running = || {
        Scene::done()
            .set("/operation", ours())
            .set("/status/operationState/phase", json!("Running"))
            .set("/status/operationState/finishedAt", Value::Null)
            .set(
                "/status/operationState/message",
                json!("waiting for completion of hook batch/Job/migrate"),
            )
    };
    expect(&running(), "wait", "running: waiting for completion of hook");
    // Running with finishedAt is a retry that waits, not the end.
    let retry = running()
        .set("/status/operationState/finishedAt", json!(clock(5)))
        .set(
            "/status/operationState/message",
            json!("one or more objects failed. Retrying attempt #1 at 12:01PM."),
        );
    expect(
        &retry,
        "wait",
        "failed and will be tried again: one or more objects failed. Retrying",
    );
    let terminating = running().set("/status/operationState/phase", json!("Terminating"));
    expect(&terminating, "wait", "being terminated");
    let waiting = Scene::done()
        .set("/operation", ours())
        .set("/status/operationState", Value::Null);
    expect(&waiting, "wait", "has not begun");
    // The API server clears the state with the write; a client that patches may not.
    let waiting = Scene::fresh()
        .set("/operation", ours())
        .with(|scene| scene.expected.applied = Scene::done().expected.applied);
    expect(&waiting, "wait", "has not begun");
    // A phase that Argo CD may add some day is not an end.
    let other = running().set("/status/operationState/phase", json!("Pausing"));
    expect(&other, "wait", "running");
}

#[test]
fn an_operation_left_standing_is_not_a_new_sync() {
    let left = Scene::done().set("/operation", ours());
    expect(&left, "complete", "");
    // Of an earlier deployment of ours: overwritten.
    let earlier = operation(Some("dep-0/shop"), "slipway", THEIRS);
    let scene = Scene::fresh()
        .set("/operation", earlier.clone())
        .set("/status/operationState/operation", earlier);
    expect(&scene, "start", "");
    // Another's is another's: the API server refuses too.
    let theirs = operation(None, "anna", THEIRS);
    let scene = Scene::fresh()
        .set("/operation", theirs.clone())
        .set("/status/operationState/operation", theirs);
    expect(&scene, "wait", "left standing in .operation; remove it");
    expect(&scene.sync(refuse), "SYNC_BUSY", "left standing");
    // Another's that is about to begin while ours has ended.
    let scene = Scene::done().set("/operation", operation(None, "anna", THEIRS));
    expect(&scene, "wait", "another sync, by anna, is about to begin");
}

#[test]
fn a_sync_begins() {
    expect(&Scene::fresh(), "start", "");
    expect(&Scene::fresh().set("/status", json!({})), "start", "");
    // It was requested, but that was not recorded: not requested again.
    let recorded = Scene::fresh().set("/metadata/annotations", json!({OPERATION: ID}));
    expect(&recorded, "SUPERSEDED", "anna synced 2222222");
    let running = Scene::fresh()
        .set("/operation", operation(None, "anna", THEIRS))
        .set("/status/operationState", Value::Null);
    expect(
        &running,
        "wait",
        "a sync of 2222222 by anna is under way: waiting for its end",
    );
    expect(&running.sync(refuse), "SYNC_BUSY", "argo_cd.when_busy is refuse");
}

#[test]
fn windows() {
    let windows = || {
        let window =
            json!({"kind": "deny", "schedule": "0 12 * * *", "duration": "1h", "applications": ["*"]});
        Some(vec![serde_json::from_value(window).unwrap()])
    };
    let closed = Scene::fresh().with(|scene| scene.windows = windows());
    expect(&closed, "wait", "before 2026-11-02T13:00:00");
    assert!(
        matches!(closed.next(), Next::Wait { look_again: Some(at), .. } if at == time("2026-11-02T13:00:00Z"))
    );
    expect(
        &closed.sync(refuse),
        "SYNC_WINDOW_CLOSED",
        "the project's deny window \"0 12 * * *\"",
    );
    let later = Scene::fresh().with(|scene| {
        scene.windows = windows();
        scene.now = time("2026-11-02T13:00:00Z");
    });
    expect(&later, "start", "");
    // The project may not be read: the controller's word tells.
    let held = || {
        Scene::done()
            .set("/operation", ours())
            .set("/status/operationState/phase", json!("Running"))
            .set("/status/operationState/finishedAt", Value::Null)
            .set(
                "/status/operationState/message",
                json!("Sync operation blocked by sync window"),
            )
    };
    expect(&held(), "wait", "waiting until it opens");
    expect(
        &held().sync(refuse),
        "SYNC_WINDOW_CLOSED",
        "a sync window of its project",
    );
    let known = held().with(|scene| scene.windows = windows());
    expect(&known, "wait", "before 2026-11-02T13:00:00");
}

#[test]
fn a_sync_that_fails_says_what_failed() {
    let scene = Scene::done()
        .set("/status/operationState/phase", json!("Failed"))
        .set("/status/operationState/message", json!("one or more synchronization tasks completed unsuccessfully"))
        .set(
            "/status/operationState/syncResult/resources",
            json!([
                {"kind": "Service", "namespace": "shop", "name": "shop", "status": "Synced", "message": "unchanged"},
                {"kind": "Job", "namespace": "shop", "name": "migrate", "hookType": "PreSync", "hookPhase": "Failed",
                    "message": "Job has reached the specified backoff limit"},
                {"kind": "ConfigMap", "namespace": "shop", "name": "till", "status": "SyncFailed",
                    "message": "ConfigMap \"till\" is invalid"},
            ]),
        );
    expect(
        &scene,
        "SYNC_FAILED",
        "one or more synchronization tasks completed unsuccessfully; Job shop/migrate (PreSync hook): Job has \
         reached the specified backoff limit; ConfigMap shop/till: ConfigMap \"till\" is invalid",
    );
    let error = Scene::done()
        .set("/status/operationState/phase", json!("Error"))
        .set(
            "/status/operationState/message",
            json!("ComparisonError: no such commit"),
        );
    expect(&error, "SYNC_FAILED", "no such commit");
    let many: Vec<Value> = (0..9)
        .map(|n| json!({"kind": "ConfigMap", "name": format!("c{n}"), "status": "SyncFailed", "message": "no"}))
        .collect();
    let many = scene.set("/status/operationState/syncResult/resources", json!(many));
    let said = words(&many.next());
    assert!(
        said.contains("ConfigMap c4: no") && !said.contains("c5"),
        "{said}"
    );
}

#[test]
fn health_of_the_sync_and_of_before() {
    let degraded = || {
        Scene::done().set("/status/health/status", json!("Degraded")).set(
            "/status/resources/0/health",
            json!({"status": "Degraded", "message": "exceeded its progress deadline"}),
        )
    };
    let what = "Degraded: Deployment shop/shop Degraded: exceeded its progress deadline";
    expect(&degraded(), "DEGRADED", what);
    let patient = degraded().with(|scene| scene.expected.verify.fail_early = false);
    expect(&patient, "wait", what);
    // Within the second in which the sync ended it may be the health of before.
    let stale = degraded().set("/status/reconciledAt", json!(clock(5)));
    expect(&stale, "refresh", what);
    let stale = degraded().set("/status/reconciledAt", json!(clock(3)));
    expect(&stale, "refresh", "has not looked");
    let paused = Scene::done().set(
        "/status/health",
        json!({"status": "Suspended", "message": "Deployment is paused"}),
    );
    expect(
        &paused,
        "wait",
        "paused (Suspended): Deployment is paused; it continues when it is resumed",
    );
}

#[test]
fn a_refresh_is_not_asked_for_too_often() {
    let stale = || Scene::done().set("/status/reconciledAt", json!(clock(4)));
    let asked = stale().with(|scene| scene.asked = Some(time("2026-11-02T12:00:07Z")));
    expect(&asked, "wait", "has not looked");
    let again = time("2026-11-02T12:00:07Z") + REFRESH_EVERY;
    assert!(matches!(asked.next(), Next::Wait { look_again, .. } if look_again == Some(again)));
    expect(&asked.with(|scene| scene.now = again), "refresh", "");
    // One is on its way.
    let pending = stale().set("/metadata/annotations", json!({REFRESH: "normal"}));
    expect(&pending, "wait", "has been asked to look");
}

#[test]
fn conditions() {
    let broken = |kind: &str, message: &str| {
        Scene::done().set("/status/sync/status", json!("Unknown")).set(
            "/status/conditions",
            json!([{"type": kind, "message": message, "lastTransitionTime": clock(6)}]),
        )
    };
    let comparison = broken(
        "ComparisonError",
        "failed to generate manifest: no kustomization.yaml",
    );
    expect(&comparison, "refresh", "ComparisonError: failed to generate");
    let cached = broken(
        "ComparisonError",
        "Manifest generation error (cached): no kustomization.yaml",
    );
    expect(&cached, "hard refresh", "(cached)");
    let lasting = comparison.with(|scene| scene.now = time("2026-11-02T12:01:06Z"));
    expect(&lasting, "COMPARISON_FAILED", "no kustomization.yaml");
    let patient = lasting.with(|scene| scene.expected.verify.fail_early = false);
    expect(&patient, "refresh", "no kustomization.yaml");
    let spec = broken("InvalidSpecError", "application destination is not permitted")
        .with(|scene| scene.now = time("2026-11-02T12:01:06Z"));
    expect(
        &spec,
        "COMPARISON_FAILED",
        "InvalidSpecError: application destination",
    );
    // While it waits for the error to pass, it looks again when its patience ends.
    let asked =
        broken("ComparisonError", "timeout").with(|scene| scene.asked = Some(time("2026-11-02T12:00:09Z")));
    assert!(
        matches!(asked.next(), Next::Wait { look_again: Some(at), .. } if at <= time("2026-11-02T12:01:06Z"))
    );
    // A warning is none of our business.
    let warning = Scene::done().set(
        "/status/conditions",
        json!([{"type": "OrphanedResourceWarning", "message": "1 orphan"}]),
    );
    expect(&warning, "complete", "");
}

#[test]
fn somebody_else() {
    let state = "/status/operationState";
    let displaced = |operation: Value, revision: &str| {
        Scene::done()
            .set(&format!("{state}/operation"), operation)
            .set(&format!("{state}/syncResult/revision"), json!(revision))
    };
    expect(
        &displaced(operation(None, "anna", THEIRS), THEIRS),
        "SUPERSEDED",
        "anna synced 2222222 in place of 1111111",
    );
    let running = Scene::done()
        .set("/operation", operation(None, "anna", THEIRS))
        .set(state, Value::Null);
    expect(&running, "SUPERSEDED", "anna synced 2222222");
    // A branch: it is not known yet which commit that will be.
    let running = running.set("/operation", operation(None, "anna", "main"));
    expect(&running, "wait", "a sync of main by anna");
    // The same commit, or a try without effect: ours is asked for again.
    expect(&displaced(operation(None, "anna", OURS), OURS), "start", "");
    let mut dry = operation(None, "anna", THEIRS);
    dry["sync"]["dryRun"] = json!(true);
    expect(&displaced(dry, THEIRS), "start", "");
    let gone = Scene::done().set(state, Value::Null);
    expect(&gone, "SYNC_FAILED", "the sync was removed before it began");
}

#[test]
fn whose_object_it_is() {
    expect(
        &Scene::done().set("/metadata/uid", json!("a-2")),
        "REPLACED",
        "made anew",
    );
    let leaving = Scene::done().set("/metadata/deletionTimestamp", json!(clock(6)));
    expect(&leaving, "DELETED", "being deleted");
    // What a watch shows of before our write.
    expect(
        &Scene::done().set("/metadata/generation", json!(3)),
        "wait",
        "waiting to see",
    );
    let turn = |lane: &str| {
        json!({
            "deploy.slipway.dev/epoch": "8", "deploy.slipway.dev/deployment": "dep-2",
            "deploy.slipway.dev/target": format!("prod/shop/Application/{lane}"),
        })
    };
    let later = Scene::done().set("/metadata/annotations", turn("shop"));
    expect(
        &later,
        "SUPERSEDED_EPOCH",
        "dep-2 took its place (epoch 8 after 7)",
    );
    // Epochs of another lane say nothing.
    let shared = Scene::done().set("/metadata/annotations", turn("till"));
    expect(&shared, "complete", "");
    let gone = Observed {
        gone: true,
        ..Observed::default()
    };
    let verdict = judge(&Scene::done().expected, &gone, time("2026-11-02T12:00:10Z"));
    assert!(matches!(verdict, Verdict::Failed(failure) if failure.reason == FailureReason::Deleted));
}

#[test]
fn the_pods_run_our_image() {
    let image = |letters: &str| format!("registry.example/shop:1a2b3c4@sha256:{}", letters.repeat(32));
    let shows = |images: Value| Scene::done().set("/status/summary", json!({"images": images}));
    expect(&shows(json!([image("ab"), "redis:7"])), "complete", "");
    // Another registry's copy, or an image without a digest, tells nothing.
    expect(
        &shows(json!(["registry.example/shop:1a2b3c4", "mirror/shop:1"])),
        "complete",
        "",
    );
    let wrong = shows(json!([image("cd")]));
    expect(
        &wrong,
        "refresh",
        "its pods run registry.example/shop@sha256:cdcd",
    );
    let lasting = wrong.set("/status/reconciledAt", json!(clock(35)));
    expect(&lasting, "WRONG_IMAGE", "and not sha256:abab");
    expect(
        &lasting.with(|scene| scene.expected.verify.digest = false),
        "complete",
        "",
    );
}

#[test]
fn auto_sync() {
    expect(&Scene::automated(), "complete", "");
    let state = "/status/operationState";
    let running = || {
        Scene::automated()
            .set("/operation", operation(None, "", OURS))
            .set(&format!("{state}/phase"), json!("Running"))
            .set(&format!("{state}/finishedAt"), Value::Null)
            .set(&format!("{state}/message"), json!(""))
    };
    expect(&running(), "wait", "the sync of 1111111 is running");
    let retry = running().set(&format!("{state}/finishedAt"), json!(clock(4)));
    expect(&retry, "wait", "will be tried again");
    let failed = Scene::automated().set(&format!("{state}/phase"), json!("Failed"));
    expect(&failed, "SYNC_FAILED", "successfully synced");
    // It still syncs the commit before.
    let before = running()
        .set("/operation", operation(None, "", THEIRS))
        .set(&format!("{state}/operation"), operation(None, "", THEIRS))
        .set(&format!("{state}/syncResult/revision"), json!(THEIRS));
    expect(&before, "wait", "a sync of 2222222 by auto-sync is under way");

    let synced_before = || {
        Scene::automated()
            .set(&format!("{state}/operation"), operation(None, "", THEIRS))
            .set(&format!("{state}/startedAt"), json!("2026-11-01T12:00:00Z"))
            .set(&format!("{state}/finishedAt"), json!("2026-11-01T12:00:05Z"))
            .set(&format!("{state}/syncResult/revision"), json!(THEIRS))
    };
    // It sees our commit, and has nothing to do.
    expect(&synced_before(), "complete", "");
    let about_to = synced_before().set("/status/sync/status", json!("OutOfSync"));
    expect(&about_to, "refresh", "has not begun to sync it");
    let refused = about_to.set(
        "/status/conditions",
        json!([{"type": "SyncError", "message": "auto-sync will wipe out all resources", "lastTransitionTime": clock(6)}]),
    );
    expect(&refused, "refresh", "will wipe out");
    let lasting = refused.with(|scene| scene.now = time("2026-11-02T12:01:10Z"));
    expect(&lasting, "SYNC_FAILED", "SyncError: auto-sync will wipe out");
    // Switched off: as any manual application.
    let off = Scene::fresh().set("/spec/syncPolicy", json!({"automated": {"enabled": false}}));
    expect(&off, "start", "");
    let none = Scene::fresh().set("/spec/syncPolicy", json!({"automated": null}));
    expect(&none, "start", "");
}

#[test]
fn auto_sync_within_a_closed_window() {
    let scene = Scene::automated()
        .set("/status/operationState", Value::Null)
        .set("/status/sync/status", json!("OutOfSync"))
        .with(|scene| {
            // Lets manual syncs through, which this is not.
            let window = json!({"kind": "deny", "schedule": "0 12 * * *", "duration": "1h", "applications": ["*"],
                "manualSync": true});
            scene.windows = Some(vec![serde_json::from_value(window).unwrap()]);
        });
    expect(&scene, "wait", "before 2026-11-02T13:00:00");
    expect(&scene.sync(refuse), "SYNC_WINDOW_CLOSED", "when_closed is refuse");
}

#[test]
fn auto_sync_that_looks_elsewhere() {
    let state = "/status/operationState";
    let elsewhere = || {
        Scene::automated()
            .set(&format!("{state}/operation"), operation(None, "", THEIRS))
            .set(&format!("{state}/startedAt"), json!("2026-11-01T12:00:00Z"))
            .set(&format!("{state}/finishedAt"), json!("2026-11-01T12:00:05Z"))
            .set(&format!("{state}/syncResult/revision"), json!(THEIRS))
            .set("/status/sync/revision", json!(THEIRS))
    };
    let what = "Argo CD sees 2222222 and not 1111111; it follows main of https://git.example/ops";
    expect(&elsewhere(), "refresh", what);
    // However often it refreshes: our commit is not there, and nothing more is known.
    let looked = elsewhere().with(|scene| scene.asked = Some(time("2026-11-02T12:00:05Z")));
    expect(&looked, "wait", what);
    // It synced another commit after ours was there, looked again, and still does not see ours.
    let past = elsewhere()
        .set(&format!("{state}/startedAt"), json!(clock(2)))
        .set(&format!("{state}/finishedAt"), json!(clock(3)));
    expect(&past, "refresh", what);
    let past = past.with(|scene| scene.asked = Some(time("2026-11-02T12:00:05Z")));
    expect(
        &past,
        "SUPERSEDED",
        "auto-sync synced 2222222 and not 1111111; whether it contains 1111111 cannot be known",
    );
    // It is known to contain ours.
    let known = past.sync(|sync| sync.descendants = vec![THEIRS.parse().unwrap()]);
    expect(&known, "complete", "");
    let empty = elsewhere().set("/status", json!({}));
    expect(&empty, "refresh", "Argo CD sees no commit yet");
}

#[test]
fn without_a_sync_it_is_judged_as_it_stands() {
    let scene = |scene: Scene| scene.with(|scene| scene.expected.sync = None);
    expect(&scene(Scene::done()), "complete", "");
    expect(
        &scene(Scene::done().set("/status/health/status", json!("Progressing"))),
        "wait",
        "rolling out",
    );
    // What git has moved on to is irrelevant here; what can be compared counts.
    let moved = Scene::fresh().set("/status/sync/status", json!("OutOfSync"));
    expect(&scene(moved), "complete", "");
    let ill = Scene::done().set("/status/health/status", json!("Degraded"));
    expect(&scene(ill), "DEGRADED", "Degraded");
}

#[test]
fn several_sources() {
    let scene = Scene::done()
        .set(
            "/status/operationState/syncResult",
            json!({"revision": "", "revisions": [THEIRS, OURS]}),
        )
        .set(
            "/status/sync",
            json!({"status": "Synced", "revisions": [THEIRS, OURS]}),
        );
    expect(&scene, "complete", "");
    let source = json!({"repoURL": "https://git.example/ops", "targetRevision": "main"});
    let scene = Scene::fresh().set("/spec/sources", json!([source, source]));
    expect(&scene, "SYNC_FAILED", "several sources");
}

#[test]
fn several_applications_are_one() {
    let progressing = |message: &str, seconds: u64| Verdict::Progressing {
        message: message.to_owned(),
        look_again: Some(time(SINCE) + Duration::from_secs(seconds)),
    };
    let failed = Verdict::Failed(Failure {
        reason: FailureReason::SyncFailed,
        message: "no".to_owned(),
    });
    let named = |verdicts: Vec<Verdict>| {
        let names = ["shop", "shop-jobs", "shop-cache"].map(str::to_owned);
        names.into_iter().zip(verdicts).collect::<Vec<_>>()
    };
    let both = combine(&named(vec![
        progressing("syncing", 9),
        progressing("waiting", 3),
        Verdict::Complete,
    ]));
    assert_eq!(both, progressing("shop: syncing; shop-jobs: waiting", 3));
    assert_eq!(
        combine(&named(vec![Verdict::Complete, Verdict::Complete])),
        Verdict::Complete
    );
    let one = combine(&named(vec![
        Verdict::Complete,
        failed.clone(),
        progressing("syncing", 9),
    ]));
    assert!(matches!(one, Verdict::Failed(failure)
        if failure.reason == FailureReason::SyncFailed && failure.message == "shop-jobs: no"));
    // Alone it needs no name.
    assert_eq!(combine(&named(vec![failed.clone()])), failed);
}
