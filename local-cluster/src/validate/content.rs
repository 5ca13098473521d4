//! ConfigMaps, Secrets and ResourceQuotas.

use serde_json::Value;

use super::Causes;
use super::metadata::data_keys;
use crate::cause::Cause;
use crate::{quantity, quota};

/// The maximum size of a ConfigMap or Secret, in bytes.
const MAX_CONFIG_MAP_BYTES: usize = 1_048_576;

pub(super) fn config_map(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    data_keys(object, "data", causes);
    data_keys(object, "binaryData", causes);
    let sizes = |field: &str| -> usize {
        let values = object[field].as_object().into_iter().flatten();
        values
            .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len))
            .sum()
    };
    if sizes("data") + sizes("binaryData") > MAX_CONFIG_MAP_BYTES {
        let message = "Too long: may not be more than 1048576 bytes".to_owned();
        causes.0.push(Cause {
            reason: "FieldValueTooLong",
            message,
            field: "data".to_owned(),
        });
    }
    if let Some(old) = old
        && old["immutable"] == true
        && (old["data"] != object["data"] || old["binaryData"] != object["binaryData"])
    {
        causes.forbidden("data", "Forbidden: field is immutable when `immutable` is set");
    }
}

pub(super) fn secret(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    data_keys(object, "data", causes);
    let values = object["data"].as_object().into_iter().flatten();
    // Base64 has four characters for three bytes.
    let size: usize = values
        .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len) / 4 * 3)
        .sum();
    if size > MAX_CONFIG_MAP_BYTES {
        causes.0.push(Cause {
            reason: "FieldValueTooLong",
            message: "Too long: may not be more than 1048576 bytes".to_owned(),
            field: "data".to_owned(),
        });
    }
    if let Some(old) = old {
        if old["immutable"] == true && old["data"] != object["data"] {
            causes.forbidden("data", "Forbidden: field is immutable when `immutable` is set");
        }
        if old["type"] != object["type"] {
            causes.invalid("type", &object["type"], "field is immutable");
        }
    }
}

pub(super) fn resource_quota(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    for (name, amount) in spec["hard"].as_object().into_iter().flatten() {
        let field = format!("spec.hard[{name}]");
        let is_whole = |milli: i128| milli >= 0 && milli % 1000 == 0;
        if quota::counted(name).is_none() {
            causes.refused(field, "numbers of objects are limited: pods, count/…");
        } else if !amount.as_str().and_then(quantity::milli).is_some_and(is_whole) {
            causes.invalid(field, amount, "must be an integer");
        }
    }
    for field in ["scopes", "scopeSelector"] {
        if !spec[field].is_null() {
            causes.refused(
                format!("spec.{field}"),
                "quotas count every object of their kinds",
            );
        }
    }
}
