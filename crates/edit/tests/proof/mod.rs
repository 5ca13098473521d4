//! What every edit must preserve, checked by readers that share nothing with the engine.
#![allow(dead_code, reason = "each of the proofs uses its part")]

pub(crate) mod hold;
pub(crate) mod images;
pub(crate) mod kustomize;
pub(crate) mod lines;
pub(crate) mod reader;
pub(crate) mod tree;
pub(crate) mod written;

use std::collections::{BTreeMap, BTreeSet};

use slipway_edit::{Edit, Edited, Refused, apply};

use self::{
    reader::{Leaf, Meaning, Reading, Style},
    tree::Tree,
};

/// What one edit is to make of one file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// The expected value at a place afterwards; `None` if it should be gone.
    pub(crate) values: BTreeMap<(usize, String), Option<String>>,
    /// Collections that may come, or turn from flow to block, with the keys that lead to them.
    pub(crate) shapes: BTreeSet<(usize, String)>,
    /// Each value has a line of its own, so the lines that differ are known one by one.
    pub(crate) own_lines: bool,
    /// Otherwise, all differences are in the lines of these places.
    pub(crate) near: Vec<(usize, String)>,
}

impl Expected {
    pub(crate) fn new() -> Self {
        Self {
            own_lines: true,
            ..Self::default()
        }
    }

    pub(crate) fn value(mut self, document: usize, place: impl Into<String>, value: Option<&str>) -> Self {
        self.values
            .insert((document, place.into()), value.map(str::to_owned));
        self
    }

    pub(crate) fn shape(mut self, document: usize, place: impl Into<String>) -> Self {
        self.shapes.insert((document, place.into()));
        self
    }

    /// All differences are in the lines of a place and of those below it.
    pub(crate) fn near(mut self, document: usize, place: impl Into<String>) -> Self {
        self.own_lines = false;
        self.near.push((document, place.into()));
        self
    }

    /// Whether a leaf is one of those that were meant, or the key of one.
    fn meant(&self, leaf: &Leaf) -> bool {
        let place = leaf.place.strip_suffix(':').unwrap_or(&leaf.place);
        let key = (leaf.document, place.to_owned());
        self.values.contains_key(&key) || self.shapes.contains(&key)
    }
}

pub(crate) fn run(edits: &[Edit], tree: &Tree) -> Result<Edited, Refused> {
    match apply(edits, tree) {
        Ok(done) => done,
        Err(never) => match never {},
    }
}

/// Applies one edit and checks all that holds for any edit: only what was meant differs, to another reader and by
/// bytes; the same again changes nothing; putting it back gives the first bytes again.
///
/// # Errors
/// The edit was refused.
pub(crate) fn prove(tree: &Tree, edit: &Edit, file: &str, expected: &Expected) -> Result<Edited, Refused> {
    let edited = run(std::slice::from_ref(edit), tree)?;
    let before = &tree.0[file];
    let about = || format!("{file}\n{edit:?}\n--- before\n{before}\n");
    assert!(
        edited.files.keys().all(|path| path == file),
        "another file: {:?}\n{}",
        edited.files.keys(),
        about()
    );
    assert_eq!(edited.differences.len(), 1, "one difference\n{}", about());
    let after = edited.files.get(file).unwrap_or(before);
    let about = || format!("{}--- after\n{after}\n", about());
    if edited.files.contains_key(file) {
        assert_ne!(before, after, "a file that does not differ is none\n{}", about());
    }
    let (was, is) = (read(before), read(after));
    same_but(&was, &is, expected, &about);
    nothing_shared(&was, &is, expected, &about);
    lines_that_had_to(before, after, &was, &is, expected, &about);
    assert!(lines::same_line_ends(before, after), "line ends\n{}", about());

    let changed = tree.with(&edited.files);
    let again = run(std::slice::from_ref(edit), &changed)
        .unwrap_or_else(|refused| panic!("the second time: {refused}\n{}", about()));
    assert!(
        again.files.is_empty(),
        "the second time changes something: {:?}\n{}",
        again.files,
        about()
    );
    for force in [false, true] {
        let undo: Vec<_> = edited
            .differences
            .iter()
            .rev()
            .filter_map(|difference| Edit::undoing(difference, force))
            .collect();
        assert_eq!(undo.len(), 1);
        let back =
            run(&undo, &changed).unwrap_or_else(|refused| panic!("putting it back: {refused}\n{}", about()));
        let back = changed.with(&back.files);
        assert!(
            back.0[file] == *before,
            "putting it back gives other bytes\n{}--- back\n{}\n{:?}",
            about(),
            back.0[file],
            edited.differences
        );
        let twice = run(&undo, &back).unwrap_or_else(|refused| panic!("back again: {refused}\n{}", about()));
        assert!(
            twice.files.is_empty(),
            "putting it back a second time: {:?}\n{}",
            twice.files,
            about()
        );
    }
    Ok(edited)
}

fn read(text: &str) -> Reading {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Reading::of(text).unwrap_or_else(|error| panic!("not YAML to libyaml: {error}\n{text}"))
}

/// To a reader of YAML, only the places that were meant differ, and say what was meant.
fn same_but(was: &Reading, is: &Reading, expected: &Expected, about: &dyn Fn() -> String) {
    let rest = |reading: &Reading| -> Vec<Leaf> {
        let others = reading.leaves.iter().filter(|leaf| !expected.meant(leaf));
        others.cloned().collect()
    };
    let (old, new) = (rest(was), rest(is));
    if let Some((old, new)) = old.iter().zip(&new).find(|(old, new)| old != new) {
        panic!("something else differs: {old:?}, now {new:?}\n{}", about());
    }
    assert_eq!(old.len(), new.len(), "nodes came or went\n{}", about());
    for ((document, place), value) in &expected.values {
        let leaf = is.get(*document, place);
        let Some(value) = value else {
            assert!(leaf.is_none(), "{place} is still there\n{}", about());
            continue;
        };
        let leaf = leaf.unwrap_or_else(|| panic!("{place} is missing\n{}", about()));
        assert_eq!(
            leaf.text(),
            Some(value.as_str()),
            "{place} is to be that string: {leaf:?}\n{}",
            about()
        );
        if let Some(old) = was.get(*document, place)
            && old.scalar().is_some_and(|old| !old.is_empty())
        {
            let kept = old.style == leaf.style;
            // What a plain scalar of that text would not be as a string anywhere is quoted.
            let needed = old.style == Style::Plain && !plain_enough(value);
            assert!(
                kept || needed,
                "the quoting of {place} changed from {:?} to {:?}\n{}",
                old.style,
                leaf.style,
                about()
            );
        }
    }
}

/// No alias says again what was changed, or it would have changed as well.
fn nothing_shared(was: &Reading, is: &Reading, expected: &Expected, about: &dyn Fn() -> String) {
    for leaf in &was.leaves {
        let Meaning::Alias(name) = &leaf.meaning else {
            continue;
        };
        let anchored = was.leaves.iter().rfind(|other| {
            other.document == leaf.document && other.anchor.as_ref() == Some(name) && other.line <= leaf.line
        });
        let below = |place: &str| {
            anchored.is_some_and(|to| place == to.place || place.starts_with(&format!("{}/", to.place)))
        };
        let shared = expected
            .values
            .keys()
            .filter(|(document, place)| was.get(*document, place) != is.get(*document, place))
            .any(|(document, place)| *document == leaf.document && below(place));
        assert!(!shared, "{} says the same by an alias\n{}", leaf.place, about());
    }
}

/// Whether a plain scalar of this text is a string to every reader, and looks like one.
fn plain_enough(text: &str) -> bool {
    let odd = ["inf", "nan", "infinity"].contains(&text.to_lowercase().as_str());
    reader::is_text(text)
        && !odd
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && !text.starts_with(|c: char| c.is_ascii_digit() && text.contains("-"))
}

/// By bytes, only the lines of those values differ, and in them only the values.
fn lines_that_had_to(
    before: &str,
    after: &str,
    was: &Reading,
    is: &Reading,
    expected: &Expected,
    about: &dyn Fn() -> String,
) {
    let lines = lines::difference(before, after);
    let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
    let mut pairs = Vec::new();
    for (document, place) in expected.values.keys() {
        let (old, new) = (was.get(*document, place), is.get(*document, place));
        if old == new && old.map(|old| old.style) == new.map(|new| new.style) {
            continue;
        }
        gone.extend(old.map(|old| old.line));
        come.extend(new.map(|new| new.line));
        if let (Some(old), Some(new)) = (old, new) {
            pairs.push((old, new));
        }
    }
    for (document, place) in &expected.shapes {
        let (old, new) = (was.get(*document, place), is.get(*document, place));
        if old != new {
            gone.extend(old.map(|old| old.line));
            let key = is.get(*document, &format!("{place}:"));
            come.extend(key.or(new).map(|new| new.line));
        }
    }
    let numbers = |lines: &[(usize, &str)]| lines.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>();
    if expected.own_lines {
        assert_eq!(
            numbers(&lines.gone),
            gone,
            "the lines that went\n{lines:?}\n{}",
            about()
        );
        assert_eq!(
            numbers(&lines.come),
            come,
            "the lines that came\n{lines:?}\n{}",
            about()
        );
    } else {
        let near = |reading: &Reading, line: usize| {
            let mut leaves = reading.leaves.iter().filter(|leaf| leaf.line == line);
            leaves.any(|leaf| {
                expected.near.iter().any(|(document, place)| {
                    let below = leaf.place.strip_prefix(place.as_str());
                    leaf.document == *document
                        && below.is_some_and(|below| below.is_empty() || below.starts_with(['/', ':']))
                })
            })
        };
        for (number, line) in &lines.gone {
            // The dash of a field that goes moves to the next one, over the blank lines between them.
            assert!(
                line.trim().is_empty() || near(was, *number),
                "line {} went: {line:?}\n{}",
                number + 1,
                about()
            );
        }
        for (number, line) in &lines.come {
            // The comment of a field that goes stays, on a line of its own.
            let comment = line.trim_start();
            let left = comment.starts_with('#') && lines.gone.iter().any(|(_, gone)| gone.ends_with(comment));
            assert!(
                left || near(is, *number),
                "line {} came: {line:?}\n{}",
                number + 1,
                about()
            );
        }
        let most = expected.values.len() + 1;
        let gone = lines.gone.iter().filter(|(_, line)| !line.trim().is_empty());
        assert!(
            gone.count() <= most && lines.come.len() <= most,
            "too many lines: {lines:?}\n{}",
            about()
        );
    }
    // If a value replaced another, everything before and after it stays.
    let alone = |line: usize| pairs.iter().filter(|(old, _)| old.line == line).count() == 1;
    for (old, new) in pairs.iter().filter(|(old, _)| alone(old.line)) {
        let (a, b) = (lines::split(before), lines::split(after));
        let cut = |line: &str, leaf: &Leaf| -> (String, String) {
            let bom = usize::from(leaf.line == 0 && line.starts_with('\u{feff}'));
            let chars: Vec<char> = line.chars().collect();
            (
                chars[..leaf.columns.start + bom].iter().collect(),
                chars[leaf.columns.end + bom..].iter().collect(),
            )
        };
        let one_line = old.line == old.end_line && new.line == new.end_line;
        if expected.own_lines && one_line && old.scalar().is_some_and(|old| !old.is_empty()) {
            assert_eq!(
                cut(a[old.line], old),
                cut(b[new.line], new),
                "around the value\n{}",
                about()
            );
        }
    }
}
