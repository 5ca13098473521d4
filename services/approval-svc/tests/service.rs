//! The service as its callers see it: over gRPC, on SQLite and on PostgreSQL.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

mod harness;

use futures::StreamExt;
use harness::{Service, decide, hinted, request};
use pretty_assertions::assert_eq;
use slipway_proto::{
    approval::v1::{
        Approval, CancelApprovalRequest, DecideRequest, GetApprovalRequest, ListApprovalsRequest,
        ListPoliciesRequest, RequestApprovalRequest, Scope, StreamEventsRequest, WatchApprovalsRequest,
        approval::Status, decision::Verdict,
    },
    common::v1::actor::Authentication,
};
use slipway_server::{ErrorView, convert};
use slipway_testbed::Database;
use tonic::Code;

/// The same test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Database::sqlite().unwrap()).await; })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Database::postgres().await.unwrap()).await; })*
        }
    };
}

on_both!(
    two_others_approve,
    everyone_is_who_their_token_says,
    refusals_have_their_reasons,
    bad_input_is_named,
    repeats_do_nothing_twice,
    time_runs_out_also_while_nobody_is_there,
    two_replicas_are_one_service,
    watches_follow_what_they_ask_for,
    lists_filter_and_page,
    events_come_in_order_and_resume,
);

fn reason(error: &tonic::Status) -> (Code, String) {
    (error.code(), ErrorView::of(error).reason)
}

fn refused(reason: &str) -> (Code, String) {
    (Code::FailedPrecondition, reason.to_owned())
}

fn code(approval: &Approval) -> &str {
    approval.reason.as_ref().map_or("", |reason| &reason.code)
}

async fn two_others_approve(database: Database) {
    let service = Service::start(&database).await;
    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    assert_eq!((asked.status(), asked.required), (Status::Pending, 2));
    assert_eq!(asked.authors, ["token/dave"]);
    assert_eq!(asked.policy.as_ref().unwrap().name, "prod");
    assert_eq!(asked.subject, request("prod", "prod").subject);
    let waiting = asked.waiting_on.as_ref().unwrap();
    assert_eq!(waiting.message, "0 of 2 approvals; 2 more by bob, carol, erin");
    assert_eq!(waiting.r#ref, asked.id);
    assert_eq!(waiting.since, asked.create_time);
    let (created, expires) = (asked.create_time.unwrap(), asked.expire_time.unwrap());
    assert_eq!(expires.seconds - created.seconds, 3600);

    let once = service
        .decide("bob", decide(&asked, Verdict::Approve))
        .await
        .unwrap();
    assert_eq!(once.status(), Status::Pending);
    assert_eq!(
        once.waiting_on.unwrap().message,
        "1 of 2 approvals; 1 more by carol, erin"
    );
    assert_ne!(once.etag, asked.etag);
    let twice = service
        .decide("carol", decide(&asked, Verdict::Approve))
        .await
        .unwrap();
    assert_eq!(
        (twice.status(), code(&twice)),
        (Status::Approved, "ENOUGH_APPROVALS")
    );
    assert!(twice.end_time.is_some() && twice.waiting_on.is_none());
    let by: Vec<_> = twice
        .decisions
        .iter()
        .map(|decision| convert::effective(decision.by.as_ref()))
        .collect();
    assert_eq!(by, ["token/bob", "token/carol"]);
    assert_eq!(service.get("alice", &asked.id).await.unwrap(), twice);

    // One rejection is enough, and a policy that requires no approvals says so.
    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    let no = service
        .decide("erin", decide(&asked, Verdict::Reject))
        .await
        .unwrap();
    assert_eq!((no.status(), code(&no)), (Status::Rejected, "REJECTED"));
    let free = service.ask("alice", request("automatic", "dev")).await.unwrap();
    assert_eq!(
        (free.status(), code(&free)),
        (Status::Approved, "POLICY_REQUIRES_NOBODY")
    );
    service.stop().await;
}

async fn everyone_is_who_their_token_says(database: Database) {
    let service = Service::start(&database).await;
    // No token, a wrong one, one without the role, one with it elsewhere.
    for (token, wanted) in [
        (None, Code::Unauthenticated),
        (Some("nobody-knows-this"), Code::Unauthenticated),
        (Some("reader-token"), Code::PermissionDenied),
        (Some("staging-token"), Code::PermissionDenied),
    ] {
        let mut client = service.client_with(token);
        let error = client
            .request_approval(request("prod", "prod"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), wanted, "{token:?}: {error}");
    }
    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    for name in ["reader", "staging"] {
        let error = service
            .decide(name, decide(&asked, Verdict::Approve))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{name}: {error}");
        assert!(error.message().contains("approve"), "{error}");
    }
    // Only the delegate role allows a caller to speak for another principal.
    let for_carol = DecideRequest {
        on_behalf_of: "token/carol".to_owned(),
        ..decide(&asked, Verdict::Approve)
    };
    let error = service.decide("bob", for_carol.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.message().contains("delegate"), "{error}");
    let through = service.decide("bot", for_carol).await.unwrap();
    let by = through.decisions[0].by.clone().unwrap();
    let links: Vec<_> = by
        .links
        .iter()
        .map(|link| (link.principal.as_str(), link.authentication()))
        .collect();
    assert_eq!(
        links,
        [
            ("token/bot", Authentication::StaticToken),
            ("token/carol", Authentication::Delegated)
        ]
    );
    let asked_for = RequestApprovalRequest {
        on_behalf_of: "token/bob".to_owned(),
        ..request("prod", "prod")
    };
    let error = service.ask("alice", asked_for.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let asked_for = service.ask("bot", asked_for).await.unwrap();
    assert_eq!(convert::effective(asked_for.requested_by.as_ref()), "token/bob");
    let error = service
        .decide("bob", decide(&asked_for, Verdict::Approve))
        .await
        .unwrap_err();
    assert_eq!(
        reason(&error),
        refused("SELF_APPROVAL"),
        "asking through a bot is asking"
    );

    // Where the policy names nobody, a bot cannot make people up: they need the role themselves.
    let open = service.ask("alice", request("open", "prod")).await.unwrap();
    for (person, allowed) in [
        ("token/made-up", false),
        ("token/reader", false),
        ("token/carol", true),
    ] {
        let word = DecideRequest {
            on_behalf_of: person.to_owned(),
            ..decide(&open, Verdict::Approve)
        };
        let result = service.decide("bot", word).await;
        assert_eq!(result.is_ok(), allowed, "{person}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.code(), Code::PermissionDenied);
        }
    }
    service.stop().await;
}

async fn refusals_have_their_reasons(database: Database) {
    let service = Service::start(&database).await;
    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    let yes = || decide(&asked, Verdict::Approve);
    for (name, word, wanted) in [
        ("alice", yes(), "SELF_APPROVAL"),
        ("dave", yes(), "AUTHOR_APPROVAL"),
        ("frank", yes(), "NOT_AN_APPROVER"),
        (
            "bob",
            DecideRequest {
                binding: "0".repeat(64),
                ..yes()
            },
            "BINDING_MISMATCH",
        ),
    ] {
        let error = service.decide(name, word).await.unwrap_err();
        assert_eq!(reason(&error), refused(wanted), "{error}");
    }
    service.decide("bob", yes()).await.unwrap();
    let error = service.decide("bob", yes()).await.unwrap_err();
    assert_eq!(reason(&error), refused("ALREADY_DECIDED"));
    service.decide("carol", yes()).await.unwrap();
    let error = service.decide("erin", yes()).await.unwrap_err();
    assert_eq!(reason(&error), refused("FINAL"));

    // A plan that has changed is another subject, and another approval: the old decision does not fit it.
    let mut changed = request("prod", "prod");
    changed.subject.as_mut().unwrap().plan_hash = "another-plan".to_owned();
    let changed = service.ask("alice", changed).await.unwrap();
    let stale = DecideRequest {
        binding: asked.binding.clone(),
        ..decide(&changed, Verdict::Approve)
    };
    assert_eq!(
        reason(&service.decide("bob", stale).await.unwrap_err()),
        refused("BINDING_MISMATCH")
    );

    // What nobody could grant is not left waiting.
    let unknown = RequestApprovalRequest {
        authors: ["who", "what", "else"]
            .map(|name| format!("{name}@example.org"))
            .to_vec(),
        ..request("prod", "prod")
    };
    let error = service.ask("alice", unknown).await.unwrap_err();
    assert_eq!(reason(&error), refused("NOT_ENOUGH_APPROVERS"));
    assert!(error.message().contains("who@example.org"), "{error}");
    // Without a list, roles decide: five have the role in prod who neither requested nor wrote it, and six in staging.
    let error = service.ask("alice", request("crowd", "prod")).await.unwrap_err();
    assert_eq!(reason(&error), refused("NOT_ENOUGH_APPROVERS"));
    let words = "only 5 people may decide (token/alice requested it; token/dave wrote the commit)";
    assert!(error.message().contains(words), "{error}");
    service.ask("alice", request("crowd", "staging")).await.unwrap();
    let one_more = RequestApprovalRequest {
        authors: Vec::new(),
        ..request("prod", "prod")
    };
    let one_more = service.ask("alice", one_more).await.unwrap();
    assert_eq!(
        (one_more.required, one_more.unmapped_authors),
        (3, vec!["unknown".to_owned()])
    );

    // Cancelling is final, and a second time changes nothing.
    let cancel = CancelApprovalRequest {
        id: changed.id.clone(),
        reason: "superseded".to_owned(),
    };
    let error = service
        .client("bob")
        .cancel_approval(cancel.clone())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    for _ in 0..2 {
        let cancelled = service
            .client("alice")
            .cancel_approval(cancel.clone())
            .await
            .unwrap()
            .into_inner();
        let cancelled = cancelled.approval.unwrap();
        assert_eq!(
            (cancelled.status(), code(&cancelled)),
            (Status::Cancelled, "CANCELLED")
        );
        assert_eq!(cancelled.reason.unwrap().message, "superseded");
    }
    let error = service
        .decide("bob", decide(&changed, Verdict::Approve))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), refused("FINAL"));
    service.stop().await;
}

fn scope(request: &mut RequestApprovalRequest) -> &mut Scope {
    request.subject.as_mut().unwrap().scope.as_mut().unwrap()
}

async fn bad_input_is_named(database: Database) {
    let service = Service::start(&database).await;
    let with = |change: fn(&mut RequestApprovalRequest)| {
        let mut request = request("prod", "prod");
        change(&mut request);
        request
    };
    for (bad, field) in [
        (with(|r| r.subject = None), "subject"),
        (with(|r| scope(r).service.clear()), "subject.scope.service"),
        (
            with(|r| scope(r).environment = "Prod".to_owned()),
            "subject.scope.environment",
        ),
        (
            with(|r| {
                let subject = r.subject.as_mut().unwrap();
                subject.commits.as_mut().unwrap().head = "main".to_owned();
            }),
            "subject.commits.head",
        ),
        (
            with(|r| r.subject.as_mut().unwrap().images[0].digest = "sha256:1".to_owned()),
            "subject.images[0].digest",
        ),
        (
            with(|r| r.subject.as_mut().unwrap().summary = "x".repeat(5000)),
            "subject.summary",
        ),
        (with(|r| r.on_behalf_of = "bob".to_owned()), "on_behalf_of"),
        (with(|r| r.request_id = "a b".to_owned()), "request_id"),
        (with(|r| r.authors = vec!["x".repeat(400)]), "authors"),
        (
            with(|r| drop(r.labels.insert(String::new(), String::new()))),
            "labels",
        ),
        (with(|r| r.policy = "nonesuch".to_owned()), "policy"),
        (with(|r| r.policy.clear()), "policy"),
        (with(|r| r.policy = "automatic".to_owned()), "policy"),
    ] {
        let error = service.ask("alice", bad).await.unwrap_err();
        assert_eq!(
            (error.code(), ErrorView::of(&error).field.as_str()),
            (Code::InvalidArgument, field),
            "{error}"
        );
    }
    let error = service
        .ask("alice", request("nonesuch", "prod"))
        .await
        .unwrap_err();
    assert!(
        error
            .message()
            .contains("usable policies: crowd, open, prod, quick"),
        "{error}"
    );
    let error = service
        .ask("alice", request("automatic", "prod"))
        .await
        .unwrap_err();
    assert!(
        error
            .message()
            .contains("automatic may not be used for shop in prod"),
        "{error}"
    );

    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    for (bad, field) in [
        (
            DecideRequest {
                verdict: 0,
                ..decide(&asked, Verdict::Approve)
            },
            "verdict",
        ),
        (
            DecideRequest {
                binding: String::new(),
                ..decide(&asked, Verdict::Approve)
            },
            "binding",
        ),
        (
            DecideRequest {
                id: String::new(),
                ..decide(&asked, Verdict::Approve)
            },
            "id",
        ),
        (
            DecideRequest {
                comment: "\u{7}".to_owned(),
                ..decide(&asked, Verdict::Approve)
            },
            "comment",
        ),
    ] {
        let error = service.decide("bob", bad).await.unwrap_err();
        assert_eq!(
            (error.code(), ErrorView::of(&error).field.as_str()),
            (Code::InvalidArgument, field),
            "{error}"
        );
    }
    let missing = DecideRequest {
        id: "apr-none".to_owned(),
        ..decide(&asked, Verdict::Approve)
    };
    assert_eq!(
        service.decide("bob", missing).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        service.get("bob", "apr-none").await.unwrap_err().code(),
        Code::NotFound
    );
    let watch = WatchApprovalsRequest {
        id: "apr-none".to_owned(),
        ..WatchApprovalsRequest::default()
    };
    assert_eq!(
        service
            .client("bob")
            .watch_approvals(watch)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );

    let large = RequestApprovalRequest {
        correlation_id: "x".repeat(5 << 20),
        ..request("prod", "prod")
    };
    let error = service.ask("alice", large).await.unwrap_err();
    assert!(
        matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{error:?}"
    );
    service.stop().await;
}

async fn repeats_do_nothing_twice(database: Database) {
    let service = Service::start(&database).await;
    let keyed = RequestApprovalRequest {
        request_id: "r-1".to_owned(),
        ..request("prod", "prod")
    };
    let first = service.ask("alice", keyed.clone()).await.unwrap();
    assert_eq!(service.ask("alice", keyed.clone()).await.unwrap(), first);
    // Another request under the same id is refused; the same id of another caller is another id.
    let other = RequestApprovalRequest {
        correlation_id: "rel-2".to_owned(),
        ..keyed.clone()
    };
    let error = service.ask("alice", other).await.unwrap_err();
    assert_eq!(
        reason(&error),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned())
    );
    assert_ne!(service.ask("bot", keyed.clone()).await.unwrap().id, first.id);

    let word = DecideRequest {
        request_id: "d-1".to_owned(),
        ..decide(&first, Verdict::Approve)
    };
    let once = service.decide("bob", word.clone()).await.unwrap();
    assert_eq!(service.decide("bob", word.clone()).await.unwrap(), once);
    let other = DecideRequest {
        verdict: Verdict::Reject.into(),
        ..word.clone()
    };
    assert_eq!(
        service.decide("bob", other).await.unwrap_err().code(),
        Code::AlreadyExists
    );

    // Many at once: one approval, one word.
    let keyed = RequestApprovalRequest {
        request_id: "r-2".to_owned(),
        ..keyed
    };
    let asked = futures::future::join_all((0..8).map(|_| service.ask("alice", keyed.clone()))).await;
    let ids: std::collections::BTreeSet<String> = asked.into_iter().map(|asked| asked.unwrap().id).collect();
    assert_eq!(ids.len(), 1);
    let asked = service.get("alice", ids.first().unwrap()).await.unwrap();
    let words =
        futures::future::join_all((0..8).map(|_| service.decide("bob", decide(&asked, Verdict::Approve))))
            .await;
    assert_eq!(words.iter().filter(|word| word.is_ok()).count(), 1);
    for error in words.into_iter().filter_map(Result::err) {
        assert_eq!(reason(&error), refused("ALREADY_DECIDED"));
    }
    assert_eq!(service.get("alice", &asked.id).await.unwrap().decisions.len(), 1);

    // A repeat after a restart, when it is final, answers what there is.
    service
        .decide("carol", decide(&first, Verdict::Approve))
        .await
        .unwrap();
    service.stop().await;
    let service = Service::start(&database).await;
    let again = service.decide("bob", word).await.unwrap();
    assert_eq!((again.status(), again.decisions.len()), (Status::Approved, 2));
    service.stop().await;
}

async fn time_runs_out_also_while_nobody_is_there(database: Database) {
    let service = Service::start(&database).await;
    let watched = service.ask("alice", request("quick", "prod")).await.unwrap();
    let watch = WatchApprovalsRequest {
        id: watched.id.clone(),
        ..WatchApprovalsRequest::default()
    };
    let states = service
        .client("alice")
        .watch_approvals(watch)
        .await
        .unwrap()
        .into_inner();
    let states: Vec<Status> = states
        .map(|state| state.unwrap().approval.unwrap().status())
        .collect()
        .await;
    assert_eq!(
        states,
        [Status::Pending, Status::Expired],
        "the watch ends with the end"
    );
    let expired = service.get("alice", &watched.id).await.unwrap();
    assert_eq!(code(&expired), "EXPIRED");
    assert!(expired.end_time.unwrap().seconds >= expired.expire_time.unwrap().seconds);
    let error = service
        .decide("bob", decide(&watched, Verdict::Approve))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), refused("EXPIRED"));

    // The time of this one passes while the service is down.
    let alone = service.ask("alice", request("quick", "prod")).await.unwrap();
    service.stop().await;
    let service = Service::start(&database).await;
    let watch = WatchApprovalsRequest {
        id: alone.id.clone(),
        ..WatchApprovalsRequest::default()
    };
    let states = service
        .client("alice")
        .watch_approvals(watch)
        .await
        .unwrap()
        .into_inner();
    let last = states
        .map(|state| state.unwrap().approval.unwrap().status())
        .collect::<Vec<_>>()
        .await
        .pop();
    assert_eq!(last, Some(Status::Expired));
    service.stop().await;
}

async fn two_replicas_are_one_service(database: Database) {
    let (one, two) = (Service::start(&database).await, Service::start(&database).await);
    let asked = one.ask("alice", request("prod", "prod")).await.unwrap();
    let watch = WatchApprovalsRequest {
        id: asked.id.clone(),
        ..WatchApprovalsRequest::default()
    };
    let mut states = one
        .client("alice")
        .watch_approvals(watch)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        states
            .message()
            .await
            .unwrap()
            .unwrap()
            .approval
            .unwrap()
            .status(),
        Status::Pending
    );
    two.decide("bob", decide(&asked, Verdict::Approve)).await.unwrap();
    assert_eq!(
        reason(
            &one.decide("bob", decide(&asked, Verdict::Approve))
                .await
                .unwrap_err()
        ),
        refused("ALREADY_DECIDED")
    );
    two.decide("carol", decide(&asked, Verdict::Approve))
        .await
        .unwrap();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = state.approval;
    }
    assert_eq!(last.unwrap().status(), Status::Approved);
    one.stop().await;
    two.stop().await;
}

async fn watches_follow_what_they_ask_for(database: Database) {
    let service = Service::start(&database).await;
    let old = service.ask("alice", request("prod", "prod")).await.unwrap();
    let done = service.ask("alice", request("automatic", "dev")).await.unwrap();
    // A bot that watches what is pending in prod.
    let mut watch = WatchApprovalsRequest {
        environment: "prod".to_owned(),
        ..WatchApprovalsRequest::default()
    };
    watch.set_status(Status::Pending);
    let mut pending = service
        .client("bot")
        .watch_approvals(watch)
        .await
        .unwrap()
        .into_inner();
    let first = pending.message().await.unwrap().unwrap().approval.unwrap();
    assert_eq!((&first.id, first.status()), (&old.id, Status::Pending));

    let new = service.ask("alice", request("prod", "prod")).await.unwrap();
    let seen = pending.message().await.unwrap().unwrap().approval.unwrap();
    assert_eq!(seen.id, new.id);
    service
        .decide("bob", decide(&new, Verdict::Approve))
        .await
        .unwrap();
    let seen = pending.message().await.unwrap().unwrap().approval.unwrap();
    assert_eq!(
        (seen.id.as_str(), seen.decisions.len(), seen.status()),
        (new.id.as_str(), 1, Status::Pending)
    );
    // It leaves the filter, and is shown a last time.
    service
        .decide("carol", decide(&new, Verdict::Reject))
        .await
        .unwrap();
    let seen = pending.message().await.unwrap().unwrap().approval.unwrap();
    assert_eq!(
        (seen.id.as_str(), seen.status()),
        (new.id.as_str(), Status::Rejected)
    );
    // What was missed meanwhile would come before this one.
    let later = service.ask("alice", request("prod", "prod")).await.unwrap();
    assert_eq!(
        pending.message().await.unwrap().unwrap().approval.unwrap().id,
        later.id
    );

    // Without a filter everything that the caller may read comes, newest first.
    let everything = |name: &'static str| service.client(name);
    let all = everything("bot")
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<String> = all
        .take(4)
        .map(|state| state.unwrap().approval.unwrap().id)
        .collect()
        .await;
    assert_eq!(
        ids,
        [
            later.id.as_str(),
            new.id.as_str(),
            done.id.as_str(),
            old.id.as_str()
        ]
    );
    // A caller that may read staging alone sees nothing of this.
    let staging = RequestApprovalRequest {
        policy: "open".to_owned(),
        ..request("open", "staging")
    };
    let mut theirs = everything("staging")
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let staging = service.ask("alice", staging).await.unwrap();
    assert_eq!(
        theirs.message().await.unwrap().unwrap().approval.unwrap().id,
        staging.id
    );
    let error = service
        .client("mute")
        .watch_approvals(WatchApprovalsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    service.stop().await;
}

async fn lists_filter_and_page(database: Database) {
    let service = Service::start(&database).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut asked = request("prod", "prod");
        asked.correlation_id = format!("rel-{}", n % 2);
        asked.labels.insert("n".to_owned(), n.to_string());
        ids.push(service.ask("alice", asked).await.unwrap().id);
    }
    let dev = service.ask("alice", request("automatic", "dev")).await.unwrap();
    let list = async |name: &'static str, request: ListApprovalsRequest| {
        service
            .client(name)
            .list_approvals(request)
            .await
            .map(|response| {
                let response = response.into_inner();
                (
                    response
                        .approvals
                        .into_iter()
                        .map(|approval| approval.id)
                        .collect::<Vec<_>>(),
                    response.next_page_token,
                )
            })
    };
    let none = ListApprovalsRequest::default;
    ids.reverse();
    let newest: Vec<String> = std::iter::once(dev.id.clone()).chain(ids.clone()).collect();
    assert_eq!(list("alice", none()).await.unwrap().0, newest);
    let pages = ListApprovalsRequest {
        page_size: 2,
        environment: "prod".to_owned(),
        ..none()
    };
    let (first, token) = list("alice", pages.clone()).await.unwrap();
    assert_eq!(first, ids[..2]);
    let next = ListApprovalsRequest {
        page_token: token.clone(),
        ..pages.clone()
    };
    let (second, token_2) = list("alice", next).await.unwrap();
    assert_eq!(second, ids[2..4]);
    let (third, end) = list(
        "alice",
        ListApprovalsRequest {
            page_token: token_2,
            ..pages.clone()
        },
    )
    .await
    .unwrap();
    assert_eq!((third.as_slice(), end.as_str()), (&ids[4..], ""));
    // A token of another list is refused, and so is a size below nothing.
    let wrong = ListApprovalsRequest {
        page_token: token,
        environment: "dev".to_owned(),
        ..pages
    };
    assert_eq!(
        ErrorView::of(&list("alice", wrong).await.unwrap_err()).field,
        "page_token"
    );
    let negative = ListApprovalsRequest {
        page_size: -1,
        ..none()
    };
    assert_eq!(
        ErrorView::of(&list("alice", negative).await.unwrap_err()).field,
        "page_size"
    );

    let approved = ListApprovalsRequest {
        status: Status::Approved.into(),
        ..none()
    };
    assert_eq!(list("alice", approved).await.unwrap().0, [dev.id.as_str()]);
    let correlated = ListApprovalsRequest {
        correlation_id: "rel-1".to_owned(),
        ..none()
    };
    assert_eq!(
        list("alice", correlated).await.unwrap().0,
        [ids[1].as_str(), ids[3].as_str()]
    );
    let labelled = ListApprovalsRequest {
        labels: [("n".to_owned(), "4".to_owned())].into(),
        ..none()
    };
    assert_eq!(list("alice", labelled).await.unwrap().0, [ids[0].as_str()]);
    assert_eq!(list("staging", none()).await.unwrap().0, Vec::<String>::new());

    // What waits for each: not for who requested it, wrote it or has decided, nor for who lacks the role or is not listed.
    let mine = async |name: &'static str| {
        let waiting = ListApprovalsRequest {
            waits_for_caller: true,
            ..none()
        };
        list(name, waiting).await.unwrap().0
    };
    assert_eq!(mine("bob").await, ids);
    for name in ["alice", "dave", "frank", "reader", "staging"] {
        assert_eq!(mine(name).await, Vec::<String>::new(), "{name}");
    }
    let newest = service.get("bob", &ids[0]).await.unwrap();
    service
        .decide("bob", decide(&newest, Verdict::Approve))
        .await
        .unwrap();
    assert_eq!(mine("bob").await, ids[1..]);
    assert_eq!(mine("carol").await, ids);

    let policies = service
        .client("alice")
        .list_policies(ListPoliciesRequest {})
        .await
        .unwrap()
        .into_inner()
        .policies;
    let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["automatic", "crowd", "open", "prod", "quick"]);
    let prod = &policies[3];
    assert_eq!(
        (
            prod.required,
            prod.approvers.len(),
            prod.expire_after.map(|after| after.seconds)
        ),
        (2, 5, Some(3600))
    );
    assert_eq!(
        prod.hash,
        service.get("alice", &ids[0]).await.unwrap().policy.unwrap().hash
    );
    service.stop().await;
}

async fn events_come_in_order_and_resume(database: Database) {
    let service = Service::start(&database).await;
    let mut hints = service.hints();
    let mut asked = request("prod", "prod");
    asked.correlation_id = "rel-9".to_owned();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = tonic::Request::new(asked);
    traced
        .metadata_mut()
        .insert("traceparent", trace.parse().unwrap());
    let asked = service
        .client("alice")
        .request_approval(traced)
        .await
        .unwrap()
        .into_inner()
        .approval
        .unwrap();
    service.ask("alice", request("automatic", "dev")).await.unwrap();
    service
        .decide("bob", decide(&asked, Verdict::Reject))
        .await
        .unwrap();

    let of_it = StreamEventsRequest {
        cursor: String::new(),
        correlation_id: "rel-9".to_owned(),
    };
    let events = service
        .client("alice")
        .stream_events(of_it.clone())
        .await
        .unwrap()
        .into_inner();
    let events: Vec<_> = events
        .filter_map(async |event| event.unwrap().event)
        .take(3)
        .collect()
        .await;
    let types: Vec<&str> = events.iter().map(|event| event.r#type.as_str()).collect();
    let wanted =
        ["requested.v2", "decided.v2", "rejected.v1"].map(|name| format!("dev.slipway.approval.{name}"));
    assert_eq!(types, wanted);
    assert_eq!(events[0].traceparent, trace);
    assert_eq!(events[0].source, "/slipway/approval");
    assert_eq!(events[1].id, format!("approval/{}/2", asked.id));
    assert_eq!(
        (events[1].service.as_str(), events[1].environment.as_str()),
        ("shop", "prod")
    );
    let data: serde_json::Value = serde_json::from_str(&events[1].data).unwrap();
    assert_eq!(
        (&data["verdict"], &data["by"]["links"][0]["principal"]),
        (&"reject".into(), &"token/bob".into())
    );
    // Resuming shows what came after, and nothing twice.
    let resumed = StreamEventsRequest {
        cursor: events[1].cursor.clone(),
        ..of_it
    };
    let mut rest = service
        .client("alice")
        .stream_events(resumed)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        rest.message().await.unwrap().unwrap().event.unwrap().id,
        events[2].id
    );
    // What one may not read is not in it.
    let theirs = StreamEventsRequest::default();
    let mut theirs = service
        .client("staging")
        .stream_events(theirs)
        .await
        .unwrap()
        .into_inner();
    let staging = service.ask("alice", request("open", "staging")).await.unwrap();
    let seen = loop {
        if let Some(event) = theirs.message().await.unwrap().unwrap().event {
            break event;
        }
    };
    assert_eq!(seen.subject, format!("approval/{}", staging.id));
    let bad = StreamEventsRequest {
        cursor: "yesterday".to_owned(),
        ..StreamEventsRequest::default()
    };
    let error = service.client("alice").stream_events(bad).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).field.as_str()),
        (Code::InvalidArgument, "cursor")
    );
    // The same facts go over the bus, in order.
    assert_eq!(hinted(&mut hints, &asked.id, 3).await, wanted);
    service.stop().await;
}

/// Asked with the id of another scope, there is nothing to see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_is_scoped() {
    let database = Database::sqlite().unwrap();
    let service = Service::start(&database).await;
    let asked = service.ask("alice", request("prod", "prod")).await.unwrap();
    let get = GetApprovalRequest { id: asked.id.clone() };
    let error = service.client("staging").get_approval(get).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let watch = WatchApprovalsRequest {
        id: asked.id,
        ..WatchApprovalsRequest::default()
    };
    let error = service
        .client("staging")
        .watch_approvals(watch)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    service.stop().await;
}
