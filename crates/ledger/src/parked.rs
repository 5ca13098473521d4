//! What the executor has parked: listing it, and inspecting one aggregate.

use slipway_model::Id;

use crate::{
    Inspected, Ledger, ListPage, Page, list::size, page, rows::AfterParked, store::Result, types::Key,
};

impl Ledger {
    /// A page of what is parked, newest first, of one kind or of all. Without states.
    ///
    /// # Errors
    /// [`LedgerError::PageToken`](crate::LedgerError::PageToken) when the token is not from this list.
    pub async fn parked(&self, kind: Option<&str>, page: &Page) -> Result<ListPage<Inspected>> {
        let size = size(page);
        let after = page::decode_parked(kind, &page.token)?;
        // One more than asked for shows whether there is a next page.
        let mut items = self.shared.store.parked(kind, after.as_ref(), size + 1).await?;
        let more = items.len() > size as usize;
        items.truncate(size as usize);
        let last = items.last().filter(|_| more).and_then(|last| {
            Some(AfterParked {
                since: last.parked.as_ref()?.since,
                kind: last.kind.clone(),
                id: last.id.clone(),
            })
        });
        let next_page_token = match last {
            Some(last) => page::encode_parked(kind, &last)?,
            None => String::new(),
        };
        Ok(ListPage {
            items,
            next_page_token,
        })
    }

    /// One aggregate with its state as JSON text, whatever its kind, parked or not. `None` for an unknown one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn inspect(&self, kind: &str, id: &Id) -> Result<Option<Inspected>> {
        self.shared.store.inspect(&Key::new(kind, id)).await
    }
}
