//! The location of a repository at GitHub, from its URL. Pure.

/// The location of a repository at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub owner: String,
    /// Without `.git`.
    pub name: String,
    /// Its API, unless the configuration says otherwise: without a trailing slash.
    pub api_url: String,
}

impl Address {
    /// From `https://HOST/OWNER/NAME`, `ssh://…` or `git@HOST:OWNER/NAME`, with or without `.git`.
    ///
    /// The API of github.com is at api.github.com, that of SUB.ghe.com at api.SUB.ghe.com, and a GitHub Enterprise
    /// Server has it below /api/v3.
    pub fn of(url: &str) -> Option<Self> {
        let (host, port, path) = if url.contains("://") {
            let url = url::Url::parse(url).ok()?;
            // The ssh port does not say anything about the API's.
            let port = (url.scheme() == "https").then(|| url.port()).flatten();
            (url.host_str()?.to_owned(), port, url.path().to_owned())
        } else {
            let (host, path) = url.split_once(':')?;
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            (host.to_owned(), None, path.to_owned())
        };
        let path = path.trim_matches('/');
        let (owner, name) = path.strip_suffix(".git").unwrap_or(path).split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && part != "."
                && part != ".."
        };
        if !plain(owner) || !plain(name) {
            return None;
        }
        let host = host.to_ascii_lowercase();
        let api_url = match port {
            None if host == "github.com" || host.ends_with(".ghe.com") => format!("https://api.{host}"),
            None => format!("https://{host}/api/v3"),
            Some(port) => format!("https://{host}:{port}/api/v3"),
        };
        Some(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            api_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn a_repository_is_known_by_its_url() {
        for (url, api_url) in [
            ("https://github.com/acme/shop", "https://api.github.com"),
            ("https://GitHub.com/acme/shop.git/", "https://api.github.com"),
            ("ssh://git@github.com/acme/shop.git", "https://api.github.com"),
            ("git@github.com:acme/shop.git", "https://api.github.com"),
            ("https://corp.ghe.com/acme/shop", "https://api.corp.ghe.com"),
            (
                "https://git.corp.example/acme/shop",
                "https://git.corp.example/api/v3",
            ),
            (
                "https://git.corp.example:8443/acme/shop",
                "https://git.corp.example:8443/api/v3",
            ),
            (
                "ssh://git@git.corp.example:2222/acme/shop",
                "https://git.corp.example/api/v3",
            ),
        ] {
            let found = Address::of(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(
                (found.owner.as_str(), found.name.as_str(), found.api_url.as_str()),
                ("acme", "shop", api_url),
                "{url}"
            );
        }
        for url in [
            "/srv/shop.git",
            "https://github.com/shop",
            "https://github.com/a/b/c",
            "https://github.com/../b",
            "https://github.com/a/%2e%2e",
            "",
        ] {
            assert_eq!(Address::of(url), None, "{url}");
        }
    }
}
