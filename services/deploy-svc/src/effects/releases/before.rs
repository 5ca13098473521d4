//! Records what the target runs, before a commit changes anything: files that name an image by tag do not say it.

use deploy_domain::release::{Release, ReleaseCommand};
use slipway_kubernetes::{Clusters, before};
use slipway_ledger::EffectRun;
use slipway_model::{Fault, Reason};

use super::{actor, passing};
use crate::backends::steps::Order;

/// Records it once. What cannot be read for good is left out: the deployment will say why.
pub(super) async fn record(
    clusters: &Clusters,
    run: &EffectRun<Release>,
    order: Order<'_>,
) -> Result<(), Fault<Reason>> {
    let Some((index, planned)) = order.environment else {
        return Ok(());
    };
    let progress = order.state.environments.get(index);
    if progress.is_none_or(|progress| progress.before.is_some()) {
        return Ok(());
    }
    let Ok(cluster) = clusters.get(&planned.target.cluster) else {
        return Ok(());
    };
    let before = match before::record(cluster, &planned.target).await {
        Ok(before) => before,
        Err(Fault::Permanent(error)) => {
            tracing::warn!(release = %run.id, target = %planned.target, code = error.code, %error, "what runs was not recorded");
            return Ok(());
        }
        Err(Fault::Transient { error, .. }) => {
            let words = format!("cluster {}: {}", planned.target.cluster, error.message);
            return Err(Fault::unavailable(error.code, words));
        }
    };
    let command = ReleaseCommand::Recorded {
        key: run.key.clone(),
        before,
    };
    let told = run.tell(command, actor()).await;
    told.map(drop).map_err(passing)
}
