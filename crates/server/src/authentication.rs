//! Who calls: bearer tokens, stored as hashes, and the scoped roles of their holders.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::HeaderMap;
use slipway_model::{Actor, Authentication, Principal};
use subtle::ConstantTimeEq;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{Action, ApiError, PrincipalConfig, RoleConfig, TokenHash, access_log::CallerSlot};

/// The health service needs no token: the kubelet has none.
pub(crate) const OPEN: &str = "/grpc.health.v1.Health/";

/// Knows the principals. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    known: Arc<[Known]>,
}

#[derive(Debug)]
struct Known {
    principal: Principal,
    hash: TokenHash,
    roles: Arc<[RoleConfig]>,
}

impl Authenticator {
    pub fn new(principals: &[PrincipalConfig]) -> Self {
        let known = principals
            .iter()
            .map(|entry| Known {
                principal: entry.principal(),
                hash: entry.token_sha256,
                roles: entry.roles.clone().into(),
            })
            .collect();
        Self { known }
    }

    /// The caller, as proven by the `authorization` header.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`], which never repeats what was sent.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let unauthenticated = |message: &str| ApiError::Unauthenticated {
            message: message.to_owned(),
        };
        let value = headers
            .get(http::header::AUTHORIZATION)
            .ok_or_else(|| unauthenticated("no token; send metadata authorization: Bearer <token>"))?;
        let token = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| unauthenticated("authorization is not of the form Bearer <token>"))?;
        let given = TokenHash::of(token);
        // Every entry is compared in full, so that timing reveals nothing about which one is close.
        let mut found = None;
        for known in self.known.iter() {
            if bool::from(known.hash.0.ct_eq(&given.0)) {
                found = Some(known);
            }
        }
        let known = found.ok_or_else(|| unauthenticated("the token is not known here"))?;
        Ok(Caller {
            principal: known.principal.clone(),
            authentication: Authentication::StaticToken,
            roles: Arc::clone(&known.roles),
            directory: self.clone(),
        })
    }

    /// Everyone in the configuration who may do all of these things with one token.
    pub fn who_may(&self, actions: &[Action], service: &str, environment: &str) -> BTreeSet<Principal> {
        let may_all = |known: &&Known| {
            actions
                .iter()
                .all(|action| allows(&known.roles, *action, service, environment))
        };
        let found = self.known.iter().filter(may_all);
        found.map(|known| known.principal.clone()).collect()
    }

    /// Whether a principal of the configuration may do this, with any of its tokens.
    pub fn may(&self, principal: &Principal, action: Action, service: &str, environment: &str) -> bool {
        self.known
            .iter()
            .filter(|known| known.principal == *principal)
            .any(|known| allows(&known.roles, action, service, environment))
    }
}

/// The verified caller of a request. The authentication layer puts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Principal,
    authentication: Authentication,
    roles: Arc<[RoleConfig]>,
    directory: Authenticator,
}

impl Caller {
    /// The caller of a request.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the request did not come through the authentication layer.
    #[allow(clippy::result_large_err)] // tonic's own type
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
        request.extensions().get::<Caller>().cloned().ok_or_else(|| {
            ApiError::Unauthenticated {
                message: "the request has no verified caller".to_owned(),
            }
            .into()
        })
    }

    /// The verified principal.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether a role allows it. An empty service or environment means "of no particular one" and is covered only by
    /// patterns that match everything.
    pub fn may(&self, action: Action, service: &str, environment: &str) -> bool {
        allows(&self.roles, action, service, environment)
    }

    /// # Errors
    /// [`ApiError::Denied`] naming the action and the scope.
    pub fn require(&self, action: Action, service: &str, environment: &str) -> Result<(), ApiError> {
        if self.may(action, service, environment) {
            Ok(())
        } else {
            let scope = |what, name: &str| {
                if name.is_empty() {
                    format!("every {what}")
                } else {
                    format!("{what} {name}")
                }
            };
            Err(ApiError::Denied {
                message: format!(
                    "{} may not {action} on {} in {}: the role is missing",
                    self.principal,
                    scope("service", service),
                    scope("environment", environment)
                ),
            })
        }
    }

    /// Whether the caller may do it anywhere: for lists, whose entries are then filtered one by one.
    ///
    /// # Errors
    /// [`ApiError::Denied`] when no role has the action at all.
    pub fn require_somewhere(&self, action: Action) -> Result<(), ApiError> {
        if self.roles.iter().any(|role| role.actions.contains(&action)) {
            Ok(())
        } else {
            Err(ApiError::Denied {
                message: format!(
                    "{} may not {action} anywhere: the role is missing",
                    self.principal
                ),
            })
        }
    }

    /// The caller, acting on its own behalf, as an actor to record.
    pub fn direct(&self) -> Actor {
        Actor::direct(self.principal.clone(), self.authentication)
    }

    /// The actor to record: the caller and, with the `delegate` role, the principal that it names (`issuer/subject`).
    ///
    /// # Errors
    /// [`ApiError::Denied`] without the role; [`ApiError::Invalid`] for a text that is not a principal.
    pub fn actor(&self, on_behalf_of: &str, service: &str, environment: &str) -> Result<Actor, ApiError> {
        let Some(person) = crate::convert::optional::<Principal>("on_behalf_of", on_behalf_of)? else {
            return Ok(self.direct());
        };
        if person == self.principal {
            return Ok(self.direct());
        }
        self.require(Action::Delegate, service, environment)?;
        Ok(self.direct().on_behalf_of(person))
    }

    /// Everyone in this server's configuration who may do all of these things with one token.
    pub fn who_may(&self, actions: &[Action], service: &str, environment: &str) -> BTreeSet<Principal> {
        self.directory.who_may(actions, service, environment)
    }

    /// Whether another principal of this server's configuration may do it.
    pub fn other_may(&self, other: &Principal, action: Action, service: &str, environment: &str) -> bool {
        self.directory.may(other, action, service, environment)
    }
}

fn allows(roles: &[RoleConfig], action: Action, service: &str, environment: &str) -> bool {
    roles.iter().any(|role| {
        role.actions.contains(&action)
            && role.services.iter().any(|pattern| matches(pattern, service))
            && role
                .environments
                .iter()
                .any(|pattern| matches(pattern, environment))
    })
}

/// Whether a scope's pattern matches a name: `*` stands for any text, including an empty one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Greedy, with one star to backtrack to: never exponential.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            p = after + 1;
            t = from + 1;
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Lets only verified callers through, except to the health service.
#[derive(Debug, Clone)]
pub(crate) struct AuthenticationLayer(pub(crate) Authenticator);

impl<S> Layer<S> for AuthenticationLayer {
    type Service = Authenticated<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Authenticated {
            inner,
            authenticator: self.0.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Authenticated<S> {
    inner: S,
    authenticator: Authenticator,
}

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with(OPEN) {
            match self.authenticator.authenticate(request.headers()) {
                Ok(caller) => {
                    if let Some(slot) = request.extensions().get::<CallerSlot>() {
                        slot.set(caller.principal());
                    }
                    request.extensions_mut().insert(caller);
                }
                Err(error) => {
                    let response = Status::from(error).into_http();
                    return Box::pin(std::future::ready(Ok(response)));
                }
            }
        }
        // Inner layers do not need the token and could only leak it.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        Box::pin(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator() -> Authenticator {
        let scoped = RoleConfig {
            actions: vec![Action::Approve],
            services: vec!["shop-*".to_owned()],
            environments: vec!["staging".to_owned()],
        };
        Authenticator::new(&[
            PrincipalConfig::new("alice", "a-token", vec![scoped]).unwrap(),
            PrincipalConfig::new("bot", "b-token", vec![RoleConfig::everywhere([Action::Delegate])]).unwrap(),
            PrincipalConfig::new("bot", "b-next", vec![RoleConfig::everywhere([Action::Read])]).unwrap(),
        ])
    }

    fn caller(authorization: &str) -> Result<Caller, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().unwrap());
        authenticator().authenticate(&headers)
    }

    #[test]
    fn tokens_are_known_by_their_hash() {
        assert_eq!(
            caller("Bearer a-token").unwrap().principal().to_string(),
            "token/alice"
        );
        assert_eq!(
            caller("bearer b-next").unwrap().principal().to_string(),
            "token/bot"
        );
        for bad in [
            "Bearer wrong",
            "Bearer ",
            "Basic a-token",
            "a-token",
            "Bearer a-token2",
        ] {
            let error = caller(bad).unwrap_err();
            assert!(
                matches!(error, ApiError::Unauthenticated { .. }),
                "{bad}: {error}"
            );
            assert!(!error.to_string().contains("a-token"));
        }
        assert!(authenticator().authenticate(&HeaderMap::new()).is_err());
    }

    #[test]
    fn roles_are_scoped() {
        let alice = caller("Bearer a-token").unwrap();
        for (action, service, environment, may) in [
            (Action::Approve, "shop-web", "staging", true),
            (Action::Approve, "shop-web", "prod", false),
            (Action::Approve, "identity", "staging", false),
            (Action::Approve, "", "", false),
            (Action::Start, "shop-web", "staging", false),
        ] {
            assert_eq!(
                alice.may(action, service, environment),
                may,
                "{action} {service} {environment}"
            );
        }
        let denied = alice
            .require(Action::Start, "shop-web", "prod")
            .unwrap_err()
            .to_string();
        assert!(
            denied.contains("token/alice may not start on service shop-web in environment prod"),
            "{denied}"
        );
        assert!(alice.require_somewhere(Action::Approve).is_ok());
        assert!(alice.require_somewhere(Action::Read).is_err());
    }

    #[test]
    fn delegation_needs_the_role_and_records_both() {
        let alice = caller("Bearer a-token").unwrap();
        let bot = caller("Bearer b-token").unwrap();
        let alone = Actor::direct("token/alice".parse().unwrap(), Authentication::StaticToken);
        assert_eq!(alice.direct(), alone);
        assert_eq!(alice.actor("", "s", "e").unwrap(), alone);
        // A caller that names itself acts on its own behalf.
        assert_eq!(alice.actor("token/alice", "s", "e").unwrap(), alone);
        assert!(matches!(
            alice.actor("token/bob", "s", "e"),
            Err(ApiError::Denied { .. })
        ));
        let actor = bot.actor("token/alice", "s", "e").unwrap();
        assert_eq!(actor.to_string(), "token/alice (through token/bot)");
        let how: Vec<Authentication> = actor.links().map(|link| link.authentication).collect();
        assert_eq!(how, [Authentication::StaticToken, Authentication::Delegated]);
        assert!(matches!(
            bot.actor("nobody", "s", "e"),
            Err(ApiError::Invalid { .. })
        ));
        assert!(bot.other_may(actor.effective(), Action::Approve, "shop-x", "staging"));
        assert!(!bot.other_may(
            &"token/zoe".parse().unwrap(),
            Action::Approve,
            "shop-x",
            "staging"
        ));
    }

    #[test]
    fn who_may_is_asked_of_each_token() {
        let known = authenticator();
        let names = |actions: &[Action], service: &str, environment: &str| {
            let found = known.who_may(actions, service, environment);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&[Action::Approve], "shop-web", "staging"), ["token/alice"]);
        assert!(names(&[Action::Approve], "shop-web", "prod").is_empty());
        assert_eq!(names(&[Action::Delegate], "shop-web", "prod"), ["token/bot"]);
        // The bot may do both, but not with one token.
        assert!(names(&[Action::Delegate, Action::Read], "shop-web", "prod").is_empty());
    }

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "x", true),
            ("a*", "ab", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*a*b*", "xxaybz", true),
            ("ab", "abc", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern:?} {text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn patterns_agree_with_splitting(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| slow(rest, &text[n..])),
                    Some((b, rest)) => text.split_first().is_some_and(|(t, tail)| t == b && slow(rest, tail)),
                }
            }
            proptest::prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
