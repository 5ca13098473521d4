//! The service over gRPC, with real git remotes, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::collections::HashSet;

use slipway_proto::gitops::v1::{
    CancelChangeRequest, Edit, GetDesiredStateRequest, KustomizeImage, ListChangesRequest,
    RenderManifestsRequest, RevertChangeRequest, change::Status, edit,
};
use slipway_server::ErrorView;
use tonic::Code;
use world::*;

async fn journey(world: World, database: &str) {
    let running = world.start(database, "one").await;
    let mut client = running.client();
    let before = world.file("identity");

    // Written, with everything else as it was.
    let change = applied(&mut client, &set_tag("identity", "1a2b3c4")).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(world.file("identity"), before.replace("'old'", "'1a2b3c4'"));
    assert_eq!(change.commit, world.remote.head("main").unwrap());
    assert_eq!((change.no_op, change.attempt), (false, 1));
    let commit = world.remote.log("main").unwrap().remove(0);
    assert_eq!(commit.author, "Robot <robot@example.com>");
    let expected = format!(
        "chore(identity): deploy 1a2b3c4 to dev\n\nService: identity\nEnvironment: dev\nImage: r.example/identity\n\
         Image-Tag: 1a2b3c4\nCommit: {SHA}\nTriggered-by: token/alice\nSlipway-Change: {}\nSlipway-Release: rel-1\n",
        change.id
    );
    // The trace context is the server's own, since the caller sent none.
    assert!(
        commit.message.starts_with(expected.trim_end()),
        "{}",
        commit.message
    );

    // The same request is the same change; another one under its id is refused.
    assert_eq!(
        apply(&mut client, &set_tag("identity", "1a2b3c4")).await.id,
        change.id
    );
    let mut other = set_tag("identity", "2222222");
    other.request_id = "identity-1a2b3c4".to_owned();
    assert_eq!(
        client.apply_change(other).await.unwrap_err().code(),
        Code::AlreadyExists
    );

    // Nothing to change: no commit.
    let mut again = set_tag("identity", "1a2b3c4");
    again.request_id = "again".to_owned();
    let same = applied(&mut client, &again).await;
    assert_status(&same, Status::Pushed);
    assert!(same.no_op);
    assert_eq!(same.commit, change.commit);
    assert_eq!(world.remote.head("main").unwrap(), change.commit);

    // What stands there.
    let request = GetDesiredStateRequest {
        repository: "shop".to_owned(),
        path: folder("identity"),
        ..Default::default()
    };
    let state = client.get_desired_state(request).await.unwrap().into_inner();
    assert_eq!(state.commit, change.commit);
    assert_eq!(state.images[0].new_tag, "1a2b3c4");
    assert_eq!(
        change.previous[0].edit,
        Some(edit::Edit::KustomizeImage(KustomizeImage {
            path: folder("identity"),
            name: "app".to_owned(),
            new_name: "r.example/identity".to_owned(),
            new_tag: "old".to_owned(),
            ..KustomizeImage::default()
        }))
    );

    // Put back by a forward commit, to the letter.
    let revert = RevertChangeRequest {
        request_id: "undo".to_owned(),
        id: change.id.clone(),
        reason: "it failed".to_owned(),
        ..Default::default()
    };
    let reverted = client
        .revert_change(revert.clone())
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    let reverted = finished(&mut client, &reverted.id).await;
    assert_status(&reverted, Status::Pushed);
    assert_eq!(world.file("identity"), before);
    assert_eq!(reverted.reverts, change.id);
    let log = world.remote.log("main").unwrap();
    assert_eq!(log.len(), 3);
    assert!(
        log[0]
            .message
            .starts_with("revert(identity): put dev back\n\nit failed\n\n"),
        "{}",
        log[0].message
    );
    assert_eq!(
        client
            .revert_change(revert)
            .await
            .unwrap()
            .into_inner()
            .change
            .unwrap()
            .id,
        reverted.id
    );

    // Listed, newest first.
    let list = client
        .list_changes(ListChangesRequest {
            service: "identity".to_owned(),
            ..Default::default()
        })
        .await;
    let ids: Vec<String> = list
        .unwrap()
        .into_inner()
        .changes
        .into_iter()
        .map(|change| change.id)
        .collect();
    assert_eq!(ids, [reverted.id, same.id, change.id]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_written_and_put_back_on_sqlite() {
    let world = World::new("gitops-journey", &["identity"]);
    let database = world.sqlite();
    journey(world, &database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_written_and_put_back_on_postgresql() {
    let database = slipway_testbed::postgres()
        .await
        .unwrap()
        .create_database()
        .await
        .unwrap();
    journey(World::new("gitops-journey", &["identity"]), &database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_by_field() {
    let world = World::new("gitops-requests", &["identity"]);
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let image = |path: &str, name: &str, tag: &str| Edit {
        edit: Some(edit::Edit::KustomizeImage(KustomizeImage {
            path: path.to_owned(),
            name: name.to_owned(),
            new_tag: tag.to_owned(),
            ..KustomizeImage::default()
        })),
    };
    let base = set_tag("identity", "v1");
    for (request, field, words) in [
        (
            {
                let mut r = base.clone();
                r.repository = "shopp".into();
                r
            },
            "repository",
            "gone, shop",
        ),
        (
            {
                let mut r = base.clone();
                r.service = "A".into();
                r
            },
            "service",
            "RFC 1123",
        ),
        (
            {
                let mut r = base.clone();
                r.environment = String::new();
                r
            },
            "environment",
            "required",
        ),
        (
            {
                let mut r = base.clone();
                r.branch = "-x".into();
                r
            },
            "branch",
            "check-ref-format",
        ),
        (
            {
                let mut r = base.clone();
                r.edits.clear();
                r
            },
            "edits",
            "give edits",
        ),
        (
            {
                let mut r = base.clone();
                r.edits = vec![image("../etc", "app", "v1")];
                r
            },
            "edits[0].kustomize_image.path",
            "without '..'",
        ),
        (
            {
                let mut r = base.clone();
                r.edits = vec![image("a", "", "v1")];
                r
            },
            "edits[0].kustomize_image.name",
            "manifests",
        ),
        (
            {
                let mut r = base.clone();
                r.edits = vec![image("a", "b", "")];
                r
            },
            "edits[0].kustomize_image.new_tag",
            "at least one",
        ),
        (
            {
                let mut r = base.clone();
                r.message = "a\nSlipway-Change: x".into();
                r
            },
            "message",
            "one line",
        ),
        (
            {
                let mut r = base.clone();
                r.source_commit = "main".into();
                r
            },
            "source_commit",
            "full id",
        ),
        (
            {
                let mut r = base.clone();
                r.images.push(r.images[0].clone());
                r
            },
            "images",
            "give exactly one; several images are not supported yet",
        ),
        (
            {
                let mut r = base.clone();
                r.images[0].name = "Identity".into();
                r
            },
            "images[0].name",
            "RFC 1123",
        ),
        (
            {
                let mut r = base.clone();
                r.images[0].repository.clear();
                r
            },
            "images[0].repository",
            "required",
        ),
        (
            {
                let mut r = base.clone();
                r.images[0].digest = "sha256:1".into();
                r
            },
            "images[0].digest",
            "64 lower-case",
        ),
    ] {
        let error = ErrorView::of(&client.apply_change(request).await.unwrap_err());
        assert_eq!(
            (error.code, error.field.as_str()),
            (Code::InvalidArgument, field),
            "{error:?}"
        );
        assert!(error.message.contains(words), "{error:?}");
    }
    // One without a name is the service's only image; with edits there may be none.
    let named = apply(&mut client, &base).await;
    let [image] = named.images.as_slice() else {
        panic!("{named:?}")
    };
    assert_eq!(
        (image.name.as_str(), image.repository.as_str(), image.tags.len()),
        ("identity", "r.example/identity", 1)
    );
    let mut without = set_tag("identity", "v2");
    without.images.clear();
    assert_eq!(apply(&mut client, &without).await.images, []);
    for (token, wanted) in [
        ("reader-token", Code::PermissionDenied),
        ("other-token", Code::PermissionDenied),
        ("wrong", Code::Unauthenticated),
    ] {
        let error = world::client(&running.url, token)
            .apply_change(base.clone())
            .await
            .unwrap_err();
        assert_eq!(error.code(), wanted, "{token}");
    }
    assert_eq!(
        client
            .cancel_change(CancelChangeRequest {
                id: "chg-none".into(),
                reason: String::new()
            })
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_repository_does_not_have_ends_failed() {
    let world = World::new("gitops-failures", &["identity"]);
    world
        .remote
        .commit(
            "main",
            "two",
            &[
                ("twice/kustomization.yaml", b"{}"),
                ("twice/Kustomization", b"{}"),
                ("bad/kustomization.yaml", b"images: ["),
            ],
        )
        .unwrap();
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let head = world.remote.head("main").unwrap();
    for (number, (repository, branch, path, name, code, words)) in [
        (
            "shop",
            "",
            "apps/identity/dev",
            "r.example/identity",
            "IMAGE_NOT_FOUND",
            "the names there: app",
        ),
        (
            "shop",
            "",
            "apps/identity/prod",
            "app",
            "FILE_NOT_FOUND",
            "apps/identity/prod: there is no such folder",
        ),
        (
            "shop",
            "",
            "apps/identity",
            "app",
            "FILE_NOT_FOUND",
            "has no kustomization",
        ),
        (
            "shop",
            "",
            "twice",
            "app",
            "FILE_INVALID",
            "several kustomizations",
        ),
        ("shop", "", "bad", "app", "FILE_INVALID", "not YAML"),
        (
            "shop",
            "nowhere",
            "apps/identity/dev",
            "app",
            "BRANCH_NOT_FOUND",
            "nowhere",
        ),
        (
            "gone",
            "",
            "apps/identity/dev",
            "app",
            "REPOSITORY_NOT_FOUND",
            "no-such-repository",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = set_tag("identity", "v1");
        request.request_id = format!("failure-{number}");
        request.repository = repository.to_owned();
        request.branch = branch.to_owned();
        if let Some(edit::Edit::KustomizeImage(edit)) = &mut request.edits[0].edit {
            edit.path = path.to_owned();
            edit.name = name.to_owned();
        }
        let change = applied(&mut client, &request).await;
        assert_status(&change, Status::Failed);
        let reason = change.reason.unwrap();
        assert_eq!(reason.code, code, "{reason:?}");
        assert!(reason.message.contains(words), "{reason:?}");
    }
    assert_eq!(world.remote.head("main").unwrap(), head);

    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_on_the_remote_is_seen_before_saying_no() {
    let world = World::new("gitops-fresh", &["identity"]);
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    applied(&mut client, &set_tag("identity", "v1")).await;
    // Added by somebody else after we last heard of the branch.
    let path = format!("{}/kustomization.yaml", folder("late"));
    world
        .remote
        .commit("main", "late", &[(path.as_str(), b"images:\n- name: app\n")])
        .unwrap();
    let change = applied(&mut client, &set_tag("late", "v1")).await;
    assert_status(&change, Status::Pushed);
    assert_eq!(world.file("late"), "images:\n- name: app\n  newTag: v1\n");
    running.stop().await;
}

async fn many_writers(database: &str, replicas: usize) {
    let services: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    let world = World::new("gitops-writers", &names);
    let mut running = Vec::new();
    for replica in 0..replicas {
        running.push(world.start(database, &replica.to_string()).await);
    }
    // Somebody else pushes all the while.
    let remote = world.remote.clone();
    let foreign = tokio::task::spawn_blocking(move || {
        let mut commits = Vec::new();
        for number in 0..15 {
            let file = format!("notes/{number}.txt");
            // Refused when the branch moved meanwhile: tried again, as a person would.
            loop {
                if let Ok(commit) = remote.commit("main", &format!("note {number}"), &[(file.as_str(), b"x")])
                {
                    commits.push(commit);
                    break;
                }
            }
        }
        commits
    });
    let mut tasks = Vec::new();
    for round in 0..4 {
        for (number, service) in services.iter().enumerate() {
            let mut client = running[(round + number) % replicas].client();
            let request = set_tag(service, &format!("v{round}"));
            tasks.push(tokio::spawn(async move { applied(&mut client, &request).await }));
        }
    }
    let mut commits = HashSet::new();
    let mut ids = Vec::new();
    for task in tasks {
        let change = task.await.unwrap();
        assert_status(&change, Status::Pushed);
        if !change.no_op {
            assert!(commits.insert(change.commit.clone()), "one commit each");
        }
        ids.push(change);
    }
    let foreign = foreign.await.unwrap();
    let log: HashSet<String> = world
        .remote
        .log("main")
        .unwrap()
        .into_iter()
        .map(|commit| commit.sha)
        .collect();
    for commit in &foreign {
        assert!(log.contains(commit), "a commit of somebody else was lost");
    }
    for change in &ids {
        assert!(log.contains(&change.commit));
        let trailer = format!("Slipway-Change: {}", change.id);
        assert_eq!(
            world.commits_with(&trailer),
            usize::from(!change.no_op),
            "{trailer}"
        );
    }
    assert_eq!(
        log.len(),
        1 + foreign.len() + commits.len(),
        "nothing else is on the branch"
    );
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_a_stranger_lose_nothing() {
    let dir = slipway_testbed::TestDir::new("gitops-writers-db").unwrap();
    many_writers(&format!("sqlite://{}", dir.path().join("x.db").display()), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_do_not_race_each_other() {
    let database = slipway_testbed::postgres()
        .await
        .unwrap()
        .create_database()
        .await
        .unwrap();
    many_writers(&database, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_dislikes_one_commit_refuses_only_that() {
    let world = World::new("gitops-hook", &["good", "bad", "fine"]);
    // Holds the first push until all changes wait, so that they are pushed together.
    world.hook(
        "pre-receive",
        &format!(
            "touch {gate}.seen; while [ ! -e {gate} ]; do sleep 0.02; done\n\
             while read old new ref; do\n\
             if git log --format=%s $old..$new | grep -q 'chore(bad)'; then echo 'policy: not on fridays' >&2; exit 1; fi\n\
             done",
            gate = world.path("gate").display()
        ),
    );
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let first = apply(&mut client, &set_tag("good", "v0")).await;
    appears(&world.path("gate.seen")).await;
    let waiting = [
        set_tag("good", "v1"),
        set_tag("bad", "v1"),
        set_tag("fine", "v1"),
        set_tag("fine", "v2"),
    ];
    let mut changes = Vec::new();
    for request in &waiting {
        changes.push(apply(&mut client, request).await);
    }
    // One of them is taken back while it waits.
    let cancel = CancelChangeRequest {
        id: changes[3].id.clone(),
        reason: "never mind".to_owned(),
    };
    let cancelled = client
        .cancel_change(cancel.clone())
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    assert_status(&cancelled, Status::Pending);
    std::fs::write(world.path("gate"), "").unwrap();

    assert_status(&finished(&mut client, &first.id).await, Status::Pushed);
    assert_status(&finished(&mut client, &changes[0].id).await, Status::Pushed);
    assert_status(&finished(&mut client, &changes[2].id).await, Status::Pushed);
    let bad = finished(&mut client, &changes[1].id).await;
    assert_status(&bad, Status::Failed);
    let reason = bad.reason.unwrap();
    assert_eq!(reason.code, "PUSH_REFUSED");
    assert!(reason.message.contains("policy: not on fridays"), "{reason:?}");
    let taken = finished(&mut client, &changes[3].id).await;
    assert_status(&taken, Status::Cancelled);
    assert_eq!(taken.reason.unwrap().code, "CANCELLED");
    assert!(world.file("bad").contains("'old'") && world.file("fine").contains("'v1'"));

    // What is over stays as it is.
    let pushed = CancelChangeRequest {
        id: changes[0].id.clone(),
        reason: String::new(),
    };
    assert_status(
        &client
            .cancel_change(pushed)
            .await
            .unwrap()
            .into_inner()
            .change
            .unwrap(),
        Status::Pushed,
    );
    let revert = RevertChangeRequest {
        id: changes[1].id.clone(),
        ..Default::default()
    };
    let error = ErrorView::of(&client.revert_change(revert).await.unwrap_err());
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::FailedPrecondition, "NOT_PUSHED")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_since_is_put_back_only_by_force() {
    let world = World::new("gitops-since", &["identity"]);
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let change = applied(&mut client, &set_tag("identity", "v1")).await;
    let path = format!("{}/kustomization.yaml", folder("identity"));
    let text = world.file("identity").replace("'v1'", "'hotfix'");
    world
        .remote
        .commit("main", "hotfix", &[(path.as_str(), text.as_bytes())])
        .unwrap();

    let undo = |force: bool| RevertChangeRequest {
        request_id: format!("undo-{force}"),
        id: change.id.clone(),
        force,
        ..Default::default()
    };
    let refused = client
        .revert_change(undo(false))
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    let refused = finished(&mut client, &refused.id).await;
    assert_status(&refused, Status::Failed);
    let reason = refused.reason.unwrap();
    assert_eq!(reason.code, "CHANGED_SINCE");
    assert!(reason.message.contains("r.example/identity:hotfix"), "{reason:?}");
    let forced = client
        .revert_change(undo(true))
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    assert_status(&finished(&mut client, &forced.id).await, Status::Pushed);
    assert_eq!(world.file("identity"), overlay("identity"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_rendered_at_exactly_one_commit() {
    let world = World::new("gitops-render", &["identity"]);
    world
        .remote
        .commit(
            "main",
            "remote base",
            &[
                (
                    "far/kustomization.yaml",
                    b"resources: ['https://example.com/x.yaml']\n",
                ),
                ("broken/kustomization.yaml", b"patches: [{path: nothing.yaml}]\n"),
            ],
        )
        .unwrap();
    let running = world.start(&world.sqlite(), "one").await;
    let mut client = running.client();
    let first = applied(&mut client, &set_tag("identity", "v1")).await.commit;
    let second = applied(&mut client, &set_tag("identity", "v2")).await.commit;
    let render = |commit: &str, path: &str| RenderManifestsRequest {
        repository: "shop".to_owned(),
        commit: commit.to_owned(),
        path: path.to_owned(),
    };
    // Twice: rendered, and remembered.
    for _ in 0..2 {
        for (commit, image) in [
            (&first, "r.example/identity:v1"),
            (&second, "r.example/identity:v2"),
        ] {
            let answer = client
                .render_manifests(render(commit, "apps/identity/dev"))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(&answer.commit, commit);
            assert!(
                answer.manifests.contains(&format!("image: {image}\n")),
                "{}",
                answer.manifests
            );
        }
    }
    for (commit, path, wanted) in [
        (first.as_str(), "apps/nothing", "FILE_NOT_FOUND"),
        (first.as_str(), "far", "OUTSIDE_REPOSITORY"),
        (first.as_str(), "broken", "RENDER_FAILED"),
        (SHA, "apps/identity/dev", "COMMIT_NOT_FOUND"),
    ] {
        let error = ErrorView::of(&client.render_manifests(render(commit, path)).await.unwrap_err());
        assert_eq!(
            (error.code, error.reason.as_str()),
            (Code::FailedPrecondition, wanted),
            "{error:?}"
        );
        assert!(!error.message.contains("/data-one"), "{error:?}");
    }
    running.stop().await;
}
