//! Content identified by its hash.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Invalid, text_type};

/// SHA-256 of some content: 64 lower-case hexadecimal digits, as `sha256sum` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(content: impl AsRef<[u8]>) -> Self {
        Self(hex::encode(Sha256::digest(content)))
    }

    fn check(text: &str) -> Result<(), Invalid> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(())
        } else {
            Err(Invalid::new(
                "SHA-256",
                text,
                "write 64 lower-case hexadecimal digits, as sha256sum prints them",
            ))
        }
    }
}

text_type!(ContentHash);

#[cfg(test)]
mod tests {
    use super::ContentHash;

    #[test]
    fn it_is_what_sha256sum_prints() {
        let hash = ContentHash::of("abc");
        let printed = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.as_str(), printed);
        assert_eq!(printed.parse(), Ok(hash));
        for bad in ["", "ba78", &printed.to_uppercase(), &printed.replace('b', "g")] {
            assert!(bad.parse::<ContentHash>().is_err(), "{bad}");
        }
    }
}
