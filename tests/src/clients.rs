//! The four APIs as a person uses them.

use std::path::PathBuf;

use futures::StreamExt;
use slipway_proto::deploy::v1::{
    Deployment, GetDeploymentRequest, deploy_service_client::DeployServiceClient,
};
use slipway_proto::{
    approval::v1::{
        Approval, DecideRequest, WatchApprovalsRequest, approval::Status as ApprovalStatus,
        approval_service_client::ApprovalServiceClient, decision::Verdict,
    },
    build::v1::{Build, GetBuildRequest, build_service_client::BuildServiceClient},
    gitops::v1::{Change, GetChangeRequest, git_ops_service_client::GitOpsServiceClient},
    release::v1::{
        GetReleaseRequest, Release, StartReleaseRequest, WatchReleaseRequest,
        release::Status as ReleaseStatus, release_service_client::ReleaseServiceClient,
    },
};
use slipway_server::{Channel, ClientConfig};
use tonic::{Code, Status};

use crate::within;

/// A person with a token: `<name>-token`.
pub type Person = &'static str;

/// Who may do what, the same in every service.
pub const PEOPLE: [(Person, &[&str]); 5] = [
    ("alice", &["read", "start", "cancel", "rollback", "approve"]),
    ("bob", &["read", "approve", "cancel"]),
    ("carol", &["read", "approve", "cancel"]),
    // Wrote the commits (see [`crate::scene`]); may approve others' work.
    ("author", &["read", "approve"]),
    ("reader", &["read"]),
];
/// Who may do everything, nothing, or everything on a part only: for what must be refused or omitted.
pub const SCOPED: [Scoped; 5] = [
    Scoped::everything("root"),
    Scoped {
        actions: &[],
        ..Scoped::everything("nobody")
    },
    Scoped {
        services: "other",
        ..Scoped::everything("other-service")
    },
    Scoped {
        environments: "other",
        ..Scoped::everything("other-environment")
    },
    // The first of several services, see `tests/contract`.
    Scoped {
        services: "one",
        ..Scoped::everything("of-one")
    },
];

/// A person with one role, or none if there is no action.
#[derive(Debug, Clone, Copy)]
pub struct Scoped {
    pub name: Person,
    pub actions: &'static [&'static str],
    /// Patterns, as in a role.
    pub services: &'static str,
    pub environments: &'static str,
}

impl Scoped {
    const fn everything(name: Person) -> Self {
        Self {
            name,
            actions: &[
                "read", "start", "cancel", "rollback", "approve", "delegate", "override", "operate",
            ],
            services: "*",
            environments: "*",
        }
    }
}

/// deploy-svc, as the other services know it.
pub const DRIVER: &str = "deploy-svc";

/// The token of a person or program.
pub fn token(name: &str) -> String {
    format!("{name}-token")
}

/// Where one replica of each service listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// URLs of build-svc, gitops-svc, approval-svc and deploy-svc.
    pub urls: [String; 4],
    /// Certificates to trust, where the URLs are `https`.
    pub ca_file: Option<PathBuf>,
}

/// One person's clients. They connect on first use, and again after a lost connection.
#[derive(Debug, Clone)]
pub struct Clients {
    pub builds: BuildServiceClient<Channel>,
    pub gitops: GitOpsServiceClient<Channel>,
    pub approvals: ApprovalServiceClient<Channel>,
    pub deployments: DeployServiceClient<Channel>,
    pub releases: ReleaseServiceClient<Channel>,
}

impl Clients {
    /// With the token of a person, or without one.
    pub fn new(addresses: &Addresses, token: Option<&str>) -> Self {
        let channel = |index: usize| {
            let mut config = ClientConfig::new(&addresses.urls[index], token.unwrap_or_default());
            if token.is_none() {
                config.token = None;
            }
            config.ca_file.clone_from(&addresses.ca_file);
            config.connect("test").unwrap()
        };
        let deploy = channel(3);
        // Answers may be as large as what is stored.
        Self {
            builds: BuildServiceClient::new(channel(0)),
            gitops: GitOpsServiceClient::new(channel(1)),
            approvals: ApprovalServiceClient::new(channel(2)),
            deployments: DeployServiceClient::new(deploy.clone()),
            releases: ReleaseServiceClient::new(deploy),
        }
    }

    /// Starts a release of a commit to all of the service's environments.
    pub async fn start(&self, service: &str, commit: &str) -> Release {
        let request = StartReleaseRequest {
            service: service.to_owned(),
            commit: commit.to_owned(),
            ..StartReleaseRequest::default()
        };
        self.try_start(request).await.unwrap()
    }

    /// Starts a release, or says why not.
    pub async fn try_start(&self, request: StartReleaseRequest) -> Result<Release, Status> {
        let answer = self.releases.clone().start_release(request).await?;
        Ok(answer.into_inner().release.unwrap())
    }

    /// The release as it is now.
    pub async fn release(&self, id: &str) -> Result<Release, Status> {
        let request = GetReleaseRequest { id: id.to_owned() };
        Ok(self
            .releases
            .clone()
            .get_release(request)
            .await?
            .into_inner()
            .release
            .unwrap())
    }

    /// Follows a release until `wanted` holds; asks again if the service went away meanwhile.
    pub async fn release_until(&self, id: &str, what: &str, wanted: impl Fn(&Release) -> bool) -> Release {
        let mut last = None;
        let follow = async {
            loop {
                let request = WatchReleaseRequest {
                    id: id.to_owned(),
                    etag: String::new(),
                };
                let mut stream = match self.releases.clone().watch_release(request).await {
                    Ok(answer) => answer.into_inner(),
                    Err(error) => {
                        pause(&error).await;
                        continue;
                    }
                };
                while let Some(item) = stream.next().await {
                    let release = match item {
                        Ok(item) => item.release.unwrap(),
                        Err(error) => {
                            pause(&error).await;
                            break;
                        }
                    };
                    if wanted(&release) {
                        return release;
                    }
                    let over = is_final(&release);
                    last = Some(release);
                    assert!(
                        !over,
                        "the release ended otherwise than {what}: {}",
                        told(last.as_ref())
                    );
                }
            }
        };
        match tokio::time::timeout(crate::patience(), follow).await {
            Ok(release) => release,
            Err(_) => panic!("{id} came not to be {what}: {}", told(last.as_ref())),
        }
    }

    /// Follows a release to its end.
    pub async fn finished(&self, id: &str) -> Release {
        self.release_until(id, "final", is_final).await
    }

    /// Waits until a release asks for an approval for an environment.
    pub async fn approval_for(&self, release: &str, environment: &str) -> Approval {
        let request = WatchApprovalsRequest {
            correlation_id: release.to_owned(),
            environment: environment.to_owned(),
            ..WatchApprovalsRequest::default()
        };
        within(
            &format!("a request for approval of {release} for {environment}"),
            async {
                loop {
                    let mut stream = match self.approvals.clone().watch_approvals(request.clone()).await {
                        Ok(answer) => answer.into_inner(),
                        Err(error) => {
                            pause(&error).await;
                            continue;
                        }
                    };
                    match stream.next().await {
                        Some(Ok(item)) => return item.approval.unwrap(),
                        Some(Err(error)) => pause(&error).await,
                        None => {}
                    }
                }
            },
        )
        .await
    }

    /// Approves exactly what the approval shows now.
    pub async fn approve(&self, approval: &Approval) -> Result<Approval, Status> {
        self.decide(approval, Verdict::Approve, "looks good").await
    }

    /// Rejects it.
    pub async fn reject(&self, approval: &Approval) -> Result<Approval, Status> {
        self.decide(approval, Verdict::Reject, "not today").await
    }

    async fn decide(&self, approval: &Approval, verdict: Verdict, comment: &str) -> Result<Approval, Status> {
        let request = DecideRequest {
            id: approval.id.clone(),
            verdict: verdict.into(),
            binding: approval.binding.clone(),
            comment: comment.to_owned(),
            ..DecideRequest::default()
        };
        Ok(self
            .approvals
            .clone()
            .decide(request)
            .await?
            .into_inner()
            .approval
            .unwrap())
    }

    /// A build as it is now.
    pub async fn build(&self, id: &str) -> Build {
        let request = GetBuildRequest { id: id.to_owned() };
        self.builds
            .clone()
            .get_build(request)
            .await
            .unwrap()
            .into_inner()
            .build
            .unwrap()
    }

    /// A change as it is now.
    pub async fn change(&self, id: &str) -> Change {
        let request = GetChangeRequest { id: id.to_owned() };
        self.gitops
            .clone()
            .get_change(request)
            .await
            .unwrap()
            .into_inner()
            .change
            .unwrap()
    }

    /// A deployment as it is now.
    pub async fn deployment(&self, id: &str) -> Deployment {
        let request = GetDeploymentRequest { id: id.to_owned() };
        self.deployments
            .clone()
            .get_deployment(request)
            .await
            .unwrap()
            .into_inner()
            .deployment
            .unwrap()
    }
}

/// Transient faults are waited out; others fail the test.
async fn pause(error: &Status) {
    let passing = [
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
        Code::Internal,
        Code::DeadlineExceeded,
        Code::NotFound,
    ];
    assert!(passing.contains(&error.code()), "{error}");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

/// Whether a release has ended.
pub fn is_final(release: &Release) -> bool {
    !matches!(
        release.status(),
        ReleaseStatus::Unspecified | ReleaseStatus::Running
    )
}

/// Whether an approval is pending.
pub fn is_pending(approval: &Approval) -> bool {
    approval.status() == ApprovalStatus::Pending
}

/// What a release says about itself, in a few lines.
pub fn told(release: Option<&Release>) -> String {
    let Some(release) = release else {
        return "nothing is known of it".to_owned();
    };
    let mut text = format!("{} is {}", release.id, release.status().as_str_name());
    if let Some(reason) = &release.reason {
        text += &format!(" ({}: {})", reason.code, reason.message);
    }
    if let Some(waiting) = &release.waiting_on {
        text += &format!(", waits for {} {}", waiting.r#ref, waiting.message);
    }
    for step in &release.steps {
        text += &format!(
            "\n  {} {}#{} {}",
            step.name,
            step.status().as_str_name(),
            step.attempt,
            step.r#ref
        );
        if let Some(reason) = &step.reason {
            text += &format!(" ({}: {})", reason.code, reason.message);
        }
    }
    text
}
