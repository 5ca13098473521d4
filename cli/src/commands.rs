//! One file for each of the command line's nouns.

pub(crate) mod approval;
pub(crate) mod build;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod events;
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

/// A resource that an answer must hold.
fn present<T>(resource: Option<T>) -> Result<T, crate::failure::Failure> {
    resource.ok_or_else(|| crate::failure::Failure::new("the service answered without the resource"))
}
