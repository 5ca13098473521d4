//! What an Application reports, phrased so that a person can act on it.

use super::{Application, ApplicationSource, Operation, OperationState, ResourceStatus};
use crate::cut;

/// How many objects and hooks are named; the operation's own message counts the rest.
const MAX_NAMED: usize = 5;

/// Why a sync failed: the operation's message, and those of the objects and hooks that failed.
pub(super) fn sync_failed(state: &OperationState) -> String {
    let message = if state.message.is_empty() {
        "the sync failed without a message"
    } else {
        &state.message
    };
    let resources = state.sync_result.iter().flat_map(|result| &result.resources);
    let failed = resources.filter(|resource| {
        resource.status == "SyncFailed" || matches!(resource.hook_phase.as_str(), "Failed" | "Error")
    });
    let named: Vec<String> = failed
        .take(MAX_NAMED)
        .map(|resource| {
            let hook = if resource.hook_type.is_empty() {
                String::new()
            } else {
                format!(" ({} hook)", resource.hook_type)
            };
            let place = if resource.namespace.is_empty() {
                String::new()
            } else {
                format!("{}/", resource.namespace)
            };
            let (kind, name) = (&resource.kind, &resource.name);
            format!("{kind} {place}{name}{hook}: {}", cut(&resource.message))
        })
        .collect();
    let mut words = cut(message);
    for one in named {
        words = format!("{words}; {one}");
    }
    words
}

/// Which objects are not as wanted, grouped by message.
pub(super) fn resources(
    live: &Application,
    of: impl Fn(&ResourceStatus) -> Option<String>,
) -> Option<String> {
    let named: Vec<String> = live
        .status
        .resources
        .iter()
        .filter_map(|resource| of(resource).map(|words| (resource, words)))
        .take(MAX_NAMED)
        .map(|(resource, words)| {
            let ResourceStatus {
                kind,
                namespace,
                name,
                ..
            } = resource;
            format!("{kind} {namespace}/{name} {words}")
        })
        .collect();
    (!named.is_empty()).then(|| named.join("; "))
}

/// Objects with that health, and their messages.
pub(super) fn of_health(live: &Application, status: &str) -> String {
    let one = |resource: &ResourceStatus| {
        let health = resource
            .health
            .as_ref()
            .filter(|health| health.status == status)?;
        Some(if health.message.is_empty() {
            status.to_owned()
        } else {
            format!("{status}: {}", cut(&health.message))
        })
    };
    let own = &live.status.health.message;
    match resources(live, one) {
        Some(words) => words,
        None if own.is_empty() => "Argo CD does not say which object".to_owned(),
        None => cut(own),
    }
}

/// Objects that differ from git.
pub(super) fn out_of_sync(live: &Application) -> String {
    let one = |resource: &ResourceStatus| match resource.status.as_str() {
        "OutOfSync" if resource.requires_pruning => {
            Some("left git and is not pruned; allow it with argo_cd.prune".to_owned())
        }
        "OutOfSync" => Some("differs".to_owned()),
        _ => None,
    };
    resources(live, one).unwrap_or_else(|| "no object is named".to_owned())
}

/// Who requested an operation.
pub(super) fn initiator(operation: &Operation) -> &str {
    if operation.initiated_by.automated {
        "auto-sync"
    } else if operation.initiated_by.username.is_empty() {
        "somebody"
    } else {
        &operation.initiated_by.username
    }
}

/// The first digits of a commit; other revisions in full.
pub(super) fn short(revision: &str) -> &str {
    let hex = revision.len() >= 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { &revision[..7] } else { revision }
}

/// Which branches of which repositories the application follows.
pub(super) fn sources(live: &Application) -> String {
    let one = |source: &ApplicationSource| {
        let branch = if source.target_revision.is_empty() {
            "HEAD"
        } else {
            &source.target_revision
        };
        format!("{branch} of {}", source.repo_url)
    };
    let all: Vec<String> = live
        .spec
        .source
        .iter()
        .chain(&live.spec.sources)
        .map(one)
        .collect();
    cut(&all.join(", "))
}
