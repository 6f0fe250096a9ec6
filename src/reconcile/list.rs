//! One side of a comparison: the objects of a bucket over a range of keys, in order.
//!
//! Promises: keys come strictly increasing, or the listing fails; no key of the range is left out
//! because a page claimed to be the last one, or because a store includes `start-after`. One page is
//! fetched ahead. Faults that pass are tried again here, a bounded number of times; every other error
//! is the caller's. Dropping a listing ends its request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::ranges::KeyRange;
use super::rate::Rate;
use crate::replicate::retry::RetryPolicy;
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
    /// A page's continuation is the one that it was asked by, so that it would never end.
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

    /// The first key behind a text. Two are asked for, since the first may be the text itself, and
    /// since RustFS lists keys that were deleted when one is asked for (#5375).
    pub(super) async fn first_behind(&self, text: &str) -> Result<Option<String>, StoreError> {
        let query = ListQuery { start_after: Some(text), max_keys: 2, ..ListQuery::default() };
        let page = self.page(query).await?;
        Ok(page.objects.into_iter().map(|object| object.key).find(|key| **key > *text))
    }
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Behind a key; at the beginning if there is none.
    After(Option<String>),
    /// Where the page before said.
    Token(String),
}

/// The objects of one side over a range of keys.
#[derive(Debug)]
pub struct Listing {
    side: Side,
    order: Order,
    page: VecDeque<ListedObject>,
    ahead: Option<(Place, AbortOnDropHandle<Result<ListPage, StoreError>>)>,
}

impl Listing {
    /// Begins to list `range` of `side`, and asks for the first page.
    pub fn new(side: Side, range: KeyRange) -> Self {
        let first = Place::After(range.start.clone());
        let order = Order { last: range.start, end: range.end, page_end: None };
        let mut listing = Self { side, order, page: VecDeque::new(), ahead: None };
        listing.ask(first);
        listing
    }

    /// Waits until [`Listing::front`] is known.
    pub async fn fill(&mut self) -> Result<(), ListingError> {
        while self.page.is_empty() {
            let Some((place, page)) = self.ahead.take() else { return Ok(()) };
            let page = page.await.map_err(|_| self.gone())??;
            let step = self.order.accept(&place, page).map_err(|fault| self.describe(fault))?;
            self.page = step.objects;
            if let Some(next) = step.next {
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

    fn ask(&mut self, place: Place) {
        let (side, asked) = (self.side.clone(), place.clone());
        let page = tokio::spawn(async move {
            let mut query = ListQuery::default();
            match &asked {
                Place::After(key) => query.start_after = key.as_deref(),
                Place::Token(token) => query.token = Some(token),
            }
            side.page(query).await
        });
        self.ahead = Some((place, AbortOnDropHandle::new(page)));
    }

    /// The runtime ends, or the request panicked: in either case there is no page.
    fn gone(&self) -> ListingError {
        ListingError::Store(StoreError {
            kind: ErrorKind::Transient,
            operation: "ListObjectsV2",
            endpoint: self.side.store.endpoint().into(),
            bucket: self.side.bucket.as_ref().into(),
            key: Box::default(),
            status: None,
            code: None,
            message: "the request was given up".to_owned(),
            maybe_applied: false,
        })
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
            Fault::Circle => {
                let key = self.received().unwrap_or_default().into();
                ListingError::ListingCircles { endpoint, bucket, key }
            }
        }
    }
}

/// What makes a listing useless.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Order { previous: String, key: String },
    Circle,
}

/// What a page added.
#[derive(Debug, Default)]
struct Step {
    objects: VecDeque<ListedObject>,
    next: Option<Place>,
}

/// What is left of the range, and the rules by which pages are believed.
#[derive(Debug)]
struct Order {
    /// The last key received, or where the range begins.
    last: Option<String>,
    /// Where it ends, included.
    end: Option<String>,
    /// The last key of the page that the next token belongs to, whether or not it was new.
    page_end: Option<String>,
}

impl Order {
    /// Takes the page that was asked for at `asked`.
    ///
    /// Keys up to the last one are dropped, since stores include `start-after` or ignore it. A page
    /// that says it is the last one is believed only when asking behind its last key gives nothing
    /// new: RustFS #3217 ended a listing in the middle.
    fn accept(&mut self, asked: &Place, page: ListPage) -> Result<Step, Fault> {
        let mut step = Step::default();
        let mut previous: Option<&str> = None;
        for object in &page.objects {
            if let Some(previous) = previous.filter(|previous| *previous >= &*object.key) {
                return Err(Fault::Order {
                    previous: previous.to_owned(),
                    key: object.key.clone(),
                });
            }
            previous = Some(&object.key);
        }
        // A token goes on behind the last page, whose last key may come again.
        let before = self.page_end.take().filter(|_| asked.token().is_some());
        if let (Some(before), Some(first)) = (&before, page.objects.first())
            && first.key < *before
        {
            return Err(Fault::Order { previous: before.clone(), key: first.key.clone() });
        }
        self.page_end = page.objects.last().map(|object| object.key.clone()).or(before);
        if page.next.is_some() && page.next.as_deref() == asked.token() {
            return Err(Fault::Circle);
        }
        step.objects = page.objects.into();
        if let Some(last) = &self.last {
            let known = step.objects.partition_point(|object| object.key <= *last);
            step.objects.drain(..known);
        }
        let new = step.objects.back().map(|object| object.key.clone());
        let found = new.is_some();
        self.last = new.or(self.last.take());
        let past = match (&self.end, &self.last) {
            (Some(end), Some(last)) => last >= end,
            _ => false,
        };
        if let Some(end) = &self.end {
            let kept = step.objects.partition_point(|object| object.key <= *end);
            step.objects.truncate(kept);
        }
        step.next = match page.next {
            _ if past => None,
            Some(token) => Some(Place::Token(token)),
            None => found.then(|| Place::After(self.last.clone())),
        };
        Ok(step)
    }
}

impl Place {
    fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            Self::After(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::object::ETag;

    fn object(key: &str) -> ListedObject {
        ListedObject { key: key.to_owned(), size: 0, etag: ETag::new(""), modified_ms: 0 }
    }

    fn page(keys: &[&str], next: Option<&str>) -> ListPage {
        let objects = keys.iter().map(|key| object(key)).collect();
        ListPage { objects, prefixes: Vec::new(), next: next.map(str::to_owned) }
    }

    /// How a store departs from the rules.
    #[derive(Debug, Clone, Default)]
    struct Lies {
        /// `start-after` includes the key itself.
        inclusive: bool,
        /// `start-after` is not looked at.
        ignores_start: bool,
        /// The last key of a page comes again as the first of the next.
        repeats: bool,
        /// Every page of this number says that it is the last.
        ends_early: usize,
        /// Every other page is empty.
        empty_pages: bool,
    }

    /// Lists `range` from a store that lies, as `Listing` would.
    fn list(
        keys: &BTreeSet<String>,
        range: KeyRange,
        size: usize,
        lies: &Lies,
    ) -> Result<Vec<String>, Fault> {
        let mut place = Some(Place::After(range.start.clone()));
        let mut order = Order { last: range.start, end: range.end, page_end: None };
        let (mut found, mut pages) = (Vec::new(), 0);
        while let Some(asked) = place {
            pages += 1;
            assert!(pages < 10_000, "it never ends");
            let (from, skip) = match &asked {
                Place::After(_) if lies.ignores_start => (None, false),
                Place::After(key) => (key.clone(), !lies.inclusive),
                Place::Token(token) => {
                    (token.split_once(':').map(|(_, key)| key.to_owned()), !lies.repeats)
                }
            };
            let empty = lies.empty_pages && pages % 2 == 0;
            let behind = |key: &&String| {
                from.as_ref().is_none_or(|from| *key > from || (!skip && *key == from))
            };
            let mut rest = keys.iter().filter(behind).map(String::as_str).peekable();
            let given: Vec<_> = rest.by_ref().take(if empty { 0 } else { size }).collect();
            let lie = lies.ends_early > 0 && pages % lies.ends_early == 0 && !given.is_empty();
            let at = given.last().map(|key| (*key).to_owned()).or(from.clone()).unwrap_or_default();
            let next = (rest.peek().is_some() && !lie).then(|| format!("{pages}:{at}"));
            let step = order.accept(&asked, page(&given, next.as_deref()))?;
            found.extend(step.objects.into_iter().map(|object| object.key));
            place = step.next;
        }
        Ok(found)
    }

    fn lies() -> impl Strategy<Value = Lies> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..4, any::<bool>());
        flags.prop_map(|(inclusive, ignores_start, repeats, ends_early, empty_pages)| {
            // A store that ignores `start-after` and ends early cannot be listed at all.
            let ends_early = if ignores_start { 0 } else { ends_early };
            Lies { inclusive, ignores_start, repeats, ends_early, empty_pages }
        })
    }

    proptest! {
        #[test]
        fn every_key_of_a_range_is_listed_once_whatever_the_store_says(
            keys in prop::collection::btree_set("[ab/é]{1,4}", 0..60),
            start in prop::option::of("[ab/]{1,3}"), end in prop::option::of("[ab/]{1,3}"),
            size in 2_usize..9, lies in lies(),
        ) {
            let range = KeyRange { start, end };
            let wanted: Vec<_> = keys.iter().filter(|key| range.contains(key)).cloned().collect();
            prop_assert_eq!(list(&keys, range, size, &lies).unwrap(), wanted);
        }
    }

    #[test]
    fn a_listing_out_of_order_is_an_error_that_names_the_keys() {
        let mut order = Order { last: None, end: None, page_end: None };
        let first = Place::After(None);
        let fault = order.accept(&first, page(&["a", "c", "b"], None)).unwrap_err();
        assert_eq!(fault, Fault::Order { previous: "c".to_owned(), key: "b".to_owned() });
        let fault = order.accept(&first, page(&["a", "a"], None)).unwrap_err();
        assert_eq!(fault, Fault::Order { previous: "a".to_owned(), key: "a".to_owned() });
        order.accept(&first, page(&["a", "m"], Some("t"))).unwrap();
        let token = Place::Token("t".to_owned());
        let fault = order.accept(&token, page(&["b", "z"], None)).unwrap_err();
        assert_eq!(fault, Fault::Order { previous: "m".to_owned(), key: "b".to_owned() });
    }

    #[test]
    fn a_page_that_leads_to_itself_is_an_error() {
        let mut order = Order { last: None, end: None, page_end: None };
        let token = Place::Token("t".to_owned());
        assert_eq!(order.accept(&token, page(&[], Some("t"))).unwrap_err(), Fault::Circle);
    }

    #[test]
    fn nothing_is_asked_behind_the_end_of_a_range() {
        let mut order = Order { last: None, end: Some("b".to_owned()), page_end: None };
        let step = order.accept(&Place::After(None), page(&["a", "b", "c"], Some("t"))).unwrap();
        assert_eq!((step.objects.len(), step.next), (2, None));
    }
}
