//! The gRPC API: protobuf to commands, states to protobuf.

mod subject;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use slipway_ledger::{IdempotencyKey, Ledger, Meta, Snapshot};
use slipway_model::{Actor, ContentHash, Id, Name};
use slipway_proto::{
    approval::v1::{self as proto, approval_service_server::ApprovalService},
    common::v1::waiting_on::Kind,
};
use slipway_server::{
    Action, ApiError, Call, Caller, ListQuery, Listed, Resource, Resources, Scope, convert, stream_events_to,
};
use tonic::{Request, Response, Status};

use crate::{
    approval::{self, Approval, Command, Refusal, State, Verdict},
    config::{Config, PolicyConfig},
    people::{MAX_AUTHOR, MAX_AUTHORS, People},
    policy::Policy,
};

pub(crate) struct Api {
    ledger: Ledger,
    approvals: Resources<Approval>,
    policies: Arc<BTreeMap<Name, PolicyConfig>>,
    people: People,
}

impl Api {
    pub(crate) fn new(ledger: Ledger, config: &Config) -> Self {
        Self {
            approvals: Resources::new(ledger.clone()),
            ledger,
            policies: Arc::new(config.settings.policies.clone()),
            people: People::of(config),
        }
    }

    async fn request(&self, call: Call<proto::RequestApprovalRequest>) -> Result<proto::Approval, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let (subject, contents) = subject::read(&convert::message("subject", request.subject)?)?;
        let (service, environment) = (subject.scope.service.as_str(), subject.scope.environment());
        caller.require(Action::Start, service, environment)?;
        let by = caller.actor(&request.on_behalf_of, service, environment)?;
        let policy = self.policy(&request.policy, &subject.scope)?;
        let unlikely = |author: &String| author.len() > MAX_AUTHOR || author.contains(char::is_control);
        if request.authors.len() > MAX_AUTHORS || request.authors.iter().any(unlikely) {
            let message = format!(
                "give at most {MAX_AUTHORS}, each of at most {MAX_AUTHOR} bytes without control characters"
            );
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
        let key = IdempotencyKey::new(caller.principal(), "RequestApproval", request_id, &said);
        let meta = Meta::new(by.clone(), trace);
        let asked = approval::Request {
            subject: subject.clone(),
            policy,
            requested_by: by,
            authors: authors.principals,
            unmapped_authors: authors.unmapped,
            correlation: correlation.clone(),
            labels: labels.clone(),
        };
        for content in contents {
            self.ledger.put_content(content.as_bytes()).await?;
        }
        let command = || Command::Request(Box::new(asked.clone()));
        let done = self
            .ledger
            .execute_once::<Approval>(&key, &Id::generate("apr"), command, &meta)
            .await?;
        Ok(approval(&done.snapshot))
    }

    fn policy(&self, name: &str, scope: &crate::subject::Scope) -> Result<Policy, ApiError> {
        let found = name
            .parse::<Name>()
            .ok()
            .and_then(|name| self.policies.get_key_value(&name));
        match found {
            Some((name, policy)) if policy.covers(scope) => Ok(policy.policy(name)),
            _ => {
                let usable: Vec<&str> = self
                    .policies
                    .iter()
                    .filter(|(_, policy)| policy.covers(scope))
                    .map(|(name, _)| name.as_str())
                    .collect();
                let problem = if found.is_some() {
                    format!("{name} is not for {scope}")
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

    async fn decision(&self, call: Call<proto::DecideRequest>) -> Result<proto::Approval, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let verdict = match proto::decision::Verdict::try_from(request.verdict) {
            Ok(proto::decision::Verdict::Approve) => Verdict::Approve,
            Ok(proto::decision::Verdict::Reject) => Verdict::Reject,
            Ok(proto::decision::Verdict::Unspecified) | Err(_) => {
                return Err(ApiError::invalid(
                    "verdict",
                    "is required: VERDICT_APPROVE or VERDICT_REJECT",
                ));
            }
        };
        let binding: ContentHash = convert::field("binding", &request.binding)?;
        let comment = convert::text("comment", &request.comment)?;
        let request_id = convert::key("request_id", &request.request_id)?;
        let snapshot = self.approvals.find(&caller, Action::Approve, &request.id).await?;
        let by = self.decider(&caller, &request.on_behalf_of, &snapshot)?;

        let said = (&snapshot.id, verdict, &binding, &comment, &by);
        let key = IdempotencyKey::new(caller.principal(), "Decide", request_id, &said);
        let meta = Meta::new(by.clone(), trace);
        let command = || Command::Decide {
            verdict,
            binding: binding.to_string(),
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
    fn decider(
        &self,
        caller: &Caller,
        on_behalf_of: &str,
        approval: &Snapshot<Approval>,
    ) -> Result<Actor, ApiError> {
        let Some(asked) = &approval.state.asked else {
            return Err(ApiError::refused(Refusal::Absent(approval.id.clone())));
        };
        let scope = &asked.subject.scope;
        let (service, environment) = (scope.service.as_str(), scope.environment());
        let by = caller.actor(on_behalf_of, service, environment)?;
        let person = by.effective();
        if by.is_delegated()
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
        call: Call<proto::CancelApprovalRequest>,
    ) -> Result<proto::Approval, ApiError> {
        let comment = convert::text("reason", &call.message.reason)?;
        let found = self
            .approvals
            .find(&call.caller, Action::Cancel, &call.message.id)
            .await?;
        let meta = call.meta();
        let command = || Command::Cancel {
            by: meta.actor.clone(),
            comment: comment.clone(),
        };
        let cancelled = self.ledger.execute::<Approval>(&found.id, command, &meta).await?;
        Ok(approval(&cancelled))
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl ApprovalService for Api {
    type WatchApprovalsStream = Answers<proto::WatchApprovalsResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn request_approval(
        &self,
        request: Request<proto::RequestApprovalRequest>,
    ) -> Answer<proto::RequestApprovalResponse> {
        let approval = Some(self.request(Call::of(request)?).await?);
        Ok(Response::new(proto::RequestApprovalResponse { approval }))
    }

    async fn decide(&self, request: Request<proto::DecideRequest>) -> Answer<proto::DecideResponse> {
        let approval = Some(self.decision(Call::of(request)?).await?);
        Ok(Response::new(proto::DecideResponse { approval }))
    }

    async fn cancel_approval(
        &self,
        request: Request<proto::CancelApprovalRequest>,
    ) -> Answer<proto::CancelApprovalResponse> {
        let approval = Some(self.cancellation(Call::of(request)?).await?);
        Ok(Response::new(proto::CancelApprovalResponse { approval }))
    }

    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Answer<proto::GetApprovalResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let approval = Some(self.approvals.get(&caller, &message.id).await?);
        Ok(Response::new(proto::GetApprovalResponse { approval }))
    }

    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Answer<proto::ListApprovalsResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let Listed {
            items,
            next_page_token,
        } = self.approvals.list(&caller, &message.into()).await?;
        Ok(Response::new(proto::ListApprovalsResponse {
            approvals: items,
            next_page_token,
        }))
    }

    async fn watch_approvals(
        &self,
        request: Request<proto::WatchApprovalsRequest>,
    ) -> Answer<Self::WatchApprovalsStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let (id, etag) = (message.id.clone(), message.etag.clone());
        convert::optional::<u64>("etag", &etag)?;
        let query = ListQuery::from(message);
        query.filter::<Approval>()?;
        let approvals = match id.as_str() {
            "" => self.approvals.watch_all(caller, &query)?,
            id => self.approvals.watch(&caller, id, &etag).await?,
        };
        let approvals = approvals.map_ok(|approval| proto::WatchApprovalsResponse {
            approval: Some(approval),
        });
        Ok(Response::new(approvals.boxed()))
    }

    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Answer<proto::ListPoliciesResponse> {
        Caller::of(&request)?.require_somewhere(Action::Read)?;
        let policies = self
            .policies
            .iter()
            .map(|(name, config)| policy(&config.policy(name)))
            .collect();
        Ok(Response::new(proto::ListPoliciesResponse { policies }))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let events = stream_events_to(
            caller,
            &self.ledger,
            &message.cursor,
            &message.correlation_id,
            &[],
        )?;
        let events = events.map_ok(|event| proto::StreamEventsResponse { event });
        Ok(Response::new(events.boxed()))
    }
}

#[async_trait]
impl Resource for Approval {
    type Decider = Self;
    type Message = proto::Approval;

    fn message(snapshot: &Snapshot<Self>) -> proto::Approval {
        approval(snapshot)
    }

    /// Adds the bodies of its sections. What is answered to a command is shown without: it was carried out, whatever became
    /// of a body.
    async fn complete(
        ledger: &Ledger,
        snapshot: &Snapshot<Self>,
        message: &mut proto::Approval,
    ) -> Result<(), ApiError> {
        if let Some(asked) = &snapshot.state.asked {
            message.subject = Some(subject::shown_whole(ledger, &asked.subject).await?);
        }
        Ok(())
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::approval::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &State) -> Scope<'_> {
        match &state.asked {
            Some(asked) => Scope::new(
                asked.subject.scope.service.as_str(),
                [asked.subject.scope.environment()],
            ),
            None => Scope::unknown(),
        }
    }
}

fn policy(policy: &Policy) -> proto::Policy {
    proto::Policy {
        name: policy.name.to_string(),
        required: policy.required,
        approvers: policy.approvers.iter().map(ToString::to_string).collect(),
        exclude_requester: policy.exclude_requester,
        exclude_authors: policy.exclude_authors,
        expire_after: Some(convert::duration(policy.expire_after())),
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
        reason: state.reason.as_ref().map(convert::reason),
        decisions: state.decisions.iter().map(decision).collect(),
        retry: snapshot.retrying().as_ref().map(convert::retry),
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
    shown.subject = Some(subject::shown(&asked.subject));
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
