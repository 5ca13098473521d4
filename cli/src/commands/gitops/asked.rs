//! What `--image` asks for, and the edits that it comes to in files of each kind. Pure.

use std::str::FromStr;

use slipway_edit::{Edit, HelmImage, InvalidEdit, KustomizeImage, ManifestImage, NewImage, Reference};

use crate::{args::ImageArgs, failure::Failure};

/// The name that stays as it is, as `kustomize edit set image` writes it.
const KEPT: &str = "*";

/// One `--image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Before the `=`, where there is one.
    over: Option<String>,
    /// What is after it.
    reference: Reference,
    text: String,
}

impl FromStr for Asked {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (over, written) = match text.split_once('=') {
            Some((over, written)) => (Some(over), written),
            None => (None, text),
        };
        // What is empty here was a variable that is not set, more likely than not.
        if over == Some("") {
            return Err("the name before the = is empty".to_owned());
        }
        let (name, digest) = written
            .split_once('@')
            .map_or((written, None), |(name, digest)| (name, Some(digest)));
        if digest == Some("") {
            return Err("the digest after the @ is empty".to_owned());
        }
        if name.ends_with(':') {
            return Err("the tag after the : is empty".to_owned());
        }
        if over.is_some() && (written.is_empty() || written.starts_with([':', '@'])) {
            return Err("the image after the = is empty; * stands for the name that is there".to_owned());
        }
        let mut reference = Reference::split(written);
        if reference.name == KEPT {
            reference.name.clear();
        }
        NewImage::new("", &reference.tag, &reference.digest)
            .map(drop)
            .or_else(|error| {
                let named = reference.tag.is_empty() && reference.digest.is_empty();
                if named { Ok(()) } else { Err(error.message) }
            })?;
        Ok(Self {
            over: over.map(str::to_owned),
            reference,
            text: text.to_owned(),
        })
    }
}

/// How files hold images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kustomization,
    Helm,
    Manifest,
}

impl Asked {
    /// The image's name in the files, and what is written over it: `NAME=REF`, `NAME:TAG`, `NAME@DIGEST`.
    fn by_name(&self) -> Result<(String, NewImage), Failure> {
        let Reference { name, tag, digest } = &self.reference;
        let (over, name) = match &self.over {
            Some(over) => (over.clone(), name.as_str()),
            None if name.is_empty() => {
                let message = format!("--image {} does not say which image it is", self.text);
                return Err(Failure::new(message).next("write it NAME:TAG or NAME=REF:TAG"));
            }
            None => (name.clone(), ""),
        };
        let to = self.new_image(name, tag, digest)?;
        Ok((over, to))
    }

    /// What is written at a place that is known: `REF`, `:TAG`, `NAME=REF`. The name is given where it is to fit.
    fn by_place(&self) -> Result<(Option<&str>, NewImage), Failure> {
        let Reference { name, tag, digest } = &self.reference;
        Ok((self.over.as_deref(), self.new_image(name, tag, digest)?))
    }

    fn new_image(&self, name: &str, tag: &str, digest: &str) -> Result<NewImage, Failure> {
        NewImage::new(name, tag, digest).map_err(|error| {
            Failure::new(format!("--image {}: {}", self.text, error.message))
                .next("write it NAME=REF, NAME:TAG, NAME@DIGEST or NAME=REF:TAG@DIGEST")
        })
    }

    /// The whole image, where one is named: its name, tag and digest.
    pub(crate) fn whole(&self) -> &Reference {
        &self.reference
    }

    /// What stands before the `=`.
    pub(crate) fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }
}

impl ImageArgs {
    /// The kind of all files, where the command line says it.
    pub(crate) fn kind(&self) -> Option<Kind> {
        if self.kustomize {
            Some(Kind::Kustomization)
        } else if !self.helm.is_empty() {
            Some(Kind::Helm)
        } else if self.manifest || self.is_narrowed() || !self.object.is_empty() {
            Some(Kind::Manifest)
        } else {
            None
        }
    }

    /// Whether the place of the image is known without its name.
    fn is_narrowed(&self) -> bool {
        !self.container.is_empty() || !self.field.is_empty()
    }

    /// The edits of one file, or of one folder of a kustomization, by its path from the root. With each the name that
    /// the image must have now, where the edit itself does not look.
    ///
    /// # Errors
    /// Parts of the command line that do not go together.
    pub(crate) fn edits(&self, kind: Kind, path: &str) -> Result<Vec<(Edit, Option<String>)>, Failure> {
        let invalid = |error: InvalidEdit| Failure::new(format!("{}: {}", error.field, error.message));
        if self.images.is_empty() {
            return Err(Failure::new("nothing to write").next("give --image NAME=REF:TAG"));
        }
        if kind == Kind::Helm && self.helm.len() != self.images.len() {
            let message = format!("{} --helm and {} --image", self.helm.len(), self.images.len());
            return Err(Failure::new(message).next("give one --image for each --helm, in the same order"));
        }
        let edit = |(at, asked): (usize, &Asked)| {
            Ok(match kind {
                Kind::Kustomization => {
                    let (name, to) = asked.by_name()?;
                    let edit = KustomizeImage::new(path, &name, to).map_err(invalid)?;
                    (Edit::KustomizeImage(edit), None)
                }
                Kind::Helm => {
                    let (name, to) = asked.by_place()?;
                    let place = self.helm.get(at).map(String::as_str).unwrap_or_default();
                    let edit = HelmImage::new(path, place, &self.document, to).map_err(invalid)?;
                    (Edit::HelmImage(edit), name.map(str::to_owned))
                }
                Kind::Manifest => {
                    let (name, to) = if self.is_narrowed() {
                        let (name, to) = asked.by_place()?;
                        (name.unwrap_or_default().to_owned(), to)
                    } else {
                        asked.by_name()?
                    };
                    let (object, container, field) = (&self.object, &self.container, &self.field);
                    let edit =
                        ManifestImage::new(path, object, container, &name, field, to).map_err(invalid)?;
                    (Edit::ManifestImage(edit), None)
                }
            })
        };
        self.images.iter().enumerate().map(edit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn asked(text: &str) -> Asked {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn parts(to: &NewImage) -> [String; 3] {
        [
            to.new_name
                .as_ref()
                .map(|part| part.to_string())
                .unwrap_or_default(),
            to.new_tag
                .as_ref()
                .map(|part| part.to_string())
                .unwrap_or_default(),
            to.digest
                .as_ref()
                .map(|part| part.to_string())
                .unwrap_or_default(),
        ]
    }

    #[test]
    fn by_name_as_kustomize_knows_them() {
        for (text, name, wanted) in [
            ("app=r.example/app", "app", ["r.example/app", "", ""]),
            ("app:1.2", "app", ["", "1.2", ""]),
            (&format!("app@{DIGEST}"), "app", ["", "", DIGEST]),
            (&format!("app:1.2@{DIGEST}"), "app", ["", "1.2", DIGEST]),
            ("app=r:5000/x:1", "app", ["r:5000/x", "1", ""]),
            (&format!("app=r/x:1@{DIGEST}"), "app", ["r/x", "1", DIGEST]),
            ("r.example:5000/app:1", "r.example:5000/app", ["", "1", ""]),
            ("app=*:2", "app", ["", "2", ""]),
        ] {
            let (over, to) = asked(text).by_name().unwrap();
            assert_eq!(
                (over.as_str(), parts(&to)),
                (name, wanted.map(str::to_owned)),
                "{text}"
            );
        }
        for text in ["app", "app=*", ":1", &format!("@{DIGEST}")] {
            assert!(asked(text).by_name().is_err(), "{text}");
        }
    }

    #[test]
    fn by_place_the_reference_alone() {
        for (text, over, wanted) in [
            ("r.example/app:1.2", None, ["r.example/app", "1.2", ""]),
            (":1.2", None, ["", "1.2", ""]),
            (&format!("@{DIGEST}"), None, ["", "", DIGEST]),
            ("app=r/x:2", Some("app"), ["r/x", "2", ""]),
        ] {
            let asked = asked(text);
            let (name, to) = asked.by_place().unwrap();
            assert_eq!((name, parts(&to)), (over, wanted.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn variables_that_are_not_set_are_noticed() {
        for (text, words) in [
            ("app:", "tag"),
            ("app=r/x:", "tag"),
            ("app@", "digest"),
            ("=r/x:1", "name"),
            ("app=", "image"),
            ("app=:1", "image"),
            ("app:1:2 3", "tag"),
            ("app@sha256:12", "digest"),
        ] {
            let error = text.parse::<Asked>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
