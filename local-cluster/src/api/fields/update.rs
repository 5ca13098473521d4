//! Who owns what after a write that is not a server-side apply.

use serde_json::Value;

use super::{FieldSet, Manager, Path, Step, get, in_object, managers, names, of_object, set_managers};
use crate::api::schema::Schema;

/// Maps and lists that every object of a type has, even where no request set them: the Go types of the API have them
/// without `omitempty`, or not as pointers.
const BY_TYPE: &[&[&str]] = &[
    &["spec"],
    &["status"],
    &["source"],
    &["spec", "strategy"],
    &["spec", "updateStrategy"],
    &["spec", "containers"],
    &["spec", "template"],
    &["spec", "template", "metadata"],
    &["spec", "template", "spec"],
    &["spec", "template", "spec", "containers"],
    &["spec", "names"],
];

/// What the server writes into a new object after it has noted what the client wrote.
const BY_SERVER: &[(&str, &[&str])] = &[
    ("Namespace", &["spec", "finalizers"]),
    ("Service", &["spec", "clusterIP"]),
    ("Service", &["spec", "clusterIPs"]),
    ("Service", &["spec", "ipFamilies"]),
    ("Service", &["spec", "ipFamilyPolicy"]),
    ("Job", &["spec", "selector"]),
    (
        "Job",
        &["metadata", "labels", "batch.kubernetes.io/controller-uid"],
    ),
    ("Job", &["metadata", "labels", "batch.kubernetes.io/job-name"]),
    ("Job", &["metadata", "labels", "controller-uid"]),
    ("Job", &["metadata", "labels", "job-name"]),
    (
        "Job",
        &[
            "spec",
            "template",
            "metadata",
            "labels",
            "batch.kubernetes.io/controller-uid",
        ],
    ),
    (
        "Job",
        &[
            "spec",
            "template",
            "metadata",
            "labels",
            "batch.kubernetes.io/job-name",
        ],
    ),
    (
        "Job",
        &["spec", "template", "metadata", "labels", "controller-uid"],
    ),
    ("Job", &["spec", "template", "metadata", "labels", "job-name"]),
];

/// Records that `manager` wrote `new` over `old` without server-side apply: it owns what it changed, and others
/// no longer do. It also owns the maps and lists that it added.
pub(crate) fn track_update(old: Option<&Value>, new: &mut Value, schema: Schema, mut manager: Manager) {
    let nodes = |object: &Value| in_object(object, schema, &manager.subresource, true);
    let (before, after) = (old.map(nodes).unwrap_or_default(), nodes(new));
    let leaves = of_object(new, schema, &manager.subresource);
    let mut changed: FieldSet = after
        .iter()
        .filter(|path| match old {
            None => leaves.contains(*path) || !is_by_type(path, schema),
            Some(_) if !before.contains(*path) => true,
            Some(old) => {
                let is_leaf = leaves.contains(*path) && !is_container(new, schema, path);
                is_leaf && get(old, schema, path) != get(new, schema, path)
            }
        })
        .cloned()
        .collect();
    if old.is_none() {
        leave_out_the_servers(&mut changed, new["kind"].as_str().unwrap_or_default(), schema);
    }
    let removed: FieldSet = before.difference(&after).cloned().collect();
    // Real API servers accept managed fields in the update, and keep the old ones if it has none.
    let brought = managers(new);
    let mut all = if brought.is_empty() {
        old.map(managers).unwrap_or_default()
    } else {
        brought
    };
    if changed.is_empty() && removed.is_empty() {
        set_managers(new, &all);
        return;
    }
    for other in &mut all {
        other.fields.retain(|path| !removed.contains(path));
        if !other.is(&manager) {
            other
                .fields
                .retain(|path| !changed.contains(path) || is_container(new, schema, path));
        }
    }
    match all.iter_mut().find(|other| other.is(&manager)) {
        Some(own) => {
            own.fields.extend(changed);
            own.time = manager.time;
            own.api_version = manager.api_version;
        }
        None => {
            manager.fields = changed;
            all.push(manager);
        }
    }
    set_managers(new, &all);
}

fn is_by_type(path: &[Step], schema: Schema) -> bool {
    let only_fields = path.iter().all(|step| matches!(step, Step::Field(_)));
    only_fields && !matches!(schema, Schema::Custom(_)) && BY_TYPE.contains(&names(path).as_slice())
}

fn leave_out_the_servers(changed: &mut FieldSet, kind: &str, schema: Schema) {
    if matches!(schema, Schema::Custom(_)) {
        return;
    }
    for (_, field) in BY_SERVER.iter().filter(|(of, _)| *of == kind) {
        let field: Path = field.iter().map(|name| Step::Field((*name).to_owned())).collect();
        changed.retain(|path| !path.starts_with(&field));
        let above = &field[..field.len() - 1];
        let held = |path: &Path| path.len() > above.len() && path.starts_with(above);
        if !changed.iter().any(held) {
            changed.remove(above);
        }
    }
}

/// Whether the path names an item of a keyed list, whose own fields are listed beside it.
fn is_container(object: &Value, schema: Schema, path: &[Step]) -> bool {
    matches!(path.last(), Some(Step::Item(_))) && get(object, schema, path).is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::super::display;
    use super::*;

    #[test]
    fn an_update_takes_over_what_it_changes() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}});
        track_update(
            None,
            &mut first,
            Schema::BuiltIn,
            Manager::new("one", "Update", "", "v1", now),
        );
        let mut second = json!({"metadata": {"name": "a"}, "data": {"x": "2", "y": "1"}});
        track_update(
            Some(&first),
            &mut second,
            Schema::BuiltIn,
            Manager::new("two", "Update", "", "v1", now),
        );
        let owned: Vec<(String, Vec<String>)> = managers(&second)
            .into_iter()
            .map(|m| (m.name, m.fields.iter().map(|p| display(p)).collect()))
            .collect();
        assert_eq!(
            owned,
            [
                ("one".to_owned(), vec![".data".to_owned(), ".data.y".to_owned()]),
                ("two".to_owned(), vec![".data.x".to_owned()])
            ]
        );
    }

    #[test]
    fn a_creation_owns_the_maps_and_lists_it_adds() {
        let mut new = json!({"kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {"containers": [
                {"name": "app", "readinessProbe": {"httpGet": {"port": 1}}}]}}}});
        let manager = Manager::new("one", "Update", "", "apps/v1", Timestamp::UNIX_EPOCH);
        track_update(None, &mut new, Schema::BuiltIn, manager);
        assert_eq!(
            new["metadata"]["managedFields"][0]["fieldsV1"],
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                    "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:name": {},
                        "f:readinessProbe": {".": {}, "f:httpGet": {".": {}, "f:port": {}}}}}}}}})
        );
    }
}
