//! What each request does, and its answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{Inner, Pull, State, TOKEN, Trouble};

fn refused(status: StatusCode, message: &str) -> Response {
    let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest" });
    (status, axum::Json(body)).into_response()
}

fn invalid(message: &str) -> Response {
    let body = json!({
        "message": "Validation Failed",
        "errors": [{ "resource": "PullRequest", "code": "custom", "message": message }],
        "documentation_url": "https://docs.github.com/rest",
    });
    (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(body)).into_response()
}

pub(super) async fn answer(
    Shared(inner): Shared<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let response = {
        let mut state = inner.state.lock().unwrap();
        state
            .requests
            .push(format!("{method} {}", uri.path_and_query().unwrap()));
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        inner.respond(&mut state, &method, &uri, &headers, &body)
    };
    inner.changed.notify_waiters();
    response
}

impl Inner {
    fn respond(
        &self,
        state: &mut State,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Value,
    ) -> Response {
        if headers.get(header::AUTHORIZATION).map(|value| value.as_bytes())
            != Some(format!("Bearer {TOKEN}").as_bytes())
        {
            return refused(StatusCode::UNAUTHORIZED, "Bad credentials");
        }
        assert!(headers.contains_key(header::USER_AGENT), "GitHub refuses others");
        let fits = |trouble: &Trouble| trouble.method == method.as_str() && uri.path().contains(trouble.path);
        if let Some(index) = state.trouble.iter().position(fits) {
            let trouble = state.trouble.remove(index);
            let mut response = refused(StatusCode::from_u16(trouble.status).unwrap(), &trouble.message);
            for (name, value) in trouble.headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return response;
        }
        let Some(rest) = uri.path().strip_prefix("/repos/acme/shop/") else {
            return refused(StatusCode::NOT_FOUND, "Not Found");
        };
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        let number = parts.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        if matches!(parts[0], "pulls" | "issues") && parts.len() > 1 && !state.pulls.contains_key(&number) {
            return refused(StatusCode::NOT_FOUND, "Not Found");
        }
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["pulls"]) => {
                let query = uri.query().unwrap_or_default();
                let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
                assert_eq!(query["state"], "all");
                let wanted = query["head"].strip_prefix("acme:").unwrap_or_default();
                let found: Vec<Value> = state
                    .pulls
                    .values()
                    .rev()
                    .filter(|pull| pull.head == wanted)
                    .map(|pull| self.simple(pull))
                    .collect();
                cached(state, headers, &json!(found))
            }
            ("POST", ["pulls"]) => self.open(state, body),
            ("GET", ["pulls", _]) => {
                let value = self.full(state, number);
                cached(state, headers, &value)
            }
            ("PATCH", ["pulls", _]) => {
                let pull = state.pulls.get_mut(&number).unwrap();
                if let Some(text) = body["body"].as_str() {
                    pull.body = text.to_owned();
                }
                if body["state"] == "closed" && pull.merge_commit.is_none() && pull.open {
                    pull.open = false;
                    pull.closed_by = Some("slipway[bot]".to_owned());
                }
                axum::Json(self.full(state, number)).into_response()
            }
            ("PUT", ["pulls", _, "merge"]) => self.merge_request(state, number, body),
            ("POST", ["pulls", _, "requested_reviewers"]) => {
                let pull = state.pulls.get_mut(&number).unwrap();
                let names = |field: &str| -> Vec<String> {
                    serde_json::from_value(body[field].clone()).unwrap_or_default()
                };
                pull.reviewers.extend(names("reviewers"));
                pull.teams.extend(names("team_reviewers"));
                (StatusCode::CREATED, axum::Json(self.simple(&pull.clone()))).into_response()
            }
            ("POST", ["issues", _, "labels"]) => {
                let pull = state.pulls.get_mut(&number).unwrap();
                let labels: Vec<String> = serde_json::from_value(body["labels"].clone()).unwrap();
                pull.labels.extend(labels);
                axum::Json(labelled(&pull.labels)).into_response()
            }
            ("POST", ["issues", _, "comments"]) => {
                let pull = state.pulls.get_mut(&number).unwrap();
                pull.comments.push(body["body"].as_str().unwrap().to_owned());
                (
                    StatusCode::CREATED,
                    axum::Json(json!({ "id": 1, "body": body["body"] })),
                )
                    .into_response()
            }
            ("GET", ["issues", _]) => {
                let closed_by = state.pulls[&number].closed_by.clone();
                let value = json!({ "number": number, "closed_by": closed_by.as_deref().map(user) });
                cached(state, headers, &value)
            }
            ("GET", ["git", "commits", sha]) => {
                match self.git(&["cat-file", "-e", &format!("{sha}^{{commit}}")]) {
                    Err(_) => refused(StatusCode::NOT_FOUND, "Not Found"),
                    Ok(_) => {
                        let parents = self.git(&["log", "-1", "--format=%P", sha]).unwrap();
                        let parents: Vec<Value> = parents
                            .split_whitespace()
                            .map(|sha| json!({ "sha": sha }))
                            .collect();
                        let message = self.git(&["log", "-1", "--format=%B", sha]).unwrap();
                        let value = json!({
                            "sha": sha,
                            "message": message.trim_end(),
                            "parents": parents,
                            "tree": { "sha": self.git(&["rev-parse", &format!("{sha}^{{tree}}")]).unwrap() },
                        });
                        cached(state, headers, &value)
                    }
                }
            }
            ("DELETE", ["git", "refs", "heads", branch]) => {
                let branch = *branch;
                if self.head(branch).is_none() {
                    return refused(StatusCode::UNPROCESSABLE_ENTITY, "Reference does not exist");
                }
                self.git(&["update-ref", "-d", &format!("refs/heads/{branch}")])
                    .unwrap();
                // An open pull request is closed with its branch.
                for pull in state
                    .pulls
                    .values_mut()
                    .filter(|pull| pull.head == branch && pull.open)
                {
                    pull.open = false;
                    pull.closed_by = Some("slipway[bot]".to_owned());
                }
                StatusCode::NO_CONTENT.into_response()
            }
            _ => refused(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    fn open(&self, state: &mut State, body: &Value) -> Response {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let (head, base) = (text("head"), text("base"));
        let (Some(sha), Some(_)) = (self.head(&head), self.head(&base)) else {
            return invalid("head or base is invalid");
        };
        if state.pulls.values().any(|pull| pull.open && pull.head == head) {
            return invalid(&format!("A pull request already exists for acme:{head}."));
        }
        if self
            .git(&["rev-list", "--count", &format!("{base}..{head}")])
            .unwrap()
            == "0"
        {
            return invalid(&format!("No commits between {base} and {head}"));
        }
        let number = state.pulls.len() as u64 + 1;
        let pull = Pull {
            number,
            title: text("title"),
            body: text("body"),
            head,
            base,
            sha,
            open: true,
            ..Pull::default()
        };
        state.pulls.insert(number, pull);
        (StatusCode::CREATED, axum::Json(self.full(state, number))).into_response()
    }

    fn merge_request(&self, state: &mut State, number: u64, body: &Value) -> Response {
        self.refresh(state, number);
        let pull = state.pulls[&number].clone();
        if !pull.open {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "Pull Request is not mergeable");
        }
        if body["sha"] != pull.sha.as_str() {
            return refused(
                StatusCode::CONFLICT,
                "Head branch was modified. Review and try the merge again.",
            );
        }
        if state.readiness == Some("blocked") {
            return refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "Required status check \"ci\" is expected.",
            );
        }
        let method = body["merge_method"].as_str().unwrap().to_owned();
        let message = body["commit_title"].as_str().map(|title| {
            format!(
                "{title}\n\n{}",
                body["commit_message"].as_str().unwrap_or_default()
            )
        });
        match self.merge(state, number, &method, "slipway[bot]", message) {
            Ok(sha) => axum::Json(
                json!({ "sha": sha, "merged": true, "message": "Pull Request successfully merged" }),
            )
            .into_response(),
            Err(_) => refused(StatusCode::METHOD_NOT_ALLOWED, "Pull Request is not mergeable"),
        }
    }
}

pub(super) fn user(login: &str) -> Value {
    json!({ "login": login, "id": 1, "type": "User" })
}

pub(super) fn labelled(labels: &[String]) -> Value {
    labels
        .iter()
        .map(|name| json!({ "id": 1, "name": name, "color": "ededed" }))
        .collect()
}

/// With an entity tag, and short where the asker has it already.
fn cached(state: &mut State, headers: &HeaderMap, value: &Value) -> Response {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    let etag = format!("W/\"{:x}\"", hasher.finish());
    let known = headers.get(header::IF_NONE_MATCH).map(|known| known.as_bytes());
    if known == Some(etag.as_bytes()) {
        state.not_modified += 1;
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    ([(header::ETAG, etag)], axum::Json(value.clone())).into_response()
}
