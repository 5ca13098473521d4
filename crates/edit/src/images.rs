//! Adding and removing entries of a kustomization's `images`.

use crate::{
    Refusal,
    bases::Used,
    difference::Exact,
    entry::{Entry, FIELDS},
    kustomization::{Edited, EntryChange, entry, find, images, is_ours_alone, name_of, root},
    layout::{Field, Splice, Text, prove, refuse, written},
    pattern,
    yaml::{self, Kind, Node, Stream},
};

const KEY: &str = "images";

/// Adds an entry at the end of `images`, in the style of the file; adds the key too where it is missing.
///
/// # Errors
/// Another entry sets the image already, or nothing can be added without touching something else.
pub(crate) fn add(text: &Text<'_>, name: &str, wanted: &EntryChange, used: &Used) -> Result<Edited, Refusal> {
    let Some(at) = root(&text.stream)? else {
        return Err(refuse(1, "the kustomization is empty"));
    };
    let items = images(at)?;
    is_ours_alone(&text.stream, at, None)?;
    let ours: Vec<&str> = used
        .names
        .iter()
        .map(String::as_str)
        .filter(|image| pattern::matches(name, image))
        .collect();
    for item in items {
        let pattern = name_of(item).unwrap_or_default();
        if ours.iter().any(|image| pattern::matches(pattern, image)) || pattern::matches(pattern, name) {
            return Err(refuse(
                item.line,
                format!(
                    "`name: {pattern}` matches image {name:?} already: name that entry, or give it another name"
                ),
            ));
        }
    }
    let fields: Vec<(&str, String)> = std::iter::once(("name", written(name)))
        .chain(
            FIELDS
                .into_iter()
                .zip(wanted.fields())
                .filter_map(|(key, field)| match field {
                    Field::Set(value) => Some((key, written(value))),
                    Field::Restore(scalar) if !scalar.written.is_empty() => {
                        Some((key, scalar.written.clone()))
                    }
                    _ => None,
                }),
        )
        .collect();
    let flow: String = fields
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect::<Vec<_>>()
        .join(", ");
    let flow = format!("{{{flow}}}");
    let mut splices = match at.fields(KEY).next() {
        Some((key, list)) => match &list.kind {
            Kind::Sequence { flow: true, items } if !items.is_empty() || is_flow(at) => {
                vec![behind_flow(text, list, items, &flow)?]
            }
            Kind::Sequence { flow: false, items } if !items.is_empty() => {
                vec![behind_block(text, items, &fields)?]
            }
            _ if is_flow(at) => vec![text.replace_empty(key, list, &format!(" [{flow}]"))?],
            _ => below_key(text, at, key, list, &fields)?,
        },
        None => vec![at_end(text, at, &fields, &flow)?],
    };
    let edited = text.splice(&mut splices);
    let after = yaml::parse(&edited)
        .map_err(|_| refuse(at.line, "the edit would have changed the file into invalid YAML"))?;
    // What is there now, without the new entry, must be what was there before.
    let new = root(&after)?.map_or(Ok(&[][..]), images)?;
    let Some((added, _)) = new.split_last().filter(|(_, rest)| rest.len() == items.len()) else {
        return Err(refuse(at.line, "the entry could not be added"));
    };
    let stands = entry(&edited, &after, added, name)?;
    let meant = wanted.values();
    let as_meant = name_of(added) == Some(name)
        && (0..FIELDS.len())
            .all(|field| stands.get(field).map(|scalar| scalar.value.as_str()) == meant[field]);
    let lead_from = splices.first().map_or(0, |(range, _)| range.start);
    let lead = added.span.start.saturating_sub(lead_from);
    let end = splices.last().map_or(lead_from, |(range, _)| range.end);
    if !as_meant || !same_without(&text.stream, after) {
        return Err(refuse(at.line, "the edit would have changed something else"));
    }
    Ok(Edited {
        exact: Some(Box::new(Exact::between(text.text, &edited, lead_from..end, lead))),
        text: edited,
        before: Entry::named(name),
        after: stands,
        added: true,
        removed: false,
    })
}

/// Removes an entry; if its bytes are as `exact` says, along with everything that was added with it.
///
/// # Errors
/// It cannot be removed by itself.
pub(crate) fn remove(text: &Text<'_>, name: &str, exact: Option<&Exact>) -> Result<Edited, Refusal> {
    let (index, node) = find(&text.stream, name)?;
    let before = entry(text.text, &text.stream, node, name)?;
    let done = |edited: String| Edited {
        text: edited,
        before: before.clone(),
        after: Entry::named(name),
        added: false,
        removed: true,
        exact: None,
    };
    if let Some(edited) = exact.and_then(|exact| exact.put_back(text, node.span.start))
        && let Ok(after) = yaml::parse(&edited)
        && after.comments == text.stream.comments
        && same_after_removal(&text.stream, after, index)
    {
        return Ok(done(edited));
    }
    let cannot = || {
        refuse(
            node.line,
            "the entry cannot be removed by itself: remove it by hand",
        )
    };
    let Some((key, list)) = root(&text.stream)?.and_then(|root| root.fields(KEY).next()) else {
        return Err(cannot());
    };
    let Kind::Sequence { flow, items } = &list.kind else {
        return Err(cannot());
    };
    let range = if *flow {
        match (
            index.checked_sub(1).and_then(|before| items.get(before)),
            items.get(index + 1),
        ) {
            (Some(before), _) => before.span.end..node.span.end,
            (None, Some(next)) => node.span.start..next.span.start,
            (None, None) => node.span.clone(),
        }
    } else {
        // The list's key goes with its last entry: what is left would not be a list.
        let start = match items.len() {
            1 => key.span.start,
            _ => dash(text, node).ok_or_else(cannot)?,
        };
        if !text.begins_line(start) {
            return Err(cannot());
        }
        let (end, eol) = text.line_end(text.end_of(node)?);
        match text.line_start(start) {
            0 => 0..(end + eol.len()).min(text.text.len()),
            start => {
                let before = &text.text[..start - 1];
                before.strip_suffix('\r').unwrap_or(before).len()..end
            }
        }
    };
    if text.has_comment(&range) {
        return Err(refuse(
            node.line,
            "the entry to be removed has a comment: remove it by hand",
        ));
    }
    let edited = text.splice(&mut [(range, String::new())]);
    let mut expected = text.stream.clone();
    take_out(&mut expected, index, items.len() == 1 && !flow);
    prove(&expected, &edited, node.line)?;
    Ok(done(edited))
}

impl Text<'_> {
    /// Replaces an empty value, or one written as explicitly empty.
    fn replace_empty(&self, key: &Node, value: &Node, with: &str) -> Result<Splice, Refusal> {
        if value.anchor != 0 || value.tag.is_some() {
            return Err(refuse(
                value.line,
                "`images` is empty and has an anchor or a tag: remove that first",
            ));
        }
        let colon = self.colon(key)?;
        let end = value.span.end.max(colon);
        if self.has_comment(&(colon..end)) {
            return Err(refuse(
                value.line,
                "the empty `images` contains a comment: remove the brackets first",
            ));
        }
        Ok((colon..end, with.to_owned()))
    }
}

fn is_flow(node: &Node) -> bool {
    matches!(
        node.kind,
        Kind::Mapping { flow: true, .. } | Kind::Sequence { flow: true, .. }
    )
}

/// Where the dash of an item of a block list is, when it begins its line.
fn dash(text: &Text<'_>, item: &Node) -> Option<usize> {
    let before = text.text[..item.span.start].trim_end_matches([' ', '\n', '\r']);
    let at = before.strip_suffix('-')?.len();
    text.begins_line(at).then_some(at)
}

/// The lines of an entry, each with its line break before it.
fn lines(eol: &str, indent: &str, gap: &str, fields: &[(&str, String)]) -> String {
    let mut lines = String::new();
    for (number, (key, value)) in fields.iter().enumerate() {
        let lead = if number == 0 {
            "-".to_owned()
        } else {
            " ".to_owned()
        };
        lines.push_str(&format!("{eol}{indent}{lead}{gap}{key}: {value}"));
    }
    lines
}

fn behind_block(text: &Text<'_>, items: &[Node], fields: &[(&str, String)]) -> Result<Splice, Refusal> {
    let Some(last) = items.last() else {
        return Err(refuse(1, "`images` is empty"));
    };
    let Some(dash) = dash(text, last).filter(|_| !last.span.is_empty() || last.child(0).is_some()) else {
        return Err(refuse(
            last.line,
            "no entry can be added after the last one of `images`: add it by hand",
        ));
    };
    let between = &text.text[dash + 1..last.span.start];
    // A first key on a line of its own does not show how far it is from the dash.
    let gap = if between.bytes().all(|b| b == b' ') {
        between
    } else {
        " "
    };
    let (end, eol) = text.line_end(text.end_of(last)?);
    let indent = " ".repeat(text.column(dash));
    Ok((end..end, lines(eol, &indent, gap, fields)))
}

fn behind_flow(text: &Text<'_>, list: &Node, items: &[Node], entry: &str) -> Result<Splice, Refusal> {
    let Some(last) = items.last() else {
        let inside = list.span.start + 1..list.span.end - 1;
        if text.has_comment(&inside) {
            return Err(refuse(
                list.line,
                "the empty `images` contains a comment: remove it first",
            ));
        }
        return Ok((inside, entry.to_owned()));
    };
    let end = text.end_of(last)?;
    let separator = if text.begins_line(last.span.start) {
        format!(
            ",{}{}",
            text.line_end(end).1,
            " ".repeat(text.column(last.span.start))
        )
    } else {
        ", ".to_owned()
    };
    Ok((end..end, format!("{separator}{entry}")))
}

/// The indent of the file's lists below their keys, taken from the first one.
fn list_indent(text: &Text<'_>, root: &Node) -> usize {
    let Kind::Mapping { entries, .. } = &root.kind else {
        return 0;
    };
    entries
        .iter()
        .find_map(|(key, value)| match &value.kind {
            Kind::Sequence { flow: false, items } => {
                let dash = dash(text, items.first()?)?;
                Some(text.column(dash).saturating_sub(text.column(key.span.start)))
            }
            _ => None,
        })
        .unwrap_or_default()
}

/// Below an existing `images` key that is empty.
fn below_key(
    text: &Text<'_>,
    root: &Node,
    key: &Node,
    value: &Node,
    fields: &[(&str, String)],
) -> Result<Vec<Splice>, Refusal> {
    let empty = text.replace_empty(key, value, "")?;
    let (end, eol) = text.line_end(empty.0.end);
    let indent = " ".repeat(text.column(key.span.start) + list_indent(text, root));
    let mut splices = vec![(end..end, lines(eol, &indent, " ", fields))];
    if !empty.0.is_empty() {
        splices.insert(0, empty);
    }
    Ok(splices)
}

/// Adds the key `images` after all others.
fn at_end(text: &Text<'_>, root: &Node, fields: &[(&str, String)], flow: &str) -> Result<Splice, Refusal> {
    let Kind::Mapping { entries, .. } = &root.kind else {
        return Err(refuse(root.line, "a kustomization is a mapping"));
    };
    let Some((first, last)) = entries.first().zip(entries.last()) else {
        let inside = root.span.start + 1..root.span.end - 1;
        return Ok((inside, format!("{KEY}: [{flow}]")));
    };
    if is_flow(root) {
        let end = text.end_of_entry(&last.0, &last.1)?;
        return Ok((end..end, format!(", {KEY}: [{flow}]")));
    }
    let (end, eol) = text.end_of_root(last)?;
    let column = text.column(first.0.span.start);
    let indent = " ".repeat(column);
    let items = " ".repeat(column + list_indent(text, root));
    Ok((
        end..end,
        format!("{eol}{indent}{KEY}:{}", lines(eol, &items, " ", fields)),
    ))
}

/// The entries of the root mapping, and the position of `images` among them.
fn root_entries(stream: &mut Stream) -> Option<(&mut Vec<(Node, Node)>, usize)> {
    let root = stream.documents.iter_mut().find_map(|(_, root)| root.as_mut())?;
    let Kind::Mapping { entries, .. } = &mut root.kind else {
        return None;
    };
    let at = entries.iter().position(|(key, _)| key.scalar() == Some(KEY))?;
    Some((entries, at))
}

fn take_out(stream: &mut Stream, index: usize, key_too: bool) {
    let Some((entries, at)) = root_entries(stream) else {
        return;
    };
    if key_too {
        entries.remove(at);
    } else if let Kind::Sequence { items, .. } = &mut entries[at].1.kind {
        items.remove(index);
    }
}

/// Whether `after` equals `before` except for an entry at the end of `images`, and for `images` itself when it had
/// none.
fn same_without(before: &Stream, mut after: Stream) -> bool {
    let had = before
        .documents
        .iter()
        .find_map(|(_, root)| root.as_ref())
        .and_then(|root| root.fields(KEY).next());
    let Some((entries, at)) = root_entries(&mut after) else {
        return false;
    };
    match had {
        None => {
            entries.remove(at);
        }
        Some((_, list)) => match (&list.kind, &mut entries[at].1.kind) {
            (Kind::Sequence { items: old, .. }, Kind::Sequence { items, .. }) if !old.is_empty() => {
                items.pop();
            }
            _ => entries[at].1 = list.clone(),
        },
    }
    after == *before
}

/// Whether `after` equals `before` without the entry; with the last entry, `images` may have gone or become empty.
fn same_after_removal(before: &Stream, mut after: Stream, index: usize) -> bool {
    let mut expected = before.clone();
    let Some((entries, at)) = root_entries(&mut expected) else {
        return false;
    };
    let last = matches!(&entries[at].1.kind, Kind::Sequence { items, .. } if items.len() == 1);
    if !last {
        take_out(&mut expected, index, false);
        return expected == after;
    }
    match root_entries(&mut after) {
        Some((left, at)) => {
            let empty = left[at].1.is_null()
                || matches!(&left[at].1.kind, Kind::Sequence { items, .. } if items.is_empty());
            left.remove(at);
            take_out(&mut expected, 0, true);
            empty && expected == after
        }
        None => {
            take_out(&mut expected, 0, true);
            expected == after
        }
    }
}
