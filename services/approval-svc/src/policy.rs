//! Who must say yes to what: policies and subjects, and the hashes by which a decision names both.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_model::{CommitSha, Digest, Name, Principal};

/// A policy as it was when an approval was asked for. Later configurations do not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub name: Name,
    /// How many different people must approve; 0 approves at once.
    pub required: u32,
    /// Who may decide; empty means anyone with the approve role in scope.
    pub approvers: BTreeSet<Principal>,
    /// Whoever asked may not decide.
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

/// What an approval is for. A decision holds for exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub service: Name,
    pub environment: Name,
    /// The deploy target, such as `staging/shop/Deployment/web`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The image that would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Hash of the plan that the request belongs to; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_hash: String,
    /// Source commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSha>,
    /// One line for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// What a decision names: SHA-256 over the subject and the policy, in hex.
pub fn binding(subject: &Subject, policy: &Policy) -> String {
    let mut hash = Fields::new("slipway.approval.binding.v1");
    hash.field("service", subject.service.as_str());
    hash.field("environment", subject.environment.as_str());
    hash.field("target", &subject.target);
    hash.field("digest", subject.digest.as_ref().map_or("", Digest::as_str));
    hash.field("plan_hash", &subject.plan_hash);
    hash.field("commit", subject.commit.as_ref().map_or("", CommitSha::as_str));
    hash.field("summary", &subject.summary);
    hash.field("policy", &policy.hash());
    hash.finish()
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
    use super::*;

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
        Subject {
            service: "shop".parse().unwrap(),
            environment: "prod".parse().unwrap(),
            target: "prod/shop/Deployment/web".to_owned(),
            digest: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
            plan_hash: "p1".to_owned(),
            commit: Some("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap()),
            summary: "shop to prod".to_owned(),
        }
    }

    /// Approvals that are waiting carry their binding: a change of the formula would strand them.
    #[test]
    fn the_formula_is_pinned() {
        assert_eq!(
            policy().hash(),
            "bc23cab3e8850effe444abc52aad6efe1ee7ddcf8737ffd9d16e61ceca699876"
        );
        assert_eq!(
            binding(&subject(), &policy()),
            "4d23d17f5d7680fc6e29314db255bcdcabae5e1ca24fe5d22257236b27f4c7a8"
        );
    }

    #[test]
    fn every_part_counts() {
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
        let subjects: [fn(&mut Subject); 8] = [
            |s| s.service = "other".parse().unwrap(),
            |s| s.environment = "dev".parse().unwrap(),
            |s| s.target.clear(),
            |s| s.digest = None,
            |s| s.plan_hash = "p2".to_owned(),
            |s| s.commit = None,
            |s| s.summary.push('.'),
            // The same letters, cut differently.
            |s| {
                s.target = "prod/shop/Deployment/webp1".to_owned();
                s.plan_hash.clear();
            },
        ];
        for change in subjects {
            let mut changed = subject();
            change(&mut changed);
            assert!(seen.insert(binding(&changed, &policy())), "{changed:?}");
        }
    }
}
