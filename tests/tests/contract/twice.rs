//! Asking twice: every request that starts something does it once for each `request_id`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    call::{Api, methods, name},
    scene::{ROOT, Scene, TWICE, noun, nouns, scene},
};

/// Another form of a request.
fn with(request: &Value, field: &str, value: &Value) -> Value {
    let mut other = request.clone();
    other[field] = value.clone();
    other
}

/// The request, and what counts as a different request.
struct Asked {
    by: &'static str,
    method: &'static str,
    /// The field of the answer that contains what was created.
    makes: &'static str,
    request: Value,
    other: Value,
}

/// Asks twice, and then for something else with the same id. Returns what was created.
async fn twice(api: &Api, asked: &Asked) -> Value {
    let Asked {
        by,
        method,
        makes,
        request,
        other,
    } = asked;
    let id = json!(format!(
        "{}-{}",
        method.replace('/', "-"),
        request["id"].as_str().unwrap_or("1")
    ));
    let request = with(request, "request_id", &id);
    let mut first = api.ok(by, method, &request).await;
    let again = api.ok(by, method, &request).await;
    assert_eq!(first[makes]["id"], again[makes]["id"], "{method}");
    let error = api
        .call(by, method, &with(other, "request_id", &id))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_str(), error.resource.as_str()),
        (
            tonic::Code::AlreadyExists,
            "REQUEST_ID_REUSED",
            id.as_str().unwrap()
        ),
        "{method}: {error:?}"
    );
    first[makes].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_request() {
    let (scene, api) = scene().await;
    let mut asked = BTreeSet::new();
    let mut ask = async |request: Asked| {
        asked.insert(request.method.to_owned());
        twice(&api, &request).await
    };
    // Those that start a resource of each kind: labels make it a different request.
    for noun in nouns().into_iter().filter(|noun| noun.name != "deployment") {
        let request = noun.request(&scene, TWICE, "twice");
        let other = with(&request, "labels", &json!({"batch": "other"}));
        let made = ask(Asked {
            by: noun.by,
            method: noun.create,
            makes: noun.name,
            request,
            other,
        })
        .await;
        match noun.name {
            "approval" => {
                let request = json!({
                    "id": made["id"], "verdict": "VERDICT_APPROVE", "binding": made["binding"], "comment": "good",
                });
                let other = with(&request, "comment", &json!("better"));
                ask(Asked {
                    by: ROOT,
                    method: "ApprovalService/Decide",
                    makes: "approval",
                    request,
                    other,
                })
                .await;
            }
            "change" => {
                noun.ended(&api, &made).await;
                // Another image after it, so that there is one to go back to.
                let mut request = noun.request(&scene, TWICE, "twice");
                request["images"][0]["digest"] = json!(format!("sha256:{}", "6".repeat(64)));
                let mut made = api.ok(ROOT, noun.create, &request).await;
                let change = noun.ended(&api, &made[noun.name].take()).await;
                changed(&scene, &api, &mut ask, &change).await;
            }
            _ => {}
        }
    }
    let known: BTreeSet<String> = methods()
        .iter()
        .filter(|method| method.input().get_field_by_name("request_id").is_some())
        .map(name)
        .collect();
    assert_eq!(asked, known, "every RPC with a request_id");
}

/// What can be done with an image that is in git: deploy and roll back, promote, and revert.
async fn changed(scene: &Scene, api: &Api, ask: &mut impl AsyncFnMut(Asked) -> Value, change: &Value) {
    let deployment = noun("deployment");
    let mut request = deployment.request(scene, TWICE, "twice");
    request["commit"] = change["commit"].clone();
    request["images"][0]["digest"] = change["images"][0]["digest"].clone();
    let other = with(&request, "labels", &json!({"batch": "other"}));
    let made = ask(Asked {
        by: ROOT,
        method: deployment.create,
        makes: "deployment",
        request,
        other,
    })
    .await;
    api.ok(ROOT, deployment.cancel, &json!({"id": made["id"]})).await;
    deployment.ended(api, &made).await;
    let request = json!({"deployment_id": made["id"], "reason": "why not"});
    let other = with(&request, "reason", &json!("because"));
    let made = ask(Asked {
        by: ROOT,
        method: "DeployService/Rollback",
        makes: "deployment",
        request,
        other,
    })
    .await;
    api.ok(ROOT, deployment.cancel, &json!({"id": made["id"]})).await;

    let request = json!({
        "repository": "platform", "service": TWICE, "from_environment": "dev", "to_environment": "prod",
    });
    let other = with(&request, "message", &json!("another subject"));
    ask(Asked {
        by: ROOT,
        method: "GitOpsService/Promote",
        makes: "change",
        request,
        other,
    })
    .await;
    let request = json!({"id": change["id"], "reason": "why not"});
    let other = with(&request, "reason", &json!("because"));
    ask(Asked {
        by: ROOT,
        method: "GitOpsService/RevertChange",
        makes: "change",
        request,
        other,
    })
    .await;
}
