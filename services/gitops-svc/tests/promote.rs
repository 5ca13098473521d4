//! Changes by the name of an environment, from one environment to another, and environments beside each other; and
//! what puts each kind of edit back.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use slipway_proto::{
    common::v1::Image,
    gitops::v1::{
        ApplyChangeRequest, Change, DiffEnvironmentsRequest, Edit, GetDesiredStateRequest, HelmImage,
        KustomizeImage, ManifestImage, Marker, Place, PromoteRequest, RevertChangeRequest, change::Status,
        edit, git_ops_service_client::GitOpsServiceClient, place,
    },
};
use slipway_server::{Channel, ErrorView, TokenHash};
use tonic::Code;
use world::*;

const LAYOUT: &str = "{dev: {kustomization: 'apps/{service}/dev'}, staging: {kustomization: 'apps/{service}/staging'}, \
    prod: {helm: {file: 'charts/{service}/values-prod.yaml', path: image}}, \
    old: {manifest: {file: 'manifests/{service}.yaml', container: web}}}";
const STAGING: &str = "images:\n- name: app # the shop\n  newTag: \"0\"\n";
const VALUES: &str =
    "# of production\nimage:\n  repository: r.example/identity\n  tag: '0'   # set by Slipway\nreplicas: 3\n";
const MANIFEST: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: identity}\nspec:\n  template:\n    spec:\n      containers:\n      - name: web\n        image: r.example/identity:0 # here\n      - name: proxy\n        image: envoy:1\n";

async fn start(world: &World) -> Running {
    let text = world.config(&world.sqlite(), "one", "127.0.0.1:0");
    let hash = String::from(TokenHash::of("developer-token"));
    let text = text.replace(
        "principals:\n",
        &format!(
            "principals:\n  - {{subject: developer, token_sha256: {hash}, roles: [{{actions: [read, start, rollback], environments: [dev]}}]}}\n"
        ),
    );
    let url = format!("url: {}/remote.git", world.dir.path().display());
    let text = text.replace(&url, &format!("{url}, environments: {LAYOUT}"));
    world
        .remote
        .commit(
            "main",
            "places",
            &[
                ("apps/identity/staging/kustomization.yaml", STAGING.as_bytes()),
                ("charts/identity/values-prod.yaml", VALUES.as_bytes()),
                ("manifests/identity.yaml", MANIFEST.as_bytes()),
            ],
        )
        .unwrap();
    start_with(&text).await.unwrap()
}

fn read(world: &World, path: &str) -> String {
    String::from_utf8(world.remote.read("main", path).unwrap()).unwrap()
}

/// Sets the image of an environment by its name.
fn deploy(environment: &str, tag: &str) -> ApplyChangeRequest {
    ApplyChangeRequest {
        request_id: format!("{environment}-{tag}"),
        environment: environment.to_owned(),
        edits: Vec::new(),
        ..set_tag("identity", tag)
    }
}

fn promotion(from: &str, to: &str) -> PromoteRequest {
    PromoteRequest {
        request_id: format!("{from}-{to}"),
        repository: "shop".to_owned(),
        service: "identity".to_owned(),
        from_environment: from.to_owned(),
        to_environment: to.to_owned(),
        ..PromoteRequest::default()
    }
}

async fn promote(client: &mut GitOpsServiceClient<Channel>, request: PromoteRequest) -> Change {
    let change = client
        .promote(request)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    finished(client, &change.id).await
}

async fn revert(client: &mut GitOpsServiceClient<Channel>, id: &str) -> Change {
    let request = RevertChangeRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let change = client
        .revert_change(request)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    finished(client, &change.id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_changed_by_its_name_and_promoted() {
    let world = World::new("gitops-promote", &["identity"]);
    let running = start(&world).await;
    let mut client = running.client();

    // The entry's newName is the image's, so only the tag is written.
    let dev = applied(&mut client, &deploy("dev", "1a2b3c4")).await;
    assert_status(&dev, Status::Pushed);
    assert_eq!(
        world.file("identity"),
        overlay("identity").replace("'old'", "'1a2b3c4'")
    );

    // To another kustomization: name and tag, and nothing else.
    let staging = promote(&mut client, promotion("dev", "staging")).await;
    assert_status(&staging, Status::Pushed);
    assert_eq!(
        read(&world, "apps/identity/staging/kustomization.yaml"),
        STAGING.replace(
            "newTag: \"0\"",
            "newName: r.example/identity\n  newTag: \"1a2b3c4\""
        )
    );
    assert_eq!(staging.promoted_from, "dev");
    assert_eq!(staging.promoted_from_commit, dev.commit);
    assert_eq!(
        staging.subject,
        "chore(identity): promote 1a2b3c4 from dev to staging"
    );
    let message = world.remote.log("main").unwrap().remove(0).message;
    for line in [
        "chore(identity): promote 1a2b3c4 from dev to staging",
        "Environment: staging",
        "Image: r.example/identity",
        "Image-Tag: 1a2b3c4",
        &format!("Promoted-from: dev@{}", dev.commit),
    ] {
        assert!(message.lines().any(|text| text == line), "{line}: {message}");
    }

    // To values and to manifests, which say the name already.
    let prod = promote(&mut client, promotion("staging", "prod")).await;
    assert_status(&prod, Status::Pushed);
    assert_eq!(
        read(&world, "charts/identity/values-prod.yaml"),
        VALUES.replace("'0'", "'1a2b3c4'")
    );
    let old = promote(&mut client, promotion("prod", "old")).await;
    assert_status(&old, Status::Pushed);
    assert_eq!(
        read(&world, "manifests/identity.yaml"),
        MANIFEST.replace("identity:0", "identity:1a2b3c4")
    );

    // A repetition is answered as it was, however the branch stands now.
    applied(&mut client, &deploy("dev", "2222222")).await;
    assert_eq!(
        promote(&mut client, promotion("dev", "staging")).await.id,
        staging.id
    );
    assert_eq!(apply(&mut client, &deploy("dev", "1a2b3c4")).await.id, dev.id);
    let other = PromoteRequest {
        images: vec!["app".to_owned()],
        ..promotion("dev", "staging")
    };
    assert_eq!(
        client.promote(other).await.unwrap_err().code(),
        Code::AlreadyExists
    );

    // Each is put back in its own kind, to the letter.
    let helm = HelmImage {
        file: "charts/identity/values-prod.yaml".to_owned(),
        path: "image".to_owned(),
        new_name: "r.example/identity".to_owned(),
        new_tag: "0".to_owned(),
        ..HelmImage::default()
    };
    assert_eq!(prod.previous[0].edit, Some(edit::Edit::HelmImage(helm)));
    let Some(edit::Edit::ManifestImage(manifest)) = &old.previous[0].edit else {
        panic!("{old:?}")
    };
    assert_eq!(
        (manifest.container.as_str(), manifest.new_tag.as_str()),
        ("web", "0")
    );
    for (change, path, before) in [
        (&staging, "apps/identity/staging/kustomization.yaml", STAGING),
        (&prod, "charts/identity/values-prod.yaml", VALUES),
        (&old, "manifests/identity.yaml", MANIFEST),
    ] {
        let reverted = revert(&mut client, &change.id).await;
        assert_status(&reverted, Status::Pushed);
        assert_eq!(read(&world, path), before);
        assert_eq!(reverted.promoted_from, "");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_promoted_is_refused_with_the_reason() {
    let world = World::new("gitops-promote-no", &["identity"]);
    let running = start(&world).await;
    let mut client = running.client();
    let place = |folder: &str| {
        Some(Place {
            place: Some(place::Place::Kustomization(folder.to_owned())),
        })
    };
    for (request, code, field, words) in [
        (
            PromoteRequest {
                images: vec!["mail".to_owned()],
                ..promotion("dev", "staging")
            },
            Code::FailedPrecondition,
            "IMAGE_NOT_FOUND",
            "there are app (r.example/identity)",
        ),
        (
            promotion("dev", "nowhere"),
            Code::InvalidArgument,
            "to",
            "there are dev, old, prod, staging",
        ),
        (promotion("dev", "dev"), Code::InvalidArgument, "to", "come from"),
        (
            PromoteRequest {
                from: place("../x"),
                ..promotion("dev", "staging")
            },
            Code::InvalidArgument,
            "from.kustomization",
            "without '..'",
        ),
        (
            PromoteRequest {
                from: place("apps/nothing"),
                ..promotion("dev", "staging")
            },
            Code::FailedPrecondition,
            "FILE_NOT_FOUND",
            "no such folder",
        ),
        (
            PromoteRequest {
                from_environment: String::new(),
                ..promotion("dev", "staging")
            },
            Code::InvalidArgument,
            "from_environment",
            "required",
        ),
    ] {
        let error = ErrorView::of(&client.promote(request).await.unwrap_err());
        let named = if error.field.is_empty() {
            error.reason.as_str()
        } else {
            error.field.as_str()
        };
        assert_eq!((error.code, named), (code, field), "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
    }
    for (token, code) in [
        ("reader-token", Code::PermissionDenied),
        ("other-token", Code::PermissionDenied),
    ] {
        let error = world::client(&running.url, token)
            .promote(promotion("dev", "staging"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{token}");
    }

    // An image that has no place, and one that fits several.
    let mut nowhere = deploy("nowhere", "1");
    let error = ErrorView::of(&client.apply_change(nowhere.clone()).await.unwrap_err());
    assert_eq!(
        (error.code, error.field.as_str()),
        (Code::InvalidArgument, "edits")
    );
    nowhere.environment = "dev".to_owned();
    nowhere.images = vec![Image {
        repository: "r.example/identity".to_owned(),
        ..Image::default()
    }];
    let error = ErrorView::of(&client.apply_change(nowhere).await.unwrap_err());
    assert_eq!(
        (error.code, error.field.as_str()),
        (Code::InvalidArgument, "images[0].tags")
    );
    world
        .remote
        .commit(
            "main",
            "two",
            &[(
                "apps/identity/staging/kustomization.yaml",
                b"images:\n- {name: a, newTag: '1'}\n- {name: b, newTag: '1'}\n",
            )],
        )
        .unwrap();
    let error = ErrorView::of(&client.apply_change(deploy("staging", "2")).await.unwrap_err());
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::FailedPrecondition, "IMAGE_NOT_FOUND")
    );
    assert!(error.message.contains("there are a, b"), "{error:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_shown_beside_each_other() {
    let world = World::new("gitops-diff", &["identity", "pay"]);
    let running = start(&world).await;
    let mut client = running.client();
    let dev = applied(&mut client, &deploy("dev", "7")).await;
    // By hand, and the same as in dev.
    let hand = world
        .remote
        .commit(
            "main",
            "by hand",
            &[(
                "charts/identity/values-prod.yaml",
                VALUES.replace("'0'", "'7'").as_bytes(),
            )],
        )
        .unwrap();
    let request = DiffEnvironmentsRequest {
        repository: "shop".to_owned(),
        environments: vec!["dev".to_owned(), "prod".to_owned(), "staging".to_owned()],
        ..Default::default()
    };
    let answer = client
        .diff_environments(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.commit, hand);
    let rows: Vec<(&str, &str, bool)> = answer
        .differences
        .iter()
        .map(|row| (row.service.as_str(), row.name.as_str(), row.same))
        .collect();
    assert_eq!(rows, [("identity", "app", false), ("pay", "app", false)]);
    let sides = &answer.differences[0].sides;
    let said: Vec<(&str, &str)> = sides
        .iter()
        .map(|side| {
            (
                side.environment.as_str(),
                side.image.as_ref().unwrap().tag.as_str(),
            )
        })
        .collect();
    assert_eq!(said, [("dev", "7"), ("prod", "7"), ("staging", "0")]);
    assert_eq!(sides[0].last_change.as_ref().unwrap().id, dev.id);
    let prod = sides[1].last_change.as_ref().unwrap();
    assert_eq!(
        (prod.id.as_str(), prod.subject.as_str()),
        (format!("commit-{hand}").as_str(), "by hand")
    );
    assert_eq!(sides[2].last_change.as_ref().unwrap().subject, "places");
    // A service that only one of them has.
    let pay = &answer.differences[1].sides;
    assert!(pay[0].image.is_some() && pay[1].image.is_none() && pay[2].image.is_none());
    assert!(pay.iter().all(|side| side.reason.is_none()), "{pay:?}");

    let same = DiffEnvironmentsRequest {
        service: "identity".to_owned(),
        environments: vec!["dev".to_owned(), "prod".to_owned()],
        ..request.clone()
    };
    let answer = client.diff_environments(same.clone()).await.unwrap().into_inner();
    assert!(answer.differences[0].same, "{answer:?}");
    let none = DiffEnvironmentsRequest {
        only_different: true,
        ..same
    };
    let answer = client.diff_environments(none).await.unwrap().into_inner();
    assert!(answer.differences.is_empty());
    for (environments, field) in [
        (vec!["dev"], "environments"),
        (vec!["dev", "nope"], "environments[1]"),
    ] {
        let request = DiffEnvironmentsRequest {
            environments: environments.into_iter().map(str::to_owned).collect(),
            ..request.clone()
        };
        let error = ErrorView::of(&client.diff_environments(request).await.unwrap_err());
        assert_eq!((error.code, error.field.as_str()), (Code::InvalidArgument, field));
    }

    // What one environment wants, by its name and by its place.
    let by_name = GetDesiredStateRequest {
        repository: "shop".to_owned(),
        service: "identity".to_owned(),
        environment: "old".to_owned(),
        ..Default::default()
    };
    let by_place = GetDesiredStateRequest {
        repository: "shop".to_owned(),
        place: Some(Place {
            place: Some(place::Place::Manifest(place::Manifest {
                file: "manifests/identity.yaml".to_owned(),
                container: "web".to_owned(),
                ..Default::default()
            })),
        }),
        ..Default::default()
    };
    for request in [by_name, by_place.clone()] {
        let state = client.get_desired_state(request).await.unwrap().into_inner();
        let image = &state.desired_images[0];
        assert_eq!(
            (image.name.as_str(), image.tag.as_str(), image.line),
            ("r.example/identity", "0", 9)
        );
        assert!(state.images.is_empty());
    }
    let both = GetDesiredStateRequest {
        path: "apps".to_owned(),
        ..by_place
    };
    let error = ErrorView::of(&client.get_desired_state(both).await.unwrap_err());
    assert_eq!(
        (error.code, error.field.as_str()),
        (Code::InvalidArgument, "place")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_are_one_commit_and_a_marker_is_an_empty_one() {
    let world = World::new("gitops-several", &["identity", "pay"]);
    let running = start(&world).await;
    let mut client = running.client();
    let before = world.remote.log("main").unwrap().len();
    let kustomize = |path: &str| {
        edit::Edit::KustomizeImage(KustomizeImage {
            path: path.to_owned(),
            name: "app".to_owned(),
            new_tag: "9".to_owned(),
            ..KustomizeImage::default()
        })
    };
    let all = ApplyChangeRequest {
        request_id: "all".to_owned(),
        edits: [
            kustomize("apps/identity/dev"),
            kustomize("apps/identity/staging"),
            edit::Edit::HelmImage(HelmImage {
                file: "charts/identity/values-prod.yaml".to_owned(),
                path: "image.tag".to_owned(),
                new_tag: "9".to_owned(),
                ..HelmImage::default()
            }),
            edit::Edit::ManifestImage(ManifestImage {
                file: "manifests/identity.yaml".to_owned(),
                image: "envoy".to_owned(),
                new_tag: "9".to_owned(),
                ..ManifestImage::default()
            }),
        ]
        .map(|edit| Edit { edit: Some(edit) })
        .to_vec(),
        ..set_tag("identity", "9")
    };
    let change = applied(&mut client, &all).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(world.remote.log("main").unwrap().len(), before + 1);
    assert!(read(&world, "charts/identity/values-prod.yaml").contains("tag: '9'   # set"));
    assert!(read(&world, "manifests/identity.yaml").contains("envoy:9"));
    let tags: Vec<String> = change
        .previous
        .iter()
        .map(|edit| match edit.edit.as_ref().unwrap() {
            edit::Edit::KustomizeImage(edit) => edit.new_tag.clone(),
            edit::Edit::HelmImage(edit) => edit.new_tag.clone(),
            edit::Edit::ManifestImage(edit) => format!("{}:{}", edit.image, edit.new_tag),
            edit::Edit::Marker(_) => "marker".to_owned(),
        })
        .collect();
    assert_eq!(tags, ["old", "0", "0", "envoy:1"]);
    assert_status(&revert(&mut client, &change.id).await, Status::Pushed);
    assert_eq!(read(&world, "charts/identity/values-prod.yaml"), VALUES);
    assert_eq!(read(&world, "manifests/identity.yaml"), MANIFEST);
    assert_eq!(world.file("identity"), overlay("identity"));

    // Only a part goes back: the rest is running already.
    let again = ApplyChangeRequest {
        request_id: "again".to_owned(),
        ..all
    };
    let change = applied(&mut client, &again).await;
    let part = |paths: &[&str]| RevertChangeRequest {
        request_id: paths.join(","),
        id: change.id.clone(),
        paths: paths.iter().map(ToString::to_string).collect(),
        ..RevertChangeRequest::default()
    };
    let request = part(&["apps/identity/staging", "charts/identity/values-prod.yaml"]);
    let reverted = client.revert_change(request).await.unwrap().into_inner();
    let reverted = finished(&mut client, &reverted.change.unwrap().id).await;
    assert_status(&reverted, Status::Pushed);
    assert_eq!(reverted.edits.len(), 2);
    assert_eq!(read(&world, "charts/identity/values-prod.yaml"), VALUES);
    assert_eq!(read(&world, "apps/identity/staging/kustomization.yaml"), STAGING);
    assert!(read(&world, "manifests/identity.yaml").contains("envoy:9"));
    assert_eq!(
        world.file("identity"),
        overlay("identity").replace("'old'", "'9'")
    );
    let refused = client
        .revert_change(part(&["apps/identity/st"]))
        .await
        .unwrap_err();
    assert_eq!(ErrorView::of(&refused).reason, "NOTHING_TO_REVERT");

    let files = world.remote.files("main").unwrap();
    let marker = ApplyChangeRequest {
        request_id: "marker".to_owned(),
        edits: vec![Edit {
            edit: Some(edit::Edit::Marker(Marker {})),
        }],
        ..set_tag("identity", "latest")
    };
    let change = applied(&mut client, &marker).await;
    assert_status(&change, Status::Pushed);
    assert!(!change.no_op);
    assert_eq!(world.remote.head("main").unwrap(), change.commit);
    assert_eq!(world.remote.files("main").unwrap(), files);
    let second = revert(&mut client, &change.id).await;
    assert_status(&second, Status::Pushed);
    assert_ne!(second.commit, change.commit);
    assert_eq!(second.reverts, change.id);
    assert_eq!(world.remote.head("main").unwrap(), second.commit);
    assert_eq!(world.remote.files("main").unwrap(), files);
    assert!(
        second.subject.starts_with("revert(identity): ")
            && second.subject.ends_with(" is not deployed to dev"),
        "{}",
        second.subject
    );
    running.stop().await;
}

/// What a request calls itself does not open the files of another environment.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_environment_need_its_role() {
    let world = World::new("gitops-places", &["identity"]);
    let running = start(&world).await;
    let mut client = client(&running.url, "developer-token");
    let own = applied(&mut client, &deploy("dev", "1a2b3c4")).await;
    assert_status(&own, Status::Pushed);

    let kustomization = |path: &str| {
        edit::Edit::KustomizeImage(KustomizeImage {
            path: path.to_owned(),
            name: "app".to_owned(),
            new_tag: "v2".to_owned(),
            ..KustomizeImage::default()
        })
    };
    let values = edit::Edit::HelmImage(HelmImage {
        file: "charts/identity/values-prod.yaml".to_owned(),
        path: "image".to_owned(),
        new_tag: "v2".to_owned(),
        ..HelmImage::default()
    });
    let manifest = edit::Edit::ManifestImage(ManifestImage {
        file: "manifests/identity.yaml".to_owned(),
        container: "web".to_owned(),
        new_tag: "v2".to_owned(),
        ..ManifestImage::default()
    });
    for (edit, environment) in [
        (kustomization("apps/identity/staging"), "staging"),
        (kustomization("apps/other/staging"), "staging"),
        (values, "prod"),
        (manifest, "old"),
    ] {
        let request = ApplyChangeRequest {
            request_id: String::new(),
            edits: vec![Edit { edit: Some(edit) }],
            ..deploy("dev", "v2")
        };
        let refused = client.apply_change(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        assert!(refused.message().contains(environment), "{refused:?}");
        if environment == "staging" && refused.message().contains("other") {
            continue;
        }
        // Whoever holds the role may.
        assert!(running.client().apply_change(request).await.is_ok());
    }
    running.stop().await;
}
