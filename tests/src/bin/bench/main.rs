//! The figures that ARCHITECTURE.md promises, each next to a floor that is measured in the same run on the same
//! machine.
//!
//! `make bench` builds everything in release and runs this; it takes about eight minutes. A missed figure is shown as
//! missed, but the program still exits with 0: it measures, it does not judge.
#![allow(clippy::unwrap_used)] // as in tests

mod backends;
mod gitops;
mod idle;
mod ledger;
mod releases;
mod rollouts;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use slipway_tests::suite::SERVES;

/// What can be measured separately; without arguments, all of it.
const PARTS: [&str; 4] = ["ledger", "releases", "gitops", "rollouts"];

/// One line of the result.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) measured: String,
    /// The best that this machine achieves with less to do, and what that was.
    pub(crate) floor: String,
    pub(crate) target: String,
    pub(crate) met: bool,
}

impl Figure {
    pub(crate) fn new(
        name: impl Into<String>,
        measured: impl Into<String>,
        floor: impl Into<String>,
        target: impl Into<String>,
        met: bool,
    ) -> Self {
        Self {
            name: name.into(),
            measured: measured.into(),
            floor: floor.into(),
            target: target.into(),
            met,
        }
    }
}

fn main() -> ExitCode {
    // Whole releases are measured through four processes of this program.
    if let Ok(service) = std::env::var(SERVES) {
        return backends::serve(&service);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure())
}

async fn measure() -> ExitCode {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build; its figures say little. Run: make bench");
    }
    let began = Instant::now();
    let parts: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("there is no part {unknown:?}; there are {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    let wanted = |part| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let mut figures = Vec::new();
    if wanted("ledger") {
        figures.extend(ledger::measure().await);
    }
    if wanted("releases") {
        let (suite, idle) = idle::measure().await;
        figures.extend(releases::measure(&suite).await);
        figures.extend(idle);
    }
    if wanted("gitops") {
        figures.extend(gitops::measure().await);
    }
    if wanted("rollouts") {
        figures.extend(rollouts::measure().await);
    }

    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["figure", "measured", "floor", "target", ""]);
    for figure in &figures {
        let verdict = if figure.met { "met" } else { "MISSED" };
        table.add_row([
            &figure.name,
            &figure.measured,
            &figure.floor,
            &figure.target,
            verdict,
        ]);
    }
    println!("{table}");
    let met = figures.iter().filter(|figure| figure.met).count();
    println!(
        "{met} of {} met, in {:.0} s on {} cores",
        figures.len(),
        began.elapsed().as_secs_f64(),
        cores()
    );
    ExitCode::SUCCESS
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A rate per second, for people.
pub(crate) fn rate(count: f64) -> String {
    if count >= 1000.0 {
        format!("{:.1} k/s", count / 1000.0)
    } else {
        format!("{count:.1}/s")
    }
}

/// How many there were per second.
#[allow(clippy::cast_precision_loss)] // counts of a few seconds
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The given percentile of sorted numbers.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len().saturating_sub(1)) * percent / 100)
        .copied()
        .unwrap_or(f64::NAN)
}
