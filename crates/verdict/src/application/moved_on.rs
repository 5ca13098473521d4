//! What can still be said about our commit when the branch has moved on, and Argo CD compares with a later one.

use super::{Application, OperationState, ResourceStatus, Sync, SyncResult};

fn result(state: Option<&OperationState>) -> Option<&SyncResult> {
    state?.sync_result.as_ref()
}

/// Whether the operation synced exactly our commit, and left nothing behind that git does not have any more.
pub(super) fn synced_whole(sync: Option<&Sync>, state: Option<&OperationState>) -> bool {
    result(state).zip(sync).is_some_and(|(result, sync)| {
        let ours = sync.revision.as_str();
        (result.revision == ours || result.revisions.iter().any(|one| one == ours))
            && result.resources.iter().all(|one| one.status != "PruneSkipped")
    })
}

/// Whether the application is `Missing` only because of objects that the operation did not know: a later commit adds
/// them. Each of the others is checked too, since the application's own health is that of the worst.
pub(super) fn lacks_later_objects_alone(live: &Application, state: Option<&OperationState>) -> bool {
    let Some(result) = result(state).filter(|result| !result.resources.is_empty()) else {
        return false;
    };
    let ours = |one: &ResourceStatus| {
        result.resources.iter().any(|other| {
            (&other.kind, &other.namespace, &other.name) == (&one.kind, &one.namespace, &one.name)
        })
    };
    live.status.health.status == "Missing"
        && live.status.resources.iter().all(|one| {
            match one.health.as_ref().map_or("", |health| health.status.as_str()) {
                "" | "Healthy" => true,
                "Missing" => !ours(one),
                _ => false,
            }
        })
}
