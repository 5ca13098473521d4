//! The history of a StatefulSet's or DaemonSet's template in ControllerRevisions, which `kubectl rollout undo` restores
//! from.
//!
//! After `k8s.io/kubernetes/pkg/controller/history`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::deployment::template_hash;
use crate::object::{self, at, label, number};

/// The hash of the revision, on the revision and (for DaemonSets) on pods.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";
const HISTORY_HASH: &str = "controller.kubernetes.io/hash";

/// The revision of the current template, and what to do about the history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    /// The revision's name.
    pub(crate) name: String,
    pub(crate) hash: String,
    /// A revision that did not exist yet.
    pub(crate) create: Option<Value>,
    /// An old revision that is the newest again: its name and new number.
    pub(crate) renumber: Option<(String, i64)>,
}

/// The content of a revision: a strategic merge patch that restores the template.
fn data(owner: &Value) -> Value {
    let mut template = at(owner, &["spec", "template"]).clone();
    object::as_map(&mut template).insert("$patch".to_owned(), json!("replace"));
    json!({"spec": {"template": template}})
}

/// The template in a revision.
pub(crate) fn template(revision: &Value) -> Value {
    let mut template = at(revision, &["data", "spec", "template"]).clone();
    object::as_map(&mut template).remove("$patch");
    template
}

fn revision_number(revision: &Value) -> i64 {
    number(revision, &["revision"]).unwrap_or(0)
}

/// Oldest first.
fn sorted(revisions: &[Arc<Value>]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = revisions.iter().map(AsRef::as_ref).collect();
    sorted.sort_by_key(|revision| {
        (
            revision_number(revision),
            object::created(revision),
            object::name(revision).to_owned(),
        )
    });
    sorted
}

/// The hash in a revision's labels.
fn hash_of(revision: &Value) -> &str {
    match label(revision, HISTORY_HASH) {
        "" => label(revision, REVISION_HASH),
        hash => hash,
    }
}

/// Finds the revision of the owner's template among those it controls, or creates it. `collisions` is how often a name
/// was taken by another template.
pub(crate) fn update(owner: &Value, revisions: &[Arc<Value>], collisions: i64) -> Update {
    let data = data(owner);
    let sorted = sorted(revisions);
    let next = sorted.last().map_or(0, |last| revision_number(last)) + 1;
    // The newest of the equal ones.
    if let Some(index) = sorted.iter().rposition(|revision| revision["data"] == data) {
        let found = sorted[index];
        let name = object::name(found).to_owned();
        return Update {
            hash: hash_of(found).to_owned(),
            create: None,
            renumber: (index + 1 < sorted.len()).then(|| (name.clone(), next)),
            name,
        };
    }
    let hash = template_hash(&data, collisions);
    let name = format!("{}-{hash}", object::name(owner));
    let mut labels =
        object::as_map(&mut at(owner, &["spec", "template", "metadata", "labels"]).clone()).clone();
    // Both controllers label their revisions, each in its own way.
    let key = if owner["kind"] == "DaemonSet" {
        REVISION_HASH
    } else {
        HISTORY_HASH
    };
    labels.insert(key.to_owned(), json!(hash));
    let mut metadata = json!({
        "name": name, "namespace": object::namespace(owner), "labels": labels,
        "ownerReferences": [object::controller_reference(owner)],
    });
    if let Some(annotations) = owner["metadata"].get("annotations") {
        metadata["annotations"] = annotations.clone();
    }
    Update {
        create: Some(json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": data, "revision": next,
        })),
        renumber: None,
        hash,
        name,
    }
}

/// Names of the oldest revisions beyond the owner's `revisionHistoryLimit`; those `in_use` do not count.
pub(crate) fn beyond_limit(
    owner: &Value,
    revisions: &[Arc<Value>],
    in_use: impl Fn(&Value) -> bool,
) -> Vec<String> {
    let limit = number(owner, &["spec", "revisionHistoryLimit"]).unwrap_or(10);
    let unused: Vec<&Value> = sorted(revisions)
        .into_iter()
        .filter(|revision| !in_use(revision))
        .collect();
    let excess = unused
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    unused
        .into_iter()
        .take(excess)
        .map(|revision| object::name(revision).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
               "metadata": {"name": "db", "namespace": "default", "uid": "s", "annotations": {"why": image}},
               "spec": {"revisionHistoryLimit": 1,
                        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"image": image}}}})
    }

    #[test]
    fn templates_get_revisions_and_old_ones_come_back() {
        let mut history: Vec<Arc<Value>> = Vec::new();
        let mut names = Vec::new();
        for (image, expected) in [("1", 1), ("2", 2), ("3", 3)] {
            let update = update(&owner(image), &history, 0);
            let created = update.create.unwrap();
            assert_eq!((&created["revision"], update.renumber), (&json!(expected), None));
            assert_eq!(template(&created), owner(image)["spec"]["template"]);
            assert_eq!(created["metadata"]["annotations"]["why"], image);
            assert_eq!(update.name, format!("db-{}", update.hash));
            names.push(update.name);
            history.push(Arc::new(created));
        }
        let same = update(&owner("3"), &history, 0);
        assert_eq!(
            (same.create, same.renumber, &same.name),
            (None, None, &names[2]),
            "nothing new"
        );
        let back = update(&owner("1"), &history, 0);
        assert_eq!(
            (back.create, back.renumber),
            (None, Some((names[0].clone(), 4))),
            "the first is the newest again"
        );
        let in_use = |revision: &Value| object::name(revision) == names[2];
        assert_eq!(
            beyond_limit(&owner("3"), &history, in_use),
            [names[0].clone()],
            "one unused revision is kept"
        );
        assert_ne!(update(&owner("9"), &[], 0).name, update(&owner("9"), &[], 1).name);
    }
}
