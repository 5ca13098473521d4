//! Approvals, policies and decisions as messages.

use approval_domain::{
    approval::{self, Approval, State, Verdict},
    policy::Policy,
};
use slipway_ledger::Snapshot;
use slipway_proto::{approval::v1 as proto, common::v1::waiting_on::Kind};
use slipway_server::convert as wire;

use super::subject;

/// A policy with its hash.
pub(super) fn policy(policy: &Policy) -> proto::Policy {
    proto::Policy {
        name: policy.name.to_string(),
        required: policy.required,
        approvers: policy.approvers.iter().map(ToString::to_string).collect(),
        exclude_requester: policy.exclude_requester,
        exclude_authors: policy.exclude_authors,
        expire_after: Some(wire::duration(policy.expire_after())),
        hash: policy.hash(),
    }
}

/// An approval without the bodies of its sections.
pub(super) fn approval(snapshot: &Snapshot<Approval>) -> proto::Approval {
    let state: &State = &snapshot.state;
    let mut message = proto::Approval {
        id: snapshot.id.to_string(),
        etag: snapshot.etag(),
        create_time: Some(wire::timestamp(snapshot.created_at)),
        end_time: state.ended_at.map(wire::timestamp),
        reason: state.reason.as_ref().map(wire::reason),
        decisions: state.decisions.iter().map(decision).collect(),
        retry: snapshot.retrying().as_ref().map(wire::retry),
        ..proto::Approval::default()
    };
    message.set_status(match state.status {
        approval::Status::Absent => proto::approval::Status::Unspecified,
        approval::Status::Pending => proto::approval::Status::Pending,
        approval::Status::Approved => proto::approval::Status::Approved,
        approval::Status::Rejected => proto::approval::Status::Rejected,
        approval::Status::Expired => proto::approval::Status::Expired,
        approval::Status::Cancelled => proto::approval::Status::Cancelled,
    });
    let Some(request) = &state.request else {
        return message;
    };
    message.subject = Some(subject::message(&request.subject));
    message.labels = request.labels.clone().into_iter().collect();
    message.correlation_id = request.correlation.clone();
    message.binding = request.binding.clone();
    message.policy = Some(policy(&request.policy));
    message.requested_by = Some(wire::actor(&request.requested_by));
    message.authors = request.authors.iter().map(ToString::to_string).collect();
    message.unmapped_authors = request.unmapped_authors.iter().cloned().collect();
    message.required = request.required;
    message.expire_time = Some(wire::timestamp(request.expires_at));
    message.waiting_on = state.waits_for().map(|waits_for| {
        wire::waiting_on(
            Kind::Human,
            snapshot.id.as_str(),
            state.requested_at.unwrap_or(snapshot.created_at),
            waits_for,
        )
    });
    message
}

fn decision(decision: &approval::Decision) -> proto::Decision {
    let verdict = match decision.verdict {
        Verdict::Approve => proto::decision::Verdict::Approve,
        Verdict::Reject => proto::decision::Verdict::Reject,
    };
    proto::Decision {
        verdict: verdict.into(),
        by: Some(wire::actor(&decision.by)),
        comment: decision.comment.clone(),
        time: Some(wire::timestamp(decision.at)),
    }
}
