//! Reads a build's log for a caller, and follows it while it is written.

use std::time::Duration;

use build_domain::build::Build;
use slipway_ledger::Ledger;
use slipway_model::Id;
use slipway_proto::build::v1 as proto;
use slipway_server::ApiError;
use tonic::Status;

use crate::backends::logs::{LogRead, Logs};

/// How often a followed log is read again.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// A position in a log.
pub(super) struct Tail {
    pub(super) ledger: Ledger,
    pub(super) logs: Logs,
    pub(super) id: Id,
    pub(super) offset: u64,
    pub(super) follow: bool,
}

impl Tail {
    /// The next part, and the position after it; `None` at the end of the log.
    pub(super) async fn next(
        tail: Option<Self>,
    ) -> Result<Option<(proto::TailLogResponse, Option<Self>)>, Status> {
        let Some(mut tail) = tail else {
            return Ok(None);
        };
        loop {
            // Before reading: the log is complete when the build ends, so what is read after the end is all of it.
            let over = match tail.ledger.get::<Build>(&tail.id).await {
                Ok(build) => build.is_none_or(|build| build.state.status.is_final()),
                Err(error) => return Err(ApiError::from(error).into()),
            };
            match tail.logs.read(&tail.id, tail.offset).await {
                Ok(LogRead::Chunk(chunk)) => {
                    tail.offset += chunk.len() as u64;
                    let part = proto::TailLogResponse {
                        chunk: chunk.into(),
                        next_offset: tail.offset,
                        truncated: false,
                    };
                    return Ok(Some((part, Some(tail))));
                }
                Ok(LogRead::Cut) => {
                    let end = proto::TailLogResponse {
                        chunk: Vec::new(),
                        next_offset: tail.offset,
                        truncated: true,
                    };
                    return Ok(Some((end, None)));
                }
                Ok(LogRead::End) if over || !tail.follow => return Ok(None),
                Ok(LogRead::End) => tokio::time::sleep(FOLLOW_EVERY).await,
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
    }
}
