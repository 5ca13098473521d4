//! Durations as people write them: `30m`, `500ms`, `1h 30m` (jiff's friendly format, ISO 8601 too); [`go`] reads those
//! of other programs.

pub mod go;

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

/// Reads a duration that is not negative.
///
/// # Errors
/// In words for the person who wrote it.
pub fn parse(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            format!("duration {text:?} is not valid: write it like 500ms, 30s, 10m or 1h 30m")
        })
}

/// As people write durations: `24h`, `1h 30m`.
pub fn print(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(
        |_| format!("{}s", duration.as_secs()),
        |signed| format!("{signed:#}"),
    )
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// When the duration is longer than 292 billion years.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let signed = SignedDuration::try_from(*duration).map_err(S::Error::custom)?;
    serializer.collect_str(&format_args!("{signed:#}"))
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// When the text is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// For `#[serde(default, with = "duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Writes the duration if there is one.
    ///
    /// # Errors
    /// When the duration is longer than 292 billion years.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration or nothing.
    ///
    /// # Errors
    /// When the text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{deserialize, parse, serialize};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Holder {
        #[serde(serialize_with = "serialize", deserialize_with = "deserialize")]
        value: Duration,
    }

    #[test]
    fn durations_read_and_print_back() {
        for (text, millis) in [
            ("500ms", 500),
            ("30m", 1_800_000),
            ("24h", 86_400_000),
            ("1h 30m", 5_400_000),
            ("0s", 0),
        ] {
            let value = parse(text).unwrap();
            assert_eq!(value, Duration::from_millis(millis), "{text}");
            let printed = serde_json::to_string(&Holder { value }).unwrap();
            assert_eq!(
                serde_json::from_str::<Holder>(&printed).unwrap().value,
                value,
                "{printed}"
            );
        }
        for bad in ["", "10", "-5s", "1 fortnight", "ten minutes"] {
            assert!(parse(bad).unwrap_err().contains("write it like"), "{bad}");
        }
    }
}
