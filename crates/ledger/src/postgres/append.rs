//! Writing a group of batches on PostgreSQL.
//!
//! First try: every batch is assumed to be current, and one statement writes the whole group. The primary key of
//! `events` and the comparison of `seq` detect a writer that lost. In that case, and when a batch also depends on
//! aggregates that it only read, the rows are locked in the order of their keys and compared first, and the winners are
//! written.

use std::collections::{HashMap, HashSet};

use sqlx::{Connection, PgConnection, Postgres as Db, Row, Transaction};

use super::{CHANNEL, PgTime, Postgres, id, unsigned};
use crate::{
    IdempotencyKey,
    rows::Hash,
    store::{Append, Batch, Clash, Written, micros},
    types::Key,
};

type Outcome = Result<Vec<Written>, Clash>;

/// Notifications have less than 8000 bytes.
const PAYLOAD: usize = 7000;
/// How often the rows may change between the comparison and the write (something was created concurrently).
const TRIES: u32 = 5;

pub(super) async fn commit(store: &Postgres, group: &[Batch], again: bool) -> sqlx::Result<Vec<Outcome>> {
    let mut conn = store.committers.take().await?;
    let outcomes = attempt(store, &mut conn, group, again).await?;
    store.committers.put_back(conn);
    Ok(outcomes)
}

async fn attempt(
    store: &Postgres,
    conn: &mut PgConnection,
    group: &[Batch],
    again: bool,
) -> sqlx::Result<Vec<Outcome>> {
    let reads = group
        .iter()
        .flat_map(|batch| &batch.appends)
        .any(|append| !append.writes());
    if !reads && !again {
        let mut tx = conn.begin().await?;
        let all: Vec<&Batch> = group.iter().collect();
        if let Some(written) = write(store, &mut tx, &all).await? {
            tx.commit().await?;
            return Ok(written.into_iter().map(Ok).collect());
        }
        tx.rollback().await?;
    }
    for _ in 0..TRIES {
        let mut tx = conn.begin().await?;
        let verdicts = judge(&mut tx, group, again).await?;
        let winners: Vec<&Batch> = group
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| matches!(verdict, Verdict::Write))
            .map(|(batch, _)| batch)
            .collect();
        let Some(written) = write(store, &mut tx, &winners).await? else {
            tx.rollback().await?;
            continue;
        };
        tx.commit().await?;
        let mut written = written.into_iter();
        return Ok(group
            .iter()
            .zip(verdicts)
            .map(|(batch, verdict)| match verdict {
                Verdict::Write => Ok(written.next().unwrap_or_default()),
                Verdict::Done => Ok(unwritten(batch)),
                Verdict::Lost(clash) => Err(clash),
            })
            .collect());
    }
    // Another writer that keeps creating the same aggregates goes first.
    Ok(group.iter().map(|_| Err(Clash::Seq)).collect())
}

enum Verdict {
    Write,
    /// Written before, but the answer was lost.
    Done,
    Lost(Clash),
}

/// Locks what the group touches and compares.
async fn judge(tx: &mut Transaction<'_, Db>, group: &[Batch], again: bool) -> sqlx::Result<Vec<Verdict>> {
    let appends: Vec<&Append> = group.iter().flat_map(|batch| &batch.appends).collect();
    let kinds: Vec<&str> = appends.iter().map(|append| &*append.key.kind).collect();
    let ids: Vec<&str> = appends.iter().map(|append| append.key.id.as_str()).collect();
    let rows = sqlx::query(
        "SELECT a.kind, a.id, a.seq, e.hash
         FROM aggregates a
         JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS i (kind, id, seq) ON a.kind = i.kind AND a.id = i.id
         LEFT JOIN events e ON e.kind = i.kind AND e.id = i.id AND e.seq = i.seq
         ORDER BY a.kind, a.id FOR UPDATE OF a",
    )
    .bind(kinds)
    .bind(ids)
    .bind(appends.iter().map(|append| append.next.seq.cast_signed()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    // The current seq, and the hash of the event where ours would be the last.
    let mut current: HashMap<Key, (u64, Option<Hash>)> = HashMap::new();
    for row in &rows {
        let key = Key::new(row.try_get("kind")?, &id(row, "id")?);
        let ours = row
            .try_get::<Option<&[u8]>, _>("hash")?
            .and_then(|hash| hash.try_into().ok());
        current.insert(key, (unsigned(row, "seq")?, ours));
    }

    let requests: Vec<&IdempotencyKey> = group
        .iter()
        .filter_map(|batch| Some(&batch.request.as_ref()?.0))
        .collect();
    let mut taken: HashSet<(String, String, String)> = HashSet::new();
    if !requests.is_empty() {
        taken = sqlx::query_as(
            "SELECT r.principal, r.method, r.request_id FROM requests r
             JOIN unnest($1::text[], $2::text[], $3::text[]) AS i (principal, method, request_id)
               ON r.principal = i.principal AND r.method = i.method AND r.request_id = i.request_id",
        )
        .bind(
            requests
                .iter()
                .map(|request| &*request.principal)
                .collect::<Vec<_>>(),
        )
        .bind(
            requests
                .iter()
                .map(|request| &*request.method)
                .collect::<Vec<_>>(),
        )
        .bind(
            requests
                .iter()
                .map(|request| &*request.request_id)
                .collect::<Vec<_>>(),
        )
        .fetch_all(&mut **tx)
        .await?
        .into_iter()
        .collect();
    }

    Ok(group
        .iter()
        .map(|batch| {
            let at = |append: &Append| current.get(&append.key).copied().unwrap_or((0, None));
            if again
                && batch
                    .appends
                    .iter()
                    .any(|a| a.writes() && at(a).1 == Some(a.next.head))
            {
                return Verdict::Done;
            }
            if batch.appends.iter().any(|append| at(append).0 != append.expected) {
                return Verdict::Lost(Clash::Seq);
            }
            if let Some((request, _)) = &batch.request {
                let key = (
                    request.principal.clone(),
                    request.method.clone(),
                    request.request_id.clone(),
                );
                if !taken.insert(key) {
                    return Verdict::Lost(Clash::Request);
                }
            }
            Verdict::Write
        })
        .collect())
}

/// From the current row (`a`) and the append (`i`): when it is due, the next poll, and the open hint.
macro_rules! schedule {
    () => {
        "poll_at = CASE WHEN i.every IS NULL THEN NULL
                        WHEN i.polled IS NOT NULL OR a.poll_at IS NULL THEN now() + i.every * interval '1 microsecond'
                        ELSE a.poll_at END,
         hinted_at = CASE WHEN a.hinted_at <= i.polled THEN NULL ELSE a.hinted_at END,
         due_at = CASE WHEN i.effects THEN now()
                       WHEN i.every IS NOT NULL AND a.hinted_at IS NOT NULL
                            AND (i.polled IS NULL OR a.hinted_at > i.polled) THEN now()
                       ELSE LEAST(i.wake, CASE
                           WHEN i.every IS NULL THEN NULL
                           WHEN i.polled IS NOT NULL OR a.poll_at IS NULL THEN now() + i.every * interval '1 microsecond'
                           ELSE a.poll_at END) END"
    };
}
pub(super) use schedule;

const WRITE: &str = concat!(
    "WITH e AS (
         INSERT INTO events (kind, id, seq, type, data, actor, traceparent, at, prev_hash, hash)
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
                              $8::timestamptz[], $9::bytea[], $10::bytea[])
     ), i AS MATERIALIZED (
         SELECT * FROM unnest($11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::integer[], $16::text[],
                              $17::text[], $18::text[], $19::text[], $20::text[], $21::boolean[], $22::timestamptz[],
                              $23::timestamptz[], $24::bytea[], $25::text[], $26::text[], $27::boolean[],
                              $28::timestamptz[], $29::bigint[], $30::timestamptz[], $31::integer[], $32::bigint[])
             AS i (kind, id, expected, seq, version, status, service, environment, correlation, labels, final, created,
                   updated, head, state, traceparent, effects, wake, every, polled, wish, lease)
     ), c AS (
         INSERT INTO aggregates (kind, id, seq, state_version, status, service, environment, correlation, labels, final,
             created_at, updated_at, head_hash, state, traceparent, attempts, poll_at, due_at, lease_owner, lease_until)
         SELECT kind, id, seq, version, status, service, environment, correlation, labels::jsonb, final,
             created, updated, head, state, traceparent, CASE WHEN effects THEN 1 ELSE 0 END,
             now() + every * interval '1 microsecond',
             CASE WHEN effects THEN now() ELSE LEAST(wake, now() + every * interval '1 microsecond') END,
             CASE WHEN wish = 1 THEN $40 END,
             CASE WHEN wish = 1 THEN now() + lease * interval '1 microsecond' END
         FROM i WHERE expected = 0
         RETURNING kind, id, due_at, lease_owner, lease_until
     ), u AS (
         UPDATE aggregates a SET
             seq = i.seq, state_version = i.version, status = i.status, service = i.service,
             environment = i.environment, correlation = i.correlation, labels = i.labels::jsonb, final = i.final,
             updated_at = i.updated, head_hash = i.head, state = i.state, traceparent = i.traceparent,
             attempts = CASE WHEN i.effects THEN 1 ELSE 0 END, set_aside = NULL, fault = NULL, faults = 0,
             lease_owner = CASE
                 WHEN i.wish = 1 AND (a.lease_owner IS NULL OR a.lease_until <= now() OR a.lease_owner = $40) THEN $40
                 WHEN i.wish = 2 AND a.lease_owner = $40 THEN NULL
                 ELSE a.lease_owner END,
             lease_until = CASE
                 WHEN i.wish = 1 AND (a.lease_owner IS NULL OR a.lease_until <= now() OR a.lease_owner = $40)
                     THEN now() + i.lease * interval '1 microsecond'
                 WHEN i.wish = 2 AND a.lease_owner = $40 THEN NULL
                 ELSE a.lease_until END,
             ",
    schedule!(),
    "
         FROM i WHERE i.expected > 0 AND a.kind = i.kind AND a.id = i.id AND a.seq = i.expected
         RETURNING a.kind, a.id, a.due_at, a.lease_owner, a.lease_until
     ), r AS (
         INSERT INTO requests (principal, method, request_id, fingerprint, kind, id, created_at)
         SELECT *, now() FROM unnest($33::text[], $34::text[], $35::text[], $36::text[], $37::text[], $38::text[])
     ), w AS (
         SELECT * FROM c UNION ALL SELECT * FROM u
     ), d AS (
         SELECT min(due_at) FILTER (WHERE lease_owner IS NULL) AS due FROM w
     ), n AS (
         SELECT count(pg_notify($41, concat($40::text, E'\\n',
                    (extract(epoch FROM d.due) * 1000000)::bigint, E'\\n', p))) AS told
         FROM d, unnest($39::text[]) AS p
     )
     SELECT w.kind, w.id, w.due_at, coalesce(w.lease_owner = $40 AND w.lease_until > now(), false) AS mine, n.told
     FROM w, n"
);

/// `None` when another writer was faster with one of the rows: then nothing may be committed.
async fn write(
    store: &Postgres,
    tx: &mut Transaction<'_, Db>,
    batches: &[&Batch],
) -> sqlx::Result<Option<Vec<Vec<Written>>>> {
    let mut items: Vec<&Append> = batches
        .iter()
        .flat_map(|batch| &batch.appends)
        .filter(|append| append.writes())
        .collect();
    if items.is_empty() {
        return Ok(Some(batches.iter().map(|batch| unwritten(batch)).collect()));
    }
    // All writers write rows in this order, so there are no deadlocks.
    items.sort_by(|a, b| a.key.cmp(&b.key));
    let events: Vec<_> = items
        .iter()
        .flat_map(|append| append.events.iter().map(|event| (&append.key, event)))
        .collect();
    let requests: Vec<_> = batches
        .iter()
        .filter_map(|batch| batch.request.as_ref())
        .collect();

    /// A column over all rows.
    macro_rules! column {
        ($rows:ident, $row:pat => $value:expr) => {
            $rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let result = sqlx::query(WRITE)
        .bind(column!(events, (key, _) => &*key.kind))
        .bind(column!(events, (key, _) => key.id.as_str()))
        .bind(column!(events, (_, e) => e.seq.cast_signed()))
        .bind(column!(events, (_, e) => e.event_type.as_str()))
        .bind(column!(events, (_, e) => e.data.as_str()))
        .bind(column!(events, (_, e) => e.actor.as_str()))
        .bind(column!(events, (_, e) => e.traceparent.as_deref()))
        .bind(column!(events, (_, e) => PgTime(e.at)))
        .bind(column!(events, (_, e) => e.prev_hash.as_slice()))
        .bind(column!(events, (_, e) => e.hash.as_slice()))
        .bind(column!(items, a => &*a.key.kind))
        .bind(column!(items, a => a.key.id.as_str()))
        .bind(column!(items, a => a.expected.cast_signed()))
        .bind(column!(items, a => a.next.seq.cast_signed()))
        .bind(column!(items, a => a.state_version.cast_signed()))
        .bind(column!(items, a => a.index.status.as_str()))
        .bind(column!(items, a => a.index.service.as_str()))
        .bind(column!(items, a => a.index.environment.as_str()))
        .bind(column!(items, a => a.index.correlation.as_str()))
        .bind(column!(items, a => a.labels.as_str()))
        .bind(column!(items, a => a.is_final))
        .bind(column!(items, a => PgTime(a.next.created_at)))
        .bind(column!(items, a => PgTime(a.next.updated_at)))
        .bind(column!(items, a => a.next.head.as_slice()))
        .bind(column!(items, a => a.state.as_str()))
        .bind(column!(items, a => a.next.traceparent.map(|context| context.to_string())))
        .bind(column!(items, a => a.schedule.effects))
        .bind(column!(items, a => a.schedule.wake_at.map(PgTime)))
        .bind(column!(items, a => a.schedule.poll_every.map(micros)))
        .bind(column!(items, a => a.schedule.polled.map(PgTime)))
        .bind(column!(items, a => a.wish.code()))
        .bind(column!(items, a => a.wish.lease_micros()))
        .bind(column!(requests, (request, _) => request.principal.as_str()))
        .bind(column!(requests, (request, _) => request.method.as_str()))
        .bind(column!(requests, (request, _) => request.request_id.as_str()))
        .bind(column!(requests, (request, _) => request.fingerprint.as_str()))
        .bind(column!(requests, (_, key) => &*key.kind))
        .bind(column!(requests, (_, key) => key.id.as_str()))
        .bind(payloads(&items))
        .bind(&store.owner)
        .bind(CHANNEL)
        .fetch_all(&mut **tx)
        .await;
    let rows = match result {
        Ok(rows) if rows.len() == items.len() => rows,
        Ok(_) => return Ok(None),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut found: HashMap<(String, String), Written> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let due_at = row.try_get::<Option<PgTime>, _>("due_at")?.map(|PgTime(at)| at);
        found.insert(
            (row.try_get("kind")?, row.try_get("id")?),
            Written {
                mine: row.try_get("mine")?,
                due_at,
            },
        );
    }
    Ok(Some(
        batches
            .iter()
            .map(|batch| {
                let mut written = unwritten(batch);
                for (append, written) in batch.appends.iter().zip(&mut written) {
                    let key = (
                        append.key.kind.clone().into_owned(),
                        append.key.id.as_str().to_owned(),
                    );
                    if let Some(row) = found.get(&key).filter(|_| append.writes()) {
                        *written = *row;
                    }
                }
                written
            })
            .collect(),
    ))
}

fn unwritten(batch: &Batch) -> Vec<Written> {
    vec![
        Written {
            mine: false,
            due_at: None
        };
        batch.appends.len()
    ]
}

/// Lines of `kind id seq`, in as many notifications as needed.
fn payloads(items: &[&Append]) -> Vec<String> {
    let mut payloads = vec![String::new()];
    for append in items {
        let line = format!("{} {} {}\n", append.key.kind, append.key.id, append.next.seq);
        match payloads.last_mut() {
            Some(last) if last.len() + line.len() <= PAYLOAD => last.push_str(&line),
            _ => payloads.push(line),
        }
    }
    payloads
}

/// Rewrites the state of an older version, as of the same seq.
pub(super) async fn rewrite(store: &Postgres, append: &Append) -> sqlx::Result<bool> {
    sqlx::query(concat!(
        "UPDATE aggregates a SET state_version = $1, status = $2, service = $3, environment = $4, correlation = $5,
             labels = $6::jsonb, final = $7, state = $8, ",
        schedule!(),
        " FROM (SELECT $9::boolean AS effects, $10::timestamptz AS wake, $11::bigint AS every,
                       NULL::timestamptz AS polled) AS i
         WHERE a.kind = $12 AND a.id = $13 AND a.seq = $14 AND a.state_version < $1"
    ))
    .bind(append.state_version.cast_signed())
    .bind(&append.index.status)
    .bind(&append.index.service)
    .bind(&append.index.environment)
    .bind(&append.index.correlation)
    .bind(&append.labels)
    .bind(append.is_final)
    .bind(&append.state)
    .bind(append.schedule.effects)
    .bind(append.schedule.wake_at.map(PgTime))
    .bind(append.schedule.poll_every.map(micros))
    .bind(&*append.key.kind)
    .bind(append.key.id.as_str())
    .bind(append.expected.cast_signed())
    .execute(&store.pool)
    .await
    .map(|done| done.rows_affected() == 1)
}
