//! A GitHub App's tokens.

use std::{process::Command, time::Duration};

use slipway_proto::gitops::v1::change::Status;
use slipway_testbed::{HttpRequest, ssh_key, tool};

use crate::{
    assert_failed, change,
    forge::{Forge, HOUR},
    start,
    world::{World, apply, assert_status, finished, set_tag},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_tokens_and_uses_each_as_long_as_it_is_good() {
    let world = World::new("github-app", &["api"]);
    let head = world.remote.head("main").unwrap();
    for branch in ["one", "two", "three"] {
        let mut git = Command::new(tool("git").unwrap());
        git.arg("--git-dir")
            .arg(world.remote.path())
            .args(["branch", branch, &head]);
        assert!(git.status().unwrap().success());
    }
    let forge = Forge::start(&world).await;
    let github = &forge.github;
    // Without the installation's id: it is looked up.
    let running = start(&world, &forge.repository(&world, "app_id: 7")).await;

    github.give(&[("ghs_first", HOUR)]);
    forge.git.require_token("ghs_first");
    let mut client = running.client();
    let mut ids = Vec::new();
    for branch in ["one", "two", "three"] {
        let mut request = set_tag("api", "1");
        request.request_id = branch.to_owned();
        request.branch = branch.to_owned();
        ids.push(apply(&mut client, &request).await.id);
    }
    for id in &ids {
        assert_status(&finished(&mut client, id).await, Status::Pushed);
    }
    assert_eq!(github.given(), 1, "those that wait ask once");
    assert_status(&change(&running, "2").await, Status::Pushed);
    assert_eq!(github.given(), 1);

    // Taken back before its time: refused once, then there is another.
    github.give(&[("ghs_second", Duration::from_secs(60))]);
    forge.git.require_token("ghs_second");
    assert_status(&change(&running, "3").await, Status::Pushed);
    let given = github.given();
    assert!(given >= 2);

    // The second one is near its end: it is replaced before it is refused, and then kept.
    let before = forge.git.requests().len();
    github.give(&[("ghs_third", HOUR)]);
    forge.git.require_token("ghs_third");
    assert_status(&change(&running, "4").await, Status::Pushed);
    assert_status(&change(&running, "5").await, Status::Pushed);
    assert_eq!(github.given(), given + 1);
    let statuses: Vec<u16> = forge.git.requests()[before..]
        .iter()
        .map(|request| request.status)
        .collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");

    // A second refusal in a row is final.
    github.give(&[("ghs_fourth", HOUR)]);
    forge.git.require_token("somebody-else's");
    assert_failed(&change(&running, "6").await, "CREDENTIALS_REFUSED");
    assert_eq!(github.given(), given + 2, "tried again once");
    let basic = |request: &HttpRequest| request.basic.clone().unwrap().0;
    assert!(
        forge
            .git
            .requests()
            .iter()
            .all(|request| basic(request) == "x-access-token")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_github_says_to_an_app_is_told() {
    let world = World::new("github-refuses", &["api"]);
    let forge = Forge::start(&world).await;
    for (app, words) in [
        ("app_id: 8", "check app_id and private_key_file"),
        (
            "app_id: 7, installation_id: 1",
            "install it, or check installation_id",
        ),
    ] {
        let running = start(&world, &forge.repository(&world, app)).await;
        let refused = change(&running, &app.replace([' ', ':', ','], "-")).await;
        assert_failed(&refused, "CREDENTIALS_REFUSED");
        let message = refused.reason.unwrap().message;
        assert!(message.contains(words), "{message}");
        running.stop().await;
    }
    // Another App's key.
    std::fs::rename(world.path("app.pem"), world.path("old.pem")).unwrap();
    ssh_key(
        &world.path("app.pem"),
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        "",
    )
    .unwrap();
    let running = start(&world, &forge.repository(&world, "app_id: 7")).await;
    let refused = change(&running, "other-key").await;
    assert_failed(&refused, "CREDENTIALS_REFUSED");
    assert_eq!(forge.git.requests(), []);

    // The key is put right, and nothing is restarted.
    std::fs::rename(world.path("old.pem"), world.path("app.pem")).unwrap();
    forge.github.give(&[("ghs_only", HOUR)]);
    forge.git.require_token("ghs_only");
    assert_status(&change(&running, "right-key").await, Status::Pushed);
    running.stop().await;
}
