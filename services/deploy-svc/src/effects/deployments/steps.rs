//! Finds out, before a canary begins, how long its steps take: from the rendered manifests, or, where they cannot be
//! rendered here, from the cluster. It is recorded with the deployment, whose deadline follows from it.

use deploy_domain::{
    catalog::Pauses,
    deployment::{DeploymentCommand, DeploymentRequest},
};
use serde_json::Value;
use slipway_kubernetes::{
    Kubernetes,
    apply::manifests::{self, Manifest},
    steps,
};
use slipway_model::Actor;
use slipway_verdict::{Workload, steps::Steps};

use super::{DeploymentEffects, Run, own_trace};

/// Records the steps of the target among the rendered objects.
pub(super) async fn of_target(run: &Run, request: &DeploymentRequest, objects: &[Manifest]) {
    let counts = |one: &&Manifest| {
        one.is_target(&request.target)
            || matches!(
                one.kind.kind.as_str(),
                "AnalysisTemplate" | "ClusterAnalysisTemplate"
            )
    };
    let objects = objects.iter().filter(counts).map(|one| &one.object);
    record(run, request, objects).await;
}

impl DeploymentEffects {
    /// Records the steps of the canaries in an Application, where its deadline follows from them.
    pub(super) async fn steps_of_application(
        &self,
        cluster: &Kubernetes,
        run: &Run,
        request: &DeploymentRequest,
    ) {
        if !request.follows_steps || !run.snapshot.state.deadline_basis.is_empty() {
            return;
        }
        match self.rendered_application(run, request).await {
            Some(objects) => {
                let neighbours = request.shared.neighbours.iter();
                let neighbours: Vec<_> = neighbours.map(|neighbour| &neighbour.image).collect();
                let own = &request.images.only().repository;
                let objects = manifests::without_neighbours(objects, &request.target, own, &neighbours);
                record(run, request, objects.iter().map(|one| &one.object)).await;
            }
            None => {
                if let Ok(Some(Workload::Application(live))) = cluster.read(&request.target).await {
                    let objects = steps::objects(cluster, &live).await;
                    record(run, request, objects.iter()).await;
                }
            }
        }
    }

    /// `None` where the folder is not one that gitops-svc renders, such as a chart.
    async fn rendered_application(&self, run: &Run, request: &DeploymentRequest) -> Option<Vec<Manifest>> {
        let source = request.source.as_ref()?;
        let trace = run.traceparent.unwrap_or_else(|| own_trace(run));
        let rendered = self
            .manifests
            .render(&source.repository, &source.commit, &source.path, trace)
            .await;
        match rendered {
            Ok(yaml) => manifests::parse(&yaml).ok(),
            Err(fault) => {
                tracing::debug!(deployment = %run.id, %fault, "the Application's folder is not rendered");
                None
            }
        }
    }
}

async fn record<'a>(
    run: &Run,
    request: &DeploymentRequest,
    objects: impl Iterator<Item = &'a Value> + Clone,
) {
    let steps: Steps = slipway_verdict::steps::of(&objects, request.pauses == Pauses::Promote);
    if steps.is_empty() {
        return;
    }
    let key = run.key.clone();
    let command = DeploymentCommand::StepsKnown { key, steps };
    if let Err(error) = run.tell(command, Actor::system("deploy")).await {
        tracing::warn!(deployment = %run.id, %error, "the steps of the canary were not recorded");
    }
}
