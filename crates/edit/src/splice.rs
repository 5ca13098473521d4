//! Which bytes of a kustomization an edit puts in place of which.

use std::ops::Range;

use crate::{
    Refusal,
    kustomize::{FIELDS, Field, Wanted, refuse},
    yaml::{Kind, Node, Stream, Style, needs_quotes},
};

/// The splices that an edit comes to.
pub(crate) struct Plan<'a> {
    text: &'a str,
    stream: &'a Stream,
    entries: &'a [(Node, Node)],
    flow: bool,
    pub(crate) splices: Vec<(Range<usize>, String)>,
}

/// A field's own place in the entry.
#[derive(Clone, Copy)]
struct Place<'a> {
    index: usize,
    key: &'a Node,
    value: &'a Node,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        text: &'a str,
        stream: &'a Stream,
        node: &'a Node,
        wanted: &Wanted,
    ) -> Result<Self, Refusal> {
        let Kind::Mapping { flow, entries } = &node.kind else {
            return Err(refuse(node.line, "the entry is not a mapping"));
        };
        let mut plan = Self {
            text,
            stream,
            entries,
            flow: *flow,
            splices: Vec::new(),
        };
        let (mut remove, mut add) = (Vec::new(), Vec::new());
        for (number, wanted) in [&wanted.new_name, &wanted.new_tag, &wanted.digest]
            .into_iter()
            .enumerate()
        {
            match (plan.place(FIELDS[number]), wanted) {
                (_, Field::Keep) | (None, Field::Remove) => {}
                (Some(place), Field::Remove) => remove.push((number, place)),
                (None, wanted) => add.push((number, wanted)),
                (Some(place), wanted) => plan.replace(place, wanted)?,
            }
        }
        // A tag that gives way to a digest, or the other way round, keeps its line and the comment on it.
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
            plan.delete(*place)?;
        }
        // Stable, so that fields that are added behind the same line keep their order.
        plan.splices.sort_by_key(|(range, _)| (range.start, range.end));
        Ok(plan)
    }

    pub(crate) fn splice(&self, text: &str) -> String {
        let mut edited = String::with_capacity(text.len() + 128);
        let mut done = 0;
        for (range, with) in &self.splices {
            edited.push_str(text.get(done..range.start).unwrap_or_default());
            edited.push_str(with);
            done = range.end;
        }
        edited.push_str(&text[done..]);
        edited
    }

    fn place(&self, key: &str) -> Option<Place<'a>> {
        self.entries
            .iter()
            .enumerate()
            .find(|(_, (name, _))| name.scalar() == Some(key))
            .map(|(index, (key, value))| Place { index, key, value })
    }

    /// Puts another value where one stands.
    fn replace(&mut self, place: Place<'_>, wanted: &Field) -> Result<(), Refusal> {
        let value = place.value;
        let Kind::Scalar { value: now, style } = &value.kind else {
            return Err(refuse(
                value.line,
                "an alias or a collection stands where the value is expected",
            ));
        };
        if value.anchor != 0 {
            return Err(refuse(value.line, "the value has an anchor"));
        }
        let stands = &self.text[value.span.clone()];
        if *style == Style::Block || stands.contains('\n') {
            return Err(refuse(place.key.line, "the value is written over several lines"));
        }
        let with = match wanted {
            Field::Set(wanted) => {
                if wanted == now && !(*style == Style::Plain && needs_quotes(now)) {
                    return Ok(());
                }
                match style {
                    Style::Single => format!("'{}'", wanted.replace('\'', "''")),
                    Style::Double => double_quoted(wanted),
                    _ => written(wanted),
                }
            }
            Field::Restore(scalar) if scalar.written == stands => return Ok(()),
            Field::Restore(scalar) => scalar.written.clone(),
            Field::Keep | Field::Remove => return Ok(()),
        };
        if value.span.is_empty() {
            let colon = self.colon(place)?;
            self.splices.push((colon..colon, format!(" {with}")));
        } else {
            self.splices.push((value.span.clone(), with));
        }
        Ok(())
    }

    /// Behind the colon of a key.
    fn colon(&self, place: Place<'_>) -> Result<usize, Refusal> {
        let rest = &self.text[place.key.span.end..];
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        if rest[spaces..].starts_with(':') {
            Ok(place.key.span.end + spaces + 1)
        } else {
            Err(refuse(place.key.line, "the key and its colon stand apart"))
        }
    }

    fn rename(&mut self, place: Place<'_>, key: &str) -> Result<(), Refusal> {
        self.colon(place)?;
        let with = match place.key.kind {
            Kind::Scalar {
                style: Style::Single, ..
            } => format!("'{key}'"),
            Kind::Scalar {
                style: Style::Double, ..
            } => format!("\"{key}\""),
            _ => key.to_owned(),
        };
        self.splices.push((place.key.span.clone(), with));
        Ok(())
    }

    /// Adds a field behind the last one that comes before it and stays.
    fn insert(
        &mut self,
        number: usize,
        wanted: &Field,
        removed: &[(usize, Place<'_>)],
    ) -> Result<(), Refusal> {
        let with = match wanted {
            Field::Set(value) => written(value),
            Field::Restore(scalar) => scalar.written.clone(),
            Field::Keep | Field::Remove => return Ok(()),
        };
        let before = FIELDS[..number]
            .iter()
            .enumerate()
            .rev()
            .filter(|(number, _)| removed.iter().all(|(gone, _)| gone != number))
            .find_map(|(_, key)| self.place(key));
        let Some(before) = before.or_else(|| self.place("name")) else {
            return Err(refuse(0, "the entry has no name"));
        };
        let line = before.value.line;
        self.colon(before)?;
        if before.value.span.is_empty() || self.text[before.value.span.clone()].contains('\n') {
            return Err(refuse(line, "there is no single line to add a field behind"));
        }
        let key = FIELDS[number];
        if self.flow {
            let end = before.value.span.end;
            self.splices.push((end..end, format!(", {key}: {with}")));
            return Ok(());
        }
        let start = self.line_start(before.key.span.start);
        let indent = " ".repeat(self.text[start..before.key.span.start].chars().count());
        let (end, eol) = self.line_end(before.value.span.end);
        self.splices
            .push((end..end, format!("{eol}{indent}{key}: {with}")));
        Ok(())
    }

    /// Takes a field out, and leaves a comment that stands behind it.
    fn delete(&mut self, place: Place<'_>) -> Result<(), Refusal> {
        self.colon(place)?;
        let (key, value) = (&place.key.span, &place.value.span);
        let line = place.key.line;
        if value.is_empty() || place.value.anchor != 0 || self.text[value.clone()].contains('\n') {
            return Err(refuse(line, "the field cannot be taken out by itself"));
        }
        let next = self.entries.get(place.index + 1).map(|(key, _)| key.span.start);
        let start = self.line_start(key.start);
        let first_of_line = self.text[start..key.start].bytes().all(|b| b == b' ');
        let range = if !self.flow && first_of_line && start > 0 {
            let (end, _) = self.line_end(value.end);
            match self.comment_between(value.end, end) {
                Some(comment) => key.start..comment,
                None => {
                    // With the line break before it, so that a last line without one stays without one.
                    let before = &self.text[..start - 1];
                    before.strip_suffix('\r').unwrap_or(before).len()..end
                }
            }
        } else if place.index > 0 && self.flow {
            self.entries[place.index - 1].1.span.end..value.end
        } else if let Some(next) = next {
            key.start..next
        } else {
            return Err(refuse(line, "the field cannot be taken out by itself"));
        };
        let whole_line = !self.flow && first_of_line;
        if !whole_line && self.comment_between(range.start, range.end).is_some() {
            return Err(refuse(line, "a comment stands beside the field that has to go"));
        }
        self.splices.push((range, String::new()));
        Ok(())
    }

    fn comment_between(&self, from: usize, to: usize) -> Option<usize> {
        self.stream
            .comment_starts
            .0
            .iter()
            .copied()
            .find(|start| (from..to).contains(start))
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Where the line ends, before its line break, and the line break to use there.
    fn line_end(&self, at: usize) -> (usize, &'static str) {
        let end = self.text[at..].find('\n').map(|newline| at + newline);
        match end {
            Some(end) if self.text[..end].ends_with('\r') => (end - 1, "\r\n"),
            Some(end) => (end, "\n"),
            // The last line has none: the one before it tells.
            None if self.text.contains("\r\n") => (self.text.len(), "\r\n"),
            None => (self.text.len(), "\n"),
        }
    }
}

fn double_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value where none stood.
fn written(value: &str) -> String {
    if needs_quotes(value) {
        double_quoted(value)
    } else {
        value.to_owned()
    }
}
