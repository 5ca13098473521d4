//! Log lines on standard error: one JSON object each, or text for people.

use std::{
    fmt,
    io::{IsTerminal, Stderr, stderr},
    sync::Arc,
};

use opentelemetry::{Context, trace::TraceContextExt};
use serde::{
    Deserialize,
    ser::{SerializeMap, Serializer},
};
use serde_json::Value;
use slipway_model::Timestamp;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::LookupSpan,
};

use crate::ServiceScope;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line: `timestamp`, `level`, `target`, `service.name`, `message`, `trace_id` and `span_id` of the
    /// current span, the event's own fields, and `spans` with theirs from the outermost in.
    #[default]
    Json,
    /// For people.
    Text,
}

pub(crate) fn layer<S>(format: LogFormat, service: &str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines: fn() -> Stderr = stderr;
    match format {
        LogFormat::Json => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(lines)
                .fmt_fields(JsonFields::new())
                .event_format(JsonLines {
                    service: service.into(),
                }),
        ),
        LogFormat::Text => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(lines)
                .with_ansi(stderr().is_terminal()),
        ),
    }
}

/// Writes JSON lines. tracing-subscriber's own formatter does not know trace ids.
pub(crate) struct JsonLines {
    pub(crate) service: Arc<str>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans: Vec<Value> = ctx
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
            .map(|span| {
                let extensions = span.extensions();
                let formatted = extensions.get::<FormattedFields<N>>();
                let mut value = formatted
                    .and_then(|fields| serde_json::from_str(&fields.fields).ok())
                    .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                value["name"] = span.name().into();
                value
            })
            .collect();

        let mut line = Vec::with_capacity(256);
        let write = |line: &mut Vec<u8>| -> Result<(), serde_json::Error> {
            let mut serializer = serde_json::Serializer::new(line);
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("timestamp", &Timestamp::now())?;
            map.serialize_entry("level", event.metadata().level().as_str())?;
            map.serialize_entry("target", event.metadata().target())?;
            // Entering a span makes its OpenTelemetry context the current one.
            Context::map_current(|context| {
                let service = context
                    .get::<ServiceScope>()
                    .map_or(&self.service, |scope| &scope.0);
                map.serialize_entry("service.name", &**service)?;
                map.serialize_entry("message", &fields.message)?;
                let span = context.span().span_context().clone();
                if span.is_valid() {
                    map.serialize_entry("trace_id", &span.trace_id().to_string())?;
                    map.serialize_entry("span_id", &span.span_id().to_string())?;
                }
                Ok::<(), serde_json::Error>(())
            })?;
            for (name, value) in &fields.others {
                match *name {
                    // Ours stay ours.
                    "timestamp" | "level" | "target" | "service.name" | "trace_id" | "span_id" | "spans" => {
                        map.serialize_entry(&format!("field.{name}"), value)?;
                    }
                    name => map.serialize_entry(name, value)?,
                }
            }
            if !spans.is_empty() {
                map.serialize_entry("spans", &spans)?;
            }
            map.end()
        };
        write(&mut line).map_err(|_| fmt::Error)?;
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)?;
        writer.write_char('\n')
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Value::String(value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use slipway_model::{Timestamp, TraceContext};
    use tracing::{dispatcher, info, info_span, warn};
    use tracing_subscriber::{
        Layer,
        filter::LevelFilter,
        fmt::{MakeWriter, format::JsonFields},
        layer::SubscriberExt,
        registry::Registry,
    };

    use super::JsonLines;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn read(&self) -> Vec<Value> {
            let bytes = self.0.lock().unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The process's layers, except that lines go to memory.
    fn logging(run: impl FnOnce(&crate::Service, TraceContext)) -> Vec<Value> {
        use opentelemetry::trace::TracerProvider as _;
        let lines = Lines::default();
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(lines.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines {
                service: "slipway".into(),
            });
        let subscriber = Registry::default()
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
            .with(layer.with_filter(LevelFilter::INFO));
        let service = crate::Service::disabled("build-svc");
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let dispatch = tracing::Dispatch::new(subscriber);
        dispatcher::with_default(&dispatch, || run(&service, parent.parse().unwrap()));
        lines.read()
    }

    #[test]
    fn a_line_has_the_trace_and_the_service_of_its_span() {
        let lines = logging(|service, parent| {
            let span = info_span!("fetch", repository = "app", attempt = 2);
            service.adopt(&span, Some(parent));
            let _entered = span.enter();
            info!(commit = "1a2b3c4", bytes = 10_u64, "fetched");
        });
        let line = &lines[0];
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "fetched");
        assert_eq!(line["service.name"], "build-svc");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
        assert_ne!(
            line["span_id"], "b7ad6b7169203331",
            "its own span's, not the caller's"
        );
        assert_eq!(line["commit"], "1a2b3c4");
        assert_eq!(line["bytes"], 10);
        assert_eq!(
            line["spans"],
            json!([{ "name": "fetch", "repository": "app", "attempt": 2 }])
        );
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[test]
    fn outside_of_spans_there_is_no_trace_and_hostile_text_stays_inside_its_field() {
        let lines = logging(|_, _| {
            warn!(error = "a\n{\"level\":\"FAKE\"}", level = "mine", "line\nbreak");
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["field.level"], "mine");
        assert_eq!(line["message"], "line\nbreak");
        assert_eq!(line["error"], "a\n{\"level\":\"FAKE\"}");
        assert_eq!(line["service.name"], "slipway");
        assert!(line.get("trace_id").is_none() && line.get("spans").is_none());
    }
}
