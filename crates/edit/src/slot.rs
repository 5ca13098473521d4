//! The values that an image is written in: one of them, and how several are written and recorded.

use crate::{
    Refusal,
    difference::ValueDifference,
    entry::Scalar,
    fields::Fields,
    layout::{Field, Text},
    naming::{Naming, Part},
    objects::{Object, address},
    sharing::{Seen, Spot},
    steps::{Step, Steps},
    values::{Changes, scalar},
};

/// An existing value.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Where it is written.
    pub(crate) at: Vec<usize>,
    /// Where it was looked for.
    pub(crate) seen: Seen,
    /// The document and the path by which it is recorded.
    pub(crate) document: String,
    pub(crate) steps: Steps,
    pub(crate) stands: Scalar,
    pub(crate) line: usize,
}

impl Slot {
    /// A value that was found by the steps of a person, from an object.
    pub(crate) fn new(text: &Text<'_>, object: &Object<'_>, steps: &Steps, spot: &Spot<'_>) -> Option<Self> {
        if spot.is_shared {
            return Self::recorded(text, spot);
        }
        Some(Self {
            document: object.label.clone(),
            steps: object.full(steps),
            ..Self::unnamed(text, spot)?
        })
    }

    /// A value by the object and the path where it is written.
    pub(crate) fn recorded(text: &Text<'_>, spot: &Spot<'_>) -> Option<Self> {
        let (document, steps) = address(&text.stream, &spot.at);
        Some(Self {
            document,
            steps,
            ..Self::unnamed(text, spot)?
        })
    }

    /// A value, before it is said where it is recorded. An absent one can be filled in.
    pub(crate) fn unnamed(text: &Text<'_>, spot: &Spot<'_>) -> Option<Self> {
        Some(Self {
            at: spot.at.clone(),
            seen: spot.seen.clone(),
            document: String::new(),
            steps: Steps(Vec::new()),
            stands: scalar(text, spot.node)?,
            line: spot.node.line,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stands.value.is_empty()
    }

    /// The last key of its path.
    pub(crate) fn key(&self) -> &str {
        crate::naming::key_of(&self.steps.0).unwrap_or_default()
    }

    /// `NAME=` and what follows it; the first is empty where there is none.
    pub(crate) fn renamed(&self) -> (&str, &str) {
        match self.stands.value.find('=') {
            Some(at) => self.stands.value.split_at(at + 1),
            None => ("", &self.stands.value),
        }
    }
}

/// Writes the values of one image.
pub(crate) struct Writer<'c, 't, 'a> {
    pub(crate) changes: &'c mut Changes<'t, 'a>,
    pub(crate) values: Vec<ValueDifference>,
}

impl Writer<'_, '_, '_> {
    /// Sets a value, or leaves it; either way it is recorded.
    pub(crate) fn set(&mut self, slot: &Slot, to: Option<Field>) -> Result<(), Refusal> {
        let after = match to {
            Some(to) => self.changes.set(&slot.at, &to)?,
            None => Some(slot.stands.clone()),
        };
        self.values.push(ValueDifference {
            document: slot.document.clone(),
            at: slot.steps.to_string(),
            before: Some(slot.stands.clone()),
            after,
        });
        Ok(())
    }

    /// Adds a key to a mapping, after the entry at that index.
    pub(crate) fn insert(
        &mut self,
        object: &Object<'_>,
        fields: &Fields<'_>,
        behind: usize,
        key: &str,
        to: String,
    ) -> Result<(), Refusal> {
        let text = self.changes.text();
        let mut seen = fields.spot.seen.clone();
        seen.steps.push(Step::Key(key.to_owned()));
        self.changes.named.insert(seen);
        let after = self
            .changes
            .insert(&fields.spot.at, behind, key, &Field::Set(to))?;
        let (document, steps) = match fields.spot.is_shared {
            true => address(&text.stream, &fields.spot.at),
            false => (object.label.clone(), object.full(&fields.steps)),
        };
        self.values.push(ValueDifference {
            document,
            at: steps.with(key).to_string(),
            before: None,
            after,
        });
        Ok(())
    }
}

/// The part, if any, that the last step of a path names.
pub(crate) fn last_part(steps: &[Step]) -> Option<(Part, Naming)> {
    match steps.last() {
        Some(Step::Key(key)) => Naming::of(key).map(|(_, part, naming)| (part, naming)),
        _ => None,
    }
}
