//! What git wants: objects with their keys, tracking ids, hooks and waves.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::argo_cd::health::group;
use crate::object::{self, annotation, text};
use crate::registry::Registry;
use crate::resources::Resource;

/// Where an object says which Application it belongs to.
pub(crate) const TRACKING: &str = "argocd.argoproj.io/tracking-id";
const HOOK: &str = "argocd.argoproj.io/hook";
const HOOK_DELETE: &str = "argocd.argoproj.io/hook-delete-policy";
const WAVE: &str = "argocd.argoproj.io/sync-wave";
const SYNC_OPTIONS: &str = "argocd.argoproj.io/sync-options";

/// What identifies an object, regardless of the version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(object: &Value) -> Self {
        Self {
            group: group(object).to_owned(),
            kind: text(object, &["kind"]).to_owned(),
            namespace: object::namespace(object).to_owned(),
            name: object::name(object).to_owned(),
        }
    }

    pub(crate) fn tracking_id(&self, instance: &str) -> String {
        format!(
            "{instance}:{}/{}:{}/{}",
            self.group, self.kind, self.namespace, self.name
        )
    }

    /// As named in messages: `apps/Deployment/web`.
    pub(crate) fn display(&self) -> String {
        format!("{}/{}/{}", self.group, self.kind, self.name)
    }
}

/// The Application instance that an object belongs to. A copy (a ReplicaSet has its Deployment's annotations) does not
/// belong to any.
pub(crate) fn owner(object: &Value) -> Option<&str> {
    let id = annotation(object, TRACKING);
    let (instance, _) = id.split_once(':')?;
    (id == Key::of(object).tracking_id(instance)).then_some(instance)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    PreSync,
    Sync,
    PostSync,
    SyncFail,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PreSync => "PreSync",
            Self::Sync => "Sync",
            Self::PostSync => "PostSync",
            Self::SyncFail => "SyncFail",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::PreSync, Self::Sync, Self::PostSync, Self::SyncFail]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }
}

/// The values of an annotation that contains a list.
fn values<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    annotation(object, key)
        .split(',')
        .map(str::trim)
        .filter(|v| !v.is_empty())
}

/// Whether the object is a hook of any kind.
pub(crate) fn is_hook(object: &Value) -> bool {
    !annotation(object, HOOK).is_empty()
}

/// The phases in which a hook runs; an ordinary object is in the Sync phase.
pub(crate) fn phases(object: &Value) -> Vec<Phase> {
    if is_hook(object) {
        values(object, HOOK).filter_map(Phase::parse).collect()
    } else {
        vec![Phase::Sync]
    }
}

pub(crate) fn wave(object: &Value) -> i64 {
    annotation(object, WAVE).parse().unwrap_or(0)
}

pub(crate) fn has_option(object: &Value, option: &str) -> bool {
    values(object, SYNC_OPTIONS).any(|o| o == option)
}

/// Whether a hook is deleted at this moment: `BeforeHookCreation` (when it says nothing), `HookSucceeded` or
/// `HookFailed`.
pub(crate) fn is_deleted(hook: &Value, moment: &str) -> bool {
    let mut policies = values(hook, HOOK_DELETE).peekable();
    if policies.peek().is_none() {
        return moment == "BeforeHookCreation";
    }
    policies.any(|policy| policy == moment)
}

/// Completes rendered objects: adds namespaces if the kind has them, and tracking ids. Of two with the same key the
/// later one counts; duplicate keys are returned, too.
pub(crate) fn place(
    rendered: &[Value],
    instance: &str,
    namespace: &str,
    resource: impl Fn(&Value) -> Option<&'static Resource>,
) -> (Vec<Value>, Vec<Key>) {
    let (mut placed, mut repeated) = (BTreeMap::new(), Vec::new());
    for (index, object) in rendered.iter().enumerate() {
        let mut object = object.clone();
        // A kind that is not known yet is assumed to be namespaced.
        let namespaced = resource(&object).is_none_or(|resource| resource.namespaced);
        let metadata = object::metadata(&mut object);
        if !namespaced {
            metadata.remove("namespace");
        } else if metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or("")
            .is_empty()
        {
            metadata.insert("namespace".to_owned(), Value::from(namespace));
        }
        let key = Key::of(&object);
        if !is_hook(&object) {
            object::set_annotation(&mut object, TRACKING, &key.tracking_id(instance));
        }
        // Hooks without a name are all distinct.
        let alone = if key.name.is_empty() { index } else { 0 };
        if placed.insert((key.clone(), alone), object).is_some() {
            repeated.push(key);
        }
    }
    (placed.into_values().collect(), repeated)
}

/// The resource of an object in a manifest.
pub(crate) fn resource_of(registry: &Registry, object: &Value) -> Option<&'static Resource> {
    let (api_version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    let found = registry.by_kind(api_version, kind)?;
    (found.api_version() == api_version).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(api_version: &str, kind: &str, name: &str, annotations: &Value) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "annotations": annotations}})
    }

    #[test]
    fn objects_get_their_place_and_owner() {
        let registry = Registry::default();
        let rendered = [
            object("apps/v1", "Deployment", "web", &json!({})),
            object("v1", "Namespace", "extra", &json!({})),
            object("v1", "ConfigMap", "c", &json!({})),
            object("v1", "ConfigMap", "c", &json!({"x": "y"})),
            object("v1", "ConfigMap", "h", &json!({HOOK: "PreSync"})),
        ];
        let (placed, repeated) = place(&rendered, "app", "shop", |o| resource_of(&registry, o));
        let ids: Vec<(&str, Option<&str>)> = placed
            .iter()
            .map(|o| (annotation(o, TRACKING), owner(o)))
            .collect();
        assert_eq!(
            ids,
            [
                ("app:/ConfigMap:shop/c", Some("app")),
                ("", None),
                ("app:/Namespace:/extra", Some("app")),
                ("app:apps/Deployment:shop/web", Some("app")),
            ]
        );
        assert_eq!(placed[0]["metadata"]["annotations"]["x"], "y");
        assert_eq!(repeated.len(), 1);
        let mut copy = placed[3].clone();
        copy["kind"] = json!("ReplicaSet");
        assert_eq!(owner(&copy), None);
    }

    #[test]
    fn hooks_say_when_they_run_and_go() {
        let hook = object(
            "batch/v1",
            "Job",
            "j",
            &json!({HOOK: "PreSync, PostSync", WAVE: "-2"}),
        );
        assert_eq!(phases(&hook), [Phase::PreSync, Phase::PostSync]);
        assert_eq!(wave(&hook), -2);
        assert!(is_deleted(&hook, "BeforeHookCreation") && !is_deleted(&hook, "HookSucceeded"));
        let hook = object(
            "batch/v1",
            "Job",
            "j",
            &json!({HOOK: "Sync", HOOK_DELETE: "HookSucceeded"}),
        );
        assert!(!is_deleted(&hook, "BeforeHookCreation") && is_deleted(&hook, "HookSucceeded"));
        assert_eq!(phases(&object("v1", "Pod", "p", &json!({}))), [Phase::Sync]);
        assert_eq!(phases(&object("v1", "Pod", "p", &json!({HOOK: "Skip"}))), []);
    }
}
