//! The columns that a definition gives its resources (`additionalPrinterColumns`).
//!
//! After `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{list, text};

/// A column, and where in an object its cells come from.
#[derive(Debug)]
pub(crate) struct Column {
    definition: Value,
    kind: String,
    path: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    /// The first item whose field has this value.
    Where(Vec<String>, String),
}

/// The columns of a version of a definition, after the name; its age when it has none.
pub(crate) fn columns(version: &Value) -> Vec<Column> {
    let given = list(version, &["additionalPrinterColumns"]);
    if given.is_empty() {
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
        return vec![column(&age)];
    }
    given.iter().map(column).collect()
}

fn column(given: &Value) -> Column {
    let path = text(given, &["jsonPath"]);
    let description = match text(given, &["description"]) {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        description => description.to_owned(),
    };
    let kind = text(given, &["type"]).to_owned();
    Column {
        definition: json!({
            "name": given["name"], "type": kind, "format": text(given, &["format"]),
            "description": description, "priority": given["priority"].as_i64().unwrap_or(0),
        }),
        kind,
        path: parse(path),
    }
}

impl Column {
    pub(crate) fn definition(&self) -> Value {
        self.definition.clone()
    }

    /// `age` puts a time into words.
    pub(crate) fn cell(&self, object: &Value, age: impl Fn(Timestamp) -> String) -> Value {
        let value = find(object, &self.path);
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("date", value) => {
                let time = value.as_str().and_then(|time| time.parse().ok());
                json!(time.map_or_else(|| "<invalid>".to_owned(), &age))
            }
            ("string", Value::String(_)) => value.clone(),
            ("string", value) => json!(value.to_string()),
            ("integer", Value::Number(_)) => value.as_i64().map_or(Value::Null, Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            _ => Value::Null,
        }
    }
}

/// Reads `.a.b`, `['a.b']`, `[0]` and `[?(@.type=="Ready")]`; whatever else there is finds nothing.
fn parse(path: &str) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        let (step, after) = if let Some(inside) = rest.strip_prefix('[') {
            let Some(end) = inside.find(']') else { break };
            (bracket(&inside[..end]), &inside[end + 1..])
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name
                .char_indices()
                .find(|(at, c)| matches!(c, '.' | '[') && !name[..*at].ends_with('\\'))
                .map_or(name.len(), |(at, _)| at);
            (Step::Field(name[..end].replace('\\', "")), &name[end..])
        };
        if step != Step::Field(String::new()) {
            steps.push(step);
        }
        rest = after;
    }
    steps
}

fn bracket(inside: &str) -> Step {
    let plain = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    let condition = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')'));
    if let Some((field, value)) = condition.and_then(|c| c.split_once("==")) {
        let field = field.trim().trim_start_matches('@');
        let field = field
            .split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned);
        return Step::Where(field.collect(), plain(value));
    }
    inside
        .parse()
        .map_or_else(|_| Step::Field(plain(inside)), Step::Index)
}

fn find<'a>(object: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(object, |value, step| {
        let found = match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => value.get(index),
            Step::Where(field, wanted) => {
                let field: Vec<&str> = field.iter().map(String::as_str).collect();
                let items = value.as_array();
                items.and_then(|items| items.iter().find(|item| text(item, &field) == wanted))
            }
        };
        found.unwrap_or(&Value::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_from_their_paths() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}, "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"days": 5, "names": ["one", "two"]},
            "status": {"conditions": [{"type": "Other", "status": "No"}, {"type": "Ready", "status": "True"}]}});
        let table = [
            (".spec.days", "integer", json!(5)),
            (".spec.days", "string", json!("5")),
            (".spec.names[1]", "string", json!("two")),
            (".spec.none.at.all", "string", Value::Null),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                "string",
                json!("True"),
            ),
            (r".metadata.annotations.a\.b/c", "string", json!("x")),
            (".metadata.annotations['a.b/c']", "string", json!("x")),
            (
                ".metadata.creationTimestamp",
                "date",
                json!("0 seconds after 1970"),
            ),
        ];
        let age = |time: Timestamp| format!("{} seconds after 1970", time.as_second());
        for (path, kind, expected) in table {
            let column = column(&json!({"name": "X", "type": kind, "jsonPath": path}));
            assert_eq!(column.cell(&object, age), expected, "{path}");
        }
    }
}
