//! What programs read: the protobuf JSON mapping of any of the API's messages, as JSON or as YAML.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};

use crate::failure::Failure;

/// A form of output for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// Renders `message`, whose full name is `name`, such as `slipway.release.v1.Release`. Without a line end.
    pub(crate) fn render(self, name: &str, message: &impl Message) -> Result<String, Failure> {
        let pool = DescriptorPool::decode(slipway_proto::DESCRIPTORS).map_err(Failure::new)?;
        let descriptor = pool.get_message_by_name(name);
        let descriptor =
            descriptor.ok_or_else(|| Failure::new(format!("no message {name} in the descriptor set")))?;
        let dynamic =
            DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(Failure::new)?;
        self.write(&Mapped(dynamic))
    }

    /// One of several messages that follow each other: in YAML, each is a document of its own.
    pub(crate) fn render_next(self, name: &str, message: &impl Message) -> Result<String, Failure> {
        let text = self.render(name, message)?;
        Ok(match self {
            Self::Json => text,
            Self::Yaml => format!("---\n{text}"),
        })
    }

    /// Renders what is not a message. Without a line end.
    pub(crate) fn write(self, value: &impl Serialize) -> Result<String, Failure> {
        match self {
            Self::Json => serde_json::to_string_pretty(value).map_err(Failure::new),
            Self::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(Failure::new)?;
                Ok(text.trim_end().to_owned())
            }
        }
    }
}

/// As the protobuf JSON mapping writes it, without what says nothing.
struct Mapped(DynamicMessage);

impl Serialize for Mapped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().skip_default_fields(true);
        self.0.serialize_with_options(serializer, &options)
    }
}

#[cfg(test)]
mod tests {
    use slipway_proto::{
        common::v1::Reason,
        release::v1::{Plan, Release, release::Status},
    };

    use super::Format;

    const NAME: &str = "slipway.release.v1.Release";

    #[test]
    fn fields_and_enums_are_written_as_the_mapping_says() {
        let release = Release {
            id: "rel-1".to_owned(),
            status: Status::RolledBack.into(),
            ..Release::default()
        };
        let text = Format::Json.render(NAME, &release).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let said = serde_json::json!({"id": "rel-1", "status": "STATUS_ROLLED_BACK"});
        assert_eq!(value, said);
        let text = Format::Yaml.render(NAME, &release).unwrap();
        assert_eq!(text, "id: rel-1\nstatus: STATUS_ROLLED_BACK");
        let next = Format::Yaml.render_next(NAME, &release).unwrap();
        assert_eq!(next, format!("---\n{text}"));
    }

    /// Texts stay texts, whatever they look like.
    #[test]
    fn both_forms_say_the_same() {
        for text in [
            "no",
            "null",
            "~",
            "1e5",
            "0123456",
            "1.10",
            "2026-01-01T00:00:00Z",
            "",
            "- a: b # c",
            "two\nlines\n",
            " spaces ",
            "a: b",
            "ünïcode ✓",
            "\"quoted\" 'twice'",
            "tab\there",
        ] {
            let release = Release {
                id: text.to_owned(),
                labels: [(text.to_owned(), text.to_owned())].into(),
                plan: Some(Plan {
                    commit: text.to_owned(),
                    ..Plan::default()
                }),
                reason: Some(Reason {
                    code: "CODE".to_owned(),
                    message: text.to_owned(),
                }),
                ..Release::default()
            };
            let json: serde_json::Value =
                serde_json::from_str(&Format::Json.render(NAME, &release).unwrap()).unwrap();
            let yaml = Format::Yaml.render(NAME, &release).unwrap();
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(read, json, "{yaml}");
        }
    }
}
