//! The service on real git, buildah and registries, with a client.

use std::{
    fs,
    path::{Path, PathBuf},
};

use slipway_proto::build::v1::{self as proto, build::Status, build_service_client::BuildServiceClient};
use slipway_server::{Channel, ClientConfig, TokenHash};
use slipway_testbed::{GitRepo, InProcess, TestDir, eventually, static_binary};
use tonic::{Code, Request};

/// May do everything.
pub(crate) const TOKEN: &str = "builder-token";
/// May only look at the service `other`.
pub(crate) const READER: &str = "reader-token";

/// What the images run: does as its first argument says.
pub(crate) const PROGRAM: &str = r#"fn main() {
    println!("running {}", std::env::args().nth(1).unwrap_or_default());
    match std::env::args().nth(1).as_deref() {
        Some("fail") => { eprintln!("cannot go on"); std::process::exit(3) }
        Some("sleep") => loop { std::thread::sleep(std::time::Duration::from_secs(3600)) },
        _ => {}
    }
}"#;

pub(crate) const GOOD: &str = "FROM scratch\nARG VERSION\nARG VCS_REF\nLABEL version=$VERSION ref=$VCS_REF\nCOPY program /program\nENTRYPOINT [\"/program\"]\n";
pub(crate) const SLEEPS: &str = "FROM scratch\nCOPY program /program\nRUN [\"/program\", \"sleep\"]\n";
pub(crate) const FAILS: &str = "FROM scratch\nCOPY program /program\nRUN [\"/program\", \"fail\"]\n";

/// Data that outlives a service.
pub(crate) struct Bed {
    pub(crate) folder: TestDir,
    pub(crate) repo: GitRepo,
    /// More of `registries:`, and whatever else.
    pub(crate) registries: String,
    pub(crate) database: Option<String>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = TestDir::new("build").unwrap();
        let repo = GitRepo::bare(folder.path().join("git/app.git")).unwrap();
        Self {
            folder,
            repo,
            registries: String::new(),
            database: None,
        }
    }

    /// A commit with this Dockerfile and the program.
    pub(crate) fn commit(&self, dockerfile: &str) -> String {
        let program = fs::read(static_binary(PROGRAM, &[]).unwrap()).unwrap();
        self.repo
            .commit_programs("main", "a change", &[("program", &program)])
            .unwrap();
        self.repo
            .commit("main", "its image", &[("Dockerfile", dockerfile.as_bytes())])
            .unwrap()
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// The configuration as a file would hold it.
    pub(crate) fn config(&self, listen: &str) -> String {
        let root = self.folder.path().display();
        let database = self
            .database
            .clone()
            .unwrap_or_else(|| format!("sqlite://{root}/build.db"));
        let hash = |token: &str| String::from(TokenHash::of(token));
        format!(
            r#"
server:
  listen: "{listen}"
  principals:
    - {{subject: bot, token_sha256: {}, roles: [{{actions: [read, start, cancel]}}]}}
    - {{subject: reader, token_sha256: {}, roles: [{{actions: [read], services: [other]}}]}}
database: {{url: "{database}"}}
data_dir: {root}/work
logs: {{directory: {root}/logs}}
limits: {{backoff: 300ms}}
repositories: ["file://{root}/git/*"]
builders:
  default: {{kind: buildah}}
  other: {{kind: buildah, isolation: rootless}}
default_builder: default
registries:
  - {{kind: oci_layout, directory: {root}/images}}
{}
"#,
            hash(TOKEN),
            hash(READER),
            self.registries,
        )
    }

    pub(crate) async fn start(&self) -> Running {
        let config = self.config("127.0.0.1:0");
        let replica = InProcess::start("build-svc", &config, build_svc::run)
            .await
            .unwrap();
        Running {
            url: replica.url(),
            replica,
        }
    }

    pub(crate) fn request(&self, commit: &str) -> proto::StartBuildRequest {
        proto::StartBuildRequest {
            request_id: String::new(),
            service: "app".into(),
            spec: Some(proto::BuildSpec {
                repository_url: self.repo.url(),
                commit: commit.into(),
                branch: "main".into(),
                image_name: "team/app".into(),
                ..proto::BuildSpec::default()
            }),
            correlation_id: "rel-1".into(),
            labels: Default::default(),
            rebuild: false,
        }
    }

    /// What `team/app` of the folder has: tag and digest.
    pub(crate) fn tags(&self) -> Vec<(String, String)> {
        let index = fs::read(self.images().join("team/app/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        let mut tags: Vec<_> = entries
            .filter_map(|entry| {
                let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
                Some((tag.to_owned(), entry["digest"].as_str().unwrap().to_owned()))
            })
            .collect();
        tags.sort();
        tags
    }

    /// Removes an image of `team/app` from the folder, with its tags.
    pub(crate) fn remove(&self, digest: &str) {
        let path = self.images().join("team/app/index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let manifests = index["manifests"].as_array_mut().unwrap();
        manifests.retain(|entry| entry["digest"] != digest);
        fs::write(&path, index.to_string()).unwrap();
    }

    /// Processes whose root is in this folder: what Dockerfiles run.
    pub(crate) fn processes(&self) -> usize {
        let root = self.folder.path().canonicalize().unwrap();
        let inside =
            |process: &Path| fs::read_link(process.join("root")).is_ok_and(|link| link.starts_with(&root));
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter(|process| inside(&process.path()))
            .count()
    }
}

/// A service in this process.
pub(crate) struct Running {
    pub(crate) url: String,
    replica: InProcess<build_svc::Config>,
}

impl Running {
    pub(crate) fn client(&self) -> BuildServiceClient<Channel> {
        client(&self.url, TOKEN)
    }

    pub(crate) async fn stop(self) {
        self.replica.stop().await;
    }
}

pub(crate) fn client(url: &str, token: &str) -> BuildServiceClient<Channel> {
    BuildServiceClient::new(ClientConfig::new(url, token).connect("build").unwrap())
}

pub(crate) async fn start(
    client: &mut BuildServiceClient<Channel>,
    request: proto::StartBuildRequest,
) -> proto::Build {
    client
        .start_build(request)
        .await
        .unwrap()
        .into_inner()
        .build
        .unwrap()
}

/// Follows a build until `wanted` holds; panics when it ends otherwise.
pub(crate) async fn until(
    client: &mut BuildServiceClient<Channel>,
    id: &str,
    wanted: impl Fn(&proto::Build) -> bool,
) -> proto::Build {
    let request = proto::WatchBuildRequest {
        id: id.into(),
        etag: String::new(),
    };
    let mut states = client.watch_build(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        let build = state.build.unwrap();
        if wanted(&build) {
            return build;
        }
        last = Some(build);
    }
    panic!("the build ended as {last:#?}");
}

pub(crate) async fn ended(client: &mut BuildServiceClient<Channel>, id: &str) -> proto::Build {
    until(client, id, |build| build.end_time.is_some()).await
}

/// The whole log, followed to its end.
pub(crate) async fn log(client: &mut BuildServiceClient<Channel>, id: &str) -> String {
    let request = proto::TailLogRequest {
        id: id.into(),
        offset: 0,
        follow: true,
    };
    let mut parts = client.tail_log(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.chunk);
    }
    String::from_utf8(bytes).unwrap()
}

/// Waits until the log holds a line.
pub(crate) async fn log_has(client: &mut BuildServiceClient<Channel>, id: &str, words: &str) {
    let request = proto::TailLogRequest {
        id: id.into(),
        offset: 0,
        follow: true,
    };
    let mut parts = client.tail_log(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.chunk);
        if String::from_utf8_lossy(&bytes).contains(words) {
            return;
        }
    }
    panic!(
        "the log ended without {words:?}: {}",
        String::from_utf8_lossy(&bytes)
    );
}

pub(crate) fn outcome(build: &proto::Build) -> (Status, String) {
    (build.status(), build.reason.clone().unwrap_or_default().code)
}

/// Waits for a service in another process.
pub(crate) async fn ready(url: &str) -> BuildServiceClient<Channel> {
    let client = client(url, TOKEN);
    eventually("the service answers", async || {
        let request = Request::new(proto::ListBuildsRequest::default());
        match client.clone().list_builds(request).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => Err(status),
            Err(status) => panic!("{status}"),
        }
    })
    .await;
    client
}
