use std::fs;

use slipway_testbed::{GitRepo, TestDir};

use super::*;
use crate::backends::{logs::Logs, redact::Redactor, workspace::Workspace};

struct Bed {
    folder: TestDir,
    logs: Logs,
    workspace: Workspace,
}

impl Bed {
    fn new() -> Self {
        let folder = TestDir::new("fetch").unwrap();
        let logs = Logs::in_folder(&folder.path().join("logs"), 1 << 20, Redactor::default()).unwrap();
        let workspace = Workspace::open(&folder.path().join("work")).unwrap();
        Self {
            folder,
            logs,
            workspace,
        }
    }

    async fn fetch(&self, git: &Git, url: &str, commit: &str) -> Result<(Attempt, Source), Stop> {
        let id = "bld-1".parse().unwrap();
        let log = self.logs.open(&id).await.unwrap();
        let attempt = self.workspace.attempt(&id).unwrap();
        let source = git
            .fetch(
                &url.parse().unwrap(),
                &commit.parse().unwrap(),
                &attempt,
                &log,
                &CancellationToken::new(),
            )
            .await?;
        Ok((attempt, source))
    }
}

#[tokio::test]
async fn any_commit_is_fetched_by_its_id_alone() {
    let bed = Bed::new();
    let repo = GitRepo::bare(bed.folder.path().join("app.git")).unwrap();
    let first = repo
        .commit("main", "one", &[("a.txt", b"1"), ("dir/b.txt", b"b")])
        .unwrap();
    let second = repo.commit("main", "two", &[("a.txt", b"2")]).unwrap();
    for (commit, content) in [(&first, "1"), (&second, "2")] {
        let (attempt, Source { tree, authors }) =
            bed.fetch(&Git::default(), &repo.url(), commit).await.unwrap();
        assert_eq!(authors, ["author@example.com"]);
        assert_eq!(fs::read_to_string(tree.join("a.txt")).unwrap(), content);
        assert_eq!(fs::read_to_string(tree.join("dir/b.txt")).unwrap(), "b");
        assert!(!tree.join(".git").exists());
        assert_eq!(
            fs::read_to_string(attempt.path().join("git/shallow"))
                .unwrap()
                .lines()
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn missing_commits_repositories_and_hosts_are_told_apart() {
    let bed = Bed::new();
    let repo = GitRepo::bare(bed.folder.path().join("app.git")).unwrap();
    repo.commit("main", "one", &[("a.txt", b"1")]).unwrap();
    let absent = "1111111111111111111111111111111111111111";
    let error = bed.fetch(&Git::default(), &repo.url(), absent).await.unwrap_err();
    assert_eq!(error.kind(), Some((codes::COMMIT_NOT_FOUND, false)), "{error:?}");
    let nowhere = format!("file://{}/nowhere.git", bed.folder.path().display());
    let error = bed.fetch(&Git::default(), &nowhere, absent).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Some((codes::REPOSITORY_REFUSED, false)),
        "{error:?}"
    );
    // A closed port.
    let error = bed
        .fetch(&Git::default(), "https://127.0.0.1:1/app.git", absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some((codes::SOURCE_UNAVAILABLE, true)), "{error:?}");
}

#[test]
fn messages_of_git_are_classified() {
    let commit: CommitSha = "1111111111111111111111111111111111111111".parse().unwrap();
    for (message, expected) in [
        (
            "fatal: remote error: upload-pack: not our ref 1111111111111111111111111111111111111111",
            "commit",
        ),
        (
            "error: Server does not allow request for unadvertised object 1111",
            "commit",
        ),
        (
            "remote: Repository not found.\nfatal: repository 'https://x/' not found",
            "refused",
        ),
        (
            "fatal: could not read Username for 'https://x': terminal prompts disabled",
            "refused",
        ),
        (
            "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            "refused",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 403",
            "refused",
        ),
        (
            "fatal: unable to access 'https://x/': Could not resolve host: x",
            "unavailable",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 503",
            "unavailable",
        ),
        ("fatal: the remote end hung up unexpectedly", "unavailable"),
        ("", "unavailable"),
    ] {
        let kind = match classify(message, &commit).kind() {
            Some((codes::COMMIT_NOT_FOUND, false)) => "commit",
            Some((codes::REPOSITORY_REFUSED, false)) => "refused",
            Some((codes::SOURCE_UNAVAILABLE, true)) => "unavailable",
            _ => "other",
        };
        assert_eq!(kind, expected, "{message}");
    }
}

#[test]
fn a_credential_goes_to_its_own_host_only() {
    let credential = |prefix: &str, password: &str| GitCredential {
        prefix: prefix.into(),
        username: "robot".into(),
        password: password.into(),
    };
    let git = Git {
        credentials: vec![
            credential("https://git.example/", "outer"),
            credential("https://git.example/team/", "inner"),
        ],
        ssh: None,
    };
    let config = |url: &str| git.config(&url.parse().unwrap(), Path::new("/x")).unwrap();
    let header = |password: &str| STANDARD.encode(format!("robot:{password}"));
    assert!(config("https://git.example/team/app.git").contains(&header("inner")));
    assert!(config("https://git.example/other/app.git").contains(&header("outer")));
    assert!(!config("https://git.example.elsewhere/app.git").contains("extraHeader"));
    assert!(!format!("{git:?}").contains("inner"));
}

#[test]
fn each_author_of_a_commit_is_listed_once() {
    let people = "a@example.com\nb@example.com\nCarol <c@example.com>\n\nAlice <a@example.com>\n";
    assert_eq!(
        authors(people),
        ["a@example.com", "b@example.com", "c@example.com"]
    );
    // Too many to be plausible: the list is empty, which counts as an unmapped author.
    let crowd: String = (0..101).map(|n| format!("Co <{n}@example.com>\n")).collect();
    assert_eq!(
        authors("Bell <be\u{7}ll@example.com>"),
        ["be\u{fffd}ll@example.com"]
    );
    assert!(authors(&crowd).is_empty());
    assert!(authors(&"x".repeat(MAX_OUTPUT)).is_empty());
}
