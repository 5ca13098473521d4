//! gitops-svc alone, as its README sets it up: exactly the commands from there, run in an empty folder, with a
//! third-party tool that knows the API only by reflection.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use slipway_testbed::{TestDir, free_port, tool};
use slipway_tests::{eventually, process::Process, programs};

/// The port that the README uses; the test uses a free one.
const PORT: &str = "7402";
/// A shell that hangs is killed after this many seconds, with everything that it started.
const LIMIT: &str = "100";

/// The commands of the README's section, block by block.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/gitops-svc/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (_, section) = readme.split_once("\n## Alone, in five minutes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut blocks = Vec::new();
    for (at, part) in section.split("```").enumerate() {
        if at % 2 == 1 {
            let (language, commands) = part.split_once('\n').unwrap();
            assert_eq!(language, "sh", "{commands}");
            blocks.push(commands.to_owned());
        }
    }
    blocks
}

/// An empty folder, and a shell that finds the programs.
struct Desk {
    dir: TestDir,
    path: String,
}

impl Desk {
    fn new() -> Self {
        let names = ["gitops-svc", programs::SLIPWAY];
        programs::ensure(&names);
        let mut folders: Vec<PathBuf> = names
            .map(|name| programs::program(name).parent().unwrap().to_owned())
            .into();
        folders.push(tool("buf").unwrap().parent().unwrap().to_owned());
        folders.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let path = std::env::join_paths(folders).unwrap().into_string().unwrap();
        Self {
            dir: TestDir::new("reflection").unwrap(),
            path,
        }
    }

    /// Runs commands as typed, and returns what they print.
    fn run(&self, commands: &str) -> String {
        let output = Command::new("timeout")
            .args([LIMIT, "bash", "-euo", "pipefail", "-c", commands])
            .current_dir(self.dir.path())
            .env("PATH", &self.path)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_PAGER", "cat")
            .env_remove("SLIPWAY_USER")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{commands}\n{printed}\n{said}");
        printed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_five_minutes_of_the_readme() {
    let port = free_port().unwrap().to_string();
    let blocks: Vec<String> = blocks()
        .iter()
        .map(|commands| commands.replace(PORT, &port))
        .collect();
    let [setup, serve, call, shorter] = blocks.as_slice() else {
        panic!("{} blocks of commands", blocks.len());
    };
    let desk = Desk::new();
    let folder = desk.dir.path();
    desk.run(setup);

    let arguments: Vec<&str> = serve.split_whitespace().collect();
    assert_eq!(arguments, ["gitops-svc", "--config", "gitops.yaml"]);
    let config = folder.join("gitops.yaml");
    let _service = Process::start(
        "gitops-svc",
        &programs::program("gitops-svc"),
        &folder.join("log"),
        &["--config".as_ref(), config.as_os_str()],
        &[],
    );
    eventually("gitops-svc listens", async || {
        TcpStream::connect(format!("127.0.0.1:{port}"))
    })
    .await;

    let printed = desk.run(call);
    assert!(printed.contains("\"status\": \"STATUS_PUSHED\""), "{printed}");
    assert!(printed.contains("\"tag\": \"1.1\""), "{printed}");
    assert!(
        printed.contains("chore(shop): deploy 1a2b3c4 to dev"),
        "{printed}"
    );
    assert!(
        printed.contains("-  newTag: \"1.0\"\n+  newTag: \"1.1\"\n"),
        "{printed}"
    );

    let printed = desk.run(shorter);
    for part in ["shop → dev  PUSHED", "≠", "shop → production  PUSHED", "a commit"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let remote = folder.join("deploy.git");
    let show = |environment: &str| {
        let path = format!("main:apps/shop/overlays/{environment}/kustomization.yaml");
        let output = Command::new(tool("git").unwrap())
            .arg("--git-dir")
            .arg(&remote)
            .args(["show", &path])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let wanted = |tag: &str| {
        format!(
            "# Comments stay, and so does all the rest.\nimages:\n- name: shop\n  newName: registry.example/shop   # our own\n  newTag: \"{tag}\"\n"
        )
    };
    assert_eq!(show("dev"), wanted("1.2"));
    assert_eq!(show("production"), wanted("1.0"), "put back");
}

/// What the README's commands leave out: the list of calls, errors that name the field, and who learns nothing.
#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_every_call() {
    let blocks = blocks();
    let port = free_port().unwrap().to_string();
    let desk = Desk::new();
    desk.run(&blocks[0].replace(PORT, &port));
    let config = desk.dir.path().join("gitops.yaml");
    let _service = Process::start(
        "gitops-svc",
        &programs::program("gitops-svc"),
        &desk.dir.path().join("log"),
        &["--config".as_ref(), config.as_os_str()],
        &[],
    );
    eventually("gitops-svc listens", async || {
        TcpStream::connect(format!("127.0.0.1:{port}"))
    })
    .await;
    let curl = "buf curl --protocol grpc --http2-prior-knowledge --reflect-header '*'";
    let url = format!("http://127.0.0.1:{port}");
    let listed = desk.run(&format!(
        "{curl} -H \"Authorization: Bearer $(cat token)\" --list-methods {url}"
    ));
    for call in [
        "ApplyChange",
        "Promote",
        "RevertChange",
        "CancelChange",
        "GetChange",
        "ListChanges",
        "WatchChange",
        "GetDesiredState",
        "DiffEnvironments",
        "RenderManifests",
        "StreamEvents",
    ] {
        assert!(
            listed.contains(&format!("slipway.gitops.v1.GitOpsService/{call}")),
            "{call}: {listed}"
        );
    }
    let name = "slipway.gitops.v1.GitOpsService/ApplyChange";
    let refused = desk.run(&format!(
        "! {curl} -H \"Authorization: Bearer $(cat token)\" -d '{{\"request_id\": \"x\", \"repository\": \"nowhere\"}}' {url}/{name} 2>&1"
    ));
    assert!(
        refused.contains("invalid_argument") && refused.contains("repository"),
        "{refused}"
    );
    // A caller without a token learns nothing.
    let stranger = desk.run(&format!(
        "! {curl} -H 'Authorization: Bearer nobody' --list-methods {url} 2>&1"
    ));
    assert!(!stranger.contains("ApplyChange"), "{stranger}");
    let remote = desk.dir.path().join("deploy.git");
    let commits = Command::new(tool("git").unwrap())
        .arg("--git-dir")
        .arg(remote)
        .args(["rev-list", "--count", "main"])
        .output()
        .unwrap();
    assert_eq!(commits.stdout, b"1\n", "nothing was written");
}
