//! What is checked and measured after a rollout.

use slipway_check::{Fault, Faults};
use slipway_model::Name;

use super::{
    super::{Bake, Check, CheckKind, file::FileCheck},
    duplicates,
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
            "a Job is not a check: write it under jobs.after, where it has its log and its own time",
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
            let check = Check { name, kind };
            add(check.check(), path, faults);
            Some(check)
        }
        (None, _) => {
            faults.add(path, "give http, grpc or tcp");
            None
        }
        (Some(_), Some(_)) => {
            faults.add(path, "asks several things: give each a check of its own");
            None
        }
    }
}

pub(super) fn check_bake(bake: &Bake, path: &str, faults: &mut Faults) {
    add(bake.check(), path, faults);
}

/// Faults with their paths below `path`.
fn add(found: Vec<Fault>, path: &str, faults: &mut Faults) {
    for fault in found {
        match fault.path.trim_end_matches('.') {
            "" => faults.add(path, fault.message),
            below => faults.add(format!("{path}.{below}"), fault.message),
        }
    }
}
