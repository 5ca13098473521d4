//! The answer, in one line.

use std::{collections::BTreeSet, fmt, time::Duration};

use prost_reflect::{Kind, MethodDescriptor};
use serde_json::Value;
use slipway_server::ErrorView;
use slipway_tests::clients::token;
use tonic::Code;

use crate::{
    call::{Answers, Api, encode},
    cases::{ABSENT, Caller, Case, Sent, padded},
};

/// A stream without a message for this long has nothing to say: longer than the pause between two heartbeats, which is
/// 5 s.
const NOTHING: Duration = Duration::from_secs(15);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Ok(Shown),
    Error {
        code: String,
        /// The pinned reason; a dash if the error is not one of ours.
        reason: String,
        /// The offending field, or the id of what does not exist.
        names: String,
    },
}

/// What an answer without an error shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    /// One thing.
    Thing,
    /// Entries of a list, or the first message of a stream.
    Some,
    /// No entries, or a heartbeat before the first message, or no message at all.
    None,
    /// The stream ended without a message.
    Ended,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(Shown::Thing) => f.write_str("OK"),
            Self::Ok(Shown::Some) => f.write_str("OK some"),
            Self::Ok(Shown::None) => f.write_str("OK none"),
            Self::Ok(Shown::Ended) => f.write_str("OK ended"),
            Self::Error { code, reason, names } => {
                write!(f, "{code} {reason}")?;
                if names.is_empty() {
                    Ok(())
                } else {
                    write!(f, " {names}")
                }
            }
        }
    }
}

/// Calls, and returns the answers for each of the case's values.
pub(crate) async fn answer(api: &Api, method: &MethodDescriptor, case: &Case) -> BTreeSet<Answer> {
    let input = method.input();
    let (requests, deadline) = match &case.sent {
        Sent::Requests(requests) => (
            requests.iter().map(|request| encode(&input, request)).collect(),
            None,
        ),
        Sent::Padded(request, size) => (vec![padded(encode(&input, request), *size)], None),
        Sent::Late(request, deadline) => (vec![encode(&input, request)], Some(*deadline)),
    };
    let token = match case.caller {
        Caller::Nobody => None,
        Caller::Stranger => Some("nobody-knows-it".to_owned()),
        Caller::Person(name) => Some(token(name)),
    };
    let mut answers = BTreeSet::new();
    for bytes in requests {
        answers.insert(match api.open(method, token.as_deref(), bytes, deadline).await {
            Ok(opened) => first(method, opened).await,
            Err(status) => refused(&ErrorView::of(&status)),
        });
    }
    answers
}

async fn first(method: &MethodDescriptor, mut answers: Answers) -> Answer {
    let next = tokio::time::timeout(NOTHING, answers.next()).await;
    let shown = match next {
        Err(_) => Shown::None,
        Ok(None) => Shown::Ended,
        Ok(Some(Err(error))) => return refused(&error),
        Ok(Some(Ok(message))) => shown(method, &message),
    };
    Answer::Ok(shown)
}

fn shown(method: &MethodDescriptor, message: &Value) -> Shown {
    let output = method.output();
    let fields: Vec<_> = output.fields().collect();
    let has = |name: &str| match &message[name] {
        Value::Array(items) => !items.is_empty(),
        value => !value.is_null(),
    };
    let lists: Vec<_> = fields
        .iter()
        .filter(|field| field.is_list() && matches!(field.kind(), Kind::Message(_)))
        .collect();
    if method.is_server_streaming() {
        let some = fields.iter().any(|field| has(field.name()));
        return if some { Shown::Some } else { Shown::None };
    }
    if lists.is_empty() {
        Shown::Thing
    } else if lists.iter().any(|field| has(field.name())) {
        Shown::Some
    } else {
        Shown::None
    }
}

fn refused(error: &ErrorView) -> Answer {
    let reason = if error.reason.is_empty() {
        "-"
    } else {
        &error.reason
    };
    let names = match error.code {
        Code::NotFound if error.resource == ABSENT => "the id",
        _ => &error.field,
    };
    Answer::Error {
        code: canonical(error.code),
        reason: reason.to_owned(),
        names: names.to_owned(),
    }
}

/// A code's name as gRPC writes it.
fn canonical(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
