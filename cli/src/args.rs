//! The command line.

mod deployment;
mod gitops;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use deployment::{DeployArgs, DeploymentCommand, RollbackArgs};
pub(crate) use gitops::{
    ApplyArgs, ChangeArgs, ChangeStatus, DiffArgs, EditArgs, GitopsCommand, ImageArgs, ListChangesArgs,
    PromoteArgs, StartChangeArgs,
};

/// Takes commits to verified rollouts on Kubernetes.
///
/// Exit codes: 0 the thing asked for happened; 1 it did not; 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(
    name = "slipway",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// File that says where the services are and who you are [default: .slipway/context.yaml].
    #[arg(long, global = true, env = "SLIPWAY_CONTEXT", value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
    /// Speak as this person of the context file, instead of its `user`.
    #[arg(long = "as", global = true, env = "SLIPWAY_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Tables for people, or protobuf JSON for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all four services, a Kubernetes of their own and an image store in this process.
    Dev(DevArgs),
    /// Show the whole path once: two commits, three environments, one rollback. Leaves nothing running.
    Demo(DemoArgs),
    /// Plan, start and follow releases.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// See what clusters made of a change, put it back, and look at what runs.
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// See and decide what waits for people.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Look into builds.
    #[command(subcommand)]
    Build(BuildCommand),
    /// Set images in GitOps repositories, compare environments, and put changes back.
    #[command(subcommand)]
    Gitops(Box<GitopsCommand>),
    /// Facts as they happen.
    #[command(subcommand)]
    Events(EventsCommand),
    /// See and resume what services gave up on after ten tries.
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Check configuration files before anything runs.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script: slipway completions bash > /etc/bash_completion.d/slipway
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Everything lives here, and is there again at the next start.
    #[arg(long, default_value = ".slipway", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Ports from this one on, when the folder is new; 0 takes free ones.
    #[arg(long, default_value_t = 7701, value_name = "PORT")]
    pub(crate) port: u16,
    /// Run an Application controller that behaves as Argo CD's in the cluster of this process.
    #[arg(long, conflicts_with = "kube_context")]
    pub(crate) argo_cd: bool,
    /// Deploy to this context of your kubeconfig instead of the cluster in this process.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) kube_context: Option<String>,
    /// Send traces to this OTLP collector, such as http://127.0.0.1:4317.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Through Applications of Argo CD instead of applying directly: dev syncs by itself, the others when told to.
    #[arg(long)]
    pub(crate) argo_cd: bool,
    /// Where to put everything [default: a new folder in the temporary directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Show what a release would do, without doing anything.
    Plan(WantedArgs),
    /// Start a release.
    Start(StartArgs),
    /// Releases, newest first.
    List {
        /// Only of this service.
        #[arg(long)]
        service: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: i32,
    },
    /// One release: its waterfall, or with -o json the resource.
    Get { id: String },
    /// Follow a release to its end.
    Watch { id: String },
    /// Stop a release, and put back what it changed in the environment it is in.
    Cancel {
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
        /// Wait until it has come to its end.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WantedArgs {
    /// A service of the catalog.
    pub(crate) service: String,
    /// The full commit id.
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: String,
    /// The branch the commit came by; chooses the environments where none are named.
    #[arg(long, default_value = "", value_name = "BRANCH")]
    pub(crate) branch: String,
    /// Only these environments; may be given several times.
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) environments: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) wanted: WantedArgs,
    /// Follow it to its end; the exit code says whether it succeeded.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Idempotency key: the same key starts the same release once [default: a new one].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
    /// Refuse to start when the plan is not this one (see `slipway release plan`).
    #[arg(long, default_value = "", value_name = "HASH")]
    pub(crate) plan_hash: String,
    /// A label as NAME=VALUE; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// Approvals, newest first: those that wait, or all.
    List {
        /// Also those that are decided.
        #[arg(long)]
        all: bool,
        /// Only of this service.
        #[arg(long)]
        service: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: i32,
    },
    /// One approval: what it is for, who decided, who may.
    Get { id: String },
    /// Say yes.
    Approve(DecideArgs),
    /// Say no.
    Reject(DecideArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DecideArgs {
    pub(crate) id: String,
    /// For the record.
    #[arg(long, default_value = "")]
    pub(crate) comment: String,
    /// What you have seen: the `binding` of the approval [default: as it is now, shown before deciding].
    #[arg(long, value_name = "HASH")]
    pub(crate) binding: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// The log of a build; ends with the build when followed.
    Log {
        id: String,
        /// Go on until the build is final.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Facts of all services as they happen.
    Tail {
        /// Only of this release.
        #[arg(long, default_value = "", value_name = "ID")]
        release: String,
        /// From the beginning instead of from now.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// What is parked in all services, newest first.
    List {
        /// Only of this kind: build, change, branch, approval, release or deployment.
        #[arg(long)]
        kind: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// One of them, with its whole state.
    Get { kind: String, id: String },
    /// Try it again at once; needs the action `operate`.
    Resume { kind: String, id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a catalog, and a service's configuration, and say what is wrong with them.
    Validate {
        /// Catalog files.
        #[arg(long, value_name = "FILE")]
        catalog: Vec<PathBuf>,
        /// A service and its configuration file, such as build-svc=build.yaml.
        #[arg(long = "config", value_name = "SERVICE=FILE", value_parser = service_file)]
        configs: Vec<(String, PathBuf)>,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn service_file(text: &str) -> Result<(String, PathBuf), String> {
    let (service, file) = text
        .split_once('=')
        .ok_or("write it SERVICE=FILE, such as build-svc=build.yaml")?;
    Ok((service.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
