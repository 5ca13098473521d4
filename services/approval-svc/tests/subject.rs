//! What an approval is for, as callers give it and people see it: kinds, scope, sections and their bodies.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashMap;

use futures::StreamExt;
use harness::{Service, decide, image, release, request};
use pretty_assertions::assert_eq;
use slipway_model::ContentHash;
use slipway_proto::{
    approval::v1::{
        Approval, Diff, ListApprovalsRequest, RequestApprovalRequest, Section, Subject, Table,
        WatchApprovalsRequest, approval::Status, decision::Verdict, section::Body, subject::Kind, table::Row,
    },
    common::v1::Link,
};
use slipway_server::ErrorView;
use slipway_testbed::Database;
use tonic::Code;

fn section(title: &str, body: Body) -> Section {
    Section {
        title: title.to_owned(),
        source: "test".to_owned(),
        body: Some(body),
        ..Section::default()
    }
}

fn table(columns: &[&str], rows: usize, cell: &str) -> Body {
    let row = Row {
        cells: columns.iter().map(|_| cell.to_owned()).collect(),
    };
    Body::Table(Table {
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        rows: vec![row; rows],
    })
}

fn diff(bytes: usize) -> Body {
    Body::Diff(Diff {
        text: "+a\n".repeat(bytes.div_ceil(3))[..bytes].to_owned(),
    })
}

fn link(href: &str) -> Body {
    Body::Link(Link {
        rel: "log".to_owned(),
        href: href.to_owned(),
    })
}

/// One of each form, and one that is too large for an event.
fn sections() -> Vec<Section> {
    vec![
        section("What changes", table(&["environment", "image"], 2, "a \"b\"")),
        section("Rendered", diff(200_000)),
        section("Notes", Body::Text("ünï\n\tcode\r\n".to_owned())),
        section("Log", link("https://ci.example/1")),
    ]
}

fn with(sections: Vec<Section>) -> RequestApprovalRequest {
    let mut request = request("prod", "prod");
    request.subject.as_mut().unwrap().sections = sections;
    request
}

fn bodies(approval: &Approval) -> Vec<Option<Body>> {
    let sections = &approval.subject.as_ref().unwrap().sections;
    sections.iter().map(|section| section.body.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_shown_to_who_asks_for_one_approval() {
    for database in [Database::sqlite().unwrap(), Database::postgres().await.unwrap()] {
        let service = Service::start(&database).await;
        let asked = service.ask("alice", with(sections())).await.unwrap();
        // As lists show it, and as answers to other calls do.
        let told: Vec<_> = asked.subject.as_ref().unwrap().sections.iter().collect();
        let hashed = [
            r#"{"columns":["environment","image"],"rows":[["a \"b\"","a \"b\""],["a \"b\"","a \"b\""]]}"#
                .to_owned(),
            "+a\n".repeat(66_667)[..200_000].to_owned(),
            "ünï\n\tcode\r\n".to_owned(),
            r#"{"href":"https://ci.example/1","rel":"log"}"#.to_owned(),
        ];
        for ((told, sent), hashed) in told.iter().zip(sections()).zip(&hashed) {
            assert_eq!((&told.title, &told.source), (&sent.title, &sent.source));
            assert_eq!(told.sha256, ContentHash::of(hashed).to_string());
            assert_eq!((told.size, &told.body), (hashed.len() as u64, &None));
        }
        let listed = service
            .client("reader")
            .list_approvals(ListApprovalsRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(listed.approvals, std::slice::from_ref(&asked));

        let sent: Vec<Option<Body>> = sections().into_iter().map(|section| section.body).collect();
        let shown = service.get("reader", &asked.id).await.unwrap();
        assert_eq!(bodies(&shown), sent);
        let bare = |mut approval: Approval| {
            for section in &mut approval.subject.as_mut().unwrap().sections {
                section.body = None;
            }
            approval
        };
        assert_eq!(bare(shown), asked);

        let watch = |id: &str| WatchApprovalsRequest {
            id: id.to_owned(),
            ..WatchApprovalsRequest::default()
        };
        let mut client = service.client("reader");
        let mut one = client
            .watch_approvals(watch(&asked.id))
            .await
            .unwrap()
            .into_inner();
        let mut all = client.watch_approvals(watch("")).await.unwrap().into_inner();
        let first = one.next().await.unwrap().unwrap().approval.unwrap();
        assert_eq!(bodies(&first), sent);
        assert_eq!(all.next().await.unwrap().unwrap().approval.unwrap(), asked);
        // Another process finds them too, and the end is shown whole.
        let no = decide(&asked, Verdict::Reject);
        let decided = service.decide("bob", no).await.unwrap();
        assert_eq!(bodies(&decided), [None, None, None, None]);
        let last = one.next().await.unwrap().unwrap().approval.unwrap();
        assert_eq!((last.status(), bodies(&last)), (Status::Rejected, sent.clone()));
        assert!(one.next().await.is_none());
        service.stop().await;
        let service = Service::start(&database).await;
        assert_eq!(bodies(&service.get("reader", &asked.id).await.unwrap()), sent);
        service.stop().await;
    }
}

/// Each request, and what its error says.
async fn refused(service: &Service, cases: Vec<(RequestApprovalRequest, &str, &str)>) {
    for (bad, field, says) in cases {
        let error = service.ask("alice", bad).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error}");
        assert_eq!(ErrorView::of(&error).field, field, "{error}");
        assert!(error.message().contains(says), "{says}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_refused_by_the_field() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    let one = |section: Section| with(vec![section]);
    let body = |body: Body| one(section("t", body));
    let text = |text: &str| body(Body::Text(text.to_owned()));
    let named = |title: &str, source: &str| {
        one(Section {
            title: title.to_owned(),
            source: source.to_owned(),
            ..section("t", diff(1))
        })
    };
    let rows = |rows: Vec<Vec<&str>>| {
        let rows = rows.into_iter().map(|cells| Row {
            cells: cells.into_iter().map(str::to_owned).collect(),
        });
        body(Body::Table(Table {
            columns: vec!["a".to_owned(), "b".to_owned()],
            rows: rows.collect(),
        }))
    };
    let second = |second: Section| with(vec![section("t", diff(1)), second]);
    let long = "x".repeat(201);
    let cell = "x".repeat(4097);
    let many: Vec<&str> = vec!["c"; 17];
    refused(
        &service,
        vec![
            (
                with(vec![section("t", diff(1)); 17]),
                "subject.sections",
                "are 17; give at most 16",
            ),
            (
                with(vec![section("t", diff(200_000)); 6]),
                "subject.sections",
                "more than 1048576 bytes",
            ),
            (named("", "s"), "subject.sections[0].title", "is required"),
            (named(&long, "s"), "subject.sections[0].title", "201 bytes"),
            (
                named("a\nb", "s"),
                "subject.sections[0].title",
                "control characters or line breaks",
            ),
            (named("t", ""), "subject.sections[0].source", "is required"),
            (named("t", &long), "subject.sections[0].source", "201 bytes"),
            (
                named("t", "a\u{1b}[2J"),
                "subject.sections[0].source",
                "control characters",
            ),
            (
                second(Section {
                    body: None,
                    ..section("t", diff(1))
                }),
                "subject.sections[1]",
                "table, diff, text and link",
            ),
            (
                body(diff(256 * 1024 + 1)),
                "subject.sections[0].diff.text",
                "at most 262144",
            ),
            (
                text(&"x".repeat(256 * 1024 + 1)),
                "subject.sections[0].text",
                "at most 262144",
            ),
            (
                text("bell\u{7}"),
                "subject.sections[0].text",
                "control characters other than",
            ),
            (
                second(section(
                    "t",
                    Body::Diff(Diff {
                        text: "\u{9b}1m".to_owned(),
                    }),
                )),
                "subject.sections[1].diff.text",
                "control characters other than",
            ),
            (
                body(table(&[], 1, "")),
                "subject.sections[0].table.columns",
                "are 0; give 1 to 16",
            ),
            (
                body(table(&many, 1, "")),
                "subject.sections[0].table.columns",
                "are 17",
            ),
            (
                body(table(&["a", ""], 1, "")),
                "subject.sections[0].table.columns[1]",
                "is required",
            ),
            (
                body(table(&[&long], 1, "")),
                "subject.sections[0].table.columns[0]",
                "201 bytes",
            ),
            (
                body(table(&["a"], 1001, "")),
                "subject.sections[0].table.rows",
                "are 1001; give at most 1000",
            ),
            (
                rows(vec![vec!["1", "2"], vec!["1"]]),
                "subject.sections[0].table.rows[1].cells",
                "are 1 under 2 columns",
            ),
            (
                rows(vec![vec!["1", &cell]]),
                "subject.sections[0].table.rows[0].cells[1]",
                "4097 bytes long; at most 4096",
            ),
            (
                rows(vec![vec!["1", "a\nb"]]),
                "subject.sections[0].table.rows[0].cells[1]",
                "line breaks",
            ),
            (
                body(table(&["a"], 300, &cell[..1000])),
                "subject.sections[0].table",
                "at most 262144",
            ),
            (body(link("")), "subject.sections[0].link.href", "is required"),
            (
                body(link("javascript:alert(1)")),
                "subject.sections[0].link.href",
                "https://",
            ),
            (
                body(link("https://a b")),
                "subject.sections[0].link.href",
                "https://",
            ),
            (
                one(Section {
                    sha256: "0".repeat(64),
                    ..section("t", diff(1))
                }),
                "subject.sections[0].sha256",
                ContentHash::of("+").as_str(),
            ),
            (
                one(Section {
                    sha256: "abc".to_owned(),
                    ..section("t", diff(1))
                }),
                "subject.sections[0].sha256",
                "64 lower-case hexadecimal digits",
            ),
            (
                one(Section {
                    size: 2,
                    ..section("t", diff(1))
                }),
                "subject.sections[0].size",
                "which is 1",
            ),
        ],
    )
    .await;
    // Exactly as much as is allowed; and what the caller hashed itself, where it is right.
    let most = vec![section("t", diff(256 * 1024)); 4];
    service.ask("alice", with(most)).await.unwrap();
    let hashed = Section {
        sha256: ContentHash::of("+a\n").to_string(),
        size: 3,
        ..section(&long[..200], diff(3))
    };
    service.ask("alice", with(vec![hashed; 16])).await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_subject_is_checked_too() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    let with = |change: &dyn Fn(&mut Subject)| {
        let mut request = request("prod", "prod");
        change(request.subject.as_mut().unwrap());
        request
    };
    let commits = |change: fn(&mut slipway_proto::approval::v1::CommitRange)| {
        with(&|subject| change(subject.commits.as_mut().unwrap()))
    };
    refused(
        &service,
        vec![
            (with(&|s| s.kind = 0), "subject.kind", "KIND_WORKFLOW_RUN"),
            (with(&|s| s.kind = 99), "subject.kind", "KIND_RELEASE"),
            (with(&|s| s.scope = None), "subject.scope", "is required"),
            (
                with(&|s| s.scope.as_mut().unwrap().environment.clear()),
                "subject.scope.environment",
                "is required for KIND_RELEASE",
            ),
            (
                with(&|s| s.scope.as_mut().unwrap().target = "\u{1}".to_owned()),
                "subject.scope.target",
                "control characters",
            ),
            (
                with(&|s| s.images.clear()),
                "subject.images",
                "give exactly one; several images are not supported yet",
            ),
            (
                with(&|s| s.images.push(image())),
                "subject.images",
                "several images are not supported yet",
            ),
            (
                with(&|s| {
                    s.set_kind(Kind::Canary);
                    s.images.push(image());
                }),
                "subject.images",
                "several images are not supported yet",
            ),
            (
                with(&|s| s.images[0].digest.clear()),
                "subject.images[0].digest",
                "is required",
            ),
            (
                with(&|s| s.images[0].repository = "A:b:c".to_owned()),
                "subject.images[0].repository",
                "image name",
            ),
            (
                commits(|c| c.repository_url = "https://a b".to_owned()),
                "subject.commits.repository_url",
                "white space",
            ),
            (
                commits(|c| c.repository_url = "x".repeat(2049)),
                "subject.commits.repository_url",
                "2048",
            ),
            (
                commits(|c| c.branch = "a..b".to_owned()),
                "subject.commits.branch",
                "check-ref-format",
            ),
            (
                commits(|c| c.base = "1a2b3c4".to_owned()),
                "subject.commits.base",
                "full id",
            ),
            (commits(|c| c.head.clear()), "subject.commits.head", "is required"),
            (
                with(&|s| s.plan_hash = "a b".to_owned()),
                "subject.plan_hash",
                "printable ASCII",
            ),
        ],
    )
    .await;
    service.stop().await;
}

/// Other kinds need no image, and no environment; then only roles and policies for every environment cover it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_kinds_have_less() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    for kind in [Kind::WorkflowRun, Kind::Canary, Kind::Infrastructure] {
        let mut subject = release("");
        subject.set_kind(kind);
        (subject.images, subject.commits) = (Vec::new(), None);
        let request = |policy: &str| RequestApprovalRequest {
            policy: policy.to_owned(),
            subject: Some(subject.clone()),
            authors: vec!["token/dave".to_owned()],
            labels: HashMap::new(),
            ..RequestApprovalRequest::default()
        };
        let asked = service.ask("alice", request("open")).await.unwrap();
        assert_eq!(asked.subject.as_ref(), Some(&subject));
        let denied = service.ask("staging", request("open")).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        let denied = service
            .decide("staging", decide(&asked, Verdict::Approve))
            .await
            .unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        // A policy for some environments is not one for none.
        let error = service.ask("alice", request("automatic")).await.unwrap_err();
        assert_eq!(ErrorView::of(&error).field, "policy");
        assert!(
            error
                .message()
                .contains("automatic may not be used for shop in no environment"),
            "{error}"
        );
        service
            .decide("bob", decide(&asked, Verdict::Approve))
            .await
            .unwrap();
        let done = service
            .decide("carol", decide(&asked, Verdict::Approve))
            .await
            .unwrap();
        assert_eq!(done.status(), Status::Approved);
    }
    service.stop().await;
}

/// The same request with another section is another request, and a decision on one is not a decision on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_holds_for_the_sections_too() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    let ask = |id: &str, sections: Vec<Section>| RequestApprovalRequest {
        request_id: id.to_owned(),
        ..with(sections)
    };
    let first = service.ask("alice", ask("r1", sections())).await.unwrap();
    let again = service.ask("alice", ask("r1", sections())).await.unwrap();
    assert_eq!(again, first);
    let mut changed = sections();
    changed[1].body = Some(diff(200_001));
    let error = service
        .ask("alice", ask("r1", changed.clone()))
        .await
        .unwrap_err();
    assert_eq!(ErrorView::of(&error).reason, "REQUEST_ID_REUSED");
    let mut turned = sections();
    turned.swap(2, 3);
    for other in [changed, turned, Vec::new()] {
        let other = service.ask("alice", ask("", other)).await.unwrap();
        assert_ne!(other.binding, first.binding);
        let mut word = decide(&other, Verdict::Approve);
        word.binding.clone_from(&first.binding);
        let error = service.decide("bob", word).await.unwrap_err();
        assert_eq!(ErrorView::of(&error).reason, "BINDING_MISMATCH");
    }
    service.stop().await;
}

/// A body that was changed in the database is not shown, and the rest of the service goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_changed_is_never_shown() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    let marked = "replicas: 2 # as it was asked for\n";
    let section = section("Rendered", Body::Text(marked.repeat(200)));
    let asked = service.ask("alice", with(vec![section])).await.unwrap();
    let other = service.ask("alice", with(sections())).await.unwrap();
    service.stop().await;
    // The file itself, as a person with a shell on the database's machine would: wherever the body stands in it.
    let file = database.file().unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    let found: Vec<usize> = bytes
        .windows(marked.len())
        .enumerate()
        .filter(|(_, window)| *window == marked.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at + "replicas: ".len()] = b'9';
    }
    std::fs::write(file, bytes).unwrap();

    let service = Service::start(&database).await;
    let error = service.get("alice", &asked.id).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(!error.message().contains("replicas"), "{error}");
    let mut watch = service
        .client("alice")
        .watch_approvals(WatchApprovalsRequest {
            id: asked.id.clone(),
            ..WatchApprovalsRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Internal);
    assert_eq!(bodies(&service.get("alice", &other.id).await.unwrap()).len(), 4);
    let listed = service
        .client("alice")
        .list_approvals(ListApprovalsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.approvals.len(), 2);
    service.stop().await;
}
