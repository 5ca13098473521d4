//! What a CI job does to write a change, as a shell script that bash runs afresh for each.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::remote::{Remote, SERVICES};

const JOB: &str = include_str!("ci-job");
const STRANGER: &str = include_str!("stranger");

#[derive(Debug)]
pub(crate) struct Baseline {
    folder: PathBuf,
    number: AtomicUsize,
}

impl Baseline {
    /// Works in a folder of its own.
    pub(crate) fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        Self {
            folder: folder.to_owned(),
            number: AtomicUsize::new(0),
        }
    }

    /// One change, and how long it took until it was pushed. Checkouts stay until the end: ext4 does not reuse freed
    /// inodes for some seconds, and skipping them makes every new file slower.
    pub(crate) fn write(&self, remote: &Remote) -> Duration {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let checkout = self.folder.join(format!("job-{number}"));
        let mut command = bash(JOB);
        command
            .arg(remote.url())
            .arg(format!("svc-{:03}", number % SERVICES))
            .arg(format!("b1.{number}"))
            .arg(&checkout);
        let began = Instant::now();
        let status = command.status().unwrap();
        let took = began.elapsed();
        assert!(status.success(), "a CI job ended with {status}");
        took
    }

    /// Runs this many jobs concurrently, the next one when one ends. Returns each job's time in milliseconds, sorted,
    /// and the total time: until the last job that was started within `measure` ended.
    pub(crate) fn load(&self, remote: &Remote, jobs: usize, measure: Duration) -> (Vec<f64>, Duration) {
        let began = Instant::now();
        let worker = || {
            let mut times = Vec::new();
            while began.elapsed() < measure {
                times.push(self.write(remote).as_secs_f64() * 1e3);
            }
            times
        };
        let mut times: Vec<f64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        times.sort_by(f64::total_cmp);
        (times, began.elapsed())
    }
}

/// Another writer, which pushes every 100 ms.
#[derive(Debug)]
pub(crate) struct Stranger {
    child: std::process::Child,
    stop: PathBuf,
    began: Instant,
}

impl Stranger {
    pub(crate) fn start(folder: &Path, remote: &Remote) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let stop = folder.join("stop");
        let mut command = bash(STRANGER);
        let child = command
            .arg(remote.url())
            .arg(folder.join("checkout"))
            .arg(&stop)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            stop,
            began: Instant::now(),
        }
    }

    /// How many commits it pushed, and in what time.
    pub(crate) fn stop(self) -> (usize, Duration) {
        std::fs::write(&self.stop, "").unwrap();
        let output = self.child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "the stranger ended with {}",
            output.status
        );
        let count = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        (count, self.began.elapsed())
    }
}

/// A script, with git as it is set up on a CI machine: a user's name and nothing else.
fn bash(script: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .process_group(0)
        .stdin(Stdio::null());
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "CI");
        command.env(format!("GIT_{who}_EMAIL"), "ci@example.com");
    }
    command.args(["-c", script, "script"]);
    command
}
