//! Properties of edits over generated YAML: whatever the text looks like, an edit changes the intended value and
//! nothing else, or it is refused.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod proof;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use proof::{
    Expected,
    hold::{Outcome, dice, hold, tags, wanted},
    images::{self, Want, containers_expected, entry_expected, value_expected},
    kustomize::{build, program},
    lines, prove,
    reader::{Meaning, Reading, is_text, join},
    run,
    tree::Tree,
    written,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use slipway_edit::{Edit, Edited, HelmImage, KustomizeImage, ManifestImage, Refusal, Refused};

const KUSTOMIZATION: &str = "app/kustomization.yaml";
const FILE: &str = "app/file.yaml";
/// What the kustomization builds on; it uses an image that no entry has.
const DEPLOY: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  template:\n    spec:\n      \
                      containers:\n      - name: web\n        image: r.example/unlisted:v0\n";
const UNLISTED: &str = "r.example/unlisted";

fn read(text: &str) -> Option<Reading> {
    Reading::of(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

/// A refusal says where and why. What another reader finds is never missing.
fn refused(refused: &Refused, text: &str) -> Outcome {
    match &refused.refusal {
        Refusal::Unsafe { line, reason } => {
            let lines = text.lines().count();
            assert!(
                (1..=lines).contains(line),
                "line {line} of {lines}: {refused}\n{text}"
            );
            assert!(!reason.is_empty());
            Outcome::Refused(reason.clone())
        }
        Refusal::Shared { line, others } => {
            let lines = text.lines().count();
            assert!(
                (1..=lines).contains(line),
                "line {line} of {lines}: {refused}\n{text}"
            );
            assert!(!others.is_empty());
            Outcome::Refused("shared".to_owned())
        }
        _ => panic!("{refused}\n{text}"),
    }
}

/// An edit of one text, and what it is to come to.
struct Case {
    tree: Tree,
    file: &'static str,
    edit: Edit,
    /// `None` if it has to be refused.
    expected: Option<Expected>,
}

impl Case {
    fn prove(&self) -> Outcome {
        let expected = self.expected.clone().unwrap_or_default();
        match prove(&self.tree, &self.edit, self.file, &expected) {
            Ok(edited) => {
                assert!(
                    self.expected.is_some(),
                    "{:?}: {edited:?}\n{}",
                    self.edit,
                    self.tree.0[self.file]
                );
                Outcome::Done
            }
            Err(why) if self.expected.is_none() => Outcome::Refused(why.refusal.to_string()),
            Err(why) => refused(&why, &self.tree.0[self.file]),
        }
    }
}

fn kustomization_tree(text: &str) -> Tree {
    let mut tree = Tree::of(KUSTOMIZATION, text);
    tree.0.insert("app/deploy.yaml".to_owned(), DEPLOY.to_owned());
    tree
}

fn kustomization_case(text: &str, which: usize, want: &Want) -> Option<Case> {
    let reading = read(text)?;
    let entries = images::entries(&reading);
    let edit = |name: &str| Edit::KustomizeImage(KustomizeImage::new("app", name, want.to()).unwrap());
    let (name, expected) = match entries.get(which % (entries.len() + 1)) {
        Some(entry) => {
            let expected = entry_expected(Expected::new(), &entry.place, want);
            // Where fields come or go, their lines do; else each value changes where it stands.
            let stays = expected.values.iter().all(|((document, place), value)| {
                reading
                    .scalar(*document, place)
                    .is_some_and(|text| !text.is_empty())
                    && value.is_some()
            });
            let expected = if stays {
                expected
            } else {
                expected.near(0, &entry.place)
            };
            (entry.name.clone(), expected)
        }
        None => {
            let place = format!("images/{}", entries.len());
            let expected = Expected::new()
                .shape(0, "images")
                .shape(0, &place)
                .value(0, join(&place, "name"), Some(UNLISTED))
                .near(0, "images");
            (UNLISTED.to_owned(), entry_expected(expected, &place, want))
        }
    };
    Some(Case {
        tree: kustomization_tree(text),
        file: KUSTOMIZATION,
        edit: edit(&name),
        expected: Some(expected),
    })
}

fn values_case(text: &str, which: usize, want: &Want) -> Option<Case> {
    let reading = read(text)?;
    let values = images::values(&reading);
    let value = values.get(which % values.len().max(1))?;
    let at = images::path(&reading, value.document, &value.place);
    let edit = Edit::HelmImage(HelmImage::new(FILE, &at, "", want.to()).unwrap());
    Some(Case {
        tree: Tree::of(FILE, text),
        file: FILE,
        edit,
        expected: value_expected(&reading, value, want),
    })
}

fn manifest_case(text: &str, which: usize, want: &Want) -> Option<Case> {
    let reading = read(text)?;
    let containers = images::containers(&reading);
    let one = containers.get(which % containers.len().max(1))?;
    // By object and container; or by the image, which is no longer found once it has another name.
    let by_image = which % 2 == 1 && want.name.is_empty();
    let meant = containers.iter().filter(|other| {
        if by_image {
            other.image.name == one.image.name
        } else {
            other.object == one.object && other.name == one.name
        }
    });
    let edit = if by_image {
        ManifestImage::new(FILE, "", "", &one.image.name, "", want.to())
    } else {
        ManifestImage::new(FILE, &one.object, &one.name, "", "", want.to())
    };
    Some(Case {
        tree: Tree::of(FILE, text),
        file: FILE,
        edit: Edit::ManifestImage(edit.unwrap()),
        expected: Some(containers_expected(meant, want)),
    })
}

fn proved(case: Option<Case>) -> Outcome {
    case.map_or(Outcome::Nothing, |case| case.prove())
}

#[test]
fn kustomizations_keep_everything_else() {
    hold(
        "kustomizations",
        300,
        90,
        &(dice(), 0..4_usize, wanted()),
        |(dice, which, want)| proved(kustomization_case(&written::kustomization(&dice), which, &want)),
    );
}

#[test]
fn values_keep_everything_else() {
    hold(
        "values",
        300,
        80,
        &(dice(), 0..4_usize, wanted()),
        |(dice, which, want)| proved(values_case(&written::values(&dice), which, &want)),
    );
}

#[test]
fn manifests_keep_everything_else() {
    hold(
        "manifests",
        300,
        90,
        &(dice(), 0..6_usize, wanted()),
        |(dice, which, want)| proved(manifest_case(&written::manifests(&dice), which, &want)),
    );
}

/// What is generated is YAML to the other reader too, or the properties say nothing.
#[test]
fn generated_texts_are_yaml() {
    let strategy = (dice(), 0..3_usize);
    hold("texts", 500, 95, &strategy, |(dice, kind)| {
        let text = [written::kustomization, written::values, written::manifests][kind](&dice);
        if read(&text).is_some() {
            Outcome::Done
        } else {
            Outcome::Nothing
        }
    });
}

fn undo(tree: &Tree, edited: &Edited) -> Tree {
    let undo: Vec<Edit> = edited
        .differences
        .iter()
        .rev()
        .filter_map(|difference| Edit::undoing(difference, false))
        .collect();
    let back = run(&undo, tree).unwrap_or_else(|refused| panic!("{refused}\n{edited:?}\n{tree:?}"));
    tree.with(&back.files)
}

/// Edits one after the other, then put back from the last to the first; and the same edits as one change.
#[test]
fn sequences_are_undone_in_reverse() {
    let edits = proptest::collection::vec((0..3_usize, 0..6_usize, wanted()), 1..7);
    hold(
        "sequences",
        100,
        90,
        &((dice(), dice(), dice()), edits),
        |((a, b, c), edits)| {
            let texts = [
                written::kustomization(&a),
                written::values(&b),
                written::manifests(&c),
            ];
            let mut first = kustomization_tree(&texts[0]);
            let paths = [KUSTOMIZATION, "app/values.yaml", "app/manifests.yaml"];
            for (path, text) in paths.iter().zip(&texts) {
                first.0.insert((*path).to_owned(), text.clone());
            }
            let (mut tree, mut steps, mut all) = (first.clone(), Vec::new(), Vec::new());
            for (kind, which, want) in edits {
                let text = &tree.0[paths[kind]];
                let case = match kind {
                    0 => kustomization_case(text, which, &want),
                    1 => values_case(text, which, &want),
                    _ => manifest_case(text, which, &want),
                };
                let edit = match case.map(|case| case.edit) {
                    Some(Edit::HelmImage(edit)) => Edit::HelmImage(HelmImage {
                        file: paths[1].parse().unwrap(),
                        ..edit
                    }),
                    Some(Edit::ManifestImage(edit)) => Edit::ManifestImage(ManifestImage {
                        file: paths[2].parse().unwrap(),
                        ..edit
                    }),
                    Some(edit) => edit,
                    None => continue,
                };
                if let Ok(edited) = run(std::slice::from_ref(&edit), &tree) {
                    let next = tree.with(&edited.files);
                    steps.push((tree, edited));
                    all.push(edit);
                    tree = next;
                }
            }
            let together = run(&all, &first).unwrap_or_else(|refused| panic!("together: {refused}\n{all:?}"));
            assert_eq!(first.with(&together.files), tree, "together and one by one");
            assert_eq!(undo(&tree, &together), first, "undone together: {all:?}");
            for (before, edited) in steps.iter().rev() {
                tree = undo(&tree, edited);
                assert_eq!(tree, *before, "undone one by one: {edited:?}");
            }
            Outcome::Done
        },
    );
}

/// Corrupted texts: characters inserted, removed and doubled, lines moved.
fn broken() -> impl Strategy<Value = String> {
    const PIECES: [&str; 34] = [
        "#",
        ":",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "- ",
        "? ",
        "&a ",
        "*a",
        "*a1",
        "<<: *a1\n",
        "!!str ",
        "!x ",
        "|",
        ">-\n",
        "'",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "\u{feff}",
        "\u{85}",
        "é",
        "\0",
        "images:\n",
        "image: x\n",
        "\\",
    ];
    let cuts = proptest::collection::vec((any::<u16>(), 0..PIECES.len() + 3), 0..4);
    (dice(), 0..3_usize, cuts).prop_map(|(dice, kind, cuts)| {
        let mut text = [written::kustomization, written::values, written::manifests][kind](&dice);
        for (at, what) in cuts {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let Some(at) = places.get(usize::from(at) % places.len().max(1)).copied() else {
                break;
            };
            match PIECES.get(what) {
                Some(piece) => text.insert_str(at, piece),
                None if what % 2 == 0 => {
                    text.remove(at);
                }
                None => {
                    let line: String = text[at..].split_inclusive('\n').take(1).collect();
                    text.insert_str(at, &line);
                }
            }
        }
        text
    })
}

/// Every edit that might fit, whatever another reader finds.
fn any_edits(want: &Want) -> Vec<(&'static str, Edit)> {
    let kustomize = |name| Edit::KustomizeImage(KustomizeImage::new("app", name, want.to()).unwrap());
    let helm = |path| Edit::HelmImage(HelmImage::new(FILE, path, "", want.to()).unwrap());
    let manifest = |object, container, image, field| {
        let edit = ManifestImage::new(FILE, object, container, image, field, want.to());
        Edit::ManifestImage(edit.unwrap())
    };
    let mut edits = Vec::new();
    edits.extend(written::NAMES.iter().map(|name| (KUSTOMIZATION, kustomize(name))));
    edits.push((KUSTOMIZATION, kustomize(UNLISTED)));
    for path in [
        "image",
        "image.tag",
        "frontend.image",
        "workers[name=mail].image",
        "workers[0].image",
    ] {
        edits.push((FILE, helm(path)));
    }
    edits.push((FILE, manifest("", "web", "", "")));
    edits.push((FILE, manifest("", "", "app", "")));
    edits.push((FILE, manifest("Deployment/object-0", "side", "", "")));
    edits.push((FILE, manifest("", "", "", "spec.image")));
    edits
}

/// What holds even if the meaning of the text is unknown: no panic; the lines that differ are few; if another reader
/// can read both texts, few values differ, and only as intended; undoing and repeating work as always.
fn holds_anyway(text: &str, file: &str, edit: &Edit, want: &Want) -> Outcome {
    let mut tree = kustomization_tree(text);
    tree.0.insert(FILE.to_owned(), text.to_owned());
    let edited = match run(std::slice::from_ref(edit), &tree) {
        Ok(edited) => edited,
        Err(refused) => return Outcome::Refused(refused.refusal.to_string()),
    };
    let about = || {
        format!(
            "{edit:?}\n--- before\n{text}\n--- after\n{:?}",
            edited.files.get(file)
        )
    };
    let changed = tree.with(&edited.files);
    let after = &changed.0[file];
    let lines = lines::difference(text, after);
    let most = 30;
    assert!(
        lines.gone.len() <= most && lines.come.len() <= most,
        "{lines:?}\n{}",
        about()
    );
    assert_eq!(undo(&changed, &edited), tree, "putting it back\n{}", about());
    let again = run(std::slice::from_ref(edit), &changed);
    match again {
        Ok(again) => assert!(again.files.is_empty(), "the second time\n{}", about()),
        // By an image's name, it is no longer found.
        Err(refused) => assert!(
            !want.name.is_empty() && matches!(refused.refusal, Refusal::ImageNotFound(_)),
            "the second time: {refused}\n{}",
            about()
        ),
    }
    // The port of libyaml panics on some broken texts.
    let both = catch_unwind(AssertUnwindSafe(|| Some((read(text)?, read(after)?))));
    let Ok(Some((was, is))) = both else {
        return Outcome::Done;
    };
    let ours = |place: &str| {
        let key = place.strip_suffix(':').unwrap_or(place);
        let key = key.rsplit('/').next().unwrap_or_default();
        let part = [
            "image",
            "newName",
            "newTag",
            "digest",
            "tag",
            "repository",
            "registry",
        ]
        .contains(&key);
        part || place.starts_with("images")
    };
    let others = |reading: &Reading| -> Vec<(usize, String, Meaning)> {
        let leaves = reading.leaves.iter().filter(|leaf| !ours(&leaf.place));
        leaves
            .map(|leaf| (leaf.document, leaf.place.clone(), leaf.meaning.clone()))
            .collect()
    };
    assert_eq!(others(&was), others(&is), "{}", about());
    Outcome::Done
}

/// Tries all of them; done where one was.
fn holds_for_any_edit(text: &str, want: &Want) -> Outcome {
    let mut outcome = Outcome::Nothing;
    for (file, edit) in any_edits(want) {
        match (holds_anyway(text, file, &edit, want), &outcome) {
            (_, Outcome::Done) => {}
            (now, _) => outcome = now,
        }
    }
    outcome
}

#[test]
fn broken_texts_are_edited_as_safely_or_refused() {
    hold("broken texts", 200, 15, &(broken(), wanted()), |(text, want)| {
        holds_for_any_edit(&text, &want)
    });
}

#[test]
fn any_text_is_edited_or_refused() {
    let strategy = (
        "(\\PC|[\n\t :#&*!|>'\"{}\\[\\],-]|image|images|name|app|: |\n- |\n  ){0,60}",
        wanted(),
    );
    hold("any text", 300, 0, &strategy, |(text, want)| {
        holds_for_any_edit(&text, &want)
    });
}

/// kustomize, whose YAML is go-yaml's, reads every tag as the text that was asked for.
#[test]
fn kustomize_reads_every_tag_as_it_was_meant() {
    const MANY: usize = 400;
    let mut runner = TestRunner::deterministic();
    let mut all: BTreeSet<String> = BTreeSet::new();
    while all.len() < MANY {
        all.insert(tags().new_tree(&mut runner).unwrap().current());
    }
    let quoted = all.iter().filter(|tag| !is_text(tag)).count();
    assert!(quoted > MANY / 4, "{quoted} of the tags are no strings to YAML");
    let mut tree = Tree::default();
    let mut deployment = DEPLOY[..DEPLOY.find("      - name").unwrap()].to_owned();
    let (mut listed, mut edits) = ("images:\n".to_owned(), Vec::new());
    for (number, tag) in all.iter().enumerate() {
        deployment.push_str(&format!(
            "      - name: c{number}\n        image: app-{number}:v0\n"
        ));
        // Some entries have a tag, some do not, some have to be added.
        match number % 4 {
            0 => listed.push_str(&format!("- name: app-{number}\n  newTag: v1\n")),
            1 => listed.push_str(&format!("- name: app-{number}\n")),
            2 => listed.push_str(&format!("- {{name: app-{number}, newTag: v1}}\n")),
            _ => {}
        }
        let to = images::want("", tag, "").to();
        let edit = KustomizeImage::new("app", &format!("app-{number}"), to);
        edits.push(Edit::KustomizeImage(edit.unwrap()));
    }
    tree.0.insert("app/deploy.yaml".to_owned(), deployment);
    tree.0.insert(
        KUSTOMIZATION.to_owned(),
        format!("resources:\n- deploy.yaml\n{listed}"),
    );
    let edited = run(&edits, &tree).unwrap_or_else(|refused| panic!("{refused}"));
    let root = tempfile::tempdir().unwrap();
    tree.with(&edited.files).write(root.path());
    let rendering = build(&program(), &root.path().join("app")).unwrap_or_else(|error| panic!("{error}"));
    let stand: BTreeMap<String, String> = images::containers(&Reading::of(&rendering).unwrap())
        .into_iter()
        .map(|container| (container.image.name, container.image.tag))
        .collect();
    let wanted: BTreeMap<String, String> = all
        .into_iter()
        .enumerate()
        .map(|(number, tag)| (format!("app-{number}"), tag))
        .collect();
    assert_eq!(stand, wanted);
}
