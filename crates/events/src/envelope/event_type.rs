//! The types of events: an event's own type, and the CloudEvents `type` made from it.

use super::EnvelopeError;

const TYPE_PREFIX: &str = "dev.slipway.";
/// Event types are at most this many bytes.
const MAX_TYPE_BYTES: usize = 64;

/// CloudEvents' `type` of an event: `dev.slipway.<kind>.<name>.v<N>`. The event's own type is just its name in the
/// first version of its form, and `<name>.v<N>` from the second on: `requested` becomes `….requested.v1`,
/// `requested.v2` becomes `….requested.v2`. An event keeps the form that it was recorded in, however often it is
/// published.
pub fn type_name(kind: &str, event_type: &str) -> String {
    let version = if event_type.contains('.') { "" } else { ".v1" };
    format!("{TYPE_PREFIX}{kind}.{event_type}{version}")
}

/// The event's own type, from CloudEvents' `type` of an event of this kind: the inverse of [`type_name`].
pub(super) fn event_type_of<'a>(type_name: &'a str, kind: &str) -> Option<&'a str> {
    let rest = type_name.strip_prefix(TYPE_PREFIX)?;
    let versioned = rest.strip_prefix(kind)?.strip_prefix('.')?;
    match versioned.strip_suffix(".v1") {
        Some(name) => (!name.contains('.')).then_some(name),
        // Any other version is part of the event's own type, which is checked when the envelope is built.
        None => versioned.contains('.').then_some(versioned),
    }
}

/// A name in snake case, optionally followed by `.v` and an integer of at least 2: the first version has no suffix.
pub(super) fn check_event_type(text: &str) -> Result<(), EnvelopeError> {
    let (name, version) = match text.split_once('.') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let counts = |version: &str| {
        version.strip_prefix('v').is_some_and(|number| {
            number.bytes().all(|b| b.is_ascii_digit())
                && !number.starts_with('0')
                && number.parse::<u32>().is_ok_and(|number| number >= 2)
        })
    };
    if is_word(name) && text.len() <= MAX_TYPE_BYTES && version.is_none_or(counts) {
        Ok(())
    } else {
        Err(EnvelopeError::invalid(
            "type",
            text,
            "use 1 to 64 of a-z, 0-9 and _, beginning with a letter, and from the second form on .v and its number",
        ))
    }
}

/// Snake case, so that `type` and `subject` can be taken apart again.
pub(super) fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
}
