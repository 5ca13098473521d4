//! Asks Prometheus for one number (`POST /api/v1/query`,
//! <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>). Whatever does not give exactly one is
//! an error in words: no data, several series, an error, a warning that the answer may be incomplete.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use http::{Request, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use slipway_check::{Remote, web_url};
use slipway_model::{Name, duration};
use slipway_verdict::{cut, evidence::redact};
use url::form_urlencoded;

use crate::{
    dial::Dialer,
    web::{Server, exchange},
};

/// A response with one number has a few hundred bytes; anything longer than this is not read.
const MAX_ANSWER: usize = 1024 * 1024;
/// A token file is at most this long, in bytes.
const MAX_TOKEN: u64 = 16 * 1024;

/// One entry of `prometheus:` in the configuration of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusConfig {
    /// `https://host:port`, with a path where it is not served from `/`; `http://` too.
    pub url: String,
    /// A file that contains a bearer token and nothing else; read for each query, since such tokens are renewed.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// PEM authorities to trust in addition to the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// For one query.
    #[serde(default = "ten_seconds", with = "duration")]
    pub timeout: Duration,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// Why a Prometheus server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct PrometheusConfigError {
    /// The key of the configuration, such as `prometheus.main.url`.
    pub key: String,
    pub message: String,
}

/// The configured Prometheus servers by name. Cheap to clone; opening connects to none of them.
#[derive(Debug, Clone, Default)]
pub struct Prometheuses(Arc<BTreeMap<Name, Prometheus>>);

/// One server.
#[derive(Debug, Clone)]
struct Prometheus {
    /// The name that the catalog's metrics use.
    name: Name,
    config: PrometheusConfig,
    remote: Remote,
    tls: bool,
    /// Of the query API.
    path: String,
}

impl Prometheuses {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`PrometheusConfigError`], which names the key.
    pub fn open(configs: &BTreeMap<Name, PrometheusConfig>) -> Result<Self, PrometheusConfigError> {
        let mut servers = BTreeMap::new();
        for (name, config) in configs {
            let invalid = |field: &str, message: String| PrometheusConfigError {
                key: format!("prometheus.{name}.{field}"),
                message,
            };
            let (url, tls) = web_url(&config.url).map_err(|message| invalid("url", message))?;
            if url.query().is_some() || url.fragment().is_some() {
                let message = "must have no query and no fragment";
                return Err(invalid("url", message.to_owned()));
            }
            if config.timeout.is_zero() || config.timeout > Duration::from_secs(120) {
                let message = "must be more than 0 s and at most 120 s";
                return Err(invalid("timeout", message.to_owned()));
            }
            let server = Prometheus {
                remote: Remote::of(&url).map_err(|message| invalid("url", message))?,
                tls,
                path: format!("{}/api/v1/query", url.path().trim_end_matches('/')),
                name: name.clone(),
                config: config.clone(),
            };
            servers.insert(name.clone(), server);
        }
        Ok(Self(Arc::new(servers)))
    }

    /// The names of the servers.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// Lets the server of this name evaluate an expression now.
    ///
    /// # Errors
    /// Why there is no number, in words.
    pub async fn query(&self, server: &Name, expression: &str) -> Result<f64, String> {
        match self.0.get(server) {
            Some(server) => server.query(expression).await,
            None => Err(format!("no prometheus {server} in this service's configuration")),
        }
    }
}

impl Prometheus {
    async fn query(&self, expression: &str) -> Result<f64, String> {
        let away = |words: String| format!("prometheus {}: {}", self.name, cut(&redact(&words)));
        let seconds = self.config.timeout.as_secs_f64();
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expression)
            .append_pair("timeout", &format!("{seconds}s"))
            .finish();
        let mut request = Request::post(&self.path)
            .header(header::HOST, self.remote.to_string())
            .header(header::USER_AGENT, "slipway")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::CONNECTION, "close");
        if let Some(path) = &self.config.bearer_token_file {
            let token = token(path).await.map_err(away)?;
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request
            .body(Full::from(form))
            .map_err(|error| away(error.to_string()))?;
        let server = Server {
            remote: &self.remote,
            tls: self.tls,
            ca_file: self.config.ca_file.as_deref(),
        };
        // Its address comes from this service's own configuration, so that callers cannot choose it.
        let answer = exchange(&Dialer::Free, server, request, MAX_ANSWER, self.config.timeout)
            .await
            .map_err(|error| away(error.into_error()))?;
        read(answer.status, &answer.body, answer.whole).map_err(away)
    }
}

async fn token(path: &PathBuf) -> Result<header::HeaderValue, String> {
    use tokio::io::AsyncReadExt;
    let wrong = |words: String| format!("bearer_token_file {}: {words}", path.display());
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    let read = file.take(MAX_TOKEN).read_to_string(&mut text).await;
    read.map_err(|error| wrong(error.to_string()))?;
    let mut value = header::HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| wrong("contains characters that a header cannot contain".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    #[serde(default)]
    data: Data,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Data {
    #[serde(default)]
    result_type: String,
    #[serde(default)]
    result: Value,
}

/// The one number of an answer.
fn read(status: u16, body: &[u8], whole: bool) -> Result<f64, String> {
    if !whole {
        return Err(
            "the answer is longer than 1 MiB, or broke off: the query must give one number".to_owned(),
        );
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        let text = String::from_utf8_lossy(body);
        let beginning: String = redact(text.trim()).chars().take(200).collect();
        return Err(format!("answered {status} {beginning:?}"));
    };
    if answer.status != "success" {
        return Err(format!("{}: {} ({status})", answer.error_type, answer.error));
    }
    // Before version 3, notes that say nothing about the data came as warnings too.
    if let Some(warning) = answer
        .warnings
        .iter()
        .find(|text| !text.starts_with("PromQL info"))
    {
        return Err(format!("it warns, so that the number may be wrong: {warning}"));
    }
    let result = &answer.data.result;
    match answer.data.result_type.as_str() {
        "scalar" => number(result),
        "vector" => match result.as_array().map(Vec::as_slice) {
            None | Some([]) => Err("no data".to_owned()),
            Some([one]) if one["value"].is_array() => number(&one["value"]),
            Some([_]) => Err("the query gives a histogram, not a number: take a quantile of it".to_owned()),
            Some(several) => Err(format!(
                "the query gives {} series, such as {} and {}: aggregate them to one",
                several.len(),
                several[0]["metric"],
                several[1]["metric"]
            )),
        },
        other => Err(format!("the query gives a {other}, not a number")),
    }
}

/// Of a sample, `[time, "value"]`.
fn number(sample: &Value) -> Result<f64, String> {
    let text = sample[1].as_str().unwrap_or_default();
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("the value is {text}")),
        Err(_) => Err(format!("the value {text:?} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Name, PrometheusConfig, Prometheuses, read};

    #[test]
    fn one_number_is_a_value_and_nothing_else_is() {
        let vector = |samples: &str| {
            format!(r#"{{"status": "success", "data": {{"resultType": "vector", "result": [{samples}]}}}}"#)
        };
        let sample = |name: &str, value: &str| {
            format!(r#"{{"metric": {{"pod": "{name}"}}, "value": [1.5, "{value}"]}}"#)
        };
        for (status, body, expected) in [
            (200, vector(&sample("a", "0.25")), Ok(0.25)),
            (
                200,
                r#"{"status": "success", "data": {"resultType": "scalar", "result": [1, "3"]}}"#.to_owned(),
                Ok(3.0),
            ),
            (200, vector(""), Err("no data")),
            (200, vector(&sample("a", "NaN")), Err("the value is NaN")),
            (200, vector(&sample("a", "+Inf")), Err("the value is +Inf")),
            (200, vector(&sample("a", "-Inf")), Err("the value is -Inf")),
            (200, vector(&sample("a", "")), Err("is not a number")),
            (
                200,
                vector(&[sample("a", "1"), sample("b", "2")].join(",")),
                Err(r#"gives 2 series, such as {"pod":"a"} and {"pod":"b"}"#),
            ),
            (
                200,
                vector(r#"{"metric": {}, "histogram": [1, {}]}"#),
                Err("a histogram"),
            ),
            (
                200,
                r#"{"status": "success", "data": {"resultType": "matrix", "result": []}}"#.to_owned(),
                Err("gives a matrix"),
            ),
            (
                200,
                r#"{"status": "success", "data": {"resultType": "string", "result": [1, "1"]}}"#.to_owned(),
                Err("gives a string"),
            ),
            (
                400,
                r#"{"status": "error", "errorType": "bad_data", "error": "parse error"}"#.to_owned(),
                Err("bad_data: parse error (400)"),
            ),
            (
                502,
                "<html>Bad Gateway</html>".to_owned(),
                Err(r#"answered 502 "<html>Bad Gateway</html>""#),
            ),
            (200, String::new(), Err("answered 200")),
            (
                200,
                vector(&sample("a", "1")).replacen('{', r#"{"warnings": ["store unreachable"], "#, 1),
                Err("it warns, so that the number may be wrong: store unreachable"),
            ),
            (
                200,
                vector(&sample("a", "1")).replacen(
                    '{',
                    r#"{"warnings": ["PromQL info: not a counter"], "#,
                    1,
                ),
                Ok(1.0),
            ),
        ] {
            match (read(status, body.as_bytes(), true), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value.to_bits(), f64::to_bits(expected), "{body}"),
                (Err(words), Err(expected)) => assert!(words.contains(expected), "{body}: {words}"),
                (found, expected) => panic!("{body}: {found:?}, not {expected:?}"),
            }
        }
        assert!(read(200, b"{", false).unwrap_err().contains("longer than 1 MiB"));
    }

    fn open(configs: &str) -> Result<Prometheuses, String> {
        let configs: BTreeMap<Name, PrometheusConfig> =
            serde_json::from_str(configs).map_err(|error| error.to_string())?;
        Prometheuses::open(&configs).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_may_have_a_path_and_nothing_else() {
        let both =
            open(r#"{"main": {"url": "http://p:9090/"}, "far": {"url": "https://far.example/prometheus"}}"#)
                .unwrap();
        let names: Vec<&str> = both.names().map(Name::as_str).collect();
        assert_eq!(names, ["far", "main"]);
        let of = |name: &str| &both.0[&name.parse::<Name>().unwrap()];
        assert_eq!(of("main").path, "/api/v1/query");
        assert_eq!(of("main").remote.to_string(), "p:9090");
        assert_eq!(of("far").path, "/prometheus/api/v1/query");
        for (wrong, words) in [
            (
                r#"{"main": {"url": "ftp://p"}}"#,
                "prometheus.main.url: must begin with http",
            ),
            (
                r#"{"main": {"url": "http://a:b@p"}}"#,
                "prometheus.main.url: must not contain a user",
            ),
            (
                r#"{"main": {"url": "http://p?x=y"}}"#,
                "prometheus.main.url: must have no query",
            ),
            (
                r#"{"main": {"url": "http://p", "timeout": "0s"}}"#,
                "prometheus.main.timeout",
            ),
            (
                r#"{"main": {"url": "http://p", "token": "x"}}"#,
                "unknown field `token`",
            ),
        ] {
            let error = open(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}
