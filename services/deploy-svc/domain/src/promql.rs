//! PromQL with placeholders: `{{service}}`, `{{environment}}`, `{{namespace}}` and `{{target}}` within quotes, where
//! they are escaped for the string they are in (and for the regular expression, after `=~` and `!~`), and `{{window}}`
//! anywhere.

use std::{str::Chars, time::Duration};

/// The values that are filled in.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub service: &'a str,
    pub environment: &'a str,
    pub namespace: &'a str,
    /// Name of the workload.
    pub target: &'a str,
    /// The time that a query should look back.
    pub window: Duration,
}

/// Longest query, in bytes.
const MAX_QUERY: usize = 4000;
const KNOWN: &str = "{{service}}, {{environment}}, {{namespace}}, {{target}} and {{window}}";

/// Whether a query's placeholders can be filled in. The rest is for Prometheus to judge.
///
/// # Errors
/// What is wrong, in words.
pub fn check(query: &str) -> Result<(), String> {
    let values = Values {
        service: "x",
        environment: "x",
        namespace: "x",
        target: "x",
        window: Duration::from_secs(60),
    };
    if query.trim().is_empty() || query.len() > MAX_QUERY {
        return Err(format!("write a PromQL query of 1 to {MAX_QUERY} bytes"));
    }
    fill(query, &values).map(drop)
}

/// The query with its placeholders filled.
///
/// # Errors
/// What is wrong, in words.
pub fn fill(query: &str, values: &Values<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(query.len());
    // The string at the current position: its quote, and whether it is a regular expression.
    let mut string: Option<(char, bool)> = None;
    let mut rest = query.chars();
    while let Some(c) = rest.next() {
        if c == '{' && rest.as_str().starts_with('{') {
            let (name, after) = rest.as_str()[1..]
                .split_once("}}")
                .ok_or_else(|| "{{ is not closed by }}".to_owned())?;
            filled.push_str(&value(name.trim(), string, values)?);
            rest = after.chars();
            continue;
        }
        match (string, c) {
            (None, '"' | '\'' | '`') => {
                let before = filled.trim_end();
                string = Some((c, before.ends_with("=~") || before.ends_with("!~")));
            }
            (None, '#') => {
                filled.push(c);
                comment(&mut rest, &mut filled);
                continue;
            }
            (Some((quote, _)), _) if c == quote => string = None,
            (Some(('"' | '\'', _)), '\\') => {
                filled.push(c);
                filled.extend(rest.next());
                continue;
            }
            _ => {}
        }
        filled.push(c);
    }
    Ok(filled)
}

/// A comment extends to the end of the line.
fn comment(rest: &mut Chars<'_>, filled: &mut String) {
    for c in rest.by_ref() {
        filled.push(c);
        if c == '\n' {
            return;
        }
    }
}

fn value(name: &str, string: Option<(char, bool)>, values: &Values<'_>) -> Result<String, String> {
    let text = match name {
        "service" => values.service,
        "environment" => values.environment,
        "namespace" => values.namespace,
        "target" => values.target,
        "window" => return Ok(window(values.window)),
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(format!("{{{{{other}}}}} is not a placeholder: there are {KNOWN}"));
        }
    };
    let Some((quote, expression)) = string else {
        return Err(format!(
            "write {{{{{name}}}}} within quotes, as in {{app=\"{{{{{name}}}}}\"}}"
        ));
    };
    let text = if expression {
        quote_expression(text)
    } else {
        text.to_owned()
    };
    quote_string(&text, quote)
        .ok_or_else(|| format!("{{{{{name}}}}} cannot be used within `: write \" instead"))
}

/// In PromQL's notation; at least a second, since Prometheus rejects an empty window.
fn window(time: Duration) -> String {
    format!("{}s", time.as_secs().max(1))
}

/// Escapes RE2's special characters.
fn quote_expression(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Escaped as in Go; `None` if the string does not support escapes and the text would end it.
fn quote_string(text: &str, quote: char) -> Option<String> {
    if quote == '`' {
        return (!text.contains('`')).then(|| text.to_owned());
    }
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '"' | '\'' if c == '\\' || c == quote => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Values, check, fill};

    const VALUES: Values<'_> = Values {
        service: "shop",
        environment: "prod",
        namespace: "shop-prod",
        target: "shop.v2",
        window: Duration::from_millis(90_900),
    };

    #[test]
    fn placeholders_are_filled_where_they_stand() {
        for (query, filled) in [
            ("vector(1)", "vector(1)"),
            (
                r#"rate(errors{app="{{service}}", env='{{ environment }}'}[{{window}}])"#,
                r#"rate(errors{app="shop", env='prod'}[90s])"#,
            ),
            (r#"up{pod=~"{{target}}-.*"}"#, r#"up{pod=~"shop\\.v2-.*"}"#),
            (r#"up{pod !~ '{{target}}.*'}"#, r#"up{pod !~ 'shop\\.v2.*'}"#),
            (r"up{pod=~`{{target}}`}", r"up{pod=~`shop\.v2`}"),
            (r#"up{pod="{{target}}"}"#, r#"up{pod="shop.v2"}"#),
            (r#"up{a="\"{{namespace}}"}"#, r#"up{a="\"shop-prod"}"#),
            (r#"up{a='"', b='{{namespace}}'}"#, r#"up{a='"', b='shop-prod'}"#),
            (
                "up # it's {\n + sum_over_time(x[{{window}}])",
                "up # it's {\n + sum_over_time(x[90s])",
            ),
        ] {
            assert_eq!(fill(query, &VALUES).unwrap(), filled);
            check(query).unwrap();
        }
        let short = Values {
            window: Duration::ZERO,
            ..VALUES
        };
        assert_eq!(fill("x[{{window}}]", &short).unwrap(), "x[1s]");
    }

    #[test]
    fn what_cannot_be_filled_is_refused() {
        for (query, words) in [
            ("", "write a PromQL query"),
            ("  ", "write a PromQL query"),
            (
                "up{a=\"{{pod}}\"}",
                "{{pod}} is not a placeholder: there are {{service}}",
            ),
            ("up{a=\"{{}}\"}", "{{}} is not a placeholder"),
            ("up{a=\"{{service\"}", "{{ is not closed"),
            (
                "{{service}}_errors",
                "write {{service}} within quotes, as in {app=\"{{service}}\"}",
            ),
            ("up{a=\"x\"} > {{target}}", "within quotes"),
        ] {
            let error = check(query).unwrap_err();
            assert!(error.contains(words), "{query}: {error}");
        }
        assert!(check(&"x".repeat(4001)).is_err());
        let tick = Values {
            target: "a`b",
            ..VALUES
        };
        assert!(
            fill("up{a=`{{target}}`}", &tick)
                .unwrap_err()
                .contains("cannot be used within `")
        );
    }

    proptest! {
        /// Whatever a value contains, it stays within its string.
        #[test]
        fn no_value_ends_its_string(value in "\\PC{0,20}|[\"'\\\\\n]{0,10}") {
            let values = Values { target: &value, ..VALUES };
            for quote in ['"', '\''] {
                let filled = fill(&format!("up{{a={quote}{{{{target}}}}{quote}}}"), &values).unwrap();
                let inner = filled.strip_prefix(&format!("up{{a={quote}")).unwrap().strip_suffix(&format!("{quote}}}")).unwrap();
                let mut read = String::new();
                let mut chars = inner.chars();
                while let Some(c) = chars.next() {
                    prop_assert!(c != quote && c != '\n');
                    match (c, c == '\\') {
                        (_, true) => match chars.next().unwrap() {
                            'n' => read.push('\n'),
                            'u' => {
                                let code: String = chars.by_ref().take(4).collect();
                                read.push(char::from_u32(u32::from_str_radix(&code, 16).unwrap()).unwrap());
                            }
                            escaped => read.push(escaped),
                        },
                        (c, false) => read.push(c),
                    }
                }
                prop_assert_eq!(&read, &value);
            }
        }
    }
}
