//! An image that is added to a file which names none yet.

use crate::{
    Refusal,
    difference::{Added, Exact, ValueDifference},
    entry::Scalar,
    image::{NewImage, Reference},
    layout::{Splice, Text, refuse, written},
    naming::{Naming, Part},
    objects::{named, objects},
    sharing::Spot,
    slot::last_part,
    steps::{Step, Steps},
    values::{Changes, Led, follow, key_node, kind},
    yaml::{Kind, Node},
};

/// The keys of a new image, and the mapping that is to hold them.
#[derive(Debug)]
pub(crate) struct NewKeys {
    mapping: Steps,
    keys: Vec<(String, Scalar)>,
    line: usize,
}

impl NewKeys {
    /// What an edit adds at a path where nothing stands yet.
    ///
    /// # Errors
    /// The path and the parts do not tell which keys to write.
    pub(crate) fn of(steps: &Steps, to: &NewImage) -> Result<Self, Refusal> {
        let none = |reason: &str| refuse(1, reason);
        let version = match (&to.new_tag, &to.digest) {
            (None, None) => None,
            (Some(tag), None) => Some(tag.to_string()),
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (None, Some(_)) => {
                return Err(none(
                    "which key the chart has for a digest is not known, so it is written after the tag: give the tag too",
                ));
            }
        };
        let (mapping, naming, tag_key) = match last_part(&steps.0) {
            Some((Part::Tag, naming)) => {
                let parent = Steps(steps.0[..steps.0.len() - 1].to_vec());
                let key = match steps.0.last() {
                    Some(Step::Key(key)) => key.clone(),
                    _ => naming.key("tag"),
                };
                (parent, naming, key)
            }
            Some(_) => {
                return Err(none(
                    "end the path in the key of an image or of its tag, to add it",
                ));
            }
            None => (steps.clone(), Naming::plain(), "tag".to_owned()),
        };
        if to.new_name.is_some() && !naming.prefix.is_empty() {
            return Err(none(
                "which key the chart has for the image's name is not known: leave the name out, or add it by hand",
            ));
        }
        let scalar = |value: String| Scalar {
            written: written(&value),
            value,
        };
        let name = to.new_name.as_ref().map(ToString::to_string);
        let keys = [(naming.key("repository"), name), (tag_key, version)];
        Ok(Self {
            mapping,
            keys: keys
                .into_iter()
                .filter_map(|(key, value)| Some((key, scalar(value?))))
                .collect(),
            line: 1,
        })
    }

    /// Keys that were there before.
    pub(crate) fn again(values: &[ValueDifference]) -> Result<Self, Refusal> {
        let gone = |at: &str| refuse(1, format!("`{at}` is not a key that could be added"));
        let (mut mapping, mut keys) = (Steps(Vec::new()), Vec::new());
        for value in values {
            let steps = Steps::recorded(&value.at).map_err(|_| gone(&value.at))?;
            let (Some((Step::Key(key), above)), Some(scalar)) = (steps.0.split_last(), &value.before) else {
                return Err(gone(&value.at));
            };
            mapping = Steps(above.to_vec());
            keys.push((key.clone(), scalar.clone()));
        }
        Ok(Self {
            mapping,
            keys,
            line: 1,
        })
    }

    /// The image that the keys name.
    pub(crate) fn reference(&self) -> Reference {
        let mut parts = crate::naming::PartValues::default();
        for (key, scalar) in &self.keys {
            match Naming::of(key) {
                Some((_, Part::Tag, _)) => parts.tag.clone_from(&scalar.value),
                _ => parts.name.clone_from(&scalar.value),
            }
        }
        parts.reference()
    }

    /// Adds the keys to a text, in its style.
    ///
    /// # Errors
    /// Something else stands where they are to go.
    pub(crate) fn add(
        mut self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
        document: &str,
    ) -> Result<(Vec<ValueDifference>, Added), Refusal> {
        let all = objects(&text.stream);
        if all.is_empty() && matches!(document, "" | "1") {
            return self.add_to_nothing(text, changes);
        }
        let object = match named(&all, document)?.as_slice() {
            [one] => one.clone(),
            _ => {
                return Err(refuse(
                    1,
                    "the file has several documents: name the one to add the image to by `document`",
                ));
            }
        };
        let (spot, left) = match follow(text, &object, &self.mapping)? {
            Led::Node(spot) => (spot, 0),
            Led::Missing { spot, left } => (spot, left),
            Led::Embedded { spot, .. } => {
                return Err(refuse(
                    spot.node.line,
                    "there is a text where the image is to be added",
                ));
            }
        };
        self.line = spot.node.line;
        let taken = self.mapping.0.len() - left;
        let mut missing = Vec::new();
        for step in &self.mapping.0[taken..] {
            match step {
                Step::Key(key) => missing.push(key.clone()),
                _ => {
                    return Err(Refusal::ImageNotFound(format!(
                        "no `{}` is there, and only keys can be added, not the items of a list",
                        Steps(vec![step.clone()])
                    )));
                }
            }
        }
        let first = missing.first().or(self.keys.first().map(|(key, _)| key));
        let first = first.cloned().unwrap_or_default();
        let mut seen = spot.seen.clone();
        for (key, _) in &self.keys {
            let mut seen = seen.clone();
            let below = missing.iter().chain([key]);
            seen.steps.extend(below.cloned().map(Step::Key));
            changes.named.insert(seen);
        }
        seen.steps.push(Step::Key(first.clone()));
        changes.named.insert(seen);
        changes.named.insert(spot.seen.clone());
        let above = Steps(self.mapping.0[..taken].to_vec());
        let exact = match &spot.node.kind {
            Kind::Mapping { entries, .. } if !spot.node.is_template() && !entries.is_empty() => {
                self.behind_entries(text, changes, &spot, entries, &missing)?
            }
            Kind::Mapping { flow: true, .. } if !spot.node.is_template() => {
                self.inside_brackets(text, changes, &spot, &missing)?
            }
            _ if spot.node.is_null() => self.below_key(text, changes, &spot, &missing)?,
            _ => {
                return Err(refuse(
                    spot.node.line,
                    format!("`{above}` is not a mapping, so an image cannot be added there"),
                ));
            }
        };
        let at = object.full(&above.with(&first)).to_string();
        let is_filled = spot.node.is_null()
            || matches!(&spot.node.kind, Kind::Mapping { entries, .. } if entries.is_empty());
        let at = match is_filled && !above.0.is_empty() {
            true => object.full(&above).to_string(),
            false => at,
        };
        Ok((
            self.values(&object.label, |steps| object.full(steps)),
            Added { at, exact },
        ))
    }

    fn values(&self, document: &str, full: impl Fn(&Steps) -> Steps) -> Vec<ValueDifference> {
        self.keys
            .iter()
            .map(|(key, scalar)| ValueDifference {
                document: document.to_owned(),
                at: full(&self.mapping.with(key)).to_string(),
                before: None,
                after: Some(scalar.clone()),
            })
            .collect()
    }

    /// The keys below those that are missing as well, as lines behind each other.
    fn lines(&self, missing: &[String], indent: usize, step: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for (depth, key) in missing.iter().enumerate() {
            lines.push(format!("{}{}:", " ".repeat(indent + depth * step), written(key)));
        }
        let indent = " ".repeat(indent + missing.len() * step);
        for (key, scalar) in &self.keys {
            lines.push(
                format!("{indent}{}: {}", written(key), scalar.written)
                    .trim_end()
                    .to_owned(),
            );
        }
        lines
    }

    /// The same in one line, with brackets around the keys of each mapping but the outermost.
    fn flow(&self, missing: &[String]) -> String {
        let keys: Vec<String> = self
            .keys
            .iter()
            .map(|(key, scalar)| format!("{}: {}", written(key), scalar.written))
            .collect();
        let inner = keys.join(", ");
        missing
            .iter()
            .rev()
            .fold(inner, |inner, key| format!("{}: {{{inner}}}", written(key)))
    }

    /// What the added text is read as.
    fn nodes(&self, missing: &[String], flow: bool) -> Vec<(Node, Node)> {
        let keys = self
            .keys
            .iter()
            .map(|(key, scalar)| (key_node(key), Node::unplaced(kind(scalar))))
            .collect();
        missing.iter().rev().fold(keys, |entries, key| {
            vec![(key_node(key), Node::unplaced(Kind::Mapping { flow, entries }))]
        })
    }

    fn behind_entries(
        &self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
        spot: &Spot<'_>,
        entries: &[(Node, Node)],
        missing: &[String],
    ) -> Result<Exact, Refusal> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(refuse(self.line, "the mapping is empty"));
        };
        let is_flow = matches!(spot.node.kind, Kind::Mapping { flow: true, .. });
        let (splice, lead) = if is_flow {
            let end = text.end_of_entry(&last.0, &last.1)?;
            ((end..end, format!(", {}", self.flow(missing))), 2)
        } else {
            let (end, eol) = match spot.at.len() {
                1 => text.end_of_root(last)?,
                _ => text.line_end(text.end_of_entry(&last.0, &last.1)?),
            };
            let indent = text.column(first.0.span.start);
            let lines = self.lines(missing, indent, step_of(text));
            let with: String = lines.iter().map(|line| format!("{eol}{line}")).collect();
            ((end..end, with), eol.len() + indent)
        };
        let exact = exact(text, &splice, lead);
        changes.append(&spot.at, self.nodes(missing, is_flow), splice)?;
        Ok(exact)
    }

    /// Into `{}`.
    fn inside_brackets(
        &self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
        spot: &Spot<'_>,
        missing: &[String],
    ) -> Result<Exact, Refusal> {
        let inside = spot.node.span.start + 1..spot.node.span.end - 1;
        if text.has_comment(&inside) {
            return Err(refuse(
                spot.node.line,
                "there is a comment in the empty brackets: remove the brackets first",
            ));
        }
        let splice = (inside, self.flow(missing));
        let exact = match key_at(text, &spot.at) {
            Some((key, _)) => exact_from(text, key.span.start, &splice),
            None => exact(text, &splice, 0),
        };
        let entries = self.nodes(missing, true);
        changes.put(&spot.at, Kind::Mapping { flow: true, entries }, splice)?;
        Ok(exact)
    }

    /// Below a key that has no value.
    fn below_key(
        &self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
        spot: &Spot<'_>,
        missing: &[String],
    ) -> Result<Exact, Refusal> {
        let value = spot.node;
        let Some((key, is_flow)) = key_at(text, &spot.at) else {
            return Err(refuse(value.line, "there is no key here to add an image below"));
        };
        if value.anchor != 0 || value.tag.is_some() {
            return Err(refuse(
                value.line,
                "the empty value has an anchor or a tag: remove that first",
            ));
        }
        let colon = text.colon(key)?;
        let end = value.span.end.max(colon);
        let (line_end, eol) = text.line_end(end);
        let splice = if is_flow {
            (colon..end, format!(" {{{}}}", self.flow(missing)))
        } else if end > colon && text.text[end..line_end].trim().is_empty() {
            (colon..line_end, self.below(text, key, missing, eol))
        } else if end > colon {
            return Err(refuse(
                value.line,
                "the empty value is followed by a comment: remove the comment first",
            ));
        } else {
            (line_end..line_end, self.below(text, key, missing, eol))
        };
        let exact = exact_from(text, key.span.start, &splice);
        let entries = self.nodes(missing, is_flow);
        changes.put(
            &spot.at,
            Kind::Mapping {
                flow: is_flow,
                entries,
            },
            splice,
        )?;
        Ok(exact)
    }

    fn below(&self, text: &Text<'_>, key: &Node, missing: &[String], eol: &str) -> String {
        let step = step_of(text);
        let lines = self.lines(missing, text.column(key.span.start) + step, step);
        lines.iter().map(|line| format!("{eol}{line}")).collect()
    }

    /// Into a document in which nothing is written.
    fn add_to_nothing(
        &self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
    ) -> Result<(Vec<ValueDifference>, Added), Refusal> {
        if text.stream.documents.len() > 1 {
            return Err(refuse(
                1,
                "the file has several documents, and all of them are empty",
            ));
        }
        let mut missing = Vec::new();
        for step in &self.mapping.0 {
            match step {
                Step::Key(key) => missing.push(key.clone()),
                _ => return Err(Refusal::ImageNotFound("the file is empty".to_owned())),
            }
        }
        let eol = text.line_break();
        let lines = self.lines(&missing, 0, 2).join(eol);
        let marker = text.text.lines().any(|line| line.starts_with("..."));
        if marker {
            return Err(refuse(
                1,
                "the empty document is ended by `...`: remove that first",
            ));
        }
        let end = text.text.len();
        let is_ended = text.text.is_empty() || text.text.ends_with('\n');
        let (with, lead) = match is_ended {
            true => (format!("{lines}{eol}"), 0),
            false => (format!("{eol}{lines}"), eol.len()),
        };
        let splice = (end..end, with);
        let exact = exact(text, &splice, lead);
        let entries = self.nodes(&missing, false);
        let root = Node::unplaced(Kind::Mapping { flow: false, entries });
        changes.put_root(0, Some(root), splice);
        let first = missing.first().or(self.keys.first().map(|(key, _)| key));
        let at = Steps(vec![Step::Key(first.cloned().unwrap_or_default())]).to_string();
        Ok((self.values("1", Clone::clone), Added { at, exact }))
    }
}

/// The key whose value is at a path, and whether its mapping is written in brackets.
pub(crate) fn key_at<'a>(text: &'a Text<'_>, at: &[usize]) -> Option<(&'a Node, bool)> {
    let (last, parent) = at.split_last()?;
    match &text.stream.at(parent)?.kind {
        Kind::Mapping { flow, entries } => entries.get(*last).map(|(key, _)| (key, *flow)),
        _ => None,
    }
}

/// How far the file indents a mapping below its key: as the first one is.
fn step_of(text: &Text<'_>) -> usize {
    fn first(text: &Text<'_>, node: &Node) -> Option<usize> {
        match &node.kind {
            Kind::Mapping { flow: false, entries } => entries.iter().find_map(|(key, value)| {
                let below = match &value.kind {
                    Kind::Mapping { flow: false, entries } => entries.first(),
                    _ => None,
                };
                let step = below.and_then(|(inner, _)| {
                    text.column(inner.span.start)
                        .checked_sub(text.column(key.span.start))
                });
                step.filter(|step| *step > 0).or_else(|| first(text, value))
            }),
            Kind::Sequence { items, .. } => items.iter().find_map(|item| first(text, item)),
            _ => None,
        }
    }
    let roots = text.stream.documents.iter().filter_map(|(_, root)| root.as_ref());
    roots.into_iter().find_map(|root| first(text, root)).unwrap_or(2)
}

/// The bytes of a splice whose first key comes after `lead` of them.
fn exact(text: &Text<'_>, (range, with): &Splice, lead: usize) -> Exact {
    Exact {
        before: text.text[range.clone()].to_owned(),
        after: with.clone(),
        lead,
    }
}

/// The bytes from a key before the splice on.
fn exact_from(text: &Text<'_>, key: usize, (range, with): &Splice) -> Exact {
    let kept = &text.text[key..range.start];
    Exact {
        before: text.text[key..range.end].to_owned(),
        after: format!("{kept}{with}"),
        lead: 0,
    }
}
