//! The program is killed anywhere between a request and its last record, and makes exactly one commit all the same,
//! also when others push meanwhile.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::time::Duration;

use slipway_proto::gitops::v1::change::Status;
use world::*;

const SERVICES: [&str; 2] = ["identity", "other"];
const AT: &str = "SLIPWAY_FAULT_KILL_AT";
const AFTER_APPEND: &str = "SLIPWAY_FAULT_KILL_AFTER_APPEND";

/// Somebody else is faster than the first push: the remote's own hook moves the branch while the push is under way.
const RACE: &str = "\
[ -e raced ] && exit 0
touch raced
commit=$(git -c user.name=x -c user.email=x@x commit-tree -p \"$1\" -m raced \"$1^{tree}\" </dev/null)
git update-ref \"$1\" \"$commit\"";

/// Two changes on their way are killed; how many of them are on the remote by then.
async fn crash(fault: (&str, &str), raced: bool) -> usize {
    let what = format!("{fault:?}, raced: {raced}");
    let world = World::new("gitops-crash", &SERVICES);
    if raced {
        world.hook("update", RACE);
    }
    let port = slipway_testbed::free_port().unwrap();
    let requests = SERVICES.map(|service| set_tag(service, "v1"));

    let mut process = world.spawn_armed(port, fault);
    let ask = requests.iter().map(|request| {
        let mut client = client(&process.url, "alice-token");
        async move {
            // Until it serves. The answer may be lost with the process, so whether it came is not asked.
            for _ in 0..500 {
                match client.apply_change(request.clone()).await {
                    Ok(_) => break,
                    // Not there yet, or killed in the middle of the call.
                    Err(error) => assert!(
                        matches!(error.code(), tonic::Code::Unavailable | tonic::Code::Unknown),
                        "{error}"
                    ),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let asking = futures::future::join_all(ask);
    tokio::select! {
        () = async { asking.await; std::future::pending().await } => {}
        () = process.died() => {}
    }
    let log = world.remote.log("main").unwrap();
    let others = 1 + usize::from(raced && world.remote.path().join("raced").exists());
    let ours = log.len() - others;

    // Somebody else pushes before we are back.
    world
        .remote
        .commit("main", "meanwhile", &[("note", b"x")])
        .unwrap();
    let process = world.spawn(port, None);
    let mut client = world::client(&process.url, "alice-token");
    for (service, request) in SERVICES.iter().zip(&requests) {
        let change = slipway_testbed::eventually("the service is back", async || {
            match client.apply_change(request.clone()).await {
                Ok(answer) => Ok(answer.into_inner().change.unwrap()),
                Err(error) if error.code() == tonic::Code::Unavailable => Err(error),
                Err(error) => panic!("{error}"),
            }
        })
        .await;
        let change = finished(&mut client, &change.id).await;
        assert_status(&change, Status::Pushed);
        assert!(!change.no_op, "{what}");
        assert_eq!(
            world.commits_with(&format!("Slipway-Change: {}", change.id)),
            1,
            "{what}"
        );
        assert!(world.file(service).contains("'v1'"), "{what}");
        // What was found on the remote can be put back like any other.
        assert_eq!(change.previous.len(), 1, "{what}");
    }
    let raced = usize::from(world.remote.path().join("raced").exists());
    let all = world.remote.log("main").unwrap().len();
    assert_eq!(all, 2 + raced + SERVICES.len(), "{what}");
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_edit() {
    assert_eq!(crash((AT, "gitops.edit.before:1"), false).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_push() {
    assert_eq!(crash((AT, "gitops.push.before:1"), false).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_push_and_record() {
    assert_ne!(crash((AT, "gitops.push.after:1"), false).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_lost_race_before_the_edit_is_done_again() {
    assert_eq!(crash((AT, "gitops.edit.before:2"), true).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_lost_race_before_the_next_push() {
    assert_eq!(crash((AT, "gitops.push.before:2"), true).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_push_that_followed_a_lost_race() {
    assert_ne!(crash((AT, "gitops.push.after:1"), true).await, 0);
}

/// Two requests, the branch's waking and base, and the settling of two changes and the branch: seven records at least.
#[tokio::test(flavor = "multi_thread")]
async fn killed_after_each_record() {
    for append in 1..=7_usize {
        let ours = crash((AFTER_APPEND, &append.to_string()), false).await;
        // Nothing is pushed before the request, the waking and the base are recorded.
        assert!(append >= 3 || ours == 0, "{append}: {ours}");
    }
}
