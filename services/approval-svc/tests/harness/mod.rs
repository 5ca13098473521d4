//! The service in this process, on a real database and a real socket.
// Each test program needs a part of it.
#![allow(dead_code)]

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc};

use approval_svc::Config;
use async_trait::async_trait;
use slipway_events::{Bus, Envelope, Handler, MemoryBus};
use slipway_model::Fault;
use slipway_proto::{
    approval::v1::{
        Approval, CommitRange, DecideRequest, GetApprovalRequest, RequestApprovalRequest, Scope, Subject,
        approval_service_client::ApprovalServiceClient, decision::Verdict, subject::Kind,
    },
    common::v1::Image,
};
use slipway_server::{Channel, ClientConfig, RunError, TokenHash, Wiring};
use slipway_testbed::TestDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// An empty database that outlives services on it.
pub(crate) struct Database {
    url: String,
    /// Holds the file of SQLite.
    _folder: Option<TestDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = TestDir::new("approval").unwrap();
        let url = format!("sqlite://{}", folder.path().join("approvals.db").display());
        Self {
            url,
            _folder: Some(folder),
        }
    }

    /// Where SQLite keeps it.
    pub(crate) fn file(&self) -> PathBuf {
        self.url.strip_prefix("sqlite://").unwrap().into()
    }

    pub(crate) async fn postgres() -> Self {
        let url = slipway_testbed::postgres()
            .await
            .unwrap()
            .create_database()
            .await
            .unwrap();
        Self { url, _folder: None }
    }
}

const ALL: &str = "[read, start, cancel, approve]";

/// Everyone has the token `<name>-token`.
fn config(database: &Database) -> Config {
    let mut principals = String::new();
    let everywhere = |actions: &str| format!("{{actions: {actions}}}");
    for (name, role) in [
        ("alice", everywhere(ALL)),
        ("bob", everywhere("[read, approve]")),
        ("carol", everywhere("[read, approve]")),
        ("dave", everywhere("[read, approve]")),
        ("erin", everywhere("[read, approve]")),
        ("frank", everywhere("[read, approve]")),
        ("bot", everywhere("[read, start, approve, delegate]")),
        ("reader", everywhere("[read]")),
        ("mute", everywhere("[start]")),
        ("staging", format!("{{actions: {ALL}, environments: [staging]}}")),
    ] {
        let hash = String::from(TokenHash::of(&format!("{name}-token")));
        principals.push_str(&format!(
            "    - {{subject: {name}, token_sha256: {hash}, roles: [{role}]}}\n"
        ));
    }
    let text = format!(
        "server:\n  principals:\n{principals}\
         database: {{url: '{}'}}\n\
         policies:\n\
         \x20 automatic: {{required: 0, environments: [dev]}}\n\
         \x20 open: {{required: 2}}\n\
         \x20 prod: {{required: 2, expire_after: 1h, approvers: [token/alice, token/bob, token/carol, token/dave, token/erin]}}\n\
         \x20 quick: {{required: 1, expire_after: 1s}}\n\
         people: {{dave@example.org: token/dave}}\n",
        database.url
    );
    let config: Config = slipway_server::config::parse("test.yaml", &text).unwrap();
    config.check().unwrap();
    config
}

/// A running replica.
pub(crate) struct Service {
    address: SocketAddr,
    bus: MemoryBus,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Service {
    pub(crate) async fn start(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bus = MemoryBus::new(slipway_events::BusConfig::default());
        let shutdown = CancellationToken::new();
        let wiring = Wiring::new(
            listener,
            Arc::new(bus.clone()),
            slipway_telemetry::Service::disabled("approval-svc"),
        );
        let task = tokio::spawn(approval_svc::run(config(database), wiring, shutdown.clone()));
        Self {
            address,
            bus,
            shutdown,
            task,
        }
    }

    /// Drains and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub(crate) fn client(&self, name: &str) -> ApprovalServiceClient<Channel> {
        self.client_with(Some(&format!("{name}-token")))
    }

    pub(crate) fn client_with(&self, token: Option<&str>) -> ApprovalServiceClient<Channel> {
        let url = format!("http://{}", self.address);
        let config = match token {
            Some(token) => ClientConfig::new(url, token),
            None => ClientConfig {
                token: None,
                ..ClientConfig::new(url, "")
            },
        };
        ApprovalServiceClient::new(config.connect("approval").unwrap())
    }

    pub(crate) async fn ask(&self, name: &str, request: RequestApprovalRequest) -> Result<Approval, Status> {
        let answer = self.client(name).request_approval(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    pub(crate) async fn decide(&self, name: &str, request: DecideRequest) -> Result<Approval, Status> {
        Ok(self
            .client(name)
            .decide(request)
            .await?
            .into_inner()
            .approval
            .unwrap())
    }

    pub(crate) async fn get(&self, name: &str, id: &str) -> Result<Approval, Status> {
        let answer = self
            .client(name)
            .get_approval(GetApprovalRequest { id: id.to_owned() })
            .await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    /// What another service would be told over the bus.
    pub(crate) fn hints(&self) -> mpsc::UnboundedReceiver<Envelope> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (bus, shutdown) = (self.bus.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            bus.consume(&["approval"], "test", "one", Arc::new(Told(sender)), shutdown)
                .await;
        });
        receiver
    }
}

struct Told(mpsc::UnboundedSender<Envelope>);

#[async_trait]
impl Handler for Told {
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>> {
        self.0
            .send(event.clone())
            .map_err(|error| Fault::Permanent(error.to_string()))
    }
}

/// The types of the first `count` events about an approval.
pub(crate) async fn hinted(
    hints: &mut mpsc::UnboundedReceiver<Envelope>,
    id: &str,
    count: usize,
) -> Vec<String> {
    let mut types = Vec::new();
    while types.len() < count {
        let event = hints.recv().await.unwrap();
        if event.id().as_str() == id {
            types.push(event.type_name());
        }
    }
    types
}

/// Of the service `shop`.
pub(crate) fn release(environment: &str) -> Subject {
    Subject {
        kind: Kind::Release.into(),
        scope: Some(Scope {
            service: "shop".to_owned(),
            environment: environment.to_owned(),
            target: format!("{environment}/shop/Deployment/web"),
        }),
        images: vec![image()],
        commits: Some(CommitRange {
            repository_url: "https://git.example/shop.git".to_owned(),
            branch: "main".to_owned(),
            base: String::new(),
            head: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
        }),
        plan_hash: "plan-1".to_owned(),
        summary: format!("shop 1a2b3c4 to {environment}"),
        sections: Vec::new(),
    }
}

pub(crate) fn image() -> Image {
    Image {
        name: "shop".to_owned(),
        repository: "registry.example/shop".to_owned(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        tags: vec!["1a2b3c4".to_owned()],
    }
}

/// For the service `shop`, written by dave.
pub(crate) fn request(policy: &str, environment: &str) -> RequestApprovalRequest {
    RequestApprovalRequest {
        request_id: String::new(),
        policy: policy.to_owned(),
        subject: Some(release(environment)),
        on_behalf_of: String::new(),
        authors: vec!["Dave@example.org".to_owned()],
        correlation_id: String::new(),
        labels: HashMap::new(),
    }
}

pub(crate) fn decide(approval: &Approval, verdict: Verdict) -> DecideRequest {
    DecideRequest {
        id: approval.id.clone(),
        binding: approval.binding.clone(),
        verdict: verdict.into(),
        ..DecideRequest::default()
    }
}
