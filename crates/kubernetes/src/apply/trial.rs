//! Whether Flagger will try what is applied. It compares the pod template of the Canary's target, and the ConfigMaps and
//! Secrets that this uses, with what it saw last. A version that it rolled back is not tried again while they stay the
//! same, so waiting for it would be in vain.

use kube::{Api, ResourceExt, api::DynamicObject};
use serde_json::Value;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Target, WorkloadKind};

use super::manifests::Manifest;
use crate::{call, fault};

/// A Canary whose version was rolled back: what it is compared by, as it was before the write.
#[derive(Debug)]
pub(super) struct Trial {
    before: Vec<(String, Value)>,
    changed: bool,
}

impl Trial {
    /// `None` if Flagger tries whatever comes, or has nothing to try.
    ///
    /// # Errors
    /// When the API server cannot be asked or refuses.
    pub(super) async fn of(
        objects: &[(Option<Api<DynamicObject>>, Manifest)],
        target: &Target,
    ) -> Result<Option<Self>, Fault<Reason>> {
        if target.kind != WorkloadKind::Canary {
            return Ok(None);
        }
        let Some((Some(api), canary)) = objects.iter().find(|(_, one)| one.is_target(target)) else {
            return Ok(None);
        };
        let live = call(&format!("read {canary}"), api.get_opt(&canary.name)).await?;
        if !live.is_some_and(|live| was_rolled_back(&live.data)) {
            return Ok(None);
        }
        let mut before = Vec::new();
        for (api, manifest) in objects {
            if let Some(api) = api
                && matters(manifest, canary)
            {
                let live = call(&format!("read {manifest}"), api.get_opt(&manifest.name)).await?;
                let compared = live.map_or(Value::Null, |live| compared(&live));
                before.push((manifest.to_string(), compared));
            }
        }
        Ok(Some(Self {
            before,
            changed: false,
        }))
    }

    /// One of the objects is written.
    pub(super) fn written(&mut self, manifest: &Manifest, written: &DynamicObject) {
        let name = manifest.to_string();
        if let Some((_, before)) = self.before.iter().find(|(known, _)| *known == name) {
            self.changed |= *before != compared(written);
        }
    }

    /// All are written.
    ///
    /// # Errors
    /// With the code [`fault::ALREADY_FAILED`] when none has changed.
    pub(super) fn end(self, target: &Target) -> Result<(), Fault<Reason>> {
        if self.changed {
            return Ok(());
        }
        Err(Fault::refused(
            fault::ALREADY_FAILED,
            format!(
                "Canary {}: Flagger has rolled this version back already, and never tries an unchanged pod template \
                 again: change the template (an annotation in it is enough), or release another version",
                target.name
            ),
        ))
    }
}

/// Flagger's last run failed, and was about what the target's template says. After a rollback in git the two hashes are
/// the same.
fn was_rolled_back(canary: &Value) -> bool {
    let text = |field: &str| {
        let value = canary.pointer(&format!("/status/{field}"));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let tried = text("lastAppliedSpec");
    text("phase") == "Failed" && !tried.is_empty() && tried != text("lastPromotedSpec")
}

fn matters(manifest: &Manifest, canary: &Manifest) -> bool {
    let of = |field: &str| {
        let value = canary.object.pointer(&format!("/spec/targetRef/{field}"));
        value.and_then(Value::as_str)
    };
    let is_tried =
        of("kind") == Some(manifest.kind.kind.as_str()) && of("name") == Some(manifest.name.as_str());
    is_tried
        || (manifest.kind.group.is_empty() && matches!(manifest.kind.kind.as_str(), "ConfigMap" | "Secret"))
}

fn compared(object: &DynamicObject) -> Value {
    let of = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
    // An object that somebody made anew has to be tried as well.
    let uid = object.uid().unwrap_or_default();
    Value::Array(vec![
        uid.into(),
        of("/spec/template"),
        of("/data"),
        of("/binaryData"),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::was_rolled_back;

    #[test]
    fn only_a_failed_run_about_another_version_than_the_promoted_one_counts() {
        for (status, wanted) in [
            (
                json!({"phase": "Failed", "lastAppliedSpec": "7b", "lastPromotedSpec": "5c"}),
                true,
            ),
            (
                json!({"phase": "Failed", "lastAppliedSpec": "5c", "lastPromotedSpec": "5c"}),
                false,
            ),
            (
                json!({"phase": "Succeeded", "lastAppliedSpec": "7b", "lastPromotedSpec": "5c"}),
                false,
            ),
            (json!({"phase": "Failed"}), false),
            (json!(null), false),
        ] {
            assert_eq!(was_rolled_back(&json!({"status": status})), wanted, "{status}");
        }
    }
}
