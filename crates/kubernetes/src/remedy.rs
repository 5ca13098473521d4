//! What to do about a refusal whose cause is known: a sentence to add to the API server's own words.

use crate::forbidden;

pub(super) fn of(code: u16, message: &str) -> Option<String> {
    forbidden::help(code, message)
        .or_else(|| missing_namespace(code, message))
        .or_else(|| immutable(code, message))
}

/// `namespaces "shop" not found`.
fn missing_namespace(code: u16, message: &str) -> Option<String> {
    let (name, rest) = message.strip_prefix("namespaces \"")?.split_once('"')?;
    (code == 404 && rest.trim_start().starts_with("not found")).then(|| {
        format!(
            ". Create it (`kubectl create namespace {name}`), add a Namespace to the manifests, or write \
             create_namespace: true in the target of the catalog"
        )
    })
}

/// `Job.batch "migrate" is invalid: spec.template: Invalid value: …: field is immutable`.
fn immutable(code: u16, message: &str) -> Option<String> {
    let fixed = message.contains("field is immutable")
        || message.contains("may not change once set")
        || (message.contains("updates to ") && message.contains(" for fields other than "));
    if code != 422 || !fixed {
        return None;
    }
    let kind = message.split(['.', ' ']).next().unwrap_or_default();
    let rest = match kind {
        "Job" => {
            ". A Job cannot be changed: take it out of the manifests and write it as jobs.before (or jobs.after) in the \
             catalog, which makes one for each deployment, or give it another name for each version"
        }
        _ => {
            ". It can be set only when the object is made: leave the field as it was, or delete the object and deploy \
             again, or give it another name"
        }
    };
    Some(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_known_cause_has_a_remedy() {
        for (code, message, words) in [
            (
                404,
                "namespaces \"shop\" not found",
                Some("create_namespace: true"),
            ),
            (404, "services \"shop\" not found", None),
            (
                422,
                "Job.batch \"migrate\" is invalid: spec.template: Invalid value: {}: field is immutable",
                Some("jobs.before"),
            ),
            (
                422,
                "Deployment.apps \"shop\" is invalid: spec.selector: Invalid value: {}: field is immutable",
                Some("delete the object"),
            ),
            (
                422,
                "StatefulSet.apps \"shop\" is invalid: spec: Forbidden: updates to statefulset spec for fields other \
                 than 'replicas', 'template' are forbidden",
                Some("delete the object"),
            ),
            (
                422,
                "Service \"shop\" is invalid: spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set",
                Some("delete the object"),
            ),
            (
                422,
                "Deployment.apps \"shop\" is invalid: spec.replicas: must not be negative",
                None,
            ),
        ] {
            let found = of(code, message);
            match words {
                Some(words) => assert!(found.unwrap_or_default().contains(words), "{message}"),
                None => assert_eq!(found, None),
            }
        }
    }
}
