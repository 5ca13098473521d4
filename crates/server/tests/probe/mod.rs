//! A service that shows what the shell does to requests, served for real.

use std::{net::SocketAddr, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use slipway_proto::approval::v1::{
    Approval, CancelApprovalRequest, CancelApprovalResponse, DecideRequest, DecideResponse,
    GetApprovalRequest, GetApprovalResponse, ListApprovalsRequest, ListApprovalsResponse,
    ListPoliciesRequest, ListPoliciesResponse, RequestApprovalRequest, RequestApprovalResponse,
    StreamEventsRequest, StreamEventsResponse, WatchApprovalsRequest, WatchApprovalsResponse,
    approval_service_server::{ApprovalService, ApprovalServiceServer},
};
use slipway_server::{
    Action, Caller, Channel, ClientConfig, PrincipalConfig, RoleConfig, ServeError, Server, ServerConfig,
    convert,
};
use tokio::{
    sync::{Semaphore, broadcast},
    task::JoinHandle,
};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// alice may approve and read shop-* in staging, admin may do everything, and the principal "nobody" has no roles.
pub(crate) fn principals() -> Vec<PrincipalConfig> {
    let scoped = RoleConfig {
        actions: vec![Action::Approve, Action::Read],
        services: vec!["shop-*".to_owned()],
        environments: vec!["staging".to_owned()],
    };
    [
        ("alice", "alice-token", vec![scoped]),
        ("nobody", "nobody-token", Vec::new()),
        ("admin", "admin-token", vec![RoleConfig::everywhere(Action::ALL)]),
    ]
    .into_iter()
    .map(|(subject, token, roles)| PrincipalConfig::new(subject, token, roles).unwrap())
    .collect()
}

#[derive(Clone)]
pub(crate) struct Probe {
    entered: Arc<Semaphore>,
    release: Arc<Semaphore>,
    words: broadcast::Sender<String>,
}

impl Probe {
    /// Returns when a request for `wait` has reached its handler.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    /// Lets one such request finish.
    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }

    /// Sends a word to every watcher.
    pub(crate) fn tell(&self, word: &str) {
        self.words.send(word.to_owned()).unwrap();
    }
}

fn approval(id: String) -> Option<Approval> {
    Some(Approval {
        id,
        ..Approval::default()
    })
}

#[tonic::async_trait]
impl ApprovalService for Probe {
    async fn get_approval(
        &self,
        request: Request<GetApprovalRequest>,
    ) -> Result<Response<GetApprovalResponse>, Status> {
        let caller = Caller::of(&request)?;
        let words: Vec<&str> = request.get_ref().id.split(' ').collect();
        let answer = match words.as_slice() {
            ["whoami"] => caller.principal().to_string(),
            ["trace"] => convert::trace_context(&request)
                .map(|trace| trace.to_string())
                .unwrap_or_default(),
            ["authorization"] => request
                .metadata()
                .get("authorization")
                .map_or("none", |_| "some")
                .to_owned(),
            ["wait"] => {
                self.entered.add_permits(1);
                self.release.acquire().await.unwrap().forget();
                "waited".to_owned()
            }
            [action, service, environment] => {
                let action = Action::ALL
                    .into_iter()
                    .find(|known| known.to_string() == *action)
                    .unwrap();
                caller.require(action, service, environment)?;
                "allowed".to_owned()
            }
            _ => String::new(),
        };
        Ok(Response::new(GetApprovalResponse {
            approval: approval(answer),
        }))
    }

    type WatchApprovalsStream = BoxStream<'static, Result<WatchApprovalsResponse, Status>>;

    async fn watch_approvals(
        &self,
        _: Request<WatchApprovalsRequest>,
    ) -> Result<Response<Self::WatchApprovalsStream>, Status> {
        let words = BroadcastStream::new(self.words.subscribe());
        Ok(Response::new(
            words
                .map(|word| {
                    Ok(WatchApprovalsResponse {
                        approval: approval(word.unwrap()),
                    })
                })
                .boxed(),
        ))
    }

    type StreamEventsStream = BoxStream<'static, Result<StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        _: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn request_approval(
        &self,
        _: Request<RequestApprovalRequest>,
    ) -> Result<Response<RequestApprovalResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn decide(&self, _: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_approval(
        &self,
        _: Request<CancelApprovalRequest>,
    ) -> Result<Response<CancelApprovalResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_approvals(
        &self,
        _: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The probe behind a real server on a free port.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) probe: Probe,
    pub(crate) shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let probe = Probe {
            entered: Arc::new(Semaphore::new(0)),
            release: Arc::new(Semaphore::new(0)),
            words: broadcast::Sender::new(16),
        };
        let listener = tokio::net::TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = Server::builder("probe", &config, slipway_proto::DESCRIPTORS)
            .unwrap()
            .service(ApprovalServiceServer::new(probe.clone()));
        let task = tokio::spawn(server.serve(listener, shutdown.clone()));
        Self {
            address,
            probe,
            shutdown,
            task,
        }
    }

    pub(crate) fn channel(&self, token: &str) -> Channel {
        ClientConfig::new(format!("http://{}", self.address), token)
            .connect("probe")
            .unwrap()
    }

    pub(crate) fn anonymous(&self) -> Channel {
        let config = ClientConfig {
            token: None,
            ..ClientConfig::new(format!("http://{}", self.address), "")
        };
        config.connect("probe").unwrap()
    }

    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Drains and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}
