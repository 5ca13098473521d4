//! The states of one object through a recording, and what kubectl reports for each.

use super::{
    cluster::{Change, Cluster, Key, resource},
    recording::{ReadError, Recording, What},
};
use crate::{
    Observed, Workload, WorkloadKind,
    kubectl::{self, Status},
};

/// What kubectl reports for a state.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Never seen.
    Absent,
    Judged(Result<Status, kubectl::Error>),
}

/// The cluster after one event, as far as it concerns the object.
pub(super) struct Tick {
    pub(super) t_ms: i64,
    pub(super) observed: Observed,
    pub(super) outcome: Outcome,
    /// The object itself changed.
    pub(super) state: bool,
    pub(super) after_gap: bool,
}

/// Everything that happened in the object's namespace. Before the first event nothing was there.
pub(super) fn ticks(
    recording: &Recording,
    kind: WorkloadKind,
    key: &Key,
    revision: i64,
) -> Result<Vec<Tick>, ReadError> {
    let mut cluster = Cluster::default();
    let mut ticks = vec![tick(i64::MIN / 2, cluster.observed(kind, key), revision)];
    ticks[0].state = true;
    let mut gap = false;
    for line in &recording.lines {
        let What::Watch { resource: of, event } = &line.what else {
            continue;
        };
        let ours = of == resource(kind);
        match cluster.apply(line, of, event)? {
            Change::Nothing => {}
            Change::Interrupted => gap |= ours,
            Change::Object(changed) if changed.0 == key.0 => {
                let mut tick = tick(line.t_ms, cluster.observed(kind, key), revision);
                tick.state = ours && changed == *key;
                tick.after_gap = tick.state && std::mem::take(&mut gap);
                ticks.push(tick);
            }
            Change::Object(_) => {}
        }
    }
    Ok(ticks)
}

fn tick(t_ms: i64, observed: Observed, revision: i64) -> Tick {
    let outcome = match &observed.workload {
        Some(Workload::StatefulSet(live)) => Outcome::Judged(kubectl::stateful_set(live)),
        Some(Workload::DaemonSet(live)) => Outcome::Judged(kubectl::daemon_set(live)),
        Some(Workload::Deployment(live)) => Outcome::Judged(kubectl::deployment(live, revision)),
        _ if observed.gone => Outcome::Judged(Err(kubectl::Error::Deleted)),
        _ => Outcome::Absent,
    };
    Tick {
        t_ms,
        observed,
        outcome,
        state: false,
        after_gap: false,
    }
}
