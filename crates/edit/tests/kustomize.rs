//! Edits of kustomizations: what changes, what stays, what is refused; on tables and on generated files.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use proptest::{prelude::*, test_runner::RngSeed};
use slipway_edit::{Difference, Edit, Entry, KustomizeImage, NewImage, Place, Refusal, read};

#[path = "support/tree.rs"]
mod tree;
use tree::{Apply, tree};

const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn edit(name: &str, new_name: &str, new_tag: &str, digest: &str) -> Edit {
    Edit::KustomizeImage(
        KustomizeImage::new("app", name, NewImage::new(new_name, new_tag, digest).unwrap()).unwrap(),
    )
}

fn entries(done: &tree::Done) -> (&Entry, &Entry) {
    match &done.difference {
        Difference::Entry(entry) => (&entry.before, &entry.after),
        other => panic!("not an entry: {other:?}"),
    }
}

fn undo(done: &tree::Done, force: bool) -> Edit {
    Edit::undoing(&done.difference, force).unwrap()
}

/// Applies an edit, checks that putting the entry back gives the first bytes again, and returns the edited text.
fn apply(text: &str, edit: &Edit) -> Result<String, Refusal> {
    let edited = edit.apply(text)?;
    let restore = undo(&edited, false);
    assert_eq!(restore.apply(&edited.text)?.text, text, "putting it back");
    assert_eq!(
        edit.apply(&edited.text)?.text,
        edited.text,
        "a second time changes nothing"
    );
    Ok(edited.text)
}

#[test]
fn only_the_value_changes() {
    let tag = edit("app", "", "v2", "");
    for (before, after) in [
        (
            "images:\n- name: app\n  newTag: v1\n",
            "images:\n- name: app\n  newTag: v2\n",
        ),
        // Quoting, comments, trailing spaces.
        (
            "images:\n  - name: app\n    newTag: \"v1\"   # {\"$imagepolicy\": \"x\"}\n",
            "images:\n  - name: app\n    newTag: \"v2\"   # {\"$imagepolicy\": \"x\"}\n",
        ),
        (
            "images:\n- name: 'app'\n  newTag: 'v1'",
            "images:\n- name: 'app'\n  newTag: 'v2'",
        ),
        // Line ends, byte order mark, no newline at the end, markers.
        (
            "\u{feff}---\r\nimages:\r\n- name: app\r\n  newTag: v1\r\n...\r\n",
            "\u{feff}---\r\nimages:\r\n- name: app\r\n  newTag: v2\r\n...\r\n",
        ),
        (
            "# top\n\n---\n\nimages:   \n\n- newTag: v1\n\n  name: app # it\n\n\nresources: [a]",
            "# top\n\n---\n\nimages:   \n\n- newTag: v2\n\n  name: app # it\n\n\nresources: [a]",
        ),
        // Flow.
        (
            "images: [{name: app, newTag: v1}, {name: b, newTag: v1}]\n",
            "images: [{name: app, newTag: v2}, {name: b, newTag: v1}]\n",
        ),
        (
            "{images: [{name: app, newTag: 'v1'}]}",
            "{images: [{name: app, newTag: 'v2'}]}",
        ),
        // Added where it is missing.
        ("images:\n- name: app\n", "images:\n- name: app\n  newTag: v2\n"),
        ("images:\n- name: app", "images:\n- name: app\n  newTag: v2"),
        (
            "images:\r\n  -   name: app # x\r\n      newName: r/app # y\r\nz: 1\r\n",
            "images:\r\n  -   name: app # x\r\n      newName: r/app # y\r\n      newTag: v2\r\nz: 1\r\n",
        ),
        ("images: [{name: app}]\n", "images: [{name: app, newTag: v2}]\n"),
        // Anchors elsewhere, and unused anchors.
        (
            "x: &a 1\ny: *a\nimages: &unused\n- name: app\n  newTag: v1\n",
            "x: &a 1\ny: *a\nimages: &unused\n- name: app\n  newTag: v2\n",
        ),
        // A digest would win over the tag, so it gives way to it, on its line.
        (
            &format!("images:\n- name: app\n  digest: {DIGEST} # pinned\n"),
            "images:\n- name: app\n  newTag: v2 # pinned\n",
        ),
        // What another tool added to the entry stays.
        (
            "images:\n- name: app\n  tagSuffix: -x\n  newTag: v1\n",
            "images:\n- name: app\n  tagSuffix: -x\n  newTag: v2\n",
        ),
        // No value at all.
        (
            "images:\n- name: app\n  newTag: # later\n",
            "images:\n- name: app\n  newTag: v2 # later\n",
        ),
    ] {
        let edited = tag
            .apply(before)
            .unwrap_or_else(|error| panic!("{before}: {error}"));
        assert_eq!(edited.text, after);
        if !before.contains("# later") {
            apply(before, &tag).unwrap();
        }
    }
}

#[test]
fn tag_and_digest_are_one_thing() {
    let both = "images:\n- name: app\n  newName: r/app\n  newTag: v1\n  digest: sha256:1\n";
    // Both given: both set.
    assert_eq!(
        apply(both, &edit("app", "", "v2", DIGEST)).unwrap(),
        format!("images:\n- name: app\n  newName: r/app\n  newTag: v2\n  digest: {DIGEST}\n")
    );
    // One given: the other goes.
    assert_eq!(
        apply(both, &edit("app", "", "v2", "")).unwrap(),
        "images:\n- name: app\n  newName: r/app\n  newTag: v2\n"
    );
    assert_eq!(
        apply(both, &edit("app", "", "", DIGEST)).unwrap(),
        format!("images:\n- name: app\n  newName: r/app\n  digest: {DIGEST}\n")
    );
    // Only the name: both stay.
    assert_eq!(
        apply(both, &edit("app", "q/app", "", "")).unwrap(),
        "images:\n- name: app\n  newName: q/app\n  newTag: v1\n  digest: sha256:1\n"
    );
    // All three where there was nothing, in kustomize's order.
    assert_eq!(
        apply(
            "images:\n- name: app\n- name: b\n",
            &edit("app", "q/app", "v2", DIGEST)
        )
        .unwrap(),
        format!("images:\n- name: app\n  newName: q/app\n  newTag: v2\n  digest: {DIGEST}\n- name: b\n")
    );
    assert_eq!(
        apply(
            "images: [{name: app, newTag: v1}]",
            &edit("app", "q/app", "", DIGEST)
        )
        .unwrap(),
        format!("images: [{{name: app, newName: q/app, digest: {DIGEST}}}]")
    );
    // The comment on a line that goes stays.
    let commented = "images:\n- name: app\n  newTag: v1\n  digest: sha256:1 # why\n";
    assert_eq!(
        edit("app", "", "v2", "").apply(commented).unwrap().text,
        "images:\n- name: app\n  newTag: v2\n  # why\n"
    );
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
        let edit = edit("app", "", tag, "");
        assert_eq!(
            apply("images:\n- name: app\n  newTag: v1\n", &edit).unwrap(),
            format!("images:\n- name: app\n  newTag: \"{tag}\"\n")
        );
        assert_eq!(
            apply("images:\n- name: app\n  newTag: 'v1'\n", &edit).unwrap(),
            format!("images:\n- name: app\n  newTag: '{tag}'\n")
        );
        assert_eq!(
            apply("images:\n- name: app\n", &edit).unwrap(),
            format!("images:\n- name: app\n  newTag: \"{tag}\"\n")
        );
        if tag == "null" {
            continue;
        }
        // The same text without quotes means something else, so it is not a reason to change nothing.
        assert_eq!(
            apply(&format!("images:\n- name: app\n  newTag: {tag}\n"), &edit).unwrap(),
            format!("images:\n- name: app\n  newTag: \"{tag}\"\n")
        );
    }
}

#[test]
fn an_image_that_is_not_listed_is_refused_with_those_that_are() {
    let text = "images:\n- name: r.example/a\n- name: b\n  newName: c\n";
    let error = edit("c", "", "v2", "").apply(text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no image \"c\" in `images`; the names there: r.example/a, b; what the kustomization builds on uses none; give the name that it uses, not \"c\""
    );
    for none in ["", "---\n", "images: []\n", "images:\n", "resources: [x]\n"] {
        let error = edit("app", "", "v2", "").apply(none).unwrap_err();
        assert_eq!(
            error.to_string(),
            match none.contains("[x]") {
                // What is not there may use it.
                true =>
                    "no image \"app\" in `images`, which has no entries; what the kustomization builds on uses none; whether \"app\" is used besides is not known: there is no app/x; add the entry by hand once",
                false if none.contains("images") =>
                    "no image \"app\" in `images`, which has no entries; what the kustomization builds on uses none; give the name that it uses, not \"app\"",
                false => "no image \"app\" in `images`, which has no entries",
            },
            "{none:?}"
        );
    }
}

#[test]
fn what_is_not_safe_is_refused_with_line_and_reason() {
    for (text, wanted) in [
        (
            "images:\n- name: app\n  newTag: &t v1\nx: *t\n",
            "line 3: the value is shared by an anchor, and changing it also changes `x`; set `allow_shared` to change them all, or write the value out first",
        ),
        (
            "t: &t v1\nimages:\n- name: app\n  newTag: *t\n",
            "line 1: the value is shared by an anchor, and changing it also changes `t`; set `allow_shared` to change them all, or write the value out first",
        ),
        (
            "images:\n- &e\n  name: app\n  newTag: v1\nx: *e\n",
            "line 3: there is an anchor here that an alias elsewhere uses: write the entry out there first",
        ),
        (
            "x: &x {newTag: v1}\nimages:\n- name: app\n  <<: *x\n",
            "line 4: the entry takes fields over from an alias (`<<`)",
        ),
        (
            "images:\n- name: app\n  newTag: |\n    v1\n",
            "line 3: the value is written over several lines: write it on one first",
        ),
        (
            "images:\n- name: app\n  newTag: \"v\n    1\"\n",
            "line 3: the value is written over several lines: write it on one first",
        ),
        (
            "images:\n- name: app\n  newTag: v1\n  newTag: v3\n",
            "line 4: `newTag` appears here a second time",
        ),
        (
            "images:\n- name: app\n- name: app\n",
            "line 3: image \"app\" is listed at line 2 and again here",
        ),
        (
            "images:\n- name: app\nimages: []\n",
            "line 3: `images` appears here a second time",
        ),
        (
            "images:\n- name: app\n---\nx: 1\n",
            "line 4: a second document begins here, and kustomize reads only one",
        ),
        ("images: {app: v1}\n", "line 1: `images` is not a list"),
        ("- a\n", "line 1: a kustomization is a mapping"),
    ] {
        let error = edit("app", "", "v2", "").apply(text).unwrap_err();
        assert_eq!(error.to_string(), wanted, "{text}");
    }
    for text in [
        "images: [",
        "a: b: c",
        "images:\n- name: app\n  newTag: *nowhere\n",
    ] {
        let error = edit("app", "", "v2", "").apply(text).unwrap_err();
        assert!(matches!(error, Refusal::NotYaml { .. }), "{text}: {error}");
    }
}

#[test]
fn putting_back_is_refused_when_somebody_changed_it_since() {
    let before = "images:\n- name: app\n  newTag: 1.10 # as it was\n";
    let done = edit("app", "", "v2", "").apply(before).unwrap();
    assert_eq!(
        undo(&done, false).apply(&done.text).unwrap().text,
        before,
        "to the letter"
    );
    let since = done.text.replace("v2", "v3");
    let error = undo(&done, false).apply(&since).unwrap_err();
    assert!(
        matches!(&error, Refusal::ChangedSince { now, .. } if now == "app:v3"),
        "{error}"
    );
    assert_eq!(
        undo(&done, true).apply(&since).unwrap().text,
        before,
        "unless told to"
    );
    assert_eq!(
        undo(&done, false).apply(before).unwrap().text,
        before,
        "nothing left to do"
    );
}

fn without_our_fields(mut value: serde_json::Value, name: &str) -> serde_json::Value {
    if let Some(list) = value["images"].as_array_mut() {
        for item in list.iter_mut().filter(|item| item["name"] == name) {
            for field in ["newName", "newTag", "digest"] {
                item.as_object_mut().unwrap().remove(field);
            }
        }
    }
    value
}

/// One way to write a value.
fn scalar(text: &str, style: u8) -> String {
    match style % 3 {
        0 => text.to_owned(),
        1 => format!("'{text}'"),
        _ => format!("\"{text}\""),
    }
}

prop_compose! {
    /// An entry with its fields in any order and style, comments and blank lines among them.
    fn generated_entry(number: usize)(
        indent in 1_usize..5,
        order in Just([0_usize, 1, 2, 3]).prop_shuffle(),
        present in proptest::array::uniform4(any::<bool>()),
        styles in proptest::array::uniform4(any::<u8>()),
        tag in "[a-z][a-z0-9.-]{0,8}",
        comments in proptest::array::uniform4(prop_oneof![Just(""), Just("  # c: 'x' [1]"), Just(" #")]),
        blanks in proptest::array::uniform4(0_usize..2),
    ) -> (String, String) {
        let name = format!("r.example:5000/team/app-{number}");
        let values = [name.clone(), "other/name".to_owned(), tag, "sha256:abc".to_owned()];
        let keys = ["name", "newName", "newTag", "digest"];
        let mut text = String::new();
        let mut first = true;
        for field in order {
            if field != 0 && !present[field] {
                continue;
            }
            let lead = if first { format!("-{}", " ".repeat(indent)) } else { " ".repeat(indent + 1) };
            first = false;
            text.push_str(&format!("{lead}{}: {}{}\n", keys[field], scalar(&values[field], styles[field]), comments[field]));
            text.push_str(&"\n".repeat(blanks[field]));
        }
        (name, text)
    }
}

prop_compose! {
    fn generated()(
        entries in (generated_entry(0), generated_entry(1), generated_entry(2)),
        indent in 0_usize..4,
        crlf in any::<bool>(),
        bom in any::<bool>(),
        marker in any::<bool>(),
        newline in any::<bool>(),
        before in prop_oneof![Just(""), Just("# head\n"), Just("resources:\n- a # x\n\n"), Just("namePrefix: &p x-\nnameSuffix: *p\n")],
        after in prop_oneof![Just(""), Just("# tail\n"), Just("commonLabels: {a: 'b'}\n")],
    ) -> (Vec<String>, String) {
        let mut text = String::new();
        if marker {
            text.push_str("---\n");
        }
        text.push_str(before);
        text.push_str("images:\n");
        let mut names = Vec::new();
        for (name, entry) in [entries.0, entries.1, entries.2] {
            names.push(name);
            for line in entry.lines() {
                if !line.is_empty() {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(line);
                text.push('\n');
            }
        }
        text.push_str(after);
        if !newline {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        (names, if bom { format!("\u{feff}{text}") } else { text })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn generated_kustomizations_keep_everything_else(
        (names, text) in generated(),
        which in 0_usize..3,
        new_name in prop_oneof![Just(""), Just("r.example/new")],
        new_tag in prop_oneof![Just("".to_owned()), "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"],
        digest in prop_oneof![Just(""), Just(DIGEST)],
    ) {
        prop_assume!(!(new_name.is_empty() && new_tag.is_empty() && digest.is_empty()));
        let edit = edit(&names[which], new_name, &new_tag, digest);
        let edited = match edit.apply(&text) {
            Ok(edited) => edited,
            // A field that goes and stands first, with a comment beside it: refused, never reformatted.
            Err(Refusal::Unsafe { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        // An independent reader sees our change and no other.
        let plain = text.trim_start_matches('\u{feff}');
        let was: serde_json::Value = serde_saphyr::from_str(plain).unwrap();
        let is: serde_json::Value = serde_saphyr::from_str(edited.text.trim_start_matches('\u{feff}')).unwrap();
        prop_assert_eq!(without_our_fields(was, &names[which]), without_our_fields(is.clone(), &names[which]));
        let now = is["images"].as_array().unwrap().iter().find(|item| item["name"] == names[which].as_str()).unwrap().clone();
        for (field, value) in [("newName", new_name), ("newTag", &new_tag), ("digest", digest)] {
            if !value.is_empty() {
                prop_assert_eq!(&now[field], value);
            }
        }
        // Bytes: the same line ends, the same comments, and never a line of others.
        prop_assert_eq!(text.starts_with('\u{feff}'), edited.text.starts_with('\u{feff}'));
        if edited.text.lines().count() >= text.lines().count() {
            // Else the last line went, and the line break of a blank one before it stays.
            prop_assert_eq!(text.ends_with('\n'), edited.text.ends_with('\n'));
        }
        prop_assert_eq!(edited.text.matches('\n').count() == edited.text.matches("\r\n").count(), text.matches('\n').count() == text.matches("\r\n").count());
        prop_assert_eq!(text.matches('#').count(), edited.text.matches('#').count());
        // The same again changes nothing.
        prop_assert_eq!(&edit.apply(&edited.text).unwrap().text, &edited.text);
        // And back: to the letter, unless a field had to move to another line.
        let restore = undo(&edited, false);
        if let Ok(back) = restore.apply(&edited.text) {
            let (was, is) = entries(&edited);
            prop_assert!(entries(&back).1.means(was));
            let gone = [(&was.new_name, &is.new_name), (&was.new_tag, &is.new_tag), (&was.digest, &is.digest)]
                .iter()
                .filter(|(was, is)| was.is_some() && is.is_none())
                .count();
            let swapped = was.new_tag.is_some() != was.digest.is_some() && is.new_tag.is_some() != is.digest.is_some();
            if gone == 0 || (gone == 1 && swapped) {
                prop_assert_eq!(&back.text, &text);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}", name in "[a-z]{1,5}") {
        let _ = edit(&name, "", "v1", "").apply(&text);
        let _ = read(&Place::Kustomization("app".parse().unwrap()), &tree(&[(tree::KUSTOMIZATION, &text)]));
    }
}
