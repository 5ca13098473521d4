//! Where local-cluster answers differently, and why that is right.

use super::compare::Difference;

/// A request and a field, each with `*` for anything, and the reason.
type Expected = (&'static str, &'static str, &'static str);

const EXPECTED: &[Expected] = &[];

/// Differences that nothing explains, and explanations that explain nothing.
pub(crate) fn unexpected(found: &[Difference]) -> Vec<String> {
    let explains = |(request, field, _): &Expected, difference: &Difference| {
        matches(request, &difference.request) && matches(field, &difference.field)
    };
    let unexplained = found
        .iter()
        .filter(|difference| !EXPECTED.iter().any(|expected| explains(expected, difference)))
        .map(ToString::to_string);
    let idle = EXPECTED
        .iter()
        .filter(|expected| !found.iter().any(|difference| explains(expected, difference)))
        .map(|(request, field, reason)| format!("no longer differs: {request} {field} ({reason})"));
    unexplained.chain(idle).collect()
}

/// Whether the text is as the pattern, in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |last| {
        last.is_empty() || rest.is_empty() || text.ends_with(last)
    })
}
