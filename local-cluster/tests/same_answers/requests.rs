//! What is asked: every kind of request that the services, kubectl and the controllers of release tools send.

use std::{future::Future, pin::Pin};

use serde_json::{Value, json};

use super::ask::{APPLY, Ask, JSON, MERGE, PATCH, STRATEGIC, TABLE};

type Requests = for<'a> fn(&'a mut Ask) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(crate) const TOPICS: &[(&str, Requests)] = &[
    ("apply", |ask| Box::pin(apply(ask))),
    ("patch", |ask| Box::pin(patch(ask))),
    ("refusals", |ask| Box::pin(refusals(ask))),
    ("lists", |ask| Box::pin(lists(ask))),
    ("watch", |ask| Box::pin(watch(ask))),
    ("pods", |ask| Box::pin(pods(ask))),
    ("failing", |ask| Box::pin(failing(ask))),
    ("jobs", |ask| Box::pin(jobs(ask))),
    ("kinds", |ask| Box::pin(kinds(ask))),
    ("definitions", |ask| Box::pin(definitions(ask))),
    ("namespaces", |ask| Box::pin(namespaces(ask))),
];

fn template(image: &str, env: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": image, "env": env,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            }],
        },
    })
}

fn deployment(name: &str, image: &str, replicas: u32, env: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image, env),
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn status(answer: &Value, field: &str) -> Value {
    answer["body"]["status"][field].clone()
}

/// Waits until the controller of a Deployment without pods has nothing left to do.
async fn settled(ask: &Ask, web: &str) {
    slipway_testbed::eventually("the Deployment has settled", async || {
        let answer = ask.quietly("GET", web, &json!({})).await;
        slipway_testbed::holds(answer, |answer| {
            let observed = status(answer, "observedGeneration") == answer["body"]["metadata"]["generation"];
            observed
                && answer["body"]["status"]
                    .to_string()
                    .contains("NewReplicaSetAvailable")
        })
    })
    .await;
}

/// Server-side apply: what it makes, whose fields are whose, and who wins.
async fn apply(ask: &mut Ask) {
    let (ours, theirs) = ("?fieldManager=ours", "?fieldManager=theirs");
    let web = ask.apps("deployments/web");
    let object = deployment("web", "registry.example/none:1", 0, &json!([]));
    ask.tell(
        "a new deployment",
        "PATCH",
        &format!("{web}{ours}"),
        APPLY,
        &object,
    )
    .await;
    let path = ask.core(&format!("services/web{ours}"));
    ask.tell("a new service", "PATCH", &path, APPLY, &service()).await;
    let path = ask.core("configmaps/settings");
    let first = map("settings", &json!({"colour": "blue", "size": "1"}));
    ask.tell(
        "a new config map",
        "PATCH",
        &format!("{path}{ours}"),
        APPLY,
        &first,
    )
    .await;
    ask.tell("the same again", "PATCH", &format!("{path}{ours}"), APPLY, &first)
        .await;
    let fewer = map("settings", &json!({"colour": "blue"}));
    ask.tell("a field less", "PATCH", &format!("{path}{ours}"), APPLY, &fewer)
        .await;
    let other = map("settings", &json!({"colour": "red"}));
    ask.tell("a conflict", "PATCH", &format!("{path}{theirs}"), APPLY, &other)
        .await;
    ask.tell(
        "a conflict forced",
        "PATCH",
        &format!("{path}{theirs}&force=true"),
        APPLY,
        &other,
    )
    .await;
    ask.tell("without a manager", "PATCH", &path, APPLY, &other).await;
    ask.tell(
        "another name",
        "PATCH",
        &format!("{path}{ours}"),
        APPLY,
        &map("other", &json!({})),
    )
    .await;
    ask.tell(
        "dry run",
        "PATCH",
        &format!("{path}{ours}&force=true&dryRun=All"),
        APPLY,
        &first,
    )
    .await;
    let mut managed = first.clone();
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    ask.tell(
        "with managed fields",
        "PATCH",
        &format!("{path}{ours}"),
        APPLY,
        &managed,
    )
    .await;
    let mut version = first.clone();
    version["metadata"]["resourceVersion"] = json!("1");
    ask.tell(
        "an old version",
        "PATCH",
        &format!("{path}{ours}&force=true"),
        APPLY,
        &version,
    )
    .await;
    let mut negative = object.clone();
    negative["spec"]["replicas"] = json!(-2);
    settled(ask, &web).await;
    ask.tell(
        "an invalid value",
        "PATCH",
        &format!("{web}{ours}"),
        APPLY,
        &negative,
    )
    .await;
    let mut text = object.clone();
    text["spec"]["replicas"] = json!("two");
    ask.tell(
        "a value of the wrong type",
        "PATCH",
        &format!("{web}{ours}"),
        APPLY,
        &text,
    )
    .await;
    ask.get("in the end", &path).await;
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    let object = deployment("web", "registry.example/none:1", 0, &env);
    ask.tell("variables", "PATCH", &format!("{web}{ours}"), APPLY, &object)
        .await;
    settled(ask, &web).await;
    let object = deployment(
        "web",
        "registry.example/none:2",
        0,
        &json!([{"name": "B", "value": "3"}]),
    );
    ask.tell(
        "a variable less",
        "PATCH",
        &format!("{web}{ours}"),
        APPLY,
        &object,
    )
    .await;
}

/// The other kinds of patch, updates, subresources.
async fn patch(ask: &mut Ask) {
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
    ask.tell(
        "a status that a merge leaves alone",
        "PATCH",
        &web,
        MERGE,
        &json!({"status": {"replicas": 9}}),
    )
    .await;
}

/// Bodies of errors, which people read.
async fn refusals(ask: &mut Ask) {
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
                    json!({"requests": {"cpu": "lots"}})
            }),
        ),
        (
            "a request above its limit",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["resources"] =
                    json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
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
                    json!({"tcpSocket": {"port": 1}, "httpGet": {"port": 1}})
            }),
        ),
        (
            "a probe of no kind",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = json!({"periodSeconds": 1})
            }),
        ),
        (
            "an unknown volume",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
                    json!([{"name": "none", "mountPath": "/x"}])
            }),
        ),
        (
            "a port out of range",
            with(|o| {
                o["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 70000}])
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

/// Lists: selectors, pages, tables, metadata.
async fn lists(ask: &mut Ask) {
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
async fn watch(ask: &mut Ask) {
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

fn ready(count: u64) -> impl Fn(&Value) -> bool {
    move |answer| status(answer, "readyReplicas") == count && status(answer, "unavailableReplicas").is_null()
}

/// Pods that run: their status, logs, the proxy, events.
async fn pods(ask: &mut Ask) {
    let mut object = deployment("web", &ask.image, 1, &json!([]));
    object["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1});
    let image = ask.image.clone();
    ask.quietly("POST", &ask.apps("deployments"), &object).await;
    ask.quietly("POST", &ask.core("services"), &service()).await;
    let web = ask.apps("deployments/web");
    ask.until("deployment", &web, ready(1)).await;
    ask.get("replica sets", &ask.apps("replicasets")).await;
    let list = ask.core("pods");
    let found = ask
        .until("pods", &list, |answer| {
            answer["body"]["items"][0]["status"]["phase"] == "Running"
        })
        .await;
    ask.get_as("table of pods", &list, TABLE).await;
    ask.get_as("table of a deployment", &web, TABLE).await;
    ask.get_as("table of replica sets", &ask.apps("replicasets"), TABLE)
        .await;
    let pod = found["body"]["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let proxy = |rest: &str| ask.core(&format!("services/web:http/proxy{rest}"));
    let (good, missing, unknown) = (
        proxy("/version"),
        proxy("/nowhere"),
        ask.core("services/web:none/proxy/version"),
    );
    let by_pod = ask.core(&format!("pods/{pod}:8080/proxy/version"));
    let closed = ask.core(&format!("pods/{pod}:9999/proxy/version"));
    ask.until("proxy", &good, |answer| answer["code"] == 200).await;
    ask.get("proxy to what the program lacks", &missing).await;
    ask.get("proxy to an unknown port", &unknown).await;
    ask.get("proxy to the pod", &by_pod).await;
    ask.get("proxy to a closed port", &closed).await;
    let log = |rest: &str| ask.core(&format!("pods/{pod}/log{rest}"));
    let (last, container, before) = (log("?tailLines=2"), log("?container=none"), log("?previous=true"));
    ask.until("log", &last, |answer| answer["code"] == 200).await;
    ask.get("log of an unknown container", &container).await;
    ask.get("log of a run before", &before).await;
    let patch = json!({"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}]}]}});
    ask.tell(
        "a pod cannot be changed",
        "PATCH",
        &ask.core(&format!("pods/{pod}")),
        STRATEGIC,
        &patch,
    )
    .await;
    let of = |kind: &str, name: &str| {
        ask.core(&format!(
            "events?fieldSelector=involvedObject.kind%3D{kind}%2CinvolvedObject.name%3D{name}"
        ))
    };
    let (events, pod_events) = (of("Deployment", "web"), of("Pod", &pod));
    ask.until("events of the deployment", &events, |answer| {
        answer["body"]["items"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
    .await;
    ask.until("events of the pod", &pod_events, |answer| {
        answer["body"].to_string().contains("Started container")
    })
    .await;

    // A second version, and the first one's pod goes.
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image, "env": [{"name": "VERSION", "value": "two"}]}]}}}});
    ask.tell("a new template", "PATCH", &web, STRATEGIC, &template)
        .await;
    ask.until("the new version", &web, |answer| {
        status(answer, "updatedReplicas") == 1 && status(answer, "replicas") == 1 && ready(1)(answer)
    })
    .await;
    ask.tell(
        "scale to none",
        "PATCH",
        &format!("{web}/scale"),
        MERGE,
        &json!({"spec": {"replicas": 0}}),
    )
    .await;
    ask.until("no pods", &web, |answer| {
        status(answer, "replicas").is_null()
            && status(answer, "observedGeneration") == answer["body"]["metadata"]["generation"]
    })
    .await;
    let gone = ask.core("services/web:http/proxy/version");
    ask.until("proxy without pods", &gone, |answer| answer["code"] == 503)
        .await;
}

/// Pods that do not run.
async fn failing(ask: &mut Ask) {
    let image = ask.image.clone();
    let broken = format!("{}:none", image.rsplit_once(':').unwrap().0);
    let mut sick = deployment(
        "sick",
        &image,
        1,
        &json!([{"name": "BEHAVIOUR", "value": "unhealthy"}]),
    );
    sick["spec"]["progressDeadlineSeconds"] = json!(3);
    sick["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1});
    let labelled = |mut object: Value, label: &str| {
        object["spec"]["selector"]["matchLabels"]["app"] = json!(label);
        object["spec"]["template"]["metadata"]["labels"]["app"] = json!(label);
        object
    };
    let crash = deployment(
        "crash",
        &image,
        1,
        &json!([{"name": "BEHAVIOUR", "value": "crash"}]),
    );
    let missing = deployment("missing", &broken, 1, &json!([]));
    for (object, label) in [(sick, "sick"), (crash, "crash"), (missing, "missing")] {
        ask.quietly("POST", &ask.apps("deployments"), &labelled(object, label))
            .await;
    }
    let list = |label: &str| ask.core(&format!("pods?labelSelector=app%3D{label}"));
    let (sick, crash, missing) = (list("sick"), list("crash"), list("missing"));
    let waiting = |reason: &'static str| {
        move |answer: &Value| {
            answer["body"]["items"][0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == reason
        }
    };
    let crashed = ask
        .until("a crash loop", &crash, |answer| {
            waiting("CrashLoopBackOff")(answer)
                && answer["body"]["items"][0]["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let pod = crashed["body"]["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    ask.get_as("table of a crash loop", &crash, TABLE).await;
    ask.get(
        "log of the run before",
        &ask.core(&format!("pods/{pod}/log?previous=true")),
    )
    .await;
    ask.until("an image that is missing", &missing, waiting("ImagePullBackOff"))
        .await;
    let path = ask.apps("deployments/sick");
    ask.until("a deadline that has passed", &path, |answer| {
        answer["body"]["status"]
            .to_string()
            .contains("ProgressDeadlineExceeded")
    })
    .await;
    ask.get("a pod that is not ready", &sick).await;
    let path = ask.core("events?fieldSelector=reason%3DUnhealthy");
    let found = ask
        .until("events of a probe", &path, |answer| {
            answer["body"]["items"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
        .await;
    drop(found);
    let path = ask.core("events?fieldSelector=reason%3DBackOff%2CinvolvedObject.name%3D") + &pod;
    ask.until("events of a back-off", &path, |answer| {
        answer["body"]["items"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
    .await;

    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}, "spec": {"hard": {"pods": "3"}}});
    ask.quietly("POST", &ask.core("resourcequotas"), &quota).await;
    ask.until("quota", &ask.core("resourcequotas/pods"), |answer| {
        answer["body"]["status"]["used"]["pods"] == "3"
    })
    .await;
    let object = labelled(deployment("web", &image, 1, &json!([])), "web");
    ask.quietly("POST", &ask.apps("deployments"), &object).await;
    let path = ask.apps("deployments/web");
    ask.until("a quota that is used up", &path, |answer| {
        answer["body"]["status"].to_string().contains("ReplicaFailure")
    })
    .await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": template(&image, &json!([]))["spec"]});
    ask.tell("a pod above the quota", "POST", &ask.core("pods"), JSON, &pod)
        .await;
}

/// Jobs, to their end.
async fn jobs(ask: &mut Ask) {
    let image = ask.image.clone();
    let job = |name: &str, behaviour: &str| {
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "app", "image": image, "env": [{"name": "BEHAVIOUR", "value": behaviour}]}],
            }}},
        })
    };
    let all = ask.batch("jobs");
    ask.quietly("POST", &all, &job("migrate", "done")).await;
    let path = ask.batch("jobs/migrate");
    ask.until("complete", &path, |answer| {
        answer["body"]["status"]["conditions"].is_array()
    })
    .await;
    ask.get(
        "pods of a job",
        &ask.core("pods?labelSelector=job-name%3Dmigrate"),
    )
    .await;
    ask.get_as(
        "table of jobs",
        &format!("{all}?fieldSelector=metadata.name%3Dmigrate"),
        TABLE,
    )
    .await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "other"}]}}}});
    ask.tell("a job cannot be changed", "PATCH", &path, STRATEGIC, &image)
        .await;
    ask.quietly("POST", &all, &job("failing", "crash")).await;
    let path = ask.batch("jobs/failing");
    ask.until("failed", &path, |answer| {
        answer["body"]["status"]["conditions"].is_array()
    })
    .await;
    let path = ask.core("events?fieldSelector=involvedObject.name%3Dmigrate");
    ask.until("events of a job", &path, |answer| {
        answer["body"].to_string().contains("Completed")
    })
    .await;
    let mut always = job("always", "done");
    always["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    ask.tell("a bad restart policy", "POST", &all, JSON, &always)
        .await;
}

/// StatefulSets and DaemonSets.
async fn kinds(ask: &mut Ask) {
    let image = ask.image.clone();
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"serviceName": "db", "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template(&image, &json!([]))},
    });
    ask.tell("a stateful set", "POST", &ask.apps("statefulsets"), JSON, &set)
        .await;
    let db = ask.apps("statefulsets/db");
    ask.until("ready", &db, |answer| {
        status(answer, "readyReplicas") == 1 && status(answer, "currentReplicas") == 1
    })
    .await;
    ask.get("its pod", &ask.core("pods/db-0")).await;
    ask.get("its revisions", &ask.apps("controllerrevisions")).await;
    ask.get_as("table of stateful sets", &ask.apps("statefulsets"), TABLE)
        .await;
    let change = json!({"spec": {"serviceName": "other"}});
    ask.tell(
        "a stateful set cannot be changed there",
        "PATCH",
        &db,
        MERGE,
        &change,
    )
    .await;
    let daemon = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": template(&image, &json!([]))["spec"]},
        },
    });
    ask.tell("a daemon set", "POST", &ask.apps("daemonsets"), JSON, &daemon)
        .await;
    let agent = ask.apps("daemonsets/agent");
    ask.until("daemons ready", &agent, |answer| {
        status(answer, "numberReady") == 1
            && status(answer, "updatedNumberScheduled") == 1
            && status(answer, "numberAvailable") == 1
    })
    .await;
    ask.get_as("table of daemon sets", &ask.apps("daemonsets"), TABLE)
        .await;
}

/// Custom resources: defined, validated, served.
async fn definitions(ask: &mut Ask) {
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
async fn namespaces(ask: &mut Ask) {
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
