//! GitHub as its REST documentation tells it, as far as pull requests need it. The git side is a real bare repository, in
//! which it merges, squashes and rebases with git.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(dead_code)]

mod api;
mod forge;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::Router;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use self::api::{answer, labelled, user};
pub(crate) use self::forge::Forge;

pub(crate) const TOKEN: &str = "ghs_secret";

/// One pull request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pull {
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) body: String,
    pub(crate) head: String,
    pub(crate) base: String,
    /// The head's last commit, also when its branch is gone.
    pub(crate) sha: String,
    pub(crate) open: bool,
    pub(crate) merged_by: Option<String>,
    pub(crate) merge_commit: Option<String>,
    pub(crate) closed_by: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) reviewers: Vec<String>,
    pub(crate) teams: Vec<String>,
    pub(crate) comments: Vec<String>,
    /// What mergeability was last worked out for, and how often it is still unknown.
    computed: (String, u32),
}

/// An answer that the next fitting request gets instead.
struct Trouble {
    method: &'static str,
    path: &'static str,
    status: u16,
    headers: Vec<(&'static str, String)>,
    message: String,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pulls: BTreeMap<u64, Pull>,
    /// `METHOD PATH` of each request.
    pub(crate) requests: Vec<String>,
    /// How many answers said that nothing is new.
    pub(crate) not_modified: usize,
    trouble: Vec<Trouble>,
    /// Instead of `clean`.
    pub(crate) readiness: Option<&'static str>,
    /// How often `mergeable` is null after something changed.
    pub(crate) computing: u32,
}

struct Inner {
    git: PathBuf,
    state: Mutex<State>,
    changed: Notify,
}

/// A running GitHub; it ends with its handle.
pub(crate) struct GitHub {
    pub(crate) url: String,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GitHub {
    pub(crate) async fn start(git: &Path) -> Self {
        let inner = Arc::new(Inner {
            git: git.to_owned(),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inner, task }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Waits until what requests have made of it is as wanted.
    pub(crate) async fn until(&self, mut wanted: impl FnMut(&State) -> bool) {
        slipway_testbed::within("requests have made it so", async {
            loop {
                let changed = self.inner.changed.notified();
                if wanted(&self.state()) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// Waits until a pull request is open, and gives its number.
    pub(crate) async fn opened(&self) -> u64 {
        self.until(|state| state.pulls.values().any(|pull| pull.open))
            .await;
        let state = self.state();
        state.pulls.values().find(|pull| pull.open).unwrap().number
    }

    /// Waits until a request that begins so was answered `times` more often.
    pub(crate) async fn asked(&self, request: &str, times: usize) {
        let count = |state: &State| {
            state
                .requests
                .iter()
                .filter(|text| text.starts_with(request))
                .count()
        };
        let before = count(&self.state());
        self.until(|state| count(state) >= before + times).await;
    }

    pub(crate) fn pull(&self, number: u64) -> Pull {
        self.state().pulls[&number].clone()
    }

    /// The next fitting request gets this answer.
    pub(crate) fn once(
        &self,
        method: &'static str,
        path: &'static str,
        status: u16,
        headers: &[(&'static str, &str)],
        message: &str,
    ) {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.state().trouble.push(Trouble {
            method,
            path,
            status,
            headers,
            message: message.to_owned(),
        });
    }

    /// A person presses the button.
    pub(crate) fn merge(&self, number: u64, method: &str, who: &str) -> String {
        let mut state = self.state();
        self.inner.merge(&mut state, number, method, who, None).unwrap()
    }

    /// A person closes it.
    pub(crate) fn close(&self, number: u64, who: &str) {
        let mut state = self.state();
        let pull = state.pulls.get_mut(&number).unwrap();
        pull.open = false;
        pull.closed_by = Some(who.to_owned());
    }

    /// Who wrote what: requests that change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        let state = self.state();
        let writes = state.requests.iter().filter(|text| !text.starts_with("GET "));
        writes.cloned().collect()
    }
}

impl Inner {
    fn merge(
        &self,
        state: &mut State,
        number: u64,
        method: &str,
        who: &str,
        message: Option<String>,
    ) -> Result<String, String> {
        self.refresh(state, number);
        let pull = state.pulls.get_mut(&number).unwrap();
        assert!(pull.open && pull.merge_commit.is_none(), "merged twice");
        let base = self.head(&pull.base).unwrap();
        let tree = self.git(&["merge-tree", "--write-tree", &base, &pull.sha])?;
        let original = self.git(&["log", "-1", "--format=%B", &pull.sha])?;
        let (message, second) = match method {
            "merge" => (
                format!(
                    "Merge pull request #{number} from acme/{}\n\n{}",
                    pull.head, pull.title
                ),
                Some(pull.sha.clone()),
            ),
            "squash" => (
                message.unwrap_or_else(|| format!("{} (#{number})\n\n{}", pull.title, pull.body)),
                None,
            ),
            "rebase" => (original, None),
            other => panic!("no such method: {other}"),
        };
        let mut arguments = vec!["commit-tree", &tree, "-p", &base, "-m", &message];
        if let Some(second) = &second {
            arguments.extend(["-p", second]);
        }
        let sha = self.git(&arguments)?;
        self.git(&["update-ref", &format!("refs/heads/{}", pull.base), &sha, &base])?;
        pull.open = false;
        pull.merged_by = Some(who.to_owned());
        pull.merge_commit = Some(sha.clone());
        Ok(sha)
    }

    /// What the repository has become.
    fn refresh(&self, state: &mut State, number: u64) {
        let computing = state.computing;
        let pull = state.pulls.get_mut(&number).unwrap();
        if pull.open
            && let Some(sha) = self.head(&pull.head)
        {
            pull.sha = sha;
        }
        let now = format!("{} {:?}", pull.sha, self.head(&pull.base));
        if pull.computed.0 != now {
            pull.computed = (now, computing);
        }
    }

    fn simple(&self, pull: &Pull) -> Value {
        let state = if pull.open { "open" } else { "closed" };
        let merged_at = pull.merge_commit.as_ref().map(|_| "2026-11-21T12:00:00Z");
        json!({
            "id": 1000 + pull.number,
            "number": pull.number,
            "url": format!("https://api.github.com/repos/acme/shop/pulls/{}", pull.number),
            "html_url": format!("https://github.com/acme/shop/pull/{}", pull.number),
            "state": state,
            "title": pull.title,
            "body": pull.body,
            "draft": false,
            "user": user("slipway[bot]"),
            "labels": labelled(&pull.labels),
            "requested_reviewers": pull.reviewers.iter().map(|login| user(login)).collect::<Vec<_>>(),
            "requested_teams": pull.teams.iter().map(|slug| json!({ "slug": slug })).collect::<Vec<_>>(),
            "head": { "label": format!("acme:{}", pull.head), "ref": pull.head, "sha": pull.sha },
            "base": { "label": format!("acme:{}", pull.base), "ref": pull.base, "sha": self.head(&pull.base) },
            "merged_at": merged_at,
            "merge_commit_sha": pull.merge_commit,
        })
    }

    fn full(&self, state: &mut State, number: u64) -> Value {
        self.refresh(state, number);
        let pull = state.pulls.get_mut(&number).unwrap();
        let computing = pull.computed.1 > 0;
        pull.computed.1 = pull.computed.1.saturating_sub(1);
        let pull = pull.clone();
        let mut value = self.simple(&pull);
        let base = self.head(&pull.base).unwrap_or_default();
        let conflicts = self
            .git(&["merge-tree", "--write-tree", &base, &pull.sha])
            .is_err();
        let behind = self
            .git(&["merge-base", "--is-ancestor", &base, &pull.sha])
            .is_err();
        let (mergeable, readiness) = match state.readiness {
            _ if !pull.open => (None, "unknown"),
            _ if computing => (None, "unknown"),
            _ if conflicts => (Some(false), "dirty"),
            Some("behind") if !behind => (Some(true), "clean"),
            Some(other) => (Some(true), other),
            None => (Some(true), "clean"),
        };
        value["merged"] = pull.merge_commit.is_some().into();
        value["merged_by"] = pull.merged_by.as_deref().map_or(Value::Null, user);
        value["mergeable"] = mergeable.into();
        value["mergeable_state"] = readiness.into();
        value
    }

    fn head(&self, branch: &str) -> Option<String> {
        self.git(&[
            "rev-parse",
            "--verify",
            "--quiet",
            &format!("refs/heads/{branch}"),
        ])
        .ok()
    }

    fn git(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("git");
        command
            .arg("--git-dir")
            .arg(&self.git)
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "GitHub")
                .env(format!("GIT_{role}_EMAIL"), "noreply@github.com");
        }
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    }
}
