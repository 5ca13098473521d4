//! Who did something.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The issuer of Slipway's own components.
const SYSTEM: &str = "slipway";

/// Someone whose credential was verified: issuer and subject, printed `issuer/subject`.
///
/// The issuer of static tokens is `token`; the issuer for Slipway itself is `slipway`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal {
    pub issuer: String,
    pub subject: String,
}

impl Principal {
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
        }
    }

    /// One of Slipway's own components, such as the executor of a timer.
    pub fn system(part: &str) -> Self {
        Self::new(SYSTEM, part)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

impl FromStr for Principal {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('/') {
            Some((issuer, subject)) if !issuer.is_empty() && !subject.is_empty() && text.len() <= 512 => {
                Ok(Self::new(issuer, subject))
            }
            _ => Err(Invalid::new("principal", text, "write it issuer/subject")),
        }
    }
}

impl TryFrom<String> for Principal {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> String {
        principal.to_string()
    }
}

/// How a principal was identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// By a token whose hash the service's configuration has.
    StaticToken,
    /// Not by itself: the link before it named it, and was allowed to (role `delegate`).
    Delegated,
    /// It is a component of Slipway, such as a timer, that acts in the service's own process.
    Internal,
}

/// One principal of an [`Actor`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    pub principal: Principal,
    pub authentication: Authentication,
}

/// Who did something: a chain of links, the caller first. Each further link is the principal on whose behalf the one
/// before it acts. The action is attributed to the last one; a rule that forbids something to a principal applies to it
/// at any position in the chain.
///
/// As JSON `{"links": [{"principal": "token/bot", "authentication": "static_token"}, …]}`. The form from before there
/// were chains, `{"principal": …, "on_behalf_of": …}`, is read too: ledgers contain it, and are never rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Actor {
    caller: Link,
    /// After the caller, in order.
    others: Vec<Link>,
}

impl Actor {
    /// A caller that acts on its own behalf.
    pub fn direct(principal: Principal, authentication: Authentication) -> Self {
        let caller = Link {
            principal,
            authentication,
        };
        Self {
            caller,
            others: Vec::new(),
        }
    }

    /// One of Slipway's own components.
    pub fn system(part: &str) -> Self {
        Self::direct(Principal::system(part), Authentication::Internal)
    }

    /// The same, acting on behalf of a person that it names.
    #[must_use]
    pub fn on_behalf_of(mut self, person: Principal) -> Self {
        self.others.push(Link {
            principal: person,
            authentication: Authentication::Delegated,
        });
        self
    }

    /// Whose credential was verified: the first link.
    pub fn caller(&self) -> &Principal {
        &self.caller.principal
    }

    /// The person or program to whom the action is attributed: the last link.
    pub fn effective(&self) -> &Principal {
        &self.others.last().unwrap_or(&self.caller).principal
    }

    /// Whether the caller acted on behalf of another principal.
    pub fn is_delegated(&self) -> bool {
        !self.others.is_empty()
    }

    /// At least one, the caller first.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.caller).chain(&self.others)
    }

    /// Every principal in the chain, the caller first.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.links().map(|link| &link.principal)
    }
}

/// `token/alice`, or `token/alice (through token/bot)`; the caller first where there are more in between.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.effective())?;
        let through = self.principals().take(self.others.len());
        for (at, principal) in through.enumerate() {
            write!(f, "{} {principal}", if at == 0 { " (through" } else { "," })?;
        }
        if self.is_delegated() {
            f.write_str(")")
        } else {
            Ok(())
        }
    }
}

/// Both JSON forms of an actor; only `links` is written.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default, skip_serializing)]
    principal: Option<Principal>,
    #[serde(default, skip_serializing)]
    on_behalf_of: Option<Principal>,
}

impl TryFrom<Stored> for Actor {
    type Error = Invalid;
    fn try_from(stored: Stored) -> Result<Self, Invalid> {
        let invalid = |text: &str, rule| Err(Invalid::new("actor", text, rule));
        match stored {
            Stored {
                principal: Some(principal),
                on_behalf_of,
                links,
            } if links.is_empty() => {
                // When this form was written, tokens were the only authentication.
                let authentication = if principal.issuer == SYSTEM {
                    Authentication::Internal
                } else {
                    Authentication::StaticToken
                };
                let direct = Self::direct(principal, authentication);
                Ok(match on_behalf_of {
                    Some(person) => direct.on_behalf_of(person),
                    None => direct,
                })
            }
            Stored {
                links,
                principal: None,
                on_behalf_of: None,
            } => {
                let mut links = links.into_iter();
                let Some(caller) = links.next() else {
                    return invalid("", "give at least one link");
                };
                if caller.authentication == Authentication::Delegated {
                    return invalid(
                        &caller.principal.to_string(),
                        "the first link is whoever called, and is delegated by nobody",
                    );
                }
                let others = links.collect();
                Ok(Self { caller, others })
            }
            _ => invalid("", "give links alone, without principal and on_behalf_of"),
        }
    }
}

impl From<Actor> for Stored {
    fn from(actor: Actor) -> Self {
        let Actor { caller, mut others } = actor;
        others.insert(0, caller);
        Self {
            links: others,
            principal: None,
            on_behalf_of: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(subject: &str) -> Principal {
        Principal::new("token", subject)
    }

    fn direct(subject: &str) -> Actor {
        Actor::direct(token(subject), Authentication::StaticToken)
    }

    fn read(json: &str) -> Result<Actor, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Pinned: it is in every ledger.
    #[test]
    fn a_chain_is_written_with_its_links() {
        let actor = direct("bot").on_behalf_of(token("alice"));
        let json = r#"{"links":[{"principal":"token/bot","authentication":"static_token"},{"principal":"token/alice","authentication":"delegated"}]}"#;
        assert_eq!(serde_json::to_string(&actor).unwrap(), json);
        assert_eq!(read(json).unwrap(), actor);
        let system = r#"{"links":[{"principal":"slipway/timer","authentication":"internal"}]}"#;
        assert_eq!(serde_json::to_string(&Actor::system("timer")).unwrap(), system);
        assert_eq!(read(system).unwrap(), Actor::system("timer"));
    }

    #[test]
    fn what_was_written_before_there_were_chains_is_read() {
        for (json, actor) in [
            (r#"{"principal":"token/alice"}"#, direct("alice")),
            (
                r#"{"principal":"token/alice","on_behalf_of":null}"#,
                direct("alice"),
            ),
            (
                r#"{"principal":"token/bot","on_behalf_of":"token/alice"}"#,
                direct("bot").on_behalf_of(token("alice")),
            ),
            (r#"{"principal":"slipway/deploy"}"#, Actor::system("deploy")),
        ] {
            assert_eq!(read(json).unwrap(), actor, "{json}");
        }
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        for (json, why) in [
            ("{}", "at least one link"),
            (r#"{"links":[]}"#, "at least one link"),
            (
                r#"{"links":[{"principal":"token/a","authentication":"delegated"}]}"#,
                "delegated by nobody",
            ),
            (
                r#"{"links":[{"principal":"token/a","authentication":"static_token"}],"principal":"token/a"}"#,
                "links alone",
            ),
            (r#"{"on_behalf_of":"token/a"}"#, "links alone"),
            (
                r#"{"links":[{"principal":"token/a","authentication":"hearsay"}]}"#,
                "hearsay",
            ),
            (
                r#"{"links":[{"principal":"alice","authentication":"internal"}]}"#,
                "issuer/subject",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn it_reads_as_people_say_it() {
        let one = direct("bot");
        assert_eq!(one.to_string(), "token/bot");
        let two = one.on_behalf_of(token("alice"));
        assert_eq!(two.to_string(), "token/alice (through token/bot)");
        let three = two.on_behalf_of(token("carol"));
        assert_eq!(three.to_string(), "token/carol (through token/bot, token/alice)");
    }

    proptest! {
        #[test]
        fn chains_keep_their_laws(names in proptest::collection::vec("[a-z]{1,8}", 1..6)) {
            let mut actor = direct(&names[0]);
            prop_assert!(!actor.is_delegated());
            for name in &names[1..] {
                actor = actor.on_behalf_of(token(name));
            }
            let principals: Vec<&str> = actor.principals().map(|who| who.subject.as_str()).collect();
            prop_assert_eq!(&principals, &names);
            prop_assert_eq!(actor.caller(), &token(&names[0]));
            prop_assert_eq!(actor.effective(), &token(&names[names.len() - 1]));
            prop_assert_eq!(actor.is_delegated(), names.len() > 1);
            let delegated = actor.links().filter(|link| link.authentication == Authentication::Delegated).count();
            prop_assert_eq!(delegated, names.len() - 1);
            prop_assert_eq!(read(&serde_json::to_string(&actor).unwrap()).unwrap(), actor);
        }
    }
}
