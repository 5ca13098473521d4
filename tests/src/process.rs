//! Programs under test as child processes that never outlive the test.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How many of a process' last lines are shown when a test fails.
const SHOWN_LINES: usize = 60;
/// How often a child is checked for having ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running program with its output in a file. Killed by its id when dropped; when the test panics, its last lines are
/// shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`; the kernel kills it when the test process dies. Both outputs are appended to `log`.
    pub fn start(
        name: &str,
        program: &Path,
        log: &Path,
        arguments: &[&OsStr],
        environment: &[(&str, String)],
    ) -> Self {
        // `setpriv` becomes the program, so that the child's id is the program's.
        let mut command = Command::new(slipway_testbed::tool("setpriv").unwrap());
        command
            .arg("--pdeathsig=KILL")
            .arg("--")
            .arg(program)
            .args(arguments);
        for name in [
            "SLIPWAY_CONTEXT",
            "SLIPWAY_USER",
            "SLIPWAY_CONFIG",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ] {
            command.env_remove(name);
        }
        let output = File::options().create(true).append(true).open(log).unwrap();
        command
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0);
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        loop {
            match self.has_ended() {
                Some(status) => return status,
                // The standard library does not have an event for it.
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(Duration::from_secs(60), self.end()).await {
            Ok(status) => status,
            Err(_) => panic!(
                "{} does not end when asked to; its last output:\n{}",
                self.name,
                self.last_output()
            ),
        }
    }

    /// Kills it as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        if self.has_ended().is_none() {
            self.signal(Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    /// The last lines that it wrote.
    pub fn last_output(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- last output of {}:\n{}", self.name, self.last_output());
        }
    }
}

/// Whether a process ended as by `kill -9` or by killing itself, rather than by exiting.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// The processes, other than this one, that run a program of `folder` or name it in their arguments.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let text = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.bytes().all(|b| b.is_ascii_digit()) || id == std::process::id().to_string() {
            continue;
        }
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if program.starts_with(folder) || words.contains(&text) {
            found.push(format!("{id} {words}"));
        }
    }
    found
}

/// Waits until nothing from `folder` is running any more.
///
/// # Panics
/// When something still is after `limit`.
pub async fn nothing_runs_in(folder: &Path, limit: Duration) {
    let began = Instant::now();
    loop {
        let left = processes_in(folder);
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < limit, "still running: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Spawns from one thread that lives as long as the process: what matters to the kernel is the death of the *thread*
/// that forked, and a test's own thread ends with its test.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let gone = || io::Error::other("the thread that starts programs is gone");
    let (reply, child) = mpsc::channel();
    let sent = orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply));
    sent.map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
