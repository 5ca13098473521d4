//! ReleaseService refuses what leaves out a required environment, before anything is started.

use deploy_domain::release::Release;
use slipway_ledger::ListFilter;
use slipway_proto::release::v1::{
    PlanReleaseRequest, StartReleaseRequest,
    planned_environment::{Gate, Strategy, Tier},
};
use slipway_server::ErrorView;
use tonic::{Code, Status};

use super::serve_by;

const CATALOG: &str = "
environments: [{ name: dev, tier: development }, staging, { name: prod, tier: production }]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - { name: dev, policy: none, target: { cluster: bench, namespace: dev, name: shop } }
      - name: staging
        policy: one
        gate: before_sync
        gitops: { repository: platform, path: apps/shop/overlays/staging }
        target: { cluster: bench, namespace: staging, name: shop }
      - { name: prod, policy: two, requires: [dev, staging], target: { cluster: bench, namespace: prod, name: shop } }
";

#[tokio::test]
async fn a_release_without_a_required_environment_is_refused() {
    let bench = serve_by(CATALOG, None).await;
    let mut alice = bench.releases("alice");
    let plan = |environments: &[&str]| PlanReleaseRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
        environments: environments.iter().map(ToString::to_string).collect(),
        ..PlanReleaseRequest::default()
    };
    let check = |error: &Status| {
        assert_eq!(
            (error.code(), ErrorView::of(error).field.as_str()),
            (Code::InvalidArgument, "environments"),
            "{error}"
        );
        assert!(
            error.message().contains("prod requires staging") && error.message().contains("add staging,"),
            "{error}"
        );
    };
    check(&alice.plan_release(plan(&["prod", "dev"])).await.unwrap_err());
    let planned = plan(&["prod", "dev"]);
    let start = StartReleaseRequest {
        request_id: "one".to_owned(),
        service: planned.service,
        commit: planned.commit,
        environments: planned.environments,
        ..StartReleaseRequest::default()
    };
    check(&alice.start_release(start).await.unwrap_err());
    let (all, page) = (
        ListFilter::default(),
        slipway_server::ledger::list_page(0, "").unwrap(),
    );
    let started = bench.ledger.list_of::<Release>(&all, &page).await.unwrap();
    assert_eq!(started.items.len(), 0, "nothing was started");

    let made = alice.plan_release(plan(&[])).await.unwrap().into_inner();
    let made = made.plan.expect("a plan");
    let told: Vec<_> = made
        .environments
        .iter()
        .map(|one| (one.name.as_str(), one.tier(), one.requires.join(" ")))
        .collect();
    assert_eq!(
        told,
        [
            ("dev", Tier::Development, String::new()),
            ("staging", Tier::Unspecified, String::new()),
            ("prod", Tier::Production, "dev staging".to_owned()),
        ]
    );
    let told: Vec<_> = made
        .environments
        .iter()
        .map(|one| (one.gate(), one.gitops_strategy()))
        .collect();
    assert_eq!(
        told,
        [
            (Gate::BeforeCommit, Strategy::Unspecified),
            (Gate::BeforeSync, Strategy::Kustomize),
            (Gate::BeforeCommit, Strategy::Unspecified),
        ]
    );
}
