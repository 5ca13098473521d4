//! Values that several places show, by anchors, aliases and `<<`: edited where they are written, with consent.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{
    Difference, Edit, HelmImage, HelmPlace, KustomizeImage, ManifestImage, NewImage, Place, Refusal, read,
};

#[path = "support/tree.rs"]
mod tree;
#[path = "support/undone.rs"]
mod undone;
use tree::{Apply, FILE, tree};
use undone::{apply, helm, manifest};

const ANCHORED: &str = "\
global:
  images:
    shop:
      image: &shopImage registry.example/shop
      tag: &shopTag 1.0.0
store:
  deployments:
    shop:
      image: *shopImage
      tag: *shopTag
";
const MERGED: &str = "\
defaults: &defaults
  image:
    repository: registry.example/app
    tag: \"1.0\"
  replicas: 1
web:
  <<: *defaults
  replicas: 3
worker:
  <<: *defaults
";

fn shared(path: &str, reference: &str) -> Edit {
    Edit::HelmImage(HelmImage {
        allow_shared: true,
        ..helm(path, reference)
    })
}

fn shared_with(difference: &Difference) -> Vec<&str> {
    match difference {
        Difference::Values(values) => values.shared_with.iter().map(String::as_str).collect(),
        other => panic!("{other:?}"),
    }
}

/// The places that would change along with the one that was named.
fn others(refusal: &Refusal) -> (usize, &str) {
    match refusal {
        Refusal::Shared { line, others } => (*line, others),
        other => panic!("{other}"),
    }
}

#[test]
fn values_are_edited_at_their_anchor_which_stays() {
    for (text, path, reference, from, with, along) in [
        (
            ANCHORED,
            "global.images.shop",
            ":1.1.0",
            "1.0.0",
            "1.1.0",
            vec!["store.deployments.shop.tag"],
        ),
        (
            ANCHORED,
            "store.deployments.shop",
            ":1.1.0",
            "1.0.0",
            "1.1.0",
            vec!["store.deployments.shop.tag"],
        ),
        (
            ANCHORED,
            "store.deployments.shop.tag",
            ":1.1.0",
            "1.0.0",
            "1.1.0",
            vec!["store.deployments.shop.tag"],
        ),
        (
            MERGED,
            "defaults.image",
            ":1.1",
            "\"1.0\"",
            "\"1.1\"",
            vec!["web.image.tag", "worker.image.tag"],
        ),
        (
            MERGED,
            "web.image",
            ":1.1",
            "\"1.0\"",
            "\"1.1\"",
            vec!["web.image.tag", "worker.image.tag"],
        ),
        (
            MERGED,
            "worker.image.tag",
            ":1.1",
            "\"1.0\"",
            "\"1.1\"",
            vec!["web.image.tag", "worker.image.tag"],
        ),
        // A whole mapping by alias, in flow and in block.
        (
            "x: &x {tag: v1}\nimage: *x\n",
            "image",
            ":v2",
            "v1",
            "v2",
            vec!["image.tag"],
        ),
        (
            "x: &x {tag: v1}\nimage: *x\n",
            "x",
            ":v2",
            "v1",
            "v2",
            vec!["image.tag"],
        ),
        // A whole reference.
        (
            "x: &x r/a:v1\nimage: *x\n",
            "image",
            ":v2",
            "r/a:v1",
            "r/a:v2",
            vec!["image"],
        ),
        // Aliases of what an alias is in.
        (
            "a: &a {tag: v1}\nb: &b {image: *a}\nc: {<<: *b}\n",
            "c.image",
            ":v2",
            "v1",
            "v2",
            vec!["b.image.tag", "c.image.tag"],
        ),
        // Several mappings taken over: the first that has the key counts.
        (
            "a: &a {tag: v1}\nb: &b {tag: w1, repository: r}\nimage:\n  <<: [*a, *b]\n",
            "image",
            ":v2",
            "v1",
            "v2",
            vec!["image.tag"],
        ),
        // Items of lists.
        (
            "w:\n- &m {name: mail, image: 'm:v1'}\nx:\n- *m\n",
            "x[name=mail].image",
            ":v2",
            "m:v1",
            "m:v2",
            vec!["x[0].image"],
        ),
        // What was written over at one of them does not change there.
        (
            "d: &d {image: {tag: v1}}\na: {<<: *d}\nb: {<<: *d, image: {tag: w1}}\n",
            "a.image",
            ":v2",
            "v1",
            "v2",
            vec!["a.image.tag"],
        ),
    ] {
        let edit = shared(path, reference);
        let (edited, difference) =
            apply(text, &edit).unwrap_or_else(|error| panic!("{path} of {text}: {error}"));
        assert_eq!(edited, text.replacen(from, with, 1), "{path}");
        assert_eq!(shared_with(&difference), along, "{path} of {text}");
        let Edit::HelmImage(edit) = edit else { panic!() };
        let place = Place::Helm(HelmPlace::new(FILE, &edit.path, "").unwrap());
        let found = read(&place, &tree(&[(FILE, &edited)]))
            .unwrap()
            .unwrap()
            .remove(0);
        assert_eq!(
            found.image.tag,
            edit.to.new_tag.unwrap().to_string(),
            "what a reader finds at {path}"
        );
    }
}

#[test]
fn other_places_are_named_where_they_may_not_change() {
    for (text, path, line, places) in [
        (ANCHORED, "global.images.shop", 5, "`store.deployments.shop.tag`"),
        (ANCHORED, "store.deployments.shop", 5, "`global.images.shop.tag`"),
        (MERGED, "defaults.image", 4, "`web.image.tag`, `worker.image.tag`"),
        (MERGED, "web.image", 4, "`defaults.image.tag`, `worker.image.tag`"),
        // A key that is added to a mapping that several places show.
        ("x: &x\n  repository: a\nimage: *x\n", "image", 2, "`x.tag`"),
    ] {
        let error = Edit::HelmImage(helm(path, ":2")).apply(text).unwrap_err();
        assert_eq!(others(&error), (line, places), "{path} of {text}");
        let words = error.to_string();
        assert!(
            words.contains("allow_shared") && words.contains("anchor"),
            "{words}"
        );
    }
}

#[test]
fn a_key_is_added_to_the_mapping_that_is_shared() {
    let text = "x: &x\n  repository: a\nimage: *x\n";
    let (edited, difference) = apply(text, &shared("image", ":v2")).unwrap();
    assert_eq!(edited, "x: &x\n  repository: a\n  tag: v2\nimage: *x\n");
    assert_eq!(shared_with(&difference), ["image.tag"]);
}

#[test]
fn what_is_shared_and_stays_needs_no_consent() {
    // The name is an alias, the tag is not; and an anchor that nothing uses.
    let text = "name: &n r/app\nimage:\n  repository: *n\n  tag: &t v1\n";
    let (edited, difference) = apply(text, &Edit::HelmImage(helm("image", ":v2"))).unwrap();
    assert_eq!(edited, text.replace("v1", "v2"));
    assert_eq!(shared_with(&difference), Vec::<&str>::new());
    // The value is the one already.
    let same = Edit::HelmImage(helm("web.image", ":1.0"));
    assert_eq!(same.apply(MERGED).unwrap().text, MERGED);
}

#[test]
fn putting_back_is_refused_when_others_share_it_since() {
    let done = shared("web.image", ":1.1").apply(MERGED).unwrap();
    let since = format!("{}cron:\n  <<: *defaults\n", done.text);
    let error = Edit::undoing(&done.difference, false)
        .unwrap()
        .apply(&since)
        .unwrap_err();
    assert!(others(&error).1.contains("`cron.image.tag`"), "{error}");
    let forced = Edit::undoing(&done.difference, true)
        .unwrap()
        .apply(&since)
        .unwrap();
    assert_eq!(forced.text, format!("{MERGED}cron:\n  <<: *defaults\n"));
    // What was written out since is not shared any more.
    let written = done.text.replace("worker:\n  <<: *defaults\n", "worker: {}\n");
    let back = Edit::undoing(&done.difference, false)
        .unwrap()
        .apply(&written)
        .unwrap();
    assert_eq!(back.text, written.replace("1.1", "1.0"));
}

#[test]
fn containers_that_share_an_image() {
    let pods = |image: &str| {
        format!(
            "kind: List\napiVersion: v1\nitems:\n- kind: Pod\n  metadata: {{name: a}}\n  spec:\n    containers: &c\n    - {{name: web, image: &i {image}}}\n    - {{name: side, image: *i}}\n- kind: Pod\n  metadata: {{name: b}}\n  spec: {{containers: *c}}\n"
        )
    };
    let text = pods("x:v1");
    // All of them are meant.
    let all = Edit::ManifestImage(manifest("", "", "x", ":v2"));
    let (edited, difference) = apply(&text, &all).unwrap();
    assert_eq!(edited, pods("x:v2"));
    assert_eq!(shared_with(&difference).len(), 3, "{difference:?}");
    // One of them is meant.
    let one = |allow_shared| {
        Edit::ManifestImage(ManifestImage {
            allow_shared,
            ..manifest("Pod/b", "web", "", ":v2")
        })
    };
    let error = one(false).apply(&text).unwrap_err();
    assert_eq!(
        others(&error),
        (
            8,
            "`items[0].spec.containers[0].image`, `items[0].spec.containers[1].image`, `items[1].spec.containers[1].image`"
        )
    );
    assert_eq!(apply(&text, &one(true)).unwrap().0, pods("x:v2"));
    // An image that `<<` supplies.
    let merged = "b: &b {image: x:v1}\nspec:\n  containers:\n  - <<: *b\n    name: a\n";
    let edit = Edit::ManifestImage(ManifestImage {
        allow_shared: true,
        ..manifest("", "a", "", ":v2")
    });
    assert_eq!(apply(merged, &edit).unwrap().0, merged.replace("v1", "v2"));
}

#[test]
fn entries_of_a_kustomization_that_share_a_tag() {
    let text = "images:\n- name: web\n  newTag: &tag v1 # both\n- name: worker\n  newName: r/worker\n  newTag: *tag\n";
    let edit = |name: &str, to: NewImage, allow_shared| {
        Edit::KustomizeImage(KustomizeImage {
            allow_shared,
            ..KustomizeImage::new("app", name, to).unwrap()
        })
    };
    let tag = || NewImage::new("", "v2", "").unwrap();
    for name in ["web", "worker"] {
        let (edited, difference) = apply(text, &edit(name, tag(), true)).unwrap();
        assert_eq!(edited, text.replace("v1", "v2"), "{name}");
        assert_eq!(shared_with(&difference), ["images[1].newTag"]);
    }
    let error = edit("worker", tag(), false).apply(text).unwrap_err();
    assert_eq!(others(&error), (3, "`images[0].newTag`"));
    // A digest beside it belongs to the one entry.
    let both = NewImage::new("", "v2", undone::DIGEST).unwrap();
    let (edited, _) = apply(text, &edit("worker", both, true)).unwrap();
    assert_eq!(
        edited,
        format!("{}  digest: {}\n", text.replace("v1", "v2"), undone::DIGEST)
    );
    let digest = NewImage::new("", "", undone::DIGEST).unwrap();
    let error = edit("worker", digest, true).apply(text).unwrap_err();
    assert!(error.to_string().contains("remove it by hand"), "{error}");
    // Other entries are read and edited as ever.
    let other = format!("{text}- name: c\n  newTag: v1\n");
    let edited = edit("c", tag(), false).apply(&other).unwrap().text;
    assert_eq!(edited, format!("{text}- name: c\n  newTag: v2\n"));
    let found = read(
        &Place::Kustomization("app".parse().unwrap()),
        &tree(&[(tree::KUSTOMIZATION, text)]),
    );
    let tags: Vec<String> = found
        .unwrap()
        .unwrap()
        .into_iter()
        .map(|found| found.image.tag)
        .collect();
    assert_eq!(tags, ["v1", "v1"]);
}

#[test]
fn aliases_that_go_round_in_circles_end() {
    for text in [
        "image: &a {<<: [*a, *a], tag: v1}\n",
        "image: &a {tag: v1, x: *a}\n",
        "a: &a {<<: [*a, *a]}\nimage: *a\n",
        "spec: &s {template: *s, containers: [{name: a, image: x:v1}]}\n",
        "a: &a [*a]\nspec: {containers: *a}\n",
    ] {
        let _ = shared("image", ":v2").apply(text);
        let _ = Edit::ManifestImage(manifest("", "a", "", ":v2")).apply(text);
    }
    // Each level doubles the one before it.
    let mut bomb = "a0: &a0 {containers: [{name: a, image: 'x:v1'}]}\n".to_owned();
    for level in 1..24 {
        let below = level - 1;
        bomb += &format!("a{level}: &a{level} {{x: *a{below}, y: *a{below}}}\n");
    }
    let error = Edit::ManifestImage(manifest("", "a", "", ":v2"))
        .apply(&bomb)
        .unwrap_err();
    assert!(error.to_string().contains("too often"), "{error}");
}
