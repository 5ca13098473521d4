//! Finds what services share, and refuses what could not be told apart.

use std::collections::{BTreeSet, HashMap};

use slipway_check::Faults;
use slipway_model::{Id, Name};

use super::{
    super::{Neighbour, Shared, Target, shared::lane_of_folder},
    Environment, Seen, Service,
};

/// Something that only one service may change at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Resource {
    /// By the target's key.
    Target(String),
    Folder(String),
}

impl Resource {
    fn lane(&self) -> Option<Id> {
        match self {
            Self::Target(key) => key.parse().ok(),
            Self::Folder(folder) => Some(lane_of_folder(folder)),
        }
    }
}

/// The targets of an environment: its own, and Applications that are synced together with it.
fn targets(environment: &Environment) -> impl Iterator<Item = String> {
    let further = environment.argo_cd.also.iter().map(|name| Target {
        name: name.clone(),
        ..environment.target.clone()
    });
    std::iter::once(environment.target.clone())
        .chain(further)
        .map(|target| target.key())
}

fn resources(environment: &Environment) -> Vec<Resource> {
    let gitops = environment.gitops.as_ref();
    let folder = gitops.and_then(|gitops| gitops.folder(&environment.target));
    targets(environment)
        .map(Resource::Target)
        .chain(folder.map(Resource::Folder))
        .collect()
}

/// One environment that uses a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct User {
    neighbour: Neighbour,
    target: String,
}

/// Writes into each environment what it shares with those of other services.
pub(super) fn find(services: &mut [Service]) {
    let mut users: HashMap<Resource, BTreeSet<User>> = HashMap::new();
    for service in services.iter() {
        for environment in &service.environments {
            for resource in resources(environment) {
                users.entry(resource).or_default().insert(User {
                    neighbour: Neighbour {
                        service: service.name.clone(),
                        image: service.images.only().repository.clone(),
                    },
                    target: environment.target.key(),
                });
            }
        }
    }
    for service in services.iter_mut() {
        for environment in &mut service.environments {
            environment.shared = shared(&service.name, environment, &users);
        }
    }
}

fn shared(service: &Name, environment: &Environment, users: &HashMap<Resource, BTreeSet<User>>) -> Shared {
    let own = environment.target.key();
    let (mut lanes, mut neighbours) = (BTreeSet::new(), BTreeSet::new());
    for resource in resources(environment) {
        let others = users.get(&resource).into_iter().flatten();
        let others: Vec<&User> = others.filter(|user| user.neighbour.service != *service).collect();
        neighbours.extend(others.iter().map(|user| user.neighbour.clone()));
        // Those with the same target meet in its lane.
        if others.iter().any(|user| user.target != own) && resource != Resource::Target(own.clone()) {
            lanes.extend(resource.lane());
        }
    }
    Shared {
        lanes: lanes.into_iter().collect(),
        neighbours: neighbours.into_iter().collect(),
    }
}

/// Two services are told apart by their images. Where both write the same place, or run the same image in the same
/// target, a release of one is a release of the other as well.
pub(super) fn check(seen: &[Seen], faults: &mut Faults) {
    let mut users: HashMap<(String, &str), &Seen> = HashMap::new();
    for one in seen {
        let environment = &one.environment;
        let gitops = environment.gitops.as_ref();
        let place = gitops.and_then(|gitops| gitops.place(&environment.target));
        let in_git = place.map(|place| ("gitops", (place, "")));
        let in_cluster = targets(environment).map(|target| ("target", (target, one.image.as_str())));
        for (key, place) in in_git.into_iter().chain(in_cluster) {
            let other = users.entry(place).or_insert(one);
            if other.service == one.service {
                continue;
            }
            let what = match key {
                "gitops" => "writes the same image at the same place",
                _ => "runs the same image in the same target",
            };
            faults.add(
                format!("{}.{key}", one.path),
                format!(
                    "environment {} of service {} {what}, so a release of one would release the other as well: make them one service, or give each an image of its own",
                    other.environment.name, other.service
                ),
            );
        }
    }
}
