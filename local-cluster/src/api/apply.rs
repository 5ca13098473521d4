//! Server-side apply: merging a manager's desired fields into the live object, by field ownership.
//!
//! After `sigs.k8s.io/structured-merge-diff`: a field that another manager owns with another value is a conflict; a
//! field that this manager owned and no longer names is removed, unless another manager owns it too.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::fields::{self, FieldSet, Manager, Step};
use crate::api::schema::Schema;
use crate::object;
use crate::schema::ListShape;

/// Who applies, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) manager: &'a str,
    pub(crate) schema: Schema,
    /// Take over the conflicting fields.
    pub(crate) force: bool,
    /// Empty, or `status`.
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

/// The conflicting fields: the owner of each, and its path.
pub(crate) type Conflicts = Vec<(String, String)>;

/// Merges `applied` into `live` (null when the object is new).
///
/// # Errors
/// The conflicts, when there are any and `force` is off.
pub(crate) fn apply(live: &Value, applied: &Value, request: Request<'_>) -> Result<Value, Conflicts> {
    let schema = request.schema;
    let mut applied = applied.clone();
    object::metadata(&mut applied).remove("managedFields");
    let api_version = object::text(&applied, &["apiVersion"]).to_owned();
    let mut own = Manager::new(
        request.manager,
        "Apply",
        request.subresource,
        &api_version,
        request.now,
    );
    own.fields = fields::of_object(&applied, schema, request.subresource);

    let mut new = if live.is_null() { json!({}) } else { live.clone() };
    for (field, value) in applied.as_object().into_iter().flatten() {
        let wanted = match field.as_str() {
            "status" => request.subresource == "status",
            "metadata" => true,
            _ => request.subresource != "status",
        };
        if wanted {
            let old = object::as_map(&mut new).remove(field).unwrap_or(Value::Null);
            object::as_map(&mut new).insert(
                field.clone(),
                merge(old, value, schema, &mut vec![field.as_str()]),
            );
        }
    }

    let mut managers = fields::managers(live);
    let before = managers
        .iter()
        .position(|m| m.is(&own))
        .map(|index| managers.remove(index));
    let mut conflicts = Vec::new();
    for other in &mut managers {
        let taken: FieldSet = other
            .fields
            .intersection(&own.fields)
            .filter(|path| {
                !matches!(path.last(), Some(Step::Item(_)))
                    && fields::get(live, schema, path) != fields::get(&new, schema, path)
            })
            .cloned()
            .collect();
        conflicts.extend(taken.iter().map(|path| (other.display(), fields::display(path))));
        other.fields.retain(|path| !taken.contains(path));
    }
    if !conflicts.is_empty() && !request.force {
        return Err(conflicts);
    }

    if let Some(before) = &before {
        prune(&mut new, schema, before, &own, &managers);
    }
    // Applying the same again changes nothing, not even the time.
    if let Some(before) = &before {
        let mut plain = (live.clone(), new.clone());
        object::metadata(&mut plain.0).remove("managedFields");
        object::metadata(&mut plain.1).remove("managedFields");
        if before.fields == own.fields && plain.0 == plain.1 {
            own.time.clone_from(&before.time);
        }
    }
    managers.insert(0, own);
    fields::set_managers(&mut new, &managers);
    Ok(new)
}

/// Removes what this manager had and no longer wants.
fn prune(new: &mut Value, schema: Schema, before: &Manager, own: &Manager, others: &[Manager]) {
    let held = |path: &[Step]| {
        let within = |set: &FieldSet| set.iter().any(|p| p.starts_with(path));
        within(&own.fields) || others.iter().any(|other| within(&other.fields))
    };
    // Items before their fields, so that an item that is removed takes its key fields along.
    for path in before.fields.difference(&own.fields) {
        if held(path) || fields::is_key_field(path) {
            continue;
        }
        // A named field goes as a whole, with the defaults below it, once nobody has anything below it
        // (structured-merge-diff's EnsureNamedFieldsAreMembers). Not so in the metadata, where controllers have annotations
        // that no entry names here.
        let first = if path.first() == Some(&Step::Field("metadata".to_owned())) {
            path.len()
        } else {
            1
        };
        let whole = (first..path.len())
            .map(|length| &path[..length])
            .find(|above| matches!(above.last(), Some(Step::Field(_))) && !held(above));
        fields::remove(new, schema, whole.unwrap_or(path));
    }
}

fn merge<'a>(live: Value, applied: &'a Value, schema: Schema, path: &mut Vec<&'a str>) -> Value {
    match (live, applied) {
        (live, Value::Null) => live,
        (Value::Object(mut map), Value::Object(wanted)) if !schema.is_atomic_map(path) => {
            for (field, value) in wanted {
                path.push(field);
                let old = map.remove(field).unwrap_or(Value::Null);
                let value = merge(old, value, schema, path);
                path.pop();
                if !value.is_null() {
                    map.insert(field.clone(), value);
                }
            }
            Value::Object(map)
        }
        (Value::Null, Value::Object(wanted)) if !schema.is_atomic_map(path) => {
            // Nothing there yet: the same walk, to drop nulls.
            let empty = Value::Object(serde_json::Map::new());
            if wanted.is_empty() {
                empty
            } else {
                merge(empty, applied, schema, path)
            }
        }
        (Value::Array(mut items), Value::Array(wanted)) => match schema.list_shape(path) {
            ListShape::Atomic => applied.clone(),
            ListShape::Set => {
                let missing: Vec<Value> = wanted.iter().filter(|w| !items.contains(w)).cloned().collect();
                items.extend(missing);
                Value::Array(items)
            }
            ListShape::Keyed(keys) => {
                for want in wanted {
                    let key = fields::item_key(want, keys);
                    match items.iter_mut().find(|item| fields::item_key(item, keys) == key) {
                        Some(item) => *item = merge(item.take(), want, schema, path),
                        None => items.push(want.clone()),
                    }
                }
                Value::Array(items)
            }
        },
        (_, applied) => applied.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(manager: &str, force: bool) -> Request<'_> {
        Request {
            manager,
            schema: Schema::BuiltIn,
            force,
            subresource: "",
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn deployment(replicas: Option<i64>, image: &str, env: &Value) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "annotations": {"a": "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image, "env": env}]}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        object
    }

    #[test]
    fn a_field_of_another_manager_is_a_conflict_until_forced() {
        let live = apply(
            &Value::Null,
            &deployment(Some(1), "a:1", &json!([])),
            request("one", false),
        )
        .unwrap();
        let other = deployment(Some(3), "a:1", &json!([]));
        let conflicts = apply(&live, &other, request("two", false)).unwrap_err();
        assert_eq!(conflicts, [("\"one\"".to_owned(), ".spec.replicas".to_owned())]);

        let forced = apply(&live, &other, request("two", true)).unwrap();
        assert_eq!(forced["spec"]["replicas"], 3);
        // The first manager lost the field, so leaving it out does not remove it.
        let again = apply(
            &forced,
            &deployment(None, "a:1", &json!([])),
            request("one", false),
        )
        .unwrap();
        assert_eq!(again["spec"]["replicas"], 3);
        // The second still owns it: now leaving it out does.
        let gone = apply(
            &again,
            &deployment(None, "a:1", &json!([])),
            request("two", false),
        )
        .unwrap();
        assert_eq!(gone["spec"]["replicas"], Value::Null);
    }

    #[test]
    fn the_same_value_is_shared_and_no_conflict() {
        let object = deployment(Some(1), "a:1", &json!([]));
        let live = apply(&Value::Null, &object, request("one", false)).unwrap();
        let shared = apply(&live, &object, request("two", false)).unwrap();
        let left = apply(
            &shared,
            &deployment(None, "a:1", &json!([])),
            request("two", false),
        )
        .unwrap();
        assert_eq!(left["spec"]["replicas"], 1);
    }

    #[test]
    fn items_and_fields_no_longer_named_go() {
        let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
        let mut live = apply(
            &Value::Null,
            &deployment(Some(1), "a:1", &env),
            request("one", false),
        )
        .unwrap();
        // Another manager adds an item of its own.
        live["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "C", "value": "3"}));
        let mut wanted = deployment(Some(1), "a:1", &json!([{"name": "B", "value": "2"}]));
        wanted["metadata"].as_object_mut().unwrap().remove("annotations");
        let new = apply(&live, &wanted, request("one", false)).unwrap();
        assert_eq!(
            new["spec"]["template"]["spec"]["containers"][0]["env"],
            json!([{"name": "B", "value": "2"}, {"name": "C", "value": "3"}])
        );
        assert_eq!(new["metadata"].get("annotations"), None);
    }

    #[test]
    fn defaults_filled_in_by_the_server_belong_to_nobody() {
        let mut live = apply(
            &Value::Null,
            &deployment(None, "a:1", &json!([])),
            request("one", false),
        )
        .unwrap();
        live["spec"]["replicas"] = json!(1);
        let scaled = apply(
            &live,
            &deployment(Some(2), "a:1", &json!([])),
            request("two", false),
        )
        .unwrap();
        assert_eq!(scaled["spec"]["replicas"], 2);
    }

    /// An applied probe with what the server fills in, when `probe` is applied instead. Real ones leave the scheme alone
    /// up to 1.20.5, so that the probe has two handlers.
    fn probe_after(old: &Value, probe: &Value) -> Value {
        let object = |probe: &Value| {
            let mut object = deployment(None, "a:1", &json!([]));
            object["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe.clone();
            object
        };
        let mut live = apply(&Value::Null, &object(old), request("one", false)).unwrap();
        let there = &mut live["spec"]["template"]["spec"]["containers"][0]["readinessProbe"];
        there["httpGet"]["scheme"] = json!("HTTP");
        there["periodSeconds"] = json!(10);
        let new = apply(&live, &object(probe), request("one", false)).unwrap();
        new["spec"]["template"]["spec"]["containers"][0]["readinessProbe"].clone()
    }

    #[test]
    fn a_struct_goes_with_its_defaults_once_nobody_has_a_field_of_it() {
        let http = json!({"httpGet": {"path": "/health", "port": 1}});
        let table = [
            (
                json!({"tcpSocket": {"port": 1}}),
                json!({"tcpSocket": {"port": 1}, "periodSeconds": 10}),
            ),
            (
                json!({"httpGet": {"port": 1}}),
                json!({"httpGet": {"port": 1, "scheme": "HTTP"}, "periodSeconds": 10}),
            ),
        ];
        for (probe, expected) in table {
            assert_eq!(probe_after(&http, &probe), expected, "{probe}");
        }
    }

    #[test]
    fn annotations_of_controllers_stay_when_those_that_were_applied_go() {
        let mut object = deployment(None, "a:1", &json!([]));
        let mut live = apply(&Value::Null, &object, request("one", false)).unwrap();
        live["metadata"]["annotations"]["revision"] = json!("1");
        object::metadata(&mut object).remove("annotations");
        let new = apply(&live, &object, request("one", false)).unwrap();
        assert_eq!(new["metadata"]["annotations"], json!({"revision": "1"}));
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let object = deployment(Some(1), "a:1", &json!([{"name": "A", "value": "1"}]));
        let live = apply(&Value::Null, &object, request("one", false)).unwrap();
        let later = Request {
            now: Timestamp::from_second(100).unwrap(),
            ..request("one", false)
        };
        assert_eq!(apply(&live, &object, later).unwrap(), live);
        let changed = apply(
            &live,
            &deployment(Some(1), "a:2", &json!([{"name": "A", "value": "1"}])),
            later,
        )
        .unwrap();
        assert_eq!(
            changed["metadata"]["managedFields"][0]["time"],
            "1970-01-01T00:01:40Z"
        );
        assert_eq!(
            changed["spec"]["template"]["spec"]["containers"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn atomic_parts_are_replaced() {
        let service = |selector: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                   "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": 1}]}})
        };
        let live = apply(
            &Value::Null,
            &service(json!({"app": "a", "v": "1"})),
            request("one", false),
        )
        .unwrap();
        let new = apply(&live, &service(json!({"app": "b"})), request("one", false)).unwrap();
        assert_eq!(new["spec"]["selector"], json!({"app": "b"}));
        assert_eq!(new["spec"]["ports"].as_array().unwrap().len(), 1);
    }
}
