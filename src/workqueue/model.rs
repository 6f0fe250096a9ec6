//! The work queue against a reference: sets of records, and who holds which key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{Counts, KeyState, Outcome, Wait, Work, WorkQueue};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::Lsn;
use crate::object::ObjectKey;

const MIN_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
enum Op {
    /// A key is appended to the journal.
    Append { key: u8, live: bool, aspects: u8, since_ms: i64, size: Option<u64> },
    /// The feeder reads one record.
    Read,
    /// A lane asks for work.
    Take { large: bool },
    /// A worker gives a key back.
    Complete { which: usize, how: u8, after_ms: u64 },
    /// Time passes.
    Advance { ms: u64 },
    /// The feeder begins to append keys again that hold the log; it reads nothing meanwhile.
    AppendAgain { behind: Lsn },
    /// What was appended again is durable.
    Rebase,
    /// Parked keys are set aside.
    SetAside,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_u8..6, any::<bool>(), 1_u8..128, 0_i64..9, any::<Option<u64>>()).prop_map(
            |(key, live, aspects, since_ms, size)| Op::Append { key, live, aspects, since_ms, size }
        ),
        6 => Just(Op::Read),
        4 => any::<bool>().prop_map(|large| Op::Take { large }),
        4 => (0_usize..8, 0_u8..4, 0_u64..60)
            .prop_map(|(which, how, after_ms)| Op::Complete { which, how, after_ms }),
        2 => (0_u64..150).prop_map(|ms| Op::Advance { ms }),
        2 => (0_u64..4).prop_map(|behind| Op::AppendAgain { behind }),
        2 => Just(Op::Rebase),
        1 => Just(Op::SetAside),
    ]
}

/// The records that a key still needs, and what each asks for.
#[derive(Debug, Default)]
struct Needs {
    marked: BTreeMap<Lsn, Aspects>,
    working: BTreeMap<Lsn, Aspects>,
}

impl Needs {
    /// `lsn` stands for every older record of the key, and must ask for all that they do.
    fn rebase(&mut self, lsn: Lsn, says: Aspects) {
        for records in [&mut self.marked, &mut self.working] {
            let younger = records.split_off(&lsn);
            let older = std::mem::replace(records, younger);
            let asked = older.values().copied().reduce(Aspects::with);
            if let Some(asked) = asked {
                assert!(says.has(asked), "{lsn} does not stand for {older:?}");
                let here = records.entry(lsn).or_default();
                *here = here.with(asked);
            }
        }
    }
}

/// What was reported later may take back a removal and what was decided of it; never that somebody must look.
fn asked(aspects: Aspects) -> Aspects {
    aspects.without(Aspects::REMOVED.with(Aspects::APPROVED).with(Aspects::DUE))
}

struct Model {
    queue: WorkQueue,
    log: BTreeMap<Lsn, DirtyKey>,
    position: Lsn,
    needs: BTreeMap<ObjectKey, Needs>,
    hands: Vec<Work>,
    /// When a key that was then settled was handed out.
    settled: BTreeMap<ObjectKey, Instant>,
    appended_again: Option<Vec<(ObjectKey, Lsn)>>,
}

impl Model {
    fn new() -> Self {
        Self {
            queue: WorkQueue::new(1_000, MIN_INTERVAL),
            log: BTreeMap::new(),
            position: 1,
            needs: BTreeMap::new(),
            hands: Vec::new(),
            settled: BTreeMap::new(),
            appended_again: None,
        }
    }

    fn append(&mut self, dirty: DirtyKey) -> Lsn {
        let lsn = self.log.last_key_value().map_or(1, |(last, _)| last + 1);
        self.log.insert(lsn, dirty);
        lsn
    }

    fn read(&mut self) {
        let Some(dirty) = self.log.get(&self.position) else { return };
        if self.appended_again.is_some() {
            return;
        }
        self.queue.mark(dirty, self.position);
        let needs = self.needs.entry(dirty.key.clone()).or_default();
        needs.marked.insert(self.position, asked(dirty.aspects));
        self.position += 1;
    }

    fn take(&mut self, large: bool) -> bool {
        let work = if large {
            self.queue.next_large().now_or_never()
        } else {
            self.queue.next_small().now_or_never()
        };
        let Some(work) = work else { return false };
        assert!(self.hands.iter().all(|held| held.key != work.key), "{} is in two hands", work.key);
        let needs = self.needs.get_mut(&work.key).unwrap();
        for (lsn, asked) in &needs.marked {
            assert!(work.pending.aspects.has(*asked), "an aspect of record {lsn} was lost");
        }
        let first = needs.marked.first_key_value().map(|(lsn, _)| lsn);
        assert_eq!(Some(&work.pending.first_lsn), first, "work out of nothing");
        if let Some(before) = self.settled.remove(&work.key) {
            assert!(work.started - before >= MIN_INTERVAL, "{} is copied again too soon", work.key);
        }
        needs.working = std::mem::take(&mut needs.marked);
        self.hands.push(work);
        true
    }

    fn complete(&mut self, which: usize, how: u8, after_ms: u64) {
        if self.hands.is_empty() {
            return;
        }
        let work = self.hands.swap_remove(which % self.hands.len());
        let needs = self.needs.get_mut(&work.key).unwrap();
        let worked = std::mem::take(&mut needs.working);
        let outcome = match how {
            0 | 1 => Outcome::Settled,
            2 => Outcome::Large,
            _ => Outcome::Retry {
                after: Duration::from_millis(after_ms),
                class: "transient",
                reason: "down".into(),
            },
        };
        if outcome == Outcome::Settled {
            self.settled.insert(work.key.clone(), work.started);
        } else {
            needs.marked.extend(worked);
        }
        self.queue.complete(&work, outcome);
    }

    fn append_again(&mut self, behind: Lsn) {
        if self.appended_again.is_some() {
            return;
        }
        let below = self.position.saturating_sub(behind);
        let holding = self.queue.holding_below(below, usize::MAX);
        let again = holding.into_iter().map(|dirty| (dirty.key.clone(), self.append(dirty)));
        self.appended_again = Some(again.collect());
    }

    fn rebase(&mut self) {
        for (key, lsn) in self.appended_again.take().into_iter().flatten() {
            self.queue.rebase(&key, lsn);
            let says = self.log[&lsn].aspects;
            self.needs.entry(key).or_default().rebase(lsn, says);
        }
    }

    fn set_aside(&mut self) {
        let stuck = self.queue.stuck().into_iter().map(|(bucket, _)| bucket);
        for dirty in stuck.flat_map(|bucket| self.queue.stuck_in(&bucket, usize::MAX)) {
            self.queue.forget_set_aside(&dirty.key);
            self.needs.remove(&dirty.key);
        }
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Append { key, live, aspects, since_ms, size } => {
                let all = [
                    Aspects::CONTENT,
                    Aspects::TAGS,
                    Aspects::RETENTION,
                    Aspects::REMOVED,
                    Aspects::APPROVED,
                    Aspects::CHECK,
                    Aspects::DUE,
                ];
                let chosen = all.iter().enumerate().filter(|(bit, _)| aspects & (1 << bit) != 0);
                let aspects = chosen.fold(Aspects::NONE, |sum, (_, aspect)| sum.with(*aspect));
                let origin = if live { Origin::Live } else { Origin::Repair };
                let key = ObjectKey::new(format!("b{}", key % 2), format!("k{}", key / 2));
                self.append(DirtyKey { key, aspects, origin, since_ms, size });
            }
            Op::Read => self.read(),
            Op::Take { large } => drop(self.take(large)),
            Op::Complete { which, how, after_ms } => self.complete(which, how, after_ms),
            Op::Advance { ms } => tokio::time::advance(Duration::from_millis(ms)).await,
            Op::AppendAgain { behind } => self.append_again(behind),
            Op::Rebase => self.rebase(),
            Op::SetAside => self.set_aside(),
        }
        self.check();
    }

    fn check(&self) {
        let trim = self.queue.lowest_unfinished().unwrap_or(self.position).min(self.position);
        for (key, needs) in &self.needs {
            for lsn in needs.marked.keys().chain(needs.working.keys()) {
                // A record that was appended again and not yet read is kept by the position.
                assert!(trim <= *lsn, "record {lsn} of {key} would be trimmed below {trim}");
            }
        }
        assert_eq!(self.queue.counts().in_flight, self.hands.len());
        self.check_counts();
    }

    /// What was counted as keys came and went is what a walk over all of them counts.
    fn check_counts(&self) {
        let mut buckets: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
        let mut parked = BTreeSet::new();
        self.queue.keys.fold((), |(), key, state| {
            let Some(work) = state.work() else { return };
            let counts = buckets.entry(Arc::clone(&key.bucket)).or_default();
            counts.pending += 1;
            if matches!(state, KeyState::InFlight { .. }) {
                counts.in_flight += 1;
            }
            if matches!(state, KeyState::Waiting { wait: Wait::Failed(_), .. }) {
                counts.parked += 1;
                parked.insert(key.clone());
            }
            match state.size() {
                Some(size) => counts.bytes = counts.bytes.saturating_add(size),
                None => counts.unsized_keys += 1,
            }
            let oldest = counts.oldest_ms.map_or(work.since_ms, |ms| ms.min(work.since_ms));
            counts.oldest_ms = Some(oldest);
        });
        let all = self.queue.counts();
        let sum = |of: fn(&Counts) -> usize| buckets.values().map(of).sum::<usize>();
        assert_eq!(all.pending, sum(|counts| counts.pending));
        assert_eq!(all.parked, sum(|counts| counts.parked));
        assert_eq!(all.unsized_keys, sum(|counts| counts.unsized_keys));
        assert_eq!(all.bytes, buckets.values().fold(0, |sum: u64, c| sum.saturating_add(c.bytes)));
        assert_eq!(all.oldest_ms, buckets.values().filter_map(|counts| counts.oldest_ms).min());
        assert_eq!(self.queue.by_bucket(), buckets.into_iter().collect::<Vec<_>>());
        let shown = self.queue.parked(usize::MAX).into_iter().map(|parked| parked.key);
        assert_eq!(shown.collect::<BTreeSet<_>>(), parked);
    }

    /// With working stores everything settles, in a bounded number of steps.
    async fn settle(&mut self) {
        self.rebase();
        for _ in 0..10_000 {
            self.read();
            while self.take(false) || self.take(true) {}
            while !self.hands.is_empty() {
                self.complete(0, 0, 0);
            }
            self.check();
            if self.queue.counts().pending == 0 && !self.log.contains_key(&self.position) {
                break;
            }
            tokio::time::advance(Duration::from_millis(25)).await;
        }
        assert_eq!(self.queue.counts().pending, 0, "{:?}", self.queue);
        assert_eq!(self.queue.lowest_unfinished(), None);
        let lost: Vec<_> =
            self.needs.iter().filter(|(_, needs)| !needs.marked.is_empty()).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_hand_holds_a_key_and_no_mark_is_lost_or_trimmed_too_early(
        ops in proptest::collection::vec(op(), 1..300)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for op in ops {
                model.step(op).await;
            }
            model.settle().await;
        });
    }
}
