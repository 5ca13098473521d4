//! Ids of the aggregates that Slipway keeps.

use serde::{Deserialize, Serialize};

use crate::{Invalid, text_type};

/// The id of an aggregate within its kind: 1 to 200 printable ASCII characters without space.
///
/// New ones are `<prefix>-<UUIDv7>` (RFC 9562), so that they sort by time of creation; aggregates that stand
/// for something outside (a lane, a branch) are named after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// A new id such as `rel-01936f3e-…`.
    pub fn generate(prefix: &str) -> Self {
        Self(format!("{prefix}-{}", uuid::Uuid::now_v7()))
    }

    /// The id that the same parts always give (SHA-256 over them): for aggregates that must not exist twice.
    pub fn derived(prefix: &str, parts: &[&str]) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(format!("{prefix}-{}", hex::encode(&hash.finalize()[..16])))
    }

    fn check(text: &str) -> Result<(), Invalid> {
        if (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(Invalid::new(
                "id",
                text,
                "use 1 to 200 printable ASCII characters without space",
            ))
        }
    }
}

text_type!(Id);

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn ids_are_ordered_or_derived() {
        assert!(Id::generate("rel") <= Id::generate("rel"));
        assert_eq!(Id::derived("chg", &["a", "b"]), Id::derived("chg", &["a", "b"]));
        assert_ne!(Id::derived("chg", &["a", "b"]), Id::derived("chg", &["ab", ""]));
        assert!("a b".parse::<Id>().is_err());
    }
}
