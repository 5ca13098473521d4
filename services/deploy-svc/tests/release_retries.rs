//! What a release tries again shows: calls that are made again, and looks that come to nothing.
#![allow(clippy::unwrap_used)]

mod release;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use deploy_domain::release::{Facts, Observation, Release, StepStatus, Waiting, WaitingKind};
use deploy_svc::testing::{Order, ReleaseEffects, Releases, StepBackend, Taken};
use futures::StreamExt;
use pretty_assertions::assert_eq;
use release::{Pointed, World, images};
use slipway_kubernetes::Clusters;
use slipway_ledger::{Decider, Executor, Snapshot};
use slipway_model::{Fault, Id, Reason};
use slipway_proto::{common::v1::Retry, release::v1 as proto};
use slipway_server::Resource;
use tokio_util::sync::CancellationToken;

const AWAY: u8 = 0;
const BUILDS: u8 = 1;
const AWAY_AGAIN: u8 = 2;
const BUILT: u8 = 3;

/// build-svc, which is away at times.
struct Builds(AtomicU8);

impl Builds {
    fn answer(&self) -> Result<Observation, Fault<Reason>> {
        match self.0.load(Ordering::SeqCst) {
            BUILDS => {
                let waiting = Waiting::new(WaitingKind::Machine, "building");
                Ok(Observation::Pending(waiting))
            }
            BUILT => Ok(Observation::Succeeded {
                result: String::new(),
                facts: Facts::Built {
                    images: images("b"),
                    authors: Vec::new(),
                },
            }),
            _ => Err(Fault::unavailable("UNAVAILABLE", "build-svc: connection refused")),
        }
    }
}

#[async_trait]
impl StepBackend for Builds {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        Ok(Taken {
            reference: Id::derived("bld", &[&order.request_id()]),
            observation: self.answer()?,
        })
    }

    async fn observe(&self, _: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        self.answer()
    }

    async fn stop(&self, _: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        self.answer()
    }
}

/// The release as the API shows it, as soon as its first step is so.
async fn until(
    world: &World,
    release: &Id,
    holds: impl Fn(&proto::Step) -> bool,
) -> (Snapshot<Release>, proto::Step) {
    let search = async {
        loop {
            let watched = world.ledger.watch::<Release>(release, None);
            let mut states = std::pin::pin!(watched);
            // Later tries change nothing that is told, so the release is also looked at now and then.
            while let Ok(Some(snapshot)) =
                tokio::time::timeout(Duration::from_millis(200), states.next()).await
            {
                let snapshot = snapshot.unwrap();
                let step = Releases::message(&snapshot).steps.remove(0);
                if holds(&step) {
                    return (snapshot, step);
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), search)
        .await
        .expect("in time")
}

fn code(retry: &Retry) -> &str {
    retry.error.as_ref().map_or("", |error| &error.code)
}

#[tokio::test]
async fn a_step_backend_that_cannot_be_reached_shows_until_it_answers() {
    let world = World::new().await;
    let builds = Arc::new(Builds(AtomicU8::new(AWAY)));
    let shutdown = CancellationToken::new();
    let executor = Executor::builder(world.ledger.clone())
        .register::<Release>(Arc::new(ReleaseEffects {
            ledger: world.ledger.clone(),
            builds: builds.clone(),
            tags: Arc::new(Pointed),
            approvals: builds.clone(),
            changes: builds.clone(),
            deployments: builds.clone(),
            clusters: Clusters::default(),
        }))
        .spawn(shutdown.clone());
    let release = world.start("rel-1", &[]).await;

    // The order is given again later and later.
    let tried_twice = |step: &proto::Step| step.retry.as_ref().is_some_and(|retry| retry.attempt >= 2);
    let (_, step) = until(&world, &release, tried_twice).await;
    let retry = step.retry.unwrap();
    assert_eq!(code(&retry), "UNAVAILABLE");
    assert_eq!(step.reason, None, "it has not ended");
    let timed = |step: &proto::Step| step.retry.as_ref().is_some_and(|retry| retry.next_time.is_some());
    until(&world, &release, timed).await;

    builds.0.store(BUILDS, Ordering::SeqCst);
    let running = |step: &proto::Step| step.status() == proto::step::Status::Running;
    let (before, step) = until(&world, &release, running).await;
    assert_eq!(step.retry, None);

    // A look that comes to nothing leaves no event.
    builds.0.store(AWAY_AGAIN, Ordering::SeqCst);
    let mut attempt = 0;
    for _ in 0..3 {
        world.ledger.hint(Release::KIND, &release).await.unwrap();
        let again = |step: &proto::Step| step.retry.as_ref().is_some_and(|retry| retry.attempt > attempt);
        let (now, step) = until(&world, &release, again).await;
        let retry = step.retry.clone().unwrap();
        attempt = retry.attempt;
        assert_eq!(code(&retry), "UNAVAILABLE");
        assert_eq!(
            (now.seq, step.status()),
            (before.seq, proto::step::Status::Running)
        );
    }

    builds.0.store(BUILT, Ordering::SeqCst);
    world.ledger.hint(Release::KIND, &release).await.unwrap();
    let ended = |step: &proto::Step| step.end_time.is_some();
    let (after, step) = until(&world, &release, ended).await;
    assert_eq!(step.retry, None);
    assert_eq!(
        after.state.steps.first().map(|step| step.status),
        Some(StepStatus::Succeeded)
    );
    shutdown.cancel();
    executor.drain().await;
}
