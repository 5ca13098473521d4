//! What an API server answered, as far as it matters for what happens next.

use slipway_model::{Fault, Reason, causes};
use slipway_verdict::cut;

use crate::forbidden;

/// The API server refused.
pub const REFUSED: &str = "CLUSTER_REFUSED";
/// It could not be asked, or is busy.
pub const UNAVAILABLE: &str = "CLUSTER_UNAVAILABLE";
/// A later turn of the target's lane has written the object.
pub const SUPERSEDED: &str = "SUPERSEDED_EPOCH";

/// Refused, and asking again will not change it.
pub fn refused(words: impl Into<String>) -> Fault<Reason> {
    Fault::refused(REFUSED, words)
}

/// It could not be asked, or is busy: try again.
pub fn unavailable(words: impl Into<String>) -> Fault<Reason> {
    Fault::unavailable(UNAVAILABLE, words)
}

/// Classifies a client's error. The API server's own message is passed on.
pub(crate) fn fault_of(what: &str, error: &kube::Error) -> Fault<Reason> {
    match error {
        // A 401 passes when a token is renewed; a 404 is an answer only if the caller says so.
        kube::Error::Api(status) if !matches!(status.code, 401 | 408 | 409 | 429 | 500..) => {
            let help = forbidden::help(status.code, &status.message);
            refused(format!(
                "{what}: {}{}",
                cut(&status.message),
                help.unwrap_or_default()
            ))
        }
        kube::Error::Api(status) => {
            unavailable(format!("{what}: {} ({})", cut(&status.message), status.code))
        }
        kube::Error::SerdeError(error) => refused(format!("{what}: unexpected answer: {error}")),
        kube::Error::BuildRequest(error) => refused(format!("{what}: {error}")),
        error => unavailable(format!("{what}: {}", cut(&causes(error)))),
    }
}
