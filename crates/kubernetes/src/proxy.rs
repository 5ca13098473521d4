//! Asks a Service through the API server's proxy: the way in that needs no route to the cluster's network.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;

use super::{ApiFault, Kubernetes, call};

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

/// What came back, whether from the service or from the proxy for want of one.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first [`MAX_BODY`] bytes.
    pub body: String,
}

impl Kubernetes {
    /// Asks a Service through the API server's proxy.
    ///
    /// # Errors
    /// Refused: the service did not answer, in words. Away: the API server did not, which says nothing about the
    /// service.
    pub async fn get_service(&self, get: &Get<'_>) -> Result<Answer, ApiFault> {
        let what = format!("GET {}", get.path);
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
            .map_err(|error| ApiFault::Refused(format!("{what}: {error}")))?;
        let exchange = async {
            let sent = self.client.send(request).await;
            let response = sent.map_err(|error| ApiFault::of(&what, &error))?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: beginning(body).await,
            })
        };
        match tokio::time::timeout(get.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                // A service that hangs and an API server that hangs look the same from here: ask the latter.
                call("GET /version", self.client.apiserver_version()).await?;
                let words = format!("{what}: no answer within {:?}", get.timeout);
                Err(ApiFault::Refused(words))
            }
        }
    }
}

/// The first [`MAX_BODY`] bytes. One that breaks off is as long as it came.
async fn beginning(mut body: Body) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() >= MAX_BODY {
            bytes.truncate(MAX_BODY);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
