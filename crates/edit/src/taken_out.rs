//! Takes out an image that was added to a file, with everything that was added to hold it.

use crate::{
    Refusal,
    added::key_at,
    difference::{Added, ValueDifference},
    layout::{Splice, Text, refuse},
    objects::{Object, position},
    sharing::Seen,
    steps::{Step, Steps},
    values::{Changes, Led, follow},
    yaml::{self, Kind, Node, Stream},
};

/// Takes out the keys that an edit added, and what it added to hold them.
///
/// # Errors
/// They cannot be taken out by themselves.
pub(crate) fn take_out(
    text: &Text<'_>,
    changes: &mut Changes<'_, '_>,
    object: &Object<'_>,
    added: &Added,
    values: &[ValueDifference],
) -> Result<(String, Vec<Splice>), Refusal> {
    let cannot = |line| {
        refuse(
            line,
            "what was added cannot be removed by itself: remove it by hand",
        )
    };
    let steps = Steps::recorded(&added.at).map_err(|_| cannot(1))?;
    let Led::Node(spot) = follow(text, object, &steps)? else {
        return Err(cannot(object.node.line));
    };
    let Some((last, above)) = spot.at.split_last() else {
        return Err(cannot(spot.node.line));
    };
    let Some((key, is_flow)) = key_at(text, &spot.at) else {
        return Err(cannot(spot.node.line));
    };
    changes.agree(&spot.at, &[], spot.node.line)?;
    let mut paths = Vec::new();
    for value in values {
        let steps = Steps::recorded(&value.at).map_err(|_| cannot(1))?;
        if let Led::Node(spot) = follow(text, object, &steps)? {
            paths.push(Seen::written(&text.stream, &spot.at));
        }
    }
    let splice = match added.exact.splice_back(text, key.span.start) {
        Some(splice) => splice,
        None if !is_flow => lines_of(text, above, *last, values).ok_or_else(|| cannot(spot.node.line))?,
        None => return Err(cannot(spot.node.line)),
    };
    let edited = text.splice(&mut [splice.clone()]);
    let differs = |what: &str| refuse(spot.node.line, format!("the edit would have changed {what}"));
    let mut after = yaml::parse(&edited).map_err(|_| differs("the file into invalid YAML"))?;
    let mut before = text.stream.clone();
    let top = Seen::written(&text.stream, &spot.at);
    for path in paths.iter().chain([&top]) {
        drop_path(&mut before, path);
        drop_path(&mut after, path);
    }
    if after.comments != before.comments {
        return Err(differs("a comment"));
    }
    if written_documents(&before) != written_documents(&after) {
        return Err(differs("something else"));
    }
    Ok((edited, vec![splice]))
}

/// The lines of an entry that holds nothing but what was added.
fn lines_of(text: &Text<'_>, mapping: &[usize], index: usize, values: &[ValueDifference]) -> Option<Splice> {
    fn leaves(node: &Node) -> usize {
        match &node.kind {
            Kind::Mapping { entries, .. } => entries.iter().map(|(_, value)| leaves(value)).sum(),
            _ => 1,
        }
    }
    let Kind::Mapping { entries, .. } = &text.stream.at(mapping)?.kind else {
        return None;
    };
    let (key, value) = entries.get(index)?;
    let start = key.span.start;
    if leaves(value) != values.len() || !text.begins_line(start) {
        return None;
    }
    let (end, eol) = text.line_end(text.end_of_entry(key, value).ok()?);
    let range = match text.line_start(start) {
        0 => 0..(end + eol.len()).min(text.text.len()),
        start => {
            let before = &text.text[..start - 1];
            before.strip_suffix('\r').unwrap_or(before).len()..end
        }
    };
    (!text.has_comment(&range)).then_some((range, String::new()))
}

/// Removes what stands at a path of keys, and the root where nothing else is left.
fn drop_path(stream: &mut Stream, path: &Seen) {
    let Some((_, root)) = stream.documents.get_mut(path.document) else {
        return;
    };
    let Some((Step::Key(last), above)) = path.steps.split_last() else {
        return;
    };
    let mut node = match root.as_mut() {
        Some(node) => node,
        None => return,
    };
    for step in above {
        let index = match step {
            Step::Key(key) => position(node, key),
            Step::Index(index) => Some(*index),
            Step::Item { .. } => None,
        };
        match index.and_then(|index| node.child_mut(index)) {
            Some(next) => node = next,
            None => return,
        }
    }
    if let Kind::Mapping { entries, .. } = &mut node.kind {
        entries.retain(|(key, _)| key.scalar() != Some(last));
    }
    let is_empty = |root: &Node| matches!(&root.kind, Kind::Mapping { entries, .. } if entries.is_empty());
    if root.as_ref().is_some_and(is_empty) {
        *root = None;
    }
}

/// The documents of which something is written.
fn written_documents(stream: &Stream) -> Vec<&(bool, Option<Node>)> {
    let documents = stream.documents.iter();
    documents
        .filter(|(is_marked, root)| *is_marked || root.is_some())
        .collect()
}
