//! The services, and one thing of each kind that exists in them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use slipway_tests::{Options, Suite, scene::Service, within};

use crate::call::Api;

/// The caller that may do everything.
pub(crate) const ROOT: &str = "root";
/// What the table is about.
const SHOP: &str = "shop";
/// What lists are about; [`OF_ONE`] may read only the first.
pub(crate) const LISTED: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// The caller that may do everything with the first of [`LISTED`] and nothing else.
pub(crate) const OF_ONE: &str = "of-one";
/// What is watched, and what is requested twice: separate targets, since one deployment at a time holds a target.
pub(crate) const WATCHED: &str = "watched";
pub(crate) const TWICE: &str = "twice";

const ENVIRONMENTS: &[(&str, &str)] = &[("dev", "none"), ("prod", "one")];

/// Everything that the tests of this program share.
pub(crate) struct Scene {
    pub(crate) suite: Suite,
    values: BTreeMap<&'static str, String>,
}

static SCENE: tokio::sync::Mutex<Weak<Scene>> = tokio::sync::Mutex::const_new(Weak::new());

/// The scene: created by the first test, removed with the last.
pub(crate) async fn scene() -> (Arc<Scene>, Api) {
    let mut shared = SCENE.lock().await;
    let scene = match shared.upgrade() {
        Some(scene) => scene,
        None => {
            let scene = Arc::new(Scene::new().await);
            *shared = Arc::downgrade(&scene);
            scene
        }
    };
    let api = Api::new(&scene.suite);
    (scene, api)
}

impl Scene {
    async fn new() -> Self {
        let names = [SHOP].into_iter().chain(LISTED).chain([WATCHED, TWICE]);
        let options = Options {
            replicas: 1,
            services: names.map(|name| Service::new(name, ENVIRONMENTS)).collect(),
            ..Options::default()
        };
        let suite = Suite::start(options).await;
        let api = Api::new(&suite);
        let head = suite.gitops.repository.head("main").unwrap();
        let mut scene = Self {
            suite,
            values: BTreeMap::from([
                ("commit", "0123456789abcdef0123456789abcdef01234567".to_owned()),
                ("digest", format!("sha256:{}", "5".repeat(64))),
                ("head", head),
            ]),
        };
        let plan = json!({"service": SHOP, "commit": "$commit", "environments": ["dev"]});
        let plan = api
            .ok(ROOT, "ReleaseService/PlanRelease", &scene.filled(&plan))
            .await;
        scene.keep("source", &plan["plan"]["repository_url"]);
        scene.keep("image", &plan["plan"]["images"][0]["repository"]);

        for noun in nouns() {
            let made = noun.create(&scene, &api, SHOP, "the-table").await;
            scene.keep(noun.name, &made["id"]);
            if noun.ends_itself {
                noun.ended(&api, &made).await;
            }
        }
        // Both are decided on by the table.
        let approval = noun("approval").create(&scene, &api, SHOP, "the-table").await;
        scene.keep("decided", &approval["id"]);
        scene.keep("binding", &approval["binding"]);
        scene
    }

    fn keep(&mut self, name: &'static str, value: &Value) {
        self.values.insert(name, value.as_str().unwrap().to_owned());
    }

    /// A request in which each text `$name` is replaced by the thing of that name here.
    pub(crate) fn filled(&self, request: &Value) -> Value {
        match request {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => json!(self.value(name)),
                None => json!(text),
            },
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), self.filled(value)))
                .collect(),
            other => other.clone(),
        }
    }

    fn value(&self, name: &str) -> String {
        // The image of another service, such as `$image:one`.
        if let Some(service) = name.strip_prefix("image:") {
            let image = &self.values["image"];
            return format!("{}{service}", image.strip_suffix(SHOP).unwrap());
        }
        let value = self.values.get(name);
        value
            .unwrap_or_else(|| panic!("nothing here is called ${name}"))
            .clone()
    }
}

/// One kind of resource: how one is created, read and ended.
pub(crate) struct Noun {
    /// Also the name of the field that contains one in answers.
    pub(crate) name: &'static str,
    pub(crate) create: &'static str,
    /// `$service` and `$batch` are filled in.
    request: Value,
    pub(crate) get: &'static str,
    pub(crate) list: &'static str,
    /// The repeated field of a list's answer.
    pub(crate) plural: &'static str,
    pub(crate) watch: &'static str,
    pub(crate) cancel: &'static str,
    /// Who creates one: the requester of an approval may not decide on it.
    pub(crate) by: &'static str,
    /// Ends without any further action; others are cancelled in tests that need an end.
    pub(crate) ends_itself: bool,
}

pub(crate) fn noun(name: &str) -> Noun {
    nouns().into_iter().find(|noun| noun.name == name).unwrap()
}

/// Every kind.
pub(crate) fn nouns() -> Vec<Noun> {
    vec![
        // Its commit does not exist.
        Noun {
            name: "build",
            create: "BuildService/StartBuild",
            request: json!({
                "service": "$service",
                "spec": {"repository_url": "$source", "commit": "$commit", "image_name": "$image"},
                "correlation_id": "$batch", "labels": {"batch": "$batch"},
            }),
            get: "BuildService/GetBuild",
            list: "BuildService/ListBuilds",
            plural: "builds",
            watch: "BuildService/WatchBuild",
            cancel: "BuildService/CancelBuild",
            by: ROOT,
            ends_itself: true,
        },
        Noun {
            name: "change",
            create: "GitOpsService/ApplyChange",
            request: json!({
                "repository": "platform", "service": "$service", "environment": "dev",
                "images": [{"repository": "$image:service", "digest": "$digest"}],
                "correlation_id": "$batch", "labels": {"batch": "$batch"},
            }),
            get: "GitOpsService/GetChange",
            list: "GitOpsService/ListChanges",
            plural: "changes",
            watch: "GitOpsService/WatchChange",
            cancel: "GitOpsService/CancelChange",
            by: ROOT,
            ends_itself: true,
        },
        Noun {
            name: "approval",
            create: "ApprovalService/RequestApproval",
            request: json!({
                "policy": "one",
                "subject": {
                    "kind": "KIND_RELEASE",
                    "scope": {"service": "$service", "environment": "dev"},
                    "images": [{"repository": "$image", "digest": "$digest"}],
                },
                "correlation_id": "$batch", "labels": {"batch": "$batch"},
            }),
            get: "ApprovalService/GetApproval",
            list: "ApprovalService/ListApprovals",
            plural: "approvals",
            watch: "ApprovalService/WatchApprovals",
            cancel: "ApprovalService/CancelApproval",
            by: "alice",
            ends_itself: false,
        },
        // Its manifests do not contain the image.
        Noun {
            name: "deployment",
            create: "DeployService/Deploy",
            request: json!({
                "service": "$service", "environment": "dev", "commit": "$head",
                "images": [{"repository": "$image:service", "digest": "$digest"}],
                "correlation_id": "$batch", "labels": {"batch": "$batch"},
            }),
            get: "DeployService/GetDeployment",
            list: "DeployService/ListDeployments",
            plural: "deployments",
            watch: "DeployService/WatchDeployment",
            cancel: "DeployService/CancelDeployment",
            by: ROOT,
            ends_itself: true,
        },
        // Waits at the gate.
        Noun {
            name: "release",
            create: "ReleaseService/StartRelease",
            request: json!({
                "service": "$service", "commit": "$commit", "environments": ["prod"],
                "images": [{"repository": "$image:service", "digest": "$digest"}],
                "labels": {"batch": "$batch"},
            }),
            get: "ReleaseService/GetRelease",
            list: "ReleaseService/ListReleases",
            plural: "releases",
            watch: "ReleaseService/WatchRelease",
            cancel: "ReleaseService/CancelRelease",
            by: ROOT,
            ends_itself: false,
        },
    ]
}

impl Noun {
    /// The request that creates one of a service, labelled with its batch.
    pub(crate) fn request(&self, scene: &Scene, service: &str, batch: &str) -> Value {
        fn named(value: &mut Value, service: &str, batch: &str) {
            match value {
                Value::String(text) => match text.as_str() {
                    "$service" => *text = service.to_owned(),
                    "$batch" => *text = batch.to_owned(),
                    "$image:service" => *text = format!("$image:{service}"),
                    _ => {}
                },
                Value::Array(items) => items.iter_mut().for_each(|item| named(item, service, batch)),
                Value::Object(fields) => fields.values_mut().for_each(|value| named(value, service, batch)),
                _ => {}
            }
        }
        let mut request = self.request.clone();
        named(&mut request, service, batch);
        scene.filled(&request)
    }

    /// Creates one; if it needs a target, waits until that is free.
    pub(crate) async fn create(&self, scene: &Scene, api: &Api, service: &str, batch: &str) -> Value {
        let request = self.request(scene, service, batch);
        let mut made = within(&format!("{} {request}", self.create), async {
            loop {
                match api.call(self.by, self.create, &request).await {
                    Ok(made) => return made,
                    Err(error) => assert_eq!(error.reason, "TARGET_BUSY", "{}: {error:?}", self.create),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        made[self.name].take()
    }

    /// Follows one to its end, and returns it in that state.
    pub(crate) async fn ended(&self, api: &Api, made: &Value) -> Value {
        let watch = json!({"id": made["id"]});
        let what = format!("the end of {}", made["id"]);
        let mut states = within(&what, async {
            api.stream(ROOT, self.watch, &watch).await.unwrap().rest().await
        })
        .await;
        states.last_mut().unwrap()[self.name].take()
    }
}
