//! Values at paths of a document: found, and set.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Refusal,
    difference::{Difference, ValueDifference, ValuesDifference},
    embedded::Embedded,
    entry::Scalar,
    image::Reference,
    layout::{Field, Splice, Text, list, prove, refuse, written},
    objects::{Object, position, text_at},
    path::FilePath,
    sharing::{Seen, Spot, places},
    steps::{Step, Steps},
    yaml::{Kind, Node, Style},
};

/// Where steps lead.
#[derive(Debug)]
pub(crate) enum Led<'a> {
    /// Reached this node.
    Node(Spot<'a>),
    /// Reached this far, where there is no such key or item; `left` is the number of steps not taken.
    Missing { spot: Spot<'a>, left: usize },
    /// Reached a block of text that contains YAML of its own; `left` is the number of steps to take there.
    Embedded { spot: Spot<'a>, left: usize },
}

/// Follows steps from an object, through aliases and `<<`.
///
/// # Errors
/// The path is not unambiguous, or leads into a template.
pub(crate) fn follow<'a>(text: &'a Text<'_>, object: &Object<'a>, steps: &Steps) -> Result<Led<'a>, Refusal> {
    let mut spot = Spot::of(text, object).resolved(text)?;
    for (number, step) in steps.0.iter().enumerate() {
        let left = steps.0.len() - number;
        match child(text, &spot, step)? {
            Some(next) => spot = next,
            None if Embedded::is_at(spot.node) => return Ok(Led::Embedded { spot, left }),
            None => return Ok(Led::Missing { spot, left }),
        }
    }
    Ok(Led::Node(spot))
}

/// Follows steps to a value that has to be written out there.
///
/// # Errors
/// An alias stands on the path.
pub(crate) fn follow_written<'a>(
    text: &'a Text<'_>,
    object: &Object<'a>,
    steps: &Steps,
) -> Result<Led<'a>, Refusal> {
    let led = follow(text, object, steps)?;
    match &led {
        Led::Node(spot) | Led::Missing { spot, .. } | Led::Embedded { spot, .. } if spot.is_shared => {
            Err(refuse(
                spot.node.line,
                "the value is shared by an alias now, and was written out before: restore it by hand",
            ))
        }
        _ => Ok(led),
    }
}

/// The child that a step leads to.
fn child<'a>(text: &'a Text<'_>, spot: &Spot<'a>, step: &Step) -> Result<Option<Spot<'a>>, Refusal> {
    let node = spot.node;
    match (&node.kind, step) {
        (Kind::Mapping { .. }, Step::Key(key)) if !node.is_template() => spot.field(text, key),
        (Kind::Sequence { .. }, Step::Index(index)) => spot.item(text, *index),
        (Kind::Sequence { items, .. }, Step::Item { key, value }) => {
            let mut found = None;
            for index in 0..items.len() {
                let Some(item) = spot.item(text, index)? else {
                    continue;
                };
                if !is_called(text, &item, key, value)? {
                    continue;
                }
                if found.is_some() {
                    return Err(refuse(
                        item.node.line,
                        format!("a second item has `{key}: {value}`: name it by its place, as [0]"),
                    ));
                }
                found = Some(item);
            }
            Ok(found)
        }
        _ if node.is_template() && !Embedded::is_at(node) => Err(refuse(
            node.line,
            "there is a template here: edit the values that it uses",
        )),
        _ => Ok(None),
    }
}

/// Whether an item has that value at that key. A reference of `images` is called by the name that it replaces.
fn is_called<'a>(text: &'a Text<'_>, item: &Spot<'a>, key: &str, value: &str) -> Result<bool, Refusal> {
    if let Some(reference) = item.node.scalar() {
        let name = match reference.split_once('=') {
            Some((name, _)) => name.to_owned(),
            None => Reference::split(reference).name,
        };
        return Ok(key == "name" && name == value);
    }
    if text_at(item.node, key).is_some() {
        return Ok(text_at(item.node, key) == Some(value));
    }
    let found = item.field(text, key)?;
    Ok(found.is_some_and(|found| found.node.scalar() == Some(value)))
}

/// The error naming what a node has instead of what was asked for.
pub(crate) fn what_is_there(node: &Node) -> String {
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            let keys: Vec<&str> = entries.iter().filter_map(|(key, _)| key.scalar()).collect();
            match keys.is_empty() {
                true => "the mapping there is empty".to_owned(),
                false => format!("the keys there: {}", list(&keys)),
            }
        }
        Kind::Sequence { items, .. } => {
            let names: Vec<&str> = items.iter().filter_map(|item| text_at(item, "name")).collect();
            match names.is_empty() {
                true => format!("the list there has {} items", items.len()),
                false => format!("the names in the list there: {}", list(&names)),
            }
        }
        _ => "there is a plain value there".to_owned(),
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

/// Whether values may change that other places show as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sharing {
    Refused,
    Allowed,
    /// With these places, and no others.
    With(BTreeSet<String>),
}

/// Entries of a mapping that are added or, when it is `None`, the one that is removed.
type Moved = Option<Vec<(Node, Node)>>;

/// Edits of values in one text, collected and then done and proven together.
#[derive(Debug)]
pub(crate) struct Changes<'t, 'a> {
    text: &'t Text<'a>,
    splices: Vec<Splice>,
    /// The new values, by paths in the old text.
    set: Vec<(Vec<usize>, Kind)>,
    /// By mapping, and the index in it. Done from the last to the first.
    moved: BTreeMap<(Vec<usize>, usize), Moved>,
    /// The new roots of documents.
    roots: Vec<(usize, Option<Node>)>,
    line: usize,
    sharing: Sharing,
    /// The places that the edit names.
    pub(crate) named: BTreeSet<Seen>,
    /// The places that changed along with the values that were written.
    pub(crate) shared_with: BTreeSet<String>,
}

impl<'t, 'a> Changes<'t, 'a> {
    pub(crate) fn new(text: &'t Text<'a>, sharing: Sharing) -> Self {
        Self {
            text,
            splices: Vec::new(),
            set: Vec::new(),
            moved: BTreeMap::new(),
            roots: Vec::new(),
            line: 1,
            sharing,
            named: BTreeSet::new(),
            shared_with: BTreeSet::new(),
        }
    }

    pub(crate) fn text(&self) -> &'t Text<'a> {
        self.text
    }

    pub(crate) fn sharing(&self) -> &Sharing {
        &self.sharing
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
        // Set already, because two places that were named share it.
        if let Some((_, done)) = self.set.iter().find(|(done, _)| done == at) {
            let done = Node::unplaced(done.clone());
            return match (wanted, done.scalar()) {
                (Field::Set(wanted), Some(set)) if wanted == set => Ok(Some(Scalar {
                    value: set.to_owned(),
                    written: written_before(&self.splices, &value.span, set),
                })),
                _ => Err(refuse(
                    value.line,
                    "two places that are meant share this value, and are to differ",
                )),
            };
        }
        let Some((range, with)) = self.text.replace(key, value, wanted)? else {
            return Ok(scalar(self.text, value));
        };
        self.line = value.line;
        self.agree(at, &[], value.line)?;
        let after = written_as(wanted, &with);
        self.splices.push((range, with));
        self.set.push((at.to_vec(), kind(&after)));
        Ok(Some(after))
    }

    /// Replaces the text of a block with another one, by splices of its bytes.
    pub(crate) fn set_block(
        &mut self,
        at: &[usize],
        splices: Vec<Splice>,
        value: String,
    ) -> Result<(), Refusal> {
        let line = self.text.stream.at(at).map_or(self.line, |node| node.line);
        if splices.is_empty() {
            return Ok(());
        }
        self.agree(at, &[], line)?;
        self.line = line;
        self.splices.extend(splices);
        let style = Style::Block;
        self.set.push((at.to_vec(), Kind::Scalar { value, style }));
        Ok(())
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
        let Some(splice) = self.text.insert(mapping, behind, key, wanted)? else {
            return Ok(None);
        };
        self.line = mapping.line;
        self.agree(at, &[Step::Key(key.to_owned())], mapping.line)?;
        let after = match wanted {
            Field::Restore(scalar) => scalar.clone(),
            Field::Set(value) => Scalar {
                value: value.clone(),
                written: written(value),
            },
            Field::Keep | Field::Remove => return Ok(None),
        };
        let place = (at.to_vec(), behind + 1);
        if self.moved.contains_key(&place) {
            return Err(refuse(self.line, "two keys cannot be added at one place at once"));
        }
        self.splices.push(splice);
        let entry = (key_node(key), Node::unplaced(kind(&after)));
        self.moved.insert(place, Some(vec![entry]));
        Ok(Some(after))
    }

    /// Adds entries at the end of the mapping at a path by a splice that was made elsewhere.
    pub(crate) fn append(
        &mut self,
        at: &[usize],
        added: Vec<(Node, Node)>,
        splice: Splice,
    ) -> Result<(), Refusal> {
        let Some(mapping) = self.text.stream.at(at) else {
            return Err(refuse(self.line, "the mapping is gone"));
        };
        self.line = mapping.line;
        for (key, _) in &added {
            let key = key.scalar().unwrap_or_default().to_owned();
            self.agree(at, &[Step::Key(key)], mapping.line)?;
        }
        let place = match &mapping.kind {
            Kind::Mapping { entries, .. } => entries.len(),
            _ => 0,
        };
        self.splices.push(splice);
        self.moved.insert((at.to_vec(), place), Some(added));
        Ok(())
    }

    /// Replaces a node by a splice that was made elsewhere.
    pub(crate) fn put(&mut self, at: &[usize], kind: Kind, splice: Splice) -> Result<(), Refusal> {
        self.line = self.text.stream.at(at).map_or(self.line, |node| node.line);
        self.agree(at, &[], self.line)?;
        self.splices.push(splice);
        self.set.push((at.to_vec(), kind));
        Ok(())
    }

    /// Replaces the root of a document by a splice that was made elsewhere.
    pub(crate) fn put_root(&mut self, document: usize, root: Option<Node>, splice: Splice) {
        self.splices.push(splice);
        self.roots.push((document, root));
    }

    /// Removes a key from the mapping at a path.
    pub(crate) fn remove(&mut self, at: &[usize], index: usize) -> Result<(), Refusal> {
        let Some(mapping) = self.text.stream.at(at) else {
            return Err(refuse(self.line, "the mapping is gone"));
        };
        let splice = self.text.delete(mapping, index)?;
        let entry: Vec<usize> = at.iter().copied().chain([index]).collect();
        self.agree(&entry, &[], self.line)?;
        self.splices.push(splice);
        self.moved.insert((at.to_vec(), index), None);
        Ok(())
    }

    /// Checks that the places that change along with one are allowed to, and records them.
    pub(crate) fn agree(&mut self, at: &[usize], tail: &[Step], line: usize) -> Result<(), Refusal> {
        let mut all = places(self.text, at, tail);
        if all.len() == 1 {
            return Ok(());
        }
        let mut written = Seen::written(&self.text.stream, at);
        written.steps.extend_from_slice(tail);
        all.remove(&written);
        let along: BTreeSet<String> = all.iter().map(Seen::to_string).collect();
        all.insert(written);
        let unasked: Vec<String> = match &self.sharing {
            Sharing::Allowed => Vec::new(),
            Sharing::Refused => all.difference(&self.named).map(Seen::to_string).collect(),
            Sharing::With(known) => along.difference(known).cloned().collect(),
        };
        if !unasked.is_empty() {
            let quoted: Vec<String> = unasked.iter().map(|place| format!("`{place}`")).collect();
            return Err(Refusal::Shared {
                line,
                others: list(&quoted),
            });
        }
        self.shared_with.extend(along);
        Ok(())
    }

    /// The whole new text.
    ///
    /// # Errors
    /// Something else would have changed.
    pub(crate) fn finish(self) -> Result<String, Refusal> {
        let text = self.text;
        let (edited, _) = self.spliced()?;
        Ok(text.whole(&edited))
    }

    /// The new text, and the splices that lead to it.
    ///
    /// # Errors
    /// Something else would have changed.
    pub(crate) fn spliced(mut self) -> Result<(String, Vec<Splice>), Refusal> {
        if self.splices.is_empty() {
            return Ok((self.text.text.to_owned(), Vec::new()));
        }
        let edited = self.text.splice(&mut self.splices);
        let mut expected = self.text.stream.clone();
        for (at, kind) in self.set {
            if let Some(node) = expected.at_mut(&at) {
                node.kind = kind;
            }
        }
        for ((at, place), entry) in self.moved.into_iter().rev() {
            let Some(Kind::Mapping { entries, .. }) = expected.at_mut(&at).map(|node| &mut node.kind) else {
                continue;
            };
            match entry {
                None => {
                    entries.remove(place);
                }
                Some(added) => drop(entries.splice(place..place, added)),
            }
        }
        for (document, root) in self.roots {
            match expected.documents.get_mut(document) {
                Some((_, old)) => *old = root,
                None => expected.documents.push((false, root)),
            }
        }
        prove(&expected, &edited, self.line)?;
        Ok((edited, self.splices))
    }
}

/// What was written in place of a value; the value itself where that is not known.
fn written_before(splices: &[Splice], span: &std::ops::Range<usize>, value: &str) -> String {
    let splice = splices.iter().find(|(range, _)| range == span);
    splice.map_or_else(|| written(value), |(_, with)| with.clone())
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

/// A key that is to be written.
pub(crate) fn key_node(key: &str) -> Node {
    Node::unplaced(kind(&Scalar {
        value: key.to_owned(),
        written: written(key),
    }))
}

/// What the parser reads a written scalar as.
pub(crate) fn kind(scalar: &Scalar) -> Kind {
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
pub(crate) fn done(text: String, mut difference: ValuesDifference) -> (String, Difference) {
    // What changed comes first; what only belongs to the same image follows, so that undoing notices a change to it.
    difference.values.sort_by_key(|value| value.before == value.after);
    (text, Difference::Values(difference))
}

/// A difference without what only some edits have.
pub(crate) fn difference(
    file: &FilePath,
    values: Vec<ValueDifference>,
    before: Reference,
    after: Reference,
    shared_with: BTreeSet<String>,
) -> ValuesDifference {
    ValuesDifference {
        file: file.clone(),
        values,
        before,
        after,
        shared_with: shared_with.into_iter().collect(),
        added: None,
    }
}

/// The entry of an image's mapping after which a key is put: the last of those that precede it.
pub(crate) fn behind(mapping: &Node, key: &str) -> usize {
    let order: &[&str] = match key {
        "digest" => &["tag", "newTag", "newName", "repository", "name", "registry"],
        _ => &["newName", "repository", "name", "registry"],
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
