//! Names of services, environments, policies and the like.

use serde::{Deserialize, Serialize};

use crate::{Invalid, text_type};

/// A DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and `-`, not beginning or ending with `-`.
///
/// Services, environments, policies and clusters have such names, since they end up in Kubernetes names, image tags and
/// file paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    fn check(text: &str) -> Result<(), Invalid> {
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let ok = bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if ok {
            Ok(())
        } else {
            Err(Invalid::new(
                "name",
                text,
                "use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (RFC 1123)",
            ))
        }
    }
}

text_type!(Name);

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "ms-identity", "v2", "0"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
