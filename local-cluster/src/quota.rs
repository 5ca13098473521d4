//! ResourceQuota: how many objects a namespace may hold, refused at creation as the real admission refuses.
//!
//! After `k8s.io/kubernetes/pkg/quota/v1` and `plugin/pkg/admission/resourcequota`; numbers of objects only.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::object::{self, at, text};
use crate::quantity;
use crate::resources::{self, PODS, RESOURCE_QUOTAS, Resource};
use crate::status::{ApiError, ApiResult};

/// Kinds whose plain plural is a quota of its own, in addition to `count/…`.
const PLAIN: &[&str] = &["pods", "services", "secrets", "configmaps", "resourcequotas"];

/// The kind that a quota counts: `pods`, `count/deployments.apps`. `None` for what is not counted here.
pub(crate) fn counted(name: &str) -> Option<&'static Resource> {
    let qualified = match name.strip_prefix("count/") {
        Some(qualified) => qualified,
        None if PLAIN.contains(&name) => name,
        None => return None,
    };
    resources::ALL
        .iter()
        .copied()
        .find(|resource| resource.namespaced && resource.qualified() == qualified)
}

/// Whether the object counts for the quota of that name: `pods` excludes those that have ended.
fn counts(name: &str, object: &Value) -> bool {
    name != PODS.plural || !matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed")
}

fn limits(quota: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let hard = at(quota, &["spec", "hard"]).as_object();
    hard.into_iter()
        .flatten()
        .map(|(name, hard)| (name.as_str(), hard))
}

/// Refuses a new object that exceeds the quotas of its namespace. `list` returns the objects of a kind in that
/// namespace.
///
/// # Errors
/// 403 that names the quota and its numbers.
pub(crate) fn admit<'a>(
    resource: &Resource,
    object: &Value,
    list: impl Fn(&Resource) -> Vec<&'a Value>,
) -> ApiResult<()> {
    for quota in list(&RESOURCE_QUOTAS) {
        let (mut requested, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
        for (name, hard) in limits(quota) {
            if counted(name) != Some(resource) || !counts(name, object) {
                continue;
            }
            let there = list(resource)
                .into_iter()
                .filter(|other| counts(name, other))
                .count();
            let count = i128::try_from(there).unwrap_or(i128::MAX);
            let limit = hard.as_str().and_then(quantity::milli).unwrap_or(0);
            if (count + 1).saturating_mul(1000) > limit {
                requested.push(format!("{name}=1"));
                used.push(format!("{name}={there}"));
                limited.push(format!("{name}={}", hard.as_str().unwrap_or("0")));
            }
        }
        if !requested.is_empty() {
            let why = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                object::name(quota),
                requested.join(","),
                used.join(","),
                limited.join(",")
            );
            return Err(ApiError::forbidden(resource, object::name(object), why));
        }
    }
    Ok(())
}

/// The status of a quota; `list` returns the objects of a kind in its namespace.
pub(crate) fn status(quota: &Value, list: impl Fn(&Resource) -> Vec<Arc<Value>>) -> Value {
    let mut used = Map::new();
    for (name, _) in limits(quota) {
        if let Some(resource) = counted(name) {
            let count = list(resource).iter().filter(|other| counts(name, other)).count();
            used.insert(name.to_owned(), json!(count.to_string()));
        }
    }
    json!({"hard": at(quota, &["spec", "hard"]), "used": used})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{CONFIG_MAPS, DEPLOYMENTS};

    fn quota(hard: &Value) -> Value {
        json!({"metadata": {"name": "few"}, "spec": {"hard": hard}})
    }

    #[test]
    fn what_is_beyond_a_quota_is_refused_in_the_words_of_the_real_admission() {
        let quota = quota(&json!({"pods": "2", "count/deployments.apps": "0"}));
        let pod = |phase: &str| json!({"metadata": {"name": "web-1"}, "status": {"phase": phase}});
        let (running, over) = (pod("Running"), pod("Succeeded"));
        let table: [(&Resource, Vec<&Value>, Option<&str>); 5] = [
            (&PODS, vec![&running], None),
            (&PODS, vec![&running, &over, &over], None),
            (
                &PODS,
                vec![&running, &running],
                Some(
                    "pods \"web-1\" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2",
                ),
            ),
            (
                &DEPLOYMENTS,
                vec![],
                Some(
                    "deployments.apps \"web-1\" is forbidden: exceeded quota: few, requested: count/deployments.apps=1, used: count/deployments.apps=0, limited: count/deployments.apps=0",
                ),
            ),
            (&CONFIG_MAPS, vec![&running; 9], None),
        ];
        for (resource, there, expected) in table {
            let list = |kind: &Resource| {
                if kind == &RESOURCE_QUOTAS {
                    vec![&quota]
                } else {
                    there.clone()
                }
            };
            let refused = admit(resource, &running, list).err().map(|e| (e.code, e.message));
            assert_eq!(refused, expected.map(|text| (403, text.to_owned())));
        }
    }

    #[test]
    fn the_status_says_what_is_used() {
        let pods =
            ["Running", "Failed"].map(|phase| Arc::new(json!({"metadata": {}, "status": {"phase": phase}})));
        let status = status(&quota(&json!({"pods": "4", "count/pods": "5"})), |_| {
            pods.to_vec()
        });
        assert_eq!(
            status,
            json!({"hard": {"pods": "4", "count/pods": "5"}, "used": {"pods": "1", "count/pods": "2"}})
        );
    }
}
