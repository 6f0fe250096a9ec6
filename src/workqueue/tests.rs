use super::*;
use crate::dirty::{Aspects, Origin};

#[tokio::test]
async fn a_key_that_no_worker_takes_does_not_hold_the_log() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    let key = ObjectKey::new("b", "k");
    let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
    queue.mark(&DirtyKey { key: key.clone(), aspects, origin, since_ms: 5, size: None }, 1);
    assert_eq!(queue.holding_below(100, 10).len(), 1);
    queue.rebase(&key, 200);
    assert_eq!(queue.lowest_unfinished(), Some(200));
    let work = queue.next_small().await;
    queue.complete(&work, Outcome::Settled);
    assert_eq!(queue.lowest_unfinished(), None);
}

#[tokio::test]
async fn a_key_that_a_worker_has_for_hours_does_not_hold_the_log() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    let mark = |name: &str, aspects, lsn| {
        let (key, origin) = (ObjectKey::new("b", name), Origin::Live);
        queue.mark(&DirtyKey { key, aspects, origin, since_ms: 5, size: None }, lsn);
    };
    mark("k", Aspects::CONTENT, 1);
    let work = queue.next_small().await;
    mark("k", Aspects::TAGS, 20);
    assert!(queue.only_in_flight_below(100));
    let again = queue.holding_below(100, 10).remove(0);
    assert!(again.aspects.has(Aspects::CONTENT.with(Aspects::TAGS)), "all that a crash would lose");
    queue.rebase(&work.key, 200);
    assert_eq!((queue.lowest_unfinished(), queue.holding_below(200, 10)), (Some(200), Vec::new()));
    queue.complete(&work, Outcome::Settled);
    assert_eq!(queue.next_small().await.pending.aspects, Aspects::TAGS, "marked meanwhile");
    mark("waits", Aspects::CONTENT, 210);
    assert!(!queue.only_in_flight_below(300) && queue.only_in_flight_below(210));
}

#[tokio::test]
async fn what_is_forgotten_is_handed_out_no_more_and_what_is_in_flight_is_waited_for() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    let mark = |name: &str, lsn| {
        let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
        queue.mark(
            &DirtyKey { key: ObjectKey::new("b", name), aspects, origin, since_ms: 5, size: None },
            lsn,
        );
    };
    mark("in flight", 10);
    let work = queue.next_small().await;
    mark("in flight", 14);
    mark("ready", 12);
    mark("another's", 20);
    assert_eq!(queue.forget(&(10..=19)), Some(12), "the one in flight is not forgotten yet");
    assert_eq!(queue.lowest_in(10..=19), Some(10));
    let other = queue.next_small().await;
    assert_eq!(&*other.key.key, "another's");
    queue.complete(&work, Outcome::Settled);
    assert_eq!(queue.lowest_in(10..=19), None, "what was marked meanwhile is forgotten, too");
    let retry = Outcome::Retry { after: Duration::ZERO, class: "c", reason: "r".into() };
    queue.complete(&other, retry);
    assert_eq!(queue.forget(&(20..=29)), Some(20), "parked keys are forgotten as well");
    assert_eq!(queue.counts(), Counts::default());
}

#[tokio::test]
async fn a_live_event_that_was_set_aside_still_counts_as_live_and_wakes_nobody() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    let key = ObjectKey::new("b", "k");
    for (origin, live) in [(Origin::Live, true), (Origin::Repair, false)] {
        let aspects = Aspects::CONTENT;
        queue.mark(&DirtyKey { key: key.clone(), aspects, origin, since_ms: 5, size: None }, 1);
        let retry =
            || Outcome::Retry { after: Duration::from_mins(1), class: "c", reason: "r".into() };
        queue.complete(&queue.next_now(Size::Small, Share::ALL).unwrap(), retry());
        let aside = queue.stuck_in("b", 10).remove(0);
        queue.mark(&DirtyKey::decode(&aside.encode()).unwrap(), 2);
        assert!(queue.next_now(Size::Small, Share::ALL).is_none(), "its time has not come");
        queue.forget_set_aside(&key);
        queue.mark(&DirtyKey::decode(&aside.encode()).unwrap(), 3);
        let work = queue.next_now(Size::Small, Share::ALL).unwrap();
        assert_eq!(work.pending.origin.is_live(), live);
        queue.complete(&work, Outcome::Settled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_that_always_fails_is_tried_seldom_and_takes_bounded_memory() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    let key = ObjectKey::new("b", "hot");
    let mut tries = 0;
    // A thousand seconds, twenty events in each.
    for lsn in 1..=20_000 {
        let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
        queue.mark(&DirtyKey { key: key.clone(), aspects, origin, since_ms: 5, size: None }, lsn);
        if let Some(work) = queue.next_now(Size::Small, Share::ALL) {
            tries += 1;
            let after = Duration::from_secs(30);
            queue.complete(&work, Outcome::Retry { after, class: "c", reason: "r".into() });
        }
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    // An event brings the next try forward, to an eighth of the wait and no further.
    assert!((200..=267).contains(&tries), "{tries} tries");
    let entries = format!("{queue:?}").matches("hot").count();
    assert!(entries <= 16, "{entries} entries for one key");
    assert_eq!(queue.counts().pending, 1);
}

#[test]
fn a_key_that_leaves_its_record_takes_a_persons_decision_along() {
    let queue = WorkQueue::new(10, Duration::ZERO);
    // A person discarded what was reported before record 100.
    queue.set_discarded(Discarded::new(|bucket, lsn| bucket == "b" && lsn < 100));
    for (name, lsn) in [("before", 5), ("after", 100)] {
        let (aspects, origin) = (Aspects::REMOVED, Origin::Live);
        let key = ObjectKey::new("b", name);
        queue.mark(&DirtyKey { key, aspects, origin, since_ms: 5, size: None }, lsn);
    }
    // A second delivery of the same removal, after the decision, changes nothing.
    let again = DirtyKey {
        key: ObjectKey::new("b", "before"),
        aspects: Aspects::REMOVED,
        origin: Origin::Live,
        since_ms: 5,
        size: None,
    };
    queue.mark(&again, 150);
    let moving = queue.holding_below(1_000, 10);
    let decided = |name: &str| {
        let dirty = moving.iter().find(|dirty| &*dirty.key.key == name).unwrap();
        dirty.aspects.has(Aspects::DISCARDED)
    };
    assert!(decided("before") && !decided("after"));
}

#[tokio::test]
async fn keys_of_a_bucket_that_works_again_are_tried_at_once_and_few_stand_behind_many() {
    let queue = WorkQueue::new(100, Duration::ZERO);
    let mark = |bucket: &str, name: u64, lsn| {
        let key = ObjectKey::new(bucket, name.to_string());
        let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
        queue.mark(&DirtyKey { key, aspects, origin, since_ms: 5, size: None }, lsn);
        let after = Duration::from_hours(1);
        let work = queue.next_now(Size::Small, Share::ALL).unwrap();
        queue.complete(&work, Outcome::Retry { after, class: "c", reason: "r".into() });
    };
    for lsn in 1..=9 {
        mark("many", lsn, lsn);
    }
    mark("few", 1, 10);
    assert_eq!(queue.stuck(), [("few".into(), 1), ("many".into(), 9)]);
    assert!(queue.stuck_in("many", 5).iter().all(|dirty| &*dirty.key.bucket == "many"));
    assert!(queue.next_now(Size::Small, Share::ALL).is_none());
    queue.set_failing(&"many".into(), true);
    queue.set_failing(&"many".into(), false);
    assert_eq!(std::iter::from_fn(|| queue.next_now(Size::Small, Share::ALL)).count(), 9);
}
