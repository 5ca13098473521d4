//! Leases, timers and hints on PostgreSQL, all by the database's clock.

use std::time::Duration;

use slipway_model::Reason;
use sqlx::{Row, postgres::PgRow};

use super::{PgTime, Postgres, append::schedule, failing, id, time, unsigned};
use crate::{
    Inspected, Parking,
    rows::{AfterParked, json},
    store::{Claim, Claimant, Claims, Failed, Hinted, Schedule, Settled, micros},
    types::Key,
};

/// Kinds, and the newest state version of each that this binary knows.
fn kinds(claimant: &Claimant) -> (Vec<&str>, Vec<i32>) {
    claimant
        .kinds
        .iter()
        .map(|(kind, version)| (kind.as_str(), version.cast_signed()))
        .unzip()
}

fn names(keys: &[Key]) -> (Vec<&str>, Vec<&str>) {
    keys.iter().map(|key| (&*key.kind, key.id.as_str())).unzip()
}

pub(super) async fn claim(store: &Postgres, claimant: &Claimant, limit: u32) -> sqlx::Result<Claims> {
    let (kinds, versions) = kinds(claimant);
    let rows = sqlx::query(
        "WITH due AS (
             SELECT a.kind, a.id FROM aggregates a
             WHERE a.due_at <= now() AND a.set_aside IS NULL AND (a.lease_until IS NULL OR a.lease_until <= now())
               AND EXISTS (SELECT 1 FROM unnest($1::text[], $2::integer[]) AS k (kind, version)
                           WHERE k.kind = a.kind AND a.state_version <= k.version)
             ORDER BY a.due_at LIMIT $3 FOR UPDATE SKIP LOCKED
         ), claimed AS (
             UPDATE aggregates a
             SET lease_owner = $4, lease_until = now() + $5 * interval '1 microsecond', attempts = a.attempts + 1
             FROM due WHERE a.kind = due.kind AND a.id = due.id
             RETURNING a.kind, a.id, a.attempts
         ), next AS (
             SELECT min(due_at) AS due FROM aggregates
             WHERE due_at > now() AND set_aside IS NULL
         )
         SELECT now() AS now, next.due AS next, claimed.kind, claimed.id, claimed.attempts
         FROM next LEFT JOIN claimed ON true",
    )
    .bind(kinds)
    .bind(versions)
    .bind(i64::from(limit))
    .bind(&store.owner)
    .bind(micros(claimant.lease))
    .fetch_all(&store.pool)
    .await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (now, next) = (time(first, "now")?, first.try_get::<Option<PgTime>, _>("next")?);
    let claims = rows
        .iter()
        .filter_map(|row| {
            let kind = row.try_get::<Option<&str>, _>("kind").transpose()?;
            Some(kind.and_then(|kind| {
                Ok(Claim {
                    key: Key::new(kind, &id(row, "id")?),
                    attempts: row.try_get::<i32, _>("attempts")?.cast_unsigned(),
                })
            }))
        })
        .collect::<sqlx::Result<_>>()?;
    Ok(Claims {
        now,
        claims,
        next_due: next.map(|PgTime(at)| at),
    })
}

pub(super) async fn renew(store: &Postgres, keys: &[Key], lease: Duration) -> sqlx::Result<Vec<Key>> {
    let (kinds, ids) = names(keys);
    // Locked in the order in which appends lock.
    sqlx::query(
        "WITH mine AS MATERIALIZED (
             SELECT a.kind, a.id FROM aggregates a
             JOIN unnest($1::text[], $2::text[]) AS i (kind, id) ON a.kind = i.kind AND a.id = i.id
             WHERE a.lease_owner = $3 ORDER BY a.kind, a.id FOR UPDATE OF a
         )
         UPDATE aggregates a SET lease_until = now() + $4 * interval '1 microsecond'
         FROM mine WHERE a.kind = mine.kind AND a.id = mine.id RETURNING a.kind, a.id",
    )
    .bind(kinds)
    .bind(ids)
    .bind(&store.owner)
    .bind(micros(lease))
    .fetch_all(&store.pool)
    .await?
    .iter()
    .map(|row| Ok(Key::new(row.try_get("kind")?, &id(row, "id")?)))
    .collect()
}

pub(super) async fn settle(
    store: &Postgres,
    key: &Key,
    seq: u64,
    schedule: &Schedule,
    fault: Option<&Reason>,
    release: bool,
) -> sqlx::Result<Option<Settled>> {
    sqlx::query(concat!(
        "UPDATE aggregates a SET attempts = CASE WHEN i.effects THEN 1 ELSE 0 END,
             fault = i.fault, faults = CASE WHEN i.fault IS NULL THEN 0 ELSE a.faults + 1 END,
             lease_owner = CASE WHEN $1 THEN NULL ELSE a.lease_owner END,
             lease_until = CASE WHEN $1 THEN NULL ELSE a.lease_until END, ",
        schedule!(),
        " FROM (SELECT $2::boolean AS effects, $3::timestamptz AS wake, $4::bigint AS every, $5::timestamptz AS polled,
                       $10::text AS fault) AS i
         WHERE a.kind = $6 AND a.id = $7 AND a.seq = $8 AND a.lease_owner = $9
         RETURNING a.due_at, a.faults"
    ))
    .bind(release)
    .bind(schedule.effects)
    .bind(schedule.wake_at.map(PgTime))
    .bind(schedule.poll_every.map(micros))
    .bind(schedule.polled.map(PgTime))
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .bind(seq.cast_signed())
    .bind(&store.owner)
    .bind(fault.map(json))
    .fetch_optional(&store.pool)
    .await?
    .map(|row| {
        Ok(Settled {
            due_at: row.try_get::<Option<PgTime>, _>("due_at")?.map(|PgTime(at)| at),
            faults: row.try_get::<i32, _>("faults")?.cast_unsigned(),
        })
    })
    .transpose()
}

pub(super) async fn fail(
    store: &Postgres,
    key: &Key,
    error: &Reason,
    backoff: Duration,
    limit: u32,
) -> sqlx::Result<Option<Failed>> {
    sqlx::query(
        "UPDATE aggregates SET due_at = now() + $1 * interval '1 microsecond', lease_owner = NULL, lease_until = NULL,
             fault = $3, faults = faults + 1, set_aside = CASE WHEN attempts >= $2 THEN $4 END,
             parked_at = CASE WHEN attempts >= $2 THEN now() END
         WHERE kind = $5 AND id = $6 AND lease_owner = $7 RETURNING set_aside IS NOT NULL AS parked, attempts",
    )
    .bind(micros(backoff))
    .bind(limit.cast_signed())
    .bind(json(error))
    // PostgreSQL's texts cannot contain NUL; JSON writes it as an escape.
    .bind(error.message.replace('\0', ""))
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .bind(&store.owner)
    .fetch_optional(&store.pool)
    .await?
    .map(|row| {
        Ok(Failed {
            parked: row.try_get("parked")?,
            attempts: row.try_get::<i32, _>("attempts")?.cast_unsigned(),
        })
    })
    .transpose()
}

pub(super) async fn release(store: &Postgres, keys: &[Key]) -> sqlx::Result<()> {
    let (kinds, ids) = names(keys);
    sqlx::query(
        "WITH mine AS MATERIALIZED (
             SELECT a.kind, a.id FROM aggregates a
             JOIN unnest($1::text[], $2::text[]) AS i (kind, id) ON a.kind = i.kind AND a.id = i.id
             WHERE a.lease_owner = $3 ORDER BY a.kind, a.id FOR UPDATE OF a
         )
         UPDATE aggregates a SET lease_owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0)
         FROM mine WHERE a.kind = mine.kind AND a.id = mine.id",
    )
    .bind(kinds)
    .bind(ids)
    .bind(&store.owner)
    .execute(&store.pool)
    .await
    .map(drop)
}

pub(super) async fn hint(store: &Postgres, key: &Key, claimant: Option<&Claimant>) -> sqlx::Result<Hinted> {
    let (kinds, versions) = claimant.map(kinds).unwrap_or_default();
    let row = sqlx::query(
        "WITH old AS MATERIALIZED (
             SELECT a.kind, a.id,
                    LEAST(a.due_at, CASE WHEN a.poll_at IS NOT NULL THEN now() END) <= now() AND a.set_aside IS NULL
                        AND (a.lease_until IS NULL OR a.lease_until <= now())
                        AND EXISTS (SELECT 1 FROM unnest($3::text[], $4::integer[]) AS k (kind, version)
                                    WHERE k.kind = a.kind AND a.state_version <= k.version) AS free
             FROM aggregates a WHERE a.kind = $1 AND a.id = $2 FOR UPDATE
         )
         UPDATE aggregates a
         SET hinted_at = now(), due_at = CASE WHEN a.poll_at IS NULL THEN a.due_at ELSE LEAST(a.due_at, now()) END,
             lease_owner = CASE WHEN old.free THEN $5 ELSE a.lease_owner END,
             lease_until = CASE WHEN old.free THEN now() + $6 * interval '1 microsecond' ELSE a.lease_until END,
             attempts = CASE WHEN old.free THEN a.attempts + 1 ELSE a.attempts END
         FROM old WHERE a.kind = old.kind AND a.id = old.id
         RETURNING coalesce(old.free, false) AS claimed, now() AS now, a.attempts",
    )
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .bind(kinds)
    .bind(versions)
    .bind(&store.owner)
    .bind(claimant.map_or(0, |claimant| micros(claimant.lease)))
    .fetch_optional(&store.pool)
    .await?;
    let Some(row) = row else {
        return Ok(Hinted::Unknown);
    };
    if row.try_get("claimed")? {
        let attempts = row.try_get::<i32, _>("attempts")?.cast_unsigned();
        return Ok(Hinted::Claimed {
            now: time(&row, "now")?,
            attempts,
        });
    }
    Ok(Hinted::Stored)
}

/// The columns of an [`Inspected`], besides its state.
macro_rules! inspected {
    () => {
        "kind, id, seq, service, environment, correlation, fault, faults, set_aside, due_at, attempts,
         coalesce(parked_at, updated_at) AS since"
    };
}

fn parking(row: &PgRow) -> sqlx::Result<Option<Parking>> {
    let Some(error) = failing(row)?.parked() else {
        return Ok(None);
    };
    Ok(Some(Parking {
        error,
        attempts: row.try_get::<i32, _>("attempts")?.cast_unsigned(),
        since: time(row, "since")?,
    }))
}

fn inspected(row: &PgRow) -> sqlx::Result<Inspected> {
    Ok(Inspected {
        kind: row.try_get("kind")?,
        id: id(row, "id")?,
        seq: unsigned(row, "seq")?,
        service: row.try_get("service")?,
        environment: row.try_get("environment")?,
        correlation: row.try_get("correlation")?,
        parked: parking(row)?,
        state: row.try_get("state")?,
    })
}

pub(super) async fn parked(
    store: &Postgres,
    kind: Option<&str>,
    after: Option<&AfterParked>,
    limit: u32,
) -> sqlx::Result<Vec<Inspected>> {
    sqlx::query(concat!(
        "SELECT * FROM (SELECT ",
        inspected!(),
        ", '' AS state FROM aggregates WHERE set_aside IS NOT NULL AND ($1::text IS NULL OR kind = $1)) AS parked
         WHERE $2::timestamptz IS NULL OR (since, kind, id) < ($2, $3, $4)
         ORDER BY since DESC, kind DESC, id DESC LIMIT $5"
    ))
    .bind(kind)
    .bind(after.map(|after| PgTime(after.since)))
    .bind(after.map(|after| after.kind.as_str()))
    .bind(after.map(|after| after.id.as_str()))
    .bind(i64::from(limit))
    .fetch_all(&store.pool)
    .await?
    .iter()
    .map(inspected)
    .collect()
}

pub(super) async fn inspect(store: &Postgres, key: &Key) -> sqlx::Result<Option<Inspected>> {
    sqlx::query(concat!(
        "SELECT ",
        inspected!(),
        ", state FROM aggregates WHERE kind = $1 AND id = $2"
    ))
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .fetch_optional(&store.pool)
    .await?
    .as_ref()
    .map(inspected)
    .transpose()
}

pub(super) async fn resume(store: &Postgres, key: &Key) -> sqlx::Result<Option<Parking>> {
    let resumed = sqlx::query(concat!(
        "WITH parked AS MATERIALIZED (
             SELECT ",
        inspected!(),
        " FROM aggregates WHERE kind = $1 AND id = $2 AND set_aside IS NOT NULL FOR UPDATE
         )
         UPDATE aggregates a
         SET set_aside = NULL, parked_at = NULL, fault = NULL, faults = 0, attempts = 0, due_at = now()
         FROM parked WHERE a.kind = parked.kind AND a.id = parked.id
         RETURNING parked.fault, parked.faults, parked.set_aside, parked.due_at, parked.attempts, parked.since"
    ))
    .bind(&*key.kind)
    .bind(key.id.as_str())
    .fetch_optional(&store.pool)
    .await?;
    resumed.as_ref().map_or(Ok(None), parking)
}

pub(super) async fn lease(store: &Postgres, name: &str, ttl: Duration) -> sqlx::Result<bool> {
    sqlx::query(
        "INSERT INTO leases (name, owner, until) VALUES ($1, $2, now() + $3 * interval '1 microsecond')
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
         WHERE leases.owner = excluded.owner OR leases.until <= now()",
    )
    .bind(name)
    .bind(&store.owner)
    .bind(micros(ttl))
    .execute(&store.pool)
    .await
    .map(|done| done.rows_affected() == 1)
}

pub(super) async fn unlease(store: &Postgres, name: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM leases WHERE name = $1 AND owner = $2")
        .bind(name)
        .bind(&store.owner)
        .execute(&store.pool)
        .await
        .map(drop)
}
