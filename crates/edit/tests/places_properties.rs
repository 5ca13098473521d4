//! Properties of edits of generated values that stand in a text of another file, that several places show, or that are
//! added.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod proof;

use proof::{
    Expected,
    hold::{Outcome, dice, hold, wanted},
    images::{self, Want},
    prove,
    reader::Reading,
    run,
    tree::Tree,
    written,
};
use slipway_edit::{Edit, Edited, HelmImage, Refusal, Refused};

const FILE: &str = "app/file.yaml";

/// Generated values as they can stand below a key, and the path of an image in them.
fn values(bytes: &[u8], which: usize) -> Option<(String, String)> {
    let text = written::values(bytes);
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    if text
        .lines()
        .any(|line| line.starts_with("---") || line.starts_with("..."))
    {
        return None;
    }
    let reading = Reading::of(&text).ok()?;
    let found = images::values(&reading);
    let value = found.get(which % found.len().max(1))?;
    let path = images::path(&reading, value.document, &value.place);
    Some((text, path))
}

fn indented(text: &str, indent: usize) -> String {
    text.split_inclusive('\n')
        .map(|line| match line {
            "\n" => line.to_owned(),
            line => format!("{}{line}", " ".repeat(indent)),
        })
        .collect()
}

fn edit(path: &str, want: &Want, allow_shared: bool) -> Edit {
    Edit::HelmImage(HelmImage {
        allow_shared,
        ..HelmImage::new(FILE, path, "", want.to()).unwrap()
    })
}

fn applied(text: &str, edit: &Edit) -> Result<(String, Edited), Refused> {
    let tree = Tree::of(FILE, text);
    let edited = run(std::slice::from_ref(edit), &tree)?;
    Ok((tree.with(&edited.files).0[FILE].clone(), edited))
}

/// Undoing gives the first bytes, and undoing that the second.
fn undone(before: &str, after: &str, edited: &Edited) {
    let undo = Edit::undoing(&edited.differences[0], false).unwrap();
    let (back, undone) = applied(after, &undo).unwrap_or_else(|refused| panic!("{refused}\n{after}"));
    assert_eq!(back, before, "put back");
    let redo = Edit::undoing(&undone.differences[0], false).unwrap();
    let (again, _) = applied(before, &redo).unwrap_or_else(|refused| panic!("{refused}\n{before}"));
    assert_eq!(again, after, "done again");
}

#[test]
fn a_text_of_yaml_is_edited_as_it_is_alone() {
    let strategy = (dice(), 0..4_usize, wanted());
    hold("embedded", 300, 70, &strategy, |(dice, which, want)| {
        let Some((text, path)) = values(&dice, which) else {
            return Outcome::Nothing;
        };
        // With every end of line, whatever the text ends with.
        let embed = |text: &str| {
            let (keep, end) = match text.ends_with('\n') {
                true => ('+', ""),
                false => ('-', "\n"),
            };
            let text = indented(text, 8);
            let file = format!(
                "spec:\n  source: # s\n    helm:\n      values: |2{keep} # v\n{text}{end}    other: 1\n"
            );
            match which % 2 {
                0 => file,
                _ => file.replace('\n', "\r\n"),
            }
        };
        let whole = embed(&text);
        let within = edit(&format!("spec.source.helm.values.{path}"), &want, false);
        match (
            applied(&text, &edit(&path, &want, false)),
            applied(&whole, &within),
        ) {
            (Ok((alone, _)), Ok((after, edited))) => {
                assert_eq!(after, embed(&alone), "{path}\n{whole}");
                undone(&whole, &after, &edited);
                Outcome::Done
            }
            (Err(_), Err(refused)) => Outcome::Refused(refused.refusal.to_string()),
            (alone, within) => panic!("alone: {alone:?}\nwithin: {within:?}\n{whole}"),
        }
    });
}

#[test]
fn what_is_shared_is_edited_where_it_is_written() {
    let strategy = (dice(), 0..4_usize, wanted());
    hold("shared", 300, 70, &strategy, |(dice, which, want)| {
        let Some((text, path)) = values(&dice, which) else {
            return Outcome::Nothing;
        };
        let share = |text: &str| {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!(
                "base: &base\n{}{end}copy: *base\nmerged:\n  <<: *base\n  own: 1\n",
                indented(text, 2)
            )
        };
        let whole = share(&text);
        if Reading::of(&whole).is_err() {
            return Outcome::Nothing;
        }
        let alone = applied(&text, &edit(&path, &want, false));
        let mut outcome = Outcome::Nothing;
        for place in ["base", "copy", "merged"] {
            let shared = applied(&whole, &edit(&format!("{place}.{path}"), &want, true));
            let plain = applied(&whole, &edit(&format!("{place}.{path}"), &want, false));
            match (&alone, shared) {
                (Ok((alone, _)), Ok((after, edited))) => {
                    assert_eq!(after, share(alone), "{place}.{path}\n{whole}");
                    undone(&whole, &after, &edited);
                    match plain {
                        Ok((after, _)) => assert_eq!(after, whole, "nothing differs"),
                        Err(refused) => {
                            assert!(matches!(refused.refusal, Refusal::Shared { .. }), "{refused}");
                        }
                    }
                    outcome = Outcome::Done;
                }
                (Err(_), Err(refused)) => outcome = Outcome::Refused(refused.refusal.to_string()),
                // Of the values alone, something else is shared.
                (Err(refused), Ok(_)) if matches!(refused.refusal, Refusal::Shared { .. }) => {}
                (alone, shared) => panic!("alone: {alone:?}\nshared: {shared:?}\n{whole}"),
            }
        }
        outcome
    });
}

#[test]
fn what_is_added_leaves_everything_else() {
    hold("added", 300, 70, &(dice(), wanted()), |(dice, want)| {
        let text = written::values(&dice);
        let edit = Edit::HelmImage(HelmImage {
            add_missing: true,
            ..HelmImage::new(FILE, "added", "", want.to()).unwrap()
        });
        let tag = match (want.tag.as_str(), want.digest.as_str()) {
            (tag, "") => tag.to_owned(),
            (tag, digest) => format!("{tag}@{digest}"),
        };
        let mut expected = Expected::new().shape(0, "added").near(0, "added");
        for (key, value) in [("repository", &want.name), ("tag", &tag)] {
            if !value.is_empty() {
                expected = expected.value(0, format!("added/{key}"), Some(value));
            }
        }
        let tree = Tree::of(FILE, &text);
        let outcome = prove(&tree, &edit, FILE, &expected);
        // The chart's key for a digest is not known, and there is no tag that it could follow.
        if want.tag.is_empty() && !want.digest.is_empty() {
            let refused = outcome.unwrap_err().refusal.to_string();
            assert!(refused.contains("give the tag too"), "{refused}");
            return Outcome::Done;
        }
        match outcome {
            Ok(edited) => {
                let after = tree.with(&edited.files).0[FILE].clone();
                undone(&text, &after, &edited);
                Outcome::Done
            }
            Err(refused) => Outcome::Refused(refused.refusal.to_string()),
        }
    });
}
