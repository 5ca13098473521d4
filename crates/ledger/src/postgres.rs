//! The ledger on PostgreSQL 13 or later.
//!
//! Appends have two connections of their own, whose commits wait for the disk. Everything else is reads, or writes that
//! may be lost in a crash of the database because they would simply be repeated (leases, hints, polls), and goes
//! through a pool with `synchronous_commit=off`.

use std::{
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use slipway_model::{ContentHash, Id, Reason, Timestamp};
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow},
};
use tokio::sync::mpsc;

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
mod feed;
mod listen;
mod time;
mod work;

use time::PgTime;

/// Where replicas tell each other what they appended.
const CHANNEL: &str = "slipway_ledger";
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Postgres {
    pool: PgPool,
    committers: Committers,
    owner: String,
}

/// The connections that append. Not a pool: the committer knows how many groups are in flight, and a failed group
/// leaves its connection out.
#[derive(Debug)]
struct Committers {
    options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
}

impl Committers {
    async fn take(&self) -> sqlx::Result<PgConnection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(conn) = idle {
            return Ok(conn);
        }
        let mut conn = tokio::time::timeout(CONNECT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)??;
        // What was confirmed must survive a crash, whatever the server's default; stronger settings stay.
        sqlx::query(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        )
        .execute(&mut conn)
        .await?;
        Ok(conn)
    }

    fn put_back(&self, conn: PgConnection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(conn);
    }
}

fn options(config: &LedgerConfig) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(&config.url)
        .map_err(|error| LedgerError::Config(format!("the url cannot be used: {error}")))?
        .application_name(&format!("slipway-{}", config.origin)))
}

impl Postgres {
    /// Connects and disconnects.
    pub(crate) async fn check(config: &LedgerConfig) -> Result<()> {
        let failed = LedgerError::database("connecting to the database");
        let connecting = async {
            let mut conn = PgConnection::connect_with(&options(config)?)
                .await
                .map_err(&failed)?;
            conn.ping().await.map_err(&failed)?;
            conn.close().await.map_err(&failed)
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .unwrap_or_else(|_| Err(failed(sqlx::Error::PoolTimedOut)))
    }

    pub(crate) async fn open(config: &LedgerConfig, owner: String) -> Result<Self> {
        let options = options(config)?;
        let opening = LedgerError::database("connecting to the database");
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.max(2))
            .acquire_timeout(CONNECT)
            .connect_with(options.clone().options([("synchronous_commit", "off")]))
            .await
            .map_err(&opening)?;
        // Rows are always found by their keys: a plan made while a table was small must not scan it when it is large.
        // And one plan fits every group, while planning takes longer than writing a small group.
        let plans = [
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ];
        let committers = Committers {
            options: options.options(plans),
            idle: Mutex::default(),
        };
        let mut migrator = sqlx::migrate!("migrations/postgres");
        // A newer replica's tables are its own concern: state versions decide what may be written.
        migrator.set_ignore_missing(true);
        let mut conn = pool.acquire().await.map_err(&opening)?;
        // Not `run`: the future of a generic `Acquire` cannot be spawned.
        migrator
            .run_direct(None, &mut *conn, false)
            .await
            .map_err(|error| LedgerError::Database {
                doing: "migrating the database",
                transient: false,
                source: Box::new(error),
            })?;
        drop(conn);
        let store = Self {
            pool,
            committers,
            owner,
        };
        feed::adopt(&store).await.map_err(&opening)?;
        sqlx::query("DELETE FROM requests WHERE created_at < now() - $1 * interval '1 microsecond'")
            .bind(crate::store::micros(config.request_retention))
            .execute(&store.pool)
            .await
            .map_err(&opening)?;
        Ok(store)
    }
}

#[async_trait]
impl Store for Postgres {
    async fn now(&self) -> Result<Timestamp> {
        sqlx::query_scalar("SELECT now()")
            .fetch_one(&self.pool)
            .await
            .map(|PgTime(now)| now)
            .map_err(LedgerError::database("asking for the time"))
    }

    async fn load(&self, key: &Key, known: u64) -> Result<Option<AggregateRow>> {
        sqlx::query(
            "SELECT id, seq, state_version, created_at, updated_at, fault, faults, set_aside, due_at, traceparent,
                    head_hash,
                    CASE WHEN seq = $3 THEN NULL ELSE state END AS state
             FROM aggregates WHERE kind = $1 AND id = $2",
        )
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(known.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .and_then(|row| row.as_ref().map(aggregate).transpose())
        .map_err(LedgerError::database("reading an aggregate"))
    }

    async fn events(&self, key: &Key, after: u64, limit: u32) -> Result<Vec<EventRow>> {
        sqlx::query(
            "SELECT seq, type, data, actor, traceparent, at, prev_hash, hash FROM events
             WHERE kind = $1 AND id = $2 AND seq > $3 ORDER BY seq LIMIT $4",
        )
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(after.cast_signed())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
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
        sqlx::query(
            "SELECT id, seq, state_version, created_at, updated_at, fault, faults, set_aside, due_at, traceparent,
                    head_hash, state
             FROM aggregates
             WHERE kind = $1
               AND ($2::text[] = '{}' OR status = ANY ($2))
               AND ($3::text IS NULL OR service = $3 AND service <> '')
               AND ($4::text IS NULL OR environment = $4)
               AND ($5::text IS NULL OR correlation = $5 AND correlation <> '')
               AND (NOT $6 OR NOT final)
               AND ($7 = '{}' OR labels @> $7::jsonb AND labels <> '{}')
               AND ($8::timestamptz IS NULL OR (created_at, id) < ($8, $9))
             ORDER BY created_at DESC, id DESC LIMIT $10",
        )
        .bind(kind)
        .bind(&filter.status)
        .bind(filter.service.as_deref())
        .bind(filter.environment.as_deref())
        .bind(filter.correlation.as_deref())
        .bind(filter.not_final)
        .bind(serde_json::to_string(&filter.labels).unwrap_or_default())
        .bind(after.map(|after| PgTime(after.created_at)))
        .bind(after.map(|after| after.id.as_str()))
        .bind(i64::from(limit))
        // Planned with its values each time: the right index depends on which filters are set.
        .persistent(false)
        .fetch_all(&self.pool)
        .await
        .and_then(|rows| rows.iter().map(aggregate).collect())
        .map_err(LedgerError::database("listing"))
    }

    async fn request(&self, key: &IdempotencyKey) -> Result<Option<RequestRow>> {
        sqlx::query(
            "SELECT fingerprint, kind, id FROM requests WHERE principal = $1 AND method = $2 AND request_id = $3",
        )
        .bind(&key.principal)
        .bind(&key.method)
        .bind(&key.request_id)
        .fetch_optional(&self.pool)
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
        sqlx::query(
            "INSERT INTO contents (sha256, body) VALUES (decode($1, 'hex'), $2) ON CONFLICT DO NOTHING",
        )
        .bind(hash.as_str())
        .bind(body)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(LedgerError::database("keeping a content"))
    }

    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>> {
        sqlx::query_scalar("SELECT body FROM contents WHERE sha256 = decode($1, 'hex')")
            .bind(hash.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(LedgerError::database("reading a content"))
    }

    async fn commit(&self, group: &[Batch], again: bool) -> Result<Vec<Result<Vec<Written>, Clash>>> {
        append::commit(self, group, again)
            .await
            .map_err(LedgerError::database("appending"))
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<Vec<FeedRow>> {
        feed::read(self, after, limit)
            .await
            .map_err(LedgerError::database("reading the feed"))
    }

    async fn feed_start(&self, start: Start) -> Result<Position> {
        feed::start(self, start)
            .await
            .map_err(LedgerError::database("finding a position in the feed"))
    }

    async fn feed_resume(&self, position: Position) -> Result<Position> {
        feed::resume(self, position)
            .await
            .map_err(LedgerError::database("finding a position in the feed"))
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
            "SELECT id FROM aggregates WHERE kind = $1 AND state_version < $2 AND id > $3 ORDER BY id LIMIT $4",
        )
        .bind(kind)
        .bind(version.cast_signed())
        .bind(after.map_or("", Id::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
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
        feed::relay(self, name)
            .await
            .map_err(LedgerError::database("reading the relay's cursor"))
    }

    async fn save_relay(&self, name: &str, position: Position, last_entry: Option<&str>) -> Result<bool> {
        feed::save_relay(self, name, position, last_entry)
            .await
            .map_err(LedgerError::database("saving the relay's cursor"))
    }

    async fn remote(&self) -> Result<mpsc::Receiver<Remote>> {
        let listening = LedgerError::database("listening");
        let mut listener = PgListener::connect_with(&self.pool).await.map_err(&listening)?;
        listener.listen(CHANNEL).await.map_err(&listening)?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(listen::listen(listener, self.owner.clone(), sender));
        Ok(receiver)
    }

    async fn close(&self) {
        let idle = std::mem::take(
            &mut *self
                .committers
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for conn in idle {
            if let Err(error) = conn.close().await {
                tracing::debug!(%error, "a connection was not closed cleanly");
            }
        }
        self.pool.close().await;
    }
}

fn unsigned(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

fn time(row: &PgRow, column: &str) -> sqlx::Result<Timestamp> {
    row.try_get::<PgTime, _>(column).map(|PgTime(time)| time)
}

fn id(row: &PgRow, column: &str) -> sqlx::Result<Id> {
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn hash(row: &PgRow, column: &str) -> sqlx::Result<[u8; 32]> {
    row.try_get::<&[u8], _>(column)?
        .try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn failing(row: &PgRow) -> sqlx::Result<Failing> {
    Ok(Failing {
        fault: row.try_get("fault")?,
        faults: row.try_get::<i32, _>("faults")?.cast_unsigned(),
        parked: row.try_get("set_aside")?,
        due_at: row.try_get::<Option<PgTime>, _>("due_at")?.map(|PgTime(at)| at),
    })
}

fn aggregate(row: &PgRow) -> sqlx::Result<AggregateRow> {
    Ok(AggregateRow {
        id: id(row, "id")?,
        seq: unsigned(row, "seq")?,
        state_version: row.try_get::<i32, _>("state_version")?.cast_unsigned(),
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        failing: failing(row)?,
        traceparent: row.try_get("traceparent")?,
        head: hash(row, "head_hash")?,
        state: row.try_get("state")?,
    })
}

fn event(row: &PgRow) -> sqlx::Result<EventRow> {
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
