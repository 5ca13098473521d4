//! `slipway demo`: the whole path once, as a newcomer would walk it; every claim is checked.

mod scene;
mod shell;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scene::{SERVICE, Scene, Way};
use serde_json::Value;
use shell::{Shell, say};

use super::dev::{Home, Options, READY, Repository};
use crate::{Outcome, args::DemoArgs, failure::Failure};

/// If it takes longer, something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(args: DemoArgs) -> Result<Outcome, Failure> {
    let folder = match args.data {
        Some(folder) => folder,
        None => std::env::temp_dir().join(format!("slipway-demo-{}", std::process::id())),
    };
    // All of it is blocking work: it waits for programs.
    let way = if args.argo_cd { Way::ArgoCd } else { Way::Apply };
    let done = tokio::task::spawn_blocking(move || play(&folder, way))
        .await
        .map_err(Failure::new)?;
    done.map(|()| Outcome::Happened)
}

fn play(folder: &Path, way: Way) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let data = folder.join("slipway");
    let slipway = std::env::current_exe()?;
    let shell = Shell {
        slipway,
        context: data.join("context.yaml"),
    };

    title("An application with two commits: A works, B fails its health check");
    scene::compile(&shell, &folder.join("binaries"))?;
    let began = Instant::now();
    let scene = scene::make(&shell, &folder, &folder.join("binaries"))?;
    say(&format!("application  {}", scene.app.display()));
    say(&format!(
        "gitops       {}  overlays dev, staging, prod",
        scene.gitops.display()
    ));

    title("All four services, a Kubernetes cluster and an image store in one process");
    let options = Options {
        port: 0,
        catalog: Some(scene::catalog(&scene.app, way)),
        repositories: vec![Repository {
            name: "platform".to_owned(),
            url: format!("file://{}", scene.gitops.display()),
        }],
    };
    Home::open(&data, &options)?;
    let dev = Dev::start(&shell, &data, &folder.join("dev.log"), way)?;

    let outcome = applications(&scene, &data, &folder, way).and_then(|()| tell(&shell, &scene, &data));
    let left = dev.stop(&folder);
    outcome?;
    left?;

    title("Done");
    say(&format!(
        "took {:.1} s after compilation; all files are in {}",
        began.elapsed().as_secs_f64(),
        folder.display()
    ));
    say(&format!(
        "start it again with: slipway dev{} --data {}",
        way.flag().map(|flag| format!(" {flag}")).unwrap_or_default(),
        data.display()
    ));
    Ok(())
}

/// Tells Argo CD where the environments are, as a platform operator would.
fn applications(scene: &Scene, data: &Path, folder: &Path, way: Way) -> Result<(), Failure> {
    if way == Way::Apply {
        return Ok(());
    }
    title("An Application for each environment: dev syncs automatically, the others on request");
    let file = folder.join("applications.yaml");
    fs::write(&file, scene::applications(&scene.gitops))?;
    let applied = kubectl(data, &["apply", "--filename", &file.display().to_string()])?;
    applied.lines().for_each(|line| say(&format!("  {line}")));
    Ok(())
}

fn tell(shell: &Shell, scene: &Scene, data: &Path) -> Result<(), Failure> {
    title("Release A: built once, deployed to dev at once, to staging after one approval, to prod after two");
    let release = Releasing::start(shell, &scene.good)?;
    // alice requested the release, so she must not approve it.
    let staging = wait_for_approval(shell, "staging")?;
    let refused = shell.show("alice", &["approval", "approve", &staging])?;
    ensure(!refused.status.success(), "alice may not approve her own release")?;
    approve(shell, "bob", &staging)?;
    let prod = wait_for_approval(shell, "prod")?;
    approve(shell, "bob", &prod)?;
    approve(shell, "carol", &prod)?;
    let (succeeded, good) = release.wait()?;
    ensure(
        succeeded && text(&good, "status") == "STATUS_SUCCEEDED",
        &format!("release A succeeds: {good}"),
    )?;
    for (environment, _) in scene::ENVIRONMENTS {
        ensure(
            curl(data, environment, "version")? == "A",
            &format!("{environment} serves A"),
        )?;
    }
    let digests = one_digest(&scene.gitops, shell)?;
    ensure(digests == 1, "the same digest runs everywhere: it was built once")?;

    title("Release B: its health check fails, so dev is rolled back to A");
    let (succeeded, bad) = Releasing::start(shell, &scene.bad)?.wait()?;
    ensure(!succeeded, "the exit code is not 0")?;
    ensure(
        text(&bad, "status") == "STATUS_ROLLED_BACK",
        &format!("release B is rolled back: {bad}"),
    )?;
    let said = bad["evidence"].to_string();
    ensure(
        said.contains("cannot reach the database"),
        "the pod's last log lines are in the release",
    )?;
    ensure(curl(data, "dev", "version")? == "A", "dev serves A again")?;
    shell.show("alice", &["release", "get", &text(&bad, "id")])?;

    title("The history of the GitOps repository");
    let log = shell.git(&scene.gitops, &["log", "--format=%h %an  %s", "main"])?;
    log.lines().for_each(|line| say(&format!("  {line}")));
    ensure(
        log.lines().count() == 6,
        "one commit for each environment, one revert, and the first",
    )?;

    title("Where the time of release A went");
    shell.show("alice", &["release", "get", &text(&good, "id")])?;
    say(&format!("trace {}", text(&good, "traceId")));
    Ok(())
}

/// A release that is followed by a separate process.
struct Releasing {
    child: Child,
}

impl Releasing {
    fn start(shell: &Shell, commit: &str) -> Result<Self, Failure> {
        let arguments = [
            "release", "start", SERVICE, "--commit", commit, "--branch", "main", "--wait",
        ];
        say(&format!("$ slipway --as alice {} -o json", arguments.join(" ")));
        let mut command = shell.slipway("alice", &arguments);
        command.args(["-o", "json"]).stdout(Stdio::piped());
        Ok(Self {
            child: command.spawn()?,
        })
    }

    fn wait(self) -> Result<(bool, Value), Failure> {
        let output = self.child.wait_with_output()?;
        let value = serde_json::from_slice(&output.stdout).map_err(Failure::new)?;
        Ok((output.status.success(), value))
    }
}

/// `slipway dev` as a child; killed if the demo fails half-way.
struct Dev {
    child: Option<Child>,
}

impl Dev {
    fn start(shell: &Shell, data: &Path, log: &Path, way: Way) -> Result<Self, Failure> {
        let mut command = shell.command(&shell.slipway, &["dev"]);
        command.args(way.flag()).arg("--data").arg(data);
        let shown: Vec<_> = command.get_args().map(|text| text.to_string_lossy()).collect();
        say(&format!("$ slipway {}", shown.join(" ")));
        command.stdout(Stdio::piped()).stderr(fs::File::create(log)?);
        let mut child = command.spawn()?;
        let out = child.stdout.take();
        let dev = Self { child: Some(child) };
        for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let line = line?;
            if line == READY {
                return Ok(dev);
            }
            say(&format!("  {line}"));
        }
        Err(Failure::new("slipway dev stopped before it was ready").next(format!("see {}", log.display())))
    }

    /// Stops it and checks for anything that it left running.
    fn stop(mut self, folder: &Path) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGTERM).map_err(Failure::new)?;
        let status = child.wait()?;
        ensure(status.success(), "slipway dev stops cleanly")?;
        let left = processes_of(folder)?;
        ensure(left.is_empty(), &format!("nothing is left running: {left:?}"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Nothing to signal if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for_approval(shell: &Shell, environment: &str) -> Result<String, Failure> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let (_, listed) = shell.json("bob", &["approval", "list"])?;
        let approvals = listed["approvals"].as_array().cloned().unwrap_or_default();
        let wanted = approvals
            .iter()
            .find(|approval| approval["subject"]["scope"]["environment"] == environment);
        if let Some(approval) = wanted {
            return Ok(text(approval, "id"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::new(format!(
        "no approval for {environment} was requested within {} s",
        PATIENCE.as_secs()
    )))
}

fn approve(shell: &Shell, person: &str, approval: &str) -> Result<(), Failure> {
    let output = shell.show(
        person,
        &["approval", "approve", approval, "--comment", "looks good"],
    )?;
    ensure(output.status.success(), &format!("{person} approves"))
}

/// Calls an environment through the cluster's service proxy, as one would with curl.
fn curl(data: &Path, environment: &str, path: &str) -> Result<String, Failure> {
    let proxy = format!("/api/v1/namespaces/{environment}/services/{SERVICE}:http/proxy/{path}");
    let body = kubectl(data, &["get", "--raw", &proxy])?;
    say(&format!("  {body}"));
    Ok(body)
}

/// Prints and runs kubectl on the demo's cluster.
fn kubectl(data: &Path, arguments: &[&str]) -> Result<String, Failure> {
    say(&format!("$ kubectl {}", arguments.join(" ")));
    let mut command = std::process::Command::new("kubectl");
    command
        .arg("--kubeconfig")
        .arg(data.join("kubeconfig"))
        .args(arguments);
    let output = command.output().map_err(|error| {
        Failure::new(format!("cannot run kubectl: {error}"))
            .next("install it with: scripts/install-prerequisites demo")
    })?;
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.lines().for_each(|line| say(&format!("  {line}")));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How many different digests the environments ask for.
fn one_digest(gitops: &Path, shell: &Shell) -> Result<usize, Failure> {
    let mut digests = std::collections::BTreeSet::new();
    for (environment, _) in scene::ENVIRONMENTS {
        let file = format!("main:apps/shop/overlays/{environment}/kustomization.yaml");
        let text = shell.git(gitops, &["show", &file])?;
        ensure(
            text.contains("# written by Slipway; comments stay"),
            "comments stay where they are",
        )?;
        let digest = text
            .lines()
            .find(|line| line.contains("digest:"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        digests.insert(digest);
    }
    Ok(digests.len())
}

/// Processes, other than this one, that run from or name the demo's folder.
fn processes_of(folder: &Path) -> Result<Vec<String>, Failure> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        // Shells that run the demo also name the folder; what the demo started is inside it.
        if program.starts_with(&folder) || (command.contains(&folder) && command.contains("slipway dev")) {
            found.push(command);
        }
    }
    Ok(found)
}

fn ensure(holds: bool, claim: &str) -> Result<(), Failure> {
    if holds {
        say(&format!(
            "✓ {}",
            claim
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(120)
                .collect::<String>()
        ));
        Ok(())
    } else {
        Err(Failure::new(format!("check failed: {claim}")))
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn title(line: &str) {
    println!("\n== {line}");
}
