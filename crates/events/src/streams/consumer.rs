//! A consumer of a group: reads, hands to the dispatcher, settles, retries, claims, and survives outages.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::{
    RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamClaimReply, StreamId, StreamPendingCountReply, StreamReadReply},
};
use slipway_model::{Fault, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{COMMAND_TIMEOUT, DEAD_KEY, Shared, stream_key, wire};
use crate::{
    DeadLetter, EntryId, Handler,
    dispatch::{Delivery, Dispatcher, Outcome},
};

/// How long a read waits for something new before it asks again; also bounds how long a dead connection goes unnoticed.
const BLOCK: Duration = Duration::from_secs(2);
/// Acknowledgements wait this long to share a round trip with others …
const SETTLE_DELAY: Duration = Duration::from_millis(5);
/// … or until there are this many.
const SETTLE_BATCH: usize = 64;
/// Entries per claim command.
const CLAIM_BATCH: usize = 64;
/// Reconnecting begins with this delay …
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// … and doubles, with jitter, up to this one.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Deletes a consumer only while nothing is pending on it: deleting one also drops what it had not acknowledged.
/// `KEYS[1]` is the stream, `ARGV` the group, the consumer to delete (empty for all others), our own name, and the
/// minimum idle time in ms.
const DELETE_CONSUMERS: &str = r"
local reply = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if reply['err'] then return 0 end
local deleted = 0
for _, consumer in ipairs(reply) do
    local name, pending, idle
    for i = 1, #consumer, 2 do
        if consumer[i] == 'name' then name = consumer[i + 1] end
        if consumer[i] == 'pending' then pending = consumer[i + 1] end
        if consumer[i] == 'idle' then idle = consumer[i + 1] end
    end
    local wanted = (ARGV[2] == '' and name ~= ARGV[3]) or name == ARGV[2]
    if wanted and pending == 0 and idle >= tonumber(ARGV[4]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
        deleted = deleted + 1
    end
end
return deleted
";

/// The key of an entry here: the stream's index in [`Consumer::keys`], the id, and its deliveries so far.
#[derive(Debug, Clone)]
struct Reference {
    stream: usize,
    entry: EntryId,
    deliveries: u32,
}

/// What has yet to be reported to Redis.
enum Settled {
    Done,
    Dead(Box<DeadLetter>),
}

type Read = Pin<Box<dyn Future<Output = Result<Option<StreamReadReply>, RedisError>> + Send>>;

pub(super) struct Consumer<'a> {
    shared: &'a Shared,
    origins: Vec<String>,
    keys: Vec<String>,
    group: String,
    name: String,
    dispatcher: Dispatcher<Reference>,
    /// Everything that this consumer holds and has not settled with Redis: waiting, running, to be retried, to be
    /// settled.
    held: BTreeSet<(usize, EntryId)>,
    retries: BTreeMap<(Instant, usize, EntryId), ()>,
    settled: HashMap<(usize, EntryId), Settled>,
    settle_at: Option<Instant>,
}

impl<'a> Consumer<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        origins: &[&str],
        group: &str,
        name: &str,
        handler: Arc<dyn Handler>,
    ) -> Self {
        Self {
            shared,
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            keys: origins.iter().map(|origin| stream_key(origin)).collect(),
            group: group.to_owned(),
            name: name.to_owned(),
            dispatcher: Dispatcher::new(handler, &shared.config),
            held: BTreeSet::new(),
            retries: BTreeMap::new(),
            settled: HashMap::new(),
            settle_at: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        if self.keys.is_empty() {
            return shutdown.cancelled().await;
        }
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RECONNECT_MIN)
            .with_max_delay(RECONNECT_MAX)
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        let mut away = false;
        loop {
            let mut connected = false;
            let result = self.session(shutdown, &mut connected, away).await;
            if connected {
                away = false;
                delays = backoff.build();
            }
            let Err(error) = result else { break };
            if away {
                debug!(%error, group = self.group, "event bus is still away");
            } else {
                warn!(%error, group = self.group, "event bus is away, events wait");
                away = true;
            }
            let delay = delays.next().unwrap_or(RECONNECT_MAX);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
        }
        self.finish().await;
    }

    /// Reads until shutdown (`Ok`) or until Redis fails.
    async fn session(
        &mut self,
        shutdown: &CancellationToken,
        connected: &mut bool,
        was_away: bool,
    ) -> Result<(), RedisError> {
        let opened = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            opened = async {
                // Blocking commands have a connection of their own, so that they do not hold up anything else.
                let reader = self.shared.open(BLOCK + COMMAND_TIMEOUT).await?;
                Ok::<_, RedisError>((reader, self.shared.open(COMMAND_TIMEOUT).await?))
            } => opened,
        };
        let (reader, mut commands) = opened?;
        let commands = &mut commands;
        self.ensure_groups(commands).await?;
        *connected = true;
        if was_away {
            info!(group = self.group, "event bus is back");
        }
        self.recover_own(commands).await?;
        let mut upkeep = tokio::time::interval(self.shared.config.claim_idle / 3);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read: Option<Read> = None;
        loop {
            let room = self.room();
            if read.is_none() && room > 0 {
                read = Some(self.read(&reader, room));
            }
            let reading = async {
                match &mut read {
                    Some(read) => read.await,
                    None => std::future::pending().await,
                }
            };
            let settle = sleep_until(self.settle_at);
            let retry = sleep_until(self.next_retry());
            tokio::select! {
                // In this order: nothing starts after shutdown, and what is due is not starved by a busy stream.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = settle => self.settle(commands).await?,
                () = retry => self.redeliver(commands).await?,
                _ = upkeep.tick() => self.upkeep(commands).await?,
                Some(outcome) = self.dispatcher.next() => self.judge(outcome),
                reply = reading => {
                    read = None;
                    match reply {
                        Ok(reply) => self.accept(reply.unwrap_or_default()),
                        Err(error) if wire::is_missing_group(&error) => {
                            info!(group = self.group, "event bus was emptied, making the group again");
                            self.ensure_groups(commands).await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            if self.settled.len() >= SETTLE_BATCH {
                self.settle(commands).await?;
            }
        }
    }

    /// Waits for what is running, reports it to Redis, and deletes the consumer when nothing is pending on it.
    async fn finish(mut self) {
        self.dispatcher.stop_starting();
        while let Some(outcome) = self.dispatcher.next().await {
            self.judge(outcome);
        }
        let farewell = async {
            let mut commands = self.shared.open(COMMAND_TIMEOUT).await?;
            self.settle(&mut commands).await?;
            let own = self.name.clone();
            self.delete_consumers(&mut commands, &own, Duration::ZERO).await
        };
        if let Err(error) = farewell.await {
            debug!(%error, "event bus is away at shutdown, others will claim what is pending");
        }
    }

    async fn ensure_groups(&self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for key in &self.keys {
            let created: Result<Value, RedisError> = redis::cmd("XGROUP")
                .arg("CREATE")
                .arg(key)
                .arg(&self.group)
                .arg("0")
                .arg("MKSTREAM")
                .query_async(commands)
                .await;
            match created {
                Ok(_) => {}
                Err(error) if wire::is_group_there(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A read of new entries that owns what it needs, so that it can be kept across other work.
    fn read(&self, reader: &MultiplexedConnection, room: usize) -> Read {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.group)
            .arg(&self.name)
            .arg("COUNT")
            .arg((room / self.keys.len()).max(1))
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(&self.keys);
        for _ in &self.keys {
            command.arg(">");
        }
        let mut reader = reader.clone();
        Box::pin(async move { command.query_async(&mut reader).await })
    }

    /// Takes up what this consumer's name had pending: from before a restart, or read just before the connection broke.
    /// It claims them, since reading its own history would also count a delivery for what is being handled right now.
    async fn recover_own(&mut self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for stream in 0..self.keys.len() {
            let mut start = "-".to_owned();
            loop {
                let page: StreamPendingCountReply = redis::cmd("XPENDING")
                    .arg(&self.keys[stream])
                    .arg(&self.group)
                    .arg(&start)
                    .arg("+")
                    .arg(CLAIM_BATCH)
                    .arg(&self.name)
                    .query_async(commands)
                    .await?;
                let Some(last) = page.ids.last() else { break };
                start = format!("({}", last.id);
                let left: Vec<String> = page
                    .ids
                    .into_iter()
                    .map(|pending| pending.id)
                    .filter(|id| id.parse().is_ok_and(|id| !self.held.contains(&(stream, id))))
                    .collect();
                // Redis drops trimmed entries from its pending list.
                let entries = self.claim_back(commands, stream, &left).await?;
                self.take_over(commands, stream, entries).await?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, reply: StreamReadReply) {
        for key in reply.keys {
            let Some(stream) = self.keys.iter().position(|own| *own == key.key) else {
                continue;
            };
            for entry in key.ids {
                self.hold(stream, &entry, 1);
            }
        }
    }

    /// Starts handling an entry that Redis has delivered to this consumer.
    fn hold(&mut self, stream: usize, entry: &StreamId, deliveries: u32) {
        let Ok(id) = entry.id.parse::<EntryId>() else {
            return;
        };
        self.held.insert((stream, id));
        let fields = wire::fields(entry);
        let dead = |reason: String| {
            Settled::Dead(Box::new(DeadLetter {
                origin: self.origins[stream].clone(),
                entry: entry.id.clone(),
                group: self.group.clone(),
                reason,
                deliveries,
                at: Timestamp::now(),
                fields: fields.clone(),
            }))
        };
        if deliveries > self.shared.config.max_deliveries {
            let reason = format!(
                "delivered {deliveries} times and never acknowledged: its consumers ended while handling it"
            );
            let dead = dead(reason);
            return self.note(stream, id, dead);
        }
        match wire::read_envelope(&fields) {
            Ok(envelope) => self.dispatcher.push(Delivery {
                reference: Reference {
                    stream,
                    entry: id,
                    deliveries,
                },
                envelope: Arc::new(envelope),
            }),
            Err(error) => {
                let dead = dead(error.to_string());
                self.note(stream, id, dead);
            }
        }
    }

    /// What to do about an outcome: acknowledge, try again later, or give up.
    fn judge(&mut self, outcome: Outcome<Reference>) {
        let Outcome {
            reference,
            envelope,
            result,
        } = outcome;
        let Reference {
            stream,
            entry,
            deliveries,
        } = reference;
        match result {
            Ok(()) => self.note(stream, entry, Settled::Done),
            Err(Fault::Transient { error: reason, .. }) if deliveries < self.shared.config.max_deliveries => {
                debug!(event = %envelope.event_id(), reason, deliveries, "event is delivered again later");
                let due = Instant::now() + self.shared.config.delay_after(deliveries);
                self.retries.insert((due, stream, entry), ());
            }
            Err(error) => {
                let mut fields: Vec<(String, String)> = envelope
                    .to_fields()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                fields.sort();
                let letter = DeadLetter {
                    origin: self.origins[stream].clone(),
                    entry: entry.to_string(),
                    group: self.group.clone(),
                    reason: error.to_string(),
                    deliveries,
                    at: Timestamp::now(),
                    fields,
                };
                self.note(stream, entry, Settled::Dead(Box::new(letter)));
            }
        }
    }

    fn note(&mut self, stream: usize, entry: EntryId, settled: Settled) {
        if let Settled::Dead(letter) = &settled {
            warn!(
                origin = letter.origin,
                entry = letter.entry,
                group = letter.group,
                reason = letter.reason,
                deliveries = letter.deliveries,
                "event dead-lettered"
            );
        }
        self.settled.insert((stream, entry), settled);
        self.settle_at
            .get_or_insert_with(|| Instant::now() + SETTLE_DELAY);
    }

    /// Reports to Redis what is done, in one transaction with the dead letters. What could not be reported is reported
    /// after the next connect.
    async fn settle(&mut self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        self.settle_at = None;
        if self.settled.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        let mut done: Vec<Vec<String>> = vec![Vec::new(); self.keys.len()];
        for ((stream, entry), settled) in &self.settled {
            if let Settled::Dead(letter) = settled {
                let command = pipe
                    .cmd("XADD")
                    .arg(DEAD_KEY)
                    .arg("MAXLEN")
                    .arg("~")
                    .arg(self.shared.config.dead_letters)
                    .arg("*");
                for (field, value) in wire::dead_letter_fields(letter) {
                    command.arg(field).arg(value);
                }
                command.ignore();
            }
            done[*stream].push(entry.to_string());
        }
        for (key, ids) in self.keys.iter().zip(&done).filter(|(_, ids)| !ids.is_empty()) {
            pipe.cmd("XACK").arg(key).arg(&self.group).arg(ids).ignore();
        }
        if let Err(error) = pipe.query_async::<()>(commands).await {
            // So that the next session begins with it.
            self.settle_at = Some(Instant::now());
            return Err(error);
        }
        for key in self.settled.drain().map(|(key, _)| key) {
            self.held.remove(&key);
        }
        Ok(())
    }

    /// How many new entries to read. None while very many wait for another delivery: then the fault is not with the
    /// entries but with what the handler needs, and reading on would only use up their deliveries.
    fn room(&self) -> usize {
        if self.retries.len() < self.shared.config.buffer * 4 {
            self.dispatcher.room()
        } else {
            0
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        let room = self.dispatcher.room() > 0;
        self.retries.keys().next().map(|(due, ..)| *due).filter(|_| room)
    }

    /// Claims entries from ourselves, which makes Redis count the delivery, so that the count survives this process.
    async fn claim_back(
        &self,
        commands: &mut MultiplexedConnection,
        stream: usize,
        ids: &[String],
    ) -> Result<Vec<StreamId>, RedisError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reply: Result<StreamClaimReply, RedisError> = redis::cmd("XCLAIM")
            .arg(&self.keys[stream])
            .arg(&self.group)
            .arg(&self.name)
            .arg(0)
            .arg(ids)
            .query_async(commands)
            .await;
        match reply {
            Ok(reply) => Ok(reply.ids),
            Err(error) if wire::is_missing_group(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Delivers again what is due.
    async fn redeliver(&mut self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let now = Instant::now();
        while self.dispatcher.room() > 0 {
            let Some(&(due, stream, entry)) = self.retries.keys().next() else {
                break;
            };
            if due > now {
                break;
            }
            let entries = self.claim_back(commands, stream, &[entry.to_string()]).await?;
            self.retries.remove(&(due, stream, entry));
            self.held.remove(&(stream, entry));
            // Nothing is returned when it was trimmed, or Redis was emptied: then there is nothing left to handle.
            self.take_over(commands, stream, entries).await?;
        }
        Ok(())
    }

    /// Keeps the idle time of held entries low, claims what others left behind, and deletes consumers that are long
    /// gone.
    async fn upkeep(&mut self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let result = self.try_upkeep(commands).await;
        match result {
            // The reader notices it too, and creates the groups again.
            Err(error) if wire::is_missing_group(&error) => self.ensure_groups(commands).await,
            result => result,
        }
    }

    async fn try_upkeep(&mut self, commands: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let held: Vec<(usize, EntryId)> = self.held.iter().copied().collect();
        for chunk in held.chunk_by(|a, b| a.0 == b.0) {
            let ids: Vec<String> = chunk.iter().map(|(_, id)| id.to_string()).collect();
            redis::cmd("XCLAIM")
                .arg(&self.keys[chunk[0].0])
                .arg(&self.group)
                .arg(&self.name)
                .arg(0)
                .arg(ids)
                .arg("JUSTID")
                .query_async::<Value>(commands)
                .await?;
        }
        for stream in 0..self.keys.len() {
            self.claim(commands, stream).await?;
        }
        let idle = self.shared.config.consumer_idle;
        self.delete_consumers(commands, "", idle).await
    }

    async fn claim(&mut self, commands: &mut MultiplexedConnection, stream: usize) -> Result<(), RedisError> {
        let mut cursor = "0-0".to_owned();
        loop {
            let room = self.dispatcher.room().min(CLAIM_BATCH);
            if room == 0 {
                return Ok(());
            }
            let reply: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
                .arg(&self.keys[stream])
                .arg(&self.group)
                .arg(&self.name)
                .arg(u64::try_from(self.shared.config.claim_idle.as_millis()).unwrap_or(u64::MAX))
                .arg(&cursor)
                .arg("COUNT")
                .arg(room)
                .query_async(commands)
                .await?;
            if !reply.claimed.is_empty() {
                info!(
                    origin = self.origins[stream],
                    group = self.group,
                    entries = reply.claimed.len(),
                    "claimed the entries of a consumer that ended"
                );
            }
            self.take_over(commands, stream, reply.claimed).await?;
            if reply.next_stream_id == "0-0" {
                return Ok(());
            }
            cursor = reply.next_stream_id;
        }
    }

    /// Starts handling entries that were pending before, with their true delivery counts.
    async fn take_over(
        &mut self,
        commands: &mut MultiplexedConnection,
        stream: usize,
        mut entries: Vec<StreamId>,
    ) -> Result<(), RedisError> {
        entries.retain(|entry| {
            let id = entry.id.parse::<EntryId>();
            !entry.map.is_empty() && id.is_ok_and(|id| !self.held.contains(&(stream, id)))
        });
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for entry in &entries {
            pipe.cmd("XPENDING")
                .arg(&self.keys[stream])
                .arg(&self.group)
                .arg(&entry.id)
                .arg(&entry.id)
                .arg(1);
        }
        let counts: Vec<StreamPendingCountReply> = pipe.query_async(commands).await?;
        for (entry, count) in entries.iter().zip(counts) {
            let deliveries = count.ids.first().map_or(1, |pending| pending.times_delivered);
            self.hold(
                stream,
                entry,
                u32::try_from(deliveries).unwrap_or(u32::MAX).max(1),
            );
        }
        Ok(())
    }

    /// Deletes one consumer, or with an empty name all others, if they have nothing pending and have been idle for at
    /// least that long.
    async fn delete_consumers(
        &self,
        commands: &mut MultiplexedConnection,
        consumer: &str,
        idle: Duration,
    ) -> Result<(), RedisError> {
        for key in &self.keys {
            let deleted: u64 = redis::cmd("EVAL")
                .arg(DELETE_CONSUMERS)
                .arg(1)
                .arg(key)
                .arg(&self.group)
                .arg(consumer)
                .arg(&self.name)
                .arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
                .query_async(commands)
                .await?;
            if deleted > 0 {
                debug!(key, group = self.group, deleted, "deleted idle consumers");
            }
        }
        Ok(())
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
