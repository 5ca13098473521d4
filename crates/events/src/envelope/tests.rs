use proptest::prelude::*;
use slipway_model::Timestamp;

use super::{Envelope, EnvelopeError, MAX_DATA_BYTES, type_name};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn example() -> Envelope {
    Envelope::builder("build", "build", "bld-1".parse().unwrap(), 3)
        .event_type("succeeded")
        .time(Timestamp::from_micros(1_700_000_000_123_456))
        .traceparent(Some(TRACEPARENT.parse().unwrap()))
        .correlation("rel-7")
        .service("ms-identity")
        .environment("staging")
        .data(r#"{"digest": "sha256:ab",  "size":1.50}"#)
        .build()
        .unwrap()
}

/// The wire form is a contract with other programs: change it only with a new `type` version.
#[test]
fn fields_are_pinned() {
    let fields: Vec<String> = example()
        .to_fields()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "specversion=1.0",
            "id=build/bld-1/3",
            "source=/slipway/build",
            "type=dev.slipway.build.succeeded.v1",
            "subject=build/bld-1",
            "time=2023-11-14T22:13:20.123456Z",
            "datacontenttype=application/json",
            "sequence=00000000000000000003",
            "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "correlationid=rel-7",
            "service=ms-identity",
            "environment=staging",
            r#"data={"digest": "sha256:ab",  "size":1.50}"#,
        ]
    );
}

#[test]
fn json_is_pinned_and_keeps_the_data_byte_for_byte() {
    let json = example().to_json();
    assert_eq!(
        json,
        concat!(
            r#"{"specversion":"1.0","id":"build/bld-1/3","source":"/slipway/build","#,
            r#""type":"dev.slipway.build.succeeded.v1","subject":"build/bld-1","#,
            r#""time":"2023-11-14T22:13:20.123456Z","datacontenttype":"application/json","#,
            r#""sequence":"00000000000000000003","#,
            r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","#,
            r#""correlationid":"rel-7","service":"ms-identity","environment":"staging","#,
            r#""data":{"digest": "sha256:ab",  "size":1.50}}"#
        )
    );
    assert_eq!(Envelope::from_json(&json).unwrap(), example());
}

/// The version of an event's form is part of its own type, except for the first: the first version of every event has
/// no suffix.
#[test]
fn a_type_ends_with_the_version_of_its_form() {
    let built = |event_type: &str| {
        Envelope::builder("build", "build", "bld-1".parse().unwrap(), 1)
            .event_type(event_type)
            .build()
    };
    for (event_type, wanted) in [
        ("requested", "dev.slipway.build.requested.v1"),
        ("requested.v2", "dev.slipway.build.requested.v2"),
        ("lane_left.v17", "dev.slipway.build.lane_left.v17"),
    ] {
        let envelope = built(event_type).unwrap();
        assert_eq!(envelope.type_name(), wanted);
        assert_eq!(type_name("build", event_type), wanted);
        let read = Envelope::from_fields(envelope.to_fields()).unwrap();
        assert_eq!((read.event_type(), &read), (event_type, &envelope));
        assert_eq!(Envelope::from_json(&envelope.to_json()).unwrap(), envelope);
    }
    for bad in [
        "requested.v1",
        "requested.v0",
        "requested.v02",
        "requested.v",
        "requested.2",
        "requested.v2.v3",
        "requested.v99999999999",
        ".v2",
        "Requested.v2",
    ] {
        assert!(
            matches!(built(bad), Err(EnvelopeError::Invalid { field: "type", .. })),
            "{bad}"
        );
    }
}

#[test]
fn empty_extensions_are_left_out() {
    let envelope = Envelope::builder("deploy", "lane", "prod/web/api".parse().unwrap(), 1)
        .event_type("granted")
        .build()
        .unwrap();
    let names: Vec<&str> = envelope.to_fields().into_iter().map(|(name, _)| name).collect();
    for absent in ["traceparent", "correlationid", "service", "environment"] {
        assert!(!names.contains(&absent), "{absent}");
    }
    // Ids may hold slashes.
    assert_eq!(Envelope::from_fields(envelope.to_fields()).unwrap(), envelope);
    assert_eq!(Envelope::from_json(&envelope.to_json()).unwrap(), envelope);
}

#[test]
fn each_wrong_field_is_named() {
    let with = |name: &'static str, value: &str| {
        let mut fields = example().to_fields();
        fields.retain(|(field, _)| *field != name);
        fields.push((name, value.to_owned()));
        Envelope::from_fields(fields).unwrap_err().to_string()
    };
    for (field, value) in [
        ("specversion", "0.3"),
        ("id", "build/bld-1/4"),
        ("source", "build"),
        ("source", "/slipway/Build"),
        ("type", "dev.slipway.change.succeeded.v1"),
        ("type", "dev.slipway.build.succeeded"),
        ("type", "dev.slipway.build.succeeded.v0"),
        ("type", "dev.slipway.build.succeeded.v02"),
        ("type", "dev.slipway.build.succeeded.v+2"),
        ("type", "dev.slipway.build.succeeded.v2.v1"),
        ("type", "dev.slipway.build.succeeded.v1.v1"),
        ("type", "dev.slipway.build.succeeded.w2"),
        ("type", "dev.slipway.build..v1"),
        ("type", "dev.slipway.build.v2"),
        ("type", "dev.slipway.build.Succeeded.v1"),
        ("subject", "build"),
        ("subject", "build/"),
        ("time", "yesterday"),
        ("datacontenttype", "text/plain"),
        ("sequence", "0"),
        ("sequence", "+3"),
        ("sequence", ""),
        ("traceparent", "00-0-0-01"),
        ("service", "MS"),
        ("environment", "a b"),
        ("data", "{"),
        ("data", ""),
        ("correlationid", "a\nb"),
    ] {
        let message = with(field, value);
        assert!(
            message.contains(&format!("event: {field} ")),
            "{field}={value}: {message}"
        );
    }
    assert_eq!(
        with("data", &format!("\"{}\"", "x".repeat(MAX_DATA_BYTES))),
        format!(
            "event: data has {} bytes, {MAX_DATA_BYTES} are allowed",
            MAX_DATA_BYTES + 2
        )
    );
    assert!(with("correlationid", &"x".repeat(257)).contains("correlationid has 257 bytes"));
}

#[test]
fn missing_unknown_and_doubled_fields_are_refused() {
    for missing in [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "sequence",
        "data",
    ] {
        let mut fields = example().to_fields();
        fields.retain(|(field, _)| *field != missing);
        assert_eq!(
            Envelope::from_fields(fields),
            Err(EnvelopeError::Missing { field: missing })
        );
    }
    let mut unknown = example().to_fields();
    unknown.push(("color", "red".to_owned()));
    assert_eq!(
        Envelope::from_fields(unknown),
        Err(EnvelopeError::Unknown {
            field: "color".into()
        })
    );
    let mut twice = example().to_fields();
    twice.push(("service", "other".to_owned()));
    assert_eq!(
        Envelope::from_fields(twice),
        Err(EnvelopeError::Twice { field: "service" })
    );
    for bad in ["", "[]", "{}", r#"{"data":1,"id":2}"#] {
        assert!(Envelope::from_json(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_can_be_built_reads_back(
        kind in "[a-z][a-z0-9_]{0,20}",
        id in "[!-~]{1,60}",
        seq in 1..=u64::MAX,
        event_type in "[a-z][a-z0-9_]{0,20}(\\.v([2-9]|[1-9][0-9]))?",
        micros in 0..4_000_000_000_000_000_i64,
        correlation in "[^\\p{Cc}]{0,40}",
        service in "|[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
        text in ".*",
    ) {
        let data = serde_json::to_string(&serde_json::json!({ "text": text, "n": seq })).unwrap();
        let envelope = Envelope::builder("gitops", kind, id.parse().unwrap(), seq)
            .event_type(event_type)
            .time(Timestamp::from_micros(micros))
            .correlation(correlation)
            .service(service)
            .data(data)
            .build()
            .unwrap();
        prop_assert_eq!(&Envelope::from_fields(envelope.to_fields()).unwrap(), &envelope);
        prop_assert_eq!(&Envelope::from_json(&envelope.to_json()).unwrap(), &envelope);
    }
}
