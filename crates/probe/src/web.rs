//! One HTTP request over one connection: HTTP/1.1, bounded in time and size, no redirect followed, no proxy of the
//! environment used.

use std::time::Duration;

use futures::future::{Either as First, select};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use slipway_check::Remote;
use slipway_model::{Fault, causes};
use tokio::time::Instant;
use tokio_util::either::Either;

use crate::dial::{Dialer, Stream, Tls};

/// A longer response head is refused, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The server that is asked, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) remote: &'a Remote,
    /// `https`.
    pub(crate) tls: bool,
    /// PEM authorities in addition to the system's.
    pub(crate) ca_file: Option<&'a str>,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// False if the body was longer, or broke off.
    pub(crate) whole: bool,
}

/// Sends one request and reads at most `most` bytes of the answer's body, all within `time`. The request's URI is path
/// and query alone, and it has a `Host`.
pub(crate) async fn exchange(
    dialer: &Dialer,
    server: Server<'_>,
    request: Request<Full<Bytes>>,
    most: usize,
    time: Duration,
) -> Result<Answer, Fault<String>> {
    let end = Instant::now() + time;
    let stream = if server.tls {
        let tls = Tls {
            ca_file: server.ca_file,
            alpn: &[b"http/1.1"],
        };
        Either::Right(dialer.tls(server.remote, tls, time).await?)
    } else {
        Either::Left(dialer.tcp(server.remote, time).await?)
    };
    match tokio::time::timeout_at(end, talk(stream, request, most)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Fault::transient(causes(&error))),
        Err(_) => Err(Fault::transient(format!("no answer within {time:?}"))),
    }
}

async fn talk(stream: Stream, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    // Both in this very future: dropping it closes the connection.
    let ask = std::pin::pin!(async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let (body, whole) = beginning(body, most).await;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            whole,
        })
    });
    match select(ask, std::pin::pin!(connection)).await {
        First::Left((answer, _)) => answer,
        // Closed by the server; what it sent before that may still be read.
        First::Right((_, ask)) => ask.await,
    }
}

/// At most that many bytes, and whether that was all. If it breaks off, what came until then.
async fn beginning(mut body: Incoming, most: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match body.frame().await {
            None => return (bytes, true),
            Some(Err(_)) => return (bytes, false),
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else { continue };
                let room = most - bytes.len();
                bytes.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    return (bytes, false);
                }
            }
        }
    }
}
