//! Container image references, after the OCI distribution specification 1.1 and the reference grammar of
//! `distribution/reference`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Invalid, Name, text_type};

/// The digest of a manifest: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    fn check(text: &str) -> Result<(), Invalid> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            Ok(())
        } else {
            Err(Invalid::new(
                "digest",
                text,
                "write sha256: and 64 lower-case hexadecimal digits",
            ))
        }
    }

    /// The digits behind `sha256:`.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

text_type!(Digest);

/// A tag: up to 128 of letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    fn check(text: &str) -> Result<(), Invalid> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let ok = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if ok {
            Ok(())
        } else {
            Err(Invalid::new(
                "tag",
                text,
                "use up to 128 of A-Z, a-z, 0-9, _, . and -, beginning with a letter, digit or _",
            ))
        }
    }

    /// A tag made from any text, such as a branch: characters that are not allowed in a tag become `-`.
    pub fn sanitized(text: &str) -> Option<Tag> {
        let mapped: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .skip_while(|c| ".-".contains(*c))
            .take(128)
            .collect();
        mapped.parse().ok()
    }
}

text_type!(Tag);

/// An image's name without tag and digest: `registry.example:5000/team/app` or `team/app`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    fn check(text: &str) -> Result<(), Invalid> {
        let invalid = || {
            Invalid::new(
                "image name",
                text,
                "write [registry[:port]/]path with path parts of a-z, 0-9, ., _ and -",
            )
        };
        let parts: Vec<&str> = text.split('/').collect();
        let path = if parts.len() > 1 && is_registry(parts[0]) {
            &parts[1..]
        } else {
            &parts[..]
        };
        if text.len() > 255 || !path.iter().all(|part| is_path_part(part)) {
            Err(invalid())
        } else {
            Ok(())
        }
    }

    /// The registry's host and port, when the name begins with one.
    pub fn registry(&self) -> Option<&str> {
        self.0
            .split_once('/')
            .map(|(host, _)| host)
            .filter(|host| is_registry(host))
    }

    /// The path within the registry.
    pub fn repository(&self) -> &str {
        match (self.registry(), self.0.split_once('/')) {
            (Some(_), Some((_, path))) => path,
            _ => &self.0,
        }
    }

    /// The reference to one manifest under this name.
    pub fn at(&self, digest: &Digest) -> ImageRef {
        ImageRef {
            name: self.clone(),
            tag: None,
            digest: Some(digest.clone()),
        }
    }
}

text_type!(ImageName);

/// The first part is a registry when it could be a host: a dot, a port, or `localhost`.
fn is_registry(part: &str) -> bool {
    let (host, port) = part.split_once(':').unwrap_or((part, "0"));
    let host_ok = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    host_ok
        && port.parse::<u16>().is_ok()
        && (part.contains('.') || part.contains(':') || part == "localhost")
}

fn is_path_part(part: &str) -> bool {
    let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = part.as_bytes();
    word(bytes.first())
        && word(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
}

/// `name[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    pub name: ImageName,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

impl FromStr for ImageRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(rest[last + colon + 1..].parse()?)),
            None => (rest, None),
        };
        Ok(Self {
            name: name.parse()?,
            tag,
            digest,
        })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Which images a service has: the name of one, and the repository that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceImage {
    /// Unique among the service's images; if it has only one and no name was given, the service's own name.
    pub name: Name,
    pub repository: ImageName,
}

/// One of a service's images, as it was built or is to be run. `Image` is pinned by its digest; an
/// `Image<Option<Digest>>` may be known by its tags alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "D: Serialize, for<'a> &'a D: Into<Option<&'a Digest>>"))]
pub struct Image<D = Digest> {
    /// Which of the service's images it is; see [`ServiceImage::name`].
    pub name: Name,
    pub repository: ImageName,
    #[serde(skip_serializing_if = "is_unknown")]
    pub digest: D,
    /// Tags that point to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

fn is_unknown<D>(digest: &D) -> bool
where
    for<'a> &'a D: Into<Option<&'a Digest>>,
{
    digest.into().is_none()
}

impl Image {
    /// The image as manifests name it: by its digest.
    pub fn reference(&self) -> ImageRef {
        self.repository.at(&self.digest)
    }
}

impl Image<Option<Digest>> {
    /// The image that a text refers to, as the given one of the service's images.
    pub fn named(name: Name, reference: ImageRef) -> Self {
        Self {
            name,
            repository: reference.name,
            digest: reference.digest,
            tags: reference.tag.into_iter().collect(),
        }
    }
}

/// The images of a service that go through a release, a deployment or a change together: always written as a list.
/// Exactly one is accepted until several are supported, and this is the only place that enforces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "Vec<T>",
    into = "Vec<T>",
    bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>")
)]
pub struct Images<T = Image>(T);

/// A list of images that does not have exactly one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give exactly one; several images are not supported yet")]
pub struct NotOneImage;

impl<T> Images<T> {
    /// The only image of its service.
    pub fn one(image: T) -> Self {
        Self(image)
    }

    /// The only image there is.
    pub fn only(&self) -> &T {
        &self.0
    }

    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        std::slice::from_ref(&self.0)
    }
}

impl<T> TryFrom<Vec<T>> for Images<T> {
    type Error = NotOneImage;

    fn try_from(images: Vec<T>) -> Result<Self, NotOneImage> {
        let [image] = <[T; 1]>::try_from(images).map_err(|_| NotOneImage)?;
        Ok(Self(image))
    }
}

impl<T> From<Images<T>> for Vec<T> {
    fn from(images: Images<T>) -> Self {
        vec![images.0]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Digest, Image, ImageName, ImageRef, Images, Tag};

    /// The form in which events are stored.
    #[test]
    fn images_are_a_list_of_exactly_one() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let one = json!([{
            "name": "web", "repository": "r.example/shop/web", "digest": digest, "tags": ["1.2"],
        }]);
        let images: Images = serde_json::from_value(one.clone()).unwrap();
        assert_eq!(serde_json::to_value(&images).unwrap(), one);
        assert_eq!(
            images.only().reference().to_string(),
            format!("r.example/shop/web@{digest}")
        );
        for bad in [json!([]), json!([one[0], one[0]])] {
            let error = serde_json::from_value::<Images>(bad).unwrap_err();
            assert_eq!(
                error.to_string(),
                "give exactly one; several images are not supported yet"
            );
        }
    }

    #[test]
    fn a_digest_is_left_out_only_where_a_tag_is_enough() {
        let by_tag = json!({ "name": "web", "repository": "r.example/shop/web", "tags": ["1.2"] });
        let image: Image<Option<Digest>> = serde_json::from_value(by_tag.clone()).unwrap();
        assert_eq!(serde_json::to_value(&image).unwrap(), by_tag);
        assert_eq!(
            Image::named("web".parse().unwrap(), "r.example/shop/web:1.2".parse().unwrap()),
            image
        );
        let error = serde_json::from_value::<Image>(by_tag).unwrap_err();
        assert_eq!(error.to_string(), "missing field `digest`");
    }

    #[test]
    fn references_read_and_print_back() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for text in [
            "app".to_owned(),
            "team/app:1.2".to_owned(),
            "localhost/app:x".to_owned(),
            "127.0.0.1:5000/app".to_owned(),
            format!("r.example:443/team/app:1a2b3c4@{digest}"),
            format!("r.example/app@{digest}"),
        ] {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), text);
        }
        for bad in ["", "App", "a//b", "a:", "a@sha256:1", "http://x/y", "a:b:c", "-a"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_split_at_the_registry() {
        let name: ImageName = "127.0.0.1:5000/team/app".parse().unwrap();
        assert_eq!(
            (name.registry(), name.repository()),
            (Some("127.0.0.1:5000"), "team/app")
        );
        let name: ImageName = "team/app".parse().unwrap();
        assert_eq!((name.registry(), name.repository()), (None, "team/app"));
    }

    #[test]
    fn digests_and_tags() {
        assert!("sha256:AB".parse::<Digest>().is_err());
        assert_eq!(Tag::sanitized("feature/login").unwrap().as_str(), "feature-login");
        assert_eq!(Tag::sanitized("//"), None);
    }
}
