//! The protobuf JSON mapping of any of the API's messages.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::failure::Failure;

/// Renders `message`, whose full name is `name`, such as `slipway.release.v1.Release`.
pub(crate) fn render(name: &str, message: &impl Message) -> Result<String, Failure> {
    let pool = DescriptorPool::decode(slipway_proto::DESCRIPTORS).map_err(Failure::new)?;
    let descriptor = pool.get_message_by_name(name);
    let descriptor =
        descriptor.ok_or_else(|| Failure::new(format!("no message {name} in the descriptor set")))?;
    let dynamic =
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(Failure::new)?;
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut out);
    let options = SerializeOptions::new().skip_default_fields(true);
    dynamic
        .serialize_with_options(&mut serializer, &options)
        .map_err(Failure::new)?;
    String::from_utf8(out).map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use slipway_proto::release::v1::{Release, release::Status};

    #[test]
    fn fields_and_enums_are_written_as_the_mapping_says() {
        let release = Release {
            id: "rel-1".to_owned(),
            status: Status::RolledBack.into(),
            ..Release::default()
        };
        let text = super::render("slipway.release.v1.Release", &release).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"id": "rel-1", "status": "STATUS_ROLLED_BACK"})
        );
    }
}
