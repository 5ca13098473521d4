//! `slipway.operations.v1`, the same in every service: lists, shows and resumes what the ledger has parked.

use slipway_ledger::{Inspected, Ledger, Parking};
use slipway_model::{Id, Name};
use slipway_proto::operations::v1::{
    self as proto,
    operations_service_server::{OperationsService, OperationsServiceServer},
};
use tonic::{Request, Response, Status};

use crate::{Action, ApiError, Call, Caller, Scope, convert, ledger::list_page};

/// The reason when asked to resume something that is not parked.
const NOT_PARKED: &str = "NOT_PARKED";

#[derive(Debug)]
pub(crate) struct Operations {
    ledger: Ledger,
}

type Answer<T> = Result<Response<T>, Status>;

impl Operations {
    /// The gRPC service.
    pub(crate) fn server(ledger: Ledger, max_message_bytes: usize) -> OperationsServiceServer<Self> {
        OperationsServiceServer::new(Self { ledger }).max_decoding_message_size(max_message_bytes)
    }

    async fn list(
        &self,
        caller: &Caller,
        request: &proto::ListParkedRequest,
    ) -> Result<proto::ListParkedResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let kind = convert::optional::<Name>("kind", &request.kind)?;
        let page = list_page(request.page_size, &request.page_token)?;
        let found = self.ledger.parked(kind.as_ref().map(Name::as_str), &page).await?;
        // A page may contain fewer than asked for: what the caller may not read is left out.
        let visible = found.items.into_iter().filter(|one| scope(one).shows(caller));
        Ok(proto::ListParkedResponse {
            parked: visible.filter_map(parked).collect(),
            next_page_token: found.next_page_token,
        })
    }

    /// What is parked under that name, if the caller may do `action` on it.
    async fn find(
        &self,
        caller: &Caller,
        action: Action,
        kind: &str,
        id: &str,
    ) -> Result<(Id, proto::Parked), ApiError> {
        let kind: Name = convert::field("kind", kind)?;
        let id: Id = convert::field("id", id)?;
        caller.require_somewhere(action)?;
        let found = self.ledger.inspect(kind.as_str(), &id).await?;
        let found = found.ok_or_else(|| ApiError::not_found("aggregate", &id))?;
        scope(&found).require(caller, action)?;
        let parked = parked(found).ok_or_else(|| not_parked(&kind, &id))?;
        Ok((id, parked))
    }

    async fn resume(
        &self,
        caller: &Caller,
        request: &proto::ResumeParkedRequest,
    ) -> Result<proto::Parked, ApiError> {
        let (id, before) = self
            .find(caller, Action::Operate, &request.kind, &request.id)
            .await?;
        let kind = &before.kind;
        let Some(Parking { error, attempts, .. }) = self.ledger.resume(kind, &id).await? else {
            // Another caller was faster.
            return Err(not_parked(kind, &id));
        };
        tracing::info!(kind, %id, code = error.code, %error, attempt = attempts, by = %caller.principal(), "resumed");
        Ok(before)
    }
}

#[tonic::async_trait]
impl OperationsService for Operations {
    async fn list_parked(
        &self,
        request: Request<proto::ListParkedRequest>,
    ) -> Answer<proto::ListParkedResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        Ok(Response::new(self.list(&caller, &message).await?))
    }

    async fn get_parked(
        &self,
        request: Request<proto::GetParkedRequest>,
    ) -> Answer<proto::GetParkedResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let (_, parked) = self
            .find(&caller, Action::Read, &message.kind, &message.id)
            .await?;
        let parked = Some(parked);
        Ok(Response::new(proto::GetParkedResponse { parked }))
    }

    async fn resume_parked(
        &self,
        request: Request<proto::ResumeParkedRequest>,
    ) -> Answer<proto::ResumeParkedResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let parked = Some(self.resume(&caller, &message).await?);
        Ok(Response::new(proto::ResumeParkedResponse { parked }))
    }
}

fn not_parked(kind: &dyn std::fmt::Display, id: &Id) -> ApiError {
    let message = format!("{kind} {id} is not parked: it goes on by itself");
    ApiError::precondition(NOT_PARKED, message)
}

fn scope(one: &Inspected) -> Scope<'_> {
    Scope::new(&one.service, [one.environment.as_str()])
}

/// How it is shown; `None` if it is not parked.
fn parked(one: Inspected) -> Option<proto::Parked> {
    let Parking {
        error,
        attempts,
        since,
    } = one.parked?;
    Some(proto::Parked {
        kind: one.kind,
        id: one.id.to_string(),
        service: one.service,
        environment: one.environment,
        correlation_id: one.correlation,
        error: Some(convert::reason(&error)),
        attempts,
        park_time: Some(convert::timestamp(since)),
        state: one.state,
    })
}
