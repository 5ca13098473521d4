//! Changes that go by pull request, on a GitHub that merges with real git.
#![allow(clippy::unwrap_used)] // helpers of tests

mod github;
mod world;

use github::{Forge, TOKEN};
use slipway_proto::{
    common::v1::waiting_on::Kind,
    gitops::v1::{
        ApplyChangeRequest, CancelChangeRequest, Change, Mode, RevertChangeRequest, change::Status,
        git_ops_service_client::GitOpsServiceClient, pull_request,
    },
};
use slipway_server::Channel;
use world::*;

type Client = GitOpsServiceClient<Channel>;

fn reason(change: &Change) -> (String, String) {
    let reason = change.reason.clone().unwrap_or_default();
    (reason.code, reason.message)
}

async fn cancel(client: &mut Client, id: &str, why: &str) {
    let request = CancelChangeRequest {
        id: id.to_owned(),
        reason: why.to_owned(),
    };
    client.cancel_change(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn people_merge_in_any_way() {
    let forge = Forge::new("pull-people").await;
    let service = forge
        .start("labels: [deploy], reviewers: [alice], team_reviewers: [ops]")
        .await;
    let mut client = service.client();
    for (method, tag) in [("merge", "v1"), ("squash", "v2"), ("rebase", "v3")] {
        let change = apply(&mut client, &set_tag("identity", tag)).await;
        assert_eq!(change.mode(), Mode::PullRequest);
        let number = forge.github.opened().await;
        let pull = forge.github.pull(number);
        assert_eq!(pull.title, "chore(identity): deploy 1a2b3c4 to dev");
        assert_eq!(
            (pull.head, pull.base),
            (format!("slipway/{}", change.id), "main".to_owned())
        );
        let row = pull.body.lines().nth(2).unwrap_or_default();
        assert!(
            row.contains("`apps/identity/dev`") && row.contains(tag),
            "{}",
            pull.body
        );
        let trailer = format!("Slipway-Change: {}", change.id);
        assert!(pull.body.lines().any(|line| line == trailer), "{}", pull.body);

        forge
            .github
            .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 2)
            .await;
        let waiting = get(&mut client, &change.id).await;
        assert_status(&waiting, Status::Pending);
        let recorded = waiting.pull_request.unwrap();
        assert_eq!(
            (recorded.number, recorded.state()),
            (number.cast_signed(), pull_request::State::Open)
        );
        assert_eq!(
            recorded.url,
            format!("https://github.com/acme/shop/pull/{number}")
        );
        assert_eq!(waiting.waiting_on.unwrap().kind(), Kind::Human);
        assert!(!forge.overlay().contains(tag), "nothing is pushed to the branch");
        let pull = forge.github.pull(number);
        assert_eq!(
            (pull.labels, pull.reviewers, pull.teams),
            (
                vec!["deploy".to_owned()],
                vec!["alice".to_owned()],
                vec!["ops".to_owned()]
            )
        );

        // Somebody else's commit lies between.
        forge
            .world
            .remote
            .commit("main", "meanwhile", &[("note", tag.as_bytes())])
            .unwrap();
        let merged = forge.github.merge(number, method, "alice");
        let change = finished(&mut client, &change.id).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.commit, merged, "{method}");
        assert_eq!(
            change.pull_request.as_ref().unwrap().state(),
            pull_request::State::Merged
        );
        assert!(!change.no_op && change.previous.len() == 1);
        assert!(forge.overlay().contains(&format!("'{tag}'")));
        assert_eq!(forge.branch(&change), None, "the branch is taken away");
    }
    assert!(
        forge.github.state().not_modified > 0,
        "unchanged answers cost nothing"
    );

    // What was merged is put back like anything else: by pull request.
    let changes = client
        .list_changes(slipway_proto::gitops::v1::ListChangesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .changes;
    let revert = RevertChangeRequest {
        id: changes[0].id.clone(),
        reason: "it fails".to_owned(),
        ..RevertChangeRequest::default()
    };
    let back = client
        .revert_change(revert)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    let number = forge.github.opened().await;
    assert!(forge.github.pull(number).title.starts_with("revert(identity)"));
    forge.github.merge(number, "squash", "alice");
    assert_status(&finished(&mut client, &back.id).await, Status::Pushed);
    assert!(forge.overlay().contains("'v2'"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_merged_is_merged_once() {
    let forge = Forge::new("pull-auto").await;
    {
        let mut github = forge.github.state();
        github.computing = 2;
        github.readiness = Some("blocked");
    }
    let service = forge.start("auto_merge: squash").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    forge
        .github
        .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 5)
        .await;
    assert!(forge.github.pull(number).open, "checks are missing");
    assert!(!forge.github.writes().iter().any(|text| text.contains("/merge")));

    let base = "Base branch was modified. Review and try the merge again.";
    forge.github.once("PUT", "/merge", 405, &[], base);
    forge.github.once(
        "PUT",
        "/merge",
        409,
        &[],
        "Head branch was modified. Review and try the merge again.",
    );
    forge.github.once(
        "PUT",
        "/merge",
        403,
        &[("retry-after", "1")],
        "You have exceeded a secondary rate limit.",
    );
    forge.github.state().readiness = Some("unstable");
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    let merges = forge
        .github
        .writes()
        .iter()
        .filter(|text| text.contains("/merge"))
        .count();
    assert_eq!(merges, 4, "three refusals and the merge");
    // The squash is found by the same trailers as a push.
    assert_eq!(
        forge
            .world
            .commits_with(&format!("Slipway-Change: {}", change.id)),
        1
    );
    assert_eq!(forge.world.remote.log("main").unwrap().len(), 2);
    assert!(forge.overlay().contains("'v1'"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_that_is_behind_is_made_again() {
    let forge = Forge::new("pull-behind").await;
    forge.github.state().readiness = Some("blocked");
    let service = forge.start("auto_merge: rebase").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    let first = forge.github.pull(number).sha;
    let base = forge
        .world
        .remote
        .commit("main", "meanwhile", &[("note", b"x")])
        .unwrap();
    forge.github.state().readiness = Some("behind");
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    let pull = forge.github.pull(number);
    assert_ne!(pull.sha, first);
    assert_eq!(forge.world.remote.head(&format!("{}^", pull.sha)).unwrap(), base);
    assert_eq!(change.attempt, 2, "the edits were made twice");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_close_it() {
    let forge = Forge::new("pull-closed").await;
    let service = forge.start("").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    forge.github.close(number, "bob");
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Failed);
    let (code, message) = reason(&change);
    assert_eq!(code, "PULL_REQUEST_CLOSED");
    assert!(
        message.contains(&format!("#{number}")) && message.contains("bob"),
        "{message}"
    );
    assert_eq!(forge.branch(&change), None);
    assert_eq!(change.pull_request.unwrap().state(), pull_request::State::Closed);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_resolved_by_making_the_edits_again() {
    let forge = Forge::new("pull-conflict").await;
    let service = forge.start("").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v2")).await;
    let number = forge.github.opened().await;
    let first = forge.github.pull(number).sha;
    forge.write("main", &overlay("identity").replace("'old'", "'v1'"));
    forge
        .github
        .until(|state| state.pulls[&number].sha != first)
        .await;
    forge
        .github
        .until(|state| state.pulls[&number].body.contains(":v1`"))
        .await;
    forge.github.merge(number, "merge", "alice");
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert!(forge.overlay().contains("'v2'"));
    let previous = format!("{:?}", change.previous);
    assert!(
        previous.contains("v1"),
        "what it replaced is what stood there last: {previous}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_or_undoable_meanwhile_is_closed_with_the_reason() {
    let forge = Forge::new("pull-moot").await;
    let service = forge.start("").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    let head = forge.write("main", &overlay("identity").replace("'old'", "'v1'"));
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert!(change.no_op);
    assert_eq!(change.commit, head);
    let pull = forge.github.pull(number);
    assert!(!pull.open && pull.comments[0].contains("already"), "{pull:?}");
    assert_eq!(forge.branch(&change), None);

    let change = apply(&mut client, &set_tag("identity", "v2")).await;
    let number = forge.github.opened().await;
    let path = format!("{}/kustomization.yaml", folder("identity"));
    forge
        .world
        .remote
        .remove("main", "gone", &[path.as_str()])
        .unwrap();
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Failed);
    assert_eq!(reason(&change).0, "FILE_NOT_FOUND");
    let pull = forge.github.pull(number);
    assert!(!pull.open && pull.comments.len() == 1, "{pull:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_opens_nothing() {
    let forge = Forge::new("pull-no-op").await;
    let service = forge.start("").await;
    let mut client = service.client();
    let change = applied(&mut client, &set_tag("identity", "old")).await;
    assert_status(&change, Status::Pushed);
    assert!(change.no_op && change.pull_request.is_none());
    assert_eq!(forge.github.writes(), Vec::<String>::new());
    assert_eq!(forge.branch(&change), None);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_others_is_neither_overwritten_nor_merged() {
    let forge = Forge::new("pull-foreign").await;
    forge.github.state().readiness = Some("blocked");
    let service = forge.start("auto_merge: merge").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    let theirs = forge
        .world
        .remote
        .commit(
            &format!("slipway/{}", change.id),
            "one more thing",
            &[("more", b"x")],
        )
        .unwrap();
    forge.github.state().readiness = None;
    // A conflict, too, is for people now.
    forge.write("main", &overlay("identity").replace("'old'", "'v0'"));
    forge
        .github
        .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 4)
        .await;
    assert_eq!(forge.branch(&change).as_deref(), Some(theirs.as_str()));
    assert!(!forge.github.writes().iter().any(|text| text.contains("/merge")));

    cancel(&mut client, &change.id, "never mind").await;
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Cancelled);
    assert!(!forge.github.pull(number).open);
    assert_eq!(
        forge.branch(&change).as_deref(),
        Some(theirs.as_str()),
        "their commit stays"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_closes_it_unless_it_is_merged() {
    let forge = Forge::new("pull-cancel").await;
    let service = forge.start("").await;
    let mut client = service.client();
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    cancel(&mut client, &change.id, "never mind").await;
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Cancelled);
    assert_eq!(reason(&change), ("CANCELLED".to_owned(), "never mind".to_owned()));
    let pull = forge.github.pull(number);
    assert!(!pull.open && pull.comments[0].contains("never mind"), "{pull:?}");
    assert_eq!(forge.branch(&change), None);

    // The merge is faster: GitHub answers the cancellation's request with what it is.
    let change = apply(&mut client, &set_tag("identity", "v2")).await;
    let number = forge.github.opened().await;
    forge
        .github
        .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 1)
        .await;
    let merged = forge.github.merge(number, "merge", "alice");
    cancel(&mut client, &change.id, "too late").await;
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(change.commit, merged);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_merged_in_time_is_closed() {
    let forge = Forge::new("pull-late").await;
    let service = forge.start("deadline: 700ms").await;
    let mut client = service.client();
    let change = applied(&mut client, &set_tag("identity", "v1")).await;
    assert_status(&change, Status::Errored);
    assert_eq!(reason(&change).0, "DEADLINE_EXCEEDED");
    assert!(forge.github.state().pulls.values().all(|pull| !pull.open));
    assert_eq!(forge.branch(&change), None);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_postpone_and_refusals_end() {
    let forge = Forge::new("pull-refused").await;
    let service = forge.start("labels: [deploy]").await;
    let mut client = service.client();
    let limit = "You have exceeded a secondary rate limit and have been temporarily blocked.";
    forge
        .github
        .once("POST", "/pulls", 403, &[("retry-after", "1")], limit);
    forge
        .github
        .once("POST", "/labels", 429, &[("retry-after", "1")], limit);
    let change = apply(&mut client, &set_tag("identity", "v1")).await;
    let number = forge.github.opened().await;
    forge
        .github
        .until(|state| !state.pulls[&number].labels.is_empty())
        .await;
    forge.github.merge(number, "merge", "alice");
    assert_status(&finished(&mut client, &change.id).await, Status::Pushed);
    assert_eq!(forge.github.state().pulls.len(), 1);

    for (tag, status, message, code) in [
        ("v2", 404, "Not Found", "PULL_REQUEST_NOT_FOUND"),
        (
            "v3",
            403,
            "Resource not accessible by integration",
            "PERMISSION_DENIED",
        ),
        ("v4", 401, "Bad credentials", "CREDENTIALS_REFUSED"),
        ("v5", 422, "Validation Failed", "PULL_REQUEST_REFUSED"),
    ] {
        forge.github.once("POST", "/pulls", status, &[], message);
        let change = applied(&mut client, &set_tag("identity", tag)).await;
        assert_status(&change, Status::Failed);
        assert_eq!(reason(&change).0, code);
        assert!(!format!("{change:?}").contains(TOKEN));
    }
    assert_eq!(forge.github.state().pulls.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_what_goes_by_pull_request() {
    let forge = Forge::new("pull-mode").await;
    let service = forge.start("environments: [production]").await;
    let mut client = service.client();
    let ask = |environment: &str, mode: Mode, tag: &str| {
        let mut request = ApplyChangeRequest {
            environment: environment.to_owned(),
            ..set_tag("identity", tag)
        };
        request.set_mode(mode);
        request
    };
    let pushed = applied(&mut client, &ask("dev", Mode::Unspecified, "v1")).await;
    assert_eq!((pushed.mode(), pushed.status()), (Mode::Push, Status::Pushed));
    assert!(forge.github.state().pulls.is_empty());

    let refused = client
        .apply_change(ask("production", Mode::Push, "v2"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let mut elsewhere = ask("dev", Mode::PullRequest, "v3");
    elsewhere.repository = "gone".to_owned();
    let refused = client.apply_change(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("mode"), "{refused}");

    // More than configured may be asked for.
    let change = apply(&mut client, &ask("dev", Mode::PullRequest, "v4")).await;
    let number = forge.github.opened().await;
    // It does not stand in the way of a push to the same branch.
    let other = applied(&mut client, &set_tag("other", "v1")).await;
    assert_status(&other, Status::Pushed);
    forge.github.merge(number, "merge", "alice");
    assert_status(&finished(&mut client, &change.id).await, Status::Pushed);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_takes_the_folder_of_ours_is_named() {
    let forge = Forge::new("pull-name-taken").await;
    forge
        .world
        .remote
        .commit("slipway", "theirs", &[("x", b"x")])
        .unwrap();
    let service = forge.start("labels: [deploy]").await;
    let mut client = service.client();
    let change = applied(&mut client, &set_tag("identity", "v1")).await;
    assert_status(&change, Status::Failed);
    let (code, message) = reason(&change);
    assert_eq!(code, "BRANCH_CONFLICT", "{message}");
    assert!(message.contains("'refs/heads/slipway' exists"), "{message}");
    service.stop().await;
}
