//! Changes of images in unusual places: shared by anchors, added to a file, in an Application; and how they are reverted.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use pretty_assertions::assert_eq;
use slipway_proto::gitops::v1::{
    ApplyChangeRequest, Change, Edit, HelmImage, KustomizeImage, RevertChangeRequest, change::Status, edit,
};
use world::*;

const SHARED: &str = "tags: {app: &tag v1}\nweb: {image: {repository: r/app, tag: *tag}}\nworker: {image: {repository: r/app, tag: *tag}}\n";
const OVERRIDE: &str = "replicas: 3 # of production\n";
const APPLICATION: &str = "kind: Application\nspec:\n  source:\n    helm:\n      parameters:\n      - {name: image.tag, value: v1}\n      values: |\n        web:\n          image: r/app:v1\n";
const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";

fn read(world: &World, path: &str) -> String {
    String::from_utf8(world.remote.read("main", path).unwrap()).unwrap()
}

fn helm(file: &str, path: &str) -> HelmImage {
    HelmImage {
        file: file.to_owned(),
        path: path.to_owned(),
        new_tag: "v2".to_owned(),
        ..HelmImage::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_written_and_reverted_to_the_letter() {
    let world = World::new("gitops-unusual", &["identity"]);
    world
        .remote
        .commit(
            "main",
            "files",
            &[
                ("shared.yaml", SHARED.as_bytes()),
                ("override.yaml", OVERRIDE.as_bytes()),
                ("app.yaml", APPLICATION.as_bytes()),
                ("versions/kustomization.yaml", COMPONENT.as_bytes()),
            ],
        )
        .unwrap();
    let running = start_with(&world.config(&world.sqlite(), "one", "127.0.0.1:0"))
        .await
        .unwrap();
    let mut client = running.client();
    let request = |id: &str, edit: edit::Edit| ApplyChangeRequest {
        request_id: id.to_owned(),
        edits: vec![Edit { edit: Some(edit) }],
        ..set_tag("identity", "v2")
    };
    let refused = request("refused", edit::Edit::HelmImage(helm("shared.yaml", "web.image")));
    let change: Change = applied(&mut client, &refused).await;
    assert_status(&change, Status::Failed);
    let reason = change.reason.unwrap();
    assert_eq!(reason.code, "EDIT_UNSAFE");
    assert!(
        reason.message.contains("`worker.image.tag`"),
        "{}",
        reason.message
    );

    let shared = HelmImage {
        allow_shared: true,
        ..helm("shared.yaml", "web.image")
    };
    let added = HelmImage {
        add_missing: true,
        new_name: "r/app".to_owned(),
        ..helm("override.yaml", "image")
    };
    let component = KustomizeImage {
        path: "versions".to_owned(),
        name: "app".to_owned(),
        new_tag: "v2".to_owned(),
        ..KustomizeImage::default()
    };
    for (id, edit, path, before, after) in [
        (
            "shared",
            edit::Edit::HelmImage(shared),
            "shared.yaml",
            SHARED,
            SHARED.replace("&tag v1", "&tag v2"),
        ),
        (
            "added",
            edit::Edit::HelmImage(added),
            "override.yaml",
            OVERRIDE,
            format!("{OVERRIDE}image:\n  repository: r/app\n  tag: v2\n"),
        ),
        (
            "parameter",
            edit::Edit::HelmImage(helm("app.yaml", "spec.source.helm.parameters[name=image.tag]")),
            "app.yaml",
            APPLICATION,
            APPLICATION.replace("value: v1", "value: v2"),
        ),
        (
            "values",
            edit::Edit::HelmImage(helm("app.yaml", "spec.source.helm.values.web.image")),
            "app.yaml",
            APPLICATION,
            APPLICATION.replace("app:v1", "app:v2"),
        ),
        (
            "component",
            edit::Edit::KustomizeImage(component),
            "versions/kustomization.yaml",
            COMPONENT,
            format!("{COMPONENT}images:\n- name: app\n  newTag: v2\n"),
        ),
    ] {
        let change = applied(&mut client, &request(id, edit.clone())).await;
        assert_status(&change, Status::Pushed);
        assert_eq!(read(&world, path), after, "{id}");
        assert_eq!(change.edits[0].edit, Some(edit), "as it was requested");
        let revert = RevertChangeRequest {
            request_id: format!("revert-{id}"),
            id: change.id,
            ..RevertChangeRequest::default()
        };
        let reverted = client
            .revert_change(revert)
            .await
            .unwrap()
            .into_inner()
            .change
            .unwrap();
        let reverted = finished(&mut client, &reverted.id).await;
        assert_status(&reverted, Status::Pushed);
        assert_eq!(read(&world, path), before, "{id}");
    }
    running.stop().await;
}
