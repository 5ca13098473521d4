//! Lists: newest first, by keyset.

use crate::{
    Decider, Ledger, ListFilter, ListItem, ListPage, Page, Snapshot,
    load::{Read, decode},
    page,
    rows::After,
    store::Result,
    types::Key,
};

/// The default and the maximum number of items on a page.
const SIZES: (u32, u32) = (50, 1000);

/// How many items a page may hold.
pub(crate) fn size(page: &Page) -> u32 {
    if page.size == 0 {
        SIZES.0
    } else {
        page.size.min(SIZES.1)
    }
}

impl Ledger {
    /// A page of the aggregates of a kind, newest first, in a form that does not require the decider.
    ///
    /// # Errors
    /// [`LedgerError::PageToken`](crate::LedgerError::PageToken) when the token is not from this list.
    pub async fn list(&self, kind: &str, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let size = size(page);
        let after = page::decode(kind, filter, &page.token)?;
        // One more than asked for shows whether there is a next page.
        let mut rows = self
            .shared
            .store
            .list(kind, filter, after.as_ref(), size + 1)
            .await?;
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let next_page_token = match rows.last() {
            Some(last) if more => page::encode(
                kind,
                filter,
                &After {
                    created_at: last.created_at,
                    id: last.id.clone(),
                },
            )?,
            _ => String::new(),
        };
        let items = rows
            .into_iter()
            .map(|row| ListItem {
                id: row.id,
                seq: row.seq,
                created_at: row.created_at,
                updated_at: row.updated_at,
                parked: row.failing.parked(),
                retry: row.failing.retry(),
                state_version: row.state_version,
                state: row.state.unwrap_or_default(),
            })
            .collect();
        Ok(ListPage {
            items,
            next_page_token,
        })
    }

    /// As [`list`](Self::list), typed.
    ///
    /// # Errors
    /// As for `list`, and when a state cannot be read by this binary.
    pub async fn list_of<D: Decider>(
        &self,
        filter: &ListFilter,
        page: &Page,
    ) -> Result<ListPage<Snapshot<D>>> {
        let list = self.list(D::KIND, filter, page).await?;
        let mut items = Vec::with_capacity(list.items.len());
        for item in list.items {
            let key = Key::of::<D>(&item.id);
            if item.state_version == D::STATE_VERSION {
                items.push(Snapshot {
                    state: serde_json::from_str(&item.state)
                        .map_err(|source| decode(&key, item.seq, source))?,
                    id: item.id,
                    seq: item.seq,
                    created_at: item.created_at,
                    updated_at: item.updated_at,
                    parked: item.parked,
                    retry: item.retry,
                    traceparent: None,
                });
            } else if let (Some(loaded), _) = self.shared.load::<D>(&key, Read::Cached(item.seq)).await? {
                items.push(loaded.snapshot(&key));
            }
        }
        Ok(ListPage {
            items,
            next_page_token: list.next_page_token,
        })
    }
}
