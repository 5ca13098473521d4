//! Child processes: arguments never pass through a shell, output and time are limited, and the whole process group ends
//! with the call, however it ends.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::{Signal, killpg};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A program and everything that it is given; nothing is inherited except what is named here.
pub(crate) struct Program {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    input: Vec<u8>,
    /// Standard output beyond this is an error.
    pub(crate) max_output: usize,
    pub(crate) timeout: Duration,
    /// It gets no more memory than this, in bytes.
    pub(crate) max_memory: Option<u64>,
}

/// Without the environment, which may contain secrets.
impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// The result of a program that ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    /// Its first 64 KiB.
    pub(crate) stderr: String,
}

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} took longer than {timeout:?}")]
    Timeout { program: String, timeout: Duration },
    #[error("{program} wrote more than {limit} bytes")]
    TooMuch { program: String, limit: usize },
    #[error("{program}: {source}")]
    Io { program: String, source: std::io::Error },
}

const MAX_STDERR: usize = 64 * 1024;

impl Program {
    pub(crate) fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            input: Vec::new(),
            max_output: 4 * 1024 * 1024,
            timeout: Duration::from_secs(120),
            max_memory: None,
        }
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Passes on a variable of our own, if it is set.
    pub(crate) fn inherit(self, keys: &[&str]) -> Self {
        keys.iter()
            .fold(self, |program, key| match std::env::var_os(key) {
                Some(value) => program.env(key, value),
                None => program,
            })
    }

    pub(crate) fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// What it reads from standard input.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be run, or has to be killed.
    pub(crate) async fn run(self) -> Result<Output, ProcessError> {
        let program = self
            .program
            .file_name()
            .unwrap_or(self.program.as_os_str())
            .to_string_lossy()
            .into_owned();
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(if self.input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn().map_err(|source| ProcessError::Start {
            program: program.clone(),
            source,
        })?;
        // Dropped on every path, also when the caller gives up.
        let _group = Group(child.id());
        if let Some(limit) = self.max_memory {
            limit_memory(child.id(), limit).map_err(|source| ProcessError::Io {
                program: program.clone(),
                source,
            })?;
        }
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let limit = self.max_output;
        let work = async {
            let (stdout, stderr, ()) = tokio::try_join!(
                read(stdout, limit, true),
                read(stderr, MAX_STDERR, false),
                write(stdin, &self.input)
            )?;
            let status = child.wait().await?;
            Ok::<_, std::io::Error>((stdout, stderr, status))
        };
        match tokio::time::timeout(self.timeout, work).await {
            Err(_) => Err(ProcessError::Timeout {
                program,
                timeout: self.timeout,
            }),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::FileTooLarge => {
                Err(ProcessError::TooMuch { program, limit })
            }
            Ok(Err(source)) => Err(ProcessError::Io { program, source }),
            Ok(Ok((stdout, stderr, status))) => Ok(Output {
                success: status.success(),
                stdout,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }),
        }
    }
}

/// It has hardly begun, and asks for its memory later.
fn limit_memory(pid: Option<u32>, limit: u64) -> std::io::Result<()> {
    // None would be this process itself.
    let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
        return Ok(());
    };
    let limits = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    match prlimit(Some(pid), Resource::Data, limits) {
        // It is done already.
        Err(error) if error == rustix::io::Errno::SRCH => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Writes all of it and closes the stream. A program that stops reading explains why by its own exit.
async fn write(stream: Option<impl AsyncWrite + Unpin>, input: &[u8]) -> std::io::Result<()> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    match stream.write_all(input).await {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Reads up to `limit` bytes; more than that is an error, or read and discarded.
async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
    strict: bool,
) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(kept);
        }
        let room = limit.saturating_sub(kept.len());
        if strict && count > room {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// Kills a process group when it goes out of scope: anything that a program left running is of no use to anyone.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // Usually it is gone already.
            let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ProcessError, Program};

    #[tokio::test]
    async fn output_and_time_are_bounded() {
        let mut program = Program::new("/bin/sh").args(["-c", "echo ok; echo no >&2; exit 3"]);
        program.max_output = 3;
        let output = program.run().await.unwrap();
        assert_eq!(
            (output.success, output.stdout.as_slice(), output.stderr.as_str()),
            (false, &b"ok\n"[..], "no\n")
        );

        let mut program = Program::new("/bin/sh").args(["-c", "echo long"]);
        program.max_output = 3;
        assert!(matches!(program.run().await, Err(ProcessError::TooMuch { .. })));

        let mut program = Program::new("/bin/sh")
            .args(["-c", "sleep 1000 & sleep 1000"])
            .inherit(&["PATH"]);
        program.timeout = Duration::from_millis(50);
        assert!(matches!(program.run().await, Err(ProcessError::Timeout { .. })));

        assert!(matches!(
            Program::new("/no/such/program").run().await,
            Err(ProcessError::Start { .. })
        ));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        // Until there is none left, or more of it than allowed.
        let grow = "i=0; x=12345678; while [ $i -lt 24 ]; do x=$x$x; i=$((i+1)); done";
        let script = format!("sleep 0.2; {grow}; exit 0");
        let mut program = Program::new("/bin/sh").args(["-c", &script]).inherit(&["PATH"]);
        program.max_memory = Some(32 << 20);
        assert!(!program.run().await.unwrap().success);
    }

    #[tokio::test]
    async fn input_is_written_while_output_is_read() {
        let input: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let output = Program::new("/bin/cat").input(input.clone()).run().await.unwrap();
        assert!(output.success && output.stdout == input);

        // If the program closes its input, it has its own reason.
        let closed = Program::new("/bin/sh")
            .args(["-c", "exec <&-; exit 4"])
            .input(input);
        assert!(!closed.run().await.unwrap().success);
    }

    #[tokio::test]
    async fn nothing_is_inherited() {
        let output = Program::new("/bin/sh")
            .args(["-c", "export -p"])
            .env("A", "1")
            .run()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("A="), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
    }
}
