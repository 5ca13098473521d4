//! gRPC health checks: `grpc.health.v1.Health/Check` must answer SERVING
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use hyper_util::rt::TokioIo;
use slipway_check::{GrpcCheck, Remote};
use slipway_model::{Fault, causes};
use slipway_verdict::{cut, evidence::redact};
use tokio::time::Instant;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Attempt;
use crate::dial::{Dialer, Stream, Tls};

/// A health response has two bytes; anything much longer is not one.
const MAX_ANSWER: usize = 4096;

/// Asks once.
pub(super) async fn ask(dialer: &Dialer, check: &GrpcCheck) -> Attempt {
    let what = format!("grpc.health.v1 {}", check.address);
    match health(dialer, check).await {
        Ok(ServingStatus::Serving) => Attempt::Passed(format!("{what}: SERVING")),
        Ok(status) => Attempt::NotYet(format!("{what}: {}, expected SERVING", status.as_str_name())),
        Err(Fault::Transient { error: words, .. }) => {
            Attempt::NotYet(cut(&format!("{what}: {}", redact(&words))))
        }
        Err(Fault::Permanent(words)) => Attempt::Never(cut(&format!("{what}: {}", redact(&words)))),
    }
}

async fn health(dialer: &Dialer, check: &GrpcCheck) -> Result<ServingStatus, Fault<String>> {
    let time = check.patience.timeout;
    let end = Instant::now() + time;
    let remote = Remote::parse(&check.address).map_err(Fault::Permanent)?;
    let stream = if check.tls {
        let tls = Tls {
            ca_file: check.ca_file.as_deref(),
            alpn: &[b"h2"],
        };
        Either::Right(dialer.tls(&remote, tls, time).await?)
    } else {
        Either::Left(dialer.tcp(&remote, time).await?)
    };
    let late = |_| Fault::transient(format!("no answer within {time:?}"));
    tokio::time::timeout_at(end, call(stream, check))
        .await
        .map_err(late)?
}

async fn call(stream: Stream, check: &GrpcCheck) -> Result<ServingStatus, Fault<String>> {
    let channel = channel(stream, check).await?;
    let request = HealthCheckRequest {
        service: check.service.clone(),
    };
    let answer = HealthClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER)
        .check(request)
        .await
        .map_err(|status| {
            // The code's name as gRPC has it, such as NOT_FOUND.
            let mut words = format!("{:?}", status.code());
            if !status.message().is_empty() {
                words = format!("{words}: {}", status.message());
            }
            Fault::transient(format!("gRPC status {words}"))
        })?;
    Ok(ServingStatus::try_from(answer.into_inner().status).unwrap_or(ServingStatus::Unknown))
}

/// A channel over the existing connection: what is asked is what was vetted.
async fn channel(stream: Stream, check: &GrpcCheck) -> Result<Channel, Fault<String>> {
    let failed = |error: tonic::transport::Error| Fault::transient(causes(&error));
    let origin = |scheme: &str| {
        format!("{scheme}://{}", check.address)
            .parse::<http::Uri>()
            .map_err(|error| Fault::Permanent(error.to_string()))
    };
    // TLS is set up already; only `:scheme` still refers to it.
    let endpoint = Endpoint::from(origin("http")?).origin(origin(if check.tls { "https" } else { "http" })?);
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection was lost")) }
    });
    endpoint.connect_with_connector(connector).await.map_err(failed)
}
