//! A bucket whose failing keys take the room of all others, where Kafka is the journal: no shelf takes them, because the
//! disk may be lost.
//!
//! **Promise.** Its failing keys are forgotten at once, and their records count as done only when the topic has a record
//! that says that the bucket must be reconciled. **On crash** before that, or if a partition goes to another process, the
//! records are read again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lsn;
use crate::workqueue::WorkQueue;

/// The bucket that was given up last, until that is told.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<Option<Untold>>);

#[derive(Debug)]
struct Untold {
    bucket: Arc<str>,
    /// The oldest offset forgotten, by partition.
    needed: BTreeMap<i32, i64>,
}

impl GivenUp {
    /// The bucket of which to tell, if there is one: the one with most failing keys, once more than half of the keys
    /// that the queue may hold are failing ones.
    pub(super) fn next(&self, work: &WorkQueue) -> Option<Arc<str>> {
        let mut untold = self.untold();
        if untold.is_none() {
            *untold = give_up(work);
        }
        untold.as_ref().map(|untold| Arc::clone(&untold.bucket))
    }

    /// The oldest offset of the partition that may not be committed yet.
    pub(super) fn needed(&self, partition: i32) -> Option<i64> {
        self.untold().as_ref()?.needed.get(&partition).copied()
    }

    /// The topic has it.
    pub(super) fn told(&self) {
        *self.untold() = None;
    }

    fn untold(&self) -> MutexGuard<'_, Option<Untold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_up(work: &WorkQueue) -> Option<Untold> {
    let stuck = work.stuck();
    let all: usize = stuck.iter().map(|(_, keys)| keys).sum();
    if all <= work.max_keys() / 2 {
        return None;
    }
    let (bucket, _) = stuck.into_iter().max_by_key(|(_, keys)| *keys)?;
    let mut needed = BTreeMap::new();
    let forgotten = work.forget_stuck(&bucket);
    for number in &forgotten {
        let oldest = needed.entry(lsn::partition(*number)).or_insert(i64::MAX);
        *oldest = lsn::offset(*number).min(*oldest);
    }
    tracing::warn!(
        %bucket,
        keys = forgotten.len(),
        "So many keys of this bucket fail that they would take the room of all others; it is recorded as a gap and reconciled as a whole, with longer and longer waits while it fails. Remedy what the log says of its keys."
    );
    Some(Untold { bucket, needed })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dirty::{Aspects, DirtyKey, Origin};
    use crate::object::ObjectKey;

    #[test]
    fn a_bucket_whose_failing_keys_take_half_of_the_room_is_forgotten_and_committed_once_that_is_told()
     {
        let (work, given_up) = (WorkQueue::new(1_000, Duration::ZERO), GivenUp::default());
        let mark = |bucket: &str, partition: i32, offset: i64| {
            let key = ObjectKey::new(bucket, format!("{partition}/{offset}"));
            let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
            let dirty = DirtyKey { key, aspects, origin, since_ms: 0, size: None };
            work.mark(&dirty, lsn::lsn(partition, offset));
        };
        for offset in 0..250 {
            mark("fails", 1, 10 + offset);
            mark("fails", 2, 20 + offset);
        }
        mark("works", 1, 9);
        work.set_failing(&"fails".into(), true);
        assert_eq!(given_up.next(&work), None, "half of the room is left to others");
        mark("fails", 2, 19);
        assert_eq!(given_up.next(&work).as_deref(), Some("fails"));
        assert_eq!(work.counts().pending, 1);
        let needed = |partition| given_up.needed(partition);
        assert_eq!((needed(0), needed(1), needed(2)), (None, Some(10), Some(19)));
        assert_eq!(given_up.next(&work).as_deref(), Some("fails"), "it was not told yet");
        given_up.told();
        assert_eq!((needed(1), needed(2), given_up.next(&work)), (None, None, None));
    }
}
