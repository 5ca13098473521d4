//! `slipway approval …` against a service: what waits for whom, and what happens without an id.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Output, Stdio},
};

use approval_svc::Config;
use slipway_proto::{
    approval::v1::{
        CommitRange, RequestApprovalRequest, Scope, Subject, approval_service_client::ApprovalServiceClient,
        subject::Kind,
    },
    common::v1::Image,
};
use slipway_server::TokenHash;
use slipway_testbed::{InProcess, TestDir};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

/// A service, and the command line.
struct World {
    dir: TestDir,
    service: InProcess<Config>,
}

impl World {
    async fn start(name: &str) -> Self {
        let dir = TestDir::new(name).unwrap();
        let path = dir.path().display();
        let mut yaml = "server:\n  principals:\n".to_owned();
        for person in PEOPLE {
            let hash = String::from(TokenHash::of(&format!("{person}-token")));
            yaml += &format!(
                "  - {{subject: {person}, token_sha256: {hash}, roles: [{{actions: [read, start, approve]}}]}}\n"
            );
            fs::write(dir.path().join(person), format!("{person}-token")).unwrap();
        }
        yaml += &format!(
            "database: {{url: 'sqlite://{path}/approval.db'}}\npolicies: {{one: {{required: 1, exclude_authors: false}}}}\n"
        );
        let service = InProcess::start("approval-svc", &yaml, approval_svc::run)
            .await
            .unwrap();
        let url = service.url();
        fs::write(
            dir.path().join("context.yaml"),
            format!("approval: {url}\nuser: alice\ntoken_files: {{alice: alice, bob: bob, carol: carol}}\n"),
        )
        .unwrap();
        Self { dir, service }
    }

    /// Off a terminal.
    async fn slipway(&self, person: &str, arguments: &[&str]) -> Output {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_slipway"))
            .arg("--context")
            .arg(self.dir.path().join("context.yaml"))
            .args(["--as", person, "approval"])
            .args(arguments)
            .env_remove("SLIPWAY_USER")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// alice requests an approval.
    async fn request(&self, summary: &str) -> String {
        let mut client = ApprovalServiceClient::new(self.service.channel(Some("alice-token")));
        let request = RequestApprovalRequest {
            policy: "one".to_owned(),
            subject: Some(Subject {
                kind: Kind::Release.into(),
                scope: Some(Scope {
                    service: "shop".to_owned(),
                    environment: "prod".to_owned(),
                    target: String::new(),
                }),
                images: vec![Image {
                    repository: "registry.example/shop".to_owned(),
                    digest: format!("sha256:{}", "ab".repeat(32)),
                    ..Image::default()
                }],
                commits: Some(CommitRange {
                    head: "1".repeat(40),
                    ..CommitRange::default()
                }),
                summary: summary.to_owned(),
                ..Subject::default()
            }),
            ..RequestApprovalRequest::default()
        };
        let answer = client.request_approval(request).await.unwrap().into_inner();
        answer.approval.unwrap().id
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let (exit, text) = said(output);
    assert_eq!(exit, Some(code), "{text}");
    for words in words {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_id_it_names_what_waits_for_the_caller() {
    let world = World::start("cli-approvals").await;
    let approve = async |person| world.slipway(person, &["approve"]).await;
    says(&approve("bob").await, 1, &["no approval waits for you"]);

    let first = world.request("shop 1111111 to prod").await;
    let next = format!("next: slipway approval approve {first}");
    let words = format!("only {first} waits for you (shop 1111111 to prod)");
    says(&approve("bob").await, 1, &[&words, &next]);
    let reject = world.slipway("bob", &["reject"]).await;
    says(&reject, 1, &[&format!("slipway approval reject {first}")]);
    // alice requested it: it waits for others.
    says(&approve("alice").await, 1, &["no approval waits for you"]);
    let mine = world.slipway("alice", &["list", "--mine"]).await;
    says(&mine, 0, &["no approval waits for you"]);
    says(&world.slipway("alice", &["list"]).await, 0, &[&first]);

    let second = world.request("shop 2222222 to prod").await;
    says(
        &approve("bob").await,
        1,
        &[&first, &second, "more than one approval waits for you"],
    );

    says(
        &world.slipway("bob", &["approve", &first]).await,
        0,
        &["APPROVED"],
    );
    let words = format!("only {second} waits for you");
    says(&approve("carol").await, 1, &[&words]);
    // A binding without the approval that it is of says nothing.
    let alone = world.slipway("bob", &["approve", "--binding", "00"]).await;
    assert_eq!(said(&alone).0, Some(2));
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_says_what_json_says() {
    let world = World::start("cli-yaml").await;
    let id = world.request("shop 1111111 to prod: \"yes\", 1e5").await;
    for command in [&["list"][..], &["get", &id]] {
        let output = async |form| {
            let output = world.slipway("bob", &[command, &["-o", form]].concat()).await;
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let json: serde_json::Value = serde_json::from_str(&output("json").await).unwrap();
        let yaml = output("yaml").await;
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, json, "{yaml}");
        assert!(!yaml.trim_start().starts_with('{'), "{yaml}");
    }
    world.service.stop().await;
}
