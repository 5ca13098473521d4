//! `kill -9` at the worst moments, of the real program.

use std::process::{Child, Command, Stdio};

use slipway_proto::build::v1::build::Status;
use slipway_testbed::free_port;

use crate::bed::{Bed, GOOD, SLEEPS, ended, log, log_has, outcome, ready, start};

/// The program in a process of its own; killed when dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(bed: &Bed, port: u16, fault: Option<&str>) -> Self {
        let address = format!("127.0.0.1:{port}");
        let config = bed.folder.path().join("config.yaml");
        std::fs::write(&config, bed.config(&address)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_build-svc"));
        command
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(fault) = fault {
            command.env("SLIPWAY_FAULT_KILL_AT", fault);
        }
        Self {
            child: command.spawn().unwrap(),
            url: format!("http://{address}"),
        }
    }

    async fn died(&mut self) {
        while self.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn killed_around_push_and_tags_a_build_ends_as_if_nothing_had_happened() {
    for fault in [
        "build.push.before:1",
        "build.push.after:1",
        "build.tag.before:1",
        "build.tag.after:1",
        "build.tag.after:3",
    ] {
        let bed = Bed::new();
        let commit = bed.commit(GOOD);
        let port = free_port().unwrap();
        let mut first = Process::start(&bed, port, Some(fault));
        let mut client = ready(&first.url).await;
        let build = start(&mut client, bed.request(&commit)).await;
        first.died().await;

        let second = Process::start(&bed, port, None);
        let mut client = ready(&second.url).await;
        let done = ended(&mut client, &build.id).await;
        let log = log(&mut client, &build.id).await;
        assert_eq!(
            outcome(&done),
            (Status::Succeeded, String::new()),
            "{fault}: {log}"
        );
        let image = done.image.unwrap();
        let mut expected: Vec<_> = image
            .tags
            .iter()
            .map(|tag| (tag.clone(), image.digest.clone()))
            .collect();
        expected.sort();
        assert_eq!((bed.tags(), expected.len()), (expected.clone(), 4), "{fault}");
        assert_eq!(
            log.matches("slipway: building").count(),
            1,
            "{fault}: built once: {log}"
        );
    }
}

#[tokio::test]
async fn killed_while_building_nothing_is_left_and_the_build_begins_again() {
    let bed = Bed::new();
    let commit = bed.commit(SLEEPS);
    let port = free_port().unwrap();
    let mut first = Process::start(&bed, port, None);
    let mut client = ready(&first.url).await;
    let build = start(&mut client, bed.request(&commit)).await;
    log_has(&mut client, &build.id, "running sleep").await;
    first.child.kill().unwrap();
    first.died().await;
    assert!(
        bed.processes() > 0,
        "the Dockerfile's program outlives its service"
    );

    let second = Process::start(&bed, port, None);
    let mut client = ready(&second.url).await;
    let runs = || std::fs::read_dir(bed.folder.path().join("work")).unwrap().count();
    assert_eq!(
        runs(),
        2,
        "the dead process's folder is gone: one run and the images"
    );
    let request = slipway_proto::build::v1::CancelBuildRequest {
        id: build.id.clone(),
        reason: String::new(),
    };
    client.cancel_build(request).await.unwrap();
    assert_eq!(outcome(&ended(&mut client, &build.id).await).0, Status::Cancelled);
}
