//! Watches everything that matches, which is what bots do.
//!
//! The feed says which resources changed; what is shown is always their state in the ledger. The feed starts a moment
//! after the first listing, and what happens in between (or is lost otherwise) is found by listing again.

use std::{collections::HashMap, time::Duration};

use futures::{Stream, StreamExt};
use slipway_ledger::{Decider, FeedFilter, Ledger, LedgerError, ListFilter, Page, Snapshot};
use slipway_model::Id;
use tokio::sync::mpsc;

use super::Resource;
use crate::{ApiError, Caller};

/// How long after the beginning to list again: the feed is up by then.
const FIRST_RECHECK: Duration = Duration::from_secs(2);
/// How often to list again after that.
const RECHECK: Duration = Duration::from_secs(30);
/// Page size of the listings.
const PAGE: u32 = 500;
/// Resources buffered for a slow watcher.
const BUFFER: usize = 16;

/// Each matching thing that the caller may read, then each change of one, and each new one.
pub(super) fn all<R: Resource>(
    ledger: Ledger,
    caller: Caller,
    filter: ListFilter,
) -> impl Stream<Item = Result<Snapshot<R::Decider>, ApiError>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let watching = Watching::<R> {
        ledger,
        caller,
        filter,
        sender,
        shown: HashMap::new(),
    };
    tokio::spawn(watching.run());
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

struct Watching<R: Resource> {
    ledger: Ledger,
    caller: Caller,
    filter: ListFilter,
    sender: mpsc::Sender<Result<Snapshot<R::Decider>, ApiError>>,
    /// What the watcher has seen.
    shown: HashMap<Id, Shown>,
}

#[derive(Clone, Copy)]
struct Shown {
    seq: u64,
    /// It matched then and may still change.
    open: bool,
}

/// The watcher went away, or has received an error: nothing more to do.
struct Ended;

impl<R: Resource> Watching<R> {
    async fn run(mut self) {
        let sender = self.sender.clone();
        tokio::select! {
            () = sender.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        let feed = self.ledger.feed("now", self.feed());
        let mut feed = Box::pin(self.told(feed).await?);
        self.list(true).await?;
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

    /// Service, environment and correlation never change, so events can be filtered by them; status and labels are
    /// checked on the state.
    fn feed(&self) -> FeedFilter {
        FeedFilter {
            kinds: vec![R::Decider::KIND.to_owned()],
            service: self.filter.service.clone(),
            environment: self.filter.environment.clone(),
            correlation: self.filter.correlation.clone(),
            ..FeedFilter::default()
        }
    }

    fn fits(&self, state: &<R::Decider as Decider>::State) -> bool {
        let index = R::Decider::index(state);
        let labels = &self.filter.labels;
        (self.filter.status.is_empty() || self.filter.status.contains(&index.status))
            && labels
                .iter()
                .all(|(key, value)| index.labels.get(key) == Some(value))
    }

    /// Shows what the feed missed: new ones are among the newest, changed ones among those shown as open.
    async fn recheck(&mut self) -> Result<(), Ended> {
        self.list(false).await?;
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

    async fn list(&mut self, all_pages: bool) -> Result<(), Ended> {
        let mut page = Page {
            size: PAGE,
            token: String::new(),
        };
        loop {
            let list = self.ledger.list_of::<R::Decider>(&self.filter, &page).await;
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
        let snapshot = self.ledger.get::<R::Decider>(id).await;
        match self.told(snapshot).await? {
            Some(snapshot) => self.show(snapshot).await,
            None => Ok(()),
        }
    }

    async fn show(&mut self, snapshot: Snapshot<R::Decider>) -> Result<(), Ended> {
        let before = self.shown.get(&snapshot.id).copied();
        if before.is_some_and(|shown| shown.seq >= snapshot.seq)
            || !R::scope(&snapshot.state).shows(&self.caller)
        {
            return Ok(());
        }
        let fits = self.fits(&snapshot.state);
        // One that matched is shown a last time, so that its watcher can take it off the list.
        if !fits && !before.is_some_and(|shown| shown.open) {
            return Ok(());
        }
        let shown = Shown {
            seq: snapshot.seq,
            open: fits && !R::Decider::is_final(&snapshot.state),
        };
        self.shown.insert(snapshot.id.clone(), shown);
        self.sender.send(Ok(snapshot)).await.map_err(|_| Ended)
    }

    async fn told<T>(&self, result: Result<T, LedgerError>) -> Result<T, Ended> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                // Fails only when no one listens any more.
                let _ = self.sender.send(Err(error.into())).await;
                Err(Ended)
            }
        }
    }
}
