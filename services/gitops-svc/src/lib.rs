//! gitops-svc: writes images into GitOps repositories, one commit for each change, many changes in one push.
//!
//! Where to look: the crate `slipway-edit` changes the text of a file; the crate `gitops-domain` decides, in `change` and `branch`;
//! `effects` carries out what they ask for, and `effects/round` pushes; `backends` has the mirror and the remote (`repository`), GitHub,
//! kustomize (`render`) and the keys; `api` is gRPC.

mod api;
mod backends;
mod config;
mod effects;

use std::{collections::BTreeMap, sync::Arc};

use gitops_domain::{branch::Branch, change::Change};
use slipway_proto::gitops::v1::git_ops_service_server::GitOpsServiceServer;
use slipway_server::{ConfigError, RunError, ServiceHost, ServiceSettings, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{
    api::GitOpsGrpc,
    backends::{
        render::Renderer,
        repository::Repository,
        signing::{Committer, Key},
    },
    config::Settings,
    effects::{Forge, Paces, Pusher, SingleFlight, Worker},
};

/// Runs the service until `shutdown`, then drains. A round in progress is resumed by another replica, or at the next
/// start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    serve(config, wiring, shutdown, None).await
}

/// For tests, and for measurements of everything except git.
#[doc(hidden)]
pub mod testing {
    use super::{Arc, CancellationToken, Config, RunError, Wiring};
    pub use crate::effects::Pusher;

    /// As [`run`](super::run), with this instead of every repository's remote.
    ///
    /// # Errors
    /// As [`run`](super::run).
    pub async fn run_with(
        pusher: Arc<dyn Pusher>,
        config: Config,
        wiring: Wiring,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        super::serve(config, wiring, shutdown, Some(pusher)).await
    }
}

impl ServiceSettings for Settings {
    fn check(&self) -> Result<(), ConfigError> {
        self.check_values()
    }

    /// Keys to sign with, certificates, keys of Apps and of ssh. Tokens are read when they are used.
    fn check_files(&self) -> Result<(), ConfigError> {
        repositories(self).map(drop)
    }
}

async fn serve(
    config: Config,
    wiring: Wiring,
    shutdown: CancellationToken,
    pusher: Option<Arc<dyn Pusher>>,
) -> Result<(), RunError> {
    let mut host = ServiceHost::open("gitops-svc", &config, wiring, shutdown).await?;
    let settings = config.settings;
    std::fs::create_dir_all(&settings.data_dir).map_err(RunError::other("data_dir"))?;
    let repositories = repositories(&settings)?;
    for repository in repositories.values() {
        repository.recover();
    }
    let (kustomize, helm) = (settings.kustomize.clone(), settings.helm.clone());
    let renderer = Arc::new(Renderer::new(kustomize, helm, &settings.data_dir));
    renderer.recover();

    let wakes = Arc::new(SingleFlight::default());
    let worker = Arc::new(Worker {
        repositories: repositories.clone(),
        forges: Forge::all(&repositories),
        renderer: Arc::clone(&renderer),
        max_batch: settings.max_batch,
        paces: Paces::default(),
        wakes: Arc::clone(&wakes),
        telemetry: host.telemetry().clone(),
        pusher,
    });
    host.execute(|executor| {
        executor
            .register::<Change>(worker.clone())
            .register::<Branch>(worker)
    });
    let api = GitOpsGrpc::new(
        host.ledger().clone(),
        wakes,
        repositories,
        renderer,
        settings.push_deadline,
    );
    let api = GitOpsServiceServer::new(api).max_decoding_message_size(host.max_message_bytes());
    host.grpc(api).serve().await
}

fn repositories(settings: &Settings) -> Result<BTreeMap<String, Arc<Repository>>, ConfigError> {
    let signing = settings.signing.as_ref();
    let key = signing.map(|signing| Key::read(signing, "signing")).transpose()?;
    let committer = Committer {
        author: settings.author.clone(),
        key: key.map(Arc::new),
    };
    settings
        .repositories
        .iter()
        .map(|(name, repository)| {
            let repository = Repository::new(name, repository.clone(), &committer, &settings.data_dir)?;
            Ok((name.clone(), Arc::new(repository)))
        })
        .collect()
}
