//! Watching all approvals that match, which is what bots do.
//!
//! The feed says which approvals changed; what is shown is always their state as the ledger has it. The feed begins a
//! moment after the first listing, and what falls in between (or is lost otherwise) is found by listing again.

use std::{collections::HashMap, time::Duration};

use futures::{Stream, StreamExt};
use slipway_ledger::{FeedFilter, Ledger, LedgerError, ListFilter, Page, Snapshot};
use slipway_model::Id;
use slipway_server::{Action, ApiError, Caller};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::approval::{Approval, Status};

/// How long after the beginning to list again: the feed is up by then.
const FIRST_RECHECK: Duration = Duration::from_secs(2);
/// How often to list again after that.
const RECHECK: Duration = Duration::from_secs(30);
/// Approvals listed at once.
const PAGE: u32 = 500;
/// Approvals on their way to a slow watcher.
const BUFFER: usize = 16;

/// What a watch shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) service: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) correlation: Option<String>,
}

impl Wanted {
    fn list(&self) -> ListFilter {
        ListFilter {
            status: self
                .status
                .iter()
                .map(|status| status.as_str().to_owned())
                .collect(),
            service: self.service.clone(),
            environment: self.environment.clone(),
            correlation: self.correlation.clone(),
            ..ListFilter::default()
        }
    }

    fn feed(&self) -> FeedFilter {
        FeedFilter {
            kinds: vec!["approval".to_owned()],
            service: self.service.clone(),
            environment: self.environment.clone(),
            correlation: self.correlation.clone(),
            ..FeedFilter::default()
        }
    }

    /// Service, environment and correlation never change; only the status needs to be looked at.
    fn fits(&self, status: Status) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
    }
}

/// Each matching approval that the caller may read, then each change of one, and each new one.
pub(crate) fn all(
    ledger: Ledger,
    caller: Caller,
    wanted: Wanted,
) -> impl Stream<Item = Result<Snapshot<Approval>, ApiError>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let watching = Watching {
        ledger,
        caller,
        wanted,
        sender,
        shown: HashMap::new(),
    };
    tokio::spawn(watching.run());
    ReceiverStream::new(receiver)
}

struct Watching {
    ledger: Ledger,
    caller: Caller,
    wanted: Wanted,
    sender: mpsc::Sender<Result<Snapshot<Approval>, ApiError>>,
    /// What the watcher has seen: sequence, and whether it matched then and may still change.
    shown: HashMap<Id, Shown>,
}

#[derive(Clone, Copy)]
struct Shown {
    seq: u64,
    open: bool,
}

/// The watcher went away, or was told of an error: nothing more to do.
struct Ended;

impl Watching {
    async fn run(mut self) {
        let sender = self.sender.clone();
        tokio::select! {
            () = sender.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        let feed = self.ledger.feed("now", self.wanted.feed());
        let mut feed = Box::pin(self.told(feed).await?);
        self.list(&self.wanted.list(), true).await?;
        let mut recheck = Box::pin(tokio::time::sleep(FIRST_RECHECK));
        loop {
            tokio::select! {
                item = feed.next() => match item {
                    Some(item) => {
                        let item = self.told(item).await?;
                        if self.shown.get(&item.event.id).is_none_or(|shown| shown.seq < item.event.seq) {
                            self.look(&item.event.id).await?;
                        }
                    }
                    None => return Ok(()),
                },
                () = &mut recheck => {
                    self.recheck().await?;
                    recheck.set(tokio::time::sleep(RECHECK));
                }
            }
        }
    }

    /// Shows what the feed did not tell of: new ones are among the newest, changed ones among those shown as open.
    async fn recheck(&mut self) -> Result<(), Ended> {
        self.list(&self.wanted.list(), false).await?;
        let open: Vec<Id> = self
            .shown
            .iter()
            .filter(|(_, shown)| shown.open)
            .map(|(id, _)| id.clone())
            .collect();
        for id in open {
            self.look(&id).await?;
        }
        Ok(())
    }

    async fn list(&mut self, filter: &ListFilter, all_pages: bool) -> Result<(), Ended> {
        let mut page = Page {
            size: PAGE,
            token: String::new(),
        };
        loop {
            let list = self.ledger.list_of::<Approval>(filter, &page).await;
            let list = self.told(list).await?;
            for snapshot in list.items {
                self.show(snapshot).await?;
            }
            if list.next_page_token.is_empty() || !all_pages {
                return Ok(());
            }
            page.token = list.next_page_token;
        }
    }

    async fn look(&mut self, id: &Id) -> Result<(), Ended> {
        let snapshot = self.ledger.get::<Approval>(id).await;
        match self.told(snapshot).await? {
            Some(snapshot) => self.show(snapshot).await,
            None => Ok(()),
        }
    }

    async fn show(&mut self, snapshot: Snapshot<Approval>) -> Result<(), Ended> {
        let Some(asked) = &snapshot.state.asked else {
            return Ok(());
        };
        let before = self.shown.get(&snapshot.id).copied();
        if before.is_some_and(|shown| shown.seq >= snapshot.seq) {
            return Ok(());
        }
        let subject = &asked.subject;
        if !self.caller.may(
            Action::Read,
            subject.service.as_str(),
            subject.environment.as_str(),
        ) {
            return Ok(());
        }
        let fits = self.wanted.fits(snapshot.state.status);
        // One that matched is shown a last time, so that its watcher can take it off the list.
        if !fits && !before.is_some_and(|shown| shown.open) {
            return Ok(());
        }
        let open = fits && !snapshot.state.status.is_final();
        self.shown.insert(
            snapshot.id.clone(),
            Shown {
                seq: snapshot.seq,
                open,
            },
        );
        self.sender.send(Ok(snapshot)).await.map_err(|_| Ended)
    }

    async fn told<T>(&self, result: Result<T, LedgerError>) -> Result<T, Ended> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                // Fails only when nobody listens any more.
                let _ = self.sender.send(Err(error.into())).await;
                Err(Ended)
            }
        }
    }
}
