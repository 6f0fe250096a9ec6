//! What to do with each part of a document: journal it, mark its bucket, keep it as a dead letter.

use std::collections::{BTreeSet, HashMap};

use crate::config::settings::BucketSettings;
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::event::{Parsed, Unusable, UnusableReason};
use crate::gaps::GapReason;

/// An event time this much before its receipt, in milliseconds, is taken for a wrong clock. A store's
/// queue can hold events through a long outage.
const OLDEST: i64 = 7 * 24 * 3600 * 1000;

/// Buckets and why they may differ; each bucket has one entry.
pub(super) type Doubts = Vec<(String, GapReason)>;

/// A document, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// For the journal.
    pub(super) keys: Vec<DirtyKey>,
    /// The identities of those events.
    pub(super) identities: Vec<u128>,
    /// For the gap book.
    pub(super) doubts: Doubts,
    /// For the dead-letter list.
    pub(super) letters: Vec<Unusable>,
    pub(super) duplicates: usize,
    pub(super) ignored: usize,
    pub(super) body_bytes: usize,
}

impl Sorted {
    /// Every bucket that the document concerns, in doubt for `reason`.
    pub(super) fn concerned(&self, reason: GapReason) -> Doubts {
        let keys = self.keys.iter().map(|key| &*key.key.bucket);
        let doubts = self.doubts.iter().map(|(bucket, _)| bucket.as_str());
        let buckets: BTreeSet<_> = keys.chain(doubts).collect();
        buckets.into_iter().map(|bucket| (bucket.to_owned(), reason)).collect()
    }
}

/// Sorts `parsed`; `is_durable` knows the identities of events that need not be stored again.
pub(super) fn sort(
    parsed: Parsed,
    received_ms: i64,
    buckets: &HashMap<String, BucketSettings>,
    is_durable: impl Fn(u128) -> bool,
) -> Sorted {
    let mut sorted = Sorted {
        ignored: parsed.ignored,
        letters: parsed.unusable,
        body_bytes: parsed.body_bytes,
        ..Sorted::default()
    };
    for event in parsed.events {
        let Some(bucket) = buckets.get(&*event.key.bucket) else {
            sorted.letters.push(Unusable {
                reason: UnusableReason::OtherBucket,
                bucket: Some(event.key.bucket.to_string()),
                key: Some(event.key.key.to_string()),
                event: Some(event.name),
            });
            continue;
        };
        if !bucket.wants(&event.key.key) {
            sorted.ignored += 1;
        } else if event.identity.is_some_and(&is_durable) {
            sorted.duplicates += 1;
        } else {
            sorted.identities.extend(event.identity);
            // Stores differ in whether they tell how large an object was that is gone.
            let removed = event.aspects.has(Aspects::REMOVED);
            sorted.keys.push(DirtyKey {
                key: event.key,
                aspects: event.aspects,
                origin: Origin::Live,
                since_ms: since(event.at_ms, received_ms),
                size: if removed { Some(0) } else { event.size },
            });
        }
    }
    let mut doubts: HashMap<String, GapReason> = HashMap::new();
    if parsed.all_buckets_dirty {
        doubts.extend(buckets.keys().map(|bucket| (bucket.clone(), GapReason::DeadLetter)));
    }
    let named = parsed.dirty_buckets.into_iter();
    doubts.extend(named.filter(|(bucket, _)| buckets.contains_key(bucket)));
    sorted.doubts = doubts.into_iter().collect();
    sorted
}

/// When the key changed: the store's word, unless its clock is ahead of ours or cannot be right.
fn since(at_ms: Option<i64>, received_ms: i64) -> i64 {
    let plausible = received_ms.saturating_sub(OLDEST)..=received_ms;
    at_ms.filter(|at| plausible.contains(at)).unwrap_or(received_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_time_that_cannot_be_right_gives_way_to_the_time_of_receipt() {
        let now = 1_800_000_000_000;
        for (at, expected) in [
            (None, now),
            (Some(now - 5), now - 5),
            (Some(now), now),
            (Some(now + 1), now),
            (Some(now - OLDEST), now - OLDEST),
            (Some(now - OLDEST - 1), now),
            (Some(i64::MIN), now),
            (Some(i64::MAX), now),
        ] {
            assert_eq!(since(at, now), expected, "{at:?}");
        }
    }
}
