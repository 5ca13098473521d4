//! Where the images of a service are in each environment, according to a repository's configuration. Pure.
//!
//! With it a change needs no edits other than an image, environments can be compared and promoted by name, and commits
//! by others are recognised by the files that they changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use slipway_edit::{
    Edit, Folder, HelmPlace, InvalidEdit, KUSTOMIZATION_NAMES, ManifestPlace, NewImage, Place,
};
use slipway_model::Name;

/// Stands for the service's name in a pattern.
const SERVICE: &str = "{service}";

/// `environments:` of a repository: a pattern for each environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Layout(BTreeMap<Name, Pattern>);

/// A place, in which `{service}` stands for the service's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// The folder of a kustomization.
    Kustomization(String),
    Helm(HelmPattern),
    Manifest(ManifestPattern),
}

/// A path of a file of values; see [`HelmPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelmPattern {
    pub file: String,
    pub path: String,
    #[serde(default)]
    pub document: String,
    #[serde(default)]
    pub allow_shared: bool,
    #[serde(default)]
    pub add_missing: bool,
}

/// Containers of a file of manifests, or a field of its objects; see [`ManifestPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPattern {
    pub file: String,
    #[serde(default)]
    pub object: String,
    #[serde(default)]
    pub container: String,
    #[serde(default)]
    pub field: String,
    #[serde(default)]
    pub allow_shared: bool,
}

/// Why a service has no place in an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error(
        "the configuration does not say where the images of {environment} are: give edits or places, or add \
         `environments.{environment}` to the repository{}",
        others(.known)
    )]
    NotConfigured { environment: Name, known: Vec<Name> },
    #[error(transparent)]
    Invalid(#[from] InvalidEdit),
}

fn others(environments: &[Name]) -> String {
    if environments.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = environments.iter().map(Name::as_str).collect();
    format!(" (there are {})", names.join(", "))
}

/// The owner of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Absent where the environment's pattern does not have it.
    pub service: Option<Name>,
    pub environment: Name,
}

impl Layout {
    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The environments that are configured, in the order of their names.
    pub fn environments(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// Checks every pattern.
    ///
    /// # Errors
    /// The environment, and what is wrong with its pattern.
    pub fn check(&self) -> Result<(), (&Name, InvalidEdit)> {
        for (environment, pattern) in &self.0 {
            // The longest possible name, and an edit, which is strict about paths in files.
            pattern
                .place(&"s".repeat(63))
                .and_then(|place| place.edit("app", NewImage::default()))
                .map_err(|error| (environment, error))?;
        }
        Ok(())
    }

    /// Where a service's images of an environment are.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub fn place(&self, service: &Name, environment: &Name) -> Result<Place, NoPlace> {
        let Some(pattern) = self.0.get(environment) else {
            return Err(NoPlace::NotConfigured {
                environment: environment.clone(),
                known: self.environments().cloned().collect(),
            });
        };
        Ok(pattern.place(service.as_str())?)
    }

    /// The owners of a file: several environments may share a file of values. Anything below a kustomization's folder
    /// belongs to it, unless another one is nearer.
    pub fn owners(&self, file: &str) -> Vec<Owner> {
        let mut owners = Vec::new();
        let mut nearest = 0;
        for (environment, pattern) in &self.0 {
            let owner = |service| Owner {
                service,
                environment: environment.clone(),
            };
            match pattern {
                Pattern::Helm(HelmPattern { file: template, .. })
                | Pattern::Manifest(ManifestPattern { file: template, .. }) => {
                    if let Some(service) = capture(template, file) {
                        owners.push((usize::MAX, owner(service)));
                    }
                }
                Pattern::Kustomization(template) => {
                    let template = template.trim_start_matches("./").trim_end_matches('/');
                    let found = folders(file).find_map(|folder| Some((folder, capture(template, folder)?)));
                    if let Some((folder, service)) = found {
                        nearest = nearest.max(folder.len());
                        owners.push((folder.len(), owner(service)));
                    }
                }
            }
        }
        let near = |(depth, _): &(usize, Owner)| *depth >= nearest;
        owners.into_iter().filter(near).map(|(_, owner)| owner).collect()
    }

    /// The owners of what an edit changes. One of several places that share a file belongs only to its own environment.
    pub fn owners_of(&self, edit: &Edit, service: &Name) -> Vec<Owner> {
        let file = match edit {
            Edit::KustomizeImage(edit) => edit.path.join(KUSTOMIZATION_NAMES[0]),
            Edit::RestoreImage(edit) => edit.path.join(KUSTOMIZATION_NAMES[0]),
            Edit::HelmImage(edit) => edit.file.to_string(),
            Edit::ManifestImage(edit) => edit.file.to_string(),
            Edit::RestoreValues(edit) => edit.file.to_string(),
            Edit::Marker => return Vec::new(),
        };
        let owners = self.owners(&file);
        let exactly = |owner: &&Owner| {
            let service = owner.service.as_ref().unwrap_or(service);
            match (self.place(service, &owner.environment), edit) {
                (Ok(Place::Helm(place)), Edit::HelmImage(edit)) => {
                    (&place.path, &place.document) == (&edit.path, &edit.document)
                }
                _ => false,
            }
        };
        match owners.iter().find(exactly) {
            Some(owner) => vec![owner.clone()],
            None => owners,
        }
    }

    /// The services whose files are among these.
    pub fn services<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> BTreeSet<Name> {
        let mut services = BTreeSet::new();
        for file in files {
            for pattern in self.0.values() {
                let found = match pattern {
                    Pattern::Helm(HelmPattern { file: template, .. })
                    | Pattern::Manifest(ManifestPattern { file: template, .. }) => capture(template, file),
                    Pattern::Kustomization(template) => {
                        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
                        let template = template.trim_start_matches("./").trim_end_matches('/');
                        KUSTOMIZATION_NAMES
                            .contains(&name)
                            .then(|| capture(template, folder))
                            .flatten()
                    }
                };
                services.extend(found.flatten());
            }
        }
        services
    }
}

impl Pattern {
    fn place(&self, service: &str) -> Result<Place, InvalidEdit> {
        let fill = |text: &str| text.replace(SERVICE, service);
        Ok(match self {
            Self::Kustomization(folder) => Place::Kustomization(fill(folder).parse::<Folder>()?),
            Self::Helm(helm) => Place::Helm(HelmPlace {
                file: fill(&helm.file).parse()?,
                path: fill(&helm.path),
                document: fill(&helm.document),
                allow_shared: helm.allow_shared,
                add_missing: helm.add_missing,
            }),
            Self::Manifest(manifest) => Place::Manifest(ManifestPlace {
                file: fill(&manifest.file).parse()?,
                object: fill(&manifest.object),
                container: fill(&manifest.container),
                field: fill(&manifest.field),
                allow_shared: manifest.allow_shared,
            }),
        })
    }
}

/// The folders that contain a file, the nearest first; the root is the empty one.
fn folders(file: &str) -> impl Iterator<Item = &str> {
    fn parent(path: &str) -> Option<&str> {
        match path.rsplit_once('/') {
            Some((folder, _)) => Some(folder),
            None if path.is_empty() => None,
            None => Some(""),
        }
    }
    std::iter::successors(parent(file), |folder| parent(folder))
}

/// The service of a path that matches a template; `Some(None)` if the template does not contain the service.
fn capture(template: &str, path: &str) -> Option<Option<Name>> {
    let count = template.matches(SERVICE).count();
    let template_start = template.find(SERVICE);
    let (Some(start), true) = (template_start, count > 0) else {
        return (template == path).then_some(None);
    };
    // However often the name occurs, its length follows from the path's.
    let fixed = template.len() - count * SERVICE.len();
    let length = path.len().checked_sub(fixed)? / count;
    let service: Name = path.get(start..start + length)?.parse().ok()?;
    (template.replace(SERVICE, service.as_str()) == path).then_some(Some(service))
}

#[cfg(test)]
mod tests {
    use slipway_edit::Place;
    use slipway_model::Name;

    use super::{Layout, NoPlace, capture};

    fn layout(text: &str) -> Layout {
        serde_saphyr::from_str(text).unwrap()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    const LAYOUT: &str = "
dev: {kustomization: 'apps/{service}/overlays/dev/'}
testing: {kustomization: 'apps/{service}'}
prod: {helm: {file: 'charts/{service}/values-{service}.yaml', path: image}}
mail: {helm: {file: 'charts/{service}/values-{service}.yaml', path: mail.image, document: '2'}}
old: {manifest: {file: 'manifests/{service}.yaml', object: 'Deployment/{service}', container: app}}
only: {kustomization: 'single/overlay'}
";

    #[test]
    fn places_are_found_by_name() {
        let layout = layout(LAYOUT);
        assert_eq!(layout.check(), Ok(()));
        let place = |environment: &str| layout.place(&name("shop"), &name(environment));
        assert_eq!(
            place("dev"),
            Ok(Place::Kustomization("apps/shop/overlays/dev".parse().unwrap()))
        );
        let Ok(Place::Helm(helm)) = place("mail") else {
            panic!()
        };
        assert_eq!(
            (helm.file.as_str(), helm.path.as_str(), helm.document.as_str()),
            ("charts/shop/values-shop.yaml", "mail.image", "2")
        );
        let Ok(Place::Manifest(manifest)) = place("old") else {
            panic!()
        };
        assert_eq!(
            (manifest.file.as_str(), manifest.object.as_str()),
            ("manifests/shop.yaml", "Deployment/shop")
        );
        let Err(error @ NoPlace::NotConfigured { .. }) = place("nowhere") else {
            panic!()
        };
        assert!(
            error
                .to_string()
                .contains("there are dev, mail, old, only, prod, testing"),
            "{error}"
        );
    }

    #[test]
    fn places_stay_in_the_repository() {
        for bad in [
            "dev: {kustomization: '../{service}'}",
            "dev: {kustomization: '/apps/{service}'}",
            "dev: {helm: {file: '.git/{service}', path: image}}",
            "dev: {manifest: {file: ''}}",
            "dev: {helm: {file: a, path: 'image..tag'}}",
        ] {
            let layout = layout(bad);
            let (environment, _) = layout.check().unwrap_err();
            assert_eq!(environment.as_str(), "dev", "{bad}");
        }
        for bad in [
            "dev: {kustomisation: apps}",
            "dev: {helm: {file: a}}",
            "dev: {helm: {file: a, path: b, paths: c}}",
            "DEV: {kustomization: apps}",
            "dev: apps",
        ] {
            assert!(serde_saphyr::from_str::<Layout>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_belong_to_services_and_environments() {
        let layout = layout(LAYOUT);
        for (file, wanted) in [
            ("apps/shop/overlays/dev/kustomization.yaml", &["shop/dev"][..]),
            ("apps/shop/overlays/dev/patches/x.yaml", &["shop/dev"]),
            ("apps/shop/kustomization.yaml", &["shop/testing"]),
            ("apps/shop/overlays/prod/kustomization.yaml", &["shop/testing"]),
            ("apps/kustomization.yaml", &[]),
            ("charts/shop/values-shop.yaml", &["shop/mail", "shop/prod"]),
            ("charts/shop/values-mail.yaml", &[]),
            ("manifests/shop.yaml", &["shop/old"]),
            ("manifests/a/shop.yaml", &[]),
            ("manifests/Shop.yaml", &[]),
            ("single/overlay/kustomization.yaml", &["/only"]),
            ("README.md", &[]),
        ] {
            let owners: Vec<String> = layout
                .owners(file)
                .into_iter()
                .map(|owner| {
                    let service = owner.service.map(String::from).unwrap_or_default();
                    format!("{service}/{}", owner.environment)
                })
                .collect();
            assert_eq!(owners, wanted, "{file}");
        }
        let services = layout.services([
            "apps/shop/overlays/dev/kustomization.yaml",
            "apps/base/deployment.yaml",
            "apps/pay/Kustomization",
            "charts/mail/values-mail.yaml",
            "manifests/old-one.yaml",
            "single/overlay/kustomization.yaml",
        ]);
        let services: Vec<&str> = services.iter().map(Name::as_str).collect();
        assert_eq!(services, ["mail", "old-one", "pay", "shop"]);
    }

    #[test]
    fn names_are_taken_out_of_paths() {
        for (template, path, wanted) in [
            ("{service}", "shop", Some(Some("shop"))),
            ("{service}/x", "/x", None),
            ("a/{service}", "a/b/c", None),
            ("{service}-{service}", "a-b-a-b", Some(Some("a-b"))),
            ("{service}-{service}", "a-b", None),
            ("x-{service}.yaml", "x-.yaml", None),
            ("x-{service}.yaml", "x-é.yaml", None),
            ("x", "x", Some(None)),
            ("x", "y", None),
            ("a{service}", "", None),
        ] {
            let found = capture(template, path);
            let wanted = wanted.map(|service| service.map(name));
            assert_eq!(found, wanted, "{template} {path}");
        }
    }
}
