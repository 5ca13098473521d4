//! Branches, tags and object ids as real remotes have them: what the mirror still has never keeps a change waiting, and
//! what does not change by itself ends it at once.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use slipway_proto::gitops::v1::{
    ApplyChangeRequest, Change, change::Status, git_ops_service_client::GitOpsServiceClient,
};
use slipway_server::Channel;
use slipway_testbed::{GitRepo, eventually};
use world::*;

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(folder)
        .args(arguments)
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "A"),
            ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn on(branch: &str, tag: &str) -> ApplyChangeRequest {
    ApplyChangeRequest {
        request_id: format!(
            "{}-{tag}",
            branch.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        ),
        branch: branch.to_owned(),
        ..set_tag("a", tag)
    }
}

fn failed(change: &Change, code: &str, words: &[&str]) {
    assert_status(change, Status::Failed);
    let reason = change.reason.as_ref().unwrap();
    assert_eq!(reason.code, code, "{reason:?}");
    for words in words {
        assert!(reason.message.contains(words), "{words}: {reason:?}");
    }
}

/// Renames a branch of the remote.
fn rename(remote: &GitRepo, from: &str, to: &str) {
    let head = remote.head(from).unwrap();
    git(
        remote.path(),
        &["update-ref", "-d", &format!("refs/heads/{from}")],
    );
    git(remote.path(), &["update-ref", &format!("refs/heads/{to}"), &head]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_becomes_a_folder_and_the_reverse() {
    for (shallow, packed) in [(true, false), (true, true), (false, false), (false, true)] {
        let world = World::new("gitops-branch-folder", &["a"]);
        let mirror = world.path("data-one/mirrors/shop.git");
        git(world.remote.path(), &["branch", "env", "main"]);
        let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
        // A path is cloned whole, a URL in part.
        let text = match shallow {
            true => text.replace(
                &format!("{{url: {}}}", world.remote.path().display()),
                &format!("{{url: '{}'}}", world.remote.url()),
            ),
            false => text,
        };
        let running = start_with(&text).await.unwrap();
        let mut client = running.client();
        assert_status(&applied(&mut client, &on("env", "v1")).await, Status::Pushed);
        let pack = || {
            if packed {
                git(&mirror, &["pack-refs", "--all"]);
            }
        };
        let mut from = "env";
        for (number, to) in ["env/prod", "env/prod/eu", "env", "env/dev"]
            .into_iter()
            .enumerate()
        {
            pack();
            rename(&world.remote, from, to);
            let began = Instant::now();
            let change = applied(&mut client, &on(to, &format!("v2-{number}"))).await;
            assert_status(&change, Status::Pushed);
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{to}: {:?}",
                began.elapsed()
            );
            assert_eq!(
                change.commit,
                world.remote.head(to).unwrap(),
                "{shallow} {packed}"
            );
            from = to;
        }
        // Meanwhile the other branch is as it was.
        assert_status(&applied(&mut client, &on("main", "v3")).await, Status::Pushed);
        failed(
            &applied(&mut client, &on("env", "v4")).await,
            "BRANCH_NOT_FOUND",
            &["create it"],
        );
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_named_like_the_branch_in_full_ends_the_change_at_once() {
    let world = World::new("gitops-ambiguous", &["a"]);
    let remote = world.remote.path();
    git(remote, &["branch", "prod", "main"]);
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    assert_status(&applied(&mut client, &on("prod", "v1")).await, Status::Pushed);

    git(remote, &["update-ref", "refs/tags/refs/heads/prod", "main"]);
    let began = Instant::now();
    failed(
        &applied(&mut client, &on("prod", "v2")).await,
        "BRANCH_CONFLICT",
        &["a tag named refs/heads/prod", "delete it"],
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Other branches do not care, and neither does the same one once the tag is gone.
    assert_status(&applied(&mut client, &on("main", "v2")).await, Status::Pushed);
    git(remote, &["update-ref", "-d", "refs/tags/refs/heads/prod"]);
    assert_status(&applied(&mut client, &on("prod", "v3")).await, Status::Pushed);

    git(remote, &["update-ref", "refs/heads/refs/heads/prod", "main"]);
    failed(
        &applied(&mut client, &on("prod", "v4")).await,
        "BRANCH_CONFLICT",
        &["a branch named refs/heads/prod"],
    );
    git(remote, &["update-ref", "-d", "refs/heads/refs/heads/prod"]);
    // What only looks alike is told apart by git.
    for other in [
        "refs/tags/prod",
        "refs/tags/heads/prod",
        "refs/heads/heads/prod",
        "refs/remotes/prod",
        "refs/pull/1/head",
    ] {
        git(remote, &["update-ref", other, "main"]);
    }
    let change = applied(&mut client, &on("prod", "v5")).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(change.commit, git(remote, &["rev-parse", "refs/heads/prod"]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_of_branches_are_only_names() {
    let world = World::new("gitops-odd-names", &["a"]);
    let remote = world.remote.path();
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let sha = "1".repeat(40);
    for (number, branch) in [
        "HEAD",
        "origin/main",
        "refs/heads/x",
        "a@b",
        "-",
        "ünï/cödé",
        &sha,
        "Main",
    ]
    .into_iter()
    .enumerate()
    {
        let full = format!("refs/heads/{branch}");
        git(remote, &["update-ref", &full, "refs/heads/main"]);
        let request = on(branch, &format!("v{number}"));
        if branch.starts_with('-') {
            assert!(
                client.apply_change(request).await.is_err(),
                "it could be taken for an option"
            );
            continue;
        }
        let change = applied(&mut client, &request).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.commit, git(remote, &["rev-parse", &full]), "{branch}");
    }
    running.stop().await;
}

/// Replaces the remote by one whose object ids are of another format, with the same files.
fn with_format(world: &World, format: &str) {
    let path = world.remote.path();
    let files = world.remote.files("main").unwrap();
    let contents: Vec<(String, Vec<u8>)> = files
        .into_iter()
        .map(|file| {
            let content = world.remote.read("main", &file).unwrap();
            (file, content)
        })
        .collect();
    std::fs::remove_dir_all(path).unwrap();
    let init = Command::new("git")
        .args(["init", "--quiet", "--bare", "--initial-branch=main"])
        .arg(format!("--object-format={format}"))
        .arg(path)
        .status()
        .unwrap();
    assert!(init.success());
    git(path, &["config", "uploadpack.allowFilter", "true"]);
    let contents: Vec<(&str, &[u8])> = contents
        .iter()
        .map(|(file, content)| (file.as_str(), content.as_slice()))
        .collect();
    world.remote.commit("main", "begin again", &contents).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn object_ids_may_be_of_sha_256() {
    let world = World::new("gitops-sha256", &["a", "b"]);
    with_format(&world, "sha256");
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    for tag in ["v1", "v2"] {
        let change = applied(&mut client, &set_tag("a", tag)).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.commit.len(), 64);
        assert_eq!(change.commit, world.remote.head("main").unwrap());
        assert!(world.file("a").contains(&format!("'{tag}'")));
    }
    git(world.remote.path(), &["fsck", "--strict", "--full"]);
    // Others write too, and a lost race is made good.
    world.remote.commit("main", "theirs", &[("x.txt", b"x")]).unwrap();
    let change = applied(&mut client, &set_tag("b", "v1")).await;
    assert_status(&change, Status::Pushed);

    // The repository is made again at the same address, in the other format and back.
    for (number, format) in ["sha1", "sha256"].into_iter().enumerate() {
        with_format(&world, format);
        let change = applied(&mut client, &set_tag("a", &format!("v3-{number}"))).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.commit, world.remote.head("main").unwrap(), "{format}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_in_the_header_of_its_object_ids() {
    let world = World::new("gitops-sha256-signed", &["a"]);
    with_format(&world, "sha256");
    let key = world.path("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    let text = text.replace(
        "repositories:",
        &format!("signing: {{ssh_key_file: {}}}\nrepositories:", key.display()),
    );
    let running = start_with(&text).await.unwrap();
    let change = applied(&mut running.client(), &set_tag("a", "v1")).await;
    assert_status(&change, Status::Pushed);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let signers = world.path("signers");
    std::fs::write(&signers, format!("robot@example.com {public}")).unwrap();
    let setting = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    git(
        world.remote.path(),
        &["-c", "gpg.format=ssh", "-c", &setting, "verify-commit", "main"],
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_rewritten_is_followed() {
    let world = World::new("gitops-rewritten", &["a", "b"]);
    let remote = world.remote.path();
    git(remote, &["config", "uploadpack.allowFilter", "true"]);
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0").replace(
        &format!("{{url: {}}}", remote.display()),
        &format!("{{url: '{}'}}", world.remote.url()),
    );
    let running = start_with(&text).await.unwrap();
    let mut client = running.client();
    assert_status(&applied(&mut client, &set_tag("a", "v1")).await, Status::Pushed);

    // The files that the mirror left out are deleted together with the history that had them.
    let path = format!("{}/kustomization.yaml", folder("b"));
    let other = overlay("b").replace("# ours", "# of others");
    let tree = {
        git(remote, &["branch", "other", "main"]);
        world
            .remote
            .commit("other", "x", &[(&path, other.as_bytes())])
            .unwrap();
        let a = format!("{}/kustomization.yaml", folder("a"));
        world
            .remote
            .commit("other", "y", &[(&a, overlay("a").as_bytes())])
            .unwrap();
        git(remote, &["rev-parse", "other^{tree}"])
    };
    let commit = git(remote, &["commit-tree", "-m", "rewritten", &tree]);
    git(remote, &["update-ref", "refs/heads/main", &commit]);
    git(remote, &["update-ref", "-d", "refs/heads/other"]);
    git(remote, &["reflog", "expire", "--expire=now", "--all"]);
    git(remote, &["gc", "--quiet", "--prune=now"]);

    let change = applied(&mut client, &set_tag("b", "v2")).await;
    assert_status(&change, Status::Pushed);
    assert!(world.file("b").contains("# of others"));
    assert_eq!(git(remote, &["rev-parse", "main^"]), commit);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_refs_of_the_mirror_are_fetched_again() {
    let world = World::new("gitops-damaged-refs", &["a"]);
    let mirror = world.path("data-one/mirrors/shop.git");
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    assert_status(&applied(&mut client, &set_tag("a", "v1")).await, Status::Pushed);
    let reference = mirror.join("refs/remotes/origin/main");
    // As a machine that loses its power leaves them.
    for (number, damage) in ["", "garbage\n", &format!("{}\n", "1".repeat(40))]
        .iter()
        .enumerate()
    {
        std::fs::write(&reference, damage).unwrap();
        let change = applied(&mut client, &set_tag("a", &format!("v2-{number}"))).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.commit, world.remote.head("main").unwrap(), "{damage:?}");
    }
    running.stop().await;
}

/// Waits until a change that still waits says why.
async fn says_why(client: &mut GitOpsServiceClient<Channel>, id: &str) -> String {
    let mut words = String::new();
    eventually("the change says what is retried", async || {
        let change = get(client, id).await;
        assert_status(&change, Status::Pending);
        match change.retry {
            Some(retry) => {
                words = retry.error.map(|error| error.message).unwrap_or_default();
                Ok(())
            }
            None => Err("it says nothing"),
        }
    })
    .await;
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_change_is_tried_again_it_says_why() {
    let world = World::new("gitops-says-why", &["a"]);
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    let text = format!("{text}\x20 away: {{url: 'http://127.0.0.1:9/x.git'}}\n");
    let running = start_with(&text).await.unwrap();
    let mut client = running.client();

    let mut request = set_tag("a", "v1");
    request.repository = "away".to_owned();
    let began = Instant::now();
    let away = apply(&mut client, &request).await;
    let words = says_why(&mut client, &away.id).await;
    assert!(words.contains("127.0.0.1"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    // A lock that a killed git left behind at the remote looks like a race that others win.
    assert_status(&applied(&mut client, &set_tag("a", "v2")).await, Status::Pushed);
    let lock = world.remote.path().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let change = apply(&mut client, &set_tag("a", "v3")).await;
    let words = says_why(&mut client, &change.id).await;
    assert!(
        words.contains("main.lock") && words.contains("nobody else has pushed"),
        "{words}"
    );
    std::fs::remove_file(&lock).unwrap();
    assert_status(&finished(&mut client, &change.id).await, Status::Pushed);

    // One of our own is taken away once nobody can hold it any more.
    let lock = world.path("data-one/mirrors/shop.git/refs/remotes/origin/main.lock");
    world.remote.commit("main", "theirs", &[("x.txt", b"x")]).unwrap();
    std::fs::write(&lock, "").unwrap();
    let change = apply(&mut client, &set_tag("a", "v4")).await;
    let words = says_why(&mut client, &change.id).await;
    assert!(words.contains("the mirror's refs are locked"), "{words}");
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(&lock)
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_status(&finished(&mut client, &change.id).await, Status::Pushed);
    running.stop().await;
}
