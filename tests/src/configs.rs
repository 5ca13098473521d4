//! The services' configuration files, as in a production set-up: one file for each replica.

use std::{fmt::Write, path::Path};

use slipway_server::TokenHash;

use crate::clients::{DRIVER, PEOPLE, SCOPED, Scoped, token};

/// The parameters of one replica of a service.
#[derive(Debug)]
pub struct Replica<'a> {
    /// Data of this replica only.
    pub folder: &'a Path,
    /// Data that all replicas of the service share.
    pub shared: &'a Path,
    pub port: u16,
    pub database: &'a str,
    pub redis: &'a str,
    /// The program gives it backends that answer at once.
    pub at_once: bool,
}

impl Replica<'_> {
    /// build-svc. `registries` are entries of the list of that name.
    pub fn build(&self, registries: &str) -> String {
        let (own, shared) = (self.folder.display(), self.shared.display());
        self.common(true)
            + &format!(
                "data_dir: {own}/builds\n\
                 logs: {{ directory: {shared}/logs }}\n\
                 repositories: [\"file:///*\"]\n\
                 builders: {{ default: {{ kind: buildah }} }}\n\
                 registries:\n{registries}"
            )
    }

    /// gitops-svc, with the one repository `platform`.
    pub fn gitops(&self, repository: &str) -> String {
        let places = if self.at_once { "" } else { PLACES };
        self.common(true)
            + &format!(
                "data_dir: {}\nrepositories:\n  platform: {{ url: \"{repository}\"{places} }}\n",
                self.folder.display()
            )
    }

    /// approval-svc.
    pub fn approval(&self) -> String {
        self.common(true)
            + &format!(
                "policies:\n\
                 \x20 one: {{ required: 1, expire_after: 1h }}\n\
                 \x20 two: {{ required: 2, expire_after: 1h }}\n\
                 \x20 quick: {{ required: 1, expire_after: 1s }}\n\
                 people:\n  {}: token/author\n",
                crate::scene::AUTHOR
            )
    }

    /// deploy-svc, using one replica of each of the others.
    pub fn deploy(&self, others: &[String; 3], catalog: &Path, kubeconfig: &Path) -> String {
        let mut text = self.common(false);
        let _ = writeln!(
            text,
            "catalog: {}\nclusters: {{ local: {{ kubeconfig: {} }} }}",
            catalog.display(),
            kubeconfig.display()
        );
        for (key, url) in ["build", "gitops", "approval"].iter().zip(others) {
            let _ = writeln!(text, "{key}: {{ url: \"{url}\", token: {} }}", token(DRIVER));
        }
        text
    }

    fn common(&self, driver: bool) -> String {
        let mut text = format!(
            "server:\n  listen: 127.0.0.1:{}\n  drain_timeout: 5s\n  principals:\n",
            self.port
        );
        let mut principal = |name: &str, role: &str| {
            let hash = String::from(TokenHash::of(&token(name)));
            let _ = writeln!(
                text,
                "    - {{ subject: {name}, token_sha256: \"{hash}\", roles: [{role}] }}"
            );
        };
        for (name, actions) in PEOPLE {
            principal(name, &format!("{{ actions: [{}] }}", actions.join(", ")));
        }
        for scoped in SCOPED {
            principal(scoped.name, &role(&scoped));
        }
        if driver {
            principal(DRIVER, "{ actions: [read, start, cancel, rollback, delegate] }");
        }
        let level = if self.at_once { "warn" } else { "info" };
        let connections = if self.at_once { 16 } else { 6 };
        let _ = writeln!(
            text,
            "database: {{ url: \"{}\", max_connections: {connections} }}\nbus: {{ redis_url: \"{}\" }}\ntelemetry: {{ log_filter: {level} }}",
            self.database, self.redis
        );
        text
    }
}

/// Where images are in the repository `platform` (see [`crate::scene::GitOps`]).
const PLACES: &str = ", environments: { \
    dev: { kustomization: \"apps/{service}/overlays/dev\" }, \
    staging: { kustomization: \"apps/{service}/overlays/staging\" }, \
    prod: { kustomization: \"apps/{service}/overlays/prod\" } }";

/// An entry of the list `roles`; empty for principals that may do nothing.
fn role(scoped: &Scoped) -> String {
    let Scoped {
        actions,
        services,
        environments,
        ..
    } = scoped;
    if actions.is_empty() {
        return String::new();
    }
    let actions = actions.join(", ");
    format!("{{ actions: [{actions}], services: [\"{services}\"], environments: [\"{environments}\"] }}")
}
