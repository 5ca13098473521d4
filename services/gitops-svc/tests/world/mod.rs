//! A running service, its remote, and a client: shared by the tests.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(dead_code)] // each test file uses a part

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures::StreamExt as _;
use gitops_svc::Config;
use slipway_proto::{
    common::v1::Image,
    gitops::v1::{
        ApplyChangeRequest, Change, Edit, GetChangeRequest, KustomizeImage, WatchChangeRequest,
        change::Status, edit, git_ops_service_client::GitOpsServiceClient,
    },
};
use slipway_server::{Channel, ClientConfig, TokenHash};
use slipway_testbed::{GitRepo, InProcess, TestDir, eventually, tool};

pub(crate) const SHA: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

/// A kustomization with everything that an edit must not touch.
pub(crate) fn overlay(service: &str) -> String {
    format!(
        "# The overlay of {service}.\r\nresources:\r\n- ../../base # shared\r\n\r\nimages:\r\n- name: app\r\n  newName: r.example/{service}   # ours\r\n  newTag: 'old'"
    )
}

pub(crate) const BASE: &str = "resources: [deployment.yaml]\n";
pub(crate) const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app\nspec:\n  selector:\n    matchLabels: {app: app}\n  template:\n    metadata:\n      labels: {app: app}\n    spec:\n      containers:\n      - name: app\n        image: app:placeholder\n";

/// The folder of a service's overlay.
pub(crate) fn folder(service: &str) -> String {
    format!("apps/{service}/dev")
}

/// The first commit of a branch: an overlay for each service, and what they build on.
pub(crate) fn begin(remote: &GitRepo, branch: &str, services: &[&str]) {
    let overlays: Vec<(String, String)> = services
        .iter()
        .map(|service| {
            (
                format!("{}/kustomization.yaml", folder(service)),
                overlay(service),
            )
        })
        .collect();
    let mut files: Vec<(&str, &[u8])> = overlays
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_bytes()))
        .collect();
    files.push(("apps/base/kustomization.yaml", BASE.as_bytes()));
    files.push(("apps/base/deployment.yaml", DEPLOYMENT.as_bytes()));
    remote.commit(branch, "begin", &files).unwrap();
}

pub(crate) struct World {
    pub(crate) dir: TestDir,
    pub(crate) remote: GitRepo,
}

impl World {
    /// A remote with an overlay for each service.
    pub(crate) fn new(name: &str, services: &[&str]) -> Self {
        let dir = TestDir::new(name).unwrap();
        let remote = GitRepo::bare(dir.path().join("remote.git")).unwrap();
        begin(&remote, "main", services);
        Self { dir, remote }
    }

    pub(crate) fn sqlite(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("ledger.db").display())
    }

    /// A configuration file for one replica.
    pub(crate) fn config(&self, database: &str, replica: &str, listen: &str) -> String {
        let dir = self.dir.path().display();
        let program = |name: &str| tool(name).unwrap_or_else(|_| name.into());
        let (kustomize, helm) = (program("kustomize"), program("helm"));
        let hash = |token: &str| String::from(TokenHash::of(token));
        format!(
            "server:\n  listen: {listen}\n  principals:\n\
             \x20 - {{subject: alice, token_sha256: {}, roles: [{{actions: [read, start, cancel, rollback]}}]}}\n\
             \x20 - {{subject: reader, token_sha256: {}, roles: [{{actions: [read]}}]}}\n\
             \x20 - {{subject: other, token_sha256: {}, roles: [{{actions: [read, start], services: [other]}}]}}\n\
             database: {{url: '{database}'}}\n\
             data_dir: {dir}/data-{replica}\n\
             kustomize: {{path: {}}}\n\
             helm: {{path: {}}}\n\
             author: {{name: Robot, email: robot@example.com}}\n\
             repositories:\n\
             \x20 shop: {{url: {dir}/remote.git}}\n\
             \x20 gone: {{url: {dir}/no-such-repository.git}}\n",
            hash("alice-token"),
            hash("reader-token"),
            hash("other-token"),
            kustomize.display(),
            helm.display(),
        )
    }

    /// Starts a replica in this process.
    pub(crate) async fn start(&self, database: &str, replica: &str) -> Running {
        let text = self.config(database, replica, "127.0.0.1:0");
        start_with(&text).await.unwrap()
    }

    /// Starts the program, armed to kill itself.
    pub(crate) fn spawn(&self, port: u16, fault: Option<&str>) -> Process {
        let text = self.config(&self.sqlite(), "program", &format!("127.0.0.1:{port}"));
        spawn_with(self, &text, port, fault)
    }

    /// Starts the program with one more variable, such as one that arms it to kill itself.
    pub(crate) fn spawn_armed(&self, port: u16, fault: (&str, &str)) -> Process {
        let text = self.config(&self.sqlite(), "program", &format!("127.0.0.1:{port}"));
        spawn_in(self, &text, port, Some(fault))
    }

    pub(crate) fn file(&self, service: &str) -> String {
        let path = format!("{}/kustomization.yaml", folder(service));
        String::from_utf8(self.remote.read("main", &path).unwrap()).unwrap()
    }

    /// The commits whose message has the line.
    pub(crate) fn commits_with(&self, line: &str) -> usize {
        let log = self.remote.log("main").unwrap();
        log.iter()
            .filter(|commit| commit.message.lines().any(|text| text == line))
            .count()
    }

    /// Puts a hook into the remote.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.remote.path().join("hooks").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A replica in this process.
pub(crate) struct Running {
    pub(crate) url: String,
    replica: InProcess<Config>,
}

impl Running {
    pub(crate) fn client(&self) -> GitOpsServiceClient<Channel> {
        client(&self.url, "alice-token")
    }

    pub(crate) async fn stop(self) {
        self.replica.stop().await;
    }
}

/// The program; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Waits until it has ended by itself.
    pub(crate) async fn died(&mut self) {
        eventually("the process ends", async || {
            self.child.try_wait().unwrap().ok_or("it runs")
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client(url: &str, token: &str) -> GitOpsServiceClient<Channel> {
    GitOpsServiceClient::new(ClientConfig::new(url, token).connect("gitops").unwrap())
}

/// Sets the tag of a service's image.
pub(crate) fn set_tag(service: &str, tag: &str) -> ApplyChangeRequest {
    ApplyChangeRequest {
        request_id: format!("{service}-{tag}"),
        repository: "shop".to_owned(),
        service: service.to_owned(),
        environment: "dev".to_owned(),
        edits: vec![Edit {
            edit: Some(edit::Edit::KustomizeImage(KustomizeImage {
                path: folder(service),
                name: "app".to_owned(),
                new_tag: tag.to_owned(),
                ..KustomizeImage::default()
            })),
        }],
        source_commit: SHA.to_owned(),
        images: vec![Image {
            repository: format!("r.example/{service}"),
            tags: vec![tag.to_owned()],
            ..Image::default()
        }],
        correlation_id: "rel-1".to_owned(),
        ..ApplyChangeRequest::default()
    }
}

/// Asks until the service answers.
pub(crate) async fn apply(client: &mut GitOpsServiceClient<Channel>, request: &ApplyChangeRequest) -> Change {
    client
        .apply_change(request.clone())
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap()
}

/// Follows a change to its end.
pub(crate) async fn finished(client: &mut GitOpsServiceClient<Channel>, id: &str) -> Change {
    let request = WatchChangeRequest {
        id: id.to_owned(),
        etag: String::new(),
    };
    let mut watch = client.watch_change(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(next) = watch.next().await {
        last = next.unwrap().change;
    }
    last.unwrap()
}

pub(crate) async fn applied(
    client: &mut GitOpsServiceClient<Channel>,
    request: &ApplyChangeRequest,
) -> Change {
    let change = apply(client, request).await;
    finished(client, &change.id).await
}

pub(crate) async fn get(client: &mut GitOpsServiceClient<Channel>, id: &str) -> Change {
    let request = GetChangeRequest { id: id.to_owned() };
    client
        .get_change(request)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap()
}

pub(crate) fn assert_status(change: &Change, status: Status) {
    assert_eq!(change.status(), status, "{change:?}");
}

/// A change that was refused because of what rendering showed.
pub(crate) fn failed(change: &Change, words: &[&str]) {
    assert_status(change, Status::Failed);
    let reason = change.reason.as_ref().unwrap();
    assert_eq!(reason.code, "RENDER_FAILED", "{reason:?}");
    for words in words {
        assert!(reason.message.contains(words), "{words}: {reason:?}");
    }
    assert!(!reason.message.contains("/scratch"), "our own paths: {reason:?}");
}

/// A change that was pushed, and says that much of what was not rendered.
pub(crate) fn pushed(change: &Change, not_rendered: &[&str]) {
    assert_status(change, Status::Pushed);
    for words in not_rendered {
        assert!(
            change.not_rendered.contains(words),
            "{words}: {:?}",
            change.not_rendered
        );
    }
    assert_eq!(
        change.not_rendered.is_empty(),
        not_rendered.is_empty(),
        "{:?}",
        change.not_rendered
    );
}

/// Another edit of a service.
pub(crate) fn edit(service: &str, id: &str, edit: edit::Edit) -> ApplyChangeRequest {
    ApplyChangeRequest {
        request_id: id.to_owned(),
        edits: vec![Edit { edit: Some(edit) }],
        ..set_tag(service, id)
    }
}

/// Waits for a file to be there.
pub(crate) async fn appears(path: &Path) {
    eventually("the file is there", async || {
        if path.exists() { Ok(()) } else { Err(path) }
    })
    .await;
}

/// Starts a replica in this process with a configuration of its own, or says why it does not start.
pub(crate) async fn start_with(text: &str) -> Result<Running, String> {
    match InProcess::start("gitops-svc", text, gitops_svc::run).await {
        Ok(replica) => Ok(Running {
            url: replica.url(),
            replica,
        }),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a replica does not start.
pub(crate) async fn start_refused(text: &str) -> String {
    start_with(text).await.err().expect("it must not start")
}

/// Starts the program with a configuration of its own, armed to kill itself.
pub(crate) fn spawn_with(world: &World, text: &str, port: u16, fault: Option<&str>) -> Process {
    spawn_in(
        world,
        text,
        port,
        fault.map(|fault| ("SLIPWAY_FAULT_KILL_AT", fault)),
    )
}

fn spawn_in(world: &World, text: &str, port: u16, variable: Option<(&str, &str)>) -> Process {
    let file = world.path("config.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitops-svc"));
    command
        .arg("--config")
        .arg(&file)
        .envs(variable)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process {
        child: command.spawn().unwrap(),
        url: format!("http://127.0.0.1:{port}"),
    }
}
