//! Names, labels and annotations, in the words of `k8s.io/apimachinery/pkg/util/validation`.

use serde_json::Value;

use super::Causes;
use crate::cause::Cause;
use crate::object::{self, at};
use crate::resources::Resource;

const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with a name of lower case letters, digits and hyphens, if anything.
pub(super) fn label_name(text: &str) -> Option<String> {
    shaped(text, 63, is_dns_label(text), LABEL)
}

fn shaped(text: &str, most: usize, good: bool, otherwise: &str) -> Option<String> {
    if text.len() > most {
        Some(format!("must be no more than {most} characters"))
    } else {
        (!good).then(|| otherwise.to_owned())
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn subdomain(text: &str) -> Option<String> {
    shaped(text, 253, text.split('.').all(is_dns_label), SUBDOMAIN)
}

/// Letters, digits and `-_.` in between.
fn is_name_part(text: &str) -> bool {
    let (outer, inner) = (|b: u8| b.is_ascii_alphanumeric(), |b: u8| b"-_.".contains(&b));
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| outer(*b))
        && bytes.last().is_some_and(|b| outer(*b))
        && bytes.iter().all(|b| outer(*b) || inner(*b))
}

/// What is wrong with the key of a label or an annotation.
fn qualified_name(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let mut wrong = Vec::new();
    match prefix {
        Some("") => wrong.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => wrong.extend(subdomain(prefix).map(|why| format!("prefix part {why}"))),
        None => {}
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    }
    wrong.extend(shaped(name, 63, is_name_part(name), NAME_PART).map(|why| format!("name part {why}")));
    wrong
}

/// What is wrong with a key of a ConfigMap or a Secret.
pub(super) fn data_keys(object: &Value, field: &str, causes: &mut Causes) {
    for key in object[field]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        let good = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let climbs = match key.as_str() {
            "." => Some("must not be '.'"),
            ".." => Some("must not be '..'"),
            key if key.starts_with("..") => Some("must not start with '..'"),
            _ => None,
        };
        let wrong = shaped(key, 253, good, CONFIG_KEY);
        for why in wrong.into_iter().chain(climbs.map(str::to_owned)) {
            causes.invalid(format!("{field}[{key}]"), &Value::from(key.as_str()), &why);
        }
    }
}

pub(super) fn labels(labels: &Value, field: &str, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for why in qualified_name(key) {
            causes.invalid(field, &Value::from(key.as_str()), &why);
        }
        let text = value.as_str().unwrap_or_default();
        let good = text.is_empty() || is_name_part(text);
        if let Some(why) = shaped(text, 63, good, LABEL_VALUE) {
            causes.invalid(field, value, &why);
        }
    }
}

pub(super) fn annotations(annotations: &Value, field: &str, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        for why in qualified_name(&key.to_lowercase()) {
            causes.invalid(field, &Value::from(key.as_str()), &why);
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS_BYTES {
        causes.0.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"),
            field: field.to_owned(),
        });
    }
}

pub(super) fn check(resource: &Resource, object: &Value, causes: &mut Causes) {
    let name = object::name(object);
    let wrong = match resource.built_in() {
        _ if name.is_empty() => {
            causes.required("metadata.name", "name or generateName is required");
            None
        }
        "Namespace" => label_name(name),
        "Service" => {
            let good = is_dns_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
            shaped(name, 63, good, SERVICE)
        }
        _ => subdomain(name),
    };
    if let Some(why) = wrong {
        causes.invalid("metadata.name", &Value::from(name), &why);
    }
    labels(at(object, &["metadata", "labels"]), "metadata.labels", causes);
    annotations(
        at(object, &["metadata", "annotations"]),
        "metadata.annotations",
        causes,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_values_of_labels_are_checked() {
        let table = [
            (json!({"app": "web", "example.com/a_b": "", "a.b": "v1.2-x"}), 0),
            (json!({"a b": "c"}), 1),
            (json!({"/a": "c"}), 1),
            (json!({"Example.com/a": "c"}), 1),
            (json!({"a/b/c": "c"}), 1),
            (json!({"a": "-c"}), 1),
            (json!({"a": "x".repeat(64)}), 1),
        ];
        for (given, expected) in table {
            let mut causes = Causes::default();
            labels(&given, "metadata.labels", &mut causes);
            assert_eq!(causes.0.len(), expected, "{given}");
        }
    }

    #[test]
    fn keys_of_data_are_names_of_files() {
        let object = json!({"data": {"a b": "1", "..": "1", "..x": "1", ".hidden": "1", "A_b-c.d": "1"}});
        let mut causes = Causes::default();
        data_keys(&object, "data", &mut causes);
        let fields: Vec<&str> = causes.0.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["data[..]", "data[..x]", "data[a b]"]);
    }
}
