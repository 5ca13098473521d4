//! Writing a group of batches on SQLite.
//!
//! There is one writer at a time, so the transaction compares each batch with what is there and writes it, in order.

use slipway_model::Timestamp;
use sqlx::{Connection, Row, SqliteConnection};

use super::Sqlite;
use crate::{
    rows::EventRow,
    store::{Append, Batch, Clash, Written, micros},
    types::Key,
};

type Outcome = Result<Vec<Written>, Clash>;

pub(super) async fn commit(store: &Sqlite, group: &[Batch], again: bool) -> sqlx::Result<Vec<Outcome>> {
    let mut writer = store.writer.lock().await;
    let mut tx = writer.durable(true).await?.begin_with("BEGIN IMMEDIATE").await?;
    let now = Timestamp::now();
    let mut outcomes = Vec::with_capacity(group.len());
    for batch in group {
        outcomes.push(one(&mut tx, batch, again, now, &store.owner).await?);
    }
    tx.commit().await?;
    Ok(outcomes)
}

async fn one(
    conn: &mut SqliteConnection,
    batch: &Batch,
    again: bool,
    now: Timestamp,
    me: &str,
) -> sqlx::Result<Outcome> {
    if let ([append], None, false) = (&*batch.appends, &batch.request, again)
        && append.writes()
        && append.expected > 0
    {
        // The common case does not need a read beforehand: the update itself compares.
        let Some(written) = write(conn, append, now, me).await? else {
            return Ok(Err(Clash::Seq));
        };
        for row in &append.events {
            insert_event(conn, &append.key, row).await?;
        }
        return Ok(Ok(vec![written]));
    }
    for append in &batch.appends {
        let seq = current(conn, &append.key).await?;
        if seq == append.expected {
            continue;
        }
        // Written before, but the answer was lost?
        if again && append.writes() && written_before(conn, append).await? {
            return Ok(Ok(vec![
                Written {
                    mine: false,
                    due_at: None
                };
                batch.appends.len()
            ]));
        }
        return Ok(Err(Clash::Seq));
    }
    if let Some((request, key)) = &batch.request {
        let taken = sqlx::query(
            "INSERT INTO requests (principal, method, request_id, fingerprint, kind, id, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )
        .bind(&request.principal)
        .bind(&request.method)
        .bind(&request.request_id)
        .bind(&request.fingerprint)
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(now.as_micros())
        .execute(&mut *conn)
        .await?
        .rows_affected()
            == 0;
        if taken {
            return Ok(Err(Clash::Request));
        }
    }
    let mut written = Vec::with_capacity(batch.appends.len());
    for append in &batch.appends {
        for row in &append.events {
            insert_event(conn, &append.key, row).await?;
        }
        let unwritten = Written {
            mine: false,
            due_at: None,
        };
        written.push(if append.writes() {
            // Compared above, in this transaction.
            write(conn, append, now, me).await?.unwrap_or(unwritten)
        } else {
            unwritten
        });
    }
    Ok(Ok(written))
}

async fn current(conn: &mut SqliteConnection, key: &Key) -> sqlx::Result<u64> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM aggregates WHERE kind = ?1 AND id = ?2")
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(seq.map_or(0, i64::cast_unsigned))
}

/// Whether the last event of this very append is there.
async fn written_before(conn: &mut SqliteConnection, append: &Append) -> sqlx::Result<bool> {
    let hash: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM events WHERE kind = ?1 AND id = ?2 AND seq = ?3")
            .bind(&*append.key.kind)
            .bind(append.key.id.as_str())
            .bind(append.next.seq.cast_signed())
            .fetch_optional(conn)
            .await?;
    Ok(hash.is_some_and(|hash| hash == append.next.head))
}

async fn insert_event(conn: &mut SqliteConnection, key: &Key, row: &EventRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO events (kind, id, seq, type, data, actor, traceparent, at, prev_hash, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .bind(row.seq.cast_signed())
    .bind(&row.event_type)
    .bind(&row.data)
    .bind(&row.actor)
    .bind(&row.traceparent)
    .bind(row.at.as_micros())
    .bind(row.prev_hash.as_slice())
    .bind(row.hash.as_slice())
    .execute(conn)
    .await?;
    Ok(())
}

/// The poll after this append, the hints it leaves open, and from both when it is due; the existing row, if any,
/// is named `aggregates`. ?1 now, ?2 effects, ?3 wake_at, ?4 poll interval, ?5 polled.
macro_rules! due {
    ($columns:literal) => {
        concat!(
            "due_at = CASE WHEN ?2 OR (?4 IS NOT NULL AND hinted_at IS NOT NULL AND (?5 IS NULL OR hinted_at > ?5))
                           THEN ?1
                           ELSE coalesce(min(?3, ",
            "CASE WHEN ?4 IS NULL THEN NULL WHEN ?5 IS NOT NULL OR poll_at IS NULL THEN ?1 + ?4 ELSE poll_at END",
            "), ?3, ",
            "CASE WHEN ?4 IS NULL THEN NULL WHEN ?5 IS NOT NULL OR poll_at IS NULL THEN ?1 + ?4 ELSE poll_at END",
            ") END,
             poll_at = CASE WHEN ?4 IS NULL THEN NULL WHEN ?5 IS NOT NULL OR poll_at IS NULL THEN ?1 + ?4 ELSE poll_at END,
             hinted_at = CASE WHEN ?5 IS NOT NULL AND hinted_at <= ?5 THEN NULL ELSE hinted_at END",
            $columns
        )
    };
}
pub(super) use due;

/// `None` when it is not at the seq that the append was decided on.
async fn write(
    conn: &mut SqliteConnection,
    append: &Append,
    now: Timestamp,
    me: &str,
) -> sqlx::Result<Option<Written>> {
    if append.expected == 0 {
        sqlx::query(
            "INSERT INTO aggregates (kind, id, seq, state_version, status, service, environment, correlation, labels,
                 final, created_at, updated_at, attempts, head_hash, state)
             VALUES (?1, ?2, 0, 0, '', '', '', '', '{}', 0, ?3, ?3, 0, x'', '')",
        )
        .bind(&*append.key.kind)
        .bind(append.key.id.as_str())
        .bind(append.next.created_at.as_micros())
        .execute(&mut *conn)
        .await?;
    }
    let schedule = &append.schedule;
    let row = sqlx::query(concat!(
        "UPDATE aggregates SET ",
        due!(""),
        ", seq = ?6, state_version = ?7, status = ?8, service = ?9, environment = ?10, correlation = ?11, labels = ?12,
           final = ?13, updated_at = ?14, head_hash = ?15, state = ?16, traceparent = ?17,
           attempts = CASE WHEN ?2 THEN 1 ELSE 0 END, set_aside = NULL, fault = NULL, faults = 0,
           lease_owner = CASE
               WHEN ?18 = 1 AND (lease_owner IS NULL OR lease_until <= ?1 OR lease_owner = ?19) THEN ?19
               WHEN ?18 = 2 AND lease_owner = ?19 THEN NULL
               ELSE lease_owner END,
           lease_until = CASE
               WHEN ?18 = 1 AND (lease_owner IS NULL OR lease_until <= ?1 OR lease_owner = ?19) THEN ?1 + ?20
               WHEN ?18 = 2 AND lease_owner = ?19 THEN NULL
               ELSE lease_until END
         WHERE kind = ?21 AND id = ?22 AND seq = ?23
         RETURNING due_at, lease_owner IS ?19 AND lease_until > ?1 AS mine"
    ))
    .bind(now.as_micros())
    .bind(schedule.effects)
    .bind(schedule.wake_at.map(Timestamp::as_micros))
    .bind(schedule.poll_every.map(micros))
    .bind(schedule.polled.map(Timestamp::as_micros))
    .bind(append.next.seq.cast_signed())
    .bind(append.state_version)
    .bind(&append.index.status)
    .bind(&append.index.service)
    .bind(&append.index.environment)
    .bind(&append.index.correlation)
    .bind(&append.labels)
    .bind(append.is_final)
    .bind(append.next.updated_at.as_micros())
    .bind(append.next.head.as_slice())
    .bind(&append.state)
    .bind(append.next.traceparent.map(|context| context.to_string()))
    .bind(append.wish.code())
    .bind(me)
    .bind(append.wish.lease_micros())
    .bind(&*append.key.kind)
    .bind(append.key.id.as_str())
    .bind(append.expected.cast_signed())
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let due_at = row.try_get::<Option<i64>, _>("due_at")?;
        Ok(Written {
            mine: row.try_get("mine")?,
            due_at: due_at.map(Timestamp::from_micros),
        })
    })
    .transpose()
}

/// Rewrites the state of an older version, as of the same seq.
pub(super) async fn rewrite(store: &Sqlite, append: &Append) -> sqlx::Result<bool> {
    let mut writer = store.writer.lock().await;
    let schedule = &append.schedule;
    sqlx::query(concat!(
        "UPDATE aggregates SET ",
        due!(""),
        ", state_version = ?6, status = ?7, service = ?8, environment = ?9, correlation = ?10, labels = ?11,
           final = ?12, state = ?13
         WHERE kind = ?14 AND id = ?15 AND seq = ?16 AND state_version < ?6"
    ))
    .bind(Timestamp::now().as_micros())
    .bind(schedule.effects)
    .bind(schedule.wake_at.map(Timestamp::as_micros))
    .bind(schedule.poll_every.map(micros))
    .bind(None::<i64>)
    .bind(append.state_version)
    .bind(&append.index.status)
    .bind(&append.index.service)
    .bind(&append.index.environment)
    .bind(&append.index.correlation)
    .bind(&append.labels)
    .bind(append.is_final)
    .bind(&append.state)
    .bind(&*append.key.kind)
    .bind(append.key.id.as_str())
    .bind(append.expected.cast_signed())
    .execute(writer.durable(true).await?)
    .await
    .map(|done| done.rows_affected() == 1)
}
