//! The ledger on SQLite: one file, one writer connection, a pool of readers.
//!
//! Appends are durable when they return (`synchronous=FULL`); claims, hints and the like are written without waiting
//! for the disk, since losing them in a power cut only means that they are repeated. The machine's clock is the
//! database's clock.

use std::{fs::File, path::PathBuf, str::FromStr, time::Duration};

use async_trait::async_trait;
use slipway_model::{ContentHash, Id, Reason, Timestamp};
use sqlx::{
    Connection, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tokio::sync::{Mutex, mpsc};

use crate::{
    IdempotencyKey, Inspected, LedgerConfig, LedgerError, ListFilter, Parking,
    rows::{After, AfterParked, AggregateRow, EventRow, Failing, FeedRow, Position, RequestRow, Start},
    store::{
        Append, Batch, Claimant, Claims, Clash, Failed, Hinted, Remote, Result, Schedule, Settled, Store,
        Written,
    },
    types::Key,
};

mod append;
mod file;
mod work;

/// How often we look whether another process wrote.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Sqlite {
    readers: SqlitePool,
    writer: Mutex<Writer>,
    owner: String,
    /// Shared by all processes that use the file: a process that gets it exclusively knows that every lease belongs to
    /// a dead process.
    _lock: File,
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    conn: SqliteConnection,
    /// Whether commits wait for the disk now.
    durable: bool,
}

impl Writer {
    /// The connection, outside a transaction, with commits that do or do not wait for the disk.
    async fn durable(&mut self, durable: bool) -> sqlx::Result<&mut SqliteConnection> {
        if self.durable != durable {
            let pragma = if durable {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            };
            sqlx::query(pragma).execute(&mut self.conn).await?;
            self.durable = durable;
        }
        Ok(&mut self.conn)
    }
}

impl Sqlite {
    /// Whether the file, or its folder if the file does not exist, can be written.
    pub(crate) async fn check(config: &LedgerConfig) -> Result<()> {
        let options = SqliteConnectOptions::from_str(&config.url)
            .map_err(|error| LedgerError::Config(format!("the url cannot be used: {error}")))?;
        let file = options.get_filename().to_owned();
        tokio::task::spawn_blocking(move || {
            file::check(&file).map_err(|error| {
                LedgerError::Config(format!("{} cannot be written: {error}", file.display()))
            })
        })
        .await
        .map_err(|error| LedgerError::Config(error.to_string()))?
    }

    pub(crate) async fn open(config: &LedgerConfig, owner: String) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(&config.url)
            .map_err(|error| LedgerError::Config(format!("the url cannot be used: {error}")))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let mut path = PathBuf::from(options.get_filename()).into_os_string();
        path.push(".lock");
        let (lock, alone) = tokio::task::spawn_blocking(move || file::lock(&PathBuf::from(path)))
            .await
            .map_err(|error| LedgerError::Config(error.to_string()))?
            .map_err(|error| {
                LedgerError::Config(format!("the database file's folder cannot be used: {error}"))
            })?;

        let opening = LedgerError::database("opening the database");
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(&opening)?;
        let mut migrator = sqlx::migrate!("migrations/sqlite");
        // A newer replica's tables are its own concern: state versions decide what may be written.
        migrator.set_ignore_missing(true);
        migrator
            // Not `run`: the future of a generic `Acquire` cannot be spawned.
            .run_direct(None, &mut writer, false)
            .await
            .map_err(|error| LedgerError::Database {
                doing: "migrating the database",
                transient: false,
                source: Box::new(error),
            })?;
        if alone {
            sqlx::query(
                "UPDATE aggregates SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL",
            )
            .execute(&mut writer)
            .await
            .map_err(&opening)?;
            sqlx::query("DELETE FROM leases")
                .execute(&mut writer)
                .await
                .map_err(&opening)?;
        }
        lock.lock_shared()
            .map_err(|error| LedgerError::Config(error.to_string()))?;
        sqlx::query("DELETE FROM requests WHERE created_at < ?1")
            .bind(Timestamp::now().as_micros() - crate::store::micros(config.request_retention))
            .execute(&mut writer)
            .await
            .map_err(&opening)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(config.max_connections.max(1))
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(&opening)?;
        Ok(Self {
            readers,
            writer: Mutex::new(Writer {
                conn: writer,
                durable: true,
            }),
            owner,
            _lock: lock,
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn now(&self) -> Result<Timestamp> {
        Ok(Timestamp::now())
    }

    async fn load(&self, key: &Key, known: u64) -> Result<Option<AggregateRow>> {
        sqlx::query(
            "SELECT id, seq, state_version, created_at, updated_at, fault, faults, set_aside, due_at, traceparent,
                    head_hash,
                    CASE WHEN seq = ?3 THEN NULL ELSE state END AS state
             FROM aggregates WHERE kind = ?1 AND id = ?2",
        )
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(known.cast_signed())
        .fetch_optional(&self.readers)
        .await
        .and_then(|row| row.as_ref().map(aggregate).transpose())
        .map_err(LedgerError::database("reading an aggregate"))
    }

    async fn events(&self, key: &Key, after: u64, limit: u32) -> Result<Vec<EventRow>> {
        sqlx::query(
            "SELECT seq, type, data, actor, traceparent, at, prev_hash, hash FROM events
             WHERE kind = ?1 AND id = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
        )
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(after.cast_signed())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .and_then(|rows| rows.iter().map(event).collect())
        .map_err(LedgerError::database("reading a history"))
    }

    async fn list(
        &self,
        kind: &str,
        filter: &ListFilter,
        after: Option<&After>,
        limit: u32,
    ) -> Result<Vec<AggregateRow>> {
        let json = |value: &Vec<String>| serde_json::to_string(value).unwrap_or_default();
        let labels: Vec<[&String; 2]> = filter.labels.iter().map(|(name, value)| [name, value]).collect();
        sqlx::query(
            "SELECT id, seq, state_version, created_at, updated_at, fault, faults, set_aside, due_at, traceparent,
                    head_hash, state
             FROM aggregates
             WHERE kind = ?1
               AND (?2 = '[]' OR status IN (SELECT value FROM json_each(?2)))
               AND (?3 IS NULL OR service = ?3)
               AND (?4 IS NULL OR environment = ?4)
               AND (?5 IS NULL OR correlation = ?5)
               AND (NOT ?6 OR final = 0)
               AND NOT EXISTS (SELECT 1 FROM json_each(?7) AS wanted WHERE NOT EXISTS (
                       SELECT 1 FROM json_each(labels) AS label
                       WHERE label.key = wanted.value ->> 0 AND label.value = wanted.value ->> 1))
               AND (?8 IS NULL OR (created_at, id) < (?8, ?9))
             ORDER BY created_at DESC, id DESC LIMIT ?10",
        )
        .bind(kind)
        .bind(json(&filter.status))
        .bind(filter.service.as_deref())
        .bind(filter.environment.as_deref())
        .bind(filter.correlation.as_deref())
        .bind(filter.not_final)
        .bind(serde_json::to_string(&labels).unwrap_or_default())
        .bind(after.map(|after| after.created_at.as_micros()))
        .bind(after.map(|after| after.id.as_str()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .and_then(|rows| rows.iter().map(aggregate).collect())
        .map_err(LedgerError::database("listing"))
    }

    async fn request(&self, key: &IdempotencyKey) -> Result<Option<RequestRow>> {
        sqlx::query(
            "SELECT fingerprint, kind, id FROM requests WHERE principal = ?1 AND method = ?2 AND request_id = ?3",
        )
        .bind(&key.principal)
        .bind(&key.method)
        .bind(&key.request_id)
        .fetch_optional(&self.readers)
        .await
        .and_then(|row| {
            row.map(|row| {
                Ok(RequestRow { fingerprint: row.try_get(0)?, kind: row.try_get(1)?, id: id(&row, "id")? })
            })
            .transpose()
        })
        .map_err(LedgerError::database("looking up a request"))
    }

    async fn put_content(&self, hash: &ContentHash, body: &[u8]) -> Result<()> {
        let keeping = LedgerError::database("keeping a content");
        let mut writer = self.writer.lock().await;
        let conn = writer.durable(false).await.map_err(&keeping)?;
        sqlx::query(
            "INSERT INTO contents (sha256, body, created_at) VALUES (unhex(?1), ?2, ?3) ON CONFLICT DO NOTHING",
        )
        .bind(hash.as_str())
        .bind(body)
        .bind(Timestamp::now().as_micros())
        .execute(conn)
        .await
        .map(drop)
        .map_err(keeping)
    }

    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>> {
        sqlx::query_scalar("SELECT body FROM contents WHERE sha256 = unhex(?1)")
            .bind(hash.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(LedgerError::database("reading a content"))
    }

    async fn commit(&self, group: &[Batch], again: bool) -> Result<Vec<Result<Vec<Written>, Clash>>> {
        append::commit(self, group, again)
            .await
            .map_err(LedgerError::database("appending"))
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<Vec<FeedRow>> {
        sqlx::query(
            "SELECT e.position, e.kind, e.id, e.seq, e.type, e.data, e.actor, e.traceparent, e.at, e.prev_hash, e.hash,
                    a.correlation, a.service, a.environment
             FROM events e JOIN aggregates a ON a.kind = e.kind AND a.id = e.id
             WHERE e.position > ?1 ORDER BY e.position LIMIT ?2",
        )
        .bind(after.position)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .and_then(|rows| {
            rows.iter()
                .map(|row| {
                    Ok(FeedRow {
                        position: Position { tx: 0, position: row.try_get("position")? },
                        kind: row.try_get("kind")?,
                        id: id(row, "id")?,
                        event: event(row)?,
                        correlation: row.try_get("correlation")?,
                        service: row.try_get("service")?,
                        environment: row.try_get("environment")?,
                    })
                })
                .collect()
        })
        .map_err(LedgerError::database("reading the feed"))
    }

    async fn feed_start(&self, start: Start) -> Result<Position> {
        let query = match start {
            Start::Now => sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM events"),
            Start::Since(at) => sqlx::query_scalar(
                "SELECT coalesce((SELECT min(position) - 1 FROM events WHERE at >= ?1), max(position), 0) FROM events",
            )
            .bind(at.as_micros()),
        };
        let position = query
            .fetch_one(&self.readers)
            .await
            .map_err(LedgerError::database("finding a position in the feed"))?;
        Ok(Position { tx: 0, position })
    }

    async fn feed_resume(&self, position: Position) -> Result<Position> {
        Ok(position)
    }

    async fn claim(&self, claimant: &Claimant, limit: u32) -> Result<Claims> {
        work::claim(self, claimant, limit)
            .await
            .map_err(LedgerError::database("claiming what is due"))
    }

    async fn renew(&self, keys: &[Key], lease: Duration) -> Result<Vec<Key>> {
        work::renew(self, keys, lease)
            .await
            .map_err(LedgerError::database("renewing leases"))
    }

    async fn settle(
        &self,
        key: &Key,
        seq: u64,
        schedule: &Schedule,
        fault: Option<&Reason>,
        release: bool,
    ) -> Result<Option<Settled>> {
        work::settle(self, key, seq, schedule, fault, release)
            .await
            .map_err(LedgerError::database("settling"))
    }

    async fn fail(&self, key: &Key, error: &Reason, backoff: Duration, limit: u32) -> Result<Option<Failed>> {
        work::fail(self, key, error, backoff, limit)
            .await
            .map_err(LedgerError::database("recording a failure"))
    }

    async fn release(&self, keys: &[Key]) -> Result<()> {
        work::release(self, keys)
            .await
            .map_err(LedgerError::database("releasing leases"))
    }

    async fn hint(&self, key: &Key, claimant: Option<&Claimant>) -> Result<Hinted> {
        work::hint(self, key, claimant)
            .await
            .map_err(LedgerError::database("storing a hint"))
    }

    async fn parked(
        &self,
        kind: Option<&str>,
        after: Option<&AfterParked>,
        limit: u32,
    ) -> Result<Vec<Inspected>> {
        work::parked(self, kind, after, limit)
            .await
            .map_err(LedgerError::database("listing what is parked"))
    }

    async fn inspect(&self, key: &Key) -> Result<Option<Inspected>> {
        work::inspect(self, key)
            .await
            .map_err(LedgerError::database("reading an aggregate"))
    }

    async fn resume(&self, key: &Key) -> Result<Option<Parking>> {
        work::resume(self, key)
            .await
            .map_err(LedgerError::database("resuming"))
    }

    async fn outdated(&self, kind: &str, version: u32, after: Option<&Id>, limit: u32) -> Result<Vec<Id>> {
        sqlx::query(
            "SELECT id FROM aggregates WHERE kind = ?1 AND state_version < ?2 AND id > ?3 ORDER BY id LIMIT ?4",
        )
        .bind(kind)
        .bind(version)
        .bind(after.map_or("", Id::as_str))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .and_then(|rows| rows.iter().map(|row| id(row, "id")).collect())
        .map_err(LedgerError::database("looking for older state versions"))
    }

    async fn rewrite(&self, append: &Append) -> Result<bool> {
        append::rewrite(self, append)
            .await
            .map_err(LedgerError::database("writing a state again"))
    }

    async fn lease(&self, name: &str, ttl: Duration) -> Result<bool> {
        work::lease(self, name, ttl)
            .await
            .map_err(LedgerError::database("taking a lease"))
    }

    async fn unlease(&self, name: &str) -> Result<()> {
        work::unlease(self, name)
            .await
            .map_err(LedgerError::database("giving back a lease"))
    }

    async fn relay(&self, name: &str) -> Result<Option<(Position, Option<String>)>> {
        sqlx::query_as::<_, (i64, Option<String>)>(
            "SELECT position, last_entry_id FROM relay WHERE name = ?1",
        )
        .bind(name)
        .fetch_optional(&self.readers)
        .await
        .map(|row| row.map(|(position, entry)| (Position { tx: 0, position }, entry)))
        .map_err(LedgerError::database("reading the relay's cursor"))
    }

    async fn save_relay(&self, name: &str, position: Position, last_entry: Option<&str>) -> Result<bool> {
        work::save_relay(self, name, position, last_entry)
            .await
            .map_err(LedgerError::database("saving the relay's cursor"))
    }

    async fn remote(&self) -> Result<mpsc::Receiver<Remote>> {
        work::remote(self)
            .await
            .map_err(LedgerError::database("looking for other writers"))
    }

    async fn close(&self) {
        self.readers.close().await;
        // What is committed is safe; this only spares the next start from reading the log.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut self.writer.lock().await.conn)
            .await;
    }
}

fn unsigned(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

fn time(row: &SqliteRow, column: &str) -> sqlx::Result<Timestamp> {
    row.try_get(column).map(Timestamp::from_micros)
}

fn id(row: &SqliteRow, column: &str) -> sqlx::Result<Id> {
    row.try_get::<String, _>(column)?
        .parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn hash(row: &SqliteRow, column: &str) -> sqlx::Result<[u8; 32]> {
    row.try_get::<&[u8], _>(column)?
        .try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn failing(row: &SqliteRow) -> sqlx::Result<Failing> {
    Ok(Failing {
        fault: row.try_get("fault")?,
        faults: row.try_get("faults")?,
        parked: row.try_get("set_aside")?,
        due_at: row
            .try_get::<Option<i64>, _>("due_at")?
            .map(Timestamp::from_micros),
    })
}

fn aggregate(row: &SqliteRow) -> sqlx::Result<AggregateRow> {
    Ok(AggregateRow {
        id: id(row, "id")?,
        seq: unsigned(row, "seq")?,
        state_version: row.try_get("state_version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        failing: failing(row)?,
        traceparent: row.try_get("traceparent")?,
        head: hash(row, "head_hash")?,
        state: row.try_get("state")?,
    })
}

fn event(row: &SqliteRow) -> sqlx::Result<EventRow> {
    Ok(EventRow {
        seq: unsigned(row, "seq")?,
        event_type: row.try_get("type")?,
        data: row.try_get("data")?,
        actor: row.try_get("actor")?,
        traceparent: row.try_get("traceparent")?,
        at: time(row, "at")?,
        prev_hash: hash(row, "prev_hash")?,
        hash: hash(row, "hash")?,
    })
}
