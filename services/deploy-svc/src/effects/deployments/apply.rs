//! Applies the change to the cluster: rendered manifests, or the one thing that the action asks for.

use deploy_domain::deployment::{Action, DeploymentRequest, Source};
use slipway_kubernetes::{
    Kubernetes,
    apply::{self, Write, manifests},
    restart, set_image, undo,
};
use slipway_model::{Fault, Reason};
use slipway_verdict::Applied;

use super::{DeploymentEffects, Run, of_step, own_trace, steps};

impl DeploymentEffects {
    /// Carries out the action. What was written before an error stays; repeating the call continues.
    pub(super) async fn apply(
        &self,
        cluster: &Kubernetes,
        run: &Run,
        request: &DeploymentRequest,
    ) -> Result<Applied, Fault<Reason>> {
        let write = Write {
            deployment: &run.id,
            target: &request.target,
            epoch: request.epoch,
            commit: request
                .source
                .as_ref()
                .map_or("", |source| source.commit.as_str()),
        };
        let written = match &request.action {
            Action::Apply => {
                let Some(source) = &request.source else {
                    let reason = Reason::new("NO_SOURCE", "there is no commit to apply; this is a defect");
                    return Err(Fault::Permanent(reason));
                };
                let objects = self.rendered(run, request, source).await?;
                steps::of_target(run, request, &objects).await;
                apply::apply(cluster, objects, &write).await
            }
            Action::Restart => restart::restart(cluster, &write).await,
            Action::SetImage => set_image::set_image(cluster, &write, &request.image_ref()).await,
            Action::Undo { to } => undo::undo(cluster, &write, to).await,
            Action::Sync { .. } | Action::Nothing => {
                let reason = Reason::new("INTERNAL", "this action is not a write; this is a defect");
                return Err(Fault::Permanent(reason));
            }
        };
        written.map_err(|fault| of_step(cluster, "APPLY_REFUSED", fault))
    }

    async fn rendered(
        &self,
        run: &Run,
        request: &DeploymentRequest,
        source: &Source,
    ) -> Result<Vec<manifests::Manifest>, Fault<Reason>> {
        let trace = run.traceparent.unwrap_or_else(|| own_trace(run));
        let yaml = self
            .manifests
            .render(&source.repository, &source.commit, &source.path, trace)
            .await?;
        manifests::parse(&yaml)
            .and_then(|objects| {
                match &request.restores {
                    Some(_) => manifests::find(&objects, &request.target).map(drop)?,
                    None => manifests::verify(&objects, &request.target, &request.image_ref())?,
                }
                let neighbours = request.shared.neighbours.iter();
                let neighbours: Vec<_> = neighbours.map(|neighbour| &neighbour.image).collect();
                let own = &request.images.only().repository;
                Ok(manifests::without_neighbours(
                    objects,
                    &request.target,
                    own,
                    &neighbours,
                ))
            })
            .map_err(|error| Fault::Permanent(Reason::new(error.code(), error.to_string())))
    }
}
