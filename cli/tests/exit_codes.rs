//! The program as a shell sees it: what it prints where, and its exit codes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
};

fn slipway(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(arguments).current_dir(folder.path());
    command.env_remove("SLIPWAY_CONTEXT").env_remove("SLIPWAY_USER");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_teaches_every_noun() {
    let output = slipway(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for noun in [
        "dev",
        "demo",
        "release",
        "deployment",
        "approval",
        "build",
        "gitops",
        "events",
        "config",
        "Exit codes",
    ] {
        assert!(help.contains(noun), "{noun}: {help}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &[][..],
        &["release", "start"],
        &["release", "start", "shop", "--label", "x"],
        &["fly"],
    ] {
        let output = slipway(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_context_it_says_what_to_do_next() {
    let output = slipway(&["release", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("slipway dev"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_service_that_is_not_there_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t").unwrap();
    let context = folder.path().join("context.yaml");
    // Port 1 is not listened on.
    let url = "http://127.0.0.1:1";
    let yaml = format!(
        "build: {url}\ngitops: {url}\napproval: {url}\ndeploy: {url}\nuser: alice\ntoken_files: {{ alice: token }}\n"
    );
    fs::write(&context, yaml).unwrap();
    let path = context.display().to_string();
    let output = slipway(&["--context", &path, "release", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is the service running?"),
        "{}",
        text(&output.stderr)
    );
    let output = slipway(&["--context", &path, "--as", "mallory", "release", "list"]);
    assert!(
        text(&output.stderr).contains("one of: alice"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_catalog_with_a_typo_is_told_with_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.yaml");
    fs::write(&path, "environments: [dev]\nservcies: []\n").unwrap();
    let output = slipway(&["config", "validate", "--catalog", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("line 2") && said.contains("servcies"), "{said}");
    fs::write(&path, "environments: [dev]\nservices: []\n").unwrap();
    let output = slipway(&["config", "validate", "--catalog", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_catalog_is_held_against_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (catalog, config) = (path("catalog.yaml"), path("deploy.yaml"));
    fs::write(
        &catalog,
        "environments: [dev]\nservices:\n  - name: shop\n    repository: https://git.example/shop.git\n    image: registry.example/shop\n    \
         environments:\n      - {name: dev, policy: none, target: {cluster: moon, namespace: dev, name: shop}}\n",
    )
    .unwrap();
    let write = |cluster: &str| {
        let text = format!(
            "server: {{listen: \"127.0.0.1:0\"}}\ndatabase: {{url: \"sqlite:///deploy.db\"}}\ncatalog: /absent\n\
             clusters: {{{cluster}: {{kubeconfig: /absent}}}}\nbuild: {{url: \"http://127.0.0.1:1\"}}\n\
             gitops: {{url: \"http://127.0.0.1:2\"}}\napproval: {{url: \"http://127.0.0.1:3\"}}\n"
        );
        fs::write(&config, text).unwrap();
    };
    let given = format!("deploy-svc={config}");
    let validate = || slipway(&["config", "validate", "--catalog", &catalog, "--config", &given]);
    write("earth");
    let output = validate();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("services.shop.environments.dev.target.cluster: no cluster moon")
            && said.contains("earth"),
        "{said}"
    );
    write("moon");
    let output = validate();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// Valid, and still unlikely to work: the exit code stays 0.
#[test]
fn a_time_that_is_too_short_for_a_canary_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let catalog = path("catalog.yaml");
    let write = |timeout: &str| {
        let text = format!(
            "environments: [prod]\nservices:\n  - name: cart\n    repository: https://git.example/cart.git\n    \
             image: registry.example/cart\n    environments:\n      - name: prod\n        policy: none\n        \
             target: {{cluster: main, namespace: cart, kind: Rollout, name: cart}}\n        \
             gitops: {{repository: platform, path: apps/cart}}\n{timeout}"
        );
        fs::write(&catalog, text).unwrap();
    };
    fs::create_dir_all(folder.path().join("platform/apps/cart")).unwrap();
    let pause = "        - pause: {duration: 10m}\n";
    let rollout = format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {{name: cart}}\nspec:\n  strategy:\n    \
         canary:\n      steps:\n{pause}{pause}{pause}"
    );
    fs::write(folder.path().join("platform/apps/cart/rollout.yaml"), rollout).unwrap();
    let checkout = format!("platform={}", path("platform"));
    let validate = |arguments: &[&str]| {
        let mut all = vec!["config", "validate", "--catalog", catalog.as_str()];
        all.extend(arguments);
        let output = slipway(&all);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    write("        timeout: {deploy: 20m}\n");
    let said = validate(&["--checkout", &checkout]);
    assert!(
        said.contains("warning: services.cart.environments.prod.timeout.deploy: is 20m")
            && said.contains("30m of"),
        "{said}"
    );
    assert_eq!(validate(&[]), "");
    write("");
    assert_eq!(
        validate(&["--checkout", &checkout]),
        "",
        "it follows from the steps"
    );
}
