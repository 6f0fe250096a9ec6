//! A person's decision about held deletes, carried out to its end whoever asked for it hangs up.
//!
//! **Promise.** A discard is on disk before it is answered: the horizon in `discarded`, and each held key in
//! `remembered`; only then the keys leave the shelf. Cut off in between, by a crash or a full disk, the keys
//! are still held, or kept. A discard is answered when the deletes that were under way have ended. An approval moves
//! each key to the journal before it leaves the shelf, and waits where that is full. **On error** what was not moved is
//! still held, and the brake stays on.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::held::Hold;
use crate::dirty::{Aspects, DirtyKey};
use crate::journal::{AppendError, Journal, JournalError};
use crate::shelf::{ShelfError, Taken};

/// How long a decision waits for the disk to forget what was held.
const STORED: Duration = Duration::from_secs(5);

/// How long until room in the journal is looked for again.
const ROOM: Duration = Duration::from_secs(1);

/// So many keys are moved before it is looked whether there is room for notifications, too.
const PART: u64 = 16_384;

/// What a person decides about a bucket's held deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Carry them out, after the source has confirmed each once more.
    Approve,
    /// Forget them, and those not yet looked at; the objects stay at the target until the source has
    /// them again.
    Discard,
}

impl Decision {
    /// Reads what is asked for: `approve` or `discard`.
    pub fn parse(asked: &str) -> Option<Self> {
        match asked {
            "approve" => Some(Self::Approve),
            "discard" => Some(Self::Discard),
            _ => None,
        }
    }

    /// What was done, as the API's answers and the log say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Discard => "discarded",
        }
    }
}

/// Why a decision was not carried out, or not in full.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The held deletes could not be moved.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// They could not be read.
    #[error(transparent)]
    Read(#[from] JournalError),
    /// The decision could not be written down.
    #[error("the decision cannot be recorded: {0}")]
    Record(#[from] io::Error),
    /// Another decision about this bucket is being carried out.
    #[error("another decision is being carried out: {} of {} deletes are {}", .0.done, .0.of, .0.decision.name())]
    Busy(Deciding),
    /// A discard came while an approval waited for room.
    #[error("a person discarded the rest while the approval waited for room in the journal: {} of {} deletes had been approved", .0.done, .0.of)]
    TakenBack(Deciding),
}

/// How far a decision is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deciding {
    /// Which one.
    pub decision: Decision,
    /// So many deletes are dealt with.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// The decisions that are being carried out; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Decisions(Arc<Mutex<BTreeMap<String, Arc<Progress>>>>);

#[derive(Debug)]
struct Progress {
    decision: Decision,
    done: AtomicU64,
    of: u64,
    /// Of an approval: a discard waits for its end.
    taken_back: CancellationToken,
    ended: CancellationToken,
}

impl Progress {
    fn new(decision: Decision, of: u64) -> Self {
        let (taken_back, ended) = (CancellationToken::new(), CancellationToken::new());
        Self { decision, done: AtomicU64::new(0), of, taken_back, ended }
    }

    fn show(&self) -> Deciding {
        let done = self.done.load(Ordering::Relaxed);
        Deciding { decision: self.decision, done, of: self.of }
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// While it lives, the decision about its bucket is being carried out.
struct Begun {
    decisions: Decisions,
    bucket: String,
    progress: Arc<Progress>,
}

impl Decisions {
    /// How far the decision about this bucket is, if there is one.
    pub(super) fn progress(&self, bucket: &str) -> Option<Deciding> {
        Some(self.map().get(bucket)?.show())
    }

    /// A discard takes an approval back that may wait for hours, once that has ended.
    async fn begin(
        &self,
        bucket: &str,
        decision: Decision,
        of: u64,
    ) -> Result<Begun, DecisionError> {
        loop {
            let other = {
                let mut map = self.map();
                let Some(other) = map.get(bucket) else {
                    let progress = Arc::new(Progress::new(decision, of));
                    map.insert(bucket.to_owned(), Arc::clone(&progress));
                    let (decisions, bucket) = (self.clone(), bucket.to_owned());
                    return Ok(Begun { decisions, bucket, progress });
                };
                Arc::clone(other)
            };
            if (other.decision, decision) != (Decision::Approve, Decision::Discard) {
                return Err(DecisionError::Busy(other.show()));
            }
            other.taken_back.cancel();
            other.ended.cancelled().await;
        }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.decisions.map().remove(&self.bucket);
        self.progress.ended.cancel();
    }
}

impl Hold {
    /// Carries out a person's decision, also if the caller goes away; returns how many deletes it concerned.
    pub async fn decide(
        &self,
        main: &Journal,
        bucket: &str,
        decision: Decision,
    ) -> Result<u64, DecisionError> {
        let of = self.shelf.counts().get(bucket).copied().unwrap_or(0);
        let begun = self.decisions.begin(bucket, decision, of).await?;
        let (hold, main) = (self.clone(), main.clone());
        let task = tokio::spawn(async move {
            let result = hold.carry_out(&main, &begun).await;
            match &result {
                Ok(count) => {
                    tracing::info!(
                        bucket = begun.bucket,
                        decision = decision.name(),
                        count,
                        "A decision on held deletes is carried out."
                    );
                }
                Err(error) => {
                    tracing::error!(bucket = begun.bucket, decision = decision.name(), %error, "A decision on held deletes was not carried out in full; what is left is still held. Decide once more.");
                }
            }
            result
        });
        match task.await.map_err(JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is going away, and this task with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    async fn carry_out(&self, main: &Journal, begun: &Begun) -> Result<u64, DecisionError> {
        let (bucket, decided_ms) = (&*begun.bucket, self.now_ms());
        match begun.progress.decision {
            Decision::Discard => self.keep_all(main, bucket).await?,
            Decision::Approve => self.keep_none(bucket).await?,
        }
        let sort = |dirty: DirtyKey| {
            if *dirty.key.bucket != *bucket {
                return Taken::Kept(dirty);
            }
            match begun.progress.decision {
                // What was held meanwhile, or could not be kept, stays.
                Decision::Discard if !self.keeps(&dirty.key) => Taken::Kept(dirty),
                Decision::Discard => {
                    begun.progress.step();
                    self.known.remove(&dirty.key);
                    Taken::Dropped
                }
                // Nobody has seen those that were held since.
                Decision::Approve if dirty.since_ms > decided_ms => Taken::Kept(dirty),
                Decision::Approve => {
                    begun.progress.step();
                    self.known.remove(&dirty.key);
                    let decided = dirty.aspects.without(Aspects::DISCARDED);
                    Taken::Back(DirtyKey { aspects: decided.with(Aspects::APPROVED), ..dirty })
                }
            }
        };
        let taken = self.move_all(main, begun, sort).await;
        if begun.progress.decision == Decision::Approve {
            self.approved_before(main.stats().next_lsn);
        }
        let taken = taken?;
        self.release(bucket);
        if self.holds(bucket) {
            let reason = "more deletes were held while a decision was carried out";
            self.pull(&bucket.into(), &reason.into());
        }
        // Before the answer: after a crash the brake is as it was decided, and nothing is held anew. Without that on a
        // sick disk the decision stands all the same; it is only shown as held once more.
        drop(tokio::time::timeout(STORED, self.shelf.left_durably()).await);
        let _logged = self.save().await;
        Ok(taken)
    }

    /// Moves the bucket's held deletes from the shelf, some at a time. Those that go back to a journal which is full wait for
    /// its room: it gets some as those that went before are carried out. Notifications come first.
    async fn move_all(
        &self,
        main: &Journal,
        begun: &Begun,
        mut sort: impl FnMut(DirtyKey) -> Taken,
    ) -> Result<u64, DecisionError> {
        let (end, progress) = (self.shelf.next_lsn(), &begun.progress);
        let (mut moved, mut told) = (0_u64, false);
        loop {
            if progress.taken_back.is_cancelled() {
                return Err(DecisionError::TakenBack(progress.show()));
            }
            let waits = progress.decision == Decision::Approve && main.stats().full;
            if !waits {
                let drained = self.shelf.drain_below(end, main, PART, &mut moved, &mut sort).await;
                progress.done.store(moved, Ordering::Relaxed);
                match drained {
                    Ok(true) => continue,
                    Ok(false) => return Ok(moved),
                    Err(ShelfError::Main(AppendError::Full(_))) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // What went may be worked on: a pass must know.
            self.approved_before(main.stats().next_lsn);
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    bucket = begun.bucket,
                    done = moved,
                    of = progress.of,
                    "Approved deletes wait for room in the journal; the decision goes on by itself when there is some. A discard takes it back."
                );
            }
            let waited = tokio::time::timeout(ROOM, progress.taken_back.cancelled()).await;
            drop(waited);
        }
    }

    /// Forgets, durably, that a discard which was not carried out to its end kept what is held.
    async fn keep_none(&self, bucket: &str) -> Result<(), DecisionError> {
        let mut forgotten = Ok(());
        self.shelf
            .look(|dirty| {
                if *dirty.key.bucket == *bucket {
                    forgotten = self.remembered.replaced(bucket, &dirty.key.key);
                }
                forgotten.is_ok()
            })
            .await?;
        forgotten?;
        Ok(self.make_durable().await?)
    }

    /// Makes durable what is kept, and what is no more.
    async fn make_durable(&self) -> io::Result<()> {
        let remembered = Arc::clone(&self.remembered);
        tokio::task::spawn_blocking(move || remembered.make_durable())
            .await
            .map_err(io::Error::other)?
    }

    /// Writes down, durably, that what is held and what nobody has looked at yet stays at the target. On error it is as
    /// before.
    async fn keep_all(&self, main: &Journal, bucket: &str) -> Result<(), DecisionError> {
        // Until all shelves are looked through from which keys move to the journal by themselves.
        let moving = self.numbers.write().await;
        let until = main.stats().next_lsn;
        let mut new = Vec::new();
        let kept = self.keep_each(bucket, &mut new).await;
        if kept.is_err() {
            for key in new {
                self.remembered.replaced(bucket, &key)?;
            }
        }
        kept?;
        if self.numbered {
            let (discards, name) = (Arc::clone(&self.discards), bucket.to_owned());
            tokio::task::spawn_blocking(move || discards.record(&name, until))
                .await
                .map_err(io::Error::other)??;
        }
        drop(moving);
        // Deletes that were admitted before the decision was written down: they are carried out before the answer.
        self.under_way.ended(&bucket.into()).await;
        Ok(())
    }

    /// Keeps, durably, what is on the shelves; `new` are those that were not kept before.
    async fn keep_each(&self, bucket: &str, new: &mut Vec<Arc<str>>) -> Result<(), DecisionError> {
        let mut kept = Ok(());
        let mut keep = |dirty: DirtyKey| {
            if kept.is_ok() && *dirty.key.bucket == *bucket && !dirty.tells_present() {
                let before = self.keeps(&dirty.key);
                kept = self.remembered.keep(bucket, &dirty.key.key);
                if !before {
                    new.push(dirty.key.key);
                }
            }
            kept.is_ok()
        };
        self.aside.deferred.look(&mut keep).await?;
        self.aside.delays.look(bucket, &mut keep).await?;
        self.shelf.look(&mut keep).await?;
        kept?;
        Ok(self.make_durable().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Durability;
    use crate::dirty::Origin;
    use crate::journal::disk::Disk;
    use crate::journal::testing::TestDisk;
    use crate::journal::{Cursor, JournalOptions};
    use crate::object::ObjectKey;
    use crate::remembered::Remembered;
    use crate::shelf::open_journal;

    fn removed(key: &str) -> DirtyKey {
        let (aspects, origin) = (Aspects::REMOVED, Origin::Live);
        DirtyKey { key: ObjectKey::new("b", key), aspects, origin, since_ms: 1, size: Some(0) }
    }

    async fn journal(dir: &std::path::Path) -> Journal {
        let (dir, durability) = (dir.join("journal"), Durability::Write);
        let options = JournalOptions { dir, segment_size: 1 << 20, max_size: 8 << 20, durability };
        open_journal(options).await.unwrap().0
    }

    #[tokio::test]
    async fn a_decision_runs_to_its_end_although_whoever_asked_hangs_up() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main) = (Hold::for_tests(dir.path()).await, journal(dir.path()).await);
        let keys: Vec<_> = (0..2_000).map(|number| removed(&number.to_string())).collect();
        hold.put(keys.clone()).await.unwrap();
        hold.pull(&"b".into(), &"a burst".into());
        {
            let mut asked = Box::pin(hold.decide(&main, "b", Decision::Discard));
            assert!(futures_util::poll!(&mut asked).is_pending());
            let again = hold.decide(&main, "b", Decision::Approve).await.unwrap_err().to_string();
            assert!(again.contains("0 of 2000 deletes are discarded"), "{again}");
            assert!(hold.list()[0].deciding.is_some(), "its progress is shown");
        }
        while hold.holds("b") || hold.reason("b").is_some() {
            tokio::task::yield_now().await;
        }
        assert!(keys.iter().all(|dirty| hold.keeps(&dirty.key)));
        // Another process finds on disk what was decided.
        let remembered = Remembered::open(&dir.path().join("reconcile")).unwrap();
        assert!(keys.iter().all(|dirty| remembered.is_kept("b", &dirty.key.key)));
    }

    #[tokio::test]
    async fn a_power_cut_at_any_moment_of_a_discard_leaves_each_object_held_or_kept() {
        for operations in 0.. {
            let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(TestDisk::default()));
            let on = Arc::clone(&disk) as Arc<dyn Disk>;
            let open = || Remembered::open_on(&on, &dir.path().join("reconcile")).unwrap();
            let hold = Hold::remembering(dir.path(), open()).await;
            let main = journal(dir.path()).await;
            let keys = ["a", "b", "c"].map(removed);
            hold.put(keys.to_vec()).await.unwrap();
            disk.cut_power_after(operations);
            let answered = hold.decide(&main, "b", Decision::Discard).await.is_ok();
            disk.crash(|| true);
            let (waiting, kept) = (hold.keys("b", 9).await.unwrap(), open());
            for DirtyKey { key, .. } in &keys {
                let waits = waiting.iter().any(|(name, _)| *name == key.key);
                assert!(kept.is_kept("b", &key.key) || waits && !answered, "{key}, {operations}");
            }
            if answered {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_discard_that_is_refused_leaves_everything_as_it_was() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(TestDisk::default()));
        let on = Arc::clone(&disk) as Arc<dyn Disk>;
        let remembered = Remembered::open_on(&on, &dir.path().join("reconcile")).unwrap();
        let hold = Hold::remembering(dir.path(), remembered).await;
        let main = journal(dir.path()).await;
        hold.put(vec![removed("k")]).await.unwrap();
        hold.aside.deferred.put(&[removed("parked")]).await.unwrap();
        let before = main.append(vec![removed("before").encode()]).await.unwrap();
        disk.break_next_sync();
        hold.decide(&main, "b", Decision::Discard).await.unwrap_err();
        assert!(!hold.covers("b", before));
        assert!(!["k", "parked"].iter().any(|key| hold.keeps(&removed(key).key)));
        assert_eq!(hold.decide(&main, "b", Decision::Approve).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_discard_keeps_no_object_that_was_last_reported_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main) = (Hold::for_tests(dir.path()).await, journal(dir.path()).await);
        let there = |aspects| DirtyKey { aspects, ..removed("there") };
        hold.aside.deferred.put(&[there(Aspects::CONTENT)]).await.unwrap();
        hold.decide(&main, "b", Decision::Discard).await.unwrap();
        let moved = there(Aspects::CONTENT.with(Aspects::DISCARDED));
        hold.keep_discarded([moved].iter()).unwrap();
        assert!(!hold.keeps(&removed("there").key));
    }

    #[tokio::test]
    async fn a_discard_covers_what_is_parked_on_disk_and_what_was_reported_before() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main) = (Hold::for_tests(dir.path()).await, journal(dir.path()).await);
        hold.aside.deferred.put(&[removed("parked")]).await.unwrap();
        let before = main.append(vec![removed("before").encode()]).await.unwrap();
        assert_eq!(hold.decide(&main, "b", Decision::Discard).await.unwrap(), 0);
        let after = main.append(vec![removed("after").encode()]).await.unwrap();
        let covered = async |key: &str, lsn| {
            hold.discarded(&ObjectKey::new("b", key), Aspects::REMOVED, lsn).await.unwrap()
        };
        assert!(hold.keeps(&removed("parked").key) && !hold.keeps(&removed("before").key));
        assert!(covered("before", before).await && !covered("after", after).await);
        assert!(hold.keeps(&removed("before").key) && !hold.keeps(&removed("after").key));
    }

    #[tokio::test]
    async fn a_discard_is_answered_when_the_deletes_that_were_under_way_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main) = (Hold::for_tests(dir.path()).await, journal(dir.path()).await);
        hold.put(vec![removed("k")]).await.unwrap();
        let under_way = hold.under_way.begin(&"b".into()).await;
        let deciding = tokio::spawn({
            let (hold, main) = (hold.clone(), main.clone());
            async move { hold.decide(&main, "b", Decision::Discard).await }
        });
        while !hold.keeps(&removed("k").key) {
            tokio::task::yield_now().await;
        }
        // What follows is more than the disk can answer at once.
        assert!(hold.holds("b") && !deciding.is_finished());
        drop(under_way);
        assert_eq!(deciding.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn an_approval_takes_back_a_discard_that_was_not_carried_out_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main) = (Hold::for_tests(dir.path()).await, journal(dir.path()).await);
        hold.put(vec![removed("k")]).await.unwrap();
        hold.remembered.keep("b", "k").unwrap();
        assert_eq!(hold.decide(&main, "b", Decision::Approve).await.unwrap(), 1);
        assert!(!hold.keeps(&removed("k").key));
    }

    /// A journal that refuses notifications, and so many held deletes of which an approval waits for its room.
    async fn approval_that_waits(dir: &std::path::Path, keys: u64) -> (Hold, Journal, Cursor) {
        let hold = Hold::for_tests(dir).await;
        let options = JournalOptions {
            dir: dir.join("journal"),
            segment_size: 1 << 20,
            max_size: 4 << 20,
            durability: Durability::Write,
        };
        let (main, cursor, _) = open_journal(options).await.unwrap();
        let long: Vec<_> = (0..200).map(|n| removed(&format!("{n:01000}")).encode()).collect();
        while main.append(long.clone()).await.is_ok() {}
        hold.put((0..keys).map(|n| removed(&format!("{n:0900}"))).collect()).await.unwrap();
        (hold, main, cursor)
    }

    fn decide(
        hold: &Hold,
        main: &Journal,
        decision: Decision,
    ) -> tokio::task::JoinHandle<Result<u64, DecisionError>> {
        let (hold, main) = (hold.clone(), main.clone());
        tokio::spawn(async move { hold.decide(&main, "b", decision).await })
    }

    #[tokio::test(start_paused = true)]
    async fn an_approval_that_finds_the_journal_full_goes_on_when_there_is_room_and_concerns_what_was_held_then()
     {
        const KEYS: u64 = 4_000;
        let dir = tempfile::tempdir().unwrap();
        let (hold, main, mut cursor) = approval_that_waits(dir.path(), KEYS).await;
        let before = main.stats().next_lsn;
        let deciding = decide(&hold, &main, Decision::Approve);
        while !hold.decides("b") {
            tokio::time::sleep(ROOM).await;
        }
        tokio::time::sleep(3 * ROOM).await;
        assert_eq!(hold.shelf.counts()["b"], KEYS, "room is for notifications first");
        let since_ms = hold.now_ms() + 1;
        hold.put(vec![DirtyKey { since_ms, ..removed("held since") }]).await.unwrap();
        let mut approved = std::collections::BTreeSet::new();
        while !deciding.is_finished() || cursor.position() < main.stats().next_lsn {
            if cursor.position() == main.stats().next_lsn {
                // Time goes on only while nobody works; the decision waits for it.
                tokio::time::sleep(ROOM).await;
                continue;
            }
            for record in cursor.next(1_000).await.unwrap() {
                let dirty = DirtyKey::decode(&record.payload).unwrap();
                if record.lsn >= before && dirty.aspects.has(Aspects::APPROVED) {
                    approved.insert(dirty.key.key);
                }
            }
            main.trim(cursor.position());
        }
        assert_eq!(deciding.await.unwrap().unwrap(), KEYS);
        assert_eq!((approved.len() as u64, approved.contains("held since")), (KEYS, false));
        assert_eq!(hold.shelf.counts()["b"], 1);
        assert!(hold.reason("b").is_some(), "the brake is on for what nobody has seen");
    }

    #[tokio::test(start_paused = true)]
    async fn a_discard_takes_back_an_approval_that_waits_for_room() {
        let dir = tempfile::tempdir().unwrap();
        let (hold, main, _cursor) = approval_that_waits(dir.path(), 10).await;
        let approving = decide(&hold, &main, Decision::Approve);
        while !hold.decides("b") {
            tokio::time::sleep(ROOM).await;
        }
        assert_eq!(decide(&hold, &main, Decision::Discard).await.unwrap().unwrap(), 10);
        let error = approving.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("0 of 10 deletes had been approved"), "{error}");
        assert!(hold.keeps(&removed(&format!("{:0900}", 3)).key) && !hold.holds("b"));
    }

    #[tokio::test]
    async fn keys_whose_decision_travels_with_them_are_kept_before_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let hold = Hold::for_tests(dir.path()).await;
        let decided =
            DirtyKey { aspects: Aspects::REMOVED.with(Aspects::DISCARDED), ..removed("k") };
        hold.keep_discarded([decided, removed("other")].iter()).unwrap();
        assert!(hold.keeps(&removed("k").key) && !hold.keeps(&removed("other").key));
    }
}
