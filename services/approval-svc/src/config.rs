//! The configuration: the sections of every service, and the policies and people, which no other service has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use approval_domain::{
    people::{MAX_AUTHOR, People, normalized},
    policy::Policy,
    subject::Scope,
};
use serde::Deserialize;
use slipway_model::{Name, Principal};
use slipway_server::{ConfigError, PrincipalConfig, ServiceSettings, authentication::matches};

/// A request waits this long when its policy does not say: over a weekend.
const EXPIRE_AFTER: Duration = Duration::from_secs(72 * 3600);
/// The longest that a request may wait.
const MAX_EXPIRE_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The whole file.
pub type Config = slipway_server::Config<Settings>;

/// The keys that are this service's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Policies by name. They are here and nowhere else, so that no caller can weaken them.
    pub policies: BTreeMap<Name, PolicyConfig>,
    /// The principal that an e-mail address in a commit belongs to.
    #[serde(default)]
    pub people: BTreeMap<String, Principal>,
}

/// One policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// How many different people must approve; 0 approves at once and says so.
    pub required: u32,
    /// Who may decide, such as `token/alice`; empty leaves it to everyone with the approve role in scope.
    #[serde(default)]
    pub approvers: Vec<Principal>,
    /// The requester may not decide.
    #[serde(default = "yes")]
    pub exclude_requester: bool,
    /// Authors of the commit may not decide.
    #[serde(default = "yes")]
    pub exclude_authors: bool,
    /// How long a request waits for decisions.
    #[serde(default = "expire_after", with = "slipway_model::duration")]
    pub expire_after: Duration,
    /// Services that may be requested under this policy; patterns in which `*` stands for any text.
    #[serde(default = "everything")]
    pub services: Vec<String>,
    /// Environments that may be requested under this policy, so that no caller can use the one for dev in prod.
    #[serde(default = "everything")]
    pub environments: Vec<String>,
}

fn yes() -> bool {
    true
}

fn expire_after() -> Duration {
    EXPIRE_AFTER
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

impl PolicyConfig {
    /// Whether a request for this scope may name the policy. Without an environment, only patterns that match everything do.
    pub(crate) fn covers(&self, scope: &Scope) -> bool {
        self.services
            .iter()
            .any(|pattern| matches(pattern, scope.service.as_str()))
            && self
                .environments
                .iter()
                .any(|pattern| matches(pattern, scope.environment()))
    }

    /// The policy as an approval keeps it.
    pub(crate) fn policy(&self, name: &Name) -> Policy {
        Policy {
            name: name.clone(),
            required: self.required,
            approvers: self.approvers.iter().cloned().collect(),
            exclude_requester: self.exclude_requester,
            exclude_authors: self.exclude_authors,
            expire_after_seconds: self.expire_after.as_secs(),
        }
    }

    fn check(&self, key: &str) -> Result<(), ConfigError> {
        let distinct: BTreeSet<&Principal> = self.approvers.iter().collect();
        if distinct.len() < self.approvers.len() {
            return Err(ConfigError::invalid(
                format!("{key}.approvers"),
                "names a principal twice; name each once",
            ));
        }
        if !distinct.is_empty()
            && usize::try_from(self.required).map_or(true, |required| required > distinct.len())
        {
            return Err(ConfigError::invalid(
                format!("{key}.required"),
                format!(
                    "is {}, but only {} approvers are listed; list more or require fewer",
                    self.required,
                    distinct.len()
                ),
            ));
        }
        if self.expire_after < Duration::from_secs(1) || self.expire_after > MAX_EXPIRE_AFTER {
            return Err(ConfigError::invalid(
                format!("{key}.expire_after"),
                "must be between 1s and 365 days (8760h)",
            ));
        }
        for (name, patterns) in [("services", &self.services), ("environments", &self.environments)] {
            if patterns.is_empty() {
                return Err(ConfigError::invalid(
                    format!("{key}.{name}"),
                    "is empty; leave it out for all",
                ));
            }
        }
        Ok(())
    }
}

/// Everyone whom the configuration names: holders of tokens, approvers, and people with e-mail addresses.
pub(crate) fn people(config: &Config) -> People {
    let settings = &config.settings;
    let holders = config.server.principals.iter().map(PrincipalConfig::principal);
    let policies = settings.policies.values();
    let approvers = policies.flat_map(|policy| policy.approvers.iter().cloned());
    let emails = settings.people.iter();
    let emails = emails.map(|(email, principal)| (email.clone(), principal.clone()));
    People::new(emails, holders.chain(approvers))
}

impl ServiceSettings for Settings {
    fn check(&self) -> Result<(), ConfigError> {
        for (name, policy) in &self.policies {
            policy.check(&format!("policies.{name}"))?;
        }
        let mut seen = BTreeSet::new();
        for email in self.people.keys() {
            if !email.contains('@') || email.len() > MAX_AUTHOR {
                return Err(ConfigError::invalid(
                    format!("people.{email}"),
                    "is not an e-mail address",
                ));
            }
            if !seen.insert(normalized(email)) {
                return Err(ConfigError::invalid(
                    format!("people.{email}"),
                    "is listed twice (upper and lower case are the same); keep one",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let config: Config = slipway_server::config::parse("approval.yaml", text)?;
        config.check()?;
        Ok(config)
    }

    /// The example in the README works.
    #[test]
    fn the_example_is_valid() {
        let config = parse(include_str!("../example.yaml")).unwrap();
        let prod: Name = "prod".parse().unwrap();
        let policies = &config.settings.policies;
        assert_eq!(policies[&prod].required, 2);
        let scope = |environment: Option<&Name>| Scope {
            service: "shop".parse().unwrap(),
            environment: environment.cloned(),
            target: String::new(),
        };
        let automatic: Name = "automatic".parse().unwrap();
        for scope in [scope(Some(&prod)), scope(None)] {
            assert!(policies[&prod].covers(&scope));
            assert!(!policies[&automatic].covers(&scope));
        }
    }

    #[test]
    fn everyone_whom_it_names_is_known() {
        let text = "\
server: {principals: [{subject: dan, token_sha256: 9c220f200955d76c0a38d308225e0ef10c5f971acaf2f8d1d8f732affa5bd1dc}]}
database: {url: 'sqlite:///x'}
policies: {a: {required: 1, approvers: [oidc/eve@x.org]}}
people: {Bob@X.org: token/bob}
";
        let people = people(&parse(text).unwrap());
        for (author, principal) in [
            ("token/dan", Some("token/dan")),
            ("oidc/eve@x.org", Some("oidc/eve@x.org")),
            ("bob@x.org", Some("token/bob")),
            ("token/bob", Some("token/bob")),
            ("token/zoe", None),
        ] {
            let principals = people.resolve([author]).principals;
            let expected = principal.map(|text| text.parse::<Principal>().unwrap());
            assert_eq!(principals, expected.into_iter().collect(), "{author}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let with = |policies: &str| format!("database: {{url: 'sqlite:///x'}}\n{policies}\n");
        for (text, says) in [
            (
                with("policies: {a: {required: 1, approver: []}}"),
                "approval.yaml:2:29: policies.a.approver: unknown field",
            ),
            (with("policies: {A_b: {required: 1}}"), "approval.yaml:2"),
            (with("policies: {a: {}}"), "required"),
            (
                with("policies: {a: {required: 2, approvers: [token/b]}}"),
                "policies.a.required: is 2, but only 1",
            ),
            (
                with("policies: {a: {required: 1, approvers: [token/b, token/b]}}"),
                "policies.a.approvers: names a principal twice",
            ),
            (
                with("policies: {a: {required: 1, approvers: [bob]}}"),
                "write it issuer/subject",
            ),
            (
                with("policies: {a: {required: 1, expire_after: 0s}}"),
                "policies.a.expire_after: must be between",
            ),
            (
                with("policies: {a: {required: 1, expire_after: 9000h}}"),
                "policies.a.expire_after: must be between",
            ),
            (
                with("policies: {a: {required: 1, environments: []}}"),
                "policies.a.environments: is empty",
            ),
            (
                with("policies: {}\npeople: {bob: token/bob}"),
                "people.bob: is not an e-mail",
            ),
            (
                with("policies: {}\npeople: {B@x: token/b, b@x: token/b}"),
                "is listed twice",
            ),
            (
                "database: {}\npolicies: {}".to_owned(),
                "database.url: is required",
            ),
        ] {
            let error = parse(&text).expect_err(&text).to_string();
            assert!(error.contains(says), "{text}\n{error}");
        }
    }
}
