//! Releases over a real ledger: who gets the target and when, and what each step asks of this service's own
//! deployments. The other services are answered for.
#![allow(clippy::unwrap_used)]

mod at_once;
mod release;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use at_once::AtOnce;
use deploy_domain::{
    deployment::{Action, Deployment, DeploymentCommand, DeploymentRequest},
    lane::{Lane, LaneCommand},
    release::{Observation, Release, ReleaseCommand, ReleaseState, ReleaseStatus, StepKind, StepStatus},
};
use deploy_svc::testing::{Deployments, Order, ReleaseEffects, StepBackend, Taken, lanes};
use pretty_assertions::assert_eq;
use release::{Answers, Pointed, World, ended, id, images, meta, until};
use slipway_kubernetes::Clusters;
use slipway_ledger::{Decider, EffectKey, Executor};
use slipway_model::{CommitSha, Id, Reason};
use slipway_verdict::{Applied, Previous};
use tokio_util::sync::CancellationToken;

const GIT: &str = "gitops: { repository: platform, path: apps/shop/dev }";
const JOBS: &str = "jobs: { before: [{ name: migrate, timeout: 5m, pod: { containers: [{ name: migrate }] } }], after: [{ name: smoke, timeout: 3m, pod: { containers: [{ name: smoke }] } }] }";
const BAKE: &str = "bake: { for: 10m, metrics: [{ name: errors, query: up, max: 1 }] }";

#[tokio::test]
async fn a_release_whose_build_took_longer_does_not_deploy_over_a_newer_one() {
    let world = World::new().await;
    let slow = world.start("rel-slow", &[GIT]).await;
    let quick = world.start("rel-quick", &[GIT]).await;
    for step in ["build", "dev/gate", "dev/change", "dev/deploy"] {
        world.well(&quick, step).await;
    }
    assert_eq!(world.state(&quick).await.status, ReleaseStatus::Succeeded);
    let late = world.well(&slow, "build").await;
    assert_eq!(
        ended(&late),
        (
            ReleaseStatus::Superseded,
            "rel-quick, which is newer, came for the same target before this one changed it"
        )
    );
    assert_eq!(world.holder().await, None);

    // The same while the newer one is still at its gate.
    let slow = world.start("rel-slow-2", &[GIT]).await;
    let quick = world.start("rel-quick-2", &[GIT]).await;
    world.well(&quick, "build").await;
    assert_eq!(world.well(&slow, "build").await.status, ReleaseStatus::Superseded);
    assert_eq!(world.holder().await, Some(quick));
}

#[tokio::test]
async fn one_that_is_to_wait_gets_its_turn_unless_a_newer_one_gets_through() {
    for quick_is_good in [true, false] {
        let world = World::new().await;
        let slow = world.start("rel-slow", &[GIT, "supersede: wait"]).await;
        let quick = world.start("rel-quick", &[GIT, "supersede: wait"]).await;
        for step in ["build", "dev/gate", "dev/change"] {
            world.well(&quick, step).await;
        }
        let waits = world.well(&slow, "build").await;
        assert_eq!(waits.active_step().map(|step| step.kind), Some(StepKind::Lane));
        if quick_is_good {
            world.well(&quick, "dev/deploy").await;
            assert_eq!(world.state(&slow).await.status, ReleaseStatus::Superseded);
        } else {
            let broken = Observation::Failed(Reason::new("CHECK_FAILED", "health said 500"));
            world.end(&quick, "dev/deploy", broken).await;
            world.well(&quick, "dev/revert").await;
            assert_eq!(
                world.holder().await,
                Some(quick.clone()),
                "until it is verified back"
            );
            world.well(&quick, "dev/redeploy").await;
            assert_eq!(world.holder().await, Some(slow.clone()));
        }
    }
}

#[tokio::test]
async fn a_lone_deployment_that_brought_something_newer_ends_those_that_waited_for_it() {
    for through in [true, false] {
        let world = World::new().await;
        let release = world.start("rel-1", &[GIT, "supersede: wait"]).await;
        let lane = id("pretended/dev/Deployment/shop");
        let alone = id("dep-alone");
        let enter = || LaneCommand::Enter {
            holder: id("dep-alone"),
            service: "shop".parse().unwrap(),
            yields: false,
            started: Some(slipway_model::Timestamp::now()),
        };
        world.ledger.execute::<Lane>(&lane, enter, &meta()).await.unwrap();
        world.well(&release, "build").await;
        let leave = async |tx: slipway_ledger::Tx| {
            lanes::leave(&tx, std::slice::from_ref(&lane), &alone, through).await
        };
        world.ledger.transact(&meta(), leave).await.unwrap();
        let state = world.state(&release).await;
        if through {
            assert_eq!(state.status, ReleaseStatus::Superseded);
            assert_eq!(world.holder().await, None);
        } else {
            assert_eq!(state.active_step().map(|step| step.kind), Some(StepKind::Gate));
            assert_eq!(world.holder().await, Some(release));
        }
    }
}

/// What the active step of a release asks of deployments.
async fn asked(world: &World, release: &Id) -> (Taken, Option<DeploymentRequest>) {
    let state = world.state(release).await;
    let order = Order::of(release, &state).unwrap();
    let taken = Deployments::new(world.ledger.clone()).start(order).await.unwrap();
    let deployment = world.ledger.get::<Deployment>(&taken.reference).await.unwrap();
    (taken, deployment.and_then(|deployment| deployment.state.request))
}

#[tokio::test]
async fn each_step_asks_for_its_own_part_of_a_deployment() {
    let world = World::new().await;
    let release = world
        .start("rel-1", &[GIT, JOBS, BAKE, "timeout: { deploy: 4m }"])
        .await;
    for step in ["build", "dev/gate"] {
        world.well(&release, step).await;
    }
    let (_, prepare) = asked(&world, &release).await;
    let prepare = prepare.unwrap();
    assert_eq!(prepare.action, Action::Nothing);
    assert_eq!((prepare.jobs.before.len(), prepare.jobs.after.len()), (1, 0));
    assert_eq!(
        (prepare.source, prepare.bake, prepare.checks.len()),
        (None, None, 0)
    );
    assert_eq!(prepare.timeout, Duration::from_secs(5 * 60 + 60));
    assert_eq!(prepare.epoch, 2);

    world.well(&release, "dev/prepare").await;
    world.well(&release, "dev/change").await;
    let (taken, deploy) = asked(&world, &release).await;
    let deploy = deploy.unwrap();
    assert_eq!(deploy.action, Action::Apply);
    assert_eq!(
        (deploy.jobs.before.len(), deploy.jobs.after.len()),
        (0, 1),
        "they have run"
    );
    assert!(deploy.bake.is_some());
    assert_eq!(
        deploy.timeout,
        Duration::from_secs(7 * 60),
        "with the Jobs after it"
    );
    assert_eq!((deploy.images, deploy.epoch), (images("b"), 2));
    let failed = taken.reference;

    let broken = Observation::Failed(Reason::new("CHECK_FAILED", "health said 500"));
    world.end(&release, "dev/deploy", broken).await;
    world.well(&release, "dev/revert").await;
    let (_, back) = asked(&world, &release).await;
    let back = back.unwrap();
    assert_eq!(
        (back.images, back.epoch),
        (images("a"), 3),
        "above what it replaces"
    );
    assert_eq!(
        back.source.unwrap().commit,
        "3".repeat(40).parse::<CommitSha>().unwrap()
    );
    assert_eq!(back.rolls_back, Some(failed));
    assert!(
        back.jobs.is_empty() && back.bake.is_none(),
        "what is put back is only verified"
    );
}

/// The release's deployment, begun, and taken by the cluster as it says.
async fn deployed(world: &World, release: &Id, applied: Option<Applied>) {
    let (taken, _) = asked(world, release).await;
    let deployment = taken.reference;
    let started = ReleaseCommand::Started {
        key: EffectKey::new("dev/deploy:start", 1),
        reference: deployment.clone(),
        observation: taken.observation,
    };
    world.tell(release, started).await;
    if let Some(applied) = applied {
        let applied = || DeploymentCommand::Applied {
            key: EffectKey::new("apply", 1),
            applied: applied.clone(),
        };
        world
            .ledger
            .execute::<Deployment>(&deployment, applied, &meta())
            .await
            .unwrap();
    }
    let observed = ReleaseCommand::Observed {
        key: EffectKey::new("dev/deploy:observe", 1),
        observation: Observation::Failed(Reason::new("CRASH_LOOP", "it crashes")),
    };
    world.tell(release, observed).await;
}

#[tokio::test]
async fn without_git_the_cluster_says_what_is_put_back() {
    let previous = |image: &str| Applied {
        previous: Some(Previous {
            revision: 4,
            image: image.parse().unwrap(),
        }),
        ..Applied::default()
    };
    let digest = images("a").only().digest.clone();
    let by_digest = format!("registry.example/shop@{digest}");
    for (image_before, looked_for) in [(by_digest.as_str(), true), ("registry.example/shop:1.4", false)] {
        let world = World::new().await;
        let release = world.start("rel-1", &[]).await;
        for step in ["build", "dev/gate"] {
            world.well(&release, step).await;
        }
        let (_, deploy) = asked(&world, &release).await;
        assert_eq!(deploy.unwrap().action, Action::SetImage);
        deployed(&world, &release, Some(previous(image_before))).await;
        let (_, back) = asked(&world, &release).await;
        let back = back.unwrap();
        let Action::Undo { to } = &back.action else {
            panic!("{:?}", back.action)
        };
        assert_eq!((to.revision, back.source), (4, None));
        assert_eq!(
            back.verify.digest, looked_for,
            "a tag says of no digest what it should be"
        );
        let image = back.images.only();
        assert_eq!(image.digest == digest, looked_for);
        assert_eq!(
            (image.name.as_str(), image.repository.as_str()),
            ("shop", "registry.example/shop")
        );
        assert_eq!(image.tags.is_empty(), looked_for, "the tag that it was named by");
        assert!(back.rolls_back.is_some());
        let end = world.well(&release, "dev/redeploy").await;
        assert_eq!(ended(&end), (ReleaseStatus::RolledBack, "it crashes"));
    }
}

#[tokio::test]
async fn without_git_and_without_a_version_before_it_ends_failed_and_says_so() {
    for (applied, words) in [
        (
            Some(Applied::default()),
            "it crashes. There was no version before it",
        ),
        (None, "it crashes. Nothing was changed in the cluster"),
    ] {
        let world = World::new().await;
        let release = world.start("rel-1", &[]).await;
        for step in ["build", "dev/gate"] {
            world.well(&release, step).await;
        }
        deployed(&world, &release, applied).await;
        let (taken, back) = asked(&world, &release).await;
        assert_eq!(back, None, "there is nothing to deploy");
        let end = world.end(&release, "dev/redeploy", taken.observation).await;
        let (status, message) = ended(&end);
        assert_eq!(status, ReleaseStatus::Failed);
        assert!(message.starts_with(words), "{message}");
        assert_eq!(
            end.steps.last().map(|step| step.status),
            Some(StepStatus::Skipped)
        );
        assert_eq!(world.holder().await, None);
    }
}

fn at(state: &ReleaseState, kind: StepKind) -> bool {
    let step = state.active_step();
    step.is_some_and(|step| step.kind == kind && step.reference.is_some() == (kind != StepKind::Lane))
}

/// With a gate before the sync, the change is made while people are still asked: a newer release waits, and takes
/// nothing away.
#[tokio::test]
async fn a_release_that_has_committed_before_its_gate_does_not_yield() {
    let world = World::new().await;
    let (hold, held) = tokio::sync::watch::channel(true);
    let orders = Arc::new(Mutex::new(Vec::new()));
    let answers = |held| {
        let orders = Arc::clone(&orders);
        Arc::new(Answers { held, orders })
    };
    let shutdown = CancellationToken::new();
    let releases = ReleaseEffects {
        ledger: world.ledger.clone(),
        builds: answers(None),
        tags: Arc::new(Pointed),
        approvals: answers(Some(held)),
        changes: answers(None),
        deployments: Arc::new(Deployments::new(world.ledger.clone())),
        clusters: Clusters::default(),
    };
    let executor = Executor::builder(world.ledger.clone())
        .register::<Release>(Arc::new(releases))
        .register::<Deployment>(Arc::new(AtOnce { beside: None }))
        .spawn(shutdown.clone());

    let first = world.start("rel-1", &[GIT, "gate: before_sync"]).await;
    until(&world, &first, |state| at(state, StepKind::Gate)).await;
    let second = world.start("rel-2", &[GIT, "gate: before_sync"]).await;
    until(&world, &second, |state| at(state, StepKind::Lane)).await;
    assert_eq!(world.state(&first).await.stop, None, "it is not superseded");
    assert_eq!(world.holder().await, Some(first.clone()));

    hold.send(false).unwrap();
    for release in [&first, &second] {
        world.ledger.hint(Release::KIND, release).await.unwrap();
        let end = until(&world, release, |state| state.status.is_final()).await;
        assert_eq!(ended(&end), (ReleaseStatus::Succeeded, ""));
        let steps: Vec<&str> = end.steps.iter().map(|step| step.kind.as_str()).collect();
        assert_eq!(steps, ["build", "lane", "change", "gate", "deploy"]);
    }
    shutdown.cancel();
    executor.drain().await;
    assert_eq!(
        orders.lock().unwrap().len(),
        6,
        "each order was given once: {orders:?}"
    );
}
