//! Jobs, StatefulSets, DaemonSets.

use serde_json::{Value, json};

use super::{status, template};
use crate::ask::{Ask, JSON, MERGE, STRATEGIC, TABLE};

/// Jobs, to their end.
pub(super) async fn jobs(ask: &mut Ask) {
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
    let has = |kind: &'static str| {
        move |answer: &Value| {
            let conditions = answer["body"]["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind))
        }
    };
    ask.until("complete", &path, has("Complete")).await;
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
    ask.until("failed", &path, has("Failed")).await;
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
pub(super) async fn kinds(ask: &mut Ask) {
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
