//! Why a command did not do what was requested, and what to do next.

use std::fmt;

use slipway_server::ErrorView;
use tonic::{Code, Status};

#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    next: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            next: None,
        }
    }

    /// What the user can do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let view = ErrorView::of(&status);
        let code = if view.reason.is_empty() {
            format!("{:?}", status.code())
        } else {
            view.reason
        };
        let failure = Self::new(format!("{} [{code}]", status.message()));
        match status.code() {
            Code::Unavailable => {
                failure.next("is the service running? check its URL in the context file, or start all services with `slipway dev`")
            }
            Code::Unauthenticated => {
                failure.next("check the token file in the context file, or choose another user with --as")
            }
            Code::PermissionDenied => {
                failure.next("ask for the role, or choose another user with --as")
            }
            _ => failure,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}
