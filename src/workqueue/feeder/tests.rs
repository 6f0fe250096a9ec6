use std::collections::HashSet;

use super::*;
use crate::config::settings::Durability;
use crate::dirty::{Aspects, Origin};
use crate::journal::JournalOptions;
use crate::object::ObjectKey;
use crate::shelf::open_journal;
use crate::workqueue::{Outcome, Share, Size};

const KEYS: usize = 40;
const ROOM: usize = 8;
/// A test that takes longer than this does not come to its end.
const HANGS: Duration = Duration::from_mins(2);

async fn journal(dir: std::path::PathBuf) -> (Journal, Cursor) {
    let (segment_size, max_size) = (1 << 20, 8 << 20);
    let options = JournalOptions { dir, segment_size, max_size, durability: Durability::Write };
    let (journal, cursor, _) = open_journal(options).await.unwrap();
    (journal, cursor)
}

/// Feeds a queue of eight keys from a journal of forty, and works until only
/// the keys that fail for ever are left. Every other key fails once.
async fn work_off(fail_for_ever: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = journal(dir.path().join("journal")).await;
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    let (deferred, queue) = (Arc::new(deferred), Arc::new(WorkQueue::new(ROOM, Duration::ZERO)));
    let key = |n: usize| ObjectKey::new("b", format!("k{n}"));
    let record = |n: usize| {
        let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
        DirtyKey { key: key(n), aspects, origin, since_ms: 5, size: None }.encode()
    };
    journal.append((0..KEYS).map(record).collect()).await.unwrap();
    let position = Arc::new(AtomicU64::new(1));
    let feeder = Feeder {
        journal: journal.clone(),
        cursor,
        queue: Arc::clone(&queue),
        deferred: Arc::clone(&deferred),
        position: Arc::clone(&position),
        retry_deferred: Duration::from_mins(1),
        failing: None,
        hold: None,
    };
    let stop = CancellationToken::new();
    let feeding = tokio::spawn(feeder.run(stop.clone(), |lsn| panic!("record {lsn}")));

    let hopeless: HashSet<_> = (0..fail_for_ever).map(key).collect();
    let (mut failed, mut settled) = (HashSet::new(), HashSet::new());
    let unfinished = || {
        let unread = position.load(Ordering::Acquire) < journal.stats().next_lsn;
        unread || queue.counts().pending > 0 || !deferred.counts().is_empty()
    };
    for _ in 0..100_000 {
        if settled.len() + hopeless.len() == KEYS && (!hopeless.is_empty() || !unfinished()) {
            break;
        }
        // A key may come back from the shelf that was settled meanwhile, so the end is when nothing
        // is left, and the waiting must not be for a further key.
        let next = tokio::time::timeout(Duration::from_secs(1), queue.next_small());
        let Ok(work) = next.await else { continue };
        assert!(queue.counts().pending <= ROOM, "{:?}", queue.counts());
        let outcome = if failed.insert(work.key.clone()) || hopeless.contains(&work.key) {
            let after = Duration::from_secs(30);
            Outcome::Retry { after, class: "transient", reason: "down".into() }
        } else {
            settled.insert(work.key.clone());
            Outcome::Settled
        };
        queue.complete(&work, outcome);
    }
    stop.cancel();
    feeding.await.unwrap().unwrap();
    assert_eq!(settled.len() + hopeless.len(), KEYS, "{settled:?}");
    if hopeless.is_empty() {
        let stats = journal.stats();
        assert_eq!(stats.trimmed_lsn, stats.next_lsn, "nothing holds the log");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_larger_than_the_queue_that_fails_and_recovers_settles_to_the_last_key() {
    work_off(0).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_set_aside_are_tried_again_although_others_fail_for_ever() {
    work_off(ROOM - 1).await;
}

fn live(bucket: &str, name: impl std::fmt::Display) -> DirtyKey {
    let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
    DirtyKey {
        key: ObjectKey::new(bucket, name.to_string()),
        aspects,
        origin,
        since_ms: 5,
        size: None,
    }
}

fn encoded(keys: &[DirtyKey]) -> Vec<Vec<u8>> {
    keys.iter().map(DirtyKey::encode).collect()
}

fn fails() -> Outcome {
    let after = Duration::from_secs(30);
    Outcome::Retry { after, class: "denied", reason: "no".into() }
}

/// A feeder at work, with all that it works on.
struct Fed {
    journal: Journal,
    queue: Arc<WorkQueue>,
    deferred: Arc<Shelf>,
    stop: CancellationToken,
    feeding: tokio::task::JoinHandle<Result<(), FeedError>>,
    /// The buckets that became gaps, and what was parked of them then.
    gaps: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Fed {
    fn start((journal, cursor): (Journal, Cursor), room: usize, deferred: Shelf) -> Self {
        let (deferred, gaps) = (Arc::new(deferred), Arc::<std::sync::Mutex<Vec<_>>>::default());
        let queue = Arc::new(WorkQueue::new(room, Duration::ZERO));
        let record = {
            let gaps = Arc::clone(&gaps);
            move |bucket: &str| {
                gaps.lock().unwrap().push(bucket.to_owned());
                true
            }
        };
        let feeder = Feeder {
            journal: journal.clone(),
            cursor,
            queue: Arc::clone(&queue),
            deferred: Arc::clone(&deferred),
            position: Arc::new(AtomicU64::new(1)),
            retry_deferred: Duration::from_mins(1),
            failing: Some(Failing::new(record)),
            hold: None,
        };
        let stop = CancellationToken::new();
        let feeding = tokio::spawn(feeder.run(stop.clone(), |lsn| panic!("record {lsn}")));
        Self { journal, queue, deferred, stop, feeding, gaps }
    }

    /// Works on what is ready now: what `outcome` says becomes of it.
    async fn work(&self, outcome: impl Fn(&ObjectKey) -> Outcome) -> usize {
        let next = tokio::time::timeout(Duration::from_secs(1), self.queue.next_small());
        let Ok(work) = next.await else { return 0 };
        self.queue.complete(&work, outcome(&work.key));
        let mut done = 1;
        while let Some(work) = self.queue.next_now(Size::Small, Share::ALL) {
            self.queue.complete(&work, outcome(&work.key));
            done += 1;
        }
        done
    }

    async fn end(self) {
        self.stop.cancel();
        self.feeding.await.unwrap().unwrap();
        self.journal.close().await;
        self.deferred.close().await;
    }
}

async fn small_journal(dir: &std::path::Path) -> (Journal, Cursor) {
    let (dir, durability) = (dir.join("journal"), Durability::Write);
    let options = JournalOptions { dir, segment_size: 1 << 20, max_size: 4 << 20, durability };
    let (journal, cursor, _) = open_journal(options).await.unwrap();
    (journal, cursor)
}

/// A journal that is full, whose first record is of a key that fails for ever; the rest settles.
async fn resumes(restarted: bool, shelf_has_room: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, mut cursor) = small_journal(dir.path()).await;
    journal.append(encoded(&[live("b", "poison")])).await.unwrap();
    let page: Vec<_> = (0..200).map(|n| live("b", format!("{n:01000}"))).collect();
    while journal.append(encoded(&page)).await.is_ok() {}
    assert!(journal.stats().full);
    if restarted {
        journal.close().await;
        drop((journal, cursor));
        (journal, cursor) = small_journal(dir.path()).await;
    }
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 4 << 20).await.unwrap();
    while !shelf_has_room && deferred.put(&[live("other", format!("{:01000}", 1))]).await.is_ok() {}
    let fed = Fed::start((journal, cursor), 1_000, deferred);
    let outcome = |key: &ObjectKey| if &*key.key == "poison" { fails() } else { Outcome::Settled };
    let new = encoded(&[live("b", "new")]);
    let began = std::time::Instant::now();
    while fed.journal.append(new.clone()).await.is_err() || fed.journal.stats().full {
        fed.work(outcome).await;
        // The clock that is paused goes on while the disk works, so rounds say nothing.
        assert!(began.elapsed() < HANGS, "it stays full: {:?}", fed.queue.counts());
    }
    let gaps = fed.gaps.lock().unwrap().clone();
    assert_eq!(gaps, Vec::<String>::new(), "the key is known, one way or the other");
    let kept = fed.queue.counts().parked as u64 + fed.deferred.counts().get("b").unwrap_or(&0);
    assert_eq!(kept, 1);
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_resumes_although_a_worker_has_a_key_for_hours() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = small_journal(dir.path()).await;
    journal.append(encoded(&[live("b", "large")])).await.unwrap();
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 4 << 20).await.unwrap();
    let fed = Fed::start((journal, cursor), 1_000, deferred);
    let large = fed.queue.next_small().await;
    let page: Vec<_> = (0..200).map(|n| live("b", format!("{n:01000}"))).collect();
    while fed.journal.append(encoded(&page)).await.is_ok() {}
    let new = encoded(&[live("b", "new")]);
    let began = std::time::Instant::now();
    while fed.journal.append(new.clone()).await.is_err() || fed.journal.stats().full {
        fed.work(|_| Outcome::Settled).await;
        assert!(began.elapsed() < HANGS, "it stays full: {:?}", fed.queue.counts());
    }
    assert!(fed.queue.lowest_unfinished().is_some_and(|lsn| lsn > 1), "and it is not forgotten");
    fed.queue.complete(&large, Outcome::Settled);
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_resumes_by_itself_although_a_key_fails_for_ever() {
    resumes(false, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_with_a_failing_key_resumes_also_after_a_restart() {
    resumes(true, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_resumes_although_the_shelf_of_failing_keys_is_full() {
    resumes(false, false).await;
}

/// A bucket all of whose keys fail, more than there is room to remember, before keys of another.
async fn one_bucket_fails(room: usize, keys: usize, shelf: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = journal(dir.path().join("journal")).await;
    let page = |bucket: &str, pages: std::ops::Range<usize>| {
        let keys: Vec<_> = pages.map(|n| live(bucket, format!("{n:0900}"))).collect();
        encoded(&keys)
    };
    for first in (0..keys).step_by(100) {
        journal.append(page("failing", first..first + 100)).await.unwrap();
    }
    journal.append(page("well", 0..100)).await.unwrap();
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), shelf).await.unwrap();
    let fed = Fed::start((journal, cursor), room, deferred);
    let settled = AtomicU64::new(0);
    let outcome = |key: &ObjectKey| {
        if &*key.bucket == "failing" {
            return fails();
        }
        settled.fetch_add(1, Ordering::Relaxed);
        Outcome::Settled
    };
    let began = std::time::Instant::now();
    // What fails once the last gap was made may be few enough to be set aside.
    let set_aside = || fed.deferred.counts().get("failing").copied().unwrap_or(0);
    let many = || set_aside() > room as u64;
    while settled.load(Ordering::Relaxed) < 100 || fed.gaps.lock().unwrap().is_empty() || many() {
        fed.work(outcome).await;
        // The clock that is paused goes on while the disk works, so rounds say nothing.
        assert!(began.elapsed() < HANGS, "{:?}", fed.queue.counts());
    }
    assert!(fed.gaps.lock().unwrap().iter().all(|bucket| bucket == "failing"));
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_with_more_failing_keys_than_memory_becomes_a_gap_and_others_are_read() {
    one_bucket_fails(100, 1_000, 64 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_fills_the_shelf_becomes_a_gap_and_others_are_read() {
    one_bucket_fails(4_000, 6_000, 2 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_while_the_gap_of_their_failing_bucket_cannot_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = journal(dir.path().join("journal")).await;
    let keys: Vec<_> = (0..40).map(|n| live("b", n)).collect();
    journal.append(encoded(&keys)).await.unwrap();
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    let mut feeder = Feeder {
        journal,
        cursor,
        queue: Arc::new(WorkQueue::new(8, Duration::ZERO)),
        deferred: Arc::new(deferred),
        position: Arc::default(),
        retry_deferred: Duration::from_mins(1),
        failing: Some(Failing::new(|_| false)),
        hold: None,
    };
    for (dirty, lsn) in keys.iter().zip(1..) {
        feeder.queue.mark(dirty, lsn);
    }
    while let Some(work) = feeder.queue.next_now(Size::Small, Share::ALL) {
        feeder.queue.complete(&work, fails());
    }
    let mut tidy = Tidy::new(&mut feeder);
    tidy.run(41).await;
    let set_aside = feeder.deferred.counts().values().sum::<u64>();
    assert_eq!(set_aside + feeder.queue.counts().parked as u64, 40);
}

#[tokio::test(start_paused = true)]
async fn large_objects_that_wait_do_not_keep_small_events_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = journal(dir.path().join("journal")).await;
    let mut keys: Vec<_> = (0..300).map(|n| live("b", format!("large/{n}"))).collect();
    keys.push(live("b", "small"));
    journal.append(encoded(&keys)).await.unwrap();
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    let fed = Fed::start((journal, cursor), 64, deferred);
    let seen = AtomicU64::new(0);
    let outcome = |key: &ObjectKey| {
        if key.key.starts_with("large") {
            return Outcome::Large;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        Outcome::Settled
    };
    let began = std::time::Instant::now();
    while seen.load(Ordering::Relaxed) == 0 {
        fed.work(outcome).await;
        // The clock that is paused goes on while the disk works, so rounds say nothing.
        assert!(began.elapsed() < HANGS, "{:?}", fed.queue.counts());
    }
    // And all large ones are still known, and come back as the lane has room for them.
    let mut large = HashSet::new();
    while large.len() < 300 {
        fed.work(outcome).await;
        while let Some(work) = fed.queue.next_now(Size::Large, Share::ALL) {
            fed.queue.complete(&work, Outcome::Settled);
            large.insert(work.key);
        }
        // The clock that is paused goes on while the disk works, so rounds say nothing.
        assert!(began.elapsed() < HANGS, "{} of 300; {:?}", large.len(), fed.queue.counts());
    }
    assert!(fed.gaps.lock().unwrap().is_empty());
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_hangs_with_more_keys_than_memory_keeps_no_other_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = journal(dir.path().join("journal")).await;
    let mut keys: Vec<_> = (0..150).map(|n| live("hangs", n)).collect();
    keys.push(live("well", "key"));
    journal.append(encoded(&keys)).await.unwrap();
    let (deferred, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
    let fed = Fed::start((journal, cursor), 100, deferred);
    fed.queue.set_failing(&"hangs".into(), true);
    // Its one key in flight, which never comes back.
    let hangs = fed.queue.next_small().await;
    assert_eq!(&*hangs.key.bucket, "hangs");
    let began = std::time::Instant::now();
    let well = loop {
        if let Some(work) = fed.queue.next_now(Size::Small, Share::ALL) {
            break work;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The clock that is paused goes on while the disk works, so rounds say nothing.
        assert!(began.elapsed() < HANGS, "{:?}", fed.queue.counts());
    };
    assert_eq!(&*well.key.bucket, "well");
    fed.queue.complete(&well, Outcome::Settled);
    assert!(fed.gaps.lock().unwrap().is_empty(), "there is room for all of them");
    // When the bucket works again, each of them has its turn.
    fed.queue.complete(&hangs, Outcome::Settled);
    fed.queue.set_failing(&"hangs".into(), false);
    let mut settled = 1;
    while settled < 150 {
        settled += fed.work(|_| Outcome::Settled).await;
        assert!(began.elapsed() < HANGS, "{settled} of 150; {:?}", fed.queue.counts());
    }
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn set_aside_keys_that_cannot_be_read_any_more_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let aside = dir.path().join("deferred");
    let (deferred, _) = Shelf::open(aside.clone(), 64 << 20).await.unwrap();
    deferred.put(&[live("b", "the only key")]).await.unwrap();
    deferred.close().await;
    drop(deferred);
    let (deferred, _) = Shelf::open(aside.clone(), 64 << 20).await.unwrap();
    for entry in std::fs::read_dir(&aside).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(12).position(|window| window == b"the only key") {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let fed = Fed::start(journal(dir.path().join("journal")).await, 100, deferred);
    let began = std::time::Instant::now();
    while fed.gaps.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < HANGS);
    }
    assert_eq!(*fed.gaps.lock().unwrap(), ["b"]);
    fed.end().await;
}
