//! The contract, as described in ARCHITECTURE.md: the required answer to a case, for any RPC.

use std::fmt;

use prost_reflect::MethodDescriptor;

use crate::{
    answer::Answer,
    cases::What,
    rows::{Guard, Row},
};

/// What an answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This, as written in the table.
    Exactly(String),
    /// `INVALID_ARGUMENT` that names this field, the message that it is in, or a part of it; or, without one, any field.
    Invalid(Option<String>),
}

impl Wanted {
    fn exactly(text: &str) -> Self {
        Self::Exactly(text.to_owned())
    }

    /// Whether an answer matches.
    pub(crate) fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Exactly(text), answer) => answer.to_string() == *text,
            (Self::Invalid(field), Answer::Error { code, reason, names }) => {
                let named = match field {
                    None => !names.is_empty(),
                    Some(field) => is_within(field, names) || is_within(names, field),
                };
                code == "INVALID_ARGUMENT" && reason == "INVALID_FIELD" && named
            }
            (Self::Invalid(_), Answer::Ok(_)) => false,
        }
    }
}

/// Whether a field's path is another's, or that of something in it: `edits[0].helm_image.path` is within `edits`.
fn is_within(inner: &str, outer: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    !outer.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => f.write_str(text),
            Self::Invalid(field) => {
                let field = field.as_deref().unwrap_or("and the field");
                write!(f, "INVALID_ARGUMENT INVALID_FIELD {field}")
            }
        }
    }
}

/// What the contract says.
pub(crate) fn wanted(method: &MethodDescriptor, row: &Row, what: &What) -> Wanted {
    match what {
        What::AsItShouldBe => Wanted::exactly(row.answer),
        What::NoToken | What::WrongToken => Wanted::exactly("UNAUTHENTICATED UNAUTHENTICATED"),
        // Before anything is looked up: a caller without a role does not learn what exists.
        What::NoRole | What::AbsentWithoutRole(_) => denied(),
        What::OtherService | What::OtherEnvironment => match row.guard {
            Guard::Thing => denied(),
            Guard::Shown => Wanted::exactly("OK none"),
            Guard::Anywhere => Wanted::exactly(row.answer),
        },
        What::Oversized => Wanted::exactly("RESOURCE_EXHAUSTED LIMIT_EXCEEDED"),
        What::Late => Wanted::exactly("DEADLINE_EXCEEDED DEADLINE_EXCEEDED"),
        What::Empty if only_filters(method) && row.answer == "OK none" => Wanted::exactly("OK none"),
        What::Empty if only_filters(method) => Wanted::exactly("OK some"),
        What::Empty => Wanted::Invalid(None),
        What::Malformed(field) | What::Unknown(field) => Wanted::Invalid(Some(field.clone())),
        What::Absent(_) => Wanted::exactly("NOT_FOUND NOT_FOUND the id"),
    }
}

fn denied() -> Wanted {
    Wanted::exactly("PERMISSION_DENIED PERMISSION_DENIED")
}

/// Whether nothing in a request is required, since all of it selects the part of the whole that is wanted.
fn only_filters(method: &MethodDescriptor) -> bool {
    let fields = ["page_token", "cursor", "status"];
    fields
        .iter()
        .any(|field| method.input().get_field_by_name(field).is_some())
}
