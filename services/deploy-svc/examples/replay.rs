//! Prints our verdicts on a recorded rollout beside what `kubectl rollout status`, or the tool of the controller that
//! carried it out, said of it.
//!
//! Exit codes: 0 all runs agree, 1 one does not, 2 a file cannot be read.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use flate2::read::MultiGzDecoder;
use slipway_verdict::{
    Verify,
    replay::{Options, Run, recording, replay, words},
};

/// A recording is read up to this size, unpacked: a larger file is not a recording of a rollout.
const LONGEST: u64 = 1 << 30;
/// Columns of output where there is no terminal to ask.
const WIDTH: u16 = 160;

/// Replays recorded rollouts: what Slipway says of each state, beside what the tool for it said.
///
/// The tools are `kubectl rollout status`, `kubectl wait` for Jobs, `argocd app wait`, `kubectl argo rollouts status` and
/// the phase of a Canary. The recording's watch events are judged one by one, twice: without additions, where the
/// verdict must agree with the tool at each of its lines and in its exit code, and with them (image digests, faults that
/// do not heal, someone else's update, the workloads of an Application), where a rollout may fail earlier or succeed
/// later than the tool says, never the opposite. Where it differs on purpose, the difference is named.
#[derive(Parser, Debug)]
#[command(name = "replay", after_long_help = RECORDING)]
struct Arguments {
    /// Recordings: JSON lines, gzipped or not
    #[arg(required = true, value_name = "FILE.jsonl.gz")]
    files: Vec<PathBuf>,
    /// What to print beside the tool's lines
    #[arg(long, value_enum, default_value_t = Additions::Both)]
    additions: Additions,
    /// Restarts of a container that make its crash loop a failure
    #[arg(long, default_value_t = Verify::default().crash_loop_restarts, value_name = "COUNT")]
    crash_loop_restarts: u32,
    /// Seconds that a pod may find no node, or not be created, before that is a failure
    #[arg(long, default_value_t = Verify::default().unschedulable_after.as_secs(), value_name = "SECONDS")]
    unschedulable_after: u64,
    /// Print disagreements alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Additions {
    Off,
    On,
    Both,
}

const RECORDING: &str = r#"A recording has one JSON object a line, in the order of time; t_ms are milliseconds since its start:
  {"kind":"header","scenario":"NAME","namespace":"NAMESPACE"}
  {"t_ms":0,"kind":"action","action":"set image",...}
  {"t_ms":6,"kind":"watch","resource":"deployments","event":{"type":"ADDED","object":{...}}}
  {"t_ms":7,"kind":"kubectl","event":"started","args":["rollout","status","deployment/shop","--timeout=40s"]}
  {"t_ms":9,"kind":"kubectl","event":"line","text":"Waiting for deployment ..."}
  {"t_ms":99,"kind":"kubectl","event":"exited","code":0}
  {"t_ms":46,"kind":"oracle","tool":"argocd","event":"started","args":["app","wait","shop","--timeout","90"]}
Tools of oracle lines: argocd, kubectl-argo-rollouts, canary status. Events are as those of kubectl.
Resources that matter: deployments, statefulsets, daemonsets, replicasets, pods, jobs, applications, rollouts, canaries,
events. Other kinds of lines are passed over.

Exit codes: 0 all runs agree with the tools; 1 one does not, and says where; 2 a file cannot be read or is not a recording.

Example: replay tests/data/recordings/*.jsonl.gz"#;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let (mut differ, mut bad) = (false, false);
    for path in &arguments.files {
        match one(path, &arguments, &mut out) {
            Ok(agrees) => differ |= !agrees,
            // A reader that has seen enough (`head`).
            Err(Fault::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(fault) => {
                bad = true;
                eprintln!("replay: {}: {fault}", path.display());
            }
        }
    }
    match (bad, differ) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::SUCCESS,
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("unpacks to more than {LONGEST} bytes")]
    TooLong,
    #[error("{0}")]
    Recording(#[from] recording::ReadError),
    #[error("it has no run of a tool that follows a rollout")]
    NoRun,
    #[error("cannot print: {0}")]
    Output(io::Error),
}

/// Whether all of the file's runs agree.
fn one(path: &Path, arguments: &Arguments, out: &mut impl Write) -> Result<bool, Fault> {
    let text = text(path)?;
    let recording = recording::read(text.lines())?;
    let options = Options {
        verify: Verify {
            crash_loop_restarts: arguments.crash_loop_restarts,
            unschedulable_after: std::time::Duration::from_secs(arguments.unschedulable_after),
            ..Verify::default()
        },
    };
    let runs = replay(&recording, &options)?;
    if runs.is_empty() {
        return Err(Fault::NoRun);
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut agrees = true;
    for (index, run) in runs.iter().enumerate() {
        agrees &= run.disagreements.is_empty();
        print(
            &format!("{name}, run {} of {}", index + 1, runs.len()),
            run,
            arguments,
            out,
        )
        .map_err(Fault::Output)?;
    }
    Ok(agrees)
}

fn text(path: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    BufReader::new(File::open(path)?)
        .take(LONGEST)
        .read_to_end(&mut bytes)?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let read = MultiGzDecoder::new(&bytes[..])
            .take(LONGEST + 1)
            .read_to_string(&mut text)?;
        if u64::try_from(read).is_ok_and(|read| read > LONGEST) {
            return Err(Fault::TooLong);
        }
    } else {
        text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    Ok(text)
}

fn print(title: &str, run: &Run, arguments: &Arguments, out: &mut impl Write) -> io::Result<()> {
    if arguments.quiet {
        for disagreement in &run.disagreements {
            writeln!(out, "{title}: {disagreement}")?;
        }
        return Ok(());
    }
    writeln!(out, "{title}: {}", run.command)?;
    writeln!(out, "{}", table(run, arguments.additions))?;
    for note in &run.notes {
        writeln!(out, "note: {note}")?;
    }
    if arguments.additions != Additions::Off
        && let Some((t, verdict)) = &run.additions
        && !matches!(verdict, slipway_verdict::Verdict::Complete)
        && let Some(last) = run.rows.iter().rfind(|row| !row.told.is_empty())
        && last.t_ms > *t
    {
        let early = seconds(last.t_ms - t);
        writeln!(
            out,
            "with additions: {} ({early} before {})",
            words(verdict),
            run.tool
        )?;
    }
    for difference in &run.differences {
        writeln!(out, "differs on purpose: {difference}")?;
    }
    for disagreement in &run.disagreements {
        writeln!(out, "DISAGREES: {disagreement}")?;
    }
    if run.disagreements.is_empty() {
        writeln!(out, "agrees")?;
    }
    writeln!(out)
}

fn table(run: &Run, additions: Additions) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    let mut head = vec!["time", run.tool.as_str()];
    if additions != Additions::On {
        head.push("slipway");
    }
    if additions != Additions::Off {
        head.push("slipway with additions");
    }
    table.set_header(head);
    for row in &run.rows {
        let mut cells = vec![Cell::new(seconds(row.t_ms)), Cell::new(&row.told)];
        if additions != Additions::On {
            cells.push(Cell::new(&row.plain));
        }
        if additions != Additions::Off {
            // Only where it says something of its own.
            let same = additions == Additions::Both && row.full == row.plain;
            cells.push(Cell::new(if same { "" } else { &row.full }));
        }
        // A row in which nothing is left to show.
        if cells[1..].iter().any(|cell| !cell.content().is_empty()) {
            table.add_row(cells);
        }
    }
    if let Some(code) = run.exit {
        table.add_row(vec![String::new(), format!("exit code {code}")]);
    }
    table
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1000, ms.rem_euclid(1000))
}
