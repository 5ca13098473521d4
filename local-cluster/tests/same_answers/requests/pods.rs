//! Pods, those that run and those that do not.

use serde_json::{Value, json};

use super::{deployment, ready, service, status, template};
use crate::ask::{Ask, JSON, MERGE, STRATEGIC, TABLE};

/// Pods that run: their status, logs, the proxy, events.
pub(super) async fn pods(ask: &mut Ask) {
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
    for (name, reason) in [
        ("pod is scheduled", "Scheduled"),
        ("container is created", "Created"),
        ("container starts", "Started"),
    ] {
        let path = format!("{pod_events}%2Creason%3D{reason}");
        ask.until(&format!("event when a {name}"), &path, |answer| {
            answer["body"]["items"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
        .await;
    }

    // A second version, and the first one's pod goes.
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image, "env": [{"name": "VERSION", "value": "two"}]}]}}}});
    ask.tell("a new template", "PATCH", &web, STRATEGIC, &template)
        .await;
    ask.until("the new version", &web, |answer| {
        let observed = status(answer, "observedGeneration") == answer["body"]["metadata"]["generation"];
        let progressed = answer["body"]["status"]
            .to_string()
            .contains("NewReplicaSetAvailable");
        observed
            && progressed
            && status(answer, "updatedReplicas") == 1
            && status(answer, "replicas") == 1
            && ready(1)(answer)
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
pub(super) async fn failing(ask: &mut Ask) {
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
    let path = ask.core(&format!("pods/{pod}/log?previous=true"));
    // Between two runs a kubelet may have no log to show.
    let mut log = slipway_testbed::eventually("the log of the run before", async || {
        let log = ask.quietly("GET", &path, &json!({})).await;
        slipway_testbed::holds(log, |log| log["body"].to_string().contains("crashing as told"))
    })
    .await;
    // What a program writes to its two outputs comes in any order.
    let mut lines: Vec<&str> = log["body"].as_str().unwrap().lines().collect();
    lines.sort_unstable();
    log["body"] = json!(lines);
    ask.keep("log of the run before", &log);
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
