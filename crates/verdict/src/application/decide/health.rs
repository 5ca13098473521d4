//! The application's health after its sync, and the images of its pods.

use std::time::Duration;

use slipway_model::{Digest, ImageRef, Timestamp};

use super::{Decision, failed, wait, workloads::Degraded};
use crate::{
    FailureReason,
    application::{Next, at, words},
    running,
};

/// How long after the sync the images of the pods may still be shown as they were before it.
const IMAGES_PATIENCE: Duration = Duration::from_secs(30);

impl Decision<'_> {
    /// Its health, as seen at some time not before the sync's end; without times, as it is.
    pub(super) fn health(&self, times: Option<(Timestamp, Timestamp)>) -> Next {
        match self.live.status.health.status.as_str() {
            "Healthy" => self
                .unproven()
                .or_else(|| times.and_then(|(floor, _)| self.images(floor)))
                .unwrap_or(Next::Complete),
            "Degraded" => self.degraded_since(times),
            "Progressing" | "Suspended" if self.waits_for_neighbours() => match is_later(times) {
                true => Next::Complete,
                // Nothing of ours will change any more, so that Argo CD has no reason to look again by itself.
                false => self.refresh(format!(
                    "synced; its workloads with this image are well, and others are not: {}",
                    self.neighbours().join("; ")
                )),
            },
            "Suspended" => match self.review().and_then(|review| review.missing()) {
                Some(missing) => wait(&format!("synced; {missing}")),
                None => wait(&format!(
                    "paused (Suspended): {}; it continues when it is resumed",
                    words::of_health(self.live, "Suspended")
                )),
            },
            "Progressing" => match self.review().and_then(|review| review.missing()) {
                Some(missing) => wait(&format!("synced; rolling out: {missing}")),
                None => wait(&format!(
                    "synced; rolling out: {}",
                    words::of_health(self.live, "Progressing")
                )),
            },
            "Missing" => self.refresh(format!(
                "synced, but not there: {}",
                words::of_health(self.live, "Missing")
            )),
            "" => self.refresh("synced; its health is not known yet".to_owned()),
            other => wait(&format!(
                "synced; its health is {other}: {}",
                words::of_health(self.live, other)
            )),
        }
    }

    fn degraded_since(&self, times: Option<(Timestamp, Timestamp)>) -> Next {
        let why = self.degraded();
        let message = match &why {
            Degraded::Ours(failure) => failure.message.clone(),
            Degraded::Unknown(message) => message.clone(),
            Degraded::Neighbour if is_later(times) => return Next::Complete,
            Degraded::Neighbour => format!("Degraded: {}", self.neighbours().join("; ")),
        };
        if !is_later(times) {
            self.refresh(message)
        } else if self.expected.verify.fail_early {
            why.failure()
                .unwrap_or_else(|| failed(FailureReason::Degraded, &message))
        } else {
            wait(&message)
        }
    }

    /// Its pods run another digest of our image. Images without a digest prove nothing.
    pub(super) fn images(&self, floor: Timestamp) -> Option<Next> {
        let digests = running::digests_to_prove(self.expected)?;
        let restored = self.expected.restored.as_ref();
        let name = restored.map_or(&self.expected.image.name, |restored| &restored.image.name);
        let images = self.live.status.summary.images.iter();
        let same: Vec<Digest> = images
            .filter_map(|image| image.parse::<ImageRef>().ok())
            .filter(|image| image.name == *name)
            .filter_map(|image| image.digest)
            .collect();
        if same.is_empty() || same.iter().any(|digest| digests.contains(digest)) {
            return None;
        }
        let others: Vec<&str> = same.iter().map(Digest::as_str).collect();
        let wanted = running::any_of(digests, Digest::as_str);
        let message = format!("its pods run {name}@{}, and not {wanted}", others.join(", "));
        let compared = at(self.live.status.reconciled_at.as_ref());
        Some(if compared >= Some(floor + IMAGES_PATIENCE) {
            failed(FailureReason::WrongImage, &message)
        } else {
            self.refresh(message)
        })
    }
}

/// Within the second in which the sync ended, it may be the earlier health.
fn is_later(times: Option<(Timestamp, Timestamp)>) -> bool {
    times.is_none_or(|(floor, compared)| compared > floor)
}
