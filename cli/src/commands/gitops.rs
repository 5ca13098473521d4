//! `slipway gitops …`

mod change;
mod edit;
mod edits;
mod environments;
mod recognise;
mod working_copy;

use crate::{
    Outcome,
    args::{GitopsCommand, Globals},
    context::Context,
    failure::Failure,
};

pub(crate) async fn run(globals: &Globals, command: GitopsCommand) -> Result<Outcome, Failure> {
    // Local files do not need a service.
    if let GitopsCommand::Edit(args) = command {
        return edit::run(globals.output, &args);
    }
    let context = Context::load(globals)?;
    match command {
        GitopsCommand::Diff(args) => environments::run(&context, globals.output, args).await,
        command => change::run(&context, globals.output, command).await,
    }
}
