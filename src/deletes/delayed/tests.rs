use http::HeaderValue;

use super::*;
use crate::config::settings::Durability;
use crate::dirty::Origin;
use crate::journal::{Cursor, JournalOptions};
use crate::shelf::open_journal;

fn bucket(deletes: &str) -> BucketSettings {
    let text = format!("source = \"b\"\ndeletes = \"{deletes}\"\ndelete_delay = \"10s\"");
    toml::from_str(&text).unwrap()
}

async fn open(dir: &Path, deletes: &str) -> Delays {
    let (dir, clock) = (dir.join("delayed"), SteadyClock::default());
    Delays::open(&dir, &[bucket(deletes)], 64 << 20, clock).await.unwrap().0
}

async fn main_journal(dir: &Path) -> (Journal, Cursor) {
    let (segment_size, max_size) = (1 << 20, 8 << 20);
    let dir = dir.join("main");
    let options = JournalOptions { dir, segment_size, max_size, durability: Durability::Write };
    let (journal, cursor, _) = open_journal(options).await.unwrap();
    (journal, cursor)
}

async fn put(delays: &Delays, key: &str, since_ms: i64) {
    let (aspects, origin) = (Aspects::REMOVED, Origin::Live);
    let dirty =
        DirtyKey { key: ObjectKey::new("b", key), aspects, origin, since_ms: 0, size: Some(0) };
    delays.buckets["b"].put(dirty, since_ms).await.unwrap();
}

/// Lets go what is due, and says which keys those were and since when they have been.
async fn release(delays: &Delays, main: &mut (Journal, Cursor), now_ms: i64) -> Vec<(String, i64)> {
    delays.buckets["b"].release(&main.0, now_ms).await.unwrap();
    let mut found = Vec::new();
    while main.1.position() < main.0.stats().next_lsn {
        for record in main.1.next(100).await.unwrap() {
            let dirty = DirtyKey::decode(&record.payload).unwrap();
            assert!(dirty.aspects.has(Aspects::REMOVED.with(Aspects::DUE)));
            found.push((dirty.key.key.to_string(), dirty.since_ms));
        }
    }
    found
}

#[tokio::test]
async fn a_delete_leaves_when_it_is_due_and_not_before_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    put(&delays, "1", 1_000).await;
    put(&delays, "2", 2_000).await;
    assert_eq!(release(&delays, &mut main, 10_999).await, []);
    assert_eq!(release(&delays, &mut main, 11_000).await, [("1".to_owned(), 11_000)]);
    delays.close().await;
    drop(delays);

    let delays = open(dir.path(), "delay").await;
    assert_eq!(delays.list()[0].count, 1);
    assert_eq!(release(&delays, &mut main, 11_999).await, []);
    assert_eq!(delays.list()[0].next_due_ms, Some(12_000));
    put(&delays, "3", 3_000).await;
    let due = [("2".to_owned(), 12_000), ("3".to_owned(), 13_000)];
    assert_eq!(release(&delays, &mut main, 100_000).await, due);
    assert!(delays.list().is_empty());
}

#[tokio::test]
async fn many_deletes_that_are_due_at_once_leave_bit_by_bit_and_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    let (aspects, origin) = (Aspects::REMOVED, Origin::Live);
    let many: Vec<_> = (0..=AT_ONCE)
        .map(|n| ObjectKey::new("b", n.to_string()))
        .map(|key| DirtyKey { key, aspects, origin, since_ms: 1_000, size: Some(0) })
        .collect();
    delays.buckets["b"].shelf.put(&many).await.unwrap();
    assert_eq!(release(&delays, &mut main, 11_000).await.len(), AT_ONCE);
    assert_eq!(release(&delays, &mut main, 11_000).await.len(), 1);
    assert!(release(&delays, &mut main, 11_000).await.is_empty());
}

#[tokio::test]
async fn a_key_that_waits_is_known_until_it_leaves_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let (one, two) = (ObjectKey::new("b", "1"), ObjectKey::new("b", "2"));
    let delays = open(dir.path(), "delay").await;
    put(&delays, "1", 1_000).await;
    assert!(delays.knows(&one) && !delays.knows(&two));
    delays.close().await;
    drop(delays);
    let delays = open(dir.path(), "delay").await;
    assert!(delays.knows(&one) && !delays.knows(&two));
    release(&delays, &mut main, 100_000).await;
    assert!(!delays.knows(&one));
}

#[tokio::test]
async fn where_the_policy_has_changed_nothing_waits_any_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    put(&delays, "1", 1_000).await;
    delays.close().await;
    drop(delays);
    let delays = open(dir.path(), "mirror").await;
    assert_eq!(release(&delays, &mut main, 1_000).await, [("1".to_owned(), 1_000)]);
}

#[tokio::test]
async fn a_key_that_is_deleted_again_waits_its_whole_delay_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    let key = ObjectKey::new("b", "k");
    put(&delays, "k", 1_000).await;
    // It comes back with the same bytes: nothing is written at the target. Then it goes once more.
    delays.returned(&key).await;
    put(&delays, "k", 9_000).await;
    assert_eq!(release(&delays, &mut main, 11_000).await, []);
    assert!(delays.knows(&key), "its newest delete still waits");
    delays.close().await;
    drop(delays);
    let delays = open(dir.path(), "delay").await;
    assert_eq!(release(&delays, &mut main, 18_999).await, []);
    assert_eq!(release(&delays, &mut main, 19_000).await, [("k".to_owned(), 19_000)]);
    assert!(delays.list().is_empty());
}

#[tokio::test]
async fn a_delayed_delete_of_an_object_that_came_back_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    put(&delays, "back", 1_000).await;
    put(&delays, "gone", 1_000).await;
    delays.returned(&ObjectKey::new("b", "back")).await;
    assert_eq!(release(&delays, &mut main, 11_000).await, [("gone".to_owned(), 11_000)]);
    assert!(delays.list().is_empty());
}

#[tokio::test]
async fn a_decision_concerns_what_is_due_and_cannot_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    put(&delays, "k", 1_000).await;
    main.0.close().await;
    assert!(delays.buckets["b"].release(&main.0, 100_000).await.is_err());
    let mut seen = 0;
    delays
        .look("b", |_| {
            seen += 1;
            true
        })
        .await
        .unwrap();
    assert_eq!(seen, 1);
}

#[tokio::test]
async fn an_object_that_came_back_before_a_restart_has_no_delete_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let key = ObjectKey::new("b", "k");
    let delays = open(dir.path(), "delay").await;
    put(&delays, "k", 1_000).await;
    delays.returned(&key).await;
    for _ in 0..2 {
        assert!(!delays.knows(&key) && delays.list().is_empty());
        let mut seen = 0;
        delays
            .look("b", |_| {
                seen += 1;
                true
            })
            .await
            .unwrap();
        assert_eq!(seen, 0, "a decision does not concern it");
    }
    delays.close().await;
    drop(delays);
    let delays = open(dir.path(), "delay").await;
    assert!(!delays.knows(&key) && delays.list().is_empty());
    // A pass finds it gone once more, and its delete waits its whole delay.
    put(&delays, "k", 9_000).await;
    assert_eq!(delays.list()[0].count, 1);
    assert_eq!(release(&delays, &mut main, 18_999).await, []);
    assert_eq!(release(&delays, &mut main, 19_000).await, [("k".to_owned(), 19_000)]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_blocks_no_delayed_delete_for_longer_than_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let mut main = main_journal(dir.path()).await;
    let delays = open(dir.path(), "delay").await;
    let start_ms = delays.buckets["b"].clock.start_ms;
    put(&delays, "ahead", start_ms + 3_600_000).await;
    put(&delays, "behind", start_ms + 3_600_001).await;
    delays.close().await;
    drop(delays);
    let delays = open(dir.path(), "delay").await;
    let start_ms = delays.buckets["b"].clock.start_ms;
    assert_eq!(release(&delays, &mut main, start_ms + 9_999).await, []);
    let due: Vec<_> = ["ahead", "behind"].map(|key| (key.to_owned(), start_ms + 10_000)).into();
    assert_eq!(release(&delays, &mut main, start_ms + 10_000).await, due);
}

#[test]
fn an_object_is_new_by_its_own_stores_clock_and_in_doubt() {
    let headers = |date: &'static str, modified: &'static str| {
        let values = [("date", date), ("last-modified", modified)];
        values.into_iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect()
    };
    let seven: HeaderMap =
        headers("Mon, 23 Nov 2026 15:50:07 GMT", "Mon, 23 Nov 2026 15:50:00 GMT");
    assert_eq!(written_since(&seven, 10_000), Some(true));
    assert_eq!(written_since(&seven, 6_001), Some(true), "the seconds are not whole");
    assert_eq!(written_since(&seven, 6_000), Some(false));
    assert_eq!(written_since(&seven, 5_000), Some(false));
    assert_eq!(written_since(&HeaderMap::new(), 5_000), None, "the caller decides");
}
