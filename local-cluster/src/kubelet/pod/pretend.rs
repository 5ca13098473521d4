//! Pods without processes, for tests of scale.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{Pod, Stops, pause};
use crate::kubelet::status::terminated;
use crate::object::{self, list, text};

/// The exit code of a simulated pod that should end: an annotation of the pod.
const PRETENDED_CODE: &str = "local-cluster.slipway.dev/pretended-exit-code";

impl Pod {
    /// A pod without a process: ready after a while, gone when told.
    pub(super) async fn pretend(&self, after: Duration, stops: &mut Stops) {
        if pause(stops, after).await {
            return;
        }
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for container in &mut containers {
            container.state = json!({"running": {"startedAt": object::stamp(Timestamp::now())}});
            (container.ready, container.started) = (true, true);
            container.image_id = pretended_id(&container.image);
            container.container_id = format!("pretended://{}", self.uid());
        }
        *self.containers.lock().unwrap_or_else(PoisonError::into_inner) = containers;
        self.publish();
        if text(&self.pod, &["spec", "restartPolicy"]) == "Always" || pause(stops, after).await {
            return;
        }
        // A pod that should end has finished its work after the same time again.
        let code = object::annotation(&self.pod, PRETENDED_CODE).parse().unwrap_or(0);
        let now = Timestamp::now();
        for index in 0..list(&self.pod, &["spec", "containers"]).len() {
            self.set(index, |status| {
                let since = status.state["running"]["startedAt"].clone();
                status.state = terminated(code, &since, now, &status.container_id);
                (status.ready, status.started) = (false, false);
            });
        }
    }
}

/// The digest of an image that does not exist: that of the reference, or one made from its text.
fn pretended_id(image: &str) -> String {
    use sha2::{Digest, Sha256};
    match crate::kubelet::reference::Reference::parse(image) {
        Some(reference) => {
            let digest = reference
                .digest
                .clone()
                .unwrap_or_else(|| format!("sha256:{}", hex::encode(Sha256::digest(image))));
            format!("{}@{digest}", reference.name())
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pretended_image_has_the_digest_it_was_asked_for_by() {
        let digest = format!("sha256:{}", "b".repeat(64));
        assert_eq!(
            pretended_id(&format!("host:1/web:1@{digest}")),
            format!("host:1/web@{digest}")
        );
        assert!(pretended_id("web:1").starts_with("web@sha256:"));
    }
}
