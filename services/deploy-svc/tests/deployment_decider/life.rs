//! A deployment under test, with its clock.

use std::time::Duration;

use deploy_domain::{
    catalog::{Target, Verify, WorkloadKind},
    deployment::{
        Action, Deployment, DeploymentCommand as Command, DeploymentEffect as Effect,
        DeploymentEvent as Event, DeploymentRefusal, DeploymentRequest, DeploymentState, Reason, Source,
    },
    result::CheckResult,
};
use slipway_ledger::{Decider, EffectKey};
use slipway_model::{Actor, Authentication, Id, Image, Images, Principal, Timestamp};
use slipway_verdict::{Applied, evidence::PodEvidence};

pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

pub(crate) fn id() -> Id {
    "dep-1".parse().unwrap()
}

pub(crate) fn request(checks: bool) -> DeploymentRequest {
    let check =
        serde_json::json!({"name": "health", "http": {"service": "shop", "port": "http", "path": "/health"}});
    DeploymentRequest {
        service: "shop".parse().unwrap(),
        environment: "dev".parse().unwrap(),
        target: Target {
            cluster: "local".parse().unwrap(),
            namespace: "dev".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "shop".to_owned(),
        },
        images: Images::one(Image {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
            digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
            tags: Vec::new(),
        }),
        source: Some(Source {
            repository: "platform".parse().unwrap(),
            path: "apps/shop/overlays/dev".to_owned(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        }),
        epoch: 7,
        action: Action::Apply,
        jobs: Default::default(),
        bake: None,
        pauses: Default::default(),
        create_namespace: false,
        restores: None,
        follows_steps: false,
        rolls_back: None,
        reverts: None,
        checks: if checks {
            vec![serde_json::from_value(check).unwrap()]
        } else {
            Vec::new()
        },
        verify: Verify::default(),
        timeout: Duration::from_secs(600),
        correlation_id: "rel-1".to_owned(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        requested_by: Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        shared: Default::default(),
        holds_lane: false,
    }
}

pub(crate) fn check(passed: bool) -> CheckResult {
    CheckResult {
        name: "health".parse().unwrap(),
        passed,
        attempts: 10,
        last_answer: "GET /health: 503 \"no\", expected 200".to_owned(),
    }
}

pub(crate) fn pod() -> PodEvidence {
    PodEvidence {
        pod: "shop-7d9-abc".to_owned(),
        container: "app".to_owned(),
        state: "CrashLoopBackOff".to_owned(),
        exit_code: Some(1),
        log_tail: vec!["panic".to_owned()],
        previous_log_tail: Vec::new(),
        events: vec!["Warning BackOff (3x): Back-off restarting failed container".to_owned()],
        ..PodEvidence::default()
    }
}

/// Why the remote system cannot be asked.
pub(crate) fn away(words: &str) -> Reason {
    Reason::new("CLUSTER_UNAVAILABLE", words)
}

pub(crate) fn reason() -> Reason {
    Reason::new(
        "CRASH_LOOP",
        "pod shop-7d9-abc: CrashLoopBackOff, exit code 1, 3 restarts",
    )
}

/// A deployment under test, with its clock.
pub(crate) struct Life {
    pub(crate) state: DeploymentState,
    pub(crate) now: Timestamp,
}

impl Life {
    pub(crate) fn new(request: DeploymentRequest) -> Self {
        let mut life = Self {
            state: DeploymentState::default(),
            now: START,
        };
        life.tell(Command::Request(Box::new(request)));
        life
    }

    pub(crate) fn tell(&mut self, command: Command) -> Vec<Event> {
        self.try_tell(command).unwrap()
    }

    /// As `tell`, for commands that may be refused.
    pub(crate) fn try_tell(&mut self, command: Command) -> Result<Vec<Event>, DeploymentRefusal> {
        let events = Deployment::decide(&id(), &self.state, command, self.now)?;
        for event in &events {
            Deployment::evolve(&mut self.state, event, self.now);
        }
        Ok(events)
    }

    pub(crate) fn key(&self) -> EffectKey {
        self.state.key()
    }

    pub(crate) fn effects(&self) -> Vec<Effect> {
        let effects = Deployment::effects(&id(), &self.state);
        effects.into_iter().map(|(_, effect)| effect).collect()
    }

    /// The only one, or none.
    pub(crate) fn effect(&self) -> Option<Effect> {
        let effects = self.effects();
        assert!(effects.len() <= 1, "{effects:?}");
        effects.first().copied()
    }

    pub(crate) fn words(&self) -> &str {
        self.state
            .reason
            .as_ref()
            .map_or("", |reason| reason.message.as_str())
    }

    pub(crate) fn applied(mut self) -> Self {
        let applied = Applied {
            uid: "u-1".to_owned(),
            generation: 3,
            created_at: Some(START),
            previous: None,
        };
        self.tell(Command::Applied {
            key: self.key(),
            applied,
        });
        self
    }

    pub(crate) fn rolled_out(mut self) -> Self {
        self.tell(Command::RolledOut { key: self.key() });
        self
    }

    /// Lets the time pass to the next timer, and fires it.
    pub(crate) fn wake(&mut self) -> Vec<Event> {
        self.now = Deployment::wake_at(&self.state).expect("a timer");
        self.tell(Command::Wake)
    }

    pub(crate) fn reason(&self) -> &str {
        self.state
            .reason
            .as_ref()
            .map_or("", |reason| reason.code.as_str())
    }
}
