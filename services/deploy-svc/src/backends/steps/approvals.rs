//! approval-svc, as the backend of the gate step.

use async_trait::async_trait;
use deploy_domain::{
    catalog::{GitOps, Mode, Strategy},
    plan::PlannedEnvironment,
    release::{Facts, Observation, Waiting, WaitingKind},
};
use slipway_model::{Fault, Id, Image, Name, Reason};
use slipway_proto::approval::v1::{
    Approval, CancelApprovalRequest, CommitRange, GetApprovalRequest, RequestApprovalRequest, Scope, Section,
    Subject, Table, approval::Status, approval_service_client::ApprovalServiceClient, decision::Verdict,
    section::Body, subject::Kind, table::Row,
};
use slipway_server::{Channel, convert};

use super::{Order, StepBackend, Taken, calls};

const SERVICE: calls::Service = calls::Service("approval-svc");
/// Stands for the authors of an image that Slipway did not build: no person has this name, so the gate fails closed.
const UNKNOWN_AUTHOR: &str = "unknown";

#[derive(Debug, Clone)]
pub(crate) struct Approvals {
    client: ApprovalServiceClient<Channel>,
}

impl Approvals {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            client: ApprovalServiceClient::new(channel),
        }
    }
}

#[async_trait]
impl StepBackend for Approvals {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let (plan, planned, image) = (order.plan, order.planned()?, order.image()?);
        let subject = Subject {
            kind: Kind::Release.into(),
            scope: Some(Scope {
                service: plan.service.to_string(),
                environment: planned.name.to_string(),
                target: planned.target.key(),
            }),
            images: vec![convert::image(image)],
            commits: Some(CommitRange {
                repository_url: plan.repository_url.clone(),
                branch: plan.branch.as_ref().map(ToString::to_string).unwrap_or_default(),
                // What is running now is not known here.
                base: String::new(),
                head: plan.commit.to_string(),
            }),
            plan_hash: plan.hash.clone(),
            summary: format!("{} {} to {}", plan.service, plan.commit.short(), planned.name),
            sections: vec![what_changes(planned, image)],
        };
        let request = RequestApprovalRequest {
            request_id: order.request_id(),
            policy: planned.policy.to_string(),
            subject: Some(subject),
            on_behalf_of: order.requester(),
            authors: order
                .state
                .authors
                .clone()
                .unwrap_or_else(|| vec![UNKNOWN_AUTHOR.to_owned()]),
            correlation_id: order.release.to_string(),
            labels: Default::default(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let call = client.request_approval(request);
        let approval = SERVICE
            .resource("approval", call, |answer| answer.approval)
            .await?;
        Ok(Taken {
            reference: SERVICE.parse(&approval.id)?,
            observation: observation(&approval),
        })
    }

    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = GetApprovalRequest {
            id: reference.to_string(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let call = client.get_approval(request);
        let approval = SERVICE.resource("approval", call, |answer| answer.approval);
        Ok(observation(&approval.await?))
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = CancelApprovalRequest {
            id: reference.to_string(),
            reason: order.stop_message(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let call = client.cancel_approval(request);
        let approval = SERVICE.resource("approval", call, |answer| answer.approval);
        Ok(observation(&approval.await?))
    }
}

fn observation(approval: &Approval) -> Observation {
    let said = |verdict: Verdict| {
        let of_verdict = approval
            .decisions
            .iter()
            .filter(|decision| decision.verdict() == verdict);
        let names: Vec<&str> = of_verdict
            .map(|decision| convert::effective(decision.by.as_ref()))
            .collect();
        names.join(", ")
    };
    let reason = |fallback| calls::reason(approval.reason.clone(), fallback);
    match approval.status() {
        Status::Unspecified | Status::Pending => {
            let waiting = approval
                .waiting_on
                .as_ref()
                .map(|waiting| waiting.message.clone());
            let message = waiting.unwrap_or_else(|| "waits for approval".to_owned());
            let retry = calls::retry(approval.retry.clone());
            Observation::Pending(Waiting::new(WaitingKind::Human, message).retrying(retry))
        }
        Status::Approved if approval.decisions.is_empty() => {
            let policy = approval
                .policy
                .as_ref()
                .map(|policy| policy.name.as_str())
                .unwrap_or_default();
            Observation::Succeeded {
                result: format!("policy {policy} requires no approval"),
                facts: Facts::None,
            }
        }
        Status::Approved => {
            let result = format!("approved by {}", said(Verdict::Approve));
            Observation::Succeeded {
                result,
                facts: Facts::None,
            }
        }
        Status::Rejected => Observation::Failed(reason("APPROVAL_REJECTED")),
        Status::Expired => Observation::Failed(reason("APPROVAL_EXPIRED")),
        Status::Cancelled => Observation::Cancelled(reason("APPROVAL_CANCELLED")),
    }
}

/// The section that each approval of a release has: what the release writes, and where. The same for the same plan, so
/// that asking twice has the effect of asking once.
fn what_changes(planned: &PlannedEnvironment, image: &Image) -> Section {
    let columns = ["environment", "target", "image", "written to"];
    let cells = vec![
        planned.name.to_string(),
        target_cell(planned),
        image.reference().to_string(),
        match (&planned.gitops, &planned.written_with) {
            (None, _) => "the cluster alone".to_owned(),
            (Some(gitops), None) => written_to(gitops),
            (Some(gitops), Some(leader)) => format!("{}, in the commit of {leader}", written_to(gitops)),
        },
    ];
    Section {
        title: "What changes".to_owned(),
        source: "deploy-svc".to_owned(),
        body: Some(Body::Table(Table {
            columns: columns.map(str::to_owned).to_vec(),
            rows: vec![Row { cells }],
        })),
        ..Section::default()
    }
}

/// The target, and who else is there: what carries the images of other services is not what people approve.
fn target_cell(planned: &PlannedEnvironment) -> String {
    let others: Vec<&str> = planned.shared.services().map(Name::as_str).collect();
    let target = planned.target.key();
    if others.is_empty() {
        return target;
    }
    format!(
        "{target}: what runs this image, and nothing of {}",
        others.join(", ")
    )
}

fn written_to(gitops: &GitOps) -> String {
    let GitOps {
        repository,
        branch,
        path,
        image,
        strategy,
        mode,
    } = gitops;
    let place = match strategy {
        Strategy::Kustomize => format!("kustomization {path}, image {image}"),
        Strategy::Helm { file, value } => format!("{file}, value {value}"),
        Strategy::Manifest { file } => format!("{file}, image {image}"),
        Strategy::Marker => {
            "an empty commit; the target is restarted, and its pods must run this digest".to_owned()
        }
    };
    let branch = match branch {
        Some(branch) => format!(" on {branch}"),
        None => String::new(),
    };
    let by = match mode {
        Mode::Push => "",
        Mode::PullRequest => ", by pull request",
    };
    format!("repository {repository}{branch}: {place}{by}")
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use deploy_domain::{
        catalog::Catalog,
        plan::{Plan, PlanRequest},
    };

    const CATALOG: &str = r"
environments: [dev, staging, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, branch: main, path: apps/shop/dev, image: shop }
        target: { cluster: local, namespace: dev, kind: Deployment, name: shop }
      - name: staging
        policy: two
        gitops: { repository: platform, strategy: helm, file: charts/shop/staging.yaml, value: web.image, mode: pull_request }
        target: { cluster: local, namespace: argocd, kind: Application, name: shop }
      - name: prod
        policy: two
        target: { cluster: local, namespace: prod, kind: Deployment, name: shop }
  - name: mail
    repository: https://git.example/mail.git
    image: registry.example/mail
    environments:
      - name: staging
        policy: two
        gitops: { repository: platform, path: apps/mail }
        target: { cluster: local, namespace: argocd, kind: Application, name: shop }
";

    /// What approvers read, from the plan alone.
    #[test]
    fn approvers_see_what_is_written_where() {
        let request = PlanRequest {
            service: "shop".to_owned(),
            commit: "1".repeat(40).parse().unwrap(),
            branch: None,
            git_tag: None,
            environments: Vec::new(),
        };
        let plan = Plan::make(&Catalog::parse(CATALOG).unwrap(), &request).unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let image = Image {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
            digest: digest.parse().unwrap(),
            tags: Vec::new(),
        };
        let reference = format!("registry.example/shop@{digest}");
        let rows: Vec<Vec<String>> = plan
            .environments
            .iter()
            .map(|planned| {
                let section = what_changes(planned, &image);
                assert_eq!(
                    (section.title.as_str(), section.source.as_str()),
                    ("What changes", "deploy-svc")
                );
                let Some(Body::Table(mut table)) = section.body else {
                    panic!("it is a table")
                };
                assert_eq!(table.columns, ["environment", "target", "image", "written to"]);
                assert_eq!(table.rows.len(), 1);
                table.rows.remove(0).cells
            })
            .collect();
        assert_eq!(
            rows,
            [
                [
                    "dev",
                    "local/dev/Deployment/shop",
                    &reference,
                    "repository platform on main: kustomization apps/shop/dev, image shop"
                ],
                [
                    "staging",
                    "local/argocd/Application/shop: what runs this image, and nothing of mail",
                    &reference,
                    "repository platform: charts/shop/staging.yaml, value web.image, by pull request"
                ],
                [
                    "prod",
                    "local/prod/Deployment/shop",
                    &reference,
                    "the cluster alone"
                ],
            ]
        );
    }
}
