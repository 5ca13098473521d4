//! Which bytes of a text an edit of one node replaces, and with what, in the existing style.

use std::{cell::OnceCell, ops::Range};

use crate::{
    Refusal,
    anchors::Anchors,
    entry::Scalar,
    yaml::{self, Kind, Node, Stream, Style, needs_quotes},
};

const BOM: &str = "\u{feff}";

/// A range of bytes, and its replacement.
pub(crate) type Splice = (Range<usize>, String);

/// The intended change to one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Keep,
    Remove,
    /// Written in the existing style, quoted where the plain text would not be a string.
    Set(String),
    /// Written exactly as given.
    Restore(Scalar),
}

/// A text and what YAML parses it into.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    /// The byte order mark, or nothing.
    bom: &'static str,
    /// What follows it.
    pub(crate) text: &'a str,
    pub(crate) stream: Stream,
    anchors: OnceCell<Anchors>,
}

impl<'a> Text<'a> {
    /// # Errors
    /// It is not YAML.
    pub(crate) fn read(whole: &'a str) -> Result<Self, Refusal> {
        let (bom, text) = match whole.strip_prefix(BOM) {
            Some(text) => (BOM, text),
            None => ("", whole),
        };
        let stream = yaml::parse(text).map_err(|error| {
            let template = text.contains("{{");
            Refusal::NotYaml {
                line: error.line,
                message: match template {
                    true => format!(
                        "{} (it looks like a template: edit the values that it uses)",
                        error.message
                    ),
                    false => error.message,
                },
            }
        })?;
        Ok(Self {
            bom,
            text,
            stream,
            anchors: OnceCell::new(),
        })
    }

    /// Where anchors and aliases stand.
    pub(crate) fn anchors(&self) -> &Anchors {
        self.anchors.get_or_init(|| Anchors::of(&self.stream))
    }

    /// The text with the splices applied, which must not overlap. Those at the same position keep their order.
    pub(crate) fn splice(&self, splices: &mut [Splice]) -> String {
        splices.sort_by_key(|(range, _)| (range.start, range.end));
        let more: usize = splices.iter().map(|(_, with)| with.len()).sum();
        let mut edited = String::with_capacity(self.text.len() + more);
        let mut done = 0;
        for (range, with) in splices.iter() {
            edited.push_str(self.text.get(done..range.start).unwrap_or_default());
            edited.push_str(with);
            done = range.end;
        }
        edited.push_str(self.text.get(done..).unwrap_or_default());
        edited
    }

    /// The whole text, including the byte order mark.
    pub(crate) fn whole(&self, edited: &str) -> String {
        format!("{}{edited}", self.bom)
    }

    fn comment_between(&self, from: usize, to: usize) -> Option<usize> {
        let starts = &self.stream.comment_starts.0;
        let first = starts.partition_point(|start| *start < from);
        starts.get(first).copied().filter(|start| *start < to)
    }

    pub(crate) fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Where the line ends, before its line break, and the line break to use there.
    pub(crate) fn line_end(&self, at: usize) -> (usize, &'static str) {
        match self.text[at..].find('\n').map(|newline| at + newline) {
            Some(end) if self.text[..end].ends_with('\r') => (end - 1, "\r\n"),
            Some(end) => (end, "\n"),
            // The last line has none, so the one before it decides.
            None => (self.text.len(), self.line_break()),
        }
    }

    pub(crate) fn line_break(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }

    /// How far a position is from the start of its line, in characters.
    pub(crate) fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }

    /// Whether there are only spaces before it on its line.
    pub(crate) fn begins_line(&self, at: usize) -> bool {
        self.text[self.line_start(at)..at].bytes().all(|b| b == b' ')
    }

    /// The position after the colon of a key.
    pub(crate) fn colon(&self, key: &Node) -> Result<usize, Refusal> {
        let rest = &self.text[key.span.end..];
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        if rest[spaces..].starts_with(':') {
            Ok(key.span.end + spaces + 1)
        } else {
            Err(refuse(key.line, "the key and its colon are separated"))
        }
    }

    /// Where a key can be added behind the last entry of a document's root, before its line break, and the line break
    /// to use: after the comments that belong to what is there, but before a marker that ends the document.
    pub(crate) fn end_of_root(&self, last: &(Node, Node)) -> Result<(usize, &'static str), Refusal> {
        let mut end = self.end_of_entry(&last.0, &last.1)?;
        let (mut at, _) = self.line_end(end);
        for line in self.text[at..].split_inclusive('\n') {
            let bare = line.trim_end();
            if bare.starts_with("...") || bare.starts_with("---") {
                break;
            }
            if !bare.is_empty() {
                end = at + bare.len();
            }
            at += line.len();
        }
        let (end, eol) = self.line_end(end);
        match self.text[end..].is_empty() {
            true => Ok((end, self.line_break())),
            false => Ok((end, eol)),
        }
    }

    /// The position after the last byte of a mapping entry.
    pub(crate) fn end_of_entry(&self, key: &Node, value: &Node) -> Result<usize, Refusal> {
        match &value.kind {
            Kind::Scalar { .. } if value.span.is_empty() => {
                if value.anchor != 0 || value.tag.is_some() {
                    return Err(refuse(
                        key.line,
                        "there is no plain line after which something can be added",
                    ));
                }
                self.colon(key)
            }
            _ => self.end_of(value),
        }
    }

    /// The position after the last byte of a node.
    pub(crate) fn end_of(&self, node: &Node) -> Result<usize, Refusal> {
        match &node.kind {
            Kind::Scalar {
                style: Style::Block, ..
            } => {
                let end = node.span.start + self.text[node.span.clone()].trim_end().len();
                if !self.text[end..].contains('\n') {
                    return Err(refuse(
                        node.line,
                        "a text of several lines ends the file without a line break: end it with one first",
                    ));
                }
                Ok(end)
            }
            Kind::Mapping { flow: false, entries } => match entries.last() {
                Some((key, value)) => self.end_of_entry(key, value),
                None => Ok(node.span.end),
            },
            Kind::Sequence { flow: false, items } => match items.last() {
                Some(item) if item.span.is_empty() && item.scalar().is_some() => Err(refuse(
                    item.line,
                    "there is an empty item here, after which nothing can be added",
                )),
                Some(item) => self.end_of(item),
                None => Ok(node.span.end),
            },
            _ => Ok(node.span.end),
        }
    }

    /// Replaces a value with another; does nothing where it is there already. `key` is the value's own, `None` for an
    /// item of a list.
    ///
    /// # Errors
    /// More than this value would change.
    pub(crate) fn replace(
        &self,
        key: Option<&Node>,
        value: &Node,
        wanted: &Field,
    ) -> Result<Option<Splice>, Refusal> {
        let line = key.unwrap_or(value).line;
        if let Field::Restore(scalar) = wanted
            && self.text[value.span.clone()] == scalar.written
            && (value.scalar().is_some() || matches!(value.kind, Kind::Alias(_)))
        {
            return Ok(None);
        }
        let Kind::Scalar { value: now, style } = &value.kind else {
            return Err(match &value.kind {
                Kind::Alias(_) => refuse(
                    value.line,
                    "the value is an alias: edit it at its anchor, or write it out here",
                ),
                _ if value.is_template() => refuse(
                    value.line,
                    "there is a template here: edit the values that it uses",
                ),
                _ => refuse(
                    value.line,
                    "there is an alias or a collection where the value is expected",
                ),
            });
        };
        if let Some(tag) = value.tag.as_ref().filter(|tag| !is_text_tag(tag)) {
            return Err(refuse(
                value.line,
                format!(
                    "the value has a tag (`{}{}`): remove that first",
                    tag.original_handle(),
                    tag.suffix()
                ),
            ));
        }
        let stands = &self.text[value.span.clone()];
        if *style == Style::Block || stands.contains('\n') {
            return Err(refuse(
                line,
                "the value is written over several lines: write it on one first",
            ));
        }
        if value.is_template() {
            return Err(refuse(
                value.line,
                "there is a template here: edit the values that it uses",
            ));
        }
        let with = match wanted {
            Field::Set(wanted) => {
                let means_it = wanted == now && !(*style == Style::Plain && needs_quotes(now));
                // If the value is absent, an emptied one means the same.
                if means_it || (wanted.is_empty() && value.is_null()) {
                    return Ok(None);
                }
                match style {
                    Style::Single => format!("'{}'", wanted.replace('\'', "''")),
                    Style::Double => double_quoted(wanted),
                    _ => written(wanted),
                }
            }
            Field::Restore(scalar) => scalar.written.clone(),
            Field::Keep | Field::Remove => return Ok(None),
        };
        if !value.span.is_empty() {
            let mut range = value.span.clone();
            // The space was added with the value, so it is removed with it.
            if with.is_empty() && self.text[..range.start].ends_with(": ") {
                range.start -= 1;
            }
            return Ok(Some((range, with)));
        }
        let Some(key) = key.filter(|_| value.anchor == 0) else {
            return Err(refuse(value.line, "there is no value here to replace"));
        };
        let colon = self.colon(key)?;
        Ok(Some((colon..colon, format!(" {with}"))))
    }

    /// Adds a key to a mapping, after the entry at that index.
    ///
    /// # Errors
    /// It cannot be added without touching something else.
    pub(crate) fn insert(
        &self,
        mapping: &Node,
        behind: usize,
        key: &str,
        wanted: &Field,
    ) -> Result<Option<Splice>, Refusal> {
        let Kind::Mapping { flow, entries } = &mapping.kind else {
            return Err(refuse(mapping.line, "only a mapping can take a key"));
        };
        let with = match wanted {
            Field::Set(value) => written(value),
            Field::Restore(scalar) => scalar.written.clone(),
            Field::Keep | Field::Remove => return Ok(None),
        };
        let with = if with.is_empty() {
            format!("{}:", written(key))
        } else {
            format!("{}: {with}", written(key))
        };
        let Some((before, value)) = entries.get(behind) else {
            return Err(refuse(
                mapping.line,
                "the mapping is empty, so its style is not known",
            ));
        };
        let end = self.end_of_entry(before, value)?;
        if *flow {
            return Ok(Some((end..end, format!(", {with}"))));
        }
        let indent = " ".repeat(self.column(before.span.start));
        let (end, eol) = self.line_end(end);
        Ok(Some((end..end, format!("{eol}{indent}{with}"))))
    }

    /// Removes an entry from a mapping, and leaves a comment after it.
    ///
    /// # Errors
    /// It cannot be removed by itself.
    pub(crate) fn delete(&self, mapping: &Node, index: usize) -> Result<Splice, Refusal> {
        let Kind::Mapping { flow, entries } = &mapping.kind else {
            return Err(refuse(mapping.line, "only a mapping has keys"));
        };
        let Some((name, content)) = entries.get(index) else {
            return Err(refuse(mapping.line, "there is no such key"));
        };
        let line = name.line;
        let colon = self.colon(name)?;
        let (key, value) = (&name.span, &content.span);
        let value_end = if value.is_empty() { colon } else { value.end };
        if self.stream.points_to(content.anchor)
            || content.scalar().is_none()
            || self.text[value.clone()].contains('\n')
        {
            return Err(refuse(line, "the field cannot be removed by itself"));
        }
        let next = entries.get(index + 1).map(|(key, _)| key.span.start);
        let start = self.line_start(key.start);
        let whole_line = !flow && self.begins_line(key.start);
        let range = if whole_line && start > 0 {
            let (end, _) = self.line_end(value_end);
            match self.comment_between(value_end, end) {
                Some(comment) => key.start..comment,
                None => {
                    // Together with the line break before it, so that a last line without one stays without one.
                    let before = &self.text[..start - 1];
                    before.strip_suffix('\r').unwrap_or(before).len()..end
                }
            }
        } else if index > 0 && *flow {
            let (key, value) = &entries[index - 1];
            self.end_of_entry(key, value)?..value_end
        } else if let Some(next) = next {
            key.start..next
        } else {
            return Err(refuse(line, "the field cannot be removed by itself"));
        };
        if !whole_line && self.comment_between(range.start, range.end).is_some() {
            return Err(refuse(line, "the field to be removed has a comment beside it"));
        }
        Ok((range, String::new()))
    }

    /// Whether there is a comment between the two positions.
    pub(crate) fn has_comment(&self, range: &Range<usize>) -> bool {
        self.comment_between(range.start, range.end).is_some()
    }
}

/// Reads the edited text and compares: it must be what was intended, and nothing else.
///
/// # Errors
/// Something else would have changed.
pub(crate) fn prove(expected: &Stream, edited: &str, line: usize) -> Result<Stream, Refusal> {
    let differs = |what: &str| refuse(line, format!("the edit would have changed {what}"));
    let after = yaml::parse(edited).map_err(|_| differs("the file into invalid YAML"))?;
    if after.comments != expected.comments {
        return Err(differs("a comment"));
    }
    // A document of which nothing is written is none.
    let written = |stream: &Stream| {
        let mut documents = stream.documents.clone();
        documents.retain(|(is_marked, root)| *is_marked || root.is_some());
        documents
    };
    if after.documents != expected.documents && written(&after) != written(expected) {
        return Err(differs("something else"));
    }
    Ok(after)
}

/// Whether a tag only says that the value is a text.
fn is_text_tag(tag: &granit_parser::Tag) -> bool {
    tag.suffix() == "str" && (tag.original_handle() == "!!" || tag.handle().ends_with("yaml.org,2002:"))
}

pub(crate) fn refuse(line: usize, reason: impl Into<String>) -> Refusal {
    Refusal::Unsafe {
        line,
        reason: reason.into(),
    }
}

fn double_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value where there was none.
pub(crate) fn written(value: &str) -> String {
    if needs_quotes(value) {
        double_quoted(value)
    } else {
        value.to_owned()
    }
}

/// Names, bounded.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let mut list = shown.join(", ");
    if names.len() > SHOWN {
        list.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    list
}
