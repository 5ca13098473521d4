//! The main job with four separate services, two replicas of each, PostgreSQL and Redis: a commit becomes a verified
//! rollout, and a bad one is rolled back.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{collections::BTreeSet, sync::Arc};

use slipway_proto::release::v1::{CancelReleaseRequest, Release, StartReleaseRequest, release::Status, step};
use slipway_server::ErrorView;
use slipway_tests::{
    Options, Suite, Version,
    clients::{is_pending, told},
    scene::{Service, trailer},
    suite::Shared,
};
use tonic::Code;

static SUITE: Shared = Shared::new();

const ALL: &[(&str, &str)] = &[("dev", "none"), ("staging", "one"), ("prod", "two")];

fn options() -> Options {
    let mut shop = Service::new("shop", ALL);
    shop.replicas = 2;
    let mut argo = Service::new("argo", ALL);
    argo.argo_cd = true;
    Options {
        services: vec![
            shop,
            argo,
            Service::new("gated", &[("prod", "one")]),
            Service::new("cancelled", &[("dev", "none"), ("prod", "one")]),
            Service::new("lanes", &[("dev", "none")]),
        ],
        ..Options::default()
    }
}

async fn suite() -> Arc<Suite> {
    SUITE.get(options).await
}

fn assert_status(release: &Release, wanted: Status) {
    assert_eq!(release.status(), wanted, "{}", told(Some(release)));
}

/// Takes a release through staging and prod, with the people who may approve.
async fn approve_everything(suite: &Suite, release: &str) {
    let (alice, bob, carol) = (
        suite.client("alice", 0),
        suite.client("bob", 1),
        suite.client("carol", 0),
    );
    let staging = bob.approval_for(release, "staging").await;
    let refused = alice.approve(&staging).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(ErrorView::of(&refused).reason, "SELF_APPROVAL");
    bob.approve(&staging).await.unwrap();
    let prod = carol.approval_for(release, "prod").await;
    assert!(
        is_pending(&bob.approve(&prod).await.unwrap()),
        "one of two is not enough"
    );
    carol.approve(&prod).await.unwrap();
}

/// What must hold after a release that succeeded everywhere.
fn check_success(suite: &Suite, service: &str, version: &str, release: &Release, environments: &[&str]) {
    assert_status(release, Status::Succeeded);
    assert!(release.waiting_on.is_none() && release.end_time.is_some());
    let digest = &release.images[0].digest;
    for environment in environments {
        let namespace = suite.namespace(service, environment);
        assert_eq!(
            suite.cluster.get(&namespace, service, "version").unwrap(),
            version,
            "{environment}"
        );
        assert_eq!(
            suite.gitops.wanted_digest(service, environment).as_ref(),
            Some(digest),
            "{environment}"
        );
        let running: BTreeSet<String> = suite.cluster.running_digests(&namespace).into_iter().collect();
        assert_eq!(running, BTreeSet::from([digest.clone()]), "{environment}");
        let overlay = suite.gitops.overlay(service, environment);
        assert!(
            overlay.contains("# written by Slipway; comments stay where they are"),
            "{overlay}"
        );
    }
    // The end of one step and the queueing of the next are the same moment, so the parts sum to the whole.
    let spent = release.time_spent.as_ref().unwrap();
    let nanos = |time: &Option<prost_types::Duration>| {
        time.as_ref()
            .map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos))
    };
    assert_eq!(
        nanos(&spent.total),
        nanos(&spent.machine) + nanos(&spent.human) + nanos(&spent.lane)
    );
    assert_eq!(release.trace_id.len(), 32);
    let spans: BTreeSet<&str> = release.steps.iter().map(|step| step.span_id.as_str()).collect();
    assert_eq!(
        spans.len(),
        release.steps.len(),
        "each step has a span of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_goes_to_production_and_a_bad_one_is_put_back() {
    let suite = suite().await;
    good_and_bad(&suite, "shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_through_applications_of_argo_cd() {
    let suite = suite().await;
    assert!(
        suite.has_argo_cd(),
        "nothing is known to sync Applications in the cluster that is given: leave this test out with --skip argo_cd"
    );
    good_and_bad(&suite, "argo").await;
}

/// A release that succeeds everywhere, and one whose health check fails in the first environment.
async fn good_and_bad(suite: &Suite, service: &'static str) {
    let alice = suite.client("alice", 0);
    let application = suite.application(service);

    // Release A: built once, dev at once, staging after one approval, prod after two by people other than the
    // requester.
    let commit = application.commit(Version::Good("A"));
    let started = alice.start(service, &commit).await;
    approve_everything(suite, &started.id).await;
    // Another replica than the one that received the request.
    let good = suite.client("alice", 1).finished(&started.id).await;
    check_success(suite, service, "A", &good, &["dev", "staging", "prod"]);
    let tags = suite.tags(service).await;
    assert!(
        tags.contains(&commit) && tags.contains(&commit[..7].to_owned()),
        "{tags:?}"
    );
    let build = good
        .steps
        .iter()
        .find(|step| step.kind() == step::Kind::Build)
        .unwrap();
    let build = alice.build(&build.r#ref).await;
    assert_eq!(
        build.image.as_ref().unwrap().tags.len(),
        tags.len(),
        "one set of tags: {tags:?}"
    );

    // Release B: its /health fails, so its deployment to dev fails and dev serves A again.
    let commit = application.commit(Version::Sick("B"));
    let started = alice.start(service, &commit).await;
    let bad = suite.client("bob", 1).finished(&started.id).await;
    assert_status(&bad, Status::RolledBack);
    assert_eq!(
        bad.reason.as_ref().unwrap().code,
        "CHECK_FAILED",
        "{}",
        told(Some(&bad))
    );
    let evidence = format!("{:?}", bad.evidence);
    assert!(
        evidence.contains("cannot reach the database at db.internal:5432"),
        "{evidence}"
    );
    assert_eq!(
        suite
            .cluster
            .get(&suite.namespace(service, "dev"), service, "version")
            .unwrap(),
        "A"
    );
    let digest = &good.images[0].digest;
    assert_eq!(suite.gitops.wanted_digest(service, "dev").as_ref(), Some(digest));
    assert!(
        !bad.steps.iter().any(|step| step.environment == "staging"),
        "{}",
        told(Some(&bad))
    );

    // One commit for each environment, and one revert.
    let commits = suite.gitops.commits_of(service);
    let environments: Vec<&str> = commits
        .iter()
        .map(|commit| trailer(commit, "Environment").unwrap())
        .collect();
    assert_eq!(environments, ["dev", "staging", "prod", "dev", "dev"]);
    let changes: BTreeSet<&str> = commits
        .iter()
        .map(|commit| trailer(commit, "Slipway-Change").unwrap())
        .collect();
    assert_eq!(changes.len(), commits.len(), "no change was written twice");
    let releases: Vec<&str> = commits
        .iter()
        .map(|commit| trailer(commit, "Slipway-Release").unwrap())
        .collect();
    assert_eq!(releases, [&good.id, &good.id, &good.id, &bad.id, &bad.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_release_takes_the_place_of_one_that_has_changed_nothing() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let application = suite.application("gated");
    let old = alice
        .start("gated", &application.commit(Version::Good("old")))
        .await;
    let waiting = bob.approval_for(&old.id, "prod").await;

    let new = suite
        .client("alice", 1)
        .start("gated", &application.commit(Version::Good("new")))
        .await;
    let approval = bob.approval_for(&new.id, "prod").await;
    let old = alice.finished(&old.id).await;
    assert_status(&old, Status::Superseded);
    // Its approval is withdrawn: no one can decide on it any more.
    let refused = bob.approve(&waiting).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    bob.approve(&approval).await.unwrap();
    let new = alice.finished(&new.id).await;
    check_success(&suite, "gated", "new", &new, &["prod"]);
    assert_eq!(suite.gitops.commits_of("gated").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_release_leaves_what_was_there() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 1));
    let application = suite.application("cancelled");
    let commit = application.commit(Version::Good("first"));
    let release = alice.start("cancelled", &commit).await;
    let approval = bob.approval_for(&release.id, "prod").await;
    let cancel = CancelReleaseRequest {
        id: release.id.clone(),
        reason: "not today".to_owned(),
    };
    suite
        .client("alice", 1)
        .releases
        .clone()
        .cancel_release(cancel)
        .await
        .unwrap();
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::Cancelled);
    assert!(
        release.reason.as_ref().unwrap().message.contains("not today"),
        "{}",
        told(Some(&release))
    );
    let refused = bob.approve(&approval).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    // dev got it before, and keeps it; prod was never touched.
    assert_eq!(
        suite
            .cluster
            .get(&suite.namespace("cancelled", "dev"), "cancelled", "version")
            .unwrap(),
        "first"
    );
    let commits = suite.gitops.commits_of("cancelled");
    assert_eq!(commits.len(), 1, "{commits:?}");
    assert_eq!(suite.gitops.wanted_digest("cancelled", "prod"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_of_one_target_follow_each_other() {
    let suite = suite().await;
    let application = suite.application("lanes");
    let commits: Vec<String> = ["one", "two"]
        .map(|name| application.commit(Version::Good(name)))
        .to_vec();
    let (left, right) = (suite.client("alice", 0), suite.client("alice", 1));
    let first = left.start("lanes", &commits[0]).await;
    // Places in the lane are assigned when the image exists, so that a slow build does not hold up others.
    let first = left
        .release_until(&first.id, "built", |release| release.steps.len() > 1)
        .await;
    let second = right.start("lanes", &commits[1]).await;
    let (first, second) = tokio::join!(right.finished(&first.id), left.finished(&second.id));
    // Either the first was done, or it had changed nothing when the second came.
    assert!(
        [Status::Succeeded, Status::Superseded].contains(&first.status()),
        "{}",
        told(Some(&first))
    );
    let made = 1 + usize::from(first.status() == Status::Succeeded);
    check_success(&suite, "lanes", "two", &second, &["dev"]);
    let commits = suite.gitops.commits_of("lanes");
    assert_eq!(commits.len(), made, "{commits:?}");
    assert_eq!(
        trailer(commits.last().unwrap(), "Slipway-Release"),
        Some(second.id.as_str())
    );
    // They never held the target at the same time.
    if first.status() == Status::Succeeded {
        let end = |release: &Release| release.end_time.unwrap();
        let entered = second
            .steps
            .iter()
            .find(|step| step.kind() == step::Kind::Lane)
            .unwrap()
            .end_time
            .unwrap();
        let (left, entered) = (end(&first), (entered.seconds, entered.nanos));
        assert!(
            entered >= (left.seconds, left.nanos),
            "{}\n{}",
            told(Some(&first)),
            told(Some(&second))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_has_changed_is_not_started() {
    let suite = suite().await;
    let commit = suite.application("lanes").repository.head("main").unwrap();
    let request = StartReleaseRequest {
        service: "lanes".to_owned(),
        commit,
        plan_hash: format!("sha256:{}", "0".repeat(64)),
        ..StartReleaseRequest::default()
    };
    let refused = suite.client("alice", 0).try_start(request).await.unwrap_err();
    assert_eq!(ErrorView::of(&refused).reason, "PLAN_CHANGED");
}

/// Facts on the bus are hints: without them everything takes longer, but nothing else changes.
#[tokio::test(flavor = "multi_thread")]
async fn releases_go_on_when_redis_is_emptied_and_then_gone() {
    let mut shop = Service::new("shop", ALL);
    shop.replicas = 2;
    let suite = Suite::start(Options {
        services: vec![shop],
        ..Options::default()
    })
    .await;
    let (alice, bob, carol) = (
        suite.client("alice", 0),
        suite.client("bob", 1),
        suite.client("carol", 0),
    );
    let application = suite.application("shop");

    let release = alice.start("shop", &application.commit(Version::Good("A"))).await;
    let staging = bob.approval_for(&release.id, "staging").await;
    suite.redis.flush_all().await.unwrap();
    bob.approve(&staging).await.unwrap();
    let prod = bob.approval_for(&release.id, "prod").await;
    suite.redis.stop().await;
    bob.approve(&prod).await.unwrap();
    carol.approve(&prod).await.unwrap();
    let release = alice.finished(&release.id).await;
    check_success(&suite, "shop", "A", &release, &["dev", "staging", "prod"]);

    // Also from beginning to end, and back.
    let bad = alice.start("shop", &application.commit(Version::Sick("B"))).await;
    let bad = alice.finished(&bad.id).await;
    assert_status(&bad, Status::RolledBack);
    assert_eq!(
        suite
            .cluster
            .get(&suite.namespace("shop", "dev"), "shop", "version")
            .unwrap(),
        "A"
    );
    assert_eq!(suite.gitops.commits_of("shop").len(), 5);
}

/// Nothing is lost with a replica that dies: the others take its leases when they lapse.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_replicas_go_on_when_one_of_each_is_killed() {
    let services = vec![Service::new("shop", &[("dev", "none"), ("prod", "one")])];
    let mut suite = Suite::start(Options {
        services,
        ..Options::default()
    })
    .await;
    let commit = suite.application("shop").commit(Version::Good("A"));
    let release = suite.client("alice", 0).start("shop", &commit).await;
    for service in slipway_tests::programs::SERVICES {
        suite.kill(service, 0);
    }
    let bob = suite.client("bob", 1);
    let approval = bob.approval_for(&release.id, "prod").await;
    bob.approve(&approval).await.unwrap();
    let release = suite.client("alice", 1).finished(&release.id).await;
    check_success(&suite, "shop", "A", &release, &["dev", "prod"]);
    let commits = suite.gitops.commits_of("shop");
    assert_eq!(commits.len(), 2, "{commits:?}");
}
