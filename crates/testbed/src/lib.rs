//! What tests of all crates share.
//!
//! - Real servers: PostgreSQL, Redis, Prometheus, an image registry, and git over https and ssh, each with its own port
//!   and data folder.
//! - A service of ours in the test's own process ([`InProcess`]), on a [`Database`].
//! - Deciders: [`golden`] pins the stored form of their events, [`decider_laws`] checks what all of them must obey.
//! - Waiting: [`eventually`] and [`within`], as long as [`patience`] lasts.
//! - [`data`]: the test data of the repository.
//!
//! A server is killed by process id when its handle is dropped. Handles in statics are never dropped and a test process
//! may be killed, so the kernel also kills each server when the test process dies (`setpriv --pdeathsig`). Folders of
//! dead runs are removed by the next run. Nothing here is for production.
//!
//! ```no_run
//! # async fn example() -> Result<(), slipway_testbed::Error> {
//! let url = slipway_testbed::postgres().await?.create_database().await?;
//! let redis = slipway_testbed::Redis::start().await?;
//! println!("{url} {}", redis.url());
//! # Ok(())
//! # }
//! ```

mod data;
mod database;
mod folders;
mod git;
mod git_http;
mod golden;
mod images;
mod in_process;
mod laws;
mod patience;
mod ports;
mod postgres;
mod process;
mod program;
mod prometheus;
mod redis;
mod registry;
mod ssh;
mod tools;

use std::path::PathBuf;

pub use data::data;
pub use database::Database;
pub use folders::TestDir;
pub use git::{Commit, GitRepo};
pub use git_http::{GitHttpServer, HttpAnswer, HttpRequest};
pub use golden::{golden, recorded};
pub use images::{Images, is_plain, tags};
pub use in_process::InProcess;
pub use laws::{Origin, decider_laws};
pub use patience::{eventually, holds, patience, within};
pub use ports::free_port;
pub use postgres::{Postgres, postgres};
pub use program::static_binary;
pub use prometheus::Prometheus;
pub use redis::Redis;
pub use registry::{Access, Registry};
pub use ssh::{SshServer, ssh_key};
pub use tools::tool;

/// Why a server or a tool is not available for a test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks a program.
    #[error("{0} is not on this machine: run `scripts/install-prerequisites test`")]
    MissingTool(String),
    /// A file, folder or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A program ended with an exit code other than 0.
    #[error("{program} ended with {status}: {output}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        output: String,
    },
    /// A server ended, or did not report in time that it is ready.
    #[error("{server} does not serve ({why}); its last output:\n{log}")]
    NotServing {
        /// Which server.
        server: &'static str,
        /// Whether it ended or was given up on.
        why: &'static str,
        /// The last lines it wrote.
        log: String,
    },
    /// A folder that should be ours belongs to another user.
    #[error("{} belongs to another user: remove it or set TMPDIR", .0.display())]
    NotOurs(PathBuf),
}

impl Error {
    /// For `map_err`: says what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs blocking work away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::Io {
                what: "the test's runtime is shutting down".into(),
                source: std::io::Error::other(error),
            }),
        },
    }
}
