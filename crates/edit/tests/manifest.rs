//! Edits of plain manifests: which containers are meant, what changes, what stays, what is refused.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, ManifestImage, ManifestPlace, NewImage, Place, Refusal, read};

#[path = "support/tree.rs"]
mod tree;
use tree::{Apply, FILE, tree};

/// `object`, `container`, `image`, `field`.
type By = [&'static str; 4];

fn manifest(by: By, name: &str, tag: &str, digest: &str) -> Edit {
    let [object, container, image, field] = by;
    let to = NewImage::new(name, tag, digest).unwrap();
    Edit::ManifestImage(ManifestImage::new(FILE, object, container, image, field, to).unwrap())
}

/// Applies an edit; checks that undoing it gives the first bytes, and that doing it twice changes nothing.
fn apply(text: &str, edit: &Edit) -> Result<String, Refusal> {
    let done = edit.apply(text)?;
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let undone = undo.apply(&done.text)?;
    assert_eq!(undone.text, text, "putting it back");
    assert_eq!(
        edit.apply(&done.text)?.text,
        done.text,
        "a second time changes nothing"
    );
    let redo = Edit::undoing(&undone.difference, false).unwrap();
    assert_eq!(redo.apply(text)?.text, done.text, "putting the putting back back");
    let wire = serde_json::to_string(&done.difference).unwrap();
    assert_eq!(
        serde_json::from_str::<Difference>(&wire).unwrap(),
        done.difference
    );
    Ok(done.text)
}

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      initContainers:
      - name: migrate
        image: \"r.example/web:v1\" # the same
      containers:
      - image: r.example/web:v1
        name: web
        args: [\"--image=r.example/web:v1\"]
      # the helper
      - name: proxy
        image: 'envoy:1.0'
";

#[test]
fn containers_by_name_and_image() {
    for (by, after) in [
        (
            ["", "web", "", ""],
            WEB.replace("- image: r.example/web:v1", "- image: r.example/web:v2"),
        ),
        (
            ["", "", "r.example/web", ""],
            WEB.replace("- image: r.example/web:v1", "- image: r.example/web:v2")
                .replace("\"r.example/web:v1\" #", "\"r.example/web:v2\" #"),
        ),
        (
            ["Deployment/web", "proxy", "", ""],
            WEB.replace("envoy:1.0", "envoy:v2"),
        ),
        (["1", "proxy", "envoy", ""], WEB.replace("envoy:1.0", "envoy:v2")),
        (
            ["", "migrate", "r.example/web", ""],
            WEB.replace("\"r.example/web:v1\" #", "\"r.example/web:v2\" #"),
        ),
    ] {
        for crlf in [false, true] {
            for bom in ["", "\u{feff}"] {
                let form = |text: &str| {
                    let text = if crlf {
                        text.replace('\n', "\r\n")
                    } else {
                        text.trim_end().to_owned()
                    };
                    format!("{bom}{text}")
                };
                assert_eq!(
                    apply(&form(WEB), &manifest(by, "", "v2", "")).unwrap(),
                    form(&after),
                    "{by:?}"
                );
            }
        }
    }
    let pinned = apply(
        WEB,
        &manifest(
            ["", "web", "", ""],
            "q/web",
            "",
            &format!("sha256:{}", "0".repeat(64)),
        ),
    )
    .unwrap();
    assert_eq!(
        pinned,
        WEB.replace(
            "- image: r.example/web:v1",
            &format!("- image: q/web@sha256:{}", "0".repeat(64))
        )
    );
}

#[test]
fn every_kind_with_a_pod_template() {
    let pod = "containers: [{name: a, image: x:v1}]";
    for text in [
        format!("kind: Pod\nspec: {{{pod}}}\n"),
        "kind: Pod\nspec: {containers: [], ephemeralContainers: [{name: a, image: x:v1}]}\n".to_owned(),
        format!("kind: StatefulSet\nspec: {{template: {{spec: {{{pod}}}}}}}\n"),
        format!("kind: Rollout\nspec: {{template: {{spec: {{{pod}}}}}}}\n"),
        format!("kind: PodTemplate\ntemplate: {{spec: {{{pod}}}}}\n"),
        format!(
            "kind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec: {{{pod}}}\n"
        ),
        format!(
            "kind: JobSet\nspec: {{replicatedJobs: [{{name: w, template: {{spec: {{template: {{spec: {{{pod}}}}}}}}}}}]}}\n"
        ),
        format!("kind: List\nitems:\n- kind: Pod\n  spec: {{{pod}}}\n"),
        format!(
            "kind: List\nitems:\n- kind: Pod\n  metadata: {{name: p}}\n  spec: {{{pod}}}\n---\nkind: Pod\nspec: {{}}\n"
        ),
    ] {
        for by in [["", "a", "", ""], ["", "", "x", ""]] {
            assert_eq!(
                apply(&text, &manifest(by, "", "v2", "")).unwrap(),
                text.replace("x:v1", "x:v2")
            );
        }
    }
    let error = manifest(["", "", "x", ""], "", "v2", "")
        .apply("kind: CustomResourceDefinition\nspec: {containers: [{name: a, image: x:v1}]}\n")
        .unwrap_err();
    assert!(matches!(error, Refusal::ImageNotFound(_)), "{error}");
}

#[test]
fn fields_of_custom_resources() {
    for (by, before, after) in [
        (
            ["", "", "", "spec.image"],
            "kind: X\nspec:\n  image: 'a:v1' # it\n",
            "kind: X\nspec:\n  image: 'a:v2' # it\n",
        ),
        (
            ["X/b", "", "", "spec.image"],
            "kind: X\nmetadata: {name: a}\nspec: {image: a:v1}\n---\nkind: X\nmetadata: {name: b}\nspec: {image: b:v1}\n",
            "kind: X\nmetadata: {name: a}\nspec: {image: a:v1}\n---\nkind: X\nmetadata: {name: b}\nspec: {image: b:v2}\n",
        ),
        (
            ["", "", "b", "spec.image"],
            "kind: X\nspec: {image: a:v1}\n---\nkind: X\nspec: {image: b:v1}\n",
            "kind: X\nspec: {image: a:v1}\n---\nkind: X\nspec: {image: b:v2}\n",
        ),
        (
            ["", "", "", "spec.image"],
            "kind: X\nspec: {image: {repository: a, tag: v1}}\n",
            "kind: X\nspec: {image: {repository: a, tag: v2}}\n",
        ),
    ] {
        assert_eq!(apply(before, &manifest(by, "", "v2", "")).unwrap(), after);
    }
}

#[test]
fn several_that_fit_are_edited_or_told_apart() {
    let two = |a: &str, b: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: x, image: {a}}}]}}\n---\nkind: Pod\nmetadata: {{name: b}}\nspec: {{containers: [{{name: x, image: {b}}}]}}\n"
        )
    };
    let by_name = manifest(["", "x", "", ""], "", "v2", "");
    assert_eq!(apply(&two("q:1", "q:2"), &by_name).unwrap(), two("q:v2", "q:v2"));
    assert_eq!(
        by_name.apply(&two("q:1", "r:2")).unwrap_err().to_string(),
        "line 7: container \"x\" has several images (Pod/a has q, Pod/b has r): name one by `object` or `image`"
    );
    let one = manifest(["Pod/b", "x", "", ""], "", "v2", "");
    assert_eq!(apply(&two("q:1", "r:2"), &one).unwrap(), two("q:1", "r:v2"));
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    for (by, text, wanted) in [
        (
            ["", "api", "", ""],
            WEB,
            "nothing matches container \"api\"; there are: container \"migrate\" of Deployment/web (r.example/web:v1), container \"web\" of Deployment/web (r.example/web:v1), container \"proxy\" of Deployment/web (envoy:1.0)",
        ),
        (
            ["", "web", "nginx", ""],
            "kind: Pod\nspec: {containers: [{name: web, image: a:1}]}\n",
            "nothing matches container \"web\" and image \"nginx\"; there are: container \"web\" of 1 (a:1)",
        ),
        (
            ["", "a", "", ""],
            "kind: Service\n",
            "nothing matches container \"a\": there are no containers; for a custom resource give `field`",
        ),
        (
            ["Job/x", "a", "", ""],
            WEB,
            "no document \"Job/x\"; there are: Deployment/web",
        ),
        (
            ["", "", "", "spec.image"],
            "kind: X\nspec: {size: 1}\n",
            "nothing matches field \"spec.image\"; there are: 1: no `image` in `spec`; the keys there: size",
        ),
    ] {
        let error = manifest(by, "", "v2", "").apply(text).unwrap_err();
        assert!(matches!(error, Refusal::ImageNotFound(_)), "{error:?}");
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn what_is_not_safe_is_refused_with_line_and_reason() {
    for (text, line, reason) in [
        (
            "spec:\n  containers:\n  - name: a\n    image: x:v1\n    image: x:v3\n",
            5,
            "`image` appears here a second time",
        ),
        (
            "spec:\n  containers:\n  - name: a\n    image: >-\n      x:v1\n",
            4,
            "the value is written over several lines: write it on one first",
        ),
        (
            "spec:\n  containers:\n  - name: a\n    image: {{ .Values.image }}\n",
            4,
            "there is a template here: edit the values that it uses",
        ),
    ] {
        let error = manifest(["", "a", "", ""], "", "v2", "").apply(text).unwrap_err();
        assert_eq!(error.to_string(), format!("line {line}: {reason}"), "{text}");
    }
}

#[test]
fn putting_back_finds_an_object_that_was_moved() {
    let done = manifest(["", "web", "", ""], "", "v2", "").apply(WEB).unwrap();
    let Difference::Values(values) = &done.difference else {
        panic!()
    };
    assert_eq!(values.values[0].document, "Deployment/web");
    assert_eq!(
        values.values[0].at,
        "spec.template.spec.containers[name=web].image"
    );
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let first = "kind: Service\nmetadata: {name: web}\n---\n";
    assert_eq!(
        undo.apply(&format!("{first}{}", done.text)).unwrap().text,
        format!("{first}{WEB}")
    );
    let error = undo.apply(&done.text.replace("web:v2", "web:v3")).unwrap_err();
    assert!(matches!(error, Refusal::ChangedSince { .. }), "{error}");
    // The same in a list of objects, at another place of it.
    let listed = |items: &[&str]| format!("kind: List\nitems:\n{}", items.concat());
    let pod = "- kind: Pod\n  metadata: {name: p}\n  spec: {containers: [{name: web, image: x:v1}]}\n";
    let other = "- kind: Service\n  metadata: {name: p}\n";
    let done = manifest(["", "web", "", ""], "", "v2", "")
        .apply(&listed(&[pod]))
        .unwrap();
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let moved = listed(&[other, &pod.replace("v1", "v2")]);
    assert_eq!(undo.apply(&moved).unwrap().text, listed(&[other, pod]));
}

#[test]
fn fields_are_checked() {
    for (object, container, image, field, wrong) in [
        ("", "", "", "", "container"),
        ("Pod/a", "", "", "", "container"),
        ("web", "a", "", "", "object"),
        ("", "a b", "", "", "container"),
        ("", "", "x:v1", "", "image"),
        ("", "", "", "a..b", "field"),
        ("", "a", "", "spec.image", "field"),
    ] {
        let to = NewImage::new("", "v1", "").unwrap();
        let error = ManifestImage::new(FILE, object, container, image, field, to).unwrap_err();
        assert_eq!(error.field, wrong, "{error}");
    }
}

#[test]
fn images_are_read_with_their_lines() {
    let place = |container: &str| Place::Manifest(ManifestPlace::new(FILE, "", container, "").unwrap());
    let found = |place: &Place| -> Vec<(String, String, usize)> {
        let found = read(place, &tree(&[(FILE, WEB)])).unwrap().unwrap();
        found
            .into_iter()
            .map(|found| (found.name, found.image.to_string(), found.line))
            .collect()
    };
    let web = ("r.example/web".to_owned(), "r.example/web:v1".to_owned());
    assert_eq!(
        found(&place("")),
        [
            (web.0.clone(), web.1.clone(), 10),
            (web.0, web.1, 12),
            ("envoy".to_owned(), "envoy:1.0".to_owned(), 17)
        ]
    );
    assert_eq!(found(&place("proxy")).len(), 1);
    let edit = place("")
        .edit("envoy", NewImage::new("", "v2", "").unwrap())
        .unwrap();
    assert_eq!(edit.apply(WEB).unwrap().text, WEB.replace("1.0", "v2"));
}

#[test]
fn an_image_that_is_renamed_already_is_found_by_its_new_name() {
    let text = WEB.replace("r.example/web", "web");
    let edit = manifest(["", "", "web", ""], "r.example/web", "v2", "");
    let renamed = apply(&text, &edit).unwrap();
    assert!(renamed.contains("image: r.example/web:v2"), "{renamed}");
    // `apply` has shown that a second time changes nothing; a later tag is written all the same.
    let later = manifest(["", "", "web", ""], "r.example/web", "v3", "");
    assert!(
        apply(&renamed, &later)
            .unwrap()
            .contains("image: r.example/web:v3")
    );
    let other = manifest(["", "", "web", ""], "r.example/other", "v3", "");
    assert!(matches!(apply(&renamed, &other), Err(Refusal::ImageNotFound(_))));
}
