//! What containers write: one file for the current run and one for the previous run, in the CRI log format (`TIME
//! STREAM TAG TEXT`), so that times and streams are known later.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// A file larger than this becomes the rotated one, of which there is only one (kubelet: `containerLogMaxSize`).
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Longer lines are written in parts.
const MAX_LINE: usize = 16 * 1024;

/// One line, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) time: Timestamp,
    /// With its newline, unless the line continues in the next part.
    pub(crate) text: Vec<u8>,
}

impl Line {
    pub(crate) fn stamp(&self) -> String {
        self.time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let mut fields = raw.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let (_stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?);
        let mut text = text.strip_suffix(b"\n")?.to_vec();
        if tag == b"F" {
            text.push(b'\n');
        }
        Some(Self { time, text })
    }
}

/// What followers of a file need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Counts the files: incremented with each rotation.
    file: u64,
    size: u64,
    closed: bool,
}

/// All logs, by pod and container.
#[derive(Debug)]
pub(crate) struct Logs {
    root: PathBuf,
    running: Mutex<HashMap<(String, String), watch::Receiver<Progress>>>,
}

impl Logs {
    pub(crate) fn new(root: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            root,
            running: Mutex::new(HashMap::new()),
        })
    }

    fn dir(&self, uid: &str, container: &str) -> PathBuf {
        self.root.join(uid).join(container)
    }

    /// Starts the log of a new run; the last one becomes the previous.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn start(&self, uid: &str, container: &str) -> io::Result<Writer> {
        let dir = self.dir(uid, container);
        fs::create_dir_all(&dir)?;
        for (from, to) in [
            ("current.log", "previous.log"),
            ("current.log.1", "previous.log.1"),
        ] {
            let (from, to) = (dir.join(from), dir.join(to));
            if from.exists() {
                fs::rename(from, to)?;
            } else if to.exists() {
                fs::remove_file(to)?;
            }
        }
        let file = File::create(dir.join("current.log"))?;
        let (progress, receiver) = watch::channel(Progress {
            file: 0,
            size: 0,
            closed: false,
        });
        let key = (uid.to_owned(), container.to_owned());
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, receiver);
        Ok(Writer {
            inner: Arc::new(Mutex::new(WriterFile { dir, file, progress })),
        })
    }

    /// Removes the logs of a pod that is gone.
    pub(crate) fn remove(&self, uid: &str) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(pod, _), _| pod != uid);
        if let Err(error) = fs::remove_dir_all(self.root.join(uid))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, uid, "the logs of a pod could not be removed");
        }
    }

    /// A reader of a container's log; `None` when there is none.
    pub(crate) fn open(&self, uid: &str, container: &str, previous: bool) -> Option<Reader> {
        let dir = self.dir(uid, container);
        let name = if previous { "previous.log" } else { "current.log" };
        let key = (uid.to_owned(), container.to_owned());
        let progress = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        let progress = progress.filter(|_| !previous);
        let file_number = progress.as_ref().map_or(0, |p| p.borrow().file);
        let file = BufReader::new(File::open(dir.join(name)).ok()?);
        let rotated = File::open(dir.join(format!("{name}.1"))).ok().map(BufReader::new);
        Some(Reader {
            dir,
            rotated,
            file,
            file_number,
            progress,
        })
    }
}

#[derive(Debug)]
struct WriterFile {
    dir: PathBuf,
    file: File,
    progress: watch::Sender<Progress>,
}

/// Takes what a container writes, from both of its streams.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    inner: Arc<Mutex<WriterFile>>,
}

impl Writer {
    /// Writes lines of `stream`, which end with a newline except possibly the last one.
    pub(crate) fn write(&self, stream: &str, bytes: &[u8]) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
        let mut record = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, whole) = line
                .strip_suffix(b"\n")
                .map_or((line, false), |text| (text, true));
            record.extend_from_slice(format!("{now} {stream} {} ", if whole { 'F' } else { 'P' }).as_bytes());
            record.extend_from_slice(text);
            record.push(b'\n');
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.append(&record) {
            tracing::warn!(%error, "a container's log could not be written");
        }
    }

    /// Tells followers that nothing more will come.
    pub(crate) fn close(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.progress.send_modify(|progress| progress.closed = true);
    }

    /// Copies a stream until it ends.
    pub(crate) async fn copy(self, stream: &'static str, source: impl tokio::io::AsyncRead + Unpin) {
        use tokio::io::AsyncReadExt;
        let mut source = source;
        let mut buffer = Vec::with_capacity(MAX_LINE);
        loop {
            match source.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let whole = buffer
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |index| index + 1);
            let ready = if whole == 0 && buffer.len() >= MAX_LINE {
                buffer.len()
            } else {
                whole
            };
            if ready > 0 {
                self.write(stream, &buffer[..ready]);
                buffer.drain(..ready);
            }
        }
        if !buffer.is_empty() {
            self.write(stream, &buffer);
        }
    }
}

impl WriterFile {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.progress.borrow().size > MAX_FILE {
            let current = self.dir.join("current.log");
            fs::rename(&current, self.dir.join("current.log.1"))?;
            self.file = File::create(current)?;
            self.progress.send_modify(|p| {
                p.file += 1;
                p.size = 0;
            });
        }
        self.file.write_all(record)?;
        self.progress.send_modify(|p| p.size += record.len() as u64);
        Ok(())
    }
}

/// Reads a log from its start, and then what is added.
#[derive(Debug)]
pub(crate) struct Reader {
    dir: PathBuf,
    rotated: Option<BufReader<File>>,
    file: BufReader<File>,
    file_number: u64,
    progress: Option<watch::Receiver<Progress>>,
}

impl Reader {
    /// The lines that exist now.
    pub(crate) fn read(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(mut rotated) = self.rotated.take() {
            read_lines(&mut rotated, &mut lines);
        }
        read_lines(&mut self.file, &mut lines);
        lines
    }

    /// Waits for more lines; `None` when the container is over and everything was read.
    pub(crate) async fn wait(&mut self) -> Option<Vec<Line>> {
        loop {
            let state = *self.progress.as_mut()?.borrow_and_update();
            let mut lines = self.read();
            if state.file != self.file_number {
                self.file_number = state.file;
                self.file = BufReader::new(File::open(current(&self.dir)).ok()?);
                read_lines(&mut self.file, &mut lines);
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            if state.closed || self.progress.as_mut()?.changed().await.is_err() {
                // The writer may have ended between the read and the wait.
                let rest = self.read();
                self.progress = None;
                return (!rest.is_empty()).then_some(rest);
            }
        }
    }
}

fn current(dir: &Path) -> PathBuf {
    dir.join("current.log")
}

fn read_lines(file: &mut BufReader<File>, lines: &mut Vec<Line>) {
    let mut raw = Vec::new();
    loop {
        raw.clear();
        match file.read_until(b'\n', &mut raw) {
            Ok(0) | Err(_) => return,
            Ok(read) if raw.last() != Some(&b'\n') => {
                // Half a record: it will be complete at the next read.
                let back = i64::try_from(read).unwrap_or(0);
                let _ = file.seek(SeekFrom::Current(-back));
                return;
            }
            Ok(_) => lines.extend(Line::parse(&raw)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line]) -> String {
        lines
            .iter()
            .map(|line| String::from_utf8_lossy(&line.text))
            .collect()
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_over_rotation_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        let writer = logs.start("uid", "app").unwrap();
        writer.write("stdout", b"one\n");
        let mut reader = logs.open("uid", "app", false).unwrap();
        assert_eq!(text(&reader.read()), "one\n");
        let filler = vec![b'x'; usize::try_from(MAX_FILE).unwrap()];
        writer.write("stdout", &filler);
        writer.write("stderr", b"two\nthree\n");
        writer.close();
        let mut seen = Vec::new();
        while let Some(lines) = reader.wait().await {
            seen.extend(lines);
        }
        assert!(text(&seen).ends_with("two\nthree\n"));
        assert_eq!(
            text(&logs.open("uid", "app", false).unwrap().read()).len(),
            4 + filler.len() + 10
        );
    }

    #[test]
    fn the_run_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        logs.start("uid", "app").unwrap().write("stdout", b"first\n");
        assert!(logs.open("uid", "app", true).is_none());
        logs.start("uid", "app").unwrap().write("stdout", b"second");
        assert_eq!(text(&logs.open("uid", "app", true).unwrap().read()), "first\n");
        assert_eq!(text(&logs.open("uid", "app", false).unwrap().read()), "second");
        logs.remove("uid");
        assert!(logs.open("uid", "app", false).is_none());
    }
}
