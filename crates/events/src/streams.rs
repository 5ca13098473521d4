//! The bus on Redis streams: connections and publishing. See the crate's documentation for how streams are used.

mod consumer;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{
    AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection, streams::StreamRangeReply,
};
use slipway_model::Timestamp;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Bus, BusConfig, BusError, DeadLetter, EntryId, Envelope, Handler, memory::common_origin};

/// The prefix of every stream's key.
const KEY_PREFIX: &str = "slipway:";
/// The stream of what groups gave up on.
const DEAD_KEY: &str = "slipway:dead";
/// To connect, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a command that does not block.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A [`Bus`] on Redis streams. Cheap to clone; the clones share one connection for publishing.
#[derive(Clone)]
pub struct RedisBus {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    config: BusConfig,
    /// Created when first needed, and again after it broke.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Whether the last use of `connection` failed, so that an outage is logged once.
    away: AtomicBool,
}

impl std::fmt::Debug for RedisBus {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBus")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl RedisBus {
    /// A bus at `redis://…` or `rediss://…` with the default timing. Does not connect yet, so a service starts even
    /// when Redis is unreachable.
    pub fn connect(url: &str) -> Result<Self, BusError> {
        Self::with_config(url, BusConfig::default())
    }

    /// As [`RedisBus::connect`], with the given timing.
    pub fn with_config(url: &str, config: BusConfig) -> Result<Self, BusError> {
        let client = Client::open(url).map_err(|error| BusError::Url(error.category().to_owned()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                config,
                connection: Mutex::default(),
                away: AtomicBool::new(false),
            }),
        })
    }

    /// Asks Redis whether it responds: for readiness pages, never a condition for starting.
    pub async fn ping(&self) -> Result<(), BusError> {
        let mut connection = self.shared.connection().await?;
        let reply: Result<String, RedisError> = redis::cmd("PING").query_async(&mut connection).await;
        self.shared.checked(reply).await.map(drop)
    }
}

impl Shared {
    /// A connection of its own, for a consumer.
    async fn open(&self, response_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// The shared connection.
    async fn connection(&self) -> Result<MultiplexedConnection, BusError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        match self.open(COMMAND_TIMEOUT).await {
            Ok(connection) => {
                *slot = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Passes a reply on; after an error the connection is made again, since it may be broken or lead to a replica
    /// that was a primary.
    async fn checked<T>(&self, reply: Result<T, RedisError>) -> Result<T, BusError> {
        match reply {
            Ok(value) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    info!("event bus is back");
                }
                Ok(value)
            }
            Err(error) => {
                *self.connection.lock().await = None;
                Err(self.failed(&error))
            }
        }
    }

    fn failed(&self, error: &RedisError) -> BusError {
        let error = BusError::Unavailable(error.to_string());
        if !self.away.swap(true, Ordering::Relaxed) {
            warn!(%error, "event bus is away");
        }
        error
    }
}

fn stream_key(origin: &str) -> String {
    format!("{KEY_PREFIX}{origin}")
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, batch: &[Envelope]) -> Result<String, BusError> {
        let Some(origin) = common_origin(batch)? else {
            return Ok(EntryId::ZERO.to_string());
        };
        let key = stream_key(origin);
        let retention = i64::try_from(self.shared.config.retention.as_micros()).unwrap_or(i64::MAX);
        let oldest = Timestamp::now().as_micros().saturating_sub(retention).max(0) / 1000;
        // One transaction: a batch is written as a whole or, when the reply is lost, possibly.
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (index, envelope) in batch.iter().enumerate() {
            let command = pipe.cmd("XADD").arg(&key);
            if index + 1 == batch.len() {
                command.arg("MINID").arg("~").arg(oldest);
            }
            command.arg("*");
            for (field, value) in envelope.to_fields() {
                command.arg(field).arg(value);
            }
        }
        let mut connection = self.shared.connection().await?;
        let reply: Result<Vec<String>, RedisError> = pipe.query_async(&mut connection).await;
        let ids = self.shared.checked(reply).await?;
        ids.into_iter()
            .next_back()
            .ok_or_else(|| BusError::Unavailable("redis answered XADD without an id".to_owned()))
    }

    async fn last_entry(&self, origin: &str) -> Result<Option<String>, BusError> {
        let mut connection = self.shared.connection().await?;
        let reply: Result<redis::streams::StreamInfoStreamReply, RedisError> = redis::cmd("XINFO")
            .arg("STREAM")
            .arg(stream_key(origin))
            .query_async(&mut connection)
            .await;
        let reply = match reply {
            Ok(info) => Ok(Some(info.last_generated_id)),
            Err(error) if wire::is_missing_key(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let id = self.shared.checked(reply).await?;
        // A stream that was created by groups has not assigned an id yet.
        Ok(id.filter(|id| id != "0-0"))
    }

    async fn consume(
        &self,
        origins: &[&str],
        group: &str,
        consumer: &str,
        handler: Arc<dyn Handler>,
        shutdown: CancellationToken,
    ) {
        consumer::Consumer::new(&self.shared, origins, group, consumer, handler)
            .run(&shutdown)
            .await;
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let mut connection = self.shared.connection().await?;
        let reply: Result<StreamRangeReply, RedisError> = redis::cmd("XREVRANGE")
            .arg(DEAD_KEY)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(limit)
            .query_async(&mut connection)
            .await;
        let entries = self.shared.checked(reply).await?;
        Ok(entries.ids.iter().map(wire::read_dead_letter).collect())
    }
}
