//! The program itself: its command line, its signals.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use slipway_proto::{
    approval::v1::{
        CommitRange, GetApprovalRequest, ListApprovalsRequest, ListPoliciesRequest, RequestApprovalRequest,
        Scope, Section, Subject, approval_service_client::ApprovalServiceClient, section::Body,
        subject::Kind,
    },
    common::v1::Image,
};
use slipway_server::ClientConfig;
use slipway_testbed::TestDir;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_approval-svc"));
    command.env_remove("SLIPWAY_CONFIG");
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const CONFIG: &str = include_str!("../example.yaml");

/// The example, with a database in `folder` and a free port.
fn config(folder: &TestDir, change: impl Fn(String) -> String) -> std::path::PathBuf {
    let database = format!("sqlite://{}", folder.path().join("a.db").display());
    let text = CONFIG
        .replace("sqlite:///tmp/approvals.db", &database)
        .replace("127.0.0.1:7003", "127.0.0.1:0");
    let path = folder.path().join("approval.yaml");
    std::fs::write(&path, change(text)).unwrap();
    path
}

#[test]
fn help_says_how_to_use_it() {
    let output = program().arg("--help").output().unwrap();
    assert!(output.status.success());
    for words in ["under named policies", "--config", "--check", "SLIPWAY_CONFIG"] {
        assert!(text(&output).contains(words), "{words}: {}", text(&output));
    }
}

#[test]
fn a_configuration_is_checked_without_running() {
    let folder = TestDir::new("program").unwrap();
    let good = config(&folder, |text| text);
    let output = program()
        .arg("--check")
        .env("SLIPWAY_CONFIG", &good)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!folder.path().join("a.db").exists(), "checking touches nothing");

    for (from, to, says) in [
        ("required: 2", "requird: 2", "policies.prod.requird"),
        (
            "required: 2",
            "required: 4",
            "policies.prod.required: is 4, but only 3 approvers",
        ),
        (
            "listen: 127.0.0.1:0",
            "listen: 0.0.0.0:0",
            "server.tls: is required",
        ),
        (
            "listen: 127.0.0.1:0",
            "listen: 127.0.0.1:0\n  ops_listen: 198.51.100.1:1",
            "server.ops_listen: cannot listen on 198.51.100.1:1",
        ),
        (
            "listen: 127.0.0.1:0",
            "listen: 127.0.0.1:0\n  tls: {certificate: /absent.pem, key: /absent.key}",
            "server.tls.certificate: /absent.pem: cannot be read",
        ),
        (
            "database:",
            "bus: {redis_url_file: /absent}\ndatabase:",
            "bus.redis_url_file: /absent: cannot be read",
        ),
        (
            "sqlite://",
            "sqlite:///absent",
            "database.url: ledger configuration: /absent",
        ),
    ] {
        let bad = config(&folder, |text| text.replace(from, to));
        let output = program()
            .args(["--check", "--config"])
            .arg(&bad)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
        assert!(
            text(&output).contains(&*bad.to_string_lossy()),
            "{}",
            text(&output)
        );
    }
    // The service that is checked may be the one that runs.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let running = config(&folder, |text| text.replace("127.0.0.1:0", &address));
    let output = program()
        .args(["--check", "--config"])
        .arg(&running)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains(&format!("note: server.listen: {address} is in use")),
        "{}",
        text(&output)
    );
    let output = program().output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "without a configuration: {}",
        text(&output)
    );
}

#[test]
fn a_signal_drains_it() {
    let folder = TestDir::new("program").unwrap();
    let path = config(&folder, |text| text);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = program()
            .arg("--config")
            .arg(&path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map(Result::unwrap);
        let serving = lines
            .find(|line| line.contains("serving"))
            .expect("it says that it serves");
        let line: serde_json::Value = serde_json::from_str(&serving).expect(&serving);
        assert!(line.to_string().contains("127.0.0.1:"), "{line}");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let rest: Vec<String> = lines.collect();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{rest:#?}");
        assert!(rest.iter().any(|line| line.contains("draining")), "{rest:#?}");
    }
}

/// Not even when everything is logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_not_logged() {
    let folder = TestDir::new("program").unwrap();
    let path = config(&folder, |text| {
        text.replace("log_filter: info", "log_filter: trace")
    });
    let mut child = program()
        .arg("--config")
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut log = Vec::new();
    let address = loop {
        let line = lines.next().expect("it serves");
        log.push(line.clone());
        if let Some(address) = line
            .contains("\"serving\"")
            .then(|| line.split("127.0.0.1:").nth(1))
            .flatten()
        {
            break format!("http://127.0.0.1:{}", address.split('"').next().unwrap());
        }
    };
    let reader = std::thread::spawn(move || {
        log.extend(lines);
        log
    });
    for (token, known) in [("alice-token", true), ("a-token-that-nobody-has", false)] {
        let channel = ClientConfig::new(&address, token).connect("approval").unwrap();
        let answer = ApprovalServiceClient::new(channel)
            .list_policies(ListPoliciesRequest {})
            .await;
        assert_eq!(answer.is_ok(), known, "{answer:?}");
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = reader.join().unwrap();
    let access: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("slipway::access"))
        .collect();
    assert!(
        access
            .iter()
            .any(|line| line.contains("token/alice") && line.contains("ListPolicies")),
        "{access:?}"
    );
    assert!(
        access.iter().any(|line| line.contains("Unauthenticated")),
        "{access:?}"
    );
    for line in &log {
        assert!(
            !line.contains("alice-token") && !line.contains("a-token-that-nobody-has"),
            "{line}"
        );
    }
}

/// A running program, and where it serves.
fn serving(path: &std::path::Path, fault: Option<&str>) -> (Child, String) {
    let mut command = program();
    command.arg("--config").arg(path).stderr(Stdio::piped());
    if let Some(fault) = fault {
        command.env("SLIPWAY_FAULT_KILL_AT", fault);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let serving = lines
        .find(|line| line.contains("\"serving\""))
        .expect("it serves");
    let port = serving.split("127.0.0.1:").nth(1).unwrap();
    let address = format!("http://127.0.0.1:{}", port.split('"').next().unwrap());
    // The program blocks unless what it writes is read.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

/// Killed after a section's body is kept and before the event that names it: nothing was asked for, and asking again with
/// the same request id finds the body where it is. One that is never asked for again only takes its room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_a_body_and_its_event_it_can_be_asked_again() {
    let folder = TestDir::new("program").unwrap();
    let path = config(&folder, |text| text);
    let client = |address: &str| {
        let channel = ClientConfig::new(address, "alice-token")
            .connect("approval")
            .unwrap();
        ApprovalServiceClient::new(channel)
    };
    let text = |first: &str| Section {
        title: "Plan".to_owned(),
        source: "test".to_owned(),
        body: Some(Body::Text(format!("{first}{}", "x".repeat(5000)))),
        ..Section::default()
    };
    let request = RequestApprovalRequest {
        request_id: "r1".to_owned(),
        policy: "prod".to_owned(),
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
            sections: vec![text("first"), text("second")],
            ..Subject::default()
        }),
        authors: vec!["token/alice".to_owned()],
        ..RequestApprovalRequest::default()
    };
    for fault in ["ledger.content.after:1", "ledger.content.after:2"] {
        let (mut child, address) = serving(&path, Some(fault));
        client(&address)
            .request_approval(request.clone())
            .await
            .unwrap_err();
        assert!(!child.wait().unwrap().success());
        let (mut child, address) = serving(&path, None);
        let listed = client(&address)
            .list_approvals(ListApprovalsRequest::default())
            .await;
        assert_eq!(listed.unwrap().into_inner().approvals.len(), 0);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let (mut child, address) = serving(&path, None);
    let asked = client(&address).request_approval(request.clone()).await.unwrap();
    let id = asked.into_inner().approval.unwrap().id;
    let shown = client(&address)
        .get_approval(GetApprovalRequest { id })
        .await
        .unwrap();
    let sections = shown.into_inner().approval.unwrap().subject.unwrap().sections;
    let bodies: Vec<_> = sections.into_iter().map(|section| section.body).collect();
    assert_eq!(bodies, [text("first").body, text("second").body]);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
