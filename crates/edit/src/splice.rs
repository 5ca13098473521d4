//! Which fields of an entry of `images` an edit sets, adds and removes, and where.

use crate::{
    Refusal,
    entry::FIELDS,
    kustomization::EntryChange,
    layout::{Field, Splice, Text, refuse},
    yaml::{Kind, Node, Style},
};

/// The splices that an edit consists of.
pub(crate) struct Plan<'a> {
    text: &'a Text<'a>,
    node: &'a Node,
    entries: &'a [(Node, Node)],
    pub(crate) splices: Vec<Splice>,
    /// Whether fields were added or removed, not only values changed.
    pub(crate) reshaped: bool,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(text: &'a Text<'a>, node: &'a Node, wanted: &EntryChange) -> Result<Self, Refusal> {
        let Kind::Mapping { entries, .. } = &node.kind else {
            return Err(refuse(node.line, "the entry is not a mapping"));
        };
        let mut plan = Self {
            text,
            node,
            entries,
            splices: Vec::new(),
            reshaped: false,
        };
        let (mut remove, mut add) = (Vec::new(), Vec::new());
        for (number, wanted) in wanted.fields().into_iter().enumerate() {
            match (plan.place(FIELDS[number]), wanted) {
                (_, Field::Keep) | (None, Field::Remove) => {}
                (Some(place), Field::Remove) => remove.push((number, place)),
                (None, wanted) => add.push((number, wanted)),
                (Some(place), wanted) => plan.replace(place, wanted)?,
            }
        }
        plan.reshaped |= !remove.is_empty() || !add.is_empty();
        // A tag that is replaced by a digest, or the other way round, keeps its line and the comment on it.
        if let (Some(at), Some(with)) = (
            remove.iter().position(|(number, _)| *number > 0),
            add.iter().position(|(number, _)| *number > 0),
        ) {
            let ((_, place), (number, wanted)) = (remove.remove(at), add.remove(with));
            plan.rename(place, FIELDS[number])?;
            plan.replace(place, wanted)?;
        }
        for (number, wanted) in &add {
            plan.insert(*number, wanted, &remove)?;
        }
        for (_, place) in &remove {
            plan.splices.push(text.delete(node, *place)?);
        }
        Ok(plan)
    }

    /// The index of the field in the entry.
    fn place(&self, key: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|(name, _)| name.scalar() == Some(key))
    }

    fn replace(&mut self, place: usize, wanted: &Field) -> Result<(), Refusal> {
        let (key, value) = &self.entries[place];
        if let Some(splice) = self.text.replace(Some(key), value, wanted)? {
            if self.text.stream.points_to(value.anchor) {
                return Err(refuse(
                    value.line,
                    "the value has an anchor that an alias elsewhere uses: write the value out there first",
                ));
            }
            // Entries do not distinguish a field without a value from a missing one.
            self.reshaped |= value.is_null();
            self.splices.push(splice);
        }
        Ok(())
    }

    fn rename(&mut self, place: usize, key: &str) -> Result<(), Refusal> {
        let (now, _) = &self.entries[place];
        self.text.colon(now)?;
        let with = match now.kind {
            Kind::Scalar {
                style: Style::Single, ..
            } => format!("'{key}'"),
            Kind::Scalar {
                style: Style::Double, ..
            } => format!("\"{key}\""),
            _ => key.to_owned(),
        };
        self.splices.push((now.span.clone(), with));
        Ok(())
    }

    /// Adds a field after the last field that precedes it and stays.
    fn insert(&mut self, number: usize, wanted: &Field, removed: &[(usize, usize)]) -> Result<(), Refusal> {
        let before = FIELDS[..number]
            .iter()
            .enumerate()
            .rev()
            .filter(|(number, _)| removed.iter().all(|(gone, _)| gone != number))
            .find_map(|(_, key)| self.place(key));
        let Some(before) = before.or_else(|| self.place("name")) else {
            return Err(refuse(self.node.line, "the entry has no name"));
        };
        let splice = self.text.insert(self.node, before, FIELDS[number], wanted)?;
        self.splices.extend(splice);
        Ok(())
    }
}
