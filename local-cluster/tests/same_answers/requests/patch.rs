//! The other ways to write.

use serde_json::json;

use super::{deployment, map, settled, status};
use crate::ask::{Ask, JSON, MERGE, PATCH, STRATEGIC};

/// The other kinds of patch, updates, subresources.
pub(super) async fn patch(ask: &mut Ask) {
    let (maps, all) = (ask.core("configmaps/settings"), ask.core("configmaps"));
    let first = map("settings", &json!({"colour": "blue", "size": "1"}));
    let made = ask.tell("create", "POST", &all, JSON, &first).await;
    ask.tell("create again", "POST", &all, JSON, &first).await;
    ask.tell(
        "merge",
        "PATCH",
        &maps,
        MERGE,
        &json!({"data": {"size": null, "shape": "round"}}),
    )
    .await;
    ask.tell(
        "merge nothing",
        "PATCH",
        &maps,
        MERGE,
        &json!({"data": {"shape": "round"}}),
    )
    .await;
    let operations = json!([{"op": "test", "path": "/data/colour", "value": "blue"}, {"op": "add", "path": "/data/a~1b", "value": "1"}]);
    ask.tell("json patch", "PATCH", &maps, PATCH, &operations).await;
    let failing = json!([{"op": "test", "path": "/data/colour", "value": "red"}]);
    ask.tell("json patch whose test fails", "PATCH", &maps, PATCH, &failing)
        .await;
    let missing = json!([{"op": "remove", "path": "/data/none"}]);
    ask.tell("json patch of what is not there", "PATCH", &maps, PATCH, &missing)
        .await;
    ask.tell(
        "an unknown kind of patch",
        "PATCH",
        &maps,
        "application/x-patch",
        &json!({}),
    )
    .await;
    let mut stale = made["body"].clone();
    stale["data"]["colour"] = json!("green");
    ask.tell("update of an old version", "PUT", &maps, JSON, &stale)
        .await;
    stale["metadata"]["resourceVersion"] = json!("");
    ask.tell("update", "PUT", &maps, JSON, &stale).await;
    stale["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    ask.tell("update of another uid", "PUT", &maps, JSON, &stale)
        .await;
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    ask.tell("delete another uid", "DELETE", &maps, JSON, &wrong)
        .await;
    ask.tell("delete", "DELETE", &maps, JSON, &json!({})).await;
    ask.tell("delete again", "DELETE", &maps, JSON, &json!({})).await;

    let web = ask.apps("deployments/web");
    let path = ask.apps("deployments");
    let object = deployment(
        "web",
        "registry.example/none:1",
        0,
        &json!([{"name": "A", "value": "1"}]),
    );
    ask.tell("create deployment", "POST", &path, JSON, &object).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "registry.example/none:2"}]}}}});
    settled(ask, &web).await;
    ask.tell("strategic merge of an image", "PATCH", &web, STRATEGIC, &image)
        .await;
    settled(ask, &web).await;
    let delete = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "A", "$patch": "delete"}]}]}}}});
    ask.tell("strategic merge that deletes", "PATCH", &web, STRATEGIC, &delete)
        .await;
    ask.until("deployment", &web, |answer| {
        status(answer, "observedGeneration") == answer["body"]["metadata"]["generation"]
    })
    .await;
    ask.get("scale", &format!("{web}/scale")).await;
    ask.tell(
        "patch of scale",
        "PATCH",
        &format!("{web}/scale"),
        MERGE,
        &json!({"spec": {"replicas": 0}}),
    )
    .await;
    ask.get("status", &format!("{web}/status")).await;
    ask.tell(
        "annotation",
        "PATCH",
        &web,
        MERGE,
        &json!({"metadata": {"annotations": {"a": "1"}}}),
    )
    .await;
    settled(ask, &web).await;
    ask.tell(
        "a status that a merge leaves alone",
        "PATCH",
        &web,
        MERGE,
        &json!({"status": {"replicas": 9}}),
    )
    .await;
}
