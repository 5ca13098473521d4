//! `slipway gitops edit`: the edits of gitops-svc, on local files.

use std::collections::BTreeSet;

use serde_json::json;
use similar::TextDiff;
use slipway_edit::{
    Difference, Edit, Edited, Entry, HelmImage, HelmPlace, Place, Read, Reference, Refusal, Refused, Source,
};

use super::{edits::FileKind, recognise, working_copy::WorkingCopy};
use crate::{
    Outcome,
    args::{EditArgs, Output},
    failure::Failure,
    out,
};

/// Context lines around a difference, as in git.
const CONTEXT_LINES: usize = 3;

pub(crate) fn run(output: Output, args: &EditArgs) -> Result<Outcome, Failure> {
    let files = WorkingCopy::open(&args.files, args.root.as_deref())?;
    let mut edits = Vec::new();
    let mut seen = BTreeSet::new();
    for file in &args.files {
        let path = files.relative(file)?;
        let (kind, path) = recognised(&files, args, path)?;
        // A folder and the kustomization in it are the same.
        if !seen.insert(path.clone()) {
            continue;
        }
        for (edit, name) in args.images.edits(kind, &path)? {
            if let (Edit::HelmImage(image), Some(name)) = (&edit, name) {
                must_be(&files, image, &name)?;
            }
            edits.push(edit);
        }
    }
    let edited = match slipway_edit::apply(&edits, &files)? {
        Ok(edited) => edited,
        Err(refused) => return Err(advised(&edits, &refused)),
    };
    let is_read_only = args.diff || args.check;
    if !is_read_only {
        files.write(&edited.files)?;
    }
    match output.format() {
        Some(format) => out::line(format.write(&described(&files, &edited, !is_read_only))?),
        None if args.diff => {
            let patch = patches(&files, &edited).map(|(_, patch)| patch);
            let patch: String = patch.collect();
            if patch.is_empty() {
                // Not on standard output, which contains a patch.
                eprintln!("no change");
            }
            out::print(patch);
        }
        None => out::print(told(&edited)),
    }
    Ok(if args.check && !edited.files.is_empty() {
        Outcome::DidNot
    } else {
        Outcome::Happened
    })
}

/// The kind of a file, and the path by which edits refer to it: for a kustomization, its folder.
fn recognised(files: &WorkingCopy, args: &EditArgs, path: String) -> Result<(FileKind, String), Failure> {
    let kind = match (args.images.kind(), files.read(&path)?) {
        (None | Some(FileKind::Kustomization), Read::Folder) => return Ok((FileKind::Kustomization, path)),
        (Some(kind), _) => kind,
        (None, Read::Text(text)) => {
            recognise::kind(&path, &text).map_err(|(message, next)| Failure::new(message).next(next))?
        }
        (None, Read::Unfit(why)) => return Err(unfit(&path, &why)),
        (None, Read::Absent) => return Err(unfit(&path, "there is no such file")),
    };
    if kind != FileKind::Kustomization {
        return Ok((kind, path));
    }
    if !recognise::is_kustomization(&path) {
        let names = slipway_edit::KUSTOMIZATION_NAMES.join(", ");
        return Err(
            Failure::new(format!("{path}: does not have the name of a kustomization"))
                .next(format!("name it one of {names}")),
        );
    }
    if let Read::Unfit(why) = files.read(&path)? {
        return Err(unfit(&path, &why));
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok((kind, folder.to_owned()))
}

fn unfit(path: &str, why: &str) -> Failure {
    Failure::new(format!("{path}: {why}")).next("give a text file inside the folder, not a link")
}

/// `NAME=REF` at a path of values: the image there must be NAME, in full or without its registry.
fn must_be(files: &WorkingCopy, image: &HelmImage, name: &str) -> Result<(), Failure> {
    let place = Place::Helm(HelmPlace {
        file: image.file.clone(),
        path: image.path.clone(),
        document: image.document.clone(),
        allow_shared: image.allow_shared,
        add_missing: image.add_missing,
    });
    let found = slipway_edit::read(&place, files)?.map_err(|refused| failure(&refused))?;
    for found in found {
        let now = &found.image.name;
        if now != name && now.rsplit('/').next() != Some(name) {
            let message = format!(
                "{}: line {}: {} is {now:?}, not {name}",
                found.file, found.line, image.path
            );
            return Err(
                Failure::new(message).next("give the current name before the =, or only the new reference")
            );
        }
    }
    Ok(())
}

/// A refusal, with the flag that would add the image where one of the edits could.
fn advised(edits: &[Edit], refused: &Refused) -> Failure {
    let is_helm = |edit: &Edit| matches!(edit, Edit::HelmImage(edit) if edit.file.as_str() == refused.path && !edit.add_missing);
    match &refused.refusal {
        Refusal::ImageNotFound(_) if edits.iter().any(is_helm) => Failure::new(refused)
            .next("check the path, or add the image there with --add-missing; no file was written"),
        _ => failure(refused),
    }
}

fn failure(refused: &Refused) -> Failure {
    let next = match &refused.refusal {
        Refusal::FileNotFound(_) => "give the path of a file, or the folder of a kustomization",
        Refusal::NotAFile(_) => "give a text file inside the folder, not a link",
        Refusal::NotYaml { .. } => "templates cannot be edited; edit the values that they use",
        Refusal::ImageNotFound(_) => "check the name before the = or the path; no file was written",
        Refusal::Unsafe { .. } => "write the line as a plain value, or edit it by hand; no file was written",
        Refusal::Shared { .. } => "add --allow-shared to change them all; no file was written",
        Refusal::ChangedSince { .. } => "no file was written",
    };
    Failure::new(refused).next(next)
}

/// Each file that differs, with its patch.
fn patches<'a>(
    files: &'a WorkingCopy,
    edited: &'a Edited,
) -> impl Iterator<Item = (&'a str, String)> + use<'a> {
    edited
        .files
        .iter()
        .map(|(path, after)| (path.as_str(), patch(path, &files.before(path), after)))
}

/// A unified diff that `git apply` and `patch -p1` accept, also for lines that end with CRLF.
fn patch(path: &str, before: &str, after: &str) -> String {
    let lines = |text: &'_ str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let (before, after): (Vec<&str>, Vec<&str>) = (
        before.iter().map(String::as_str).collect(),
        after.iter().map(String::as_str).collect(),
    );
    TextDiff::configure()
        .newline_terminated(true)
        .diff_slices(&before, &after)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&format!("a/{path}"), &format!("b/{path}"))
        .to_string()
}

/// What was done, for programs.
fn described(files: &WorkingCopy, edited: &Edited, is_written: bool) -> serde_json::Value {
    let changed: Vec<_> = patches(files, edited)
        .map(|(path, patch)| json!({"path": path, "patch": patch}))
        .collect();
    json!({
        "changed": !changed.is_empty(),
        "written": is_written && !changed.is_empty(),
        "files": changed,
        "differences": edited.differences,
    })
}

/// A line for each place.
fn told(edited: &Edited) -> String {
    if edited.files.is_empty() {
        return "no change\n".to_owned();
    }
    let mut text = String::new();
    for difference in &edited.differences {
        let (place, before, after, is_added) = match difference {
            Difference::Entry(entry) => (
                entry.path.to_string(),
                reference(&entry.before),
                reference(&entry.after),
                entry.added,
            ),
            Difference::Values(values) => {
                let first = values.values.first();
                let at = first.map(|value| format!(" {} {}", value.document, value.at));
                let place = format!("{}{}", values.file, at.unwrap_or_default());
                let is_added = values.added.is_some() && values.before == Reference::default();
                (place, values.before.clone(), values.after.clone(), is_added)
            }
            Difference::Marker { .. } => continue,
        };
        text += &if is_added {
            format!("{place}: {after}, added\n")
        } else if before == after {
            format!("{place}: {after}, unchanged\n")
        } else {
            format!("{place}: {before} → {after}\n")
        };
        if let Difference::Values(values) = difference
            && !values.shared_with.is_empty()
        {
            text += &format!(
                "{}: changed along with it, by an anchor: {}\n",
                values.file,
                values.shared_with.join(", ")
            );
        }
    }
    text
}

/// The image of an entry: by its new name, or else by the one in the manifests.
fn reference(entry: &Entry) -> Reference {
    let value = |scalar: &Option<slipway_edit::Scalar>| {
        scalar
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default()
    };
    let new_name = value(&entry.new_name);
    Reference {
        name: if new_name.is_empty() {
            entry.name.clone()
        } else {
            new_name
        },
        tag: value(&entry.new_tag),
        digest: value(&entry.digest),
    }
}

#[cfg(test)]
mod tests {
    use super::patch;

    #[test]
    fn patches_keep_line_ends_and_say_where_the_last_is_missing() {
        let text = patch("a.yaml", "x: 1\r\ny: 2", "x: 1\r\ny: 3");
        assert_eq!(
            text,
            "--- a/a.yaml\n+++ b/a.yaml\n@@ -1,2 +1,2 @@\n x: 1\r\n-y: 2\n\\ No newline at end of file\n+y: 3\n\\ No newline at end of file\n"
        );
        assert_eq!(patch("a.yaml", "x: 1\n", "x: 1\n"), "");
    }
}
