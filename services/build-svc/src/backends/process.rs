//! Child processes: each in a process group of its own, read line by line, killed as a group.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The longest line that is passed on, in bytes; the rest of a longer one is dropped.
pub(crate) const MAX_LINE: usize = 4096;
/// How long output is still read after the program has ended and its group was killed.
const DRAIN: Duration = Duration::from_secs(2);

/// One line of output, without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// The line was longer than [`MAX_LINE`], and its end was dropped.
    pub(crate) cut: bool,
}

/// A program with its arguments and its environment, which holds only what is set here and `PATH`.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: PathBuf,
    /// Where the process group's id is written, so that [`workspace`](super::workspace) can kill it after a crash.
    pub(crate) group_file: Option<PathBuf>,
}

impl Program {
    pub(crate) fn new(program: impl Into<OsString>, directory: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_owned(),
            group_file: None,
        }
    }

    pub(crate) fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot wait for {program}: {source}")]
    Wait { program: String, source: io::Error },
    #[error("cancelled")]
    Cancelled,
}

/// Kills the group when dropped, so that no process survives a future that is dropped early.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // ESRCH: no process is left.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// Runs a program to its end and gives each line of its standard output and error to `on_line` as it comes. The rest of
/// its process group is killed when the program has ended or `cancelled` fires.
pub(crate) async fn run(
    program: &Program,
    cancelled: &CancellationToken,
    on_line: &mut (dyn FnMut(Line) + Send),
) -> Result<ExitStatus, ProcessError> {
    let name = || {
        Path::new(&program.program)
            .file_name()
            .unwrap_or(&program.program)
            .to_string_lossy()
            .into_owned()
    };
    let start = |source| ProcessError::Start {
        program: name(),
        source,
    };
    if cancelled.is_cancelled() {
        return Err(ProcessError::Cancelled);
    }
    let mut child = Command::new(&program.program)
        .args(&program.arguments)
        .current_dir(&program.directory)
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into()),
        )
        .env("LC_ALL", "C.UTF-8")
        .envs(program.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .ok_or_else(|| start(io::Error::other("the process has no id")))?;
    let group = Group(Pid::from_raw(pid));
    if let Some(file) = &program.group_file {
        tokio::fs::write(file, format!("{pid}\n")).await.map_err(start)?;
    }
    let (sender, mut lines) = mpsc::channel(256);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(read_lines(stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(read_lines(stderr, sender.clone()));
    }
    drop(sender);
    let status = loop {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => break None,
            Some(line) = lines.recv() => on_line(line),
            status = child.wait() => break Some(status),
        }
    };
    drop(group);
    // The readers end once no process holds the pipes, and the whole group was killed.
    let rest = async {
        while let Some(line) = lines.recv().await {
            on_line(line);
        }
    };
    let _ = timeout(DRAIN, rest).await;
    match status {
        Some(status) => status.map_err(|source| ProcessError::Wait {
            program: name(),
            source,
        }),
        None => {
            let _ = child.wait().await;
            Err(ProcessError::Cancelled)
        }
    }
}

/// Splits at `\n` and `\r` (progress bars), with bounded memory.
async fn read_lines(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Line>) {
    let mut buffer = [0; 8192];
    let mut line: Vec<u8> = Vec::new();
    let mut cut = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        for &byte in &buffer[..count] {
            if byte == b'\n' || byte == b'\r' {
                if !line.is_empty() || byte == b'\n' {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if to.send(Line { text, cut }).await.is_err() {
                        return;
                    }
                }
                line.clear();
                cut = false;
            } else if line.len() < MAX_LINE {
                line.push(byte);
            } else {
                cut = true;
            }
        }
    }
    if !line.is_empty() {
        let _ = to
            .send(Line {
                text: String::from_utf8_lossy(&line).into_owned(),
                cut,
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_comes_line_by_line_and_bounded() {
        let script =
            "printf 'one\\ntwo\\rthree'; head -c 10000 /dev/zero | tr '\\0' x; echo; echo err >&2; exit 3";
        let program = Program::new("sh", Path::new("/")).args(["-c", script]);
        let mut lines = Vec::new();
        let status = run(&program, &CancellationToken::new(), &mut |line| lines.push(line))
            .await
            .unwrap();
        assert_eq!(status.code(), Some(3));
        let texts: Vec<_> = lines.iter().map(|line| (line.text.len(), line.cut)).collect();
        assert!(
            texts.contains(&(3, false)) && texts.contains(&(MAX_LINE, true)),
            "{texts:?}"
        );
        assert!(lines.iter().any(|line| line.text == "err") && lines.iter().any(|line| line.text == "two"));
    }

    #[tokio::test]
    async fn cancelling_kills_the_whole_group() {
        let program = Program::new("sh", Path::new("/")).args(["-c", "sleep 1000 & echo $!; wait"]);
        let cancelled = CancellationToken::new();
        let mut child = None;
        let stop = cancelled.clone();
        let outcome = run(&program, &cancelled, &mut |line| {
            child = line.text.parse::<i32>().ok();
            stop.cancel();
        })
        .await;
        assert!(matches!(outcome, Err(ProcessError::Cancelled)));
        let child = child.unwrap();
        // Gone, or a zombie that init has yet to collect; the kernel ends a grandchild in its own time.
        let gone = async {
            loop {
                let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
                if state.is_empty() || state.contains(") Z ") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone)
            .await
            .expect("the grandchild outlives its group");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let program = Program::new("/no/such/program", Path::new("/"));
        let error = run(&program, &CancellationToken::new(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("cannot start program: "), "{error}");
    }
}
