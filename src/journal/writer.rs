//! The committer: one thread that makes batches durable.
//!
//! No linger: it takes whatever waits, writes it as one batch, shows it to the cursor, syncs once, answers
//! everyone, and takes whatever has come meanwhile. A single producer pays one sync per append; many
//! share it.
//!
//! The cursor need not wait for the sync: a record only says where to look, and what is lost in a crash
//! before its answer is sent again by whoever was not answered. What rests on the disk does wait: the
//! answer, and the trim point, which never passes what is durable.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::disk::{Disk, Failure};
use super::entry::{Epoch, OVERHEAD, put_batch, put_segment};
use super::segment::Prepared;
use super::shared::Shared;
use super::upkeep::{Upkeep, UpkeepHandle, prepare};
use super::{AppendError, Claim, FullReason, JournalError, Lsn, Record};
use crate::config::settings::Durability;

/// A batch takes no further appends beyond this many bytes.
const MAX_BATCH: u64 = 1 << 20;
/// The first segment after a start is small, because the start waits for it.
const FIRST_SEGMENT: u64 = 1 << 20;
/// While there is no room, the disk is asked at most this often.
const RETRY_FULL: Duration = Duration::from_millis(250);

/// What the committer is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    /// Make records durable.
    Append(Append),
    /// Stop.
    Close,
}

/// Records of one caller.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) payloads: Vec<Vec<u8>>,
    /// Their bytes on disk.
    pub(super) size: u64,
    pub(super) claim: Claim,
    pub(super) answer: Answer,
}

/// Who waits for the number of the last record of an append.
type Answer = oneshot::Sender<Result<Lsn, AppendError>>;

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    file: File,
    path: PathBuf,
    epoch: Epoch,
    /// Bytes written.
    end: u64,
    size: u64,
    /// Only appends of this claim, or one behind it, may be written here.
    claim: Claim,
}

#[derive(Debug)]
struct Committer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    upkeep: UpkeepHandle,
    /// None while there is no room for one.
    active: Option<Active>,
    /// Why and when the segment after the active one was refused; otherwise it is on order.
    refused: Option<(FullReason, Instant)>,
    /// The next segment's place among the others.
    sequence: u64,
    next_lsn: Lsn,
    /// Reused from batch to batch.
    bytes: Vec<u8>,
}

/// Makes the first segment and starts the threads.
pub(super) fn start(
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    upkeep: Upkeep,
    requests: mpsc::Receiver<Request>,
    sequence: u64,
) -> Result<(), JournalError> {
    let size = FIRST_SEGMENT.min(shared.options.segment_size);
    let first = prepare(&shared, disk.as_ref(), Claim::New, size);
    let upkeep = upkeep.start()?;
    let next_lsn = shared.progress().durable.saturating_add(1);
    let (active, refused, bytes) = (None, None, Vec::new());
    let mut committer =
        Committer { shared, disk, upkeep, active, refused, sequence, next_lsn, bytes };
    // The segment's first sector is written at once: a second witness of how far the journal was.
    let first = first.and_then(|first| committer.activate(first, Claim::New));
    let written = first.and_then(|()| committer.write(&[], Claim::New));
    match written.and_then(|_| committer.sync().map_err(Failure::Broken)) {
        Ok(()) => {}
        Err(Failure::Full(reason)) => {
            committer.refused = Some((reason, Instant::now()));
            committer.shared.set_full(true);
            let dir = committer.shared.dir().display();
            warn!(%dir, %reason, "The journal has no room; appends are refused until it has.");
        }
        Err(Failure::Broken(error)) => return Err(error),
    }
    if committer.refused.is_none() {
        committer.upkeep.order(Claim::New);
    }
    let dir = committer.shared.dir().clone();
    let thread = thread::Builder::new().name("journal-commit".to_owned());
    thread
        .spawn(move || committer.run(requests))
        .map_err(JournalError::io("start a thread for", dir))?;
    Ok(())
}

impl Committer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let limit = MAX_BATCH.min(self.shared.append_limit());
        let mut held = None;
        while let Some(first) = held.take().or_else(|| match requests.blocking_recv() {
            Some(Request::Append(append)) => Some(append),
            Some(Request::Close) | None => None,
        }) {
            let (batch, closing) = gather(first, limit, &mut requests, &mut held);
            if let Err(error) = self.commit(batch) {
                self.shared.end(error);
            } else if !closing {
                continue;
            }
            break;
        }
        self.shared.end(JournalError::Closed);
        // Dropping the receiver alone would strand a sender that is just putting its request in.
        requests.close();
        while requests.blocking_recv().is_some() {}
    }

    /// Makes a batch durable and answers it; an error is for good.
    fn commit(&mut self, batch: Vec<Append>) -> Result<(), JournalError> {
        let claim = batch.first().map_or(Claim::New, |append| append.claim);
        let started = match self.write(&batch, claim) {
            Ok(started) => started,
            Err(Failure::Full(reason)) => {
                if claim == Claim::New && !self.shared.set_full(true) {
                    let dir = self.shared.dir().display();
                    warn!(%dir, %reason, "The journal has no room; appends are refused until it has.");
                }
                refuse(batch.into_iter().map(|append| append.answer), &AppendError::Full(reason));
                return Ok(());
            }
            Err(Failure::Broken(error)) => {
                return Err(self.fail(batch.into_iter().map(|append| append.answer), error));
            }
        };
        let answers = self.show(batch);
        if let Err(error) = self.sync() {
            return Err(self.fail(answers.into_iter().map(|(answer, _)| answer), error));
        }
        self.shared.set_durable(self.next_lsn.saturating_sub(1));
        self.shared.measure(started.elapsed());
        if claim == Claim::New && self.shared.set_full(false) {
            info!("The journal has room again.");
        }
        for (answer, lsn) in answers {
            // A caller that is gone needs no answer.
            drop(answer.send(Ok(lsn)));
        }
        Ok(())
    }

    /// Writes a batch, and tells when the disk was asked; with none, only what a new segment begins with.
    fn write(&mut self, batch: &[Append], claim: Claim) -> Result<Instant, Failure> {
        if let Some(error) = self.shared.progress().ended {
            return Err(Failure::Broken(error));
        }
        let size = batch.iter().map(|append| append.size).sum::<u64>().saturating_add(OVERHEAD);
        let active = self.active.as_ref().filter(|active| active.claim <= claim);
        let room = active.map_or(0, |active| active.size.saturating_sub(active.end));
        if size > room {
            self.rotate(claim)?;
        }
        let Some(active) = self.active.as_mut() else {
            return Err(Failure::Full(FullReason::DiskFull));
        };
        self.bytes.clear();
        if active.end == 0 {
            put_segment(&mut self.bytes, active.epoch, self.next_lsn);
        }
        if !batch.is_empty() {
            let payloads = batch.iter().flat_map(|append| &append.payloads).map(Vec::as_slice);
            put_batch(&mut self.bytes, active.epoch, active.end, self.next_lsn, payloads);
        }
        let started = Instant::now();
        if let Err(error) = self.disk.write_at(&active.file, &self.bytes, active.end) {
            let failure = Failure::new(error, "write", &active.path);
            return Err(if matches!(failure, Failure::Full(_)) {
                self.retire(failure)
            } else {
                failure
            });
        }
        active.end = active.end.saturating_add(self.bytes.len() as u64);
        Ok(started)
    }

    /// Gives the cursor a batch that is written: replication need not wait for the sync. Tells whom to
    /// answer once it is durable.
    fn show(&mut self, batch: Vec<Append>) -> Vec<(Answer, Lsn)> {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for append in batch {
            for payload in append.payloads {
                records.push(Record { lsn: self.next_lsn, payload: Bytes::from(payload) });
                self.next_lsn = self.next_lsn.saturating_add(1);
            }
            answers.push((append.answer, self.next_lsn.saturating_sub(1)));
        }
        let end = self.active.as_ref().map_or(0, |active| active.end);
        self.shared.show(records, self.next_lsn.saturating_sub(1), end);
        answers
    }

    /// Makes durable what was written. Whatever the reason, a failed sync leaves unknown what is on the
    /// disk.
    fn sync(&self) -> Result<(), JournalError> {
        match &self.active {
            Some(active) if self.shared.options.durability == Durability::Fsync => {
                self.disk.sync(&active.file).map_err(JournalError::io("sync", &active.path))
            }
            _ => Ok(()),
        }
    }

    /// The end, by this error.
    fn fail(&self, answers: impl Iterator<Item = Answer>, error: JournalError) -> JournalError {
        self.shared.end(error.clone());
        refuse(answers, &AppendError::Poisoned(error.clone()));
        error
    }

    /// Continues in the next segment. A segment of the reserve is left to those whose it is.
    fn rotate(&mut self, claim: Claim) -> Result<(), Failure> {
        if self.active.as_ref().is_none_or(|active| active.claim <= claim) {
            self.leave();
        }
        match self.next_new() {
            Ok(prepared) => {
                self.leave();
                let activated = self.activate(prepared, Claim::New);
                match &activated {
                    Ok(()) => self.upkeep.order(Claim::New),
                    Err(Failure::Full(reason)) => self.refused = Some((*reason, Instant::now())),
                    Err(Failure::Broken(_)) => {}
                }
                activated
            }
            // Nothing is on order then.
            Err(Failure::Full(_)) if claim > Claim::New => {
                self.upkeep.order(claim);
                let closed = || (Instant::now(), Err(Failure::Broken(JournalError::Closed)));
                let (_, prepared) = self.upkeep.wait().unwrap_or_else(closed);
                let prepared = prepared?;
                self.leave();
                self.activate(prepared, claim)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Nothing more is written to the active segment.
    fn leave(&mut self) {
        self.active = None;
        self.shared.seal();
    }

    /// The segment for new records, if there is room for it. While there is not, upkeep is asked again at
    /// most every [`RETRY_FULL`].
    fn next_new(&mut self) -> Result<Prepared, Failure> {
        if let Some((reason, at)) = self.refused {
            if at.elapsed() < RETRY_FULL {
                return Err(Failure::Full(reason));
            }
            self.refused = None;
            self.upkeep.order(Claim::New);
        }
        let next = self.next_segment();
        if let Err(Failure::Full(reason)) = &next {
            self.refused = Some((*reason, Instant::now()));
        }
        next
    }

    /// Waits for the segment that upkeep prepares.
    fn next_segment(&self) -> Result<Prepared, Failure> {
        loop {
            match self.upkeep.wait() {
                Some((_, Ok(prepared))) => return Ok(prepared),
                // It was refused long ago, ahead of need.
                Some((at, Err(Failure::Full(_)))) if at.elapsed() >= RETRY_FULL => {
                    self.upkeep.order(Claim::New);
                }
                Some((_, Err(failure))) => return Err(failure),
                None => return Err(Failure::Broken(JournalError::Closed)),
            }
        }
    }

    fn activate(&mut self, prepared: Prepared, claim: Claim) -> Result<(), Failure> {
        let path = prepared.path.clone();
        let sequence = self.sequence;
        self.sequence = sequence.saturating_add(1);
        let (file, segment) = prepared
            .activate(self.disk.as_ref(), self.shared.dir(), sequence, self.next_lsn)
            .map_err(|error| Failure::new(error, "rename", &path))?;
        let (epoch, size, path) = (segment.epoch, segment.size, segment.path.clone());
        self.active = Some(Active { file, path, epoch, end: 0, size, claim });
        self.shared.push(segment);
        Ok(())
    }

    /// Leaves a segment whose next write found no space. Parts of that write may be in the file; they
    /// are cut off, because their numbers will be given to other records.
    fn retire(&mut self, full: Failure) -> Failure {
        let Some(active) = self.active.take() else {
            return full;
        };
        self.shared.seal();
        match active.file.set_len(active.end).and_then(|()| active.file.sync_all()) {
            Ok(()) => full,
            Err(error) => Failure::Broken(JournalError::io("truncate", &active.path)(error)),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = std::io::Error::other("the committer panicked; this is a bug");
            self.shared.end(JournalError::io("write", self.shared.dir())(error));
        }
        self.shared.end(JournalError::Closed);
        self.shared.closing.store(true, Ordering::Relaxed);
    }
}

/// Takes what waits, up to a batch's size. What no longer fits, or is of another claim, is held for the next
/// batch; true: the journal is to be closed.
fn gather(
    first: Append,
    limit: u64,
    requests: &mut mpsc::Receiver<Request>,
    held: &mut Option<Append>,
) -> (Vec<Append>, bool) {
    let (mut size, claim) = (first.size, first.claim);
    let mut batch = vec![first];
    while let Ok(request) = requests.try_recv() {
        match request {
            Request::Close => return (batch, true),
            Request::Append(append) => {
                size = size.saturating_add(append.size);
                if size > limit || append.claim != claim {
                    *held = Some(append);
                    break;
                }
                batch.push(append);
            }
        }
    }
    (batch, false)
}

fn refuse(answers: impl Iterator<Item = Answer>, error: &AppendError) {
    for answer in answers {
        drop(answer.send(Err(error.clone())));
    }
}
