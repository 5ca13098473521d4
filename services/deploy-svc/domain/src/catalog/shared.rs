//! What environments of several services have in common: a target, an Application that is synced together with it, or
//! the folder that is applied to it. Their releases take turns.

use serde::{Deserialize, Serialize};
use slipway_model::{Id, ImageName, Name};

use super::{GitOps, Strategy, Target, WorkloadKind};

/// What an environment shares with those of other services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The lanes that have to be held in addition to the target's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<Id>,
    /// The other services, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
}

impl Shared {
    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.neighbours.is_empty()
    }

    /// The names of the other services.
    pub fn services(&self) -> impl Iterator<Item = &Name> {
        self.neighbours.iter().map(|neighbour| &neighbour.service)
    }
}

/// A service that shares something, and the image by which its objects are told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    pub service: Name,
    pub image: ImageName,
}

impl GitOps {
    /// The files that reach the cluster together with this environment's image, in one text that is the same for all
    /// environments that share them: the folder that is rendered or synced; of a chart the file of values, since each
    /// Application takes its own. `None` for a marker commit, which is in no file.
    ///
    /// The branch is not part of it: an omitted one may be the same as one that is written.
    pub(super) fn folder(&self, target: &Target) -> Option<String> {
        let path = match &self.strategy {
            Strategy::Marker => return None,
            Strategy::Helm { file, .. } if target.kind == WorkloadKind::Application => file,
            _ => &self.path,
        };
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        let path = parts.collect::<Vec<_>>().join("/");
        Some(format!("{}/{path}", self.repository))
    }

    /// The place of the image in a text that is the same for all environments that write the same place.
    pub(super) fn place(&self, target: &Target) -> Option<String> {
        let folder = self.folder(target)?;
        Some(match &self.strategy {
            Strategy::Kustomize => format!("{folder}: image {}", self.image),
            Strategy::Manifest { file } => format!("{}/{file}: image {}", self.repository, self.image),
            Strategy::Helm { file, value } => format!("{}/{file}: value {value}", self.repository),
            Strategy::Marker => return None,
        })
    }
}

/// The lane of a folder. No target's lane is called so, since names of clusters have no colon.
pub(super) fn lane_of_folder(folder: &str) -> Id {
    format!("folder:{folder}")
        .parse()
        .unwrap_or_else(|_| Id::derived("folder:", &[folder]))
}
