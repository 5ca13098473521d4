//! HTTP checks: a GET through the API server's service proxy or to a URL, and whether its answer is the expected one.

use http::{HeaderMap, Request, header};
use http_body_util::Full;
use slipway_check::{HttpCheck, Remote, json};
use slipway_kubernetes::{
    Kubernetes,
    proxy::{Get, MAX_BODY},
};
use slipway_model::{Fault, Name, Reason};
use slipway_verdict::{
    cut,
    evidence::{clean, redact},
};

use super::Attempt;
use crate::{
    dial::Dialer,
    web::{self, Server},
};

/// How much of a body is kept for people, in characters.
const SHOWN: usize = 200;

/// Asks once.
///
/// # Errors
/// When the API server is unreachable; that says nothing about the service.
pub(super) async fn ask(
    dialer: &Dialer,
    cluster: &Kubernetes,
    namespace: &Name,
    check: &HttpCheck,
) -> Result<Attempt, Fault<Reason>> {
    let answer = match &check.url {
        Some(url) => match ask_url(dialer, check, url).await {
            Ok(answer) => answer,
            Err(Fault::Permanent(words)) => {
                return Ok(Attempt::Never(format!("GET {}: {words}", shown(check))));
            }
            Err(Fault::Transient { error: words, .. }) => {
                return Ok(Attempt::NotYet(format!("GET {}: {words}", shown(check))));
            }
        },
        None => match ask_service(cluster, namespace, check).await {
            Ok(answer) => answer,
            Err(Fault::Permanent(reason)) => return Ok(Attempt::NotYet(reason.message)),
            Err(away) => return Err(away),
        },
    };
    Ok(judge(check, &answer))
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    whole: bool,
}

async fn ask_service(
    cluster: &Kubernetes,
    namespace: &Name,
    check: &HttpCheck,
) -> Result<Answer, Fault<Reason>> {
    let missing = |what: &str| {
        let words = format!("GET {}: the check names no {what}", check.path);
        Fault::refused("INVALID_CHECK", words)
    };
    let get = Get {
        namespace: check.namespace.as_ref().unwrap_or(namespace).as_str(),
        service: check.service.as_ref().ok_or_else(|| missing("service"))?.as_str(),
        port: &check.port.as_ref().ok_or_else(|| missing("port"))?.to_string(),
        path: &check.path,
        headers: &check.headers,
        timeout: check.patience.timeout,
    };
    let answer = cluster.get_service(&get).await?;
    Ok(Answer {
        status: answer.status,
        headers: answer.headers,
        whole: answer.whole,
        body: answer.body,
    })
}

async fn ask_url(dialer: &Dialer, check: &HttpCheck, url: &str) -> Result<Answer, Fault<String>> {
    let (remote, tls) = Remote::of_url(url).map_err(|words| Fault::Permanent(format!("url {words}")))?;
    let host = match (remote.port, tls) {
        (80, false) | (443, true) => remote.host.to_string(),
        _ => remote.to_string(),
    };
    let mut request = Request::get(&check.path);
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    let given = |name: header::HeaderName| {
        check
            .headers
            .keys()
            .any(|key| key.eq_ignore_ascii_case(name.as_str()))
    };
    if !given(header::HOST) {
        request = request.header(header::HOST, host);
    }
    if !given(header::USER_AGENT) {
        request = request.header(header::USER_AGENT, "slipway");
    }
    let request = request
        .header(header::CONNECTION, "close")
        .body(Full::default())
        .map_err(|error| Fault::Permanent(error.to_string()))?;
    let server = Server {
        remote: &remote,
        tls,
        ca_file: check.ca_file.as_deref(),
    };
    let answer = web::exchange(dialer, server, request, MAX_BODY, check.patience.timeout).await?;
    Ok(Answer {
        status: answer.status,
        headers: answer.headers,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        whole: answer.whole,
    })
}

/// What was asked, for people.
fn shown(check: &HttpCheck) -> String {
    match &check.url {
        Some(url) => format!("{}{}", url.trim_end_matches('/'), check.path),
        None => check.path.clone(),
    }
}

fn judge(check: &HttpCheck, answer: &Answer) -> Attempt {
    let body = beginning(&answer.body);
    let mut words = format!("GET {}: {}", shown(check), answer.status);
    let place = answer.headers.get(header::LOCATION);
    if let (300..=399, Some(place)) = (answer.status, place) {
        let place = beginning(&String::from_utf8_lossy(place.as_bytes()));
        words = format!("{words} to {place:?}, which checks do not follow");
    }
    if !body.is_empty() {
        words = format!("{words} {body:?}");
    }
    match complaint(check, answer) {
        Some(complaint) => Attempt::NotYet(cut(&format!("{words}, {complaint}"))),
        None => Attempt::Passed(cut(&words)),
    }
}

/// What people are shown of a text: redacted as a whole and truncated only after that, since half a token does not look
/// like one.
fn beginning(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    redact(&lines.join("\n")).trim().chars().take(SHOWN).collect()
}

/// The first expectation that is not met.
fn complaint(check: &HttpCheck, answer: &Answer) -> Option<String> {
    if answer.status != check.expect_status {
        return Some(format!("expected {}", check.expect_status));
    }
    for (name, expected) in &check.expect_headers {
        let values: Vec<_> = answer
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        if !values.iter().any(|value| value == expected) {
            let is = match values.first() {
                Some(first) => format!("is {:?}", beginning(first)),
                None => "is not there".to_owned(),
            };
            return Some(format!("header {name} {is}, expected {expected:?}"));
        }
    }
    if let Some(text) = &check.body_contains
        && !answer.body.contains(text)
    {
        return Some(format!("expected a body with {text:?}"));
    }
    if check.expect_json.is_empty() {
        return None;
    }
    let body = match serde_json::from_str(&answer.body) {
        Ok(body) => body,
        Err(_) if !answer.whole => {
            return Some(format!(
                "expected JSON, and the body is longer than {} KiB",
                MAX_BODY / 1024
            ));
        }
        Err(error) => return Some(format!("expected JSON: {error}")),
    };
    check
        .expect_json
        .iter()
        .find_map(|(path, expected)| json::compare(&body, path, expected).err())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Answer, Attempt, HttpCheck, judge};

    fn check(more: &str) -> HttpCheck {
        serde_json::from_str(&format!(
            r#"{{"service": "shop", "port": 80, "path": "/health" {more}}}"#
        ))
        .unwrap()
    }
    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.append("x-version", "1.3".parse().unwrap());
        headers.append("x-version", "1.4".parse().unwrap());
        Answer {
            status,
            headers,
            body: body.to_owned(),
            whole: true,
        }
    }

    #[test]
    fn answers_are_judged_by_all_that_is_expected() {
        let fine = r#", "body_contains": "fine""#;
        let json = r#", "expect_json": {"$.status": "ok", "$.parts[*].up": [true, true]}"#;
        let header = r#", "expect_headers": {"X-Version": "1.4", "content-type": "application/json"}"#;
        for (more, status, body, passed, words) in [
            (fine, 200, "all fine\n", true, r#"GET /health: 200 "all fine""#),
            (fine, 503, "no", false, r#"GET /health: 503 "no", expected 200"#),
            (
                fine,
                503,
                "fine",
                false,
                r#"GET /health: 503 "fine", expected 200"#,
            ),
            (
                fine,
                200,
                "",
                false,
                r#"GET /health: 200, expected a body with "fine""#,
            ),
            (r#", "expect_status": 204"#, 204, "", true, "GET /health: 204"),
            (header, 200, "", true, "GET /health: 200"),
            (
                r#", "expect_headers": {"x-version": "1.5"}"#,
                200,
                "",
                false,
                r#"GET /health: 200, header x-version is "1.3", expected "1.5""#,
            ),
            (
                r#", "expect_headers": {"x-none": ""}"#,
                200,
                "",
                false,
                r#"GET /health: 200, header x-none is not there, expected """#,
            ),
            (
                json,
                200,
                r#"{"status": "ok", "parts": [{"up": true}, {"up": true}]}"#,
                true,
                r#"GET /health: 200 "{\"status\": \"ok\", \"parts\": [{\"up\": true}, {\"up\": true}]}""#,
            ),
            (
                r#", "expect_json": {"$.status": "ok"}"#,
                200,
                r#"{"status": "down"}"#,
                false,
                r#"GET /health: 200 "{\"status\": \"down\"}", $.status is "down", expected "ok""#,
            ),
            (
                r#", "expect_json": {"$.status": "ok"}"#,
                200,
                "ok",
                false,
                r#"GET /health: 200 "ok", expected JSON: expected value at line 1 column 1"#,
            ),
            (
                "",
                500,
                "dial: password=hunter2 refused\u{1b}[31m",
                false,
                r#"GET /health: 500 "dial: password=[redacted] refused", expected 200"#,
            ),
        ] {
            let expected = if passed {
                Attempt::Passed(words.to_owned())
            } else {
                Attempt::NotYet(words.to_owned())
            };
            assert_eq!(judge(&check(more), &answer(status, body)), expected, "{more}");
        }
    }

    #[test]
    fn a_secret_that_the_cut_would_halve_is_redacted() {
        let body = format!("{}ghp_abcdefghijklmnopqrstuvwxyz0123456789", "x ".repeat(95));
        let Attempt::NotYet(words) = judge(&check(""), &answer(500, &body)) else {
            panic!("500 is not expected");
        };
        assert!(!words.contains("ghp_") && words.contains("[redacted]"), "{words}");
    }

    #[test]
    fn a_redirect_is_an_answer() {
        let mut moved = answer(302, "");
        moved
            .headers
            .insert("location", "http://169.254.169.254/latest".parse().unwrap());
        assert_eq!(
            judge(&check(""), &moved),
            Attempt::NotYet(
                r#"GET /health: 302 to "http://169.254.169.254/latest", which checks do not follow, expected 200"#
                    .to_owned()
            )
        );
        assert!(matches!(
            judge(&check(r#", "expect_status": 302"#), &moved),
            Attempt::Passed(_)
        ));
    }

    #[test]
    fn a_body_that_was_cut_is_not_json() {
        let mut long = answer(200, r#"{"status": "#);
        long.whole = false;
        let Attempt::NotYet(words) = judge(&check(r#", "expect_json": {"$.status": "ok"}"#), &long) else {
            panic!("half a body passed");
        };
        assert!(words.contains("longer than 64 KiB"), "{words}");
    }
}
