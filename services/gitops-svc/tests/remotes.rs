//! What remotes and disks do to a push: each answer ends the change with a code of its own, and the service goes on.
//! And repositories that are too large to be mirrored whole.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use slipway_proto::gitops::v1::{Change, change::Status};
use slipway_testbed::GitRepo;
use world::*;

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn failed(change: &Change, code: &str, words: &[&str]) {
    assert_status(change, Status::Failed);
    let reason = change.reason.as_ref().unwrap();
    assert_eq!(reason.code, code, "{reason:?}");
    for words in words {
        assert!(reason.message.contains(words), "{words}: {reason:?}");
    }
}

/// What only root may do, as `make test` does what it needs: by sudo where the user is another.
fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

/// A file system in memory, of a few pages.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, kib: u32) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let output = as_root("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={kib}k,nr_inodes=5000,mode=0777"))
            .arg("tmpfs")
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "a tmpfs cannot be mounted here ({}): run as root, or with sudo that asks for no password",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Self(path)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("fill")).unwrap();
        while file.write_all(&[b'x'; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("fill")).unwrap();
    }

    fn read_only(&self, on: bool) {
        let option = if on { "remount,ro" } else { "remount,rw" };
        let done = as_root("mount").args(["-o", option]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = as_root("umount").arg("-l").arg(&self.0).status();
    }
}

/// The world with a second repository, which nothing happens to.
fn two(world: &World) -> String {
    let fine = GitRepo::bare(world.path("fine.git")).unwrap();
    begin(&fine, "main", &["a"]);
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    format!("{text}\x20 fine: {{url: {}}}\n", fine.path().display())
}

async fn others_go_on(running: &Running, tag: &str) {
    let mut request = set_tag("a", tag);
    request.repository = "fine".to_owned();
    request.request_id = format!("fine-{tag}");
    assert_status(&applied(&mut running.client(), &request).await, Status::Pushed);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_rules_have_their_own_codes() {
    let world = World::new("gitops-hooks", &["a"]);
    let running = start_with(&two(&world)).await.unwrap();
    let mut client = running.client();
    let head = world.remote.head("main").unwrap();
    for (number, (hook, said, code, remedy)) in [
        (
            "pre-receive",
            "error: GH006: Protected branch update failed for refs/heads/main.\nerror: Changes must be made through a pull request.",
            "BRANCH_PROTECTED",
            "pull_requests",
        ),
        (
            "pre-receive",
            "GitLab: You are not allowed to push code to protected branches on this project.",
            "BRANCH_PROTECTED",
            "let this service's account push",
        ),
        (
            "pre-receive",
            "GitLab: You are not allowed to push code to this project.",
            "PERMISSION_DENIED",
            "give it write access",
        ),
        (
            "update",
            "policy: nothing is deployed on a Friday",
            "PUSH_REFUSED",
            "nothing is deployed on a Friday",
        ),
        (
            "pre-receive",
            "fetch first! permission denied, the ticket does not exist, no such project, read-only",
            "PUSH_REFUSED",
            "the ticket does not exist",
        ),
        (
            "pre-receive",
            "Your push has been rejected, because this repository has exceeded its size limit of 1 GB by 5 MB.",
            "REMOTE_FULL",
            "raise its quota",
        ),
        (
            "pre-receive",
            "ERROR: This repository was archived so it is read-only.",
            "REMOTE_READ_ONLY",
            "unarchive it",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        world.hook(hook, &format!("cat >&2 <<'END'\n{said}\nEND\nexit 1"));
        let change = applied(&mut client, &set_tag("a", &format!("v{number}"))).await;
        failed(&change, code, &[remedy]);
        assert_eq!(world.remote.head("main").unwrap(), head, "{said}");
        std::fs::remove_file(world.remote.path().join("hooks").join(hook)).unwrap();
        others_go_on(&running, &format!("v{number}")).await;
    }
    // And the same repository, once nobody objects.
    for tag in ["last but one", "last"].map(|tag| tag.replace(' ', "-")) {
        let change = applied(&mut client, &set_tag("a", &tag)).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(change.attempt, 1, "our own push is no race that we lose");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_commit_of_a_push_fails_alone() {
    let services = ["first", "bad", "a", "b", "c", "d", "e", "f"];
    let world = World::new("gitops-one-bad", &services);
    let (go, log) = (world.path("go"), world.path("pushes"));
    // The first push waits, so that the others come together.
    world.hook(
        "pre-receive",
        &format!(
            "read old new ref\ngit rev-list --count $old..$new >>{log}\nwhile [ ! -e {go} ]; do sleep 0.01; done\n\
             if git diff --name-only $old $new | grep -q ^apps/bad/; then echo 'policy: bad is frozen' >&2; exit 1; fi",
            log = log.display(),
            go = go.display()
        ),
    );
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let first = apply(&mut client, &set_tag("first", "v1")).await;
    appears(&log).await;
    let mut changes = Vec::new();
    for service in &services[1..] {
        changes.push((*service, apply(&mut client, &set_tag(service, "v1")).await));
    }
    std::fs::write(&go, "").unwrap();

    assert_status(&finished(&mut client, &first.id).await, Status::Pushed);
    for (service, change) in changes {
        let change = finished(&mut client, &change.id).await;
        if service == "bad" {
            failed(&change, "PUSH_REFUSED", &["bad is frozen"]);
        } else {
            assert_status(&change, Status::Pushed);
            assert!(world.file(service).contains("'v1'"), "{service}");
        }
    }
    assert!(world.file("bad").contains("'old'"));
    let pushes = std::fs::read_to_string(&log).unwrap();
    let pushes: Vec<&str> = pushes.lines().collect();
    assert_eq!(
        pushes[..2],
        ["1", "7"],
        "the seven came in one push, which was refused"
    );
    assert_eq!(pushes.len(), 2 + 7, "and then each alone: {pushes:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_checked_out() {
    let world = World::new("gitops-gone", &["a"]);
    begin(&world.remote, "release", &["a"]);
    let work = world.path("work");
    assert!(
        Command::new("git")
            .args(["clone", "--quiet"])
            .arg(world.remote.path())
            .arg(&work)
            .status()
            .unwrap()
            .success()
    );
    let text = format!("{}\x20 work: {{url: {}}}\n", two(&world), work.display());
    let running = start_with(&text).await.unwrap();
    let mut client = running.client();

    // Somebody's working copy: pushing would pull the files from under them.
    let mut request = set_tag("a", "v1");
    request.repository = "work".to_owned();
    failed(
        &applied(&mut client, &request).await,
        "PUSH_REFUSED",
        &["currently checked out"],
    );

    let mut request = set_tag("a", "v2");
    request.branch = "release".to_owned();
    assert_status(&applied(&mut client, &request).await, Status::Pushed);
    git(world.remote.path(), &["update-ref", "-d", "refs/heads/release"]);
    let mut request = set_tag("a", "v3");
    request.branch = "release".to_owned();
    failed(
        &applied(&mut client, &request).await,
        "BRANCH_NOT_FOUND",
        &["create it"],
    );

    assert_status(&applied(&mut client, &set_tag("a", "v4")).await, Status::Pushed);
    let away = world.path("away.git");
    std::fs::rename(world.remote.path(), &away).unwrap();
    failed(
        &applied(&mut client, &set_tag("a", "v5")).await,
        "REPOSITORY_NOT_FOUND",
        &["check the repository's url"],
    );
    others_go_on(&running, "v1").await;
    std::fs::rename(&away, world.remote.path()).unwrap();
    assert_status(&applied(&mut client, &set_tag("a", "v6")).await, Status::Pushed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_cannot_write() {
    let world = World::new("gitops-remote-disk", &["a"]);
    let disk = Tmpfs::mount(world.path("disk"), 2048);
    let small = GitRepo::bare(disk.0.join("small.git")).unwrap();
    begin(&small, "main", &["a"]);
    let text = format!("{}\x20 small: {{url: {}}}\n", two(&world), small.path().display());
    let running = start_with(&text).await.unwrap();
    let mut client = running.client();
    let on = |tag: &str| {
        let mut request = set_tag("a", tag);
        request.repository = "small".to_owned();
        request
    };
    assert_status(&applied(&mut client, &on("v1")).await, Status::Pushed);

    disk.fill();
    failed(
        &applied(&mut client, &on("v2")).await,
        "REMOTE_FULL",
        &["free some space there"],
    );
    others_go_on(&running, "v2").await;
    disk.free();
    assert_status(&applied(&mut client, &on("v3")).await, Status::Pushed);

    disk.read_only(true);
    failed(
        &applied(&mut client, &on("v4")).await,
        "REMOTE_READ_ONLY",
        &["make its disk writable"],
    );
    others_go_on(&running, "v4").await;
    disk.read_only(false);
    assert_status(&applied(&mut client, &on("v5")).await, Status::Pushed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_our_own() {
    let world = World::new("gitops-own-disk", &["a"]);
    let disk = Tmpfs::mount(world.path("data-one"), 2048);
    let running = start_with(&two(&world)).await.unwrap();
    let mut client = running.client();
    assert_status(&applied(&mut client, &set_tag("a", "v1")).await, Status::Pushed);
    let head = world.remote.head("main").unwrap();

    disk.fill();
    let change = applied(&mut client, &set_tag("a", "v2")).await;
    failed(&change, "STORAGE_FULL", &["data_dir", "larger volume"]);
    // A mirror that is not there yet finds no room either.
    let mut request = set_tag("a", "v2");
    request.repository = "fine".to_owned();
    request.request_id = "fine".to_owned();
    failed(
        &applied(&mut client, &request).await,
        "STORAGE_FULL",
        &["data_dir"],
    );
    assert_eq!(world.remote.head("main").unwrap(), head);

    disk.free();
    assert_status(&applied(&mut client, &set_tag("a", "v3")).await, Status::Pushed);
    others_go_on(&running, "v3").await;
    running.stop().await;
}

/// Replaces the remote's branch by one with many files and commits.
fn grow(remote: &GitRepo, files: usize, commits: usize) {
    let mut stream = String::new();
    let mut from = Some(remote.head("main").unwrap());
    for commit in 0..commits {
        let message = format!("commit {commit}");
        writeln!(stream, "commit refs/heads/main").unwrap();
        writeln!(
            stream,
            "committer A <a@example.com> {} +0000",
            1_700_000_000 + commit
        )
        .unwrap();
        writeln!(stream, "data {}\n{message}", message.len()).unwrap();
        if let Some(from) = from.take() {
            writeln!(stream, "from {from}").unwrap();
        }
        let touched = if commit == 0 { 0..files } else { commit..commit + 1 };
        for file in touched {
            let text = format!("value: {file} at {commit}\n");
            writeln!(stream, "M 100644 inline others/{}/values-{file}.yaml", file % 50).unwrap();
            writeln!(stream, "data {}\n{text}", text.len()).unwrap();
        }
    }
    let mut child = Command::new("git")
        .arg("--git-dir")
        .arg(remote.path())
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    git(remote.path(), &["config", "uploadpack.allowFilter", "true"]);
}

/// Objects of a mirror: commits, trees and blobs.
fn count(mirror: &Path) -> (usize, usize, usize) {
    let all = git(
        mirror,
        &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"],
    );
    let of = |kind: &str| all.lines().filter(|line| *line == kind).count();
    (of("commit"), of("tree"), of("blob"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_repository_is_mirrored_in_part() {
    mirrored_in_part("gitops-large", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rendering_adds_to_the_mirror_only_what_the_folder_builds_on() {
    mirrored_in_part("gitops-large-rendered", true).await;
}

async fn mirrored_in_part(name: &str, renders: bool) {
    let world = World::new(name, &["a", "b"]);
    grow(&world.remote, 3000, 500);
    let url = format!("{{url: {}", world.remote.path().display());
    let set = format!("{url}, render_before_commit: {renders}");
    let config = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    assert!(config.contains(&url), "{config}");
    let running = start_with(&config.replace(&url, &set)).await.unwrap();
    // The base's kustomization and its manifest, which both folders build on.
    let built_on = if renders { 2 } else { 0 };
    let mut client = running.client();
    let change = applied(&mut client, &set_tag("a", "v1")).await;
    assert_status(&change, Status::Pushed);
    assert!(world.file("a").contains("'v1'"));
    assert_eq!(world.remote.log("main").unwrap().len(), 502);
    assert_eq!(world.remote.files("main").unwrap().len(), 3004);

    // The head and our commit; the file as it was, its one neighbour at most, and as it is.
    let mirror = world.path("data-one/mirrors/shop.git");
    let (commits, trees, blobs) = count(&mirror);
    assert_eq!(commits, 2, "{trees} trees, {blobs} blobs");
    assert!(blobs <= 3 + built_on, "{blobs}");
    assert!(trees < 100, "{trees}");

    // Others write; what comes after is theirs and ours, and nothing of before.
    world
        .remote
        .commit("main", "theirs", &[("others/1/new.yaml", b"x: 1\n")])
        .unwrap();
    assert_status(&applied(&mut client, &set_tag("b", "v1")).await, Status::Pushed);
    let (commits, _, blobs) = count(&mirror);
    // Theirs, ours on top, and ours as it was on the head from before, which lost the race.
    assert_eq!(commits, 2 + 3);
    assert!(blobs <= 6 + built_on, "{blobs}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_finds_what_was_pushed_behind_the_history_it_has() {
    let world = World::new("gitops-deepen", &["a"]);
    grow(&world.remote, 100, 700);
    let port = slipway_testbed::free_port().unwrap();
    let mut process = world.spawn(port, Some("gitops.push.after:1"));
    let mut client = client(&process.url, "alice-token");
    let request = set_tag("a", "v1");
    // The answer may be lost with the process.
    while client.apply_change(request.clone()).await.is_err() {
        if world.file("a").contains("'v1'") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    process.died().await;
    let pushed = world.remote.head("main").unwrap();
    assert!(world.file("a").contains("'v1'"));

    // Its disk is lost, and others push more than the first step back reaches.
    std::fs::remove_dir_all(world.path("data-program")).unwrap();
    for number in 0..60 {
        let text = format!("n: {number}\n");
        world
            .remote
            .commit("main", "theirs", &[("others/n.yaml", text.as_bytes())])
            .unwrap();
    }
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
    assert_eq!(change.commit, pushed);
    assert_eq!(
        change.previous.len(),
        1,
        "what it changed is read from its parent"
    );
    assert_eq!(world.commits_with(&format!("Slipway-Change: {}", change.id)), 1);
    assert_eq!(world.remote.log("main").unwrap().len(), 701 + 1 + 60);
    // 1 + 50 + 500 commits, not all of them.
    let mirror = world.path("data-program/mirrors/shop.git");
    let here: usize = git(&mirror, &["rev-list", "--count", "refs/remotes/origin/main"])
        .parse()
        .unwrap();
    assert!((62..700).contains(&here), "{here}");
}
