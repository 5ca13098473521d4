//! Server-side apply against the store: an object is created, or changed, as `apply.rs` merges it.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::apply;
use crate::api::prepare::{Unknown, as_stored, as_version, preconditions, prepare_new, prepare_update};
use crate::api::schema::Schema;
use crate::object::{self, text};
use crate::resources::Resource;
use crate::shape;
use crate::status::{ApiError, ApiResult};
use crate::store::Store;

/// A server-side apply, from outside or from a controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a> {
    pub(crate) manager: &'a str,
    /// Take over the conflicting fields.
    pub(crate) force: bool,
    /// Empty, or `status`.
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
}

impl Apply<'_> {
    /// Applies an object, whose name and namespace are filled in. Returns it as it is now, with 201 if it is new and
    /// 200 otherwise.
    ///
    /// # Errors
    /// 400 for fields the kind does not have, 404, 409 for conflicts, 422 when the result is not valid.
    pub(crate) fn to(
        self,
        store: &Store,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        applied: &Value,
    ) -> ApiResult<(Arc<Value>, u16)> {
        check_fields(resource, (namespace, name), applied)?;
        let merge = |live: &Value| {
            let request = apply::Request {
                manager: self.manager,
                schema: Schema::of(resource),
                force: self.force,
                subresource: self.subresource,
                now: Timestamp::now(),
            };
            apply::apply(live, applied, request).map_err(|conflicts| ApiError::apply_conflict(&conflicts))
        };
        if store.get(resource, namespace, name).is_none() && self.subresource.is_empty() {
            let wanted = text(applied, &["metadata", "resourceVersion"]);
            if !wanted.is_empty() && wanted != "0" || !object::uid(applied).is_empty() {
                return Err(ApiError::not_found(resource, name));
            }
            let mut object = merge(&Value::Null)?;
            prepare_new(resource, &mut object, Timestamp::now())?;
            let object = as_stored(resource, object);
            let created = if self.dry_run {
                Ok(Arc::new(object))
            } else {
                store.create(resource, object)
            };
            match created {
                Ok(stored) => return Ok((stored, 201)),
                // Another writer was faster: what was to be created must now be changed.
                Err(error) if error.reason == "AlreadyExists" => {}
                Err(error) => return Err(error),
            }
        }
        let change = |old: &Value| {
            let old = &*as_version(resource, old);
            preconditions(resource, old, applied)?;
            let merged = merge(old)?;
            let managed = merged["metadata"].get("managedFields").cloned();
            let (mut new, _) = prepare_update(resource, old, merged, self.subresource, Unknown::Ignore)?;
            match managed {
                Some(managed) => object::metadata(&mut new).insert("managedFields".to_owned(), managed),
                None => object::metadata(&mut new).remove("managedFields"),
            };
            Ok(as_stored(resource, new))
        };
        if self.dry_run {
            let old = store
                .get(resource, namespace, name)
                .ok_or_else(|| ApiError::not_found(resource, name))?;
            return Ok((Arc::new(change(&old)?), 200));
        }
        Ok((store.update(resource, namespace, name, change)?, 200))
    }
}

/// As the real one answers: errors that have no status of their own.
fn check_fields(resource: &Resource, (namespace, name): (&str, &str), applied: &Value) -> ApiResult<()> {
    let refusal = |why: String| {
        ApiError::unclassified(format!(
            "failed to create typed patch object ({namespace}/{name}; {}, Kind={}): {why}",
            resource.api_version(),
            resource.kind,
        ))
    };
    let unknown = match resource.custom {
        Some(custom) => custom.schema.prune(&mut applied.clone()),
        None => shape::unknown(resource, applied).map_err(|error| refusal(error.message))?,
    };
    match unknown.first() {
        None => Ok(()),
        Some(first) => Err(refusal(format!(".{first}: field not declared in schema"))),
    }
}
