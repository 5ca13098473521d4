//! The log of a build: chunks in an object store, so that any replica can serve it while it is written.
//!
//! A chunk's name is the offset of its first byte: `builds/<id>/<offset>`. Chunks are created, never overwritten: of two
//! writers, the second one stops writing. An empty object `builds/<id>/cut` marks a log that has reached its limit.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem, path,
};
use slipway_model::Id;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{process::Line, redact::Redactor};

/// The longest time before readers see a line.
const FLUSH_EVERY: Duration = Duration::from_millis(400);
/// Pending output of this size is written without waiting.
const CHUNK: usize = 64 * 1024;
/// Lines that are kept for the resource of a failed build, and their size in all.
const TAIL_LINES: usize = 40;
const TAIL_BYTES: usize = 16 * 1024;
const CUT: &str = "cut";

/// The logs of all builds.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    store: Arc<dyn ObjectStore>,
    max_bytes: u64,
    redactor: Redactor,
}

/// What a log has at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LogRead {
    /// Bytes that begin at the offset.
    Chunk(Bytes),
    /// Nothing yet, or nothing more.
    End,
    /// The log was cut here at its limit.
    Cut,
}

impl Logs {
    /// Logs in a folder, which is created if it does not exist.
    pub(crate) fn in_folder(
        folder: &Path,
        max_bytes: u64,
        redactor: Redactor,
    ) -> Result<Self, object_store::Error> {
        std::fs::create_dir_all(folder).map_err(|source| object_store::Error::Generic {
            store: "logs",
            source: source.into(),
        })?;
        let store = LocalFileSystem::new_with_prefix(folder)?;
        Ok(Self {
            store: Arc::new(store),
            max_bytes,
            redactor,
        })
    }

    /// Opens the log of a build for appending.
    pub(crate) async fn open(&self, id: &Id) -> Result<Log, object_store::Error> {
        let folder = folder(id);
        let (offset, cut) = self.extent(&folder).await?;
        let shared = Arc::new(Shared {
            store: self.store.clone(),
            folder,
            max_bytes: self.max_bytes,
            redactor: self.redactor.clone(),
            state: Mutex::new(State {
                offset,
                accepted: offset,
                closed: cut,
                ..State::default()
            }),
            writing: tokio::sync::Mutex::new(()),
            full: Notify::new(),
        });
        let stop = CancellationToken::new();
        let pump = tokio::spawn(pump(shared.clone(), stop.clone()));
        Ok(Log {
            shared,
            stop,
            _pump: Arc::new(AbortOnDropHandle::new(pump)),
        })
    }

    /// The size of the log, and whether it was cut.
    async fn extent(&self, folder: &path::Path) -> Result<(u64, bool), object_store::Error> {
        let objects: Vec<_> = self.store.list(Some(folder)).try_collect().await?;
        let mut end = 0;
        let mut cut = false;
        for object in objects {
            match offset_of(&object.location) {
                Some(offset) => end = end.max(offset + object.size),
                None => cut = true,
            }
        }
        Ok((end, cut))
    }

    /// Reads at `offset`.
    pub(crate) async fn read(&self, id: &Id, offset: u64) -> Result<LogRead, object_store::Error> {
        let folder = folder(id);
        // A follower is at the end of a chunk, which is the name of the next one.
        match self.store.get(&chunk(&folder, offset)).await {
            Ok(found) => return Ok(LogRead::Chunk(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let objects: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let holder = objects
            .iter()
            .filter_map(|object| offset_of(&object.location).map(|start| (start, object.size)))
            .find(|(start, size)| *start <= offset && offset < start + size);
        match holder {
            Some((start, size)) => {
                let bytes = self
                    .store
                    .get_range(&chunk(&folder, start), offset - start..size)
                    .await?;
                Ok(LogRead::Chunk(bytes))
            }
            None if objects.iter().any(|object| offset_of(&object.location).is_none()) => Ok(LogRead::Cut),
            None => Ok(LogRead::End),
        }
    }
}

fn folder(id: &Id) -> path::Path {
    path::Path::from_iter(["builds", id.as_str()])
}

fn chunk(folder: &path::Path, offset: u64) -> path::Path {
    folder.clone().join(format!("{offset:020}"))
}

fn offset_of(location: &path::Path) -> Option<u64> {
    location.filename()?.parse().ok()
}

/// The log of one build, open for writing. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _pump: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ObjectStore>,
    folder: path::Path,
    max_bytes: u64,
    redactor: Redactor,
    state: Mutex<State>,
    /// Held while a chunk is written, so that chunks follow each other.
    writing: tokio::sync::Mutex<()>,
    full: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Accepted and not yet stored.
    pending: Vec<u8>,
    /// Bytes that are stored.
    offset: u64,
    /// Bytes that are stored or pending.
    accepted: u64,
    /// The limit was reached, and the `cut` object is still to be written.
    mark: bool,
    /// Accepts nothing more.
    closed: bool,
    tail: VecDeque<String>,
    tail_bytes: usize,
}

impl Log {
    /// Adds a line. Secrets are redacted, and lines beyond the limit are dropped; the tail is kept in any case.
    pub(crate) fn line(&self, text: &str) {
        self.write(&Line {
            text: text.to_owned(),
            cut: false,
        });
    }

    /// Adds a line of a program's output.
    pub(crate) fn write(&self, line: &Line) {
        let mut text = self.shared.redactor.redact(&line.text, line.cut);
        if line.cut {
            text.push('…');
        }
        let mut state = self.shared.lock();
        if !state.closed {
            let size = text.len() as u64 + 1;
            if state.accepted + size > self.shared.max_bytes {
                state.closed = true;
                state.mark = true;
            } else {
                state.accepted += size;
                state.pending.extend_from_slice(text.as_bytes());
                state.pending.push(b'\n');
            }
        }
        state.tail_bytes += text.len();
        state.tail.push_back(text);
        while state.tail.len() > TAIL_LINES || state.tail_bytes > TAIL_BYTES {
            let Some(first) = state.tail.pop_front() else {
                break;
            };
            state.tail_bytes -= first.len();
        }
        let full = state.pending.len() >= CHUNK;
        drop(state);
        if full {
            self.shared.full.notify_one();
        }
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.shared.lock().tail.iter().cloned().collect()
    }

    /// Stores pending output, so that the log is complete before the step's outcome is known.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.shared.flush().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let (bytes, offset, mark) = {
            let mut state = self.lock();
            (
                std::mem::take(&mut state.pending),
                state.offset,
                std::mem::take(&mut state.mark),
            )
        };
        if !bytes.is_empty() {
            let size = bytes.len() as u64;
            let mode = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            match self
                .store
                .put_opts(&chunk(&self.folder, offset), PutPayload::from(bytes), mode)
                .await
            {
                Ok(_) => self.lock().offset += size,
                Err(error) => {
                    // A build does not fail for its log: another replica writes it now, or the store does not work.
                    tracing::warn!(%error, folder = %self.folder, "log chunk not stored; the log ends here");
                    self.lock().closed = true;
                    return;
                }
            }
        }
        if mark
            && let Err(error) = self
                .store
                .put(&self.folder.clone().join(CUT), PutPayload::new())
                .await
        {
            tracing::warn!(%error, folder = %self.folder, "mark of a cut log not stored");
        }
    }
}

async fn pump(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.full.notified() => {}
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        shared.flush().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(folder: &Path, max: u64) -> Logs {
        Logs::in_folder(folder, max, Redactor::new(["hunter22".to_owned()])).unwrap()
    }

    async fn all(logs: &Logs, id: &Id, mut offset: u64) -> (String, bool) {
        let mut text = Vec::new();
        loop {
            match logs.read(id, offset).await.unwrap() {
                LogRead::Chunk(bytes) => {
                    offset += bytes.len() as u64;
                    text.extend_from_slice(&bytes);
                }
                end => return (String::from_utf8(text).unwrap(), end == LogRead::Cut),
            }
        }
    }

    #[tokio::test]
    async fn a_log_is_read_from_any_offset_and_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let id: Id = "bld-1".parse().unwrap();
        let log = logs(folder.path(), 1000).open(&id).await.unwrap();
        log.line("one hunter22");
        log.close().await;
        let log = logs(folder.path(), 1000).open(&id).await.unwrap();
        log.line("two");
        log.close().await;
        let logs = logs(folder.path(), 1000);
        assert_eq!(all(&logs, &id, 0).await, ("one ***\ntwo\n".to_owned(), false));
        assert_eq!(all(&logs, &id, 4).await.0, "***\ntwo\n");
        assert_eq!(all(&logs, &id, 99).await.0, "");
        assert_eq!(log.tail(), ["two"]);
    }

    #[tokio::test]
    async fn a_log_is_cut_at_its_limit_and_its_tail_kept() {
        let folder = tempfile::tempdir().unwrap();
        let id: Id = "bld-1".parse().unwrap();
        let logs = logs(folder.path(), 25);
        let log = logs.open(&id).await.unwrap();
        for number in 0..100 {
            log.line(&format!("line {number}"));
        }
        log.close().await;
        assert_eq!(
            all(&logs, &id, 0).await,
            ("line 0\nline 1\nline 2\n".to_owned(), true)
        );
        assert_eq!(log.tail().len(), TAIL_LINES);
        assert_eq!(log.tail().last().unwrap(), "line 99");
        let again = logs.open(&id).await.unwrap();
        again.line("more");
        again.close().await;
        assert_eq!(all(&logs, &id, 0).await.0.len(), 21);
    }

    #[tokio::test]
    async fn two_writers_do_not_garble_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let id: Id = "bld-1".parse().unwrap();
        let logs = logs(folder.path(), 1000);
        let (first, second) = (logs.open(&id).await.unwrap(), logs.open(&id).await.unwrap());
        first.line("first");
        first.close().await;
        second.line("second");
        second.close().await;
        assert_eq!(all(&logs, &id, 0).await.0, "first\n");
    }
}
