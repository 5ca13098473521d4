//! A cluster of the user's own: what releases to it need, and what of that is missing. Said at the start, since a release
//! would find it out late.

use std::{fmt::Write, path::Path, process::Command};

use deploy_domain::catalog::Catalog;
use slipway_model::ImageName;

use crate::failure::Failure;

/// The cluster as the catalog names it.
pub(super) const CLUSTER: &str = "local";
/// How long kubectl waits for the API server.
const PATIENCE: &str = "--request-timeout=5s";

/// Reports what a release to the cluster of `kubeconfig` needs. `in_a_folder`: images that build-svc does not push to a
/// registry.
pub(super) fn report(
    context: &str,
    kubeconfig: &Path,
    catalog: &Catalog,
    in_a_folder: impl Fn(&ImageName) -> bool,
) -> String {
    let kubectl = |arguments: &[&str]| kubectl(kubeconfig, arguments);
    let reachable = kubectl(&["get", "--raw", "/version"]).map(drop);
    let namespaces = namespaces(catalog).into_iter().map(|name| {
        let found = match &reachable {
            Ok(()) => exists(
                &name,
                kubectl(&["get", "namespace", name.as_str(), "--output", "name"]),
            ),
            Err(_) => Namespace::Unknown,
        };
        (name, found)
    });
    let namespaces = namespaces.collect();
    let folder_images = folder_images(catalog, in_a_folder);
    Needs {
        context,
        reachable,
        services: catalog.services().len(),
        folder_images,
        namespaces,
    }
    .text()
}

fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg(PATIENCE)
        .args(arguments);
    let output = command
        .output()
        .map_err(|error| format!("cannot run kubectl: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Before the last line, kubectl logs each attempt.
    let line = said
        .trim()
        .lines()
        .last()
        .unwrap_or("kubectl failed and said nothing");
    Err(line.to_owned())
}

/// The context of the user's own kubeconfig, alone and with all that it needs.
///
/// # Errors
/// What kubectl says.
pub(super) fn kubeconfig(context: &str) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new("kubectl");
    command.args([
        "config",
        "view",
        "--raw",
        "--minify",
        "--flatten",
        "--context",
        context,
    ]);
    let output = command.output().map_err(|error| {
        Failure::new(format!("cannot run kubectl: {error}"))
            .next("install kubectl, which reads your kubeconfig")
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(
        Failure::new(format!("kubectl cannot read context {context}: {said}"))
            .next("see your contexts with: kubectl config get-contexts"),
    )
}

/// Where the targets in this cluster are.
fn namespaces(catalog: &Catalog) -> Vec<String> {
    let environments = catalog
        .services()
        .iter()
        .flat_map(|service| &service.environments);
    let mut names: Vec<String> = environments
        .filter(|environment| environment.target.cluster.as_str() == CLUSTER)
        .map(|environment| environment.target.namespace.to_string())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Services that go to this cluster, and their images that it cannot pull.
fn folder_images(catalog: &Catalog, in_a_folder: impl Fn(&ImageName) -> bool) -> Vec<(String, String)> {
    let comes_here = |service: &&deploy_domain::catalog::Service| {
        let mut environments = service.environments.iter();
        environments.any(|environment| environment.target.cluster.as_str() == CLUSTER)
    };
    let services = catalog.services().iter().filter(comes_here);
    services
        .map(|service| (service.name.to_string(), &service.images.only().repository))
        .filter(|(_, image)| in_a_folder(image))
        .map(|(service, image)| (service, image.to_string()))
        .collect()
}

fn exists(name: &str, answer: Result<String, String>) -> Namespace {
    match answer {
        Ok(_) => Namespace::Exists,
        Err(said) if said.contains("NotFound") || said.contains(&format!("{name:?} not found")) => {
            Namespace::Missing
        }
        Err(said) => Namespace::Unreadable(said),
    }
}

#[derive(Debug)]
enum Namespace {
    Exists,
    Missing,
    Unreadable(String),
    /// The cluster did not answer at all.
    Unknown,
}

/// What a release needs, and how it stands with it.
struct Needs<'a> {
    context: &'a str,
    reachable: Result<(), String>,
    services: usize,
    folder_images: Vec<(String, String)>,
    namespaces: Vec<(String, Namespace)>,
}

impl Needs<'_> {
    fn text(&self) -> String {
        let mut out = String::new();
        let context = self.context;
        let mut row = |name: &str, text: &str| {
            let _ = writeln!(out, "  {name:13} {text}");
        };
        match &self.reachable {
            Ok(()) => row(
                "kubernetes",
                &format!("context {context} of your kubeconfig; it answers"),
            ),
            Err(said) => {
                row(
                    "kubernetes",
                    &format!("✗ context {context} of your kubeconfig does not answer: {said}"),
                );
                row("", "  Slipway keeps trying; releases wait until then");
            }
        }
        row(
            "images",
            "your cluster pulls them, so each needs a registry that build-svc may push to and the cluster pull from",
        );
        if self.services == 0 {
            row("", "  in the catalog: image: registry.example/team/NAME");
            row(
                "",
                &format!("  in config/build.yaml: {}", registry("registry.example/team")),
            );
        }
        for (service, image) in &self.folder_images {
            let name = image.rsplit('/').next().unwrap_or(image);
            row(
                "",
                &format!("✗ {service}: {image} stays in a folder of this machine. Write"),
            );
            row(
                "",
                &format!("    in catalog.yaml:      image: registry.example/team/{name}"),
            );
            row(
                "",
                &format!("    in config/build.yaml: {}", registry("registry.example/team")),
            );
        }
        if !self.folder_images.is_empty() {
            row(
                "",
                "  and start again; where not everyone may pull, the pods need imagePullSecrets",
            );
        }
        row("namespaces", "those of the catalog's targets must exist");
        for (name, namespace) in &self.namespaces {
            match namespace {
                Namespace::Exists => row("", &format!("✓ {name}")),
                Namespace::Missing => row(
                    "",
                    &format!("✗ {name} does not exist: kubectl --context {context} create namespace {name}"),
                ),
                Namespace::Unreadable(said) => row("", &format!("? {name} cannot be read: {said}")),
                Namespace::Unknown => row("", &format!("? {name}")),
            }
        }
        out
    }
}

fn registry(prefix: &str) -> String {
    format!("registries: [{{ prefix: {prefix}, kind: oci, username: USER, password_file: FILE }}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOG: &str = "
environments: [dev, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: shop
    environments:
      - { name: dev, policy: none, target: { cluster: local, namespace: dev, name: shop } }
      - { name: prod, policy: none, target: { cluster: local, namespace: prod, name: shop } }
  - name: mail
    repository: https://git.example/mail.git
    image: registry.example/team/mail
    environments:
      - { name: dev, policy: none, target: { cluster: local, namespace: dev, name: mail } }
  - name: elsewhere
    repository: https://git.example/elsewhere.git
    image: elsewhere
    environments:
      - { name: prod, policy: none, target: { cluster: other, namespace: far, name: elsewhere } }
";

    #[test]
    fn what_is_missing_is_said_with_the_lines_to_write() {
        let catalog = Catalog::parse(CATALOG).unwrap();
        let without_host = |image: &ImageName| image.registry().is_none();
        assert_eq!(namespaces(&catalog), ["dev", "prod"]);
        let folder_images = folder_images(&catalog, without_host);
        assert_eq!(folder_images, [("shop".to_owned(), "shop".to_owned())]);
        let needs = Needs {
            context: "mine",
            reachable: Ok(()),
            services: 3,
            folder_images,
            namespaces: vec![
                ("dev".to_owned(), Namespace::Exists),
                ("prod".to_owned(), Namespace::Missing),
            ],
        };
        let text = needs.text();
        for line in [
            "  kubernetes    context mine of your kubeconfig; it answers",
            "✗ shop: shop stays in a folder of this machine",
            "in catalog.yaml:      image: registry.example/team/shop",
            "in config/build.yaml: registries: [{ prefix: registry.example/team, kind: oci, username: USER, password_file: FILE }]",
            "imagePullSecrets",
            "✓ dev",
            "✗ prod does not exist: kubectl --context mine create namespace prod",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("mail") && !text.contains("elsewhere"), "{text}");
    }

    #[test]
    fn a_cluster_that_does_not_answer_and_an_empty_catalog_are_said() {
        let needs = Needs {
            context: "mine",
            reachable: Err("connection refused".to_owned()),
            services: 0,
            folder_images: Vec::new(),
            namespaces: vec![("dev".to_owned(), Namespace::Unknown)],
        };
        let text = needs.text();
        for line in [
            "✗ context mine of your kubeconfig does not answer: connection refused",
            "in the catalog: image: registry.example/team/NAME",
            "? dev",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn a_missing_namespace_is_told_from_one_that_cannot_be_read() {
        let missing = "Error from server (NotFound): namespaces \"dev\" not found";
        let forbidden =
            "Error from server (Forbidden): namespaces \"dev\" is forbidden: User \"x\" cannot get resource";
        assert!(matches!(
            exists("dev", Err(missing.to_owned())),
            Namespace::Missing
        ));
        assert!(matches!(
            exists("dev", Err(forbidden.to_owned())),
            Namespace::Unreadable(_)
        ));
        assert!(matches!(
            exists("dev", Ok("namespace/dev".to_owned())),
            Namespace::Exists
        ));
    }
}
