//! What a workload ran before a change. Where its template names an image by tag, only its pods know which one that is.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde::{Deserialize, Serialize};
use slipway_model::{Digest, ImageName, ImageRef};

use crate::{Observed, Workload, current, pods, running};

/// What a target ran before anything was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum Before {
    /// It did not exist.
    Absent,
    Present {
        containers: Vec<RunningContainer>,
    },
}

/// A container of the template, and what runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningContainer {
    pub name: String,
    /// As the template names it.
    pub image: String,
    /// As the pods report them, that of the most pods first. Several while a tag is moving.
    pub digests: Vec<Digest>,
}

/// The version from before a change, restored from files that name its image by tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Its image as the template named it.
    pub image: ImageRef,
    /// The containers that ran it.
    pub containers: Vec<String>,
    /// What ran in them; empty if no pod reported it.
    pub digests: Vec<Digest>,
}

impl Before {
    /// The part of it that a service's images are about: the containers with the first of these names that any has, or
    /// the only container.
    pub fn restored(&self, names: &[&ImageName]) -> Option<Restored> {
        let Self::Present { containers } = self else {
            return None;
        };
        let with = |name: &ImageName| -> Vec<&RunningContainer> {
            let has = |one: &&RunningContainer| one.parsed().is_some_and(|image| image.name == *name);
            containers.iter().filter(has).collect()
        };
        let named = names
            .iter()
            .map(|name| with(name))
            .find(|found| !found.is_empty());
        let found = match (named, containers.as_slice()) {
            (Some(found), _) => found,
            (None, [only]) => vec![only],
            (None, _) => Vec::new(),
        };
        let image = found.iter().find_map(|one| one.parsed());
        let unnamed = || {
            Some(ImageRef {
                name: (*names.first()?).clone(),
                tag: None,
                digest: None,
            })
        };
        let mut digests = Vec::new();
        for digest in found.iter().flat_map(|one| &one.digests) {
            if !digests.contains(digest) {
                digests.push(digest.clone());
            }
        }
        Some(Restored {
            image: image.or_else(unnamed)?,
            containers: found.iter().map(|one| one.name.clone()).collect(),
            digests,
        })
    }
}

impl RunningContainer {
    fn parsed(&self) -> Option<ImageRef> {
        self.image.parse().ok()
    }
}

/// The containers of a workload's template with what its pods run: those of the current template, or where none of
/// these runs, all that are ready.
pub fn containers(workload: &Workload, observed: &Observed) -> Vec<RunningContainer> {
    let current = current(workload, observed);
    // With a workloadRef the template is the ReplicaSet's.
    let of_set = current
        .replica_set
        .and_then(|set| set.spec.as_ref()?.template.as_ref());
    let Some(spec) = workload
        .template()
        .or(of_set)
        .and_then(|template: &PodTemplateSpec| template.spec.as_ref())
    else {
        return Vec::new();
    };
    let all = observed.pods.iter().map(AsRef::as_ref);
    let ready: Vec<&Pod> = all.filter(|pod| pods::ready(pod).is_some()).collect();
    spec.containers
        .iter()
        .map(|container| {
            let mut digests = running::digests(&current.pods, &container.name);
            if digests.is_empty() {
                digests = running::digests(&ready, &container.name);
            }
            RunningContainer {
                name: container.name.clone(),
                image: container.image.clone().unwrap_or_default(),
                digests,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn digest(fill: &str) -> Digest {
        format!("sha256:{}", fill.repeat(64)).parse().unwrap()
    }

    fn container(name: &str, image: &str, fills: &[&str]) -> RunningContainer {
        RunningContainer {
            name: name.to_owned(),
            image: image.to_owned(),
            digests: fills.iter().map(|fill| digest(fill)).collect(),
        }
    }

    #[test]
    fn the_services_containers_are_found_by_the_name_of_their_image() {
        let names: [ImageName; 2] = ["shop".parse().unwrap(), "r.example/shop".parse().unwrap()];
        let names: Vec<&ImageName> = names.iter().collect();
        let proxy = container("proxy", "r.example/proxy:1", &["c"]);
        for (containers, wanted) in [
            (
                vec![proxy.clone(), container("app", "shop:1", &["a"])],
                (vec!["app"], "shop:1", vec!["a"]),
            ),
            // The name that the files use comes first.
            (
                vec![
                    container("old", "r.example/shop:1", &["b"]),
                    container("app", "shop:1", &["a"]),
                ],
                (vec!["app"], "shop:1", vec!["a"]),
            ),
            (
                vec![
                    container("app", "r.example/shop:1", &["a", "b"]),
                    container("worker", "r.example/shop:1", &["b"]),
                ],
                (vec!["app", "worker"], "r.example/shop:1", vec!["a", "b"]),
            ),
            (
                vec![container("app", "elsewhere/till:1", &["a"])],
                (vec!["app"], "elsewhere/till:1", vec!["a"]),
            ),
            (
                vec![proxy, container("app", "elsewhere/till:1", &["a"])],
                (vec![], "shop", vec![]),
            ),
            (vec![], (vec![], "shop", vec![])),
        ] {
            let (of, image, fills) = wanted;
            let restored = Before::Present { containers }.restored(&names).unwrap();
            assert_eq!(restored.containers, of);
            assert_eq!(restored.image.to_string(), image);
            assert_eq!(
                restored.digests,
                fills.into_iter().map(digest).collect::<Vec<_>>()
            );
        }
        assert_eq!(Before::Absent.restored(&names), None);
    }
}
