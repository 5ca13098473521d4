//! Where commits come from: the URLs that are supported, and the patterns that allow them.

use serde::{Deserialize, Serialize};
use url::Url;

/// The longest repository URL, in bytes.
const MAX_URL: usize = 2048;

/// Where a commit is fetched from: `https`, `ssh` or `file`, without a password, in canonical form (WHATWG URL), so
/// that what is compared with the allow-list is what git uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryUrl(String);

impl RepositoryUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of a `file` URL.
    pub fn local_path(&self) -> Option<&str> {
        self.0.strip_prefix("file://")
    }
}

impl std::str::FromStr for RepositoryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_URL {
            return Err(format!("use at most {MAX_URL} bytes"));
        }
        let url = Url::parse(text)
            .map_err(|error| format!("write a URL such as https://git.example/team/app.git ({error})"))?;
        if !matches!(url.scheme(), "https" | "ssh" | "file") {
            return Err(format!(
                "the scheme {:?} is not allowed; use https, ssh or file",
                url.scheme()
            ));
        }
        if url.password().is_some() || (url.scheme() != "ssh" && !url.username().is_empty()) {
            return Err("leave credentials out; the service has its own in git.credentials".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("leave query and fragment out".into());
        }
        let host = url.host_str().unwrap_or_default();
        if (url.scheme() == "file") != host.is_empty()
            || host.starts_with('-')
            || url.username().starts_with('-')
        {
            return Err("give a host in an https or ssh URL, and none in a file URL (file:///path)".into());
        }
        let path = url.path().to_ascii_lowercase();
        if path.len() < 2
            || path.contains("%2f")
            || path.contains("%2e")
            || path.contains("%5c")
            || path.contains("%00")
        {
            return Err("write the repository's path without encoded slashes and dots".into());
        }
        if url.scheme() == "file" && path.contains('%') {
            return Err("write a local path of plain characters".into());
        }
        if url.as_str() != text {
            return Err(format!("write it in its canonical form, {:?}", url.as_str()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RepositoryUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RepositoryUrl> for String {
    fn from(url: RepositoryUrl) -> String {
        url.0
    }
}

impl std::fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern of the allow-list of repositories: a URL in which `*` in the path stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RepositoryPattern(String);

impl RepositoryPattern {
    pub fn matches(&self, url: &RepositoryUrl) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| url.as_str().strip_prefix(first)) else {
            return false;
        };
        if !self.0.contains('*') {
            return rest.is_empty();
        }
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let authority_end = text
            .find("://")
            .and_then(|at| text[at + 3..].find('/').map(|slash| at + 3 + slash));
        match authority_end {
            // A star in the host would let https://git.example* match https://git.example.elsewhere/.
            Some(end) if !text[..end].contains('*') => {}
            _ => {
                return Err(format!(
                    "repository pattern {text:?}: write scheme://host/path with * only in the path"
                ));
            }
        }
        text.replace('*', "x")
            .parse::<RepositoryUrl>()
            .map_err(|rule| format!("repository pattern {text:?}: {rule}"))?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_urls_are_canonical_and_without_secrets() {
        for good in [
            "https://git.example/a.git",
            "ssh://git@git.example:22022/a/b",
            "file:///srv/git/app.git",
        ] {
            assert_eq!(good.parse::<RepositoryUrl>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "git@git.example:a.git",
            "http://git.example/a",
            "ext::sh -c id",
            "https://user:pw@git.example/a",
            "https://user@git.example/a",
            "https://git.example",
            "https://GIT.example/a",
            "https://git.example/a?x=1",
            "https://git.example/a/%2e%2e/b",
            "file:///srv/git/../../etc",
            "file://host/srv/git",
            "file:///srv/a%20b",
            "ssh://-oProxyCommand=x/a",
            "--upload-pack=x",
        ] {
            assert!(bad.parse::<RepositoryUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_hold_the_host_fast() {
        let pattern = |text: &str| RepositoryPattern::try_from(text.to_owned());
        for (text, url, expected) in [
            ("https://git.example/*", "https://git.example/a/b.git", true),
            ("https://git.example/*", "https://git.example.evil/a", false),
            (
                "https://git.example/team/*.git",
                "https://git.example/team/a.git",
                true,
            ),
            (
                "https://git.example/team/*.git",
                "https://git.example/other/a.git",
                false,
            ),
            ("https://git.example/a", "https://git.example/a", true),
            ("https://git.example/a", "https://git.example/ab", false),
            ("file:///srv/*/repo-*", "file:///srv/x/repo-y", true),
        ] {
            assert_eq!(
                pattern(text).unwrap().matches(&url.parse().unwrap()),
                expected,
                "{text} {url}"
            );
        }
        for bad in [
            "*",
            "https://*",
            "https://*.example/a",
            "https://git.example*",
            "http://git.example/*",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
