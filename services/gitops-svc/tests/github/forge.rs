//! A service, its remote, and the GitHub around it.

use slipway_proto::gitops::v1::Change;

use super::{GitHub, TOKEN};
use crate::world::*;

/// A remote with a GitHub around it.
pub(crate) struct Forge {
    pub(crate) world: World,
    pub(crate) github: GitHub,
}

impl Forge {
    pub(crate) async fn new(name: &str) -> Self {
        let world = World::new(name, &["identity", "other"]);
        let github = GitHub::start(world.remote.path()).await;
        std::fs::write(world.path("token"), TOKEN).unwrap();
        Self { world, github }
    }

    /// The configuration, with more settings of `pull_requests`.
    pub(crate) fn config(&self, listen: &str, settings: &str) -> String {
        let text = self.world.config(&self.world.sqlite(), "a", listen);
        let dir = self.world.dir.path().display();
        let plain = format!("shop: {{url: {dir}/remote.git}}");
        assert!(text.contains(&plain), "{text}");
        let pull_requests = format!(
            "shop: {{url: {dir}/remote.git, pull_requests: {{github: acme/shop, api_url: '{}', token_file: {dir}/token, poll: 40ms, {settings}}}}}",
            self.github.url
        );
        text.replace(&plain, &pull_requests)
    }

    pub(crate) async fn start(&self, settings: &str) -> Running {
        start_with(&self.config("127.0.0.1:0", settings)).await.unwrap()
    }

    /// The text of the overlay.
    pub(crate) fn overlay(&self) -> String {
        self.world.file("identity")
    }

    pub(crate) fn branch(&self, change: &Change) -> Option<String> {
        self.world
            .remote
            .head(&format!("refs/heads/slipway/{}", change.id))
            .ok()
    }

    /// Somebody writes the file of a service.
    pub(crate) fn write(&self, branch: &str, text: &str) -> String {
        let path = format!("{}/kustomization.yaml", folder("identity"));
        self.world
            .remote
            .commit(branch, "by hand", &[(path.as_str(), text.as_bytes())])
            .unwrap()
    }
}
