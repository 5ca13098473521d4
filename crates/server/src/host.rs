//! What the `run` functions of all services have in common: the replica's name, the ledger, the executor and the relay,
//! the three listeners, and the order in which all of that shuts down.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use slipway_events::Bus;
use slipway_ledger::{Executor, ExecutorBuilder, ExecutorHandle, Ledger, Relay, RelayConfig, Sink};
use slipway_telemetry::Service;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, server::NamedService};

use crate::{
    Config, Server, ServerBuilder, ServerConfig, ServiceSettings, ledger,
    operations::Operations,
    web::{self, Readiness},
    wiring::{Listeners, RunError, Wiring},
};

/// A service under construction: [`open`](Self::open) it, add what is specific to the service, [`serve`](Self::serve)
/// it.
///
/// # How it ends
/// On shutdown (or when the server cannot serve), in this order: readiness and health say "not serving"; gRPC and HTTP
/// requests in flight finish, up to `server.drain_timeout`; then background work stops, so that what the last requests
/// decided is still worked on and published; then the database is closed. All of it together has `server.grace_period`;
/// what has not ended by then is logged and abandoned, and its leases lapse.
pub struct ServiceHost {
    name: &'static str,
    replica: String,
    ledger: Ledger,
    config: ServerConfig,
    bus: Arc<dyn Bus>,
    telemetry: Service,
    listeners: Listeners,
    grpc: ServerBuilder,
    web: Router,
    shutdown: CancellationToken,
    background: CancellationToken,
    executor: Option<ExecutorHandle>,
    relays: Vec<(&'static str, Relay)>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl std::fmt::Debug for ServiceHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceHost")
            .field("name", &self.name)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl ServiceHost {
    /// Checks the configuration and opens the database; the files that it names are read by the parts that need them.
    /// `name` is the service's name, such as `build-svc`; without `-svc` it is the source of its events.
    ///
    /// # Errors
    /// A configuration that cannot be used, a database that cannot be opened or migrated.
    pub async fn open<S: ServiceSettings>(
        name: &'static str,
        config: &Config<S>,
        wiring: Wiring,
        shutdown: CancellationToken,
    ) -> Result<Self, RunError> {
        config.check()?;
        let Wiring {
            listeners,
            bus,
            telemetry,
        } = wiring;
        let address = listeners.grpc.local_addr().map_err(RunError::other("listener"))?;
        let replica = replica(name, address);
        let origin = name.strip_suffix("-svc").unwrap_or(name);
        let ledger = ledger::open(&config.database, origin, &replica).await?;
        let operations = Operations::server(ledger.clone(), config.server.max_message_bytes);
        let grpc = Server::builder(name, &config.server, slipway_proto::DESCRIPTORS)?
            .telemetry(&telemetry)
            .service(operations);
        Ok(Self {
            name,
            replica,
            ledger,
            config: config.server.clone(),
            bus,
            telemetry,
            listeners,
            grpc,
            web: Router::new(),
            shutdown,
            background: CancellationToken::new(),
            executor: None,
            relays: Vec::new(),
            tasks: Vec::new(),
        })
    }

    /// This process among the replicas of its service.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The event bus.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// Where spans and measurements are sent.
    pub fn telemetry(&self) -> &Service {
        &self.telemetry
    }

    /// For `max_decoding_message_size` of the gRPC services, which tonic takes for each of them.
    pub fn max_message_bytes(&self) -> usize {
        self.config.max_message_bytes
    }

    /// Runs effects; `set_up` registers their kinds.
    pub fn execute(&mut self, set_up: impl FnOnce(ExecutorBuilder) -> ExecutorBuilder) {
        let builder = set_up(Executor::builder(self.ledger.clone()));
        self.executor = Some(builder.spawn(self.background.clone()));
    }

    /// Sends the ledger's events to a sink, in addition to the bus. `name` names its cursor and never changes.
    pub fn relay(&mut self, name: &'static str, sink: Arc<dyn Sink>) {
        let config = RelayConfig {
            name: name.to_owned(),
            ..RelayConfig::default()
        };
        let relay = Relay::spawn(self.ledger.clone(), sink, config, self.background.clone());
        self.relays.push((name, relay));
    }

    /// Runs a task alongside the server. It must end soon after its token is cancelled.
    pub fn background<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F,
    ) {
        let task = tokio::spawn(task(self.background.clone()));
        self.tasks.push((name, task));
    }

    /// Adds a gRPC service as generated by tonic.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: tower::Service<
                http::Request<Body>,
                Response = http::Response<Body>,
                Error = std::convert::Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.grpc = self.grpc.service(service);
        self
    }

    /// Adds paths to the `http` listener.
    #[must_use]
    pub fn http(mut self, router: Router) -> Self {
        self.web = self.web.merge(router);
        self
    }

    /// Serves until shutdown, then ends everything in order.
    ///
    /// # Errors
    /// Why a listener cannot be served.
    pub async fn serve(mut self) -> Result<(), RunError> {
        let bus = crate::events::bus_sink(&self.ledger, Arc::clone(&self.bus));
        self.relay("relay", bus);
        let Self {
            name,
            ledger,
            config,
            listeners,
            grpc,
            web: router,
            shutdown,
            background,
            executor,
            relays,
            tasks,
            ..
        } = self;
        // A listener that fails shuts down the others too.
        let stop = shutdown.child_token();
        let readiness = Readiness::default();
        let ops = listeners.ops.map(|listener| {
            tokio::spawn(web::serve_plain(
                listener,
                web::ops(readiness.clone()),
                CancellationToken::new(),
            ))
        });
        let rpc = async {
            readiness.set(true);
            let served = grpc.serve(listeners.grpc, stop.clone()).await;
            stop.cancel();
            served
        };
        let http = async {
            let Some(listener) = listeners.http else {
                return Ok(());
            };
            let serving = web::serve(&config, listener, router, stop.clone());
            let served = within(config.drain_timeout, &stop, serving)
                .await
                .unwrap_or_else(|| {
                    tracing::warn!(service = name, "http drain timed out; closing what is left");
                    Ok(())
                });
            stop.cancel();
            served
        };
        let stopping = async {
            stop.cancelled().await;
            readiness.set(false);
            Instant::now()
        };
        let (rpc, http, stopped) = tokio::join!(rpc, http, stopping);

        let grace = Grace {
            service: name,
            ends: stopped + config.grace_period(),
        };
        background.cancel();
        if let Some(executor) = executor {
            grace.wait("executor", executor.drain()).await;
        }
        for (relay, handle) in relays {
            grace.wait(relay, handle.drain()).await;
        }
        for (task, handle) in tasks {
            let ended = async {
                if let Err(error) = handle.await {
                    tracing::error!(service = name, task, %error, "background task failed");
                }
            };
            grace.wait(task, ended).await;
        }
        grace.wait("database", ledger.close()).await;
        if let Some(ops) = ops {
            ops.abort();
        }
        rpc?;
        Ok(http?)
    }
}

/// Runs `work` to its end, or until `limit` after `stop`.
async fn within<T>(limit: Duration, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = late => None,
    }
}

/// What is left of a shutdown's time.
struct Grace {
    service: &'static str,
    ends: Instant,
}

impl Grace {
    async fn wait(&self, part: &'static str, end: impl Future<Output = ()>) {
        let left = self.ends.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left, end).await.is_err() {
            tracing::warn!(
                service = self.service,
                part,
                "the grace period is over; what has not ended is left behind"
            );
        }
    }
}

/// The same rule for all services: service, host and port. Unique among replicas that run at the same time, and the
/// same after a restart of the same pod.
fn replica(name: &str, address: SocketAddr) -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|host| host.into_string().ok())
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "localhost".to_owned());
    format!("{name}@{host}:{}", address.port())
}

#[cfg(test)]
mod tests {
    #[test]
    fn replicas_on_one_host_have_names_of_their_own() {
        let one = super::replica("x-svc", "127.0.0.1:7001".parse().unwrap());
        let two = super::replica("x-svc", "127.0.0.1:7002".parse().unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with("x-svc@") && one.ends_with(":7001"), "{one}");
    }
}
