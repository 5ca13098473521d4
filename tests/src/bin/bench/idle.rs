//! What an idle service costs, and how long it takes to serve.

use std::{fs, time::Duration};

use slipway_tests::{Options, Suite, programs::SERVICES, scene::Service};

use crate::{Figure, releases::LANES};

/// Long enough for pools and caches to settle.
const SETTLE: Duration = Duration::from_secs(3);
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// Starts the four services, one process each, and measures each of them before there is any load.
pub(crate) async fn measure() -> (Suite, Vec<Figure>) {
    eprintln!("four services …");
    tokio::task::spawn_blocking(|| slipway_tests::programs::ensure(&SERVICES))
        .await
        .unwrap();
    let services = (0..LANES)
        .map(|lane| {
            Service::new(
                Box::leak(format!("lane-{lane}").into_boxed_str()),
                &[("dev", "none")],
            )
        })
        .collect();
    let mut suite = Suite::start(Options {
        replicas: 1,
        services,
        at_once: true,
        ..Options::default()
    })
    .await;
    let mut starts = Vec::new();
    for service in SERVICES {
        starts.push(suite.restart_installed(service, 0).await);
    }
    tokio::time::sleep(SETTLE).await;
    let mut figures = Vec::new();
    for (service, start) in SERVICES.into_iter().zip(starts) {
        let process = suite.process(service, 0).id();
        // Most of what is resident is the program's own file; how much of it is mapped depends on the page cache.
        let (resident, allocated) = (memory(process, "VmRSS:"), memory(process, "RssAnon:"));
        figures.push(Figure::new(
            format!("{service} idle: resident memory"),
            format!(
                "{:.1} MB, {:.1} MB of it allocated",
                resident / MEGABYTE,
                allocated / MEGABYTE
            ),
            "",
            "< 40 MB",
            resident < 40.0 * MEGABYTE,
        ));
        figures.push(Figure::new(
            format!("{service}: from start to serving"),
            format!("{} ms", start.as_millis()),
            "",
            "< 300 ms",
            start < Duration::from_millis(300),
        ));
    }
    // What follows is measured with backends that answer at once.
    for service in SERVICES {
        suite.restart(service, 0).await;
    }
    (suite, figures)
}

/// A memory line of a process's status, such as `VmRSS:`, in bytes.
pub(crate) fn memory(process: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kilobytes: f64 = value.trim().split(' ').next().unwrap().parse().unwrap();
    kilobytes * 1024.0
}
