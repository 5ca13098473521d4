//! YAML in a block of text of another YAML file, such as `helm.values: |` of an Application: read as a text of its own,
//! and written back line by line.

use crate::{
    Refusal,
    difference::ValueDifference,
    layout::{Splice, Text, refuse},
    sharing::Spot,
    steps::Steps,
    yaml::{Kind, Node, Style},
};

/// The text in a block, and where its lines stand in the file.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) text: String,
    /// Where each line starts in the file, behind its indentation.
    starts: Vec<usize>,
    indent: String,
    line_break: &'static str,
    /// The file's line on which the text starts, from 0.
    line: usize,
    path: String,
}

impl Embedded {
    /// Whether a node is a block of text that may contain YAML.
    pub(crate) fn is_at(node: &Node) -> bool {
        matches!(
            node.kind,
            Kind::Scalar {
                style: Style::Block,
                ..
            }
        )
    }

    /// Reads the text of a block. `steps` lead to it from what the object's label refers to.
    ///
    /// # Errors
    /// Its lines are not those of the file.
    pub(crate) fn read(text: &Text<'_>, spot: &Spot<'_>, steps: &Steps) -> Result<Self, Refusal> {
        let value = spot.node.scalar().unwrap_or_default();
        let cannot = || {
            refuse(
                spot.node.line,
                format!(
                    "the text of `{steps}` is not written as a block of lines (`|`): write it as one first"
                ),
            )
        };
        let (last, parent) = spot.at.split_last().ok_or_else(cannot)?;
        let key = match text.stream.at(parent).map(|parent| &parent.kind) {
            Some(Kind::Mapping { entries, .. }) => entries.get(*last).map(|(key, _)| key),
            _ => None,
        };
        let colon = text.colon(key.ok_or_else(cannot)?)?;
        let (end, line_break) = text.line_end(colon);
        let header = text.text[colon..end].split('#').next().unwrap_or_default();
        if !header.contains('|') {
            return Err(cannot());
        }
        let mut next = end + line_break.len();
        let (mut starts, mut indent) = (Vec::new(), None);
        for inner in value.split('\n') {
            let rest = text.text.get(next..).unwrap_or_default();
            let whole = rest.split('\n').next().unwrap_or_default();
            let line = whole.strip_suffix('\r').unwrap_or(whole);
            let spaces = line.len() - line.trim_start_matches(' ').len();
            if !inner.is_empty() && indent.is_none() {
                indent = line.len().checked_sub(inner.len());
            }
            let indent = indent.unwrap_or(spaces).min(spaces);
            let is_last = starts.len() == value.matches('\n').count();
            if line.get(indent..) != Some(inner) && !(is_last && inner.is_empty()) {
                return Err(cannot());
            }
            starts.push((next + indent).min(text.text.len()));
            next += whole.len() + 1;
        }
        Ok(Self {
            text: value.to_owned(),
            starts,
            indent: " ".repeat(indent.unwrap_or_default()),
            line_break,
            line: text.text[..end].matches('\n').count() + 1,
            path: steps.to_string(),
        })
    }

    /// What the text contains.
    ///
    /// # Errors
    /// It is not YAML.
    pub(crate) fn yaml(&self) -> Result<Text<'_>, Refusal> {
        Text::read(&self.text).map_err(|refusal| match refusal {
            Refusal::NotYaml { line, message } => refuse(
                line + self.line,
                format!("the text of `{}` is not YAML: {message}", self.path),
            ),
            other => other,
        })
    }

    /// The file's line of a line of the text.
    pub(crate) fn line(&self, line: usize) -> usize {
        line + self.line
    }

    /// A refusal of an edit of the text, as one of the file.
    pub(crate) fn refusal(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Unsafe { line, reason } => Refusal::Unsafe {
                line: self.line(line),
                reason,
            },
            Refusal::Shared { line, others } => Refusal::Shared {
                line: self.line(line),
                others,
            },
            Refusal::ImageNotFound(why) => {
                Refusal::ImageNotFound(format!("in the text of `{}`: {why}", self.path))
            }
            other => other,
        }
    }

    /// Splices of the text, as splices of the file.
    pub(crate) fn splices(&self, splices: Vec<Splice>) -> Vec<Splice> {
        let place = |at: usize| {
            let before = &self.text[..at];
            let line = before.matches('\n').count();
            let column = before.rfind('\n').map_or(at, |newline| at - newline - 1);
            self.starts.get(line).copied().unwrap_or_default() + column
        };
        let line_break = format!("{}{}", self.line_break, self.indent);
        splices
            .into_iter()
            .map(|(range, with)| {
                (
                    place(range.start)..place(range.end),
                    with.replace('\n', &line_break),
                )
            })
            .collect()
    }

    /// A path in the text, as one of the file.
    pub(crate) fn path_of(&self, at: &str) -> String {
        let dot = if at.starts_with('[') { "" } else { "." };
        format!("{}{dot}{at}", self.path)
    }

    /// A value of the text, as one of the file.
    pub(crate) fn value(&self, document: &str, value: ValueDifference) -> ValueDifference {
        ValueDifference {
            document: document.to_owned(),
            at: self.path_of(&value.at),
            ..value
        }
    }
}
