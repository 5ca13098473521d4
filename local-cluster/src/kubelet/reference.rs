//! Image references: `[registry/]path[:tag][@sha256:digest]`.

/// A reference, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The registry's host and port, when the name has one.
    pub(crate) registry: Option<String>,
    pub(crate) path: String,
    pub(crate) tag: Option<String>,
    /// `sha256:` and 64 hex digits.
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Reads a reference; `None` when it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(checked_digest(digest)?.to_owned())),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let is_tag = |tag: &str| {
            !tag.is_empty()
                && tag.len() <= 128
                && !tag.starts_with(['.', '-'])
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return None;
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                (Some(host.to_owned()), path)
            }
            _ => (None, name),
        };
        let is_host = |host: &str| {
            host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        };
        if registry.as_deref().is_some_and(|host| !is_host(host)) {
            return None;
        }
        let is_part = |part: &str| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            !part.is_empty() && part.bytes().all(allowed) && part.as_bytes()[0].is_ascii_alphanumeric()
        };
        if path.is_empty() || path.len() > 255 || !path.split('/').all(is_part) {
            return None;
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Some(Self {
            registry,
            path: path.to_owned(),
            tag,
            digest,
        })
    }

    /// The name without tag and digest.
    pub(crate) fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.path),
            None => self.path.clone(),
        }
    }
}

/// A SHA-256 digest in its one right form, so that it can be part of a file's name.
pub(crate) fn checked_digest(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let valid = hex.len() == 64
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    valid.then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("127.0.0.1:5000/team/web:1@{digest}");
        let table = [
            ("web", Some((None, "web", Some("latest"), None))),
            ("team/web:1", Some((None, "team/web", Some("1"), None))),
            (
                "registry.example.com/web:a-1",
                Some((Some("registry.example.com"), "web", Some("a-1"), None)),
            ),
            (
                "localhost:5000/web",
                Some((Some("localhost:5000"), "web", Some("latest"), None)),
            ),
            (
                with_digest.as_str(),
                Some((
                    Some("127.0.0.1:5000"),
                    "team/web",
                    Some("1"),
                    Some(digest.as_str()),
                )),
            ),
            ("", None),
            ("../web", None),
            ("a/../b", None),
            ("a//b", None),
            ("Web", None),
            ("web:", None),
            ("web@sha256:abc", None),
            ("web@sha256:../../x", None),
        ];
        for (text, expected) in table {
            let found = Reference::parse(text);
            let found = found.as_ref().map(|r| {
                (
                    r.registry.as_deref(),
                    r.path.as_str(),
                    r.tag.as_deref(),
                    r.digest.as_deref(),
                )
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
