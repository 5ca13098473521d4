//! Probes: asking a container over HTTP or TCP whether it has started, is alive, is ready.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::kubelet::ports;
use crate::object::{list, number, text};

/// How soon a container that has never succeeded is probed again, regardless of its period: at first after this, then
/// after twice as long each time, up to `EAGER`.
const EAGER_FIRST: Duration = Duration::from_millis(10);
const EAGER: Duration = Duration::from_millis(100);
/// In the first moments of its life it is not worth reporting that a program does not listen yet.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// For how long after its first probe a container is probed eagerly.
const EAGER_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a probe reports when its verdict changes, or after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The threshold was crossed.
    Verdict { kind: Kind, good: bool },
    /// A failure, for the pod's events.
    Bad { kind: Kind, message: String },
}

#[derive(Debug, Clone)]
pub(crate) struct Probe {
    kind: Kind,
    question: Question,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    success: i64,
    failure: i64,
}

#[derive(Debug, Clone)]
enum Question {
    Http {
        port: u16,
        uri: Uri,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    Tcp {
        port: u16,
    },
}

impl Probe {
    /// Reads a container's probe of that kind; `local` are its local ports.
    ///
    /// # Errors
    /// When the port is not one of the container's.
    pub(crate) fn read(container: &Value, kind: Kind, local: &Value) -> Result<Option<Self>, String> {
        let spec = match kind {
            Kind::Startup => &container["startupProbe"],
            Kind::Liveness => &container["livenessProbe"],
            Kind::Readiness => &container["readinessProbe"],
        };
        if !spec.is_object() {
            return Ok(None);
        }
        let http = &spec["httpGet"];
        let wanted = if http.is_object() {
            &http["port"]
        } else {
            &spec["tcpSocket"]["port"]
        };
        let port = ports::resolve_in(container, local, wanted).ok_or_else(|| {
            format!(
                "{} probe: port {wanted} is not a containerPort of container {:?}; declare it",
                kind.name(),
                text(container, &["name"])
            )
        })?;
        let question = if http.is_object() {
            let path = text(http, &["path"]);
            let slash = if path.starts_with('/') { "" } else { "/" };
            let uri = format!("http://127.0.0.1:{port}{slash}{path}");
            let uri = uri
                .parse()
                .map_err(|error| format!("{} probe: path {path:?}: {error}", kind.name()))?;
            let headers = list(http, &["httpHeaders"]).iter().filter_map(|header| {
                Some((
                    text(header, &["name"]).parse().ok()?,
                    text(header, &["value"]).parse().ok()?,
                ))
            });
            Question::Http {
                port,
                uri,
                headers: headers.collect(),
            }
        } else {
            Question::Tcp { port }
        };
        let seconds = |field: &str, least: i64| {
            let value = number(spec, &[field]).unwrap_or(least).max(least);
            Duration::from_secs(u64::try_from(value).unwrap_or(0))
        };
        Ok(Some(Self {
            kind,
            question,
            initial_delay: seconds("initialDelaySeconds", 0),
            period: seconds("periodSeconds", 1),
            timeout: seconds("timeoutSeconds", 1),
            success: number(spec, &["successThreshold"]).unwrap_or(1).max(1),
            failure: number(spec, &["failureThreshold"]).unwrap_or(3).max(1),
        }))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Asks until the receiver is gone.
    pub(crate) async fn run(self, reports: mpsc::Sender<Report>) {
        sleep(self.initial_delay).await;
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        let started = Instant::now();
        let (mut tally, mut last_bad, mut eager) = (Tally::new(&self), None::<Instant>, EAGER_FIRST);
        loop {
            let answer = self.ask(&client).await;
            let verdict = tally.count(answer.is_ok());
            if let Err(Bad { message, is_closed }) = answer
                && !(is_closed && started.elapsed() < SILENT_FOR)
                && last_bad.is_none_or(|last| last.elapsed() >= self.period)
            {
                last_bad = Some(Instant::now());
                if reports
                    .send(Report::Bad {
                        kind: self.kind,
                        message,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            if let Some(good) = verdict
                && reports
                    .send(Report::Verdict {
                        kind: self.kind,
                        good,
                    })
                    .await
                    .is_err()
            {
                return;
            }
            if self.kind == Kind::Startup && verdict.is_some() {
                return;
            }
            // Only a container that waits for its first success is probed eagerly: then a failure has no consequence,
            // except that a startup probe's failures count; so these keep their period.
            if self.kind == Kind::Readiness && !tally.ever_good && started.elapsed() < EAGER_FOR {
                sleep(eager).await;
                eager = (eager * 2).min(EAGER);
            } else {
                sleep(self.period).await;
            }
        }
    }

    async fn ask(&self, client: &Client<HttpConnector, Full<Bytes>>) -> Result<(), Bad> {
        let bad = |message: String| {
            Err(Bad {
                message,
                is_closed: false,
            })
        };
        match &self.question {
            Question::Tcp { port } => {
                match timeout(self.timeout, TcpStream::connect((Ipv4Addr::LOCALHOST, *port))).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(Bad {
                        message: format!("dial tcp 127.0.0.1:{port}: {error}"),
                        is_closed: true,
                    }),
                    Err(_) => bad(format!("dial tcp 127.0.0.1:{port}: i/o timeout")),
                }
            }
            Question::Http { port, uri, headers } => {
                let mut request = Request::new(Full::new(Bytes::new()));
                *request.uri_mut() = uri.clone();
                request
                    .headers_mut()
                    .insert("user-agent", HeaderValue::from_static("kube-probe/1.33"));
                request
                    .headers_mut()
                    .insert("accept", HeaderValue::from_static("*/*"));
                for (name, value) in headers {
                    request.headers_mut().insert(name.clone(), value.clone());
                }
                match timeout(self.timeout, client.request(request)).await {
                    Ok(Ok(response)) if response.status().as_u16() < 400 => Ok(()),
                    Ok(Ok(response)) => bad(format!(
                        "HTTP probe failed with statuscode: {}",
                        response.status().as_u16()
                    )),
                    Ok(Err(error)) => {
                        let message =
                            format!("Get \"{uri}\": dial tcp 127.0.0.1:{port}: {}", root_cause(&error));
                        Err(Bad {
                            message,
                            is_closed: error.is_connect(),
                        })
                    }
                    Err(_) => bad(format!(
                        "Get \"{uri}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    )),
                }
            }
        }
    }
}

/// A failure, or no answer.
struct Bad {
    message: String,
    /// Nothing listens on the port.
    is_closed: bool,
}

/// The root cause of an error: "connection refused" rather than "client error".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Counts answers against the thresholds.
#[derive(Debug)]
struct Tally {
    success: i64,
    failure: i64,
    /// Answers of the same kind in a row: positive are successes.
    run: i64,
    verdict: Option<bool>,
    ever_good: bool,
}

impl Tally {
    fn new(probe: &Probe) -> Self {
        Self {
            success: probe.success,
            failure: probe.failure,
            run: 0,
            verdict: None,
            ever_good: false,
        }
    }

    /// The new verdict, if this answer changes it.
    fn count(&mut self, good: bool) -> Option<bool> {
        self.run = match (good, self.run) {
            (true, run) => run.max(0) + 1,
            (false, run) => run.min(0) - 1,
        };
        let crossed = if good {
            self.run >= self.success
        } else {
            -self.run >= self.failure
        };
        if !crossed || self.verdict == Some(good) {
            return None;
        }
        self.verdict = Some(good);
        self.ever_good |= good;
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_change_at_the_thresholds() {
        let mut tally = Tally {
            success: 2,
            failure: 3,
            run: 0,
            verdict: None,
            ever_good: false,
        };
        let answers = [
            true, true, true, false, false, true, false, false, false, false, true, true,
        ];
        let verdicts: Vec<Option<bool>> = answers.into_iter().map(|good| tally.count(good)).collect();
        let expected = [
            None,
            Some(true),
            None,
            None,
            None,
            None,
            None,
            None,
            Some(false),
            None,
            None,
            Some(true),
        ];
        assert_eq!(verdicts, expected);
    }
}
