//! The service in this process, on a real database and a real socket.
// Each test program needs a part of it.
#![allow(dead_code)]

use std::{collections::HashMap, sync::Arc};

use approval_svc::Config;
use async_trait::async_trait;
use slipway_events::{Bus, Envelope, Handler};
use slipway_model::Fault;
use slipway_proto::{
    approval::v1::{
        Approval, CommitRange, DecideRequest, GetApprovalRequest, RequestApprovalRequest, Scope, Subject,
        approval_service_client::ApprovalServiceClient, decision::Verdict, subject::Kind,
    },
    common::v1::Image,
};
use slipway_server::{Channel, TokenHash};
use slipway_testbed::{Database, InProcess};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

const ALL: &str = "[read, start, cancel, approve]";

/// Everyone has the token `<name>-token`.
fn config(database: &Database) -> String {
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
    format!(
        "server:\n  principals:\n{principals}\
         database: {{url: '{}'}}\n\
         policies:\n\
         \x20 automatic: {{required: 0, environments: [dev]}}\n\
         \x20 crowd: {{required: 6}}\n\
         \x20 open: {{required: 2}}\n\
         \x20 prod: {{required: 2, expire_after: 1h, approvers: [token/alice, token/bob, token/carol, token/dave, token/erin]}}\n\
         \x20 quick: {{required: 1, expire_after: 1s}}\n\
         people: {{dave@example.org: token/dave}}\n",
        database.url()
    )
}

/// A running replica.
pub(crate) struct Service(InProcess<Config>);

impl Service {
    pub(crate) async fn start(database: &Database) -> Self {
        let replica = InProcess::start("approval-svc", &config(database), approval_svc::run).await;
        Self(replica.unwrap())
    }

    /// Drains and waits for the end.
    pub(crate) async fn stop(self) {
        self.0.stop().await;
    }

    pub(crate) fn client(&self, name: &str) -> ApprovalServiceClient<Channel> {
        self.client_with(Some(&format!("{name}-token")))
    }

    pub(crate) fn client_with(&self, token: Option<&str>) -> ApprovalServiceClient<Channel> {
        ApprovalServiceClient::new(self.0.channel(token))
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
        let bus = self.0.bus().clone();
        tokio::spawn(async move {
            let forever = CancellationToken::new();
            bus.consume(&["approval"], "test", "one", Arc::new(Told(sender)), forever)
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
