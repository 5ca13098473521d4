//! What tests of releases over a real ledger share: a release of one environment, and answers for the other services.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use deploy_domain::{
    catalog::Catalog,
    lane::Lane,
    plan::{Plan, PlanRequest},
    release::{
        ChangeMade, Facts, Observation, Release, ReleaseCommand, ReleaseState, ReleaseStatus, Request,
        StepKind, Waiting, WaitingKind,
    },
};
use deploy_svc::testing::{Order, StepBackend, Tags, Taken, lanes};
use futures::StreamExt;
use pretty_assertions::assert_eq;
use slipway_ledger::{EffectKey, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, Authentication, Digest, Fault, Id, Image, Images, Principal, Reason, Tag};
use slipway_testbed::within;

pub(crate) const COMMIT: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

pub(crate) fn id(text: &str) -> Id {
    text.parse().unwrap()
}

pub(crate) fn meta() -> Meta {
    Meta::new(Actor::system("test"), None)
}

pub(crate) fn images(fill: &str) -> Images {
    Images::one(Image {
        name: "shop".parse().unwrap(),
        repository: "registry.example/shop".parse().unwrap(),
        digest: format!("sha256:{}", fill.repeat(64)).parse().unwrap(),
        tags: Vec::new(),
    })
}

/// A release of one environment with these keys.
pub(crate) fn request(keys: &[&str]) -> Request {
    let mut catalog = "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: two
"
    .to_owned();
    if keys.iter().all(|key| !key.starts_with("target:")) {
        catalog.push_str("        target: { cluster: pretended, namespace: dev, name: shop }\n");
    }
    for key in keys {
        catalog.push_str(&format!("        {key}\n"));
    }
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: COMMIT.parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    Request {
        plan: Plan::make(&Catalog::parse(&catalog).unwrap(), &wanted).unwrap(),
        requested_by: Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        labels: Default::default(),
        images: None,
        rebuild: false,
        caller: None,
    }
}

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deploy.db").display());
        let ledger = Ledger::open(LedgerConfig::new(url).origin("deploy"))
            .await
            .unwrap();
        Self {
            ledger,
            _folder: folder,
        }
    }

    pub(crate) async fn tell(&self, release: &Id, command: ReleaseCommand) -> ReleaseState {
        let told = lanes::execute(&self.ledger, release, command, &meta()).await;
        told.unwrap().state
    }

    pub(crate) async fn start(&self, release: &str, keys: &[&str]) -> Id {
        let release = id(release);
        self.tell(&release, ReleaseCommand::Request(Box::new(request(keys))))
            .await;
        release
    }

    pub(crate) async fn state(&self, release: &Id) -> ReleaseState {
        self.ledger.get::<Release>(release).await.unwrap().unwrap().state
    }

    /// The backend of the active step takes the order, and says how it ended.
    pub(crate) async fn end(&self, release: &Id, step: &str, observation: Observation) -> ReleaseState {
        let state = self.state(release).await;
        let order = Order::of(release, &state).unwrap();
        assert_eq!(order.step.name, step);
        let started = ReleaseCommand::Started {
            key: EffectKey::new(format!("{step}:start"), 1),
            reference: Id::derived("dep", &[&order.request_id()]),
            observation,
        };
        self.tell(release, started).await
    }

    pub(crate) async fn well(&self, release: &Id, step: &str) -> ReleaseState {
        let facts = match step {
            "build" => Facts::Built {
                images: images("b"),
                authors: Vec::new(),
            },
            "dev/change" | "dev/revert" => Facts::Changed(ChangeMade {
                change: id("chg-1"),
                commit: if step == "dev/change" { "2" } else { "3" }
                    .repeat(40)
                    .parse()
                    .unwrap(),
                no_op: false,
                previous: Some(images("a")),
                previous_tag: None,
                previous_of_others: Vec::new(),
            }),
            _ => Facts::None,
        };
        let result = String::new();
        self.end(release, step, Observation::Succeeded { result, facts })
            .await
    }

    pub(crate) async fn holder(&self) -> Option<Id> {
        let lane = self
            .ledger
            .get::<Lane>(&id("pretended/dev/Deployment/shop"))
            .await
            .unwrap();
        lane.and_then(|lane| lane.state.holder).map(|turn| turn.holder)
    }
}

pub(crate) fn ended(state: &ReleaseState) -> (ReleaseStatus, &str) {
    let reason = state.reason.as_ref();
    (state.status, reason.map_or("", |reason| reason.message.as_str()))
}

/// Answers for another service: everything ends well, but what is held back stays pending until it is let go.
pub(crate) struct Answers {
    pub(crate) held: Option<tokio::sync::watch::Receiver<bool>>,
    pub(crate) orders: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    fn observation(&self, order: Order<'_>) -> Observation {
        if self.held.as_ref().is_some_and(|held| *held.borrow()) {
            return Observation::Pending(Waiting::new(WaitingKind::Human, "for a person"));
        }
        let facts = match order.step.kind {
            StepKind::Build => Facts::Built {
                images: images("b"),
                authors: Vec::new(),
            },
            StepKind::Change => Facts::Changed(ChangeMade {
                change: id("chg-1"),
                commit: "2".repeat(40).parse().unwrap(),
                no_op: false,
                previous: Some(images("a")),
                previous_tag: None,
                previous_of_others: Vec::new(),
            }),
            _ => Facts::None,
        };
        let result = String::new();
        Observation::Succeeded { result, facts }
    }
}

#[async_trait]
impl StepBackend for Answers {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let name = format!("{} {}", order.release, order.step.name);
        self.orders.lock().unwrap().push(name);
        Ok(Taken {
            reference: Id::derived("it", &[&order.request_id()]),
            observation: self.observation(order),
        })
    }

    async fn observe(&self, order: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        Ok(self.observation(order))
    }

    async fn stop(&self, order: Order<'_>, _: &Id) -> Result<Observation, Fault<Reason>> {
        let reason = Reason::new("CANCELLED", format!("{} was stopped", order.step.name));
        Ok(Observation::Cancelled(reason))
    }
}

/// Every tag points to the image that is built.
pub(crate) struct Pointed;

#[async_trait]
impl Tags for Pointed {
    async fn resolve(&self, _: Order<'_>, _: &Tag) -> Result<Digest, Fault<Reason>> {
        Ok(images("b").only().digest.clone())
    }
}

/// The release's states until this holds.
pub(crate) async fn until(
    world: &World,
    release: &Id,
    holds: impl Fn(&ReleaseState) -> bool,
) -> ReleaseState {
    let watched = world.ledger.watch::<Release>(release, None);
    let mut states = std::pin::pin!(watched);
    let search = async {
        while let Some(snapshot) = states.next().await {
            let state = snapshot.unwrap().state;
            if holds(&state) {
                return state;
            }
        }
        panic!("the release ended without it");
    };
    within("the release is as wanted", search).await
}
