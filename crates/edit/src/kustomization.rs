//! The `images` of a kustomization as written in its text: the entries, the intended change to one, and what an edit
//! did.

use crate::{
    Refusal,
    difference::{Difference, EntryDifference, Exact},
    entry::{Entry, FIELDS, Scalar},
    layout::{Field, Text, list, refuse},
    path::Folder,
    pattern,
    yaml::{Kind, Node, Stream},
};

/// The intended change to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryChange {
    pub(crate) new_name: Field,
    pub(crate) new_tag: Field,
    pub(crate) digest: Field,
}

impl EntryChange {
    /// In the order of [`FIELDS`].
    pub(crate) fn fields(&self) -> [&Field; 3] {
        [&self.new_name, &self.new_tag, &self.digest]
    }

    /// All as they are in an entry.
    pub(crate) fn standing(entry: &Entry) -> Self {
        let field = |scalar: &Option<Scalar>| match scalar {
            Some(scalar) => Field::Restore(scalar.clone()),
            None => Field::Remove,
        };
        Self {
            new_name: field(&entry.new_name),
            new_tag: field(&entry.new_tag),
            digest: field(&entry.digest),
        }
    }

    /// A field to be removed that has no value now stays: it may be written as null.
    pub(crate) fn keep_absent(&mut self, now: &Entry) {
        for (field, now) in [
            (&mut self.new_name, &now.new_name),
            (&mut self.new_tag, &now.new_tag),
            (&mut self.digest, &now.digest),
        ] {
            if *field == Field::Remove && now.is_none() {
                *field = Field::Keep;
            }
        }
    }

    /// The values that an added entry has.
    pub(crate) fn values(&self) -> [Option<&str>; 3] {
        self.fields().map(|field| match field {
            Field::Set(value) => Some(value.as_str()),
            Field::Restore(scalar) if !scalar.written.is_empty() => Some(scalar.value.as_str()),
            _ => None,
        })
    }
}

/// An edit that was done, and where it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The whole text. Equal to the old text when nothing had to be changed.
    pub(crate) text: String,
    pub(crate) before: Entry,
    pub(crate) after: Entry,
    pub(crate) added: bool,
    pub(crate) removed: bool,
    pub(crate) exact: Option<Box<Exact>>,
}

impl Edited {
    pub(crate) fn unchanged(text: &Text<'_>, entry: &Entry) -> Self {
        Self {
            text: text.text.to_owned(),
            before: entry.clone(),
            after: entry.clone(),
            added: false,
            removed: false,
            exact: None,
        }
    }

    /// The file's new text and the difference, for the kustomization of a folder.
    pub(crate) fn at(self, folder: &Folder) -> (String, Difference) {
        let difference = EntryDifference {
            path: folder.clone(),
            before: self.before,
            after: self.after,
            added: self.added,
            removed: self.removed,
            exact: self.exact,
        };
        (self.text, Difference::Entry(difference))
    }

    pub(crate) fn of(self, text: &Text<'_>) -> Edited {
        Edited {
            text: text.whole(&self.text),
            ..self
        }
    }
}

/// The entries of `images` and their nodes, in order. Empty if there is no such key.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn entries<'a>(text: &'a Text<'_>) -> Result<Vec<(&'a Node, Entry)>, Refusal> {
    let Some(root) = root(&text.stream)? else {
        return Ok(Vec::new());
    };
    images(root)?
        .iter()
        .filter_map(|node| {
            let name = name_of(node)?;
            Some(entry(text.text, &text.stream, node, name).map(|entry| (node, entry)))
        })
        .collect()
}

/// The one document's mapping.
pub(crate) fn root(stream: &Stream) -> Result<Option<&Node>, Refusal> {
    let mut roots = stream.documents.iter().filter_map(|(_, root)| root.as_ref());
    let Some(root) = roots.next() else {
        return Ok(None);
    };
    if let Some(second) = roots.next() {
        return Err(refuse(
            second.line,
            "a second document begins here, and kustomize reads only one",
        ));
    }
    match root.kind {
        Kind::Mapping { .. } => Ok(Some(root)),
        _ => Err(refuse(root.line, "a kustomization is a mapping")),
    }
}

/// The items of `images`.
pub(crate) fn images(root: &Node) -> Result<&[Node], Refusal> {
    let mut found = root.fields("images");
    let Some((_, images)) = found.next() else {
        return Ok(&[]);
    };
    if let Some((second, _)) = found.next() {
        return Err(refuse(second.line, "`images` appears here a second time"));
    }
    match &images.kind {
        Kind::Sequence { items, .. } => Ok(items),
        _ if images.is_null() => Ok(&[]),
        Kind::Alias(_) => Err(refuse(images.line, "`images` is an alias")),
        _ => Err(refuse(images.line, "`images` is not a list")),
    }
}

/// The error naming what is there instead.
fn image_not_found(name: &str, present: &[String]) -> String {
    if present.is_empty() {
        return format!("no image {name:?} in `images`, which has no entries");
    }
    format!(
        "no image {name:?} in `images`; the names there: {}",
        list(present)
    )
}

/// The text of a value; of an alias, that of its anchor.
fn meant<'a>(stream: &'a Stream, value: &'a Node) -> Option<&'a str> {
    match value.kind {
        Kind::Alias(anchor) => stream.anchored(anchor).and_then(Node::scalar),
        _ => value.scalar(),
    }
}

pub(crate) fn name_of(node: &Node) -> Option<&str> {
    node.fields("name").next().and_then(|(_, value)| value.scalar())
}

/// The entry that `name` in the manifests refers to, and its position in the list.
pub(crate) fn find<'a>(stream: &'a Stream, name: &str) -> Result<(usize, &'a Node), Refusal> {
    let none = |present: Vec<String>| Refusal::ImageNotFound(image_not_found(name, &present));
    let Some(root) = root(stream)? else {
        return Err(none(Vec::new()));
    };
    let items = images(root)?;
    let mut matching = items
        .iter()
        .enumerate()
        .filter(|(_, node)| name_of(node) == Some(name));
    let Some((index, node)) = matching.next() else {
        return Err(none(
            items.iter().filter_map(name_of).map(str::to_owned).collect(),
        ));
    };
    if let Some((_, second)) = matching.next() {
        return Err(refuse(
            second.line,
            format!("image {name:?} is listed at line {} and again here", node.line),
        ));
    }
    let clash = |other: &&Node| {
        name_of(other).is_some_and(|pattern| pattern != name && pattern::matches(pattern, name))
    };
    if let Some(other) = items.iter().find(clash) {
        return Err(refuse(
            other.line,
            format!(
                "`name: {}` matches image {name:?} too, which is listed at line {}: let one entry set it",
                name_of(other).unwrap_or_default(),
                node.line
            ),
        ));
    }
    is_ours_alone(stream, root, Some(node))?;
    Ok((index, node))
}

/// Checks that no alias elsewhere would change along with ours.
pub(crate) fn is_ours_alone(stream: &Stream, root: &Node, entry: Option<&Node>) -> Result<(), Refusal> {
    let images = root.fields("images").next().map(|(_, value)| value);
    for shared in [Some(root), images, entry].into_iter().flatten() {
        if stream.points_to(shared.anchor) {
            return Err(refuse(
                shared.line,
                "there is an anchor here that an alias elsewhere uses: write the entry out there first",
            ));
        }
    }
    Ok(())
}

/// The field's key and value, when the entry has it exactly once.
fn field<'a>(node: &'a Node, key: &'static str) -> Result<Option<&'a (Node, Node)>, Refusal> {
    let mut found = node.fields(key);
    let first = found.next();
    match found.next() {
        Some((second, _)) => Err(refuse(second.line, format!("`{key}` appears here a second time"))),
        None => Ok(first),
    }
}

pub(crate) fn entry(text: &str, stream: &Stream, node: &Node, name: &str) -> Result<Entry, Refusal> {
    if let Some((key, _)) = node.fields("<<").next() {
        return Err(refuse(
            key.line,
            "the entry takes fields over from an alias (`<<`)",
        ));
    }
    field(node, "name")?;
    let scalar = |key: &'static str| -> Result<Option<Scalar>, Refusal> {
        match field(node, key)? {
            Some((_, value)) if value.is_null() => Ok(None),
            Some((_, value)) => match meant(stream, value) {
                Some(scalar) => Ok(Some(Scalar {
                    value: scalar.to_owned(),
                    written: text[value.span.clone()].to_owned(),
                })),
                None => Err(refuse(value.line, format!("`{key}` is not a plain value"))),
            },
            None => Ok(None),
        }
    };
    Ok(Entry {
        name: name.to_owned(),
        new_name: scalar(FIELDS[0])?,
        new_tag: scalar(FIELDS[1])?,
        digest: scalar(FIELDS[2])?,
    })
}
