//! Follows a change to its end, and shows what it is waiting for.

use indicatif::ProgressBar;
use slipway_model::Timestamp;
use slipway_proto::gitops::v1::{Change, WatchChangeRequest, change::Status};

use super::draw;
use crate::{
    args::Output,
    commands::progress,
    context::Context,
    failure::Failure,
    follow::{self, Followed},
    retry,
};

impl Followed for Change {
    const NOUN: (&'static str, &'static str) = ("change", "slipway gitops watch");

    fn id(&self) -> &str {
        &self.id
    }

    fn is_final(&self) -> bool {
        !matches!(self.status(), Status::Pending | Status::Unspecified)
    }
}

/// Watches until the end.
pub(super) async fn follow(context: &Context, output: Output, change: Change) -> Result<Change, Failure> {
    let bar = progress(output);
    let watch = async |id| {
        let request = WatchChangeRequest {
            id,
            etag: String::new(),
        };
        let answer = context.gitops()?.watch_change(request).await?;
        Ok(follow::stream(answer, |next| next.change))
    };
    let change = follow::follow(change, watch, |one: &Change| {
        tell(&bar, one);
    })
    .await?;
    bar.finish_and_clear();
    Ok(change)
}

fn tell(bar: &ProgressBar, change: &Change) {
    let mut message = format!("{}  {}", change.id, draw::status(change.status()));
    if change.attempt > 1 {
        message += &format!(", attempt {}", change.attempt);
    }
    if let Some(retry) = &change.retry {
        message += &format!("  {}", retry::line(retry, Timestamp::now().as_micros()));
    } else if let Some(request) = &change.pull_request {
        message += &format!("  {}  {}", request.url, request.message);
    } else if let Some(waiting) = &change.waiting_on {
        message += &format!("  {}", waiting.message);
    }
    bar.set_message(message);
}
