//! Leases, timers and hints on SQLite.

use std::time::Duration;

use slipway_model::{Reason, Timestamp};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use tokio::sync::mpsc;

use super::{LOOK, Sqlite, append::due};
use crate::{
    Inspected, Parking,
    rows::{AfterParked, Position, json},
    store::{Claim, Claimant, Claims, Failed, Hinted, Remote, Schedule, Settled, micros},
    types::Key,
};

/// Writes something that may be lost in a power cut: its commit does not wait for the disk.
async fn lightly<T>(
    store: &Sqlite,
    write: impl AsyncFnOnce(&mut SqliteConnection, i64) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut writer = store.writer.lock().await;
    let mut tx = writer.durable(false).await?.begin_with("BEGIN IMMEDIATE").await?;
    let value = write(&mut tx, Timestamp::now().as_micros()).await?;
    tx.commit().await?;
    Ok(value)
}

/// JSON over which `json_each` joins: `[[kind, version or id], …]`.
fn pairs<A: serde::Serialize, B: serde::Serialize>(pairs: impl Iterator<Item = (A, B)>) -> String {
    serde_json::to_string(&pairs.collect::<Vec<_>>()).unwrap_or_default()
}

fn keys_json(keys: &[Key]) -> String {
    pairs(keys.iter().map(|key| (&*key.kind, key.id.as_str())))
}

fn kinds_json(claimant: &Claimant) -> String {
    pairs(claimant.kinds.iter().map(|(kind, version)| (kind, version)))
}

pub(super) async fn claim(store: &Sqlite, claimant: &Claimant, limit: u32) -> sqlx::Result<Claims> {
    let kinds = kinds_json(claimant);
    let now = Timestamp::now();
    // Most of the time nothing is due, and checking does not take a lock.
    let due: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM aggregates
         WHERE due_at <= ?1 AND set_aside IS NULL AND (lease_until IS NULL OR lease_until <= ?1)
           AND EXISTS (SELECT 1 FROM json_each(?2) AS k WHERE k.value ->> 0 = kind AND state_version <= k.value ->> 1))",
    )
    .bind(now.as_micros())
    .bind(&kinds)
    .fetch_one(&store.readers)
    .await?;
    let mut claims = Vec::new();
    let mut claimed_at = now;
    if due && limit > 0 {
        (claims, claimed_at) = lightly(store, async |conn, now| {
            let rows = sqlx::query(
                "UPDATE aggregates SET lease_owner = ?3, lease_until = ?1 + ?4, attempts = attempts + 1
                 WHERE rowid IN (
                     SELECT rowid FROM aggregates
                     WHERE due_at <= ?1 AND set_aside IS NULL AND (lease_until IS NULL OR lease_until <= ?1)
                       AND EXISTS (SELECT 1 FROM json_each(?2) AS k
                                   WHERE k.value ->> 0 = kind AND state_version <= k.value ->> 1)
                     ORDER BY due_at LIMIT ?5)
                 RETURNING kind, id, attempts",
            )
            .bind(now)
            .bind(&kinds)
            .bind(&store.owner)
            .bind(micros(claimant.lease))
            .bind(limit)
            .fetch_all(conn)
            .await?;
            let claims = rows
                .iter()
                .map(|row| {
                    let kind: String = row.try_get("kind")?;
                    Ok(Claim {
                        key: Key::new(&kind, &super::id(row, "id")?),
                        attempts: row.try_get("attempts")?,
                    })
                })
                .collect::<sqlx::Result<Vec<_>>>()?;
            Ok((claims, Timestamp::from_micros(now)))
        })
        .await?;
    }
    let next_due: Option<i64> =
        sqlx::query_scalar("SELECT min(due_at) FROM aggregates WHERE due_at > ?1 AND set_aside IS NULL")
            .bind(claimed_at.as_micros())
            .fetch_one(&store.readers)
            .await?;
    Ok(Claims {
        now: claimed_at,
        claims,
        next_due: next_due.map(Timestamp::from_micros),
    })
}

pub(super) async fn renew(store: &Sqlite, keys: &[Key], lease: Duration) -> sqlx::Result<Vec<Key>> {
    let json = keys_json(keys);
    lightly(store, async |conn, now| {
        sqlx::query(
            "UPDATE aggregates SET lease_until = ?1 + ?2
             WHERE lease_owner = ?3
               AND (kind, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?4))
             RETURNING kind, id",
        )
        .bind(now)
        .bind(micros(lease))
        .bind(&store.owner)
        .bind(json)
        .fetch_all(conn)
        .await?
        .iter()
        .map(|row| Ok(Key::new(row.try_get("kind")?, &super::id(row, "id")?)))
        .collect()
    })
    .await
}

pub(super) async fn settle(
    store: &Sqlite,
    key: &Key,
    seq: u64,
    schedule: &Schedule,
    fault: Option<&Reason>,
    release: bool,
) -> sqlx::Result<Option<Settled>> {
    lightly(store, async |conn, now| {
        sqlx::query(concat!(
            "UPDATE aggregates SET ",
            due!(""),
            ", attempts = CASE WHEN ?2 THEN 1 ELSE 0 END,
               fault = ?11, faults = CASE WHEN ?11 IS NULL THEN 0 ELSE faults + 1 END,
               lease_owner = CASE WHEN ?6 THEN NULL ELSE lease_owner END,
               lease_until = CASE WHEN ?6 THEN NULL ELSE lease_until END
             WHERE kind = ?7 AND id = ?8 AND seq = ?9 AND lease_owner = ?10
             RETURNING due_at, faults"
        ))
        .bind(now)
        .bind(schedule.effects)
        .bind(schedule.wake_at.map(Timestamp::as_micros))
        .bind(schedule.poll_every.map(micros))
        .bind(schedule.polled.map(Timestamp::as_micros))
        .bind(release)
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(seq.cast_signed())
        .bind(&store.owner)
        .bind(fault.map(json))
        .fetch_optional(conn)
        .await?
        .map(|row| {
            Ok(Settled {
                due_at: row
                    .try_get::<Option<i64>, _>("due_at")?
                    .map(Timestamp::from_micros),
                faults: row.try_get("faults")?,
            })
        })
        .transpose()
    })
    .await
}

pub(super) async fn fail(
    store: &Sqlite,
    key: &Key,
    error: &Reason,
    backoff: Duration,
    limit: u32,
) -> sqlx::Result<Option<Failed>> {
    lightly(store, async |conn, now| {
        sqlx::query(
            "UPDATE aggregates SET due_at = ?1 + ?2, lease_owner = NULL, lease_until = NULL,
                 fault = ?4, faults = faults + 1, set_aside = CASE WHEN attempts >= ?3 THEN ?5 END,
                 parked_at = CASE WHEN attempts >= ?3 THEN ?1 END
             WHERE kind = ?6 AND id = ?7 AND lease_owner = ?8 RETURNING set_aside IS NOT NULL AS parked, attempts",
        )
        .bind(now)
        .bind(micros(backoff))
        .bind(limit)
        .bind(json(error))
        .bind(&error.message)
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(&store.owner)
        .fetch_optional(conn)
        .await?
        .map(|row| {
            Ok(Failed {
                parked: row.try_get("parked")?,
                attempts: row.try_get("attempts")?,
            })
        })
        .transpose()
    })
    .await
}

pub(super) async fn release(store: &Sqlite, keys: &[Key]) -> sqlx::Result<()> {
    let json = keys_json(keys);
    lightly(store, async |conn, _| {
        sqlx::query(
            "UPDATE aggregates SET lease_owner = NULL, lease_until = NULL, attempts = max(attempts - 1, 0)
             WHERE lease_owner = ?1 AND (kind, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))",
        )
        .bind(&store.owner)
        .bind(json)
        .execute(conn)
        .await?;
        Ok(())
    })
    .await
}

pub(super) async fn hint(store: &Sqlite, key: &Key, claimant: Option<&Claimant>) -> sqlx::Result<Hinted> {
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM aggregates WHERE kind = ?1 AND id = ?2)")
            .bind(&*key.kind)
            .bind(key.id.as_str())
            .fetch_one(&store.readers)
            .await?;
    if !known {
        return Ok(Hinted::Unknown);
    }
    lightly(store, async |conn, now| {
        sqlx::query(
            "UPDATE aggregates SET hinted_at = ?1, due_at = CASE WHEN poll_at IS NULL THEN due_at ELSE min(due_at, ?1) END
             WHERE kind = ?2 AND id = ?3",
        )
        .bind(now)
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .execute(&mut *conn)
        .await?;
        let Some(claimant) = claimant else {
            return Ok(Hinted::Stored);
        };
        let attempts: Option<u32> = sqlx::query_scalar(
            "UPDATE aggregates SET lease_owner = ?1, lease_until = ?2 + ?3, attempts = attempts + 1
             WHERE kind = ?4 AND id = ?5 AND due_at <= ?2 AND set_aside IS NULL
               AND (lease_until IS NULL OR lease_until <= ?2)
               AND EXISTS (SELECT 1 FROM json_each(?6) AS k WHERE k.value ->> 0 = kind AND state_version <= k.value ->> 1)
             RETURNING attempts",
        )
        .bind(&store.owner)
        .bind(now)
        .bind(micros(claimant.lease))
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .bind(kinds_json(claimant))
        .fetch_optional(conn)
        .await?;
        Ok(attempts.map_or(Hinted::Stored, |attempts| Hinted::Claimed { now: Timestamp::from_micros(now), attempts }))
    })
    .await
}

/// The columns of an [`Inspected`], besides its state.
macro_rules! inspected {
    () => {
        "kind, id, seq, service, environment, correlation, fault, faults, set_aside, due_at, attempts,
         coalesce(parked_at, updated_at) AS since"
    };
}

fn parking(row: &SqliteRow) -> sqlx::Result<Option<Parking>> {
    let Some(error) = super::failing(row)?.parked() else {
        return Ok(None);
    };
    Ok(Some(Parking {
        error,
        attempts: row.try_get("attempts")?,
        since: Timestamp::from_micros(row.try_get("since")?),
    }))
}

fn inspected(row: &SqliteRow) -> sqlx::Result<Inspected> {
    Ok(Inspected {
        kind: row.try_get("kind")?,
        id: super::id(row, "id")?,
        seq: super::unsigned(row, "seq")?,
        service: row.try_get("service")?,
        environment: row.try_get("environment")?,
        correlation: row.try_get("correlation")?,
        parked: parking(row)?,
        state: row.try_get("state")?,
    })
}

pub(super) async fn parked(
    store: &Sqlite,
    kind: Option<&str>,
    after: Option<&AfterParked>,
    limit: u32,
) -> sqlx::Result<Vec<Inspected>> {
    sqlx::query(concat!(
        "SELECT * FROM (SELECT ",
        inspected!(),
        ", '' AS state FROM aggregates WHERE set_aside IS NOT NULL AND (?1 IS NULL OR kind = ?1)) AS parked
         WHERE ?2 IS NULL OR (since, kind, id) < (?2, ?3, ?4)
         ORDER BY since DESC, kind DESC, id DESC LIMIT ?5"
    ))
    .bind(kind)
    .bind(after.map(|after| after.since.as_micros()))
    .bind(after.map(|after| after.kind.as_str()))
    .bind(after.map(|after| after.id.as_str()))
    .bind(limit)
    .fetch_all(&store.readers)
    .await?
    .iter()
    .map(inspected)
    .collect()
}

pub(super) async fn inspect(store: &Sqlite, key: &Key) -> sqlx::Result<Option<Inspected>> {
    sqlx::query(concat!(
        "SELECT ",
        inspected!(),
        ", state FROM aggregates WHERE kind = ?1 AND id = ?2"
    ))
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .fetch_optional(&store.readers)
    .await?
    .as_ref()
    .map(inspected)
    .transpose()
}

pub(super) async fn resume(store: &Sqlite, key: &Key) -> sqlx::Result<Option<Parking>> {
    lightly(store, async |conn, now| {
        let parked = sqlx::query(concat!(
            "SELECT ",
            inspected!(),
            " FROM aggregates WHERE kind = ?1 AND id = ?2 AND set_aside IS NOT NULL"
        ))
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .fetch_optional(&mut *conn)
        .await?;
        sqlx::query(
            "UPDATE aggregates
             SET set_aside = NULL, parked_at = NULL, fault = NULL, faults = 0, attempts = 0, due_at = ?1
             WHERE kind = ?2 AND id = ?3 AND set_aside IS NOT NULL",
        )
        .bind(now)
        .bind(&*key.kind)
        .bind(key.id.as_str())
        .execute(conn)
        .await?;
        parked.as_ref().map_or(Ok(None), parking)
    })
    .await
}

pub(super) async fn lease(store: &Sqlite, name: &str, ttl: Duration) -> sqlx::Result<bool> {
    lightly(store, async |conn, now| {
        sqlx::query(
            "INSERT INTO leases (name, owner, until) VALUES (?1, ?2, ?3 + ?4)
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
             WHERE leases.owner = excluded.owner OR leases.until <= ?3",
        )
        .bind(name)
        .bind(&store.owner)
        .bind(now)
        .bind(micros(ttl))
        .execute(conn)
        .await
        .map(|done| done.rows_affected() == 1)
    })
    .await
}

pub(super) async fn unlease(store: &Sqlite, name: &str) -> sqlx::Result<()> {
    lightly(store, async |conn, _| {
        sqlx::query("DELETE FROM leases WHERE name = ?1 AND owner = ?2")
            .bind(name)
            .bind(&store.owner)
            .execute(conn)
            .await
    })
    .await
    .map(drop)
}

pub(super) async fn save_relay(
    store: &Sqlite,
    name: &str,
    position: Position,
    last_entry: Option<&str>,
) -> sqlx::Result<bool> {
    lightly(store, async |conn, _| {
        sqlx::query(
            "INSERT INTO relay (name, position, last_entry_id)
             SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM leases WHERE name = ?1 AND owner = ?4)
             ON CONFLICT (name) DO UPDATE SET position = excluded.position, last_entry_id = excluded.last_entry_id",
        )
        .bind(name)
        .bind(position.position)
        .bind(last_entry)
        .bind(&store.owner)
        .execute(conn)
        .await
        .map(|done| done.rows_affected() == 1)
    })
    .await
}

/// Checks now and then whether another connection wrote to the file: `data_version` changes only then.
pub(super) async fn remote(store: &Sqlite) -> sqlx::Result<mpsc::Receiver<Remote>> {
    let options = store.readers.connect_options();
    let mut conn = SqliteConnection::connect_with(&options).await?;
    let mut last: i64 = sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM events")
        .fetch_one(&mut conn)
        .await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut seen = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = sender.closed() => break,
            }
            match look(&mut conn, &mut seen, last).await {
                Ok(found) => {
                    if !found.is_empty() {
                        let _ = sender.send(Remote::Due(Timestamp::now())).await;
                    }
                    for (position, message) in found {
                        last = position;
                        let _ = sender.send(message).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot look for other writers"),
            }
        }
    });
    Ok(receiver)
}

async fn look(
    conn: &mut SqliteConnection,
    seen: &mut Option<i64>,
    last: i64,
) -> sqlx::Result<Vec<(i64, Remote)>> {
    let version: i64 = sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(&mut *conn)
        .await?;
    if *seen == Some(version) {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT position, kind, id, seq FROM events WHERE position > ?1 ORDER BY position LIMIT 1000",
    )
    .bind(last)
    .fetch_all(conn)
    .await?;
    // A full page may be followed by more: look again even if nothing is written.
    *seen = (rows.len() < 1000).then_some(version);
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get("kind")?;
            let (id, seq) = (super::id(row, "id")?, super::unsigned(row, "seq")?);
            Ok((row.try_get("position")?, Remote::Committed { kind, id, seq }))
        })
        .collect()
}
