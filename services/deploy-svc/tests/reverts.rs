//! What a rollback asks of gitops-svc, and what it makes of the answers; against a server of its API that plays the
//! other side.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use deploy_domain::{
    catalog::{self, Mode, Strategy},
    deployment::{Revert, Source},
};
use deploy_svc::testing::{Changes, RevertOrder, RevertTarget, Reverting, Reverts};
use futures::stream::Empty;
use pretty_assertions::assert_eq;
use slipway_model::{Fault, Name, Principal, SpanId, TraceContext, TraceId};
use slipway_proto::{
    common::v1::{Image, Reason, WaitingOn},
    gitops::v1::{
        self as proto, Change, DesiredImage, Edit, KustomizeImage, ListChangesRequest, ListChangesResponse,
        Place, PullRequest, RevertChangeRequest,
        change::Status as ChangeStatus,
        edit,
        git_ops_service_server::{GitOpsService, GitOpsServiceServer},
    },
};
use slipway_server::{
    ClientConfig, Server, ServerConfig,
    config::{Action, PrincipalConfig, RoleConfig},
};
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// The other side: pages of changes, newest first, and what a revert comes to.
#[derive(Default)]
struct GitOps {
    pages: Vec<Vec<Change>>,
    /// The images that the head of the branch names.
    there: Vec<DesiredImage>,
    /// Where they were asked for.
    place: Mutex<Option<Place>>,
    revert: Mutex<Option<Result<Change, Status>>>,
    lists: Mutex<Vec<ListChangesRequest>>,
    reverts: Mutex<Vec<RevertChangeRequest>>,
}

#[derive(Clone)]
struct Api(Arc<GitOps>);

macro_rules! not_asked {
    ($($name:ident($request:ident) -> $response:ident;)*) => {$(
        fn $name<'life, 'future>(
            &'life self,
            _: Request<proto::$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<proto::$response>, Status>> + Send + 'future>>
        where
            'life: 'future,
            Self: 'future,
        {
            Box::pin(async { Err(Status::unimplemented("nobody asks for this")) })
        }
    )*};
}

#[tonic::async_trait]
impl GitOpsService for Api {
    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let request = request.into_inner();
        let page: usize = request.page_token.parse().unwrap_or(0);
        self.0.lists.lock().await.push(request);
        let more = page + 1 < self.0.pages.len();
        Ok(Response::new(ListChangesResponse {
            changes: self.0.pages.get(page).cloned().unwrap_or_default(),
            next_page_token: if more {
                (page + 1).to_string()
            } else {
                String::new()
            },
        }))
    }

    async fn revert_change(
        &self,
        request: Request<RevertChangeRequest>,
    ) -> Result<Response<proto::RevertChangeResponse>, Status> {
        self.0.reverts.lock().await.push(request.into_inner());
        let change = self.0.revert.lock().await.clone().unwrap()?;
        Ok(Response::new(proto::RevertChangeResponse {
            change: Some(change),
        }))
    }

    async fn get_change(
        &self,
        _: Request<proto::GetChangeRequest>,
    ) -> Result<Response<proto::GetChangeResponse>, Status> {
        let change = self.0.revert.lock().await.clone().unwrap()?;
        Ok(Response::new(proto::GetChangeResponse { change: Some(change) }))
    }

    async fn get_desired_state(
        &self,
        request: Request<proto::GetDesiredStateRequest>,
    ) -> Result<Response<proto::GetDesiredStateResponse>, Status> {
        *self.0.place.lock().await = request.into_inner().place;
        Ok(Response::new(proto::GetDesiredStateResponse {
            desired_images: self.0.there.clone(),
            ..proto::GetDesiredStateResponse::default()
        }))
    }

    type WatchChangeStream = Empty<Result<proto::WatchChangeResponse, Status>>;
    type StreamEventsStream = Empty<Result<proto::StreamEventsResponse, Status>>;

    async fn watch_change(
        &self,
        _: Request<proto::WatchChangeRequest>,
    ) -> Result<Response<Self::WatchChangeStream>, Status> {
        Err(Status::unimplemented("nobody asks for this"))
    }

    async fn stream_events(
        &self,
        _: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        Err(Status::unimplemented("nobody asks for this"))
    }

    not_asked! {
        apply_change(ApplyChangeRequest) -> ApplyChangeResponse;
        promote(PromoteRequest) -> PromoteResponse;
        cancel_change(CancelChangeRequest) -> CancelChangeResponse;
        diff_environments(DiffEnvironmentsRequest) -> DiffEnvironmentsResponse;
        render_manifests(RenderManifestsRequest) -> RenderManifestsResponse;
    }
}

/// The client of the other side, which ends with the guard.
async fn against(gitops: &Arc<GitOps>) -> (Changes, DropGuard) {
    let role = RoleConfig::everywhere(Action::ALL);
    let config = ServerConfig {
        principals: vec![PrincipalConfig::new("deploy", "token", vec![role]).unwrap()],
        ..ServerConfig::default()
    };
    let server = Server::builder("gitops-svc", &config, slipway_proto::DESCRIPTORS).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let service = GitOpsServiceServer::new(Api(Arc::clone(gitops)));
    tokio::spawn(server.service(service).serve(listener, shutdown.clone()));
    let channel = ClientConfig::new(&url, "token").connect("gitops").unwrap();
    (Changes::new(channel), shutdown.drop_guard())
}

fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

/// A change that is on its branch: `after` is what it wrote, `before` what stood there.
fn change(id: &str, commit: &str, after: &str, before: &str) -> Change {
    let previous = KustomizeImage {
        path: "apps/shop".to_owned(),
        name: "shop".to_owned(),
        new_name: "registry.example/shop".to_owned(),
        digest: if before.is_empty() {
            String::new()
        } else {
            digest(before)
        },
        new_tag: "0a1b2c3".to_owned(),
        ..KustomizeImage::default()
    };
    Change {
        id: id.to_owned(),
        commit: commit.to_owned(),
        status: ChangeStatus::Pushed.into(),
        images: vec![Image {
            name: "shop".to_owned(),
            repository: "registry.example/shop".to_owned(),
            digest: digest(after),
            tags: Vec::new(),
        }],
        previous: vec![Edit {
            edit: Some(edit::Edit::KustomizeImage(previous)),
        }],
        ..Change::default()
    }
}

fn trace() -> TraceContext {
    TraceContext {
        trace_id: TraceId::derived(&["test"]),
        span_id: SpanId::derived(&["test"]),
        sampled: true,
    }
}

/// A deployment of image `ab` at [`COMMIT`].
struct Lost {
    service: Name,
    environment: Name,
    source: Source,
    image: slipway_model::Image,
}

impl Lost {
    fn new() -> Self {
        Self {
            service: "shop".parse().unwrap(),
            environment: "dev".parse().unwrap(),
            source: Source {
                repository: "platform".parse().unwrap(),
                path: "apps/shop".to_owned(),
                commit: COMMIT.parse().unwrap(),
            },
            image: slipway_model::Image {
                name: "shop".parse().unwrap(),
                repository: "registry.example/shop".parse().unwrap(),
                digest: digest("ab").parse().unwrap(),
                tags: Vec::new(),
            },
        }
    }

    fn target(&self) -> RevertTarget<'_> {
        RevertTarget {
            service: &self.service,
            environment: &self.environment,
            source: &self.source,
            image: &self.image,
            trace: trace(),
        }
    }
}

/// Looks for the change behind it.
async fn find(pages: Vec<Vec<Change>>) -> (Result<(String, String), String>, Vec<ListChangesRequest>) {
    let gitops = Arc::new(GitOps {
        pages,
        ..GitOps::default()
    });
    let (changes, _guard) = against(&gitops).await;
    let found = match changes.find(&Lost::new().target()).await {
        Ok(found) => Ok((found.change.to_string(), found.image.digest.to_string())),
        Err(Fault::Permanent(reason)) => Err(reason.message),
        Err(fault) => panic!("{fault}"),
    };
    let lists = gitops.lists.lock().await.clone();
    (found, lists)
}

#[tokio::test]
async fn the_change_behind_a_deployment_is_found_by_its_commit() {
    let other = "2222222222222222222222222222222222222222";
    let pages = vec![
        vec![
            change("chg-4", other, "ee", "ab"),
            change("chg-3", other, "ab", "dd"),
        ],
        vec![
            change("chg-2", COMMIT, "ab", "cd"),
            change("chg-1", other, "cd", ""),
        ],
    ];
    let (found, lists) = find(pages).await;
    assert_eq!(found, Ok(("chg-2".to_owned(), digest("cd"))));
    assert_eq!(lists.len(), 2, "page by page");
    let asked = &lists[0];
    assert_eq!(
        (
            asked.service.as_str(),
            asked.environment.as_str(),
            asked.repository.as_str()
        ),
        ("shop", "dev", "platform")
    );
    assert_eq!(asked.status(), ChangeStatus::Pushed);

    // A deployment may name a later commit of the branch: then the newest change with its image is meant.
    let pages = vec![vec![
        change("chg-3", other, "ab", "dd"),
        change("chg-2", other, "ab", "cd"),
    ]];
    assert_eq!(find(pages).await.0, Ok(("chg-3".to_owned(), digest("dd"))));
}

#[tokio::test]
async fn where_nothing_is_to_go_back_to_the_words_say_why() {
    let other = "2222222222222222222222222222222222222222";
    let words = find(vec![vec![change("chg-1", other, "ee", "dd")]])
        .await
        .0
        .unwrap_err();
    assert!(
        words.contains("no change of gitops-svc brought shop to dev"),
        "{words}"
    );
    let words = find(vec![vec![change("chg-1", COMMIT, "ab", "")]])
        .await
        .0
        .unwrap_err();
    assert!(words.contains("no image by digest"), "{words}");
    let marker = Change {
        edits: vec![Edit {
            edit: Some(edit::Edit::Marker(proto::Marker {})),
        }],
        previous: Vec::new(),
        ..change("chg-1", COMMIT, "ab", "")
    };
    let words = find(vec![vec![marker]]).await.0.unwrap_err();
    assert!(
        words.contains("moving tag") && words.contains("release the commit before"),
        "{words}"
    );
    let same = Change {
        no_op: true,
        ..change("chg-1", COMMIT, "ab", "ab")
    };
    let words = find(vec![vec![same]]).await.0.unwrap_err();
    assert!(
        words.contains("no change of gitops-svc"),
        "one that changed nothing brought nothing: {words}"
    );
}

/// Why git has moved on from change `chg-2`, and where that was looked at.
async fn moved_on(
    strategy: Strategy,
    there: &[(&str, &str)],
    changes: Vec<Change>,
) -> (Option<String>, Option<Place>) {
    let there = there.iter().map(|(name, fill)| DesiredImage {
        name: (*name).to_owned(),
        image: "registry.example/shop".to_owned(),
        tag: "1a2b3c4".to_owned(),
        digest: digest(fill),
        ..DesiredImage::default()
    });
    let gitops = Arc::new(GitOps {
        pages: vec![changes],
        there: there.collect(),
        ..GitOps::default()
    });
    let (client, _guard) = against(&gitops).await;
    let place = catalog::GitOps {
        repository: "platform".parse().unwrap(),
        branch: None,
        path: "apps/shop".to_owned(),
        image: "shop".to_owned(),
        strategy,
        mode: Mode::Push,
    };
    let change = "chg-2".parse().unwrap();
    let lost = Lost::new();
    let moved_on = client.moved_on(&lost.target(), &place, &change).await.unwrap();
    let words = moved_on.map(|reason| {
        assert_eq!(reason.code, "CHANGED_SINCE");
        reason.message
    });
    (words, gitops.place.lock().await.clone())
}

#[tokio::test]
async fn git_has_moved_on_where_it_names_another_image_or_has_a_newer_change() {
    let made = || change("chg-2", COMMIT, "ab", "cd");
    let other = "2222222222222222222222222222222222222222";
    let by = |id: &str, status: ChangeStatus, no_op: bool| Change {
        status: status.into(),
        no_op,
        ..change(id, other, "ab", "ab")
    };
    let kustomize = || Strategy::Kustomize;
    let (none, place) = moved_on(kustomize(), &[("proxy", "ee"), ("shop", "ab")], vec![made()]).await;
    assert_eq!(none, None);
    let folder = proto::place::Place::Kustomization("apps/shop".to_owned());
    assert_eq!(place.and_then(|place| place.place), Some(folder));
    // What was refused, withdrawn, or changed nothing, is not a change.
    let without = vec![
        by("chg-5", ChangeStatus::Failed, false),
        by("chg-4", ChangeStatus::Cancelled, false),
        by("chg-3", ChangeStatus::Pushed, true),
        made(),
    ];
    assert_eq!(moved_on(kustomize(), &[("shop", "ab")], without).await.0, None);

    for (there, changes, words) in [
        (
            &[("proxy", "ab"), ("shop", "ee")][..],
            vec![made()],
            "it names registry.example/shop:1a2b3c4@sha256:ee",
        ),
        (&[], vec![made()], "it names no such image any more"),
        (
            &[("shop", "ab")],
            vec![by("chg-3", ChangeStatus::Pushed, false), made()],
            "chg-3 was written to dev after chg-2",
        ),
        (
            &[("shop", "ab")],
            vec![by("chg-3", ChangeStatus::Pending, false), made()],
            "chg-3 was written to dev after chg-2",
        ),
    ] {
        let told = moved_on(kustomize(), there, changes).await.0.unwrap();
        assert!(told.contains(words), "{words:?} in {told}");
    }

    let helm = Strategy::Helm {
        file: "charts/shop/values.yaml".to_owned(),
        value: "web.image".to_owned(),
    };
    let (none, place) = moved_on(helm, &[("web.image", "ab")], vec![made()]).await;
    assert_eq!(none, None, "a value has one image, whatever its name");
    let Some(proto::place::Place::Helm(at)) = place.and_then(|place| place.place) else {
        panic!("a value")
    };
    assert_eq!(
        (at.file.as_str(), at.path.as_str()),
        ("charts/shop/values.yaml", "web.image")
    );
}

#[tokio::test]
async fn a_revert_is_ordered_once_and_followed_to_its_end() {
    let gitops = Arc::new(GitOps::default());
    let (changes, _guard) = against(&gitops).await;
    let revert = Revert {
        change: "chg-1".parse().unwrap(),
        reason: "it crashes".to_owned(),
    };
    let alice = Principal::new("token", "alice");
    let order = RevertOrder {
        request_id: "dep-9/revert".to_owned(),
        revert: &revert,
        correlation_id: "dep-9",
        on_behalf_of: &alice,
        trace: trace(),
    };
    let waiting = Change {
        id: "chg-2".to_owned(),
        status: ChangeStatus::Pending.into(),
        waiting_on: Some(WaitingOn {
            message: "checks are running".to_owned(),
            ..WaitingOn::default()
        }),
        pull_request: Some(PullRequest {
            url: "https://git.example/pull/7".to_owned(),
            ..PullRequest::default()
        }),
        ..Change::default()
    };
    *gitops.revert.lock().await = Some(Ok(waiting.clone()));
    let pending = Reverting::Pending {
        change: "chg-2".parse().unwrap(),
        message: "checks are running (https://git.example/pull/7)".to_owned(),
    };
    assert_eq!(changes.revert(&order).await.unwrap(), pending);
    let asked = gitops.reverts.lock().await[0].clone();
    assert_eq!(
        (
            asked.request_id.as_str(),
            asked.id.as_str(),
            asked.force,
            asked.reason.as_str()
        ),
        ("dep-9/revert", "chg-1", false, "it crashes")
    );
    assert_eq!(
        (asked.correlation_id.as_str(), asked.on_behalf_of.as_str()),
        ("dep-9", "token/alice")
    );

    let id = "chg-2".parse().unwrap();
    assert_eq!(changes.observe(&id, trace()).await.unwrap(), pending);
    let pushed = Change {
        status: ChangeStatus::Pushed.into(),
        commit: COMMIT.to_owned(),
        ..waiting.clone()
    };
    *gitops.revert.lock().await = Some(Ok(pushed));
    let through = Reverting::Pushed {
        change: id.clone(),
        commit: COMMIT.parse().unwrap(),
    };
    assert_eq!(changes.observe(&id, trace()).await.unwrap(), through);

    for (status, code) in [
        (ChangeStatus::Failed, "CHANGED_SINCE"),
        (ChangeStatus::Errored, "CHANGED_SINCE"),
        (ChangeStatus::Cancelled, "CHANGED_SINCE"),
    ] {
        let ended = Change {
            status: status.into(),
            reason: Some(Reason {
                code: "CHANGED_SINCE".to_owned(),
                message: "someone changed the image since".to_owned(),
            }),
            ..waiting.clone()
        };
        *gitops.revert.lock().await = Some(Ok(ended));
        match changes.observe(&id, trace()).await.unwrap_err() {
            Fault::Permanent(reason) => assert_eq!(reason.code, code),
            other => panic!("{status:?}: {other}"),
        }
    }

    // What may be otherwise in a minute is asked again; what may not is not.
    *gitops.revert.lock().await = Some(Err(Status::unavailable("starting")));
    assert!(matches!(
        changes.revert(&order).await,
        Err(Fault::Transient { .. })
    ));
    *gitops.revert.lock().await = Some(Err(Status::failed_precondition("it is pending")));
    assert!(matches!(changes.revert(&order).await, Err(Fault::Permanent(_))));
}
