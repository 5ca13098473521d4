//! Lists of changes that tell also what others did to the branch.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::process::Command;

use slipway_proto::{
    common::v1::actor::Authentication,
    gitops::v1::{
        Change, KustomizeImage, ListChangesRequest, change::Source, change::Status, edit,
        git_ops_service_client::GitOpsServiceClient,
    },
};
use slipway_server::{Channel, ErrorView, convert};
use slipway_testbed::{GitRepo, tool};
use tonic::Code;
use world::*;

const LAYOUT: &str = "{dev: {kustomization: 'apps/{service}/dev'}, \
    prod: {helm: {file: 'charts/{service}/values.yaml', path: prod.image}}, \
    testing: {helm: {file: 'charts/{service}/values.yaml', path: testing.image}}}";

async fn start(world: &World) -> Running {
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    let url = format!("url: {}/remote.git", world.dir.path().display());
    let text = text.replace(&url, &format!("{url}, environments: {LAYOUT}"));
    start_with(&text).await.unwrap()
}

fn git(remote: &GitRepo, arguments: &[&str], date: &str) -> String {
    let output = Command::new(tool("git").unwrap())
        .arg("--git-dir")
        .arg(remote.path())
        .args(arguments)
        .env("GIT_AUTHOR_NAME", "Ann Other")
        .env("GIT_AUTHOR_EMAIL", "ann@example.com")
        .env("GIT_COMMITTER_NAME", "Ann Other")
        .env("GIT_COMMITTER_EMAIL", "ann@example.com")
        .env("GIT_AUTHOR_DATE", date)
        .env("GIT_COMMITTER_DATE", date)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A commit by somebody else, at a time that the test chooses.
fn foreign(remote: &GitRepo, branch: &str, message: &str, files: &[(&str, &str)], date: &str) -> String {
    let parent = remote.head(branch).unwrap();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, text)| (*path, text.as_bytes()))
        .collect();
    remote.commit(branch, message, &files).unwrap();
    let tree = git(remote, &["rev-parse", &format!("{branch}^{{tree}}")], date);
    let commit = git(
        remote,
        &["commit-tree", &tree, "-p", &parent, "-m", message],
        date,
    );
    git(
        remote,
        &["update-ref", &format!("refs/heads/{branch}"), &commit],
        date,
    );
    commit
}

/// A merge of a branch into main.
fn merge(remote: &GitRepo, branch: &str, message: &str, date: &str) -> String {
    let tree = git(remote, &["merge-tree", "--write-tree", "main", branch], date);
    let commit = git(
        remote,
        &["commit-tree", &tree, "-p", "main", "-p", branch, "-m", message],
        date,
    );
    git(remote, &["update-ref", "refs/heads/main", &commit], date);
    commit
}

fn tagged(service: &str, tag: &str) -> String {
    overlay(service).replace("'old'", &format!("'{tag}'"))
}

fn all() -> ListChangesRequest {
    ListChangesRequest {
        repository: "shop".to_owned(),
        history: true,
        ..ListChangesRequest::default()
    }
}

async fn list(client: &mut GitOpsServiceClient<Channel>, request: ListChangesRequest) -> Vec<Change> {
    let answer = client.list_changes(request).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "");
    answer.changes
}

fn subjects(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.subject.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_others_are_told_with_ours() {
    let world = World::new("gitops-history", &["identity", "pay"]);
    let remote = &world.remote;
    let dev = "apps/identity/dev/kustomization.yaml";
    let plain = foreign(
        remote,
        "main",
        "bump by hand",
        &[(dev, &tagged("identity", "hand"))],
        "2020-01-01T00:00:01Z",
    );
    foreign(
        remote,
        "main",
        "words only",
        &[("README.md", "hello\n")],
        "2020-01-01T00:00:02Z",
    );
    let values = |prod: &str| {
        format!(
            "prod:\n  image: {{repository: r.example/pay, tag: '{prod}'}}\ntesting:\n  image: {{repository: r.example/pay, tag: '1'}}\n"
        )
    };
    let pay = "charts/pay/values.yaml";
    foreign(
        remote,
        "main",
        "values",
        &[(pay, &values("1"))],
        "2020-01-01T00:00:03Z",
    );
    // A file that two environments share: only one of them is changed.
    foreign(
        remote,
        "main",
        "prod only",
        &[(pay, &values("2"))],
        "2020-01-01T00:00:04Z",
    );
    let trailers = "deploy mail\n\nas every week\n\nService: mail\nEnvironment: live\nImage: r.example/mail\n\
        Image-Tag: 7\nTriggered-by: github/bob (through token/other-tool)\nSlipway-Release: rel-9\n";
    foreign(
        remote,
        "main",
        trailers,
        &[(
            "mail/kustomization.yaml",
            "images:\n- name: mail\n  newTag: '7'\n",
        )],
        "2020-01-01T00:00:05Z",
    );
    // A pull request that somebody merged.
    git(remote, &["branch", "feature", "main"], "2020-01-01T00:00:06Z");
    foreign(
        remote,
        "feature",
        "deploy pay\n\nService: pay\nEnvironment: dev\nTriggered-by: github/eve\n",
        &[("apps/pay/dev/kustomization.yaml", &tagged("pay", "pr"))],
        "2020-01-01T00:00:06Z",
    );
    let merged = merge(
        remote,
        "feature",
        "Merge pull request #5 from feature",
        "2020-01-01T00:00:07Z",
    );

    let running = start(&world).await;
    let mut client = running.client();
    let ours = applied(&mut client, &set_tag("identity", "ours")).await;
    assert_status(&ours, Status::Pushed);
    foreign(
        remote,
        "main",
        "hotfix",
        &[(dev, &tagged("identity", "hot"))],
        "2098-01-01T00:00:00Z",
    );

    let changes = list(&mut client, all()).await;
    assert_eq!(
        subjects(&changes),
        [
            "hotfix",
            "chore(identity): deploy ours to dev"
                .replace("ours", &SHA[..7])
                .as_str(),
            "Merge pull request #5 from feature",
            "deploy mail",
            "prod only",
            "values",
            "words only",
            "bump by hand",
            "begin",
        ]
    );
    let sources: Vec<Source> = changes.iter().map(Change::source).collect();
    assert_eq!(sources[1], Source::Ledger);
    assert_eq!(
        sources.iter().filter(|source| **source == Source::Ledger).count(),
        1
    );
    assert_eq!((sources[2], sources[3]), (Source::Trailers, Source::Trailers));
    assert_eq!((sources[0], sources[7]), (Source::Commit, Source::Commit));

    // Who, what, where and when.
    let by_hand = &changes[7];
    assert_eq!(by_hand.id, format!("commit-{plain}"));
    assert_eq!(by_hand.commit, plain);
    assert_eq!(
        (by_hand.service.as_str(), by_hand.environment.as_str()),
        ("identity", "dev")
    );
    assert_status(by_hand, Status::Pushed);
    let image = |tag: &str| {
        Some(edit::Edit::KustomizeImage(KustomizeImage {
            path: folder("identity"),
            name: "app".to_owned(),
            new_name: "r.example/identity".to_owned(),
            new_tag: tag.to_owned(),
            ..KustomizeImage::default()
        }))
    };
    assert_eq!(by_hand.edits[0].edit, image("hand"));
    assert_eq!(by_hand.previous[0].edit, image("old"));
    assert_eq!(changes[0].previous[0].edit, image("ours"));
    let author = by_hand.requested_by.as_ref().unwrap();
    // What commits say of who made them, which nobody has checked.
    assert_eq!(author.links[0].principal, "git/Ann Other <ann@example.com>");
    assert_eq!(author.links[0].authentication(), Authentication::Unspecified);
    assert_eq!(by_hand.create_time.unwrap().seconds, 1_577_836_801);
    let mail = &changes[3];
    assert_eq!(
        (
            mail.service.as_str(),
            mail.environment.as_str(),
            mail.correlation_id.as_str()
        ),
        ("mail", "live", "rel-9")
    );
    assert_eq!(convert::effective(mail.requested_by.as_ref()), "github/bob");
    assert_eq!(mail.images[0].tags, ["7"]);
    let pull = &changes[2];
    assert_eq!(
        (
            pull.commit.as_str(),
            pull.service.as_str(),
            pull.environment.as_str()
        ),
        (merged.as_str(), "pay", "dev")
    );
    assert_eq!(convert::effective(pull.requested_by.as_ref()), "github/eve");
    assert_eq!(
        (changes[4].service.as_str(), changes[4].environment.as_str()),
        ("pay", "prod")
    );

    // Filters.
    for (request, wanted) in [
        (
            ListChangesRequest {
                service: "pay".to_owned(),
                ..all()
            },
            &[
                "Merge pull request #5 from feature",
                "prod only",
                "values",
                "begin",
            ][..],
        ),
        (
            ListChangesRequest {
                environment: "prod".to_owned(),
                ..all()
            },
            &["prod only", "values"],
        ),
        (
            ListChangesRequest {
                correlation_id: "rel-9".to_owned(),
                ..all()
            },
            &["deploy mail"],
        ),
        (
            ListChangesRequest {
                path: "charts".to_owned(),
                ..all()
            },
            &["prod only", "values"],
        ),
        (
            ListChangesRequest {
                path: "apps/identity/dev/kustomization.yaml".to_owned(),
                service: "identity".to_owned(),
                ..all()
            },
            &[
                "hotfix",
                "chore(identity): deploy 1a2b3c4 to dev",
                "bump by hand",
                "begin",
            ],
        ),
        (
            ListChangesRequest {
                status: Status::Failed.into(),
                ..all()
            },
            &[],
        ),
        (
            ListChangesRequest {
                history: false,
                ..all()
            },
            &["chore(identity): deploy 1a2b3c4 to dev"],
        ),
    ] {
        assert_eq!(
            subjects(&list(&mut client, request.clone()).await),
            wanted,
            "{request:?}"
        );
    }

    // Those who may see one service see what belongs to it, and nothing that is nobody's.
    let mut other = world::client(&running.url, "other-token");
    assert_eq!(list(&mut other, all()).await, []);
    for (request, field) in [
        (
            ListChangesRequest {
                repository: String::new(),
                ..all()
            },
            "repository",
        ),
        (
            ListChangesRequest {
                path: "a".to_owned(),
                history: false,
                ..all()
            },
            "path",
        ),
        (
            ListChangesRequest {
                path: "../a".to_owned(),
                ..all()
            },
            "path",
        ),
        (
            ListChangesRequest {
                page_token: "e30".to_owned(),
                ..all()
            },
            "page_token",
        ),
    ] {
        let error = ErrorView::of(&client.list_changes(request).await.unwrap_err());
        assert_eq!((error.code, error.field.as_str()), (Code::InvalidArgument, field));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_still_while_new_changes_arrive() {
    let world = World::new("gitops-pages", &["identity"]);
    let remote = &world.remote;
    for number in 0..3 {
        let date = format!("2020-01-01T00:00:0{number}Z");
        foreign(
            remote,
            "main",
            &format!("old {number}"),
            &[("note", &date)],
            &date,
        );
    }
    let running = start(&world).await;
    let mut client = running.client();
    for tag in ["v1", "v2", "v3"] {
        applied(&mut client, &set_tag("identity", tag)).await;
    }
    let whole: Vec<String> = list(&mut client, all())
        .await
        .into_iter()
        .map(|change| change.id)
        .collect();
    assert_eq!(whole.len(), 7);
    let mut pages = Vec::new();
    let mut token = String::new();
    let mut number = 0;
    loop {
        let request = ListChangesRequest {
            page_size: 2,
            page_token: token,
            ..all()
        };
        let answer = client.list_changes(request.clone()).await.unwrap().into_inner();
        assert!(answer.changes.len() <= 2);
        pages.extend(answer.changes.into_iter().map(|change| change.id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        // A token is of its own list.
        let wrong = ListChangesRequest {
            page_token: token.clone(),
            service: "identity".to_owned(),
            ..request
        };
        assert_eq!(
            client.list_changes(wrong).await.unwrap_err().code(),
            Code::InvalidArgument
        );
        // New ones do not move what is still to come.
        foreign(remote, "main", "new", &[("note", &token)], "2098-01-01T00:00:00Z");
        applied(&mut client, &set_tag("identity", &format!("new-{number}"))).await;
        number += 1;
    }
    assert_eq!(pages, whole);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_trailer_hides_nothing() {
    let world = World::new("gitops-copied", &["identity", "pay"]);
    let running = start(&world).await;
    let mut client = running.client();
    let ours = applied(&mut client, &set_tag("identity", "v1")).await;
    // As `git cherry-pick` copies it, onto another service.
    let copied = foreign(
        &world.remote,
        "main",
        &format!(
            "sneaky\n\nService: identity\nEnvironment: dev\nSlipway-Change: {}\n",
            ours.id
        ),
        &[("apps/pay/dev/kustomization.yaml", &tagged("pay", "sneaky"))],
        "2098-01-01T00:00:00Z",
    );
    let pay = ListChangesRequest {
        service: "pay".to_owned(),
        ..all()
    };
    let changes = list(&mut client, pay).await;
    assert_eq!(changes[0].id, format!("commit-{copied}"));
    assert_eq!(
        (changes[0].service.as_str(), changes[0].environment.as_str()),
        ("pay", "dev")
    );
    let whole = list(&mut client, all()).await;
    assert_eq!(subjects(&whole)[..2], ["sneaky", ours.subject.as_str()]);
    running.stop().await;
}
