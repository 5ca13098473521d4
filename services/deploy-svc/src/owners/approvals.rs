//! approval-svc, as the owner of the gate step.

use async_trait::async_trait;
use slipway_model::{Fault, Id, Reason};
use slipway_proto::approval::v1::{
    Approval, CancelApprovalRequest, GetApprovalRequest, RequestApprovalRequest, Subject, approval::Status,
    approval_service_client::ApprovalServiceClient, decision::Verdict,
};
use slipway_server::Channel;

use super::{Order, Owner, Taken, calls};
use crate::release::{Facts, Observation, Waiting, WaitingKind};

const OWNER: &str = "approval-svc";
/// Stands for the authors of an image that Slipway did not build: nobody's name, so the gate fails closed.
const UNKNOWN_AUTHOR: &str = "unknown";

#[derive(Debug, Clone)]
pub struct Approvals {
    client: ApprovalServiceClient<Channel>,
}

impl Approvals {
    pub fn new(channel: Channel) -> Self {
        Self {
            client: ApprovalServiceClient::new(channel),
        }
    }
}

#[async_trait]
impl Owner for Approvals {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let (plan, planned, image) = (order.plan, order.planned()?, order.image()?);
        let subject = Subject {
            service: plan.service.to_string(),
            environment: planned.name.to_string(),
            target: planned.target.key(),
            digest: image.digest.to_string(),
            plan_hash: plan.hash.clone(),
            commit: plan.commit.to_string(),
            summary: format!("{} {} to {}", plan.service, plan.commit.short(), planned.name),
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
        let answer = self
            .client
            .clone()
            .request_approval(calls::request(request, order.trace()))
            .await;
        let approval = answer.map_err(calls::failed(OWNER))?.into_inner().approval;
        let approval = approval.ok_or_else(|| calls::malformed(OWNER, "no approval"))?;
        let reference = approval
            .id
            .parse::<Id>()
            .map_err(|error| calls::malformed(OWNER, error))?;
        Ok(Taken {
            reference,
            observation: observation(&approval),
        })
    }

    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = GetApprovalRequest {
            id: reference.to_string(),
        };
        let answer = self
            .client
            .clone()
            .get_approval(calls::request(request, order.trace()))
            .await;
        let approval = answer.map_err(calls::failed(OWNER))?.into_inner().approval;
        Ok(observation(
            &approval.ok_or_else(|| calls::malformed(OWNER, "no approval"))?,
        ))
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let reason = order
            .state
            .stop_ending()
            .map(|(_, reason)| reason.message)
            .unwrap_or_default();
        let request = CancelApprovalRequest {
            id: reference.to_string(),
            reason,
        };
        let answer = self
            .client
            .clone()
            .cancel_approval(calls::request(request, order.trace()))
            .await;
        let approval = answer.map_err(calls::failed(OWNER))?.into_inner().approval;
        Ok(observation(
            &approval.ok_or_else(|| calls::malformed(OWNER, "no approval"))?,
        ))
    }
}

fn observation(approval: &Approval) -> Observation {
    let said = |verdict: Verdict| {
        let of_verdict = approval
            .decisions
            .iter()
            .filter(|decision| decision.verdict() == verdict);
        let names: Vec<&str> = of_verdict
            .filter_map(|decision| decision.by.as_ref())
            .map(effective)
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
            Observation::Pending(Waiting {
                kind: WaitingKind::Human,
                message,
            })
        }
        Status::Approved if approval.decisions.is_empty() => {
            let policy = approval
                .policy
                .as_ref()
                .map(|policy| policy.name.as_str())
                .unwrap_or_default();
            Observation::Succeeded {
                result: format!("policy {policy} asks nobody"),
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

fn effective(actor: &slipway_proto::common::v1::Actor) -> &str {
    if actor.on_behalf_of.is_empty() {
        &actor.principal
    } else {
        &actor.on_behalf_of
    }
}
