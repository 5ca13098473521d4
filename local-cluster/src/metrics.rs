//! The counts of `GET /metrics`, under the names that a real API server uses.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The labels of one series: names and values.
type Labels = Vec<(&'static str, String)>;

/// What a request is about, as shown in the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Such as `LIST`, `WATCH` or `APPLY`.
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// `cluster`, `namespace` or `resource`; empty for paths that are not resources.
    pub(crate) scope: &'static str,
}

impl Subject {
    /// In the order of their names, as the real server writes them.
    fn labels(&self, code: Option<u16>) -> Labels {
        let mut labels = vec![
            ("component", "apiserver".to_owned()),
            ("group", self.group.clone()),
            ("resource", self.resource.clone()),
            ("scope", self.scope.to_owned()),
            ("subresource", self.subresource.clone()),
            ("verb", self.verb.to_owned()),
            ("version", self.version.clone()),
        ];
        if let Some(code) = code {
            labels.insert(0, ("code", code.to_string()));
        }
        labels
    }
}

/// The counts of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    long_running: Mutex<BTreeMap<Labels, u64>>,
    requests: Mutex<BTreeMap<Labels, u64>>,
}

fn lock(counts: &Mutex<BTreeMap<Labels, u64>>) -> MutexGuard<'_, BTreeMap<Labels, u64>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn answered(&self, subject: &Subject, code: u16) {
        *lock(&self.requests)
            .entry(subject.labels(Some(code)))
            .or_default() += 1;
    }

    /// Counts a request as running until the returned value is dropped.
    pub(crate) fn running(self: &Arc<Self>, subject: &Subject) -> Running {
        let labels = subject.labels(None);
        *lock(&self.long_running).entry(labels.clone()).or_default() += 1;
        Running {
            metrics: Arc::clone(self),
            labels,
        }
    }

    /// The text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let tables = [
            (
                "apiserver_longrunning_requests",
                "gauge",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                &self.long_running,
            ),
            (
                "apiserver_request_total",
                "counter",
                "Counter of apiserver requests broken out for each verb, group, version, resource, scope, component, and HTTP response code.",
                &self.requests,
            ),
        ];
        for (name, kind, help, counts) in tables {
            text.push_str(&format!("# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n"));
            for (labels, count) in lock(counts).iter() {
                let labels: Vec<String> = labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value:?}"))
                    .collect();
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name}{{{}}} {count}", labels.join(","));
            }
        }
        text
    }
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.metrics.long_running).get_mut(&self.labels) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_requests_are_counted_until_they_end() {
        let metrics = Arc::new(Metrics::default());
        let subject = Subject {
            verb: "WATCH",
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            resource: "deployments".to_owned(),
            subresource: String::new(),
            scope: "cluster",
        };
        let line = |count: u64| {
            format!(
                "apiserver_longrunning_requests{{component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"}} {count}\n"
            )
        };
        let (one, two) = (metrics.running(&subject), metrics.running(&subject));
        assert!(metrics.text().contains(&line(2)), "{}", metrics.text());
        drop(one);
        assert!(metrics.text().contains(&line(1)));
        drop(two);
        assert!(metrics.text().contains(&line(0)));
        metrics.answered(&subject, 200);
        metrics.answered(&subject, 200);
        assert!(
            metrics
                .text()
                .contains("apiserver_request_total{code=\"200\",component=\"apiserver\",group=\"apps\"")
        );
        assert!(metrics.text().ends_with(" 2\n"));
    }
}
