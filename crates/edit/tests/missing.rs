//! Images that are added to files of values which have none, and taken out again.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, HelmImage, HelmPlace, Place, Refusal, read};

#[path = "support/tree.rs"]
mod tree;
#[path = "support/undone.rs"]
mod undone;
use tree::{Apply, FILE, tree};
use undone::{DIGEST, apply, helm};

fn adding(path: &str, reference: &str) -> Edit {
    Edit::HelmImage(HelmImage {
        add_missing: true,
        ..helm(path, reference)
    })
}

#[test]
fn the_image_is_added_in_the_style_of_the_file() {
    let both = "image:\n  repository: r/app\n  tag: v2\n";
    for (path, reference, before, after) in [
        (
            "image",
            "r/app:v2",
            "replicas: 3\nresources: {}\n",
            format!("replicas: 3\nresources: {{}}\n{both}"),
        ),
        // Nothing is written yet.
        ("image", "r/app:v2", "", both.to_owned()),
        ("image", "r/app:v2", "\n", format!("\n{both}")),
        ("image", "r/app:v2", "# c\n\n", format!("# c\n\n{both}")),
        ("image", "r/app:v2", "# c", format!("# c\n{}", both.trim_end())),
        ("image", "r/app:v2", "---\n", format!("---\n{both}")),
        (
            "image",
            "r/app:v2",
            "{}\n",
            "{image: {repository: r/app, tag: v2}}\n".to_owned(),
        ),
        // Only a tag, and a path that ends in it.
        ("image", ":v2", "a: 1\n", "a: 1\nimage:\n  tag: v2\n".to_owned()),
        (
            "image.tag",
            ":v2",
            "a: 1\n",
            "a: 1\nimage:\n  tag: v2\n".to_owned(),
        ),
        (
            "image.version",
            ":v2",
            "a: 1\n",
            "a: 1\nimage:\n  version: v2\n".to_owned(),
        ),
        (
            "web.imageTag",
            ":1.10",
            "a: 1\n",
            "a: 1\nweb:\n  imageTag: \"1.10\"\n".to_owned(),
        ),
        ("tag", ":v2", "a: 1\n", "a: 1\ntag: v2\n".to_owned()),
        (
            "image",
            &format!(":v2@{DIGEST}"),
            "a: 1\n",
            format!("a: 1\nimage:\n  tag: v2@{DIGEST}\n"),
        ),
        // Below what is there, as far as it is indented.
        (
            "web.image",
            "r/app:v2",
            "web:\n    port: 80 # p\napi: 1\n",
            "web:\n    port: 80 # p\n    image:\n        repository: r/app\n        tag: v2\napi: 1\n"
                .to_owned(),
        ),
        (
            "web.image",
            "r/app:v2",
            "a: 1",
            "a: 1\nweb:\n  image:\n    repository: r/app\n    tag: v2".to_owned(),
        ),
        (
            "w[name=m].image",
            ":v2",
            "w:\n- name: m\n  x: 1\n- name: n\n",
            "w:\n- name: m\n  x: 1\n  image:\n    tag: v2\n- name: n\n".to_owned(),
        ),
        (
            "web.image",
            ":v2",
            "web: {port: 80}\n",
            "web: {port: 80, image: {tag: v2}}\n".to_owned(),
        ),
        (
            "web.image",
            ":v2",
            "web: {} # c\n",
            "web: {image: {tag: v2}} # c\n".to_owned(),
        ),
        (
            "image",
            ":v2",
            "image: {}\nz: 1\n",
            "image: {tag: v2}\nz: 1\n".to_owned(),
        ),
        ("image", "r/app:v2", "image:\nz: 1\n", format!("{both}z: 1\n")),
        (
            "image",
            "r/app:v2",
            "image: # c\nz: 1\n",
            format!("{}z: 1\n", both.replacen("image:", "image: # c", 1)),
        ),
        (
            "image",
            ":v2",
            "image: ~\nz: 1\n",
            "image:\n  tag: v2\nz: 1\n".to_owned(),
        ),
        (
            "image",
            "r/app:v2",
            "image:\n  pullSecrets: []\n",
            "image:\n  pullSecrets: []\n  repository: r/app\n  tag: v2\n".to_owned(),
        ),
        // Comments at the end, CRLF, a byte order mark, the end of the document.
        (
            "image",
            ":v2",
            "\u{feff}---\r\na: 1\r\n# end\r\n...\r\n",
            "\u{feff}---\r\na: 1\r\n# end\r\nimage:\r\n  tag: v2\r\n...\r\n".to_owned(),
        ),
        (
            "spec.values.image",
            ":v2",
            "kind: HelmRelease\nspec:\n  values:\n    a: 1\n  interval: 1m\n",
            "kind: HelmRelease\nspec:\n  values:\n    a: 1\n    image:\n      tag: v2\n  interval: 1m\n"
                .to_owned(),
        ),
        // In a text of YAML.
        (
            "spec.values.image",
            "r/app:v2",
            "spec:\n  values: |\n    a: 1\n  z: 1\n",
            "spec:\n  values: |\n    a: 1\n    image:\n      repository: r/app\n      tag: v2\n  z: 1\n"
                .to_owned(),
        ),
        // What is there is edited as ever.
        (
            "image",
            ":v2",
            "image: {tag: v1}\n",
            "image: {tag: v2}\n".to_owned(),
        ),
    ] {
        let edit = adding(path, reference);
        let (edited, difference) = apply(before, &edit).unwrap_or_else(|error| panic!("{before:?}: {error}"));
        assert_eq!(edited, after, "{before:?}");
        let Difference::Values(values) = &difference else {
            panic!()
        };
        let place = Place::Helm(HelmPlace::new(FILE, path, "").unwrap());
        let found = read(&place, &tree(&[(FILE, &edited)]))
            .unwrap()
            .unwrap()
            .remove(0);
        assert_eq!(found.image, values.after, "{edited}");
        // Without the flag it is refused, and nothing else is.
        if values.added.is_some() {
            assert_eq!(difference.before(), None);
            // A key without a value takes a whole reference.
            if before.contains("image:") && before.contains("z: 1") && !before.contains("{}") {
                continue;
            }
            let plain = Edit::HelmImage(helm(path, reference)).apply(before).unwrap_err();
            assert!(
                matches!(plain, Refusal::ImageNotFound(_) | Refusal::Unsafe { .. }),
                "{plain}"
            );
        }
    }
}

#[test]
fn what_cannot_be_added_is_refused() {
    for (path, reference, text, words) in [
        (
            "image",
            &format!("@{DIGEST}") as &str,
            "a: 1\n",
            "give the tag too",
        ),
        ("w[name=x].image", ":v2", "w: []\n", "only keys can be added"),
        ("web.image", ":v2", "web: 12\n", "is not a mapping"),
        ("web.image", ":v2", "web: {{ .x }}\n", "template"),
        ("web.imageTag", "r/a:v2", "a: 1\n", "leave the name out"),
        (
            "image.digest",
            ":v2",
            "a: 1\n",
            "end the path in the key of an image or of its tag",
        ),
        ("image", ":v2", "a: 1\n---\nb: 1\n", "several documents"),
    ] {
        let error = adding(path, reference).apply(text).unwrap_err();
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
}

#[test]
fn what_was_added_is_taken_out_unless_somebody_changed_it() {
    let before = "a: 1\n# end\n";
    let done = adding("image", "r/app:v2").apply(before).unwrap();
    let undo = |force| Edit::undoing(&done.difference, force).unwrap();
    let since = done.text.replace("v2", "v3");
    let error = undo(false).apply(&since).unwrap_err();
    assert!(matches!(error, Refusal::ChangedSince { .. }), "{error}");
    assert_eq!(undo(true).apply(&since).unwrap().text, before);
    // What others wrote around it stays.
    let around = format!("# new\n{}b: 2\n", done.text);
    assert_eq!(
        undo(false).apply(&around).unwrap().text,
        format!("# new\n{before}b: 2\n")
    );
    // What others wrote into it is not thrown away.
    let within = done
        .text
        .replace("  tag: v2\n", "  tag: v2\n  pullPolicy: Always\n");
    let error = undo(false).apply(&within).unwrap_err();
    assert!(matches!(error, Refusal::Unsafe { .. }), "{error}");
    // It is gone already.
    assert_eq!(undo(false).apply(before).unwrap().text, before);
}

#[test]
fn a_place_that_adds_images_has_none_before() {
    let place = Place::Helm(HelmPlace {
        add_missing: true,
        ..HelmPlace::new(FILE, "image", "").unwrap()
    });
    let source = tree(&[(FILE, "a: 1\n")]);
    assert_eq!(read(&place, &source).unwrap().unwrap(), []);
    let edit = place.edit("image", undone::to(":v2")).unwrap();
    assert_eq!(edit.apply("a: 1\n").unwrap().text, "a: 1\nimage:\n  tag: v2\n");
}
