//! What a reader of a file finds at a path, with aliases and `<<` followed, and every place that shows one value.

use std::{collections::BTreeSet, fmt};

use crate::{
    Refusal,
    layout::{Text, refuse},
    objects::{Object, position},
    steps::{Step, Steps},
    yaml::{Kind, Node, Stream},
};

/// How often an alias is followed for one path: deeper than any file, few enough to end.
const MAX_DEPTH: usize = 32;
/// Places of one value that are looked for.
const MAX_PLACES: usize = 1_000;
/// The key that takes over the fields of other mappings.
pub(crate) const MERGE: &str = "<<";

/// A place as a reader of the file sees it: a document, and the keys and indexes from its root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) document: usize,
    pub(crate) steps: Vec<Step>,
}

impl Seen {
    /// Where a node stands. What `<<` takes over belongs to the mapping that takes it over.
    pub(crate) fn written(stream: &Stream, at: &[usize]) -> Self {
        let (document, below) = at.split_first().map_or((0, at), |(first, rest)| (*first, rest));
        let root = stream.at(&[document]);
        Self {
            document,
            steps: root.map(|root| steps_below(root, below)).unwrap_or_default(),
        }
    }

    fn followed_by(mut self, tail: &[Step]) -> Self {
        self.steps.extend_from_slice(tail);
        self
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.document > 0 {
            write!(f, "document {}: ", self.document + 1)?;
        }
        Steps(self.steps.clone()).fmt(f)
    }
}

fn steps_below(node: &Node, below: &[usize]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(below.len());
    let (mut node, mut is_merged) = (node, false);
    for index in below {
        match &node.kind {
            Kind::Mapping { entries, .. } => {
                let key = entries.get(*index).and_then(|(key, _)| key.scalar());
                is_merged = key == Some(MERGE);
                if !is_merged {
                    steps.push(Step::Key(key.unwrap_or_default().to_owned()));
                }
            }
            // A list of mappings that are all taken over.
            Kind::Sequence { .. } if is_merged => is_merged = false,
            Kind::Sequence { .. } => steps.push(Step::Index(*index)),
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
        match node.child(*index) {
            Some(child) => node = child,
            None => break,
        }
    }
    steps
}

/// A node, and how it was reached.
#[derive(Debug, Clone)]
pub(crate) struct Spot<'a> {
    /// Where the node itself stands.
    pub(crate) at: Vec<usize>,
    pub(crate) node: &'a Node,
    /// Where it was looked for.
    pub(crate) seen: Seen,
    /// An alias or `<<` led elsewhere.
    pub(crate) is_shared: bool,
}

impl<'a> Spot<'a> {
    pub(crate) fn of(text: &Text<'_>, object: &Object<'a>) -> Self {
        Self {
            at: object.at.clone(),
            node: object.node,
            seen: Seen::written(&text.stream, &object.at),
            is_shared: false,
        }
    }

    /// The child at an index, before an alias is followed.
    fn child(&self, index: usize, step: Option<Step>) -> Option<Self> {
        let mut spot = Self {
            at: self.at.clone(),
            node: self.node.child(index)?,
            seen: self.seen.clone(),
            is_shared: self.is_shared,
        };
        spot.at.push(index);
        spot.seen.steps.extend(step);
        Some(spot)
    }

    /// The node that an alias stands for; other nodes as they are.
    ///
    /// # Errors
    /// The anchor is a key's.
    pub(crate) fn resolved(mut self, text: &'a Text<'_>) -> Result<Self, Refusal> {
        for _ in 0..MAX_DEPTH {
            let Kind::Alias(anchor) = self.node.kind else {
                return Ok(self);
            };
            let at = text.anchors().anchored.get(&anchor);
            match at.and_then(|at| Some((at, text.stream.at(at)?))) {
                Some((at, node)) => {
                    self.at.clone_from(at);
                    self.node = node;
                    self.is_shared = true;
                }
                None => break,
            }
        }
        Err(refuse(
            self.node.line,
            "the anchor of this alias is not the anchor of a value: write the value out here",
        ))
    }

    /// The value of a key: the mapping's own, or the one that `<<` takes over.
    ///
    /// # Errors
    /// The key stands there twice.
    pub(crate) fn field(&self, text: &'a Text<'_>, key: &str) -> Result<Option<Self>, Refusal> {
        self.field_within(text, key, &mut Vec::new())
    }

    fn field_within(
        &self,
        text: &'a Text<'_>,
        key: &str,
        asked: &mut Vec<Vec<usize>>,
    ) -> Result<Option<Self>, Refusal> {
        if let Some((second, _)) = self.node.fields(key).nth(1) {
            return Err(refuse(second.line, format!("`{key}` appears here a second time")));
        }
        if let Some(index) = position(self.node, key) {
            let own = self.child(index, Some(Step::Key(key.to_owned())));
            return own.map(|own| own.resolved(text)).transpose();
        }
        for source in self.merged(text)? {
            // A mapping may be taken over twice, or contain itself.
            if asked.contains(&source.at) {
                continue;
            }
            asked.push(source.at.clone());
            if let Some(found) = source.field_within(text, key, asked)? {
                return Ok(Some(Self {
                    is_shared: true,
                    ..found
                }));
            }
        }
        Ok(None)
    }

    /// The mappings that `<<` takes over, in the order in which they count.
    fn merged(&self, text: &'a Text<'_>) -> Result<Vec<Self>, Refusal> {
        let mut sources = Vec::new();
        let Some(index) = position(self.node, MERGE) else {
            return Ok(sources);
        };
        let Some(from) = self.child(index, None) else {
            return Ok(sources);
        };
        let from = from.resolved(text)?;
        match &from.node.kind {
            Kind::Sequence { items, .. } => {
                for index in 0..items.len() {
                    if let Some(item) = from.child(index, None) {
                        sources.push(item.resolved(text)?);
                    }
                }
            }
            _ => sources.push(from),
        }
        for source in &mut sources {
            source.seen = self.seen.clone();
        }
        Ok(sources)
    }

    /// An item of a list.
    ///
    /// # Errors
    /// The anchor of an alias is a key's.
    pub(crate) fn item(&self, text: &'a Text<'_>, index: usize) -> Result<Option<Self>, Refusal> {
        let item = self.child(index, Some(Step::Index(index)));
        item.map(|item| item.resolved(text)).transpose()
    }

    /// The mappings and lists among the values of a mapping, by key, with those that `<<` takes over.
    ///
    /// # Errors
    /// The anchor of an alias is a key's.
    pub(crate) fn collections(&self, text: &'a Text<'_>) -> Result<Vec<(&'a str, Self)>, Refusal> {
        let mut found = Vec::new();
        let Kind::Mapping { entries, .. } = &self.node.kind else {
            return Ok(found);
        };
        for (index, (key, value)) in entries.iter().enumerate() {
            let Some(key) = key.scalar().filter(|key| *key != MERGE) else {
                continue;
            };
            if matches!(value.kind, Kind::Scalar { .. }) {
                continue;
            }
            if let Some(own) = self.child(index, Some(Step::Key(key.to_owned()))) {
                found.push((key, own.resolved(text)?));
            }
        }
        if position(self.node, MERGE).is_some() {
            for key in self.keys(text)? {
                if position(self.node, key).is_none()
                    && let Some(taken) = self.field(text, key)?
                {
                    found.push((key, taken));
                }
            }
        }
        Ok(found)
    }

    /// The keys of a mapping, with those that `<<` takes over.
    ///
    /// # Errors
    /// The anchor of an alias is a key's.
    pub(crate) fn keys(&self, text: &'a Text<'_>) -> Result<Vec<&'a str>, Refusal> {
        let mut keys = Vec::new();
        self.keys_within(text, &mut keys, &mut Vec::new())?;
        Ok(keys)
    }

    fn keys_within(
        &self,
        text: &'a Text<'_>,
        keys: &mut Vec<&'a str>,
        asked: &mut Vec<Vec<usize>>,
    ) -> Result<(), Refusal> {
        let Kind::Mapping { entries, .. } = &self.node.kind else {
            return Ok(());
        };
        for key in entries.iter().filter_map(|(key, _)| key.scalar()) {
            if key != MERGE && (asked.is_empty() || !keys.contains(&key)) {
                keys.push(key);
            }
        }
        if position(self.node, MERGE).is_some() {
            for source in self.merged(text)? {
                if !asked.contains(&source.at) {
                    asked.push(source.at.clone());
                    source.keys_within(text, keys, asked)?;
                }
            }
        }
        Ok(())
    }
}

/// All places at which a reader sees the node at `at`, or what stands at `tail` below it.
pub(crate) fn places(text: &Text<'_>, at: &[usize], tail: &[Step]) -> BTreeSet<Seen> {
    let mut places = BTreeSet::new();
    spread(text, at, tail, &mut places, 0);
    places
}

fn spread(text: &Text<'_>, at: &[usize], tail: &[Step], places: &mut BTreeSet<Seen>, depth: usize) {
    let written = Seen::written(&text.stream, at).followed_by(tail);
    if depth > MAX_DEPTH || places.len() >= MAX_PLACES || !places.insert(written) {
        return;
    }
    let anchors = text.anchors();
    if anchors.aliases.is_empty() {
        return;
    }
    for length in 1..=at.len() {
        let Some(node) = text.stream.at(&at[..length]).filter(|node| node.anchor != 0) else {
            continue;
        };
        let mut rest = steps_below(node, &at[length..]);
        rest.extend_from_slice(tail);
        for alias in anchors.aliases.get(&node.anchor).into_iter().flatten() {
            match merging(&text.stream, alias) {
                None => spread(text, alias, &rest, places, depth + 1),
                Some((mapping, place)) => {
                    if rest
                        .first()
                        .is_none_or(|step| is_taken_over(text, &mapping, place, step))
                    {
                        spread(text, &mapping, &rest, places, depth + 1);
                    }
                }
            }
        }
    }
}

/// The mapping whose `<<` an alias stands in, and which of its sources it is.
fn merging(stream: &Stream, alias: &[usize]) -> Option<(Vec<usize>, usize)> {
    let is_merge = |mapping: &[usize], index: usize| match stream.at(mapping).map(|node| &node.kind) {
        Some(Kind::Mapping { entries, .. }) => entries
            .get(index)
            .is_some_and(|(key, _)| key.scalar() == Some(MERGE)),
        _ => false,
    };
    let (last, parent) = alias.split_last()?;
    if is_merge(parent, *last) {
        return Some((parent.to_vec(), 0));
    }
    let (index, mapping) = parent.split_last()?;
    is_merge(mapping, *index).then(|| (mapping.to_vec(), *last))
}

/// Whether a mapping takes a field over from that source: neither it nor an earlier source has the key.
fn is_taken_over(text: &Text<'_>, mapping: &[usize], source: usize, step: &Step) -> bool {
    let (Step::Key(key), Some(node)) = (step, text.stream.at(mapping)) else {
        return true;
    };
    let spot = Spot {
        at: mapping.to_vec(),
        node,
        seen: Seen::written(&text.stream, mapping),
        is_shared: false,
    };
    if position(node, key).is_some() {
        return false;
    }
    let Ok(sources) = spot.merged(text) else {
        return true;
    };
    !sources
        .iter()
        .take(source)
        .any(|earlier| matches!(earlier.field(text, key), Ok(Some(_))))
}
