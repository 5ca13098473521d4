//! What a commit by others means: which services and environments it changed, and what it did to their images. Pure.

use slipway_edit::{ImageAtPlace, Place, Reference};
use slipway_model::{CommitSha, Id, Name, Timestamp};

use crate::message::Trailers;

/// A commit as git has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub id: CommitSha,
    /// The first parent, where the branch was before.
    pub parent: Option<CommitSha>,
    /// `Name <email>`, which is not verified.
    pub author: String,
    /// The committer's.
    pub time: Timestamp,
    pub subject: String,
    pub trailers: Trailers,
    /// Of a merge: the commits that it brought, the newest first.
    pub merged: Vec<Commit>,
}

impl Commit {
    /// It and those that it brought, except for other merges.
    fn told(&self) -> impl Iterator<Item = &Commit> {
        std::iter::once(self).chain(&self.merged)
    }

    /// The changes of ours that it claims to be, or to bring; empty when it also brings something else.
    pub fn claims(&self) -> Vec<(&Id, &CommitSha)> {
        let parts: Vec<&Commit> = if self.merged.is_empty() {
            vec![self]
        } else {
            self.merged.iter().collect()
        };
        let claims: Vec<_> = parts
            .iter()
            .filter_map(|commit| Some((commit.trailers.change.as_ref()?, &commit.id)))
            .collect();
        if claims.len() == parts.len() {
            claims
        } else {
            Vec::new()
        }
    }

    /// The first value of a trailer, here or in what was merged.
    pub fn trailer<T>(&self, get: impl Fn(&Trailers) -> Option<T>) -> Option<T> {
        self.told().find_map(|commit| get(&commit.trailers))
    }

    /// Whether the trailers say anything.
    pub fn has_trailers(&self) -> bool {
        self.told().any(|commit| commit.trailers != Trailers::default())
    }

    /// The services and environments that trailers name.
    fn named(&self) -> Vec<(Option<Name>, Option<Name>)> {
        let mut named = Vec::new();
        for Trailers {
            service, environment, ..
        } in self.told().map(|commit| &commit.trailers)
        {
            let pair = (service.clone(), environment.clone());
            if pair != (None, None) && !named.contains(&pair) {
                named.push(pair);
            }
        }
        named
    }
}

/// One image that a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageChange {
    pub place: Place,
    pub name: String,
    /// Absent where it was not there.
    pub before: Option<Reference>,
    pub after: Option<Reference>,
}

/// What a commit did to one service in one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Absent if neither trailers nor files say.
    pub service: Option<Name>,
    pub environment: Option<Name>,
    pub images: Vec<ImageChange>,
}

impl Part {
    fn scope(&self) -> (&str, &str) {
        (
            self.service.as_ref().map_or("", Name::as_str),
            self.environment.as_ref().map_or("", Name::as_str),
        )
    }
}

/// The images of a place that a commit changed.
pub fn image_changes(place: &Place, before: &[ImageAtPlace], after: &[ImageAtPlace]) -> Vec<ImageChange> {
    let of = |found: &[ImageAtPlace], name: &str| {
        let found = found.iter().find(|found| found.name == name);
        found.map(|found| found.image.clone())
    };
    let mut names: Vec<&str> = Vec::new();
    for found in after.iter().chain(before) {
        if !names.contains(&found.name.as_str()) {
            names.push(&found.name);
        }
    }
    names
        .into_iter()
        .map(|name| ImageChange {
            place: place.clone(),
            name: name.to_owned(),
            before: of(before, name),
            after: of(after, name),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

/// Combines what the files and the trailers say.
///
/// Both count, so that a trailer cannot hide anything: a commit that claims to be about one service and changes another
/// is found under both.
pub fn attribute(commit: &Commit, mut parts: Vec<Part>) -> Vec<Part> {
    // A file that several environments share belongs to those whose images it changed.
    if parts.iter().any(|part| !part.images.is_empty()) {
        let shared = |part: &Part| part.images.is_empty() && part.service.is_some();
        let changed: Vec<Option<Name>> = parts
            .iter()
            .filter(|part| !part.images.is_empty())
            .map(|part| part.service.clone())
            .collect();
        parts.retain(|part| !shared(part) || !changed.contains(&part.service));
    }
    for (service, environment) in commit.named() {
        let fits = |said: &Option<Name>, named: &Option<Name>| named.is_none() || said == named;
        if parts
            .iter()
            .any(|part| fits(&part.service, &service) && fits(&part.environment, &environment))
        {
            continue;
        }
        // Files that are not configured for any service are attributed to those that the trailers name.
        match parts
            .iter_mut()
            .find(|part| part.service.is_none() && part.environment.is_none())
        {
            Some(part) => (part.service, part.environment) = (service, environment),
            None => parts.push(Part {
                service,
                environment,
                images: Vec::new(),
            }),
        }
    }
    parts
}

/// The part of a commit that is shown to a caller who asks for a service and environment (empty for all), and may see
/// what `may` says. `None` if that is nothing.
pub fn narrow(
    parts: Vec<Part>,
    service: &str,
    environment: &str,
    may: impl Fn(&str, &str) -> bool,
) -> Option<Vec<Part>> {
    if parts.is_empty() {
        return (service.is_empty() && environment.is_empty() && may("", "")).then(Vec::new);
    }
    let asked = |asked: &str, said: &str| asked.is_empty() || asked == said;
    let shown: Vec<Part> = parts
        .into_iter()
        .filter(|part| {
            let (its_service, its_environment) = part.scope();
            asked(service, its_service)
                && asked(environment, its_environment)
                && may(its_service, its_environment)
        })
        .collect();
    (!shown.is_empty()).then_some(shown)
}

/// The service and environment of what is shown, if there is just one; otherwise empty.
pub fn scope(parts: &[Part]) -> (&str, &str) {
    let only = |get: fn(&Part) -> &str| {
        let first = parts.first().map_or("", get);
        if parts.iter().all(|part| get(part) == first) {
            first
        } else {
            ""
        }
    };
    (only(|part| part.scope().0), only(|part| part.scope().1))
}

/// Whether a file is the one that `path` names, or below the folder that it names.
pub fn is_below(file: &str, path: &str) -> bool {
    path.is_empty()
        || file
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use slipway_edit::{ImageAtPlace, Place, Reference};
    use slipway_model::{Name, Timestamp};

    use super::{Commit, Part, attribute, image_changes, is_below, narrow, scope};
    use crate::message::Trailers;

    fn name(text: &str) -> Option<Name> {
        (!text.is_empty()).then(|| text.parse().unwrap())
    }

    fn commit(message: &str) -> Commit {
        Commit {
            id: "1".repeat(40).parse().unwrap(),
            parent: None,
            author: "A <a@example.com>".to_owned(),
            time: Timestamp::from_micros(0),
            subject: String::new(),
            trailers: Trailers::read(message),
            merged: Vec::new(),
        }
    }

    fn part(service: &str, environment: &str, images: usize) -> Part {
        let place = Place::Kustomization("a".parse().unwrap());
        let found = |tag: usize| {
            vec![ImageAtPlace {
                name: "app".to_owned(),
                image: Reference::split(&format!("app:{tag}")),
                file: "a/kustomization.yaml".to_owned(),
                line: 1,
            }]
        };
        Part {
            service: name(service),
            environment: name(environment),
            images: image_changes(&place, &found(0), &found(images)),
        }
    }

    fn scopes(parts: &[Part]) -> Vec<String> {
        parts
            .iter()
            .map(|part| format!("{}/{}:{}", part.scope().0, part.scope().1, part.images.len()))
            .collect()
    }

    #[test]
    fn files_and_trailers_tell_whose_a_commit_is() {
        let trailers = "x\n\nService: shop\nEnvironment: dev\n";
        for (message, files, wanted) in [
            ("x", vec![], &[][..]),
            ("x", vec![part("shop", "dev", 1)], &["shop/dev:1"]),
            (trailers, vec![], &["shop/dev:0"]),
            (trailers, vec![part("shop", "dev", 1)], &["shop/dev:1"]),
            // The file is not configured for any service.
            (trailers, vec![part("", "", 1)], &["shop/dev:1"]),
            ("x", vec![part("", "", 1)], &["/:1"]),
            // A trailer hides nothing.
            (
                trailers,
                vec![part("pay", "prod", 1)],
                &["pay/prod:1", "shop/dev:0"],
            ),
            // A file that two environments share.
            (
                "x",
                vec![part("shop", "dev", 1), part("shop", "prod", 0)],
                &["shop/dev:1"],
            ),
            (
                "x",
                vec![part("shop", "dev", 0), part("shop", "prod", 0)],
                &["shop/dev:0", "shop/prod:0"],
            ),
            (
                "x\n\nService: shop\n",
                vec![part("shop", "dev", 1)],
                &["shop/dev:1"],
            ),
        ] {
            let parts = attribute(&commit(message), files);
            assert_eq!(scopes(&parts), wanted, "{message}");
        }
    }

    #[test]
    fn people_see_what_they_asked_for_and_may_see() {
        let parts = || {
            vec![
                part("shop", "dev", 1),
                part("shop", "prod", 1),
                part("pay", "prod", 1),
            ]
        };
        for (service, environment, allowed, wanted) in [
            ("", "", "*", Some(vec!["shop/dev:1", "shop/prod:1", "pay/prod:1"])),
            ("shop", "", "*", Some(vec!["shop/dev:1", "shop/prod:1"])),
            ("", "prod", "pay", Some(vec!["pay/prod:1"])),
            ("mail", "", "*", None),
            ("shop", "", "pay", None),
        ] {
            let may = |service: &str, _: &str| allowed == "*" || service == allowed;
            let shown = narrow(parts(), service, environment, may);
            let shown = shown.as_deref().map(scopes);
            let wanted = wanted.map(|wanted| wanted.into_iter().map(str::to_owned).collect());
            assert_eq!(shown, wanted, "{service}/{environment} {allowed}");
        }
        // What belongs to no service is for those who may see everything.
        assert_eq!(
            narrow(Vec::new(), "", "", |service, _| service.is_empty()),
            Some(Vec::new())
        );
        assert_eq!(narrow(Vec::new(), "", "", |service, _| service == "shop"), None);
        assert_eq!(narrow(Vec::new(), "shop", "", |_, _| true), None);
        assert_eq!(scope(&parts()), ("", ""));
        assert_eq!(scope(&parts()[..2]), ("shop", ""));
        assert_eq!(scope(&parts()[1..]), ("", "prod"));
    }

    #[test]
    fn a_merge_is_ours_when_all_that_it_brings_is() {
        let ours = |id: &str| commit(&format!("x\n\nSlipway-Change: {id}\n"));
        let mut merge = commit("Merge pull request #1");
        merge.merged = vec![ours("chg-1"), ours("chg-2")];
        assert_eq!(merge.claims().len(), 2);
        merge.merged.push(commit("by hand"));
        assert_eq!(merge.claims().len(), 0);
        assert_eq!(ours("chg-1").claims().len(), 1);
    }

    #[test]
    fn folders_hold_files() {
        for (file, path, wanted) in [
            ("a/b", "a", true),
            ("a/b", "a/b", true),
            ("a/bc", "a/b", false),
            ("a", "", true),
        ] {
            assert_eq!(is_below(file, path), wanted, "{file} {path}");
        }
    }
}
