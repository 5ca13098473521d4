//! Custom resources as the cluster has them. Only the fields that are looked at are read.

pub mod canary;
pub mod rollout;

use serde::{Deserialize, Deserializer};

/// Go prints an empty list as null where nobody told it to leave it out.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
