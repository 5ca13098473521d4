//! The command line.

mod deployment;
mod exit_codes;
mod gitops;
mod image;

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
pub(crate) use deployment::{DeployArgs, DeploymentCommand, RollbackArgs};
pub(crate) use gitops::{
    ApplyArgs, ChangeArgs, ChangeStatus, DiffArgs, EditArgs, GitopsCommand, ImageArgs, ListChangesArgs,
    PromoteArgs, StartChangeArgs,
};
pub(crate) use image::ImageOption;

use crate::format::Format;

/// Take commits to verified rollouts on Kubernetes.
///
/// Exit codes: 0 success; 1 failure; 2 invalid command line. The help of each command says what success is.
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
    /// File with the addresses of the services and your tokens [default: .slipway/context.yaml].
    #[arg(long, global = true, env = "SLIPWAY_CONTEXT", value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
    /// Act as this user of the context file instead of its `user`.
    #[arg(long = "as", global = true, env = "SLIPWAY_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Output format: tables for people, protobuf JSON or the same as YAML for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and text for people.
    Table,
    /// Protobuf JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

impl Output {
    /// The form for programs; `None` for people.
    pub(crate) const fn format(self) -> Option<Format> {
        match self {
            Self::Table => None,
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
        }
    }
}

/// The whole command line, with the exit codes in the help of each command.
pub(crate) fn command() -> clap::Command {
    exit_codes::explained(Cli::command())
}

/// Reads the command line of this process. One that is wrong, and one that asks for help, ends it.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all four services, a local Kubernetes cluster and an image store in one process.
    #[cfg(feature = "dev")]
    Dev(DevArgs),
    /// Run a demonstration: two commits, three environments, one rollback. Leaves nothing running.
    #[cfg(feature = "dev")]
    Demo(DemoArgs),
    /// Plan, start, watch and cancel releases.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Inspect, start, control and roll back deployments.
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// List approvals and decide on them.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Show build logs.
    #[command(subcommand)]
    Build(BuildCommand),
    /// Change images in GitOps repositories, compare environments, and revert changes.
    #[command(subcommand)]
    Gitops(Box<GitopsCommand>),
    /// Follow the events of all services.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Inspect and resume work that is parked after ten failed attempts.
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Validate configuration files.
    #[cfg(feature = "dev")]
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script: slipway completions bash > /etc/bash_completion.d/slipway
    Completions {
        /// The shell that the script is for.
        shell: clap_complete::Shell,
    },
}

#[cfg(feature = "dev")]
#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Directory of all state; used again at the next start.
    #[arg(long, default_value = ".slipway", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// First of the four ports of a new directory; 0 picks free ports.
    #[arg(long, default_value_t = 7701, value_name = "PORT")]
    pub(crate) port: u16,
    /// Run a controller for Argo CD Applications in the local cluster.
    #[arg(long, conflicts_with = "kube_context")]
    pub(crate) argo_cd: bool,
    /// Deploy to this context of your kubeconfig instead of the local cluster.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) kube_context: Option<String>,
    /// OTLP endpoint that receives traces, such as http://127.0.0.1:4317.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[cfg(feature = "dev")]
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Deploy through Argo CD Applications: dev syncs automatically, the other environments on request.
    #[arg(long)]
    pub(crate) argo_cd: bool,
    /// Directory of all files [default: a new one in the temporary directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Show what a release would do, without starting it.
    Plan(PlanArgs),
    /// Start a release.
    Start(StartArgs),
    /// List releases, newest first.
    List {
        /// Only releases of this service.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Maximum number of releases.
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        limit: i32,
    },
    /// Show a release as a waterfall; with -o json or yaml, the resource.
    Get {
        /// The release's id.
        id: String,
    },
    /// Follow a release until it ends. Off a terminal, a line on standard error for each step as it begins and ends.
    Watch {
        /// The release's id.
        id: String,
    },
    /// Cancel a release, and roll back the environment that it is deploying to.
    Cancel {
        /// The release's id.
        id: String,
        /// The reason, which is recorded.
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
        /// Wait until the release has ended.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArgs {
    /// The service, as the catalog names it.
    pub(crate) service: String,
    /// The full commit id.
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: String,
    /// The commit's branch; selects the environments unless --env does.
    #[arg(long, default_value = "", value_name = "BRANCH", hide_default_value = true)]
    pub(crate) branch: String,
    /// The commit's Git tag: it becomes a tag of the image, and a part of its version where the catalog says so.
    #[arg(long, default_value = "", value_name = "TAG", hide_default_value = true)]
    pub(crate) git_tag: String,
    /// Only this environment; may be repeated.
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) environments: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Follow the release until it ends. Off a terminal, a line on standard error for each step as it begins and ends.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Release this image, which was built from the commit before, instead of building: REPOSITORY@sha256:…
    #[arg(long, value_name = "REPOSITORY@DIGEST", value_parser = image_by_digest)]
    pub(crate) image: Option<(String, String)>,
    /// Build the commit again, even if its image exists already.
    #[arg(long, conflicts_with = "image")]
    pub(crate) rebuild: bool,
    /// Idempotency key: repeated requests with one key start one release [default: a new key].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
    /// Start only if the plan has this hash; `slipway release plan` shows it.
    #[arg(long, default_value = "", value_name = "HASH", hide_default_value = true)]
    pub(crate) plan_hash: String,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List pending approvals, newest first.
    List {
        /// Include approvals that are decided.
        #[arg(long, conflicts_with = "mine")]
        all: bool,
        /// Only approvals that wait for you: you may decide on them, and have not yet.
        #[arg(long)]
        mine: bool,
        /// Only approvals for this service.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Maximum number of approvals.
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        limit: i32,
    },
    /// Show an approval: its subject, its decisions, and who may decide.
    Get {
        /// The approval's id.
        id: String,
    },
    /// Approve. Without an id, asks about the approval that waits for you, if it is the only one.
    Approve(DecideArgs),
    /// Reject. Without an id, asks about the approval that waits for you, if it is the only one.
    Reject(DecideArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DecideArgs {
    /// The approval's id, such as apr-01a1fd8b…; `approval list` shows the ids [default: the only one that waits for you,
    /// which is shown and asked about].
    pub(crate) id: Option<String>,
    /// A comment, which is recorded.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) comment: String,
    /// The approval's `binding` as you reviewed it [default: the present one, which is shown first].
    #[arg(long, value_name = "HASH", requires = "id")]
    pub(crate) binding: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// Print the log of a build.
    Log {
        /// The build's id.
        id: String,
        /// Follow the log until the build ends.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Print events as they happen.
    Tail {
        /// Only events of this release.
        #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
        release: String,
        /// Begin with the oldest event instead of now.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// List what is parked in all services, newest first.
    List {
        /// Only this kind: build, change, branch, approval, release or deployment.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Maximum number of entries.
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        limit: u32,
    },
    /// Show one entry with its whole state.
    Get {
        /// Its kind, such as release.
        kind: String,
        /// Its id.
        id: String,
    },
    /// Retry at once; requires the action `operate`.
    Resume {
        /// Its kind, such as release.
        kind: String,
        /// Its id.
        id: String,
    },
}

#[cfg(feature = "dev")]
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Validate catalogs and the configuration files of services.
    Validate {
        /// A catalog; may be repeated.
        #[arg(long, value_name = "FILE")]
        catalog: Vec<PathBuf>,
        /// A service and its configuration file, such as build-svc=build.yaml; may be repeated.
        #[arg(long = "config", value_name = "SERVICE=FILE", value_parser = service_file)]
        configs: Vec<(String, PathBuf)>,
        /// A GitOps repository of the catalogs and a checkout of it, such as platform=../platform: also warns where
        /// timeout.deploy is shorter than the steps of a canary; may be repeated.
        #[arg(long = "checkout", value_name = "REPOSITORY=FOLDER", value_parser = repository_folder)]
        checkouts: Vec<(String, PathBuf)>,
    },
}

/// An image by its repository and digest.
fn image_by_digest(text: &str) -> Result<(String, String), String> {
    match text.split_once('@') {
        Some((repository, digest)) if !repository.is_empty() && digest.starts_with("sha256:") => {
            Ok((repository.to_owned(), digest.to_owned()))
        }
        _ => Err("expected REPOSITORY@sha256:DIGEST, such as registry.example/shop@sha256:…".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(feature = "dev")]
fn repository_folder(text: &str) -> Result<(String, PathBuf), String> {
    let (repository, folder) = text
        .split_once('=')
        .ok_or("expected REPOSITORY=FOLDER, such as platform=../platform")?;
    Ok((repository.to_owned(), folder.into()))
}

#[cfg(feature = "dev")]
fn service_file(text: &str) -> Result<(String, PathBuf), String> {
    let (service, file) = text
        .split_once('=')
        .ok_or("expected SERVICE=FILE, such as build-svc=build.yaml")?;
    Ok((service.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }

    /// Each command of the built tree with its path, such as `slipway approval approve`.
    fn each(command: &Command, path: &str, check: &mut impl FnMut(&Command, &str)) {
        let path = format!("{path} {}", command.get_name());
        check(command, path.trim_start());
        // `help`, which clap adds itself, has a copy of the tree.
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
            each(subcommand, &path, check);
        }
    }

    fn built() -> Command {
        let mut command = super::command();
        command.build();
        command
    }

    /// As it stands in `--help`, so that an argument that is shown without a text is found however it came in.
    #[test]
    fn every_command_and_argument_has_a_help_text() {
        let said = |text: Option<String>| text.is_some_and(|text| !text.trim().is_empty());
        let mut arguments = 0;
        each(&built(), "", &mut |command, path| {
            let about = command.get_about().map(ToString::to_string);
            assert!(said(about), "{path}");
            for argument in command.get_arguments() {
                arguments += 1;
                let id = argument.get_id();
                let help = argument.get_help().or(argument.get_long_help());
                assert!(said(help.map(ToString::to_string)), "{path}: {id}");
                for value in values(argument) {
                    // The shells of completions are clap's own.
                    if path != "slipway completions" {
                        assert!(said(value.1), "{path}: {id}={}", value.0);
                    }
                }
            }
        });
        assert!(arguments > 100, "{arguments}");
    }

    /// The values that an argument allows, with their texts; none for a switch.
    fn values(argument: &Arg) -> Vec<(String, Option<String>)> {
        if !argument.get_action().takes_values() {
            return Vec::new();
        }
        let values = argument.get_possible_values().into_iter();
        values
            .map(|value| {
                let help = value.get_help().map(ToString::to_string);
                (value.get_name().to_owned(), help)
            })
            .collect()
    }

    #[test]
    fn the_help_of_each_command_has_its_exit_codes() {
        each(&built(), "", &mut |command, path| {
            if command.has_subcommands() {
                return;
            }
            for help in [command.clone().render_help(), command.clone().render_long_help()] {
                let help = help.to_string();
                assert_eq!(help.matches("Exit codes:").count(), 1, "{path}:\n{help}");
            }
        });
    }

    #[test]
    fn images_are_named_by_digest() {
        let image = super::image_by_digest;
        assert_eq!(
            image("r.example/shop@sha256:ab"),
            Ok(("r.example/shop".to_owned(), "sha256:ab".to_owned()))
        );
        for bad in [
            "r.example/shop",
            "r.example/shop:1",
            "@sha256:ab",
            "shop@",
            "shop@md5:ab",
        ] {
            assert!(
                image(bad).unwrap_err().contains("REPOSITORY@sha256:DIGEST"),
                "{bad}"
            );
        }
    }
}
