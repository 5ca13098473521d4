//! Child processes that never outlive the test process.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};

use crate::{Error, Result, tool};

/// Far more than any of the servers takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Lines kept of what a server writes, for the error message.
const LOG_LINES: usize = 60;

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    end: Signal,
}

impl Server {
    /// Starts a server and waits until it reports that it is ready: until `ready` returns something for a line it
    /// writes.
    ///
    /// `end` is the signal that stops it, also when the test process dies.
    pub(crate) fn start<T: Send + 'static>(
        name: &'static str,
        mut command: Command,
        end: Signal,
        ready: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        // Both outputs go into one pipe: servers differ in which one they log to.
        let (output, writer) = io::pipe().map_err(Error::io("cannot make a pipe"))?;
        let second = writer.try_clone().map_err(Error::io("cannot make a pipe"))?;
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .process_group(0);
        let child = spawn(command).map_err(Error::io(format!("cannot start {name}")))?;
        let mut server = Self { child, end };

        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (announce, announced) = mpsc::channel();
        let kept = Arc::clone(&log);
        thread::spawn(move || follow(output, &kept, &ready, &announce));

        let why = match announced.recv_timeout(START_LIMIT) {
            Ok(value) => return Ok((server, value)),
            Err(mpsc::RecvTimeoutError::Disconnected) => "it ended",
            Err(mpsc::RecvTimeoutError::Timeout) => "it was given up",
        };
        server.stop();
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        Err(Error::NotServing {
            server: name,
            why,
            log: Vec::from(log.clone()).join("\n"),
        })
    }

    /// Ends the server and waits until it has ended. A second call does nothing.
    pub(crate) fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(&self.child, self.end);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// Reads to the end, so that a server never blocks on its output, and drops its sender there.
fn follow<T>(
    output: impl Read,
    log: &Mutex<VecDeque<String>>,
    ready: &impl Fn(&str) -> Option<T>,
    announce: &mpsc::Sender<T>,
) {
    let mut said = false;
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line).into_owned();
        if !said && let Some(value) = ready(&line) {
            said = true;
            let _ = announce.send(value);
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// A command that the kernel ends with `end` when the test process dies, run as `user` if one is given.
///
/// `setpriv` becomes the program, so the child's process id is the program's.
pub(crate) fn guarded(program: &OsStr, end: Signal, user: Option<&User>) -> Result<Command> {
    let mut command = Command::new(tool("setpriv")?);
    if let Some(user) = user {
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--init-groups");
    }
    command
        .arg(format!("--pdeathsig={}", end.as_str()))
        .arg("--")
        .arg(program);
    Ok(command)
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
    let gone = || io::Error::other("the thread that starts servers is gone");
    let (reply, child) = mpsc::channel();
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let words = || {
        format!(
            "{} {:?}",
            command.get_program().to_string_lossy(),
            command.get_args().collect::<Vec<_>>()
        )
    };
    let program = words();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("cannot run {program}")))?;
    check(program, output)
}

/// The output of a program that succeeded.
pub(crate) fn check(program: String, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let mut words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if words.is_empty() {
        words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::Failed {
        program,
        status: output.status,
        output: words,
    })
}

/// Starts a server that must be told its port, on another one if another program took it first.
pub(crate) fn on_free_port<T>(mut start: impl FnMut(u16) -> Result<T>) -> Result<(T, u16)> {
    let mut tries = 5;
    loop {
        let port = crate::free_port()?;
        match start(port) {
            Ok(server) => return Ok((server, port)),
            Err(Error::NotServing { log, .. }) if tries > 0 && log.contains("ddress already in use") => {
                tries -= 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = guarded(OsStr::new("sh"), Signal::SIGKILL, None).unwrap();
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_server_that_ends_says_its_last_output() {
        let error = Server::start(
            "thing",
            shell("echo cannot bind; exit 3"),
            Signal::SIGKILL,
            |_| None::<()>,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "thing does not serve (it ended); its last output:\ncannot bind"
        );
    }

    #[test]
    fn a_dropped_server_is_dead() {
        let ready = |line: &str| (line == "up").then_some(());
        let (server, ()) =
            Server::start("thing", shell("echo up; exec sleep 1000"), Signal::SIGKILL, ready).unwrap();
        let process = std::path::PathBuf::from(format!("/proc/{}", server.child.id()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
    }
}
