//! gitops-svc: writes the wanted images into GitOps repositories, one commit for each change, many changes in one push.
//!
//! Where to look: the crate `slipway-edit` changes the text of a file; [`change`] and [`branch`] decide; `round` pushes; `repository` is
//! the mirror and the remote; [`layout`] knows where images stand, and `history` what commits of others mean; `render` runs
//! kustomize; `grpc` is the API.

pub mod branch;
pub mod change;
pub mod config;
mod credentials;
mod effects;
mod github;
mod grpc;
mod history;
mod images;
pub mod layout;
mod message;
mod pace;
mod process;
pub mod pull_request;
mod reason;
mod render;
mod repository;
mod round;
mod signing;

use std::{collections::BTreeMap, sync::Arc};

use slipway_ledger::Executor;
use slipway_server::{ConfigError, RunError, Server, ServiceConfig as _, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{
    branch::Branch,
    change::Change,
    effects::Worker,
    grpc::GitOpsGrpc,
    pace::{Paces, Together},
    pull_request::Forge,
    render::Renderer,
    repository::Repository,
    signing::{Committer, Key},
};

/// Runs the service until `shutdown`, then drains. A round that is under way is taken up again by another replica, or
/// at the next start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    std::fs::create_dir_all(&config.data_dir).map_err(RunError::other("data_dir"))?;
    let signing = config.signing.as_ref();
    let key = signing.map(|signing| Key::read(signing, "signing")).transpose()?;
    let committer = Committer {
        author: config.author.clone(),
        key: key.map(Arc::new),
    };
    let repositories: BTreeMap<String, Arc<Repository>> = config
        .repositories
        .iter()
        .map(|(name, repository)| {
            let repository = repository.clone();
            let repository = Repository::new(name, repository, &committer, &config.data_dir)?;
            Ok((name.clone(), Arc::new(repository)))
        })
        .collect::<Result<_, ConfigError>>()?;
    for repository in repositories.values() {
        repository.recover();
    }
    let renderer = Renderer::new(config.kustomize.clone(), &config.data_dir);
    renderer.recover();
    let replica = std::env::var("HOSTNAME").unwrap_or_else(|_| "gitops-svc".to_owned());
    let ledger = slipway_server::ledger::open(&config.database, "gitops", &replica).await?;

    let wakes = Arc::new(Together::default());
    let worker = Arc::new(Worker {
        repositories: repositories.clone(),
        forges: Forge::all(&repositories),
        max_batch: config.max_batch,
        paces: Paces::default(),
        wakes: Arc::clone(&wakes),
        telemetry: wiring.telemetry.clone(),
    });
    let executor = Executor::builder(ledger.clone())
        .register::<Change>(worker.clone())
        .register::<Branch>(worker)
        .spawn(shutdown.clone());
    let relay = slipway_server::spawn_relay(&ledger, wiring.bus, shutdown.clone());
    let grpc = GitOpsGrpc {
        ledger: ledger.clone(),
        wakes,
        repositories,
        renderer,
        push_deadline: config.push_deadline,
    };
    let served = match Server::builder("gitops-svc", &config.server, slipway_proto::DESCRIPTORS) {
        Ok(server) => {
            let grpc = grpc.into_server(config.server.max_message_bytes);
            server
                .telemetry(&wiring.telemetry)
                .service(grpc)
                .serve(wiring.listener, shutdown.clone())
                .await
        }
        Err(error) => Err(error),
    };
    // Also when the server could not serve.
    shutdown.cancel();
    executor.drain().await;
    relay.drain().await;
    ledger.close().await;
    served.map_err(Into::into)
}
