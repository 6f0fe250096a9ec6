//! The last question before a delete: does the source still list anything, and does the brake let it pass?
//!
//! **Promise.** For every batch of confirmed deletes the source's bucket was seen to be there after their keys
//! were confirmed, and it listed something, by a listing that is no older than four times what it took, and
//! a second at most: that bounds what listings of huge folders cost. A source that lists nothing puts the
//! brake on before the first delete, unless `may_be_empty` says that this is its way. **On error** nothing
//! passes. On cancellation nothing is left behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::Instant;

use super::brake::Admission;
use super::held::Hold;
use crate::config::settings::BucketSettings;
use crate::dirty::Aspects;
use crate::journal::Lsn;
use crate::object::ObjectKey;
use crate::policy::CANARY;
use crate::store::{ListQuery, Store, StoreError};

/// A listing counts no longer than this.
const STALE: Duration = Duration::from_secs(1);
/// A listing may take a fourth of the time.
const SHARE: u32 = 4;
/// At most so many pages of one listing are looked through; what they do not show counts as not there.
const MOST_PAGES: u32 = 100;
const WIPED: &str = "the source's bucket lists no object any more, it looks wiped; if it may be empty, set \
may_be_empty in [[buckets]]";
/// Objects asked for at once when they are counted.
const PAGE: u16 = 1_000;

/// A delete that the source has confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed {
    /// By the source's names.
    pub(crate) key: ObjectKey,
    /// A person approved it: neither the brake nor an empty listing holds it.
    pub(crate) approved: bool,
    /// The brake counted it when it was delayed: now it only matters whether it is on.
    pub(crate) counted: bool,
    /// The record that told of its removal, and what was marked of it: a person may have decided meanwhile.
    pub(crate) lsn: Lsn,
    /// See [`Confirmed::lsn`].
    pub(crate) aspects: Aspects,
    /// It is evermirror's own object, with which `doctor` tries a bucket: it says nothing of the bucket.
    pub(crate) own: bool,
}

/// What a listing of the source has shown.
#[derive(Debug, Clone, Copy)]
struct Seen {
    began: Instant,
    took: Duration,
    /// How many objects it lists, at least.
    objects: u64,
    /// No more than that.
    exact: bool,
}

impl Seen {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) <= (self.took * SHARE).min(STALE)
    }

    /// Whether it answers how many objects there are, as far as `enough`.
    const fn answers(&self, enough: u64) -> bool {
        self.exact || self.objects >= enough
    }
}

/// Looks at the source, and asks the brake.
#[derive(Debug)]
pub(crate) struct Gate {
    source: Store,
    hold: Hold,
    buckets: HashMap<Arc<str>, BucketSettings>,
    seen: Mutex<HashMap<Arc<str>, Seen>>,
}

impl Gate {
    /// Deletes of objects that `source` has no more pass the brakes of `hold`.
    pub(crate) fn new(source: Store, hold: Hold, buckets: &[BucketSettings]) -> Self {
        let entry = |bucket: &BucketSettings| (bucket.source.as_str().into(), bucket.clone());
        let buckets = buckets.iter().map(entry).collect();
        Self { source, hold, buckets, seen: Mutex::default() }
    }

    /// While the guard lives a discard in this bucket is not answered: what is admitted meanwhile may still be deleted.
    pub(crate) async fn begin(&self, bucket: &Arc<str>) -> OwnedRwLockReadGuard<()> {
        self.hold.under_way.begin(bucket).await
    }

    /// Decides on confirmed deletes of one bucket, in their order.
    pub(crate) async fn admit(
        &self,
        bucket: &Arc<str>,
        deletes: &[Confirmed],
    ) -> Result<Vec<Admission>, StoreError> {
        let asks = deletes.iter().any(|delete| !self.is_approved(bucket, delete) && !delete.own);
        let may_be_empty = self.buckets.get(bucket).is_some_and(|bucket| bucket.may_be_empty);
        // Looked at once for the whole batch, unless the brake wants more to be counted.
        let mut seen = if asks && !may_be_empty {
            Some(self.listed(bucket, 1).await?)
        } else {
            self.source.head_bucket(bucket).await?;
            None
        };
        let wiped = seen.is_some_and(|seen| seen.objects == 0).then(|| Arc::<str>::from(WIPED));
        let mut admissions = Vec::with_capacity(deletes.len());
        for delete in deletes {
            admissions.push(self.admit_one(bucket, delete, wiped.as_ref(), &mut seen).await?);
        }
        // Last, and without a wait behind it: a person may have decided while the source was listed.
        for (delete, admission) in deletes.iter().zip(&mut admissions) {
            let decided = self.hold.is_discarded(bucket, delete.aspects, delete.lsn);
            if decided || self.hold.keeps(&delete.key) {
                *admission = Admission::Keep;
            }
        }
        Ok(admissions)
    }

    async fn admit_one(
        &self,
        bucket: &Arc<str>,
        delete: &Confirmed,
        wiped: Option<&Arc<str>>,
        seen: &mut Option<Seen>,
    ) -> Result<Admission, StoreError> {
        if self.is_approved(bucket, delete) || delete.own {
            return Ok(Admission::Allow);
        }
        if let Some(reason) = wiped {
            return Ok(Admission::Hold(Arc::clone(reason)));
        }
        if delete.counted {
            let on = self.hold.reason(bucket);
            return Ok(on.map_or(Admission::Allow, Admission::Hold));
        }
        let mut listed = None;
        loop {
            match self.hold.admit(&delete.key, listed) {
                Admission::Count(enough) => {
                    let counted = match seen.filter(|seen| seen.answers(enough)) {
                        Some(seen) => seen,
                        None => self.listed(bucket, enough).await?,
                    };
                    (listed, *seen) = (Some(counted.objects), Some(counted));
                }
                admission @ (Admission::Allow | Admission::Keep | Admission::Hold(_)) => {
                    return Ok(admission);
                }
            }
        }
    }

    fn is_approved(&self, bucket: &str, delete: &Confirmed) -> bool {
        delete.approved && self.hold.heeds_approvals(bucket)
    }

    /// How many objects the source's bucket lists, as far as `enough`.
    async fn listed(&self, bucket: &Arc<str>, enough: u64) -> Result<Seen, StoreError> {
        let fresh = self.seen().get(bucket).copied().filter(|seen| seen.is_fresh(Instant::now()));
        if let Some(seen) = fresh.filter(|seen| seen.answers(enough)) {
            self.source.head_bucket(bucket).await?;
            return Ok(seen);
        }
        let seen = self.list(bucket, enough).await?;
        // An empty one is asked again each time: the brake is on meanwhile.
        if seen.objects > 0 {
            self.seen().insert(Arc::clone(bucket), seen);
        }
        Ok(seen)
    }

    /// Counts those objects only that are mirrored: what else is in the bucket says nothing of them.
    async fn list(&self, bucket: &Arc<str>, enough: u64) -> Result<Seen, StoreError> {
        let began = Instant::now();
        let settings = self.buckets.get(bucket);
        let all = [String::new()];
        let prefixes =
            settings.map(|bucket| &*bucket.include).filter(|prefixes| !prefixes.is_empty());
        let (mut objects, mut exact) = (0, true);
        'prefixes: for prefix in prefixes.unwrap_or(&all) {
            let mut token = None::<String>;
            for pages in 0.. {
                // Two at least, since RustFS lists keys that were deleted when one is asked for (#5375); more where
                // those are not mirrored.
                let missing = if pages == 0 { enough.saturating_sub(objects) } else { PAGE.into() };
                let max_keys = u16::try_from(missing).unwrap_or(PAGE).clamp(2, PAGE);
                let query =
                    ListQuery { prefix, max_keys, token: token.as_deref(), ..ListQuery::default() };
                let page = self.source.list(bucket, &query).await?;
                // What `doctor` tries a bucket with says nothing of it.
                let wanted = |key: &str| {
                    !key.ends_with(CANARY) && settings.is_none_or(|bucket| bucket.wants(key))
                };
                objects += page.objects.iter().filter(|object| wanted(&object.key)).count() as u64;
                token = page.next;
                if objects >= enough || token.is_some() && pages >= MOST_PAGES {
                    exact = false;
                    break 'prefixes;
                }
                if token.is_none() {
                    break;
                }
            }
        }
        Ok(Seen { began, took: began.elapsed(), objects, exact })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Arc<str>, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_counts_for_four_times_what_it_took_and_a_second_at_most() {
        let began = Instant::now();
        let seen = |took| Seen { began, took, objects: 2, exact: false };
        let ms = Duration::from_millis;
        assert!(seen(ms(5)).is_fresh(began + ms(20)) && !seen(ms(5)).is_fresh(began + ms(21)));
        assert!(!seen(ms(900)).is_fresh(began + ms(1_001)));
        assert!(seen(ms(5)).answers(2) && !seen(ms(5)).answers(3));
    }
}
