//! build-svc as its callers see it, on real git, buildah, registries and databases.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod bed;
mod kill;

use bed::{Bed, FAILS, GOOD, READER, SLEEPS, client, ended, log, log_has, outcome, start, until};
use slipway_proto::build::v1::{
    self as proto,
    build::{Phase, Status},
};
use slipway_server::ErrorView;
use slipway_testbed::{Access, Registry, postgres};
use tonic::{Code, Status as GrpcStatus};

fn view<T: std::fmt::Debug>(result: Result<T, GrpcStatus>) -> (Code, String, String) {
    let view = ErrorView::of(&result.unwrap_err());
    (view.code, view.reason, view.field)
}

async fn journey(bed: Bed) {
    let commit = bed.commit(GOOD);
    let service = bed.start().await;
    let mut client = service.client();

    let mut request = bed.request(&commit);
    request.request_id = "once".into();
    request.labels.insert("team".into(), "identity".into());
    let first = start(&mut client, request.clone()).await;
    assert_eq!(
        start(&mut client, request.clone()).await.id,
        first.id,
        "the same request is the same build"
    );
    request.service = "elsewhere".into();
    assert_eq!(view(client.start_build(request).await).0, Code::AlreadyExists);

    let log = log(&mut client, &first.id).await;
    let build = ended(&mut client, &first.id).await;
    assert_eq!(outcome(&build), (Status::Succeeded, String::new()), "{log}");
    for words in [
        "slipway: fetching",
        "COPY program",
        "slipway: pushing team/app@",
        "slipway: tagged team/app:main",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let image = build.image.clone().unwrap();
    let time = build.create_time.unwrap();
    let tags: Vec<&str> = image.tags.iter().map(String::as_str).collect();
    assert_eq!(
        (tags[0], tags[1], tags[3], tags.len()),
        (commit.as_str(), &commit[..7], "main", 4)
    );
    let stamp = slipway_server::convert::from_timestamp(&time).unwrap().compact();
    assert_eq!(tags[2], stamp);
    let mut expected: Vec<_> = image
        .tags
        .iter()
        .map(|tag| (tag.clone(), image.digest.clone()))
        .collect();
    expected.sort();
    assert_eq!(bed.tags(), expected);
    assert!(
        std::fs::read_dir(bed.folder.path().join("work/images"))
            .unwrap()
            .next()
            .is_none(),
        "scratch space is free again"
    );

    // The same commit again is the same image: nothing is fetched or built, and it gets the new build's tags.
    let mut request = bed.request(&commit);
    request.spec.as_mut().unwrap().branch = "release/1".into();
    let same = start(&mut client, request).await;
    let log_of_same = self::log(&mut client, &same.id).await;
    let same = ended(&mut client, &same.id).await;
    assert_eq!(
        outcome(&same),
        (Status::Succeeded, String::new()),
        "{log_of_same}"
    );
    assert_eq!((&same.made_by, &same.authors), (&first.id, &build.authors));
    assert_eq!(same.image.as_ref().unwrap().digest, image.digest);
    assert!(!log_of_same.contains("slipway: fetching"), "{log_of_same}");
    let words = format!("slipway: {} has built this commit before", first.id);
    assert!(log_of_same.contains(&words), "{log_of_same}");
    assert!(
        bed.tags()
            .contains(&("release-1".to_owned(), image.digest.clone()))
    );

    // Other work on the same commit is not.
    let mut request = bed.request(&commit);
    request.spec.as_mut().unwrap().version = "1.2".into();
    let other_work = start(&mut client, request).await;
    let other_work = ended(&mut client, &other_work.id).await;
    assert_eq!(other_work.made_by, "");
    assert_ne!(other_work.image.as_ref().unwrap().digest, image.digest);

    // Built again on request: an image of its own, and the commit's tags stay where they are.
    let rebuild = proto::StartBuildRequest {
        rebuild: true,
        ..bed.request(&commit)
    };
    let second = start(&mut client, rebuild).await;
    let second = ended(&mut client, &second.id).await;
    assert_eq!(second.made_by, "");
    let other = second.image.clone().unwrap();
    assert_ne!(other.digest, image.digest);
    assert_eq!(second.status(), Status::Succeeded);
    assert!(bed.tags().contains(&(commit.clone(), image.digest.clone())));
    assert!(bed.tags().contains(&("main".to_owned(), other.digest.clone())));
    assert!(!other.tags.contains(&commit));

    // From then on that one is used, as long as it is there.
    let third = start(&mut client, bed.request(&commit)).await;
    let third = ended(&mut client, &third.id).await;
    assert_eq!(
        (&third.made_by, &third.image.as_ref().unwrap().digest),
        (&second.id, &other.digest)
    );
    bed.remove(&other.digest);
    let fourth = start(&mut client, bed.request(&commit)).await;
    let fourth = ended(&mut client, &fourth.id).await;
    assert_eq!(
        (&fourth.made_by, &fourth.image.as_ref().unwrap().digest),
        (&first.id, &image.digest)
    );
    let all = [fourth, third, second.clone(), other_work, same].map(|build| build.id);

    let list = |change: fn(&mut proto::ListBuildsRequest)| {
        let mut request = proto::ListBuildsRequest::default();
        change(&mut request);
        let mut client = client.clone();
        async move {
            let page = client.list_builds(request).await.unwrap().into_inner();
            page.builds.into_iter().map(|build| build.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        list(|_| {}).await,
        [&all[..], std::slice::from_ref(&first.id)].concat()
    );
    assert_eq!(
        list(|r| drop(r.labels.insert("team".into(), "identity".into()))).await,
        std::slice::from_ref(&first.id)
    );
    assert_eq!(list(|r| r.status = Status::Failed.into()).await, [""; 0]);

    let request = proto::StreamEventsRequest {
        cursor: String::new(),
        correlation_id: "rel-1".into(),
    };
    let mut events = client.stream_events(request).await.unwrap().into_inner();
    let mut types = Vec::new();
    while types
        .last()
        .is_none_or(|last| last != "dev.slipway.build.succeeded.v1")
    {
        types.extend(
            events
                .message()
                .await
                .unwrap()
                .unwrap()
                .event
                .map(|event| event.r#type),
        );
    }
    assert_eq!(types[0], "dev.slipway.build.requested.v2");
    assert!(types.contains(&"dev.slipway.build.pushed.v1".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn a_commit_becomes_an_image_with_its_names() {
    Box::pin(journey(Bed::new())).await;
}

#[tokio::test]
async fn a_commit_becomes_an_image_with_its_names_on_postgresql() {
    let mut bed = Bed::new();
    bed.database = Some(postgres().await.unwrap().create_database().await.unwrap());
    Box::pin(journey(bed)).await;
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let bed = Bed::new();
    let commit = bed.commit(GOOD);
    let service = bed.start().await;
    let mut client_ = service.client();
    type Change = fn(&mut proto::StartBuildRequest, &mut proto::BuildSpec);
    let cases: [(Change, &str); 12] = [
        (|r, _| r.service = "Not A Name".into(), "service"),
        (|r, _| r.request_id = "a b".into(), "request_id"),
        (|_, s| s.commit = "main".into(), "spec.commit"),
        (
            |_, s| s.repository_url = "ext::sh -c id".into(),
            "spec.repository_url",
        ),
        (
            |_, s| s.repository_url = "https://elsewhere.example/app.git".into(),
            "spec.repository_url",
        ),
        (|_, s| s.branch = "a..b".into(), "spec.branch"),
        (|_, s| s.image_name = "Team/App".into(), "spec.image_name"),
        (
            |_, s| s.image_name = "nowhere.example/app".into(),
            "spec.image_name",
        ),
        (|_, s| s.context = "../..".into(), "spec.context"),
        (|_, s| s.builder = "docker".into(), "spec.builder"),
        (
            |_, s| {
                s.timeout = Some(prost_types::Duration {
                    seconds: 99_999,
                    nanos: 0,
                });
            },
            "spec.timeout",
        ),
        (
            |_, s| drop(s.build_args.insert("VERSION".into(), "1".into())),
            "spec.build_args[\"VERSION\"]",
        ),
    ];
    for (change, field) in cases {
        let mut request = bed.request(&commit);
        let mut spec = request.spec.take().unwrap();
        change(&mut request, &mut spec);
        request.spec = Some(spec);
        let (code, _, at) = view(client_.start_build(request).await);
        assert_eq!((code, at.as_str()), (Code::InvalidArgument, field));
    }
    let mut request = bed.request(&commit);
    request.spec.as_mut().unwrap().builder = "docker".into();
    let words = client_
        .start_build(request)
        .await
        .unwrap_err()
        .message()
        .to_owned();
    assert!(words.contains("default, other"), "{words}");

    let get = |id: &str| proto::GetBuildRequest { id: id.into() };
    assert_eq!(view(client_.get_build(get("bld-none")).await).0, Code::NotFound);
    assert_eq!(
        view(client(&service.url, "wrong").get_build(get("bld-none")).await).0,
        Code::Unauthenticated
    );
    let mut reader = client(&service.url, READER);
    assert_eq!(
        view(reader.start_build(bed.request(&commit)).await).0,
        Code::PermissionDenied
    );

    let build = start(&mut client_, bed.request(&commit)).await;
    assert_eq!(
        view(reader.get_build(get(&build.id)).await).0,
        Code::PermissionDenied
    );
    service.stop().await;
}

#[tokio::test]
async fn what_fails_says_why() {
    let mut bed = Bed::new();
    let registry = Registry::start_with(Access::ReadOnly).await.unwrap();
    bed.registries = format!(
        "  - {{prefix: \"{}\", kind: oci, tls: plaintext}}\n",
        registry.address()
    );
    let (fails, good) = (bed.commit(FAILS), bed.commit(GOOD));
    let service = bed.start().await;
    let mut client = service.client();

    let build = start(&mut client, bed.request(&fails)).await;
    let build = ended(&mut client, &build.id).await;
    assert_eq!(outcome(&build), (Status::Failed, "BUILD_FAILED".into()));
    assert!(
        build.log_tail.iter().any(|line| line == "cannot go on"),
        "{:?}",
        build.log_tail
    );

    let build = start(&mut client, bed.request(&"1".repeat(40))).await;
    assert_eq!(
        outcome(&ended(&mut client, &build.id).await),
        (Status::Failed, "COMMIT_NOT_FOUND".into())
    );

    let mut request = bed.request(&good);
    request.spec.as_mut().unwrap().dockerfile = "absent".into();
    let build = start(&mut client, request).await;
    assert_eq!(
        outcome(&ended(&mut client, &build.id).await),
        (Status::Failed, "BUILD_FAILED".into())
    );

    let mut request = bed.request(&good);
    request.spec.as_mut().unwrap().image_name = registry.image("team/app");
    let build = start(&mut client, request.clone()).await;
    assert_eq!(
        outcome(&ended(&mut client, &build.id).await),
        (Status::Failed, "REGISTRY_REFUSED".into())
    );

    // The same registry, open: a second build of the same commit succeeds.
    registry.restart(Access::Open).await.unwrap();
    let build = start(&mut client, request).await;
    let build = ended(&mut client, &build.id).await;
    assert_eq!(outcome(&build), (Status::Succeeded, String::new()));
    assert_eq!(build.image.unwrap().tags.len(), 4);
    service.stop().await;
}

#[tokio::test]
async fn a_build_is_cancelled_or_runs_out_of_time_with_all_its_processes() {
    let bed = Bed::new();
    let commit = bed.commit(SLEEPS);
    let service = bed.start().await;
    let mut client = service.client();

    let build = start(&mut client, bed.request(&commit)).await;
    log_has(&mut client, &build.id, "running sleep").await;
    until(&mut client, &build.id, |build| build.phase() == Phase::Building).await;
    assert!(bed.processes() > 0);
    let request = proto::CancelBuildRequest {
        id: build.id.clone(),
        reason: "superseded".into(),
    };
    let build = client
        .cancel_build(request.clone())
        .await
        .unwrap()
        .into_inner()
        .build
        .unwrap();
    assert_eq!(outcome(&build), (Status::Cancelled, "CANCELLED".into()));
    assert_eq!(build.reason.clone().unwrap().message, "superseded");
    let again = client
        .cancel_build(request)
        .await
        .unwrap()
        .into_inner()
        .build
        .unwrap();
    assert_eq!(again, build, "a final build stays as it is");

    let mut request = bed.request(&commit);
    request.spec.as_mut().unwrap().timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let build = start(&mut client, request).await;
    assert_eq!(
        outcome(&ended(&mut client, &build.id).await),
        (Status::Errored, "TIMEOUT".into())
    );
    // The drain waits for what the effects still clean up.
    service.stop().await;
    assert_eq!(bed.processes(), 0);
    let left: Vec<_> = std::fs::read_dir(bed.folder.path().join("work"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["images"]);
}

#[tokio::test]
async fn a_build_outlives_its_registry_and_its_service() {
    let mut bed = Bed::new();
    let registry = Registry::start().await.unwrap();
    bed.registries = format!(
        "  - {{prefix: \"{}\", kind: oci, tls: plaintext}}\n",
        registry.address()
    );
    let commit = bed.commit(GOOD);
    let service = bed.start().await;
    let mut client = service.client();
    registry.stop().await;
    let mut request = bed.request(&commit);
    request.spec.as_mut().unwrap().image_name = registry.image("team/app");
    let build = start(&mut client, request).await;
    let waiting = until(&mut client, &build.id, |build| {
        build
            .waiting_on
            .as_ref()
            .is_some_and(|on| on.message.contains("next try"))
    })
    .await;
    assert_eq!(waiting.status(), Status::Running);
    service.stop().await;

    registry.restart(Access::Open).await.unwrap();
    let service = bed.start().await;
    let mut client = service.client();
    let done = ended(&mut client, &build.id).await;
    assert_eq!(outcome(&done), (Status::Succeeded, String::new()));
    assert_eq!(done.phase(), Phase::Unspecified);
    assert!(done.attempt >= 2, "{}", done.attempt);
    service.stop().await;
}
