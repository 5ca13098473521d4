//! The commands of `slipway gitops` that ask the service, against one that runs with a real remote.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
};

use gitops_svc::Config;
use slipway_server::TokenHash;
use slipway_testbed::{GitRepo, InProcess, TestDir};

const SHA: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

/// A service, its remote, and the command line.
struct World {
    dir: TestDir,
    remote: GitRepo,
    service: InProcess<Config>,
}

fn kustomization(tag: &str) -> String {
    format!("images:\n- name: app\n  newName: r.example/web # ours\n  newTag: '{tag}'\n")
}

impl World {
    async fn start(name: &str) -> Self {
        let dir = TestDir::new(name).unwrap();
        let remote = GitRepo::bare(dir.path().join("remote.git")).unwrap();
        remote
            .commit(
                "main",
                "begin",
                &[
                    ("apps/web/dev/kustomization.yaml", kustomization("1.0").as_bytes()),
                    (
                        "apps/web/prod/kustomization.yaml",
                        kustomization("0.9").as_bytes(),
                    ),
                    ("values.yaml", b"image: {repository: r.example/web, tag: '1.0'}\n"),
                ],
            )
            .unwrap();
        let path = dir.path().display();
        let yaml = format!(
            "server:\n  principals:\n  - {{subject: alice, token_sha256: {}, roles: [{{actions: [read, start, cancel, rollback]}}]}}\n\
             database: {{url: 'sqlite://{path}/ledger.db'}}\ndata_dir: {path}/data\n\
             repositories:\n  shop:\n    url: {path}/remote.git\n    environments:\n\
             \x20     dev: {{kustomization: 'apps/{{service}}/dev'}}\n\
             \x20     prod: {{kustomization: 'apps/{{service}}/prod'}}\n",
            String::from(TokenHash::of("alice-token")),
        );
        let service = InProcess::start("gitops-svc", &yaml, gitops_svc::run)
            .await
            .unwrap();
        let url = service.url();
        // Only the one service that is there.
        fs::write(dir.path().join("token"), "alice-token").unwrap();
        fs::write(
            dir.path().join("context.yaml"),
            format!("gitops: {url}\nuser: alice\ntoken_files: {{alice: token}}\n"),
        )
        .unwrap();
        Self { dir, remote, service }
    }

    async fn slipway(&self, arguments: &[&str]) -> Output {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_slipway"))
            .arg("--context")
            .arg(self.dir.path().join("context.yaml"))
            .arg("gitops")
            .args(arguments)
            .env_remove("SLIPWAY_USER")
            .env("SLIPWAY_GITOPS_REPOSITORY", "shop")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// Runs a command that does what it is asked, and gives what it prints.
    async fn done(&self, arguments: &[&str]) -> String {
        let output = self.slipway(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {said}{}",
            text(&output)
        );
        text(&output)
    }

    /// The same for programs.
    async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap()
    }

    fn file(&self, path: &str) -> String {
        String::from_utf8(self.remote.read("main", path).unwrap()).unwrap()
    }

    async fn stop(self) {
        self.service.stop().await;
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_applied_seen_and_put_back() {
    let world = World::start("cli-apply").await;
    let dev = "apps/web/dev/kustomization.yaml";

    // By the configuration's place, and by a path.
    let service = ["--service", "web", "--environment", "dev"];
    let told = world
        .done(
            &[
                &["apply"][..],
                &service,
                &["--image", "r.example/web:1.1", "--commit", SHA],
            ]
            .concat(),
        )
        .await;
    assert!(told.contains("web → dev  PUSHED"), "{told}");
    assert_eq!(world.file(dev), kustomization("1.1"));
    let change = world
        .json(&[&["apply"][..], &service, &["--image", "app:1.2", "apps/web/dev"]].concat())
        .await;
    assert_eq!(change["status"], "STATUS_PUSHED");
    assert_eq!(world.file(dev), kustomization("1.2"));
    let id = change["id"].as_str().unwrap();

    // Nothing to do is what was asked for, too.
    let again = world
        .json(&[&["apply"][..], &service, &["--image", "app:1.2", "apps/web/dev"]].concat())
        .await;
    assert_eq!(again["noOp"], true);

    let listed = world
        .done(&["list", "--service", "web", "--status", "pushed"])
        .await;
    assert!(listed.contains(id) && listed.contains("token/alice"), "{listed}");
    let shown = world.done(&["get", id]).await;
    assert!(
        shown.contains("apps/web/dev app: :1.2 (was r.example/web:1.1)"),
        "{shown}"
    );
    assert!(world.done(&["watch", id]).await.contains("PUSHED"));

    world.done(&["revert", id, "--reason", "too slow"]).await;
    assert_eq!(world.file(dev), kustomization("1.1"));
    let head = &world.remote.log("main").unwrap()[0];
    assert!(head.message.contains("too slow"), "{}", head.message);

    // Values say it by a path, and take the whole reference.
    world
        .done(
            &[
                &["apply"][..],
                &service,
                &["--helm", "image", "--image", "r.example/web:2.0", "values.yaml"],
            ]
            .concat(),
        )
        .await;
    assert_eq!(
        world.file("values.yaml"),
        "image: {repository: r.example/web, tag: '2.0'}\n"
    );
    let commits = world.remote.log("main").unwrap().len();
    world
        .done(&[&["apply"][..], &service, &["--marker"]].concat())
        .await;
    assert_eq!(world.remote.log("main").unwrap().len(), commits + 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_happen_ends_with_1() {
    let world = World::start("cli-refused").await;
    let service = ["apply", "--service", "web", "--environment", "dev"];
    let output = world
        .slipway(&[&service[..], &["--image", "nobody:1", "apps/web/dev"]].concat())
        .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("[IMAGE_NOT_FOUND]"), "{}", text(&output));

    for (arguments, words) in [
        (&["--image", "app:1", "values.yaml"][..], "--helm PATH"),
        (&["--image", "app=x:1"], "reference alone"),
        (
            &["--helm", "image", "--image", "x=y:1", "values.yaml"],
            "reference alone",
        ),
    ] {
        let output = world.slipway(&[&service[..], arguments].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let output = world
        .slipway(&["get", "chg-01a1fd8b-c140-7054-b544-393b294891b1"])
        .await;
    assert_eq!(output.status.code(), Some(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waits_is_cancelled() {
    let world = World::start("cli-cancel").await;
    let hook = world.remote.path().join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let gate = world.dir.path().join("gate");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\necho x >> '{0}.came'\nuntil [ -e '{0}' ]; do sleep 0.05; done\n",
            gate.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let service = ["apply", "--service", "web", "--environment", "dev", "--no-wait"];
    let first = world
        .done(&[&service[..], &["--image", "app:1.3", "apps/web/dev"]].concat())
        .await;
    // The second one waits for the push of the first, which is under way.
    let came = gate.with_extension("came");
    while !came.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let second = world
        .done(&[&service[..], &["--image", "app:1.4", "apps/web/dev"]].concat())
        .await;
    let pending = world.json(&["list", "--status", "pending"]).await;
    assert_eq!(pending["changes"].as_array().unwrap().len(), 2);
    let arguments = ["cancel", second.trim(), "--reason", "not yet"];
    let cancel = world.slipway(&arguments);
    let open = async {
        // The cancellation is recorded before the push may go on, so that it is known who is faster.
        while !world
            .done(&["get", second.trim()])
            .await
            .contains("to be cancelled")
        {}
        fs::write(&gate, "").unwrap();
    };
    let (output, ()) = tokio::join!(cancel, open);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("CANCELLED"), "{}", text(&output));
    assert!(world.done(&["watch", first.trim()]).await.contains("PUSHED"));
    assert_eq!(
        world.file("apps/web/dev/kustomization.yaml"),
        kustomization("1.3")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_compared_and_promoted() {
    let world = World::start("cli-environments").await;
    let text = world.done(&["diff"]).await;
    assert!(text.contains("DEV") && text.contains("PROD"), "{text}");
    assert!(
        text.contains('≠') && text.contains("1.0") && text.contains("0.9"),
        "{text}"
    );

    let told = world.done(&["promote", "web", "dev", "prod"]).await;
    assert!(told.contains("web → prod  PUSHED"), "{told}");
    assert_eq!(
        world.file("apps/web/prod/kustomization.yaml"),
        kustomization("1.0")
    );

    let same = world
        .done(&["diff", "--only-different", "--environments", "dev,prod"])
        .await;
    assert!(same.starts_with("no difference at "), "{same}");
    let value = world.json(&["diff", "--service", "web"]).await;
    assert_eq!(value["differences"][0]["same"], true);

    // A commit of somebody else, known by the files that it changed.
    let foreign = world
        .remote
        .commit(
            "main",
            "by hand",
            &[("apps/web/dev/kustomization.yaml", kustomization("3.0").as_bytes())],
        )
        .unwrap();
    let history = world.done(&["list", "--history", "--environment", "dev"]).await;
    assert!(
        history.contains(&foreign[..7]) && history.contains("a commit"),
        "{history}"
    );
    world.stop().await;
}
