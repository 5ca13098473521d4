//! What the cluster shows of one service in one environment now.

use std::time::Duration;

use deploy_domain::catalog::{Pauses, Target};
use k8s_openapi::api::apps::v1::Deployment as Primary;
use slipway_kubernetes::{Kubernetes, watch::View};
use slipway_model::{ImageName, ImageRef, Timestamp};
use slipway_proto::deploy::v1 as proto;
use slipway_server::{Action, ApiError, Caller, convert};
use slipway_verdict::{
    Applied, COMMIT, DEPLOYMENT, Expected, Verdict, Verify, Workload, annotation, created, epoch_of, pods,
};

use super::DeployApi;
use crate::api::convert::{service_and_environment, target_proto};

/// How long the shared watch may take to show a namespace that was not followed before.
const PATIENCE: Duration = Duration::from_secs(10);

impl DeployApi {
    /// Reads the target of the catalog through the shared watch, and judges it.
    pub(super) async fn live_state(
        &self,
        caller: &Caller,
        message: proto::GetLiveStateRequest,
    ) -> Result<proto::LiveState, ApiError> {
        caller.require(Action::Read, &message.service, &message.environment)?;
        let (service, environment) =
            service_and_environment(&self.catalog, &message.service, &message.environment)?;
        let target = &environment.target;
        let cluster = match self.clusters.get(&target.cluster) {
            Ok(cluster) => cluster,
            Err(unknown) => return Err(ApiError::precondition("UNKNOWN_CLUSTER", unknown)),
        };
        let view = look(cluster, target).await?;
        let promotes = environment.pauses == Pauses::Promote;
        let judged = Judged {
            target,
            image: &service.images.only().repository,
            verify: environment.verify,
            promotes,
        };
        Ok(state(&judged, &view, Timestamp::now()))
    }
}

async fn look(cluster: &Kubernetes, target: &Target) -> Result<View, ApiError> {
    let mut subscription = cluster.follow(target);
    let shown = async {
        loop {
            let view = subscription.view();
            if view.synced && view.fault.is_none() {
                return view;
            }
            subscription.changed().await;
        }
    };
    if let Ok(view) = tokio::time::timeout(PATIENCE, shown).await {
        return Ok(view);
    }
    let why = subscription.view().fault.map(|fault| fault.words);
    let why = why.unwrap_or_else(|| format!("no answer within {} s", PATIENCE.as_secs()));
    Err(ApiError::unavailable(format!(
        "cluster {} cannot be watched: {why}",
        cluster.name()
    )))
}

/// What the catalog says of it.
struct Judged<'a> {
    target: &'a Target,
    image: &'a ImageName,
    verify: Verify,
    promotes: bool,
}

/// Pure.
fn state(judged: &Judged<'_>, view: &View, now: Timestamp) -> proto::LiveState {
    use proto::live_state::Health;
    let shown = proto::LiveState {
        target: Some(target_proto(judged.target)),
        read_time: Some(convert::timestamp(now)),
        ..proto::LiveState::default()
    };
    let Some(live) = &view.observed.workload else {
        return proto::LiveState {
            health: Health::Missing.into(),
            message: "it is not there".to_owned(),
            ..shown
        };
    };
    let metadata = live.metadata();
    let images = images(live, view.observed.primary.as_deref());
    let verdict = slipway_verdict::judge(&as_it_is(judged, live, &images), &view.observed, now);
    let (health, message) = match verdict {
        Verdict::Complete => (Health::Complete, "rolled out and running".to_owned()),
        Verdict::Progressing { message, .. } => (Health::Progressing, message),
        Verdict::Failed(failure) => (Health::Failed, failure.message),
    };
    let current = slipway_verdict::current(live, &view.observed).pods;
    let ready = current.iter().filter(|pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one.type_ == "Ready" && one.status == "True")
    });
    let mut running_digests: Vec<String> = current
        .iter()
        .flat_map(|pod| pods::containers(pod))
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|status| {
            status
                .image_id
                .rsplit_once('@')
                .map(|(_, digest)| digest.to_owned())
        })
        .collect();
    running_digests.sort();
    running_digests.dedup();
    let text = |key| annotation(metadata, key).unwrap_or_default().to_owned();
    proto::LiveState {
        health: health.into(),
        message,
        images,
        running_digests,
        pods: count(current.len()),
        ready_pods: count(ready.count()),
        deployment_id: text(DEPLOYMENT),
        epoch: epoch_of(metadata),
        commit: text(COMMIT),
        ..shown
    }
}

/// What a deployment that had written the object as it is would expect.
fn as_it_is(judged: &Judged<'_>, live: &Workload, images: &[String]) -> Expected {
    let metadata = live.metadata();
    let mut parsed = images.iter().filter_map(|image| image.parse::<ImageRef>().ok());
    let image = parsed
        .clone()
        .find(|image| image.digest.is_some())
        .or_else(|| parsed.next());
    let named_by_digest = image.as_ref().is_some_and(|image| image.digest.is_some());
    Expected {
        image: image.unwrap_or_else(|| ImageRef {
            name: judged.image.clone(),
            tag: None,
            digest: None,
        }),
        epoch: epoch_of(metadata),
        applied: Applied {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            created_at: created(metadata),
            previous: None,
        },
        verify: Verify {
            digest: judged.verify.digest && named_by_digest,
            ..judged.verify
        },
        since: created(metadata).unwrap_or_else(|| Timestamp::from_micros(0)),
        sync: None,
        promotes: judged.promotes,
        restored: None,
        // What is judged is what the template names.
        moving_tag: false,
    }
}

/// Of the template's containers, or those that Argo CD found; for a Canary what serves, its primary.
fn images(live: &Workload, primary: Option<&Primary>) -> Vec<String> {
    let template = match live {
        Workload::Application(live) => return live.status.summary.images.clone(),
        Workload::Canary(_) => primary
            .and_then(|one| one.spec.as_ref())
            .map(|spec| &spec.template),
        _ => live.template(),
    };
    let containers = template.and_then(|template| template.spec.as_ref());
    let containers = containers
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    containers
        .iter()
        .filter_map(|container| container.image.clone())
        .collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
