//! Asks the running service whether it works: HTTP through the API server's service proxy.

use slipway_model::Name;

use slipway_kubernetes::{
    ApiFault, Kubernetes,
    proxy::{Answer, Get},
};
use slipway_verdict::cut;

use crate::{
    catalog::{Check, CheckKind, HttpCheck},
    result::CheckResult,
};

/// How much of a body is kept for people, in characters.
const SHOWN: usize = 200;

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
    let CheckKind::Http(http) = &check.kind else {
        return Err(ApiFault::Refused("this kind of check is not run yet".to_owned()));
    };
    let mut attempts = 0;
    loop {
        let (passed, last_answer) = match ask(cluster, namespace, http).await {
            Ok(answer) => judge(http, &answer),
            Err(ApiFault::Refused(error)) => (false, error),
            Err(away) => return Err(away),
        };
        attempts += 1;
        if passed || attempts >= http.patience.attempts {
            return Ok(CheckResult {
                name: check.name.clone(),
                passed,
                attempts,
                last_answer,
            });
        }
        tokio::time::sleep(http.patience.interval).await;
    }
}

async fn ask(cluster: &Kubernetes, namespace: &Name, check: &HttpCheck) -> Result<Answer, ApiFault> {
    let get = Get {
        namespace: namespace.as_str(),
        service: check.service.as_ref().map(Name::as_str).unwrap_or_default(),
        port: &check.port.as_ref().map(ToString::to_string).unwrap_or_default(),
        path: &check.path,
        headers: &check.headers,
        timeout: check.patience.timeout,
    };
    cluster.get_service(&get).await
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
    use http::HeaderMap;
    use slipway_kubernetes::proxy::Answer;

    use super::judge;

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
                headers: HeaderMap::new(),
                body: body.to_owned(),
            };
            assert_eq!(judge(&check, &answer), (passed, words.to_owned()));
        }
    }
}
