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
    /// Whether the chart uses the digest: `useDigest`.
    Switch,
}

/// The words for the parts; `imageTag`, `IMAGE_TAG` and `image.tag` are read as well as `tag`.
const WORDS: [(&str, Part); 9] = [
    ("registry", Part::Registry),
    ("repository", Part::Name),
    ("repo", Part::Name),
    ("name", Part::Name),
    ("tag", Part::Tag),
    ("version", Part::Tag),
    ("digest", Part::Digest),
    ("sha256", Part::Digest),
    ("sha", Part::Digest),
];

/// The words for a key that holds the image's name, in the order in which they count.
pub(crate) const NAMES: [&str; 2] = ["repository", "repo"];
/// The words for a switch without a prefix, in lower case and without separators.
const SWITCHES: [&str; 8] = [
    "usedigest",
    "usesha",
    "usesha256",
    "useimagedigest",
    "digestenabled",
    "enabledigest",
    "pindigest",
    "pinbydigest",
];
/// How a reference by digest begins.
pub(crate) const SHA256: &str = "sha256:";
/// How a `repository` ends whose `tag` holds the digest.
pub(crate) const DIGEST_IN_TAG: &str = "@sha256";

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
        Self::below("")
    }

    /// Plain words behind a prefix: `global.image.` and `tag`.
    pub(crate) fn below(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
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
            let apart = prefix.is_empty() || prefix.ends_with(['_', '-', '.']) || camel;
            // `imageSHA`: upper case alone does not part the word from what comes before it.
            let apart = apart || (upper && part == Part::Digest && !prefix.ends_with(char::is_uppercase));
            let naming = Self {
                prefix: prefix.to_owned(),
                camel: camel || (upper && prefix.ends_with(char::is_lowercase)),
                upper: upper && !prefix.ends_with(char::is_lowercase),
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
        self.prefix.trim_end_matches(['_', '-', '.'])
    }

    /// Whether a key says if the digest of this image is used.
    pub(crate) fn has_switch(&self, key: &str) -> bool {
        if self.prefix.is_empty() || !key.contains('.') {
            let key = without_separators(key);
            let stem = without_separators(self.stem());
            return SWITCHES.contains(&key.as_str())
                || (!stem.is_empty() && key.contains(&stem) && is_switch(&key));
        }
        key.strip_prefix(self.prefix.as_str())
            .is_some_and(|rest| SWITCHES.contains(&without_separators(rest).as_str()))
    }
}

fn without_separators(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-' | '.'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Whether a key says if some digest is used.
pub(crate) fn is_switch(key: &str) -> bool {
    let key = without_separators(key.rsplit('.').next().unwrap_or_default());
    let is_digest = ["digest", "sha", "sha256"].iter().any(|word| key.ends_with(word));
    SWITCHES.contains(&key.as_str()) || (is_digest && key.contains("use"))
}

/// Whether a text is the hexadecimal part of a SHA-256 digest.
pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What a text says to a reader that expects a boolean; `None` for anything else. No value at all is false.
pub(crate) fn boolean(scalar: &Scalar) -> Option<bool> {
    if scalar.value != scalar.written {
        return scalar.written.is_empty().then_some(false);
    }
    match scalar.value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" | "" => Some(false),
        _ => None,
    }
}

/// The values of an image's parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartValues {
    pub(crate) registry: String,
    pub(crate) name: String,
    pub(crate) tag: String,
    /// With its algorithm or without.
    pub(crate) digest: String,
    /// The chart does not use the digest.
    pub(crate) is_digest_off: bool,
}

impl PartValues {
    /// One reference. A tag may be followed by a digest; a name may contain a tag, a digest or both.
    pub(crate) fn reference(&self) -> Reference {
        let (mut tag, mut behind) = self.tag.split_once('@').unwrap_or((&self.tag, ""));
        let mut name = Reference::split(&self.name);
        let hex;
        if self.name.ends_with(DIGEST_IN_TAG) && is_hex(tag) {
            hex = format!("{SHA256}{tag}");
            (tag, behind, name.digest) = ("", &hex, String::new());
        }
        let digest = match self.digest.as_str() {
            _ if self.is_digest_off => String::new(),
            hex if is_hex(hex) => format!("{SHA256}{hex}"),
            digest => digest.to_owned(),
        };
        Reference {
            name: match self.registry.as_str() {
                "" => name.name,
                registry => format!("{}/{}", registry.trim_end_matches('/'), name.name),
            },
            tag: first([tag, &name.tag]),
            digest: first([&digest, behind, &name.digest]),
        }
    }
}

/// The first text that is not empty.
fn first<const N: usize>(texts: [&str; N]) -> String {
    let given = texts.into_iter().find(|text| !text.is_empty());
    given.unwrap_or_default().to_owned()
}

/// The key that names a value: the last of its path, or the name of a parameter whose `value` it is.
pub(crate) fn key_of(steps: &[Step]) -> Option<&str> {
    match steps {
        [.., Step::Item { key, value: name }, Step::Key(last)]
            if key == "name" && is_parameter_value(last) =>
        {
            Some(name)
        }
        [.., Step::Key(key)] => Some(key),
        _ => None,
    }
}

/// Whether a key holds the value of a parameter, beside its `name`.
pub(crate) fn is_parameter_value(key: &str) -> bool {
    matches!(key, "value" | "string")
}

/// The image that recorded values form together; `else_` when they do not form one.
pub(crate) fn reference_of(
    values: &[ValueDifference],
    now: &[Option<Scalar>],
    else_: &Reference,
) -> Reference {
    let mut parts = PartValues::default();
    for (value, now) in values.iter().zip(now) {
        let scalar = now.clone();
        let now = now
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default();
        let steps = Steps::recorded(&value.at).ok();
        let key = steps.as_ref().and_then(|steps| key_of(&steps.0));
        let part = key.and_then(|key| match Naming::of(key) {
            _ if is_switch(key) => Some(Part::Switch),
            found => found.map(|(_, part, _)| part),
        });
        match part {
            Some(Part::Registry) => parts.registry = now,
            Some(Part::Tag) => parts.tag = now,
            Some(Part::Digest) if !now.is_empty() => parts.digest = now,
            Some(Part::Digest) => {}
            Some(Part::Switch) => {
                parts.is_digest_off = scalar.as_ref().and_then(boolean) == Some(false);
            }
            Some(Part::Name) => parts.name = now,
            None if values.len() > 1 && !parts.tag.is_empty() => parts.name = now,
            None => {
                let whole = Reference::split(now.rsplit('=').next().unwrap_or_default());
                if !whole.tag.is_empty() || !whole.digest.is_empty() {
                    return whole;
                }
                parts.name = whole.name;
            }
        }
    }
    match values.is_empty() {
        true => else_.clone(),
        false => parts.reference(),
    }
}
