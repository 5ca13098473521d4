//! The proof on real files: every image of every file of the corpus, set in every way. Only what has to change does,
//! and undoing it restores the original bytes; anything else is refused. Renderings are in `rendering.rs`.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod proof;

use std::collections::{BTreeMap, BTreeSet};

use proof::{
    Expected,
    images::{self, DIGEST, Want, containers_expected, entry_expected, value_expected, want, wants},
    prove,
    reader::{Reading, join},
    run,
    tree::Tree,
};
use slipway_edit::{
    Edit, HelmImage, HelmPlace, KUSTOMIZATION_NAMES, KustomizeImage, ManifestImage, ManifestPlace, Place,
    Refusal, Refused,
};

fn is_kustomization(path: &str) -> bool {
    KUSTOMIZATION_NAMES
        .iter()
        .any(|name| path.ends_with(&format!("/{name}")))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

fn reading(tree: &Tree, path: &str) -> Reading {
    Reading::of(&tree.0[path]).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The corpus holds no file twice and nothing that another reader cannot read, so no image is overlooked.
#[test]
fn every_file_is_read_and_its_images_are_known() {
    let tree = Tree::corpus();
    let (mut entries, mut containers, mut mappings, mut texts, mut without) = (0, 0, 0, 0, 0);
    for path in tree.0.keys() {
        let reading = reading(&tree, path);
        let (listed, held) = (
            images::entries(&reading).len(),
            images::containers(&reading).len(),
        );
        let values = images::values(&reading);
        let in_mappings = values.iter().filter(|value| value.mapping).count();
        entries += listed;
        containers += held;
        mappings += in_mappings;
        texts += values.len() - in_mappings;
        without += usize::from(listed + held + values.len() == 0);
        // Whatever else is called an image is none: a policy, secrets, the `images` of a kustomization.
        for leaf in reading.leaves.iter().filter(|leaf| leaf.key() == "image") {
            let known = images::containers(&reading)
                .iter()
                .map(|container| &container.place)
                .chain(values.iter().map(|value| &value.place))
                .any(|place| *place == leaf.place);
            assert!(known, "{path}: {leaf:?}");
        }
    }
    println!(
        "{} files: {entries} entries of kustomizations, {containers} containers, {mappings} mappings and {texts} strings \
         among values; {without} files without an image",
        tree.0.len()
    );
    assert_eq!(
        (tree.0.len(), entries, containers, mappings, texts, without),
        (143, 35, 44, 10, 1, 92)
    );
}

/// Edits that were done and that were refused, by why.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    images: usize,
    edits: usize,
    refused: BTreeMap<String, usize>,
}

impl Counts {
    fn count(&mut self, outcome: Result<(), &Refused>) {
        match outcome {
            Ok(()) => self.edits += 1,
            Err(refused) => *self.refused.entry(kind_of(refused)).or_default() += 1,
        }
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} images, {} edits, refused {:?}",
            self.images, self.edits, self.refused
        );
    }
}

fn kind_of(refused: &Refused) -> String {
    match &refused.refusal {
        Refusal::FileNotFound(_) => "file not found",
        Refusal::NotAFile(_) => "not a file",
        Refusal::NotYaml { .. } => "not YAML",
        Refusal::ImageNotFound(_) => "image not found",
        Refusal::Shared { .. } => "shared",
        Refusal::Unsafe { .. } => "unsafe",
        Refusal::ChangedSince { .. } => "changed since",
    }
    .to_owned()
}

fn kustomize(path: &str, name: &str, want: &Want) -> Edit {
    Edit::KustomizeImage(KustomizeImage::new(folder_of(path), name, want.to()).unwrap())
}

#[test]
fn entries_of_kustomizations() {
    let tree = Tree::corpus();
    let mut counts = Counts::default();
    for path in tree.0.keys().filter(|path| is_kustomization(path)) {
        let reading = reading(&tree, path);
        for entry in images::entries(&reading) {
            counts.images += 1;
            for want in wants() {
                let expected = entry_expected(Expected::new(), &entry.place, &want);
                let done = prove(&tree, &kustomize(path, &entry.name, &want), path, &expected);
                done.unwrap_or_else(|refused| panic!("{path}: {want:?}: {refused}"));
                counts.count(Ok(()));
            }
        }
        // What `read` finds is what is there.
        let found = slipway_edit::read(&Place::Kustomization(folder_of(path).parse().unwrap()), &tree)
            .unwrap()
            .unwrap();
        let listed = images::entries(&reading);
        assert_eq!(found.len(), listed.len(), "{path}");
        for (found, entry) in found.iter().zip(&listed) {
            let text = |key| reading.text(0, &join(&entry.place, key)).unwrap_or_default();
            assert_eq!(found.name, entry.name);
            assert_eq!(found.file, *path);
            assert_eq!(found.image.tag, text("newTag"), "{path}");
            assert_eq!(found.image.digest, text("digest"), "{path}");
            if !text("newName").is_empty() {
                assert_eq!(found.image.name, text("newName"), "{path}");
            }
            let lines = [&entry.place, &join(&entry.place, "name")]
                .map(|place| reading.get(0, place).unwrap().line + 1);
            assert!(lines.contains(&found.line), "{path}: {found:?} {lines:?}");
        }
    }
    counts.print("entries of kustomizations");
    assert_eq!(
        counts,
        Counts {
            images: 35,
            edits: 350,
            refused: BTreeMap::new()
        }
    );
}

/// The files that a kustomization builds on, as far as the corpus has them, and whether it has all of them.
fn builds_on(tree: &Tree, path: &str, files: &mut BTreeSet<String>) -> bool {
    let mut whole = true;
    let reading = reading(tree, path);
    for list in ["resources", "bases", "components"] {
        for number in 0.. {
            let Some(leaf) = reading.get(0, &format!("{list}/{number}")) else {
                break;
            };
            let at = normal(folder_of(path), leaf.text().unwrap());
            if tree.0.contains_key(&at) {
                files.insert(at);
            } else if let Some(below) = KUSTOMIZATION_NAMES
                .iter()
                .map(|name| format!("{at}/{name}"))
                .find(|below| tree.0.contains_key(below))
            {
                whole &= builds_on(tree, &below, files);
            } else {
                whole = false;
            }
        }
    }
    whole
}

fn normal(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in relative.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What a kustomization builds on uses an image that it does not list: an entry is added.
#[test]
fn entries_that_are_added() {
    let tree = Tree::corpus();
    let mut counts = Counts::default();
    for path in tree.0.keys().filter(|path| is_kustomization(path)) {
        let here = reading(&tree, path);
        let listed = images::entries(&here);
        let mut files = BTreeSet::new();
        builds_on(&tree, path, &mut files);
        // No kustomization of the corpus renames what another one builds on, so the names are those of the manifests.
        let names: BTreeSet<String> = files
            .iter()
            .flat_map(|file| images::containers(&reading(&tree, file)))
            .map(|container| container.image.name)
            .filter(|name| listed.iter().all(|entry| entry.name != *name))
            .collect();
        for name in names {
            counts.images += 1;
            for want in wants().into_iter().skip(counts.images % 3).step_by(3) {
                let place = format!("images/{}", listed.len());
                let expected = Expected::new().shape(0, "images").shape(0, &place).value(
                    0,
                    join(&place, "name"),
                    Some(&name),
                );
                let expected = entry_expected(expected, &place, &want);
                match prove(&tree, &kustomize(path, &name, &want), path, &expected) {
                    Ok(_) => counts.count(Ok(())),
                    Err(refused) => {
                        println!("{path}: {name}: {refused}");
                        counts.count(Err(&refused));
                    }
                }
            }
        }
    }
    counts.print("entries that are added");
    assert_eq!(
        counts,
        Counts {
            images: 112,
            edits: 373,
            refused: BTreeMap::new()
        }
    );
}

/// An image that nothing uses is not added; what cannot be known is refused.
#[test]
fn an_image_that_nothing_uses_is_refused() {
    let tree = Tree::corpus();
    let (mut whole, mut partial) = (Counts::default(), Counts::default());
    for path in tree.0.keys().filter(|path| is_kustomization(path)) {
        let all = builds_on(&tree, path, &mut BTreeSet::new());
        let counts = if all { &mut whole } else { &mut partial };
        let edit = kustomize(path, "r.example/nobody", &want("", "v2", ""));
        // What a Component is included in is not known.
        let component = tree.0[path].contains("\nkind: Component\n");
        let outcome = run(&[edit], &tree);
        assert_eq!(outcome.is_ok(), component, "{path}");
        let Err(refused) = outcome else { continue };
        counts.images += 1;
        counts.count(Err(&refused));
        println!("{refused}");
    }
    whole.print("whole");
    partial.print("partial");
    let pinned = |images, kind: &str| Counts {
        images,
        edits: 0,
        refused: BTreeMap::from([(kind.to_owned(), images)]),
    };
    // Fifteen more are Components.
    assert_eq!(whole, pinned(10, "image not found"));
    assert_eq!(partial, pinned(25, "image not found"));
}

fn manifest(path: &str, object: &str, container: &str, image: &str, want: &Want) -> Edit {
    Edit::ManifestImage(ManifestImage::new(path, object, container, image, "", want.to()).unwrap())
}

#[test]
fn containers_of_manifests() {
    let tree = Tree::corpus();
    let (mut counts, mut files) = (Counts::default(), 0);
    for path in tree.0.keys() {
        let containers = images::containers(&reading(&tree, path));
        files += usize::from(!containers.is_empty());
        for one in &containers {
            counts.images += 1;
            for (turn, want) in wants().into_iter().enumerate() {
                // By object and container, by container alone, by image alone, by all three.
                for (object, container, image) in [
                    (one.object.as_str(), one.name.as_str(), ""),
                    ("", &one.name, ""),
                    ("", "", &one.image.name),
                    (&one.object, &one.name, &one.image.name),
                ] {
                    let meant = containers.iter().filter(|other| {
                        (object.is_empty() || other.object == object)
                            && (container.is_empty() || other.name == container)
                            && (image.is_empty() || other.image.name == image)
                    });
                    let expected = containers_expected(meant, &want);
                    let edit = manifest(path, object, container, image, &want);
                    // All parts in every combination by one of these, some by the others.
                    if turn % 4 != counts.images % 4 && (object.is_empty() || !image.is_empty()) {
                        continue;
                    }
                    // The second time, the image no longer has the name by which it was found.
                    if !image.is_empty() && !want.name.is_empty() {
                        continue;
                    }
                    prove(&tree, &edit, path, &expected)
                        .unwrap_or_else(|refused| panic!("{edit:?}: {refused}"));
                    counts.count(Ok(()));
                }
            }
        }
        if containers.is_empty() {
            continue;
        }
        let place = Place::Manifest(ManifestPlace::new(path, "", "", "").unwrap());
        let found: Vec<_> = slipway_edit::read(&place, &tree)
            .unwrap()
            .unwrap()
            .into_iter()
            .map(|found| (found.name, found.image.to_string(), found.file, found.line))
            .collect();
        let stand: Vec<_> = containers
            .iter()
            .map(|one| {
                (
                    one.image.name.clone(),
                    one.image.reference(),
                    path.clone(),
                    one.line,
                )
            })
            .collect();
        assert_eq!(found, stand, "{path}");
    }
    println!("{files} files");
    counts.print("containers of manifests");
    assert_eq!(
        (files, counts),
        (
            39,
            Counts {
                images: 44,
                edits: 682,
                refused: BTreeMap::new()
            }
        )
    );
}

fn helm(path: &str, at: &str, document: &str, want: &Want) -> Edit {
    Edit::HelmImage(HelmImage::new(path, at, document, want.to()).unwrap())
}

#[test]
fn images_among_values() {
    let tree = Tree::corpus();
    let (mut counts, mut files) = (Counts::default(), 0);
    for path in tree.0.keys() {
        let reading = reading(&tree, path);
        let values = images::values(&reading);
        files += usize::from(!values.is_empty());
        for value in &values {
            counts.images += 1;
            let at = images::path(&reading, value.document, &value.place);
            let document = reading.name_of(value.document);
            for want in wants() {
                for document in ["", &document] {
                    let edit = helm(path, &at, document, &want);
                    let expected = value_expected(&reading, value, &want);
                    match (
                        prove(&tree, &edit, path, &expected.clone().unwrap_or_default()),
                        expected,
                    ) {
                        (Ok(_), Some(_)) => counts.count(Ok(())),
                        (Err(refused), None) => counts.count(Err(&refused)),
                        (done, expected) => panic!("{edit:?}: {done:?}, expected {expected:?}"),
                    }
                }
            }
            if !value.mapping {
                continue;
            }
            // A path that ends in one part means that part.
            for (key, want) in [
                ("tag", want("", "1234567", "")),
                ("tag", want("", "v2", "")),
                ("repository", want("r.example:5000/team/x", "", "")),
            ] {
                let to = if want.tag.is_empty() {
                    &want.name
                } else {
                    &want.tag
                };
                let expected = Expected::new().value(value.document, join(&value.place, key), Some(to));
                let edit = helm(path, &format!("{at}.{key}"), "", &want);
                prove(&tree, &edit, path, &expected).unwrap_or_else(|refused| panic!("{edit:?}: {refused}"));
                counts.count(Ok(()));
            }
            let place = Place::Helm(HelmPlace::new(path, &at, "").unwrap());
            let found = slipway_edit::read(&place, &tree).unwrap().unwrap();
            let text = |key| reading.text(value.document, &join(&value.place, key)).unwrap();
            let [found] = found.as_slice() else {
                panic!("{path}: {at}: {found:?}");
            };
            assert_eq!(found.name, at);
            assert_eq!(
                (found.image.name.as_str(), found.image.tag.as_str()),
                (text("repository"), text("tag"))
            );
        }
    }
    println!("{files} files");
    counts.print("images among values");
    assert_eq!(
        (files, counts),
        (
            8,
            Counts {
                images: 11,
                edits: 246,
                // A digest alone, where the chart's own version is the tag: there is nothing to put it behind.
                refused: BTreeMap::from([("unsafe".to_owned(), 4)])
            }
        )
    );
}

/// No edit makes an image up where there is none.
#[test]
fn files_without_images_are_refused() {
    let tree = Tree::corpus();
    let mut counts = Counts::default();
    let want = want("", "v2", DIGEST);
    for path in tree.0.keys() {
        let reading = reading(&tree, path);
        let mut edits = Vec::new();
        if images::containers(&reading).is_empty() {
            edits.push(manifest(path, "", "", "r.example/nobody", &want));
            edits.push(manifest(path, "", "app", "", &want));
        }
        if images::values(&reading).is_empty() {
            edits.push(helm(path, "image", "", &want));
            edits.push(helm(path, "image.tag", "", &want));
        }
        for edit in edits {
            match run(std::slice::from_ref(&edit), &tree) {
                Ok(edited) => panic!("{edit:?}: {edited:?}"),
                Err(refused) => counts.count(Err(&refused)),
            }
        }
    }
    counts.print("files without images");
    assert_eq!(
        counts.refused,
        BTreeMap::from([("image not found".to_owned(), 478)])
    );
}
