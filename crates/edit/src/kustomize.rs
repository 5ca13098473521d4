//! The edits of a kustomization's `images`: done as a splice of the text, and proven.

use serde::{Deserialize, Serialize};

use crate::{
    InvalidEdit, Refusal, Source, bases,
    difference::{Difference, Exact, RestoreImage, ValueDifference},
    entry::{Entry, FIELDS},
    image::NewImage,
    images,
    kustomization::{self, Edited, EntryChange, entries, entry, find, root},
    layout::{Field, Text, refuse},
    objects::{address, objects, position},
    path::{FilePath, Folder},
    pattern,
    splice::Plan,
    steps::{Step, Steps},
    values::{Changes, Led, Sharing, difference, done, follow, scalar},
    yaml::{self, Kind, Node, Stream},
};

/// Sets an entry of `images`; if there is none and what the kustomization builds on uses the image, adds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KustomizeImage {
    pub path: Folder,
    /// The entry's `name`: the image name in the manifests.
    pub name: String,
    #[serde(flatten)]
    pub to: NewImage,
    /// Also changes the other places that show the same value by an anchor. Without it that is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shared: bool,
}

impl KustomizeImage {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(path: &str, name: &str, to: NewImage) -> Result<Self, InvalidEdit> {
        if name.is_empty() || name.len() > 512 || name.contains(char::is_control) {
            return Err(InvalidEdit::new(
                "name",
                "give the image's name as the manifests have it, up to 512 characters",
            ));
        }
        Ok(Self {
            path: path.parse()?,
            name: name.to_owned(),
            to,
            allow_shared: false,
        })
    }

    /// What the entry is to hold.
    pub(crate) fn wanted(&self) -> EntryChange {
        let field = |value: Option<String>, remove: bool| match value {
            Some(value) => Field::Set(value),
            None if remove => Field::Remove,
            None => Field::Keep,
        };
        let to = self.to.clone();
        let either = to.new_tag.is_some() || to.digest.is_some();
        EntryChange {
            new_name: field(to.new_name.map(String::from), false),
            new_tag: field(to.new_tag.map(String::from), either),
            digest: field(to.digest.map(String::from), either),
        }
    }

    /// Sets the entry in a kustomization with this text, or adds it when what the kustomization builds on uses the
    /// image.
    pub(crate) fn apply<S: Source>(
        &self,
        file: &FilePath,
        whole: &str,
        source: &S,
    ) -> Result<Result<(String, Difference), Refusal>, S::Error> {
        let none = match Text::read(whole) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(text) => match self.set(file, &text) {
                Err(Refusal::ImageNotFound(none)) => (none, text),
                done => return Ok(done),
            },
        };
        let (none, text) = none;
        let Ok(Some(root)) = root(&text.stream) else {
            return Ok(Err(Refusal::ImageNotFound(none)));
        };
        let used = bases::used(&self.path, root, source)?;
        // What a component applies to is known to the kustomizations that include it.
        let is_used = used.names.iter().any(|image| pattern::matches(&self.name, image));
        if !is_used && !used.is_component {
            return Ok(Err(Refusal::ImageNotFound(format!(
                "{none}; {}",
                used.without(&self.name)
            ))));
        }
        let done = images::add(&text, &self.name, &self.wanted(), &used);
        Ok(done.map(|done| done.of(&text).at(&self.path)))
    }

    /// Sets the entry that is there.
    fn set(&self, file: &FilePath, text: &Text<'_>) -> Result<(String, Difference), Refusal> {
        let wanted = self.wanted();
        let (index, node) = find(&text.stream, &self.name)?;
        let is_shared = |(key, wanted): (&str, &Field)| {
            let value = node.fields(key).next().map(|(_, value)| value);
            *wanted != Field::Keep
                && value.is_some_and(|value| {
                    matches!(value.kind, Kind::Alias(_)) || text.stream.points_to(value.anchor)
                })
        };
        if FIELDS.into_iter().zip(wanted.fields()).any(is_shared) {
            return self.set_shared(file, text, index);
        }
        let done = set_image(text, &self.name, &wanted)?;
        Ok(done.of(text).at(&self.path))
    }

    /// Sets the entry at an index where an anchor or an alias stands among its fields.
    fn set_shared(
        &self,
        file: &FilePath,
        text: &Text<'_>,
        index: usize,
    ) -> Result<(String, Difference), Refusal> {
        let sharing = match self.allow_shared {
            true => Sharing::Allowed,
            false => Sharing::Refused,
        };
        let mut changes = Changes::new(text, sharing);
        let (_, node) = find(&text.stream, &self.name)?;
        let before = entry(text.text, &text.stream, node, &self.name)?;
        let cannot = |line| refuse(line, "the entry of the image cannot be found again");
        let all = objects(&text.stream);
        let object = all.first().ok_or_else(|| cannot(node.line))?;
        let path = Steps(vec![Step::Key("images".to_owned()), Step::Index(index)]);
        let Led::Node(entry) = follow(text, object, &path)? else {
            return Err(cannot(node.line));
        };
        let (mut values, mut after) = (Vec::new(), before.clone());
        let wanted = self.wanted();
        for (number, (key, wanted)) in FIELDS.into_iter().zip(wanted.fields()).enumerate() {
            let field = entry.field(text, key)?;
            let stands = field.as_ref().and_then(|field| scalar(text, field.node));
            let (at, now) = match (wanted, &field) {
                (Field::Keep, _) | (Field::Remove, None) => continue,
                (Field::Remove, Some(field)) => {
                    let own = entry.node.fields(key).next().map(|(_, value)| value);
                    if own.is_none_or(|own| own.scalar().is_none() || text.stream.points_to(own.anchor)) {
                        return Err(refuse(
                            field.node.line,
                            format!("`{key}` is shared by an anchor and must be removed: remove it by hand"),
                        ));
                    }
                    let index = position(entry.node, key).unwrap_or_default();
                    changes.remove(&entry.at, index)?;
                    (field.at.clone(), None)
                }
                (wanted, Some(field)) => {
                    changes.named.insert(field.seen.clone());
                    (field.at.clone(), changes.set(&field.at, wanted)?)
                }
                (wanted, None) => {
                    let behind = ["newTag", "newName", "name"]
                        .iter()
                        .find_map(|key| position(entry.node, key))
                        .unwrap_or_default();
                    let mut seen = entry.seen.clone();
                    seen.steps.push(Step::Key(key.to_owned()));
                    changes.named.insert(seen);
                    let now = changes.insert(&entry.at, behind, key, wanted)?;
                    let (document, steps) = address(&text.stream, &entry.at);
                    values.push(ValueDifference {
                        document,
                        at: steps.with(key).to_string(),
                        before: None,
                        after: now.clone(),
                    });
                    after.set(number, now);
                    continue;
                }
            };
            let (document, steps) = address(&text.stream, &at);
            values.push(ValueDifference {
                document,
                at: steps.to_string(),
                before: stands,
                after: now.clone(),
            });
            after.set(number, now);
        }
        let shared_with = std::mem::take(&mut changes.shared_with);
        let edited = changes.finish()?;
        let difference = difference(file, values, before.image(), after.image(), shared_with);
        Ok(done(edited, difference))
    }
}

impl RestoreImage {
    pub(crate) fn apply(&self, whole: &str) -> Result<Edited, Refusal> {
        let text = Text::read(whole)?;
        let name = &self.entry.name;
        let now = entries(&text)?.into_iter().find(|(_, entry)| entry.name == *name);
        let changed = |now: String, written: &Entry| Refusal::ChangedSince {
            name: format!("image {name}"),
            now,
            written: written.to_string(),
        };
        // An entry that is already gone is what removing it wants, and what adding it again expects.
        let meant = |entry: &Entry| entry.means(&self.entry) && !self.remove;
        match (&now, &self.written) {
            (Some((_, now)), Some(written)) if (self.add || !now.means(written)) && !meant(now) => {
                return Err(changed(now.to_string(), written));
            }
            _ => {}
        }
        let mut wanted = EntryChange::standing(&self.entry);
        if let Some((_, now)) = &now {
            wanted.keep_absent(now);
        }
        let done = match now {
            None if self.remove => Edited::unchanged(&text, &Entry::named(name)),
            None if self.add => images::add(&text, name, &wanted, &bases::Used::default())?,
            Some(_) if self.remove => images::remove(&text, name, self.exact.as_deref())?,
            now => {
                let exact = self.exact.as_deref();
                match exact.and_then(|exact| set_exactly(&text, &self.entry, &wanted, exact)) {
                    Some(done) => done,
                    // A field without a value may stay where it is.
                    None if now.is_some_and(|(_, now)| now == self.entry) => {
                        Edited::unchanged(&text, &self.entry)
                    }
                    None => set_image(&text, name, &wanted)?,
                }
            }
        };
        Ok(done.of(&text))
    }
}

/// Sets the fields of the entry `name` of `images`, and touches nothing else.
///
/// # Errors
/// The image is not there, or the edit cannot be done without touching something else.
fn set_image(text: &Text<'_>, name: &str, wanted: &EntryChange) -> Result<Edited, Refusal> {
    let (index, node) = find(&text.stream, name)?;
    let before = entry(text.text, &text.stream, node, name)?;
    let mut plan = Plan::new(text, node, wanted)?;
    if plan.splices.is_empty() {
        return Ok(Edited::unchanged(text, &before));
    }
    let edited = text.splice(&mut plan.splices);
    let after = verify(&text.stream, &edited, index, &before, wanted, node.line)?;
    let exact = if plan.reshaped {
        let (first, last) = (plan.splices.first(), plan.splices.last());
        let start = first.map_or(node.span.start, |(range, _)| range.start.min(node.span.start));
        let (end, _) = text.line_end(last.map_or(start, |(range, _)| range.end).max(node.span.start));
        // The first key may be another one now.
        entry_start(&edited, name).map(|entry| {
            let lead = entry.saturating_sub(start);
            Box::new(Exact::between(text.text, &edited, start..end, lead))
        })
    } else {
        None
    };
    Ok(Edited {
        text: edited,
        before,
        after,
        added: false,
        removed: false,
        exact,
    })
}

/// Where the first key of an entry is.
fn entry_start(text: &str, name: &str) -> Option<usize> {
    let stream = Text::read(text).ok()?.stream;
    find(&stream, name).ok().map(|(_, node)| node.span.start)
}

/// Puts the original bytes of an entry back, if those that one of our edits wrote are still there.
fn set_exactly(text: &Text<'_>, entry: &Entry, wanted: &EntryChange, exact: &Exact) -> Option<Edited> {
    let (index, node) = find(&text.stream, &entry.name).ok()?;
    let before = self::entry(text.text, &text.stream, node, &entry.name).ok()?;
    let edited = exact.put_back(text, node.span.start)?;
    let after = verify(&text.stream, &edited, index, &before, wanted, node.line).ok()?;
    let start = node.span.start - exact.lead;
    let lead = entry_start(&edited, &entry.name)?.saturating_sub(start);
    Some(Edited {
        text: edited,
        before,
        after,
        added: false,
        removed: false,
        exact: Some(Box::new(Exact {
            lead,
            ..exact.turned()
        })),
    })
}

/// Reads the edited text and compares: only the intended fields may differ, and only as intended.
fn verify(
    before: &Stream,
    edited: &str,
    index: usize,
    stood: &Entry,
    wanted: &EntryChange,
    line: usize,
) -> Result<Entry, Refusal> {
    let differs = |what: &str| refuse(line, format!("the edit would have changed {what}"));
    let after = yaml::parse(edited).map_err(|_| differs("the file into invalid YAML"))?;
    if after.comments != before.comments {
        return Err(differs("a comment"));
    }
    let (Some(old_root), Some(new_root)) = (root(before)?, root(&after)?) else {
        return Err(differs("the document"));
    };
    let (old, new) = (kustomization::images(old_root)?, kustomization::images(new_root)?);
    if !same_but(&before.documents, &after.documents, old, new, index) {
        return Err(differs("something else"));
    }
    let stands = entry(edited, &after, &new[index], &stood.name)?;
    for (number, wanted) in wanted.fields().into_iter().enumerate() {
        let expected = match wanted {
            Field::Keep => stood.get(number).map(|scalar| scalar.value.as_str()),
            Field::Remove => None,
            Field::Set(value) => Some(value.as_str()),
            Field::Restore(scalar) => Some(scalar.value.as_str()),
        };
        if stands.get(number).map(|scalar| scalar.value.as_str()) != expected {
            return Err(differs("the value into another one"));
        }
    }
    Ok(stands)
}

/// Whether the streams are the same except for our fields of entry `index` of `images`.
fn same_but(
    before: &[(bool, Option<Node>)],
    after: &[(bool, Option<Node>)],
    old: &[Node],
    new: &[Node],
    index: usize,
) -> bool {
    let rest = |node: &Node| -> Option<Vec<(Node, Node)>> {
        let Kind::Mapping { entries, .. } = &node.kind else {
            return None;
        };
        let ours = |key: &Node| key.scalar().is_some_and(|key| FIELDS.contains(&key));
        Some(entries.iter().filter(|(key, _)| !ours(key)).cloned().collect())
    };
    let shape = |node: &Node| match &node.kind {
        Kind::Mapping { flow, .. } => (Some(*flow), node.anchor, node.tag.clone()),
        _ => (None, node.anchor, node.tag.clone()),
    };
    let items = old.len() == new.len()
        && old.iter().zip(new).enumerate().all(|(at, (old, new))| {
            if at == index {
                shape(old) == shape(new) && rest(old) == rest(new)
            } else {
                old == new
            }
        });
    items
        && before.len() == after.len()
        && before.iter().zip(after).all(|((marked, old), (marks, new))| {
            marked == marks
                && match (old, new) {
                    (Some(old), Some(new)) => same_root(old, new),
                    (old, new) => old == new,
                }
        })
}

/// Whether the roots are the same except for the items of `images`, which are compared separately.
fn same_root(old: &Node, new: &Node) -> bool {
    let (
        Kind::Mapping {
            flow: old_flow,
            entries: olds,
        },
        Kind::Mapping {
            flow: new_flow,
            entries: news,
        },
    ) = (&old.kind, &new.kind)
    else {
        return old == new;
    };
    let images = |old: &Node, new: &Node| {
        matches!((&old.kind, &new.kind), (Kind::Sequence { flow: a, .. }, Kind::Sequence { flow: b, .. }) if a == b)
            && old.anchor == new.anchor
            && old.tag == new.tag
    };
    old_flow == new_flow
        && old.anchor == new.anchor
        && old.tag == new.tag
        && olds.len() == news.len()
        && olds.iter().zip(news).all(|((old_key, old), (new_key, new))| {
            old_key == new_key
                && if old_key.scalar() == Some("images") {
                    images(old, new)
                } else {
                    old == new
                }
        })
}
