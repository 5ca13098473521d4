//! The program is killed beside its push, and makes exactly one commit all the same.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use slipway_proto::gitops::v1::change::Status;
use world::*;

async fn crash(fault: &str, on_the_remote: usize) {
    let world = World::new("gitops-crash", &["identity", "other"]);
    let port = slipway_testbed::free_port().unwrap();
    let request = set_tag("identity", "v1");

    let mut process = world.spawn(port, Some(fault));
    let mut client = client(&process.url, "alice-token");
    // Until it serves; and the answer may be lost with the process, so whether it came is not asked.
    while let Err(error) = client.apply_change(request.clone()).await {
        assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if world.remote.log("main").unwrap().len() > 1 {
            break;
        }
    }
    process.died().await;
    assert_eq!(
        world.remote.log("main").unwrap().len(),
        1 + on_the_remote,
        "{fault}"
    );

    // Somebody else pushes before we are back.
    world
        .remote
        .commit("main", "meanwhile", &[("note", b"x")])
        .unwrap();
    let process = world.spawn(port, None);
    let mut client = world::client(&process.url, "alice-token");
    let change = loop {
        match client.apply_change(request.clone()).await {
            Ok(answer) => break answer.into_inner().change.unwrap(),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let change = finished(&mut client, &change.id).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(
        world.commits_with(&format!("Slipway-Change: {}", change.id)),
        1,
        "{fault}"
    );
    assert_eq!(world.remote.log("main").unwrap().len(), 3, "{fault}");
    assert!(world.file("identity").contains("'v1'"));
    assert!(!change.no_op);
    // What was found on the remote can be put back like any other.
    assert_eq!(change.previous.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_push() {
    crash("gitops.push.before:1", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_push() {
    crash("gitops.push.after:1", 1).await;
}
