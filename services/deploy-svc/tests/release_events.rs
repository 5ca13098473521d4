//! The stored form of the events of releases, lanes, and the watches over canaries.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchEvent, Watched},
    catalog::Catalog,
    lane::{Lane, LaneEvent},
    plan::{Plan, PlanRequest},
    release::{
        Advance, ChangeMade, Facts, Release, ReleaseEvent, ReleaseState, ReleaseStatus, Request, StepKind,
        StepStatus, Stop, Then, Waiting, WaitingKind,
    },
};
use pretty_assertions::assert_eq;
use slipway_ledger::Decider;
use slipway_model::{Actor, Authentication, Id, Image, Images, Principal, Reason, Timestamp};
use slipway_testbed::golden;
use slipway_verdict::before::{Before, RunningContainer};

const CATALOG: &str = r"
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, branch: main, path: apps/shop/dev, image: shop }
        target: { cluster: local, namespace: dev, kind: Deployment, name: shop }
        checks: [{ name: health, http: { service: shop, port: http, path: /health } }]
";

/// Everything that an environment can say and older plans do not.
const FULL: &str = r"
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: two
        gate: before_sync
        gitops: { repository: platform, strategy: helm, file: charts/shop/dev.yaml, value: image, mode: pull_request }
        target: { cluster: local, namespace: argocd, kind: Application, name: shop }
        argo_cd: { also: [shop-jobs], when_busy: refuse, prune: true, sync_options: [ServerSideApply=true] }
        jobs:
          before: [{ name: migrate, namespace: shop, retries: 1, pod: { containers: [{ name: migrate, args: [migrate] }] } }]
          after: [{ name: smoke, namespace: shop, pod: { containers: [{ name: smoke }] } }]
        bake: { for: 15m, metrics: [{ name: errors, query: up, max: 0.5 }] }
        verify: { progress_deadline: 8m }
        on_failure: stay
";

/// How long a canary is watched.
const WATCHED: &str = r"
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, path: apps/shop/dev }
        target: { cluster: local, namespace: dev, kind: Rollout, name: shop }
        canary_watch: 30m
";

/// What is said of an environment's place among the others.
const ORDERED: &str = r"
environments: [{ name: dev, tier: development }, { name: prod, tier: production }]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - { name: dev, policy: none, target: { cluster: local, namespace: dev, name: shop } }
      - { name: prod, policy: two, requires: [dev], target: { cluster: local, namespace: prod, name: shop } }
";

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn alice() -> Actor {
    Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken)
}

fn images() -> Images {
    Images::one(Image {
        name: "shop".parse().unwrap(),
        repository: "registry.example/shop".parse().unwrap(),
        digest: format!("sha256:{}", "b".repeat(64)).parse().unwrap(),
        tags: vec!["1a2b3c4".parse().unwrap()],
    })
}

#[test]
fn events_of_releases_keep_their_json_form() {
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: Some("main".parse().unwrap()),
        git_tag: None,
        environments: vec!["dev".to_owned()],
    };
    let request = Request {
        plan: Plan::make(&Catalog::parse(CATALOG).unwrap(), &wanted).unwrap(),
        requested_by: alice().on_behalf_of(Principal::new("token", "bob")),
        labels: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        images: Some(images()),
        rebuild: false,
        caller: Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        ),
    };
    let everywhere = PlanRequest {
        git_tag: None,
        environments: Vec::new(),
        branch: None,
        ..wanted
    };
    let by = |catalog: &str| Request {
        plan: Plan::make(&Catalog::parse(catalog).unwrap(), &everywhere).unwrap(),
        ..request.clone()
    };
    let (stepped, ordered, watched) = (by(FULL), by(ORDERED), by(WATCHED));
    let mut full = stepped.clone();
    full.plan.environments[0].timeout.follows_steps = false;
    full.plan = full.plan.hashed();
    let step = "dev/deploy".to_owned();
    let change = ChangeMade {
        change: id("chg-1"),
        commit: "2".repeat(40).parse().unwrap(),
        no_op: false,
        previous: Some(images()),
        previous_tag: None,
        previous_of_others: Vec::new(),
    };
    let advance = |facts, then| {
        ReleaseEvent::Advanced(Box::new(Advance {
            step: step.clone(),
            attempt: 1,
            status: StepStatus::Succeeded,
            reason: None,
            result: "runs bbbbbbbbbbbb".to_owned(),
            facts,
            then,
        }))
    };
    let recorded_before = |before| ReleaseEvent::Recorded {
        step: "dev/change".to_owned(),
        before,
    };
    let present = Before::Present {
        containers: vec![RunningContainer {
            name: "shop".to_owned(),
            image: "registry.example/shop:v1".to_owned(),
            digests: vec![images().only().digest.clone()],
        }],
    };
    let by_tag = ChangeMade {
        previous: None,
        previous_tag: Some("registry.example/shop:v1".parse().unwrap()),
        ..change.clone()
    };
    let next = || Then::Step {
        kind: StepKind::Lane,
        environment: Some(1),
    };
    let skipped = ReleaseEvent::Advanced(Box::new(Advance {
        step: "dev/redeploy".to_owned(),
        attempt: 1,
        status: StepStatus::Skipped,
        reason: Some(Reason::new(
            "NOTHING_TO_PUT_BACK",
            "Nothing was changed in the cluster",
        )),
        result: String::new(),
        facts: Facts::None,
        then: Then::End {
            status: ReleaseStatus::Failed,
            reason: Some(Reason::new("CHECK_FAILED", "health said 500")),
        },
    }));
    let prepare = Then::Step {
        kind: StepKind::Prepare,
        environment: Some(0),
    };
    let failed = Then::End {
        status: ReleaseStatus::Failed,
        reason: Some(Reason::new("CHECK_FAILED", "health said 500")),
    };
    let built = Facts::Built {
        images: images(),
        authors: vec!["alice@example.com".to_owned()],
    };
    let events = [
        ("requested.v2", ReleaseEvent::Requested(Box::new(request))),
        ("requested_full.v2", ReleaseEvent::Requested(Box::new(full))),
        ("requested_steps.v2", ReleaseEvent::Requested(Box::new(stepped))),
        ("requested_ordered.v2", ReleaseEvent::Requested(Box::new(ordered))),
        ("requested_watched.v2", ReleaseEvent::Requested(Box::new(watched))),
        (
            "started",
            ReleaseEvent::Started {
                step: step.clone(),
                attempt: 1,
                reference: id("dep-1"),
            },
        ),
        (
            "waiting",
            ReleaseEvent::Waiting {
                step: step.clone(),
                waiting: Waiting::new(WaitingKind::Machine, "1 of 3 new pods ready"),
            },
        ),
        ("recorded_absent", recorded_before(Before::Absent)),
        ("recorded_present", recorded_before(present)),
        (
            "waiting_retry",
            ReleaseEvent::Waiting {
                step: step.clone(),
                waiting: Waiting::new(WaitingKind::Machine, "building").retrying(Some(Reason::new(
                    "REGISTRY_UNAVAILABLE",
                    "registry.example: connection refused",
                ))),
            },
        ),
        (
            "stumbled",
            ReleaseEvent::Stumbled {
                step: step.clone(),
                reason: Reason::new("UNAVAILABLE", "build-svc: connection refused"),
                retry_at: Timestamp::from_micros(1_700_000_000_000_000),
            },
        ),
        ("retried", ReleaseEvent::Retried { step: step.clone() }),
        (
            "stop_cancelled.v2",
            ReleaseEvent::StopRequested(Stop::Cancelled {
                by: alice(),
                reason: "wrong commit".to_owned(),
            }),
        ),
        (
            "stop_superseded.v2",
            ReleaseEvent::StopRequested(Stop::Superseded { by: id("rel-2") }),
        ),
        (
            "stop_deadline.v2",
            ReleaseEvent::StopRequested(Stop::Deadline { step: step.clone() }),
        ),
        ("stopping", ReleaseEvent::Stopping { step: step.clone() }),
        ("overdue", ReleaseEvent::Overdue { step: step.clone() }),
        ("advanced.v2", advance(Facts::None, next())),
        ("advanced_built.v2", advance(built, next())),
        ("advanced_lane.v2", advance(Facts::Lane { epoch: 7 }, next())),
        ("advanced_changed.v2", advance(Facts::Changed(change), next())),
        ("advanced_changed_tag.v2", advance(Facts::Changed(by_tag), next())),
        ("advanced_to_the_end.v2", advance(Facts::None, failed)),
        ("advanced_to_prepare.v2", advance(Facts::None, prepare)),
        ("advanced_skipped.v2", skipped),
    ];
    let old = [
        "requested",
        "requested_full",
        "stop_cancelled",
        "stop_superseded",
        "stop_deadline",
        "advanced",
        "advanced_built",
        "advanced_lane",
        "advanced_changed",
        "advanced_to_the_end",
        "advanced_to_prepare",
        "advanced_skipped",
    ];
    golden::<Release>(&events, &old);
}

fn recorded(name: &str) -> (serde_json::Value, ReleaseEvent) {
    slipway_testbed::recorded::<Release>(name)
}

/// What was recorded before actors were chains is the same event.
#[test]
fn stops_of_the_first_form_are_the_same_events() {
    for name in ["stop_cancelled", "stop_superseded", "stop_deadline"] {
        assert_eq!(recorded(name).1, recorded(&format!("{name}.v2")).1);
    }
}

fn fold<'a>(events: impl IntoIterator<Item = &'a ReleaseEvent>) -> ReleaseState {
    let mut state = ReleaseState::default();
    for event in events {
        Release::evolve(&mut state, event, Timestamp::from_micros(1_700_000_000_000_000));
    }
    state
}

/// What was recorded before images had names and came in lists is read as it was, and comes to the same as the form of now.
/// Only the hash of a plan is that of its form, and stays as it was recorded: approvals are bound to it.
#[test]
fn events_of_the_first_form_come_to_the_same() {
    for name in ["requested", "requested_full"] {
        let ((json, old), (_, new)) = (recorded(name), recorded(&format!("{name}.v2")));
        // But for who asked: an actor of before there were chains is read as one.
        let mut shown = serde_json::to_value(&old).unwrap();
        shown["requested_by"] = json["requested_by"].clone();
        assert_eq!(shown, json, "{name}");
        let (of_old, mut of_new) = (fold([&old]), fold([&new]));
        let plan = of_new.plan.as_mut().unwrap();
        assert_ne!(json["plan"]["hash"], plan.hash, "{name}");
        json["plan"]["hash"].as_str().unwrap().clone_into(&mut plan.hash);
        assert_eq!(of_old, of_new, "{name}");
        let image = serde_json::json!([{ "name": "shop", "repository": "registry.example/shop" }]);
        assert_eq!(
            serde_json::to_value(of_old.plan.unwrap().images).unwrap(),
            image,
            "{name}"
        );
    }
    for (name, kind) in [
        ("advanced", StepKind::Deploy),
        ("advanced_built", StepKind::Deploy),
        ("advanced_lane", StepKind::Deploy),
        ("advanced_changed", StepKind::Deploy),
        ("advanced_to_the_end", StepKind::Deploy),
        ("advanced_to_prepare", StepKind::Deploy),
        ("advanced_skipped", StepKind::Redeploy),
    ] {
        let ((json, old), (_, new)) = (recorded(name), recorded(&format!("{name}.v2")));
        assert_eq!(serde_json::to_value(&old).unwrap(), json, "{name}");
        let before = [
            recorded("requested").1,
            ReleaseEvent::Advanced(Box::new(Advance {
                step: "dev/lane".to_owned(),
                attempt: 1,
                status: StepStatus::Succeeded,
                reason: None,
                result: String::new(),
                facts: Facts::None,
                then: Then::Step {
                    kind,
                    environment: Some(0),
                },
            })),
        ];
        let (of_old, of_new) = (
            fold(before.iter().chain([&old])),
            fold(before.iter().chain([&new])),
        );
        assert_ne!(of_old, fold(&before), "{name}");
        assert_eq!(of_old, of_new, "{name}");
    }
}

#[test]
fn events_of_lanes_keep_their_json_form() {
    let holder = id("rel-1");
    let events = [
        (
            "entered",
            LaneEvent::Entered {
                holder: holder.clone(),
                ticket: 2,
                yields: true,
                started: None,
                service: None,
            },
        ),
        (
            "entered_started",
            LaneEvent::Entered {
                holder: holder.clone(),
                ticket: 2,
                yields: true,
                started: Some(Timestamp::from_micros(1_700_000_000_000_000)),
                service: None,
            },
        ),
        (
            "entered_service",
            LaneEvent::Entered {
                holder: holder.clone(),
                ticket: 2,
                yields: true,
                started: Some(Timestamp::from_micros(1_700_000_000_000_000)),
                service: Some("shop".parse().unwrap()),
            },
        ),
        (
            "superseded",
            LaneEvent::Superseded {
                holder: holder.clone(),
                by: id("rel-2"),
            },
        ),
        (
            "granted",
            LaneEvent::Granted {
                holder: holder.clone(),
                ticket: 2,
                epoch: 5,
            },
        ),
        (
            "changed",
            LaneEvent::Changed {
                holder: holder.clone(),
            },
        ),
        (
            "left",
            LaneEvent::Left {
                holder: holder.clone(),
                through: false,
            },
        ),
        (
            "left_through",
            LaneEvent::Left {
                holder,
                through: true,
            },
        ),
    ];
    golden::<Lane>(&events, &[]);
}

#[test]
fn events_of_canary_watches_keep_their_json_form() {
    let reason = || Reason::new("ABORTED", "the rollout was aborted");
    let later = Timestamp::from_micros(1_700_000_000_000_000);
    let events = [
        (
            "began",
            CanaryWatchEvent::Began {
                watched: Watched {
                    release: id("rel-1"),
                    service: "shop".parse().unwrap(),
                    environment: "prod".parse().unwrap(),
                    deployment: id("dep-1"),
                    period: Duration::from_secs(3600),
                },
                until: later,
            },
        ),
        ("away", CanaryWatchEvent::Away { reason: reason() }),
        ("back", CanaryWatchEvent::Back {}),
        ("failed", CanaryWatchEvent::Failed { reason: reason() }),
        ("recovered", CanaryWatchEvent::Recovered {}),
        ("lane_held", CanaryWatchEvent::LaneHeld { holder: id("rel-2") }),
        (
            "stumbled",
            CanaryWatchEvent::Stumbled {
                reason: reason(),
                retry_at: later,
            },
        ),
        ("resumed", CanaryWatchEvent::Resumed {}),
        (
            "putting_back",
            CanaryWatchEvent::PuttingBack {
                deployment: id("dep-2"),
            },
        ),
        ("passed", CanaryWatchEvent::Passed { reason: None }),
        (
            "passed_unseen",
            CanaryWatchEvent::Passed {
                reason: Some(reason()),
            },
        ),
        ("superseded", CanaryWatchEvent::Superseded { reason: reason() }),
        ("put_back", CanaryWatchEvent::PutBack {}),
        ("not_put_back", CanaryWatchEvent::NotPutBack { reason: reason() }),
    ];
    golden::<CanaryWatch>(&events, &[]);
}
