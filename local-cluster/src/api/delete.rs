//! Delete: at once, with a grace period, or after the dependents, according to the options and the kind.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::App;
use crate::api::read::{Filter, list_value};
use crate::api::request::{Answer, Representation, Request, json as answer};
use crate::api::route::ObjectPath;
use crate::custom;
use crate::object::{self, text};
use crate::resources::{DEFINITIONS, Resource};
use crate::status::{ApiError, ApiResult};
use crate::store::Store;

/// What `metav1.DeleteOptions` say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Seconds until the pod is killed; the pod's own value when missing.
    pub(crate) grace: Option<i64>,
    pub(crate) policy: Policy,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

/// What happens to the dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Policy {
    /// The object is removed now, its dependents soon after.
    #[default]
    Background,
    /// The dependents are removed first.
    Foreground,
    /// The dependents stay, without an owner.
    Orphan,
}

impl Options {
    fn read(request: &Request) -> ApiResult<Self> {
        let body = if request.body.is_empty() {
            json!({})
        } else {
            request.value()?
        };
        let from = |field: &str| match request.param(field) {
            "" => text(&body, &[field]).to_owned(),
            value => value.to_owned(),
        };
        let policy = match from("propagationPolicy").as_str() {
            "" if body["orphanDependents"] == true => Policy::Orphan,
            "" | "Background" => Policy::Background,
            "Foreground" => Policy::Foreground,
            "Orphan" => Policy::Orphan,
            other => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\""
                )));
            }
        };
        let grace = match request.param("gracePeriodSeconds") {
            "" => body["gracePeriodSeconds"].as_i64(),
            given => Some(
                given
                    .parse()
                    .map_err(|_| ApiError::bad_request("gracePeriodSeconds: must be a whole number"))?,
            ),
        };
        Ok(Self {
            grace,
            policy,
            uid: text(&body, &["preconditions", "uid"]).to_owned(),
            resource_version: text(&body, &["preconditions", "resourceVersion"]).to_owned(),
        })
    }

    fn check(&self, resource: &Resource, object: &Value) -> ApiResult<()> {
        let name = object::name(object);
        let (uid, version) = (
            object::uid(object),
            text(object, &["metadata", "resourceVersion"]),
        );
        let unlike = |what: &str, wanted: &str, is: &str, perhaps: &str| {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been {perhaps}"
            );
            ApiError::precondition(resource, name, why)
        };
        if !self.uid.is_empty() && self.uid != uid {
            return Err(unlike("UID", &self.uid, uid, "deleted and then recreated"));
        }
        if !self.resource_version.is_empty() && self.resource_version != version {
            return Err(unlike(
                "ResourceVersion",
                &self.resource_version,
                version,
                "modified",
            ));
        }
        Ok(())
    }
}

/// Marks the object as being deleted; `None` when it can be removed at once.
fn begin(resource: &Resource, old: &Value, options: &Options, now: Timestamp) -> Option<Value> {
    let mut new = old.clone();
    let grace = match resource.built_in() {
        "Pod" => {
            let scheduled = !text(old, &["spec", "nodeName"]).is_empty();
            let over = matches!(text(old, &["status", "phase"]), "Succeeded" | "Failed");
            let own = object::number(old, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
            if scheduled && !over {
                options.grace.unwrap_or(own).max(0)
            } else {
                0
            }
        }
        _ => 0,
    };
    let metadata = object::metadata(&mut new);
    let mut finalizers = metadata
        .get("finalizers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if options.policy == Policy::Foreground && !matches!(resource.built_in(), "Namespace" | "Pod") {
        let foreground = json!("foregroundDeletion");
        if !finalizers.contains(&foreground) {
            finalizers.push(foreground);
        }
    }
    if resource == &DEFINITIONS {
        let cleanup = json!(custom::CLEANUP);
        // Once added: the second time it may already have done its work.
        if !object::is_deleting(old) && !finalizers.contains(&cleanup) {
            finalizers.push(cleanup);
        }
    }
    let waits = grace > 0 || !finalizers.is_empty() || resource.built_in() == "Namespace";
    if !waits {
        return None;
    }
    if !finalizers.is_empty() {
        metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
    }
    // A second deletion may shorten the grace period, never lengthen it.
    let before = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    if !metadata.contains_key("deletionTimestamp") || before.is_some_and(|b| grace < b) {
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".to_owned(), Value::from(object::stamp(at)));
        if resource.kind != "Namespace" {
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        }
    }
    if resource.built_in() == "Namespace" {
        new["status"]["phase"] = json!("Terminating");
    }
    Some(new)
}

/// Deletes one object. Returns it as it is now, and whether it is gone.
///
/// # Errors
/// 404 when there is none, 409 when a precondition does not hold.
pub(crate) fn delete_object(
    store: &Store,
    resource: &'static Resource,
    namespace: &str,
    name: &str,
    options: &Options,
) -> ApiResult<(Arc<Value>, bool)> {
    let now = Timestamp::now();
    let old = store
        .get(resource, namespace, name)
        .ok_or_else(|| ApiError::not_found(resource, name))?;
    options.check(resource, &old)?;
    if options.policy == Policy::Orphan {
        orphan(store, object::uid(&old));
    }
    if begin(resource, &old, options, now).is_none() {
        let last = store.remove(resource, namespace, name, |object| {
            options.check(resource, object)
        })?;
        return Ok((last, true));
    }
    let marked = store.update(resource, namespace, name, |old| {
        options.check(resource, old)?;
        Ok(begin(resource, old, options, now).unwrap_or_else(|| old.clone()))
    })?;
    Ok((marked, false))
}

/// Removes the owner from everything it owns.
fn orphan(store: &Store, owner: &str) {
    for (resource, dependent) in store.owned_by(owner) {
        let (namespace, name) = (object::namespace(&dependent), object::name(&dependent));
        let freed = store.update(resource, namespace, name, |old| {
            let mut new = old.clone();
            let metadata = object::metadata(&mut new);
            if let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") {
                owners.retain(|reference| reference["uid"] != owner);
                if owners.is_empty() {
                    metadata.remove("ownerReferences");
                }
            }
            Ok(new)
        });
        if let Err(error) = freed {
            tracing::debug!(%error, "dependent not orphaned");
        }
    }
}

pub(crate) async fn delete(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let (resource, namespace) = (path.resource, path.namespace.as_deref().unwrap_or(""));
    let options = Options::read(request)?;
    if request.dry_run()? {
        let object = app
            .store
            .get(resource, namespace, name)
            .ok_or_else(|| ApiError::not_found(resource, name))?;
        options.check(resource, &object)?;
        return Ok(answer(200, &object));
    }
    let (object, gone) = delete_object(&app.store, resource, namespace, name, &options)?;
    app.store.durable(object::resource_version(&object)).await?;
    if !gone || resource.built_in() == "Pod" {
        return Ok(answer(200, &object));
    }
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "kind": resource.plural, "uid": object::uid(&object)},
    });
    if !resource.group.is_empty() {
        status["details"]["group"] = json!(resource.group);
    }
    Ok(answer(200, &status))
}

pub(crate) async fn delete_collection(app: &App, path: &ObjectPath, request: &Request) -> ApiResult<Answer> {
    let options = Options::read(request)?;
    let filter = Filter::of(path, request)?;
    let (objects, rv) = app.store.list(path.resource, filter.namespace.as_deref());
    let mut deleted = Vec::new();
    for object in objects.iter().filter(|object| filter.matches(object)) {
        if request.dry_run()? {
            deleted.push(Arc::clone(object));
            continue;
        }
        match delete_object(
            &app.store,
            path.resource,
            object::namespace(object),
            object::name(object),
            &options,
        ) {
            Ok((object, _)) => deleted.push(object),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let last = deleted
        .iter()
        .map(|object| object::resource_version(object))
        .max()
        .unwrap_or(rv);
    app.store.durable(last).await?;
    let metadata = json!({"resourceVersion": last.to_string()});
    Ok(answer(
        200,
        &list_value(path.resource, &deleted, &metadata, &Representation::Plain),
    ))
}
