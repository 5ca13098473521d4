//! The places where images stand besides containers and values: Applications of Argo CD, texts of YAML in YAML, volumes;
//! values that are broken; keys that stand twice.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Contents, Edit, HelmPlace, ManifestImage, ManifestPlace, Place, Refusal, read};

#[path = "support/tree.rs"]
mod tree;
#[path = "support/undone.rs"]
mod undone;
use tree::{Apply, FILE, tree};
use undone::{DIGEST, apply, helm, manifest, to};

const APPLICATION: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: front
spec:
  source:
    helm:
      parameters:
        - name: global.image.tag
          value: v1.4.0
          forceString: true
      valuesObject:
        image:
          tag: v1.4.0
      values: |
        app:
          image:
            repository: registry.example/front
            tag: v1.4.0
    kustomize:
      images:
        - front=registry.example/front:v1.4.0
";

fn edited(text: &str, path: &str, reference: &str) -> String {
    let edit = Edit::HelmImage(helm(path, reference));
    apply(text, &edit)
        .unwrap_or_else(|error| panic!("{path}: {error}\n{text}"))
        .0
}

/// The image that a reader finds at a path, and its line.
fn found(text: &str, path: &str) -> (String, usize) {
    let place = Place::Helm(HelmPlace::new(FILE, path, "").unwrap());
    let found = read(&place, &tree(&[(FILE, text)])).unwrap().unwrap().remove(0);
    (found.image.to_string(), found.line)
}

#[test]
fn an_application_is_edited_at_each_place() {
    let line = |number: usize, with: &str| {
        let mut lines: Vec<String> = APPLICATION.lines().map(str::to_owned).collect();
        lines[number - 1] = lines[number - 1].replace("v1.4.0", with);
        lines.join("\n") + "\n"
    };
    for (path, number) in [
        ("spec.source.helm.parameters[name=global.image.tag]", 10),
        ("spec.source.helm.parameters[name=global.image.tag].value", 10),
        ("spec.source.helm.parameters[0].value", 10),
        ("spec.source.helm.parameters[name=global.image]", 10),
        ("spec.source.helm.valuesObject.image", 14),
        ("spec.source.helm.values.app.image", 19),
        ("spec.source.helm.values.app.image.tag", 19),
        ("spec.source.kustomize.images[0]", 22),
        ("spec.source.kustomize.images[name=front]", 22),
    ] {
        assert_eq!(
            edited(APPLICATION, path, ":v1.5.0"),
            line(number, "v1.5.0"),
            "{path}"
        );
        assert_eq!(found(APPLICATION, path).1, number, "{path}");
    }
    // By the image's name, or the one that it replaces.
    for name in ["front", "registry.example/front"] {
        let edit = Edit::ManifestImage(manifest("", "", name, ":v1.5.0"));
        assert_eq!(apply(APPLICATION, &edit).unwrap().0, line(22, "v1.5.0"), "{name}");
    }
    // Several sources.
    let several = APPLICATION.replace("  source:\n", "  sources:\n  - chart: front\n");
    for path in ["spec.sources[0]", "spec.sources[chart=front]"] {
        let path = format!("{path}.helm.values.app.image");
        let mut lines: Vec<String> = several.lines().map(str::to_owned).collect();
        lines[19] = lines[19].replace("v1.4.0", "v1.5.0");
        assert_eq!(
            edited(&several, &path, ":v1.5.0"),
            lines.join("\n") + "\n",
            "{path}"
        );
    }
    let error = Edit::ManifestImage(manifest("", "web", "", ":v2"))
        .apply(APPLICATION)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`kustomize.images` of Application/front"),
        "{error}"
    );
    let bare = APPLICATION[..APPLICATION.find("    kustomize").unwrap()].to_owned();
    let error = Edit::ManifestImage(manifest("", "web", "", ":v2"))
        .apply(&bare)
        .unwrap_err();
    for path in [
        "spec.source.helm.parameters[name=global.image.tag]",
        "spec.source.helm.values.app.image",
    ] {
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn parameters_of_one_prefix_form_an_image() {
    let list = |parameters: &[(&str, &str)]| {
        let mut text = "spec:\n  helm:\n    parameters:\n".to_owned();
        for (name, value) in parameters {
            text += &format!("    - {{name: {name}, value: {value}}}\n");
        }
        text
    };
    let text = list(&[
        ("image.registry", "r.example"),
        ("image.repository", "team/web"),
        ("image.tag", "v1"),
        ("image.digest", "\"\""),
        ("sidecar.image.tag", "s1"),
        ("replicas", "3"),
    ]);
    let path = "spec.helm.parameters[name=image.tag]";
    assert_eq!(found(&text, path).0, "r.example/team/web:v1");
    assert_eq!(
        edited(&text, path, &format!("q.example/team/web:v2@{DIGEST}")),
        text.replace("r.example", "q.example")
            .replace("v1", "v2")
            .replace("\"\"", &format!("\"{DIGEST}\""))
    );
    assert_eq!(
        edited(&text, "spec.helm.parameters[name=sidecar.image.tag]", ":s2"),
        text.replace("s1", "s2")
    );
    // A whole reference, and a digest without `sha256:`.
    let whole = list(&[("web.image", "r/web:v1"), ("tag", "x")]);
    assert_eq!(
        edited(&whole, "spec.helm.parameters[name=web.image]", ":v2"),
        whole.replace("web:v1", "web:v2")
    );
    let sha = list(&[("image.tag", "v1"), ("image.sha256", "\"\"")]);
    assert_eq!(
        edited(
            &sha,
            "spec.helm.parameters[name=image.tag]",
            &format!("@{DIGEST}")
        ),
        sha.replace("\"\"", &format!("\"{}\"", &DIGEST["sha256:".len()..]))
    );
    for (path, words) in [
        (
            "spec.helm.parameters[name=replicas]",
            "does not look like an image",
        ),
        ("spec.helm.parameters[name=other]", "the names in the list there"),
    ] {
        let error = Edit::HelmImage(helm(path, ":v2")).apply(&text).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let twice = list(&[("image.tag", "v1"), ("image.tag", "v2")]);
    let error = Edit::HelmImage(helm("spec.helm.parameters[0]", ":v3"))
        .apply(&twice)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 5: the parameter `image.tag` appears here a second time"
    );
    let none = list(&[("image.repository", "r/web")]);
    let error = Edit::HelmImage(helm("spec.helm.parameters[name=image]", ":v3"))
        .apply(&none)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 4: there is no parameter `image.tag` here: add it by hand once"
    );
    // Other lists of names and values.
    let env = "env:\n- name: IMAGE_TAG\n  value: v1\n- name: RELATED_IMAGE_WEB\n  value: r/web:v1\n";
    assert_eq!(
        edited(env, "env[name=IMAGE_TAG]", ":v2"),
        env.replace("value: v1", "value: v2")
    );
    assert_eq!(
        edited(env, "env[name=RELATED_IMAGE_WEB].value", ":v2"),
        env.replace("web:v1", "web:v2")
    );
}

#[test]
fn images_of_a_kustomization_in_an_application() {
    let text = |image: &str| format!("spec:\n  source:\n    kustomize:\n      images:\n      - {image}\n");
    let digest = format!("registry.example/x@{DIGEST}");
    for (before, reference, after) in [
        (
            "front=registry.example/x:v1",
            ":v2",
            "front=registry.example/x:v2",
        ),
        ("front=registry.example/x", ":v2", "front=registry.example/x:v2"),
        ("front=registry.example/x:v1", "q/x", "front=q/x:v1"),
        ("front:v1", ":v2", "front:v2"),
        ("front:v1", "q.example/front:v2", "front=q.example/front:v2"),
        ("'front@sha256:0'", ":v2", "'front:v2'"),
        (
            "front=registry.example/x:v1",
            &format!("@{DIGEST}"),
            &format!("front={digest}"),
        ),
        ("1.2", ":v2", "1.2:v2"),
    ] {
        assert_eq!(
            edited(&text(before), "spec.source.kustomize.images[0]", reference),
            text(after),
            "{before}"
        );
    }
}

#[test]
fn texts_of_yaml_are_edited_line_by_line() {
    for (path, before, after) in [
        // Comments, blank lines and CRLF, at any indentation and with any end.
        (
            "values.image",
            "values: |- # c\r\n    # top\r\n    image:\r\n\r\n      tag: 'v1' # now\r\n    z: 1\r\nother: 1\r\n",
            "values: |- # c\r\n    # top\r\n    image:\r\n\r\n      tag: 'v2' # now\r\n    z: 1\r\nother: 1\r\n",
        ),
        (
            "v.image",
            "v: |+\n  \n  image: {tag: v1}\n\n\nother: 1\n",
            "v: |+\n  \n  image: {tag: v2}\n\n\nother: 1\n",
        ),
        ("v.image", "v: |2\n    image: r/a:v1", "v: |2\n    image: r/a:v2"),
        // A key that is added in it.
        (
            "v.image",
            "v: |\n  image:\n    repository: a\n  z: 1\n",
            "v: |\n  image:\n    repository: a\n    tag: v2\n  z: 1\n",
        ),
        (
            "v.image",
            "v: |\n  image:\n    repository: a",
            "v: |\n  image:\n    repository: a\n    tag: v2",
        ),
        // One in another.
        (
            "data.\"a.yaml\".v.image",
            "data:\n  a.yaml: |\n    v: |\n      image: {tag: v1}\n",
            "data:\n  a.yaml: |\n    v: |\n      image: {tag: v2}\n",
        ),
        // A list in it.
        (
            "v[0].image",
            "v: |\n  - image: r/a:v1\n",
            "v: |\n  - image: r/a:v2\n",
        ),
    ] {
        assert_eq!(edited(before, path, ":v2"), after);
    }
    for (path, text, wanted) in [
        (
            "v.image",
            "v: |\n  image: {{ .x }}\n  tag: [\n",
            "line 3: the text of `v` is not YAML: a bracket is not closed",
        ),
        (
            "v.image",
            "v: |\n  a: 1\n",
            "in the text of `v`: no `image` at the top; the keys there: a",
        ),
        (
            "v.image.tag",
            "v: |\n  image:\n    tag: v1\n    tag: v3\n",
            "line 4: `tag` appears here a second time",
        ),
        (
            "v.image",
            "v: >\n  image: {tag: v1}\n",
            "line 2: the text of `v` is not written as a block of lines (`|`): write it as one first",
        ),
    ] {
        let error = Edit::HelmImage(helm(path, ":v2")).apply(text).unwrap_err();
        let error = error.to_string();
        assert!(error == wanted || error.starts_with(wanted), "{error}\n{wanted}");
    }
}

#[test]
fn volumes_with_an_image() {
    let text = "\
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: server
        image: registry.example/server:1.0
      volumes:
      - name: model
        image:
          reference: registry.example/model:7b-1
          pullPolicy: IfNotPresent
      - {name: tmp, emptyDir: {}}
";
    let by_name = Edit::ManifestImage(manifest("", "", "registry.example/model", ":7b-2"));
    let by_path = Edit::ManifestImage(ManifestImage {
        image: String::new(),
        field: "spec.template.spec.volumes[name=model].image.reference".to_owned(),
        ..manifest("", "", "x", ":7b-2")
    });
    for edit in [by_name, by_path] {
        assert_eq!(apply(text, &edit).unwrap().0, text.replace("7b-1", "7b-2"));
    }
    let place = Place::Manifest(ManifestPlace::new(FILE, "", "", "").unwrap());
    let found = read(&place, &tree(&[(FILE, text)])).unwrap().unwrap();
    let found: Vec<(String, usize)> = found
        .into_iter()
        .map(|found| (found.image.to_string(), found.line))
        .collect();
    assert_eq!(
        found,
        [
            ("registry.example/server:1.0".to_owned(), 7),
            ("registry.example/model:7b-1".to_owned(), 11)
        ]
    );
    let error = Edit::ManifestImage(manifest("", "model", "", ":v2"))
        .apply(text)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("volume \"model\" of 1 (registry.example/model:7b-1)"),
        "{error}"
    );
}

#[test]
fn keys_that_stand_twice_elsewhere_do_not_matter() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p, name: p}\nspec:\n  selector:\n    matchLabels:\n      app: podinfo\n      app: podinfo\n  template:\n    spec:\n      containers:\n      - name: d\n        image: r/podinfo:5.0.3 \n        env: [{name: A, value: x, value: y}]\n";
    assert_eq!(Contents::of(text).unwrap(), Contents::Objects);
    for edit in [
        manifest("", "d", "", ":5.0.4"),
        manifest("", "", "r/podinfo", ":5.0.4"),
    ] {
        assert_eq!(
            apply(text, &Edit::ManifestImage(edit)).unwrap().0,
            text.replace("5.0.3", "5.0.4")
        );
    }
    assert_eq!(
        edited("a: 1\na: 2\nimage: {tag: v1, x: 1, x: 2}\n", "image", ":v2"),
        "a: 1\na: 2\nimage: {tag: v2, x: 1, x: 2}\n"
    );
    // Where they decide which image counts, they do.
    let twice =
        "spec:\n  containers: [{name: d, image: a:1}]\nspec:\n  containers: [{name: d, image: a:2}]\n";
    let error = Edit::ManifestImage(manifest("", "d", "", ":3"))
        .apply(twice)
        .unwrap_err();
    assert_eq!(error.to_string(), "line 3: `spec` appears here a second time");
}

#[test]
fn broken_images_are_replaced() {
    let pod = |image: &str| format!("kind: Pod\nspec:\n  containers:\n  - name: a\n    image: {image}\n");
    for (before, reference, after) in [
        ("alpine:invalid!", ":3.20", "alpine:3.20"),
        ("alpine:invalid!", "alpine:3.20", "alpine:3.20"),
        ("'alpine:not a tag'", ":3.20", "'alpine:3.20'"),
        ("alpine@sha256:12", ":3.20", "alpine:3.20"),
        ("Alpine:3", "alpine:3.20", "alpine:3.20"),
        ("\"\"", "alpine:3.20", "\"alpine:3.20\""),
        ("1.10", "alpine:3.20", "alpine:3.20"),
        ("true", "alpine:3.20", "alpine:3.20"),
        ("!!str alpine:3", ":3.20", "!!str alpine:3.20"),
        ("alpine:${TAG}", ":3.20", "alpine:3.20"),
    ] {
        let edit = Edit::ManifestImage(manifest("", "a", "", reference));
        let (edited, _) = apply(&pod(before), &edit).unwrap_or_else(|error| panic!("{before}: {error}"));
        assert_eq!(edited, pod(after));
    }
    let by_image = Edit::ManifestImage(manifest("", "", "alpine", ":3.20"));
    assert_eq!(
        apply(&pod("alpine:invalid!"), &by_image).unwrap().0,
        pod("alpine:3.20")
    );
    for bad in ["Alpine:3", "alpine::3", "'a b:3'"] {
        let edit = Edit::ManifestImage(manifest("", "a", "", ":3.20"));
        let error = edit.apply(&pod(bad)).unwrap_err();
        assert!(error.to_string().contains("give the name too"), "{bad}: {error}");
    }
    // In values, where a key says that it is an image.
    for (before, after) in [
        ("image: alpine:invalid!\n", "image: alpine:3.20\n"),
        (
            "image: {repository: alpine, tag: not valid!}\n",
            "image: {repository: alpine, tag: \"3.20\"}\n",
        ),
    ] {
        assert_eq!(edited(before, "image", ":3.20"), after);
    }
    let error = Edit::HelmImage(helm("image", ":3.20"))
        .apply("image: 12\n")
        .unwrap_err();
    assert!(
        error.to_string().contains("does not look like an image"),
        "{error}"
    );
}

#[test]
fn errors_have_no_words_of_a_library() {
    let words = [
        "while parsing",
        "block mapping",
        "flow",
        "simple key",
        "scan",
        "token",
        "EOF",
    ];
    for text in [
        "a: [x\nb: 1\n",
        "a: {x\n",
        "a: 'x\n",
        "a: \"x\n",
        "a:\n\t- b\n",
        "a: b: c\n",
        "a: *x\n",
        "- a\nb: 1\n",
        "a: 1\n  b: 2\n",
        "a: ]\n",
        "a: 'x' y\n",
        "a\nb: 1\n",
        "%YAML 3.0\n---\na: 1\n",
        "a: !<x\n",
        "a: \"\\q\"\n",
        "a: |9x\n b\n",
    ] {
        let Err(Refusal::NotYaml { message, .. }) = Contents::of(text) else {
            panic!("{text} is YAML")
        };
        let found: Vec<&&str> = words.iter().filter(|word| message.contains(**word)).collect();
        assert!(found.is_empty(), "{text}: {message}");
    }
}

#[test]
fn contents_name_the_paths_of_images() {
    let images = |text: &str| match Contents::of(text).unwrap() {
        Contents::Values { images } => images,
        other => panic!("{other:?}"),
    };
    let text = "image: {repository: r, tag: '1'}\nw:\n- name: m\n  image: y:1\n- image: z:1\nv: |\n  image: x:1\np: [{name: image.tag, value: v1}]\n";
    assert_eq!(
        images(text),
        [
            "image",
            "w[name=m].image",
            "w[1].image",
            "v.image",
            "p[name=image.tag]"
        ]
    );
    for path in images(text) {
        let _ = edited(text, &path, ":v2");
    }
    let component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
    assert_eq!(
        Contents::of(component).unwrap(),
        Contents::Kustomization("Component".to_owned())
    );
    let _ = to(":v1");
}
