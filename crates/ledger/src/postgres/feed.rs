//! The feed's order on PostgreSQL: (transaction, position), below the oldest transaction still running.

use sqlx::Row;

use super::{PgTime, Postgres, event, id};
use crate::rows::{FeedRow, Position, Start};

/// The transaction id of events that came from another cluster: below every real one.
const FOREIGN: u64 = 1;
/// Taken while the order of a restored database is repaired ("slipway feed" in ASCII, cut to 8 bytes).
const ADOPTION: i64 = 0x736c_6970_7761_7966;

pub(super) async fn read(store: &Postgres, after: Position, limit: u32) -> sqlx::Result<Vec<FeedRow>> {
    let rows = sqlx::query(
        "SELECT e.tx::text AS tx, e.position, e.kind, e.id, e.seq, e.type, e.data, e.actor, e.traceparent, e.at,
                e.prev_hash, e.hash, a.correlation, a.service, a.environment
         FROM (SELECT * FROM events
               WHERE (tx, position) > ($1::text::xid8, $2) AND tx < pg_snapshot_xmin(pg_current_snapshot())
               ORDER BY tx, position LIMIT $3) AS e
         JOIN aggregates a ON a.kind = e.kind AND a.id = e.id
         ORDER BY e.tx, e.position",
    )
    .bind(after.tx.to_string())
    .bind(after.position)
    .bind(i64::from(limit))
    .fetch_all(&store.pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(FeedRow {
                position: Position {
                    tx: xid(row.try_get("tx")?)?,
                    position: row.try_get("position")?,
                },
                kind: row.try_get("kind")?,
                id: id(row, "id")?,
                event: event(row)?,
                correlation: row.try_get("correlation")?,
                service: row.try_get("service")?,
                environment: row.try_get("environment")?,
            })
        })
        .collect()
}

pub(super) async fn start(store: &Postgres, start: Start) -> sqlx::Result<Position> {
    if let Start::Since(at) = start {
        let first = sqlx::query_as::<_, (String, i64)>(
            "SELECT tx::text, position FROM events WHERE at >= $1 ORDER BY tx, position LIMIT 1",
        )
        .bind(PgTime(at))
        .fetch_optional(&store.pool)
        .await?;
        if let Some((tx, position)) = first {
            return Ok(Position {
                tx: xid(&tx)?,
                position: position - 1,
            });
        }
    }
    let oldest: String = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        .fetch_one(&store.pool)
        .await?;
    Ok(Position {
        tx: xid(&oldest)? - 1,
        position: i64::MAX,
    })
}

/// A cursor from before the database moved to another cluster names a transaction that does not exist yet.
pub(super) async fn resume(store: &Postgres, position: Position) -> sqlx::Result<Position> {
    if position.tx == 0 {
        return Ok(position);
    }
    let next: String = sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        .fetch_one(&store.pool)
        .await?;
    Ok(if position.tx >= xid(&next)? {
        Position {
            tx: FOREIGN,
            ..position
        }
    } else {
        position
    })
}

/// Repairs the order of a database that was dumped from one cluster and restored into another: its events carry the
/// other cluster's transaction ids, which would hide them until this cluster's have grown as far. They are all
/// committed, so their positions suffice for ordering; relays continue before the first event that they have not
/// published.
pub(super) async fn adopt(store: &Postgres) -> sqlx::Result<()> {
    let mut tx = store.pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(ADOPTION)
        .execute(&mut *tx)
        .await?;
    let foreign: bool = sqlx::query_scalar(
        "SELECT coalesce((SELECT tx >= pg_snapshot_xmax(pg_current_snapshot()) FROM events
                          ORDER BY tx DESC LIMIT 1), false)",
    )
    .fetch_one(&mut *tx)
    .await?;
    if foreign {
        tracing::warn!("this database came from another cluster: putting its feed in order");
        sqlx::query(
            "UPDATE relay SET tx = $1::text::xid8, position = coalesce(
                 (SELECT min(e.position) - 1 FROM events e WHERE (e.tx, e.position) > (relay.tx, relay.position)),
                 (SELECT max(e.position) FROM events e), 0)",
        )
        .bind(FOREIGN.to_string())
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE events SET tx = $1::text::xid8")
            .bind(FOREIGN.to_string())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

pub(super) async fn relay(store: &Postgres, name: &str) -> sqlx::Result<Option<(Position, Option<String>)>> {
    sqlx::query_as::<_, (String, i64, Option<String>)>(
        "SELECT tx::text, position, last_entry_id FROM relay WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(&store.pool)
    .await?
    .map(|(tx, position, entry)| {
        Ok((
            Position {
                tx: xid(&tx)?,
                position,
            },
            entry,
        ))
    })
    .transpose()
}

pub(super) async fn save_relay(
    store: &Postgres,
    name: &str,
    position: Position,
    last_entry: Option<&str>,
) -> sqlx::Result<bool> {
    sqlx::query(
        "INSERT INTO relay (name, tx, position, last_entry_id)
         SELECT $1, $2::text::xid8, $3, $4 WHERE EXISTS (SELECT 1 FROM leases WHERE name = $1 AND owner = $5)
         ON CONFLICT (name) DO UPDATE
             SET tx = excluded.tx, position = excluded.position, last_entry_id = excluded.last_entry_id",
    )
    .bind(name)
    .bind(position.tx.to_string())
    .bind(position.position)
    .bind(last_entry)
    .bind(&store.owner)
    .execute(&store.pool)
    .await
    .map(|done| done.rows_affected() == 1)
}

fn xid(text: &str) -> sqlx::Result<u64> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
