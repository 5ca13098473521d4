//! Replays of small hand-written recordings: the forms that kubectl's arguments and a recorder's lines can take, and
//! that disagreements are found.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use serde_json::{Value, json};
use slipway_verdict::{
    FailureReason, Verdict,
    replay::{Options, Run, recording, replay},
};

const DONE: &str = "deployment \"shop\" successfully rolled out";

/// A recording in the making; time goes on by itself.
struct Tape {
    lines: Vec<Value>,
    t: i64,
    version: i64,
}

impl Tape {
    fn new() -> Self {
        Self {
            lines: vec![json!({"kind": "header", "scenario": "by hand", "namespace": "one"})],
            t: 0,
            version: 10,
        }
    }

    fn push(mut self, mut line: Value) -> Self {
        self.t += 20;
        line["t_ms"] = json!(self.t);
        self.lines.push(line);
        self
    }

    fn wait(mut self, ms: i64) -> Self {
        self.t += ms;
        self
    }

    /// What is pushed next is of this version.
    fn event(mut self, resource: &str, kind: &str, mut object: Value) -> Self {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.push(json!({"kind": "watch", "resource": resource, "event": {"type": kind, "object": object}}))
    }

    /// A Deployment of two in namespace `one`, at a generation, with this many new and available pods.
    fn shop(self, kind: &str, generation: i64, updated: i64, available: i64) -> Self {
        self.event("deployments", kind, shop("one", generation, updated, available))
    }

    fn starts(self, args: &[&str]) -> Self {
        self.push(json!({"kind": "kubectl", "event": "started", "args": args}))
    }

    fn says(self, text: &str) -> Self {
        self.push(json!({"kind": "kubectl", "event": "line", "text": text}))
    }

    fn exits(self, code: i64) -> Self {
        self.push(json!({"kind": "kubectl", "event": "exited", "code": code}))
    }

    fn runs(&self) -> Vec<Run> {
        let text: Vec<String> = self.lines.iter().map(ToString::to_string).collect();
        let recording = recording::read(text.iter().map(String::as_str)).unwrap();
        replay(&recording, &Options::default()).unwrap()
    }

    #[track_caller]
    fn agrees(&self) -> Run {
        let mut runs = self.runs();
        for run in &runs {
            assert_eq!(run.disagreements, [""; 0], "{:#?}", run.rows);
        }
        runs.pop().unwrap()
    }

    #[track_caller]
    fn disagrees(&self, words: &str) {
        let all: Vec<String> = self
            .runs()
            .into_iter()
            .flat_map(|run| run.disagreements)
            .collect();
        assert!(all.iter().any(|one| one.contains(words)), "{words:?} in {all:#?}");
    }
}

fn shop(namespace: &str, generation: i64, updated: i64, available: i64) -> Value {
    json!({
        "metadata": {
            "name": "shop", "namespace": namespace, "uid": format!("uid-{namespace}"), "generation": generation,
            "creationTimestamp": "2026-11-01T12:00:00Z",
            "annotations": {"deployment.kubernetes.io/revision": generation.to_string()},
        },
        "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [
            {"name": "app", "image": format!("registry.example/shop:{generation}")},
        ]}}},
        "status": {
            "observedGeneration": generation, "replicas": 2, "updatedReplicas": updated,
            "availableReplicas": available,
        },
    })
}

fn out_of(updated: i64) -> String {
    format!(
        "Waiting for deployment \"shop\" rollout to finish: {updated} out of 2 new replicas have been updated..."
    )
}

fn available(available: i64) -> String {
    format!(
        "Waiting for deployment \"shop\" rollout to finish: {available} of 2 updated replicas are available..."
    )
}

/// From nothing to done, asked in this form.
fn plain(args: &[&str]) -> Tape {
    Tape::new()
        .shop("ADDED", 1, 0, 0)
        .starts(args)
        .says(&out_of(0))
        .shop("MODIFIED", 1, 2, 0)
        .says(&available(0))
        .shop("MODIFIED", 1, 2, 2)
        .says(DONE)
        .exits(0)
}

#[test]
fn forms_of_the_command() {
    for args in [
        &["rollout", "status", "deployment/shop", "--timeout=40s"][..],
        &["kubectl", "rollout", "status", "deploy/shop"],
        &["rollout", "status", "deployment", "shop", "-n", "one"],
        &[
            "--namespace=one",
            "rollout",
            "status",
            "deployments.apps/shop",
            "-w",
        ],
        &[
            "-n=one",
            "--kubeconfig",
            "/tmp/config",
            "rollout",
            "status",
            "--timeout",
            "1m30s",
            "deployments.v1.apps",
            "shop",
        ],
        &["rollout", "status", "deploy", "-none"],
        &["rollout", "status", "-l", "app=shop", "--watch=true"],
        &[
            "rollout",
            "status",
            "-f",
            "shop.yaml",
            "--context",
            "test",
            "--v=2",
        ],
        &["rollout", "status", "--revision=1", "Deployment/shop"],
    ] {
        let run = plain(args).agrees();
        assert_eq!(run.exit, Some(0));
        assert!(
            matches!(run.additions, Some((_, Verdict::Complete))),
            "{args:?}: {run:#?}"
        );
    }
    // Other commands are not judged.
    let mut tape =
        plain(&["rollout", "status", "deploy/shop"]).starts(&["rollout", "restart", "deploy/shop"]);
    tape = tape.says("deployment.apps/shop restarted").exits(0);
    assert_eq!(tape.runs().len(), 1);
}

#[test]
fn asked_once() {
    let once = |code: i64| {
        Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop", "--watch=false"])
            .says(&out_of(0))
            .exits(code)
            .wait(9000)
            .shop("MODIFIED", 1, 2, 2)
    };
    once(0).agrees();
    once(1).disagrees("exits with 1");
    Tape::new()
        .shop("ADDED", 1, 0, 0)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(&out_of(0))
        .exits(0)
        .disagrees("the rollout goes on");
}

#[test]
fn another_revision() {
    let rolled_over = |words: &str| {
        Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop", "--revision=1"])
            .says(&out_of(0))
            .shop("MODIFIED", 2, 0, 0)
            .says(words)
            .exits(1)
    };
    rolled_over("error: desired revision (1) is different from the running revision (2)").agrees();
    rolled_over("error: desired revision (1) is different from the running revision (3)").disagrees("(3)");
}

#[test]
fn deleted_not_found_and_made_anew() {
    let deleted = Tape::new()
        .shop("ADDED", 1, 0, 0)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(&out_of(0))
        .shop("DELETED", 1, 0, 0)
        .says("error: object has been deleted")
        .exits(1);
    let run = deleted.agrees();
    match run.additions {
        Some((_, Verdict::Failed(failure))) => assert_eq!(failure.reason, FailureReason::Deleted),
        other => panic!("{other:?}"),
    }
    let not_found = "Error from server (NotFound): deployments.apps \"shop\" not found";
    let again = deleted
        .wait(8000)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(not_found)
        .exits(1);
    again.agrees();
    let mut anew = shop("one", 1, 2, 2);
    anew["metadata"]["uid"] = json!("another");
    again
        .event("deployments", "ADDED", anew)
        .wait(5000)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(DONE)
        .exits(0)
        .agrees();
    plain(&["rollout", "status", "deploy/shop"])
        .starts(&["rollout", "status", "sts/absent"])
        .says("Error from server (NotFound): statefulsets.apps \"absent\" not found")
        .exits(1)
        .agrees();
    // It is there.
    Tape::new()
        .shop("ADDED", 1, 2, 2)
        .wait(9000)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(not_found)
        .exits(1)
        .disagrees("not found");
}

#[test]
fn timeouts() {
    let until = |ms: i64| {
        Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop", "--timeout=12s"])
            .says(&out_of(0))
            .wait(ms)
            .says("error: timed out waiting for the condition")
            .exits(1)
    };
    until(12_000).agrees();
    until(4000).disagrees("before its 12s had passed");
    // We would have been done long before.
    Tape::new()
        .shop("ADDED", 1, 0, 0)
        .starts(&["rollout", "status", "deploy/shop", "--timeout=12s"])
        .says(&out_of(0))
        .shop("MODIFIED", 1, 2, 2)
        .wait(12_000)
        .says("error: timed out waiting for the condition")
        .exits(1)
        .disagrees("successfully rolled out");
}

#[test]
fn others_in_between() {
    // The same name in another namespace, kinds that were not requested, bookmarks, lines of a later format.
    Tape::new()
        .event("deployments", "ADDED", shop("two", 7, 2, 2))
        .shop("ADDED", 1, 0, 0)
        .push(json!({"kind": "heartbeat", "load": 3}))
        .starts(&["rollout", "status", "deploy/shop"])
        .event("deployments", "MODIFIED", shop("two", 8, 1, 1))
        .event("nodes", "ADDED", json!({"metadata": {"name": "node-1"}}))
        .event(
            "events",
            "ADDED",
            json!({"metadata": {"name": "e", "namespace": "one"}, "message": "x"}),
        )
        .says(&out_of(0))
        .event("deployments", "BOOKMARK", json!({"metadata": {}}))
        .push(json!({"kind": "kubectl", "event": "resized"}))
        .push(json!({"kind": "watch", "resource": "pods"}))
        .says("W1121 07:46:18.000000   12 warnings.go:70] something is deprecated")
        .shop("MODIFIED", 1, 2, 2)
        .event("deployments", "DELETED", shop("two", 8, 1, 1))
        .says(DONE)
        .exits(0)
        .agrees();
    // Two at once, distinguished by the recorder.
    let run = |line: Value, run: i64| {
        let mut line = line;
        line["kind"] = json!("kubectl");
        line["run"] = json!(run);
        line
    };
    let status = |namespace: &str| json!({"event": "started", "args": ["rollout", "status", "deploy/shop", "-n", namespace]});
    Tape::new()
        .shop("ADDED", 1, 0, 0)
        .event("deployments", "ADDED", shop("two", 1, 2, 2))
        .push(run(status("one"), 1))
        .push(run(status("two"), 2))
        .push(run(json!({"event": "line", "text": out_of(0)}), 1))
        .push(run(json!({"event": "line", "text": DONE}), 2))
        .push(run(json!({"event": "exited", "code": 0}), 2))
        .shop("MODIFIED", 1, 2, 2)
        .push(run(json!({"event": "line", "text": DONE}), 1))
        .push(run(json!({"event": "exited", "code": 0}), 1))
        .agrees();
}

#[test]
fn what_the_recorder_could_not_see_is_not_held_against_kubectl() {
    let lost = |interrupted: bool| {
        let mut tape = Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop"])
            .says(&out_of(0));
        if interrupted {
            tape = tape.push(json!({"kind": "watch", "resource": "deployments",
                "event": {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}}));
        }
        tape.says(&out_of(1))
            .says(&available(0))
            .shop("ADDED", 1, 2, 1)
            .says(&available(1))
            .shop("MODIFIED", 1, 2, 2)
            .says(DONE)
            .exits(0)
    };
    lost(true).agrees();
    lost(false).disagrees("1 out of 2");
}

#[test]
fn several_objects_one_after_the_other() {
    let named = |name: &str, updated: i64| {
        let mut object = shop("one", 1, updated, updated);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(name);
        object
    };
    let done = |name: &str| DONE.replace("shop", name);
    Tape::new()
        .event("deployments", "ADDED", named("b", 2))
        .event("deployments", "ADDED", named("a", 0))
        .starts(&["rollout", "status", "deployment"])
        .says(&out_of(0).replace("shop", "a"))
        .event("deployments", "MODIFIED", named("a", 2))
        .says(&done("a"))
        .says(&done("b"))
        .exits(0)
        .agrees();
}

#[test]
fn kubectls_own_failures_are_not_verdicts() {
    for words in [
        "Unable to connect to the server: dial tcp 127.0.0.1:6443: connect: connection refused",
        "Error from server (Forbidden): deployments.apps \"shop\" is forbidden: User \"x\" cannot get resource",
    ] {
        let run = Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop"])
            .says(words)
            .exits(1)
            .agrees();
        assert!(
            run.notes[0].contains("kubectl failed by itself"),
            "{:?}",
            run.notes
        );
    }
    // Killed, and a recording that is cut off.
    let begun = || {
        Tape::new()
            .shop("ADDED", 1, 0, 0)
            .starts(&["rollout", "status", "deploy/shop"])
            .says(&out_of(0))
    };
    assert!(begun().exits(-15).agrees().notes[0].contains("signal"));
    assert!(begun().agrees().notes[0].contains("ends before kubectl"));
}

#[test]
fn superseded_on_the_way() {
    let run = Tape::new()
        .shop("ADDED", 1, 0, 0)
        .starts(&["rollout", "status", "deploy/shop"])
        .says(&out_of(0))
        .shop("MODIFIED", 2, 1, 1)
        .says(&out_of(1))
        .shop("MODIFIED", 2, 2, 2)
        .says(DONE)
        .exits(0)
        .agrees();
    // kubectl goes along with whatever comes; what was asked for does not run.
    match run.additions {
        Some((_, Verdict::Failed(failure))) => {
            assert_eq!(failure.reason, FailureReason::Superseded);
            assert!(failure.message.contains("registry.example/shop:2"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn lies_are_found() {
    let plain = || plain(&["rollout", "status", "deploy/shop"]);
    let change = |index: usize, key: &str, value: Value| {
        let mut tape = plain();
        tape.lines[index][key] = value;
        tape
    };
    // Lines: header, ADDED, started, 0 out of 2, MODIFIED, 0 of 2, MODIFIED, done, exited.
    change(3, "text", json!(out_of(1))).disagrees("1 out of 2");
    change(5, "text", json!(available(1))).disagrees("1 of 2");
    change(5, "text", json!(DONE)).disagrees("successfully");
    change(
        7,
        "text",
        json!("error: deployment \"shop\" exceeded its progress deadline"),
    )
    .disagrees("deadline");
    change(7, "text", json!("")).disagrees("exits with 0");
    change(8, "code", json!(1)).disagrees("exits with 1");
    let mut missing = plain();
    missing.lines.remove(5);
    missing.disagrees("successfully");
    let mut late = plain();
    for line in &mut late.lines[5..] {
        line["t_ms"] = json!(line["t_ms"].as_i64().unwrap() + 60_000);
    }
    late.lines[4]["t_ms"] = json!(80);
    late.lines[6]["t_ms"] = json!(120);
    late.disagrees("0 of 2");
}

#[test]
fn what_is_no_recording() {
    let read = |text: &str| recording::read(text.lines()).unwrap_err().to_string();
    assert!(read("nonsense").starts_with("line 1: not JSON"));
    assert!(read("{\"kind\":\"header\"}\n[1]").starts_with("line 2: a JSON object was expected"));
    assert!(read("").contains("nothing in it"));
    assert!(read("{\"kind\":\"header\"}\n\n").contains("nothing in it"));
    assert!(read("{\"kind\":\"kubectl\",\"event\":\"line\"}").contains("line 1: kubectl without t_ms"));
    let bad = Tape::new()
        .event(
            "deployments",
            "ADDED",
            json!({"metadata": {"name": "shop"}, "spec": {"replicas": "two"}}),
        )
        .starts(&["rollout", "status", "deploy/shop"]);
    let text: Vec<String> = bad.lines.iter().map(ToString::to_string).collect();
    let recording = recording::read(text.iter().map(String::as_str)).unwrap();
    let error = replay(&recording, &Options::default()).unwrap_err().to_string();
    assert!(
        error.starts_with("line 2: this is not an object of deployments"),
        "{error}"
    );
}
