//! Create, update and patch: the requests that change what is stored.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::App;
use crate::api::fields::{self, Manager};
use crate::api::patch;
use crate::api::prepare::{Unknown, as_stored, as_version, check_shape, prepare_new, prepare_update};
use crate::api::read::represent;
use crate::api::request::{Answer, Request, json as answer, warn};
use crate::api::route::ObjectPath;
use crate::api::schema::Schema;
use crate::api::server_side::Apply;
use crate::cause::Cause;
use crate::object::{self, text};
use crate::resources::Resource;
use crate::status::{ApiError, ApiResult};

fn unknown_fields(request: &Request) -> ApiResult<Unknown> {
    match request.param("fieldValidation") {
        "Ignore" => Ok(Unknown::Ignore),
        "" | "Warn" => Ok(Unknown::Warn),
        "Strict" => Ok(Unknown::Strict),
        other => Err(ApiError::bad_request(format!(
            "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Warn\", \"Strict\""
        ))),
    }
}

/// Checks that the body is an object of this kind for this place, and fills in what the path says.
fn address(path: &ObjectPath, object: &mut Value) -> ApiResult<()> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the body is not an object"));
    }
    for (field, expected, what) in [
        ("kind", path.resource.kind.to_owned(), "kind"),
        ("apiVersion", path.resource.api_version(), "API version"),
    ] {
        match text(object, &[field]) {
            "" => object[field] = Value::from(expected),
            given if given == expected => {}
            given if field == "kind" && path.resource.custom.is_none() => {
                let (expected, version) = (path.resource.kind, path.resource.version);
                let package = match path.resource.group.split('.').next() {
                    None | Some("") => "core",
                    Some(package) => package,
                };
                return Err(ApiError::bad_request(format!(
                    "{given} in version \"{version}\" cannot be handled as a {expected}: converting ({version}.{given}) to ({package}.{expected}): unknown conversion"
                )));
            }
            given => {
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    if let Some(namespace) = &path.namespace {
        if !matches!(object::namespace(object), given if given.is_empty() || given == namespace) {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        object::metadata(object).insert("namespace".to_owned(), Value::from(namespace.as_str()));
    } else {
        object::metadata(object).remove("namespace");
    }
    if let Some(name) = &path.name {
        let given = object::name(object).to_owned();
        if !given.is_empty() && given != *name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        object::metadata(object).insert("name".to_owned(), Value::from(name.as_str()));
    }
    Ok(())
}

pub(crate) async fn create(app: &App, path: &ObjectPath, request: &Request) -> ApiResult<Answer> {
    let resource = path.resource;
    let mut object = request.value()?;
    address(path, &mut object)?;
    if resource.namespaced && path.namespace.is_none() {
        return Err(ApiError::method_not_allowed(
            "POST to a collection needs a namespace in the path",
        ));
    }
    if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    object::metadata(&mut object).remove("managedFields");
    let warnings = check_shape(resource, &mut object, unknown_fields(request)?)?;
    let now = Timestamp::now();
    prepare_new(resource, &mut object, now)?;
    let manager = Manager::new(&request.manager(), "Update", "", &resource.api_version(), now);
    fields::track_update(None, &mut object, Schema::of(resource), manager);
    let stored = if request.dry_run()? {
        Arc::new(object)
    } else {
        app.store.create(resource, as_stored(resource, object))?
    };
    finish(app, resource, &stored, request, 201, &warnings).await
}

async fn finish(
    app: &App,
    resource: &Resource,
    stored: &Value,
    request: &Request,
    code: u16,
    warnings: &[String],
) -> ApiResult<Answer> {
    if !request.dry_run()? {
        app.store.durable(object::resource_version(stored)).await?;
    }
    let mut answer = answer(code, &represent(resource, stored, &request.representation()));
    warn(&mut answer, warnings);
    Ok(answer)
}

pub(crate) async fn update(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let mut object = request.value()?;
    address(path, &mut object)?;
    let subresource = path.subresource.clone().unwrap_or_default();
    let unknown = unknown_fields(request)?;
    write(app, path, name, request, |old| {
        let (mut new, warnings) = prepare_update(path.resource, old, object, &subresource, unknown)?;
        track(path.resource, old, &mut new, &subresource, request);
        Ok((new, warnings))
    })
    .await
}

pub(crate) fn track(resource: &Resource, old: &Value, new: &mut Value, subresource: &str, request: &Request) {
    let manager = Manager::new(
        &request.manager(),
        "Update",
        subresource,
        &resource.api_version(),
        Timestamp::now(),
    );
    fields::track_update(Some(old), new, Schema::of(resource), manager);
}

/// Changes a stored object or, in a dry run, only returns what it would become.
async fn write(
    app: &App,
    path: &ObjectPath,
    name: &str,
    request: &Request,
    change: impl FnOnce(&Value) -> ApiResult<(Value, Vec<String>)>,
) -> ApiResult<Answer> {
    let (resource, namespace) = (path.resource, path.namespace.as_deref().unwrap_or(""));
    let mut warnings = Vec::new();
    let change = |old: &Value| {
        let (new, found) = change(&as_version(resource, old))?;
        Ok((as_stored(resource, new), found))
    };
    let stored = if request.dry_run()? {
        let old = app
            .store
            .get(resource, namespace, name)
            .ok_or_else(|| ApiError::not_found(resource, name))?;
        Arc::new(change(&old)?.0)
    } else {
        app.store.update(resource, namespace, name, |old| {
            let (new, found) = change(old)?;
            warnings = found;
            Ok(new)
        })?
    };
    finish(app, resource, &stored, request, 200, &warnings).await
}

pub(crate) async fn patch(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    debug_assert_eq!(request.method, Method::PATCH);
    let kind = request.content_type();
    if matches!(
        kind,
        "application/apply-patch+yaml" | "application/apply-patch+json"
    ) {
        return server_side_apply(app, path, name, request).await;
    }
    let body = request.value()?;
    let merge: fn(&Value, &Value) -> ApiResult<Value> = match kind {
        "application/json-patch+json" => patch::json,
        "application/merge-patch+json" => |object, body| Ok(patch::merge(object, body)),
        "application/strategic-merge-patch+json" if path.resource.custom.is_none() => patch::strategic,
        _ if path.resource.custom.is_none() => {
            return Err(ApiError::unsupported_media_type("415: Unsupported Media Type"));
        }
        _ => {
            return Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )
            .without_details());
        }
    };
    let subresource = path.subresource.clone().unwrap_or_default();
    let unknown = unknown_fields(request)?;
    write(app, path, name, request, |old| {
        let mut new = merge(old, &body)?;
        address(path, &mut new)?;
        let (mut new, warnings) = prepare_update(path.resource, old, new, &subresource, unknown)?;
        track(path.resource, old, &mut new, &subresource, request);
        Ok((new, warnings))
    })
    .await
}

async fn server_side_apply(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let resource = path.resource;
    let manager = request.param("fieldManager").to_owned();
    if manager.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: is required for apply patch".to_owned(),
            field: "fieldManager".to_owned(),
        };
        return Err(ApiError::invalid_kind(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[cause],
        ));
    }
    let mut applied = request.value()?;
    address(path, &mut applied)?;
    if !object::list(&applied, &["metadata", "managedFields"]).is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let subresource = path.subresource.clone().unwrap_or_default();
    let apply = Apply {
        manager: &manager,
        force: request.flag("force"),
        subresource: &subresource,
        dry_run: request.dry_run()?,
    };
    let namespace = path.namespace.as_deref().unwrap_or("");
    let (stored, code) = apply.to(&app.store, resource, (namespace, name), &applied)?;
    finish(app, resource, &stored, request, code, &[]).await
}
