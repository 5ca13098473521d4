//! The durable form of the store: one append-only file of checksummed JSON lines, rewritten when it has grown.
//!
//! A line is `CRC32 (8 hex digits) SPACE JSON NEWLINE`. The first line is the header, then come objects as they were at
//! the last compaction, then every change since. A torn last line (power cut, full disk) is dropped; with damage
//! anywhere else the start is refused, since continuing would silently lose objects.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Record {
    /// What the file starts from: changes up to and including `rv` are part of the objects that follow.
    Base { format: u32, rv: u64 },
    /// The object as of `rv`.
    Put { rv: u64, object: Value },
    /// The object that was removed at `rv`.
    Delete { rv: u64, object: Value },
}

/// The only format this build writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// What cannot be read or written, with the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: line {line} is damaged; move the file away to start with an empty cluster")]
    Damaged { path: PathBuf, line: usize },
    #[error(
        "{path}: written in format {format}, this build reads format {FORMAT}; use the build that wrote it"
    )]
    Format { path: PathBuf, format: u32 },
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record).map_err(io::Error::other)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn decode(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| serde_json::from_slice(json).ok())?
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes written so far.
    pub(crate) size: u64,
}

impl Journal {
    /// Reads the file (a missing one is empty), truncates a torn last line, and opens it for appending.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged before its last line, or has another format.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let failed = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            let journal = Self::rewrite(path, 0, &[]).map_err(failed)?;
            return Ok((journal, Vec::new()));
        }
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let (mut records, mut good, mut number) = (Vec::new(), 0_u64, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                break;
            }
            number += 1;
            match decode(&line) {
                Some(Record::Base { format, .. }) if format != FORMAT => {
                    return Err(JournalError::Format {
                        path: path.to_owned(),
                        format,
                    });
                }
                Some(record) => records.push(record),
                None if reader.fill_buf().map_err(failed)?.is_empty() => break,
                None => {
                    return Err(JournalError::Damaged {
                        path: path.to_owned(),
                        line: number,
                    });
                }
            }
            good += read as u64;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        file.set_len(good).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok((
            Self {
                path: path.to_owned(),
                file,
                size: good,
            },
            records,
        ))
    }

    /// Atomically replaces the file by one that contains `objects` as of `rv`.
    pub(crate) fn rewrite(path: &Path, rv: u64, objects: &[std::sync::Arc<Value>]) -> io::Result<Self> {
        let temporary = path.with_extension("tmp");
        let mut file = io::BufWriter::new(File::create(&temporary)?);
        let mut size = 0;
        let mut put = |record: &Record| -> io::Result<()> {
            let line = encode(record)?;
            size += line.len() as u64;
            file.write_all(&line)
        };
        put(&Record::Base { format: FORMAT, rv })?;
        for object in objects {
            put(&Record::Put {
                rv: crate::object::resource_version(object),
                object: Value::clone(object),
            })?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    /// Appends the records with one write and one flush to the disk.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&encode(record)?);
        }
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
