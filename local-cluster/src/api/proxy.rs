//! The service and pod proxy: HTTP to a ready pod's local port, through the API.

use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::api::App;
use crate::api::request::{Answer, Request};
use crate::api::route::ObjectPath;
use crate::kubelet::ports;
use crate::kubelet::probe::root_cause;
use crate::object::{self, list, text};
use crate::resources::{PODS, SERVICES};
use crate::selector::LabelSelector;
use crate::status::{ApiError, ApiResult};

pub(crate) type HttpClient = Client<HttpConnector, Full<bytes::Bytes>>;

/// Headers that belong to one connection, and the cluster's own token.
const NOT_FORWARDED: &[HeaderName] = &[
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HOST,
    AUTHORIZATION,
];

/// `[scheme:]name[:port]`, split: scheme, name, port.
fn split_name(name: &str) -> Option<(&str, &str, &str)> {
    match name.split(':').collect::<Vec<_>>().as_slice() {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] => Some((scheme, name, port)),
        _ => None,
    }
}

/// The requested service port: by name or number, or the only one.
fn service_port<'a>(service: &'a Value, asked: &str) -> Option<&'a Value> {
    let ports = list(service, &["spec", "ports"]);
    if asked.is_empty() {
        return if let [only] = ports {
            Some(only)
        } else {
            ports.iter().find(|port| text(port, &["name"]).is_empty())
        };
    }
    ports.iter().find(|port| {
        text(port, &["name"]) == asked || port["port"].as_i64().is_some_and(|n| n.to_string() == asked)
    })
}

fn service_target(app: &App, namespace: &str, name: &str, port: &str) -> ApiResult<u16> {
    let service = app
        .store
        .get(&SERVICES, namespace, name)
        .ok_or_else(|| ApiError::not_found(&SERVICES, name))?;
    let found = service_port(&service, port);
    if found.is_none() && (port.is_empty() || port.parse::<u16>().is_ok()) {
        return Err(ApiError::unavailable(format!(
            "no service port {port} found for service \"{name}\""
        )));
    }
    let selector = &service["spec"]["selector"];
    let selector = LabelSelector::from_map(selector);
    let (pods, _) = app.store.list(&PODS, Some(namespace));
    let ready: Vec<_> = pods
        .iter()
        .filter(|pod| {
            !selector.is_empty()
                && selector.matches(&pod["metadata"]["labels"])
                && object::is_ready(pod)
                && !object::is_deleting(pod)
        })
        .collect();
    let targets: Vec<u16> = ready
        .iter()
        .filter_map(|pod| ports::resolve(pod, &found?["targetPort"]))
        .collect();
    if targets.is_empty() {
        // Where only the port is missing, the real server names it.
        let port = if ready.is_empty() || port.is_empty() {
            String::new()
        } else {
            format!(":{port}")
        };
        return Err(ApiError::unavailable(format!(
            "no endpoints available for service \"{name}{port}\""
        )));
    }
    Ok(targets[fastrand::usize(..targets.len())])
}

fn pod_target(app: &App, namespace: &str, name: &str, port: &str) -> ApiResult<u16> {
    let pod = app
        .store
        .get(&PODS, namespace, name)
        .ok_or_else(|| ApiError::not_found(&PODS, name))?;
    let port = match (port, port.parse::<u16>()) {
        ("", _) => object::at(
            list(&pod, &["spec", "containers"])
                .first()
                .unwrap_or(&Value::Null),
            &["ports"],
        )
        .get(0)
        .map_or(Value::Null, |p| p["containerPort"].clone()),
        (_, Ok(number)) => json!(number),
        (named, Err(_)) => json!(named),
    };
    ports::resolve(&pod, &port)
        .ok_or_else(|| ApiError::unavailable(format!("pod \"{name}\" has no port {port} that is open here")))
}

pub(crate) async fn proxy(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let namespace = path.namespace.as_deref().unwrap_or("");
    let (scheme, name, port) = split_name(name).ok_or_else(|| {
        ApiError::bad_request(format!("invalid {} request \"{name}\"", path.resource.singular))
    })?;
    if scheme == "https" {
        return Err(ApiError::bad_request(
            "local-cluster proxies plain HTTP only; leave the https: out",
        ));
    }
    if request.headers.contains_key(UPGRADE) {
        return Err(ApiError::bad_request(
            "local-cluster does not proxy upgraded connections",
        ));
    }
    let target = if path.resource == &SERVICES {
        service_target(app, namespace, name, port)?
    } else {
        pod_target(app, namespace, name, port)?
    };
    let query = request
        .uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let uri: Uri = format!("http://127.0.0.1:{target}{}{query}", path.rest)
        .parse()
        .map_err(|error| ApiError::bad_request(format!("the path cannot be proxied: {error}")))?;
    let mut forwarded = http::Request::new(Full::new(request.body.clone()));
    *forwarded.method_mut() = request.method.clone();
    *forwarded.uri_mut() = uri;
    for (header, value) in &request.headers {
        if !NOT_FORWARDED.contains(header) {
            forwarded.headers_mut().append(header.clone(), value.clone());
        }
    }
    forwarded
        .headers_mut()
        .insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    let response = app.http.request(forwarded).await.map_err(|error| {
        let cause = root_cause(&error);
        ApiError::unavailable(format!(
            "error trying to reach service: dial tcp 127.0.0.1:{target}: {cause}"
        ))
    })?;
    let (mut parts, body) = response.into_parts();
    for header in NOT_FORWARDED {
        parts.headers.remove(header);
    }
    // The connection to the client may speak another version of HTTP.
    let mut answer = http::Response::new(Body::new(body));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let table = [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("http:web:http", Some(("http", "web", "http"))),
            (":web:80", Some(("", "web", "80"))),
            ("https:web:", Some(("https", "web", ""))),
            ("ftp:web:80", None),
            ("a:b:c:d", None),
        ];
        for (text, expected) in table {
            assert_eq!(split_name(text), expected, "{text}");
        }
    }

    #[test]
    fn a_service_port_is_found_by_name_or_number() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080},
                                                {"name": "admin", "port": 81, "targetPort": "adm"}]}});
        assert_eq!(service_port(&service, "81").unwrap()["targetPort"], "adm");
        assert_eq!(service_port(&service, "http").unwrap()["port"], 80);
        assert!(service_port(&service, "").is_none());
        assert!(service_port(&service, "8080").is_none());
        let single = json!({"spec": {"ports": [{"name": "http", "port": 80}]}});
        assert_eq!(service_port(&single, "").unwrap()["port"], 80);
    }
}
