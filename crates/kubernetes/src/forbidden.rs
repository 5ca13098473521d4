//! What to do about a 403 that is due to missing permissions.

use std::fmt::Write as _;

/// A sentence to add to the API server's own words, where they say that RBAC does not allow the call (`User "…" cannot
/// patch resource "applications" in API group "argoproj.io" in the namespace "argocd"`). Quota and admission answer 403
/// too, but that is not about permissions.
pub(super) fn help(code: u16, message: &str) -> Option<String> {
    if code != 403 {
        return None;
    }
    let (user, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource ")?;
    let resource = quoted(rest)?;
    let group = rest.split_once("API group ").and_then(|(_, rest)| quoted(rest))?;
    let namespace = rest
        .split_once("in the namespace ")
        .and_then(|(_, rest)| quoted(rest));
    let user = user.split_once("User ").and_then(|(_, rest)| quoted(rest));

    let mut words = format!(". Give {}the verb {verb} on {resource}", to(user));
    if !group.is_empty() {
        let _ = write!(words, ".{group}");
    }
    match namespace {
        Some(namespace) => {
            let _ = write!(words, " in namespace {namespace}");
        }
        None => words.push_str(" in the whole cluster"),
    }
    let _ = write!(words, ": {} has what is needed", role(group, resource));
    if role(group, resource) == TARGET {
        words.push_str("; kinds that it does not name need a rule of their own");
    }
    Some(words)
}

/// Of the project's own repository.
const TARGET: &str = "deploy/kubernetes/target";

fn role(group: &str, resource: &str) -> &'static str {
    match (group, resource.split('/').next().unwrap_or_default()) {
        ("argoproj.io", "applications" | "appprojects") => "deploy/kubernetes/target/argo-cd",
        ("argoproj.io", _) => "deploy/kubernetes/target/argo-rollouts",
        ("flagger.app", _) => "deploy/kubernetes/target/flagger",
        _ => TARGET,
    }
}

fn to(user: Option<&str>) -> String {
    user.map(|user| format!("{user} ")).unwrap_or_default()
}

/// The quoted text at the beginning.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.split_once('"').map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::help;

    #[test]
    fn missing_rights_are_named_and_other_refusals_are_not() {
        const US: &str = "User \"system:serviceaccount:slipway:deploy-svc\" cannot";
        for (code, message, words) in [
            (
                403,
                format!(
                    r#"applications.argoproj.io "shop" is forbidden: {US} patch resource "applications" in API group "argoproj.io" in the namespace "argocd""#
                ),
                Some(
                    ". Give system:serviceaccount:slipway:deploy-svc the verb patch on applications.argoproj.io in namespace argocd: deploy/kubernetes/target/argo-cd has what is needed",
                ),
            ),
            (
                403,
                format!(
                    r#"jobs.batch is forbidden: {US} create resource "jobs" in API group "batch" in the namespace "shop""#
                ),
                Some("the verb create on jobs.batch in namespace shop: deploy/kubernetes/target has"),
            ),
            (
                403,
                format!(
                    r#"services "shop" is forbidden: {US} get resource "services/proxy" in API group "" in the namespace "shop""#
                ),
                Some("the verb get on services/proxy in namespace shop: deploy/kubernetes/target has"),
            ),
            (
                403,
                format!(
                    r#"rollouts.argoproj.io "shop" is forbidden: {US} patch resource "rollouts/status" in API group "argoproj.io" in the namespace "shop""#
                ),
                Some("target/argo-rollouts has"),
            ),
            (
                403,
                format!(
                    r#"canaries.flagger.app "shop" is forbidden: {US} patch resource "canaries/status" in API group "flagger.app" in the namespace "shop""#
                ),
                Some("target/flagger has"),
            ),
            (
                403,
                format!(
                    r#"namespaces "shop" is forbidden: {US} create resource "namespaces" in API group "" at the cluster scope"#
                ),
                Some("the verb create on namespaces in the whole cluster"),
            ),
            (
                403,
                r#"pods "shop" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2"#
                    .to_owned(),
                None,
            ),
            (
                403,
                r#"admission webhook "policy" denied the request: you cannot use resource limits here"#.to_owned(),
                None,
            ),
            (422, format!(r#"{US} patch resource "x" in API group """#), None),
        ] {
            let found = help(code, &message);
            match words {
                Some(words) => assert!(
                    found.as_deref().is_some_and(|found| found.contains(words)),
                    "{message}: {found:?}"
                ),
                None => assert_eq!(found, None, "{message}"),
            }
        }
    }
}
