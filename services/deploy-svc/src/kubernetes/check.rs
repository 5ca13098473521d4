//! Asks the running service whether it works: HTTP through the API server's service proxy.

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use slipway_model::Name;

use super::{ApiFault, Kubernetes, call, cut};
use crate::catalog::{Check, CheckKind, HttpCheck};

/// How much of a body is looked at, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How much of it is kept for people, in characters.
const SHOWN: usize = 200;

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: Name,
    pub passed: bool,
    pub attempts: u32,
    /// The last answer: status and the beginning of the body, or the error.
    pub last_answer: String,
}

/// Runs all checks at once, each to its end.
///
/// # Errors
/// When the API server is away; that says nothing about the service, and the checks are run again.
pub async fn run(
    cluster: &Kubernetes,
    namespace: &Name,
    checks: &[Check],
) -> Result<Vec<CheckResult>, ApiFault> {
    futures::future::try_join_all(checks.iter().map(|check| one(cluster, namespace, check))).await
}

async fn one(cluster: &Kubernetes, namespace: &Name, check: &Check) -> Result<CheckResult, ApiFault> {
    let CheckKind::Http(http) = &check.kind;
    let mut attempts = 0;
    loop {
        let (passed, last_answer) = match ask(cluster, namespace, http).await {
            Ok(answer) => judge(http, &answer),
            Err(ApiFault::Refused(error)) => (false, error),
            Err(away) => return Err(away),
        };
        attempts += 1;
        if passed || attempts >= http.attempts {
            return Ok(CheckResult {
                name: check.name.clone(),
                passed,
                attempts,
                last_answer,
            });
        }
        tokio::time::sleep(http.interval).await;
    }
}

/// What came back, whether from the service or from the proxy for want of one.
struct Answer {
    status: u16,
    body: String,
}

async fn ask(cluster: &Kubernetes, namespace: &Name, check: &HttpCheck) -> Result<Answer, ApiFault> {
    let uri = format!(
        "/api/v1/namespaces/{namespace}/services/{}:{}/proxy{}",
        check.service, check.port, check.path
    );
    let request = Request::builder()
        .method(Method::GET)
        .uri(&uri)
        .body(Body::empty())
        .map_err(|error| ApiFault::Refused(format!("GET {}: {error}", check.path)))?;
    let exchange = async {
        let response = cluster
            .client
            .send(request)
            .await
            .map_err(|error| ApiFault::of(&format!("GET {}", check.path), &error))?;
        let status = response.status().as_u16();
        Ok(Answer {
            status,
            body: beginning(response.into_body()).await,
        })
    };
    match tokio::time::timeout(check.timeout, exchange).await {
        Ok(answer) => answer,
        Err(_) => {
            // A service that hangs and an API server that hangs look the same from here: ask the latter.
            call("GET /version", cluster.client.apiserver_version()).await?;
            Err(ApiFault::Refused(format!(
                "GET {}: no answer within {:?}",
                check.path, check.timeout
            )))
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

fn judge(check: &HttpCheck, answer: &Answer) -> (bool, String) {
    let shown: String = answer.body.trim().chars().take(SHOWN).collect();
    let mut words = format!("GET {}: {}", check.path, answer.status);
    if !shown.is_empty() {
        words = format!("{words} {shown:?}");
    }
    if answer.status != check.expect_status {
        return (false, format!("{words}, expected {}", check.expect_status));
    }
    match &check.body_contains {
        Some(text) if !answer.body.contains(text) => {
            (false, cut(&format!("{words}, expected a body with {text:?}")))
        }
        _ => (true, words),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, judge};

    #[test]
    fn answers_are_judged_by_status_and_body() {
        let check = serde_json::from_str(
            r#"{"service": "shop", "port": 80, "path": "/health", "body_contains": "fine"}"#,
        )
        .unwrap();
        for (status, body, passed, words) in [
            (200, "all fine\n", true, r#"GET /health: 200 "all fine""#),
            (503, "no", false, r#"GET /health: 503 "no", expected 200"#),
            (503, "fine", false, r#"GET /health: 503 "fine", expected 200"#),
            (200, "", false, r#"GET /health: 200, expected a body with "fine""#),
        ] {
            let answer = Answer {
                status,
                body: body.to_owned(),
            };
            assert_eq!(judge(&check, &answer), (passed, words.to_owned()));
        }
    }
}
