//! Why a command to an approval is refused.

use slipway_decider::{Decider as _, RefusalKind};
use slipway_model::{Id, Principal, Timestamp};

use super::{Approval, Status};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("approval {0} does not exist")]
    Absent(Id),
    #[error("approval {0} already exists")]
    Exists(Id),
    #[error("the approval is already {} and takes no more decisions", .0.as_str())]
    Final(Status),
    #[error("the approval expired at {0}; request a new one")]
    Expired(Timestamp),
    #[error(
        "the binding is not the one of this approval: the decision is for another subject or policy; read the approval again and decide with its binding"
    )]
    BindingMismatch,
    #[error("{0} requested the approval and may not decide on it under policy {1}")]
    SelfApproval(Principal, String),
    #[error("{0} is an author of the commit and may not decide on the approval under policy {1}")]
    AuthorApproval(Principal, String),
    #[error("{who} is not an approver of policy {policy}; its approvers are {approvers}")]
    NotAnApprover {
        who: Principal,
        policy: String,
        approvers: String,
    },
    #[error("{0} has already decided on this approval")]
    AlreadyDecided(Principal),
    #[error(
        "policy {policy} needs {} here, but {} ({because}); {remedy}",
        approvals(*.required),
        people(*.eligible)
    )]
    NotEnoughApprovers {
        policy: String,
        required: u32,
        eligible: usize,
        because: String,
        remedy: String,
    },
}

impl slipway_decider::Refusal for Refusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Absent(id) => RefusalKind::NotFound {
                kind: Approval::KIND,
                id: id.clone(),
            },
            Self::Exists(id) => RefusalKind::AlreadyExists {
                kind: Approval::KIND,
                id: id.clone(),
            },
            Self::Final(_) => RefusalKind::FailedPrecondition("FINAL"),
            Self::Expired(_) => RefusalKind::FailedPrecondition("EXPIRED"),
            Self::BindingMismatch => RefusalKind::FailedPrecondition("BINDING_MISMATCH"),
            Self::SelfApproval(..) => RefusalKind::FailedPrecondition("SELF_APPROVAL"),
            Self::AuthorApproval(..) => RefusalKind::FailedPrecondition("AUTHOR_APPROVAL"),
            Self::NotAnApprover { .. } => RefusalKind::FailedPrecondition("NOT_AN_APPROVER"),
            Self::AlreadyDecided(_) => RefusalKind::FailedPrecondition("ALREADY_DECIDED"),
            Self::NotEnoughApprovers { .. } => RefusalKind::FailedPrecondition("NOT_ENOUGH_APPROVERS"),
        }
    }
}

fn approvals(required: u32) -> String {
    match required {
        1 => "1 approval".to_owned(),
        more => format!("{more} approvals"),
    }
}

fn people(eligible: usize) -> String {
    match eligible {
        0 => "nobody may decide".to_owned(),
        1 => "only 1 person may decide".to_owned(),
        more => format!("only {more} people may decide"),
    }
}
