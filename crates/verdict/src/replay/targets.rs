//! Which objects a `kubectl rollout status` is about.

use super::{
    Recorded,
    cluster::{Cluster, Key},
    command::{Command, TargetArgument},
    is_noise,
    recording::{ReadError, Recording, What},
};
use crate::WorkloadKind;

/// What kubectl looks at, one after the other.
pub(super) fn targets(
    recording: &Recording,
    recorded: &Recorded,
    command: &Command,
) -> Result<Vec<(WorkloadKind, Key)>, ReadError> {
    let namespace = command.namespace.as_deref().or(recording.namespace.as_deref());
    // Names as of its start, and names from the whole recording.
    let mut cluster = Cluster::default();
    let mut then: Option<Vec<(WorkloadKind, Key)>> = None;
    let mut ever: Vec<(WorkloadKind, Key)> = Vec::new();
    for line in &recording.lines {
        if line.t_ms > recorded.started && then.is_none() {
            then = Some(all(&cluster, namespace));
        }
        if let What::Watch { resource, event } = &line.what {
            cluster.apply(line, resource, event)?;
            for one in all(&cluster, namespace) {
                if !ever.contains(&one) {
                    ever.push(one);
                }
            }
        }
    }
    let then = then.unwrap_or_else(|| all(&cluster, namespace));
    if command.targets.is_empty() {
        return Ok(guess(recorded, if then.is_empty() { &ever } else { &then }));
    }
    let mut found = Vec::new();
    for TargetArgument { kind, name } in &command.targets {
        match name {
            Some(name) => {
                let seen = ever.iter().find(|(one, key)| one == kind && key.1 == *name);
                // Even if it was never seen, it is still what kubectl asks for.
                let key = seen.map(|(_, key)| key.clone());
                let key = key.unwrap_or_else(|| (namespace.unwrap_or_default().to_owned(), name.clone()));
                found.push((*kind, key));
            }
            None => found.extend(then.iter().filter(|(one, _)| one == kind).cloned()),
        }
    }
    Ok(found)
}

fn all(cluster: &Cluster, namespace: Option<&str>) -> Vec<(WorkloadKind, Key)> {
    [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
    ]
    .into_iter()
    .flat_map(|kind| {
        let names = cluster.names(kind, namespace);
        names.into_iter().map(move |key| (kind, key))
    })
    .collect()
}

/// Given by selector or file: the lines name the object, or there is only one of its kind.
fn guess(recorded: &Recorded, known: &[(WorkloadKind, Key)]) -> Vec<(WorkloadKind, Key)> {
    let Some((_, first)) = recorded.lines.iter().find(|(_, text)| !is_noise(text)) else {
        return Vec::new();
    };
    let kind = if first.contains("daemon set") {
        WorkloadKind::DaemonSet
    } else if first.contains("deployment ") {
        WorkloadKind::Deployment
    } else {
        WorkloadKind::StatefulSet
    };
    let name = first.split('"').nth(1);
    let fits = |(one, key): &&(WorkloadKind, Key)| *one == kind && name.is_none_or(|name| key.1 == name);
    let mut fitting = known.iter().filter(fits).cloned();
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => vec![one],
        _ => Vec::new(),
    }
}
