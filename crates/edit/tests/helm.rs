//! Edits of values: what changes, what stays, what is refused, and that undoing restores the original bytes.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, HelmImage, HelmPlace, NewImage, Place, Reference, Refusal, read};

#[path = "support/tree.rs"]
mod tree;
use tree::{Apply, FILE, tree};

const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn to(name: &str, tag: &str, digest: &str) -> NewImage {
    NewImage::new(name, tag, digest).unwrap()
}

fn helm(path: &str, document: &str, to: NewImage) -> Edit {
    Edit::HelmImage(HelmImage::new(FILE, path, document, to).unwrap())
}

/// Applies an edit; checks that undoing it gives the first bytes, and that doing it twice changes nothing.
fn apply(text: &str, edit: &Edit) -> Result<String, Refusal> {
    let done = edit.apply(text)?;
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let undone = undo.apply(&done.text)?;
    assert_eq!(undone.text, text, "putting it back");
    assert_eq!(undo.apply(text)?.text, text, "putting it back a second time");
    let redo = Edit::undoing(&undone.difference, false).unwrap();
    assert_eq!(redo.apply(text)?.text, done.text, "putting the putting back back");
    assert_eq!(
        edit.apply(&done.text)?.text,
        done.text,
        "a second time changes nothing"
    );
    // What is on record survives the wire.
    let wire = serde_json::to_string(&done.difference).unwrap();
    assert_eq!(
        serde_json::from_str::<Difference>(&wire).unwrap(),
        done.difference
    );
    // And what it says stands there.
    let Difference::Values(values) = &done.difference else {
        panic!("not values: {:?}", done.difference)
    };
    let Edit::HelmImage(edit) = edit else { panic!() };
    let place = Place::Helm(HelmPlace::new(FILE, &edit.path, &edit.document).unwrap());
    let found = |text: &str| {
        read(&place, &tree(&[(FILE, text)]))
            .unwrap()
            .unwrap()
            .remove(0)
            .image
    };
    assert_eq!(
        (found(text), found(&done.text)),
        (values.before.clone(), values.after.clone())
    );
    Ok(done.text)
}

#[test]
fn only_the_values_change() {
    let tag = || to("", "v2", "");
    for (path, to, before, after) in [
        // A mapping: quoting, comments, order, blank lines.
        (
            "image",
            tag(),
            "# top\nimage: # it\n  repository: r/app\n\n  tag: 'v1' # {\"$imagepolicy\": \"x\"}\n\nport: 80",
            "# top\nimage: # it\n  repository: r/app\n\n  tag: 'v2' # {\"$imagepolicy\": \"x\"}\n\nport: 80",
        ),
        (
            "image.tag",
            tag(),
            "image:\n  tag: \"v1\"\n",
            "image:\n  tag: \"v2\"\n",
        ),
        // Line ends, byte order mark, markers.
        (
            "image",
            tag(),
            "\u{feff}---\r\nimage:\r\n  repository: r/app\r\n  tag: v1\r\n...\r\n",
            "\u{feff}---\r\nimage:\r\n  repository: r/app\r\n  tag: v2\r\n...\r\n",
        ),
        // A whole reference.
        (
            "a.image",
            tag(),
            "a: {image: r:5000/app:v1}\n",
            "a: {image: r:5000/app:v2}\n",
        ),
        ("image", tag(), "image: app", "image: app:v2"),
        (
            "web",
            to("q/app", "v2", ""),
            "web: 'r/app:v1@sha256:0'\n",
            "web: 'q/app:v2'\n",
        ),
        (
            "web",
            to("q/app", "", ""),
            "web: r/app:v1@sha256:0\n",
            "web: q/app:v1@sha256:0\n",
        ),
        // A tag added where it is missing.
        (
            "image",
            tag(),
            "image:\n  repository: r/app # here\n  pullPolicy: Always\n",
            "image:\n  repository: r/app # here\n  tag: v2\n  pullPolicy: Always\n",
        ),
        (
            "image.tag",
            tag(),
            "image:\r\n  repository: a",
            "image:\r\n  repository: a\r\n  tag: v2",
        ),
        (
            "image",
            tag(),
            "image: {repository: a, x: 1}\n",
            "image: {repository: a, tag: v2, x: 1}\n",
        ),
        (
            "images[0]",
            tag(),
            "images:\n  - repository: a\n    x: 1\n  - repository: b\n",
            "images:\n  - repository: a\n    tag: v2\n    x: 1\n  - repository: b\n",
        ),
        // No value, and values that say so.
        (
            "image",
            tag(),
            "image:\n  tag: # later\n",
            "image:\n  tag: v2 # later\n",
        ),
        ("image", tag(), "image:\n  tag: ~\n", "image:\n  tag: v2\n"),
        ("image", tag(), "image:\n  tag: \"\"\n", "image:\n  tag: \"v2\"\n"),
        // A digest that has to go is emptied.
        (
            "image",
            tag(),
            "image:\n  repository: a\n  tag: v1\n  digest: sha256:1 # pinned\n",
            "image:\n  repository: a\n  tag: v2\n  digest: \"\" # pinned\n",
        ),
        (
            "image",
            tag(),
            "image: {tag: v1, digest: 'x'}",
            "image: {tag: v2, digest: ''}",
        ),
        ("image", tag(), "image: {tag: v1@sha256:0}", "image: {tag: v2}"),
        (
            "image",
            tag(),
            "image: {tag: v1, digest: }\n",
            "image: {tag: v2, digest: }\n",
        ),
        // Keys of other names.
        (
            "imageTag",
            tag(),
            "image: r/app\nimageTag: v1\n",
            "image: r/app\nimageTag: v2\n",
        ),
        (
            "image",
            tag(),
            "image: r/app\ntag: v1\n",
            "image: r/app\ntag: v2\n",
        ),
        (
            "web.IMAGE_TAG",
            tag(),
            "web:\n  IMAGE_TAG: v1\n",
            "web:\n  IMAGE_TAG: v2\n",
        ),
        ("version", tag(), "version: 1.2.3\n", "version: v2\n"),
        // Names.
        (
            "image",
            to("q.example/x/app", "v2", ""),
            "image:\n  registry: r.example\n  repository: app\n  tag: v1\n",
            "image:\n  registry: q.example\n  repository: x/app\n  tag: v2\n",
        ),
        (
            "image",
            to("q.example/x/app", "", ""),
            "image:\n  registry: ''\n  repository: app\n",
            "image:\n  registry: ''\n  repository: q.example/x/app\n",
        ),
        // Lists by name and place, keys with dots.
        (
            "workers[name=mail].image",
            tag(),
            "workers:\n- name: web\n  image: a:v1\n- name: mail\n  image: b:v1\n",
            "workers:\n- name: web\n  image: a:v1\n- name: mail\n  image: b:v2\n",
        ),
        ("w[1]", tag(), "w: [a:v1, b:v1]", "w: [a:v1, b:v2]"),
        (
            "\"a.b\".image",
            tag(),
            "a.b: {image: a}\n",
            "a.b: {image: a:v2}\n",
        ),
        // Anchors elsewhere, and unused ones.
        (
            "image",
            tag(),
            "x: &x 1\ny: *x\nimage: &i\n  tag: &t v1\n",
            "x: &x 1\ny: *x\nimage: &i\n  tag: &t v2\n",
        ),
        // An alias that an own key beats.
        (
            "image",
            tag(),
            "x: &x {tag: v0}\nimage:\n  <<: *x\n  tag: v1\n",
            "x: &x {tag: v0}\nimage:\n  <<: *x\n  tag: v2\n",
        ),
        // A document among several.
        (
            "spec.values.image",
            tag(),
            "kind: A\nmetadata: {name: a}\n---\nkind: B\nspec: {values: {image: {tag: v1}}}\n",
            "kind: A\nmetadata: {name: a}\n---\nkind: B\nspec: {values: {image: {tag: v2}}}\n",
        ),
    ] {
        let edited = apply(before, &helm(path, "", to)).unwrap_or_else(|error| panic!("{before}: {error}"));
        assert_eq!(edited, after);
    }
}

#[test]
fn digests_have_their_own_key_or_stand_behind_the_tag() {
    for (path, to, before, after) in [
        (
            "image",
            to("", "", DIGEST),
            "image:\n  tag: v1\n  digest: \"\"\n",
            format!("image:\n  tag: v1\n  digest: \"{DIGEST}\"\n"),
        ),
        (
            "image",
            to("", "", DIGEST),
            "image:\n  repository: a\n  tag: v1\n",
            format!("image:\n  repository: a\n  tag: v1@{DIGEST}\n"),
        ),
        (
            "image",
            to("", "", DIGEST),
            "image:\n  tag: v1@sha256:0\n",
            format!("image:\n  tag: v1@{DIGEST}\n"),
        ),
        (
            "image",
            to("", "v2", DIGEST),
            "image:\n  tag: v1\n",
            format!("image:\n  tag: v2@{DIGEST}\n"),
        ),
        (
            "image",
            to("", "v2", DIGEST),
            "image: {tag: v1, digest: x}\n",
            format!("image: {{tag: v2, digest: {DIGEST}}}\n"),
        ),
        (
            "image",
            to("", "v2", DIGEST),
            "image:\n  repository: a\n",
            format!("image:\n  repository: a\n  tag: v2@{DIGEST}\n"),
        ),
        (
            "image",
            to("", "", DIGEST),
            "image: a:v1\n",
            format!("image: a@{DIGEST}\n"),
        ),
        (
            "image",
            to("", "v2", DIGEST),
            "image: a\n",
            format!("image: a:v2@{DIGEST}\n"),
        ),
    ] {
        let edited = apply(before, &helm(path, "", to)).unwrap_or_else(|error| panic!("{before}: {error}"));
        assert_eq!(edited, after);
    }
}

#[test]
fn tags_that_are_no_strings_are_quoted() {
    for tag in [
        "1234567",
        "12e4567",
        "0123456",
        "1.0",
        "2026-01-31",
        "true",
        "null",
        "0x12",
        "1_000",
    ] {
        let edit = helm("image", "", to("", tag, ""));
        for (before, after) in [
            ("image:\n  tag: v1\n", format!("image:\n  tag: \"{tag}\"\n")),
            ("image:\n  tag: 'v1'\n", format!("image:\n  tag: '{tag}'\n")),
            (
                "image:\n  repository: a\n",
                format!("image:\n  repository: a\n  tag: \"{tag}\"\n"),
            ),
            ("image: {tag: 7}\n", format!("image: {{tag: \"{tag}\"}}\n")),
        ] {
            assert_eq!(apply(before, &edit).unwrap(), after);
        }
    }
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    for (path, document, text, wanted) in [
        ("image", "", "", "the file is empty"),
        (
            "image",
            "",
            "web: 1\napi: 2\n",
            "no `image` at the top; the keys there: web, api",
        ),
        (
            "web.image",
            "",
            "web:\n  port: 1\n",
            "no `image` in `web`; the keys there: port",
        ),
        (
            "w[name=x].image",
            "",
            "w:\n- name: a\n- name: b\n",
            "no `[name=x]` in `w`; the names in the list there: a, b",
        ),
        (
            "web",
            "",
            "web: {image: a, port: 1}\n",
            "`web` is not an image: it has neither `repository` nor `tag`; the keys there: image, port; end the path in its `image`",
        ),
        (
            "image",
            "Deployment/web",
            "kind: A\nmetadata: {name: a}\nimage: b\n---\nimage: c\n",
            "no document \"Deployment/web\"; there are: A/a, 2",
        ),
    ] {
        let error = helm(path, document, to("", "v2", "")).apply(text).unwrap_err();
        assert!(matches!(error, Refusal::ImageNotFound(_)), "{error:?}");
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn what_is_not_safe_is_refused_with_line_and_reason() {
    const TEMPLATE: &str = "there is a template here: edit the values that it uses";
    for (path, to, text, line, reason) in [
        (
            "image",
            to("", "v2", ""),
            "image:\n  tag: v1\n  tag: v3\n",
            3,
            "`tag` appears here a second time",
        ),
        (
            "image",
            to("", "v2", ""),
            "image: a\nimage: b\n",
            2,
            "`image` appears here a second time",
        ),
        (
            "image",
            to("", "v2", ""),
            "image:\n  tag: |\n    v1\n",
            2,
            "the value is written over several lines: write it on one first",
        ),
        (
            "image",
            to("", "v2", ""),
            "image:\n  tag: !x 1\n",
            2,
            "the value has a tag (`!x`): remove that first",
        ),
        (
            "image",
            to("", "v2", ""),
            "image: {{ .Values.image }}\n",
            1,
            TEMPLATE,
        ),
        (
            "image",
            to("", "v2", ""),
            "image: \"{{ .Values.image }}:v1\"\n",
            1,
            TEMPLATE,
        ),
        (
            "port",
            to("", "v2", ""),
            "port: 80\n",
            1,
            "\"80\" does not look like an image: end the path in the key of an image, a tag or a digest",
        ),
        (
            "image",
            to("", "", DIGEST),
            "x: 1\nimage:\n  repository: a\n",
            3,
            "there is neither a tag nor a `digest` here that could hold the digest: give the tag too",
        ),
        (
            "image",
            to("b", "", ""),
            "image:\n  tag: v1\n",
            2,
            "there is no `repository` here to write the image's name in: add it by hand, or leave the name out",
        ),
        (
            "image",
            to("b", "", ""),
            "image:\n  registry: r.example\n  repository: a\n",
            3,
            "the registry is in a value of its own here: give the new name with its registry",
        ),
        (
            "image",
            to("", "v2", ""),
            "image: a\n---\nimage: b\n",
            3,
            "`image` is in several documents (1, 2): name one by `document`",
        ),
        (
            "w[name=a]",
            to("", "v2", ""),
            "w:\n- name: a\n- name: a\n",
            3,
            "a second item has `name: a`: name it by its place, as [0]",
        ),
    ] {
        let error = helm(path, "", to).apply(text).unwrap_err();
        assert_eq!(error.to_string(), format!("line {line}: {reason}"), "{text}");
    }
    let error = helm("image", "", to("", "v2", ""))
        .apply("{{- if .x }}\nimage: a\n{{- end }}\n")
        .unwrap_err();
    assert!(
        matches!(&error, Refusal::NotYaml { message, .. } if message.contains("looks like a template")),
        "{error}"
    );
}

#[test]
fn one_document_of_several_by_name_or_number() {
    let text = "kind: A\nmetadata: {name: a}\nimage: x:v1\n---\nkind: A\nmetadata: {name: b}\nimage: x:v1\n";
    let first = text.replacen("x:v1", "x:v2", 1);
    assert_eq!(apply(text, &helm("image", "1", to("", "v2", ""))).unwrap(), first);
    assert_eq!(
        apply(text, &helm("image", "A/a", to("", "v2", ""))).unwrap(),
        first
    );
}

#[test]
fn putting_back_is_refused_when_somebody_changed_it_since() {
    let before = "image:\n  repository: a\n  tag: 1.10 # as it was\n";
    let done = helm("image", "", to("", "v2", "")).apply(before).unwrap();
    let undo = |force| Edit::undoing(&done.difference, force).unwrap();
    for (since, name, now) in [
        (done.text.replace("v2", "v3"), "`image.tag`", "\"v3\""),
        // The same image under another name is another image.
        (done.text.replace(": a", ": b"), "`image.repository`", "\"b\""),
        (
            done.text.replace("  tag: v2 # as it was\n", ""),
            "`image.tag`",
            "not there",
        ),
    ] {
        match undo(false).apply(&since).unwrap_err() {
            Refusal::ChangedSince {
                name: who, now: is, ..
            } => {
                assert_eq!((who.as_str(), is.as_str()), (name, now));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        undo(true).apply(&done.text.replace("v2", "v3")).unwrap().text,
        before
    );
    // What others changed elsewhere stays.
    let moved = format!("# new\nport: 1\n{}", done.text);
    assert_eq!(
        undo(false).apply(&moved).unwrap().text,
        format!("# new\nport: 1\n{before}")
    );
    let gone = undo(true).apply("port: 1\n").unwrap_err();
    assert!(matches!(gone, Refusal::ImageNotFound(_)), "{gone}");
}

#[test]
fn fields_are_checked() {
    for (file, path, document, field) in [
        ("../x", "image", "", "file"),
        ("a.yaml", "", "", "path"),
        ("a.yaml", "a..b", "", "path"),
        ("a.yaml", "image", "web", "document"),
        ("a.yaml", "image", "0", "document"),
        ("a.yaml", "image", "/x", "document"),
    ] {
        assert_eq!(
            HelmImage::new(file, path, document, to("", "v1", ""))
                .unwrap_err()
                .field,
            field
        );
    }
}

#[test]
fn the_image_is_read_with_its_line() {
    let text =
        "x: 1\nimage:\n  registry: r.example\n  repository: app\n  tag: v1@sha256:0\nweb: a:5000/b:v3\n";
    for (path, image, line) in [
        ("image", "r.example/app:v1@sha256:0", 5),
        ("image.tag", "r.example/app:v1@sha256:0", 5),
        ("web", "a:5000/b:v3", 6),
    ] {
        let place = Place::Helm(HelmPlace::new(FILE, path, "").unwrap());
        let found = read(&place, &tree(&[(FILE, text)])).unwrap().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].image.clone(), found[0].line),
            (Reference::split(image), line)
        );
        assert_eq!((found[0].name.as_str(), found[0].file.as_str()), (path, FILE));
    }
}

#[test]
fn a_part_that_others_share_is_left_and_does_not_hinder() {
    let text = "image:\n  repository: a\n  tag: &t v1\nother: *t\n";
    let edited = apply(text, &helm("image", "", to("q/b", "", ""))).unwrap();
    assert_eq!(edited, text.replace("repository: a", "repository: q/b"));
}
