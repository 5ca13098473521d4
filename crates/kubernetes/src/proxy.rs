//! Calls a Service through the API server's proxy, which does not need a route to the cluster's network.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use slipway_check::{check_path, is_reserved_header};
use slipway_model::{Fault, Name, Reason};
use slipway_verdict::cut;

use super::{
    Kubernetes, call,
    fault::{fault_of, refused, unavailable},
};

/// How much of a body is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A GET of one path of one Service.
#[derive(Debug, Clone)]
pub struct Get<'a> {
    pub namespace: &'a str,
    pub service: &'a str,
    /// By name or number.
    pub port: &'a str,
    /// Absolute, percent-encoded, with its query.
    pub path: &'a str,
    pub headers: &'a BTreeMap<String, String>,
    pub timeout: Duration,
}

/// The response, whether from the service or from the proxy if there was none.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first [`MAX_BODY`] bytes.
    pub body: String,
    /// False if the body was longer, or broke off.
    pub whole: bool,
}

/// A DNS label, as names of namespaces and Services are.
fn is_label(text: &str) -> bool {
    text.parse::<Name>().is_ok()
}

impl Kubernetes {
    /// Calls a Service through the API server's proxy.
    ///
    /// # Errors
    /// Refused: the service did not respond, in words. Transient: the API server did not, which says nothing about the
    /// service.
    pub async fn get_service(&self, get: &Get<'_>) -> Result<Answer, Fault<Reason>> {
        let what = format!("GET {}", get.path);
        let refuse = |words: &str| Err(refused(format!("{what}: {words}")));
        if let Err(words) = check_path(get.path) {
            return refuse(&words);
        }
        if !is_label(get.namespace) || !is_label(get.service) || !is_label(get.port) {
            return refuse("namespace, service and port must be DNS labels");
        }
        if let Some(name) = get.headers.keys().find(|name| is_reserved_header(name)) {
            return refuse(&format!(
                "header {name} would be the API server's, and not the service's"
            ));
        }
        let uri = format!(
            "/api/v1/namespaces/{}/services/{}:{}/proxy{}",
            get.namespace, get.service, get.port, get.path
        );
        let mut request = Request::builder().method(Method::GET).uri(&uri);
        for (name, value) in get.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::empty())
            .map_err(|error| refused(format!("{what}: {error}")))?;
        let exchange = async {
            let sent = self.client.send(request).await;
            let response = sent.map_err(|error| fault_of(&what, &error))?;
            let (head, body) = response.into_parts();
            let (body, whole) = beginning(body).await;
            let answer = Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                whole,
            };
            match own_words(&answer) {
                Some(words) if is_passing(answer.status, &words) => Err(unavailable(format!(
                    "{what}: {} ({})",
                    cut(&words),
                    answer.status
                ))),
                _ => Ok(answer),
            }
        };
        match tokio::time::timeout(get.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                // A service that hangs and an API server that hangs look the same from here, so ask the latter.
                call("GET /version", self.client.apiserver_version()).await?;
                let words = format!("{what}: no answer within {:?}", get.timeout);
                Err(refused(words))
            }
        }
    }
}

/// What the API server itself says, instead of the service: a `Status` of its own.
fn own_words(answer: &Answer) -> Option<String> {
    if answer.status < 400 {
        return None;
    }
    let status: Value = serde_json::from_str(&answer.body).ok()?;
    let own = status["kind"] == "Status" && status["apiVersion"] == "v1" && status["status"] == "Failure";
    own.then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

/// Whether it says nothing about the service: the API server is busy, or in trouble. Its message about a service that
/// cannot be reached has these words (k8s.io/kubernetes `pkg/registry/core/service`, k8s.io/apimachinery
/// `pkg/util/proxy`).
fn is_passing(status: u16, words: &str) -> bool {
    let of_service = [
        "no endpoints available for service",
        "error trying to reach service",
        "no service port",
    ]
    .iter()
    .any(|phrase| words.contains(phrase));
    matches!(status, 401 | 408 | 429 | 500..) && !of_service
}

/// The first [`MAX_BODY`] bytes, and whether that was all. If it breaks off, what came until then.
async fn beginning(mut body: Body) -> (String, bool) {
    let mut bytes = Vec::new();
    let whole = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else { continue };
                bytes.extend_from_slice(data);
                if bytes.len() > MAX_BODY {
                    bytes.truncate(MAX_BODY);
                    break false;
                }
            }
        }
    };
    (String::from_utf8_lossy(&bytes).into_owned(), whole)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Answer, is_passing, own_words};

    #[test]
    fn the_api_servers_own_trouble_is_not_the_services() {
        let own = |message: &str| {
            format!(
                r#"{{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "{message}"}}"#
            )
        };
        for (status, body, passing) in [
            (429, own("too many requests, please try again later"), true),
            (
                503,
                own("the server is currently unable to handle the request"),
                true,
            ),
            (500, own("etcdserver: request timed out"), true),
            (401, own("Unauthorized"), true),
            (503, own("no endpoints available for service \\\"shop\\\""), false),
            (
                502,
                own("error trying to reach service: dial tcp 10.0.0.1:80: connect: connection refused"),
                false,
            ),
            (
                503,
                own("no service port \\\"x\\\" found for service \\\"shop\\\""),
                false,
            ),
            (404, own("services \\\"shop\\\" not found"), false),
            (403, own("services is forbidden"), false),
            (503, "the till is stuck".to_owned(), false),
            (503, r#"{"status": "Failure"}"#.to_owned(), false),
            (200, own("fine"), false),
        ] {
            let answer = Answer {
                status,
                headers: HeaderMap::new(),
                body,
                whole: true,
            };
            let told = own_words(&answer).is_some_and(|words| is_passing(status, &words));
            assert_eq!(told, passing, "{status} {}", answer.body);
        }
    }
}
