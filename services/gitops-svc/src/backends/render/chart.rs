//! What the files of a chart say about how it is to be rendered.

use serde_json::Value;

/// What checks the values of a chart.
const SCHEMA: &str = "values.schema.json";
/// Where a schema says what it is written in: Helm knows these without reading anything.
const KNOWN: [&str; 2] = ["http://json-schema.org/", "https://json-schema.org/"];
/// The keys by which a schema refers to others.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Functions of templates whose success depends on what a text says.
const JUDGES: [&str; 6] = ["fail", "index", "slice", "div", "mod", "tpl"];
/// How others of them begin.
const FAMILIES: [&str; 5] = ["semver", "regex", "split", "substr", "must"];

/// Files of a chart, by path.
type Files = [(String, Vec<u8>)];

/// Whether Helm reads nothing but the chart to check its values: schemas refer only to themselves, and each can be
/// seen.
pub(super) fn schemas_are_own(files: &Files) -> bool {
    files.iter().all(|(path, content)| {
        if is_packed(path) {
            return false;
        }
        !is_schema(path) || serde_json::from_slice(content).is_ok_and(|schema| is_own(&schema))
    })
}

fn is_own(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().all(|(key, value)| match value.as_str() {
            Some(text) if REFERENCES.contains(&key.as_str()) => text.starts_with('#'),
            Some(text) if key == "$schema" => KNOWN.iter().any(|known| text.starts_with(known)),
            _ => is_own(value),
        }),
        Value::Array(items) => items.iter().all(is_own),
        _ => true,
    }
}

/// Whether a chart that renders with one image does with every other: nothing in it looks at what values say.
pub(super) fn takes_any_image(files: &Files) -> bool {
    !files.iter().any(|(path, content)| {
        let is_template = path.split('/').any(|part| part == "templates");
        is_packed(path) || is_schema(path) || (is_template && judges(&String::from_utf8_lossy(content)))
    })
}

fn judges(template: &str) -> bool {
    template
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| JUDGES.contains(&word) || FAMILIES.iter().any(|family| word.starts_with(family)))
}

fn is_schema(path: &str) -> bool {
    path.rsplit('/').next() == Some(SCHEMA)
}

/// A chart that a chart depends on, which nobody looks into here.
fn is_packed(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.ends_with(".tgz") || path.ends_with(".tar.gz")
}

#[cfg(test)]
mod tests {
    use super::{schemas_are_own, takes_any_image};

    fn file(path: &str, text: &str) -> Vec<(String, Vec<u8>)> {
        vec![(path.to_owned(), text.as_bytes().to_vec())]
    }

    #[test]
    fn a_schema_that_leads_elsewhere_is_not_followed() {
        for own in [
            "{}",
            r##"{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#/$defs/a"}}}"##,
            r#"{"properties": {"$ref": {"type": "string"}}}"#,
        ] {
            assert!(schemas_are_own(&file("a/values.schema.json", own)), "{own}");
        }
        for bad in [
            r#"{"$ref": "file:///etc/passwd"}"#,
            r#"{"properties": {"a": [{"$ref": "../../etc/passwd"}]}}"#,
            r#"{"a": {"\u0024ref": "/etc/passwd"}}"#,
            r#"{"a": {"$dynamicRef": "x.json"}}"#,
            r#"{"$schema": "file:///etc/passwd"}"#,
            r#"{"$schema": "https://example.com/schema"}"#,
            "not JSON",
        ] {
            assert!(
                !schemas_are_own(&file("a/charts/b/values.schema.json", bad)),
                "{bad}"
            );
            assert!(schemas_are_own(&file("a/other.json", bad)), "{bad}");
        }
        assert!(!schemas_are_own(&file("a/charts/b-1.0.0.tgz", "")));
    }

    #[test]
    fn what_looks_at_values_is_asked_for_each_image() {
        let template = "a/templates/deployment.yaml";
        for (path, text, any) in [
            (
                template,
                "image: {{ .Values.image.tag | default .Chart.AppVersion | quote }}",
                true,
            ),
            (template, "livenessProbe: {failureThreshold: 3}", true),
            (
                template,
                "{{ if contains \"x\" .Release.Name }}{{ trunc 63 . }}{{ end }}",
                true,
            ),
            (template, "{{ fail \"no\" }}", false),
            (
                template,
                "{{- if (semverCompare \">=1.0\" .Values.image.tag) }}",
                false,
            ),
            (template, "{{ mustRegexMatch \"^v\" . }}", false),
            (template, "{{ index (splitList \":\" .Values.image) 1 }}", false),
            ("a/charts/b/templates/_helpers.tpl", "{{ substr 0 7 . }}", false),
            ("a/README.md", "it does not fail", true),
            ("a/values.schema.json", "{}", false),
            ("a/charts/b-1.0.0.tgz", "", false),
        ] {
            assert_eq!(takes_any_image(&file(path, text)), any, "{path} {text}");
        }
    }
}
