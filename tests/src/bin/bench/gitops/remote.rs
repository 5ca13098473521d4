//! The repositories that are written to: bare ones with the overlays of 200 services, made by one `git fast-import`.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use slipway_testbed::{GitRepo, tool};

pub(crate) const SERVICES: usize = 200;

/// The size of a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) files: usize,
    pub(crate) commits: usize,
}

/// Nothing but the services: two files of a base and an overlay each.
pub(crate) const SMALL: Size = Size {
    files: 3 * SERVICES,
    commits: 1,
};
pub(crate) const LARGE: Size = Size {
    files: 10_000,
    commits: 5_000,
};

#[derive(Debug)]
pub(crate) struct Remote {
    repository: GitRepo,
    began: usize,
}

impl Remote {
    /// Creates one. With `partial` it allows objects to be omitted from a fetch, as the large hosts do.
    pub(crate) fn new(path: &Path, size: Size, partial: bool) -> Self {
        let repository = GitRepo::bare(path).unwrap();
        let mut command = git(path);
        command.args(["fast-import", "--quiet", "--date-format=now"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
        import(&mut input, size);
        drop(input);
        assert!(child.wait().unwrap().success(), "git fast-import");
        if partial {
            for key in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
                assert!(
                    git(path)
                        .args(["config", key, "true"])
                        .status()
                        .unwrap()
                        .success()
                );
            }
        }
        Self {
            repository,
            began: size.commits,
        }
    }

    /// With `file://`, so that a clone's depth is respected.
    pub(crate) fn url(&self) -> String {
        self.repository.url()
    }

    /// How often each of Slipway's changes, by id, and each other commit's subject occurs in the branch's log, beyond
    /// its initial content.
    pub(crate) fn written(&self) -> HashMap<String, usize> {
        let mut written = HashMap::new();
        let log = self.repository.log("main").unwrap();
        for commit in &log[..log.len() - self.began] {
            let name = slipway_tests::scene::trailer(commit, "Slipway-Change")
                .or_else(|| commit.message.lines().next())
                .unwrap_or_default();
            *written.entry(name.to_owned()).or_default() += 1;
        }
        written
    }

    /// The branch's commits.
    pub(crate) fn shas(&self) -> HashSet<String> {
        let log = self.repository.log("main").unwrap();
        log.into_iter().map(|commit| commit.sha).collect()
    }
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new(tool("git").unwrap());
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .arg("--git-dir")
        .arg(repository);
    command
}

/// The folder of a service's overlay.
pub(crate) fn overlay(service: usize) -> String {
    format!("apps/svc-{service:03}/overlays/prod")
}

fn import(output: &mut impl std::io::Write, size: Size) {
    let mut commit = |number: usize, files: &[(String, String)]| {
        let message = format!("commit {number}");
        let mut text = format!(
            "commit refs/heads/main\ncommitter People <people@example.com> now\ndata {}\n{message}\n",
            message.len()
        );
        for (path, content) in files {
            let _ = write!(
                text,
                "M 100644 inline {path}\ndata {}\n{content}\n",
                content.len()
            );
        }
        output.write_all(text.as_bytes()).unwrap();
    };
    let mut first = Vec::new();
    for service in 0..SERVICES {
        let base = format!("apps/svc-{service:03}/base");
        first.push((
            format!("{base}/kustomization.yaml"),
            "resources:\n  - deployment.yaml\n".to_owned(),
        ));
        first.push((format!("{base}/deployment.yaml"), deployment(service)));
        first.push((
            format!("{}/kustomization.yaml", overlay(service)),
            kustomization(service),
        ));
    }
    let others: Vec<String> = (0..size.files - first.len())
        .map(|number| {
            let (cluster, namespace) = (number % 10, number / 10 % 100);
            format!("clusters/c-{cluster}/ns-{namespace:02}/object-{number:05}.yaml")
        })
        .collect();
    for (number, path) in others.iter().enumerate() {
        first.push((path.clone(), object(number, 0)));
    }
    commit(0, &first);
    for number in 1..size.commits {
        let changed = number * 7 % others.len();
        commit(number, &[(others[changed].clone(), object(changed, number))]);
    }
}

fn kustomization(service: usize) -> String {
    format!(
        "# What runs in production.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         namespace: svc-{service:03}\nresources:\n  - ../../base\n\nimages:\n  - name: app # as in the manifests\n    \
         newName: registry.example.com/shop/svc-{service:03}\n    newTag: v0\n"
    )
}

fn deployment(service: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: svc-{service:03}\nspec:\n  replicas: 2\n  selector:\n    \
         matchLabels: {{ app: svc-{service:03} }}\n  template:\n    metadata:\n      labels: {{ app: svc-{service:03} }}\n    \
         spec:\n      containers:\n        - name: app\n          image: app\n          ports:\n            \
         - {{ name: http, containerPort: 8080 }}\n"
    )
}

fn object(number: usize, version: usize) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: object-{number:05}\ndata:\n  version: \"{version}\"\n  \
         note: |\n    {number:064x}\n    {:064x}\n",
        number * version
    )
}

/// The size of a folder's files in bytes, as they are stored.
pub(crate) fn stored(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total += metadata.blocks() * 512,
                // Gone meanwhile.
                Err(_) => {}
            }
        }
    }
    total
}
