//! Edits that are undone and done again, to the byte.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // not every test uses all of it

use pretty_assertions::assert_eq;
use slipway_edit::{Difference, Edit, HelmImage, ManifestImage, NewImage, Refusal};

use crate::tree::{Apply, FILE};

pub const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// An image from `NAME:TAG@DIGEST`, of which any part may be left out.
pub fn to(reference: &str) -> NewImage {
    let (rest, digest) = reference.split_once('@').unwrap_or((reference, ""));
    let (name, tag) = rest.rsplit_once(':').unwrap_or((rest, ""));
    NewImage::new(name, tag, digest).unwrap()
}

pub fn helm(path: &str, reference: &str) -> HelmImage {
    HelmImage::new(FILE, path, "", to(reference)).unwrap()
}

pub fn manifest(object: &str, container: &str, image: &str, reference: &str) -> ManifestImage {
    ManifestImage::new(FILE, object, container, image, "", to(reference)).unwrap()
}

/// Applies an edit; checks that undoing it gives the first bytes, that undoing that does it again, and that doing it
/// twice changes nothing.
pub fn apply(text: &str, edit: &Edit) -> Result<(String, Difference), Refusal> {
    let done = edit.apply(text)?;
    let undo = Edit::undoing(&done.difference, false).unwrap();
    let undone = undo.apply(&done.text)?;
    assert_eq!(undone.text, text, "putting it back");
    assert_eq!(undo.apply(text)?.text, text, "putting it back a second time");
    let redo = Edit::undoing(&undone.difference, false).unwrap();
    assert_eq!(redo.apply(text)?.text, done.text, "putting the putting back back");
    assert_eq!(redo.apply(&done.text)?.text, done.text, "a second time");
    assert_eq!(
        edit.apply(&done.text)?.text,
        done.text,
        "a second time changes nothing"
    );
    let forced = Edit::undoing(&done.difference, true).unwrap();
    assert_eq!(forced.apply(&done.text)?.text, text, "putting it back by force");
    let wire = serde_json::to_string(&done.difference).unwrap();
    assert_eq!(
        serde_json::from_str::<Difference>(&wire).unwrap(),
        done.difference
    );
    let undo_wire = serde_json::to_string(&undo).unwrap();
    assert_eq!(serde_json::from_str::<Edit>(&undo_wire).unwrap(), undo);
    Ok((done.text, done.difference))
}
