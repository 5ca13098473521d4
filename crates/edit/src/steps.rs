//! Paths of values: `spec.template.spec.containers[name=web].image`.

use std::fmt;

use crate::InvalidEdit;

const MAX_BYTES: usize = 512;
const MAX_STEPS: usize = 32;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    /// An item by its index, from 0.
    Index(usize),
    /// The item that has this value at this key.
    Item {
        key: String,
        value: String,
    },
}

/// Steps from a document's root, or an object's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl Steps {
    /// Reads what a person wrote: keys separated by dots, `[INDEX]`, `[KEY=VALUE]`, and in double quotes any key with a
    /// dot or a bracket.
    ///
    /// # Errors
    /// Names the field of the edit.
    pub(crate) fn parse(field: &'static str, text: &str) -> Result<Self, InvalidEdit> {
        if text.len() > MAX_BYTES || text.contains(char::is_control) {
            let why = format!("is longer than {MAX_BYTES} bytes or contains control characters");
            return Err(invalid(field, text, &why));
        }
        let steps = Self::read(field, text)?;
        if steps.0.len() > MAX_STEPS {
            let why = format!("has more than {MAX_STEPS} steps");
            return Err(invalid(field, text, &why));
        }
        Ok(steps)
    }

    /// Reads what an edit recorded: the same, but as long, as deep and as odd as the file's own keys.
    ///
    /// # Errors
    /// No edit wrote that.
    pub(crate) fn recorded(text: &str) -> Result<Self, InvalidEdit> {
        Self::read("at", text)
    }

    fn read(field: &'static str, text: &str) -> Result<Self, InvalidEdit> {
        let invalid = |why: &str| invalid(field, text, why);
        if text.is_empty() {
            return Err(invalid("is empty"));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        if !rest.starts_with('[') {
            rest = key(rest, &mut steps).map_err(&invalid)?;
        }
        while let Some(sign) = rest.chars().next() {
            rest = match sign {
                '.' => key(&rest[1..], &mut steps),
                '[' => item(&rest[1..], &mut steps),
                _ => Err("has something after a quote or bracket that is not a dot"),
            }
            .map_err(&invalid)?;
        }
        Ok(Self(steps))
    }

    /// With one more key appended.
    pub(crate) fn with(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }
}

fn invalid(field: &'static str, text: &str, why: &str) -> InvalidEdit {
    let shown: String = text.chars().take(120).collect();
    InvalidEdit::new(
        field,
        format!(
            "{shown:?} {why}; write keys with dots between, list items as [0] or [name=web], and in double quotes what holds a dot: image.tag"
        ),
    )
}

fn key<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, &'static str> {
    let (key, rest) = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None => {
            let end = text.find(['.', '[']).unwrap_or(text.len());
            let key = &text[..end];
            if key.contains(['"', ']']) {
                return Err("has a quote or bracket inside a key");
            }
            (key.to_owned(), &text[end..])
        }
    };
    if key.is_empty() {
        return Err("has an empty key");
    }
    steps.push(Step::Key(key));
    Ok(rest)
}

fn item<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, &'static str> {
    const CLOSED: &str = "has a bracket that is not closed";
    let end = text.find([']', '=', '"']).ok_or(CLOSED)?;
    if text[end..].starts_with(']') {
        let index = text[..end]
            .parse()
            .map_err(|_| "has neither a number nor KEY=VALUE in brackets")?;
        steps.push(Step::Index(index));
        return Ok(&text[end + 1..]);
    }
    let (key, rest) = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None => (text[..end].to_owned(), &text[end..]),
    };
    // A key in brackets, as JSON paths write it.
    if let Some(rest) = rest.strip_prefix(']') {
        steps.push(Step::Key(key));
        return Ok(rest);
    }
    let rest = rest
        .strip_prefix('=')
        .ok_or("has neither a number nor KEY=VALUE in brackets")?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None => {
            let end = rest.find(']').ok_or(CLOSED)?;
            (rest[..end].to_owned(), &rest[end..])
        }
    };
    if key.is_empty() {
        return Err("has an empty key");
    }
    steps.push(Step::Item { key, value });
    rest.strip_prefix(']').ok_or(CLOSED)
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                _ => return Err("has a backslash before neither quote nor backslash"),
            },
            c => out.push(c),
        }
    }
    Err("has a quote that is not closed")
}

/// A path that parses back into the same steps.
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let word = |text: &str, special: &[char]| match text.is_empty() || text.contains(special) {
            true => quoted(text),
            false => text.to_owned(),
        };
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) => {
                    if number > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(&word(key, &['.', '[', ']', '"']))?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Item { key, value } => {
                    write!(
                        f,
                        "[{}={}]",
                        word(key, &['=', ']', '"']),
                        word(value, &[']', '"'])
                    )?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Steps};

    #[test]
    fn paths_are_read_and_written() {
        let key = |key: &str| Step::Key(key.to_owned());
        for (text, steps) in [
            ("image", vec![key("image")]),
            ("image.tag", vec![key("image"), key("tag")]),
            (
                "a[0][1].b",
                vec![key("a"), Step::Index(0), Step::Index(1), key("b")],
            ),
            ("[2]", vec![Step::Index(2)]),
            (
                "w[name=mail].image",
                vec![
                    key("w"),
                    Step::Item {
                        key: "name".into(),
                        value: "mail".into(),
                    },
                    key("image"),
                ],
            ),
            (
                "w[name=\"a]b\"]",
                vec![
                    key("w"),
                    Step::Item {
                        key: "name".into(),
                        value: "a]b".into(),
                    },
                ],
            ),
            ("\"a.b\".\"c[\\\"\"", vec![key("a.b"), key("c[\"")]),
            ("a b.c-d/e", vec![key("a b"), key("c-d/e")]),
        ] {
            let read = Steps::parse("path", text).unwrap();
            assert_eq!(read.0, steps, "{text}");
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(
            Steps::parse("path", "a[\"b.c\"]").unwrap().to_string(),
            "a.\"b.c\""
        );
        let long = "a".repeat(600);
        let deep = "a.".repeat(40) + "a";
        for bad in [
            "", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[=b]", "a[0]b", "a]b", "a\"b", "\"a", "a\nb",
            "a[n=v", &long, &deep,
        ] {
            let error = Steps::parse("path", bad).unwrap_err();
            assert_eq!(error.field, "path", "{bad}");
        }
    }
}
