//! A journal that another process may be writing, looked at: no lock is taken, and nothing is written.
//!
//! **Promise.** Every unfinished record that was durable when the look began, and can be read, is shown. One
//! that came meanwhile, or was finished a second ago, may be shown too, and any may be shown twice. A
//! directory that is not there holds none. **On error** nothing may be concluded from what was not shown.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::checkpoint::CheckpointFile;
use super::entry::Body;
use super::segment::{Name, Reader, Role, list};
use super::{JournalError, Lsn};

/// Its owner shortens a segment at most once while it opens it, and then that segment is read again.
const TRIES: u32 = 3;

/// The lowest record that may be unfinished.
pub(crate) fn first_unfinished(dir: &Path) -> Result<Lsn, JournalError> {
    let stored = CheckpointFile::peek(dir).map_err(JournalError::io("read", dir))?;
    Ok(stored.map_or(1, |checkpoint| checkpoint.trim))
}

/// Shows the payload of each unfinished record to `see`, in order.
pub(crate) fn peek(dir: &Path, mut see: impl FnMut(Bytes)) -> Result<(), JournalError> {
    if !dir.exists() {
        return Ok(());
    }
    // Before the segments: what is finished meanwhile is shown rather than missed.
    let first = first_unfinished(dir)?;
    for (name, path) in list(dir)? {
        if name.role == Role::Live {
            segment(&name, &path, first, &mut see).map_err(JournalError::io("read", path))?;
        }
    }
    Ok(())
}

fn segment(name: &Name, path: &PathBuf, first: Lsn, see: &mut impl FnMut(Bytes)) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match read(name, path, first, see) {
            // All its records were finished, and it was removed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && tries < TRIES => {}
            read => return read,
        }
    }
}

fn read(name: &Name, path: &PathBuf, first: Lsn, see: &mut impl FnMut(Bytes)) -> io::Result<()> {
    let size = std::fs::metadata(path)?.len();
    let mut reader = Reader::open(path, name.epoch, size)?;
    while let Some(frame) = reader.next_frame()? {
        if let Body::Record(payload) = frame.body
            && frame.lsn >= first
        {
            see(payload);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Durability;
    use crate::journal::{Journal, JournalOptions};

    fn seen(dir: &Path) -> Vec<Bytes> {
        let mut seen = Vec::new();
        peek(dir, |payload| seen.push(payload)).unwrap();
        seen
    }

    #[tokio::test]
    async fn what_is_unfinished_is_seen_while_its_owner_works_and_after_it_has_closed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        assert!(seen(&dir).is_empty() && !dir.exists(), "a look makes nothing");
        let options = JournalOptions {
            dir: dir.clone(),
            segment_size: 4 << 10,
            max_size: 1 << 20,
            durability: Durability::Fsync,
        };
        let (journal, ..) = Journal::open(options).unwrap();
        let payload = |number: u32| format!("{number:0500}").into_bytes();
        for number in 1..=40 {
            journal.append(vec![payload(number)]).await.unwrap();
        }
        assert!(seen(&dir).iter().eq(&(1..=40).map(payload).collect::<Vec<_>>()));
        journal.trim(35);
        journal.append(vec![payload(41)]).await.unwrap();
        assert!(seen(&dir).ends_with(&[payload(40).into(), payload(41).into()]));
        journal.close().await;
        assert_eq!(first_unfinished(&dir).unwrap(), 35);
        assert!(seen(&dir).iter().eq(&(35..=41).map(payload).collect::<Vec<_>>()));
    }
}
