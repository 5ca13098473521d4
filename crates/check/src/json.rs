//! JSON paths (RFC 9535) of a body, and what they must select.

use jsonpath_rust::{
    parser::{
        model::{JpQuery, Segment, Selector},
        parse_json_path,
    },
    query::js_path_process,
};
use serde_json::Value;
use slipway_verdict::evidence::redact;

/// How much of what was selected is shown, in characters.
const SHOWN: usize = 120;
/// Longest path, in bytes.
const MAX_PATH: usize = 500;

/// Whether a path is valid.
///
/// # Errors
/// In words.
pub fn check(path: &str) -> Result<(), String> {
    parse(path).map(drop)
}

fn parse(path: &str) -> Result<JpQuery, String> {
    if path.len() > MAX_PATH {
        return Err(format!("is longer than {MAX_PATH} bytes"));
    }
    parse_json_path(path).map_err(|error| {
        let words = error.to_string();
        let first = words.lines().map(str::trim).rfind(|line| !line.is_empty());
        format!(
            "{path:?} is not a JSON path (RFC 9535): {}",
            first.unwrap_or_default()
        )
    })
}

/// Compares what `path` selects. For a path that can select at most one value (only names and indexes) that value is
/// compared; for any other, the list of all that it selects.
///
/// # Errors
/// What it selects instead, in words.
pub fn compare(body: &Value, path: &str, expected: &Value) -> Result<(), String> {
    let query = parse(path)?;
    let found: Vec<&Value> = js_path_process(&query, body)
        .map_err(|error| format!("{path}: {error}"))?
        .into_iter()
        .map(|node| node.val())
        .collect();
    if singular(&query) {
        let found = found
            .first()
            .ok_or_else(|| format!("{path} selects nothing, expected {expected}"))?;
        return match same(found, expected) {
            true => Ok(()),
            false => Err(format!(
                "{path} is {}, expected {expected}",
                shown(&found.to_string())
            )),
        };
    }
    let list = expected.as_array();
    let equal = list.is_some_and(|list| {
        list.len() == found.len() && list.iter().zip(&found).all(|(one, other)| same(one, other))
    });
    match equal {
        true => Ok(()),
        false => {
            let found = Value::Array(found.into_iter().cloned().collect());
            Err(format!(
                "{path} selects {}, expected {expected}",
                shown(&found.to_string())
            ))
        }
    }
}

/// RFC 9535's singular query.
fn singular(query: &JpQuery) -> bool {
    query
        .segments
        .iter()
        .all(|segment| matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_))))
}

/// Equal by RFC 9535's rules: numbers by value, so that 1 equals 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}

fn shown(text: &str) -> String {
    let text = redact(text);
    let mut kept: String = text.chars().take(SHOWN).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{check, compare};

    #[test]
    fn paths_select_and_are_compared() {
        let body = json!({
            "status": "ok", "count": 3, "share": 1.0, "none": null, "list": [1, 2],
            "parts": [{"name": "db", "up": true}, {"name": "queue", "up": false}],
        });
        for (path, expected) in [
            ("$.status", json!("ok")),
            ("$['status']", json!("ok")),
            ("$.count", json!(3)),
            ("$.count", json!(3.0)),
            ("$.share", json!(1)),
            ("$.none", json!(null)),
            ("$.list", json!([1, 2])),
            ("$.parts[0].name", json!("db")),
            ("$.parts[-1].name", json!("queue")),
            ("$.parts[*].name", json!(["db", "queue"])),
            ("$..up", json!([true, false])),
            ("$.parts[?@.up == false].name", json!(["queue"])),
            ("$.parts[?@.up == 7].name", json!([])),
            ("$.list[0:2]", json!([1, 2])),
        ] {
            compare(&body, path, &expected).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for (path, expected, words) in [
            ("$.status", json!("up"), r#"$.status is "ok", expected "up""#),
            (
                "$.missing",
                json!("up"),
                r#"$.missing selects nothing, expected "up""#,
            ),
            (
                "$.none.more",
                json!(null),
                "$.none.more selects nothing, expected null",
            ),
            ("$.count", json!("3"), r#"$.count is 3, expected "3""#),
            ("$..up", json!(true), "$..up selects [true,false], expected true"),
            (
                "$..up",
                json!([true, true]),
                "$..up selects [true,false], expected [true,true]",
            ),
            (
                "$..up",
                json!([true]),
                "$..up selects [true,false], expected [true]",
            ),
        ] {
            assert_eq!(compare(&body, path, &expected).unwrap_err(), words);
        }
    }

    #[test]
    fn what_is_not_a_path_is_rejected() {
        for path in [
            "",
            "status",
            "$.",
            "$[",
            "$..",
            "$.a,b",
            "$[?]",
            &format!("${}", ".a".repeat(300)),
        ] {
            assert!(check(path).is_err(), "{path}");
        }
        assert!(check("$['status'][0]..x[?@.a > 1 && @.b]").is_ok());
    }
}
