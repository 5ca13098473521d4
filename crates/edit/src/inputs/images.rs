//! Texts without the values of images, which do not decide whether something renders.

use std::ops::Range;

use crate::{
    image::Reference,
    naming::{Naming, Part},
    yaml::{self, Kind, Node, Style, needs_quotes},
};

/// Where the value is, if it is a string on one line that nothing else refers to.
pub(super) fn copied(node: &Node) -> Option<Range<usize>> {
    match &node.kind {
        Kind::Scalar { value, style } if node.anchor == 0 && node.tag.is_none() => match style {
            Style::Plain => (!needs_quotes(value)).then(|| node.span.clone()),
            Style::Single | Style::Double => Some(node.span.clone()),
            Style::Block => None,
        },
        _ => None,
    }
}

pub(super) fn without(text: &str, spans: Vec<Range<usize>>) -> String {
    replaced(text, spans.into_iter().map(|span| (span, "")).collect())
}

/// The text with each span replaced by a character that YAML does not allow, and by what is kept of the span.
fn replaced(text: &str, mut spans: Vec<(Range<usize>, &str)>) -> String {
    spans.sort_unstable_by_key(|(span, _)| span.start);
    let mut rest = String::with_capacity(text.len());
    let mut from = 0;
    for (span, kept) in spans {
        rest.push_str(text.get(from..span.start).unwrap_or_default());
        rest.push('\0');
        rest.push_str(kept);
        from = span.end;
    }
    rest.push_str(text.get(from..).unwrap_or_default());
    rest
}

/// A manifest without the values of its images.
pub(super) fn without_all_images(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let stream = yaml::parse(text).ok()?;
    let mut spans = Vec::new();
    for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
        images(root, &mut spans);
    }
    Some(without(text, spans))
}

fn images(node: &Node, spans: &mut Vec<Range<usize>>) {
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            for (key, value) in entries {
                match key.scalar() {
                    Some("image") => spans.extend(copied(value)),
                    _ => images(value, spans),
                }
            }
        }
        Kind::Sequence { items, .. } => items.iter().for_each(|item| images(item, spans)),
        Kind::Scalar { .. } | Kind::Alias(_) => {}
    }
}

/// Values of Helm without those of images. What decides which parts an image has still counts: a chart asks for that.
pub(super) fn without_images_of_values(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let stream = yaml::parse(text).ok()?;
    let mut spans = Vec::new();
    for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
        values(root, &mut spans);
    }
    Some(replaced(text, spans))
}

fn values(node: &Node, spans: &mut Vec<(Range<usize>, &'static str)>) {
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            for (key, value) in entries {
                let key = key.scalar().unwrap_or_default();
                match value.scalar() {
                    Some(text) if is_of_image(key) => {
                        spans.extend(copied(value).zip(parts(text)));
                    }
                    Some(_) => {}
                    None => values(value, spans),
                }
            }
        }
        Kind::Sequence { items, .. } => items.iter().for_each(|item| values(item, spans)),
        Kind::Scalar { .. } | Kind::Alias(_) => {}
    }
}

/// Whether charts keep an image, or a part of one, under a key.
fn is_of_image(key: &str) -> bool {
    let is_part = Naming::of(key)
        .is_some_and(|(word, part, _)| !matches!(word, "name" | "version") && !matches!(part, Part::Switch));
    is_part || key.to_ascii_lowercase().ends_with("image")
}

/// Which parts a text has. `None`: it has none, or could be something else than an image.
fn parts(text: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+');
    if text.is_empty() || !text.chars().all(plain) {
        return None;
    }
    let reference = Reference::split(text);
    Some(match (reference.tag.is_empty(), reference.digest.is_empty()) {
        (true, true) => "",
        (false, true) => ":",
        (true, false) => "@",
        (false, false) => ":@",
    })
}
