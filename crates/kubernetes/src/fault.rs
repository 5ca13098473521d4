//! What an API server answered, as far as it matters for what happens next.

use slipway_model::{Fault, Reason, causes};
use slipway_verdict::cut;

use crate::remedy;

/// The API server refused.
pub const REFUSED: &str = "CLUSTER_REFUSED";
/// It could not be asked, or is busy.
pub const UNAVAILABLE: &str = "CLUSTER_UNAVAILABLE";
/// Flagger rolled back what is applied, and does not try it again.
pub const ALREADY_FAILED: &str = "ALREADY_FAILED";
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
        kube::Error::Api(status)
            if !matches!(status.code, 401 | 408 | 409 | 429 | 500..)
                || is_about_the_object(&status.message) =>
        {
            let help = remedy::of(status.code, &status.message);
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

/// An answer with 500 which the object itself causes, so that it stays the same: the API server cannot read the patch,
/// or the live object, by the kind's schema.
fn is_about_the_object(message: &str) -> bool {
    [
        "failed to create typed",
        "failed to create manager for existing fields",
        " to smd typed",
    ]
    .iter()
    .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use slipway_model::Fault;

    use super::fault_of;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (code, message, permanent) in [
            (
                500,
                "Internal error occurred: failed calling webhook \"pods.example\": connection refused",
                false,
            ),
            (503, "the server is currently unable to handle the request", false),
            (429, "too many requests", false),
            (
                500,
                "failed to create typed patch object (shop/shop; apps/v1, Kind=Deployment): errors:\n  \
                 .spec.template.spec.containers[name=\"app\"].env: duplicate entries for key [name=\"MODE\"]",
                true,
            ),
            (
                500,
                "failed to create manager for existing fields: failed to convert new object (shop/shop; apps/v1, \
                 Kind=Deployment) to smd typed: .spec.template.spec.containers[name=\"app\"].ports: duplicate entries \
                 for key [containerPort=80,protocol=\"TCP\"]",
                true,
            ),
            (
                422,
                "Deployment.apps \"shop\" is invalid: spec.replicas: must be greater than or equal to 0",
                true,
            ),
        ] {
            let status = Status::failure(message, "").with_code(code);
            let fault = fault_of("apply Deployment shop", &kube::Error::Api(status.boxed()));
            let words = fault.to_string();
            assert_eq!(matches!(fault, Fault::Permanent(_)), permanent, "{words}");
            assert!(words.contains(message), "{words}");
        }
    }
}
