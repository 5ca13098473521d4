//! Trace context after W3C Trace Context level 2.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Invalid;

/// 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// The value of a `traceparent` header: trace, parent span, and whether it is sampled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub sampled: bool,
}

impl TraceId {
    /// The trace id of an aggregate: the same after every restart.
    pub fn derived(parts: &[&str]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash(parts)[..16]);
        Self(bytes)
    }
}

impl SpanId {
    /// The span id of a step: the same after every restart.
    pub fn derived(parts: &[&str]) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash(parts)[16..24]);
        Self(bytes)
    }
}

fn hash(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::new(
                "traceparent",
                text,
                "write 00-<32 hex>-<16 hex>-<2 hex> (W3C Trace Context)",
            )
        };
        let parts: Vec<&str> = text.split('-').collect();
        // A later version may append fields; the ones defined here keep their meaning.
        let &[version, trace, span, flags, ..] = parts.as_slice() else {
            return Err(invalid());
        };
        if version.len() != 2 || version == "ff" || (version == "00" && parts.len() != 4) || flags.len() != 2
        {
            return Err(invalid());
        }
        let (mut trace_id, mut span_id, mut flag) = ([0; 16], [0; 8], [0; 1]);
        hex::decode_to_slice(trace, &mut trace_id).map_err(|_| invalid())?;
        hex::decode_to_slice(span, &mut span_id).map_err(|_| invalid())?;
        hex::decode_to_slice(flags, &mut flag).map_err(|_| invalid())?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(invalid());
        }
        Ok(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            sampled: flag[0] & 1 == 1,
        })
    }
}

impl TryFrom<String> for TraceContext {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> String {
        context.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{SpanId, TraceContext, TraceId};

    #[test]
    fn traceparents_read_and_print_back() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), text);
        for bad in [
            "",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &text.replace("b7ad6b7169203331", "0000000000000000"),
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_ids_are_stable_and_apart() {
        assert_eq!(TraceId::derived(&["rel-1"]), TraceId::derived(&["rel-1"]));
        assert_ne!(
            SpanId::derived(&["rel-1", "build", "1"]),
            SpanId::derived(&["rel-1", "build", "2"])
        );
    }
}
