//! The process between the cluster and a container's program, so that nothing is left behind whatever dies.
//!
//! ```text
//! cluster ──pipe──► shim (re-executed host binary) ──► program, leader of its own process group
//! ```
//! The cluster holds the write end of the shim's standard input. A byte on it is an order; when it is closed, also by a
//! `kill -9` of the cluster, the shim kills the program's process group. If the shim itself is killed, the kernel kills
//! the program (parent-death signal). Programs that leave their process group are found as orphans of the shim, which
//! is a subreaper, when the container ends.

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getppid};
use serde::{Deserialize, Serialize};

/// First argument of a shim.
pub(crate) const SHIM: &str = "__pod-shim";
/// First argument of the step between shim and program.
const EXEC: &str = "__pod-exec";
/// Second argument of a shim that only shows that it works.
pub(crate) const CHECK: &str = "--check";
/// What it then prints.
pub(crate) const CHECK_ANSWER: &str = "local-cluster pod shim 1";

/// Order: SIGTERM to the process group.
pub(crate) const TERMINATE: u8 = b'T';
/// Order: SIGKILL to the process group.
pub(crate) const KILL: u8 = b'K';

/// Exit code when the program could not be started (as container runtimes use it).
const NOT_STARTED: i32 = 128;

/// What the shim runs; the first line on its standard input, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
}

/// Becomes a pod's shim when this process was started as one, and then never returns. Every executable that hosts a
/// [`Cluster`](crate::Cluster) calls this first in `main`, before threads, logging and argument parsing.
pub fn run_if_requested() {
    let mut args = std::env::args_os().skip(1);
    let Some(first) = args.next() else { return };
    if first == SHIM {
        if args.next().is_some_and(|arg| arg == CHECK) {
            println!("{CHECK_ANSWER}");
            std::process::exit(0);
        }
        std::process::exit(shim());
    }
    if first == EXEC {
        exec(args.collect());
    }
}

fn fail(what: &str, error: impl std::fmt::Display) -> i32 {
    // Standard error is the container's log: the place where a person will look.
    eprintln!("local-cluster: {what}: {error}");
    NOT_STARTED
}

fn shim() -> i32 {
    let mut orders = std::io::stdin().lock();
    let mut line = String::new();
    if let Err(error) = orders.read_line(&mut line) {
        return fail("the pod shim got no orders", error);
    }
    drop(orders);
    let program: Program = match serde_json::from_str(&line) {
        Ok(program) => program,
        Err(error) => return fail("the pod shim could not read its orders", error),
    };
    if let Err(error) = prctl::set_child_subreaper(true) {
        return fail("orphans cannot be reaped", error);
    }
    let executable = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => return fail("the pod shim does not know its own path", error),
    };
    let child = Command::new(executable)
        .arg(EXEC)
        .arg(std::process::id().to_string())
        .arg(&program.path)
        .args(&program.args)
        .env_clear()
        .envs(program.env)
        .current_dir(&program.dir)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return fail("the program could not be started", error),
    };
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    std::thread::spawn(move || follow_orders(group));
    let code = match child.wait() {
        Ok(status) => status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => fail("the program's end was not seen", error),
    };
    clean_up(group);
    code
}

/// Obeys until the cluster is gone, and then ends everything.
fn follow_orders(group: Pid) {
    let mut orders = std::io::stdin().lock();
    let mut order = [0_u8];
    loop {
        let signal = match orders.read(&mut order) {
            Ok(1) if order[0] == TERMINATE => Signal::SIGTERM,
            Ok(1) if order[0] == KILL => Signal::SIGKILL,
            Ok(1) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            _ => {
                clean_up(group);
                std::process::exit(128 + Signal::SIGKILL as i32);
            }
        };
        // If the group is gone already, all is well.
        let _ = killpg(group, signal);
    }
}

/// Kills what is left of the process group, and then every orphan that was reparented to this process.
fn clean_up(group: Pid) {
    let _ = killpg(group, Signal::SIGKILL);
    let own = std::process::id();
    for _ in 0..100 {
        let children =
            std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let children: Vec<Pid> = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
            .collect();
        if children.is_empty() {
            return;
        }
        for pid in children {
            let _ = kill(pid, Signal::SIGKILL);
            if pid != group {
                let _ = nix::sys::wait::waitpid(pid, None);
            }
        }
        if std::fs::metadata(format!("/proc/{group}")).is_ok() {
            // The main thread waits for this one.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Arguments: the shim's process id, the program, its arguments. Ties the program's life to the shim's.
fn exec(args: Vec<OsString>) -> ! {
    let mut args = args.into_iter();
    let shim = args
        .next()
        .and_then(|arg| arg.to_str()?.parse().ok())
        .map(Pid::from_raw);
    let Some(program) = args.next() else {
        std::process::exit(NOT_STARTED)
    };
    let tied = prctl::set_pdeathsig(Signal::SIGKILL);
    // The shim may have died before the line above.
    if tied.is_err() || shim != Some(getppid()) {
        std::process::exit(NOT_STARTED);
    }
    let error = Command::new(&program).args(args).exec();
    let _ = writeln!(std::io::stderr(), "local-cluster: {}: {error}", program.display());
    std::process::exit(NOT_STARTED);
}
