//! Sets of fields, and which manager owns which: `metadata.managedFields` in the FieldsV1 format.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::schema::Schema;
use crate::object;
use crate::schema::{ListShape, key_default};

mod update;

pub(crate) use update::track_update;

/// A step of a path: into a field, into the list item with these key fields, or to a value of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Field(String),
    /// The key fields as canonical JSON.
    Item(String),
    /// The value as canonical JSON.
    Member(String),
}

pub(crate) type Path = Vec<Step>;

/// The leaves of an object, and the items of its keyed lists.
pub(crate) type FieldSet = BTreeSet<Path>;

/// The field names on a path, for looking up the schema.
fn names(path: &[Step]) -> Vec<&str> {
    let fields = path.iter().filter_map(|step| match step {
        Step::Field(name) => Some(name.as_str()),
        _ => None,
    });
    fields.collect()
}

/// The key fields of a list item, with defaults filled in.
pub(crate) fn item_key(item: &Value, keys: &[&str]) -> String {
    let mut key = Map::new();
    for field in keys {
        let value = match item.get(*field) {
            Some(value) if !value.is_null() => value.clone(),
            _ => key_default(field).map_or(Value::Null, Value::from),
        };
        if !value.is_null() {
            key.insert((*field).to_owned(), value);
        }
    }
    object::canonical(&Value::Object(key))
}

/// With `containers`, also the maps and lists that hold others.
fn collect(value: &Value, schema: Schema, containers: bool, path: &mut Path, set: &mut FieldSet) {
    let at = names(path);
    match value {
        Value::Null => {}
        Value::Object(map) if !map.is_empty() && !schema.is_atomic_map(&at) => {
            if containers {
                set.insert(path.clone());
            }
            for (field, child) in map {
                path.push(Step::Field(field.clone()));
                collect(child, schema, containers, path, set);
                path.pop();
            }
        }
        Value::Array(items) => match schema.list_shape(&at) {
            ListShape::Atomic => {
                set.insert(path.clone());
            }
            ListShape::Set => {
                if containers {
                    set.insert(path.clone());
                }
                for item in items {
                    path.push(Step::Member(object::canonical(item)));
                    set.insert(path.clone());
                    path.pop();
                }
            }
            ListShape::Keyed(keys) => {
                if containers {
                    set.insert(path.clone());
                }
                for item in items {
                    path.push(Step::Item(item_key(item, keys)));
                    set.insert(path.clone());
                    collect(item, schema, containers, path, set);
                    path.pop();
                }
            }
        },
        _ => {
            set.insert(path.clone());
        }
    }
}

/// Metadata that is not owned by any manager, since the server writes it.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// The fields of an object that the request may own: all but the status, or the status alone.
pub(crate) fn of_object(object: &Value, schema: Schema, subresource: &str) -> FieldSet {
    in_object(object, schema, subresource, false)
}

fn in_object(object: &Value, schema: Schema, subresource: &str, containers: bool) -> FieldSet {
    let mut set = FieldSet::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        let wanted = match field.as_str() {
            "apiVersion" | "kind" => false,
            "status" => subresource == "status",
            "metadata" => true,
            _ => subresource != "status",
        };
        if wanted {
            let path = &mut vec![Step::Field(field.clone())];
            collect(value, schema, containers, path, &mut set);
        }
    }
    set.retain(|path| match path.as_slice() {
        [Step::Field(a), Step::Field(b), ..] if a == "metadata" => !UNOWNED.contains(&b.as_str()),
        [Step::Field(a)] => a != "metadata",
        _ => true,
    });
    set
}

/// The value at a path.
pub(crate) fn get<'a>(object: &'a Value, schema: Schema, path: &[Step]) -> Option<&'a Value> {
    let mut value = object;
    for (index, step) in path.iter().enumerate() {
        value = match step {
            Step::Field(name) => value.get(name)?,
            Step::Item(key) => {
                let ListShape::Keyed(keys) = schema.list_shape(&names(&path[..index])) else {
                    return None;
                };
                value
                    .as_array()?
                    .iter()
                    .find(|item| item_key(item, keys) == *key)?
            }
            Step::Member(text) => value
                .as_array()?
                .iter()
                .find(|item| object::canonical(item) == *text)?,
        };
    }
    Some(value)
}

/// Removes what is at a path, and the maps and lists that this leaves empty.
pub(crate) fn remove(object: &mut Value, schema: Schema, path: &[Step]) {
    remove_at(object, schema, path, &mut Vec::new());
}

fn remove_at(value: &mut Value, schema: Schema, path: &[Step], above: &mut Path) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (first, value) {
        (Step::Field(name), Value::Object(map)) => {
            if !rest.is_empty() {
                let Some(child) = map.get_mut(name) else { return };
                above.push(first.clone());
                remove_at(child, schema, rest, above);
                above.pop();
            }
            let emptied = map.get(name).is_some_and(|child| match child {
                Value::Object(map) => map.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => false,
            });
            if rest.is_empty() || emptied {
                map.remove(name);
            }
        }
        (Step::Item(key), Value::Array(items)) => {
            let ListShape::Keyed(keys) = schema.list_shape(&names(above)) else {
                return;
            };
            if rest.is_empty() {
                items.retain(|item| item_key(item, keys) != *key);
            } else if let Some(item) = items.iter_mut().find(|item| item_key(item, keys) == *key) {
                above.push(first.clone());
                remove_at(item, schema, rest, above);
                above.pop();
            }
        }
        (Step::Member(text), Value::Array(items)) => items.retain(|item| object::canonical(item) != *text),
        _ => {}
    }
}

/// Whether the last step names a key field of the item it is in: such a field exists as long as its item.
pub(crate) fn is_key_field(path: &[Step]) -> bool {
    match path {
        [.., Step::Item(key), Step::Field(name)] => key.contains(&format!("{}:", Value::from(name.as_str()))),
        _ => false,
    }
}

/// A path as conflict messages show it: `.spec.template.spec.containers[name="app"].image`.
pub(crate) fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::Item(key) => {
                let key: Value = serde_json::from_str(key).unwrap_or_default();
                let fields: Vec<String> = key
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| format!("{k}={v}"))
                    .collect();
                text.push_str(&format!("[{}]", fields.join(",")));
            }
            Step::Member(value) => text.push_str(&format!("[={value}]")),
        }
    }
    text
}

fn to_fields_v1(set: &FieldSet) -> Value {
    let mut root = json!({});
    for path in set {
        let mut node = &mut root;
        for step in path {
            let key = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Item(key) => format!("k:{key}"),
                Step::Member(value) => format!("v:{value}"),
            };
            node = object::as_map(node).entry(key).or_insert_with(|| json!({}));
        }
        object::as_map(node).insert(".".to_owned(), json!({}));
    }
    drop_lone_dots(&mut root);
    root
}

/// A leaf is written `{}`, not `{".":{}}`.
fn drop_lone_dots(node: &mut Value) {
    let map = object::as_map(node);
    if map.len() == 1 && map.contains_key(".") {
        map.clear();
        return;
    }
    for (key, child) in map.iter_mut() {
        if key != "." {
            drop_lone_dots(child);
        }
    }
}

fn from_fields_v1(node: &Value, path: &mut Path, set: &mut FieldSet) {
    let Some(map) = node.as_object() else { return };
    if map.is_empty() && !path.is_empty() {
        set.insert(path.clone());
    }
    for (key, child) in map {
        let step = match key.split_at_checked(2) {
            Some(("f:", name)) => Step::Field(name.to_owned()),
            Some(("k:", key)) => {
                let key: Value = serde_json::from_str(key).unwrap_or_default();
                Step::Item(object::canonical(&key))
            }
            Some(("v:", value)) => Step::Member(value.to_owned()),
            _ => {
                set.insert(path.clone());
                continue;
            }
        };
        path.push(step);
        from_fields_v1(child, path, set);
        path.pop();
    }
}

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    pub(crate) subresource: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

impl Manager {
    pub(crate) fn new(
        name: &str,
        operation: &str,
        subresource: &str,
        api_version: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            name: name.to_owned(),
            operation: operation.to_owned(),
            subresource: subresource.to_owned(),
            api_version: api_version.to_owned(),
            time: object::stamp(now),
            fields: FieldSet::new(),
        }
    }

    /// Whether it is the same manager doing the same kind of thing.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.operation == other.operation && self.subresource == other.subresource
    }

    /// How conflict messages name it.
    pub(crate) fn display(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == "Update" {
            text.push_str(&format!(" using {} at {}", self.api_version, self.time));
        }
        text
    }
}

/// Reads an object's `managedFields`.
pub(crate) fn managers(object: &Value) -> Vec<Manager> {
    let entries = object::list(object, &["metadata", "managedFields"]).iter();
    let read = |entry: &Value| {
        let mut fields = FieldSet::new();
        from_fields_v1(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
        Manager {
            name: object::text(entry, &["manager"]).to_owned(),
            operation: object::text(entry, &["operation"]).to_owned(),
            subresource: object::text(entry, &["subresource"]).to_owned(),
            api_version: object::text(entry, &["apiVersion"]).to_owned(),
            time: object::text(entry, &["time"]).to_owned(),
            fields,
        }
    };
    entries.map(read).collect()
}

/// Writes an object's `managedFields`; managers without fields are omitted.
pub(crate) fn set_managers(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version,
                "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": to_fields_v1(&manager.fields),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = json!(manager.subresource);
            }
            entry
        })
        .collect();
    let metadata = object::metadata(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_v1_is_written_as_the_api_server_does() {
        let object = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "app", "image": "a", "args": ["x", "y"],
                "ports": [{"containerPort": 80}]}]}}}, "status": {"replicas": 1}});
        let set = of_object(&object, Schema::BuiltIn, "");
        let written = to_fields_v1(&set);
        assert_eq!(
            written,
            json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
        );
        let mut again = FieldSet::new();
        from_fields_v1(&written, &mut Vec::new(), &mut again);
        assert_eq!(again, set);
    }
}
