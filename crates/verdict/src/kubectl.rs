//! `kubectl rollout status` (kubectl 1.32, `pkg/polymorphichelpers/rollout_status.go` and
//! `pkg/cmd/rollout/rollout_status.go`), word for word: an object in, kubectl's line or error out.
//!
//! Absent numbers are zero, as in kubectl's own typed objects; for what kubectl requires to be present
//! (`spec.replicas`, `rollingUpdate`), absence makes a difference.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};

use crate::annotation;

/// Annotation with the number of a Deployment's current template.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

const ROLLING_UPDATE: &str = "RollingUpdate";

/// What kubectl prints for one state of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Without the line feed.
    pub line: String,
    /// kubectl ends, with exit code 0.
    pub done: bool,
    /// What the line is about.
    pub waits_for: WaitsFor,
}

/// What a rollout that is not done waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    Nothing,
    /// The controller has not seen the current generation.
    Observation,
    /// Fewer pods than wanted have the new template.
    Updated {
        updated: i32,
        wanted: i32,
    },
    /// Pods of older templates still exist.
    OldPods {
        old: i32,
    },
    /// New pods are not available.
    Available {
        available: i32,
        wanted: i32,
    },
    /// Pods of a StatefulSet, whatever their version, are not ready.
    Ready {
        missing: i32,
    },
    /// A StatefulSet without a partition has two revisions.
    OneRevision {
        updated: i32,
    },
}

/// The error with which kubectl ends, with exit code 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("deployment {0:?} exceeded its progress deadline")]
    ProgressDeadline(String),
    #[error("rollout status is only available for RollingUpdate strategy type")]
    Strategy,
    /// For a Deployment, when `--revision` asks for another one.
    #[error("desired revision ({desired}) is different from the running revision ({running})")]
    Revision { desired: i64, running: i64 },
    #[error("cannot get the revision of deployment {name:?}: strconv.ParseInt: parsing {text:?}: {why}")]
    RevisionUnreadable {
        name: String,
        text: String,
        why: &'static str,
    },
    #[error("object has been deleted")]
    Deleted,
    #[error("timed out waiting for the condition")]
    TimedOut,
    /// Reported by the API server, about `deployments.apps` for example.
    #[error("{resource} {name:?} not found")]
    NotFound { resource: String, name: String },
}

impl Error {
    /// The line on standard error.
    pub fn printed(&self) -> String {
        match self {
            Self::NotFound { .. } => format!("Error from server (NotFound): {self}"),
            _ => format!("error: {self}"),
        }
    }
}

fn waits(waits_for: WaitsFor, line: String) -> Status {
    Status {
        line,
        done: false,
        waits_for,
    }
}

fn done(line: String) -> Status {
    Status {
        line,
        done: true,
        waits_for: WaitsFor::Nothing,
    }
}

/// For a Deployment. A `revision` above zero is the one that `--revision` asks for.
///
/// # Errors
/// [`Error::ProgressDeadline`], and with a revision [`Error::Revision`] and [`Error::RevisionUnreadable`].
pub fn deployment(live: &Deployment, revision: i64) -> Result<Status, Error> {
    let name = live.metadata.name.as_deref().unwrap_or_default();
    if revision > 0 {
        let running = running_revision(live)?;
        if running != revision {
            return Err(Error::Revision {
                desired: revision,
                running,
            });
        }
    }
    let status = live.status.clone().unwrap_or_default();
    if live.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return Ok(waits(
            WaitsFor::Observation,
            "Waiting for deployment spec update to be observed...".to_owned(),
        ));
    }
    // The first of its type, whatever its status.
    let progressing = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Progressing");
    if progressing.is_some_and(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return Err(Error::ProgressDeadline(name.to_owned()));
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let waiting = |waits_for, rest: String| {
        Ok(waits(
            waits_for,
            format!("Waiting for deployment {name:?} rollout to finish: {rest}..."),
        ))
    };
    if let Some(wanted) = live.spec.as_ref().and_then(|spec| spec.replicas)
        && updated < wanted
    {
        return waiting(
            WaitsFor::Updated { updated, wanted },
            format!("{updated} out of {wanted} new replicas have been updated"),
        );
    }
    if total > updated {
        let old = total - updated;
        return waiting(
            WaitsFor::OldPods { old },
            format!("{old} old replicas are pending termination"),
        );
    }
    if available < updated {
        return waiting(
            WaitsFor::Available {
                available,
                wanted: updated,
            },
            format!("{available} of {updated} updated replicas are available"),
        );
    }
    Ok(done(format!("deployment {name:?} successfully rolled out")))
}

/// A Deployment without the annotation is at revision 0.
fn running_revision(live: &Deployment) -> Result<i64, Error> {
    let Some(text) = annotation(&live.metadata, REVISION) else {
        return Ok(0);
    };
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        Error::RevisionUnreadable {
            name: live.metadata.name.clone().unwrap_or_default(),
            text: text.to_owned(),
            why: match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            },
        }
    })
}

/// For a StatefulSet; kubectl ignores a revision here.
///
/// # Errors
/// [`Error::Strategy`].
pub fn stateful_set(live: &StatefulSet) -> Result<Status, Error> {
    let spec = live.spec.as_ref();
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) != Some(ROLLING_UPDATE) {
        return Err(Error::Strategy);
    }
    let status = live.status.clone().unwrap_or_default();
    let observed = status.observed_generation.unwrap_or(0);
    if observed == 0 || live.metadata.generation.unwrap_or(0) > observed {
        return Ok(waits(
            WaitsFor::Observation,
            "Waiting for statefulset spec update to be observed...".to_owned(),
        ));
    }
    let replicas = spec.and_then(|spec| spec.replicas);
    let ready = status.ready_replicas.unwrap_or(0);
    if let Some(wanted) = replicas
        && ready < wanted
    {
        let missing = wanted - ready;
        return Ok(waits(
            WaitsFor::Ready { missing },
            format!("Waiting for {missing} pods to be ready..."),
        ));
    }
    let updated = status.updated_replicas.unwrap_or(0);
    // API servers fill it in, so this is the rule and what follows the exception.
    if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
        if let (Some(replicas), Some(partition)) = (replicas, rolling.partition) {
            let wanted = replicas.saturating_sub(partition);
            if updated < wanted {
                return Ok(waits(
                    WaitsFor::Updated { updated, wanted },
                    format!(
                        "Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been \
                         updated..."
                    ),
                ));
            }
        }
        return Ok(done(format!(
            "partitioned roll out complete: {updated} new pods have been updated..."
        )));
    }
    let current = status.current_revision.unwrap_or_default();
    let update = status.update_revision.unwrap_or_default();
    if update != current {
        return Ok(waits(
            WaitsFor::OneRevision { updated },
            format!(
                "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
            ),
        ));
    }
    Ok(done(format!(
        "statefulset rolling update complete {} pods at revision {current}...",
        status.current_replicas.unwrap_or(0)
    )))
}

/// For a DaemonSet; kubectl ignores a revision here.
///
/// # Errors
/// [`Error::Strategy`].
pub fn daemon_set(live: &DaemonSet) -> Result<Status, Error> {
    let name = live.metadata.name.as_deref().unwrap_or_default();
    let strategy = live.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) != Some(ROLLING_UPDATE) {
        return Err(Error::Strategy);
    }
    let status = live.status.clone().unwrap_or_default();
    if live.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return Ok(waits(
            WaitsFor::Observation,
            "Waiting for daemon set spec update to be observed...".to_owned(),
        ));
    }
    let wanted = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let available = status.number_available.unwrap_or(0);
    let waiting = |waits_for, rest: String| {
        Ok(waits(
            waits_for,
            format!("Waiting for daemon set {name:?} rollout to finish: {rest}..."),
        ))
    };
    if updated < wanted {
        return waiting(
            WaitsFor::Updated { updated, wanted },
            format!("{updated} out of {wanted} new pods have been updated"),
        );
    }
    if available < wanted {
        return waiting(
            WaitsFor::Available { available, wanted },
            format!("{available} of {wanted} updated pods are available"),
        );
    }
    Ok(done(format!("daemon set {name:?} successfully rolled out")))
}
