//! Entries and errors as Redis writes them.

use redis::{RedisError, Value, streams::StreamId};
use slipway_model::Timestamp;

use crate::{DeadLetter, Envelope, EnvelopeError};

/// The fields that are added to an entry that goes to the dead letters.
const DEAD_FIELDS: [&str; 6] = [
    "dead_origin",
    "dead_entry",
    "dead_group",
    "dead_reason",
    "dead_deliveries",
    "dead_at",
];
/// A dead letter keeps this many bytes of a field that is not text or is too long.
const DEAD_VALUE_BYTES: usize = 512 * 1024;
/// Of a reason, this many characters.
const DEAD_REASON_CHARS: usize = 1000;

/// The fields of an entry as text, sorted by name.
pub(super) fn fields(entry: &StreamId) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = entry
        .map
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    fields.sort();
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => {
            let bytes = bytes.get(..DEAD_VALUE_BYTES).unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        }
        Value::SimpleString(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}

pub(super) fn read_envelope(fields: &[(String, String)]) -> Result<Envelope, EnvelopeError> {
    Envelope::from_fields(fields.iter().map(|(name, value)| (name, value.as_str())))
}

pub(super) fn dead_letter_fields(letter: &DeadLetter) -> Vec<(&str, String)> {
    let reason = letter.reason.chars().take(DEAD_REASON_CHARS).collect();
    let own = [
        letter.origin.clone(),
        letter.entry.clone(),
        letter.group.clone(),
        reason,
        letter.deliveries.to_string(),
        letter.at.to_string(),
    ];
    let mut fields: Vec<(&str, String)> = DEAD_FIELDS.into_iter().zip(own).collect();
    fields.extend(
        letter
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    fields
}

/// Reads a dead letter; if another program wrote it, it is shown as far as it can be read.
pub(super) fn read_dead_letter(entry: &StreamId) -> DeadLetter {
    let mut fields = fields(entry);
    let mut take = |name: &str| {
        let index = fields.iter().position(|(field, _)| field == name);
        index.map(|index| fields.remove(index).1).unwrap_or_default()
    };
    let [origin, id, group, reason, deliveries, at] = DEAD_FIELDS.map(&mut take);
    DeadLetter {
        origin,
        entry: id,
        group,
        reason,
        deliveries: deliveries.parse().unwrap_or(0),
        at: at.parse().unwrap_or(Timestamp::from_micros(0)),
        fields,
    }
}

/// The group or its stream is gone: Redis was emptied. `UNBLOCKED` is what a reader gets that was blocked at the time.
pub(super) fn is_missing_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
        || error
            .detail()
            .is_some_and(|detail| detail.contains("stream key no longer exists"))
}

pub(super) fn is_group_there(error: &RedisError) -> bool {
    error.code() == Some("BUSYGROUP")
}

pub(super) fn is_missing_key(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("no such key"))
}
