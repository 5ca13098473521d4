//! Server-side apply.

use serde_json::{Value, json};

use super::{deployment, map, service, settled};
use crate::ask::{APPLY, Ask, JSON};

/// Server-side apply: what it makes, whose fields are whose, and who wins.
pub(super) async fn apply(ask: &mut Ask) {
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
    apply_instead(ask).await;
}

/// Server-side apply of one struct instead of another, whose defaults nobody owns.
async fn apply_instead(ask: &mut Ask) {
    let with = |name: &str, probe: &Value, strategy: &Value| {
        let mut object = deployment(name, "registry.example/none:1", 0, &json!([]));
        object["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe.clone();
        object["spec"]["strategy"] = strategy.clone();
        object
    };
    let (http, tcp) = (
        json!({"httpGet": {"path": "/health", "port": "http"}}),
        json!({"tcpSocket": {"port": "http"}}),
    );
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let partly = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}});
    let recreate = json!({"type": "Recreate"});
    let path = |name: &str| ask.apps(&format!("deployments/{name}?fieldManager=ours&force=true"));
    let (probed, made, all, partial, created) = (
        path("probed"),
        ask.apps("deployments"),
        path("all"),
        path("partial"),
        path("created"),
    );
    let steps = [
        (
            "a probe",
            "PATCH",
            &probed,
            APPLY,
            with("probed", &http, &rolling),
        ),
        (
            "a probe of another kind",
            "PATCH",
            &probed,
            APPLY,
            with("probed", &tcp, &rolling),
        ),
        (
            "all rolling parameters",
            "PATCH",
            &all,
            APPLY,
            with("all", &http, &rolling),
        ),
        (
            "recreate instead of them",
            "PATCH",
            &all,
            APPLY,
            with("all", &http, &recreate),
        ),
        (
            "some rolling parameters",
            "PATCH",
            &partial,
            APPLY,
            with("partial", &http, &partly),
        ),
        (
            "recreate instead of some",
            "PATCH",
            &partial,
            APPLY,
            with("partial", &http, &recreate),
        ),
        (
            "created with a probe",
            "POST",
            &made,
            JSON,
            with("created", &http, &rolling),
        ),
        (
            "another kind after a creation",
            "PATCH",
            &created,
            APPLY,
            with("created", &tcp, &rolling),
        ),
        (
            "recreate after a creation",
            "PATCH",
            &created,
            APPLY,
            with("created", &http, &recreate),
        ),
    ];
    for (name, method, path, content, object) in steps {
        let web = ask.apps(&format!(
            "deployments/{}",
            object["metadata"]["name"].as_str().unwrap()
        ));
        ask.tell(name, method, path, content, &object).await;
        settled(ask, &web).await;
    }
}
