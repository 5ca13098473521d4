//! Reads a repository: images, manifests, and comparisons of environments.

use std::{collections::BTreeMap, sync::Arc};

use gitops_domain::{
    change::{self, Change},
    history,
    images::effective,
    reason::Code,
};
use slipway_edit::{Difference, ImageAtPlace, Place};
use slipway_ledger::{ListFilter, Page, Snapshot};
use slipway_model::{BranchName, CommitSha, Name, Reason};
use slipway_proto::gitops::v1 as proto;
use slipway_server::{Action, ApiError, Caller, Resource as _, convert};

use super::{
    Changes, GitOpsGrpc, changes,
    convert::{branch, commit_to_proto, folder},
    edits::{found_to_proto, place},
};
use crate::backends::{render, repository::Repository};

/// Services of one comparison at most.
const MAX_SERVICES: usize = 2000;
/// How many changes of a service and environment are searched for the one that set an image.
const RECENT: u32 = 20;
/// How many commits are searched for those that set images which no change of ours did.
const MAX_LOOKED: usize = 500;

impl GitOpsGrpc {
    pub(super) async fn desired(
        &self,
        caller: &Caller,
        request: proto::GetDesiredStateRequest,
    ) -> Result<proto::GetDesiredStateResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let repository = self.repository(&request.repository)?;
        let by_name = !request.service.is_empty() || !request.environment.is_empty();
        let place = match request.place {
            Some(_) if by_name || !request.path.is_empty() => {
                return Err(ApiError::invalid(
                    "place",
                    "give only one of path, place, and service with environment",
                ));
            }
            Some(given) => place("place", given)?,
            None if by_name && !request.path.is_empty() => {
                return Err(ApiError::invalid(
                    "path",
                    "give only one of path, place, and service with environment",
                ));
            }
            None if by_name => {
                let service: Name = convert::field("service", &request.service)?;
                let environment: Name = convert::field("environment", &request.environment)?;
                caller.require(Action::Read, service.as_str(), environment.as_str())?;
                repository
                    .layout()
                    .place(&service, &environment)
                    .map_err(|error| ApiError::invalid("environment", error))?
            }
            None => Place::Kustomization(folder("path", &request.path)?),
        };
        let commit = match convert::optional::<CommitSha>("commit", &request.commit)? {
            Some(commit) => {
                if !repository.ensure(&commit).await? {
                    return Err(render::commit_not_found(&commit).into());
                }
                commit
            }
            None => repository.fetch(&branch(repository, &request.branch)?).await?,
        };
        let found = changes::found(repository, &commit, &place).await?;
        let images = match &place {
            Place::Kustomization(folder) => found
                .iter()
                .map(|image| proto::KustomizeImage {
                    path: folder.as_str().to_owned(),
                    name: image.name.clone(),
                    new_name: image.image.name.clone(),
                    new_tag: image.image.tag.clone(),
                    digest: image.image.digest.clone(),
                    allow_shared: false,
                })
                .collect(),
            _ => Vec::new(),
        };
        Ok(proto::GetDesiredStateResponse {
            commit: commit.to_string(),
            images,
            desired_images: found.iter().map(found_to_proto).collect(),
        })
    }

    pub(super) async fn render(
        &self,
        caller: &Caller,
        request: proto::RenderManifestsRequest,
    ) -> Result<proto::RenderManifestsResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let repository = self.repository(&request.repository)?;
        let commit: CommitSha = convert::field("commit", &request.commit)?;
        let folder = folder("path", &request.path)?;
        let manifests = self.renderer.render(repository, &commit, &folder).await?;
        Ok(proto::RenderManifestsResponse {
            commit: commit.to_string(),
            manifests: manifests.to_string(),
        })
    }

    pub(super) async fn diff(
        &self,
        caller: &Caller,
        request: proto::DiffEnvironmentsRequest,
    ) -> Result<proto::DiffEnvironmentsResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let repository = self.repository(&request.repository)?;
        let branch = branch(repository, &request.branch)?;
        let service = convert::name_filter("service", &request.service)?;
        let environments = environments(repository, &request.environments)?;
        let commit = repository.fetch(&branch).await?;
        let services: Vec<Name> = match service {
            Some(service) => vec![service],
            None => repository
                .services(&commit)
                .await?
                .into_iter()
                .take(MAX_SERVICES)
                .collect(),
        };
        let mut rows = Vec::new();
        for service in services {
            let may = |environment: &Name| caller.may(Action::Read, service.as_str(), environment.as_str());
            if !environments.iter().any(may) {
                continue;
            }
            let mut sides = Vec::with_capacity(environments.len());
            for environment in &environments {
                let found = if may(environment) {
                    self.side(repository, &commit, &service, environment).await?
                } else {
                    let denied = Reason::new("PERMISSION_DENIED", "the role to read it is missing");
                    Err(convert::reason(&denied))
                };
                sides.push((environment.clone(), found));
            }
            rows.extend(compare(&service, &sides));
        }
        if request.only_different {
            rows.retain(|row| !row.same);
        }
        let mut places = Vec::new();
        for row in &rows {
            for side in &row.sides {
                if let Some((place, found)) = &side.found {
                    places.push(EnvironmentImage {
                        service: row.service.clone(),
                        environment: side.environment.clone(),
                        place: place.clone(),
                        found: found.clone(),
                    });
                }
            }
        }
        let mut origins = self.origins(repository, &branch, &commit, places).await?;
        let differences = rows
            .into_iter()
            .map(|row| proto::EnvironmentDifference {
                sides: row
                    .sides
                    .into_iter()
                    .map(|side| proto::environment_difference::Side {
                        last_change: side.found.as_ref().and_then(|(_, found)| {
                            origins.remove(&key(&row.service, &side.environment, found))
                        }),
                        environment: side.environment.to_string(),
                        image: side.found.as_ref().map(|(_, found)| found_to_proto(found)),
                        reason: side.reason,
                    })
                    .collect(),
                service: row.service.to_string(),
                name: row.name,
                same: row.same,
            })
            .collect();
        Ok(proto::DiffEnvironmentsResponse {
            commit: commit.to_string(),
            differences,
        })
    }

    /// The images of a service in an environment, or why they cannot be read.
    async fn side(
        &self,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        service: &Name,
        environment: &Name,
    ) -> Result<Images, ApiError> {
        let place = match repository.layout().place(service, environment) {
            Ok(place) => place,
            Err(error) => {
                let reason = Reason::new("PLACE_INVALID", error.to_string());
                return Ok(Err(convert::reason(&reason)));
            }
        };
        Ok(match repository.images(commit, &place).await? {
            Ok(found) => Ok((place, found)),
            // The environment does not contain the service.
            Err(reason) if reason.code == Code::FileNotFound => Ok((place, Vec::new())),
            Err(reason) => Err(convert::reason(&reason)),
        })
    }

    /// What set each image: the latest change of ours that wrote exactly that, or else the latest commit that changed
    /// it.
    async fn origins(
        &self,
        repository: &Arc<Repository>,
        branch: &BranchName,
        head: &CommitSha,
        wanted: Vec<EnvironmentImage>,
    ) -> Result<BTreeMap<Key, proto::Change>, ApiError> {
        let mut origins = BTreeMap::new();
        let mut open: Vec<EnvironmentImage> = Vec::new();
        let mut recent: BTreeMap<(Name, Name), Vec<Snapshot<Change>>> = BTreeMap::new();
        for wanted in wanted {
            let scope = (wanted.service.clone(), wanted.environment.clone());
            let changes = match recent.entry(scope) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let changes = self.recent(&wanted.service, &wanted.environment).await?;
                    entry.insert(changes)
                }
            };
            match changes
                .iter()
                .find(|change| wanted.is_by(&change.state, repository.name(), branch))
            {
                Some(change) => {
                    origins.insert(wanted.key(), Changes::message(change));
                }
                None => open.push(wanted),
            }
        }
        let mut from = Some(head.clone());
        let mut looked = 0;
        while let Some(at) = from
            && !open.is_empty()
            && looked < MAX_LOOKED
        {
            let walked = repository.walk(&at, "", 50, 50).await?;
            looked += walked.looked;
            from = walked.next;
            for commit in walked.commits {
                if open.is_empty() {
                    break;
                }
                let parts = repository.changed(&commit.id).await?;
                let parts = history::attribute(&commit, parts);
                let brought = |wanted: &EnvironmentImage| {
                    parts.iter().find(|part| {
                        part.service
                            .as_ref()
                            .is_none_or(|service| *service == wanted.service)
                            && part.environment.as_ref() == Some(&wanted.environment)
                            && part
                                .images
                                .iter()
                                .any(|image| image.place == wanted.place && image.name == wanted.found.name)
                    })
                };
                let mut rest = Vec::new();
                for wanted in open {
                    let Some(part) = brought(&wanted) else {
                        rest.push(wanted);
                        continue;
                    };
                    let change = match self.ours(repository.name(), &commit).await?.first() {
                        Some(change) => Changes::message(change),
                        None => {
                            commit_to_proto(repository.name(), branch, &commit, std::slice::from_ref(part))
                        }
                    };
                    origins.insert(wanted.key(), change);
                }
                open = rest;
            }
        }
        Ok(origins)
    }

    /// The latest pushed changes of a service in an environment.
    async fn recent(&self, service: &Name, environment: &Name) -> Result<Vec<Snapshot<Change>>, ApiError> {
        let filter = ListFilter {
            status: vec![change::Status::Pushed.as_str().to_owned()],
            service: Some(service.to_string()),
            environment: Some(environment.to_string()),
            ..ListFilter::default()
        };
        let page = Page {
            size: RECENT,
            token: String::new(),
        };
        Ok(self.ledger.list_of::<Change>(&filter, &page).await?.items)
    }
}

/// The images of one environment, or why there are none.
type Images = Result<(Place, Vec<ImageAtPlace>), slipway_proto::common::v1::Reason>;

/// An image whose origin is looked for.
#[derive(Debug)]
struct EnvironmentImage {
    service: Name,
    environment: Name,
    place: Place,
    found: ImageAtPlace,
}

type Key = (Name, Name, String);

fn key(service: &Name, environment: &Name, found: &ImageAtPlace) -> Key {
    (service.clone(), environment.clone(), found.name.clone())
}

impl EnvironmentImage {
    fn key(&self) -> Key {
        key(&self.service, &self.environment, &self.found)
    }

    /// Whether a change wrote exactly what is there.
    fn is_by(&self, state: &change::State, repository: &str, branch: &BranchName) -> bool {
        let here = state
            .request
            .as_ref()
            .is_some_and(|request| request.repository == repository && request.branch == *branch);
        let wrote = |difference: &Difference| match (difference, &self.place) {
            (Difference::Entry(difference), Place::Kustomization(folder)) => {
                let after = &difference.after;
                let same = |scalar: &Option<slipway_edit::Scalar>, text: &str| {
                    scalar.as_ref().map_or("", |scalar| &scalar.value) == text
                };
                difference.path == *folder
                    && after.name == self.found.name
                    && same(&after.new_name, &self.found.image.name)
                    && same(&after.new_tag, &self.found.image.tag)
                    && same(&after.digest, &self.found.image.digest)
            }
            (Difference::Values(difference), place) => {
                let file = match place {
                    Place::Kustomization(_) => return false,
                    Place::Helm(place) => &place.file,
                    Place::Manifest(place) => &place.file,
                };
                difference.file == *file && difference.after == self.found.image
            }
            _ => false,
        };
        here && !state.no_op && state.differences.iter().any(wrote)
    }
}

/// The environments that are compared.
fn environments(repository: &Repository, asked: &[String]) -> Result<Vec<Name>, ApiError> {
    let layout = repository.layout();
    let known: Vec<Name> = layout.environments().cloned().collect();
    let names = |names: &[Name]| names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    if known.is_empty() {
        return Err(ApiError::precondition(
            "ENVIRONMENTS_NOT_CONFIGURED",
            format!(
                "the configuration does not say where the images of {} are: add `environments` to it",
                repository.name()
            ),
        ));
    }
    let mut chosen: Vec<Name> = Vec::new();
    for (index, environment) in asked.iter().enumerate() {
        let field = format!("environments[{index}]");
        let environment: Name = convert::field(&field, environment)?;
        if !known.contains(&environment) {
            let message = format!("{environment} is not configured; there are {}", names(&known));
            return Err(ApiError::invalid(field, message));
        }
        if !chosen.contains(&environment) {
            chosen.push(environment);
        }
    }
    match chosen.len() {
        0 => Ok(known),
        1 => Err(ApiError::invalid(
            "environments",
            "give at least two, or none for all",
        )),
        _ => Ok(chosen),
    }
}

#[derive(Debug)]
struct Row {
    service: Name,
    name: String,
    sides: Vec<Side>,
    same: bool,
}

#[derive(Debug)]
struct Side {
    environment: Name,
    found: Option<(Place, ImageAtPlace)>,
    reason: Option<slipway_proto::common::v1::Reason>,
}

/// The images of one service in several environments: matched by name or, if each environment has only one, that one.
fn compare(service: &Name, sides: &[(Name, Images)]) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    let mut single = true;
    for (_, found) in sides.iter().filter_map(|(_, side)| side.as_ref().ok()) {
        let mut here: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        here.dedup();
        single &= here.len() <= 1;
        for name in here {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if single {
        names.truncate(1);
    }
    names
        .into_iter()
        .map(|name| {
            let sides: Vec<Side> = sides
                .iter()
                .map(|(environment, side)| Side {
                    environment: environment.clone(),
                    found: side.as_ref().ok().and_then(|(place, found)| {
                        let found = found.iter().find(|found| single || found.name == name)?;
                        Some((place.clone(), found.clone()))
                    }),
                    reason: side.as_ref().err().cloned(),
                })
                .collect();
            Row {
                service: service.clone(),
                name: name.to_owned(),
                same: same(&sides),
                sides,
            }
        })
        .collect()
}

/// Whether all have the same image.
fn same(sides: &[Side]) -> bool {
    let said: Option<Vec<(&str, &ImageAtPlace)>> = sides
        .iter()
        .map(|side| {
            let (place, found) = side.found.as_ref()?;
            Some((effective(place, found), found))
        })
        .collect();
    let Some(said) = said else {
        return false;
    };
    said.windows(2).all(|pair| {
        let [(name, one), (other_name, other)] = pair else {
            return false;
        };
        // Values may leave the name to the chart.
        (name == other_name || name.is_empty() || other_name.is_empty())
            && (&one.image.tag, &one.image.digest) == (&other.image.tag, &other.image.digest)
    })
}
