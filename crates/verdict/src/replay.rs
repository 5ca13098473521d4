//! Replays a recorded rollout: our verdicts on each state next to what `kubectl rollout status`, or the tool of the
//! controller that carried it out, said about it ([`controllers`]).
//!
//! With the additions off the two must agree at each of kubectl's lines and in its exit code; kubectl's own timeout
//! corresponds to a rollout that is still progressing, and a deadline. With the additions on a rollout may fail earlier
//! or succeed later, never the opposite.

mod align;
mod cluster;
pub mod command;
mod controllers;
mod oracle;
pub mod recording;
mod states;
mod targets;
mod timeline;

use slipway_model::Timestamp;

use crate::{Verdict, Verify, kubectl};

use command::Command;
use recording::{KubectlEvent, ReadError, Recording, What};

/// How the additions are set for the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub verify: Verify,
}

/// One run of a tool that follows a rollout, and our verdicts on the same rollout.
#[derive(Debug, Clone)]
pub struct Run {
    /// What it is compared with: `kubectl rollout status`, or a controller's own tool.
    pub tool: String,
    /// The tool and its arguments.
    pub command: String,
    /// In the order of time.
    pub rows: Vec<Row>,
    /// The tool's exit code; `None` if it did not end by itself within the recording.
    pub exit: Option<i64>,
    /// Where we and the tool differ but must not. Each entry has the time and both texts.
    pub disagreements: Vec<String>,
    /// Where we differ on purpose.
    pub differences: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The additions' judgement when it ended, and when.
    pub additions: Option<(i64, Verdict)>,
}

/// What was said at one time. Empty if there was nothing new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Milliseconds since the recording's start.
    pub t_ms: i64,
    pub told: String,
    /// Ours without the additions.
    pub plain: String,
    /// Ours with them.
    pub full: String,
}

/// Replays every run of kubectl, and of controllers' tools, in the recording.
///
/// # Errors
/// [`ReadError::Object`], when a watch delivered something that is not of its kind.
pub fn replay(recording: &Recording, options: &Options) -> Result<Vec<Run>, ReadError> {
    let start = clock(recording);
    let mut compared = Vec::new();
    for (tool, run) in runs(recording) {
        // Other commands of kubectl (restart, undo) are not judged here.
        let command = Some(&run)
            .filter(|_| tool == KUBECTL)
            .and_then(|run| command::read(&run.args));
        compared.extend(match command {
            Some(command) => Some(timeline::compare(recording, &run, &command, options, start)?),
            None => controllers::compare(recording, tool, run, options, start)?,
        });
    }
    Ok(compared)
}

/// The name under which kubectl's runs are kept beside those of other tools.
const KUBECTL: &str = "kubectl";

/// A verdict in one line.
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Progressing { message, .. } => message.clone(),
        Verdict::Complete => "COMPLETE".to_owned(),
        Verdict::Failed(failure) => format!("FAILED {}: {}", failure.reason.code(), failure.message),
    }
}

/// A run as it was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) args: Vec<String>,
    pub(crate) started: i64,
    pub(crate) lines: Vec<(i64, String)>,
    /// When, and with which code if it ended by itself.
    pub(crate) exited: Option<(i64, Option<i64>)>,
}

/// The runs of all tools, in the order of their beginning.
fn runs(recording: &Recording) -> Vec<(String, Recorded)> {
    let mut runs: Vec<(String, String, Recorded)> = Vec::new();
    let mut changed = 0;
    for line in &recording.lines {
        let (tool, id, event) = match &line.what {
            What::Kubectl { run, event } => (KUBECTL, run, event),
            What::Oracle { tool, run, event } => (tool.as_str(), run, event),
            What::Action(_) => {
                changed = line.t_ms;
                continue;
            }
            What::Watch { .. } | What::Other => continue,
        };
        if let KubectlEvent::Started { args } = event {
            let run = Recorded {
                args: args.clone(),
                started: line.t_ms,
                lines: Vec::new(),
                exited: None,
            };
            runs.push((tool.to_owned(), id.clone(), run));
            continue;
        }
        // The last one of that name that has not ended.
        let open = runs
            .iter_mut()
            .rev()
            .find(|(other, other_id, _)| other == tool && other_id == id);
        let Some((_, _, run)) = open.filter(|(_, _, run)| run.exited.is_none()) else {
            // What belongs to no run of kubectl is not judged; a status may have been looked up without waiting.
            if tool != KUBECTL
                && let KubectlEvent::Line { text } = event
            {
                let run = Recorded {
                    args: Vec::new(),
                    started: changed,
                    lines: vec![(line.t_ms, text.clone())],
                    exited: Some((line.t_ms, None)),
                };
                runs.push((tool.to_owned(), id.clone(), run));
            }
            continue;
        };
        match event {
            KubectlEvent::Line { text } => {
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                run.lines.extend(lines.map(|text| (line.t_ms, text.to_owned())));
            }
            KubectlEvent::Exited { code, .. } => run.exited = Some((line.t_ms, *code)),
            KubectlEvent::Started { .. } | KubectlEvent::Other => {}
        }
    }
    runs.into_iter().map(|(tool, _, run)| (tool, run)).collect()
}

/// When the recording began, by the cluster's own clock: objects were created before they were seen.
fn clock(recording: &Recording) -> Timestamp {
    let created = recording.lines.iter().filter_map(|line| match &line.what {
        What::Watch { event, .. } if event.kind == "ADDED" => {
            let text = event.object["metadata"]["creationTimestamp"].as_str()?;
            let created: Timestamp = text.parse().ok()?;
            Some(created.as_micros() - line.t_ms * 1000)
        }
        _ => None,
    });
    Timestamp::from_micros(created.max().unwrap_or_default())
}

/// A line on standard error that is not an answer: log lines of the client library, warnings of the API server.
fn is_noise(line: &str) -> bool {
    let logged = line.len() > 5
        && line.starts_with(['I', 'W', 'E', 'F'])
        && line.as_bytes()[1..5].iter().all(u8::is_ascii_digit);
    logged || line.starts_with("Warning: ") || line.starts_with("Flag --")
}

/// kubectl could not ask, or was used incorrectly: it says nothing about the rollout.
fn is_own_failure(line: &str) -> bool {
    let server = line.starts_with("Error from server") && !line.starts_with("Error from server (NotFound)");
    server
        || line.starts_with("Unable to connect to the server")
        || line.starts_with("The connection to the server")
        || line.starts_with("error: You must be logged in")
        || line.starts_with("error: unknown ")
        || line.starts_with("error: the server doesn't have a resource type")
        || line.starts_with("error: required resource not specified")
        || line.starts_with("error: no status viewer")
        || line.starts_with("No resources found")
}

fn timed_out() -> String {
    kubectl::Error::TimedOut.printed()
}

fn title(run: &Recorded, command: &Command) -> String {
    let mut title = format!("kubectl {}", run.args.join(" ").trim_start_matches("kubectl "));
    if let Some(namespace) = &command.namespace
        && !title.contains(namespace.as_str())
    {
        title = format!("{title} in {namespace}");
    }
    title
}

/// Merges what was said at about the same time into one row.
fn beside(mut rows: Vec<Row>) -> Vec<Row> {
    const SAME_MS: i64 = 150;
    rows.sort_by_key(|row| row.t_ms);
    let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        let fits = |one: &str, other: &str| one.is_empty() || other.is_empty();
        match merged.last_mut() {
            Some(last)
                if row.t_ms - last.t_ms <= SAME_MS
                    && fits(&last.told, &row.told)
                    && fits(&last.plain, &row.plain)
                    && fits(&last.full, &row.full) =>
            {
                last.told.push_str(&row.told);
                last.plain.push_str(&row.plain);
                last.full.push_str(&row.full);
            }
            _ => merged.push(row),
        }
    }
    merged
}
