//! The three kinds of patch that are not server-side apply: JSON patch, merge patch, strategic merge patch.

use serde_json::{Map, Value, json};

use crate::api::fields::item_key;
use crate::object;
use crate::schema::{ListShape, list_shape};
use crate::status::{ApiError, ApiResult};

/// More operations than any tool sends in one JSON patch (the same as the real limit).
const MAX_OPERATIONS: usize = 10_000;

/// RFC 6902.
///
/// # Errors
/// 400 when the patch cannot be read, 422 when it does not fit the object.
pub(crate) fn json(object: &Value, patch: &Value) -> ApiResult<Value> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding JSON patch: {error}")))?;
    if patch.0.len() > MAX_OPERATIONS {
        return Err(ApiError::too_large(MAX_OPERATIONS));
    }
    let mut new = object.clone();
    json_patch::patch(&mut new, &patch).map_err(|error| {
        tracing::debug!(%error, "a JSON patch does not fit");
        ApiError::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    })?;
    Ok(new)
}

/// RFC 7386.
pub(crate) fn merge(object: &Value, patch: &Value) -> Value {
    let mut new = object.clone();
    json_patch::merge(&mut new, patch);
    new
}

/// Kubernetes' own: lists of the API merge by their keys, with `$patch`, `$setElementOrder`, `$retainKeys` and
/// `$deleteFromPrimitiveList` directives.
///
/// # Errors
/// 400 when a directive or a keyed item cannot be read.
pub(crate) fn strategic(object: &Value, patch: &Value) -> ApiResult<Value> {
    merge_value(object.clone(), patch, &mut Vec::new())
}

fn merge_value<'a>(old: Value, patch: &'a Value, path: &mut Vec<&'a str>) -> ApiResult<Value> {
    match (old, patch) {
        (old, Value::Object(patch)) => {
            let map = if let Value::Object(map) = old {
                map
            } else {
                Map::new()
            };
            merge_map(map, patch, path)
        }
        (Value::Array(items), Value::Array(patch)) => merge_list(items, patch, path),
        (_, Value::Array(patch)) => merge_list(Vec::new(), patch, path),
        (_, patch) => Ok(patch.clone()),
    }
}

fn merge_map<'a>(
    mut map: Map<String, Value>,
    patch: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
) -> ApiResult<Value> {
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let kept = patch.iter().filter(|(k, _)| *k != "$patch");
            return Ok(Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect()));
        }
        Some("delete") => return Ok(json!({})),
        Some(other) => return Err(ApiError::bad_request(format!("unknown patch type: {other}"))),
    }
    if let Some(Value::Array(keep)) = patch.get("$retainKeys") {
        map.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if key == "$patch" || key == "$retainKeys" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (map.get_mut(field), value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if value.is_null() {
            map.remove(key);
            continue;
        }
        path.push(key);
        let old = map.remove(key).unwrap_or(Value::Null);
        let merged = merge_value(old, value, path);
        path.pop();
        map.insert(key.clone(), merged?);
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix("$setElementOrder/")
            && let (Some(Value::Array(items)), Value::Array(order)) = (map.get_mut(field), order)
        {
            path.push(field);
            let shape = list_shape(path);
            path.pop();
            sort_as(items, order, shape);
        }
    }
    Ok(Value::Object(map))
}

/// The one field by which strategic merge patch tells items apart: the first of the server-side apply keys.
fn merge_key(keys: &'static [&'static str]) -> &'static [&'static str] {
    &keys[..1]
}

fn merge_list<'a>(mut items: Vec<Value>, patch: &'a [Value], path: &mut Vec<&'a str>) -> ApiResult<Value> {
    let replace = patch
        .iter()
        .any(|p| p["$patch"] == "replace" && p.as_object().is_some_and(|m| m.len() == 1));
    if replace {
        let kept = patch.iter().filter(|p| p.get("$patch").is_none());
        return Ok(Value::Array(kept.cloned().collect()));
    }
    match list_shape(path) {
        ListShape::Atomic => Ok(Value::Array(patch.to_vec())),
        ListShape::Set => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
            Ok(Value::Array(items))
        }
        ListShape::Keyed(keys) => {
            let keys = merge_key(keys);
            for item in patch {
                if item.get(keys[0]).is_none() {
                    let at = path.join(".");
                    return Err(ApiError::bad_request(format!(
                        "map: {at} does not contain declared merge key: {}",
                        keys[0]
                    )));
                }
                let key = item_key(item, keys);
                let position = items.iter().position(|old| item_key(old, keys) == key);
                match (item["$patch"].as_str(), position) {
                    (Some("delete"), _) => items.retain(|old| item_key(old, keys) != key),
                    (_, Some(index)) => items[index] = merge_value(items[index].take(), item, path)?,
                    (_, None) => items.push(merge_value(Value::Null, item, path)?),
                }
            }
            Ok(Value::Array(items))
        }
    }
}

fn sort_as(items: &mut [Value], order: &[Value], shape: ListShape) {
    let rank = |item: &Value| {
        let position = order.iter().position(|wanted| match shape {
            ListShape::Keyed(keys) => item_key(wanted, merge_key(keys)) == item_key(item, merge_key(keys)),
            _ => object::canonical(wanted) == object::canonical(item),
        });
        position.unwrap_or(usize::MAX)
    };
    items.sort_by_key(rank);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategic_merge_knows_the_keys_of_lists() {
        let object = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "app", "image": "a:1", "env": [{"name": "A", "value": "1"}], "args": ["x"]},
            {"name": "side", "image": "s:1"}]}}}});
        let table = [
            (
                json!({"containers": [{"name": "app", "image": "a:2"}]}),
                json!([{"name": "app", "image": "a:2", "env": [{"name": "A", "value": "1"}], "args": ["x"]},
                       {"name": "side", "image": "s:1"}]),
            ),
            (
                json!({"containers": [{"name": "side", "$patch": "delete"},
                                      {"name": "app", "env": [{"name": "B", "value": "2"}], "args": ["y"]}]}),
                json!([{"name": "app", "image": "a:1", "args": ["y"],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "side"}, {"name": "app"}],
                       "containers": [{"name": "app", "env": null}]}),
                json!([{"name": "side", "image": "s:1"}, {"name": "app", "image": "a:1", "args": ["x"]}]),
            ),
            (
                json!({"containers": [{"$patch": "replace"}, {"name": "new", "image": "n"}]}),
                json!([{"name": "new", "image": "n"}]),
            ),
        ];
        for (patch, expected) in table {
            let new = strategic(&object, &json!({"spec": {"template": {"spec": patch}}})).unwrap();
            assert_eq!(new["spec"]["template"]["spec"]["containers"], expected, "{patch}");
        }
    }

    #[test]
    fn strategic_merge_drops_and_keeps_keys() {
        let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
                            "metadata": {"annotations": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
                           "metadata": {"annotations": {"a": null, "c": "3"},
                                        "$deleteFromPrimitiveList/finalizers": ["x"]}});
        assert_eq!(
            strategic(&object, &patch).unwrap(),
            json!({"spec": {"strategy": {"type": "Recreate"}},
                   "metadata": {"annotations": {"b": "2", "c": "3"}, "finalizers": ["y"]}})
        );
        assert_eq!(
            strategic(&object, &json!({"spec": {"$patch": "x"}}))
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn a_json_patch_that_does_not_fit_is_refused() {
        let object = json!({"spec": {"replicas": 1}});
        let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 2}]);
        assert_eq!(json(&object, &patch).unwrap_err().code, 422);
        let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]);
        assert_eq!(json(&object, &patch).unwrap(), json!({"spec": {"replicas": 2}}));
        assert_eq!(json(&object, &json!({"op": "x"})).unwrap_err().code, 400);
    }
}
