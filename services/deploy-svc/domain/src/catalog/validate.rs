//! What the shape of the catalog cannot express: references that must resolve, limits, and combinations that are not
//! allowed.

mod environment;
mod jobs;
mod order;
mod shared;
mod together;
mod watching;

use std::{collections::HashMap, time::Duration};

use slipway_check::{Fault, Faults};
use slipway_model::{BranchName, ImageName, Images, Name, ServiceImage};

use super::{
    BranchPattern, BranchRule, Build, Environment, Gate, Latest, Service, Tier,
    file::{Declared, File, FileBranchRule, FileService},
};

const HOUR: Duration = Duration::from_secs(3600);
/// The longest that build-svc allows a build to run.
const MAX_BUILD: Duration = HOUR.saturating_mul(6);

pub(super) fn check(file: File) -> Result<Vec<Service>, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.require(
        !file.environments.is_empty(),
        "environments",
        "name at least one environment",
    );
    let declared: Vec<Name> = file.environments.iter().map(|one| one.name.clone()).collect();
    duplicates(&declared, "environments", &mut faults);
    let names: Vec<Name> = file.services.iter().map(|service| service.name.clone()).collect();
    duplicates(&names, "services", &mut faults);
    let order = Order::of(&file.environments);
    let mut seen = Vec::new();
    let mut services: Vec<Service> = file
        .services
        .into_iter()
        .filter_map(|service| check_service(service, &order, &mut seen, &mut faults))
        .collect();
    check_alone(&seen, &mut faults);
    shared::check(&seen, &mut faults);
    shared::find(&mut services);
    together::check(&services, &seen, &order, &mut faults);
    if faults.is_empty() {
        Ok(services)
    } else {
        Err(faults.into_vec())
    }
}

/// The position of each of the catalog's environments in the order of promotion, and its tier.
struct Order(HashMap<Name, (usize, Option<Tier>)>);

impl Order {
    /// If a name occurs twice, the first position counts.
    fn of(declared: &[Declared]) -> Self {
        let places = declared.iter().enumerate().rev();
        Self(
            places
                .map(|(place, one)| (one.name.clone(), (place, one.tier)))
                .collect(),
        )
    }

    fn place(&self, name: &Name) -> Option<usize> {
        self.0.get(name).map(|(place, _)| *place)
    }

    fn tier(&self, name: &Name) -> Option<Tier> {
        self.0.get(name).and_then(|(_, tier)| *tier)
    }

    /// All names, in the order of promotion.
    fn names(&self) -> Vec<&str> {
        let mut known: Vec<(usize, &str)> = self
            .0
            .iter()
            .map(|(name, (place, _))| (*place, name.as_str()))
            .collect();
        known.sort_unstable();
        known.into_iter().map(|(_, name)| name).collect()
    }
}

/// An environment that was checked, and its position.
struct Seen {
    path: String,
    service: Name,
    /// The repository of the service's image.
    image: String,
    environment: Environment,
}

/// A gate before the sync only protects if no other environment's sync includes the commit. Other services are kept out
/// by the lanes that they share until this one's commit is approved, or taken back.
fn check_alone(seen: &[Seen], faults: &mut Faults) {
    let folder = |environment: &Environment| {
        let gitops = environment.gitops.as_ref()?;
        gitops.folder(&environment.target)
    };
    for one in seen.iter().filter(|one| one.environment.gate == Gate::BeforeSync) {
        let shared = seen.iter().find(|other| {
            let (ours, theirs) = (folder(&one.environment), folder(&other.environment));
            other.path != one.path
                && other.service == one.service
                && (other.environment.target == one.environment.target || (ours.is_some() && ours == theirs))
        });
        if let Some(other) = shared {
            faults.add(
                format!("{}.gate", one.path),
                format!(
                    "environment {} of service {} has the same target or folder, so its deployments would take this one's commit along before it is approved: write before_commit, or give each its own",
                    other.environment.name, other.service
                ),
            );
        }
    }
}

fn duplicates(names: &[Name], path: &str, faults: &mut Faults) {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            faults.add(
                format!("{path}[{index}]"),
                format!("{name} is already used: names must be unique"),
            );
        }
    }
}

fn check_service(
    service: FileService,
    order: &Order,
    seen: &mut Vec<Seen>,
    faults: &mut Faults,
) -> Option<Service> {
    let path = format!("services.{}", service.name);
    check_repository(&service.repository, &format!("{path}.repository"), faults);
    let images = check_images(&service.name, service.image, service.images, &path, faults);
    let image = images
        .as_ref()
        .map_or(service.name.as_str(), |images| images.only().repository.as_str());
    check_build(&service.build, &format!("{path}.build"), faults);
    order::check_reserved(&service.depends_on, &service.ci, &path, faults);

    faults.require(
        !service.environments.is_empty(),
        format!("{path}.environments"),
        "name at least one environment",
    );
    let names: Vec<Name> = service.environments.iter().map(|e| e.name.clone()).collect();
    duplicates(&names, &format!("{path}.environments"), faults);
    let branches = service
        .branches
        .into_iter()
        .enumerate()
        .map(|(index, rule)| check_rule(rule, &format!("{path}.branches[{index}]"), &names, order, faults))
        .collect();
    let mut environments: Vec<Environment> = Vec::new();
    for (index, environment) in service.environments.into_iter().enumerate() {
        let path = format!("{path}.environments[{index}]");
        if order.place(&environment.name).is_none() {
            faults.add(
                format!("{path}.name"),
                format!(
                    "{} is not one of the catalog's environments: {}",
                    environment.name,
                    order.names().join(", ")
                ),
            );
        }
        order::check_requires(&environment, &path, &names, order, faults);
        let tier = order.tier(&environment.name);
        let environment = environment::check(environment, tier, &path, image, faults);
        if let Some(other) = environments
            .iter()
            .find(|other| other.target == environment.target)
        {
            faults.add(
                format!("{path}.target"),
                format!(
                    "is the target of environment {} already: each needs its own",
                    other.name
                ),
            );
        }
        seen.push(Seen {
            path,
            service: service.name.clone(),
            image: image.to_owned(),
            environment: environment.clone(),
        });
        environments.push(environment);
    }
    environments.sort_by_key(|environment| order.place(&environment.name));
    Some(Service {
        images: images?,
        name: service.name,
        repository: service.repository,
        build: service.build,
        branches,
        environments,
    })
}

/// The short form, `image`, or the longer one; `None` if there is a fault.
fn check_images(
    service: &Name,
    image: Option<ImageName>,
    images: Option<Vec<ServiceImage>>,
    path: &str,
    faults: &mut Faults,
) -> Option<Images<ServiceImage>> {
    match (image, images) {
        (Some(repository), None) => {
            let name = service.clone();
            Some(Images::one(ServiceImage { name, repository }))
        }
        (None, Some(images)) => {
            let checked = Images::try_from(images);
            checked
                .map_err(|error| faults.add(format!("{path}.images"), error.to_string()))
                .ok()
        }
        (Some(_), Some(_)) => {
            faults.add(format!("{path}.images"), "repeats `image`: write one of the two");
            None
        }
        (None, None) => {
            faults.add(
                format!("{path}.image"),
                "is missing: write the repository that the image is pushed to, without tag",
            );
            None
        }
    }
}

fn check_repository(url: &str, path: &str, faults: &mut Faults) {
    let printable = !url.is_empty() && url.len() <= 2000 && url.bytes().all(|b| b.is_ascii_graphic());
    faults.require(
        printable && !url.starts_with('-'),
        path,
        "write an https, ssh or file URL of a git repository",
    );
    // A password in a URL would end up in logs and image labels.
    let authority = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let user_info = authority.rsplit_once('@').map_or("", |(user, _)| user);
    faults.require(
        !user_info.contains(':'),
        path,
        "must not contain a password: give build-svc credentials in its own configuration",
    );
}

fn check_build(build: &Build, path: &str, faults: &mut Faults) {
    check_path(&build.context, &format!("{path}.context"), faults);
    check_path(&build.dockerfile, &format!("{path}.dockerfile"), faults);
    faults.period(format!("{path}.timeout"), build.timeout, MAX_BUILD);
    if let Latest::Of(pattern) = &build.latest {
        check_pattern(pattern, &format!("{path}.latest"), faults);
    }
    for name in build.args.keys() {
        let ok = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !ok {
            faults.add(
                format!("{path}.args"),
                format!("{name:?} is not a build argument's name: use A-Z, a-z, 0-9 and _"),
            );
        }
    }
}

/// A path that stays inside its repository.
fn check_path(text: &str, path: &str, faults: &mut Faults) {
    let confined = !text.is_empty()
        && text.len() <= 1000
        && !text.starts_with(['/', '-'])
        && !text.contains(|c: char| c == '\\' || c.is_control())
        && text.split('/').all(|part| part != "..");
    faults.require(
        confined,
        path,
        "must be a path within the repository, without a leading / and without ..",
    );
}

fn check_pattern(BranchPattern(pattern): &BranchPattern, path: &str, faults: &mut Faults) {
    // What remains without its wildcards must be a possible branch name.
    let plain = pattern.replace('*', "x");
    faults.require(
        plain.parse::<BranchName>().is_ok() && pattern.matches('*').count() <= 4,
        path,
        "write a branch name in which * stands for any text without /, and ** for any text; at most four *",
    );
}

fn check_rule(
    rule: FileBranchRule,
    path: &str,
    names: &[Name],
    order: &Order,
    faults: &mut Faults,
) -> BranchRule {
    let pattern = BranchPattern(rule.pattern);
    check_pattern(&pattern, &format!("{path}.pattern"), faults);
    faults.require(
        !rule.environments.is_empty(),
        format!("{path}.environments"),
        "name at least one environment",
    );
    duplicates(&rule.environments, &format!("{path}.environments"), faults);
    for (index, name) in rule.environments.iter().enumerate() {
        if !names.contains(name) {
            let known: Vec<&str> = names.iter().map(Name::as_str).collect();
            faults.add(
                format!("{path}.environments[{index}]"),
                format!(
                    "{name} is not one of this service's environments: {}",
                    known.join(", ")
                ),
            );
        }
    }
    let mut environments = rule.environments;
    environments.sort_by_key(|name| order.place(name));
    BranchRule {
        pattern,
        environments,
    }
}
