//! A release that is given commands, with a clock of its own.

use pretty_assertions::assert_eq;

use super::*;

/// A release with a clock that advances by a second with every command.
pub(super) struct Run {
    pub(super) id: Id,
    pub(super) state: ReleaseState,
    pub(super) now: Timestamp,
    /// Everything that happened.
    pub(super) events: Vec<ReleaseEvent>,
    pub(super) epoch: u64,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            id: "rel-1".parse().unwrap(),
            state: ReleaseState::default(),
            now: Timestamp::from_micros(0),
            events: Vec::new(),
            epoch: 0,
        }
    }

    pub(super) fn requested() -> Self {
        Self::by(CATALOG)
    }

    /// A release with another catalog.
    pub(super) fn by(catalog: &str) -> Self {
        let mut run = Self::new();
        run.tell(ReleaseCommand::Request(Box::new(request_by(catalog))));
        run
    }

    pub(super) fn tell(&mut self, command: ReleaseCommand) -> Vec<ReleaseEvent> {
        self.now = self.now + Duration::from_secs(1);
        let events = Release::decide(&self.id, &self.state, command, self.now).unwrap();
        for event in &events {
            let text = serde_json::to_string(event).unwrap();
            let read: ReleaseEvent = serde_json::from_str(&text).unwrap();
            assert_eq!(&read, event, "events survive their wire form");
            Release::evolve(&mut self.state, event, self.now);
        }
        self.events.extend(events.iter().cloned());
        events
    }

    pub(super) fn key(&self) -> EffectKey {
        let effects = Release::effects(&self.id, &self.state);
        let polls = Release::polls(&self.id, &self.state);
        effects
            .into_iter()
            .chain(polls)
            .next()
            .map(|(key, _)| key)
            .unwrap()
    }

    pub(super) fn active(&self) -> String {
        self.state
            .active_step()
            .map(|step| step.name.clone())
            .unwrap_or_default()
    }

    /// The backend of the active step accepts the order, and later ends it like this. Lanes are granted.
    pub(super) fn end(&mut self, step: &str, observation: Observation) {
        assert_eq!(self.active(), step);
        if let Some((kind, Some(environment))) =
            self.state.active_step().map(|step| (step.kind, step.environment))
            && kind == StepKind::Lane
        {
            self.epoch += 1;
            self.tell(ReleaseCommand::LaneGranted {
                environment,
                epoch: self.epoch,
            });
            return;
        }
        let waiting = Waiting::new(WaitingKind::Machine, "working");
        let reference = format!("ref-{step}").parse().unwrap();
        let observation_first = Observation::Pending(waiting);
        self.tell(ReleaseCommand::Started {
            key: self.key(),
            reference,
            observation: observation_first,
        });
        self.tell(ReleaseCommand::Observed {
            key: self.key(),
            observation,
        });
    }

    pub(super) fn succeed(&mut self, step: &str) {
        let facts = match step.rsplit('/').next().unwrap() {
            "build" => Facts::Built {
                images: images("b"),
                authors: vec!["dev@example.com".to_owned()],
            },
            "change" => change(Some(images("a")), false),
            "revert" => change(Some(images("b")), false),
            _ => Facts::None,
        };
        self.end(
            step,
            Observation::Succeeded {
                result: String::new(),
                facts,
            },
        );
    }

    /// The backend of the active step, which has begun, reports success.
    pub(super) fn succeed_running(&mut self) {
        self.tell(ReleaseCommand::Observed {
            key: self.key(),
            observation: Observation::Succeeded {
                result: String::new(),
                facts: Facts::None,
            },
        });
    }

    pub(super) fn fail(&mut self, step: &str, code: &str) {
        self.end(
            step,
            Observation::Failed(Reason::new(code, format!("{code} happened"))),
        );
    }

    pub(super) fn ended(&self) -> (ReleaseStatus, &str) {
        (
            self.state.status,
            self.state
                .reason
                .as_ref()
                .map_or("", |reason| reason.code.as_str()),
        )
    }
}
