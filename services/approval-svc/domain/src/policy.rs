//! Who must approve: policies, and the hashes by which a decision names policy and subject.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_model::{Name, Principal};

use crate::subject::Subject;

/// A policy as it was when an approval was requested. Later configurations do not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub name: Name,
    /// How many different people must approve; 0 approves at once.
    pub required: u32,
    /// Who may decide; empty means anyone with the approve role in scope.
    pub approvers: BTreeSet<Principal>,
    /// The requester may not decide.
    pub exclude_requester: bool,
    /// Authors of the commit may not decide.
    pub exclude_authors: bool,
    /// How long a request waits for decisions.
    pub expire_after_seconds: u64,
}

impl Policy {
    /// How long a request waits for decisions.
    pub fn expire_after(&self) -> Duration {
        Duration::from_secs(self.expire_after_seconds)
    }

    /// SHA-256 over the content, in hex: the same for the same rules, whatever order they were written in.
    pub fn hash(&self) -> String {
        let mut hash = Fields::new("slipway.approval.policy.v1");
        hash.field("name", self.name.as_str());
        hash.field("required", &self.required.to_string());
        for approver in &self.approvers {
            hash.field("approver", &approver.to_string());
        }
        hash.field("exclude_requester", &self.exclude_requester.to_string());
        hash.field("exclude_authors", &self.exclude_authors.to_string());
        hash.field("expire_after_seconds", &self.expire_after_seconds.to_string());
        hash.finish()
    }
}

/// What a decision names: SHA-256 over the subject, its sections by their hashes, and the policy, in hex.
pub fn binding(subject: &Subject, policy: &Policy) -> String {
    let Subject {
        kind,
        scope,
        images,
        commits,
        plan_hash,
        summary,
        sections,
    } = subject;
    let mut hash = Fields::new("slipway.approval.binding.v2");
    hash.field("kind", kind.as_str());
    hash.field("service", scope.service.as_str());
    hash.field("environment", scope.environment());
    hash.field("target", &scope.target);
    for image in images {
        hash.field("image", image.name.as_str());
        hash.field("repository", optional(image.repository.as_ref()));
        hash.field("digest", image.digest.as_str());
        for tag in &image.tags {
            hash.field("tag", tag.as_str());
        }
    }
    if let Some(commits) = commits {
        hash.field("repository_url", &commits.repository_url);
        hash.field("branch", optional(commits.branch.as_ref()));
        hash.field("base", optional(commits.base.as_ref()));
        hash.field("head", commits.head.as_str());
    }
    hash.field("plan_hash", plan_hash);
    hash.field("summary", summary);
    for section in sections {
        hash.field("section", &section.title);
        hash.field("source", &section.source);
        hash.field("form", section.form.as_str());
        hash.field("sha256", section.sha256.as_str());
        hash.field("size", &section.size.to_string());
    }
    hash.field("policy", &policy.hash());
    hash.finish()
}

/// None of these types is ever empty.
fn optional<T: AsRef<str>>(value: Option<&T>) -> &str {
    value.map_or("", AsRef::as_ref)
}

/// A hash over named fields, each with its length in front, so that no two contents look alike.
struct Fields(Sha256);

impl Fields {
    fn new(domain: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.bytes(domain);
        fields
    }

    fn field(&mut self, name: &str, value: &str) {
        self.bytes(name);
        self.bytes(value);
    }

    fn bytes(&mut self, text: &str) {
        self.0
            .update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(text);
    }

    fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::subject::{Body, CommitRange, Image, Kind, Link, Scope, Section, Table};

    fn policy() -> Policy {
        Policy {
            name: "prod".parse().unwrap(),
            required: 2,
            approvers: ["token/bob", "token/carol"]
                .iter()
                .map(|p| p.parse().unwrap())
                .collect(),
            exclude_requester: true,
            exclude_authors: true,
            expire_after_seconds: 60,
        }
    }

    fn subject() -> Subject {
        let section = |title: &str, body: &Body| Section::new(title, "deploy-svc", body);
        let table = Table {
            columns: vec!["environment".to_owned(), "image".to_owned()],
            rows: vec![vec!["prod".to_owned(), "shop:1a2b3c4".to_owned()]],
        };
        let link = Link {
            rel: "log".to_owned(),
            href: "https://ci.example/1".to_owned(),
        };
        let mut large = section("Rendered", &Body::Diff("+a\n".repeat(2000)));
        large.take_large().unwrap();
        Subject {
            kind: Kind::Release,
            scope: Scope {
                service: "shop".parse().unwrap(),
                environment: Some("prod".parse().unwrap()),
                target: "prod/shop/Deployment/web".to_owned(),
            },
            images: vec![Image {
                name: "web".parse().unwrap(),
                repository: Some("registry.example/shop/web".parse().unwrap()),
                digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
                tags: vec!["1a2b3c4".parse().unwrap(), "1.2".parse().unwrap()],
            }],
            commits: Some(CommitRange {
                repository_url: "https://git.example/shop.git".to_owned(),
                branch: Some("main".parse().unwrap()),
                base: Some("0".repeat(40).parse().unwrap()),
                head: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
            }),
            plan_hash: "p1".to_owned(),
            summary: "shop to prod".to_owned(),
            sections: vec![
                section("What changes", &Body::Table(table)),
                large,
                section("Notes", &Body::Text("as it is".to_owned())),
                section("Log", &Body::Link(link)),
            ],
        }
    }

    /// Approvals that are waiting carry their binding, and people may have computed it from what was shown.
    #[test]
    fn the_formula_is_pinned() {
        assert_eq!(
            policy().hash(),
            "bc23cab3e8850effe444abc52aad6efe1ee7ddcf8737ffd9d16e61ceca699876"
        );
        assert_eq!(
            binding(&subject(), &policy()),
            "e4b2bf98a4292388c159755bb8f312501f65698dee22ebf6a6a5e453eb40a0a6"
        );
    }

    #[test]
    fn every_part_of_a_policy_counts() {
        let mut seen = BTreeSet::from([binding(&subject(), &policy())]);
        let policies: [fn(&mut Policy); 6] = [
            |p| p.name = "other".parse().unwrap(),
            |p| p.required = 1,
            |p| p.approvers = BTreeSet::new(),
            |p| p.exclude_requester = false,
            |p| p.exclude_authors = false,
            |p| p.expire_after_seconds = 61,
        ];
        for change in policies {
            let mut changed = policy();
            change(&mut changed);
            assert!(seen.insert(binding(&subject(), &changed)), "{changed:?}");
        }
    }

    /// Every subject that differs from this JSON in one place: another text or number, another of the allowed words, an
    /// entry of an object or list removed, an entry of a list duplicated, two swapped.
    fn neighbours(json: &Value) -> Vec<Value> {
        let mut found = Vec::new();
        match json {
            Value::String(text) => {
                // A hexadecimal digit is replaced by another, so that hashes stay hashes.
                let last = if text.ends_with('0') { "1" } else { "0" };
                let flipped = format!("{}{last}", text.get(..text.len() - 1).unwrap_or_default());
                let longer = format!("{text}x");
                let words = [
                    "",
                    "release",
                    "workflow_run",
                    "canary",
                    "infrastructure",
                    "table",
                    "diff",
                    "text",
                    "link",
                ];
                found.extend([flipped, longer].map(Value::from));
                found.extend(words.map(Value::from));
            }
            Value::Number(number) => found.push(json!(number.as_u64().unwrap() + 1)),
            Value::Object(entries) => {
                for (key, value) in entries {
                    // What is hashed in its place is its SHA-256; bytes that do not match it are never shown.
                    if key == "body" {
                        continue;
                    }
                    let with = |value: Option<Value>| {
                        let mut changed = entries.clone();
                        match value {
                            Some(value) => changed.insert(key.clone(), value),
                            None => changed.remove(key),
                        };
                        Value::Object(changed)
                    };
                    found.push(with(None));
                    found.extend(neighbours(value).into_iter().map(|value| with(Some(value))));
                }
            }
            Value::Array(entries) => {
                for (at, value) in entries.iter().enumerate() {
                    let with = |change: &dyn Fn(&mut Vec<Value>)| {
                        let mut changed = entries.clone();
                        change(&mut changed);
                        Value::Array(changed)
                    };
                    found.push(with(&|list| drop(list.remove(at))));
                    found.push(with(&|list| list.insert(at, value.clone())));
                    if at > 0 {
                        found.push(with(&|list| list.swap(at - 1, at)));
                    }
                    let others = neighbours(value).into_iter();
                    found.extend(others.map(|value| with(&|list| list[at] = value.clone())));
                }
            }
            Value::Null | Value::Bool(_) => panic!("subjects have none: {json}"),
        }
        found
    }

    /// Found by its JSON, so that an added field is covered too.
    #[test]
    fn every_part_of_a_subject_counts() {
        let json = serde_json::to_value(subject()).unwrap();
        let mut seen = BTreeMap::from([(binding(&subject(), &policy()), json.clone())]);
        let mut places = BTreeSet::new();
        for neighbour in neighbours(&json) {
            let Ok(changed) = serde_json::from_value::<Subject>(neighbour) else {
                continue;
            };
            // The same again; an omitted field counts as an empty one.
            let written = serde_json::to_value(&changed).unwrap();
            let bound = binding(&changed, &policy());
            match seen.get(&bound) {
                Some(known) => assert_eq!(*known, written, "the binding does not tell these apart"),
                None => {
                    places.extend(differing("", &json, &written));
                    seen.insert(bound, written);
                }
            }
        }
        // Each of these was changed by itself, and resulted in another binding.
        for place in [
            ".kind",
            ".scope.service",
            ".scope.environment",
            ".scope.target",
            ".images",
            ".images[0].name",
            ".images[0].repository",
            ".images[0].digest",
            ".images[0].tags",
            ".images[0].tags[1]",
            ".commits",
            ".commits.repository_url",
            ".commits.branch",
            ".commits.base",
            ".commits.head",
            ".plan_hash",
            ".summary",
            ".sections",
            ".sections[3].title",
            ".sections[3].source",
            ".sections[3].form",
            ".sections[3].sha256",
            ".sections[3].size",
        ] {
            assert!(places.contains(place), "{place} in {places:?}");
        }
    }

    /// Where two JSON values differ: the deepest places that both have; lists of different length count as a whole.
    fn differing(place: &str, one: &Value, other: &Value) -> BTreeSet<String> {
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => {
                let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
                let of = |key: &String| {
                    let place = format!("{place}.{key}");
                    match (one.get(key), other.get(key)) {
                        (Some(one), Some(other)) => differing(&place, one, other),
                        _ => BTreeSet::from([place]),
                    }
                };
                keys.into_iter().flat_map(of).collect()
            }
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                let pairs = one.iter().zip(other).enumerate();
                pairs
                    .flat_map(|(at, (one, other))| differing(&format!("{place}[{at}]"), one, other))
                    .collect()
            }
            _ if one == other => BTreeSet::new(),
            _ => BTreeSet::from([place.to_owned()]),
        }
    }

    /// The same letters, cut differently.
    #[test]
    fn no_two_subjects_look_alike() {
        let mut shifted = subject();
        shifted.summary = format!("p1{}", shifted.summary);
        shifted.plan_hash.clear();
        let mut moved = subject();
        let [first, .., last] = &mut moved.sections[..] else {
            panic!("it has several")
        };
        first.title = format!("{}{}", first.title, first.source);
        first.source = std::mem::take(&mut last.source);
        let bindings = [subject(), shifted, moved].map(|subject| binding(&subject, &policy()));
        assert_eq!(BTreeSet::from(bindings).len(), 3);
    }
}
