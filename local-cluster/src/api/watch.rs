//! Watch: the changes of a kind as they happen, one JSON object per line.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::read::{Filter, represent};
use crate::api::request::{Answer, Representation, Request, body};
use crate::api::route::ObjectPath;
use crate::faults::Signal;
use crate::metrics::{Running, Subject};
use crate::object;
use crate::resources::Resource;
use crate::status::{ApiError, ApiResult};
use crate::store::{Change, ChangeKind, Feed};

/// How long a watch lasts if the client does not say (the real server: 30 to 60 minutes).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The longest watch.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a quiet watch reports the current version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watch {
    _counted: Running,
    faults: Receiver<Signal>,
    /// The faults as of the last check.
    noticed: Signal,
    resource: &'static Resource,
    filter: Filter,
    form: Representation,
    bookmarks: bool,
    feed: Feed,
    /// Lines to be sent, each not before its time.
    waiting: VecDeque<(Instant, Bytes)>,
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
    let asked = request.resource_version()?;
    let initial = request.flag("sendInitialEvents");
    let now = Instant::now();
    let mut waiting = VecDeque::new();
    let since = if asked == 0 || initial {
        let (objects, rv) = app.store.list(path.resource, filter.namespace.as_deref());
        app.store.durable(rv).await?;
        for object in objects.iter().filter(|object| filter.matches(object)) {
            waiting.push_back((now, line("ADDED", &represent(path.resource, object, &form))));
        }
        if initial {
            waiting.push_back((now, bookmark(path.resource, rv, true)));
        }
        rv
    } else {
        app.faults.remembers(asked)?;
        asked
    };
    let feed = app.store.watch(since);
    feed.check()?;
    let subject = Subject {
        verb: "WATCH",
        group: path.resource.group.to_owned(),
        version: path.resource.version.to_owned(),
        resource: path.resource.plural.to_owned(),
        subresource: String::new(),
        scope: match (&filter.name, &filter.namespace) {
            (Some(_), _) => "resource",
            (None, Some(_)) => "namespace",
            (None, None) => "cluster",
        },
    };
    let mut faults = app.faults.signal();
    let noticed = *faults.borrow_and_update();
    let watch = Watch {
        _counted: app.metrics.running(&subject),
        noticed,
        faults,
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
        Some((line, watch))
    });
    Ok(body(200, "application/json", Body::from_stream(lines)))
}

impl Watch {
    /// The next line; an error cuts the connection.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let now = Instant::now();
            let due = self.waiting.front().map(|(at, _)| *at);
            if due.is_some_and(|at| at <= now) {
                return self.waiting.pop_front().map(|(_, line)| Ok(line));
            }
            if self.over && due.is_none() {
                return None;
            }
            let until = if self.over {
                due.unwrap_or(now)
            } else {
                self.ends.min(self.next_bookmark).min(due.unwrap_or(self.ends))
            };
            let changes = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                Ok(()) = self.faults.changed() => {
                    let signal = *self.faults.borrow_and_update();
                    let before = std::mem::replace(&mut self.noticed, signal);
                    if signal.dropped != before.dropped {
                        (self.over, self.waiting) = (true, VecDeque::new());
                        return Some(Err(io::Error::other("the watch was told to break off")));
                    }
                    if signal.expired != before.expired && !self.over {
                        self.waiting.clear();
                        self.fail(&ApiError::gone(self.feed.cursor(), self.feed.cursor() + 1));
                    }
                    continue;
                }
                () = sleep_until(until), if self.over => continue,
                changes = timeout_at(until, self.feed.next()), if !self.over => changes,
            };
            match changes {
                Ok(Ok(changes)) => {
                    for change in &changes {
                        if let Some(line) = self.event(change) {
                            self.push(line);
                        }
                    }
                }
                Ok(Err(error)) => self.fail(&error),
                Err(_) => {
                    let now = Instant::now();
                    self.over = now >= self.ends;
                    if self.over || now >= self.next_bookmark {
                        self.next_bookmark = now + BOOKMARK_EVERY;
                        if self.bookmarks {
                            self.push(bookmark(self.resource, self.feed.cursor(), false));
                        }
                    }
                }
            }
        }
    }

    fn push(&mut self, line: Bytes) {
        let at = Instant::now() + self.noticed.delay;
        let at = self.waiting.back().map_or(at, |(before, _)| at.max(*before));
        self.waiting.push_back((at, line));
    }

    /// Ends the watch with an ERROR event.
    fn fail(&mut self, error: &ApiError) {
        self.waiting
            .push_back((Instant::now(), line("ERROR", &error.to_status())));
        self.over = true;
    }

    /// The change as this watch sees it: an object that no longer matches counts as deleted.
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
        // What has left the selection is shown as it was in it, with the version of the change.
        let left = match (&change.previous, change.kind) {
            (Some(previous), ChangeKind::Modified) if kind == "DELETED" => {
                let mut left = Value::clone(previous);
                let version = change.object["metadata"]["resourceVersion"].clone();
                object::metadata(&mut left).insert("resourceVersion".to_owned(), version);
                Some(left)
            }
            _ => None,
        };
        let shown = left.as_ref().unwrap_or(&change.object);
        Some(line(kind, &represent(self.resource, shown, &self.form)))
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
