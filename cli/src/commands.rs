//! One file for each of the command line's nouns.

pub(crate) mod approval;
pub(crate) mod build;
#[cfg(feature = "dev")]
pub(crate) mod config;
#[cfg(feature = "dev")]
pub(crate) mod demo;
pub(crate) mod deployment;
#[cfg(feature = "dev")]
pub(crate) mod dev;
pub(crate) mod events;
pub(crate) mod gitops;
pub(crate) mod parked;
pub(crate) mod release;

/// An idempotency key for one run of a command.
fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A table without lines between its cells.
fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_header(header);
    table
}

/// An enum's value as people write it, without the enum's own name: `before_sync`; empty if it is unspecified.
fn word(value: &str, prefix: &str) -> String {
    match value.trim_start_matches(prefix) {
        "UNSPECIFIED" => String::new(),
        word => word.to_ascii_lowercase(),
    }
}

/// A resource that an answer must contain.
fn present<T>(resource: Option<T>) -> Result<T, crate::failure::Failure> {
    resource.ok_or_else(|| crate::failure::Failure::new("the service's answer has no resource"))
}
