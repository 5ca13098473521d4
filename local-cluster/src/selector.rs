//! Label selectors (the query syntax and the object form) and field selectors.

use serde_json::Value;

use crate::object;
use crate::status::{ApiError, ApiResult};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// A conjunction of requirements on labels. The empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    requirements: Vec<(String, Operator)>,
}

impl LabelSelector {
    /// Reads the query syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// When a requirement cannot be read.
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            requirements.push(requirement(part).ok_or_else(|| {
                let words: Vec<&str> = part.split_whitespace().collect();
                let why = match words.as_slice() {
                    [_, "in" | "notin", found] => format!("found '{found}' expected: '('"),
                    _ => format!("\"{part}\" in labelSelector"),
                };
                ApiError::bad_request(format!("unable to parse requirement: {why}"))
            })?);
        }
        Ok(Self { requirements })
    }

    /// Reads `metav1.LabelSelector` (`matchLabels`, `matchExpressions`); an unknown operator matches nothing.
    pub(crate) fn from_object(selector: &Value) -> Self {
        let mut requirements = Self::from_map(&selector["matchLabels"]).requirements;
        for expression in object::list(selector, &["matchExpressions"]) {
            let values = || {
                object::list(expression, &["values"])
                    .iter()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect()
            };
            let operator = match object::text(expression, &["operator"]) {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => Operator::In(Vec::new()),
            };
            requirements.push((object::text(expression, &["key"]).to_owned(), operator));
        }
        Self { requirements }
    }

    /// Reads a plain map of labels, like a Service's selector.
    pub(crate) fn from_map(labels: &Value) -> Self {
        let requirements = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), Operator::In(vec![v.as_str().unwrap_or("").to_owned()])))
            .collect();
        Self { requirements }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether a map of labels (or null) satisfies every requirement.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.requirements.iter().all(|(key, operator)| {
            let value = labels.get(key).and_then(Value::as_str);
            match operator {
                Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn requirement(part: &str) -> Option<(String, Operator)> {
    let found = |key: &str, operator| is_key(key).then(|| (key.to_owned(), operator));
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].strip_suffix(')')?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = part[..open].split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        return match operator {
            "in" => found(key, Operator::In(values)),
            "notin" => found(key, Operator::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return found(key.trim(), Operator::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return found(key.trim(), Operator::In(vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => found(key.trim(), Operator::DoesNotExist),
        None => found(part, Operator::Exists),
    }
}

/// Conditions on fields: `metadata.name=x,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    /// Path, value, and whether it should be equal (or unequal).
    terms: Vec<(String, String, bool)>,
}

/// The fields that can be selected on, for any kind; the real server supports these and few more.
const SELECTABLE: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
    "status.podIP",
    "status.replicas",
];

impl FieldSelector {
    /// Reads the query syntax.
    ///
    /// # Errors
    /// When a term has no `=` or names a field that cannot be selected on.
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector: \"{part}\"; can't understand it"
                )));
            };
            if !SELECTABLE.contains(&field) {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
            terms.push((field.to_owned(), value.to_owned(), equal));
        }
        Ok(Self { terms })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|(field, wanted, equal)| {
            let path: Vec<&str> = match field.as_str() {
                "source" => vec!["source", "component"],
                other => other.split('.').collect(),
            };
            let value = match object::at(object, &path) {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            (value == *wanted) == *equal
        })
    }

    /// The one requested name, if there is one: a `get` disguised as a list.
    pub(crate) fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|(f, _, equal)| f == "metadata.name" && *equal)
            .map(|(_, v, _)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_follow_the_query_syntax() {
        let labels = json!({"app": "web", "tier": "front", "slipway.dev/lane": "a"});
        let table = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, api)", true),
            ("app in (api)", false),
            ("app notin (api),tier", true),
            ("missing notin (x)", true),
            ("!app", false),
            ("!missing", true),
            ("slipway.dev/lane=a", true),
        ];
        for (text, expected) in table {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches(&labels),
                expected,
                "{text}"
            );
        }
        for bad in ["app in web", "app like (x)", "a b", "(x)"] {
            assert_eq!(LabelSelector::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn object_selectors_combine_labels_and_expressions() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]},
                                 {"key": "old", "operator": "DoesNotExist"}],
        }));
        assert!(selector.matches(&json!({"app": "web", "tier": "back"})));
        assert!(!selector.matches(&json!({"app": "web", "tier": "back", "old": "1"})));
        assert!(!selector.matches(&json!({"app": "web"})));
    }

    #[test]
    fn field_selectors_know_their_fields() {
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"name": "web", "uid": "1"}});
        assert!(
            FieldSelector::parse("involvedObject.name=web,involvedObject.uid==1")
                .unwrap()
                .matches(&event)
        );
        assert!(
            !FieldSelector::parse("involvedObject.name!=web")
                .unwrap()
                .matches(&event)
        );
        assert_eq!(FieldSelector::parse("metadata.name=e").unwrap().name(), Some("e"));
        assert_eq!(
            FieldSelector::parse("spec.foo=1").unwrap_err().message,
            "field label not supported: spec.foo"
        );
    }
}
