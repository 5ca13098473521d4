//! Custom resources and namespaces.

use serde_json::{Value, json};

use super::map;
use crate::ask::{APPLY, Ask, JSON, MERGE, STRATEGIC, TABLE};

/// Custom resources: defined, validated, served.
pub(super) async fn definitions(ask: &mut Ask) {
    let group = format!("{}.example.dev", ask.namespace);
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["days"], "properties": {
            "days": {"type": "integer", "minimum": 1},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "names": {"type": "array", "items": {"type": "string"}},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}});
    let columns = json!([{"name": "Days", "type": "integer", "jsonPath": ".spec.days"}]);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("windows.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Window", "plural": "windows", "singular": "window", "listKind": "WindowList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
            }],
        },
    });
    let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let path = format!("{all}/windows.{group}");
    ask.quietly("POST", all, &definition).await;
    ask.until("established", &path, |answer| {
        let conditions = answer["body"]["status"]["conditions"].to_string();
        conditions.contains(r#""status":"True","type":"Established""#)
    })
    .await;
    let windows = format!("/apis/{group}/v1/namespaces/{}/windows", ask.namespace);
    ask.until("an empty list", &windows, |answer| answer["code"] == 200)
        .await;
    let window = |spec: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Window", "metadata": {"name": "weekdays"}, "spec": spec});
    ask.tell("a bad value", "POST", &windows, JSON, &window(json!({"days": 0})))
        .await;
    ask.tell("a missing value", "POST", &windows, JSON, &window(json!({})))
        .await;
    ask.tell(
        "a value of the wrong type",
        "POST",
        &windows,
        JSON,
        &window(json!({"days": "five"})),
    )
    .await;
    ask.tell(
        "a value that is none of the list",
        "POST",
        &windows,
        JSON,
        &window(json!({"days": 1, "mode": "c"})),
    )
    .await;
    ask.tell(
        "good, with an unknown field",
        "POST",
        &windows,
        JSON,
        &window(json!({"days": 5, "extra": 1})),
    )
    .await;
    let one = format!("{windows}/weekdays");
    ask.tell(
        "apply",
        "PATCH",
        &format!("{one}?fieldManager=ours&force=true"),
        APPLY,
        &window(json!({"days": 6})),
    )
    .await;
    ask.tell("merge", "PATCH", &one, MERGE, &json!({"spec": {"names": ["x"]}}))
        .await;
    ask.tell(
        "strategic merge",
        "PATCH",
        &one,
        STRATEGIC,
        &json!({"spec": {"days": 4}}),
    )
    .await;
    ask.tell(
        "status",
        "PATCH",
        &format!("{one}/status"),
        MERGE,
        &json!({"status": {"phase": "open"}, "spec": {"days": 9}}),
    )
    .await;
    ask.tell(
        "a status that stays",
        "PATCH",
        &one,
        MERGE,
        &json!({"status": {"phase": "shut"}}),
    )
    .await;
    ask.get_as("table", &windows, TABLE).await;
    ask.tell("delete", "DELETE", &one, JSON, &json!({})).await;
    ask.quietly("DELETE", &path, &json!({})).await;
}

/// A namespace, from its beginning to its end.
pub(super) async fn namespaces(ask: &mut Ask) {
    let path = format!("/api/v1/namespaces/{}", ask.namespace);
    ask.get("active", &path).await;
    ask.get_as("table of a namespace", &path, TABLE).await;
    ask.get("its service account", &ask.core("serviceaccounts/default"))
        .await;
    let mut object = map("held", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.dev/held"]);
    let maps = ask.core("configmaps");
    ask.tell("held by a finalizer", "POST", &maps, JSON, &object)
        .await;
    ask.tell("delete", "DELETE", &path, JSON, &json!({})).await;
    ask.tell(
        "create while it ends",
        "POST",
        &maps,
        JSON,
        &map("late", &json!({})),
    )
    .await;
    ask.until("what is held ends", &ask.core("configmaps/held"), |answer| {
        answer["body"]["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    let release = json!({"metadata": {"finalizers": null}});
    ask.tell("let go", "PATCH", &ask.core("configmaps/held"), MERGE, &release)
        .await;
    ask.until("gone", &path, |answer| answer["code"] == 404).await;
}
