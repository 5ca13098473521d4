//! A request as the handlers see it, and the answers they give.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::Query;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::api::protobuf;
use crate::api::table::Include;
use crate::status::{ApiError, ApiResult};

/// The largest request body that the real API server accepts.
const MAX_BODY: usize = 3 * 1024 * 1024;

pub(crate) type Answer = Response<Body>;

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) query: HashMap<String, String>,
    pub(crate) body: Bytes,
}

impl Request {
    /// Reads the whole request.
    ///
    /// # Errors
    /// 413 when the body is too large, 400 when it or the query cannot be read.
    pub(crate) async fn read(request: http::Request<Incoming>) -> ApiResult<Self> {
        let (parts, body) = request.into_parts();
        let Query(query) = Query::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))?;
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    ApiError::too_large(MAX_BODY)
                } else {
                    ApiError::bad_request(format!("the body cannot be read: {error}"))
                }
            })?
            .to_bytes();
        Ok(Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            query,
            body,
        })
    }

    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }

    /// A whole number of the query.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        match self.param(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "{name}: Invalid value: \"{text}\": must be a whole number"
                ))
            }),
        }
    }

    /// The version asked for; 0 when there is none.
    ///
    /// # Errors
    /// 500, as from the real server, when it is not a number.
    pub(crate) fn resource_version(&self) -> ApiResult<u64> {
        match self.param("resourceVersion") {
            "" => Ok(0),
            text => text.parse().map_err(|_| {
                ApiError::unclassified(format!(
                    "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
                ))
            }),
        }
    }

    /// The content type without its parameters.
    pub(crate) fn content_type(&self) -> &str {
        let value = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        value.split(';').next().unwrap_or("").trim()
    }

    /// The body as JSON, or as YAML when it says so.
    ///
    /// # Errors
    /// 415 for other formats, 400 when it cannot be read.
    pub(crate) fn value(&self) -> ApiResult<Value> {
        let kind = self.content_type();
        if kind == "application/vnd.kubernetes.protobuf" {
            return protobuf::read(&self.body).map_err(ApiError::unsupported_media_type);
        }
        if kind.contains("cbor") {
            return Err(ApiError::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml; got {kind}"
            )));
        }
        let unreadable = |error: String| ApiError::bad_request(format!("the body cannot be read: {error}"));
        match serde_json::from_slice(&self.body) {
            Ok(value) => Ok(value),
            Err(_) if kind.ends_with("yaml") => {
                let text = std::str::from_utf8(&self.body).map_err(|error| unreadable(error.to_string()))?;
                serde_saphyr::from_str(text).map_err(|error| unreadable(error.to_string()))
            }
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// Who writes: the `fieldManager` parameter, or else the name in the user agent.
    pub(crate) fn manager(&self) -> String {
        let agent = self
            .headers
            .get(USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("unknown");
        let name = match self.param("fieldManager") {
            "" => agent.split('/').next().unwrap_or("unknown"),
            name => name,
        };
        name.chars().take(128).collect()
    }

    /// Whether it is a dry run, which stores nothing.
    ///
    /// # Errors
    /// 400 for a value other than `All`.
    pub(crate) fn dry_run(&self) -> ApiResult<bool> {
        match self.param("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::bad_request(format!(
                "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
            ))),
        }
    }

    /// The representation that the client prefers among those we have.
    pub(crate) fn representation(&self) -> Representation {
        let accept = self
            .headers
            .get(ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("*/*");
        accept
            .split(',')
            .find_map(|item| self.represent(item))
            .unwrap_or(Representation::Plain)
    }

    fn represent(&self, item: &str) -> Option<Representation> {
        let mut parts = item.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "*/*" | "application/*") {
            return None;
        }
        let (mut kind, mut version) = ("", "v1");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        let include = match self.param("includeObject") {
            "Object" => Include::Object,
            "None" => Include::Nothing,
            _ => Include::Metadata,
        };
        match kind {
            "" => Some(Representation::Plain),
            "Table" => Some(Representation::Table {
                version: version.to_owned(),
                include,
            }),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Representation::Partial {
                version: version.to_owned(),
            }),
            "APIGroupDiscoveryList" => Some(Representation::Discovery {
                version: version.to_owned(),
            }),
            _ => None,
        }
    }
}

/// The form in which objects are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Representation {
    Plain,
    Table { version: String, include: Include },
    Partial { version: String },
    Discovery { version: String },
}

/// A JSON answer.
pub(crate) fn json(code: u16, value: &Value) -> Answer {
    body(code, "application/json", Body::from(value.to_string()))
}

pub(crate) fn body(code: u16, content_type: &str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("text/plain"));
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer.headers_mut().insert(
        http::header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    answer
}

/// Adds warnings that kubectl prints.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let text = format!("299 - {}", Value::from(warning.as_str()));
        if let Ok(value) = HeaderValue::from_str(&text) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
}
