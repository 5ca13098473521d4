//! What the keys of an image's parts are called, and the image that parts form.

use crate::{
    difference::ValueDifference,
    entry::Scalar,
    image::Reference,
    steps::{Step, Steps},
};

/// A part of an image that can have a value of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Registry,
    Name,
    Tag,
    Digest,
}

/// The words for the parts; `imageTag` and `IMAGE_TAG` are read as well as `tag`.
const WORDS: [(&str, Part); 6] = [
    ("registry", Part::Registry),
    ("repository", Part::Name),
    ("name", Part::Name),
    ("tag", Part::Tag),
    ("version", Part::Tag),
    ("digest", Part::Digest),
];

/// How the key of a part is formed from a prefix and a word.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    pub(crate) prefix: String,
    /// `imageTag`, where the prefix is not empty.
    camel: bool,
    upper: bool,
}

impl Naming {
    pub(crate) fn plain() -> Self {
        Self {
            prefix: String::new(),
            camel: false,
            upper: false,
        }
    }

    /// The part that a key stands for, and how its siblings are named.
    pub(crate) fn of(key: &str) -> Option<(&'static str, Part, Self)> {
        WORDS.into_iter().find_map(|(word, part)| {
            let at = key.len().checked_sub(word.len())?;
            let (prefix, tail) = (key.get(..at)?, key.get(at..)?);
            if !tail.eq_ignore_ascii_case(word) {
                return None;
            }
            let upper = tail == word.to_ascii_uppercase();
            let camel = !upper && tail != word;
            let apart = prefix.is_empty() || prefix.ends_with(['_', '-']) || camel;
            let naming = Self {
                prefix: prefix.to_owned(),
                camel,
                upper,
            };
            apart.then_some((word, part, naming))
        })
    }

    pub(crate) fn key(&self, word: &str) -> String {
        let word = if self.upper {
            word.to_ascii_uppercase()
        } else if self.camel {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        } else {
            word.to_owned()
        };
        format!("{}{word}", self.prefix)
    }

    /// What comes before the word: `image` of `imageTag`.
    pub(crate) fn stem(&self) -> &str {
        self.prefix.trim_end_matches(['_', '-'])
    }
}

/// One reference from its parts; a tag may be followed by a digest.
pub(crate) fn assemble(registry: &str, name: &str, tag: &str, digest: &str) -> Reference {
    let (tag, behind) = tag.split_once('@').unwrap_or((tag, ""));
    let name = match registry {
        "" => name.to_owned(),
        registry => format!("{}/{name}", registry.trim_end_matches('/')),
    };
    Reference {
        name,
        tag: tag.to_owned(),
        digest: if digest.is_empty() { behind } else { digest }.to_owned(),
    }
}

/// The image that recorded values form together; `else_` when they do not form one.
pub(crate) fn reference_of(
    values: &[ValueDifference],
    now: &[Option<Scalar>],
    else_: &Reference,
) -> Reference {
    let (mut registry, mut name, mut tag, mut digest) =
        (String::new(), String::new(), String::new(), String::new());
    for (value, now) in values.iter().zip(now) {
        let now = now
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default();
        let steps = Steps::parse("at", &value.at).ok();
        let part = steps.and_then(|steps| match steps.0.last() {
            Some(Step::Key(key)) => Naming::of(key).map(|(_, part, _)| part),
            _ => None,
        });
        match part {
            Some(Part::Registry) => registry = now,
            Some(Part::Tag) => tag = now,
            Some(Part::Digest) => digest = now,
            Some(Part::Name) => name = now,
            None if values.len() > 1 && !tag.is_empty() => name = now,
            None => {
                let whole = Reference::split(&now);
                if !whole.tag.is_empty() || !whole.digest.is_empty() {
                    return whole;
                }
                name = whole.name;
            }
        }
    }
    match values.is_empty() {
        true => else_.clone(),
        false => assemble(&registry, &name, &tag, &digest),
    }
}
