//! Lists and watches.

use serde_json::json;

use super::{deployment, map, service, settled};
use crate::ask::{Ask, JSON, MERGE, TABLE};

/// Lists: selectors, pages, tables, metadata.
pub(super) async fn lists(ask: &mut Ask) {
    let all = ask.core("configmaps");
    for (name, tier) in [("one", "front"), ("two", "front"), ("three", "back")] {
        let mut object = map(name, &json!({"a": "1", "b": "2"}));
        object["metadata"]["labels"] = json!({"tier": tier});
        ask.quietly("POST", &all, &object).await;
    }
    let tiers = |rest: &str| format!("{all}?labelSelector=tier{rest}");
    ask.get("by label", &tiers("%3Dfront")).await;
    ask.get("by absence", &tiers("%21%3Dfront%2Ctier")).await;
    ask.get("by set", &tiers("%20in%20%28back%2Cnone%29")).await;
    ask.get("by name", &format!("{all}?fieldSelector=metadata.name%3Done"))
        .await;
    let page = ask.get("first page", &(tiers("") + "&limit=2")).await;
    let next = page["body"]["metadata"]["continue"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ask.get("second page", &(tiers("") + &format!("&limit=2&continue={next}")))
        .await;
    ask.get("a bad page", &(tiers("") + "&limit=2&continue=x")).await;
    ask.get_as("table", &tiers(""), TABLE).await;
    ask.get_as(
        "metadata",
        &tiers(""),
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )
    .await;
    ask.get_as(
        "metadata of one",
        &ask.core("configmaps/one"),
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    )
    .await;
    ask.get_as("table of one", &ask.core("configmaps/one"), TABLE)
        .await;
    let object = deployment("web", "registry.example/none:1", 0, &json!([]));
    ask.quietly("POST", &ask.apps("deployments"), &object).await;
    settled(ask, &ask.apps("deployments/web")).await;
    ask.quietly("POST", &ask.core("services"), &service()).await;
    ask.get_as("table of deployments", &ask.apps("deployments"), TABLE)
        .await;
    ask.get_as("table of services", &ask.core("services"), TABLE)
        .await;
    ask.get_as("table of nothing", &ask.batch("jobs"), TABLE).await;
    ask.get("an empty list", &ask.apps("statefulsets")).await;
    ask.tell(
        "delete of a collection",
        "DELETE",
        &tiers("%3Dback"),
        JSON,
        &json!({}),
    )
    .await;
    ask.get("version of a group", "/apis/apps").await;
}

/// Watches: what they begin with, what they deliver, how they fail.
pub(super) async fn watch(ask: &mut Ask) {
    let all = ask.core("configmaps");
    let mut object = map("one", &json!({"a": "1"}));
    object["metadata"]["labels"] = json!({"tier": "front"});
    let made = ask.quietly("POST", &all, &object).await;
    let version = made["body"]["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let one = ask.core("configmaps/one");
    ask.tell("change", "PATCH", &one, MERGE, &json!({"data": {"a": "2"}}))
        .await;
    ask.tell(
        "leaves the selector",
        "PATCH",
        &one,
        MERGE,
        &json!({"metadata": {"labels": {"tier": "back"}}}),
    )
    .await;
    ask.tell("delete", "DELETE", &one, JSON, &json!({})).await;
    let from = |rest: &str| format!("{all}?watch=true&timeoutSeconds=1&resourceVersion={version}{rest}");
    ask.get("since a version", &from("&fieldSelector=metadata.name%3Done"))
        .await;
    ask.get(
        "since a version with a selector",
        &from("&labelSelector=tier%3Dfront"),
    )
    .await;
    ask.get(
        "an old version",
        &format!("{all}?watch=true&timeoutSeconds=1&resourceVersion=x"),
    )
    .await;
    ask.quietly("POST", &all, &object).await;
    ask.get(
        "from the beginning",
        &format!("{all}?watch=true&timeoutSeconds=1&labelSelector=tier%3Dfront"),
    )
    .await;
    ask.get(
        "of one object",
        &format!("{all}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Done"),
    )
    .await;
    ask.get_as(
        "as a table",
        &format!("{all}?watch=true&timeoutSeconds=1&labelSelector=tier%3Dfront"),
        TABLE,
    )
    .await;
}
