//! The envelope of an event: CloudEvents 1.0 (<https://github.com/cloudevents/spec>), attributes and extensions.

mod event_type;

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use slipway_model::{Id, Name, Timestamp, TraceContext};

pub use event_type::type_name;
use event_type::{check_event_type, event_type_of, is_word};

/// The data of one event is JSON of at most this many bytes.
pub const MAX_DATA_BYTES: usize = 256 * 1024;

/// Correlation ids are at most this many bytes: they are ids, possibly with a prefix.
const MAX_CORRELATION_BYTES: usize = 256;

/// CloudEvents' `specversion`.
const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";
const SOURCE_PREFIX: &str = "/slipway/";

/// One thing that has happened to one aggregate: immutable, and well-formed by construction.
///
/// | attribute | value |
/// |---|---|
/// | `specversion` | `1.0` |
/// | `id` | `<kind>/<id>/<seq>`: the same however often it is published |
/// | `source` | `/slipway/<origin>` |
/// | `type` | `dev.slipway.<kind>.<name>.v<N>`: see [`type_name`] |
/// | `subject` | `<kind>/<id>` |
/// | `time` | when it was recorded, RFC 3339 in UTC |
/// | `datacontenttype` | `application/json` |
/// | `traceparent` | W3C trace context, when there is one (CloudEvents' distributed tracing extension) |
/// | `correlationid` | what the aggregate was started for, opaque here; left out when empty |
/// | `sequence` | per aggregate, from 1 without gaps; 20 digits, since CloudEvents' sequence extension wants a text that sorts |
/// | `service`, `environment` | what it is about; left out when empty |
/// | `data` | JSON |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    origin: Name,
    kind: String,
    id: Id,
    seq: u64,
    event_type: String,
    time: Timestamp,
    traceparent: Option<TraceContext>,
    correlation: String,
    service: Option<Name>,
    environment: Option<Name>,
    data: String,
}

/// Which attribute is wrong, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("event: {field} is missing")]
    Missing { field: &'static str },
    #[error("event: {field} {value:?} is not valid: {rule}")]
    Invalid {
        field: &'static str,
        value: String,
        rule: String,
    },
    #[error("event: {field} has {bytes} bytes, {max} are allowed")]
    TooLong {
        field: &'static str,
        bytes: usize,
        max: usize,
    },
    #[error("event: {field:?} is not a field of an event")]
    Unknown { field: String },
    #[error("event: field {field} is repeated")]
    Twice { field: &'static str },
    #[error("event: not CloudEvents JSON: {0}")]
    Json(String),
}

impl EnvelopeError {
    fn invalid(field: &'static str, value: &str, rule: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            value: value.chars().take(120).collect(),
            rule: rule.into(),
        }
    }
}

/// Collects the parts of an [`Envelope`]; [`EnvelopeBuilder::build`] checks them.
#[derive(Debug, Clone)]
#[must_use]
pub struct EnvelopeBuilder {
    origin: String,
    kind: String,
    id: Id,
    seq: u64,
    event_type: String,
    time: Timestamp,
    traceparent: Option<TraceContext>,
    correlation: String,
    service: String,
    environment: String,
    data: String,
}

impl EnvelopeBuilder {
    /// The event's own type: its name in snake case, such as `succeeded`, and from the second version of its form on
    /// the version number, such as `succeeded.v2`.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = event_type.into();
        self
    }

    /// When it was recorded.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// The span in which it happened.
    pub fn traceparent(mut self, traceparent: Option<TraceContext>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// What the aggregate was started for; empty for none.
    pub fn correlation(mut self, correlation: impl Into<String>) -> Self {
        self.correlation = correlation.into();
        self
    }

    /// The service it is about; empty for none.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// The environment it is about; empty for none.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = environment.into();
        self
    }

    /// The event itself, as JSON text.
    pub fn data(mut self, json: impl Into<String>) -> Self {
        self.data = json.into();
        self
    }

    /// Checks every part; an error names the attribute.
    pub fn build(self) -> Result<Envelope, EnvelopeError> {
        let name = |field, text: String| {
            text.parse::<Name>()
                .map_err(|error| EnvelopeError::invalid(field, &text, error.rule))
        };
        let optional = |field, text: String| {
            if text.is_empty() {
                Ok(None)
            } else {
                name(field, text).map(Some)
            }
        };
        check_word("kind", &self.kind)?;
        check_event_type(&self.event_type)?;
        if self.seq == 0 {
            return Err(EnvelopeError::invalid("sequence", "0", "it counts from 1"));
        }
        if self.correlation.len() > MAX_CORRELATION_BYTES {
            return Err(EnvelopeError::TooLong {
                field: "correlationid",
                bytes: self.correlation.len(),
                max: MAX_CORRELATION_BYTES,
            });
        }
        if self.correlation.chars().any(char::is_control) {
            return Err(EnvelopeError::invalid(
                "correlationid",
                &self.correlation,
                "use no control characters",
            ));
        }
        if self.data.len() > MAX_DATA_BYTES {
            return Err(EnvelopeError::TooLong {
                field: "data",
                bytes: self.data.len(),
                max: MAX_DATA_BYTES,
            });
        }
        serde_json::from_str::<IgnoredAny>(&self.data)
            .map_err(|error| EnvelopeError::invalid("data", &self.data, format!("not JSON: {error}")))?;
        Ok(Envelope {
            origin: name("source", self.origin)?,
            kind: self.kind,
            id: self.id,
            seq: self.seq,
            event_type: self.event_type,
            time: self.time,
            traceparent: self.traceparent,
            correlation: self.correlation,
            service: optional("service", self.service)?,
            environment: optional("environment", self.environment)?,
            data: self.data,
        })
    }
}

/// Kinds are one word.
fn check_word(field: &'static str, text: &str) -> Result<(), EnvelopeError> {
    if is_word(text) {
        Ok(())
    } else {
        Err(EnvelopeError::invalid(
            field,
            text,
            "use 1 to 64 of a-z, 0-9 and _, beginning with a letter",
        ))
    }
}

impl Envelope {
    /// Begins the envelope of the `seq`th event of the aggregate `kind`/`id`, produced by the service `origin`.
    /// Event type and time must follow; data is `{}` unless given.
    pub fn builder(origin: impl Into<String>, kind: impl Into<String>, id: Id, seq: u64) -> EnvelopeBuilder {
        EnvelopeBuilder {
            origin: origin.into(),
            kind: kind.into(),
            id,
            seq,
            event_type: String::new(),
            time: Timestamp::from_micros(0),
            traceparent: None,
            correlation: String::new(),
            service: String::new(),
            environment: String::new(),
            data: "{}".to_owned(),
        }
    }

    /// The service that produced it, such as `build`.
    pub fn origin(&self) -> &str {
        self.origin.as_str()
    }

    /// The kind of aggregate, such as `build` or `lane`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The aggregate's id within its kind.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The event's number within its aggregate, from 1.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The event's own type, such as `succeeded`, or `succeeded.v2` in the second version of its form.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// When it was recorded.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The span in which it happened.
    pub fn traceparent(&self) -> Option<TraceContext> {
        self.traceparent
    }

    /// What the aggregate was started for; empty for none.
    pub fn correlation(&self) -> &str {
        &self.correlation
    }

    /// The service it is about; empty for none.
    pub fn service(&self) -> &str {
        self.service.as_ref().map_or("", Name::as_str)
    }

    /// The environment it is about; empty for none.
    pub fn environment(&self) -> &str {
        self.environment.as_ref().map_or("", Name::as_str)
    }

    /// The event itself, as JSON text, byte for byte as it was recorded.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// CloudEvents' `id`: `<kind>/<id>/<seq>`.
    pub fn event_id(&self) -> String {
        format!("{}/{}/{}", self.kind, self.id, self.seq)
    }

    /// CloudEvents' `source`: `/slipway/<origin>`.
    pub fn source(&self) -> String {
        format!("{SOURCE_PREFIX}{}", self.origin)
    }

    /// CloudEvents' `type`: see [`type_name`].
    pub fn type_name(&self) -> String {
        type_name(&self.kind, &self.event_type)
    }

    /// CloudEvents' `subject`: `<kind>/<id>`.
    pub fn subject(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }

    /// Roughly how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        std::mem::size_of::<Self>() + self.data.len() + self.correlation.len() + self.id.as_str().len() + 128
    }

    /// The fields of a Redis stream entry, in the order of the table above.
    pub fn to_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("specversion", SPEC_VERSION.to_owned()),
            ("id", self.event_id()),
            ("source", self.source()),
            ("type", self.type_name()),
            ("subject", self.subject()),
            ("time", self.time.to_string()),
            ("datacontenttype", CONTENT_TYPE.to_owned()),
            ("sequence", format!("{:020}", self.seq)),
        ];
        if let Some(traceparent) = self.traceparent {
            fields.push(("traceparent", traceparent.to_string()));
        }
        for (field, value) in [
            ("correlationid", self.correlation()),
            ("service", self.service()),
            ("environment", self.environment()),
        ] {
            if !value.is_empty() {
                fields.push((field, value.to_owned()));
            }
        }
        fields.push(("data", self.data.clone()));
        fields
    }

    /// Reads the fields of a Redis stream entry. Strict: every attribute must be there, agree with the others, and be
    /// known; an error names the field.
    pub fn from_fields<K, V>(fields: impl IntoIterator<Item = (K, V)>) -> Result<Self, EnvelopeError>
    where
        K: AsRef<str>,
        V: Into<String>,
    {
        let mut raw = Attributes::default();
        for (name, value) in fields {
            let (field, slot) = raw.slot(name.as_ref())?;
            if slot.replace(value.into()).is_some() {
                return Err(EnvelopeError::Twice { field });
            }
        }
        let data = raw.data.take().ok_or(EnvelopeError::Missing { field: "data" })?;
        raw.into_envelope(data)
    }

    /// CloudEvents' JSON format, structured mode (`application/cloudevents+json`). The data stays byte for byte.
    pub fn to_json(&self) -> String {
        let mut raw = Attributes::default();
        for (name, value) in self.to_fields() {
            if name != "data"
                && let Ok((_, slot)) = raw.slot(name)
            {
                *slot = Some(value);
            }
        }
        // Maps of strings always serialise; the data was checked to be JSON when the envelope was built.
        let mut json = serde_json::to_string(&raw).unwrap_or_default();
        json.pop();
        json.push_str(",\"data\":");
        json.push_str(&self.data);
        json.push('}');
        json
    }

    /// Reads CloudEvents' JSON format, as strictly as [`Envelope::from_fields`].
    pub fn from_json(json: &str) -> Result<Self, EnvelopeError> {
        #[derive(Deserialize)]
        struct Structured<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
            #[serde(flatten)]
            attributes: std::collections::BTreeMap<String, String>,
        }
        let structured: Structured<'_> =
            serde_json::from_str(json).map_err(|error| EnvelopeError::Json(error.to_string()))?;
        let mut raw = Attributes::default();
        for (name, value) in structured.attributes {
            *raw.slot(&name)?.1 = Some(value);
        }
        raw.into_envelope(structured.data.get().to_owned())
    }
}

/// The attributes as text, before they are checked.
#[derive(Debug, Default, Serialize)]
struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    #[serde(skip)]
    data: Option<String>,
}

impl Attributes {
    fn slot(&mut self, name: &str) -> Result<(&'static str, &mut Option<String>), EnvelopeError> {
        Ok(match name {
            "specversion" => ("specversion", &mut self.specversion),
            "id" => ("id", &mut self.id),
            "source" => ("source", &mut self.source),
            "type" => ("type", &mut self.r#type),
            "subject" => ("subject", &mut self.subject),
            "time" => ("time", &mut self.time),
            "datacontenttype" => ("datacontenttype", &mut self.datacontenttype),
            "sequence" => ("sequence", &mut self.sequence),
            "traceparent" => ("traceparent", &mut self.traceparent),
            "correlationid" => ("correlationid", &mut self.correlationid),
            "service" => ("service", &mut self.service),
            "environment" => ("environment", &mut self.environment),
            "data" => ("data", &mut self.data),
            other => {
                return Err(EnvelopeError::Unknown {
                    field: other.chars().take(64).collect(),
                });
            }
        })
    }

    fn into_envelope(self, data: String) -> Result<Envelope, EnvelopeError> {
        let need = |field, value: Option<String>| value.ok_or(EnvelopeError::Missing { field });
        let invalid = EnvelopeError::invalid;

        let version = need("specversion", self.specversion)?;
        if version != SPEC_VERSION {
            return Err(invalid("specversion", &version, "only 1.0 is understood"));
        }
        let content = need("datacontenttype", self.datacontenttype)?;
        if content != CONTENT_TYPE {
            return Err(invalid(
                "datacontenttype",
                &content,
                "only application/json is understood",
            ));
        }
        let source = need("source", self.source)?;
        let origin = source
            .strip_prefix(SOURCE_PREFIX)
            .ok_or_else(|| invalid("source", &source, "write /slipway/<origin>"))?;
        let subject = need("subject", self.subject)?;
        // Kinds do not contain a slash, ids may.
        let (kind, id) = subject
            .split_once('/')
            .ok_or_else(|| invalid("subject", &subject, "write <kind>/<id>"))?;
        let id: Id = id
            .parse()
            .map_err(|error: slipway_model::Invalid| invalid("subject", &subject, error.rule))?;
        let sequence = need("sequence", self.sequence)?;
        let seq: u64 = Some(&sequence)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| invalid("sequence", &sequence, "write a whole number"))?;
        let type_name = need("type", self.r#type)?;
        let event_type = event_type_of(&type_name, kind).ok_or_else(|| {
            invalid(
                "type",
                &type_name,
                "write dev.slipway.<kind>.<name>.v<N>, of the subject's kind",
            )
        })?;
        let time = need("time", self.time)?;
        let time: Timestamp = time
            .parse()
            .map_err(|error: slipway_model::Invalid| invalid("time", &time, error.rule))?;
        let traceparent = match self.traceparent {
            None => None,
            Some(text) => Some(
                text.parse::<TraceContext>()
                    .map_err(|error| invalid("traceparent", &text, error.rule))?,
            ),
        };
        let event_id = need("id", self.id)?;
        let envelope = Envelope::builder(origin, kind, id, seq)
            .event_type(event_type)
            .time(time)
            .traceparent(traceparent)
            .correlation(self.correlationid.unwrap_or_default())
            .service(self.service.unwrap_or_default())
            .environment(self.environment.unwrap_or_default())
            .data(data)
            .build()?;
        if envelope.event_id() != event_id {
            return Err(invalid("id", &event_id, "write <subject>/<sequence>"));
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;
