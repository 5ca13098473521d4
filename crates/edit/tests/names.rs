//! What the keys of an image's parts are called, and where in them tag and digest stand.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, HelmPlace, Place, read};

#[path = "support/tree.rs"]
mod tree;
#[path = "support/undone.rs"]
mod undone;
use tree::{Apply, FILE, tree};
use undone::{DIGEST, apply, helm};

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OLD: &str = "d5db4b724a53ec7135df90bdb908e00439522539156df2697d969c5931c673a4";

/// The edited text; the image that a reader finds is the one that the difference records, before and after.
fn edited(text: &str, path: &str, reference: &str) -> String {
    let (edited, difference) = apply(text, &Edit::HelmImage(helm(path, reference)))
        .unwrap_or_else(|error| panic!("{path}: {error}\n{text}"));
    let Difference::Values(values) = difference else {
        panic!()
    };
    let place = Place::Helm(HelmPlace::new(FILE, path, "").unwrap());
    let found = |text: &str| {
        read(&place, &tree(&[(FILE, text)]))
            .unwrap()
            .unwrap()
            .remove(0)
            .image
    };
    assert_eq!(
        (found(text), found(&edited)),
        (values.before, values.after),
        "{edited}"
    );
    edited
}

#[test]
fn a_sha_is_a_digest() {
    let at = |digest: &str| format!("@{digest}");
    let both = format!(":v2@{DIGEST}");
    for (reference, before, after) in [
        (
            ":v2",
            format!("tag: v1, sha: {OLD}"),
            "tag: v2, sha: \"\"".to_owned(),
        ),
        (
            ":v2",
            format!("tag: v1, sha: 'sha256:{OLD}'"),
            "tag: v2, sha: ''".to_owned(),
        ),
        (
            ":v2",
            format!("tag: v1, sha256: {OLD}"),
            "tag: v2, sha256: \"\"".to_owned(),
        ),
        (
            ":v2",
            "tag: v1, sha: \"\"".to_owned(),
            "tag: v2, sha: \"\"".to_owned(),
        ),
        // As the value is written, or else as the key has it.
        (
            &at(DIGEST),
            format!("tag: v1, sha: {OLD}"),
            format!("tag: v1, sha: {HEX}"),
        ),
        (
            &at(DIGEST),
            format!("tag: v1, sha: sha256:{OLD}"),
            format!("tag: v1, sha: {DIGEST}"),
        ),
        (
            &at(DIGEST),
            "tag: v1, sha: \"\"".to_owned(),
            format!("tag: v1, sha: \"{HEX}\""),
        ),
        (
            &at(DIGEST),
            format!("tag: v1, digest: {OLD}"),
            format!("tag: v1, digest: {HEX}"),
        ),
        (
            &both,
            format!("tag: v1, sha: {OLD}"),
            format!("tag: v2, sha: {HEX}"),
        ),
        // Several of them: one counts.
        (
            &both,
            format!("tag: v1, sha: {OLD}, digest: \"\""),
            format!("tag: v2, sha: {HEX}, digest: \"\""),
        ),
        (
            &both,
            "tag: v1, sha: \"\", digest: \"\"".to_owned(),
            format!("tag: v2, sha: \"\", digest: \"{DIGEST}\""),
        ),
        (
            ":v2",
            format!("tag: v1, sha: {OLD}, digest: sha256:{OLD}"),
            "tag: v2, sha: \"\", digest: \"\"".to_owned(),
        ),
    ] {
        let text = |parts: &str| format!("image: {{repository: grafana/grafana, {parts}}}\n");
        assert_eq!(edited(&text(&before), "image", reference), text(&after));
    }
    for (path, before, after) in [
        (
            "imageTag",
            format!("image: r/app\nimageTag: v1\nimageSha: {OLD}\n"),
            "image: r/app\nimageTag: v2\nimageSha: \"\"\n".to_owned(),
        ),
        (
            "imageTag",
            format!("image: r/app\nimageTag: v1\nimageSHA256: {OLD}\n"),
            "image: r/app\nimageTag: v2\nimageSHA256: \"\"\n".to_owned(),
        ),
        (
            "IMAGE_TAG",
            format!("IMAGE_TAG: v1\nIMAGE_DIGEST: sha256:{OLD}\n"),
            "IMAGE_TAG: v2\nIMAGE_DIGEST: \"\"\n".to_owned(),
        ),
        (
            "\"image.tag\"",
            format!("image.tag: v1\nimage.sha256: {OLD}\n"),
            "image.tag: v2\nimage.sha256: \"\"\n".to_owned(),
        ),
        (
            "image.sha",
            format!("image:\n  repository: r/app\n  tag: v1\n  sha: {OLD}\n"),
            "image:\n  repository: r/app\n  tag: v2\n  sha: \"\"\n".to_owned(),
        ),
        (
            "image",
            "image: {repo: r/app, tag: v1}\n".to_owned(),
            "image: {repo: r/app, tag: v2}\n".to_owned(),
        ),
    ] {
        assert_eq!(edited(&before, path, ":v2"), after);
    }
    // The id of a commit is not a digest.
    let text = "image: {repository: r/app, tag: v1, sha: 1a2b3c4}\n";
    let error = Edit::HelmImage(helm("image", ":v2")).apply(text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1: `sha` is \"1a2b3c4\", which is not the digest of an image: empty it or edit it by hand"
    );
}

#[test]
fn the_switch_for_the_digest_is_set_with_it() {
    let text = |parts: &str| {
        format!(
            "image:\n  repository: quay.io/cilium/cilium\n  {}\n",
            parts.replace(", ", "\n  ")
        )
    };
    for (reference, before, after) in [
        (
            ":v2",
            format!("tag: v1, digest: sha256:{OLD}, useDigest: true # c"),
            "tag: v2, digest: \"\", useDigest: false # c".to_owned(),
        ),
        (
            ":v2",
            format!("tag: v1, digest: sha256:{OLD}, useDigest: false"),
            "tag: v2, digest: \"\", useDigest: false".to_owned(),
        ),
        (
            &format!(":v2@{DIGEST}"),
            format!("tag: v1, digest: sha256:{OLD}, useDigest: true"),
            format!("tag: v2, digest: {DIGEST}, useDigest: true"),
        ),
        (
            &format!("@{DIGEST}"),
            "tag: v1, digest: \"\", useDigest: false".to_owned(),
            format!("tag: v1, digest: \"{DIGEST}\", useDigest: true"),
        ),
        // The chart has the digest, and only the switch is here.
        (
            ":v2",
            "tag: v1, useDigest: true".to_owned(),
            "tag: v2, useDigest: false".to_owned(),
        ),
        (
            &format!(":v2@{DIGEST}"),
            "tag: v1, useDigest: false".to_owned(),
            format!("tag: v2, digest: {DIGEST}, useDigest: true"),
        ),
        (
            ":v2",
            format!("tag: v1, sha256: {OLD}, digestEnabled: yes"),
            "tag: v2, sha256: \"\", digestEnabled: false".to_owned(),
        ),
        (
            "q.example/cilium",
            "tag: v1, useDigest: true".to_owned(),
            "tag: v1, useDigest: true".to_owned(),
        ),
    ] {
        let name = if reference.starts_with("q.") {
            reference
        } else {
            "quay.io/cilium/cilium"
        };
        let wanted = text(&after).replace("quay.io/cilium/cilium", name);
        assert_eq!(edited(&text(&before), "image", reference), wanted);
    }
    let flat = |tag: &str, digest: &str, switch: &str| {
        format!(
            "agentImageTag: {tag}\nagentImageDigest: {digest}\nagentImageUseDigest: {switch}\nuseDigest: true\n"
        )
    };
    assert_eq!(
        edited(
            &flat("v1", &format!("sha256:{OLD}"), "true"),
            "agentImageTag",
            ":v2"
        ),
        flat("v2", "\"\"", "false")
    );
}

#[test]
fn tag_and_digest_stand_in_the_repository() {
    let digest = format!("r:5000/nginx@{DIGEST}");
    let both = format!("r:5000/nginx:v2@{DIGEST}");
    for (reference, before, after) in [
        (
            ":v2",
            "repository: r:5000/nginx:v1",
            "repository: r:5000/nginx:v2".to_owned(),
        ),
        (
            ":v2",
            "repository: 'nginx:v1'",
            "repository: 'nginx:v2'".to_owned(),
        ),
        (
            ":v2",
            "repository: r:5000/nginx@sha256:0",
            "repository: r:5000/nginx:v2".to_owned(),
        ),
        (
            ":v2",
            "repository: r:5000/nginx:v1@sha256:0",
            "repository: r:5000/nginx:v2".to_owned(),
        ),
        (
            &format!("@{DIGEST}"),
            "repository: r:5000/nginx:v1",
            format!("repository: {digest}"),
        ),
        (
            &format!(":v2@{DIGEST}"),
            "repository: r:5000/nginx:v1",
            format!("repository: {both}"),
        ),
        (
            "q/nginx",
            "repository: r:5000/nginx:v1",
            "repository: q/nginx:v1".to_owned(),
        ),
        (
            "q/nginx:v2",
            "repository: r:5000/nginx:v1",
            "repository: q/nginx:v2".to_owned(),
        ),
        // A tag that is empty stays so; a digest that has a key keeps it.
        (
            ":v2",
            "repository: nginx:v1, tag: \"\"",
            "repository: nginx:v2, tag: \"\"".to_owned(),
        ),
        (
            ":v2",
            "repository: nginx:v1, digest: sha256:0",
            "repository: nginx:v2, digest: \"\"".to_owned(),
        ),
        (
            &format!("@{DIGEST}"),
            "repository: nginx:v1, digest: sha256:0",
            format!("repository: nginx:v1, digest: {DIGEST}"),
        ),
        (
            ":v2",
            "registry: r.example, repository: nginx:v1",
            "registry: r.example, repository: nginx:v2".to_owned(),
        ),
        (
            "q.example/web:v2",
            "registry: r.example, repository: nginx:v1",
            "registry: q.example, repository: web:v2".to_owned(),
        ),
    ] {
        for path in ["nginx_image", "nginx_image.repository"] {
            let text = |parts: &str| {
                format!(
                    "nginx_image:\n  {}\n  pullPolicy: x\n",
                    parts.replace(", ", "\n  ")
                )
            };
            assert_eq!(edited(&text(before), path, reference), text(&after), "{path}");
        }
    }
    // The digest in the tag.
    let text = |name: &str, tag: &str| format!("image: {{repository: {name}, tag: {tag}}}\n");
    for (reference, name, tag) in [
        (format!("@{DIGEST}"), "nginx@sha256", HEX.to_owned()),
        (":v2".to_owned(), "nginx", "v2".to_owned()),
        (format!(":v2@{DIGEST}"), "nginx", format!("v2@{DIGEST}")),
        ("q/nginx".to_owned(), "q/nginx@sha256", OLD.to_owned()),
    ] {
        assert_eq!(
            edited(&text("nginx@sha256", OLD), "image", &reference),
            text(name, &tag),
            "{reference}"
        );
    }
    let twice = text("nginx:v1", "v1");
    let error = Edit::HelmImage(helm("image", ":v2")).apply(&twice).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1: `repository` contains a tag or a digest, and `tag` has one too: leave it in one of them first"
    );
}
