//! What a directory still holds, and what it has lost.
//!
//! Every valid frame of every segment is read once, in order. Frames say two things: *here is record
//! N*, and *everything up to N was durable* (a later batch, a seal, a later segment, the checkpoint).
//! A missing record that something says was durable is damage: it is reported and whatever is valid
//! behind it is kept. A missing record that nothing speaks for belongs to the last write before a
//! crash: nobody was told that it was safe, so the log is cut there.
//!
//! A seal speaks for its own batch, although it may have reached the disk before a crash while the
//! batch's middle did not: such a batch cannot be told from a damaged one, and a needless reconcile
//! is better than a silent loss.

use std::fs::{self, File, OpenOptions};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::checkpoint::{Checkpoint, Stored};
use super::entry::Body;
use super::segment::{Frame, Name, Prepared, Reader, Role, Segment, list, used_until};
use super::{Damage, JournalError, Lsn, Recovery, TornTail};

/// More damaged places than this are reported as one that reaches from the first to the last.
const MAX_HOLES: usize = 1024;
/// More damaged segments than this are not kept aside.
const MAX_QUARANTINED: usize = 4;

/// What recovery found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The segments that hold records; none is written to again.
    pub(super) segments: Vec<Segment>,
    /// The first free segment number.
    pub(super) next_sequence: u64,
    /// The segment that is kept for a full disk.
    pub(super) reserve: Option<Prepared>,
    /// For the caller of open.
    pub(super) report: Recovery,
}

impl Recovered {
    /// What the checkpoint must say from now on.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let Recovery { first_lsn: trim, next_lsn, .. } = self.report;
        Checkpoint { trim, durable: next_lsn.saturating_sub(1) }
    }
}

/// Reads `dir`, cuts a torn tail, keeps damaged segments aside, removes what holds nothing.
pub(super) fn recover(dir: &Path, stored: Stored) -> Result<Recovered, JournalError> {
    let files = list(dir)?;
    let next_sequence = files.last().map_or(1, |(name, _)| name.sequence.saturating_add(1));
    let mut survey = Survey::new(stored);
    let (mut segments, mut reserve) = (Vec::new(), None);
    for (name, path) in &files {
        match name.role {
            Role::Live => segments.push(scan(name, path, segments.len(), &mut survey)?),
            Role::Reserve if reserve.is_none() => {
                let kept = Prepared::kept(name, path).map_err(JournalError::io("open", path))?;
                reserve = Some(kept);
            }
            Role::Preparing | Role::Reserve => {
                fs::remove_file(path).map_err(JournalError::io("remove", path))?;
            }
            Role::Quarantined => {}
        }
    }
    let verdict = survey.judge();
    let mut kept_aside = files.iter().filter(|(name, _)| name.role == Role::Quarantined).count();
    let damage = verdict
        .damage
        .into_iter()
        .map(|missing| quarantine(dir, &segments, missing, &mut kept_aside));
    let damage = damage.collect();
    let torn_tail = cut(dir, &mut segments, verdict.cut)?;
    let report = Recovery {
        first_lsn: verdict.first_lsn,
        next_lsn: verdict.next_lsn,
        torn_tail,
        damage,
        undecodable: 0,
        quarantined: kept_aside,
    };
    log(dir, &report);
    Ok(Recovered { segments, next_sequence, reserve, report })
}

/// Reads one segment into the survey.
fn scan(
    name: &Name,
    path: &Path,
    index: usize,
    survey: &mut Survey,
) -> Result<Segment, JournalError> {
    let failed = || JournalError::io("read", path);
    let size = fs::metadata(path).map_err(failed())?.len();
    let mut reader = Reader::open(path, name.epoch, size).map_err(failed())?;
    let mut segment = Segment {
        sequence: name.sequence,
        epoch: name.epoch,
        path: path.to_owned(),
        first_lsn: survey.expected(),
        end: 0,
        size,
        sealed: true,
    };
    while let Some(frame) = reader.next_frame().map_err(failed())? {
        if frame.body == Body::Segment {
            segment.first_lsn = frame.lsn;
        }
        segment.end = frame.end;
        survey.see(index, &frame);
    }
    Ok(segment)
}

/// A place in the log: a segment's index and an offset.
type Place = (usize, u64);

/// Missing records, and the end of the last valid frame before them.
#[derive(Debug)]
struct Hole {
    missing: RangeInclusive<Lsn>,
    after: Place,
}

/// Collects what the frames say; the decision is [`Survey::judge`]'s.
#[derive(Debug)]
struct Survey {
    stored: Stored,
    /// Where the readable log begins, once known.
    first: Option<Lsn>,
    /// The next record if nothing is missing.
    expected: Lsn,
    /// Something says that all records up to here were durable.
    durable: Lsn,
    holes: Vec<Hole>,
    last: Place,
}

/// What the survey came to.
#[derive(Debug)]
struct Verdict {
    first_lsn: Lsn,
    next_lsn: Lsn,
    damage: Vec<RangeInclusive<Lsn>>,
    /// Everything behind this place is to be cut off.
    cut: Place,
}

impl Survey {
    fn new(stored: Stored) -> Self {
        // Of a checkpoint that is certainly the newest, nothing from its trim point on may be absent.
        // An older one may speak of segments that were rightly removed since: the first frame decides.
        let trim = stored.checkpoint.map_or(1, |c| c.trim);
        let durable = stored.checkpoint.map_or(0, |c| c.durable);
        let first = stored.newest.then_some(trim);
        Self { stored, first, expected: trim, durable, holes: Vec::new(), last: (0, 0) }
    }

    fn trim(&self) -> Lsn {
        self.stored.checkpoint.map_or(1, |c| c.trim)
    }

    fn expected(&self) -> Lsn {
        self.expected
    }

    fn see(&mut self, segment: usize, frame: &Frame) {
        let before = frame.lsn.saturating_sub(1);
        if self.first.is_none() {
            let begins = matches!(frame.body, Body::Segment | Body::Batch { .. });
            self.expected = if begins { frame.lsn } else { self.trim() };
            self.first = Some(self.expected.max(self.trim()));
        }
        match frame.body {
            Body::Segment => self.durable = self.durable.max(before),
            Body::Batch { durable } => self.durable = self.durable.max(durable),
            Body::Seal => self.durable = self.durable.max(frame.lsn),
            Body::Pad => {}
            Body::Record(_) => {
                if frame.lsn > self.expected {
                    self.miss(self.expected..=before);
                }
                self.expected = self.expected.max(frame.lsn.saturating_add(1));
            }
        }
        self.last = (segment, frame.end);
    }

    fn miss(&mut self, missing: RangeInclusive<Lsn>) {
        // Only while all of them are known damage may two become one.
        let many = self.holes.len() >= MAX_HOLES && *missing.start() <= self.durable;
        match self.holes.last_mut() {
            Some(hole) if many => hole.missing = *hole.missing.start()..=*missing.end(),
            _ => self.holes.push(Hole { missing, after: self.last }),
        }
    }

    fn judge(mut self) -> Verdict {
        let torn = self.holes.iter().position(|hole| *hole.missing.start() > self.durable);
        let torn = torn.and_then(|torn| self.holes.drain(torn..).next());
        let (mut next_lsn, cut) = match torn {
            Some(hole) => (*hole.missing.start(), hole.after),
            None => (self.expected, self.last),
        };
        let mut damage: Vec<_> = self.holes.into_iter().map(|hole| hole.missing).collect();
        if self.durable >= next_lsn {
            damage.push(next_lsn..=self.durable);
            next_lsn = self.durable.saturating_add(1);
        }
        let first_lsn = self.first.unwrap_or(self.expected);
        let next_lsn = next_lsn.max(first_lsn);
        // What was finished before is no loss.
        damage.retain(|missing| *missing.end() >= first_lsn);
        let damage = damage.into_iter().map(|m| first_lsn.max(*m.start())..=*m.end()).collect();
        Verdict { first_lsn, next_lsn, damage, cut }
    }
}

/// Gives the segment that should hold `missing` a second name, once.
fn quarantine(
    dir: &Path,
    segments: &[Segment],
    missing: RangeInclusive<Lsn>,
    kept_aside: &mut usize,
) -> Damage {
    let holder = segments.iter().rfind(|segment| segment.first_lsn <= *missing.start());
    let Some(segment) = holder.or(segments.first()) else {
        return Damage { segment: dir.to_owned(), missing, quarantined: None };
    };
    let role = Role::Quarantined;
    let aside = Name { sequence: segment.sequence, epoch: segment.epoch, role }.file_name();
    let aside = dir.join(aside);
    let quarantined = keep_aside(&segment.path, aside, kept_aside);
    Damage { segment: segment.path.clone(), missing, quarantined }
}

fn keep_aside(segment: &Path, aside: PathBuf, kept_aside: &mut usize) -> Option<PathBuf> {
    if aside.exists() {
        return Some(aside);
    }
    if *kept_aside >= MAX_QUARANTINED {
        return None;
    }
    match fs::hard_link(segment, &aside) {
        Ok(()) => {
            *kept_aside = kept_aside.saturating_add(1);
            Some(aside)
        }
        Err(error) => {
            warn!(segment = %segment.display(), %error, "Could not keep a damaged segment aside.");
            None
        }
    }
}

/// Makes `place` the end of the log, durably, so that what lies behind it is never read again: its
/// numbers will be given to other records.
fn cut(
    dir: &Path,
    segments: &mut Vec<Segment>,
    place: Place,
) -> Result<Option<TornTail>, JournalError> {
    let mut torn_tail: Option<TornTail> = None;
    let (last, end) = place;
    for (index, segment) in segments.iter_mut().enumerate().skip(last) {
        let end = if index == last { end } else { 0 };
        let used = shorten(&segment.path, end, segment.size)
            .map_err(JournalError::io("cut", &segment.path))?;
        if used > end {
            let bytes = torn_tail.map_or(0, |torn| torn.bytes);
            let bytes = bytes.saturating_add(used.saturating_sub(end));
            torn_tail = Some(TornTail { segment: segment.path.clone(), bytes });
        }
        (segment.end, segment.size) = (end, end);
    }
    segments.retain(|segment| segment.size > 0);
    File::open(dir).and_then(|d| d.sync_all()).map_err(JournalError::io("sync", dir))?;
    Ok(torn_tail)
}

/// Ends a file at `end`; removes it if nothing is left (what was kept aside of it stays whole).
/// Returns the offset behind its last byte that was not zero.
fn shorten(path: &Path, end: u64, size: u64) -> std::io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let used = used_until(&file, end, size)?;
    if end == 0 {
        fs::remove_file(path)?;
    } else {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(used)
}

fn log(dir: &Path, report: &Recovery) {
    for damage in &report.damage {
        warn!(
            segment = %damage.segment.display(),
            first_missing = damage.missing.start(),
            last_missing = damage.missing.end(),
            "The journal lost records that were durable; their buckets must be reconciled."
        );
    }
    if let Some(torn) = &report.torn_tail {
        info!(
            segment = %torn.segment.display(),
            bytes = torn.bytes,
            "Cut off a write that a crash had interrupted before it was acknowledged."
        );
    }
    info!(
        dir = %dir.display(),
        first_lsn = report.first_lsn,
        next_lsn = report.next_lsn,
        "Opened the journal."
    );
}
