//! The images of a file as found by another reader, and what an edit should make of each.

use std::sync::LazyLock;

use regex::Regex;
use slipway_edit::NewImage;

use super::{
    Expected,
    reader::{Leaf, Meaning, Reading, join},
};

pub(crate) const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
pub(crate) const OTHER_DIGEST: &str =
    "sha256:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// What an edit asks for; empty parts are not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
}

pub(crate) fn want(name: &str, tag: &str, digest: &str) -> Want {
    Want {
        name: name.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
    }
}

/// Every combination of parts, tags that are strings and tags that look like something else.
pub(crate) fn wants() -> Vec<Want> {
    vec![
        want("", "1a2b3c4", ""),
        want("", "1234567", ""),
        want("", "12e4567", ""),
        want("", "", DIGEST),
        want("", "v2", DIGEST),
        want("", "2026-01-31", OTHER_DIGEST),
        want("r.example:5000/team/x", "", ""),
        want("r.example:5000/team/x", "v2", ""),
        want("r.example:5000/team/x", "", DIGEST),
        want("r.example:5000/team/x", "1.10", DIGEST),
    ]
}

impl Want {
    pub(crate) fn to(&self) -> NewImage {
        NewImage::new(&self.name, &self.tag, &self.digest).unwrap()
    }

    /// Tag and digest say together which image is meant: one of them alone removes the other.
    pub(crate) fn of(&self, now: &Parts) -> Parts {
        let either = !(self.tag.is_empty() && self.digest.is_empty());
        Parts {
            name: pick(&self.name, &now.name),
            tag: if either { self.tag.clone() } else { now.tag.clone() },
            digest: if either {
                self.digest.clone()
            } else {
                now.digest.clone()
            },
        }
    }
}

fn pick(wanted: &str, now: &str) -> String {
    if wanted.is_empty() { now } else { wanted }.to_owned()
}

/// A reference, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
}

impl Parts {
    pub(crate) fn of(reference: &str) -> Self {
        static REFERENCE: LazyLock<Regex> =
            LazyLock::new(|| Regex::new("^(.+?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]*))?(?:@(.+))?$").unwrap());
        let parts = REFERENCE
            .captures(reference)
            .unwrap_or_else(|| panic!("{reference:?} is not a reference"));
        let part = |number| {
            parts
                .get(number)
                .map_or(String::new(), |part| part.as_str().to_owned())
        };
        Self {
            name: part(1),
            tag: part(2),
            digest: part(3),
        }
    }

    pub(crate) fn reference(&self) -> String {
        let mut text = self.name.clone();
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if !part.is_empty() {
                text.push(mark);
                text.push_str(part);
            }
        }
        text
    }
}

/// An image of a kustomization's `images`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `images/3`.
    pub(crate) place: String,
}

/// The expected content of an entry.
pub(crate) fn entry_expected(mut expected: Expected, place: &str, want: &Want) -> Expected {
    let either = !(want.tag.is_empty() && want.digest.is_empty());
    for (field, value, remove) in [
        ("newName", &want.name, false),
        ("newTag", &want.tag, either),
        ("digest", &want.digest, either),
    ] {
        if !value.is_empty() || remove {
            let value = (!value.is_empty()).then_some(value.as_str());
            expected = expected.value(0, join(place, field), value);
        }
    }
    expected
}

pub(crate) fn entries(reading: &Reading) -> Vec<Entry> {
    (0..)
        .map(|number| format!("images/{number}"))
        .take_while(|place| reading.get(0, place).is_some())
        .filter_map(|place| {
            Some(Entry {
                name: reading.text(0, &join(&place, "name"))?.to_owned(),
                place,
            })
        })
        .collect()
}

/// A container of an object with a pod template, or of a pod.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) document: usize,
    pub(crate) object: String,
    pub(crate) name: String,
    pub(crate) image: Parts,
    /// Of the image.
    pub(crate) place: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

pub(crate) fn containers(reading: &Reading) -> Vec<Container> {
    let image = |leaf: &Leaf| -> Option<Container> {
        let list = leaf.parent().rsplit_once('/')?.0;
        let lists = list.rsplit('/').next()?;
        if leaf.key() != "image"
            || !matches!(lists, "containers" | "initContainers" | "ephemeralContainers")
            || !matches!(reading.get(leaf.document, list)?.meaning, Meaning::List { .. })
        {
            return None;
        }
        Some(Container {
            document: leaf.document,
            object: reading.name_of(leaf.document),
            name: reading
                .text(leaf.document, &join(leaf.parent(), "name"))?
                .to_owned(),
            image: Parts::of(leaf.text()?),
            place: leaf.place.clone(),
            line: leaf.line + 1,
        })
    };
    reading.leaves.iter().filter_map(image).collect()
}

/// An image among values.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) document: usize,
    pub(crate) place: String,
    /// A mapping with `repository` and `tag`, or one string.
    pub(crate) mapping: bool,
}

/// Mappings that have both a repository and a tag, and strings that a key `image` holds, but for containers.
pub(crate) fn values(reading: &Reading) -> Vec<Value> {
    let container = |leaf: &Leaf| leaf.parent().split('/').any(|step| step.ends_with("ontainers"));
    reading
        .leaves
        .iter()
        .filter_map(|leaf| {
            match &leaf.meaning {
                Meaning::Map { .. }
                    if ["repository", "tag"]
                        .iter()
                        .all(|key| reading.scalar(leaf.document, &join(&leaf.place, key)).is_some()) =>
                {
                    Some(true)
                }
                Meaning::Text(text) if leaf.key() == "image" && !text.is_empty() && !container(leaf) => {
                    Some(false)
                }
                _ => None,
            }
            .map(|mapping| Value {
                document: leaf.document,
                place: leaf.place.clone(),
                mapping,
            })
        })
        .collect()
}

/// The expected images of containers.
pub(crate) fn containers_expected<'a>(
    containers: impl Iterator<Item = &'a Container>,
    want: &Want,
) -> Expected {
    containers.fold(Expected::new(), |expected, container| {
        let to = want.of(&container.image).reference();
        expected.value(container.document, &container.place, Some(&to))
    })
}

/// The expected values; `None` if they cannot be predicted.
pub(crate) fn value_expected(reading: &Reading, value: &Value, want: &Want) -> Option<Expected> {
    let (document, mut expected) = (value.document, Expected::new());
    let scalar = |key: &str| reading.scalar(document, &join(&value.place, key));
    if !value.mapping {
        let now = Parts::of(reading.text(document, &value.place)?);
        return Some(expected.value(document, &value.place, Some(&want.of(&now).reference())));
    }
    if !want.name.is_empty() {
        expected = expected.value(document, join(&value.place, "repository"), Some(&want.name));
    }
    if want.tag.is_empty() && want.digest.is_empty() {
        return Some(expected);
    }
    if scalar("digest").is_some() {
        // Emptied rather than taken out: the chart's own default would come back. A digest alone leaves the tag.
        expected = expected.value(document, join(&value.place, "digest"), Some(&want.digest));
        if !want.tag.is_empty() {
            expected = expected.value(document, join(&value.place, "tag"), Some(&want.tag));
        }
        return Some(expected);
    }
    // Without a key of its own the digest is appended to the tag.
    let now = scalar("tag")?.split('@').next()?;
    let stands = reading.get(document, &join(&value.place, "tag"))?;
    let nothing = stands.text().is_none() && matches!(now, "null" | "~");
    let tag = match (want.tag.as_str(), want.digest.as_str()) {
        ("", _) if now.is_empty() || nothing => return None,
        ("", digest) => format!("{now}@{digest}"),
        (tag, "") => tag.to_owned(),
        (tag, digest) => format!("{tag}@{digest}"),
    };
    Some(expected.value(document, join(&value.place, "tag"), Some(&tag)))
}

/// A place as edits write it: `spec.template.spec.containers[0].image`, keys with dots quoted.
pub(crate) fn path(reading: &Reading, document: usize, place: &str) -> String {
    let (mut path, mut at) = (String::new(), String::new());
    for step in place.split('/') {
        let list = matches!(
            reading.get(document, &at).map(|leaf| &leaf.meaning),
            Some(Meaning::List { .. })
        );
        if list {
            path.push_str(&format!("[{step}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            let plain = step
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            path.push_str(&if plain {
                step.to_owned()
            } else {
                format!("{step:?}")
            });
        }
        at = join(&at, step);
    }
    path
}
