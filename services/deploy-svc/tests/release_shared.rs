//! Releases of several services that share a target or a folder: they take turns, over a real ledger. The other services
//! are answered for.
#![allow(clippy::unwrap_used)]

mod release;

use deploy_domain::{
    catalog::Catalog,
    deployment::{Deployment, DeploymentEvent, DeploymentRequest},
    lane::Lane,
    plan::{Plan, PlanRequest},
    release::{
        ChangeMade, Facts, Observation, ReleaseCommand, ReleaseState, ReleaseStatus, Request, StepKind,
    },
};
use deploy_svc::testing::{Deployments, Order, StepBackend, lane, lanes};
use pretty_assertions::assert_eq;
use release::{COMMIT, World, ended, id, images, meta};
use slipway_model::{Actor, Authentication, Id, Principal, Reason};

/// Three services in one folder: payment and campaign in one Application, frontend in a Deployment of its own.
const CATALOG: &str = r"
environments: [prod]
services:
  - name: payment
    repository: https://git.example/payment.git
    image: registry.example/payment
    environments:
      - name: prod
        policy: two
        gate: before_sync
        target: { cluster: pretended, namespace: argocd, kind: Application, name: production }
        gitops: { repository: platform, path: environments/production, image: payment }
  - name: campaign
    repository: https://git.example/campaign.git
    image: registry.example/campaign
    environments:
      - name: prod
        policy: two
        gate: before_sync
        target: { cluster: pretended, namespace: argocd, kind: Application, name: production }
        gitops: { repository: platform, path: ./environments/production/, image: campaign }
  - name: frontend
    repository: https://git.example/frontend.git
    image: registry.example/frontend
    environments:
      - name: prod
        policy: two
        target: { cluster: early, namespace: front, name: frontend }
        gitops: { repository: platform, branch: main, path: environments/production, image: frontend }
";

async fn start(world: &World, service: &str, release: &str) -> Id {
    let release = id(release);
    let wanted = PlanRequest {
        service: service.to_owned(),
        commit: COMMIT.parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    let request = Request {
        plan: Plan::make(&Catalog::parse(CATALOG).unwrap(), &wanted).unwrap(),
        requested_by: Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        labels: Default::default(),
        images: Some(images("b")),
        rebuild: false,
        caller: None,
    };
    world
        .tell(&release, ReleaseCommand::Request(Box::new(request)))
        .await;
    release
}

/// The step ends well.
async fn well(world: &World, release: &Id, step: &str) -> ReleaseState {
    let facts = match step {
        "prod/change" | "prod/revert" => Facts::Changed(ChangeMade {
            change: id("chg-1"),
            commit: "2".repeat(40).parse().unwrap(),
            no_op: false,
            previous: None,
            previous_tag: None,
            previous_of_others: Vec::new(),
        }),
        _ => Facts::None,
    };
    let result = String::new();
    world
        .end(release, step, Observation::Succeeded { result, facts })
        .await
}

fn at(state: &ReleaseState) -> Option<StepKind> {
    state.active_step().map(|step| step.kind)
}

async fn through(world: &World, release: &Id, steps: &[&str]) {
    for step in steps {
        well(world, release, step).await;
    }
    assert_eq!(ended(&world.state(release).await), (ReleaseStatus::Succeeded, ""));
}

const BY_SYNC: [&str; 3] = ["prod/change", "prod/gate", "prod/deploy"];
const BY_COMMIT: [&str; 3] = ["prod/gate", "prod/change", "prod/deploy"];

#[tokio::test]
async fn services_in_one_folder_and_one_application_take_turns() {
    let world = World::new().await;
    let payment = start(&world, "payment", "rel-payment").await;
    let campaign = start(&world, "campaign", "rel-campaign").await;
    let frontend = start(&world, "frontend", "rel-frontend").await;
    let waits = async |release: &Id| {
        let state = world.state(release).await;
        assert_eq!(
            (state.status, at(&state)),
            (ReleaseStatus::Running, Some(StepKind::Lane))
        );
    };
    // The first has changed nothing yet, and keeps its turn all the same.
    assert_eq!(at(&world.state(&payment).await), Some(StepKind::Change));
    waits(&campaign).await;
    waits(&frontend).await;
    well(&world, &payment, "prod/change").await;
    // A newer one of its own service waits, since this one has committed; one of another service comes before it.
    let state = world.state(&payment).await;
    let marked = lanes::mark_changed(&world.ledger, &payment, &state, &meta()).await;
    assert!(marked.unwrap());
    let newer = start(&world, "payment", "rel-payment-2").await;
    through(&world, &payment, &BY_SYNC[1..]).await;
    assert_eq!(at(&world.state(&campaign).await), Some(StepKind::Change));
    waits(&frontend).await;
    waits(&newer).await;
    through(&world, &campaign, &BY_SYNC).await;
    // Whoever is next in the folder is next: both were started before this moment.
    through(&world, &frontend, &BY_COMMIT).await;
    through(&world, &newer, &BY_SYNC).await;
    for lane in [
        "pretended/argocd/Application/production",
        "early/front/Deployment/frontend",
        "folder:platform/environments/production",
    ] {
        let lane = world.ledger.get::<Lane>(&id(lane)).await.unwrap().unwrap().state;
        assert_eq!((lane.holder, lane.waiting), (None, Vec::new()));
    }
}

#[tokio::test]
async fn one_that_is_superseded_or_cancelled_gives_all_its_lanes_back() {
    let world = World::new().await;
    let frontend = start(&world, "frontend", "rel-frontend").await;
    let payment = start(&world, "payment", "rel-payment").await;
    let newer = start(&world, "payment", "rel-payment-2").await;
    // It waited for the folder.
    let state = world.state(&payment).await;
    assert_eq!(state.status, ReleaseStatus::Superseded);
    let cancel = ReleaseCommand::Cancel {
        by: Actor::system("test"),
        reason: String::new(),
    };
    world.tell(&newer, cancel).await;
    let campaign = start(&world, "campaign", "rel-campaign").await;
    through(&world, &frontend, &BY_COMMIT).await;
    through(&world, &campaign, &BY_SYNC).await;
}

#[tokio::test]
async fn a_rejected_one_takes_its_commit_back_before_the_next_ones_turn() {
    let world = World::new().await;
    let payment = start(&world, "payment", "rel-payment").await;
    let campaign = start(&world, "campaign", "rel-campaign").await;
    well(&world, &payment, "prod/change").await;
    let no = Observation::Failed(Reason::new("APPROVAL_REJECTED", "not today"));
    let state = world.end(&payment, "prod/gate", no).await;
    assert_eq!(at(&state), Some(StepKind::Revert));
    assert_eq!(at(&world.state(&campaign).await), Some(StepKind::Lane));
    let state = well(&world, &payment, "prod/revert").await;
    assert_eq!(ended(&state), (ReleaseStatus::Failed, "not today"));
    through(&world, &campaign, &BY_SYNC).await;
}

#[tokio::test]
async fn the_epoch_is_that_of_the_targets_own_lane_and_the_deployment_knows_its_neighbours() {
    let world = World::new().await;
    for release in ["rel-1", "rel-2"] {
        let payment = start(&world, "payment", release).await;
        through(&world, &payment, &BY_SYNC).await;
    }
    let frontend = start(&world, "frontend", "rel-frontend").await;
    for step in &BY_COMMIT[..2] {
        well(&world, &frontend, step).await;
    }
    let state = world.state(&frontend).await;
    assert_eq!(state.environments[0].epoch, Some(1), "its first turn");
    let order = Order::of(&frontend, &state).unwrap();
    let taken = Deployments::new(world.ledger.clone()).start(order).await.unwrap();
    let deployment = world
        .ledger
        .get::<Deployment>(&taken.reference)
        .await
        .unwrap()
        .unwrap();
    let request = deployment.state.request.unwrap();
    let neighbours: Vec<String> = request
        .shared
        .neighbours
        .iter()
        .map(|neighbour| format!("{} {}", neighbour.service, neighbour.image))
        .collect();
    assert_eq!(
        neighbours,
        [
            "campaign registry.example/campaign",
            "payment registry.example/payment"
        ]
    );
    assert_eq!(request.epoch, 2);
}

#[tokio::test]
async fn a_deployment_that_stands_alone_needs_the_folder_as_well() {
    let world = World::new().await;
    let payment = start(&world, "payment", "rel-payment").await;
    let frontend = start(&world, "frontend", "rel-frontend").await;
    let state = world.state(&frontend).await;
    let planned = &state.plan.unwrap().environments[0];
    let request = DeploymentRequest {
        target: planned.target.clone(),
        shared: planned.shared.clone(),
        service: "frontend".parse().unwrap(),
        ..requested()
    };
    let cancel = ReleaseCommand::Cancel {
        by: Actor::system("test"),
        reason: String::new(),
    };
    world.tell(&frontend, cancel).await;
    let alone = async |name: &str| {
        let request = request.clone();
        let deployment = id(name);
        let asked = async |tx: slipway_ledger::Tx| lane::request(&tx, &deployment, request.clone()).await;
        world.ledger.transact(&meta(), asked).await
    };
    let refused = alone("dep-1").await.err().unwrap().to_string();
    assert!(refused.contains("belongs to rel-payment now"), "{refused}");
    through(&world, &payment, &BY_SYNC).await;
    alone("dep-2").await.unwrap();
    let campaign = start(&world, "campaign", "rel-campaign").await;
    assert_eq!(at(&world.state(&campaign).await), Some(StepKind::Lane));
}

/// Some deployment, as it was recorded.
fn requested() -> DeploymentRequest {
    let event = include_str!("golden/deployment/requested.v2.json");
    let DeploymentEvent::Requested { request, .. } = serde_json::from_str(event).unwrap() else {
        panic!("{event}");
    };
    *request
}
