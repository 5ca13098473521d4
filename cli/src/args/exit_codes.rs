//! What the exit codes of each command mean, for its help.

use clap::Command;

/// A command, what 0 means, and what 1 means. 2 is a wrong command line everywhere.
const MEANINGS: &[(&str, &str, &str)] = &[
    (
        "dev",
        "stopped by SIGINT or SIGTERM",
        "could not start, or a service ended by itself",
    ),
    (
        "demo",
        "every claim of the demonstration holds",
        "one does not, or something is missing",
    ),
    ("release plan", "the plan was made", "it was refused"),
    (
        "release start",
        "the release was started; with --wait, it succeeded",
        "it was refused; with --wait, it ended otherwise: failed, rolled back or cancelled",
    ),
    ("release list", "listed", "could not be listed"),
    (
        "release get",
        "shown, whatever the release's status",
        "there is no such release",
    ),
    (
        "release watch",
        "the release succeeded",
        "it ended otherwise, or cannot be followed",
    ),
    (
        "release cancel",
        "it is being cancelled, or was; with --wait, it ended as cancelled",
        "it ended otherwise, or the request was refused",
    ),
    (
        "deployment start",
        "the deployment was started; with --wait, it succeeded",
        "it was refused; with --wait, it ended otherwise",
    ),
    ("deployment list", "listed", "could not be listed"),
    (
        "deployment get",
        "shown, whatever the deployment's status",
        "there is no such deployment",
    ),
    (
        "deployment watch",
        "the deployment succeeded",
        "it ended otherwise, or cannot be followed",
    ),
    (
        "deployment cancel",
        "cancelled",
        "it ended otherwise, or the request was refused",
    ),
    (
        "deployment rollback",
        "the rollback was started; with --wait, it succeeded",
        "it was refused; with --wait, it ended otherwise",
    ),
    (
        "deployment promote",
        "the rollout was promoted",
        "it was not, or the request was refused",
    ),
    (
        "deployment abort",
        "the rollout was aborted",
        "it was not, or the request was refused",
    ),
    (
        "deployment live",
        "shown, whatever its health",
        "it cannot be read",
    ),
    (
        "approval list",
        "listed, even if none is pending",
        "could not be listed",
    ),
    (
        "approval get",
        "shown, whatever its status",
        "there is no such approval",
    ),
    (
        "approval approve",
        "your decision was recorded",
        "it was refused, or there was nothing or more than one approval to ask about",
    ),
    (
        "approval reject",
        "your decision was recorded",
        "it was refused, or there was nothing or more than one approval to ask about",
    ),
    (
        "build log",
        "printed, whatever the build's status",
        "it cannot be read",
    ),
    (
        "gitops edit",
        "edited, or nothing had to be; with --diff, the same",
        "an edit was refused and nothing was written; with --check, something would change",
    ),
    (
        "gitops apply",
        "pushed to the branch; with --no-wait, recorded",
        "it was refused, or ended otherwise",
    ),
    (
        "gitops promote",
        "pushed to the branch; with --no-wait, recorded",
        "it was refused, or ended otherwise",
    ),
    (
        "gitops revert",
        "pushed to the branch; with --no-wait, recorded",
        "it was refused, or ended otherwise",
    ),
    (
        "gitops cancel",
        "cancelled",
        "it was pushed before, or the request was refused",
    ),
    ("gitops list", "listed", "could not be listed"),
    (
        "gitops diff",
        "compared, with or without a difference",
        "could not be compared",
    ),
    (
        "gitops get",
        "shown, whatever the change's status",
        "there is no such change",
    ),
    (
        "gitops watch",
        "it was pushed to the branch",
        "it ended otherwise, or cannot be followed",
    ),
    (
        "events tail",
        "the reader of the output went away",
        "the stream ended, or cannot be opened",
    ),
    (
        "parked list",
        "listed, from every service",
        "a service did not answer, and what it has parked is missing",
    ),
    ("parked get", "shown", "nothing of that kind and id is parked"),
    (
        "parked resume",
        "resumed",
        "nothing of that kind and id is parked, or the request was refused",
    ),
    (
        "config validate",
        "every file is valid",
        "one is not; each mistake is printed",
    ),
    ("completions", "printed", "could not be printed"),
];

/// Adds the exit codes to the help of each command that does something.
pub(super) fn explained(command: Command) -> Command {
    under(command, "")
}

fn under(command: Command, path: &str) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|one| one.get_name().to_owned())
        .collect();
    if names.is_empty() {
        return match MEANINGS.iter().find(|(name, ..)| *name == path) {
            Some((_, happened, did_not)) => with_codes(command, happened, did_not),
            None => command,
        };
    }
    names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |one| under(one, path.trim_start()))
    })
}

fn with_codes(command: Command, happened: &str, did_not: &str) -> Command {
    let codes = format!("Exit codes:\n  0  {happened}\n  1  {did_not}\n  2  the command line is wrong");
    let examples = command.get_after_long_help().map(ToString::to_string);
    let command = command.after_help(codes.clone());
    match examples {
        Some(examples) => command.after_long_help(format!("{examples}\n{codes}")),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, CommandFactory};

    use super::MEANINGS;

    fn leaves(command: &Command, path: &str, found: &mut BTreeSet<String>) {
        for one in command.get_subcommands() {
            let path = format!("{path} {}", one.get_name());
            if one.has_subcommands() {
                leaves(one, &path, found);
            } else {
                found.insert(path.trim_start().to_owned());
            }
        }
    }

    #[test]
    fn each_command_has_a_row_and_each_row_a_command() {
        let mut commands = BTreeSet::new();
        leaves(&crate::args::Cli::command(), "", &mut commands);
        let rows = MEANINGS.iter().map(|(name, ..)| *name);
        // These are left out of a program without the services.
        let absent =
            |name: &&str| cfg!(not(feature = "dev")) && ["dev", "demo", "config validate"].contains(name);
        let rows: BTreeSet<String> = rows.filter(|name| !absent(name)).map(str::to_owned).collect();
        assert_eq!(rows, commands);
    }
}
