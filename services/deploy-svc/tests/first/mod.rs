//! The first release of an application that ran before, with answers for build-svc and gitops-svc: the files name a tag,
//! the new version crashes.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::sync::Arc;

use async_trait::async_trait;
use deploy_domain::{
    catalog::{Catalog, WorkloadKind},
    plan::{Plan, PlanRequest},
    release::{ChangeMade, Facts, Observation, Release, ReleaseCommand, ReleaseState, Request, StepKind},
};
use deploy_svc::testing::{Deployments, Order, ReleaseEffects, StepBackend, Taken, lanes};
use futures::StreamExt;
use slipway_ledger::Executor;
use slipway_model::{CommitSha, Digest, Fault, Id, Image, Images, Reason};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Bench,
    release::{COMMIT, Pointed, meta, request},
};

/// What the files say after a commit.
pub(crate) enum Files {
    New,
    Before,
    /// As before, with this digest beside the tag.
    Pinned(Digest),
}

/// build-svc, and gitops-svc with one folder.
pub(crate) struct Backends {
    pub(crate) built: Image,
    /// The image as the files name it before the release.
    pub(crate) tagged: String,
    pub(crate) commit: Box<dyn Fn(Files) -> CommitSha + Send + Sync>,
}

#[async_trait]
impl StepBackend for Backends {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let files = match order.step.kind {
            StepKind::Build => None,
            StepKind::Revert => Some(Files::Before),
            StepKind::Pin => {
                let restored = order.state.restored(order.step.environment).unwrap();
                Some(Files::Pinned(restored.digests[0].clone()))
            }
            _ => Some(Files::New),
        };
        let facts = match files {
            None => Facts::Built {
                images: Images::one(self.built.clone()),
                authors: Vec::new(),
            },
            Some(files) => Facts::Changed(ChangeMade {
                change: format!("chg-{}", order.step.kind.as_str()).parse().unwrap(),
                commit: (self.commit)(files),
                no_op: false,
                previous: None,
                previous_tag: Some(self.tagged.parse().unwrap()),
                previous_of_others: Vec::new(),
            }),
        };
        Ok(Taken {
            reference: Id::derived("it", &[&order.request_id()]),
            observation: Observation::Succeeded {
                result: String::new(),
                facts,
            },
        })
    }

    async fn observe(&self, _: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        panic!("everything ends at once")
    }

    async fn stop(&self, _: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        panic!("everything ends at once")
    }
}

fn wanted(bench: &Bench, kind: WorkloadKind) -> Request {
    let catalog = format!(
        "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: {}
    environments:
      - name: dev
        policy: none
        gitops: {{ repository: platform, path: shop }}
        target: {{ cluster: test, namespace: {}, kind: {kind}, name: shop }}
        verify: {{ crash_loop_restarts: 2 }}
        timeout: {{ deploy: 5m }}
",
        bench.image, bench.namespace
    );
    let plan = PlanRequest {
        service: "shop".to_owned(),
        commit: COMMIT.parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    Request {
        plan: Plan::make(&Catalog::parse(&catalog).unwrap(), &plan).unwrap(),
        ..request(&["gitops: { repository: platform, path: shop }"])
    }
}

/// Releases to a target of that kind, to its end.
pub(crate) async fn release(bench: &Bench, kind: WorkloadKind, backends: Backends) -> ReleaseState {
    let backends = Arc::new(backends);
    let answers = || Arc::clone(&backends) as Arc<dyn StepBackend>;
    let effects = ReleaseEffects {
        ledger: bench.ledger.clone(),
        builds: answers(),
        tags: Arc::new(Pointed),
        approvals: answers(),
        changes: answers(),
        deployments: Arc::new(Deployments::new(bench.ledger.clone())),
        clusters: bench.clusters.clone(),
    };
    let shutdown = CancellationToken::new();
    let executor = Executor::builder(bench.ledger.clone())
        .register::<Release>(Arc::new(effects))
        .spawn(shutdown.clone());
    let id: Id = "rel-1".parse().unwrap();
    let command = ReleaseCommand::Request(Box::new(wanted(bench, kind)));
    lanes::execute(&bench.ledger, &id, command, &meta())
        .await
        .unwrap();
    let mut states = std::pin::pin!(bench.ledger.watch::<Release>(&id, None));
    let mut last = None;
    while let Some(snapshot) = states.next().await {
        last = Some(snapshot.unwrap().state);
    }
    shutdown.cancel();
    executor.drain().await;
    last.unwrap()
}

/// The kinds of its steps after the build, without what only waits.
pub(crate) fn steps(state: &ReleaseState) -> Vec<&str> {
    let steps = state.steps.iter().map(|step| step.kind.as_str());
    steps
        .filter(|kind| !["build", "lane", "gate"].contains(kind))
        .collect()
}

pub(crate) fn message(state: &ReleaseState) -> &str {
    state.reason.as_ref().map_or("", |reason| &reason.message)
}
