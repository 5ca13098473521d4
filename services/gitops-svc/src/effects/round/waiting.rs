//! Which changes of a branch are waiting for its next round.

use std::collections::HashSet;

use gitops_domain::change::{self, BRANCH_LABEL, Change};
use slipway_ledger::{Ledger, LedgerError, ListFilter, ListPage, Page, Snapshot};
use slipway_model::Id;

/// The maximum that one read returns.
const PAGE: u32 = 1000;
/// Newer changes are read in small pages: few arrive within a moment.
const NEWER_PAGE: u32 = 50;

/// A waiting change.
pub(super) type Waiting = (Id, change::State);

/// Reads the waiting changes of one branch.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitingChanges<'a> {
    pub(super) ledger: &'a Ledger,
    /// The branch's own id.
    pub(super) branch: &'a Id,
}

impl WaitingChanges<'_> {
    /// The oldest of them, at most this many, oldest first. Reads all pages, since lists are newest first.
    pub(super) async fn oldest(self, most: usize) -> Result<Vec<Waiting>, LedgerError> {
        let mut oldest: Vec<Snapshot<Change>> = Vec::new();
        let mut token = String::new();
        loop {
            let found = self.page(PAGE, token).await?;
            oldest.extend(found.items);
            // Anything newer than these is not wanted.
            oldest.drain(..oldest.len().saturating_sub(most));
            token = found.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        Ok(oldest_first(oldest))
    }

    /// Those that came after all of `known`, oldest first. Reads back only to the first known one; one that was
    /// recorded late, and so comes after it, is not found.
    pub(super) async fn newer_than(self, known: &[Waiting]) -> Result<Vec<Waiting>, LedgerError> {
        let known: HashSet<&Id> = known.iter().map(|(id, _)| id).collect();
        let mut newer: Vec<Snapshot<Change>> = Vec::new();
        let mut token = String::new();
        loop {
            let found = self.page(NEWER_PAGE, token).await?;
            token = found.next_page_token;
            for change in found.items {
                if known.contains(&change.id) {
                    return Ok(oldest_first(newer));
                }
                newer.push(change);
            }
            if token.is_empty() {
                return Ok(oldest_first(newer));
            }
        }
    }

    /// Whether any is waiting that is not one of `these`. Reads no more than needed to find one.
    pub(super) async fn any_other_than(self, these: &HashSet<&Id>) -> Result<bool, LedgerError> {
        // Of one more than these, at least one is another.
        let size = u32::try_from(these.len() + 1).unwrap_or(PAGE).min(PAGE);
        let mut token = String::new();
        loop {
            let found = self.page(size, token).await?;
            if found.items.iter().any(|change| !these.contains(&change.id)) {
                return Ok(true);
            }
            token = found.next_page_token;
            if token.is_empty() {
                return Ok(false);
            }
        }
    }

    /// A page, newest first.
    async fn page(self, size: u32, token: String) -> Result<ListPage<Snapshot<Change>>, LedgerError> {
        let filter = ListFilter {
            labels: [(BRANCH_LABEL.to_owned(), self.branch.to_string())].into(),
            not_final: true,
            ..ListFilter::default()
        };
        self.ledger
            .list_of::<Change>(&filter, &Page { size, token })
            .await
    }
}

fn oldest_first(newest_first: Vec<Snapshot<Change>>) -> Vec<Waiting> {
    newest_first
        .into_iter()
        .rev()
        .map(|change| (change.id, change.state))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use gitops_domain::{
        change::{self, Change, Command, branch_id},
        pull_request::Mode,
    };
    use slipway_edit::Edit;
    use slipway_ledger::{Ledger, LedgerConfig, Meta};
    use slipway_model::{Actor, BranchName, Id};
    use slipway_testbed::Database;

    use super::{Waiting, WaitingChanges};

    async fn request(ledger: &Ledger, branch: &BranchName, id: &str) -> Id {
        let request = change::Request {
            repository: "shop".to_owned(),
            branch: branch.clone(),
            service: "shop".parse().unwrap(),
            environment: "dev".parse().unwrap(),
            edits: vec![Edit::Marker],
            source_commit: None,
            images: None,
            subject: String::new(),
            reverts: None,
            promoted_from: None,
            mode: Mode::Push,
            why: String::new(),
            correlation_id: String::new(),
            labels: [].into(),
            requested_by: Actor::system("test"),
            traceparent: None,
        };
        let command = || Command::Request {
            request: Box::new(request.clone()),
            timeout: Duration::from_secs(60),
        };
        let id: Id = id.parse().unwrap();
        let meta = Meta::from(Actor::system("test"));
        ledger.execute::<Change>(&id, command, &meta).await.unwrap();
        id
    }

    fn ids(changes: &[Waiting]) -> Vec<&str> {
        changes.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_is_read_oldest_first_and_what_is_known_is_not_read_again() {
        let database = Database::sqlite().unwrap();
        let ledger = Ledger::open(LedgerConfig::new(database.url())).await.unwrap();
        let branch: BranchName = "main".parse().unwrap();
        let id = branch_id("shop", &branch);
        let waiting = WaitingChanges {
            ledger: &ledger,
            branch: &id,
        };
        assert!(waiting.oldest(10).await.unwrap().is_empty());
        assert!(!waiting.any_other_than(&HashSet::new()).await.unwrap());

        for id in ["chg-1", "chg-2", "chg-3"] {
            request(&ledger, &branch, id).await;
        }
        request(&ledger, &"other".parse().unwrap(), "chg-9").await;
        let known = waiting.oldest(10).await.unwrap();
        assert_eq!(ids(&known), ["chg-1", "chg-2", "chg-3"]);
        assert_eq!(ids(&waiting.oldest(2).await.unwrap()), ["chg-1", "chg-2"]);
        assert!(waiting.newer_than(&known).await.unwrap().is_empty());
        let these: HashSet<&Id> = known.iter().map(|(id, _)| id).collect();
        assert!(!waiting.any_other_than(&these).await.unwrap());

        // More than one page of them.
        let newer: Vec<String> = (10..75).map(|number| format!("chg-{number}")).collect();
        for id in &newer {
            request(&ledger, &branch, id).await;
        }
        assert_eq!(ids(&waiting.newer_than(&known).await.unwrap()), newer);
        assert!(waiting.any_other_than(&these).await.unwrap());
        let all = waiting.oldest(1000).await.unwrap();
        let all: HashSet<&Id> = all.iter().map(|(id, _)| id).collect();
        assert_eq!(all.len(), 68);
        assert!(!waiting.any_other_than(&all).await.unwrap());
    }
}
