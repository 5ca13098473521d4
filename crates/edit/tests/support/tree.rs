//! Files in memory, and edits of one file among them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // not every test uses all of it

use std::collections::BTreeMap;

use slipway_edit::{Difference, Edit, Refusal};

/// Where [`Apply::apply`] puts a kustomization.
pub const KUSTOMIZATION: &str = "app/kustomization.yaml";
/// Where it puts any other file.
pub const FILE: &str = "app.yaml";

/// Files by path.
pub fn tree(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

/// What an edit made of the one file.
#[derive(Debug)]
pub struct Done {
    pub text: String,
    pub difference: Difference,
}

pub trait Apply {
    /// Applies the edit to the file at [`KUSTOMIZATION`] or [`FILE`], of this text.
    fn apply(&self, text: &str) -> Result<Done, Refusal>;
    /// Applies the edit among other files.
    fn apply_in(&self, text: &str, files: &[(&str, &str)]) -> Result<Done, Refusal>;
}

impl Apply for Edit {
    fn apply(&self, text: &str) -> Result<Done, Refusal> {
        self.apply_in(text, &[])
    }

    fn apply_in(&self, text: &str, files: &[(&str, &str)]) -> Result<Done, Refusal> {
        let path = match self {
            Edit::KustomizeImage(_) | Edit::RestoreImage(_) => KUSTOMIZATION,
            Edit::RestoreValues(edit) => edit.file.as_str(),
            _ => FILE,
        };
        let mut source = tree(files);
        source.insert(path.to_owned(), text.to_owned());
        let mut edited = slipway_edit::apply(std::slice::from_ref(self), &source)
            .unwrap()
            .map_err(|refused| refused.refusal)?;
        let changed = edited.files.remove(path);
        assert!(
            edited.files.is_empty(),
            "another file changed: {:?}",
            edited.files
        );
        assert_ne!(changed.as_deref(), Some(text), "a file that is the same is none");
        assert_eq!(edited.differences.len(), 1);
        Ok(Done {
            text: changed.unwrap_or_else(|| text.to_owned()),
            difference: edited.differences.remove(0),
        })
    }
}
