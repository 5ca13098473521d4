//! Page tokens: where a list continues, bound to the list it belongs to.
//!
//! A token is hex over 8 bytes of the filter's hash, the time by which the last item is sorted, and its id; in lists of
//! parked aggregates the kind comes before the id. It is not a secret and does not grant anything: a forged one shows a
//! page that its caller could have requested anyway.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use slipway_model::{Id, Timestamp};

use crate::{
    LedgerError, ListFilter,
    rows::{After, AfterParked},
};

fn binding(list: &impl Serialize) -> Result<[u8; 8], LedgerError> {
    let text = serde_json::to_vec(list).map_err(|_| LedgerError::PageToken)?;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(text)[..8]);
    Ok(bytes)
}

fn pack(list: &impl Serialize, time: Timestamp, name: &str) -> Result<String, LedgerError> {
    let mut bytes = binding(list)?.to_vec();
    bytes.extend(time.as_micros().to_be_bytes());
    bytes.extend(name.as_bytes());
    Ok(hex::encode(bytes))
}

/// `None` for the empty token, the first page.
fn unpack(list: &impl Serialize, token: &str) -> Result<Option<(Timestamp, String)>, LedgerError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = hex::decode(token).map_err(|_| LedgerError::PageToken)?;
    let (bound, rest) = bytes.split_at_checked(8).ok_or(LedgerError::PageToken)?;
    let (micros, name) = rest.split_first_chunk::<8>().ok_or(LedgerError::PageToken)?;
    if bound != binding(list)? {
        return Err(LedgerError::PageToken);
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| LedgerError::PageToken)?;
    Ok(Some((Timestamp::from_micros(i64::from_be_bytes(*micros)), name)))
}

fn id(text: &str) -> Result<Id, LedgerError> {
    text.parse().map_err(|_| LedgerError::PageToken)
}

pub(crate) fn encode(kind: &str, filter: &ListFilter, after: &After) -> Result<String, LedgerError> {
    pack(&(kind, filter), after.created_at, after.id.as_str())
}

pub(crate) fn decode(kind: &str, filter: &ListFilter, token: &str) -> Result<Option<After>, LedgerError> {
    let after = unpack(&(kind, filter), token)?;
    after
        .map(|(created_at, name)| {
            Ok(After {
                created_at,
                id: id(&name)?,
            })
        })
        .transpose()
}

pub(crate) fn encode_parked(kind: Option<&str>, after: &AfterParked) -> Result<String, LedgerError> {
    let name = format!("{}/{}", after.kind, after.id);
    pack(&("parked", kind), after.since, &name)
}

pub(crate) fn decode_parked(kind: Option<&str>, token: &str) -> Result<Option<AfterParked>, LedgerError> {
    let after = unpack(&("parked", kind), token)?;
    after
        .map(|(since, name)| {
            let (kind, name) = name.split_once('/').ok_or(LedgerError::PageToken)?;
            Ok(AfterParked {
                since,
                kind: kind.to_owned(),
                id: id(name)?,
            })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use slipway_model::Timestamp;

    use super::{decode, decode_parked, encode, encode_parked};
    use crate::{
        ListFilter,
        rows::{After, AfterParked},
    };

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

    #[test]
    fn tokens_of_what_is_parked_name_its_kind() {
        let after = AfterParked {
            since: Timestamp::from_micros(7),
            kind: "build".into(),
            id: "b-1".parse().unwrap(),
        };
        let token = encode_parked(None, &after).unwrap();
        assert_eq!(decode_parked(None, &token).unwrap(), Some(after));
        assert!(decode_parked(Some("build"), &token).is_err());
        assert!(decode("build", &ListFilter::default(), &token).is_err());
        assert!(decode_parked(None, &token[..34]).is_err());
    }
}
