//! What callers can get wrong, derived from the descriptors of requests: a case that a request has no field for does
//! not apply to it, and no other is left out.

use std::time::Duration;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};

use crate::{call::Deadline, rows::Row, scene::ROOT};

/// Larger than servers accept, which is 4 MiB.
const OVERSIZED: usize = 5 << 20;
/// A field that does not exist in any request.
const UNKNOWN_FIELD: u32 = 30_000;
/// Fields without a specific limit are at most this long.
const LONGER_THAN_ANY_TEXT: usize = 5000;

/// One way to call.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) what: What,
    pub(crate) caller: Caller,
    pub(crate) sent: Sent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    AsItShouldBe,
    NoToken,
    WrongToken,
    NoRole,
    OtherService,
    OtherEnvironment,
    Empty,
    Oversized,
    Late,
    /// A field has a value that is not allowed.
    Malformed(String),
    /// A field has a number that is not a value of its enum.
    Unknown(String),
    /// A field has an id that does not exist.
    Absent(String),
    /// The same, by a caller without any role.
    AbsentWithoutRole(String),
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::AsItShouldBe => "as it should be",
            Self::NoToken => "no token",
            Self::WrongToken => "wrong token",
            Self::NoRole => "no role",
            Self::OtherService => "role for another service",
            Self::OtherEnvironment => "role for another environment",
            Self::Empty => "empty request",
            Self::Oversized => "oversized message",
            Self::Late => "deadline passed",
            Self::Malformed(field) => return write!(f, "malformed {field}"),
            Self::Unknown(field) => return write!(f, "unknown {field}"),
            Self::Absent(field) => return write!(f, "absent {field}"),
            Self::AbsentWithoutRole(field) => return write!(f, "absent {field}, no role"),
        };
        f.write_str(text)
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller {
    Nobody,
    Stranger,
    Person(&'static str),
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    /// Each of these in turn.
    Requests(Vec<Value>),
    /// With an unknown field, which makes it as large as this.
    Padded(Value, usize),
    Late(Value, Deadline),
}

/// An id that does not exist.
pub(crate) const ABSENT: &str = "absent-1";

/// Every case of a row, whose request has been filled in.
pub(crate) fn cases(method: &MethodDescriptor, row: &Row, request: &Value) -> Vec<Case> {
    let one = |what, caller, request: Value| Case {
        what,
        caller,
        sent: Sent::Requests(vec![request]),
    };
    let root = Caller::Person(ROOT);
    let mut cases: Vec<Case> = [
        (What::NoToken, Caller::Nobody),
        (What::WrongToken, Caller::Stranger),
        (What::NoRole, Caller::Person("nobody")),
        (What::OtherService, Caller::Person("other-service")),
        (What::OtherEnvironment, Caller::Person("other-environment")),
    ]
    .into_iter()
    .map(|(what, caller)| one(what, caller, request.clone()))
    .collect();
    cases.push(Case {
        what: What::Oversized,
        caller: root,
        sent: Sent::Padded(request.clone(), OVERSIZED),
    });
    let deadline = Deadline {
        header: "1m",
        sent_after: Duration::from_millis(100),
    };
    cases.push(Case {
        what: What::Late,
        caller: root,
        sent: Sent::Late(request.clone(), deadline),
    });
    if method.input().fields().len() > 0 {
        cases.push(one(What::Empty, root, json!({})));
    }
    for place in fields(&method.input(), request) {
        if row.other_forms.contains(&place.name().as_str()) {
            continue;
        }
        let set = |values: Vec<Value>| {
            let requests = values.into_iter().map(|value| place.set(request, value));
            Sent::Requests(requests.collect())
        };
        let path = place.name();
        let wrong = wrong(&place.field);
        if !wrong.is_empty() {
            let what = match place.field.kind() {
                Kind::Enum(_) => What::Unknown(path.clone()),
                _ => What::Malformed(path.clone()),
            };
            cases.push(Case {
                what,
                caller: root,
                sent: set(wrong),
            });
        }
        if is_id(&place.field) {
            let absent = || set(vec![json!(ABSENT)]);
            cases.push(Case {
                what: What::Absent(path.clone()),
                caller: root,
                sent: absent(),
            });
            cases.push(Case {
                what: What::AbsentWithoutRole(path),
                caller: Caller::Person("nobody"),
                sent: absent(),
            });
        }
    }
    cases
}

/// The case of a correct request.
pub(crate) fn as_it_should_be(request: &Value) -> Case {
    Case {
        what: What::AsItShouldBe,
        caller: Caller::Person(ROOT),
        sent: Sent::Requests(vec![request.clone()]),
    }
}

/// What a request has no field for.
pub(crate) fn not_applicable(method: &MethodDescriptor) -> Vec<&'static str> {
    let names: Vec<String> = method
        .input()
        .fields()
        .map(|field| field.name().to_owned())
        .collect();
    let has = |wanted: &[&str]| names.iter().any(|name| wanted.contains(&name.as_str()));
    let has_enum = method
        .input()
        .fields()
        .any(|field| matches!(field.kind(), Kind::Enum(_)) && field.name() != "status");
    [
        ("status filter", has(&["status"])),
        ("enum", has_enum),
        ("page", has(&["page_token"])),
        ("id", has(&["id", "deployment_id"])),
        ("etag", has(&["etag"])),
        ("cursor", has(&["cursor"])),
        ("request_id", has(&["request_id"])),
        ("correlation_id", has(&["correlation_id"])),
        ("labels", has(&["labels"])),
    ]
    .into_iter()
    .filter(|(_, has)| !has)
    .map(|(name, _)| name)
    .collect()
}

/// A field of a request, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) field: FieldDescriptor,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Item(usize),
}

impl Place {
    /// As named in errors: `spec.commit`, `edits[0].helm_image.path`.
    pub(crate) fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.steps {
            match step {
                Step::Field(field) if name.is_empty() => name.push_str(field),
                Step::Field(field) => name = format!("{name}.{field}"),
                Step::Item(index) => name = format!("{name}[{index}]"),
            }
        }
        name
    }

    fn set(&self, request: &Value, value: Value) -> Value {
        let mut request = request.clone();
        let mut at = &mut request;
        for step in &self.steps {
            at = match step {
                Step::Field(name) => &mut at[name],
                Step::Item(index) => &mut at[index],
            };
        }
        *at = if self.field.is_list() {
            json!([value])
        } else {
            value
        };
        request
    }
}

/// The fields of a message, and of the messages in it that the request has.
pub(crate) fn fields(message: &MessageDescriptor, request: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    collect(message, request, &[], &mut found);
    found
}

fn collect(message: &MessageDescriptor, request: &Value, above: &[Step], found: &mut Vec<Place>) {
    for field in message.fields() {
        // For a oneof, the one that is given.
        let another = field.containing_oneof().is_some_and(|oneof| {
            let given = oneof.fields().filter(|other| !request[other.name()].is_null());
            given.into_iter().any(|other| other != field)
        });
        if another {
            continue;
        }
        let mut steps = above.to_vec();
        steps.push(Step::Field(field.name().to_owned()));
        let given = &request[field.name()];
        let inner = match field.kind() {
            Kind::Message(inner) if !field.is_map() && !inner.full_name().starts_with("google.") => inner,
            _ => {
                found.push(Place { field, steps });
                continue;
            }
        };
        match given {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let mut steps = steps.clone();
                    steps.push(Step::Item(index));
                    collect(&inner, item, &steps, found);
                }
            }
            Value::Object(_) => collect(&inner, given, &steps, found),
            _ => {}
        }
    }
}

fn is_id(field: &FieldDescriptor) -> bool {
    matches!(field.name(), "id" | "deployment_id")
}

/// Values that a field must not have; empty if every value is allowed.
fn wrong(field: &FieldDescriptor) -> Vec<Value> {
    let long = || json!("x".repeat(LONGER_THAN_ANY_TEXT));
    if field.is_map() {
        let many: serde_json::Map<String, Value> = (0..200)
            .map(|number| (format!("l{number}"), json!("x")))
            .collect();
        return vec![
            json!({"": "x"}),
            json!({"a": "b\u{7}"}),
            json!({"a": long()}),
            Value::Object(many),
        ];
    }
    match field.kind() {
        Kind::String => match field.name() {
            "page_token" => vec![json!("x"), json!("00ff"), long()],
            "etag" => vec![json!("x"), json!("-1")],
            "cursor" => vec![json!("x"), long()],
            "id" | "deployment_id" | "request_id" | "correlation_id" | "plan_hash" | "binding" => {
                vec![json!("a b"), long()]
            }
            "service" | "environment" | "from_environment" | "to_environment" | "environments" | "policy"
            | "repository" | "builder" => vec![json!("Not A Name"), json!("nowhere\u{7}"), long()],
            "on_behalf_of" => vec![json!("alice"), long()],
            // The bodies of sections may be long, but not as long as this.
            "text" => vec![json!("a\u{7}b"), json!("x".repeat(300_000))],
            _ => vec![json!("a\u{7}b"), long()],
        },
        Kind::Enum(_) => vec![json!(99), json!(-1)],
        Kind::Int32 => vec![json!(-1)],
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => {
            vec![json!("-1s"), json!("0s"), json!("400000s")]
        }
        // A section's: it is counted.
        Kind::Uint64 if field.name() == "size" => vec![json!("1")],
        // Unsigned numbers and booleans.
        Kind::Bool | Kind::Uint64 | Kind::Uint32 => Vec::new(),
        other => panic!("say here what is wrong for {}, a {other:?}", field.full_name()),
    }
}

/// A request followed by a field that makes it as large as this.
pub(crate) fn padded(mut bytes: Vec<u8>, size: usize) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    encode_key(UNKNOWN_FIELD, WireType::LengthDelimited, &mut bytes);
    encode_varint(size as u64, &mut bytes);
    bytes.resize(bytes.len() + size, b'x');
    bytes
}
