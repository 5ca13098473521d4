//! What services share: targets, Applications and folders.

use deploy_domain::{
    catalog::{Catalog, Shared},
    plan::{Plan, PlanRequest, lanes},
};
use pretty_assertions::assert_eq;
use slipway_model::Name;

use super::parse;

/// Services with one environment each: name, image, and the environment's keys.
fn catalog(services: &[(&str, &str, &str)]) -> String {
    let mut text = "environments: [prod]\nservices:\n".to_owned();
    for (name, image, keys) in services {
        let keys = keys.trim().replace('\n', "\n        ");
        text.push_str(&format!(
            "  - name: {name}
    repository: https://git.example/{name}.git
    image: registry.example/{image}
    environments:
      - name: prod
        policy: two
        {keys}
"
        ));
    }
    text
}

fn application(name: &str, more: &str) -> String {
    format!("target: {{ cluster: main, namespace: argocd, kind: Application, name: {name} }}\n{more}")
}

fn deployment(name: &str, more: &str) -> String {
    format!("target: {{ cluster: main, namespace: shop, name: {name} }}\n{more}")
}

fn folder(path: &str) -> String {
    format!("gitops: {{ repository: platform, path: {path} }}")
}

/// The lanes and neighbours of a service's environment.
fn of<'a>(catalog: &'a Catalog, service: &str) -> (Vec<String>, Vec<&'a str>) {
    let environment = &catalog.service(service).unwrap().environments[0];
    let lanes = lanes(&environment.target, &environment.shared).unwrap();
    (
        lanes.iter().map(ToString::to_string).collect(),
        environment.shared.services().map(Name::as_str).collect(),
    )
}

#[test]
fn services_with_nothing_in_common_have_their_own_lanes_and_the_same_plans_as_before() {
    let text = catalog(&[
        ("shop", "shop", &deployment("shop", &folder("apps/shop"))),
        ("mail", "mail", &deployment("mail", &folder("apps/mail"))),
        (
            "docs",
            "docs",
            &deployment(
                "docs",
                "action: restart\ngitops: { repository: platform, strategy: marker }",
            ),
        ),
        (
            "wiki",
            "wiki",
            &deployment(
                "wiki",
                "action: restart\ngitops: { repository: platform, strategy: marker }",
            ),
        ),
    ]);
    let catalog = parse(&text);
    for service in catalog.services() {
        assert_eq!(
            service.environments[0].shared,
            Shared::default(),
            "{}",
            service.name
        );
    }
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: "1".repeat(40).parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    let json = serde_json::to_value(Plan::make(&catalog, &wanted).unwrap()).unwrap();
    assert_eq!(json["environments"][0].get("shared"), None);
}

#[test]
fn whoever_shares_a_target_an_application_or_a_folder_shares_a_lane() {
    let target = |name: &str| format!("main/argocd/Application/{name}");
    let own = |name: &str| format!("main/shop/Deployment/{name}");
    // The same target.
    let catalog_ = parse(&catalog(&[
        ("payment", "payment", &application("all", &folder("a/payment"))),
        ("campaign", "campaign", &application("all", &folder("a/campaign"))),
    ]));
    assert_eq!(of(&catalog_, "payment"), (vec![target("all")], vec!["campaign"]));
    assert_eq!(of(&catalog_, "campaign"), (vec![target("all")], vec!["payment"]));
    // The same folder, however it is written, and whatever the branch.
    let with_branch = "gitops: { repository: platform, branch: main, path: ./environments//production/ }";
    let catalog_ = parse(&catalog(&[
        (
            "payment",
            "payment",
            &deployment("payment", &folder("environments/production")),
        ),
        ("frontend", "frontend", &deployment("frontend", with_branch)),
        (
            "elsewhere",
            "elsewhere",
            &deployment("elsewhere", &folder("environments/production/sub")),
        ),
    ]));
    let lane = "folder:platform/environments/production".to_owned();
    assert_eq!(
        of(&catalog_, "payment"),
        (vec![lane.clone(), own("payment")], vec!["frontend"])
    );
    assert_eq!(
        of(&catalog_, "frontend"),
        (vec![lane, own("frontend")], vec!["payment"])
    );
    assert_eq!(of(&catalog_, "elsewhere"), (vec![own("elsewhere")], vec![]));
    // An Application that one syncs along, and another deploys to.
    let catalog_ = parse(&catalog(&[
        (
            "shop",
            "shop",
            &application(
                "shop",
                &format!("{}\nargo_cd: {{ also: [jobs, mail] }}", folder("a/shop")),
            ),
        ),
        ("jobs", "jobs", &application("jobs", &folder("a/jobs"))),
    ]));
    assert_eq!(
        of(&catalog_, "shop"),
        (vec![target("jobs"), target("shop")], vec!["jobs"])
    );
    assert_eq!(of(&catalog_, "jobs"), (vec![target("jobs")], vec!["shop"]));
    // Values files of one chart are not one folder; the same file is.
    let values = |file: &str, value: &str| {
        format!(
            "gitops: {{ repository: platform, strategy: helm, file: charts/all/{file}.yaml, value: {value} }}"
        )
    };
    let catalog_ = parse(&catalog(&[
        ("shop", "shop", &application("shop", &values("shop", "image"))),
        ("mail", "mail", &application("mail", &values("mail", "image"))),
        (
            "cart",
            "cart",
            &application("cart", &values("mail", "cart.image")),
        ),
    ]));
    assert_eq!(of(&catalog_, "shop").1, [""; 0]);
    assert_eq!(of(&catalog_, "mail").1, ["cart"]);
}

#[test]
fn a_gate_before_the_sync_is_safe_beside_other_services_since_they_wait() {
    parse(&catalog(&[
        (
            "payment",
            "payment",
            &application("all", &format!("gate: before_sync\n{}", folder("all"))),
        ),
        (
            "campaign",
            "campaign",
            &application("all", &format!("gate: before_sync\n{}", folder("all"))),
        ),
        ("frontend", "frontend", &application("front", &folder("all"))),
    ]));
}

#[test]
fn services_that_cannot_be_told_apart_are_refused() {
    let named =
        |path: &str, image: &str| format!("gitops: {{ repository: platform, path: {path}, image: {image} }}");
    for (services, path, words) in [
        (
            [
                ("web", "shop", application("shop", &named("a", "web"))),
                ("worker", "shop", application("shop", &named("a", "worker"))),
            ],
            "services.worker.environments[0].target",
            "environment prod of service web runs the same image in the same target",
        ),
        (
            [
                ("web", "web", application("web", &named("a", "shop"))),
                ("worker", "worker", application("worker", &named("a/", "shop"))),
            ],
            "services.worker.environments[0].gitops",
            "environment prod of service web writes the same image at the same place",
        ),
    ] {
        let services: Vec<_> = services
            .iter()
            .map(|(name, image, keys)| (*name, *image, keys.as_str()))
            .collect();
        let error = Catalog::parse(&catalog(&services)).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
        assert!(
            error.contains(words) && error.contains("make them one service"),
            "{error}"
        );
    }
}
