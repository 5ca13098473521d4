//! A request as a handler first sees it: the caller, the trace, and the message.

use slipway_ledger::Meta;
use slipway_model::{Actor, TraceContext};
use tonic::{Request, Status};

use crate::{Caller, convert};

/// A request, split into its parts.
#[derive(Debug)]
pub struct Call<T> {
    pub caller: Caller,
    pub trace: Option<TraceContext>,
    pub message: T,
}

impl<T> Call<T> {
    /// # Errors
    /// `UNAUTHENTICATED` when the request did not come through the authentication layer.
    #[allow(clippy::result_large_err)] // tonic's own type
    pub fn of(request: Request<T>) -> Result<Self, Status> {
        Ok(Self {
            caller: Caller::of(&request)?,
            trace: convert::trace_context(&request),
            message: request.into_inner(),
        })
    }

    /// What is recorded of a command that the caller gives in its own name.
    pub fn meta(&self) -> Meta {
        self.meta_as(self.caller.direct())
    }

    /// What is recorded of a command by this actor, see [`Caller::actor`].
    pub fn meta_as(&self, actor: Actor) -> Meta {
        Meta::new(actor, self.trace)
    }
}
