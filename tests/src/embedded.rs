//! `slipway dev` in its own folder, which a test may kill and start again.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use slipway_testbed::{TestDir, eventually, free_port};

use crate::{
    Application, Clients, GitOps,
    clients::Addresses,
    cluster::Cluster,
    process::Process,
    programs,
    scene::{self, Service},
};

/// The order of services in addresses, as in [`Addresses`].
const SERVICES: [&str; 4] = ["build", "gitops", "approval", "deploy"];

/// A prepared folder: an application, a GitOps repository, and the data of a `slipway dev` that has not done anything
/// yet.
#[derive(Debug)]
pub struct Template {
    folder: TestDir,
    pub service: Service,
}

impl Template {
    /// Prepares a folder for one service. `commits` creates the application's versions.
    pub async fn new(service: Service, commits: impl FnOnce(&Application)) -> Self {
        let folder = TestDir::new("template").unwrap();
        let root = folder.path();
        commits(&Application::new(&root.join("app.git")));
        GitOps::new(&root.join("platform.git"), std::slice::from_ref(&service));
        // The first start creates certificates, tokens and configuration, and last of all the context file.
        let data = root.join("slipway");
        let mut first = start(&data, &root.join("first.log"), None).await;
        eventually("slipway dev has started once", async || {
            fs::metadata(data.join("context.yaml"))
        })
        .await;
        first.kill();
        // Anything else that it may have begun: nothing has happened yet.
        for entry in fs::read_dir(&data).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(".db")
                || ["cluster", "images", "git", "builds", "logs", "lock"].contains(&name.as_str())
            {
                let path = entry.path();
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        let application = format!("file://{}", root.join("app.git").display());
        let catalog = scene::catalog(
            std::slice::from_ref(&service),
            |_| application.clone(),
            |service| service.name.to_owned(),
        );
        fs::write(data.join("catalog.yaml"), catalog).unwrap();
        let platform = format!(
            "  platform: {{ url: \"file://{}\" }}",
            root.join("platform.git").display()
        );
        set(&data.join("config/gitops.yaml"), "repositories", &platform);
        set(
            &data.join("config/approval.yaml"),
            "people",
            &format!("  {}: token/author", scene::AUTHOR),
        );
        Self { folder, service }
    }

    /// A copy with its own ports.
    pub fn copy(&self) -> Embedded {
        let folder = TestDir::new("dev").unwrap();
        copy(self.folder.path(), folder.path());
        let (from, to) = (
            self.folder.path().display().to_string(),
            folder.path().display().to_string(),
        );
        let data = folder.path().join("slipway");
        let context = fs::read_to_string(data.join("context.yaml")).unwrap();
        let mut moves = vec![(from, to)];
        let mut urls = Vec::new();
        for service in SERVICES {
            let old = context
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{service}: ")))
                .unwrap();
            let old = old.trim().trim_matches(['"', '\'']);
            let port = old.rsplit_once(':').unwrap().1;
            let new = free_port().unwrap();
            moves.push((format!("127.0.0.1:{port}"), format!("127.0.0.1:{new}")));
            urls.push(format!("https://127.0.0.1:{new}"));
        }
        let files = SERVICES.iter().map(|service| format!("config/{service}.yaml"));
        for file in files.chain(["context.yaml".to_owned(), "catalog.yaml".to_owned()]) {
            let path = data.join(file);
            let mut text = fs::read_to_string(&path).unwrap();
            for (from, to) in &moves {
                text = text.replace(from, to);
            }
            fs::write(path, text).unwrap();
        }
        let addresses = Addresses {
            urls: urls.try_into().unwrap(),
            ca_file: Some(data.join("ca.pem")),
        };
        let gitops = GitOps {
            repository: open(&folder.path().join("platform.git")),
        };
        Embedded {
            process: None,
            addresses,
            gitops,
            service: self.service.clone(),
            folder,
        }
    }
}

/// One `slipway dev` and its data.
#[derive(Debug)]
pub struct Embedded {
    process: Option<Process>,
    addresses: Addresses,
    pub gitops: GitOps,
    pub service: Service,
    folder: TestDir,
}

impl Embedded {
    /// Starts it, with or without an armed fault (see `slipway_faults`). Does not wait until it serves.
    pub async fn start(&mut self, fault: Option<(&str, String)>) {
        let process = start(&self.data(), &self.folder.path().join("dev.log"), fault).await;
        self.process = Some(process);
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// A person's clients; they work whenever it is running.
    pub fn client(&self, person: &str) -> Clients {
        let token = fs::read_to_string(self.data().join("tokens").join(person)).unwrap();
        Clients::new(&self.addresses, Some(token.trim()))
    }

    /// The cluster inside.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            kubeconfig: self.data().join("kubeconfig"),
        }
    }

    /// The tags of the service's images and the images that they point to.
    pub fn tags(&self) -> Vec<(String, String)> {
        let index = self
            .data()
            .join("images")
            .join(self.service.name)
            .join("index.json");
        let index: serde_json::Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
        let mut tags: Vec<(String, String)> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| {
                let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
                Some((tag.to_owned(), entry["digest"].as_str().unwrap().to_owned()))
            })
            .collect();
        tags.sort();
        tags
    }

    /// The head of the application's repository.
    pub fn head(&self, revision: &str) -> String {
        open(&self.folder.path().join("app.git")).head(revision).unwrap()
    }

    /// Everything of it is in here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("slipway")
    }
}

async fn start(data: &Path, log: &Path, fault: Option<(&str, String)>) -> Process {
    let program = tokio::task::spawn_blocking(|| programs::program(programs::SLIPWAY))
        .await
        .unwrap();
    let arguments = [
        OsStr::new("dev"),
        OsStr::new("--port"),
        OsStr::new("0"),
        OsStr::new("--data"),
        data.as_os_str(),
    ];
    let environment: Vec<(&str, String)> = fault.into_iter().collect();
    Process::start("slipway dev", &program, log, &arguments, &environment)
}

fn open(path: &Path) -> slipway_testbed::GitRepo {
    // Creating a repository that exists already changes nothing in it.
    slipway_testbed::GitRepo::bare(path).unwrap()
}

/// Gives a top-level key of a YAML file another block as its value.
fn set(path: &Path, key: &str, block: &str) {
    let text = fs::read_to_string(path).unwrap();
    let mut kept = String::new();
    let mut within = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#']) {
            within = line.starts_with(&format!("{key}:"));
        }
        if !within {
            kept += &format!("{line}\n");
        }
    }
    fs::write(path, format!("{kept}{key}:\n{block}\n")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
