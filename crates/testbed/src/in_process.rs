//! A service in the test's own process.

use std::{marker::PhantomData, net::SocketAddr, sync::Arc};

use serde::de::DeserializeOwned;
use slipway_events::{BusConfig, MemoryBus};
use slipway_server::{Channel, ClientConfig, RunError, Wiring};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::eventually;

/// A replica of a service: its `run` in this process, on a free port, with its own in-memory bus and without a
/// collector. Its database is the one in its configuration.
///
/// It has a runtime of its own. [`stop`](Self::stop) drains it as SIGTERM does; when it is dropped, everything that it
/// has spawned stops where it is, which is as close to `kill -9` as one process can get.
///
/// ```ignore
/// let replica = InProcess::start("approval-svc", &text, approval_svc::run).await?;
/// let client = ApprovalServiceClient::new(replica.channel(Some("alice-token")));
/// replica.stop().await;
/// ```
#[derive(Debug)]
pub struct InProcess<Config> {
    address: SocketAddr,
    bus: MemoryBus,
    shutdown: CancellationToken,
    run: Option<JoinHandle<Result<(), RunError>>>,
    runtime: Option<Runtime>,
    config: PhantomData<fn(Config)>,
}

impl<Config: DeserializeOwned> InProcess<Config> {
    /// Reads a configuration as if from a file, and waits until the service serves.
    ///
    /// # Errors
    /// What is wrong with the configuration, or the error that ended the service.
    pub async fn start<F>(
        name: &'static str,
        config: &str,
        run: impl FnOnce(Config, Wiring, CancellationToken) -> F,
    ) -> Result<Self, RunError>
    where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let config = slipway_server::config::parse("test.yaml", config)?;
        Self::with(name, config, run).await
    }
}

impl<Config> InProcess<Config> {
    /// The same with anything that serves gRPC and health.
    ///
    /// # Errors
    /// The error that ended it.
    ///
    /// # Panics
    /// When it ends before it serves, or does neither in time.
    pub async fn with<F>(
        name: &'static str,
        config: Config,
        run: impl FnOnce(Config, Wiring, CancellationToken) -> F,
    ) -> Result<Self, RunError>
    where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(RunError::other("runtime"))?;
        // What is bound or created belongs to the runtime in which that is done.
        let (listener, bus) = {
            let _inside = runtime.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(RunError::other("listener"))?;
            listener
                .set_nonblocking(true)
                .map_err(RunError::other("listener"))?;
            let listener = TcpListener::from_std(listener).map_err(RunError::other("listener"))?;
            (listener, MemoryBus::new(BusConfig::default()))
        };
        let address = listener.local_addr().map_err(RunError::other("listener"))?;
        let telemetry = slipway_telemetry::Service::disabled(name);
        let wiring = Wiring::new(listener, Arc::new(bus.clone()), telemetry);
        let shutdown = CancellationToken::new();
        let run = runtime.spawn(run(config, wiring, shutdown.clone()));
        let mut service = Self {
            address,
            bus,
            shutdown,
            run: Some(run),
            runtime: Some(runtime),
            config: PhantomData,
        };
        service.serves(name).await?;
        Ok(service)
    }

    async fn serves(&mut self, name: &str) -> Result<(), RunError> {
        let channel = self.channel(None);
        let serves = eventually("the service serves", async || {
            let mut health = HealthClient::new(channel.clone());
            let answer = health.check(HealthCheckRequest::default()).await?;
            match answer.into_inner().status() {
                ServingStatus::Serving => Ok(()),
                other => Err(tonic::Status::unavailable(other.as_str_name())),
            }
        });
        let Some(run) = &mut self.run else { return Ok(()) };
        tokio::select! {
            ended = run => {
                self.run = None;
                match ended {
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(())) => panic!("{name} ended before it served"),
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            () = serves => Ok(()),
        }
    }

    /// Where it serves gRPC.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves gRPC, as clients are configured.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A connection with the given token, or without one.
    pub fn channel(&self, token: Option<&str>) -> Channel {
        let config = ClientConfig {
            token: token.map(|token| token.to_owned().into()),
            ..ClientConfig::new(self.url(), "")
        };
        config.connect("client").expect("a URL on loopback")
    }

    /// Its event bus.
    pub fn bus(&self) -> &MemoryBus {
        &self.bus
    }

    /// Drains it, as SIGTERM does, and waits for its end.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(run) = self.run.take() {
            let ended = crate::within("the service ends", run).await;
            ended.expect("no panic").expect("it ends well");
        }
    }
}

impl<Config> Drop for InProcess<Config> {
    fn drop(&mut self) {
        // Not by dropping it: that would block, which must not be done in the test's own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
