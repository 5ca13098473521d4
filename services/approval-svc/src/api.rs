//! The gRPC API: requests to commands, states to messages (`convert`, `subject`).

use std::collections::BTreeMap;

use approval_domain::{
    approval::{self, Approval, Command, Deciders, Refusal, State, Verdict},
    people::{MAX_AUTHOR, MAX_AUTHORS, People},
    policy::Policy,
    subject::Scope as SubjectScope,
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use slipway_ledger::{IdempotencyKey, Ledger, Meta, Snapshot};
use slipway_model::{Actor, ContentHash, Id, Name, Timestamp};
use slipway_proto::approval::v1::{self as proto, approval_service_server::ApprovalService};
use slipway_server::{
    Action, ApiError, Call, Caller, ListQuery, Listed, Resource, Resources, Scope, convert as wire,
    stream_events_to,
};
use tonic::{Request, Response, Status};

use crate::config::{self, Config, PolicyConfig};

mod convert;
mod subject;

/// Serves approvals.
pub(crate) struct Api {
    ledger: Ledger,
    approvals: Resources<Approvals>,
    policies: BTreeMap<Name, PolicyConfig>,
    people: People,
}

impl Api {
    pub(crate) fn new(ledger: Ledger, config: &Config) -> Self {
        Self {
            approvals: Resources::new(ledger.clone()),
            ledger,
            policies: config.settings.policies.clone(),
            people: config::people(config),
        }
    }

    async fn request(&self, call: Call<proto::RequestApprovalRequest>) -> Result<proto::Approval, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let (subject, contents) = subject::read(&wire::message("subject", request.subject)?)?;
        let (service, environment) = (subject.scope.service.as_str(), subject.scope.environment());
        caller.require(Action::Start, service, environment)?;
        let by = caller.actor(&request.on_behalf_of, service, environment)?;
        let policy = self.policy(&request.policy, &subject.scope)?;
        let malformed = |author: &String| author.len() > MAX_AUTHOR || author.contains(char::is_control);
        if request.authors.len() > MAX_AUTHORS || request.authors.iter().any(malformed) {
            let message = format!(
                "give at most {MAX_AUTHORS}, each of at most {MAX_AUTHOR} bytes without control characters"
            );
            return Err(ApiError::invalid("authors", message));
        }
        let authors = self.people.resolve(request.authors.iter().map(String::as_str));
        let correlation = wire::key("correlation_id", &request.correlation_id)?;
        let labels = wire::labels(request.labels)?;
        let request_id = wire::key("request_id", &request.request_id)?;
        // What the caller sent, and not what the configuration makes of it: that may have changed when the caller repeats
        // the request.
        let sent = (
            &subject,
            policy.name.as_str(),
            &by,
            &request.authors,
            &correlation,
            &labels,
        );
        let key = IdempotencyKey::new(caller.principal(), "RequestApproval", request_id, &sent);
        let meta = Meta::new(by.clone(), trace);
        let command = approval::Request {
            subject: subject.clone(),
            policy,
            requested_by: by,
            authors: authors.principals,
            unmapped_authors: authors.unmapped,
            deciders: Deciders {
                approve: caller.who_may(&[Action::Approve], service, environment),
                delegate: caller.who_may(&[Action::Approve, Action::Delegate], service, environment),
            },
            correlation: correlation.clone(),
            labels: labels.clone(),
        };
        for content in contents {
            self.ledger.put_content(content.as_bytes()).await?;
        }
        let command = || Command::Request(Box::new(command.clone()));
        let done = self
            .ledger
            .execute_once::<Approval>(&key, &Id::generate("apr"), command, &meta)
            .await?;
        Ok(convert::approval(&done.snapshot))
    }

    fn policy(&self, name: &str, scope: &SubjectScope) -> Result<Policy, ApiError> {
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
                    format!("{name} may not be used for {scope}")
                } else {
                    let shown: String = name.chars().take(63).collect();
                    format!("{shown:?} does not exist")
                };
                Err(ApiError::invalid(
                    "policy",
                    format!("{problem}; usable policies: {}", usable.join(", ")),
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
        let binding: ContentHash = wire::field("binding", &request.binding)?;
        let comment = wire::text("comment", &request.comment)?;
        let request_id = wire::key("request_id", &request.request_id)?;
        let snapshot = self.approvals.find(&caller, Action::Approve, &request.id).await?;
        let by = self.decider(&caller, &request.on_behalf_of, &snapshot)?;

        let sent = (&snapshot.id, verdict, &binding, &comment, &by);
        let key = IdempotencyKey::new(caller.principal(), "Decide", request_id, &sent);
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
        Ok(convert::approval(&done.snapshot))
    }

    /// Who decides. Where the policy leaves that to roles, a person that a bot speaks for must hold the role too, or a bot
    /// could make up as many people as the policy requires.
    fn decider(
        &self,
        caller: &Caller,
        on_behalf_of: &str,
        approval: &Snapshot<Approval>,
    ) -> Result<Actor, ApiError> {
        let Some(recorded) = &approval.state.request else {
            return Err(ApiError::refused(Refusal::Absent(approval.id.clone())));
        };
        let scope = &recorded.subject.scope;
        let (service, environment) = (scope.service.as_str(), scope.environment());
        let by = caller.actor(on_behalf_of, service, environment)?;
        let person = by.effective();
        if by.is_delegated()
            && recorded.policy.approvers.is_empty()
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
        let comment = wire::text("reason", &call.message.reason)?;
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
        Ok(convert::approval(&cancelled))
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
        let (mine, now) = (message.waits_for_caller, Timestamp::now());
        let kept = |approval: &Snapshot<Approval>| !mine || waits_for(&caller, approval, now);
        let query = message.into();
        let Listed {
            items,
            next_page_token,
        } = self.approvals.list_where(&caller, &query, kept).await?;
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
        wire::optional::<u64>("etag", &etag)?;
        let query = ListQuery::from(message);
        query.filter::<Approvals>()?;
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
            .map(|(name, config)| convert::policy(&config.policy(name)))
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

/// Whether the caller may decide on it now.
fn waits_for(caller: &Caller, approval: &Snapshot<Approval>, now: Timestamp) -> bool {
    let scope = Approvals::scope(&approval.state);
    scope.require(caller, Action::Approve).is_ok()
        && approval.state.waits_for_decision_of(&caller.direct(), now)
}

/// How approvals are shown.
struct Approvals;

#[async_trait]
impl Resource for Approvals {
    type Decider = Approval;
    type Message = proto::Approval;

    fn message(snapshot: &Snapshot<Approval>) -> proto::Approval {
        convert::approval(snapshot)
    }

    /// Adds the bodies of its sections. Answers to commands come without them: a command that was carried out does not
    /// fail because a body cannot be read.
    async fn complete(
        ledger: &Ledger,
        snapshot: &Snapshot<Approval>,
        message: &mut proto::Approval,
    ) -> Result<(), ApiError> {
        if let Some(request) = &snapshot.state.request {
            message.subject = Some(subject::message_with_bodies(ledger, &request.subject).await?);
        }
        Ok(())
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::approval::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &State) -> Scope<'_> {
        match &state.request {
            Some(request) => Scope::new(
                request.subject.scope.service.as_str(),
                [request.subject.scope.environment()],
            ),
            None => Scope::unknown(),
        }
    }
}
