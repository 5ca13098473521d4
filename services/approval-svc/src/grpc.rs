//! The gRPC API: protobuf to commands, states to protobuf.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use slipway_ledger::{Ledger, ListFilter, Meta, Request as Key, Snapshot};
use slipway_model::{Actor, Id, Name};
use slipway_proto::{
    approval::v1::{self as proto, approval_service_server::ApprovalService},
    common::v1::waiting_on::Kind,
};
use slipway_server::{Action, ApiError, Caller, convert, ledger::list_page, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    approval::{self, Approval, Asked, Command, Refusal, State, Verdict},
    config::{Config, PolicyConfig},
    people::{MAX_AUTHOR, MAX_AUTHORS, People},
    policy::{Policy, Subject},
    watch::{self, Wanted},
};

pub(crate) struct Api {
    ledger: Ledger,
    policies: Arc<BTreeMap<Name, PolicyConfig>>,
    people: People,
}

impl Api {
    pub(crate) fn new(ledger: Ledger, config: &Config) -> Self {
        Self {
            ledger,
            policies: Arc::new(config.policies.clone()),
            people: People::of(config),
        }
    }

    /// The approval, if the caller may do `action` with it.
    async fn approval(
        &self,
        caller: &Caller,
        id: &str,
        action: Action,
    ) -> Result<Snapshot<Approval>, ApiError> {
        // A text that is no id names nothing that exists.
        let absent = || ApiError::not_found("approval", id);
        let parsed: Id = convert::field("id", id)?;
        let snapshot = self.ledger.get::<Approval>(&parsed).await?.ok_or_else(absent)?;
        let subject = &snapshot.state.asked.as_ref().ok_or_else(absent)?.subject;
        caller.require(action, subject.service.as_str(), subject.environment.as_str())?;
        Ok(snapshot)
    }

    async fn request(
        &self,
        caller: Caller,
        meta: impl FnOnce(Actor) -> Meta + Send,
        request: proto::RequestApprovalRequest,
    ) -> Result<proto::Approval, ApiError> {
        let subject = subject(&convert::message("subject", request.subject)?)?;
        let (service, environment) = (subject.service.as_str(), subject.environment.as_str());
        caller.require(Action::Start, service, environment)?;
        let by = caller.actor(&request.on_behalf_of, service, environment)?;
        let policy = self.policy(&request.policy, &subject)?;
        if request.authors.len() > MAX_AUTHORS
            || request.authors.iter().any(|author| author.len() > MAX_AUTHOR)
        {
            let message = format!("give at most {MAX_AUTHORS}, each of at most {MAX_AUTHOR} bytes");
            return Err(ApiError::invalid("authors", message));
        }
        let authors = self.people.resolve(request.authors.iter().map(String::as_str));
        let correlation = convert::key("correlation_id", &request.correlation_id)?;
        let labels = convert::labels(request.labels)?;
        let request_id = convert::key("request_id", &request.request_id)?;
        // What the caller said, not what our configuration makes of it: that may differ when it asks again.
        let said = (
            &subject,
            policy.name.as_str(),
            &by,
            &request.authors,
            &correlation,
            &labels,
        );
        let key = Key::new(caller.principal(), "RequestApproval", request_id, &said);
        let meta = meta(by.clone());
        let asked = approval::Request {
            subject: subject.clone(),
            policy,
            requested_by: by,
            authors: authors.principals,
            unmapped_authors: authors.unmapped,
            correlation: correlation.clone(),
            labels: labels.clone(),
        };
        let command = || Command::Request(Box::new(asked.clone()));
        let done = self
            .ledger
            .execute_once::<Approval>(&key, &Id::generate("apr"), command, &meta)
            .await?;
        Ok(approval(&done.snapshot))
    }

    fn policy(&self, name: &str, subject: &Subject) -> Result<Policy, ApiError> {
        let (service, environment) = (&subject.service, &subject.environment);
        let found = name
            .parse::<Name>()
            .ok()
            .and_then(|name| self.policies.get_key_value(&name));
        match found {
            Some((name, policy)) if policy.covers(service, environment) => Ok(policy.policy(name)),
            _ => {
                let usable: Vec<&str> = self
                    .policies
                    .iter()
                    .filter(|(_, policy)| policy.covers(service, environment))
                    .map(|(name, _)| name.as_str())
                    .collect();
                let problem = if found.is_some() {
                    format!("{name} is not for {service} in {environment}")
                } else {
                    let shown: String = name.chars().take(63).collect();
                    format!("{shown:?} does not exist")
                };
                Err(ApiError::invalid(
                    "policy",
                    format!("{problem}; those for it are: {}", usable.join(", ")),
                ))
            }
        }
    }

    async fn decision(
        &self,
        caller: Caller,
        meta: impl FnOnce(Actor) -> Meta + Send,
        request: proto::DecideRequest,
    ) -> Result<proto::Approval, ApiError> {
        let verdict = match request.verdict() {
            proto::decision::Verdict::Approve => Verdict::Approve,
            proto::decision::Verdict::Reject => Verdict::Reject,
            proto::decision::Verdict::Unspecified => {
                return Err(ApiError::invalid(
                    "verdict",
                    "is required: VERDICT_APPROVE or VERDICT_REJECT",
                ));
            }
        };
        let binding: String = convert::field("binding", &request.binding)?;
        let comment = convert::text("comment", &request.comment)?;
        let request_id = convert::key("request_id", &request.request_id)?;
        let snapshot = self.approval(&caller, &request.id, Action::Approve).await?;
        let by = self.decider(&caller, &request.on_behalf_of, snapshot.state.asked.as_ref())?;

        let said = (&snapshot.id, verdict, &binding, &comment, &by);
        let key = Key::new(caller.principal(), "Decide", request_id, &said);
        let meta = meta(by.clone());
        let command = || Command::Decide {
            verdict,
            binding: binding.clone(),
            by: by.clone(),
            comment: comment.clone(),
        };
        let done = self
            .ledger
            .execute_once::<Approval>(&key, &snapshot.id, command, &meta)
            .await?;
        Ok(approval(&done.snapshot))
    }

    /// Whose word it is. Where the policy leaves it to roles, a person that a bot speaks for must hold the role too, or a
    /// bot could make up as many people as the policy asks for.
    fn decider(&self, caller: &Caller, on_behalf_of: &str, asked: Option<&Asked>) -> Result<Actor, ApiError> {
        let Some(asked) = asked else {
            return Err(Refusal::Absent.into());
        };
        let (service, environment) = (asked.subject.service.as_str(), asked.subject.environment.as_str());
        let by = caller.actor(on_behalf_of, service, environment)?;
        if let Some(person) = &by.on_behalf_of
            && asked.policy.approvers.is_empty()
            && !caller.other_may(person, Action::Approve, service, environment)
        {
            let message =
                format!("{person} may not approve on service {service} in environment {environment}");
            return Err(ApiError::Denied { message });
        }
        Ok(by)
    }

    async fn cancellation(
        &self,
        caller: Caller,
        meta: impl FnOnce(Actor) -> Meta + Send,
        request: proto::CancelApprovalRequest,
    ) -> Result<proto::Approval, ApiError> {
        let comment = convert::text("reason", &request.reason)?;
        let snapshot = self.approval(&caller, &request.id, Action::Cancel).await?;
        let by = Actor::direct(caller.principal().clone());
        let meta = meta(by.clone());
        let command = || Command::Cancel {
            by: by.clone(),
            comment: comment.clone(),
        };
        Ok(approval(
            &self
                .ledger
                .execute::<Approval>(&snapshot.id, command, &meta)
                .await?,
        ))
    }

    async fn list(
        &self,
        caller: Caller,
        request: proto::ListApprovalsRequest,
    ) -> Result<proto::ListApprovalsResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let filter = ListFilter {
            status: status_filter(request.status())?
                .iter()
                .map(|status| status.as_str().to_owned())
                .collect(),
            service: name_filter("service", &request.service)?,
            environment: name_filter("environment", &request.environment)?,
            correlation: Some(convert::key("correlation_id", &request.correlation_id)?)
                .filter(|id| !id.is_empty()),
            labels: convert::labels(request.labels)?,
            not_final: false,
        };
        let page = list_page(request.page_size, &request.page_token)?;
        let list = self.ledger.list_of::<Approval>(&filter, &page).await?;
        // A page may hold fewer than asked for: what the caller may not read is left out.
        let visible = list.items.iter().filter(|snapshot| {
            let index = <Approval as slipway_ledger::Decider>::index(&snapshot.state);
            caller.may(Action::Read, &index.service, &index.environment)
        });
        Ok(proto::ListApprovalsResponse {
            approvals: visible.map(approval).collect(),
            next_page_token: list.next_page_token,
        })
    }

    async fn watch(
        &self,
        caller: Caller,
        request: proto::WatchApprovalsRequest,
    ) -> Result<BoxStream<'static, Result<proto::WatchApprovalsResponse, Status>>, ApiError> {
        let shown = |snapshot: Snapshot<Approval>| proto::WatchApprovalsResponse {
            approval: Some(approval(&snapshot)),
        };
        if !request.id.is_empty() {
            let snapshot = self.approval(&caller, &request.id, Action::Read).await?;
            let states = self.ledger.watch::<Approval>(&snapshot.id, None);
            return Ok(states
                .map_ok(shown)
                .map_err(|error| ApiError::from(error).into())
                .boxed());
        }
        caller.require_somewhere(Action::Read)?;
        let wanted = Wanted {
            service: name_filter("service", &request.service)?,
            environment: name_filter("environment", &request.environment)?,
            status: status_filter(request.status())?,
            correlation: Some(convert::key("correlation_id", &request.correlation_id)?)
                .filter(|id| !id.is_empty()),
        };
        let states = watch::all(self.ledger.clone(), caller, wanted);
        Ok(states.map_ok(shown).map_err(Status::from).boxed())
    }
}

#[tonic::async_trait]
impl ApprovalService for Api {
    async fn request_approval(
        &self,
        request: Request<proto::RequestApprovalRequest>,
    ) -> Result<Response<proto::RequestApprovalResponse>, Status> {
        let (caller, meta) = (Caller::of(&request)?, meta(&request));
        let approval = Some(self.request(caller, meta, request.into_inner()).await?);
        Ok(Response::new(proto::RequestApprovalResponse { approval }))
    }

    async fn decide(
        &self,
        request: Request<proto::DecideRequest>,
    ) -> Result<Response<proto::DecideResponse>, Status> {
        let (caller, meta) = (Caller::of(&request)?, meta(&request));
        let approval = Some(self.decision(caller, meta, request.into_inner()).await?);
        Ok(Response::new(proto::DecideResponse { approval }))
    }

    async fn cancel_approval(
        &self,
        request: Request<proto::CancelApprovalRequest>,
    ) -> Result<Response<proto::CancelApprovalResponse>, Status> {
        let (caller, meta) = (Caller::of(&request)?, meta(&request));
        let approval = Some(self.cancellation(caller, meta, request.into_inner()).await?);
        Ok(Response::new(proto::CancelApprovalResponse { approval }))
    }

    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Result<Response<proto::GetApprovalResponse>, Status> {
        let caller = Caller::of(&request)?;
        let snapshot = self
            .approval(&caller, &request.get_ref().id, Action::Read)
            .await?;
        Ok(Response::new(proto::GetApprovalResponse {
            approval: Some(approval(&snapshot)),
        }))
    }

    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.list(caller, request.into_inner()).await?))
    }

    type WatchApprovalsStream = BoxStream<'static, Result<proto::WatchApprovalsResponse, Status>>;

    async fn watch_approvals(
        &self,
        request: Request<proto::WatchApprovalsRequest>,
    ) -> Result<Response<Self::WatchApprovalsStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.watch(caller, request.into_inner()).await?))
    }

    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        Caller::of(&request)?.require_somewhere(Action::Read)?;
        let policies = self
            .policies
            .iter()
            .map(|(name, config)| policy(&config.policy(name)))
            .collect();
        Ok(Response::new(proto::ListPoliciesResponse { policies }))
    }

    type StreamEventsStream = BoxStream<'static, Result<proto::StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let proto::StreamEventsRequest {
            cursor,
            correlation_id,
        } = request.into_inner();
        let events = stream_events_to(caller, &self.ledger, &cursor, &correlation_id, &[])?;
        Ok(Response::new(
            events
                .map_ok(|event| proto::StreamEventsResponse { event })
                .boxed(),
        ))
    }
}

/// Who did it is known later than within which trace.
fn meta<T>(request: &Request<T>) -> impl FnOnce(Actor) -> Meta + Send + use<T> {
    let trace = convert::trace_context(request);
    move |actor| Meta::new(actor, trace)
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal {
            Refusal::Absent => return ApiError::not_found("approval", ""),
            // Ids are made here and never twice.
            Refusal::Exists => {
                return ApiError::Conflict {
                    message: refusal.to_string(),
                };
            }
            Refusal::Final(_) => "FINAL",
            Refusal::Expired(_) => "EXPIRED",
            Refusal::BindingMismatch => "BINDING_MISMATCH",
            Refusal::SelfApproval(..) => "SELF_APPROVAL",
            Refusal::AuthorApproval(..) => "AUTHOR_APPROVAL",
            Refusal::NotAnApprover { .. } => "NOT_AN_APPROVER",
            Refusal::AlreadyDecided(_) => "ALREADY_DECIDED",
            Refusal::NotEnoughApprovers { .. } => "NOT_ENOUGH_APPROVERS",
        };
        ApiError::precondition(reason, refusal)
    }
}

fn subject(subject: &proto::Subject) -> Result<Subject, ApiError> {
    Ok(Subject {
        service: convert::field("subject.service", &subject.service)?,
        environment: convert::field("subject.environment", &subject.environment)?,
        target: convert::text("subject.target", &subject.target)?,
        digest: convert::optional("subject.digest", &subject.digest)?,
        plan_hash: convert::key("subject.plan_hash", &subject.plan_hash)?,
        commit: convert::optional("subject.commit", &subject.commit)?,
        summary: convert::text("subject.summary", &subject.summary)?,
    })
}

fn name_filter(field: &str, text: &str) -> Result<Option<String>, ApiError> {
    Ok(convert::name_filter(field, text)?.map(String::from))
}

fn status_filter(status: proto::approval::Status) -> Result<Option<approval::Status>, ApiError> {
    Ok(match status {
        proto::approval::Status::Unspecified => None,
        proto::approval::Status::Pending => Some(approval::Status::Pending),
        proto::approval::Status::Approved => Some(approval::Status::Approved),
        proto::approval::Status::Rejected => Some(approval::Status::Rejected),
        proto::approval::Status::Expired => Some(approval::Status::Expired),
        proto::approval::Status::Cancelled => Some(approval::Status::Cancelled),
    })
}

fn policy(policy: &Policy) -> proto::Policy {
    proto::Policy {
        name: policy.name.to_string(),
        required: policy.required,
        approvers: policy.approvers.iter().map(ToString::to_string).collect(),
        exclude_requester: policy.exclude_requester,
        exclude_authors: policy.exclude_authors,
        expire_after_seconds: policy.expire_after_seconds,
        hash: policy.hash(),
    }
}

fn approval(snapshot: &Snapshot<Approval>) -> proto::Approval {
    let state: &State = &snapshot.state;
    let mut shown = proto::Approval {
        id: snapshot.id.to_string(),
        etag: snapshot.etag(),
        create_time: Some(convert::timestamp(snapshot.created_at)),
        end_time: state.ended_at.map(convert::timestamp),
        reason: state
            .reason
            .as_ref()
            .map(|reason| convert::reason(&reason.code, &reason.message)),
        decisions: state.decisions.iter().map(decision).collect(),
        ..proto::Approval::default()
    };
    shown.set_status(match state.status {
        approval::Status::Absent => proto::approval::Status::Unspecified,
        approval::Status::Pending => proto::approval::Status::Pending,
        approval::Status::Approved => proto::approval::Status::Approved,
        approval::Status::Rejected => proto::approval::Status::Rejected,
        approval::Status::Expired => proto::approval::Status::Expired,
        approval::Status::Cancelled => proto::approval::Status::Cancelled,
    });
    let Some(asked) = &state.asked else { return shown };
    let subject = &asked.subject;
    shown.subject = Some(proto::Subject {
        service: subject.service.to_string(),
        environment: subject.environment.to_string(),
        target: subject.target.clone(),
        digest: subject
            .digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        plan_hash: subject.plan_hash.clone(),
        commit: subject
            .commit
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        summary: subject.summary.clone(),
    });
    shown.labels = asked.labels.clone().into_iter().collect();
    shown.correlation_id = asked.correlation.clone();
    shown.binding = asked.binding.clone();
    shown.policy = Some(policy(&asked.policy));
    shown.requested_by = Some(convert::actor(&asked.requested_by));
    shown.authors = asked.authors.iter().map(ToString::to_string).collect();
    shown.unmapped_authors = asked.unmapped_authors.iter().cloned().collect();
    shown.required = asked.required;
    shown.expire_time = Some(convert::timestamp(asked.expires_at));
    shown.waiting_on = state.waits_for().map(|message| {
        convert::waiting_on(
            Kind::Human,
            snapshot.id.as_str(),
            state.requested_at.unwrap_or(snapshot.created_at),
            message,
        )
    });
    shown
}

fn decision(decision: &approval::Decision) -> proto::Decision {
    let verdict = match decision.verdict {
        Verdict::Approve => proto::decision::Verdict::Approve,
        Verdict::Reject => proto::decision::Verdict::Reject,
    };
    proto::Decision {
        verdict: verdict.into(),
        by: Some(convert::actor(&decision.by)),
        comment: decision.comment.clone(),
        time: Some(convert::timestamp(decision.at)),
    }
}
