//! Entries of `images` for what kustomize finds by `configurations` and through components, confirmed by kustomize.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod proof;

use pretty_assertions::assert_eq;
use proof::{
    kustomize::{build, program},
    run,
    tree::Tree,
};
use slipway_edit::{Edit, KustomizeImage, NewImage};

const RUNNER: &str = "\
apiVersion: actions.example.dev/v1alpha1
kind: RunnerDeployment
metadata:
  name: runner
spec:
  template:
    spec:
      image: docker.io/example/runner:v1
      list:
      - image: example/listed:v1
";
const FIELDS: &str = "images:\n- path: spec/template/spec/image\n  kind: RunnerDeployment\n- {path: 'spec/template/spec/list[]/image', group: actions.example.dev}\n";
const DEPLOY: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: d, image: \"opa:1\"}, {name: e, image: \"envoy:1\"}]}}}\n";
const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    Tree(files.collect())
}

fn set(folder: &str, name: &str, tag: &str) -> Edit {
    let to = NewImage::new("", tag, "").unwrap();
    Edit::KustomizeImage(KustomizeImage::new(folder, name, to).unwrap())
}

/// The rendering of a folder before and after an edit of one.
fn rendered(tree: &Tree, edit: &Edit, folder: &str) -> (String, String, String) {
    let edited = run(std::slice::from_ref(edit), tree).unwrap_or_else(|refused| panic!("{refused}"));
    let after = tree.with(&edited.files);
    let undo = Edit::undoing(&edited.differences[0], false).unwrap();
    let back = run(&[undo], &after).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(after.with(&back.files), *tree, "undone");
    let build = |tree: &Tree| {
        let root = tempfile::tempdir().unwrap();
        tree.write(root.path());
        build(&program(), &root.path().join(folder)).unwrap_or_else(|error| panic!("{error}"))
    };
    let (_, text) = edited.files.first_key_value().unwrap();
    (build(tree), build(&after), text.clone())
}

#[test]
fn images_of_custom_resources() {
    let here = tree(&[
        (
            "a/kustomization.yaml",
            "resources:\n- runner.yaml\nconfigurations:\n- fields.yaml\n",
        ),
        ("a/fields.yaml", FIELDS),
        ("a/runner.yaml", RUNNER),
    ]);
    // The configuration counts for what builds on it as well.
    let below = tree(&[
        ("a/kustomization.yaml", "resources:\n- ../base\n"),
        (
            "base/kustomization.yaml",
            "resources:\n- runner.yaml\nconfigurations:\n- fields.yaml\n",
        ),
        ("base/fields.yaml", FIELDS),
        ("base/runner.yaml", RUNNER),
    ]);
    // And for what stands below it.
    let above = tree(&[
        (
            "a/kustomization.yaml",
            "resources:\n- ../base\nconfigurations:\n- fields.yaml\n",
        ),
        (
            "base/kustomization.yaml",
            "resources:\n- runner.yaml\nimages: [{name: example/listed, newName: never}]\n",
        ),
        ("a/fields.yaml", FIELDS),
        ("base/runner.yaml", RUNNER),
    ]);
    for tree in [here, below, above] {
        for name in ["docker.io/example/runner", "example/listed"] {
            let (before, after, text) = rendered(&tree, &set("a", name, "v2"), "a");
            assert_eq!(
                after,
                before.replace(&format!("{name}:v1"), &format!("{name}:v2"))
            );
            assert!(
                text.ends_with(&format!("images:\n- name: {name}\n  newTag: v2\n")),
                "{text}"
            );
        }
    }
    let other = tree(&[
        (
            "a/kustomization.yaml",
            "resources: [runner.yaml]\nconfigurations: [fields.yaml]\n",
        ),
        (
            "a/fields.yaml",
            "images: [{path: spec/template/spec/image, kind: Other}]\n",
        ),
        ("a/runner.yaml", RUNNER),
    ]);
    let error = run(&[set("a", "docker.io/example/runner", "v2")], &other).unwrap_err();
    assert!(error.to_string().contains("uses none"), "{error}");
}

#[test]
fn images_of_components() {
    let files = tree(&[
        (
            "overlay/kustomization.yaml",
            "resources: [../base]\ncomponents: [../versions]\n",
        ),
        ("base/kustomization.yaml", "resources: [deploy.yaml]\n"),
        ("base/deploy.yaml", DEPLOY),
        (
            "versions/kustomization.yaml",
            &format!("{COMPONENT}images:\n- name: envoy\n  newTag: v2\n"),
        ),
    ]);
    let (before, after, text) = rendered(&files, &set("versions", "opa", "v7"), "overlay");
    assert_eq!(after, before.replace("opa:1", "opa:v7"));
    assert_eq!(
        text,
        format!("{COMPONENT}images:\n- name: envoy\n  newTag: v2\n- name: opa\n  newTag: v7\n")
    );
    let (before, after, _) = rendered(&files, &set("versions", "envoy", "v3"), "overlay");
    assert_eq!(after, before.replace("envoy:v2", "envoy:v3"));
    // The overlay goes last, by the name that the component leaves.
    let (before, after, _) = rendered(&files, &set("overlay", "envoy", "v9"), "overlay");
    assert_eq!(after, before.replace("envoy:v2", "envoy:v9"));
}

#[test]
fn entries_that_share_a_tag() {
    let files = tree(&[
        (
            "a/kustomization.yaml",
            "resources: [deploy.yaml]\nimages:\n- name: opa\n  newTag: &tag v2\n- name: envoy\n  newTag: *tag\n",
        ),
        ("a/deploy.yaml", DEPLOY),
    ]);
    let Edit::KustomizeImage(edit) = set("a", "envoy", "v3") else {
        panic!()
    };
    let edit = Edit::KustomizeImage(KustomizeImage {
        allow_shared: true,
        ..edit
    });
    let (before, after, _) = rendered(&files, &edit, "a");
    assert_eq!(after, before.replace(":v2", ":v3"));
}

/// kustomize leaves what is not a reference as it is, so an entry would do nothing.
#[test]
fn a_broken_image_is_repaired_in_the_manifest() {
    let files = tree(&[
        ("a/kustomization.yaml", "resources: [deploy.yaml]\n"),
        ("a/deploy.yaml", &DEPLOY.replace("opa:1", "opa:invalid!")),
    ]);
    let error = run(&[set("a", "opa", "v7")], &files).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the manifests have \"opa:invalid!\", which is not a valid reference"),
        "{error}"
    );
}
