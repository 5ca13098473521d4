//! Hosts and ports, and the URLs that contain them.

use url::{Host, Url};

/// The host and port that a check connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub host: Host,
    pub port: u16,
}

impl Remote {
    /// Reads `host:port`, IPv6 in brackets.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = || "write host:port, with a port from 1 to 65535 and IPv6 in brackets".to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if text.len() > 300 || !text.bytes().all(plain) {
            return Err(words());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(words)?;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(words());
        }
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(words)?;
        let host = Host::parse(host).map_err(|_| words())?;
        Ok(Self { host, port })
    }

    /// Reads the base of an `http` or `https` URL: no credentials, no path, no query. The second is whether it is
    /// `https`.
    ///
    /// # Errors
    /// In words.
    pub fn of_url(text: &str) -> Result<(Self, bool), String> {
        let (url, tls) = web_url(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "write scheme, host and port alone, such as https://shop.example: path has a key of its own"
                    .into(),
            );
        }
        Ok((Self::of(&url)?, tls))
    }

    /// The host and port of a URL that [`web_url`] has read.
    pub fn of(url: &Url) -> Result<Self, String> {
        let host = url.host().ok_or("has no host")?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or("must have a port from 1 to 65535")?;
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An `http` or `https` URL without credentials; the second is whether it is `https`.
///
/// # Errors
/// In words.
pub fn web_url(text: &str) -> Result<(Url, bool), String> {
    // The parser forgives tabs, line ends and backslashes; it is better to tell people.
    let plain = text.len() <= 2000 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let url = Url::parse(text).ok().filter(|_| plain);
    let url = url.ok_or("write an http:// or https:// URL")?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("must begin with http:// or https://".to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err("must not contain a user or a password".to_owned());
    }
    Ok((url, tls))
}

#[cfg(test)]
mod tests {
    use super::{Remote, web_url};

    #[test]
    fn addresses_are_host_and_port() {
        for (text, shown) in [
            ("shop:80", "shop:80"),
            ("Shop.Example:443", "shop.example:443"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            // Other spellings of an address are normalised before it is vetted.
            ("2130706433:80", "127.0.0.1:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(Remote::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "shop",
            ":80",
            "shop:",
            "shop:0",
            "shop:65536",
            "shop:+80",
            "shop:http",
            "2001:db8::1:80",
            "[::1:80",
            "user@shop:80",
            "shop:80/",
            "sh op:80",
            "http://shop:80",
            "[fe80::1%eth0]:80",
        ] {
            assert!(Remote::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_scheme_host_and_port() {
        for (text, shown, tls) in [
            ("http://shop", "shop:80", false),
            ("https://shop/", "shop:443", true),
            ("https://shop:8443", "shop:8443", true),
            ("HTTP://[::1]:8080", "[::1]:8080", false),
            ("http://0177.0.0.1", "127.0.0.1:80", false),
        ] {
            let (remote, encrypted) = Remote::of_url(text).unwrap();
            assert_eq!((remote.to_string().as_str(), encrypted), (shown, tls), "{text}");
        }
        for (wrong, words) in [
            ("ftp://shop", "must begin with"),
            ("file:///etc/passwd", "must begin with"),
            ("shop", "write an http"),
            ("", "write an http"),
            ("http://user:password@shop", "must not contain a user"),
            ("http://user@shop", "must not contain a user"),
            ("http://@shop", "must not contain a user"),
            ("http://shop:0", "a port from 1"),
            ("http://shop:70000", "write an http"),
            ("http://shop/health", "path has a key of its own"),
            ("http://shop?x", "path has a key of its own"),
            ("http://shop#x", "path has a key of its own"),
            ("http://sh\top", "write an http"),
            ("http:\\\\shop", "write an http"),
        ] {
            let error = Remote::of_url(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
        assert!(web_url("https://metrics.example/prometheus").is_ok());
    }
}
