//! One side of a comparison: the objects of a bucket over a range of keys, in order.
//!
//! Promises: keys come strictly increasing, or the listing fails; no key of the range is left out
//! because a page claimed to be the last one, or because a store includes `start-after`; a store that
//! ignores `start-after` is told apart before anything is given out. One page is fetched ahead. Faults
//! that pass are tried again here, a bounded number of times; every other error is the caller's.
//! Dropping a listing ends its request.

mod bound;
mod order;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use self::bound::{Bounds, askable};
use self::order::{Fault, Order, PageStart};
use super::ranges::KeyRange;
use super::rate::Rate;
use crate::retry::RetryPolicy;
use crate::store::{ErrorKind, ListPage, ListQuery, ListedObject, Store, StoreError};

/// How often one page is asked for before the listing fails: about half a minute of a fault.
const TRIES: u32 = 8;
const RETRY: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// Why a listing could not go on. What was given out before it is right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListingError {
    /// The store failed, and did so again and again if the error is one that may pass.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store breaks the order that everything here rests on.
    #[error(
        "the listing of {bucket} on {endpoint} is out of order: {key:?} came after {previous:?}; \
         nothing can be compared by it"
    )]
    ListingOutOfOrder {
        /// Scheme, host and port of the store.
        endpoint: Box<str>,
        /// The bucket, by this store's name.
        bucket: Box<str>,
        /// The key that came before.
        previous: Box<str>,
        /// The key that is not behind it.
        key: Box<str>,
    },
    /// The store begins at the beginning wherever it is asked to begin. Nothing was given out.
    #[error(
        "{endpoint} does not honour start-after: the listing of {bucket} begins with {key:?}; set \
         reconcile.parallel = 1 so that it is not needed"
    )]
    StartIgnored {
        /// Scheme, host and port of the store.
        endpoint: Box<str>,
        /// The bucket, by this store's name.
        bucket: Box<str>,
        /// The key that was listed first.
        key: Box<str>,
    },
    /// Pages lead to each other and to no new key, so that it would never end.
    #[error("the listing of {bucket} on {endpoint} goes in circles behind {key:?}")]
    ListingCircles {
        /// Scheme, host and port of the store.
        endpoint: Box<str>,
        /// The bucket, by this store's name.
        bucket: Box<str>,
        /// The last key before it.
        key: Box<str>,
    },
}

/// A bucket of one store, or the part of it below a prefix.
#[derive(Debug, Clone)]
pub struct Side {
    /// The store.
    pub store: Store,
    /// The bucket, by this store's name.
    pub bucket: Arc<str>,
    /// Only keys that start with this; empty for all.
    pub prefix: Arc<str>,
    /// How fast pages may be asked for.
    pub rate: Rate,
}

impl Side {
    /// One page; a fault that may pass is waited out, for a bounded time.
    pub(super) async fn page(&self, query: ListQuery<'_>) -> Result<ListPage, StoreError> {
        let query = ListQuery { prefix: &self.prefix, ..query };
        let mut tries = 0;
        loop {
            self.rate.turn().await;
            let error = match self.store.list(&self.bucket, &query).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            tries += 1;
            if !matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled) || tries == TRIES
            {
                return Err(error);
            }
            tracing::debug!(%error, tries, "A page of a listing failed and is asked for again.");
            tokio::time::sleep(RETRY.delay(tries - 1)).await;
        }
    }

    /// The object of this very key, as it is listed.
    async fn object(&self, key: &str) -> Result<Option<ListedObject>, StoreError> {
        let side = Self { prefix: key.into(), ..self.clone() };
        let mut token: Option<String> = None;
        loop {
            let page = side.page(ListQuery { token: token.as_deref(), ..ListQuery::default() });
            let page = page.await?;
            // A page may be empty before the end, where the past of many versions is listed.
            if !page.objects.is_empty() || page.next.is_none() || page.next == token {
                return Ok(page.objects.into_iter().find(|object| *object.key == *key));
            }
            token = page.next;
        }
    }

    /// Whether the store, asked for a second page, lists all that comes behind it at once, to the end
    /// of the bucket or of the prefix, whoever asks for it or not: MinIO keeps the result for later
    /// pages. A prefix is the only bound, and a flat bucket, whose directory it reads anew for every
    /// listing that is begun, is listed fastest from one end to the other.
    pub(super) fn reads_ahead(&self) -> bool {
        self.store.server().is_some_and(|server| server.starts_with("MinIO"))
    }

    /// The first key behind a text. Two are asked for, since the first may be the text itself, and
    /// since RustFS lists keys that were deleted when one is asked for (#5375).
    pub(super) async fn first_behind(&self, text: &str) -> Result<Option<String>, StoreError> {
        let query = ListQuery { start_after: Some(text), max_keys: 2, ..ListQuery::default() };
        let page = self.page(query).await?;
        Ok(page.objects.into_iter().map(|object| object.key).find(|key| **key > *text))
    }
}

/// The objects of one side over a range of keys.
#[derive(Debug)]
pub struct Listing {
    side: Side,
    bounds: Bounds,
    order: Order,
    page: VecDeque<ListedObject>,
    ahead: Option<(PageStart, AbortOnDropHandle<Result<ListPage, StoreError>>)>,
}

impl Listing {
    /// Begins to list `range` of `side`, and asks for the first page.
    ///
    /// The store is told what all keys of the range begin with, even where that changes nothing: it
    /// bounds what `Side::reads_ahead` is about (run, 2026-11-23: 300 ms of MinIO's CPU for each listing
    /// begun in a bucket of 60,000).
    pub fn new(side: Side, range: KeyRange) -> Self {
        let first = PageStart::After(range.start.clone());
        Self::begin(side, range, first)
    }

    /// As [`Listing::new`], without `start-after`: what comes before the range is listed, too, and dropped.
    pub(super) fn from_the_beginning(side: Side, range: KeyRange) -> Self {
        Self::begin(side, range, PageStart::After(None))
    }

    fn begin(mut side: Side, range: KeyRange, first: PageStart) -> Self {
        let common = askable(range.common_prefix());
        if common.starts_with(&*side.prefix) {
            side.prefix = common.into();
        }
        let bounds = Bounds::new(Arc::clone(&side.prefix));
        let order = Order::over(range);
        let mut listing = Self { side, bounds, order, page: VecDeque::new(), ahead: None };
        listing.ask(first);
        listing
    }

    /// Waits until [`Listing::front`] is known.
    pub async fn fill(&mut self) -> Result<(), ListingError> {
        while self.page.is_empty() {
            let Some((place, page)) = self.ahead.take() else { return Ok(()) };
            let page = page.await.map_err(|_| self.gone())??;
            let step = self.order.accept(&place, page).map_err(|fault| self.describe(fault))?;
            let reads_ahead = self.side.reads_ahead();
            let next = self.bounds.next(&place, &step, &self.order, reads_ahead);
            self.page = step.objects;
            if let Some(next) = next {
                self.ask(next);
            }
        }
        Ok(())
    }

    /// The next object, which stays; after [`Listing::fill`], `None` is the end.
    pub fn front(&self) -> Option<&ListedObject> {
        self.page.front()
    }

    /// Takes the next object.
    pub fn pop(&mut self) -> Option<ListedObject> {
        self.page.pop_front()
    }

    /// The next object, after a wait if need be; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ListedObject>, ListingError> {
        self.fill().await?;
        Ok(self.pop())
    }

    /// As [`Listing::next`], also where the store does not honour `start-after`, which shows before anything
    /// is given out: then it is listed from its beginning, and what comes before the range is dropped.
    pub(crate) async fn next_despite_start_ignored(
        &mut self,
    ) -> Result<Option<ListedObject>, ListingError> {
        if let Err(error) = self.fill().await {
            let ListingError::StartIgnored { .. } = error else { return Err(error) };
            let range = KeyRange { start: self.order.last.clone(), end: self.order.end.clone() };
            *self = Self::from_the_beginning(self.side.clone(), range);
        }
        self.next().await
    }

    /// The last key that was received, whether or not it was given out.
    pub fn received(&self) -> Option<&str> {
        self.order.last.as_deref()
    }

    /// Whether there may be more behind [`Listing::received`].
    pub const fn goes_on(&self) -> bool {
        self.ahead.is_some()
    }

    /// Ends the range earlier than it was asked for.
    pub fn shorten(&mut self, end: &str) {
        while self.page.back().is_some_and(|object| *object.key > *end) {
            self.page.pop_back();
        }
        if self.order.last.as_deref().is_some_and(|last| last >= end) {
            self.ahead = None;
        }
        self.order.end = Some(end.to_owned());
    }

    fn ask(&mut self, place: PageStart) {
        let side = Side { prefix: Arc::clone(self.bounds.prefix()), ..self.side.clone() };
        let asked = place.clone();
        let page = tokio::spawn(async move {
            let start = |key| ListQuery { start_after: key, ..ListQuery::default() };
            match &asked {
                PageStart::After(key) => side.page(start(key.as_deref())).await,
                PageStart::Only(key) => {
                    let objects = side.object(key).await?.into_iter().collect();
                    Ok(ListPage { objects, ..ListPage::default() })
                }
                PageStart::Token(token) => {
                    side.page(ListQuery { token: Some(token), ..ListQuery::default() }).await
                }
            }
        });
        self.ahead = Some((place, AbortOnDropHandle::new(page)));
    }

    /// The runtime ends, or the request panicked: in either case there is no page.
    fn gone(&self) -> ListingError {
        let call = self.side.store.failure("ListObjectsV2", &self.side.bucket, "");
        ListingError::Store(call.transient("the request was given up"))
    }

    fn describe(&self, fault: Fault) -> ListingError {
        let endpoint = self.side.store.endpoint().into();
        let bucket = self.side.bucket.as_ref().into();
        match fault {
            Fault::Order { previous, key } => ListingError::ListingOutOfOrder {
                endpoint,
                bucket,
                previous: previous.into(),
                key: key.into(),
            },
            Fault::Start { key } => {
                ListingError::StartIgnored { endpoint, bucket, key: key.into() }
            }
            Fault::Circle => {
                let key = self.received().unwrap_or_default().into();
                ListingError::ListingCircles { endpoint, bucket, key }
            }
        }
    }
}
