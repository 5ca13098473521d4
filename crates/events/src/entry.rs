//! Ids of stream entries.

use std::{fmt, str::FromStr};

/// The id of an entry, `<milliseconds since 1970>-<number>`; ordered as Redis orders them, unlike their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    pub millis: u64,
    pub number: u64,
}

impl EntryId {
    /// Before every entry.
    pub const ZERO: Self = Self { millis: 0, number: 0 };

    /// The id after this one at the given time.
    pub(crate) fn next(self, now_millis: u64) -> Self {
        if now_millis > self.millis {
            Self {
                millis: now_millis,
                number: 0,
            }
        } else {
            Self {
                number: self.number + 1,
                ..self
            }
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// A text that is not `<number>-<number>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry id {0:?} is not valid: write <milliseconds>-<number>")]
pub struct InvalidEntryId(String);

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        let parse = || {
            let (millis, number) = text.split_once('-')?;
            Some(Self {
                millis: millis.parse().ok()?,
                number: number.parse().ok()?,
            })
        };
        parse().ok_or_else(|| InvalidEntryId(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::EntryId;

    #[test]
    fn orders_by_number_not_by_text() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        assert!(id("999-0") < id("1000-0"));
        assert!(id("1000-9") < id("1000-10"));
        assert_eq!(id("7-1").to_string(), "7-1");
        for bad in ["", "7", "7-", "-7", "a-b", "7-1-1", "-1-0"] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn grows_also_when_the_clock_goes_back() {
        let first = EntryId::ZERO.next(1000);
        let second = first.next(900);
        assert!(first < second && second < second.next(1001));
        assert_eq!(second.to_string(), "1000-1");
    }
}
