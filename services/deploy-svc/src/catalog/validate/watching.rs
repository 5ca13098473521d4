//! What is asked and measured after a rollout.

use slipway_model::Name;

use super::{
    super::{Bake, Check, CheckKind, HttpCheck, file::FileCheck},
    Faults, HOUR, duplicates,
};

/// Of one environment.
const MAX_CHECKS: usize = 20;

pub(super) fn checks(checks: Vec<FileCheck>, path: &str, faults: &mut Faults) -> Vec<Check> {
    let names: Vec<Name> = checks.iter().map(|check| check.name.clone()).collect();
    duplicates(&names, path, faults);
    faults.require(names.len() <= MAX_CHECKS, path, "name at most 20 checks");
    let checks = checks.into_iter().enumerate();
    checks
        .filter_map(|(index, check)| one(check, &format!("{path}[{index}]"), faults))
        .collect()
}

fn one(check: FileCheck, path: &str, faults: &mut Faults) -> Option<Check> {
    let FileCheck {
        name,
        http,
        grpc,
        tcp,
        job,
    } = check;
    if job.is_some() {
        faults.add(
            format!("{path}.job"),
            "a Job is no check: write it under jobs.after, where it has its log and its own time",
        );
        return None;
    }
    let mut kinds = [
        http.map(CheckKind::Http),
        grpc.map(CheckKind::Grpc),
        tcp.map(CheckKind::Tcp),
    ]
    .into_iter()
    .flatten();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) => {
            if let CheckKind::Http(http) = &kind {
                check_http(http, &format!("{path}.http"), faults);
            }
            Some(Check { name, kind })
        }
        (None, _) => {
            faults.add(path, "say what to ask: add http, grpc or tcp");
            None
        }
        (Some(_), Some(_)) => {
            faults.add(path, "asks several things: give each a check of its own");
            None
        }
    }
}

pub(super) fn check_bake(bake: &Bake, path: &str, faults: &mut Faults) {
    faults.period(format!("{path}.for"), bake.period, HOUR.saturating_mul(24));
}

/// Attempts × (timeout + interval) stay below this, so that a check cannot outlive its deployment unseen.
const MAX_CHECK: std::time::Duration = HOUR;

fn check_http(http: &HttpCheck, path: &str, faults: &mut Faults) {
    let path_ok = http.path.starts_with('/')
        && http.path.len() <= 2000
        && http.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
        && http.path.split(['/', '?']).all(|part| part != "..");
    faults.require(
        path_ok,
        format!("{path}.path"),
        "write an absolute path, percent-encoded, without .. and #",
    );
    let longest = http
        .patience
        .timeout
        .saturating_add(http.patience.interval)
        .saturating_mul(http.patience.attempts);
    faults.require(
        longest <= MAX_CHECK,
        path,
        "all attempts with timeout and interval must fit into one hour",
    );
}
