//! The stored form of the events of releases and lanes. A file that differs breaks what is stored already: add a field
//! with a default instead. `SLIPWAY_BLESS=1` writes files that are missing.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use deploy_svc::{
    catalog::Catalog,
    lane::LaneEvent,
    plan::{Plan, Wanted},
    reason::Reason,
    release::{
        Advance, BuiltImage, ChangeMade, Facts, ReleaseEvent, ReleaseStatus, Request, StepKind, StepStatus,
        Stop, Then, Waiting, WaitingKind,
    },
};
use pretty_assertions::assert_eq;
use serde::{Serialize, de::DeserializeOwned};
use slipway_model::{Actor, Id, Principal, Timestamp};

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

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn alice() -> Actor {
    Actor::direct(Principal::new("token", "alice"))
}

fn image() -> BuiltImage {
    BuiltImage {
        name: "registry.example/shop".parse().unwrap(),
        digest: format!("sha256:{}", "b".repeat(64)).parse().unwrap(),
        tags: vec!["1a2b3c4".parse().unwrap()],
    }
}

fn check<E: Serialize + DeserializeOwned + Debug + PartialEq>(kind: &str, name: &str, event: &E) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{kind}/{name}.json"));
    let json = serde_json::to_value(event).unwrap();
    if !path.exists() && std::env::var_os("SLIPWAY_BLESS").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json, golden, "{}", path.display());
    assert_eq!(&serde_json::from_value::<E>(golden).unwrap(), event);
}

#[test]
fn events_of_releases_keep_their_json_form() {
    let wanted = Wanted {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: Some("main".parse().unwrap()),
        environments: vec!["dev".to_owned()],
    };
    let request = Request {
        plan: Plan::make(&Catalog::parse(CATALOG).unwrap(), &wanted).unwrap(),
        requested_by: Actor {
            on_behalf_of: Some(Principal::new("token", "bob")),
            ..alice()
        },
        labels: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        image: Some(image()),
        caller: Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        ),
    };
    let full = Request {
        plan: Plan::make(
            &Catalog::parse(FULL).unwrap(),
            &Wanted {
                environments: Vec::new(),
                branch: None,
                ..wanted
            },
        )
        .unwrap(),
        ..request.clone()
    };
    let step = "dev/deploy".to_owned();
    let change = ChangeMade {
        change: id("chg-1"),
        commit: "2".repeat(40).parse().unwrap(),
        no_op: false,
        previous: Some(image()),
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
        image: image(),
        authors: vec!["alice@example.com".to_owned()],
    };
    for (name, event) in [
        ("requested", ReleaseEvent::Requested(Box::new(request))),
        ("requested_full", ReleaseEvent::Requested(Box::new(full))),
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
                waiting: Waiting {
                    kind: WaitingKind::Machine,
                    message: "1 of 3 new pods ready".to_owned(),
                },
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
            "stop_cancelled",
            ReleaseEvent::StopRequested(Stop::Cancelled {
                by: alice(),
                reason: "wrong commit".to_owned(),
            }),
        ),
        (
            "stop_superseded",
            ReleaseEvent::StopRequested(Stop::Superseded { by: id("rel-2") }),
        ),
        (
            "stop_deadline",
            ReleaseEvent::StopRequested(Stop::Deadline { step: step.clone() }),
        ),
        ("stopping", ReleaseEvent::Stopping { step: step.clone() }),
        ("overdue", ReleaseEvent::Overdue { step: step.clone() }),
        ("advanced", advance(Facts::None, next())),
        ("advanced_built", advance(built, next())),
        ("advanced_lane", advance(Facts::Lane { epoch: 7 }, next())),
        ("advanced_changed", advance(Facts::Changed(change), next())),
        ("advanced_to_the_end", advance(Facts::None, failed)),
        ("advanced_to_prepare", advance(Facts::None, prepare)),
        ("advanced_skipped", skipped),
    ] {
        check("release", name, &event);
    }
}

#[test]
fn events_of_lanes_keep_their_json_form() {
    let release = id("rel-1");
    for (name, event) in [
        (
            "entered",
            LaneEvent::Entered {
                release: release.clone(),
                ticket: 2,
                yields: true,
                started: None,
            },
        ),
        (
            "entered_started",
            LaneEvent::Entered {
                release: release.clone(),
                ticket: 2,
                yields: true,
                started: Some(Timestamp::from_micros(1_700_000_000_000_000)),
            },
        ),
        (
            "superseded",
            LaneEvent::Superseded {
                release: release.clone(),
                by: id("rel-2"),
            },
        ),
        (
            "granted",
            LaneEvent::Granted {
                release: release.clone(),
                ticket: 2,
                epoch: 5,
            },
        ),
        (
            "changed",
            LaneEvent::Changed {
                release: release.clone(),
            },
        ),
        (
            "left",
            LaneEvent::Left {
                release: release.clone(),
                through: false,
            },
        ),
        (
            "left_through",
            LaneEvent::Left {
                release,
                through: true,
            },
        ),
    ] {
        check("lane", name, &event);
    }
}
