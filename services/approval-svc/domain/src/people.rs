//! Which principals the authors of a commit are.
//!
//! The author that a commit names is not verified. So an author who is not known here could be anyone, even one of the
//! approvers; the decider then requires one approval more.

use std::collections::{BTreeMap, BTreeSet};

use slipway_model::Principal;

/// Stands for the author when a policy excludes authors and the request names none.
pub const UNKNOWN_AUTHOR: &str = "unknown";
/// The longest e-mail address (RFC 5321) with some room; longer authors are refused.
pub const MAX_AUTHOR: usize = 320;
/// More authors than a commit has.
pub const MAX_AUTHORS: usize = 50;

/// The principals that this service knows, and their e-mail addresses.
#[derive(Debug, Clone, Default)]
pub struct People {
    by_email: BTreeMap<String, Principal>,
    known: BTreeSet<Principal>,
}

/// Authors, mapped to principals as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    pub principals: BTreeSet<Principal>,
    pub unmapped: BTreeSet<String>,
}

impl People {
    /// `by_email` says whose address is whose; those principals are known, and so are `others`.
    pub fn new(
        by_email: impl IntoIterator<Item = (String, Principal)>,
        others: impl IntoIterator<Item = Principal>,
    ) -> Self {
        let by_email: BTreeMap<String, Principal> = by_email
            .into_iter()
            .map(|(email, principal)| (normalized(&email), principal))
            .collect();
        let known = others.into_iter().chain(by_email.values().cloned()).collect();
        Self { by_email, known }
    }

    /// An author is mapped when it is an e-mail address of the table or a principal that is known. All empty texts
    /// together count as one author without a name.
    pub fn resolve<'a>(&self, authors: impl IntoIterator<Item = &'a str>) -> Authors {
        let mut resolved = Authors::default();
        for author in authors {
            let author = author.trim();
            let principal = self.by_email.get(&normalized(author)).cloned().or_else(|| {
                author
                    .parse::<Principal>()
                    .ok()
                    .filter(|principal| self.known.contains(principal))
            });
            match principal {
                Some(principal) => resolved.principals.insert(principal),
                None if author.is_empty() => resolved.unmapped.insert(UNKNOWN_AUTHOR.to_owned()),
                // Two spellings of one address are one person.
                None => resolved.unmapped.insert(normalized(author)),
            };
        }
        resolved
    }
}

/// Addresses are compared without regard to case, as mail servers do in practice.
pub fn normalized(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_mapped_or_not() {
        let principal = |text: &str| text.parse::<Principal>().unwrap();
        let people = People::new(
            [("Bob@X.org".to_owned(), principal("token/bob"))],
            [principal("oidc/eve@x.org")],
        );
        for (author, mapped, unmapped) in [
            ("bob@x.org", Some("token/bob"), None),
            (" BOB@x.ORG ", Some("token/bob"), None),
            ("token/bob", Some("token/bob"), None),
            ("oidc/eve@x.org", Some("oidc/eve@x.org"), None),
            ("zoe@x.org", None, Some("zoe@x.org")),
            // A principal that is not known may be made up.
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
