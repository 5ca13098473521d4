//! Correct requests for every RPC. What callers can get wrong about them is in [`crate::cases`].

use serde_json::{Value, json};

/// How roles decide about an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// It is about one resource, and needs the role for that.
    Thing,
    /// It shows what the caller may read, and nothing to a caller that may read only other things.
    Shown,
    /// It needs the role to read, for any resource.
    Anywhere,
}

/// One form of an RPC's request.
pub(crate) struct Row {
    /// `Service/Method`.
    pub(crate) method: &'static str,
    /// Which form; empty if there is only one.
    pub(crate) form: &'static str,
    /// Texts such as `$build` stand for what the scene has.
    pub(crate) request: Value,
    pub(crate) guard: Guard,
    /// Fields that cannot be combined with this form.
    pub(crate) other_forms: &'static [&'static str],
    /// What it answers to a caller that may do everything.
    pub(crate) answer: &'static str,
}

fn row(method: &'static str, request: Value) -> Row {
    Row {
        method,
        form: "",
        request,
        guard: Guard::Thing,
        other_forms: &[],
        answer: "OK",
    }
}

impl Row {
    fn form(mut self, form: &'static str) -> Self {
        self.form = form;
        self
    }

    fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    fn without(mut self, fields: &'static [&'static str]) -> Self {
        self.other_forms = fields;
        self
    }

    fn answers(mut self, answer: &'static str) -> Self {
        self.answer = answer;
        self
    }
}

/// A list, or a stream of what exists.
fn shown(method: &'static str, request: Value) -> Row {
    row(method, request).guard(Guard::Shown).answers("OK some")
}

/// A watch of one thing.
fn watch(method: &'static str, request: Value) -> Row {
    row(method, request).answers("OK some")
}

/// At least one for every RPC. The correct ones are sent in this order.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = builds();
    rows.extend(changes());
    rows.extend(reading());
    rows.extend(approvals());
    rows.extend(deployments());
    rows.extend(releases());
    rows.extend(operations());
    rows
}

fn builds() -> Vec<Row> {
    let spec = json!({
        "repository_url": "$source", "commit": "$commit", "branch": "main", "image_name": "$image", "context": "app",
        "dockerfile": "Dockerfile", "build_args": {"A": "b"}, "version": "1.0", "builder": "default",
        "timeout": "60s", "target": "app", "git_tag": "v1.0",
    });
    vec![
        row(
            "BuildService/StartBuild",
            json!({"service": "shop", "spec": spec}),
        ),
        row("BuildService/GetBuild", json!({"id": "$build"})),
        shown("BuildService/ListBuilds", json!({"service": "shop"})),
        watch("BuildService/WatchBuild", json!({"id": "$build"})),
        watch("BuildService/TailLog", json!({"id": "$build"})),
        row(
            "BuildService/ResolveTag",
            json!({"service": "shop", "image_name": "$image", "tag": "absent"}),
        )
        .answers("NOT_FOUND NOT_FOUND"),
        row(
            "BuildService/CancelBuild",
            json!({"id": "$build", "reason": "why not"}),
        ),
        shown("BuildService/StreamEvents", json!({})),
    ]
}

/// What a release, a deployment or a change is about.
fn image() -> Value {
    json!([{"repository": "$image", "digest": "$digest"}])
}

fn changes() -> Vec<Row> {
    let edits = json!([
        {"kustomize_image": {"path": "apps/shop/overlays/dev", "name": "app", "digest": "$digest"}},
        {"helm_image": {"file": "charts/shop/values.yaml", "path": "image", "new_tag": "1"}},
        {"manifest_image": {"file": "apps/shop.yaml", "container": "app", "new_tag": "1"}},
    ]);
    let promote = json!({
        "repository": "platform", "service": "shop", "from_environment": "dev", "to_environment": "prod",
    });
    let places = |from: Value, to: Value| {
        let mut request = promote.clone();
        (request["from"], request["to"]) = (from, to);
        request
    };
    let folder = |name: &str| json!({"kustomization": format!("apps/shop/overlays/{name}")});
    let helm = json!({"helm": {"file": "charts/shop/values.yaml", "path": "image"}});
    let manifest = json!({"manifest": {"file": "apps/shop.yaml", "container": "app"}});
    vec![
        row(
            "GitOpsService/ApplyChange",
            json!({"repository": "platform", "service": "shop", "environment": "dev", "images": image()}),
        ),
        row(
            "GitOpsService/ApplyChange",
            json!({"repository": "platform", "service": "shop", "environment": "dev", "edits": edits}),
        )
        .form("by edits"),
        row("GitOpsService/Promote", promote.clone()),
        row("GitOpsService/Promote", places(helm, manifest))
            .form("from values to manifests")
            .answers("FAILED_PRECONDITION FILE_NOT_FOUND"),
        row("GitOpsService/Promote", places(folder("dev"), folder("prod"))).form("by folders"),
        row(
            "GitOpsService/RevertChange",
            json!({"id": "$change", "reason": "why not", "paths": ["apps/shop/overlays"]}),
        ),
        row(
            "GitOpsService/CancelChange",
            json!({"id": "$change", "reason": "why not"}),
        ),
        row("GitOpsService/GetChange", json!({"id": "$change"})),
        shown("GitOpsService/ListChanges", json!({"service": "shop"})),
        shown(
            "GitOpsService/ListChanges",
            json!({"repository": "platform", "history": true, "service": "shop", "path": "apps/shop"}),
        )
        .form("with history"),
        watch("GitOpsService/WatchChange", json!({"id": "$change"})),
    ]
}

fn reading() -> Vec<Row> {
    let path = "apps/shop/overlays/dev";
    let by_place = |form: &'static str, place: Value| {
        row(
            "GitOpsService/GetDesiredState",
            json!({"repository": "platform", "place": place}),
        )
        .form(form)
        .without(&["path", "service", "environment"])
        .guard(Guard::Anywhere)
    };
    let helm = json!({"helm": {"file": "charts/shop/values.yaml", "path": "image"}});
    let manifest = json!({"manifest": {"file": "apps/shop.yaml", "container": "app"}});
    vec![
        row(
            "GitOpsService/GetDesiredState",
            json!({"repository": "platform", "path": path}),
        )
        .without(&["service", "environment"])
        .guard(Guard::Anywhere)
        .answers("OK some"),
        by_place("by folder", json!({"kustomization": path})).answers("OK some"),
        by_place("by values", helm).answers("FAILED_PRECONDITION FILE_NOT_FOUND"),
        by_place("by manifests", manifest).answers("FAILED_PRECONDITION FILE_NOT_FOUND"),
        row(
            "GitOpsService/GetDesiredState",
            json!({"repository": "platform", "service": "shop", "environment": "dev"}),
        )
        .form("by name")
        .without(&["path"])
        .answers("OK some"),
        shown(
            "GitOpsService/DiffEnvironments",
            json!({"repository": "platform", "service": "shop", "environments": ["dev", "prod"]}),
        ),
        row(
            "GitOpsService/RenderManifests",
            json!({"repository": "platform", "commit": "$head", "path": path}),
        )
        .guard(Guard::Anywhere),
        shown("GitOpsService/StreamEvents", json!({})),
    ]
}

fn approvals() -> Vec<Row> {
    let section = |name: &str, body: Value| json!({"title": name, "source": "the contract", name: body});
    let subject = json!({
        "kind": "KIND_RELEASE",
        "scope": {"service": "shop", "environment": "prod", "target": "local/shop-prod/Deployment/shop"},
        "images": image(),
        "commits": {"repository_url": "$source", "branch": "main", "head": "$commit"},
        "plan_hash": "abc",
        "summary": "the shop",
        "sections": [
            section("table", json!({"columns": ["one"], "rows": [{"cells": ["1"]}]})),
            section("diff", json!({"text": "--- a\n+++ b\n"})),
            section("text", json!("words")),
            section("link", json!({"rel": "docs", "href": "https://docs.example"})),
        ],
    });
    vec![
        row(
            "ApprovalService/RequestApproval",
            json!({"policy": "one", "subject": subject, "authors": ["author@example.com"]}),
        ),
        row(
            "ApprovalService/Decide",
            json!({"id": "$decided", "verdict": "VERDICT_APPROVE", "binding": "$binding", "comment": "good"}),
        ),
        row(
            "ApprovalService/CancelApproval",
            json!({"id": "$decided", "reason": "why not"}),
        ),
        row("ApprovalService/GetApproval", json!({"id": "$approval"})),
        shown("ApprovalService/ListApprovals", json!({"service": "shop"})),
        watch("ApprovalService/WatchApprovals", json!({"id": "$approval"})),
        shown("ApprovalService/WatchApprovals", json!({"service": "shop"})).form("of all"),
        row("ApprovalService/ListPolicies", json!({}))
            .guard(Guard::Anywhere)
            .answers("OK some"),
        shown("ApprovalService/StreamEvents", json!({})),
    ]
}

fn deployments() -> Vec<Row> {
    vec![
        row("DeployService/GetDeployment", json!({"id": "$deployment"})),
        shown("DeployService/ListDeployments", json!({"service": "shop"})),
        watch("DeployService/WatchDeployment", json!({"id": "$deployment"})),
        row(
            "DeployService/CancelDeployment",
            json!({"id": "$deployment", "reason": "why not"}),
        ),
        row(
            "DeployService/Rollback",
            json!({"deployment_id": "$deployment", "reason": "why not"}),
        )
        .answers("FAILED_PRECONDITION NOTHING_TO_ROLL_BACK_TO"),
        row(
            "DeployService/Rollback",
            json!({"service": "shop", "environment": "prod"}),
        )
        .form("of the newest")
        .answers("FAILED_PRECONDITION NOTHING_TO_ROLL_BACK_TO"),
        row("DeployService/PromoteDeployment", json!({"id": "$deployment"}))
            .answers("FAILED_PRECONDITION NO_STEPS"),
        row("DeployService/AbortDeployment", json!({"id": "$deployment"}))
            .answers("FAILED_PRECONDITION NO_STEPS"),
        row(
            "DeployService/GetLiveState",
            json!({"service": "shop", "environment": "dev"}),
        ),
        row(
            "DeployService/Deploy",
            json!({"service": "shop", "environment": "dev", "images": image(), "commit": "$head"}),
        ),
        shown("DeployService/StreamEvents", json!({})),
    ]
}

/// Nothing is parked in a suite in which everything succeeds.
fn operations() -> Vec<Row> {
    vec![
        shown("OperationsService/ListParked", json!({"kind": "build"})).answers("OK none"),
        row(
            "OperationsService/GetParked",
            json!({"kind": "build", "id": "$build"}),
        )
        .answers("FAILED_PRECONDITION NOT_PARKED"),
        row(
            "OperationsService/ResumeParked",
            json!({"kind": "build", "id": "$build"}),
        )
        .answers("FAILED_PRECONDITION NOT_PARKED"),
    ]
}

fn releases() -> Vec<Row> {
    vec![
        row(
            "ReleaseService/PlanRelease",
            json!({"service": "shop", "commit": "$commit", "environments": ["dev"]}),
        ),
        row(
            "ReleaseService/StartRelease",
            json!({"service": "shop", "commit": "$commit", "environments": ["prod"], "images": image()}),
        ),
        row("ReleaseService/GetRelease", json!({"id": "$release"})),
        shown("ReleaseService/ListReleases", json!({"service": "shop"})),
        watch("ReleaseService/WatchRelease", json!({"id": "$release"})),
        row(
            "ReleaseService/CancelRelease",
            json!({"id": "$release", "reason": "why not"}),
        ),
        shown("ReleaseService/StreamEvents", json!({})),
    ]
}
