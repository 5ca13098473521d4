//! What a recorded change was to lead to, as far as the recording tells.

use slipway_model::{CommitSha, ImageRef, Timestamp};

use super::{
    One,
    ticks::{Seen, Tick},
};
use crate::{
    Applied, Expected, Managed, Verify, Workload,
    application::{Sync, WhenBlocked},
    created, deployment,
    replay::{
        oracle::Question,
        recording::{Recording, What},
    },
};

/// The id of the sync that the recording asks for.
const REPLAYED: &str = "replay/sync";

impl One {
    /// What the change that the tool watches was to lead to.
    pub(super) fn expected(&self, recording: &Recording, verify: Verify) -> Expected {
        let actions = || {
            let before = recording
                .lines
                .iter()
                .filter(|line| line.t_ms <= self.recorded.started);
            before.filter_map(|line| match &line.what {
                What::Action(action) => Some((line.t_ms, action)),
                _ => None,
            })
        };
        let of_git = matches!(self.question, Question::Application(..));
        let change = match of_git {
            true => actions().rfind(|(_, action)| action.revision().is_some()),
            false => actions().rfind(|(_, action)| action.image().is_some()),
        };
        let since = change.map_or(self.recorded.started, |(t, _)| t);
        let image = match of_git {
            true => self.image_of_managed(),
            false => change.and_then(|(_, action)| action.image()?.parse().ok()),
        };
        let image: Option<ImageRef> = image.or_else(|| self.image_at(self.recorded.started));
        let revision = change
            .and_then(|(_, action)| action.revision()?.parse::<CommitSha>().ok())
            .or_else(|| self.revision_at_end());
        let sync = revision.filter(|_| of_git).map(|revision| Sync {
            operation: REPLAYED.to_owned(),
            revision,
            lane: String::new(),
            descendants: Vec::new(),
            when_busy: WhenBlocked::Wait,
            when_closed: WhenBlocked::Wait,
            restores: false,
            require_synced: false,
        });
        let known = image.is_some();
        let mut expected = Expected {
            image: image.unwrap_or_else(nothing),
            verify: Verify {
                digest: verify.digest && known,
                ..verify
            },
            since: self.time(since),
            sync,
            ..nothing_expected()
        };
        expected.applied = self.applied(&expected, since);
        expected
    }

    /// The object as it was once the change had been written.
    fn applied(&self, expected: &Expected, since: i64) -> Applied {
        let metadata = self
            .ticks
            .iter()
            .filter(|tick| tick.t_ms >= since)
            .find_map(|tick| {
                let live = tick.workload()?;
                let template = live.template()?;
                let carries = !deployment::containers_with(Some(template), &expected.image).is_empty();
                carries.then(|| live.metadata().clone())
            });
        metadata.map_or_else(Applied::default, |metadata| Applied {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            created_at: created(&metadata),
            previous: None,
        })
    }

    pub(super) fn at(&self, t_ms: i64) -> Option<&Tick> {
        self.ticks.iter().rfind(|tick| tick.t_ms <= t_ms)
    }

    fn image_at(&self, t_ms: i64) -> Option<ImageRef> {
        first_image(self.at(t_ms)?.workload()?)
    }

    /// The image that the application's first workload had in the end.
    fn image_of_managed(&self) -> Option<ImageRef> {
        let Seen::Workload(observed) = &self.at(self.end())?.seen else {
            return None;
        };
        let Managed::Seen(all) = &observed.managed else {
            return None;
        };
        all.iter()
            .find_map(|one| first_image(one.observed.workload.as_ref()?))
    }

    fn revision_at_end(&self) -> Option<CommitSha> {
        match self.at(self.end())?.workload()? {
            Workload::Application(live) => live.status.sync.revision.parse().ok(),
            _ => None,
        }
    }
}

fn first_image(live: &Workload) -> Option<ImageRef> {
    let spec = live.template()?.spec.as_ref()?;
    spec.containers.first()?.image.as_deref()?.parse().ok()
}

pub(super) fn nothing_expected() -> Expected {
    Expected {
        image: nothing(),
        epoch: u64::MAX,
        applied: Applied::default(),
        verify: Verify::AS_KUBECTL,
        since: Timestamp::from_micros(0),
        sync: None,
        promotes: false,
        restored: None,
        moving_tag: false,
    }
}

/// Stands for an unreadable image, which is then not checked.
fn nothing() -> ImageRef {
    #[allow(clippy::expect_used)]
    "none".parse().expect("a name")
}
