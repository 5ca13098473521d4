//! Entries of `images` that are added if the base uses the image, and removed again.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, KustomizeImage, NewImage, Refusal};

#[path = "support/tree.rs"]
mod tree;
use tree::Apply;

const POD: &str = "kind: Pod\nspec:\n  initContainers: [{image: r.example/init}]\n  containers:\n  - {name: a, image: 'app:v0'}\n  - {name: b, image: \"r.example/side@sha256:0\"}\n";

fn edit(name: &str, new_name: &str, tag: &str) -> Edit {
    let to = NewImage::new(new_name, tag, "").unwrap();
    Edit::KustomizeImage(KustomizeImage::new("app", name, to).unwrap())
}

/// Adds an entry; checks that undoing takes it out to the byte, and that undoing that adds it again.
fn add(text: &str, files: &[(&str, &str)], edit: &Edit) -> Result<String, Refusal> {
    let done = edit.apply_in(text, files)?;
    assert!(
        matches!(&done.difference, Difference::Entry(entry) if entry.added),
        "{:?}",
        done.difference
    );
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let undone = undo.apply_in(&done.text, files)?;
    assert_eq!(undone.text, text, "taking it out");
    assert_eq!(undo.apply_in(text, files)?.text, text, "nothing left to take out");
    let again = Edit::undoing(&undone.difference, false).unwrap();
    assert_eq!(again.apply_in(text, files)?.text, done.text, "adding it again");
    assert_eq!(
        again.apply_in(&done.text, files)?.text,
        done.text,
        "nothing left to add"
    );
    assert_eq!(
        edit.apply_in(&done.text, files)?.text,
        done.text,
        "a second time changes nothing"
    );
    let wire = serde_json::to_string(&done.difference).unwrap();
    assert_eq!(
        serde_json::from_str::<Difference>(&wire).unwrap(),
        done.difference
    );
    Ok(done.text)
}

#[test]
fn the_entry_is_written_in_the_style_of_the_file() {
    for (before, after) in [
        // No `images`: at the end, lists indented as the file does.
        (
            "resources:\n- pod.yaml\n",
            "resources:\n- pod.yaml\nimages:\n- name: app\n  newTag: v2\n",
        ),
        (
            "resources:\n- pod.yaml",
            "resources:\n- pod.yaml\nimages:\n- name: app\n  newTag: v2",
        ),
        (
            "resources:\n  - pod.yaml # it\n# - other.yaml\n\n",
            "resources:\n  - pod.yaml # it\n# - other.yaml\nimages:\n  - name: app\n    newTag: v2\n\n",
        ),
        (
            "\u{feff}---\r\nresources:\r\n- pod.yaml\r\n...\r\n",
            "\u{feff}---\r\nresources:\r\n- pod.yaml\r\nimages:\r\n- name: app\r\n  newTag: v2\r\n...\r\n",
        ),
        (
            "resources: [pod.yaml]",
            "resources: [pod.yaml]\nimages:\n- name: app\n  newTag: v2",
        ),
        (
            "resources: [pod.yaml]\nnamePrefix:\n",
            "resources: [pod.yaml]\nnamePrefix:\nimages:\n- name: app\n  newTag: v2\n",
        ),
        (
            "{resources: [pod.yaml]}\n",
            "{resources: [pod.yaml], images: [{name: app, newTag: v2}]}\n",
        ),
        // Behind others.
        (
            "images:\n  - name: b\n    newTag: v1 # why\n  # - name: c\nresources: [pod.yaml]\n",
            "images:\n  - name: b\n    newTag: v1 # why\n  - name: app\n    newTag: v2\n  # - name: c\nresources: [pod.yaml]\n",
        ),
        (
            "resources: [pod.yaml]\nimages:\r\n-   name: b",
            "resources: [pod.yaml]\nimages:\r\n-   name: b\r\n-   name: app\r\n    newTag: v2",
        ),
        (
            "resources: [pod.yaml]\nimages:\n-\n  name: b\n",
            "resources: [pod.yaml]\nimages:\n-\n  name: b\n- name: app\n  newTag: v2\n",
        ),
        (
            "resources: [pod.yaml]\nimages:\n- {name: b, newTag: v1}\n",
            "resources: [pod.yaml]\nimages:\n- {name: b, newTag: v1}\n- name: app\n  newTag: v2\n",
        ),
        (
            "resources: [pod.yaml]\nimages: [{name: b}]\n",
            "resources: [pod.yaml]\nimages: [{name: b}, {name: app, newTag: v2}]\n",
        ),
        (
            "resources: [pod.yaml]\nimages: [\n  {name: b},\n]\n",
            "resources: [pod.yaml]\nimages: [\n  {name: b},\n  {name: app, newTag: v2},\n]\n",
        ),
        // Empty.
        (
            "images: [] # none\nresources: [pod.yaml]\n",
            "images: # none\n- name: app\n  newTag: v2\nresources: [pod.yaml]\n",
        ),
        (
            "resources: [pod.yaml]\nimages:\n",
            "resources: [pod.yaml]\nimages:\n- name: app\n  newTag: v2\n",
        ),
        (
            "resources: [pod.yaml]\nimages: ~",
            "resources: [pod.yaml]\nimages:\n- name: app\n  newTag: v2",
        ),
        (
            "{images: [], resources: [pod.yaml]}\n",
            "{images: [{name: app, newTag: v2}], resources: [pod.yaml]}\n",
        ),
    ] {
        let done = add(before, &[("app/pod.yaml", POD)], &edit("app", "", "v2"));
        assert_eq!(done.unwrap_or_else(|error| panic!("{before}: {error}")), after);
    }
}

#[test]
fn used_is_what_the_kustomization_builds_on() {
    let base =
        "resources: [../more/pod.yaml]\nimages:\n- name: app\n  newName: q.example/app\n  newTag: v1\n";
    let component = "kind: Component\nimages: [{name: 'r.example/.*', newName: s}]\n";
    let files = [
        ("base/kustomization.yaml", base),
        ("comp/kustomization.yml", component),
        ("more/pod.yaml", POD),
        (
            "app/patch.yaml",
            "spec:\n  template:\n    spec:\n      containers:\n      - name: c\n        image: patched:1\n",
        ),
    ];
    let text = "resources: [../base]\npatches:\n- path: patch.yaml\n- patch: |\n    - op: replace\n      path: /spec/containers/0/image\n      value: inline:1\n";
    for name in [
        "q.example/app",
        "r.example/side",
        "r.example/init",
        "patched",
        "inline",
        "r.example/.*e",
    ] {
        add(text, &files, &edit(name, "n", "v2")).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // As the base and the component name it, not as the manifest does.
    assert_eq!(
        edit("app", "", "v2")
            .apply_in(text, &files)
            .unwrap_err()
            .to_string(),
        "no image \"app\" in `images`, which has no entries; what the kustomization builds on uses: inline, patched, q.example/app, r.example/init, r.example/side; give the name that it uses, not \"app\""
    );
    let with = format!("{text}components: [../comp]\n");
    add(&with, &files, &edit("s", "", "v2")).unwrap();
    let error = edit("r.example/side", "", "v2")
        .apply_in(&with, &files)
        .unwrap_err();
    assert!(matches!(error, Refusal::ImageNotFound(_)), "{error}");
}

#[test]
fn what_is_not_known_is_said() {
    for (text, files, words) in [
        (
            "resources: [https://x/y]\n",
            vec![],
            "https://x/y is not in this repository",
        ),
        (
            "resources: [github.com/a/b//c]\n",
            vec![],
            "github.com/a/b//c is not in this repository",
        ),
        (
            "resources: [../../x]\n",
            vec![],
            "../../x is not in this repository",
        ),
        ("resources: [../app]\n", vec![], "app builds on itself"),
        ("resources: [../b]\n", vec![("b/x", "")], "b has no kustomization"),
        (
            "resources: [x.yaml]\n",
            vec![("app/x.yaml", "a: [")],
            "app/x.yaml is not YAML at line",
        ),
        (
            "helmCharts: [{name: x}]\n",
            vec![],
            "`helmCharts` of app is not run here",
        ),
    ] {
        let error = edit("app", "", "v2").apply_in(text, &files).unwrap_err();
        let Refusal::ImageNotFound(message) = &error else {
            panic!("{error}")
        };
        assert!(
            message.contains(words) && message.contains("is not known"),
            "{message}"
        );
    }
    // What is known is enough.
    add(
        "resources: [https://x/y, pod.yaml]\n",
        &[("app/pod.yaml", POD)],
        &edit("app", "", "v2"),
    )
    .unwrap();
}

#[test]
fn another_entry_that_fits_is_in_the_way() {
    let files = [("app/pod.yaml", POD)];
    let text = "resources: [pod.yaml]\nimages:\n- name: b\n- name: a.*\n";
    assert_eq!(
        edit("app", "", "v2")
            .apply_in(text, &files)
            .unwrap_err()
            .to_string(),
        "line 4: `name: a.*` matches image \"app\" already: name that entry, or give it another name"
    );
    let listed = "images:\n- name: app\n- name: ap+\n  newTag: v1\n";
    assert_eq!(
        edit("app", "", "v2").apply(listed).unwrap_err().to_string(),
        "line 3: `name: ap+` matches image \"app\" too, which is listed at line 2: let one entry set it"
    );
    let shared = "x: &x\n- name: b\nimages: *x\nresources: [pod.yaml]\n";
    assert_eq!(
        edit("app", "", "v2")
            .apply_in(shared, &files)
            .unwrap_err()
            .to_string(),
        "line 3: `images` is an alias"
    );
}

#[test]
fn entries_added_one_after_the_other_go_the_same_way() {
    let source = tree::tree(&[
        (tree::KUSTOMIZATION, "resources: [pod.yaml]\n# end\n"),
        ("app/pod.yaml", POD),
    ]);
    let edits = [
        edit("app", "", "v2"),
        edit("r.example/side", "q", "v3"),
        edit("app", "", "v4"),
    ];
    let done = slipway_edit::apply(&edits, &source).unwrap().unwrap();
    assert_eq!(
        done.files[tree::KUSTOMIZATION],
        "resources: [pod.yaml]\n# end\nimages:\n- name: app\n  newTag: v4\n- name: r.example/side\n  newName: q\n  newTag: v3\n"
    );
    let mut after = source.clone();
    after.extend(done.files);
    let undo = |differences: Vec<&Difference>| -> Vec<Edit> {
        differences
            .into_iter()
            .map(|difference| Edit::undoing(difference, false).unwrap())
            .collect()
    };
    let back = slipway_edit::apply(&undo(done.differences.iter().rev().collect()), &after)
        .unwrap()
        .unwrap();
    assert_eq!(back.files[tree::KUSTOMIZATION], source[tree::KUSTOMIZATION]);
    // The first alone: the second stays, and so does the key that came with the first.
    let first = slipway_edit::apply(&undo(vec![&done.differences[2], &done.differences[0]]), &after)
        .unwrap()
        .unwrap();
    assert_eq!(
        first.files[tree::KUSTOMIZATION],
        "resources: [pod.yaml]\n# end\nimages:\n- name: r.example/side\n  newName: q\n  newTag: v3\n"
    );
}

#[test]
fn taking_out_is_refused_when_somebody_changed_it_since() {
    let files = [("app/pod.yaml", POD)];
    let before = "resources: [pod.yaml]\n";
    let done = edit("app", "", "v2").apply_in(before, &files).unwrap();
    let since = done.text.replace("v2", "v3");
    let error = Edit::undoing(&done.difference, false)
        .unwrap()
        .apply_in(&since, &files)
        .unwrap_err();
    assert!(
        matches!(&error, Refusal::ChangedSince { now, .. } if now == "app:v3"),
        "{error}"
    );
    let forced = Edit::undoing(&done.difference, true)
        .unwrap()
        .apply_in(&since, &files)
        .unwrap();
    assert_eq!(forced.text, before);
    // A comment that a person wrote there is not thrown away.
    let noted = done.text.replace("v2", "v2 # keep");
    let error = Edit::undoing(&done.difference, false)
        .unwrap()
        .apply_in(&noted, &files)
        .unwrap_err();
    assert!(matches!(error, Refusal::Unsafe { .. }), "{error}");
}

#[test]
fn fields_that_went_come_back_where_they_stood() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let both = NewImage::new("q", "v2", &digest).unwrap();
    for text in [
        "images:\n- digest: sha256:1 # why\n  name: app # x\n\n  # of old\n  newTag: v1\n\nz: 1\n",
        "images:\n- name: app\n  newTag: v1\n  digest: sha256:1 # why\n",
        "images: [{name: app, digest: sha256:1, newTag: v1}, {name: b}]\n",
        "images:\n- name: app\n  newTag: # later\n",
        "images:\n- name: app\n  newTag: ~",
    ] {
        for to in [
            NewImage::new("", "v2", "").unwrap(),
            NewImage::new("", "", &digest).unwrap(),
            both.clone(),
        ] {
            let edit = Edit::KustomizeImage(KustomizeImage::new("app", "app", to).unwrap());
            let done = match edit.apply(text) {
                Ok(done) => done,
                Err(Refusal::Unsafe { .. }) => continue,
                Err(error) => panic!("{text}: {error}"),
            };
            let undone = Edit::undoing(&done.difference, false)
                .unwrap()
                .apply(&done.text)
                .unwrap();
            assert_eq!(undone.text, text, "{}", done.text);
        }
    }
}
