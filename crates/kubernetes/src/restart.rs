//! `kubectl rollout restart`: all pods of a workload are recreated, from the same template except for an annotation.

use serde_json::{Value, json};
use slipway_model::{Fault, Reason, Timestamp};
use slipway_verdict::{Applied, WorkloadKind};

use crate::{
    Kubernetes,
    apply::Write,
    fault::refused,
    live::{Change, applied, change, mark, written_by},
};

/// Annotation of the template with the time of the last restart; kubectl's own, so that both agree.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// A separate manager: applying manifests must not remove the annotation, which would be another restart.
const FIELD_MANAGER: &str = "slipway-restart";

/// Restarts the target. Repeating it for the same deployment changes nothing.
///
/// # Errors
/// Refused if it does not exist, is paused, or is of a kind that cannot be restarted.
pub async fn restart(cluster: &Kubernetes, write: &Write<'_>) -> Result<Applied, Fault<Reason>> {
    let target = write.target;
    let object = format!("{} {}", target.kind, target.name);
    if !matches!(
        target.kind,
        WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet
    ) {
        return Err(refused(format!(
            "{object}: only a Deployment, StatefulSet or DaemonSet can be restarted"
        )));
    }
    let now = Timestamp::now().to_string();
    let written = change(cluster, write, FIELD_MANAGER, |mut live| {
        let (object, now) = (object.clone(), now.clone());
        async move {
            if written_by(&live, write) {
                return Ok(Change::None(live));
            }
            if live.data.pointer("/spec/paused") == Some(&Value::Bool(true)) {
                return Err(refused(format!(
                    "{object} is paused, so a restart would do nothing: kubectl rollout resume it first"
                )));
            }
            let Some(template) = live
                .data
                .pointer_mut("/spec/template")
                .filter(|value| value.is_object())
            else {
                return Err(refused(format!("{object} has no pod template")));
            };
            let annotations = &mut template["metadata"]["annotations"];
            if !annotations.is_object() {
                *annotations = json!({});
            }
            annotations[RESTARTED_AT] = json!(now);
            mark(&mut live, write);
            Ok(Change::Replace(live))
        }
    })
    .await?;
    Ok(applied(&written, None))
}
