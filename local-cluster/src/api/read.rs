//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::App;
use crate::api::prepare::as_version;
use crate::api::request::{Answer, Representation, Request, json as answer};
use crate::api::route::ObjectPath;
use crate::api::table;
use crate::object;
use crate::resources::Resource;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, ApiResult};

/// Which objects of a kind are meant.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Reads the selectors of the request.
    ///
    /// # Errors
    /// 400 when a selector cannot be read.
    pub(crate) fn of(path: &ObjectPath, request: &Request) -> ApiResult<Self> {
        let fields = FieldSelector::parse(request.param("fieldSelector"))?;
        Ok(Self {
            namespace: path.namespace.clone(),
            name: path.name.clone().or_else(|| fields.name().map(str::to_owned)),
            labels: LabelSelector::parse(request.param("labelSelector"))?,
            fields,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|ns| object::namespace(object) == ns)
            && self.name.as_ref().is_none_or(|name| object::name(object) == name)
            && self.labels.matches(&object["metadata"]["labels"])
            && self.fields.matches(object)
    }
}

/// One object, in the form asked for.
pub(crate) fn represent(resource: &Resource, object: &Value, form: &Representation) -> Value {
    match form {
        Representation::Plain | Representation::Discovery { .. } => as_version(resource, object).into_owned(),
        Representation::Partial { version } => table::partial(object, version),
        Representation::Table { version, include } => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table::table(
                resource,
                &[object],
                &metadata,
                version,
                *include,
                Timestamp::now(),
            )
        }
    }
}

pub(crate) async fn get(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let namespace = path.namespace.as_deref().unwrap_or("");
    let object = app
        .store
        .get(path.resource, namespace, name)
        .ok_or_else(|| ApiError::not_found(path.resource, name))?;
    app.store.durable(object::resource_version(&object)).await?;
    Ok(answer(
        200,
        &represent(path.resource, &object, &request.representation()),
    ))
}

/// Where the next page starts: after this namespace and name.
fn read_token(token: &str) -> ApiResult<Option<(String, String)>> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = |why: &str| {
        ApiError::bad_request(format!(
            "invalid continue token: continue key is not valid: {why}"
        ))
    };
    let bytes = BASE64
        .decode(token)
        .map_err(|_| invalid("illegal base64 data at input byte 0"))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| invalid(&error.to_string()))
}

pub(crate) async fn list(app: &App, path: &ObjectPath, request: &Request) -> ApiResult<Answer> {
    let filter = Filter::of(path, request)?;
    let limit = request.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after = read_token(request.param("continue"))?;
    let asked = request.resource_version()?;
    let (objects, rv) = app.store.list(path.resource, filter.namespace.as_deref());
    if asked > rv {
        return Err(ApiError::new(
            504,
            "Timeout",
            format!("Too large resource version: {asked}, current: {rv}"),
        ));
    }
    if request.param("resourceVersionMatch") == "Exact" {
        app.faults.remembers(asked)?;
    }
    app.store.durable(rv).await?;
    let mut found: Vec<Arc<Value>> = objects
        .into_iter()
        .filter(|object| filter.matches(object))
        .collect();
    if let Some((namespace, name)) = after {
        found.retain(|o| (object::namespace(o), object::name(o)) > (namespace.as_str(), name.as_str()));
    }
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    if limit > 0 && found.len() > limit {
        // With a selector the real server does not know how many are left.
        if request.param("labelSelector").is_empty() && request.param("fieldSelector").is_empty() {
            metadata["remainingItemCount"] = json!(found.len() - limit);
        }
        found.truncate(limit);
        if let Some(last) = found.last() {
            let position = json!([object::namespace(last), object::name(last)]).to_string();
            metadata["continue"] = json!(BASE64.encode(position));
        }
    }
    Ok(answer(
        200,
        &list_value(path.resource, &found, &metadata, &request.representation()),
    ))
}

/// Items of the built-in kinds have no kind of their own; those of custom resources do.
fn as_item(resource: &Resource, mut object: Value) -> Value {
    if resource.custom.is_none() {
        for field in ["kind", "apiVersion"] {
            object::as_map(&mut object).remove(field);
        }
    }
    object
}

pub(crate) fn list_value(
    resource: &Resource,
    found: &[Arc<Value>],
    metadata: &Value,
    form: &Representation,
) -> Value {
    match form {
        Representation::Plain | Representation::Discovery { .. } => {
            let items: Vec<Value> = found
                .iter()
                .map(|object| as_item(resource, as_version(resource, object).into_owned()))
                .collect();
            let kind = resource
                .custom
                .map_or_else(|| format!("{}List", resource.kind), |c| c.list_kind.to_owned());
            let mut metadata = metadata.clone();
            if resource.custom.is_some() && metadata.get("continue").is_none() {
                metadata["continue"] = json!("");
            }
            json!({"kind": kind, "apiVersion": resource.api_version(),
                   "metadata": metadata, "items": items})
        }
        Representation::Partial { version } => {
            let items: Vec<Value> = found.iter().map(|o| table::partial(o, version)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                   "metadata": metadata, "items": items})
        }
        Representation::Table { version, include } => {
            let objects: Vec<&Value> = found.iter().map(AsRef::as_ref).collect();
            table::table(resource, &objects, metadata, version, *include, Timestamp::now())
        }
    }
}
