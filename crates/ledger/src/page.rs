//! Page tokens: where a list goes on, bound to the list it belongs to.
//!
//! A token is hex over 8 bytes of the filter's hash, the last item's creation time and its id. It is no secret and
//! gives no right: a forged one shows a page that its caller could have asked for anyway.

use sha2::{Digest as _, Sha256};
use slipway_model::{Id, Timestamp};

use crate::{LedgerError, ListFilter};

/// The last item of the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) created_at: Timestamp,
    pub(crate) id: Id,
}

fn binding(kind: &str, filter: &ListFilter) -> Result<[u8; 8], LedgerError> {
    let text = serde_json::to_vec(&(kind, filter)).map_err(|_| LedgerError::PageToken)?;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(text)[..8]);
    Ok(bytes)
}

pub(crate) fn encode(kind: &str, filter: &ListFilter, after: &After) -> Result<String, LedgerError> {
    let mut bytes = binding(kind, filter)?.to_vec();
    bytes.extend(after.created_at.as_micros().to_be_bytes());
    bytes.extend(after.id.as_str().as_bytes());
    Ok(hex::encode(bytes))
}

/// `None` for the empty token, the first page.
pub(crate) fn decode(kind: &str, filter: &ListFilter, token: &str) -> Result<Option<After>, LedgerError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = hex::decode(token).map_err(|_| LedgerError::PageToken)?;
    let (bound, rest) = bytes.split_at_checked(8).ok_or(LedgerError::PageToken)?;
    let (micros, id) = rest.split_first_chunk::<8>().ok_or(LedgerError::PageToken)?;
    if bound != binding(kind, filter)? {
        return Err(LedgerError::PageToken);
    }
    let id = std::str::from_utf8(id)
        .ok()
        .and_then(|id| id.parse().ok())
        .ok_or(LedgerError::PageToken)?;
    Ok(Some(After {
        created_at: Timestamp::from_micros(i64::from_be_bytes(*micros)),
        id,
    }))
}

#[cfg(test)]
mod tests {
    use slipway_model::Timestamp;

    use super::{After, decode, encode};
    use crate::ListFilter;

    #[test]
    fn tokens_fit_their_list_only() {
        let filter = ListFilter {
            status: vec!["running".into()],
            ..ListFilter::default()
        };
        let after = After {
            created_at: Timestamp::from_micros(-5),
            id: "b-1".parse().unwrap(),
        };
        let token = encode("build", &filter, &after).unwrap();
        assert_eq!(decode("build", &filter, &token).unwrap(), Some(after));
        assert_eq!(decode("build", &filter, "").unwrap(), None);
        assert!(decode("change", &filter, &token).is_err());
        assert!(decode("build", &ListFilter::default(), &token).is_err());
        for bad in ["x", "00", "zz", &token[..32], &token[..20]] {
            assert!(decode("build", &filter, bad).is_err(), "{bad}");
        }
    }
}
