//! Bake: watching metrics for a while after a rollout, before it counts as good.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_check::{Fault, Faults};
use slipway_model::{Name, duration};

use crate::promql;

/// A shorter time would be load without new values: Prometheus scrapes every few seconds at best.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// The default, unless the bake is shorter.
const INTERVAL: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const MAX_METRICS: usize = 20;
/// For all metrics together: each is recorded with the deployment.
const MAX_MEASUREMENTS: u128 = 5000;

/// How long a version is watched, and by which metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Bake {
    /// From the last passed check to the end of the watch. The pods stay watched too.
    #[serde(rename = "for", with = "duration")]
    pub period: Duration,
    /// Between measurements. If omitted, 30 s, or the whole time of a shorter bake.
    #[serde(with = "duration")]
    pub interval: Duration,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// As written, which may leave out what depends on the rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "for", with = "duration")]
    period: Duration,
    #[serde(default, with = "duration::option")]
    interval: Option<Duration>,
    #[serde(default)]
    metrics: Vec<Metric>,
}

impl From<Written> for Bake {
    fn from(written: Written) -> Self {
        let Written {
            period,
            interval,
            metrics,
        } = written;
        Self {
            interval: interval.unwrap_or_else(|| period.min(INTERVAL)),
            period,
            metrics,
        }
    }
}

/// One Prometheus query with its thresholds. Without data it fails closed: inconclusive is not success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    pub name: Name,
    /// Name of a Prometheus in this service's configuration; if omitted, the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Name>,
    /// PromQL with one number as its result; `{{service}}`, `{{environment}}`, `{{namespace}}`, `{{target}}` and
    /// `{{window}}` (the time since the rollout, at most the bake's) are filled in.
    pub query: String,
    /// The smallest good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// How many measurements may be bad before the metric has failed.
    #[serde(default)]
    pub failure_limit: u32,
    /// How many may be without a value (no data, not a number, no answer) before the metric is inconclusive. In total,
    /// not in a row: for a long bake allow for a Prometheus that is unreachable for a while.
    #[serde(default = "three")]
    pub inconclusive_limit: u32,
}

impl Bake {
    /// What is wrong with it, with paths relative to `bake`, such as `metrics[0].query`.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        faults.require(
            (LEAST_INTERVAL..=LONGEST).contains(&self.period),
            "for",
            "must be at least 1s and at most 24h",
        );
        // If the time itself is wrong, the interval cannot be judged.
        faults.require(
            self.period < LEAST_INTERVAL || (LEAST_INTERVAL..=self.period).contains(&self.interval),
            "interval",
            "must be at least 1s and at most the whole time of the bake",
        );
        faults.require(
            self.metrics.len() <= MAX_METRICS,
            "metrics",
            "name at most 20 metrics",
        );
        let rounds = self.period.as_millis() / self.interval.as_millis().max(1);
        faults.require(
            rounds.saturating_mul(self.metrics.len() as u128) <= MAX_MEASUREMENTS,
            "interval",
            "makes more than 5000 measurements of all metrics together: measure less often",
        );
        for (index, metric) in self.metrics.iter().enumerate() {
            let twice = self.metrics[..index]
                .iter()
                .any(|other| other.name == metric.name);
            let at = |path: &str| format!("metrics[{index}].{path}");
            faults.require(!twice, at("name"), "is already used: names must be unique");
            for fault in metric.check() {
                faults.add(at(&fault.path), fault.message);
            }
        }
        faults.into_vec()
    }
}

impl Metric {
    /// What is wrong with it, with paths relative to the metric.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        faults.accept("query", promql::check(&self.query));
        let finite = [self.min, self.max].into_iter().flatten().all(f64::is_finite);
        faults.require(
            self.min.is_some() || self.max.is_some(),
            "",
            "give min or max, or both: without them no value is good",
        );
        faults.require(finite, "", "min and max must be numbers");
        let ordered = self.min.zip(self.max).is_none_or(|(min, max)| min <= max);
        faults.require(ordered, "min", "must not be greater than max");
        faults.into_vec()
    }

    /// The Prometheus server to ask: the one that it names or, without a name, the only one there is.
    ///
    /// # Errors
    /// A message with the names of the configured servers.
    pub fn server<'a>(&self, configured: impl Iterator<Item = &'a Name>) -> Result<&'a Name, String> {
        let configured: Vec<&Name> = configured.collect();
        let there_are = || {
            let names: Vec<&str> = configured.iter().map(|name| name.as_str()).collect();
            match names.is_empty() {
                true => "there are none".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            }
        };
        match (&self.prometheus, configured.as_slice()) {
            (Some(name), _) => configured
                .iter()
                .copied()
                .find(|one| *one == name)
                .ok_or_else(|| {
                    format!(
                        "no prometheus {name} in this service's configuration; {}",
                        there_are()
                    )
                }),
            (None, &[only]) => Ok(only),
            (None, _) => Err(format!(
                "the metric must name a prometheus of this service's configuration; {}",
                there_are()
            )),
        }
    }
}

const fn three() -> u32 {
    3
}

#[cfg(test)]
mod tests {
    use super::{Bake, Metric, Name};

    fn bake(text: &str) -> Bake {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_short_bake_measures_at_its_end() {
        for (text, seconds) in [
            (r#"{"for": "10s"}"#, 10),
            (r#"{"for": "30s"}"#, 30),
            (r#"{"for": "10m"}"#, 30),
            (r#"{"for": "10m", "interval": "1m"}"#, 60),
        ] {
            let bake = bake(text);
            assert_eq!(bake.interval.as_secs(), seconds, "{text}");
            let stored = serde_json::to_string(&bake).unwrap();
            assert_eq!(super::tests::bake(&stored), bake, "{stored}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        for (text, faults) in [
            (r#"{"for": "10m"}"#, vec![]),
            (
                r#"{"for": "10m", "metrics": [{"name": "e", "query": "vector(1)", "max": 1}]}"#,
                vec![],
            ),
            (r#"{"for": "0s"}"#, vec!["for: must be at least 1s"]),
            (r#"{"for": "500ms"}"#, vec!["for: must be at least 1s"]),
            (r#"{"for": "10s"}"#, vec![]),
            (
                r#"{"for": "25h"}"#,
                vec!["for: must be at least 1s and at most 24h"],
            ),
            (
                r#"{"for": "10m", "interval": "500ms"}"#,
                vec!["interval: must be at least"],
            ),
            (
                r#"{"for": "10s", "interval": "11s"}"#,
                vec!["interval: must be at least"],
            ),
            (
                r#"{"for": "24h", "interval": "10s", "metrics": [{"name": "e", "query": "x", "max": 1}]}"#,
                vec!["interval: makes more than 5000"],
            ),
            (
                r#"{"for": "10m", "metrics": [
                    {"name": "e", "query": "up{a=\"{{pod}}\"}", "max": 1},
                    {"name": "e", "query": "x", "min": 2, "max": 1},
                    {"name": "f", "query": "{{service}}"}
                ]}"#,
                vec![
                    "metrics[0].query: {{pod}} is not a placeholder",
                    "metrics[1].name: is already used",
                    "metrics[1].min: must not be greater",
                    "metrics[2].query: write {{service}} within quotes",
                    "metrics[2].: give min or max",
                ],
            ),
        ] {
            let found: Vec<String> = bake(text).check().iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), faults.len(), "{text}: {found:?}");
            for (found, words) in found.iter().zip(faults) {
                assert!(found.starts_with(words), "{found}, not {words}");
            }
        }
    }

    #[test]
    fn servers_are_found_by_name_or_alone() {
        let names: Vec<Name> = ["far", "main"].map(|name| name.parse().unwrap()).to_vec();
        let metric = |prometheus: Option<&str>| Metric {
            prometheus: prometheus.map(|name| name.parse().unwrap()),
            ..bake(r#"{"for": "10m", "metrics": [{"name": "e", "query": "x", "max": 1}]}"#).metrics[0].clone()
        };
        let server = |prometheus: Option<&str>, names: &[Name]| {
            let server = metric(prometheus).server(names.iter());
            server.map(ToString::to_string)
        };
        assert_eq!(server(Some("main"), &names), Ok("main".to_owned()));
        assert_eq!(server(None, &names[..1]), Ok("far".to_owned()));
        for (prometheus, names, words) in [
            (None, &names[..], "there are: far, main"),
            (None, &[], "there are none"),
            (
                Some("other"),
                &names,
                "no prometheus other in this service's configuration; there are: far, main",
            ),
        ] {
            let error = server(prometheus, names).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
