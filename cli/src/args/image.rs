//! One `--image`: which image, and what is written to it. Pure.

use std::str::FromStr;

use slipway_edit::{NewImage, Reference};

use crate::failure::Failure;

/// The placeholder for an unchanged name, as in `kustomize edit set image`.
const KEPT: &str = "*";

/// One `--image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageOption {
    /// Before the `=`, if there is one.
    over: Option<String>,
    /// What is after it.
    reference: Reference,
    text: String,
}

impl FromStr for ImageOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (over, written) = match text.split_once('=') {
            Some((over, written)) => (Some(over), written),
            None => (None, text),
        };
        // An empty part is most likely a variable that is not set.
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
            return Err("the image after the = is empty; * keeps the current name".to_owned());
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

impl ImageOption {
    /// The image's name in the files, and what is written to it: `NAME=REF`, `NAME:TAG`, `NAME@DIGEST`.
    pub(crate) fn by_name(&self) -> Result<(String, NewImage), Failure> {
        let Reference { name, tag, digest } = &self.reference;
        let (over, name) = match &self.over {
            Some(over) => (over.clone(), name.as_str()),
            None if name.is_empty() => {
                let message = format!("--image {} does not name the image", self.text);
                return Err(Failure::new(message).next("write NAME:TAG or NAME=REF:TAG"));
            }
            None => (name.clone(), ""),
        };
        let to = self.new_image(name, tag, digest)?;
        Ok((over, to))
    }

    /// What is written at a known place: `REF`, `:TAG`, `NAME=REF`. The name is given if it is to be checked.
    pub(crate) fn by_place(&self) -> Result<(Option<&str>, NewImage), Failure> {
        let Reference { name, tag, digest } = &self.reference;
        Ok((self.over.as_deref(), self.new_image(name, tag, digest)?))
    }

    fn new_image(&self, name: &str, tag: &str, digest: &str) -> Result<NewImage, Failure> {
        NewImage::new(name, tag, digest).map_err(|error| {
            Failure::new(format!("--image {}: {}", self.text, error.message))
                .next("write NAME=REF, NAME:TAG, NAME@DIGEST or NAME=REF:TAG@DIGEST")
        })
    }

    /// The whole image, if one is named: its name, tag and digest.
    pub(crate) fn whole(&self) -> &Reference {
        &self.reference
    }

    /// What comes before the `=`.
    pub(crate) fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn option(text: &str) -> ImageOption {
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
            let (over, to) = option(text).by_name().unwrap();
            assert_eq!(
                (over.as_str(), parts(&to)),
                (name, wanted.map(str::to_owned)),
                "{text}"
            );
        }
        for text in ["app", "app=*", ":1", &format!("@{DIGEST}")] {
            assert!(option(text).by_name().is_err(), "{text}");
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
            let option = option(text);
            let (name, to) = option.by_place().unwrap();
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
            let error = text.parse::<ImageOption>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
