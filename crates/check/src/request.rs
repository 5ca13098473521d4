//! What a GET that goes through the API server's service proxy, or directly to a service, may contain.

/// Headers that mean something to the API server itself: they are not for the service, and some would turn the request
/// into another user's (impersonation, the names of the front proxy).
pub fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("impersonate-")
        || name.starts_with("x-remote-")
        || matches!(
            name.as_str(),
            "authorization" | "proxy-authorization" | "host" | "cookie"
        )
        || is_hop_by_hop(&name)
}

/// Headers of the connection rather than of the request (RFC 9110, section 7.6.1), in lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || name.starts_with("proxy-")
}

/// Whether a path cannot escape the prefix it is appended to: absolute, percent-encoded, no `.` or `..` in any
/// spelling, no fragment. The proxy's path is the API server's path; one that climbs out of it would be a different
/// request in our name.
///
/// # Errors
/// In words.
pub fn check_path(path: &str) -> Result<(), String> {
    let wrong = "write an absolute path, percent-encoded, without .., \\ and #";
    let graphic = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&b));
    if !path.starts_with('/') || path.len() > 2000 || !graphic {
        return Err(wrong.to_owned());
    }
    let plain = path.split('?').next().unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(plain).collect::<Vec<u8>>();
    let climbs = decoded
        .split(|b| matches!(b, b'/' | b'\\'))
        .any(|part| part == b".." || part == b".");
    let control = decoded.iter().any(|b| b.is_ascii_control());
    if climbs || control {
        return Err(wrong.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_path, is_reserved_header};

    #[test]
    fn paths_stay_below_the_service() {
        for path in [
            "/",
            "/health",
            "/a/b?c=d&e=..",
            "/a..b/...",
            "/%7Euser/x%2Ey",
            "/a;b=c",
            "/a//b",
        ] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "health",
            "http://x/",
            "/..",
            "/a/../b",
            "/a/..",
            "/./a",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a%2f..%2fb",
            "/a%5c..%5cb",
            "/a\\..",
            "/a#b",
            "/a b",
            "/a\nb",
            "/a%0ab",
            "/ä",
            &format!("/{}", "x".repeat(2000)),
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn headers_of_the_api_server_are_known() {
        for name in [
            "Authorization",
            "Impersonate-User",
            "impersonate-extra-x",
            "X-Remote-Group",
            "Host",
            "Upgrade",
            "Proxy-X",
        ] {
            assert!(is_reserved_header(name), "{name}");
        }
        for name in ["Accept", "X-Tenant", "User-Agent"] {
            assert!(!is_reserved_header(name), "{name}");
        }
    }
}
