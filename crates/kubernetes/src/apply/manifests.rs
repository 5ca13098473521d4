//! The rendered YAML, taken apart: which objects, in which order, and whether they contain what is to be deployed.

use std::fmt;

use kube::core::GroupVersionKind;
use serde_json::Value;
use slipway_model::{ImageName, ImageRef};

use slipway_verdict::{Target, cut};

/// The maximum number of objects in one rendering.
const MAX_OBJECTS: usize = 500;

/// One object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub kind: GroupVersionKind,
    pub name: String,
    /// As written; if absent, the target's is used.
    pub namespace: Option<String>,
    pub object: Value,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind, self.name)
    }
}

/// Why rendered manifests are not what is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the rendered manifests are not valid: {0}")]
    Invalid(String),
    #[error("{target} is not among the rendered objects: {}", list(.found))]
    TargetNotRendered { target: String, found: Vec<String> },
    #[error("{target} is rendered with {}, and {wanted} is to be deployed: does the commit hold that image?", list(.found))]
    ImageMismatch {
        target: String,
        wanted: String,
        found: Vec<String>,
    },
}

impl ManifestError {
    /// As used in `reason.code`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "RENDERED_MANIFESTS_INVALID",
            Self::TargetNotRendered { .. } => "TARGET_NOT_RENDERED",
            Self::ImageMismatch { .. } => "RENDERED_IMAGE_MISMATCH",
        }
    }
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names {
        [] => "there are none".to_owned(),
        names if names.len() > SHOWN => {
            format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN)
        }
        names => names.join(", "),
    }
}

impl Manifest {
    /// Whether this is the workload that is deployed.
    pub fn is_target(&self, target: &Target) -> bool {
        let (group, _) = target.kind.api_version().split_once('/').unwrap_or_default();
        self.kind.group == group
            && self.kind.kind == target.kind.as_str()
            && self.name == target.name
            && self
                .namespace
                .as_deref()
                .is_none_or(|namespace| namespace == target.namespace.as_str())
    }

    /// What others depend on comes first: in short, the order that kustomize and Helm use.
    pub fn rank(&self) -> u8 {
        match self.kind.kind.as_str() {
            "Namespace" => 0,
            "CustomResourceDefinition" => 1,
            "ResourceQuota" | "LimitRange" | "PriorityClass" | "StorageClass" => 2,
            "ServiceAccount" => 3,
            "Role" | "ClusterRole" => 4,
            "RoleBinding" | "ClusterRoleBinding" => 5,
            "ConfigMap" | "Secret" => 6,
            "PersistentVolume" | "PersistentVolumeClaim" => 7,
            "Service" => 8,
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" => 10,
            "Ingress" | "HorizontalPodAutoscaler" | "PodDisruptionBudget" => 11,
            _ => 9,
        }
    }

    /// The images of the containers in this workload's template.
    fn images(&self) -> Vec<String> {
        let containers = self
            .object
            .pointer("/spec/template/spec/containers")
            .and_then(Value::as_array);
        let images = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container.get("image"));
        images.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

impl Manifest {
    /// Whether any container of its pods runs this image, in whichever version.
    fn runs(&self, image: &ImageName) -> bool {
        let pods = [
            "/spec/template/spec",
            "/spec/jobTemplate/spec/template/spec",
            "/spec",
        ];
        let containers = pods.into_iter().flat_map(|pod| {
            ["containers", "initContainers"]
                .into_iter()
                .filter_map(move |key| self.object.pointer(&format!("{pod}/{key}"))?.as_array())
                .flatten()
        });
        let mut images = containers.filter_map(|container| container.get("image")?.as_str());
        images.any(|text| text.parse::<ImageRef>().is_ok_and(|found| found.name == *image))
    }
}

/// Leaves out the workloads that run an image of another service and none of this one: in a folder that several
/// services share, each deploys its own. The target and everything without such an image stay.
pub fn without_neighbours(
    manifests: Vec<Manifest>,
    target: &Target,
    own: &ImageName,
    neighbours: &[&ImageName],
) -> Vec<Manifest> {
    let stays = |one: &Manifest| {
        one.is_target(target) || one.runs(own) || !neighbours.iter().any(|image| one.runs(image))
    };
    manifests.into_iter().filter(stays).collect()
}

/// Reads a stream of YAML documents; a `List` counts as its items.
///
/// # Errors
/// [`ManifestError::Invalid`], naming the object.
pub fn parse(yaml: &str) -> Result<Vec<Manifest>, ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|error| ManifestError::Invalid(cut(&error.to_string())))?;
    let mut manifests = Vec::new();
    for document in documents {
        take(document, &mut manifests)?;
    }
    if manifests.len() > MAX_OBJECTS {
        return Err(ManifestError::Invalid(format!(
            "{} objects, at most {MAX_OBJECTS}",
            manifests.len()
        )));
    }
    Ok(manifests)
}

fn take(document: Value, manifests: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    if document.is_null() {
        return Ok(());
    }
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    if version.is_empty() || kind.is_empty() {
        return Err(ManifestError::Invalid(
            "an object has no apiVersion or no kind".to_owned(),
        ));
    }
    if kind.ends_with("List") && document.get("items").is_some_and(Value::is_array) {
        let items = document
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        return items.into_iter().try_for_each(|item| take(item, manifests));
    }
    if name.is_empty() {
        return Err(ManifestError::Invalid(format!("a {kind} has no metadata.name")));
    }
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let namespace = Some(text("/metadata/namespace")).filter(|namespace| !namespace.is_empty());
    let twice = |other: &Manifest| other.kind == kind && other.name == name && other.namespace == namespace;
    if manifests.iter().any(twice) {
        return Err(ManifestError::Invalid(format!(
            "{} {name} is defined twice",
            kind.kind
        )));
    }
    manifests.push(Manifest {
        kind,
        name,
        namespace,
        object: document,
    });
    Ok(())
}

/// The images of the target's own template, or of the one that it refers to: a Canary and sometimes a Rollout are about
/// another workload.
fn images(manifests: &[Manifest], workload: &Manifest) -> Vec<String> {
    let referred = ["/spec/targetRef", "/spec/workloadRef"]
        .iter()
        .find_map(|pointer| workload.object.pointer(pointer));
    let text = |key| referred.and_then(|referred| referred.get(key)?.as_str());
    let (Some(kind), Some(name)) = (text("kind"), text("name")) else {
        return workload.images();
    };
    let own = manifests
        .iter()
        .filter(|one| one.kind.kind == kind && one.name == name && one.namespace == workload.namespace);
    own.flat_map(Manifest::images).collect()
}

/// The target among them.
///
/// # Errors
/// [`ManifestError::TargetNotRendered`], naming what is there instead.
pub fn find<'a>(manifests: &'a [Manifest], target: &Target) -> Result<&'a Manifest, ManifestError> {
    let found = manifests.iter().find(|manifest| manifest.is_target(target));
    found.ok_or_else(|| ManifestError::TargetNotRendered {
        target: format!(
            "{} {} in namespace {}",
            target.kind, target.name, target.namespace
        ),
        found: manifests.iter().map(ToString::to_string).collect(),
    })
}

/// Checks that the target is among them and will run exactly this image.
///
/// # Errors
/// [`ManifestError`], naming what is there instead.
pub fn verify(manifests: &[Manifest], target: &Target, image: &ImageRef) -> Result<(), ManifestError> {
    let workload = find(manifests, target)?;
    let images = images(manifests, workload);
    let wanted = |text: &String| {
        text.parse::<ImageRef>()
            .is_ok_and(|found| found.name == image.name && found.digest == image.digest)
    };
    if images.iter().any(wanted) {
        Ok(())
    } else {
        Err(ManifestError::ImageMismatch {
            target: workload.to_string(),
            wanted: image.to_string(),
            found: images,
        })
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::{ImageName, ImageRef};

    use super::{ManifestError, parse, verify, without_neighbours};
    use slipway_verdict::{Target, WorkloadKind};

    const YAML: &str = "
apiVersion: v1
kind: Service
metadata:
  name: shop
  namespace: dev
spec:
  ports: [{port: 80}]
---
# nothing here
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  namespace: dev
spec:
  template:
    spec:
      containers:
        - name: proxy
          image: registry.example/proxy:1
        - name: app
          image: registry.example/shop:1a2b3c4@sha256:abababababababababababababababababababababababababababababababab
";

    fn target(name: &str) -> Target {
        Target {
            cluster: "local".parse().unwrap(),
            namespace: "dev".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: name.to_owned(),
        }
    }

    fn image(byte: &str) -> ImageRef {
        format!("registry.example/shop@sha256:{}", byte.repeat(32))
            .parse()
            .unwrap()
    }

    #[test]
    fn documents_become_objects_in_the_order_of_need() {
        let mut manifests = parse(YAML).unwrap();
        manifests.sort_by_key(super::Manifest::rank);
        let names: Vec<String> = manifests.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Service shop", "Deployment shop"]);
        let list =
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n";
        assert_eq!(parse(list).unwrap()[0].to_string(), "ConfigMap a");
    }

    #[test]
    fn the_target_must_be_there_with_the_wanted_image() {
        let manifests = parse(YAML).unwrap();
        verify(&manifests, &target("shop"), &image("ab")).unwrap();
        let error = verify(&manifests, &target("shop"), &image("cd")).unwrap_err();
        assert_eq!(error.code(), "RENDERED_IMAGE_MISMATCH");
        let words = error.to_string();
        assert!(
            words.contains(&image("cd").to_string()) && words.contains("registry.example/shop:1a2b3c4@"),
            "{words}"
        );
        let error = verify(&manifests, &target("till"), &image("ab")).unwrap_err();
        assert_eq!(error.code(), "TARGET_NOT_RENDERED");
        assert!(
            error.to_string().contains("Service shop, Deployment shop"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (yaml, words) in [
            ("a: [", "not valid"),
            ("just text", "no apiVersion"),
            ("apiVersion: v1\nkind: Service\nmetadata: {}", "no metadata.name"),
            (
                "{apiVersion: v1, kind: A, metadata: {name: a}}\n---\n{apiVersion: v1, kind: A, metadata: {name: a}}",
                "twice",
            ),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(matches!(error, ManifestError::Invalid(_)));
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_neighbours_workloads_are_left_to_its_own_deployments() {
        let yaml = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: payment}
spec: {template: {spec: {containers: [{name: app, image: registry.example/payment:1}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: campaign}
spec: {template: {spec: {containers: [{name: app, image: 'registry.example/campaign@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: both}
spec:
  template:
    spec:
      initContainers: [{name: migrate, image: registry.example/payment:1}]
      containers: [{name: app, image: registry.example/campaign:2}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: mails}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: app, image: registry.example/campaign:2}]}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache}
spec: {template: {spec: {containers: [{name: app, image: redis:7}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
";
        let image = |text: &str| text.parse::<ImageName>().unwrap();
        let target = |name: &str| Target {
            cluster: "main".parse().unwrap(),
            namespace: "shop".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: name.to_owned(),
        };
        let left = |name: &str, own: &str, neighbours: &[&ImageName]| {
            let kept = without_neighbours(parse(yaml).unwrap(), &target(name), &image(own), neighbours);
            kept.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        let (payment, campaign) = ("registry.example/payment", "registry.example/campaign");
        assert_eq!(
            left("payment", payment, &[&image(campaign)]),
            ["payment", "both", "cache", "settings"]
        );
        assert_eq!(
            left("campaign", campaign, &[&image(payment)]),
            ["campaign", "both", "mails", "cache", "settings"]
        );
        assert_eq!(left("payment", payment, &[]).len(), 6);
    }
}
