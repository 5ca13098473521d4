//! Definitions of custom resources (CRDs) beside objects of the kinds that they define.

use std::time::Duration;

use kube::{Api, api::DynamicObject, core::GroupVersionKind};
use serde_json::Value;
use slipway_model::{Fault, Reason};
use tokio::time::Instant;

use super::manifests::Manifest;
use crate::{call, fault::refused};

/// An API server takes a second or two, one under load longer.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

/// The kinds that the definitions among the manifests define.
#[derive(Debug)]
pub(super) struct Definitions(Vec<GroupVersionKind>);

impl Definitions {
    pub(super) fn of(manifests: &[Manifest]) -> Self {
        let definitions = manifests.iter().filter(|one| is_definition(one));
        Self(definitions.flat_map(|one| defined(&one.object)).collect())
    }

    pub(super) fn define(&self, kind: &GroupVersionKind) -> bool {
        self.0.contains(kind)
    }
}

pub(super) fn is_definition(manifest: &Manifest) -> bool {
    manifest.kind.group == "apiextensions.k8s.io" && manifest.kind.kind == "CustomResourceDefinition"
}

fn defined(definition: &Value) -> Vec<GroupVersionKind> {
    let text = |value: &Value, pointer: &str| {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (group, kind) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/kind"),
    );
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    versions
        .into_iter()
        .flatten()
        .map(|version| GroupVersionKind::gvk(&group, &text(version, "/name"), &kind))
        .collect()
}

/// Waits until the API server serves what the definition defines.
///
/// # Errors
/// A permanent fault when it refuses the names.
pub(super) async fn established(api: &Api<DynamicObject>, manifest: &Manifest) -> Result<(), Fault<Reason>> {
    let end = Instant::now() + ESTABLISHED_WITHIN;
    loop {
        let live = call(&format!("read {manifest}"), api.get_opt(&manifest.name)).await?;
        let conditions = live
            .as_ref()
            .and_then(|live| live.data.pointer("/status/conditions"));
        let find = |kind: &str| {
            let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
            conditions.find(|one| one["type"] == kind)
        };
        if find("Established").is_some_and(|one| one["status"] == "True") {
            return Ok(());
        }
        if let Some(condition) = find("NamesAccepted").filter(|one| one["status"] == "False") {
            let why = condition["message"].as_str().unwrap_or("no reason given");
            return Err(refused(format!(
                "{manifest}: the cluster does not accept its names: {why}"
            )));
        }
        if Instant::now() >= end {
            let seconds = ESTABLISHED_WITHIN.as_secs();
            let words = format!("{manifest} was not established within {seconds} s");
            return Err(crate::fault::unavailable(words));
        }
        tokio::time::sleep(LOOK).await;
    }
}
