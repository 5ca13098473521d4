//! Lists of changes: those of the ledger and, on request, commits by others.
//!
//! Both are newest first already, so they are merged by time. A page's token records the position in each; a page does
//! a limited amount of work, and so may be shorter than asked for.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gitops_domain::{
    change::{Change, State, Status},
    history::{self, Commit},
};
use serde::{Deserialize, Serialize};
use slipway_ledger::{Ledger, ListFilter, Page, Snapshot};
use slipway_model::{BranchName, CommitSha, Id, Name, Timestamp, TraceId};
use slipway_proto::gitops::v1 as proto;
use slipway_server::{Action, ApiError, Caller, ListQuery, Listed, Resource as _, convert};

use super::{
    Changes, GitOpsGrpc,
    convert::{branch, commit_to_proto, folder},
    edits::path_of,
};
use crate::backends::repository::Repository;

/// The number of changes and commits that are examined for one page.
const MAX_LOOKED: usize = 2000;
/// The number of commits, or changes, that are read at a time.
const AT_ONCE: usize = 64;

/// What is listed.
#[derive(Debug)]
struct ChangeQuery {
    repository: Arc<Repository>,
    /// Only with history.
    branch: Option<BranchName>,
    service: Option<Name>,
    environment: Option<Name>,
    correlation: String,
    /// A file or folder; empty for all.
    path: String,
}

impl ChangeQuery {
    /// Whether one of our changes belongs to the list.
    fn has(&self, state: &State) -> bool {
        let Some(request) = &state.request else {
            return false;
        };
        request.repository == self.repository.name()
            && self
                .branch
                .as_ref()
                .is_none_or(|branch| request.branch == *branch)
            && (self.path.is_empty()
                || request.edits.iter().filter_map(path_of).any(|file| {
                    // A kustomization is known by its folder.
                    let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    history::is_below(file, &self.path) || (file == folder && !folder.is_empty())
                }))
    }
}

/// The position in a list.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Position {
    /// The list that the token is of.
    list: String,
    ledger: LedgerPosition,
    /// The commit to continue at; absent if there is no more history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<CommitSha>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct LedgerPosition {
    /// The ledger's page.
    page: String,
    /// The time in microseconds, and the id, of the last change that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<(i64, Id)>,
    over: bool,
}

impl Position {
    fn token(&self) -> String {
        // Texts and numbers are always JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn read(token: &str, list: &str) -> Result<Self, ApiError> {
        let wrong = || ApiError::invalid("page_token", "does not belong to this list; begin without one");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let position: Self = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        if position.list == list {
            Ok(position)
        } else {
            Err(wrong())
        }
    }
}

/// The ledger's changes, one after the other.
struct LedgerChanges<'a> {
    ledger: &'a Ledger,
    filter: ListFilter,
    buffer: VecDeque<Snapshot<Change>>,
    at: LedgerPosition,
    /// The page after the buffered one; `None` before the first is read.
    next: Option<String>,
}

impl LedgerChanges<'_> {
    async fn peek(&mut self) -> Result<Option<&Snapshot<Change>>, ApiError> {
        while self.buffer.is_empty() && !self.at.over {
            if let Some(next) = self.next.take() {
                if next.is_empty() {
                    self.at.over = true;
                    break;
                }
                self.at.page = next;
            }
            let page = Page {
                size: u32::try_from(AT_ONCE).unwrap_or(u32::MAX),
                token: self.at.page.clone(),
            };
            let found = self.ledger.list_of::<Change>(&self.filter, &page).await?;
            // Skip what was taken already, and what was added since.
            let taken = |change: &Snapshot<Change>| {
                self.at
                    .last
                    .as_ref()
                    .is_some_and(|(at, id)| (change.created_at.as_micros(), &change.id) >= (*at, id))
            };
            self.buffer = found.items.into_iter().filter(|change| !taken(change)).collect();
            self.next = Some(found.next_page_token);
        }
        Ok(self.buffer.front())
    }

    fn pop(&mut self) -> Option<Snapshot<Change>> {
        let change = self.buffer.pop_front()?;
        self.at.last = Some((change.created_at.as_micros(), change.id.clone()));
        Some(change)
    }

    /// Whether it is certain that nothing is left.
    fn is_over(&self) -> bool {
        self.at.over || (self.buffer.is_empty() && self.next.as_deref() == Some(""))
    }

    fn position(&self) -> LedgerPosition {
        LedgerPosition {
            over: self.is_over(),
            ..self.at.clone()
        }
    }
}

/// The branch's commits, one after the other.
struct Commits<'a> {
    repository: &'a Arc<Repository>,
    path: &'a str,
    buffer: VecDeque<Commit>,
    /// After the buffered ones.
    next: Option<CommitSha>,
}

impl Commits<'_> {
    /// The next one, if there is one among the next `left` commits, which are counted down.
    async fn peek(&mut self, left: &mut usize) -> Result<Option<&Commit>, ApiError> {
        while self.buffer.is_empty()
            && *left > 0
            && let Some(from) = &self.next
        {
            // With a path, most are not examined closely.
            let look = if self.path.is_empty() {
                AT_ONCE.min(*left)
            } else {
                *left
            };
            let walked = self.repository.walk(from, self.path, AT_ONCE, look).await?;
            *left = left.saturating_sub(walked.looked.max(1));
            self.buffer = walked.commits.into();
            self.next = walked.next;
        }
        Ok(self.buffer.front())
    }

    fn is_over(&self) -> bool {
        self.buffer.is_empty() && self.next.is_none()
    }

    fn position(&self) -> Option<CommitSha> {
        match self.buffer.front() {
            Some(commit) => Some(commit.id.clone()),
            None => self.next.clone(),
        }
    }
}

impl GitOpsGrpc {
    pub(super) async fn list(
        &self,
        caller: &Caller,
        request: proto::ListChangesRequest,
    ) -> Result<proto::ListChangesResponse, ApiError> {
        let (path, of_branch, name, history) = (
            request.path.clone(),
            request.branch.clone(),
            request.repository.clone(),
            request.history,
        );
        for (field, text) in [("path", &path), ("branch", &of_branch)] {
            if !history && !text.is_empty() {
                return Err(ApiError::invalid(field, "applies to history only"));
            }
        }
        if history && name.is_empty() {
            return Err(ApiError::invalid("repository", "is required with history"));
        }
        let query = ListQuery::from(request);
        if name.is_empty() {
            let Listed {
                items,
                next_page_token,
            } = self.changes.list(caller, &query).await?;
            return Ok(proto::ListChangesResponse {
                changes: items,
                next_page_token,
            });
        }
        caller.require_somewhere(Action::Read)?;
        let repository = Arc::clone(self.repository(&name)?);
        let filter = query.filter::<Changes>()?;
        let wanted = ChangeQuery {
            branch: match history {
                true => Some(branch(&repository, &of_branch)?),
                false => None,
            },
            repository,
            service: convert::name_filter("service", &query.service)?,
            environment: convert::name_filter("environment", &query.environment)?,
            correlation: query.correlation_id.clone(),
            path: match path.as_str() {
                "" => String::new(),
                path => folder("path", path)?.as_str().to_owned(),
            },
        };
        let history = history
            // Commits by others are pushed, and do not have labels.
            && (filter.status.is_empty() || filter.status.iter().any(|status| status == Status::Pushed.as_str()))
            && filter.labels.is_empty();
        let page = query.page()?;
        self.list_together(caller, &wanted, filter, history, page.size as usize, &page.token)
            .await
    }

    /// The changes of a repository, and commits by others on its branch.
    async fn list_together(
        &self,
        caller: &Caller,
        wanted: &ChangeQuery,
        filter: ListFilter,
        history: bool,
        size: usize,
        token: &str,
    ) -> Result<proto::ListChangesResponse, ApiError> {
        let repository = &wanted.repository;
        let bound =
            serde_json::to_string(&(&filter, repository.name(), &wanted.branch, &wanted.path, history))
                .unwrap_or_default();
        let list = TraceId::derived(&["changes", &bound]).to_string();
        let position = match token {
            "" => Position {
                commit: match &wanted.branch {
                    Some(branch) if history => Some(repository.fetch(branch).await?),
                    _ => None,
                },
                ..Position::default()
            },
            token => Position::read(token, &list)?,
        };
        if !token.is_empty()
            && let Some(commit) = &position.commit
            && !repository.ensure(commit).await?
        {
            // The branch has been rewritten since.
            return Err(ApiError::invalid(
                "page_token",
                format!("continues at commit {commit}, which is on no branch any more; begin without one"),
            ));
        }
        let mut changes = LedgerChanges {
            ledger: &self.ledger,
            filter,
            buffer: VecDeque::new(),
            at: position.ledger,
            next: None,
        };
        let mut commits = Commits {
            repository,
            path: &wanted.path,
            buffer: VecDeque::new(),
            next: position.commit,
        };
        let mut shown: Vec<proto::Change> = Vec::new();
        let mut known: HashSet<CommitSha> = HashSet::new();
        let mut left = MAX_LOOKED;
        while shown.len() < size && left > 0 {
            let time = commits.peek(&mut left).await?.map(|commit| commit.time);
            if time.is_none() && !commits.is_over() {
                // There is more, but for another page.
                break;
            }
            let next = changes.peek().await?.map(|change| change.created_at);
            left = left.saturating_sub(1);
            match (next, time) {
                (None, None) => break,
                (Some(at), time) if time.is_none_or(|time| is_newer(at, time)) => {
                    let Some(change) = changes.pop() else { break };
                    known.extend(change.state.commit.clone());
                    if wanted.has(&change.state) && Changes::scope(&change.state).shows(caller) {
                        shown.push(Changes::message(&change));
                    }
                }
                _ => {
                    let Some(commit) = commits.buffer.pop_front() else {
                        break;
                    };
                    if !known.contains(&commit.id) {
                        shown.extend(self.foreign(caller, wanted, repository, &commit).await?);
                    }
                }
            }
        }
        let next_page_token = if changes.is_over() && commits.is_over() {
            String::new()
        } else {
            let position = Position {
                list,
                ledger: changes.position(),
                commit: commits.position(),
            };
            position.token()
        };
        Ok(proto::ListChangesResponse {
            changes: shown,
            next_page_token,
        })
    }

    /// A commit as a change, if it belongs to the list and is not ours.
    async fn foreign(
        &self,
        caller: &Caller,
        wanted: &ChangeQuery,
        repository: &Arc<Repository>,
        commit: &Commit,
    ) -> Result<Option<proto::Change>, ApiError> {
        let release = commit.trailer(|trailers| trailers.release.clone());
        if !wanted.correlation.is_empty() && release.as_deref() != Some(&wanted.correlation) {
            return Ok(None);
        }
        let claims = commit.claims().len();
        if claims > 0 && self.ours(repository.name(), commit).await?.len() == claims {
            return Ok(None);
        }
        let parts = repository.changed(&commit.id).await?;
        let name = |name: &Option<Name>| name.clone().map(String::from).unwrap_or_default();
        let shown = history::narrow(
            history::attribute(commit, parts),
            &name(&wanted.service),
            &name(&wanted.environment),
            |service, environment| caller.may(Action::Read, service, environment),
        );
        let branch = wanted.branch.as_ref().unwrap_or_else(|| repository.branch());
        Ok(shown.map(|parts| commit_to_proto(repository.name(), branch, commit, &parts)))
    }

    /// The changes in the ledger that a commit is, or brought. A trailer alone proves nothing, since commits are
    /// copied; the change in the ledger must be about this commit, or about to be.
    pub(super) async fn ours(
        &self,
        repository: &str,
        commit: &Commit,
    ) -> Result<Vec<Snapshot<Change>>, ApiError> {
        let mut ours = Vec::new();
        for (id, own) in commit.claims() {
            let Some(change) = self.ledger.get::<Change>(id).await? else {
                continue;
            };
            let here = change
                .state
                .request
                .as_ref()
                .is_some_and(|request| request.repository == repository);
            let this = match &change.state.commit {
                Some(recorded) => recorded == own || *recorded == commit.id,
                None => change.state.status == Status::Pending,
            };
            if here && this {
                ours.push(change);
            }
        }
        Ok(ours)
    }
}

/// Commits only have seconds: within the same second, a change of ours comes first.
fn is_newer(change: Timestamp, commit: Timestamp) -> bool {
    change >= commit
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn tokens_belong_to_one_list() {
        let position = Position {
            list: "a".to_owned(),
            commit: Some("1".repeat(40).parse().unwrap()),
            ..Position::default()
        };
        let token = position.token();
        let read = Position::read(&token, "a").unwrap();
        assert_eq!(read.commit, position.commit);
        for (token, list) in [(token.as_str(), "b"), ("x", "a"), ("e30", "a"), ("", "a")] {
            assert!(Position::read(token, list).is_err(), "{token} {list}");
        }
    }
}
