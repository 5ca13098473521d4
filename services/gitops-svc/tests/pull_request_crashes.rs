//! The program is killed beside each write of a pull request, and makes exactly one pull request and one merge all the
//! same.
#![allow(clippy::unwrap_used)] // helpers of tests

mod github;
mod world;

use github::Forge;
use slipway_proto::gitops::v1::change::Status;
use world::*;

/// Kills the program at a point, and lets somebody else push before it is back.
async fn crash(name: &str, fault: &str) {
    let forge = Forge::new(name).await;
    let port = slipway_testbed::free_port().unwrap();
    let text = forge.config(
        &format!("127.0.0.1:{port}"),
        "auto_merge: squash, labels: [deploy]",
    );
    let request = set_tag("identity", "v1");

    let mut process = spawn_with(&forge.world, &text, port, Some(fault));
    let mut client = world::client(&process.url, "alice-token");
    let asked = async {
        // Until it serves; the answer may be lost with the process.
        while let Err(error) = client.apply_change(request.clone()).await {
            assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asked => {}
        () = process.died() => {}
    }
    forge
        .world
        .remote
        .commit("main", "meanwhile", &[("note", b"x")])
        .unwrap();

    let process = spawn_with(&forge.world, &text, port, None);
    let mut client = world::client(&process.url, "alice-token");
    let change = loop {
        match client.apply_change(request.clone()).await {
            Ok(answer) => break answer.into_inner().change.unwrap(),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert!(!change.no_op, "{fault}");
    let state = forge.github.state();
    assert_eq!(state.pulls.len(), 1, "{fault}");
    let pull = &state.pulls[&1];
    assert_eq!(
        pull.merge_commit.as_deref(),
        Some(change.commit.as_str()),
        "{fault}"
    );
    assert_eq!(pull.labels, ["deploy"], "{fault}");
    drop(state);
    assert_eq!(
        forge
            .world
            .commits_with(&format!("Slipway-Change: {}", change.id)),
        1,
        "{fault}"
    );
    assert_eq!(forge.world.remote.log("main").unwrap().len(), 3, "{fault}");
    assert_eq!(change.previous.len(), 1, "{fault}");
    assert_eq!(forge.branch(&change), None, "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_branch_is_pushed() {
    crash("pull-crash-a", "gitops.propose.push.before:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_branch_and_the_pull_request() {
    crash("pull-crash-b", "gitops.propose.push.after:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_pull_request_was_opened() {
    crash("pull-crash-c", "gitops.propose.open.after:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_merge() {
    crash("pull-crash-d", "gitops.merge.before:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_merge() {
    crash("pull-crash-e", "gitops.merge.after:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_edits_were_pushed_again() {
    let forge = Forge::new("pull-crash-f").await;
    let port = slipway_testbed::free_port().unwrap();
    let text = forge.config(&format!("127.0.0.1:{port}"), "");
    let request = set_tag("identity", "v2");
    let mut process = spawn_with(&forge.world, &text, port, Some("gitops.revise.push.after:1"));
    let mut client = world::client(&process.url, "alice-token");
    let change = loop {
        match client.apply_change(request.clone()).await {
            Ok(answer) => break answer.into_inner().change.unwrap(),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let number = forge.github.opened().await;
    let first = forge.github.pull(number).sha;
    forge.write("main", &overlay("identity").replace("'old'", "'v1'"));
    process.died().await;
    let second = forge.branch(&change).unwrap();
    assert_ne!(second, first, "pushed again, and not recorded");

    let process = spawn_with(&forge.world, &text, port, None);
    let mut client = world::client(&process.url, "alice-token");
    forge
        .github
        .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 4)
        .await;
    assert_eq!(
        forge.branch(&change).as_deref(),
        Some(second.as_str()),
        "known as our own"
    );
    forge.github.merge(number, "rebase", "alice");
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(change.attempt, 2);
    assert_eq!(forge.github.state().pulls.len(), 1);
    assert!(forge.overlay().contains("'v2'"));
}
