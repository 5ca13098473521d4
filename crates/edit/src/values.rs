//! Values at paths of a document: found, set, put back.

use std::collections::{BTreeMap, HashMap};

use crate::{
    Refusal,
    difference::{Difference, RestoreValues, ValueDifference, ValuesDifference},
    image::Reference,
    kustomize::Scalar,
    layout::{Field, Splice, Text, list, prove, refuse},
    path::FilePath,
    steps::{Step, Steps},
    yaml::{Kind, Node, Stream, Style},
};

/// A document, or an item of a Kubernetes list, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    /// `Kind/name` where that is one object of the file alone, which finds it wherever it is moved to. Else the
    /// document's number, from 1.
    pub(crate) label: String,
    /// `Kind/name`, whether or not others are called so too.
    pub(crate) name: Option<String>,
    /// The node's path in the stream.
    pub(crate) at: Vec<usize>,
    /// Steps from the node that the label means.
    prefix: Steps,
    pub(crate) node: &'a Node,
    /// Its items are objects of their own.
    pub(crate) is_list: bool,
}

/// The objects of a stream: each document, and behind a list each of its items.
pub(crate) fn objects(stream: &Stream) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    for (number, (_, root)) in stream.documents.iter().enumerate() {
        let Some(root) = root else { continue };
        let label = (number + 1).to_string();
        let object = |node, at, prefix, is_list| Object {
            label: label.clone(),
            name: object_name(node),
            at,
            prefix: Steps(prefix),
            node,
            is_list,
        };
        let listed = text_at(root, "kind").is_some_and(|kind| kind.ends_with("List"));
        let items = root
            .fields("items")
            .next()
            .filter(|_| listed)
            .and_then(|(_, items)| match &items.kind {
                Kind::Sequence { items, .. } => Some(items),
                _ => None,
            });
        objects.push(object(root, vec![number], Vec::new(), items.is_some()));
        let place = position(root, "items").unwrap_or_default();
        for (index, item) in items.into_iter().flatten().enumerate() {
            let prefix = vec![Step::Key("items".to_owned()), Step::Index(index)];
            objects.push(object(item, vec![number, place, index], prefix, false));
        }
    }
    let mut count: HashMap<String, usize> = HashMap::new();
    for name in objects.iter().filter_map(|object| object.name.as_ref()) {
        *count.entry(name.clone()).or_default() += 1;
    }
    for object in &mut objects {
        if let Some(name) = object.name.as_ref().filter(|name| count[*name] == 1) {
            object.label.clone_from(name);
            object.prefix = Steps(Vec::new());
        }
    }
    objects
}

fn object_name(node: &Node) -> Option<String> {
    let (_, metadata) = node.fields("metadata").next()?;
    Some(format!(
        "{}/{}",
        text_at(node, "kind")?,
        text_at(metadata, "name")?
    ))
}

pub(crate) fn text_at<'a>(node: &'a Node, key: &'a str) -> Option<&'a str> {
    node.fields(key).next().and_then(|(_, value)| value.scalar())
}

/// The place of a key in a mapping.
pub(crate) fn position(node: &Node, key: &str) -> Option<usize> {
    match &node.kind {
        Kind::Mapping { entries, .. } => entries.iter().position(|(name, _)| name.scalar() == Some(key)),
        _ => None,
    }
}

impl Object<'_> {
    /// The steps to a node below this object, from what the label means. Items are named where a name is theirs alone.
    pub(crate) fn steps_to(&self, below: &[usize]) -> Steps {
        let mut steps = self.prefix.0.clone();
        let mut node = self.node;
        for index in below {
            match &node.kind {
                Kind::Mapping { entries, .. } => {
                    let key = entries.get(*index).and_then(|(key, _)| key.scalar());
                    steps.push(Step::Key(key.unwrap_or_default().to_owned()));
                }
                Kind::Sequence { items, .. } => {
                    let name = items.get(*index).and_then(|item| text_at(item, "name"));
                    let alone = |name: &&str| {
                        items
                            .iter()
                            .filter(|item| text_at(item, "name") == Some(name))
                            .count()
                            == 1
                    };
                    steps.push(match name.filter(alone) {
                        Some(name) => Step::Item {
                            key: "name".to_owned(),
                            value: name.to_owned(),
                        },
                        None => Step::Index(*index),
                    });
                }
                _ => {}
            }
            match node.child(*index) {
                Some(child) => node = child,
                None => break,
            }
        }
        Steps(steps)
    }

    /// The same steps from what the label means.
    pub(crate) fn full(&self, steps: &Steps) -> Steps {
        Steps(self.prefix.0.iter().chain(&steps.0).cloned().collect())
    }
}

/// The objects that `document` names: a number from 1, or `Kind/name`; all documents when it is empty.
///
/// # Errors
/// There is none.
pub(crate) fn named<'a>(objects: &[Object<'a>], document: &str) -> Result<Vec<Object<'a>>, Refusal> {
    let fits = |object: &&Object<'_>| {
        if document.is_empty() {
            return object.at.len() == 1;
        }
        match document.parse::<usize>() {
            Ok(number) => object.at.len() == 1 && object.at[0] + 1 == number,
            Err(_) => object.name.as_deref() == Some(document),
        }
    };
    let found: Vec<Object<'a>> = objects.iter().filter(fits).cloned().collect();
    if found.is_empty() {
        let there: Vec<&str> = objects
            .iter()
            .map(|object| object.name.as_ref().unwrap_or(&object.label).as_str())
            .collect();
        return Err(Refusal::ImageNotFound(match there.is_empty() {
            true => "the file is empty".to_owned(),
            false => format!("no document {document:?}; those that are there: {}", list(&there)),
        }));
    }
    Ok(found)
}

/// Where steps lead.
#[derive(Debug)]
pub(crate) enum Led<'a> {
    /// To this node. `below` is its path from the object.
    Node { below: Vec<usize>, node: &'a Node },
    /// As far as here, where there is no such key or item; `left` steps are not done.
    Missing {
        below: Vec<usize>,
        node: &'a Node,
        left: usize,
    },
}

/// Follows steps from an object. What an alias or `<<` supplies is refused: an edit of it would change other places.
///
/// # Errors
/// The way is not this value's alone.
pub(crate) fn follow<'a>(text: &'a Text<'_>, object: &Object<'a>, steps: &Steps) -> Result<Led<'a>, Refusal> {
    let mut node = object.node;
    let mut below = Vec::new();
    if let Some(root) = object.at.first().and_then(|number| text.stream.at(&[*number])) {
        unshared(text, root)?;
    }
    for (number, step) in steps.0.iter().enumerate() {
        unshared(text, node)?;
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
    unshared(text, node)?;
    Ok(Led::Node { below, node })
}

fn unshared(text: &Text<'_>, node: &Node) -> Result<(), Refusal> {
    if matches!(node.kind, Kind::Alias(_)) {
        return Err(refuse(
            node.line,
            "the value is an alias: edit it where its anchor stands, or write it out here",
        ));
    }
    if text.stream.points_to(node.anchor) {
        return Err(refuse(
            node.line,
            "an anchor stands here that an alias elsewhere uses: write the value out there first",
        ));
    }
    Ok(())
}

/// The place of the child that a step leads to.
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

/// That no `<<` of the mapping supplies the key.
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
    // What cannot be told is taken for a yes.
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

/// Names what a node has instead of what was asked for.
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

/// A value as it is written; none where nothing is.
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

/// A key that comes with its value, or an entry that goes.
type Moved = Option<(String, Scalar)>;

/// Edits of values of one text, gathered and then done and proven together.
#[derive(Debug)]
pub(crate) struct Changes<'t, 'a> {
    text: &'t Text<'a>,
    splices: Vec<Splice>,
    /// What is to stand where, by paths of the text before.
    set: Vec<(Vec<usize>, Scalar)>,
    /// Entries that go (none) or come, by mapping and the place that they have or are put behind. Last first.
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

    /// Sets the value at a path, and gives it as it is written then.
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

    /// Adds a key to the mapping at a path, behind the entry of that number.
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

    /// Takes a key out of the mapping at a path.
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

/// What the parser makes of a written scalar.
fn kind(scalar: &Scalar) -> Kind {
    let style = match scalar.written.as_bytes().first() {
        Some(b'\'') => Style::Single,
        Some(b'"') => Style::Double,
        _ => Style::Plain,
    };
    let value = match (style, scalar.written.as_str()) {
        // The parser's word for nothing.
        (Style::Plain, "") => "~".to_owned(),
        (Style::Plain, written) => written.to_owned(),
        _ => scalar.value.clone(),
    };
    Kind::Scalar { value, style }
}

/// The new text and the difference that an edit of values made.
pub(crate) fn done(
    text: String,
    file: &FilePath,
    mut values: Vec<ValueDifference>,
    before: Reference,
    after: Reference,
) -> (String, Difference) {
    // What changed comes first; what only belongs to the same image follows, so that undoing sees it changed.
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

impl RestoreValues {
    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let objects = objects(&text.stream);
        let mut changes = Changes::new(&text);
        let mut values = Vec::with_capacity(self.values.len());
        let mut now = Vec::with_capacity(self.values.len());
        for value in &self.values {
            let Spot { object, led, steps } = spot(&text, &objects, value)?;
            let (below, stands) = match &led {
                Led::Node { below, node } => match scalar(&text, node) {
                    Some(scalar) => (below, Some(scalar)),
                    None => {
                        return Err(refuse(
                            node.line,
                            format!("`{}` is no plain value any more", value.at),
                        ));
                    }
                },
                Led::Missing { below, left: 1, .. } => (below, None),
                Led::Missing { node, .. } => {
                    return Err(Refusal::ImageNotFound(format!(
                        "`{}` of {} is gone; {}",
                        value.at,
                        value.document,
                        what_is_there(node)
                    )));
                }
            };
            let means = |a: &Option<Scalar>, b: &Option<Scalar>| {
                a.as_ref().map(|a| a.value.as_str()) == b.as_ref().map(|b| b.value.as_str())
            };
            if !self.force && !means(&stands, &value.after) && !means(&stands, &value.before) {
                let shown = |scalar: &Option<Scalar>| {
                    scalar
                        .as_ref()
                        .map_or_else(|| "not there".to_owned(), |scalar| format!("{:?}", scalar.value))
                };
                return Err(Refusal::ChangedSince {
                    name: format!("`{}`", value.at),
                    now: shown(&stands),
                    written: shown(&value.after),
                });
            }
            let at: Vec<usize> = object.at.iter().chain(below).copied().collect();
            match (&stands, &value.before) {
                (Some(_), Some(before)) => {
                    changes.set(&at, &Field::Restore(before.clone()))?;
                }
                (Some(_), None) => {
                    if let Some((index, mapping)) = at.split_last() {
                        changes.remove(mapping, *index)?;
                    }
                }
                (None, Some(before)) => {
                    let (Some(Step::Key(key)), Some(mapping)) = (steps.0.last(), text.stream.at(&at)) else {
                        return Err(refuse(
                            1,
                            format!("`{}` is gone, and is no key that could be added", value.at),
                        ));
                    };
                    let behind = behind(mapping, key);
                    changes.insert(&at, behind, key, &Field::Restore(before.clone()))?;
                }
                (None, None) => {}
            }
            now.push(stands.clone());
            values.push(ValueDifference {
                before: stands,
                after: value.before.clone(),
                ..value.clone()
            });
        }
        let edited = changes.finish()?;
        let before = crate::slots::reference_of(&self.values, &now, &self.image);
        Ok(done(edited, &self.file, values, before, self.image.clone()))
    }
}

struct Spot<'a> {
    object: Object<'a>,
    led: Led<'a>,
    steps: Steps,
}

/// Where a recorded value is now.
fn spot<'a>(
    text: &'a Text<'_>,
    objects: &[Object<'a>],
    value: &ValueDifference,
) -> Result<Spot<'a>, Refusal> {
    let unreadable = |error: crate::InvalidEdit| Refusal::ImageNotFound(error.message);
    let steps = Steps::parse("at", &value.at).map_err(unreadable)?;
    let mut found = named(objects, &value.document)?;
    if found.len() > 1 {
        return Err(refuse(
            found[1].node.line,
            format!("{} stands in this file more than once now", value.document),
        ));
    }
    let object = found.remove(0);
    let led = follow(text, &object, &steps)?;
    Ok(Spot { object, led, steps })
}

/// The entry of an image's mapping behind which a key is put: the last of those that come before it.
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
