//! What people read in a pull request. Pure.

use std::fmt::Write as _;

use slipway_edit::{Difference, Entry};

use slipway_model::Reason;

use crate::remote::paragraph;

/// GitHub accepts 65,536 characters; the table is truncated before the trailers are.
const MAX_ROWS: usize = 100;
/// A longer value is truncated in the table.
const MAX_VALUE: usize = 200;

/// The subject of a commit message, and what follows it.
pub fn split(message: &str) -> (&str, &str) {
    let (subject, rest) = message.split_once('\n').unwrap_or((message, ""));
    (subject, rest.trim())
}

/// What changes, why, and at the end the trailers: if a squash uses the body as its message, the commit has them.
pub fn body(message: &str, differences: &[Difference]) -> String {
    let rows: Vec<[String; 4]> = differences.iter().filter_map(row).collect();
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str("Changes no file; the commit tells those who watch the branch.\n");
    } else {
        text.push_str("| File | Image | Before | After |\n| --- | --- | --- | --- |\n");
        for [file, image, before, after] in rows.iter().take(MAX_ROWS) {
            let _ = writeln!(text, "| {file} | {image} | {before} | {after} |");
        }
        if rows.len() > MAX_ROWS {
            let _ = writeln!(text, "\nand {} more.", rows.len() - MAX_ROWS);
        }
    }
    let _ = write!(text, "\n{}\n", split(message).1);
    text
}

fn row(difference: &Difference) -> Option<[String; 4]> {
    match difference {
        Difference::Entry(entry) => Some([
            code(entry.path.as_str()),
            code(&entry.before.name),
            code(&image(&entry.before)),
            code(&image(&entry.after)),
        ]),
        Difference::Values(values) => Some([
            code(values.file.as_str()),
            code(values.values.first().map_or("", |value| &value.at)),
            code(&values.before.to_string()),
            code(&values.after.to_string()),
        ]),
        Difference::Marker { .. } => None,
    }
}

/// `newName:newTag@digest`, as far as the entry has them.
fn image(entry: &Entry) -> String {
    let mut text = entry
        .new_name
        .as_ref()
        .map(|name| name.value.clone())
        .unwrap_or_default();
    if let Some(tag) = &entry.new_tag {
        let _ = write!(text, ":{}", tag.value);
    }
    if let Some(digest) = &entry.digest {
        let _ = write!(text, "@{}", digest.value);
    }
    text
}

/// A value that cannot end its cell, or mention anyone.
fn code(text: &str) -> String {
    let text: String = text
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '`' | '|'))
        .take(MAX_VALUE)
        .collect();
    if text.is_empty() {
        "–".to_owned()
    } else {
        format!("`{text}`")
    }
}

/// The comment when there is nothing left to change.
pub fn needless() -> String {
    "Closed: the branch it goes to has all of this already.".to_owned()
}

/// The comment when the edits cannot be made any more.
pub fn impossible(reason: &Reason) -> String {
    format!(
        "Closed: the branch it goes to has moved on, and the change cannot be made on it any more.\n\n    {}",
        paragraph(&reason.message)
    )
}

/// The comment when it is withdrawn.
pub fn withdrawn(cancelled: Option<&str>) -> String {
    match cancelled {
        Some("") => "Closed: the change was cancelled.".to_owned(),
        Some(why) => format!("Closed: the change was cancelled.\n\n    {}", paragraph(why)),
        None => "Closed: it was not merged in time.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use slipway_edit::{Difference, Reference, Scalar, ValueDifference, ValuesDifference};

    use super::{body, split, withdrawn};

    fn scalar(text: &str) -> Option<Scalar> {
        Some(Scalar {
            value: text.to_owned(),
            written: text.to_owned(),
        })
    }

    fn values(before: &str, after: &str) -> Difference {
        Difference::Values(ValuesDifference {
            file: "charts/shop/values.yaml".parse().unwrap(),
            values: vec![ValueDifference {
                document: "1".to_owned(),
                at: "image.tag".to_owned(),
                before: scalar(before),
                after: scalar(after),
            }],
            before: Reference::split(&format!("r.example/shop:{before}")),
            after: Reference::split(&format!("r.example/shop:{after}")),
            shared_with: Vec::new(),
            added: None,
        })
    }

    const MESSAGE: &str = "deploy v2\n\nWhy not.\n\nService: shop\nSlipway-Change: chg-1\n";

    #[test]
    fn a_body_is_a_table_and_ends_with_the_trailers() {
        let text = body(MESSAGE, &[values("v1", "v2")]);
        assert_eq!(
            text,
            "| File | Image | Before | After |\n| --- | --- | --- | --- |\n\
             | `charts/shop/values.yaml` | `image.tag` | `r.example/shop:v1` | `r.example/shop:v2` |\n\n\
             Why not.\n\nService: shop\nSlipway-Change: chg-1\n"
        );
        assert_eq!(split(MESSAGE).0, "deploy v2");
        let text = body(MESSAGE, &[Difference::Marker { marker: true }]);
        assert!(text.starts_with("Changes no file"), "{text}");
    }

    #[test]
    fn no_value_leaves_its_cell() {
        let text = body(MESSAGE, &[values("v1` | @alice", "")]);
        assert!(text.contains("`r.example/shop:v1  @alice`"), "{text}");
        assert_eq!(text.lines().nth(2).unwrap().matches('|').count(), 5, "{text}");
        assert!(body(MESSAGE, &vec![values("a", "b"); 5000]).len() < 60_000);
    }

    #[test]
    fn words_of_people_stay_a_quotation() {
        let text = withdrawn(Some("@alice\nnever mind"));
        assert!(
            text.lines().skip(2).all(|line| line.starts_with("    ")),
            "{text}"
        );
    }
}
