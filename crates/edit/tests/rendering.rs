//! The proof by kustomize 5: what can be rendered before an edit can be rendered after it, and differs in the intended
//! image, and in nothing else.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod proof;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use proof::{
    images::{self, Container, Want, wants},
    kustomize::{build, program},
    reader::{Meaning, Reading, join},
    run,
    tree::Tree,
};
use slipway_edit::{Edit, KUSTOMIZATION_NAMES, KustomizeImage, ManifestImage};

/// As many as there are cores on the smallest machine that runs the tests.
const AT_ONCE: usize = 2;

/// A placeholder for an object that the corpus lacks; its name follows.
const STAND_IN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ";
/// A transformer that changes nothing.
const LABELS: &str = "apiVersion: builtin\nkind: LabelTransformer\nmetadata:\n  name: stand-in\nlabels:\n  stand: in\nfieldSpecs: []\n";

/// A component cannot be rendered alone; these overlays use them as their authors meant it. Below `overlays/`.
const BASE: &str = "GoogleCloudPlatform__microservices-demo/kustomize/base";
const COMPONENTS: &str = "GoogleCloudPlatform__microservices-demo/kustomize/components";

fn kustomization(tree: &Tree, folder: &str) -> Option<String> {
    KUSTOMIZATION_NAMES
        .iter()
        .map(|name| format!("{folder}/{name}"))
        .find(|path| tree.0.contains_key(path))
}

fn folders(tree: &Tree) -> Vec<String> {
    tree.0
        .keys()
        .filter_map(|path| path.rsplit_once('/'))
        .filter(|(_, name)| KUSTOMIZATION_NAMES.contains(name))
        .map(|(folder, _)| folder.to_owned())
        .collect()
}

fn reading(text: &str) -> Reading {
    Reading::of(text).unwrap()
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

/// The strings of a list of a kustomization, by the place of the list, as paths from the root.
fn listed(reading: &Reading, folder: &str, list: &str) -> Vec<String> {
    (0..)
        .map_while(|number| reading.text(0, &format!("{list}/{number}")))
        .filter(|path| !path.contains("://"))
        .map(|path| normal(folder, path))
        .collect()
}

/// Files that kustomizations name and that the corpus, a selection, does not hold: an object, a text, a transformer
/// that does nothing. None of them holds an image.
fn stand_ins(tree: &Tree) -> Tree {
    let mut whole = tree.clone();
    for folder in folders(tree) {
        let path = kustomization(tree, &folder).unwrap();
        let reading = reading(&tree.0[&path]);
        let mut stand_in = |path: String, text: String| {
            if kustomization(tree, &path).is_none() {
                whole.0.entry(path).or_insert(text);
            }
        };
        for list in ["resources", "bases", "components"] {
            for path in listed(&reading, &folder, list) {
                let name = path
                    .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
                    .to_lowercase();
                stand_in(path, format!("{STAND_IN}{name}\n"));
            }
        }
        for path in listed(&reading, &folder, "transformers") {
            stand_in(path, LABELS.to_owned());
        }
        for number in 0..8 {
            for path in listed(&reading, &folder, &format!("configMapGenerator/{number}/files")) {
                stand_in(path, "stands in\n".to_owned());
            }
        }
    }
    whole
}

/// One overlay for each component, and one for the three that set images together.
fn overlays(tree: &Tree) -> Tree {
    let mut whole = tree.clone();
    let names: BTreeSet<&str> = tree
        .0
        .keys()
        .filter_map(|path| {
            path.strip_prefix(COMPONENTS)?
                .strip_prefix('/')?
                .split('/')
                .next()
        })
        .collect();
    let mut add = |overlay: &str, components: &[&str]| {
        let list: String = components
            .iter()
            .map(|name| format!("  - ../../{COMPONENTS}/{name}\n"))
            .collect();
        whole.0.insert(
            format!("overlays/{overlay}/kustomization.yaml"),
            format!("resources:\n  - ../../{BASE}\ncomponents:\n{list}"),
        );
    };
    for name in names {
        add(name, &[name]);
    }
    add(
        "images",
        &["container-images-tag-suffix", "container-images-registry"],
    );
    whole
}

/// Files that are put in place of others, and what the rendering of a folder is to come to.
struct Job {
    folder: String,
    files: BTreeMap<String, String>,
    what: String,
    expected: Reading,
    /// The expected images, by document and place.
    images: BTreeMap<(usize, String), String>,
}

/// Renders a folder of the tree; each worker has the whole tree for itself.
fn on_all_cores<T: Sync, R: Send>(tree: &Tree, work: &[T], one: impl Fn(&Path, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let root = tempfile::tempdir().unwrap();
                    tree.write(root.path());
                    let mut done = Vec::new();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = work.get(at) else { break done };
                        done.push((at, one(root.path(), job)));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Why a folder does not render untouched, without what differs from machine to machine.
fn why(error: &str) -> &'static str {
    let known = [
        ("no such file or directory", "a file is missing"),
        ("no resource matches strategic merge patch", "a component alone"),
        ("unable to find", "a component alone"),
        ("connect", "remote"),
        ("dial tcp", "remote"),
    ];
    let last = error
        .lines()
        .rfind(|line| line.starts_with("Error"))
        .unwrap_or(error);
    known
        .iter()
        .find(|(part, _)| last.contains(part))
        .map_or_else(|| panic!("kustomize says: {error}"), |(_, why)| why)
}

/// The renderings of all folders as they are, those that kustomize refuses by why.
fn renderings(tree: &Tree) -> (BTreeMap<String, Reading>, BTreeMap<&'static str, Vec<String>>) {
    let program = program();
    let folders = folders(tree);
    let built = on_all_cores(tree, &folders, |root, folder| build(&program, &root.join(folder)));
    let (mut rendered, mut skipped) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
    for (folder, built) in folders.into_iter().zip(built) {
        match built {
            Ok(text) => {
                rendered.insert(folder, reading(&text));
            }
            Err(error) => skipped.entry(why(&error)).or_default().push(folder),
        }
    }
    (rendered, skipped)
}

/// Renders what each job comes to and compares it, node by node.
fn check(tree: &Tree, jobs: &[Job]) {
    let program = program();
    on_all_cores(tree, jobs, |root, job| {
        for (path, text) in &job.files {
            std::fs::write(root.join(path), text).unwrap();
        }
        let built = build(&program, &root.join(&job.folder));
        for path in job.files.keys() {
            std::fs::write(root.join(path), &tree.0[path]).unwrap();
        }
        let text = built.unwrap_or_else(|error| panic!("{}: {}: {error}", job.folder, job.what));
        let now = reading(&text);
        assert_eq!(
            now.leaves.len(),
            job.expected.leaves.len(),
            "{}: {}",
            job.folder,
            job.what
        );
        for (old, new) in job.expected.leaves.iter().zip(&now.leaves) {
            let about = || format!("{}: {}: {}", job.folder, job.what, old.place);
            match job.images.get(&(old.document, old.place.clone())) {
                Some(image) => assert_eq!(new.text(), Some(image.as_str()), "{}", about()),
                None => assert_eq!(old, new, "{}", about()),
            }
        }
    });
}

/// Every combination of parts has its turn, without every image being rendered with every one of them.
struct Turns {
    wants: Vec<Want>,
    next: usize,
}

impl Turns {
    fn new() -> Self {
        Self {
            wants: wants(),
            next: 0,
        }
    }

    fn next(&mut self) -> Want {
        self.next += 1;
        self.wants[(self.next - 1) % self.wants.len()].clone()
    }
}

/// What of a rendering is to become what, where every container with an image of that name is meant.
fn meant<'a>(
    rendering: &Reading,
    name: &'a str,
    want: &'a Want,
    also: impl Fn(&Container) -> bool,
) -> BTreeMap<(usize, String), String> {
    images::containers(rendering)
        .into_iter()
        .filter(|container| container.image.name == name && also(container))
        .map(|container| {
            let to = want.of(&container.image).reference();
            ((container.document, container.place), to)
        })
        .collect()
}

fn set(tree: &Tree, folder: &str, name: &str, want: &Want) -> BTreeMap<String, String> {
    let edit = Edit::KustomizeImage(KustomizeImage::new(folder, name, want.to()).unwrap());
    run(&[edit], tree)
        .unwrap_or_else(|refused| panic!("{folder}: {name}: {refused}"))
        .files
}

/// An entry of a kustomization.
struct Entry {
    name: String,
    /// What a rendering says instead.
    to: String,
    suffix: String,
}

fn entries(tree: &Tree, folder: &str) -> Vec<Entry> {
    let reading = reading(&tree.0[&kustomization(tree, folder).unwrap()]);
    images::entries(&reading)
        .into_iter()
        .map(|entry| {
            let field = |key| reading.text(0, &join(&entry.place, key)).map(str::to_owned);
            Entry {
                to: field("newName").unwrap_or_else(|| entry.name.clone()),
                suffix: field("tagSuffix").unwrap_or_default(),
                name: entry.name,
            }
        })
        .collect()
}

/// Which folders there are, how many of them render, and why the others do not.
fn pin(tree: &Tree, what: &str, expected: (usize, &[(&str, usize)])) -> BTreeMap<String, Reading> {
    let (rendered, skipped) = renderings(tree);
    let skipped: Vec<(&str, usize)> = skipped
        .iter()
        .map(|(why, folders)| (*why, folders.len()))
        .collect();
    println!("{what}: {} rendered, skipped {skipped:?}", rendered.len());
    assert_eq!((rendered.len(), skipped.as_slice()), expected, "{what}");
    rendered
}

/// The corpus as it is: every folder that kustomize renders offline.
#[test]
fn setting_an_image_changes_the_rendering_by_that_image() {
    let tree = Tree::corpus();
    let rendered = pin(
        &tree,
        "as they are",
        (15, &[("a component alone", 10), ("a file is missing", 25)]),
    );
    prove_renderings(&tree, &rendered, "as they are", (124, 43));
}

/// The corpus with the files that its kustomizations name and that it does not hold, and with overlays that use its
/// components.
#[test]
fn setting_an_image_of_bases_and_components_too() {
    let tree = overlays(&stand_ins(&Tree::corpus()));
    let mut rendered = pin(
        &tree,
        "made whole",
        (55, &[("a component alone", 10), ("remote", 1)]),
    );
    // Those that render as they are have their proof above.
    let (before, _) = renderings(&Tree::corpus());
    rendered.retain(|folder, _| !before.contains_key(folder));
    prove_renderings(&tree, &rendered, "made whole", (122, 10));
}

/// Through the kustomization of each folder, through those that it builds on, and through their manifests.
fn prove_renderings(tree: &Tree, rendered: &BTreeMap<String, Reading>, what: &str, expected: (usize, usize)) {
    let mut turns = Turns::new();
    let (mut jobs, mut by_manifest) = (Vec::new(), 0);
    let mut proved: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (folder, rendering) in rendered {
        let names: BTreeSet<String> = images::containers(rendering)
            .into_iter()
            .map(|container| container.image.name)
            .collect();
        let own = entries(tree, folder);
        // All of these overlays have the one base, whose images have had their proof; two of them show that an entry
        // can be added on top of each component.
        let most = if folder.starts_with("overlays/") {
            2
        } else {
            usize::MAX
        };
        for name in names.iter().take(most) {
            let want = turns.next();
            // By the entry that makes this name, or by one that is added.
            let by = own
                .iter()
                .find(|entry| entry.to == *name)
                .map_or(name, |entry| &entry.name);
            jobs.push(Job {
                folder: folder.clone(),
                files: set(tree, folder, by, &want),
                what: format!("{by} by the kustomization: {want:?}"),
                expected: rendering.clone(),
                images: meant(rendering, name, &want, |_| true),
            });
        }
        let (mut files, mut below) = (BTreeSet::new(), BTreeSet::new());
        builds_on(tree, folder, &mut files, &mut below);
        let transformed: BTreeSet<String> = below
            .iter()
            .chain([folder])
            .flat_map(|folder| entries(tree, folder))
            .map(|entry| entry.name)
            .collect();
        for base in &below {
            for Entry { name, to, suffix } in entries(tree, base) {
                if names.contains(&to) {
                    let want = turns.next();
                    let mut images = meant(rendering, &to, &want, |_| true);
                    // kustomize goes over the images twice and adds a suffix each time that the name still fits: once
                    // where the name is a new one. A tag or a digest that is set takes the place of the suffix.
                    if !suffix.is_empty() && want.tag.is_empty() && want.digest.is_empty() {
                        for image in images.values_mut() {
                            image.truncate(image.strip_suffix(&suffix).unwrap().len());
                        }
                    }
                    jobs.push(Job {
                        folder: folder.clone(),
                        files: set(tree, base, &name, &want),
                        what: format!("{name} by {base}: {want:?}"),
                        expected: rendering.clone(),
                        images,
                    });
                }
            }
        }
        for file in files.iter().filter(|_| !folder.starts_with("overlays/")) {
            let manifest = reading(&tree.0[file]);
            for container in images::containers(&manifest) {
                // What a kustomization sets anyway is not taken from the manifest.
                let shown = images::containers(rendering).iter().any(|shown| {
                    shown.object == container.object
                        && shown.name == container.name
                        && shown.image == container.image
                });
                if transformed.contains(&container.image.name) || !shown {
                    continue;
                }
                // In the folder itself and in one that builds on it; more of them show nothing new.
                let times = proved.entry((file.clone(), container.place.clone())).or_insert(0);
                *times += 1;
                if *times > 2 {
                    continue;
                }
                let want = turns.next();
                let edit = ManifestImage::new(file, &container.object, &container.name, "", "", want.to());
                let edited = run(&[Edit::ManifestImage(edit.unwrap())], tree)
                    .unwrap_or_else(|refused| panic!("{file}: {refused}"));
                by_manifest += 1;
                jobs.push(Job {
                    folder: folder.clone(),
                    files: edited.files,
                    what: format!("{} of {file}: {want:?}", container.name),
                    expected: rendering.clone(),
                    images: meant(rendering, &container.image.name, &want, |shown| {
                        shown.object == container.object && shown.name == container.name
                    }),
                });
            }
        }
    }
    for job in &jobs {
        assert!(
            !job.images.is_empty() && !job.files.is_empty(),
            "{}: {}",
            job.folder,
            job.what
        );
    }
    check(tree, &jobs);
    println!(
        "{what}: {} renderings compared, {by_manifest} of them after an edit of a manifest",
        jobs.len()
    );
    assert_eq!((jobs.len(), by_manifest), expected, "{what}");
}

/// The manifests and the kustomizations below a folder.
fn builds_on(tree: &Tree, folder: &str, files: &mut BTreeSet<String>, folders: &mut BTreeSet<String>) {
    let reading = reading(&tree.0[&kustomization(tree, folder).unwrap()]);
    for list in ["resources", "bases", "components"] {
        for path in listed(&reading, folder, list) {
            if tree.0.contains_key(&path) {
                files.insert(path);
            } else if kustomization(tree, &path).is_some() {
                builds_on(tree, &path, files, folders);
                folders.insert(path);
            }
        }
    }
}

/// What another reader takes for a list or a mapping is one; so the comparison above does not compare nothing.
#[test]
fn renderings_are_read_whole() {
    let tree = Tree::corpus();
    let root = tempfile::tempdir().unwrap();
    tree.write(root.path());
    let text = build(&program(), &root.path().join(BASE)).unwrap();
    let reading = reading(&text);
    let lines = text.lines().filter(|line| line.trim_start() != "---").count();
    let scalars = reading
        .leaves
        .iter()
        .filter(|leaf| matches!(leaf.meaning, Meaning::Text(_) | Meaning::Other(_)))
        .count();
    assert_eq!(
        (lines, reading.documents(), images::containers(&reading).len()),
        (912, 35, 13)
    );
    assert!(scalars > lines, "{scalars} keys and values in {lines} lines");
}
