//! Whether the time that the catalog gives a deployment suffices for the steps of its canary.

use serde_json::Value;
use slipway_check::{Fault, Faults};
use slipway_model::{Name, duration};
use slipway_verdict::{WorkloadKind, steps};

use super::{Catalog, Environment, GitOps, Pauses, Timeouts};

impl Catalog {
    /// The environments whose `timeout.deploy` is written and shorter than the steps of their Rollout or Canary. `objects`
    /// has the manifests of an environment's folder, as far as they are known.
    pub fn too_short(&self, objects: impl Fn(&GitOps) -> Vec<Value>) -> Vec<Fault> {
        let mut faults = Faults::default();
        for service in self.services() {
            for environment in &service.environments {
                check(&service.name, environment, &objects, &mut faults);
            }
        }
        faults.into_vec()
    }
}

fn check(
    service: &Name,
    environment: &Environment,
    objects: impl Fn(&GitOps) -> Vec<Value>,
    faults: &mut Faults,
) {
    let has_steps = environment.target.kind.may_have_steps();
    let Some(gitops) = environment.gitops.as_ref().filter(|_| has_steps) else {
        return;
    };
    let timeout = environment.timeout;
    if timeout.follows_steps {
        return;
    }
    let objects = objects(gitops);
    let counts = |object: &&Value| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let paced = matches!(text("/kind"), Some("Rollout" | "Canary"));
        let whole = environment.target.kind == WorkloadKind::Application;
        !paced || whole || text("/metadata/name") == Some(&environment.target.name)
    };
    let steps = steps::of(
        &objects.iter().filter(counts),
        environment.pauses == Pauses::Promote,
    );
    if steps.time > timeout.deploy {
        faults.add(
            format!("services.{service}.environments.{}.timeout.deploy", environment.name),
            format!(
                "is {}, and the rollout has {}: it would be put back before it ends; write at least {}, or leave it out",
                duration::print(timeout.deploy),
                steps.words(),
                duration::print(Timeouts::default().deploy.saturating_add(steps.room()))
            ),
        );
    }
}
