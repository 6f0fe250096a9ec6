//! From the listing to the work queue: class after class, and how far everything is settled.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::order::{CLASSES, class_name, one_by_one, order_class};
use super::progress::ProgressBar;
use super::state::{State, StateFile};
use super::{Failed, RestoreError, Way};
use crate::clock;
use crate::config::settings::BucketSettings;
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::Lsn;
use crate::object::ObjectKey;
use crate::oneshot::engine::Engine;
use crate::reconcile::list::Listing;
use crate::reconcile::ranges::KeyRange;
use crate::store::ListedObject;
use crate::workqueue::ParkedKey;

/// A place to go on from is remembered once for so many keys.
const PLACE_EVERY: Lsn = 64;
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a look at the queue is good for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// So many failed keys are named.
const NAMED: usize = 100;

/// How feeding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that was listed is settled.
    Done,
    /// Keys failed for good, and what must come after them was not begun.
    Stuck,
    /// It was stopped.
    Stopped,
}

/// A key in its place: all before it in its bucket, and all buckets before, are listed.
#[derive(Debug)]
struct Mark {
    lsn: Lsn,
    bucket: usize,
    key: String,
}

/// Feeds one engine.
pub(super) struct Feed<'a> {
    way: &'a Way,
    engine: &'a Engine,
    aspects: Aspects,
    state: State,
    /// Objects that were settled before this process began.
    before: u64,
    file: &'a StateFile,
    bar: &'a ProgressBar,
    stop: &'a CancellationToken,
    /// Go on to the next class although keys failed.
    pub(super) keep_going: bool,
    marks: VecDeque<Mark>,
    last: Lsn,
    failed: Vec<Failed>,
    looked: Instant,
    saved: Instant,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        way: &'a Way,
        engine: &'a Engine,
        aspects: Aspects,
        state: State,
        file: &'a StateFile,
        bar: &'a ProgressBar,
        stop: &'a CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            way,
            engine,
            aspects,
            before: state.settled,
            state,
            file,
            bar,
            stop,
            keep_going: false,
            marks: VecDeque::new(),
            last: 0,
            failed: Vec::new(),
            looked: now,
            saved: now,
        }
    }

    /// Restores class after class, from where the state is.
    pub(super) async fn run(&mut self) -> Result<End, RestoreError> {
        while self.state.class < CLASSES {
            if self.state.seen & (1 << self.state.class) != 0 {
                let end = self.restore_class().await?;
                if end != End::Done {
                    return Ok(end);
                }
            }
            self.marks.clear();
            (self.state.bucket, self.state.after) = (0, None);
            self.state.settled = self.before + self.last;
            self.state.class += 1;
            self.file.save(&self.state)?;
        }
        Ok(End::Done)
    }

    /// Saves the place up to which everything is settled.
    pub(super) fn save(&mut self) -> Result<(), RestoreError> {
        let unsettled = self.engine.queue.lowest_unfinished().unwrap_or(self.last + 1);
        let mut settled = None;
        while self.marks.front().is_some_and(|place| place.lsn < unsettled) {
            settled = self.marks.pop_front();
        }
        let Some(place) = settled else { return Ok(()) };
        (self.state.bucket, self.state.after) = (place.bucket, Some(place.key));
        self.state.settled = self.before + place.lsn;
        self.file.save(&self.state)
    }

    /// The keys that were given up.
    pub(super) fn into_failed(self) -> Vec<Failed> {
        self.failed
    }

    async fn restore_class(&mut self) -> Result<End, RestoreError> {
        let way = self.way;
        let (first, mut start) = (self.state.bucket, self.state.after.clone());
        for (number, bucket) in way.settings.buckets.iter().enumerate().skip(first) {
            let start = start.take();
            let class = class_name(self.state.class);
            self.bar.step(format!("{class} of {}", bucket.target_name()));
            let end = self.restore_bucket(number, bucket, start).await?;
            if end != End::Done {
                return Ok(end);
            }
        }
        self.settle().await
    }

    async fn restore_bucket(
        &mut self,
        number: usize,
        bucket: &BucketSettings,
        start: Option<String>,
    ) -> Result<End, RestoreError> {
        let class = self.state.class;
        let mut listing = Listing::new(self.way.side(bucket), KeyRange { start, end: None });
        let mut folder = None;
        loop {
            let next =
                match self.stop.run_until_cancelled(listing.next_despite_start_ignored()).await {
                    Some(next) => next?,
                    None => return Ok(End::Stopped),
                };
            let Some(object) = next else { return Ok(End::Done) };
            if !bucket.wants(&object.key) {
                continue;
            }
            self.state.seen |= 1 << order_class(&object.key);
            if order_class(&object.key) != class {
                continue;
            }
            let next_folder = one_by_one(&object.key).map(str::to_owned);
            if next_folder.is_some() && next_folder == folder {
                let end = self.settle().await?;
                if end != End::Done {
                    return Ok(end);
                }
            }
            folder = next_folder;
            let end = self.room().await?;
            if end != End::Done {
                return Ok(end);
            }
            self.mark(number, bucket, object);
        }
    }

    fn mark(&mut self, number: usize, bucket: &BucketSettings, object: ListedObject) {
        self.last += 1;
        let dirty = DirtyKey {
            key: ObjectKey::new(bucket.source.as_str(), object.key.as_str()),
            aspects: self.aspects,
            origin: Origin::Repair,
            since_ms: clock::now_ms(),
            size: Some(object.size),
        };
        self.engine.queue.mark(&dirty, self.last);
        if self.last.is_multiple_of(PLACE_EVERY) {
            self.marks.push_back(Mark { lsn: self.last, bucket: number, key: object.key });
        }
    }

    /// Waits until the queue has room for one more key.
    async fn room(&mut self) -> Result<End, RestoreError> {
        loop {
            if let Some(left) = self.look()?
                && !self.give_up(&left)
            {
                return Ok(End::Stuck);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Stopped),
                _ = self.engine.queue.room() => return Ok(End::Done),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Waits until everything in the queue is settled.
    async fn settle(&mut self) -> Result<End, RestoreError> {
        while self.engine.queue.counts().pending > 0 {
            if let Some(left) = self.look()?
                && !self.give_up(&left)
            {
                return Ok(End::Stuck);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(End::Stopped),
                () = tokio::time::sleep(SETTLE_STEP) => {}
            }
        }
        Ok(End::Done)
    }

    /// Now and then: saves how far it is, and looks whether it is any use to wait on. Returns the keys
    /// that are given up, when nothing else is left in the queue.
    fn look(&mut self) -> Result<Option<Vec<ParkedKey>>, RestoreError> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(None);
        }
        self.looked = Instant::now();
        self.bar.failing(self.engine.queue.counts().parked);
        if self.saved.elapsed() >= SAVE_EVERY {
            self.saved = self.looked;
            self.save()?;
        }
        self.engine.check()?;
        Ok(self.engine.left().filter(|left| !left.is_empty()))
    }

    /// Names the keys that failed. Returns whether it goes on without them.
    fn give_up(&mut self, left: &[ParkedKey]) -> bool {
        for parked in left {
            if self.failed.len() < NAMED {
                let (key, reason) = (parked.key.to_string(), parked.reason.to_string());
                self.failed.push(Failed { key, reason });
            }
            if self.keep_going {
                self.engine.queue.forget_parked(&parked.key);
            }
        }
        self.keep_going
    }
}
