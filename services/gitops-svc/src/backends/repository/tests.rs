//! The mirror against real remotes.

use std::{collections::HashSet, path::Path, process::Command, sync::Arc};

use gitops_domain::remote::Moved;
use slipway_edit::{Edit, KustomizeImage, NewImage};
use slipway_model::{CommitSha, Fault, Reason, Timestamp};
use slipway_testbed::{GitRepo, TestDir};

use super::{Applied, Plan, Repository, git};
use crate::{
    backends::signing::Committer,
    config::{Author, RepositoryConfig},
};

const SERVICES: usize = 40;

struct Bench {
    dir: TestDir,
    remote: GitRepo,
}

impl Bench {
    /// A remote with a kustomization for each service, and some history before it.
    fn new(filter: bool) -> Self {
        let dir = TestDir::new("gitops-mirror").unwrap();
        let remote = GitRepo::bare(dir.path().join("remote.git")).unwrap();
        for number in 0..5 {
            let text = format!("before {number}");
            remote
                .commit("main", &text, &[("before", text.as_bytes())])
                .unwrap();
        }
        let files: Vec<(String, String)> = (0..SERVICES)
            .map(|service| {
                (
                    format!("apps/s{service}/kustomization.yaml"),
                    format!("images:\n- name: app\n  newTag: old-{service}\n"),
                )
            })
            .collect();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_bytes()))
            .collect();
        remote.commit("main", "begin", &files).unwrap();
        if filter {
            run(remote.path(), &["config", "uploadpack.allowFilter", "true"]);
        }
        Self { dir, remote }
    }

    fn repository(&self) -> Arc<Repository> {
        let config = serde_json::json!({"url": self.remote.path()});
        let config: RepositoryConfig = serde_json::from_value(config).unwrap();
        let committer = Committer {
            author: Author::default(),
            key: None,
        };
        Arc::new(Repository::new("shop", config, &committer, self.dir.path()).unwrap())
    }

    fn mirror(&self) -> std::path::PathBuf {
        self.dir.path().join("mirrors/shop.git")
    }

    fn head(&self) -> CommitSha {
        self.remote.head("main").unwrap().parse().unwrap()
    }

    fn packs(&self) -> usize {
        let packs = std::fs::read_dir(self.mirror().join("objects/pack")).unwrap();
        packs
            .filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                path.extension().is_some_and(|extension| extension == "pack")
            })
            .count()
    }
}

fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_NO_LAZY_FETCH", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn plan(service: usize, tag: &str) -> Plan {
    Plan {
        edits: vec![Edit::KustomizeImage(KustomizeImage {
            path: format!("apps/s{service}").parse().unwrap(),
            name: "app".to_owned(),
            to: NewImage {
                new_tag: Some(tag.parse().unwrap()),
                ..NewImage::default()
            },
            allow_shared: false,
        })],
        message: format!("deploy {tag}"),
        time: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

/// Applies and pushes one change for each service.
async fn round(
    repository: &Arc<Repository>,
    head: &CommitSha,
    tag: &str,
) -> Result<CommitSha, Fault<Reason>> {
    let plans = (0..SERVICES).map(|service| plan(service, tag)).collect();
    let (tip, applied) = repository.apply(head, plans).await?;
    assert_eq!(applied.len(), SERVICES);
    assert!(
        applied.iter().all(|one| matches!(one, Applied::Commit { .. })),
        "{applied:?}"
    );
    let moved = repository.push(&"main".parse().unwrap(), head, &tip).await?;
    assert_eq!(moved, Moved::Yes);
    Ok(tip)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_round_come_in_one_exchange() {
    let bench = Bench::new(true);
    let repository = bench.repository();
    let main = "main".parse().unwrap();
    let head = repository.fetch(&main).await.unwrap();
    assert_eq!(head, bench.head());
    assert_eq!(run(&bench.mirror(), &["rev-list", "--count", head.as_str()]), "1");
    assert_eq!(bench.packs(), 1);

    let tip = round(&repository, &head, "v1").await.unwrap();
    assert_eq!(bench.packs(), 3, "all files came together, and went together");
    assert_eq!(bench.head(), tip);
    for service in [0, SERVICES - 1] {
        let path = format!("apps/s{service}/kustomization.yaml");
        assert_eq!(
            bench.remote.read("main", &path).unwrap(),
            b"images:\n- name: app\n  newTag: v1\n"
        );
    }
    // The push has reported where the branch is: the next one does not need a fetch, and no file is missing any more.
    assert_eq!(repository.tracked(&main).await.unwrap(), Some(tip.clone()));
    round(&repository, &tip, "v2").await.unwrap();
    assert_eq!(bench.packs(), 4);
    run(bench.remote.path(), &["fsck", "--strict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_leaves_nothing_out_is_mirrored_with_its_files() {
    let bench = Bench::new(false);
    let repository = bench.repository();
    let head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    assert_eq!(bench.packs(), 1);
    round(&repository, &head, "v1").await.unwrap();
    assert_eq!(bench.packs(), 2);
    let config = std::fs::read_to_string(bench.mirror().join("config")).unwrap();
    assert!(!config.contains("promisor = true"), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_whole_stays_whole() {
    let bench = Bench::new(true);
    let old = bench.mirror();
    std::fs::create_dir_all(&old).unwrap();
    run(&old, &["init", "--quiet", "--bare"]);
    let url = bench.remote.path().display().to_string();
    run(
        &old,
        &["fetch", "--quiet", &url, "+refs/heads/*:refs/remotes/origin/*"],
    );
    let repository = bench.repository();
    let known = bench.head();
    bench
        .remote
        .commit("main", "theirs", &[("theirs", b"x")])
        .unwrap();
    bench.remote.commit("other", "another", &[("o", b"x")]).unwrap();
    let head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    round(&repository, &head, "v1").await.unwrap();
    assert!(
        repository
            .ensure(&bench.remote.head("other").unwrap().parse().unwrap())
            .await
            .unwrap()
    );
    assert!(repository.ensure(&known).await.unwrap());
    assert!(!old.join("shallow").exists());
    assert!(!repository.deepen(10).await.unwrap());
    let first = run(bench.remote.path(), &["rev-list", "--max-parents=0", "main"]);
    assert!(repository.ensure(&first.parse().unwrap()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_brought_when_it_is_asked_for() {
    let bench = Bench::new(true);
    for number in 0..80 {
        let text = number.to_string();
        bench
            .remote
            .commit("main", &text, &[("n", text.as_bytes())])
            .unwrap();
    }
    bench.remote.commit("other", "another", &[("o", b"x")]).unwrap();
    let repository = bench.repository();
    let head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    let count = || run(&bench.mirror(), &["rev-list", "--count", head.as_str()]);

    // A commit that does not exist does not cause history to be fetched; nor does one that is not on a branch.
    let nowhere: CommitSha = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap();
    assert!(!repository.ensure(&nowhere).await.unwrap());
    assert_eq!(count(), "1");

    assert!(repository.deepen(9).await.unwrap());
    assert_eq!(count(), "10");
    let near: CommitSha = bench.remote.head("main~20").unwrap().parse().unwrap();
    assert!(repository.ensure(&near).await.unwrap());
    // Down to the commit, whose existence was checked first, and one step beyond it.
    assert_eq!(count(), (1 + 20 + 50).to_string());
    let first: CommitSha = bench.remote.head("main~85").unwrap().parse().unwrap();
    assert!(repository.ensure(&first).await.unwrap());
    assert_eq!(count(), "86");
    assert!(!repository.deepen(1).await.unwrap());
    assert!(
        repository
            .ensure(&bench.remote.head("other").unwrap().parse().unwrap())
            .await
            .unwrap()
    );

    // All files of an old commit, in one exchange.
    let packs = bench.packs();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let each = move |path: &str, _| {
        into.lock().unwrap().push(path.to_owned());
        Ok(())
    };
    repository
        .export(&near, 1 << 20, 1000, each)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.lock().unwrap().len(), SERVICES + 2);
    assert_eq!(bench.packs(), packs + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_no_branch_is_not_ours_to_show() {
    let bench = Bench::new(true);
    let repository = bench.repository();
    repository.fetch(&"main".parse().unwrap()).await.unwrap();
    // In the remote's objects, as a pull request of a fork is, and on no branch.
    let stray = run(
        bench.remote.path(),
        &[
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "commit-tree",
            "-m",
            "stray",
            "main^{tree}",
        ],
    );
    assert!(!repository.ensure(&stray.parse().unwrap()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_remote_has_no_more_than_it_has() {
    let bench = Bench::new(true);
    let all = bench.remote.path().to_owned();
    let cut = bench.dir.path().join("cut.git");
    let url = format!("file://{}", all.display());
    run(
        &all,
        &[
            "clone",
            "--quiet",
            "--bare",
            "--depth=2",
            &url,
            &cut.display().to_string(),
        ],
    );
    std::fs::rename(&all, bench.dir.path().join("away.git")).unwrap();
    std::fs::rename(&cut, &all).unwrap();
    let repository = bench.repository();
    let head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    let wanted = HashSet::from(["chg-1".parse().unwrap()]);
    assert!(
        repository
            .find_changes(None, &head, wanted)
            .await
            .unwrap()
            .is_empty()
    );
    round(&repository, &head, "v1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tidying_disturbs_nobody() {
    let bench = Bench::new(true);
    let repository = bench.repository();
    let mut head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    for number in 0..25 {
        head = round(&repository, &head, &format!("a{number}")).await.unwrap();
    }
    let before = bench.packs();
    assert!(before > 25, "{before}");
    // While pushes go on, with handles that were opened before.
    let mirror = bench.mirror();
    let tidying = tokio::spawn(async move { git::tidy(&mirror).await });
    let mut number = 0;
    while !tidying.is_finished() || number < 3 {
        head = round(&repository, &head, &format!("b{number}")).await.unwrap();
        number += 1;
    }
    tidying.await.unwrap().unwrap();
    head = round(&repository, &head, "c").await.unwrap();
    assert_eq!(bench.head(), head);
    let written = (25 + number + 1) * SERVICES;
    assert!(bench.packs() < before + number, "{} of {before}", bench.packs());
    let listed = run(&bench.mirror(), &["rev-list", "--count", head.as_str()]);
    assert_eq!(listed, (written + 1).to_string());
    run(&bench.mirror(), &["fsck", "--connectivity-only"]);

    // Many packs later the same handle still reads.
    for number in 0..40 {
        let text = number.to_string();
        bench
            .remote
            .commit("main", "theirs", &[("n", text.as_bytes())])
            .unwrap();
        head = repository.fetch(&"main".parse().unwrap()).await.unwrap();
    }
    round(&repository, &head, "d").await.unwrap();
}
