//! YAML as a tree that knows where each node is in the text, so that an edit can be a splice.
//!
//! The parser is granit-parser, the one below serde-saphyr: it gives byte spans for every node and comment. Of the
//! crates that edit YAML, yamlpatch reprints replaced values (the existing quoting style is lost) and cannot add to a
//! multi-line flow mapping; yaml-edit changes its tree in place, so that there is no old one to compare with.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use crate::unreadable::Unreadable;

/// How deeply collections may be nested: deeper than any manifest, shallow enough for the stack.
const MAX_DEPTH: usize = 100;

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Single,
    Double,
    /// `|` or `>`.
    Block,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Scalar {
        value: String,
        style: Style,
    },
    Sequence {
        flow: bool,
        items: Vec<Node>,
    },
    Mapping {
        flow: bool,
        entries: Vec<(Node, Node)>,
    },
    /// The number of the anchor that it refers to.
    Alias(usize),
}

/// One node and its position.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Bytes in the text, without anchor and tag. The span of a collection in block style is empty, at its first key or
    /// the content of its first item; that of one in flow style includes its brackets.
    pub(crate) span: Range<usize>,
    /// Counted from 1.
    pub(crate) line: usize,
    /// The number of this node's anchor; 0 for none.
    pub(crate) anchor: usize,
    /// Boxed: few nodes have one, and nodes are moved around a lot.
    pub(crate) tag: Option<Box<Tag>>,
}

/// Equal in meaning and style, wherever it is.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.anchor == other.anchor && self.tag == other.tag
    }
}

impl Node {
    /// A node that is to be written, and has no place yet.
    pub(crate) fn unplaced(kind: Kind) -> Self {
        Self {
            kind,
            span: 0..0,
            line: 0,
            anchor: 0,
            tag: None,
        }
    }

    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The value of `key` and its key, each time it occurs in this mapping.
    pub(crate) fn fields<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a (Node, Node)> {
        let entries = match &self.kind {
            Kind::Mapping { entries, .. } => entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter(move |(name, _)| name.scalar() == Some(key))
    }

    /// An absent value, as YAML 1.2 writes it.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { value, style: Style::Plain } if matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The child at an index, as paths of nodes count: an item, or the value of an entry.
    pub(crate) fn child(&self, index: usize) -> Option<&Self> {
        match &self.kind {
            Kind::Sequence { items, .. } => items.get(index),
            Kind::Mapping { entries, .. } => entries.get(index).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn child_mut(&mut self, index: usize) -> Option<&mut Self> {
        match &mut self.kind {
            Kind::Sequence { items, .. } => items.get_mut(index),
            Kind::Mapping { entries, .. } => entries.get_mut(index).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The node with that anchor, here or below.
    pub(crate) fn anchored(&self, anchor: usize) -> Option<&Self> {
        if self.anchor == anchor {
            return Some(self);
        }
        match &self.kind {
            Kind::Scalar { .. } | Kind::Alias(_) => None,
            Kind::Sequence { items, .. } => items.iter().find_map(|item| item.anchored(anchor)),
            Kind::Mapping { entries, .. } => entries
                .iter()
                .find_map(|(key, value)| key.anchored(anchor).or_else(|| value.anchored(anchor))),
        }
    }

    /// Whether this is what YAML makes of `{{ .Values.x }}`: a mapping whose key is a mapping.
    pub(crate) fn is_template(&self) -> bool {
        matches!(&self.kind, Kind::Mapping { flow: true, entries }
            if entries.iter().any(|(key, _)| matches!(key.kind, Kind::Mapping { flow: true, .. })))
            || self.scalar().is_some_and(|value| value.contains("{{"))
    }

    /// Whether this node or one below refers to the anchor.
    pub(crate) fn points_to(&self, anchor: usize) -> bool {
        match &self.kind {
            Kind::Scalar { .. } => false,
            Kind::Alias(to) => *to == anchor,
            Kind::Sequence { items, .. } => items.iter().any(|item| item.points_to(anchor)),
            Kind::Mapping { entries, .. } => entries
                .iter()
                .any(|(key, value)| key.points_to(anchor) || value.points_to(anchor)),
        }
    }
}

/// Everything in a text that an edit must account for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stream {
    /// Whether there is a `---` before it, and the document unless it is empty.
    pub(crate) documents: Vec<(bool, Option<Node>)>,
    /// The comments' texts, in order.
    pub(crate) comments: Vec<String>,
    /// Where each comment starts, in bytes.
    pub(crate) comment_starts: Positions,
}

impl Stream {
    /// The node at a path: the document's index, from 0, then that of each child.
    pub(crate) fn at(&self, path: &[usize]) -> Option<&Node> {
        let (document, rest) = path.split_first()?;
        let root = self.documents.get(*document)?.1.as_ref()?;
        rest.iter().try_fold(root, |node, index| node.child(*index))
    }

    pub(crate) fn at_mut(&mut self, path: &[usize]) -> Option<&mut Node> {
        let (document, rest) = path.split_first()?;
        let root = self.documents.get_mut(*document)?.1.as_mut()?;
        rest.iter().try_fold(root, |node, index| node.child_mut(*index))
    }

    /// Whether an alias refers to the anchor.
    pub(crate) fn points_to(&self, anchor: usize) -> bool {
        anchor != 0
            && self
                .documents
                .iter()
                .filter_map(|(_, root)| root.as_ref())
                .any(|root| root.points_to(anchor))
    }

    /// The node of an anchor.
    pub(crate) fn anchored(&self, anchor: usize) -> Option<&Node> {
        self.documents
            .iter()
            .filter_map(|(_, root)| root.as_ref())
            .find_map(|root| root.anchored(anchor))
    }
}

/// Positions are ignored when two texts are compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions(pub(crate) Vec<usize>);

impl PartialEq for Positions {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Reads a whole text. A byte order mark must have been removed.
pub(crate) fn parse(text: &str) -> Result<Stream, Unreadable> {
    let mut stream = Stream {
        documents: Vec::new(),
        comments: Vec::new(),
        comment_starts: Positions::default(),
    };
    let options = granit_parser::options! { max_buffered_comment_events: 100_000 };
    let mut reader = Reader {
        // The parser ends a block scalar with a line break even where the text has none.
        unended: (!text.ends_with(['\n', '\r'])).then_some(text.len()),
        parser: Parser::new_from_str_with_options(text, options),
        stream: &mut stream,
    };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(stream),
            Event::DocumentStart(explicit, _) => {
                let root = reader.document()?;
                stream_push(reader.stream, explicit, root);
            }
            Event::StreamStart | Event::DocumentEnd => {}
            _ => {
                return Err(Unreadable {
                    line: span.start.line(),
                    message: "content outside a document".to_owned(),
                });
            }
        }
    }
}

fn stream_push(stream: &mut Stream, explicit: bool, root: Option<Node>) {
    let root = root.filter(|node| !(node.is_null() && node.anchor == 0));
    stream.documents.push((explicit, root));
}

struct Reader<'text, 'stream> {
    parser: Parser<'text, granit_parser::StrInput<'text>>,
    stream: &'stream mut Stream,
    /// Where the text ends without a line break.
    unended: Option<usize>,
}

impl<'text> Reader<'text, '_> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'text>, Span), Unreadable> {
        loop {
            match self.parser.next() {
                Some(Ok((Event::Comment(text, _), span))) => {
                    self.stream.comments.push(text.into_owned());
                    let start = offset(&span)?.start;
                    self.stream.comment_starts.0.push(start);
                }
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    return Err(Unreadable {
                        line: 0,
                        message: "the text ends too early".to_owned(),
                    });
                }
            }
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Unreadable> {
        let (event, span) = self.next()?;
        match event {
            Event::DocumentEnd => Ok(None),
            event => self.node(event, &span, 0).map(Some),
        }
    }

    fn node(&mut self, event: Event<'text>, span: &Span, depth: usize) -> Result<Node, Unreadable> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(Unreadable {
                line,
                message: format!("collections are nested more than {MAX_DEPTH} deep"),
            });
        }
        let mut place = offset(span)?;
        let (kind, anchor, tag) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted => Style::Single,
                    ScalarStyle::DoubleQuoted => Style::Double,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                let mut value = value.into_owned();
                if style == Style::Block && self.unended == Some(place.end) && value.ends_with('\n') {
                    value.pop();
                }
                (Kind::Scalar { value, style }, anchor, tag)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let flow = style == StructureStyle::Flow;
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => {
                            if flow {
                                place.end = offset(&end)?.end;
                            }
                            break;
                        }
                        (event, span) => items.push(self.node(event, &span, depth + 1)?),
                    }
                }
                (Kind::Sequence { flow, items }, anchor, tag)
            }
            Event::MappingStart(style, anchor, tag) => {
                let flow = style == StructureStyle::Flow;
                let mut entries = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::MappingEnd {
                        if flow {
                            place.end = offset(&span)?.end;
                        }
                        break;
                    }
                    let key = self.node(event, &span, depth + 1)?;
                    let (event, span) = self.next()?;
                    entries.push((key, self.node(event, &span, depth + 1)?));
                }
                (Kind::Mapping { flow, entries }, anchor, tag)
            }
            Event::Alias(to) => (Kind::Alias(to), 0, None),
            _ => {
                return Err(Unreadable {
                    line,
                    message: "a node is missing".to_owned(),
                });
            }
        };
        Ok(Node {
            kind,
            span: place,
            line,
            anchor,
            tag: tag.map(|tag| Box::new(tag.into_owned())),
        })
    }
}

fn offset(span: &Span) -> Result<Range<usize>, Unreadable> {
    span.byte_range().ok_or_else(|| Unreadable {
        line: span.start.line(),
        message: "no byte position".to_owned(),
    })
}

/// Whether a plain scalar of this text would be read as something other than a string, by the rules of YAML 1.1
/// (which kustomize's parser keeps for the words) or of YAML 1.2, or not as one scalar at all.
pub(crate) fn needs_quotes(text: &str) -> bool {
    !is_text(text) || !is_plain(text)
}

/// Whether a plain scalar of this text would be read as a string, if it is read as one scalar.
pub(crate) fn is_text(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let word = matches!(
        lower.as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    // go-yaml drops every underscore before it tries numbers, but not where the text begins with one.
    let bare = || !lower.starts_with('_') && is_number(&lower.replace('_', ""));
    !(word || is_number(&lower) || bare() || is_date(text))
}

/// The characters that are always safe in a plain scalar, in block and in flow style; `:` only inside a word.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"._-+/@:=".contains(b))
        && bytes
            .first()
            .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'/')
        && bytes.last() != Some(&b':')
}

/// Integers (also `0x`, `0o`, `0b`, with `_`), floats, base 60, infinity and NaN.
fn is_number(lower: &str) -> bool {
    let digits = lower.strip_prefix(['+', '-']).unwrap_or(lower);
    if matches!(digits, ".inf" | ".nan") {
        return true;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            // Underscores alone are one by the letter of YAML 1.1, but not for any parser.
            let digits = rest.chars().all(|c| c == '_' || c.is_digit(radix));
            return digits && rest.chars().any(|c| c != '_');
        }
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    if digits.contains(':') {
        return digits.bytes().all(|b| b.is_ascii_digit() || b":._".contains(&b));
    }
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((digits, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    mantissa.bytes().any(|b| b.is_ascii_digit())
        && mantissa
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'_' || b == b'.')
        && mantissa.matches('.').count() <= 1
        && !exponent.is_empty()
        && exponent.bytes().all(|b| b.is_ascii_digit())
}

/// Anything that begins like `2026-01-31`.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let number = |part: Option<&str>, lengths: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|part| lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
    };
    number(parts.next(), 4..=4)
        && number(parts.next(), 1..=2)
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{needs_quotes, parse};

    #[test]
    fn what_is_not_a_string_is_quoted() {
        for text in [
            "1234567",
            "12e4567",
            "0123456",
            "1.0",
            "1_000",
            "1e5_0",
            "1e_5",
            "0_x1f",
            "0x1f",
            "0o17",
            "0b1",
            "1e5",
            "1.",
            "2026-01-31",
            "2026-1-1",
            "2026-01-31T10-00",
            "true",
            "No",
            "y",
            "null",
            "~",
            "",
            "-x",
            "a b",
            "a: b",
            "a:",
            "#x",
            "&a",
            "*a",
            "!x",
            "%x",
            "@x",
            "`x",
            "a#b",
            "[x",
            "{x",
            "x,y",
            "1:30",
            "é",
        ] {
            assert!(needs_quotes(text), "{text}");
        }
        for text in [
            "1a2b3c4",
            "1.44.0",
            "v1",
            "latest",
            "main-1a2b3c4",
            "0a",
            "12e45g",
            "ex",
            "20260131120000-x",
            "0xg",
            "sha256:00aa",
            "r.example:5000/team/app",
            "_x",
            "e12",
            "1.2.3-rc1",
            "on-call",
        ] {
            assert!(!needs_quotes(text), "{text}");
        }
    }

    #[test]
    fn comments_and_markers_count() {
        let stream = parse("# a\n---\nx: 1 # b\n...\n").unwrap();
        assert_eq!(stream.comments, [" a", " b"]);
        assert_eq!(stream.documents.len(), 1);
        assert!(stream.documents[0].0);
        assert!(parse("a: [").is_err());
        assert!(parse(&"[".repeat(200)).is_err());
    }
}
