//! `slipway deployment …` on the command line.

use clap::{Args, Subcommand};
use slipway_proto::deploy::v1::deployment::Status;

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// Deploy to one environment without a release, with its checks and its bake.
    Start(Box<DeployArgs>),
    /// List deployments, newest first.
    List {
        /// Only deployments of this service.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Only deployments to this environment.
        #[arg(long = "env", value_name = "NAME")]
        environment: Option<String>,
        /// Only deployments with this status, such as rollback_failed.
        #[arg(long, value_name = "STATUS", value_parser = status)]
        status: Option<Status>,
        /// Maximum number of deployments.
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        limit: i32,
    },
    /// Show a deployment: its rollout, its checks and, if it failed, the evidence.
    Get {
        /// The deployment's id.
        id: String,
    },
    /// Follow a deployment until it ends.
    Watch {
        /// The deployment's id.
        id: String,
    },
    /// Cancel a deployment. What is applied stays; a running Job is deleted, a sync started by it is terminated.
    Cancel {
        /// The deployment's id.
        id: String,
        /// The reason, which is recorded.
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
    /// Restore what ran before a deployment, and verify it: by a revert in git, or `rollout undo` without git.
    Rollback(RollbackArgs),
    /// Promote a paused canary (Argo Rollouts, Flagger).
    Promote {
        /// The deployment's id.
        id: String,
        /// Skip all remaining steps and pauses.
        #[arg(long)]
        full: bool,
    },
    /// Abort a canary: the stable version takes all traffic again, and the deployment fails.
    Abort {
        /// The deployment's id.
        id: String,
        /// The reason, which is recorded.
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
    /// Show what the cluster runs now, judged by the same rules as a deployment.
    Live {
        /// The service, as the catalog names it.
        service: String,
        /// The environment.
        environment: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeployArgs {
    /// The service, as the catalog names it.
    pub(crate) service: String,
    /// The environment.
    pub(crate) environment: String,
    /// The image to deploy: REPOSITORY@sha256:…
    #[arg(long, value_name = "REPOSITORY@DIGEST", value_parser = super::image_by_digest)]
    pub(crate) image: (String, String),
    /// The full commit id in the GitOps repository; left out for an environment without one.
    #[arg(long, default_value = "", value_name = "SHA", hide_default_value = true)]
    pub(crate) commit: String,
    /// Follow the deployment until it ends.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Idempotency key: repeated requests with one key start one deployment [default: a new key].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RollbackArgs {
    /// The deployment to roll back; --service and --env instead select the newest one there.
    #[arg(required_unless_present = "service")]
    pub(crate) id: Option<String>,
    /// The service whose newest deployment is rolled back.
    #[arg(long, value_name = "NAME", requires = "environment", conflicts_with = "id")]
    pub(crate) service: Option<String>,
    /// The environment of that service.
    #[arg(long = "env", value_name = "NAME", requires = "service")]
    pub(crate) environment: Option<String>,
    /// The reason, which is recorded.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) reason: String,
    /// Follow the rollback until it ends.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Idempotency key: repeated requests with one key roll back once [default: a new key].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
}

fn status(text: &str) -> Result<Status, String> {
    let name = format!("STATUS_{}", text.to_ascii_uppercase());
    Status::from_str_name(&name)
        .filter(|status| *status != Status::Unspecified)
        .ok_or_else(|| {
            "expected one of applying, verifying, succeeded, failed, errored, cancelled, rollback_failed"
                .to_owned()
        })
}
