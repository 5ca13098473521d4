//! `pods/log`: what a container wrote, from its file, and what it continues to write.

use std::collections::VecDeque;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::api::App;
use crate::api::request::{Answer, Request, body};
use crate::api::route::ObjectPath;
use crate::kubelet::logs::{Line, Reader};
use crate::object::{self, list, text};
use crate::resources::PODS;
use crate::status::{ApiError, ApiResult};

/// The part of the log that is wanted.
#[derive(Debug, Clone, Default)]
struct LogRange {
    tail: Option<usize>,
    since: Option<Timestamp>,
    timestamps: bool,
    /// Bytes left to send.
    limit: Option<usize>,
}

/// The requested container: the one named, or the only one.
fn container<'a>(pod: &'a Value, asked: &str) -> ApiResult<&'a str> {
    let name = object::name(pod);
    let names: Vec<&str> = list(pod, &["spec", "containers"])
        .iter()
        .map(|c| text(c, &["name"]))
        .collect();
    match (asked, names.as_slice()) {
        ("", [only]) => Ok(only),
        ("", names) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
        (asked, names) => {
            names.iter().find(|n| **n == asked).copied().ok_or_else(|| {
                ApiError::bad_request(format!("container {asked} is not valid for pod {name}"))
            })
        }
    }
}

pub(crate) async fn log(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let namespace = path.namespace.as_deref().unwrap_or("");
    let pod = app
        .store
        .get(&PODS, namespace, name)
        .ok_or_else(|| ApiError::not_found(&PODS, name))?;
    let container = container(&pod, request.param("container"))?;
    let previous = request.flag("previous");
    let size = |name: &str| -> ApiResult<Option<usize>> {
        Ok(request
            .number(name)?
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    };
    let since = match (request.param("sinceTime"), request.number("sinceSeconds")?) {
        ("", None) => None,
        ("", Some(seconds)) => {
            let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Timestamp::now().checked_sub(seconds).ok()
        }
        (time, _) => Some(
            time.parse()
                .map_err(|_| ApiError::bad_request("sinceTime: must be a time in RFC 3339"))?,
        ),
    };
    let wanted = LogRange {
        tail: size("tailLines")?,
        since,
        timestamps: request.flag("timestamps"),
        limit: size("limitBytes")?,
    };
    let Some(reader) = app.logs.open(object::uid(&pod), container, previous) else {
        return Err(ApiError::bad_request(if previous {
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
        } else {
            let status = list(&pod, &["status", "containerStatuses"])
                .iter()
                .find(|s| s["name"] == container);
            let reason = status.map_or("", |s| text(s, &["state", "waiting", "reason"]));
            let reason = if reason.is_empty() {
                "ContainerCreating"
            } else {
                reason
            };
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
        }));
    };
    let follow = request.flag("follow") && !previous;
    let shutdown = app.shutdown.clone();
    let lines = stream::unfold(Some(Feed::new(reader, wanted, follow)), move |feed| {
        let shutdown = shutdown.clone();
        async move {
            let mut feed = feed?;
            let bytes = tokio::select! {
                () = shutdown.cancelled() => None,
                bytes = feed.next() => bytes,
            }?;
            let rest = if feed.wanted.limit == Some(0) {
                None
            } else {
                Some(feed)
            };
            Some((Ok::<_, std::io::Error>(bytes), rest))
        }
    });
    Ok(body(200, "text/plain", Body::from_stream(lines)))
}

struct Feed {
    reader: Reader,
    wanted: LogRange,
    follow: bool,
    started: bool,
}

impl Feed {
    fn new(reader: Reader, wanted: LogRange, follow: bool) -> Self {
        Self {
            reader,
            wanted,
            follow,
            started: false,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let lines = if self.started {
                if !self.follow {
                    return None;
                }
                self.reader.wait().await?
            } else {
                self.started = true;
                let lines = self.reader.read();
                let since = self.wanted.since;
                let mut lines: VecDeque<Line> = lines
                    .into_iter()
                    .filter(|l| since.is_none_or(|since| l.time >= since))
                    .collect();
                if let Some(tail) = self.wanted.tail {
                    lines.drain(..lines.len().saturating_sub(tail));
                }
                lines.into()
            };
            let mut text = Vec::new();
            for line in lines {
                if self.wanted.timestamps {
                    text.extend_from_slice(format!("{} ", line.stamp()).as_bytes());
                }
                text.extend_from_slice(&line.text);
            }
            if let Some(limit) = &mut self.wanted.limit {
                text.truncate(*limit);
                *limit -= text.len();
            }
            if !text.is_empty() {
                return Some(Bytes::from(text));
            }
        }
    }
}
