//! The four services with backends that answer at once, so that only the cost of the suite itself is measured: no
//! commit is fetched and no image built, nothing is pushed and no cluster asked. Everything else is as in production.

use std::{process::ExitCode, sync::Arc};

use async_trait::async_trait;
use build_domain::build::{Build, Command};
use gitops_domain::change::Outcome;
use gitops_svc::testing::Pusher;
use sha2::{Digest as _, Sha256};
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, Id, Reason, TraceId};

#[path = "../../../../services/deploy-svc/tests/at_once/mod.rs"]
mod at_once;

/// The whole program of one of the services.
pub(crate) fn serve(service: &str) -> ExitCode {
    const ABOUT: &str = "Serves with backends that answer at once, for measurements";
    match service {
        "build-svc" => slipway_server::main("build-svc", ABOUT, async |config, wiring, shutdown| {
            build_svc::testing::run_with(Arc::new(Builds), config, wiring, shutdown).await
        }),
        "gitops-svc" => slipway_server::main("gitops-svc", ABOUT, async |config, wiring, shutdown| {
            gitops_svc::testing::run_with(Arc::new(Pushes), config, wiring, shutdown).await
        }),
        "approval-svc" => slipway_server::main("approval-svc", ABOUT, approval_svc::run),
        "deploy-svc" => slipway_server::main("deploy-svc", ABOUT, async |config, wiring, shutdown| {
            let effects = Arc::new(at_once::AtOnce { beside: None });
            Box::pin(deploy_svc::testing::run_with(effects, config, wiring, shutdown)).await
        }),
        other => {
            eprintln!("{other:?} is not one of the services");
            ExitCode::from(2)
        }
    }
}

/// The image has a digest that follows from its name and the commit.
struct Builds;

#[async_trait]
impl Effects<Build> for Builds {
    async fn perform(&self, run: EffectRun<Build>) -> Result<Option<Command>, Reason> {
        Ok(built(&run))
    }

    fn actor(&self) -> Actor {
        Actor::system("build")
    }
}

fn built(run: &EffectRun<Build>) -> Option<Command> {
    let state = &run.snapshot.state;
    let recipe = &state.request.as_ref()?.recipe;
    let requested_at = state.requested_at.unwrap_or(run.snapshot.created_at);
    let hash = Sha256::digest(format!("{}\n{}\n", recipe.image, recipe.commit));
    Some(Command::Finished {
        key: run.key.clone(),
        digest: format!("sha256:{}", hex::encode(hash)).parse().ok()?,
        tags: recipe
            .tags(requested_at)
            .into_iter()
            .map(|wanted| wanted.tag)
            .collect(),
    })
}

/// Each change is a commit that follows from its id.
#[derive(Debug)]
struct Pushes;

#[async_trait]
impl Pusher for Pushes {
    async fn push(&self, changes: Vec<Id>) -> Vec<(Id, Outcome)> {
        let pushed = changes.into_iter().map(|id| {
            let text = TraceId::derived(&["change", id.as_str()]).to_string();
            let commit: String = text.chars().cycle().take(40).collect();
            let outcome = Outcome::Pushed {
                commit: commit.parse().unwrap(),
                differences: Vec::new(),
                attempts: 1,
                not_rendered: String::new(),
            };
            (id, outcome)
        });
        pushed.collect()
    }
}
