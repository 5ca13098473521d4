//! Follows a change to its end, and shows what it is waiting for.

use slipway_model::Timestamp;
use slipway_proto::gitops::v1::{Change, WatchChangeRequest, change::Status};

use crate::{
    args::Output,
    commands::word,
    context::Context,
    failure::Failure,
    follow::{self, Followed},
    progress::{self, Moment, Progress},
    readable, retry,
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
    let mut progress = Progress::new(output);
    let watch = async |id| {
        let request = WatchChangeRequest {
            id,
            etag: String::new(),
        };
        let answer = context.gitops()?.watch_change(request).await?;
        Ok(follow::stream(answer, |next| next.change))
    };
    let change = follow::follow(change, watch, |one: &Change| {
        progress.show(&moment(one, Timestamp::now().as_micros()));
    })
    .await?;
    progress.finish();
    Ok(change)
}

/// What it does `now` (microseconds since 1970): a change is one step.
fn moment(change: &Change, now: i64) -> Moment {
    let waits = if let Some(retry) = &change.retry {
        retry::line(retry, now)
    } else if let Some(request) = &change.pull_request {
        format!("{}  {}", request.url, request.message)
    } else if let Some(waiting) = &change.waiting_on {
        waiting.message.clone()
    } else {
        String::new()
    };
    let attempt = match change.attempt {
        0 | 1 => String::new(),
        attempt => format!("attempt {attempt}  "),
    };
    let end = change.is_final().then(|| progress::End {
        at: readable::micros(change.end_time.as_ref()).unwrap_or(now),
        well: change.status() == Status::Pushed,
        status: word(change.status().as_str_name(), "STATUS_"),
        words: match &change.reason {
            Some(reason) => format!("{}: {}", reason.code, reason.message),
            None => readable::short(&change.commit).to_owned(),
        },
    });
    Moment {
        steps: vec![progress::Step {
            name: change.id.clone(),
            began: readable::micros(change.create_time.as_ref()).unwrap_or(now),
            end,
        }],
        waits: format!("{attempt}{waits}"),
    }
}
