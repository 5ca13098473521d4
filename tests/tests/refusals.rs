//! Bad input and faults from end to end: each is refused with a message that says what to do, and changes nothing.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{fs, process::Command, sync::Arc};

use futures::StreamExt;
use slipway_proto::{
    approval::v1::{
        DecideRequest, WatchApprovalsRequest, approval::Status as ApprovalStatus, decision::Verdict,
    },
    release::v1::{PlanReleaseRequest, Release, StartReleaseRequest, release::Status, step},
};
use slipway_server::ErrorView;
use slipway_tests::{
    Clients, Options, Suite, Version,
    clients::{is_final, told},
    programs,
    scene::Service,
    suite::{REFUSING, Shared},
    within,
};
use tonic::Code;

static SUITE: Shared = Shared::new();

const DEV: &[(&str, &str)] = &[("dev", "none")];

fn options() -> Options {
    let mut wrong = Service::new("wrong-name", DEV);
    wrong.manifest_image = "shopp";
    let mut refused = Service::new("refused", DEV);
    refused.image_prefix = Some(REFUSING.to_owned());
    Options {
        replicas: 1,
        services: vec![
            Service::new("shop", &[("dev", "none"), ("prod", "two")]),
            Service::new("no-policy", &[("prod", "three-wise-men")]),
            Service::new("quick", &[("prod", "quick")]),
            wrong,
            refused,
            Service::new("broken", DEV),
        ],
        ..Options::default()
    }
}

async fn suite() -> Arc<Suite> {
    SUITE.get(options).await
}

fn start(service: &str, commit: &str) -> StartReleaseRequest {
    StartReleaseRequest {
        service: service.to_owned(),
        commit: commit.to_owned(),
        ..StartReleaseRequest::default()
    }
}

fn nowhere() -> String {
    "0123456789abcdef0123456789abcdef01234567".to_owned()
}

/// Starts a release of a service, and follows it to its end.
async fn released(clients: &Clients, service: &str, commit: &str) -> Release {
    let release = clients.start(service, commit).await;
    clients.finished(&release.id).await
}

fn assert_failed(release: &Release, code: &str, words: &[&str]) {
    let all = told(Some(release));
    assert_eq!(release.status(), Status::Failed, "{all}");
    let reason = release.reason.as_ref().unwrap();
    assert_eq!(reason.code, code, "{all}");
    for word in words {
        assert!(reason.message.contains(word), "{word}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_does_not_have_is_named() {
    let suite = suite().await;
    let alice = suite.client("alice", 0);
    let error = alice.try_start(start("shopp", &nowhere())).await.unwrap_err();
    let view = ErrorView::of(&error);
    assert_eq!(
        (error.code(), view.field.as_str()),
        (Code::InvalidArgument, "service")
    );
    assert!(
        error.message().contains("shopp") && error.message().contains("there are shop"),
        "{error}"
    );

    let request = StartReleaseRequest {
        environments: vec!["dev".to_owned(), "pord".to_owned()],
        ..start("shop", &nowhere())
    };
    let error = alice.try_start(request).await.unwrap_err();
    let view = ErrorView::of(&error);
    assert_eq!(
        (error.code(), view.field.as_str()),
        (Code::InvalidArgument, "environments")
    );
    assert!(
        error.message().contains("pord") && error.message().contains("dev, prod"),
        "{error}"
    );

    // A plan says the same, and does not start anything.
    let plan = PlanReleaseRequest {
        service: "shopp".to_owned(),
        commit: nowhere(),
        ..PlanReleaseRequest::default()
    };
    let error = alice.releases.clone().plan_release(plan).await.unwrap_err();
    assert_eq!(ErrorView::of(&error).field, "service");

    let error = alice.try_start(start("shop", "main")).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).field.as_str()),
        (Code::InvalidArgument, "commit")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_does_not_exist_fails_the_build() {
    let suite = suite().await;
    let release = released(&suite.client("alice", 0), "shop", &nowhere()).await;
    assert_failed(&release, "COMMIT_NOT_FOUND", &["0123456789ab"]);
    assert_eq!(release.steps.len(), 1, "{}", told(Some(&release)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_exist_stops_at_the_gate() {
    let suite = suite().await;
    let commit = suite.application("no-policy").commit(Version::Good("A"));
    let release = released(&suite.client("alice", 0), "no-policy", &commit).await;
    let all = told(Some(&release));
    assert_eq!(release.status(), Status::Failed, "{all}");
    let gate = release
        .steps
        .iter()
        .find(|step| step.kind() == step::Kind::Gate)
        .unwrap();
    let reason = gate.reason.as_ref().unwrap();
    assert!(reason.message.contains("three-wise-men"), "{all}");
    assert!(suite.gitops.commits_of("no-policy").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typo_in_the_catalog_is_found_before_anything_runs() {
    let folder = slipway_testbed::TestDir::new("catalog").unwrap();
    let file = folder.path().join("catalog.yaml");
    let text = "environments: [dev]\nservices:\n  - name: shop\n    repository: https://git.example/shop.git\n    image: shop\n    enviroments: []\n";
    fs::write(&file, text).unwrap();
    let program = tokio::task::spawn_blocking(|| programs::program(programs::SLIPWAY))
        .await
        .unwrap();
    let validate = || {
        Command::new(&program)
            .args(["config", "validate", "--catalog"])
            .arg(&file)
            .output()
            .unwrap()
    };
    let output = validate();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("catalog.yaml") && said.contains("line 6") && said.contains("enviroments"),
        "{said}"
    );

    // Well-formed but inconsistent input is named by its path.
    let nowhere = "environments: [dev]\nservices:\n  - name: shop\n    repository: https://git.example/shop.git\n    image: shop\n    branches: [{ pattern: main, environments: [prod] }]\n    environments: []\n";
    fs::write(&file, nowhere).unwrap();
    let output = validate();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("services.shop") && said.contains("prod"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_that_fails_tells_its_last_lines() {
    let suite = suite().await;
    let alice = suite.client("alice", 0);
    let dockerfile =
        "FROM scratch\nCOPY server /server\nCOPY config.toml /config.toml\nENTRYPOINT [\"/server\"]\n";
    let commit = suite
        .application("broken")
        .commit(Version::Dockerfile(dockerfile));
    let release = released(&alice, "broken", &commit).await;
    assert_failed(&release, "BUILD_FAILED", &[]);
    let build = alice.build(&release.steps[0].r#ref).await;
    let tail = build.log_tail.join("\n");
    assert!(tail.contains("config.toml"), "{tail}");
    // A person who looks only at the release sees it too.
    assert!(
        release.reason.as_ref().unwrap().message.contains("config.toml"),
        "{}",
        told(Some(&release))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_ends_the_build() {
    let suite = suite().await;
    let commit = suite.application("refused").commit(Version::Good("A"));
    let release = released(&suite.client("alice", 0), "refused", &commit).await;
    assert_failed(
        &release,
        "REGISTRY_REFUSED",
        &[&suite.refusing.as_ref().unwrap().address()],
    );
    assert!(suite.gitops.commits_of("refused").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kustomization_without_the_image_names_those_it_has() {
    let suite = suite().await;
    let commit = suite.application("wrong-name").commit(Version::Good("A"));
    let release = released(&suite.client("alice", 0), "wrong-name", &commit).await;
    assert_failed(&release, "IMAGE_NOT_FOUND", &["shopp", "app"]);
    assert!(suite.gitops.commits_of("wrong-name").is_empty());
    assert!(suite.gitops.overlay("wrong-name", "dev").contains("newTag: none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_twice_or_on_their_own_or_on_something_else() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let commit = suite.application("shop").commit(Version::Good("A"));
    let release = alice.start("shop", &commit).await;
    let approval = bob.approval_for(&release.id, "prod").await;
    assert_eq!(
        approval.subject.as_ref().unwrap().plan_hash,
        release.plan.as_ref().unwrap().hash
    );

    let refused = |error: tonic::Status, reason: &str| {
        assert_eq!(
            (error.code(), ErrorView::of(&error).reason.as_str()),
            (Code::FailedPrecondition, reason),
            "{error}"
        );
    };
    refused(alice.approve(&approval).await.unwrap_err(), "SELF_APPROVAL");
    refused(
        suite.client("author", 0).approve(&approval).await.unwrap_err(),
        "AUTHOR_APPROVAL",
    );
    let mut other = approval.clone();
    other.binding = "0".repeat(64);
    refused(bob.approve(&other).await.unwrap_err(), "BINDING_MISMATCH");
    let mut blind = approval.clone();
    blind.binding.clear();
    assert!(
        bob.approve(&blind).await.is_err(),
        "a decision names what it decides on"
    );

    bob.approve(&approval).await.unwrap();
    refused(bob.approve(&approval).await.unwrap_err(), "ALREADY_DECIDED");
    // Also if the second decision is a refusal.
    let reject = DecideRequest {
        id: approval.id.clone(),
        binding: approval.binding.clone(),
        verdict: Verdict::Reject.into(),
        ..DecideRequest::default()
    };
    refused(
        bob.approvals.clone().decide(reject.clone()).await.unwrap_err(),
        "ALREADY_DECIDED",
    );

    // The role is checked first, and by scope.
    let error = suite.client("reader", 0).approve(&approval).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    assert!(error.message().contains("approve"), "{error}");

    // An approver refuses: the release ends, dev keeps what it has, prod was not touched.
    suite
        .client("carol", 0)
        .approvals
        .clone()
        .decide(reject)
        .await
        .unwrap();
    let release = alice.finished(&release.id).await;
    assert_eq!(release.status(), Status::Failed, "{}", told(Some(&release)));
    assert_eq!(suite.gitops.commits_of("shop").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_after_expiry_is_too_late() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let commit = suite.application("quick").commit(Version::Good("A"));
    let release = alice.start("quick", &commit).await;
    let approval = bob.approval_for(&release.id, "prod").await;
    let watch = WatchApprovalsRequest {
        id: approval.id.clone(),
        ..WatchApprovalsRequest::default()
    };
    let mut stream = bob
        .approvals
        .clone()
        .watch_approvals(watch)
        .await
        .unwrap()
        .into_inner();
    let approval = within("the expiry", async {
        let mut last = approval;
        while let Some(item) = stream.next().await {
            last = item.unwrap().approval.unwrap();
        }
        last
    })
    .await;
    assert_eq!(approval.status(), ApprovalStatus::Expired);
    let error = bob.approve(&approval).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::FailedPrecondition, "EXPIRED")
    );
    let release = alice.finished(&release.id).await;
    assert_failed(&release, "EXPIRED", &[]);
    assert!(suite.gitops.commits_of("quick").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_asks_who_is_calling_and_whether_they_may() {
    let suite = suite().await;
    for token in [None, Some("wrong-token")] {
        let somebody = suite.client_with(token, 0);
        for code in read_something(&somebody).await {
            assert_eq!(code, Code::Unauthenticated, "{token:?}");
        }
    }
    // A reader may read but not start anything.
    let reader = suite.client("reader", 0);
    for code in read_something(&reader).await {
        assert_eq!(code, Code::Ok);
    }
    let error = reader.try_start(start("shop", &nowhere())).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.message().contains("start"), "{error}");
    // Only a delegate may act on behalf of another principal.
    let request = StartReleaseRequest {
        on_behalf_of: "token/bob".to_owned(),
        ..start("shop", &nowhere())
    };
    let error = suite.client("alice", 0).try_start(request).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
}

/// Lists something at each of the services.
async fn read_something(clients: &Clients) -> [Code; 5] {
    fn code<T>(answer: Result<T, tonic::Status>) -> Code {
        answer.err().map_or(Code::Ok, |error| error.code())
    }
    [
        code(
            clients
                .builds
                .clone()
                .list_builds(slipway_proto::build::v1::ListBuildsRequest::default())
                .await,
        ),
        code(
            clients
                .gitops
                .clone()
                .list_changes(slipway_proto::gitops::v1::ListChangesRequest::default())
                .await,
        ),
        code(
            clients
                .approvals
                .clone()
                .list_approvals(slipway_proto::approval::v1::ListApprovalsRequest::default())
                .await,
        ),
        code(
            clients
                .deployments
                .clone()
                .list_deployments(slipway_proto::deploy::v1::ListDeploymentsRequest::default())
                .await,
        ),
        code(
            clients
                .releases
                .clone()
                .list_releases(slipway_proto::release::v1::ListReleasesRequest::default())
                .await,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_request() {
    let suite = suite().await;
    let alice = suite.client("alice", 0);
    let request = StartReleaseRequest {
        request_id: "once".to_owned(),
        ..start("shop", &nowhere())
    };
    let first = alice.try_start(request.clone()).await.unwrap();
    let again = alice.try_start(request.clone()).await.unwrap();
    assert_eq!(first.id, again.id);
    let other = StartReleaseRequest {
        environments: vec!["dev".to_owned()],
        ..request
    };
    let error = alice.try_start(other).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let release = alice.finished(&first.id).await;
    assert!(is_final(&release));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_limit_is_refused() {
    let suite = suite().await;
    let alice = suite.client("alice", 0);
    // The limit is 4 MiB.
    let request = StartReleaseRequest {
        service: "x".repeat(5 << 20),
        ..start("", &nowhere())
    };
    let error = alice.try_start(request).await.unwrap_err();
    assert!(
        [Code::OutOfRange, Code::ResourceExhausted].contains(&error.code()),
        "{:?}",
        error.code()
    );
    // Within it, fields have their own limits, and the answer does not repeat what was sent.
    let request = StartReleaseRequest {
        service: "x".repeat(1 << 20),
        ..start("", &nowhere())
    };
    let error = alice.try_start(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().len() < 2000, "{} bytes", error.message().len());
    // And the service continues.
    assert_eq!(read_something(&alice).await, [Code::Ok; 5]);
}
