//! What all kinds of resources have in common: they are read by id, listed, watched and commanded in the same way. A
//! service defines what is specific to a kind with [`Resource`]; [`Resources`] does the rest.

use std::{fmt, marker::PhantomData};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use slipway_ledger::{Decider, Ledger, Meta, Snapshot};
use slipway_model::Id;
use tonic::Status;

use crate::{Action, ApiError, Caller, convert};

mod query;
mod watch;

pub use query::ListQuery;

/// How the API shows a kind of resource.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    type Decider: Decider;
    /// The message that it is shown as.
    type Message: Send + 'static;

    /// As it is shown.
    fn message(snapshot: &Snapshot<Self::Decider>) -> Self::Message;

    /// The name of a value of the API's status enum, such as `STATUS_PENDING`; `None` for an unknown one. Without
    /// `STATUS_` and in lower case it is the value in [`Decider::index`].
    fn status_name(value: i32) -> Option<&'static str>;

    /// What a role must cover.
    fn scope(state: &<Self::Decider as Decider>::State) -> Scope<'_>;

    /// Adds what is not in its own state, to a resource that is read or watched by its id; lists are shown without it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn complete(
        _ledger: &Ledger,
        _snapshot: &Snapshot<Self::Decider>,
        _message: &mut Self::Message,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The service and the environments that a thing belongs to.
///
/// To read it, a role must cover one of the environments; for anything else, all of them. If there are none (a build,
/// or something that was never requested), only a role for every environment covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope<'a> {
    service: &'a str,
    environments: Vec<&'a str>,
}

impl<'a> Scope<'a> {
    pub fn new(service: &'a str, environments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut environments: Vec<&str> = environments.into_iter().collect();
        if environments.is_empty() {
            environments.push("");
        }
        Self {
            service,
            environments,
        }
    }

    /// Of something that was never requested: only those who may do everything may see it.
    pub fn unknown() -> Self {
        Self::new("", [])
    }

    /// Whether the caller may see it.
    pub fn shows(&self, caller: &Caller) -> bool {
        self.environments
            .iter()
            .any(|environment| caller.may(Action::Read, self.service, environment))
    }

    /// # Errors
    /// [`ApiError::Denied`] naming the action and the environment that the caller's roles do not cover.
    pub fn require(&self, caller: &Caller, action: Action) -> Result<(), ApiError> {
        if action == Action::Read {
            return match self.shows(caller) {
                true => Ok(()),
                false => caller.require(action, self.service, self.environments[0]),
            };
        }
        self.environments
            .iter()
            .try_for_each(|environment| caller.require(action, self.service, environment))
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Listed<M> {
    /// Newest first. May be fewer than asked for, since what the caller may not see is left out.
    pub items: Vec<M>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Reads, lists, watches and commands one kind of resource. Cheap to clone.
pub struct Resources<R> {
    ledger: Ledger,
    of: PhantomData<fn() -> R>,
}

impl<R> Clone for Resources<R> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            of: PhantomData,
        }
    }
}

impl<R: Resource> fmt::Debug for Resources<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources")
            .field("kind", &R::Decider::KIND)
            .finish_non_exhaustive()
    }
}

impl<R: Resource> Resources<R> {
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            of: PhantomData,
        }
    }

    /// The resource with that id, if the caller may do `action` on it. A caller that may not do it anywhere does not
    /// learn whether it exists.
    ///
    /// # Errors
    /// A text that is not an id, an id that does not exist, a role that is missing.
    pub async fn find(
        &self,
        caller: &Caller,
        action: Action,
        id: &str,
    ) -> Result<Snapshot<R::Decider>, ApiError> {
        let id: Id = convert::field("id", id)?;
        caller.require_somewhere(action)?;
        let snapshot = self.ledger.get::<R::Decider>(&id).await?;
        let snapshot = snapshot.ok_or_else(|| ApiError::not_found(R::Decider::KIND, &id))?;
        R::scope(&snapshot.state).require(caller, action)?;
        Ok(snapshot)
    }

    /// The resource as it is shown by itself.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<R::Message, ApiError> {
        self.show(&self.find(caller, Action::Read, id).await?).await
    }

    /// A snapshot as it is shown by itself.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn show(&self, snapshot: &Snapshot<R::Decider>) -> Result<R::Message, ApiError> {
        let mut message = R::message(snapshot);
        R::complete(&self.ledger, snapshot, &mut message).await?;
        Ok(message)
    }

    /// A page of those that match and that the caller may see, newest first.
    ///
    /// # Errors
    /// A caller that may read nothing at all; a query that is not well-formed.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<R::Message>, ApiError> {
        self.list_where(caller, query, |_| true).await
    }

    /// As [`list`](Self::list), of those that `keep` keeps; a page may be shorter for it, and even empty.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_where(
        &self,
        caller: &Caller,
        query: &ListQuery,
        keep: impl Fn(&Snapshot<R::Decider>) -> bool,
    ) -> Result<Listed<R::Message>, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let found = self
            .ledger
            .list_of::<R::Decider>(&query.filter::<R>()?, &query.page()?)
            .await?;
        let visible = found
            .items
            .iter()
            .filter(|one| R::scope(&one.state).shows(caller) && keep(one));
        Ok(Listed {
            items: visible.map(R::message).collect(),
            next_page_token: found.next_page_token,
        })
    }

    /// The resource as it is now, then each later state; ends with a final one. With an entity tag, states that are not
    /// newer are left out.
    ///
    /// # Errors
    /// As [`find`](Self::find); an `etag` that is not one.
    pub async fn watch(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
    ) -> Result<BoxStream<'static, Result<R::Message, Status>>, ApiError> {
        let after = convert::optional::<u64>("etag", etag)?;
        let id = self.find(caller, Action::Read, id).await?.id;
        let resources = self.clone();
        let shown = move |snapshot| {
            let resources = resources.clone();
            async move { resources.show(&snapshot).await }
        };
        let states = self
            .ledger
            .watch::<R::Decider>(&id, after)
            .map_err(ApiError::from);
        Ok(states.and_then(shown).map_err(Status::from).boxed())
    }

    /// Every resource that matches and that the caller may see as it is now, then each change of one and each new one;
    /// one that no longer matches is shown a last time. Never ends by itself.
    ///
    /// # Errors
    /// A caller that may read nothing at all; a query that is not well-formed.
    pub fn watch_all(
        &self,
        caller: Caller,
        query: &ListQuery,
    ) -> Result<BoxStream<'static, Result<R::Message, Status>>, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let states = watch::all::<R>(self.ledger.clone(), caller, query.filter::<R>()?);
        let shown = states.map_ok(|snapshot| R::message(&snapshot));
        Ok(shown.map_err(Status::from).boxed())
    }

    /// Gives a command to a resource that was [found](Self::find).
    ///
    /// # Errors
    /// The refusal, and errors of the ledger.
    pub async fn execute(
        &self,
        id: &Id,
        command: <R::Decider as Decider>::Command,
        meta: &Meta,
    ) -> Result<R::Message, ApiError> {
        let snapshot = self
            .ledger
            .execute::<R::Decider>(id, move || command.clone(), meta)
            .await?;
        self.show(&snapshot).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authenticator, PrincipalConfig, RoleConfig};

    fn caller(environments: &[&str]) -> Caller {
        let role = RoleConfig {
            actions: vec![Action::Read, Action::Cancel],
            services: vec!["shop".to_owned()],
            environments: environments.iter().map(|name| (*name).to_owned()).collect(),
        };
        let known = Authenticator::new(&[PrincipalConfig::new("alice", "token", vec![role]).unwrap()]);
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", "Bearer token".parse().unwrap());
        known.authenticate(&headers).unwrap()
    }

    #[test]
    fn one_environment_is_enough_to_see_and_all_are_needed_to_act() {
        let scope = Scope::new("shop", ["dev", "prod"]);
        for (environments, sees, acts) in [
            (&["dev"][..], true, false),
            (&["prod"], true, false),
            (&["dev", "prod"], true, true),
            (&["*"], true, true),
            (&["staging"], false, false),
        ] {
            let caller = caller(environments);
            assert_eq!(scope.shows(&caller), sees, "{environments:?}");
            assert_eq!(
                scope.require(&caller, Action::Read).is_ok(),
                sees,
                "{environments:?}"
            );
            assert_eq!(
                scope.require(&caller, Action::Cancel).is_ok(),
                acts,
                "{environments:?}"
            );
        }
    }

    #[test]
    fn what_has_no_environment_is_for_roles_in_every_environment() {
        let build = Scope::new("shop", []);
        assert!(build.shows(&caller(&["*"])));
        assert!(!build.shows(&caller(&["dev"])));
        assert!(!Scope::new("other", []).shows(&caller(&["*"])));
        assert!(!Scope::unknown().shows(&caller(&["*"])));
    }
}
