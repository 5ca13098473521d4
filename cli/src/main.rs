//! `slipway`: the command line of all four services, and all of them in one process for development.

mod args;
mod canary;
mod commands;
mod context;
mod evidence;
mod failure;
mod follow;
mod format;
mod out;
mod progress;
mod readable;
mod retry;
mod waterfall;

use std::process::ExitCode;

use crate::{
    args::{Cli, Command},
    context::Context,
    failure::Failure,
};

fn main() -> ExitCode {
    // The cluster of `slipway dev` starts this program again as the guard of each pod.
    #[cfg(feature = "dev")]
    local_cluster::shim::run_if_requested();
    let cli = args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(Outcome::Happened) => ExitCode::SUCCESS,
        Ok(Outcome::DidNot) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the requested thing happened. Errors are a third case: it is not known, or was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Happened,
    DidNot,
}

async fn run(cli: Cli) -> Result<Outcome, Failure> {
    let globals = cli.globals;
    match cli.command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => Box::pin(commands::dev::run(args)).await,
        #[cfg(feature = "dev")]
        Command::Demo(args) => Box::pin(commands::demo::run(args)).await,
        Command::Release(command) => {
            commands::release::run(&Context::load(&globals)?, globals.output, command).await
        }
        Command::Deployment(command) => {
            commands::deployment::run(&Context::load(&globals)?, globals.output, command).await
        }
        Command::Approval(command) => {
            commands::approval::run(&Context::load(&globals)?, globals.output, command).await
        }
        Command::Build(command) => {
            commands::build::run(&Context::load(&globals)?, globals.output, command).await
        }
        Command::Gitops(command) => commands::gitops::run(&globals, *command).await,
        Command::Events(command) => {
            commands::events::run(&Context::load(&globals)?, globals.output, command).await
        }
        Command::Parked(command) => {
            commands::parked::run(&Context::load(&globals)?, globals.output, command).await
        }
        #[cfg(feature = "dev")]
        Command::Config(command) => commands::config::run(command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut args::command(), "slipway", &mut std::io::stdout());
            Ok(Outcome::Happened)
        }
    }
}
