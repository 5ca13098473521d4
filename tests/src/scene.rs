//! What is released: application repositories with real commits, and a GitOps repository with kustomize overlays.

use std::{fmt::Write, fs, path::Path};

use serde_json::{Value, json};
use slipway_testbed::{Commit, GitRepo, static_binary};

/// The address of the commits' author (see `slipway_testbed::GitRepo`).
pub const AUTHOR: &str = "author@example.com";
/// The application's source; a static program.
const PROGRAM: &str = include_str!("app.rs");

/// What a commit of an application contains.
#[derive(Debug, Clone, Copy)]
pub enum Version<'a> {
    /// Answers `/version` with this text, and is healthy.
    Good(&'a str),
    /// Like `Good`, but `/health` fails and the log says why.
    Sick(&'a str),
    /// A custom Dockerfile; the program is next to it as `server`.
    Dockerfile(&'a str),
}

/// A source repository.
#[derive(Debug, Clone)]
pub struct Application {
    pub repository: GitRepo,
}

impl Application {
    /// A bare repository that contains the application's program.
    pub fn new(path: &Path) -> Self {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let repository = GitRepo::bare(path).unwrap();
        let program = fs::read(static_binary(PROGRAM, &[]).unwrap()).unwrap();
        repository
            .commit_programs("main", "feat: the program", &[("server", &program)])
            .unwrap();
        Self { repository }
    }

    /// Commits a version, and returns the commit's SHA.
    pub fn commit(&self, version: Version<'_>) -> String {
        let image = |name: &str, more: &str| {
            format!(
                "# One static program and nothing else.\nFROM scratch\nCOPY server /server\nENV VERSION={name}\n{more}ENTRYPOINT [\"/server\"]\n"
            )
        };
        let (message, text) = match version {
            Version::Good(name) => (format!("feat: version {name}"), image(name, "")),
            Version::Sick(name) => (
                format!("feat: version {name}, which wants a database"),
                image(name, "ENV SICK=1\n"),
            ),
            Version::Dockerfile(text) => ("feat: another Dockerfile".to_owned(), text.to_owned()),
        };
        self.repository
            .commit("main", &message, &[("Dockerfile", text.as_bytes())])
            .unwrap()
    }
}

/// One service of the catalog.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: &'static str,
    /// Environments in the order of promotion, each with the name of its policy.
    pub environments: &'static [(&'static str, &'static str)],
    /// The image's name in the manifests, according to the catalog.
    pub manifest_image: &'static str,
    /// The prefix of the image's name if it is not in the suite's own registry.
    pub image_prefix: Option<String>,
    /// Pods of each environment.
    pub replicas: u32,
    /// Applications of Argo CD apply its changes; otherwise deploy-svc does.
    pub argo_cd: bool,
    /// Ends the names of its namespaces, in a cluster that others use too.
    pub scope: String,
}

impl Service {
    /// One pod in each of these environments.
    pub fn new(name: &'static str, environments: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name,
            environments,
            manifest_image: "app",
            image_prefix: None,
            replicas: 1,
            argo_cd: false,
            scope: String::new(),
        }
    }

    /// Where an environment is deployed, in the catalog's notation.
    fn target(&self, environment: &str) -> String {
        let name = self.name;
        if self.argo_cd {
            format!("namespace: argocd, kind: Application, name: {name}-{environment}")
        } else {
            format!(
                "namespace: {}, kind: Deployment, name: {name}",
                self.namespace(environment)
            )
        }
    }

    /// The Applications of a service whose source is at `repository`, as JSON: environments without approvals sync by
    /// themselves, the others on request.
    pub fn applications(&self, repository: &str) -> Vec<Value> {
        let one = |(environment, policy): &(&str, &str)| {
            let automated = (*policy == "none").then(|| json!({"prune": true, "selfHeal": true}));
            json!({
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Application",
                "metadata": {"name": format!("{}-{environment}", self.name), "namespace": "argocd"},
                "spec": {
                    "project": "default",
                    "source": {
                        "repoURL": repository, "targetRevision": "main",
                        "path": format!("apps/{}/overlays/{environment}", self.name),
                    },
                    "destination": {
                        "server": "https://kubernetes.default.svc", "namespace": self.namespace(environment),
                    },
                    "syncPolicy": {"automated": automated, "syncOptions": ["CreateNamespace=true"]},
                },
            })
        };
        self.environments.iter().map(one).collect()
    }

    /// The namespace of one of its environments.
    pub fn namespace(&self, environment: &str) -> String {
        format!("{}-{environment}{}", self.name, self.scope)
    }
}

/// A team's set-up: its part of the catalog, and its files in the GitOps repository. In both, `${IMAGES}` is the prefix of
/// the images, `${SOURCES}` the URL of the folder of source repositories, `${GITOPS}` that of the GitOps repository, and
/// `${SCOPE}` the end of the namespaces' names.
#[derive(Debug, Clone, Default)]
pub struct SetUp {
    /// Each has a source repository `NAME.git`.
    pub services: Vec<&'static str>,
    /// Those that it deploys to, without their scope. They exist from the beginning.
    pub namespaces: Vec<&'static str>,
    /// Entries of the catalog's `services`.
    pub catalog: String,
    /// Paths and contents.
    pub files: Vec<(String, String)>,
}

/// The GitOps repository, bare.
#[derive(Debug, Clone)]
pub struct GitOps {
    pub repository: GitRepo,
}

impl GitOps {
    /// A repository with a base and an overlay for each environment of each service, comments included.
    pub fn new(path: &Path, services: &[Service]) -> Self {
        let repository = GitRepo::bare(path).unwrap();
        let mut files: Vec<(String, String)> = Vec::new();
        for service in services {
            let (name, replicas) = (service.name, service.replicas.to_string());
            let base = format!("apps/{name}/base");
            files.push((format!("{base}/kustomization.yaml"), BASE.to_owned()));
            let deployment = DEPLOYMENT.replace("NAME", name).replace("REPLICAS", &replicas);
            files.push((format!("{base}/deployment.yaml"), deployment));
            files.push((format!("{base}/service.yaml"), SERVICE.replace("NAME", name)));
            for (environment, _) in service.environments {
                let overlay = format!("apps/{name}/overlays/{environment}");
                let named = |text: &str| text.replace("NAMESPACE", &service.namespace(environment));
                files.push((format!("{overlay}/kustomization.yaml"), named(OVERLAY)));
                files.push((format!("{overlay}/namespace.yaml"), named(NAMESPACE)));
            }
        }
        let gitops = Self { repository };
        gitops.commit("feat: the services and their environments", &files);
        gitops
    }

    /// Commits files as a person would.
    pub fn commit(&self, message: &str, files: &[(String, String)]) -> String {
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_bytes()))
            .collect();
        self.repository.commit("main", message, &files).unwrap()
    }

    /// The commits that Slipway made for a service, oldest first.
    pub fn commits_of(&self, service: &str) -> Vec<Commit> {
        let trailer = format!("Service: {service}");
        let mut commits = self.repository.log("main").unwrap();
        commits.retain(|commit| commit.message.lines().any(|line| line == trailer));
        commits.reverse();
        commits
    }

    /// An overlay's kustomization at the head.
    pub fn overlay(&self, service: &str, environment: &str) -> String {
        let path = format!("apps/{service}/overlays/{environment}/kustomization.yaml");
        String::from_utf8(self.repository.read("main", &path).unwrap()).unwrap()
    }

    /// The digest that an environment asks for.
    pub fn wanted_digest(&self, service: &str, environment: &str) -> Option<String> {
        let overlay = self.overlay(service, environment);
        let line = overlay
            .lines()
            .find_map(|line| line.trim().strip_prefix("digest:"))?;
        Some(
            line.split('#')
                .next()?
                .trim()
                .trim_matches(['"', '\''])
                .to_owned(),
        )
    }
}

/// The value of a trailer of a commit message.
pub fn trailer<'a>(commit: &'a Commit, name: &str) -> Option<&'a str> {
    commit
        .message
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A catalog of these services. `repository` gives the URL of a service's source, `image` the whole name of its image.
pub fn catalog(
    services: &[Service],
    repository: impl Fn(&Service) -> String,
    image: impl Fn(&Service) -> String,
) -> String {
    let mut text = "environments: [dev, staging, prod]\nservices:\n".to_owned();
    for service in services {
        let name = service.name;
        let environments: Vec<&str> = service
            .environments
            .iter()
            .map(|(environment, _)| *environment)
            .collect();
        let _ = writeln!(
            text,
            "  - name: {name}\n    repository: \"{}\"\n    image: \"{}\"\n    branches:\n      - {{ pattern: main, environments: [{}] }}\n    environments:",
            repository(service),
            image(service),
            environments.join(", ")
        );
        for (environment, policy) in service.environments {
            let target = service.target(environment);
            let _ = writeln!(
                text,
                "      - name: {environment}\n        policy: {policy}\n        \
                 gitops: {{ repository: platform, branch: main, path: apps/{name}/overlays/{environment}, image: {} }}\n        \
                 target: {{ cluster: local, {target} }}\n        \
                 checks:\n          - name: health\n            \
                 http: {{ service: {name}, port: http, path: /health, attempts: 3, interval: 100ms }}",
                service.manifest_image
            );
        }
    }
    text
}

const BASE: &str = "\
resources:
  - deployment.yaml
  - service.yaml
";

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
spec:
  replicas: REPLICAS
  selector:
    matchLabels: { app: NAME }
  template:
    metadata:
      labels: { app: NAME }
    spec:
      containers:
        - name: app
          image: app
          ports:
            - { name: http, containerPort: 8080, protocol: TCP }
          readinessProbe:
            # /health is what Slipway asks.
            httpGet: { path: /version, port: http }
            periodSeconds: 1
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: NAME
spec:
  selector: { app: NAME }
  ports:
    - { name: http, port: 80, targetPort: http, protocol: TCP }
";

const NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: NAMESPACE
";

const OVERLAY: &str = "\
# NAMESPACE: what runs here is decided by releases, everything else by people.
namespace: NAMESPACE
resources:
  - namespace.yaml
  - ../../base

images:
  - name: app         # the name that the manifests use
    newTag: none      # written by Slipway; comments stay where they are
";
