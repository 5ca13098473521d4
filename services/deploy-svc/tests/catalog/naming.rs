//! What builds are called: `build.version`, `build.latest`, and Git tags.

use deploy_domain::{
    catalog::{Catalog, CatalogError},
    plan::{Plan, PlanError, PlanRequest},
};
use pretty_assertions::assert_eq;

use super::parse;

fn with(build: &str) -> String {
    format!(
        "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    build: {{ {build} }}
    branches: [{{ pattern: '**', environments: [dev] }}]
    environments:
      - {{ name: dev, policy: none, target: {{ cluster: main, namespace: shop, name: shop }} }}
"
    )
}

fn plan(build: &str, branch: Option<&str>, git_tag: Option<&str>) -> Result<Plan, PlanError> {
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: branch.map(|branch| branch.parse().unwrap()),
        git_tag: git_tag.map(|tag| tag.parse().unwrap()),
        environments: Vec::new(),
    };
    Plan::make(&parse(&with(build)), &wanted)
}

#[test]
fn a_plan_has_the_version_and_whether_it_is_latest() {
    let version = "version: '{{git_tag|branch}}+{{short_commit}}'";
    for (build, branch, tag, version, latest) in [
        ("", Some("main"), None, "", false),
        (version, Some("main"), None, "main+1a2b3c4", false),
        (version, Some("main"), Some("v1.2"), "v1.2+1a2b3c4", false),
        ("latest: true", None, None, "", true),
        ("latest: main", Some("main"), None, "", true),
        ("latest: main", Some("feature/x"), None, "", false),
        ("latest: 'release/*'", Some("release/1"), Some("v1"), "", true),
    ] {
        let plan = plan(build, branch, tag).unwrap();
        assert_eq!(
            (plan.version.as_str(), plan.is_latest()),
            (version, latest),
            "{build}"
        );
        assert_eq!(plan.git_tag.as_ref().map(slipway_model::GitTag::as_str), tag);
    }
    // Nothing new is said where nothing new is asked.
    let json = serde_json::to_value(plan("", Some("main"), None).unwrap()).unwrap();
    for (object, key) in [
        (&json, "version"),
        (&json, "git_tag"),
        (&json["build"], "version"),
        (&json["build"], "latest"),
    ] {
        assert_eq!(object.get(key), None, "{key}");
    }
    let error = plan("version: '{{git_tag}}'", Some("main"), None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the version of service shop is made from git_tag, which this release does not have: name its Git tag (--git-tag), or write an alternative in build.version, such as {{git_tag|short_commit}}"
    );
}

#[test]
fn what_cannot_be_a_version_or_a_branch_is_refused() {
    for (build, words) in [
        ("version: '{{tag}}'", "{{tag}} is not a placeholder"),
        ("version: ''", "a version has 1 to 4096 bytes"),
        ("latest: '-x'", "write a branch name"),
        ("latest: [main]", "true, false, or the pattern"),
    ] {
        let error = Catalog::parse(&with(build)).unwrap_err();
        let place = match &error {
            CatalogError::Shape { path, .. } => path.clone(),
            CatalogError::Meaning(faults) => faults[0].path.clone(),
            CatalogError::TooLarge => String::new(),
        };
        assert!(place.contains(".build."), "{build}: {error}");
        assert!(error.to_string().contains(words), "{build}: {error}");
    }
}
