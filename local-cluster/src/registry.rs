//! Every kind that a cluster serves: the built-in ones and those added by definitions.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;

use crate::custom;
use crate::object;
use crate::resources::{self, Resource};

#[derive(Debug)]
struct Definition {
    /// What the resources were created from.
    spec: Value,
    established: bool,
    versions: Vec<&'static Resource>,
}

/// The kinds of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    definitions: RwLock<BTreeMap<String, Definition>>,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Definition>> {
        self.definitions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a definition as it is now stored.
    pub(crate) fn define(&self, definition: &Value) {
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let established = custom::is_established(definition);
        match definitions.get_mut(object::name(definition)) {
            // Resources are leaked: only if something has changed.
            Some(known) if known.spec == definition["spec"] => known.established = established,
            _ => {
                let known = Definition {
                    spec: definition["spec"].clone(),
                    established,
                    versions: custom::resources(definition),
                };
                definitions.insert(object::name(definition).to_owned(), known);
            }
        }
    }

    /// Forgets a definition that is gone.
    pub(crate) fn undefine(&self, name: &str) {
        self.definitions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// Every kind and version served, in the order of discovery.
    pub(crate) fn all(&self) -> Vec<&'static Resource> {
        let mut all = resources::ALL.to_vec();
        let definitions = self.read();
        let served = definitions
            .values()
            .filter(|d| d.established)
            .flat_map(|d| &d.versions);
        all.extend(served.filter(|r| r.custom.is_some_and(|custom| custom.served)));
        all
    }

    /// The kind for a path's group, version and plural.
    pub(crate) fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        resources::by_path(group, version, plural).or_else(|| {
            let found = |r: &&Resource| r.group == group && r.version == version && r.plural == plural;
            self.all().into_iter().find(found)
        })
    }

    /// The kind for an object's own `apiVersion` and `kind`, served or not.
    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<&'static Resource> {
        resources::by_kind(api_version, kind).or_else(|| {
            let definitions = self.read();
            let group = api_version.split_once('/')?.0;
            let mut of_kind = definitions
                .values()
                .flat_map(|d| d.versions.iter().copied())
                .filter(|r| r.kind == kind && r.group == group);
            let first = of_kind.clone().next();
            of_kind.find(|r| r.api_version() == api_version).or(first)
        })
    }

    /// The kind whose objects are stored under this name, in the version they are stored in.
    pub(crate) fn by_storage(&self, storage: &str) -> Option<&'static Resource> {
        let built_in = resources::ALL.iter().copied().find(|r| r.plural == storage);
        built_in.or_else(|| {
            let definitions = self.read();
            let versions = &definitions.get(storage)?.versions;
            let kept = |r: &&Resource| r.custom.is_some_and(|custom| custom.stored_as == r.api_version());
            versions.iter().copied().find(kept)
        })
    }

    /// Groups other than the core group, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for resource in self.all().into_iter().filter(|r| !r.group.is_empty()) {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version) => {}
                Some((_, versions)) => versions.push(resource.version),
                None => groups.push((resource.group, vec![resource.version])),
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        }
        groups
    }
}

/// How much a version is preferred: general ones before betas before alphas, high numbers before low ones
/// (`k8s.io/apimachinery/pkg/version`).
fn rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(end);
    let Ok(major) = major.parse() else {
        return (0, 0, 0);
    };
    if stage.is_empty() {
        return (3, major, 0);
    }
    for (name, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(minor) = stage.strip_prefix(name) {
            return minor.parse().map_or((0, 0, 0), |minor| (rank, major, minor));
        }
    }
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_by_maturity_then_number() {
        let mut versions = ["v1alpha1", "v10", "v2beta2", "v1", "foo", "v2beta10", "v2"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v2beta10", "v2beta2", "v1alpha1", "foo"]
        );
    }
}
