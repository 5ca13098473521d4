//! The states of what a tool watches, through a recording.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;

use crate::{
    Observed, Workload, WorkloadKind,
    application::{Application, Info, OPERATION, Sync},
    objects::rollout::Rollout,
    replay::{
        cluster::{Change, Cluster, Key},
        oracle::{self, Question},
        recording::{ReadError, Recording, What},
    },
};

/// What was seen at one time.
pub(super) struct Tick {
    pub(super) t_ms: i64,
    pub(super) seen: Seen,
}

pub(super) enum Seen {
    Workload(Box<Observed>),
    Job { live: Option<Arc<Job>>, deleted: bool },
}

impl Tick {
    /// A sync of that commit that the recording asked for stands for ours: it does not carry an id of ours.
    pub(super) fn adopt(&mut self, sync: &Sync) {
        let Seen::Workload(observed) = &mut self.seen else {
            return;
        };
        let Some(Workload::Application(live)) = &mut observed.workload else {
            return;
        };
        let live = Arc::make_mut(live);
        let state = live
            .status
            .operation_state
            .as_mut()
            .map(|state| &mut state.operation);
        for operation in live.operation.iter_mut().chain(state) {
            let asked = operation.sync.as_ref();
            let same = asked.is_some_and(|asked| asked.revision == sync.revision.as_str());
            if same && !operation.initiated_by.automated {
                operation.info.push(Info {
                    name: OPERATION.to_owned(),
                    value: sync.operation.clone(),
                });
            }
        }
    }

    pub(super) fn workload(&self) -> Option<&Workload> {
        match &self.seen {
            Seen::Workload(observed) => observed.workload.as_ref(),
            Seen::Job { .. } => None,
        }
    }

    pub(super) fn application(&self) -> Option<&Application> {
        match self.workload()? {
            Workload::Application(live) => Some(live),
            _ => None,
        }
    }

    pub(super) fn rollout(&self) -> Option<&Rollout> {
        match self.workload()? {
            Workload::Rollout(live) => Some(live),
            _ => None,
        }
    }

    /// What the tool prints of this state.
    pub(super) fn line(&self) -> Option<String> {
        match self.workload()? {
            Workload::Rollout(live) => Some(oracle::rollout_line(live)),
            Workload::Canary(live) => Some(live.phase().to_owned()),
            _ => None,
        }
    }
}

/// Everything that happened to the object and what belongs to it.
pub(super) fn ticks(recording: &Recording, question: &Question) -> Result<Vec<Tick>, ReadError> {
    let mut cluster = Cluster::default();
    let mut ticks = vec![Tick {
        t_ms: i64::MIN / 4,
        seen: see(&cluster, question),
    }];
    for line in &recording.lines {
        let What::Watch { resource, event } = &line.what else {
            continue;
        };
        if let Change::Object(_) = cluster.apply(line, resource, event)? {
            ticks.push(Tick {
                t_ms: line.t_ms,
                seen: see(&cluster, question),
            });
        }
    }
    Ok(ticks)
}

fn see(cluster: &Cluster, question: &Question) -> Seen {
    let workload = |kind, key: &Key| Seen::Workload(Box::new(cluster.observed(kind, key)));
    match question {
        Question::Application(key, _) => workload(WorkloadKind::Application, key),
        Question::Rollout(key) => workload(WorkloadKind::Rollout, key),
        Question::Canary(key, _) => workload(WorkloadKind::Canary, key),
        Question::Job(key, _) => Seen::Job {
            live: cluster.job(key).cloned(),
            deleted: cluster.is_deleted("jobs", key),
        },
    }
}
