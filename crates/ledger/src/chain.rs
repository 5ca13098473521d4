//! The hash chain over one aggregate's events.
//!
//! Every event's hash covers the hash before it and every stored byte of the event, each field preceded by its length,
//! so that no two histories have the same head. The first event's `prev_hash` is 32 zero bytes.

use sha2::{Digest as _, Sha256};

use crate::rows::{EventRow, Hash};

/// What the chain starts with.
pub(crate) const GENESIS: Hash = [0; 32];

/// The hash of an event; `event.hash` is ignored.
pub(crate) fn hash(kind: &str, id: &str, event: &EventRow) -> Hash {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(&event.prev_hash);
    field(kind.as_bytes());
    field(id.as_bytes());
    field(&event.seq.to_be_bytes());
    field(event.event_type.as_bytes());
    field(event.actor.as_bytes());
    field(event.traceparent.as_deref().unwrap_or_default().as_bytes());
    field(&event.at.as_micros().to_be_bytes());
    field(event.data.as_bytes());
    hash.finalize().into()
}

/// Where a history differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("event {expected} is missing: found {found} in its place")]
    Gap { expected: u64, found: u64 },
    #[error("event {seq} does not follow from the one before it")]
    Link { seq: u64 },
    #[error("event {seq} is not what was written")]
    Content { seq: u64 },
    #[error("the history does not end at the recorded head")]
    Head,
}

/// Checks a whole history from its first event, and that it ends at `head`.
pub(crate) fn verify(kind: &str, id: &str, events: &[EventRow], head: &Hash) -> Result<(), ChainError> {
    let mut last = GENESIS;
    for (event, expected) in events.iter().zip(1..) {
        if event.seq != expected {
            return Err(ChainError::Gap {
                expected,
                found: event.seq,
            });
        }
        if event.prev_hash != last {
            return Err(ChainError::Link { seq: event.seq });
        }
        if hash(kind, id, event) != event.hash {
            return Err(ChainError::Content { seq: event.seq });
        }
        last = event.hash;
    }
    if last == *head {
        Ok(())
    } else {
        Err(ChainError::Head)
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::Timestamp;

    use super::{ChainError, GENESIS, hash, verify};
    use crate::rows::{EventRow, Hash};

    fn history(count: u64) -> (Vec<EventRow>, Hash) {
        let mut last = GENESIS;
        let events = (1..=count)
            .map(|seq| {
                let mut event = EventRow {
                    seq,
                    event_type: "made".into(),
                    data: format!(r#"{{"type":"made","n":{seq}}}"#),
                    actor: r#"{"principal":"token/a"}"#.into(),
                    traceparent: None,
                    at: Timestamp::from_micros(1_700_000_000_000_000),
                    prev_hash: last,
                    hash: GENESIS,
                };
                event.hash = hash("thing", "t-1", &event);
                last = event.hash;
                event
            })
            .collect();
        (events, last)
    }

    /// Pinned: a change here makes every stored history look forged.
    #[test]
    fn the_hash_is_what_it_always_was() {
        let (_, head) = history(2);
        assert_eq!(
            hex::encode(head),
            "98801c12ef092f933f04b65098a4b588cbb7eded82d94550fb65910fa608f498"
        );
    }

    #[test]
    fn every_change_of_a_history_is_found() {
        let (events, head) = history(3);
        assert_eq!(verify("thing", "t-1", &events, &head), Ok(()));
        assert_eq!(
            verify("thing", "t-2", &events, &head),
            Err(ChainError::Content { seq: 1 })
        );

        let change = |change: fn(&mut Vec<EventRow>)| {
            let mut changed = events.clone();
            change(&mut changed);
            verify("thing", "t-1", &changed, &head)
        };
        assert_eq!(
            change(|e| e[1].data.push(' ')),
            Err(ChainError::Content { seq: 2 })
        );
        assert_eq!(
            change(|e| e[1].actor = e[1].actor.replace('a', "b")),
            Err(ChainError::Content { seq: 2 })
        );
        assert_eq!(
            change(|e| e[0].at = Timestamp::from_micros(1)),
            Err(ChainError::Content { seq: 1 })
        );
        assert_eq!(
            change(|e| drop(e.remove(1))),
            Err(ChainError::Gap {
                expected: 2,
                found: 3
            })
        );
        assert_eq!(change(|e| drop(e.pop())), Err(ChainError::Head));
        assert_eq!(
            change(|e| {
                e[1].data = "{}".into();
                e[1].hash = hash("thing", "t-1", &e[1]);
            }),
            Err(ChainError::Link { seq: 3 })
        );
    }
}
