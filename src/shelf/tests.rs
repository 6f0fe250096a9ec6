use super::*;
use crate::dirty::{Aspects, Origin};

fn dirty(bucket: &str, key: &str) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(bucket, key),
        aspects: Aspects::REMOVED,
        origin: Origin::Live,
        since_ms: 1,
        size: None,
    }
}

async fn main_journal(dir: PathBuf) -> (Journal, Cursor) {
    let options = JournalOptions {
        dir,
        segment_size: 1 << 20,
        max_size: 8 << 20,
        durability: Durability::Write,
    };
    let (journal, cursor, _) = open_journal(options).await.unwrap();
    (journal, cursor)
}

#[tokio::test]
async fn keys_set_aside_survive_a_restart_and_come_back_by_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("held"), 64 << 20).await.unwrap();
    shelf.put(&[dirty("a", "1"), dirty("b", "2")]).await.unwrap();
    shelf.put(&[dirty("a", "3")]).await.unwrap();
    shelf.close().await;
    drop(shelf);

    let (shelf, _) = Shelf::open(dir.path().join("held"), 64 << 20).await.unwrap();
    assert_eq!(shelf.counts(), [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
    let (main, mut cursor) = main_journal(dir.path().join("main")).await;
    let taken = shelf
        .drain(&main, u64::MAX, |dirty| match &*dirty.key.bucket {
            "a" => Taken::Back(dirty),
            _ => Taken::Kept(dirty),
        })
        .await
        .unwrap();
    assert_eq!(taken, 2);
    assert_eq!(shelf.counts(), [("b".to_owned(), 1)].into());
    let back = cursor.next(10).await.unwrap();
    let keys: Vec<_> =
        back.iter().map(|r| DirtyKey::decode(&r.payload).unwrap().key.key.to_string()).collect();
    assert_eq!(keys, ["1", "3"]);
}

#[tokio::test]
async fn the_oldest_change_and_the_bytes_set_aside_are_known_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    assert_eq!(shelf.oldest_ms(), None);
    let old = DirtyKey { since_ms: -7, size: Some(9), ..dirty("a", "2") };
    shelf.put(&[dirty("a", "1"), old]).await.unwrap();
    assert_eq!((shelf.oldest_ms(), shelf.bytes()), (Some(-7), (9, 1)));
    shelf.close().await;
    drop(shelf);
    let (shelf, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    assert_eq!((shelf.oldest_ms(), shelf.bytes()), (Some(-7), (9, 1)));
    let (main, _cursor) = main_journal(dir.path().join("main")).await;
    shelf.drain(&main, u64::MAX, Taken::Back).await.unwrap();
    assert_eq!((shelf.oldest_ms(), shelf.bytes()), (None, (0, 0)));
}

#[tokio::test]
async fn dropped_keys_are_gone_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("held"), 64 << 20).await.unwrap();
    shelf.put(&[dirty("a", "1")]).await.unwrap();
    let (main, _cursor) = main_journal(dir.path().join("main")).await;
    assert_eq!(shelf.drain(&main, u64::MAX, |_| Taken::Dropped).await.unwrap(), 1);
    assert_eq!(shelf.counts(), BTreeMap::new());
    assert_eq!(shelf.drain(&main, u64::MAX, |_| Taken::Dropped).await.unwrap(), 0);
}

#[tokio::test]
async fn keys_that_could_not_be_taken_back_are_still_counted_and_come_back_later() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("held"), 64 << 20).await.unwrap();
    shelf.put(&[dirty("a", "1"), dirty("b", "2")]).await.unwrap();
    let (closed, _cursor) = main_journal(dir.path().join("closed")).await;
    closed.close().await;
    assert!(shelf.drain(&closed, u64::MAX, Taken::Back).await.is_err());
    assert_eq!(shelf.counts(), [("a".to_owned(), 1), ("b".to_owned(), 1)].into());
    let (main, _cursor) = main_journal(dir.path().join("main")).await;
    assert_eq!(shelf.drain(&main, u64::MAX, Taken::Back).await.unwrap(), 2);
    assert_eq!(shelf.counts(), BTreeMap::new());
}

#[tokio::test]
async fn any_number_of_the_longest_keys_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    let longest = dirty(&"b".repeat(63), &"k".repeat(1_024));
    let keys = vec![longest; 5_000];
    shelf.put(&keys).await.unwrap();
    let (main, _cursor) = main_journal(dir.path().join("main")).await;
    assert_eq!(shelf.drain(&main, u64::MAX, Taken::Back).await.unwrap(), 5_000);
}

fn names(cursor: &[crate::journal::Record]) -> Vec<String> {
    let key = |r: &crate::journal::Record| DirtyKey::decode(&r.payload).unwrap().key.to_string();
    cursor.iter().map(key).collect()
}

#[tokio::test]
async fn held_deletes_that_fill_the_shelf_can_still_be_approved_and_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, _) = Shelf::open(dir.path().join("held"), 4 << 20).await.unwrap();
    let (main, mut cursor) = main_journal(dir.path().join("main")).await;
    // As one would find them: of both buckets, mixed.
    let mut number = 0_usize;
    let full = loop {
        let page: Vec<_> =
            (0..64).map(|n| dirty(["a", "b"][n % 2], &format!("{:0900}", number + n))).collect();
        number += 64;
        if let Err(error) = shelf.put(&page).await {
            break error;
        }
    };
    assert!(matches!(full, AppendError::Full(_)), "{full}");
    let of = |bucket: &str| shelf.counts().get(bucket).copied().unwrap_or(0);
    let (all_of_a, all_of_b) = (of("a"), of("b"));
    assert!(all_of_a > 1_000 && all_of_b > 1_000);
    // The first decision is approved in part, as one bucket's keys below a prefix might be.
    let mut left = 7;
    let approved = shelf
        .drain(&main, u64::MAX, |dirty| match &*dirty.key.bucket {
            "a" if left > 0 => {
                left -= 1;
                Taken::Back(dirty)
            }
            _ => Taken::Kept(dirty),
        })
        .await
        .unwrap();
    assert_eq!((approved, of("a"), of("b")), (7, all_of_a - 7, all_of_b));
    assert_eq!(names(&cursor.next(7).await.unwrap())[0], format!("a/{:0900}", 0));
    let discarded = shelf
        .drain(&main, u64::MAX, |dirty| match &*dirty.key.bucket {
            "b" => Taken::Dropped,
            _ => Taken::Kept(dirty),
        })
        .await
        .unwrap();
    assert_eq!((discarded, of("a"), of("b")), (all_of_b, all_of_a - 7, 0));
}

#[tokio::test]
async fn set_aside_records_that_cannot_be_understood_are_reported_and_never_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deferred");
    let (shelf, recovery) = Shelf::open(path.clone(), 64 << 20).await.unwrap();
    assert_eq!(recovery.undecodable, 0);
    shelf.put(&[dirty("a", "1")]).await.unwrap();
    // As a later version might have written it.
    let later = vec![vec![99; 40], dirty("a", "2").encode()];
    shelf.journal.append(later).await.unwrap();
    shelf.close().await;
    drop(shelf);

    let (shelf, recovery) = Shelf::open(path, 64 << 20).await.unwrap();
    assert_eq!((recovery.undecodable, recovery.damage.len()), (1, 0));
    assert_eq!(shelf.counts(), [("a".to_owned(), 2)].into());
    let (main, mut cursor) = main_journal(dir.path().join("main")).await;
    assert_eq!(shelf.drain(&main, u64::MAX, Taken::Back).await.unwrap(), 2);
    assert_eq!(names(&cursor.next(10).await.unwrap()), ["a/1", "a/2"]);
    assert_eq!(shelf.counts(), BTreeMap::new());
    assert!(shelf.is_empty(), "and what nobody understands has left, too");
}

#[tokio::test]
async fn a_shelf_whose_last_record_is_lost_opens_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("held");
    let (shelf, _) = Shelf::open(dir.clone(), 64 << 20).await.unwrap();
    for key in ["one", "two", "the last one"] {
        shelf.put(&[dirty("a", key)]).await.unwrap();
    }
    shelf.close().await;
    drop(shelf);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let lost = bytes.windows(12).position(|window| window == b"the last one");
        if let Some(lost) = lost {
            bytes[lost] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let opened = Shelf::open(dir, 64 << 20);
    let opened = tokio::time::timeout(std::time::Duration::from_secs(20), opened).await;
    let (shelf, recovery) = opened.expect("it does not hang").unwrap();
    assert_eq!(recovery.damage.len(), 1, "{recovery:?}");
    assert_eq!(recovery.damage[0].missing, 3..=3);
    assert_eq!(shelf.counts(), [("a".to_owned(), 2)].into());
    let (main, _) = main_journal(tempfile::tempdir().unwrap().path().join("main")).await;
    let taken = shelf.drain(&main, u64::MAX, |_| Taken::Dropped).await.unwrap();
    assert!(taken == 2 && shelf.is_empty());
}
