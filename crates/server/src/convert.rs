//! Conversion between wire messages and the types of `slipway-model`.

use std::{str::FromStr, time::Duration};

use slipway_model::{
    Actor, Authentication, Digest, Image, Images, Link, Name, NotOneImage, Reason, Retry, Timestamp,
    TraceContext,
};
use slipway_proto::common::v1 as proto;

use crate::ApiError;

/// The maximum length of a text field unless its type says otherwise: enough for a sentence, too little for a file.
pub const MAX_TEXT: usize = 4096;
/// The maximum number of tags of an image in a request.
const MAX_TAGS: usize = 32;

/// Parses a field into one of the model's types; empty counts as missing.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn field<T>(name: &str, text: &str) -> Result<T, ApiError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        return Err(ApiError::invalid(name, "is required"));
    }
    text.parse()
        .map_err(|error: T::Err| ApiError::invalid(name, error))
}

/// As [`field`], where empty means that it was not given.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn optional<T>(name: &str, text: &str) -> Result<Option<T>, ApiError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        Ok(None)
    } else {
        field(name, text).map(Some)
    }
}

/// A message that must be there.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn message<T>(name: &str, message: Option<T>) -> Result<T, ApiError> {
    message.ok_or_else(|| ApiError::invalid(name, "is required"))
}

/// Free text for people: of limited length, without control characters other than tab and line break.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn text(name: &str, text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_TEXT {
        return Err(ApiError::invalid(
            name,
            format!("is {} bytes long; at most {MAX_TEXT} are kept", text.len()),
        ));
    }
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'))
    {
        return Err(ApiError::invalid(
            name,
            "contains control characters; leave them out",
        ));
    }
    Ok(text.to_owned())
}

/// An opaque key of the caller (request id, correlation id): up to 200 printable ASCII characters, or empty.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn key(name: &str, text: &str) -> Result<String, ApiError> {
    if text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(ApiError::invalid(
            name,
            "use up to 200 printable ASCII characters without space",
        ))
    }
}

/// Labels: up to 32, keys and values up to 200 bytes without control characters.
///
/// # Errors
/// [`ApiError::Invalid`] naming `labels`.
pub fn labels(
    labels: impl IntoIterator<Item = (String, String)>,
) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
    let labels: std::collections::BTreeMap<_, _> = labels.into_iter().collect();
    if labels.len() > 32 {
        return Err(ApiError::invalid("labels", "give at most 32"));
    }
    for (key, value) in &labels {
        let control = |text: &str| text.chars().any(char::is_control);
        if key.is_empty() || key.len() > 200 || value.len() > 200 || control(key) || control(value) {
            return Err(ApiError::invalid(
                "labels",
                "use keys of 1 to 200 and values of up to 200 bytes without control characters",
            ));
        }
    }
    Ok(labels)
}

/// A name filter of a list or watch: empty means all.
///
/// # Errors
/// [`ApiError::Invalid`] naming the field.
pub fn name_filter(name: &str, text: &str) -> Result<Option<Name>, ApiError> {
    optional(name, text)
}

/// A time, to the microsecond.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        // At most 999,999,000: fits.
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}

/// A time from the wire, truncated to microseconds; `None` for one that this type does not allow.
pub fn from_timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = (0..1_000_000_000)
        .contains(&time.nanos)
        .then_some(i64::from(time.nanos))?;
    let micros = time.seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)?;
    Some(Timestamp::from_micros(micros))
}

/// A length of time.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        // Less than 1,000,000,000: fits.
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// Who did it.
pub fn actor(actor: &Actor) -> proto::Actor {
    let link = |link: &Link| proto::actor::Link {
        principal: link.principal.to_string(),
        authentication: match link.authentication {
            Authentication::StaticToken => proto::actor::Authentication::StaticToken,
            Authentication::Delegated => proto::actor::Authentication::Delegated,
            Authentication::Internal => proto::actor::Authentication::Internal,
        }
        .into(),
    };
    proto::Actor {
        links: actor.links().map(link).collect(),
    }
}

/// The principal that it is attributed to, as `issuer/subject`: the last link. Empty for an actor that another service
/// omitted.
pub fn effective(actor: Option<&proto::Actor>) -> &str {
    actor
        .and_then(|actor| actor.links.last())
        .map_or("", |link| &link.principal)
}

/// The whole chain for people, as [`Actor`] prints it. Empty for an actor that another service omitted.
pub fn chain(actor: Option<&proto::Actor>) -> String {
    let links = actor.map_or(&[][..], |actor| &actor.links);
    let Some((last, through)) = links.split_last() else {
        return String::new();
    };
    if through.is_empty() {
        return last.principal.clone();
    }
    let through: Vec<&str> = through.iter().map(|link| link.principal.as_str()).collect();
    format!("{} (through {})", last.principal, through.join(", "))
}

/// A pinned code and words for people.
pub fn reason(reason: &Reason) -> proto::Reason {
    proto::Reason {
        code: reason.code.clone(),
        message: reason.message.clone(),
    }
}

/// What is being retried.
pub fn retry(retry: &Retry) -> proto::Retry {
    proto::Retry {
        error: Some(reason(&retry.error)),
        attempt: retry.attempt,
        next_time: retry.next_time.map(timestamp),
    }
}

/// What is being waited for, and since when.
pub fn waiting_on(
    kind: proto::waiting_on::Kind,
    reference: impl Into<String>,
    since: Timestamp,
    message: impl Into<String>,
) -> proto::WaitingOn {
    proto::WaitingOn {
        kind: kind.into(),
        r#ref: reference.into(),
        since: Some(timestamp(since)),
        message: message.into(),
    }
}

/// Where to see more.
pub fn link(rel: impl Into<String>, href: impl Into<String>) -> proto::Link {
    proto::Link {
        rel: rel.into(),
        href: href.into(),
    }
}

/// One of a service's images.
pub fn image<'a, D>(image: &'a Image<D>) -> proto::Image
where
    &'a D: Into<Option<&'a Digest>>,
{
    let digest: Option<&Digest> = (&image.digest).into();
    proto::Image {
        name: image.name.to_string(),
        repository: image.repository.to_string(),
        digest: digest.map(ToString::to_string).unwrap_or_default(),
        tags: image.tags.iter().map(ToString::to_string).collect(),
    }
}

/// The images of a service.
pub fn images<'a, D>(images: &'a Images<Image<D>>) -> Vec<proto::Image>
where
    &'a D: Into<Option<&'a Digest>>,
{
    images.as_slice().iter().map(image).collect()
}

/// The images in a request's field `images`: exactly one, until several are supported. One without a name is the
/// service's `only` one. `digest` reads the digest: [`field`] where it must be given, [`optional`] where a tag is
/// enough.
///
/// # Errors
/// [`ApiError::Invalid`] naming `images`, or the part of one that is not valid: `images[0].digest`.
pub fn from_images<D>(
    only: &Name,
    images: &[proto::Image],
    digest: impl Fn(&str, &str) -> Result<D, ApiError>,
) -> Result<Images<Image<D>>, ApiError> {
    let one = |(index, image): (usize, &proto::Image)| {
        let of = |part: &str| format!("images[{index}].{part}");
        if image.tags.len() > MAX_TAGS {
            return Err(ApiError::invalid(of("tags"), format!("give at most {MAX_TAGS}")));
        }
        Ok(Image {
            name: optional(&of("name"), &image.name)?.unwrap_or_else(|| only.clone()),
            repository: field(&of("repository"), &image.repository)?,
            digest: digest(&of("digest"), &image.digest)?,
            tags: image
                .tags
                .iter()
                .map(|tag| field(&of("tags"), tag))
                .collect::<Result<_, _>>()?,
        })
    };
    // Counted before they are read, so that an endless list is not read.
    if images.len() != 1 {
        return Err(ApiError::invalid("images", NotOneImage));
    }
    let images: Vec<Image<D>> = images.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Images::try_from(images).map_err(|error| ApiError::invalid("images", error))
}

/// The trace context that a request came with, if any: what the trace layer found, else the `traceparent` header.
pub fn trace_context<T>(request: &tonic::Request<T>) -> Option<TraceContext> {
    slipway_telemetry::WithTraceContext::trace_context(request)
}

#[cfg(test)]
mod tests {
    use slipway_model::{CommitSha, Principal};

    use super::*;

    #[test]
    fn a_chain_goes_out_link_by_link() {
        use proto::actor::Authentication as Wire;
        let person = Principal::new("token", "alice");
        for (actor, links) in [
            (Actor::system("timer"), vec![("slipway/timer", Wire::Internal)]),
            (
                Actor::direct(Principal::new("token", "bot"), Authentication::StaticToken)
                    .on_behalf_of(person),
                vec![("token/bot", Wire::StaticToken), ("token/alice", Wire::Delegated)],
            ),
        ] {
            let sent = super::actor(&actor);
            let said: Vec<_> = sent
                .links
                .iter()
                .map(|link| (link.principal.as_str(), link.authentication()))
                .collect();
            assert_eq!(said, links);
            assert_eq!(effective(Some(&sent)), actor.effective().to_string());
            assert_eq!(chain(Some(&sent)), actor.to_string());
        }
        assert_eq!((effective(None), chain(None).as_str()), ("", ""));
    }

    #[test]
    fn errors_name_the_field() {
        let error = field::<CommitSha>("subject.commit", "main").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("subject.commit: commit \"main\" is not valid"),
            "{error}"
        );
        assert_eq!(
            field::<CommitSha>("commit", "").unwrap_err(),
            ApiError::invalid("commit", "is required")
        );
        assert_eq!(optional::<CommitSha>("commit", ""), Ok(None));
        assert!(text("comment", "bell\u{7}").is_err());
        assert!(text("comment", &"x".repeat(MAX_TEXT + 1)).is_err());
        assert!(key("request_id", "a b").is_err());
        assert!(labels([(String::new(), String::new())]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn times_go_and_come_back(micros in -62_135_596_800_000_000_i64..253_402_300_799_000_000) {
            let time = Timestamp::from_micros(micros);
            proptest::prop_assert_eq!(from_timestamp(&timestamp(time)), Some(time));
        }
    }
}
