//! The gRPC server around a service's own RPCs.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use prost::Message;
use prost_types::FileDescriptorSet;
use slipway_telemetry::{Service, TraceServerLayer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Identity, ServerTlsConfig, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::health_reporter};

use crate::{
    Authenticator, ConfigError, ServerConfig, authentication::AuthenticationLayer, config::tls, gate::Gate,
    limits::LimitsLayer,
};

/// After the drain, how long connections may take to close.
const GOODBYE: Duration = Duration::from_secs(2);
/// A TLS handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// HTTP/2 pings keep proxies from closing watches, and find peers that are gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Streams of one connection at once: a client that multiplexes more opens a second connection.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// Headers of one request: a token, a trace context and little else.
const MAX_HEADERS: u32 = 16 << 10;

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("descriptor set cannot be read: {0}")]
    Descriptors(String),
    #[error("grpc server: {0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("listener: {0}")]
    Listener(std::io::Error),
}

/// The gRPC server of a service; see [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts to put a server together. `name` is for the log; `descriptors` is the encoded descriptor set
    /// (`slipway_proto::DESCRIPTORS`), from which reflection answers for the services that are then added.
    ///
    /// # Errors
    /// A configuration that cannot be served, such as a certificate that cannot be read.
    pub fn builder(
        name: &str,
        config: &ServerConfig,
        descriptors: &'static [u8],
    ) -> Result<ServerBuilder, ServeError> {
        config.check()?;
        let tls = config.tls.as_ref().map(tls).transpose()?;
        let files = FileDescriptorSet::decode(descriptors)
            .map_err(|error| ServeError::Descriptors(error.to_string()))?;
        let health = FileDescriptorSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .map_err(|error| ServeError::Descriptors(error.to_string()))?;
        let mut streaming: HashSet<String> = [&files, &health]
            .into_iter()
            .flat_map(streaming_methods)
            .collect();
        for version in ["v1", "v1alpha"] {
            streaming.insert(format!(
                "/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            ));
        }
        Ok(ServerBuilder {
            name: name.to_owned(),
            config: config.clone(),
            tls,
            files,
            health,
            streaming,
            routes: Routes::default(),
            names: Vec::new(),
            telemetry: Service::disabled(name),
        })
    }
}

fn tls(tls: &crate::Tls) -> Result<ServerTlsConfig, ConfigError> {
    // Whether they can be used, and together; tonic would only tell when it serves.
    tls::server(tls)?;
    let certificate = tls::read("server.tls.certificate", &tls.certificate)?;
    let key = tls::read("server.tls.key", &tls.key)?;
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .timeout(HANDSHAKE))
}

/// `/package.Service/Method` of every method that answers with a stream.
fn streaming_methods(files: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| method.server_streaming()) {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

/// A server in the making.
#[derive(Debug)]
pub struct ServerBuilder {
    name: String,
    config: ServerConfig,
    tls: Option<ServerTlsConfig>,
    files: FileDescriptorSet,
    health: FileDescriptorSet,
    streaming: HashSet<String>,
    routes: Routes,
    names: Vec<&'static str>,
    telemetry: Service,
}

impl ServerBuilder {
    /// Where the spans and measurements of requests go; nowhere by default.
    #[must_use]
    pub fn telemetry(mut self, telemetry: &Service) -> Self {
        self.telemetry = telemetry.clone();
        self
    }

    /// Adds a service as tonic generated it, such as `BuildServiceServer::new(…)`. Give it
    /// `.max_decoding_message_size(config.server.max_message_bytes)` where that is more than tonic's 4 MiB.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Serves until `shutdown`, then drains: health says `NOT_SERVING`, new requests are refused with `UNAVAILABLE`,
    /// streams end with it, and what is being answered has `drain_timeout` to finish before connections are closed.
    ///
    /// # Errors
    /// TLS material that does not fit together; a transport that fails.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            name,
            config,
            tls,
            files,
            health,
            streaming,
            mut routes,
            names,
            telemetry,
        } = self;
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        // The listener may have been bound elsewhere, to another address than the configuration names.
        ServerConfig {
            listen: address,
            ..config.clone()
        }
        .check()?;

        let (reporter, health_service) = health_reporter();
        for service in &names {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let mut reflection = tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(files.clone())
            .register_file_descriptor_set(health.clone())
            .with_service_name("grpc.health.v1.Health");
        let mut reflection_alpha = tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(files)
            .register_file_descriptor_set(health)
            .with_service_name("grpc.health.v1.Health");
        for service in &names {
            reflection = reflection.with_service_name(*service);
            reflection_alpha = reflection_alpha.with_service_name(*service);
        }
        let descriptors = |error: tonic_reflection::server::Error| ServeError::Descriptors(error.to_string());
        routes = routes
            .add_service(health_service)
            .add_service(reflection.build_v1().map_err(descriptors)?)
            .add_service(reflection_alpha.build_v1alpha().map_err(descriptors)?);

        let gate = Gate::new(&config, streaming.clone());
        let mut server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(MAX_HEADERS);
        if let Some(tls) = tls {
            server = server.tls_config(tls)?;
        }
        let mut server = server
            .layer(TraceServerLayer::new(&telemetry))
            .layer(gate.clone())
            .layer(AuthenticationLayer(Authenticator::new(&config.principals)))
            .layer(LimitsLayer {
                timeout: config.request_timeout,
                max_message_bytes: config.max_message_bytes,
                streaming: Arc::new(streaming),
            });
        let close = CancellationToken::new();
        let serving = server.add_routes(routes).serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            close.clone().cancelled_owned(),
        );
        tokio::pin!(serving);
        tracing::info!(service = name, %address, tls = config.tls.is_some(), "serving");

        tokio::select! {
            result = &mut serving => return Ok(result?),
            () = shutdown.cancelled() => {}
        }
        tracing::info!(service = name, open = gate.open(), "draining");
        reporter.set_service_status("", ServingStatus::NotServing).await;
        for service in &names {
            reporter
                .set_service_status(service, ServingStatus::NotServing)
                .await;
        }
        tokio::select! {
            result = &mut serving => return Ok(result?),
            drained = tokio::time::timeout(config.drain_timeout, gate.drain()) => if drained.is_err() {
                tracing::warn!(service = name, open = gate.open(), "drain timed out; closing what is left");
            },
        }
        close.cancel();
        match tokio::time::timeout(GOODBYE, serving).await {
            Ok(result) => Ok(result?),
            // A peer does not close its connection; that is not our fault.
            Err(_) => Ok(()),
        }
    }
}
