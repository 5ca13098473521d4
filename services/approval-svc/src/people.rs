//! Which principals the authors of a commit are.
//!
//! What a commit says of its author is the author's own word and proves nothing; so somebody who is not known here could
//! be anybody, also one of the approvers, and the decider counts on that.

use std::collections::{BTreeMap, BTreeSet};

use slipway_model::Principal;

use crate::config::Config;

/// The longest e-mail address (RFC 5321) with some room; longer authors are refused.
pub const MAX_AUTHOR: usize = 320;
/// More authors than a commit has.
pub const MAX_AUTHORS: usize = 50;

/// Knows the principals of this service and their e-mail addresses.
#[derive(Debug, Clone, Default)]
pub struct People {
    by_email: BTreeMap<String, Principal>,
    known: BTreeSet<Principal>,
}

/// Authors as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    pub principals: BTreeSet<Principal>,
    pub unmapped: BTreeSet<String>,
}

impl People {
    /// Everyone whom the configuration names: holders of tokens, approvers, and those with an address.
    pub fn of(config: &Config) -> Self {
        let settings = &config.settings;
        let by_email: BTreeMap<String, Principal> = settings
            .people
            .iter()
            .map(|(email, who)| (normal(email), who.clone()))
            .collect();
        let known = config
            .server
            .principals
            .iter()
            .map(slipway_server::PrincipalConfig::principal)
            .chain(
                settings
                    .policies
                    .values()
                    .flat_map(|policy| policy.approvers.iter().cloned()),
            )
            .chain(by_email.values().cloned())
            .collect();
        Self { by_email, known }
    }

    /// An author is an address of the table or a principal that is known; all others are not mapped. Empty texts count
    /// as one author without a name.
    pub fn resolve<'a>(&self, authors: impl IntoIterator<Item = &'a str>) -> Authors {
        let mut resolved = Authors::default();
        for author in authors {
            let author = author.trim();
            let principal = self.by_email.get(&normal(author)).cloned().or_else(|| {
                author
                    .parse::<Principal>()
                    .ok()
                    .filter(|principal| self.known.contains(principal))
            });
            match principal {
                Some(principal) => resolved.principals.insert(principal),
                None if author.is_empty() => resolved
                    .unmapped
                    .insert(crate::approval::UNKNOWN_AUTHOR.to_owned()),
                // Two spellings of one address are one person.
                None => resolved.unmapped.insert(normal(author)),
            };
        }
        resolved
    }
}

/// Addresses are compared without regard to case, as mail servers do in practice.
pub fn normal(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_mapped_or_not() {
        let config: Config = slipway_server::config::parse(
            "x",
            "database: {url: x}\npolicies: {a: {required: 1, approvers: [oidc/eve@x.org]}}\npeople: {Bob@X.org: token/bob}",
        )
        .unwrap();
        let people = People::of(&config);
        let principal = |text: &str| text.parse::<Principal>().unwrap();
        for (author, mapped, unmapped) in [
            ("bob@x.org", Some("token/bob"), None),
            (" BOB@x.ORG ", Some("token/bob"), None),
            ("token/bob", Some("token/bob"), None),
            ("oidc/eve@x.org", Some("oidc/eve@x.org"), None),
            ("zoe@x.org", None, Some("zoe@x.org")),
            // A principal that nobody knows is one that somebody made up.
            ("token/nobody", None, Some("token/nobody")),
            ("", None, Some("unknown")),
        ] {
            let authors = people.resolve([author]);
            assert_eq!(
                authors.principals,
                mapped.map(principal).into_iter().collect(),
                "{author}"
            );
            assert_eq!(
                authors.unmapped,
                unmapped.map(str::to_owned).into_iter().collect(),
                "{author}"
            );
        }
        let all = people.resolve(["zoe@x.org", "ZOE@x.org", "bob@x.org", "token/bob"]);
        assert_eq!((all.principals.len(), all.unmapped.len()), (1, 1));
    }
}
