//! The configuration files that a new folder starts with: those of a production set-up, with local addresses.

use std::{collections::BTreeMap, fmt::Write, path::Path};

/// The people in a new folder, and what they may do.
pub(super) const PEOPLE: [(&str, &[&str]); 4] = [
    (
        "alice",
        &["read", "start", "cancel", "rollback", "approve", "operate"],
    ),
    ("bob", &["read", "approve", "cancel"]),
    ("carol", &["read", "approve", "cancel"]),
    ("ci", &["read", "start"]),
];
/// deploy-svc, as the other services know it.
pub(super) const DRIVER: &str = "deploy-svc";

/// A GitOps repository.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(crate) name: String,
    /// A path or URL.
    pub(crate) url: String,
}

/// What the files need to know about this folder.
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    /// For build-svc, gitops-svc, approval-svc, deploy-svc.
    pub(crate) ports: [u16; 4],
    pub(crate) hashes: &'a BTreeMap<&'a str, String>,
    pub(crate) repositories: &'a [Repository],
    /// The e-mail address in the person's own commits.
    pub(crate) email: Option<&'a str>,
}

/// Replaced by the person's first service.
pub(crate) const EXAMPLE_CATALOG: &str = "\
# Services and environments, in the order of promotion. Read again whenever it changes;
# `slipway config validate --catalog` checks it.
environments: [dev, staging, prod]
services: []
# - name: shop
#   repository: https://git.example/shop.git
#   image: shop
#   branches:
#     - { pattern: main, environments: [dev, staging, prod] }
#   environments:
#     - name: dev
#       policy: none                # `one` and `two` are in config/approval.yaml
#       gitops: { repository: platform, branch: main, path: apps/shop/overlays/dev, image: shop }
#       target: { cluster: local, namespace: dev, kind: Deployment, name: shop }
#       checks:
#         - name: health
#           http: { service: shop, port: http, path: /health }
";

impl Place<'_> {
    /// Each service's file.
    pub(crate) fn all(&self) -> [(&'static str, String); 4] {
        [
            ("build", self.build()),
            ("gitops", self.gitops()),
            ("approval", self.approval()),
            ("deploy", self.deploy()),
        ]
    }

    fn build(&self) -> String {
        let folder = self.folder.display();
        self.common("build", self.ports[0])
            + &format!(
                "data_dir: {folder}/builds\n\
                 logs: {{ directory: {folder}/logs }}\n\
                 # Which source repositories may be built: patterns, * stands for anything.\n\
                 repositories: [\"file:///*\"]  # such as \"https://git.example/team/*\"\n\
                 builders: {{ buildah: {{ kind: buildah }} }}\n\
                 # Image names without a host go to this folder, from where the local cluster runs them.\n\
                 registries: [{{ prefix: \"\", kind: oci_layout, directory: {folder}/images }}]\n"
            )
    }

    fn gitops(&self) -> String {
        let mut text =
            self.common("gitops", self.ports[1]) + &format!("data_dir: {}/git\n", self.folder.display());
        text += "# Or a remote one: { url: https://git.example/platform.git, credentials: { token_file: /path } }\nrepositories:\n";
        for repository in self.repositories {
            let _ = writeln!(text, "  {}: {{ url: \"{}\" }}", repository.name, repository.url);
        }
        text
    }

    fn approval(&self) -> String {
        let mut text = self.common("approval", self.ports[2]);
        text += "policies:\n\
                 \x20 # How many must say yes; never who asked for the release, never who wrote the commit.\n\
                 \x20 one: { required: 1, exclude_requester: true, exclude_authors: true, expire_after: 24h }\n\
                 \x20 two: { required: 2, exclude_requester: true, exclude_authors: true, expire_after: 24h }\n\
                 # Whose commits are whose: an author who is not here may be anyone, so one more must say yes.\n\
                 people:\n";
        for (name, _) in PEOPLE {
            let _ = writeln!(text, "  {name}@example.com: token/{name}");
        }
        // A person trying it out is alice.
        if let Some(email) = self.email {
            let _ = writeln!(text, "  {}: token/alice", serde_json::Value::from(email));
        }
        text
    }

    fn deploy(&self) -> String {
        let folder = self.folder.display();
        let mut text = self.common("deploy", self.ports[3]);
        let _ = writeln!(text, "catalog: {folder}/catalog.yaml");
        let _ = writeln!(
            text,
            "clusters: {{ local: {{ kubeconfig: {folder}/kubeconfig }} }}"
        );
        for (key, port) in ["build", "gitops", "approval"].iter().zip(self.ports) {
            let _ = writeln!(
                text,
                "{key}: {{ url: \"https://127.0.0.1:{port}\", token_file: {folder}/tokens/{DRIVER}, ca_file: {folder}/ca.pem }}"
            );
        }
        text
    }

    /// Server, database and principals, the same in all four.
    fn common(&self, service: &str, port: u16) -> String {
        let folder = self.folder.display();
        let mut text = format!(
            "server:\n\
             \x20 listen: 127.0.0.1:{port}\n\
             \x20 tls: {{ certificate: {folder}/tls.pem, key: {folder}/tls.key }}\n\
             \x20 principals:\n"
        );
        let mut principal = |name: &str, actions: &[&str]| {
            let hash = self.hashes.get(name).map(String::as_str).unwrap_or_default();
            let _ = writeln!(
                text,
                "    - {{ subject: {name}, token_sha256: \"{hash}\", roles: [{{ actions: [{}] }}] }}",
                actions.join(", ")
            );
        };
        for (name, actions) in PEOPLE {
            principal(name, actions);
        }
        if service != "deploy" {
            principal(DRIVER, &["read", "start", "cancel", "rollback", "delegate"]);
        }
        text + &format!("database: {{ url: \"sqlite://{folder}/{service}.db\" }}\n")
    }
}
