//! Structural schemas: pruning, defaults, types, and how lists and maps merge.
//!
//! After `k8s.io/apiextensions-apiserver/pkg/apiserver/schema`. Patterns, formats and CEL rules are not checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cause::Cause;
use crate::object::{list, text};
use crate::schema::{self as built_in, ListShape};

/// What is allowed under names that are not properties.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    Nothing,
    Anything,
    Like(Box<Node>),
}

/// One place in a schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty for any.
    kind: String,
    nullable: bool,
    int_or_string: bool,
    preserve: bool,
    /// A whole object of the API: its apiVersion, kind and metadata are known without being declared.
    embedded: bool,
    properties: BTreeMap<String, Node>,
    additional: Additional,
    items: Option<Box<Node>>,
    required: Vec<String>,
    allowed: Vec<Value>,
    default: Option<Value>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    /// For a text its characters, for a list its items.
    at_least: Option<u64>,
    at_most: Option<u64>,
    list: Option<ListShape>,
    atomic_map: bool,
}

impl Node {
    /// The schema of a whole object.
    pub(crate) fn root(schema: &Value) -> Self {
        let mut node = Self::read(schema);
        node.embedded = true;
        node
    }

    fn read(schema: &Value) -> Self {
        let flag = |field: &str| schema[field] == true;
        let properties = schema["properties"].as_object().into_iter().flatten();
        let additional = match &schema["additionalProperties"] {
            Value::Object(_) => Additional::Like(Box::new(Self::read(&schema["additionalProperties"]))),
            Value::Bool(true) => Additional::Anything,
            _ => Additional::Nothing,
        };
        let length = |of_text: &str, of_list: &str| schema[of_text].as_u64().or(schema[of_list].as_u64());
        let list_shape = match text(schema, &["x-kubernetes-list-type"]) {
            "set" => Some(ListShape::Set),
            "map" => {
                let keys: Vec<&'static str> = list(schema, &["x-kubernetes-list-map-keys"])
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|key| &*Box::leak(key.to_owned().into_boxed_str()))
                    .collect();
                Some(ListShape::Keyed(Box::leak(keys.into_boxed_slice())))
            }
            _ => None,
        };
        Self {
            kind: text(schema, &["type"]).to_owned(),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties: properties
                .map(|(name, child)| (name.clone(), Self::read(child)))
                .collect(),
            additional,
            items: schema["items"]
                .is_object()
                .then(|| Box::new(Self::read(&schema["items"]))),
            required: list(schema, &["required"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            allowed: list(schema, &["enum"]).to_vec(),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            minimum: schema["minimum"].as_f64(),
            maximum: schema["maximum"].as_f64(),
            at_least: length("minLength", "minItems"),
            at_most: length("maxLength", "maxItems"),
            list: list_shape,
            atomic_map: text(schema, &["x-kubernetes-map-type"]) == "atomic",
        }
    }

    fn is_meta(&self, field: &str) -> bool {
        self.embedded && matches!(field, "apiVersion" | "kind" | "metadata")
    }

    fn child(&self, field: &str) -> Option<&Self> {
        match (self.properties.get(field), &self.additional) {
            (Some(node), _) => Some(node),
            (None, Additional::Like(node)) => Some(node),
            _ => None,
        }
    }

    /// Removes what the schema does not have; returns where it was.
    pub(crate) fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut gone = Vec::new();
        self.prune_at(value, "", &mut gone);
        gone
    }

    fn prune_at(&self, value: &mut Value, path: &str, gone: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let keep_others = self.preserve || matches!(self.additional, Additional::Anything);
                map.retain(|field, child| {
                    if self.is_meta(field) {
                        return true;
                    }
                    let at = join(path, field);
                    match self.child(field) {
                        Some(node) => node.prune_at(child, &at, gone),
                        None if keep_others => {}
                        None => {
                            gone.push(at);
                            return false;
                        }
                    }
                    true
                });
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    for (index, item) in items.iter_mut().enumerate() {
                        node.prune_at(item, &format!("{path}[{index}]"), gone);
                    }
                }
            }
            _ => {}
        }
    }

    /// Fills in the defaults of fields that are missing.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, node) in &self.properties {
                    let missing = match map.get(name) {
                        None => true,
                        Some(Value::Null) => !node.nullable,
                        Some(_) => false,
                    };
                    if let (true, Some(default)) = (missing, &node.default) {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, child) in map.iter_mut() {
                    if let Some(node) = self.child(name) {
                        node.fill(child);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.fill(item));
                }
            }
            _ => {}
        }
    }

    /// What is wrong with the value.
    pub(crate) fn check(&self, value: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.check_at(value, "", &mut causes);
        causes
    }

    fn check_at(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let mut cause = |reason, message: String| {
            causes.push(Cause {
                reason,
                message,
                field: path.to_owned(),
            });
        };
        let is = kind_of(value);
        if value.is_null() && self.nullable {
            return;
        }
        let fits = if self.int_or_string {
            matches!(is, "integer" | "string")
        } else {
            self.kind.is_empty() || self.kind == is || self.kind == "number" && is == "integer"
        };
        if !fits {
            let wanted = if self.int_or_string {
                "integer,string"
            } else {
                &self.kind
            };
            return cause(
                "FieldValueTypeInvalid",
                format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\""),
            );
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let allowed: Vec<String> = self.allowed.iter().map(Value::to_string).collect();
            cause(
                "FieldValueNotSupported",
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    allowed.join(", ")
                ),
            );
        }
        let number = value.as_f64();
        if let (Some(number), Some(least)) = (number, self.minimum)
            && number < least
        {
            let why =
                format!("Invalid value: {value}: {path} in body should be greater than or equal to {least}");
            cause("FieldValueInvalid", why);
        }
        if let (Some(number), Some(most)) = (number, self.maximum)
            && number > most
        {
            let why =
                format!("Invalid value: {value}: {path} in body should be less than or equal to {most}");
            cause("FieldValueInvalid", why);
        }
        let length = match value {
            Value::String(text) => Some((text.chars().count(), "chars long")),
            Value::Array(items) => Some((items.len(), "items")),
            _ => None,
        };
        if let Some((length, unit)) = length {
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            if let Some(least) = self.at_least.filter(|least| length < *least) {
                let why = format!("Invalid value: {value}: {path} in body should be at least {least} {unit}");
                cause("FieldValueInvalid", why);
            }
            if let Some(most) = self.at_most.filter(|most| length > *most) {
                let why = format!("Too long: {path} in body should be at most {most} {unit}");
                cause("FieldValueInvalid", why);
            }
        }
        match value {
            Value::Object(map) => self.check_map(map, path, causes),
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        node.check_at(item, &format!("{path}[{index}]"), causes);
                    }
                }
            }
            _ => {}
        }
    }

    fn check_map(&self, map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
        for field in self.required.iter().filter(|field| !map.contains_key(*field)) {
            causes.push(Cause {
                reason: "FieldValueRequired",
                message: "Required value".to_owned(),
                field: join(path, field),
            });
        }
        for (field, child) in map {
            if let Some(node) = self.child(field).filter(|_| !self.is_meta(field)) {
                node.check_at(child, &join(path, field), causes);
            }
        }
    }

    /// The place below these field names; list items on the path add nothing to it.
    fn walk(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, field| {
            let mut node = node;
            while let Some(items) = &node.items {
                node = items;
            }
            node.child(field)
        })
    }

    /// How lists at the path merge; if the schema does not say, they are replaced.
    pub(crate) fn list_shape(&self, path: &[&str]) -> ListShape {
        if path.first() == Some(&"metadata") {
            return built_in::list_shape(path);
        }
        self.walk(path)
            .and_then(|node| node.list)
            .unwrap_or(ListShape::Atomic)
    }

    pub(crate) fn is_atomic_map(&self, path: &[&str]) -> bool {
        self.walk(path).is_some_and(|node| node.atomic_map)
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Node {
        Node::root(&json!({"type": "object", "required": ["spec"], "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 5},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "port": {"x-kubernetes-int-or-string": true},
                "note": {"type": "string", "nullable": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"},
                        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}},
                "plain": {"type": "array", "items": {"type": "string"}}}},
            "status": {"type": "object", "properties": {}}}}))
    }

    #[test]
    fn what_the_schema_does_not_have_is_pruned() {
        let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "labels": {}},
            "extra": 1, "spec": {"size": 1, "sice": 2, "free": {"any": {"thing": [1]}}, "labels": {"a": "b"},
                "parts": [{"name": "x", "nome": "y"}]}});
        let gone = schema().prune(&mut object);
        assert_eq!(gone, ["extra", "spec.parts[0].nome", "spec.sice"]);
        assert_eq!(
            object["spec"],
            json!({"size": 1, "free": {"any": {"thing": [1]}}, "labels": {"a": "b"}, "parts": [{"name": "x"}]})
        );
    }

    #[test]
    fn types_and_bounds_are_checked() {
        let table = [
            (json!({"size": 1}), ""),
            (
                json!({"size": "1"}),
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            ),
            (
                json!({"size": 1.5}),
                "spec.size: Invalid value: \"number\": spec.size in body must be of type integer: \"number\"",
            ),
            (json!({}), "spec.size: Required value"),
            (
                json!({"size": 0}),
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            ),
            (
                json!({"size": 6}),
                "spec.size: Invalid value: 6: spec.size in body should be less than or equal to 5",
            ),
            (
                json!({"size": 1, "mode": "c"}),
                "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (json!({"size": 1, "port": "http"}), ""),
            (json!({"size": 1, "port": 80, "note": null}), ""),
            (
                json!({"size": 1, "port": true}),
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ),
            (
                json!({"size": 1, "labels": {"a": 1}}),
                "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
            ),
        ];
        for (spec, expected) in table {
            let causes = schema().check(&json!({"metadata": {}, "spec": spec}));
            let text: Vec<String> = causes
                .iter()
                .map(|c| format!("{}: {}", c.field, c.message))
                .collect();
            assert_eq!(text.join("; "), expected, "{spec}");
        }
    }

    #[test]
    fn defaults_are_filled_in_where_the_parent_is() {
        let mut object = json!({"spec": {"size": 1}});
        schema().fill(&mut object);
        assert_eq!(object["spec"]["mode"], "a");
        let mut bare = json!({});
        schema().fill(&mut bare);
        assert_eq!(bare, json!({}));
    }

    #[test]
    fn lists_merge_as_the_schema_says() {
        let schema = schema();
        assert_eq!(schema.list_shape(&["spec", "plain"]), ListShape::Atomic);
        assert_eq!(schema.list_shape(&["spec", "parts"]), ListShape::Keyed(&["name"]));
        assert_eq!(schema.list_shape(&["spec", "parts", "tags"]), ListShape::Set);
        assert_eq!(
            schema.list_shape(&["spec", "free", "containers"]),
            ListShape::Atomic
        );
        assert_eq!(schema.list_shape(&["metadata", "finalizers"]), ListShape::Set);
        assert!(schema.is_atomic_map(&["spec", "whole"]) && !schema.is_atomic_map(&["spec", "labels"]));
    }
}
