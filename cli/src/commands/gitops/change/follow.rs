//! Follows a change to its end, and shows on the way what it waits for.

use std::time::Duration;

use futures::StreamExt;
use indicatif::ProgressBar;
use slipway_proto::gitops::v1::{Change, WatchChangeRequest, change::Status};

use super::{super::super::present, draw};
use crate::{args::Output, commands::progress, context::Context, failure::Failure};

/// The wait before a watch that broke is taken up again.
const RESUME: Duration = Duration::from_millis(500);
/// How often a watch that breaks is taken up again without news in between.
const RESUMES: u32 = 120;

/// Watches until the end, through restarts of the service.
pub(super) async fn follow(context: &Context, output: Output, mut change: Change) -> Result<Change, Failure> {
    let bar = progress(output);
    let mut broken = 0;
    while !is_final(&change) {
        tell(&bar, &change);
        let request = WatchChangeRequest {
            id: change.id.clone(),
            etag: String::new(),
        };
        match context.gitops()?.watch_change(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Some(Ok(next)) = stream.next().await {
                    broken = 0;
                    change = present(next.change)?;
                    tell(&bar, &change);
                }
            }
            Err(status) if status.code() != tonic::Code::Unavailable => return Err(status.into()),
            Err(_) => {}
        }
        if !is_final(&change) {
            broken += 1;
            if broken >= RESUMES {
                return Err(
                    Failure::new(format!("lost sight of change {}", change.id)).next(format!(
                        "it goes on by itself; look again with: slipway gitops watch {}",
                        change.id
                    )),
                );
            }
            tokio::time::sleep(RESUME).await;
        }
    }
    bar.finish_and_clear();
    Ok(change)
}

fn tell(bar: &ProgressBar, change: &Change) {
    let mut message = format!("{}  {}", change.id, draw::status(change.status()));
    if change.attempt > 1 {
        message += &format!(", attempt {}", change.attempt);
    }
    if let Some(request) = &change.pull_request {
        message += &format!("  {}  {}", request.url, request.message);
    } else if let Some(waiting) = &change.waiting_on {
        message += &format!("  {}", waiting.message);
    }
    bar.set_message(message);
}

fn is_final(change: &Change) -> bool {
    !matches!(change.status(), Status::Pending | Status::Unspecified)
}
