//! What the demo releases: an application repository and a GitOps repository, created from scratch.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::shell::Shell;
use crate::failure::Failure;

/// The environments of the demo, in the order of promotion, with the policy of each.
pub(crate) const ENVIRONMENTS: [(&str, &str); 3] = [("dev", "none"), ("staging", "one"), ("prod", "two")];
/// The service of the demo.
pub(crate) const SERVICE: &str = "shop";

/// How changes are applied to the clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Slipway applies the manifests itself.
    Apply,
    /// Applications of Argo CD apply them.
    ArgoCd,
}

impl Way {
    /// The flag of `slipway dev` that it needs.
    pub(crate) fn flag(self) -> Option<&'static str> {
        (self == Self::ArgoCd).then_some("--argo-cd")
    }
}

const APP: &str = include_str!("app.rs");
const DOCKERFILE: &str = "\
# One static binary and nothing else.
FROM scratch
ARG VERSION
COPY server /server
EXPOSE 8080
ENTRYPOINT [\"/server\"]
";

pub(crate) struct Scene {
    /// The application's repository.
    pub(crate) app: PathBuf,
    /// The GitOps repository, bare.
    pub(crate) gitops: PathBuf,
    /// A good commit and one whose `/health` fails.
    pub(crate) good: String,
    pub(crate) bad: String,
}

/// Compiles both versions of the application. Slow the first time, so it is done before the clock starts.
pub(crate) fn compile(shell: &Shell, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let source = folder.join("app.rs");
    fs::write(&source, APP)?;
    for (version, broken) in [("A", false), ("B", true)] {
        let mut command = shell.command(
            "rustc",
            &["--edition=2024", "-O", "-C", "target-feature=+crt-static"],
        );
        command
            .arg("-o")
            .arg(folder.join(format!("server-{version}")))
            .arg(&source)
            .env("APP_VERSION", version);
        if broken {
            command.env("APP_BROKEN", "1");
        }
        shell.quiet(command)?;
    }
    Ok(())
}

/// Creates both repositories under `folder`, from the binaries in `binaries`.
pub(crate) fn make(shell: &Shell, folder: &Path, binaries: &Path) -> Result<Scene, Failure> {
    let app = folder.join("app");
    fs::create_dir_all(&app)?;
    let git = |arguments: &[&str]| shell.git(&app, arguments);
    git(&["init", "--quiet", "--initial-branch=main"])?;
    fs::write(app.join("Dockerfile"), DOCKERFILE)?;
    fs::write(app.join("app.rs"), APP)?;
    let mut commits = Vec::new();
    for (version, message) in [
        ("A", "feat: a shop that works"),
        ("B", "feat: a shop that wants a database"),
    ] {
        fs::copy(binaries.join(format!("server-{version}")), app.join("server"))?;
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message", message])?;
        commits.push(git(&["rev-parse", "HEAD"])?.trim().to_owned());
    }
    let gitops = folder.join("platform.git");
    make_gitops(shell, folder, &gitops)?;
    let bad = commits.pop().unwrap_or_default();
    let good = commits.pop().unwrap_or_default();
    Ok(Scene {
        app,
        gitops,
        good,
        bad,
    })
}

fn make_gitops(shell: &Shell, folder: &Path, bare: &Path) -> Result<(), Failure> {
    let work = folder.join("platform-seed");
    let base = work.join("apps/shop/base");
    fs::create_dir_all(&base)?;
    fs::write(base.join("kustomization.yaml"), BASE)?;
    fs::write(base.join("deployment.yaml"), DEPLOYMENT)?;
    fs::write(base.join("service.yaml"), SERVICE_YAML)?;
    for (environment, _) in ENVIRONMENTS {
        let overlay = work.join("apps/shop/overlays").join(environment);
        fs::create_dir_all(&overlay)?;
        for (name, text) in [("kustomization.yaml", OVERLAY), ("namespace.yaml", NAMESPACE)] {
            fs::write(overlay.join(name), text.replace("ENVIRONMENT", environment))?;
        }
    }
    let git = |arguments: &[&str]| shell.git(&work, arguments);
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "--all"])?;
    git(&[
        "commit",
        "--quiet",
        "--message",
        "feat: the shop and its environments",
    ])?;
    shell.git(
        folder,
        &[
            "clone",
            "--quiet",
            "--bare",
            &work.display().to_string(),
            &bare.display().to_string(),
        ],
    )?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The catalog of the demo.
pub(crate) fn catalog(scene_app: &Path, way: Way) -> String {
    let mut text = format!(
        "# Services and environments, in the order of promotion. `slipway config validate --catalog` checks it.\n\
         environments: [dev, staging, prod]\n\
         services:\n\
         \x20 - name: {SERVICE}\n\
         \x20   repository: file://{}\n\
         \x20   image: {SERVICE}\n\
         \x20   branches:\n\
         \x20     - {{ pattern: main, environments: [dev, staging, prod] }}\n\
         \x20   environments:\n",
        scene_app.display()
    );
    for (environment, policy) in ENVIRONMENTS {
        let target = match way {
            Way::Apply => format!("namespace: {environment}, kind: Deployment, name: {SERVICE}"),
            Way::ArgoCd => format!("namespace: argocd, kind: Application, name: {SERVICE}-{environment}"),
        };
        text += &format!(
            "      - name: {environment}\n\
             \x20       policy: {policy}\n\
             \x20       gitops: {{ repository: platform, branch: main, path: apps/shop/overlays/{environment}, image: {SERVICE} }}\n\
             \x20       target: {{ cluster: local, {target} }}\n\
             \x20       checks:\n\
             \x20         - name: health\n\
             \x20           http: {{ service: {SERVICE}, port: http, path: /health, attempts: 3, interval: 200ms }}\n"
        );
    }
    text
}

/// An Application for each environment.
pub(crate) fn applications(gitops: &Path) -> String {
    let mut text = String::new();
    for (environment, policy) in ENVIRONMENTS {
        // An environment that needs no approval may sync by itself.
        let automated = if policy == "none" {
            "    automated: { prune: true, selfHeal: true }\n"
        } else {
            ""
        };
        text += &format!(
            "apiVersion: argoproj.io/v1alpha1\n\
             kind: Application\n\
             metadata: {{ name: {SERVICE}-{environment}, namespace: argocd }}\n\
             spec:\n\
             \x20 project: default\n\
             \x20 source: {{ repoURL: \"file://{}\", targetRevision: main, path: apps/shop/overlays/{environment} }}\n\
             \x20 destination: {{ server: \"https://kubernetes.default.svc\", namespace: {environment} }}\n\
             \x20 syncPolicy:\n{automated}\
             \x20   syncOptions: [CreateNamespace=true]\n\
             ---\n",
            gitops.display()
        );
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
  name: shop
spec:
  replicas: 2
  selector:
    matchLabels: { app: shop }
  template:
    metadata:
      labels: { app: shop }
    spec:
      containers:
        - name: shop
          image: shop
          ports:
            - { name: http, containerPort: 8080 }
          readinessProbe:
            # The old shop only knows /version; /health is what Slipway asks.
            httpGet: { path: /version, port: http }
            periodSeconds: 1
";

const SERVICE_YAML: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: shop
spec:
  selector: { app: shop }
  ports:
    - { name: http, port: 80, targetPort: http }
";

const NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: ENVIRONMENT
";

const OVERLAY: &str = "\
# ENVIRONMENT: what runs here is decided by releases, everything else by people.
namespace: ENVIRONMENT
resources:
  - namespace.yaml
  - ../../base

images:
  - name: shop        # the name that the manifests use
    newTag: none      # written by Slipway; comments stay where they are
";
