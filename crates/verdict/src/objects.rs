//! Custom resources as the cluster has them. Only the fields that are used are read.

pub mod application;
pub mod canary;
pub mod rollout;

use serde::{Deserialize, Deserializer};

/// Go prints an empty list as null unless told to omit it.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
