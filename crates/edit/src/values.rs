//! Values at paths of a document: found, and set.

use std::collections::BTreeMap;

use crate::{
    Refusal,
    difference::{Difference, ValueDifference, ValuesDifference},
    entry::Scalar,
    image::Reference,
    layout::{Field, Splice, Text, list, prove, refuse},
    objects::{Object, position, text_at},
    path::FilePath,
    steps::{Step, Steps},
    yaml::{Kind, Node, Style},
};

/// Where steps lead.
#[derive(Debug)]
pub(crate) enum Led<'a> {
    /// Reached this node. `below` is its path from the object.
    Node { below: Vec<usize>, node: &'a Node },
    /// Reached this far, where there is no such key or item; `left` is the number of steps not taken.
    Missing {
        below: Vec<usize>,
        node: &'a Node,
        left: usize,
    },
}

/// Follows steps from an object. What an alias or `<<` supplies is refused: an edit of it would change other places.
///
/// # Errors
/// The path leads through something shared.
pub(crate) fn follow<'a>(text: &'a Text<'_>, object: &Object<'a>, steps: &Steps) -> Result<Led<'a>, Refusal> {
    if let Some(root) = object.at.first().and_then(|number| text.stream.at(&[*number])) {
        unshared(text, root)?;
    }
    walk(text, object, steps, &|node| unshared(text, node))
}

/// Follows steps to a value that is only read: it may be shared.
///
/// # Errors
/// Something on the path is not written out here.
pub(crate) fn look<'a>(text: &'a Text<'_>, object: &Object<'a>, steps: &Steps) -> Result<Led<'a>, Refusal> {
    walk(text, object, steps, &not_alias)
}

fn walk<'a>(
    text: &'a Text<'_>,
    object: &Object<'a>,
    steps: &Steps,
    check: &dyn Fn(&Node) -> Result<(), Refusal>,
) -> Result<Led<'a>, Refusal> {
    let mut node = object.node;
    let mut below = Vec::new();
    for (number, step) in steps.0.iter().enumerate() {
        check(node)?;
        match child(text, node, step)? {
            Some(index) => {
                below.push(index);
                match node.child(index) {
                    Some(next) => node = next,
                    None => break,
                }
            }
            None => {
                return Ok(Led::Missing {
                    below,
                    node,
                    left: steps.0.len() - number,
                });
            }
        }
    }
    check(node)?;
    Ok(Led::Node { below, node })
}

fn not_alias(node: &Node) -> Result<(), Refusal> {
    match node.kind {
        Kind::Alias(_) => Err(refuse(
            node.line,
            "the value is an alias: edit it where its anchor stands, or write it out here",
        )),
        _ => Ok(()),
    }
}

fn unshared(text: &Text<'_>, node: &Node) -> Result<(), Refusal> {
    not_alias(node)?;
    if text.stream.points_to(node.anchor) {
        return Err(refuse(
            node.line,
            "an anchor stands here that an alias elsewhere uses: write the value out there first",
        ));
    }
    Ok(())
}

/// The index of the child that a step leads to.
fn child(text: &Text<'_>, node: &Node, step: &Step) -> Result<Option<usize>, Refusal> {
    match (&node.kind, step) {
        (Kind::Mapping { .. }, Step::Key(key)) => {
            let mut found = node.fields(key);
            let first = found.next();
            if let Some((second, _)) = found.next() {
                return Err(refuse(second.line, format!("`{key}` stands here a second time")));
            }
            if first.is_none() {
                not_merged(text, node, key)?;
            }
            Ok(position(node, key))
        }
        (Kind::Sequence { items, .. }, Step::Index(index)) => Ok((*index < items.len()).then_some(*index)),
        (Kind::Sequence { items, .. }, Step::Item { key, value }) => {
            let mut found = items
                .iter()
                .enumerate()
                .filter(|(_, item)| text_at(item, key) == Some(value));
            let first = found.next();
            if let Some((_, second)) = found.next() {
                return Err(refuse(
                    second.line,
                    format!("a second item has `{key}: {value}`: name it by its place, as [0]"),
                ));
            }
            Ok(first.map(|(index, _)| index))
        }
        _ if node.is_template() => Err(refuse(
            node.line,
            "a template stands here: edit the values that it is filled with",
        )),
        _ => Ok(None),
    }
}

/// Checks that no `<<` of the mapping supplies the key.
pub(crate) fn not_merged(text: &Text<'_>, mapping: &Node, key: &str) -> Result<(), Refusal> {
    for (merge, from) in mapping.fields("<<") {
        if supplies(text, from, key, 0) {
            return Err(refuse(
                merge.line,
                format!(
                    "`{key}` comes from an alias (`<<`): edit it where its anchor stands, or write it out here"
                ),
            ));
        }
    }
    Ok(())
}

fn supplies(text: &Text<'_>, from: &Node, key: &str, depth: usize) -> bool {
    // When it cannot be determined, assume that it does.
    if depth > 16 {
        return true;
    }
    match &from.kind {
        Kind::Alias(anchor) => text
            .stream
            .anchored(*anchor)
            .is_none_or(|node| supplies(text, node, key, depth + 1)),
        Kind::Sequence { items, .. } => items.iter().any(|item| supplies(text, item, key, depth + 1)),
        Kind::Mapping { .. } => {
            from.fields(key).next().is_some()
                || from
                    .fields("<<")
                    .any(|(_, from)| supplies(text, from, key, depth + 1))
        }
        Kind::Scalar { .. } => false,
    }
}

/// The error naming what a node has instead of what was asked for.
pub(crate) fn what_is_there(node: &Node) -> String {
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            let keys: Vec<&str> = entries.iter().filter_map(|(key, _)| key.scalar()).collect();
            match keys.is_empty() {
                true => "the mapping there is empty".to_owned(),
                false => format!("the keys that are there: {}", list(&keys)),
            }
        }
        Kind::Sequence { items, .. } => {
            let names: Vec<&str> = items.iter().filter_map(|item| text_at(item, "name")).collect();
            match names.is_empty() {
                true => format!("the list there has {} items", items.len()),
                false => format!("the names in the list there: {}", list(&names)),
            }
        }
        _ => "a plain value stands there".to_owned(),
    }
}

/// A value as it is written; `None` where there is none.
pub(crate) fn scalar(text: &Text<'_>, node: &Node) -> Option<Scalar> {
    let value = match node.is_null() {
        true => "",
        false => node.scalar()?,
    };
    Some(Scalar {
        value: value.to_owned(),
        written: text.text[node.span.clone()].to_owned(),
    })
}

/// A key that is added with its value, or an entry that is removed.
type Moved = Option<(String, Scalar)>;

/// Edits of values in one text, collected and then done and proven together.
#[derive(Debug)]
pub(crate) struct Changes<'t, 'a> {
    text: &'t Text<'a>,
    splices: Vec<Splice>,
    /// The new values, by paths in the old text.
    set: Vec<(Vec<usize>, Scalar)>,
    /// Entries to remove (`None`) or to add, by mapping and their index or the index they are added after. Last first.
    moved: BTreeMap<(Vec<usize>, usize), Moved>,
    line: usize,
}

impl<'t, 'a> Changes<'t, 'a> {
    pub(crate) fn new(text: &'t Text<'a>) -> Self {
        Self {
            text,
            splices: Vec::new(),
            set: Vec::new(),
            moved: BTreeMap::new(),
            line: 1,
        }
    }

    /// Sets the value at a path, and returns it as it is then written.
    pub(crate) fn set(&mut self, at: &[usize], wanted: &Field) -> Result<Option<Scalar>, Refusal> {
        let none = || refuse(self.line, "the value is gone");
        let value = self.text.stream.at(at).ok_or_else(none)?;
        let (last, parent) = at.split_last().ok_or_else(none)?;
        let key = match self.text.stream.at(parent).map(|parent| &parent.kind) {
            Some(Kind::Mapping { entries, .. }) => entries.get(*last).map(|(key, _)| key),
            _ => None,
        };
        let Some((range, with)) = self.text.replace(key, value, wanted)? else {
            return Ok(scalar(self.text, value));
        };
        self.line = value.line;
        let after = written_as(wanted, &with);
        self.splices.push((range, with));
        self.set.push((at.to_vec(), after.clone()));
        Ok(Some(after))
    }

    /// Adds a key to the mapping at a path, after the entry at that index.
    pub(crate) fn insert(
        &mut self,
        at: &[usize],
        behind: usize,
        key: &str,
        wanted: &Field,
    ) -> Result<Option<Scalar>, Refusal> {
        let Some(mapping) = self.text.stream.at(at) else {
            return Err(refuse(self.line, "the mapping is gone"));
        };
        not_merged(self.text, mapping, key)?;
        let Some(splice) = self.text.insert(mapping, behind, key, wanted)? else {
            return Ok(None);
        };
        self.line = mapping.line;
        let after = match wanted {
            Field::Restore(scalar) => scalar.clone(),
            Field::Set(value) => Scalar {
                value: value.clone(),
                written: crate::layout::written(value),
            },
            Field::Keep | Field::Remove => return Ok(None),
        };
        let place = (at.to_vec(), behind + 1);
        if self.moved.contains_key(&place) {
            return Err(refuse(self.line, "two keys cannot be added at one place at once"));
        }
        self.splices.push(splice);
        self.moved.insert(place, Some((key.to_owned(), after.clone())));
        Ok(Some(after))
    }

    /// Removes a key from the mapping at a path.
    pub(crate) fn remove(&mut self, at: &[usize], index: usize) -> Result<(), Refusal> {
        let Some(mapping) = self.text.stream.at(at) else {
            return Err(refuse(self.line, "the mapping is gone"));
        };
        self.splices.push(self.text.delete(mapping, index)?);
        self.moved.insert((at.to_vec(), index), None);
        Ok(())
    }

    /// The whole new text.
    ///
    /// # Errors
    /// Something else would have changed.
    pub(crate) fn finish(mut self) -> Result<String, Refusal> {
        if self.splices.is_empty() {
            return Ok(self.text.whole(self.text.text));
        }
        let edited = self.text.splice(&mut self.splices);
        let mut expected = self.text.stream.clone();
        for (at, scalar) in &self.set {
            if let Some(node) = expected.at_mut(at) {
                node.kind = kind(scalar);
            }
        }
        for ((at, place), entry) in self.moved.iter().rev() {
            let Some(Kind::Mapping { entries, .. }) = expected.at_mut(at).map(|node| &mut node.kind) else {
                continue;
            };
            match entry {
                None => {
                    entries.remove(*place);
                }
                Some((key, scalar)) => {
                    let node = |kind| Node {
                        kind,
                        span: 0..0,
                        line: 0,
                        anchor: 0,
                        tag: None,
                    };
                    let name = Scalar {
                        value: key.clone(),
                        written: crate::layout::written(key),
                    };
                    entries.insert(*place, (node(kind(&name)), node(kind(scalar))));
                }
            }
        }
        prove(&expected, &edited, self.line)?;
        Ok(self.text.whole(&edited))
    }
}

fn written_as(wanted: &Field, with: &str) -> Scalar {
    match wanted {
        Field::Restore(scalar) => scalar.clone(),
        Field::Set(value) => Scalar {
            value: value.clone(),
            written: with.trim_start().to_owned(),
        },
        Field::Keep | Field::Remove => Scalar {
            value: String::new(),
            written: String::new(),
        },
    }
}

/// What the parser reads a written scalar as.
fn kind(scalar: &Scalar) -> Kind {
    let style = match scalar.written.as_bytes().first() {
        Some(b'\'') => Style::Single,
        Some(b'"') => Style::Double,
        _ => Style::Plain,
    };
    let value = match (style, scalar.written.as_str()) {
        // The parser's representation of null.
        (Style::Plain, "") => "~".to_owned(),
        (Style::Plain, written) => written.to_owned(),
        _ => scalar.value.clone(),
    };
    Kind::Scalar { value, style }
}

/// The new text and the difference made by an edit of values.
pub(crate) fn done(
    text: String,
    file: &FilePath,
    mut values: Vec<ValueDifference>,
    before: Reference,
    after: Reference,
) -> (String, Difference) {
    // What changed comes first; what only belongs to the same image follows, so that undoing notices a change to it.
    values.sort_by_key(|value| value.before == value.after);
    (
        text,
        Difference::Values(ValuesDifference {
            file: file.clone(),
            values,
            before,
            after,
        }),
    )
}

/// The entry of an image's mapping after which a key is put: the last of those that precede it.
pub(crate) fn behind(mapping: &Node, key: &str) -> usize {
    let order: &[&str] = match key {
        "digest" => &["tag", "repository", "name", "registry"],
        _ => &["repository", "name", "registry"],
    };
    let last = match &mapping.kind {
        Kind::Mapping { entries, .. } => entries.len().saturating_sub(1),
        _ => 0,
    };
    order
        .iter()
        .find_map(|before| position(mapping, before))
        .unwrap_or(last)
}
