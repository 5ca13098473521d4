//! Watch: the changes of a kind as they happen, one JSON object a line.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::read::{Filter, represent};
use crate::api::request::{Answer, Representation, Request, body};
use crate::api::route::ObjectPath;
use crate::resources::Resource;
use crate::status::ApiResult;
use crate::store::{Change, ChangeKind, Feed};

/// How long a watch lasts when the client does not say (the real server: 30 to 60 minutes).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The longest watch.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a quiet watch tells the current version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watch {
    resource: &'static Resource,
    filter: Filter,
    form: Representation,
    bookmarks: bool,
    feed: Feed,
    waiting: VecDeque<Bytes>,
    ends: Instant,
    next_bookmark: Instant,
    shutdown: CancellationToken,
    over: bool,
}

pub(crate) async fn watch(app: &App, path: &ObjectPath, request: &Request) -> ApiResult<Answer> {
    let filter = Filter::of(path, request)?;
    let form = request.representation();
    let timeout = request
        .number("timeoutSeconds")?
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let asked = request.number("resourceVersion")?.unwrap_or(0);
    let initial = request.flag("sendInitialEvents");
    let now = Instant::now();
    let mut waiting = VecDeque::new();
    let since = if asked == 0 || initial {
        let (objects, rv) = app.store.list(path.resource, filter.namespace.as_deref());
        app.store.durable(rv).await?;
        for object in objects.iter().filter(|object| filter.matches(object)) {
            waiting.push_back(line("ADDED", &represent(path.resource, object, &form)));
        }
        if initial {
            waiting.push_back(bookmark(path.resource, rv, true));
        }
        rv
    } else {
        asked
    };
    let feed = app.store.watch(since);
    feed.check()?;
    let watch = Watch {
        resource: path.resource,
        filter,
        form,
        bookmarks: request.flag("allowWatchBookmarks"),
        feed,
        waiting,
        ends: now + timeout.min(MAX_TIMEOUT),
        next_bookmark: now + BOOKMARK_EVERY,
        shutdown: app.shutdown.clone(),
        over: false,
    };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watch))
    });
    Ok(body(200, "application/json", Body::from_stream(lines)))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let until = self.ends.min(self.next_bookmark);
            let changes = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                changes = timeout_at(until, self.feed.next()) => changes,
            };
            match changes {
                Ok(Ok(changes)) => {
                    for change in &changes {
                        if let Some(line) = self.event(change) {
                            self.waiting.push_back(line);
                        }
                    }
                }
                Ok(Err(error)) => {
                    self.waiting.push_back(line("ERROR", &error.to_status()));
                    self.over = true;
                }
                Err(_) => {
                    self.over = Instant::now() >= self.ends;
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if self.bookmarks {
                        self.waiting
                            .push_back(bookmark(self.resource, self.feed.cursor(), false));
                    }
                }
            }
        }
    }

    /// The change as this watch sees it: an object that no longer matches is as good as deleted.
    fn event(&self, change: &Change) -> Option<Bytes> {
        if change.resource.storage() != self.resource.storage() {
            return None;
        }
        let matched = change
            .previous
            .as_ref()
            .is_some_and(|previous| self.filter.matches(previous));
        let matches = self.filter.matches(&change.object);
        let kind = match (change.kind, matched, matches) {
            (ChangeKind::Deleted, true, _) | (ChangeKind::Modified, true, false) => "DELETED",
            (ChangeKind::Deleted, false, true) if change.previous.is_none() => "DELETED",
            (ChangeKind::Added, _, true) | (ChangeKind::Modified, false, true) => "ADDED",
            (ChangeKind::Modified, true, true) => "MODIFIED",
            _ => return None,
        };
        Some(line(kind, &represent(self.resource, &change.object, &self.form)))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

fn bookmark(resource: &Resource, rv: u64, initial_end: bool) -> Bytes {
    let mut object = json!({"kind": resource.kind, "apiVersion": resource.api_version(),
                            "metadata": {"resourceVersion": rv.to_string()}});
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &object)
}
