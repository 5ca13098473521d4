//! `slipway deployment …` on the command line.

use clap::{Args, Subcommand};
use slipway_proto::deploy::v1::deployment::Status;

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// Deploy one commit of the GitOps repository without a release: one environment, its checks and its bake.
    Start(Box<DeployArgs>),
    /// Deployments, newest first.
    List {
        /// Only of this service.
        #[arg(long)]
        service: Option<String>,
        /// Only of this environment.
        #[arg(long = "env", value_name = "NAME")]
        environment: Option<String>,
        /// Only of this status, such as rollback_failed.
        #[arg(long, value_parser = status)]
        status: Option<Status>,
        #[arg(long, default_value_t = 20)]
        limit: i32,
    },
    /// One deployment: what was judged and how, and on failure the evidence.
    Get { id: String },
    /// Follow a deployment to its end.
    Watch { id: String },
    /// Stop a deployment. What the cluster took stays; a Job that runs is deleted, a sync of ours is terminated.
    Cancel {
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Put back what ran before a deployment, and verify that: by a revert in git, or `rollout undo` where there is no git.
    Rollback(RollbackArgs),
    /// Let a canary that pauses go on (Argo Rollouts, Flagger).
    Promote {
        id: String,
        /// Skip all further steps and pauses.
        #[arg(long)]
        full: bool,
    },
    /// Abort a canary: the stable version serves everything again, and the deployment fails.
    Abort {
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// What the cluster runs now, judged as a deployment would be.
    Live {
        /// A service of the catalog.
        service: String,
        /// Its environment.
        environment: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeployArgs {
    /// A service of the catalog.
    pub(crate) service: String,
    /// Its environment.
    pub(crate) environment: String,
    /// The image that must run: REPOSITORY@sha256:…
    #[arg(long, value_name = "REPOSITORY@DIGEST", value_parser = image)]
    pub(crate) image: (String, String),
    /// The full commit of the GitOps repository; none where the catalog has no repository for the environment.
    #[arg(long, default_value = "", value_name = "SHA")]
    pub(crate) commit: String,
    /// Follow it to its end; the exit code says whether it succeeded.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Idempotency key: the same key starts the same deployment once [default: a new one].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RollbackArgs {
    /// The deployment to put back; or name service and environment, for the newest one there.
    #[arg(required_unless_present = "service")]
    pub(crate) id: Option<String>,
    #[arg(long, requires = "environment", conflicts_with = "id")]
    pub(crate) service: Option<String>,
    #[arg(long = "env", value_name = "NAME", requires = "service")]
    pub(crate) environment: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Follow it to its end; the exit code says whether it succeeded.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Idempotency key: the same key rolls back once [default: a new one].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
}

fn image(text: &str) -> Result<(String, String), String> {
    text.split_once('@')
        .map(|(repository, digest)| (repository.to_owned(), digest.to_owned()))
        .ok_or_else(|| "write it REPOSITORY@sha256:DIGEST, such as registry.example/shop@sha256:…".to_owned())
}

fn status(text: &str) -> Result<Status, String> {
    let name = format!("STATUS_{}", text.to_ascii_uppercase());
    Status::from_str_name(&name)
        .filter(|status| *status != Status::Unspecified)
        .ok_or_else(|| {
            "write one of applying, verifying, succeeded, failed, errored, cancelled, rollback_failed"
                .to_owned()
        })
}
