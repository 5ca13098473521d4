//! What is refused.

use serde_json::{Value, json};

use super::{deployment, map, service};
use crate::ask::{Ask, JSON, MERGE};

/// Bodies of errors, which people read.
pub(super) async fn refusals(ask: &mut Ask) {
    for (name, path) in [
        ("a missing object", ask.apps("deployments/none")),
        ("a missing namespace", "/api/v1/namespaces/none-such".to_owned()),
        ("an unknown resource", ask.apps("gadgets")),
        ("an unknown group", "/apis/gadgets.example/v1/gadgets".to_owned()),
        ("an unknown path", "/gadgets".to_owned()),
        ("a missing pod's log", ask.core("pods/none/log")),
        (
            "a missing service's proxy",
            ask.core("services/none:http/proxy/health"),
        ),
        ("an unknown selector", ask.core("pods?labelSelector=a%20in%20b")),
        (
            "an unknown field selector",
            ask.core("pods?fieldSelector=spec.colour%3Dred"),
        ),
        ("an unknown version", ask.core("pods?resourceVersion=x")),
    ] {
        ask.get(name, &path).await;
    }
    let (deployments, maps) = (ask.apps("deployments"), ask.core("configmaps"));
    let good = deployment("web", "registry.example/none:1", 0, &json!([]));
    let with = |change: fn(&mut Value)| {
        let mut object = good.clone();
        change(&mut object);
        object
    };
    for (name, object) in [
        ("no name", with(|o| o["metadata"] = json!({}))),
        ("a bad name", with(|o| o["metadata"]["name"] = json!("Web_1"))),
        (
            "a bad label",
            with(|o| o["metadata"]["labels"] = json!({"a b": "c"})),
        ),
        (
            "a selector that does not match",
            with(|o| o["spec"]["selector"]["matchLabels"]["app"] = json!("other")),
        ),
        (
            "no containers",
            with(|o| o["spec"]["template"]["spec"]["containers"] = json!([])),
        ),
        (
            "no image",
            with(|o| o["spec"]["template"]["spec"]["containers"][0]["image"] = json!("")),
        ),
        (
            "two containers of one name",
            with(|o| {
                let one = o["spec"]["template"]["spec"]["containers"][0].clone();
                o["spec"]["template"]["spec"]["containers"]
                    .as_array_mut()
                    .unwrap()
                    .push(one);
            }),
        ),
        (
            "a bad quantity",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["resources"] =
                    json!({"requests": {"cpu": "lots"}});
            }),
        ),
        (
            "a request above its limit",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["resources"] =
                    json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
            }),
        ),
        (
            "a bad restart policy",
            with(|o| o["spec"]["template"]["spec"]["restartPolicy"] = json!("Never")),
        ),
        (
            "a bad pull policy",
            with(|o| o["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes")),
        ),
        (
            "a probe of two kinds",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
                    json!({"tcpSocket": {"port": 1}, "httpGet": {"port": 1}});
            }),
        ),
        (
            "a probe of no kind",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
                    json!({"periodSeconds": 1});
            }),
        ),
        (
            "an unknown volume",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
                    json!([{"name": "none", "mountPath": "/x"}]);
            }),
        ),
        (
            "a port out of range",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 70000}]);
            }),
        ),
        (
            "recreate with rolling parameters",
            with(|o| o["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}})),
        ),
        (
            "no progress allowed",
            with(|o| o["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
        ),
        (
            "another namespace",
            with(|o| o["metadata"]["namespace"] = json!("elsewhere")),
        ),
        ("another kind", with(|o| o["kind"] = json!("StatefulSet"))),
    ] {
        ask.tell(name, "POST", &deployments, JSON, &object).await;
        ask.quietly("DELETE", &ask.apps("deployments/web"), &json!({}))
            .await;
    }
    ask.tell("not an object", "POST", &maps, JSON, &json!("text"))
        .await;
    ask.tell(
        "a number for text",
        "POST",
        &maps,
        JSON,
        &map("numbers", &json!({"a": 1})),
    )
    .await;
    ask.tell(
        "a bad key",
        "POST",
        &maps,
        JSON,
        &map("keys", &json!({"a b": "1"})),
    )
    .await;
    ask.tell(
        "a method that is not allowed",
        "POST",
        &ask.apps("deployments/web"),
        JSON,
        &good,
    )
    .await;
    ask.quietly("POST", &deployments, &good).await;
    let web = ask.apps("deployments/web");
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}, "template": {"metadata": {"labels": {"app": "other"}}}}});
    ask.tell("a selector cannot be changed", "PATCH", &web, MERGE, &selector)
        .await;
    let mut broken = service();
    broken["spec"]["ports"] = json!([]);
    ask.tell(
        "a service without ports",
        "POST",
        &ask.core("services"),
        JSON,
        &broken,
    )
    .await;
    broken["spec"]["ports"] = json!([{"port": 80}, {"port": 81}]);
    ask.tell(
        "ports without names",
        "POST",
        &ask.core("services"),
        JSON,
        &broken,
    )
    .await;
    let patch = json!({"metadata": {"name": "other"}});
    ask.tell("a name cannot be changed", "PATCH", &web, MERGE, &patch)
        .await;
}
