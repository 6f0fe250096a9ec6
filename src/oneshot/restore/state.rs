//! How far a restore came, on disk: what a later one with the same request goes on from, and by which
//! `run` and `sync` know that the source is half restored (`unfinished`).

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::way::same_store;

/// What was asked for: only the same request goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Endpoint of the store that is read.
    pub(super) from: String,
    /// Endpoint of the destination.
    pub(super) to: String,
    /// Bucket names, there and here.
    pub(super) buckets: Vec<(String, String)>,
    pub(super) prefix: String,
    /// The time as it was typed: "2h ago" stays what it was when the restore began.
    pub(super) at: Option<String>,
}

/// A restore that was begun and is not finished, without its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unfinished {
    request: Request,
    at_ms: Option<i64>,
}

impl Request {
    /// Whether everything that this one brings back is there when `other` is finished, be it as of another
    /// time.
    fn is_part_of(&self, other: &Self) -> bool {
        let into = |name: &str| other.buckets.iter().any(|(_, bucket)| bucket == name);
        same_store(&self.to, &other.to)
            && self.prefix.starts_with(&other.prefix)
            && self.buckets.iter().all(|(_, bucket)| into(bucket))
    }
}

/// How far it came. Everything before this place is at the destination.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) request: Request,
    /// The time that is restored.
    pub(super) at_ms: Option<i64>,
    /// The class that is being restored.
    pub(super) class: u8,
    /// The number of the bucket in the request.
    pub(super) bucket: usize,
    /// The last key of that class in that bucket that is settled, with all before it.
    pub(super) after: Option<String>,
    /// Which classes the first pass has met so far, one bit each.
    pub(super) seen: u8,
    /// Objects that are settled.
    #[serde(default)]
    pub(super) settled: u64,
    /// Other requests that were begun before and never finished: their buckets are still half restored.
    #[serde(default)]
    pub(super) others: Vec<Unfinished>,
}

impl State {
    /// The beginning.
    pub(super) const fn new(request: Request, at_ms: Option<i64>, others: Vec<Unfinished>) -> Self {
        Self { request, at_ms, class: 0, bucket: 0, after: None, seen: 1, settled: 0, others }
    }

    /// All that is not finished.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        std::iter::once(&self.request).chain(self.others.iter().map(|other| &other.request))
    }

    /// What is left of `request`, if it was begun, and all others. One that another was begun after has
    /// lost its place, and looks at everything again.
    fn split(mut self, request: &Request) -> (Option<Self>, Vec<Unfinished>) {
        let mut others = std::mem::take(&mut self.others);
        if self.request == *request {
            return (Some(self), others);
        }
        let begun = others.iter().position(|other| other.request == *request);
        let begun = begun.map(|place| others.remove(place));
        others.push(Unfinished { request: self.request, at_ms: self.at_ms });
        (begun.map(|begun| Self::new(begun.request, begun.at_ms, Vec::new())), others)
    }

    /// What is left when this one is finished, and with it all that are part of it.
    fn without_finished(self) -> Option<Self> {
        let mut others = self.others;
        others.retain(|other| !other.request.is_part_of(&self.request));
        let last = others.pop()?;
        Some(Self::new(last.request, last.at_ms, others))
    }
}

/// The file of the state. While it is there, a restore is not finished.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Held while this process restores; given free when it ends, so also by a crash.
    _lock: Option<File>,
}

impl StateFile {
    /// The file in `dir`, which need not be there, to be looked at.
    pub(super) fn at(dir: &Path) -> Self {
        Self { path: dir.join("progress.json"), _lock: None }
    }

    /// Takes `dir`, which is created, for this process: two restores at once would overwrite each other's
    /// state, and abort each other's uploads.
    pub(super) fn take(dir: &Path) -> Result<Self, RestoreError> {
        fs::create_dir_all(dir).map_err(|error| RestoreError::io("create", dir, error))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(|error| RestoreError::io("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(lock), ..Self::at(dir) }),
            Err(TryLockError::WouldBlock) => Err(RestoreError::Refused(format!(
                "another restore works in {}; wait for it, or set another data_dir",
                dir.display()
            ))),
            Err(TryLockError::Error(error)) => Err(RestoreError::io("lock", &path, error)),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; nothing if no restore is unfinished.
    pub(super) fn read(&self) -> io::Result<Option<State>> {
        match fs::read(&self.path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What an earlier restore with this request left, and what others did. A file without a meaning is
    /// none: then the destination is looked at as if nothing had happened.
    pub(super) fn load(
        &self,
        request: &Request,
    ) -> Result<(Option<State>, Vec<Unfinished>), RestoreError> {
        let no_meaning = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        let found = match self.read() {
            Err(error) if no_meaning.contains(&error.kind()) => None,
            found => found.map_err(|error| RestoreError::io("read", &self.path, error))?,
        };
        Ok(found.map_or((None, Vec::new()), |state| state.split(request)))
    }

    /// Replaces the state, durably: a crash leaves the old one or the new one.
    pub(super) fn save(&self, state: &State) -> Result<(), RestoreError> {
        let new = self.path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            file.sync_data()?;
            fs::rename(&new, &self.path)?;
            // Its name, too: `run` must find it, whatever happens.
            self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        write().map_err(|error| RestoreError::io("write", &self.path, error))
    }

    /// Forgets a restore that is finished, and keeps what others have left.
    pub(super) fn finish(&self, state: State) -> Result<(), RestoreError> {
        if let Some(left) = state.without_finished() {
            return self.save(&left);
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RestoreError::io("remove", &self.path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(at: Option<&str>) -> Request {
        Request {
            from: "http://t:2".into(),
            to: "http://s:1".into(),
            buckets: vec![("a".into(), "b".into())],
            prefix: String::new(),
            at: at.map(str::to_owned),
        }
    }

    #[test]
    fn only_the_same_request_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::take(&dir.path().join("restore")).unwrap();
        let asked = request(Some("2h ago"));
        let earlier = |asked: &Request| file.load(asked).unwrap().0;
        assert!(earlier(&asked).is_none());
        let after = Some("k\n".to_owned());
        let fresh = State::new(asked.clone(), Some(7), Vec::new());
        let state = State { class: 1, after, seen: 3, settled: 9, ..fresh };
        file.save(&state).unwrap();
        let loaded = earlier(&asked).unwrap();
        assert_eq!((loaded.at_ms, &loaded.after), (Some(7), &state.after));
        assert!(earlier(&request(None)).is_none());
        file.finish(state.clone()).unwrap();
        file.finish(state).unwrap();
        assert!(earlier(&asked).is_none());
    }

    #[test]
    fn a_restore_that_is_not_finished_is_remembered_while_others_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::take(dir.path()).unwrap();
        let begin = |asked: &Request| {
            let (earlier, others) = file.load(asked).unwrap();
            let at_ms = earlier.map_or(Some(1), |state| state.at_ms);
            let state = State::new(asked.clone(), at_ms, others);
            file.save(&state).unwrap();
            state
        };
        let whole = request(Some("2h ago"));
        let part = Request { prefix: "p/".into(), ..request(None) };
        let two = vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())];
        let more = Request { buckets: two, ..request(None) };
        begin(&whole);
        // What brings back less leaves the greater one unfinished.
        file.finish(begin(&part)).unwrap();
        let (earlier, others) = file.load(&whole).unwrap();
        assert_eq!((earlier.unwrap().at_ms, others.len()), (Some(1), 0));
        begin(&part);
        begin(&more);
        let state = begin(&whole);
        assert_eq!((state.at_ms, state.others.len()), (Some(1), 2));
        file.finish(state).unwrap();
        let left: Vec<_> = file.read().unwrap().unwrap().requests().cloned().collect();
        assert_eq!(
            left,
            std::slice::from_ref(&more),
            "what is part of the finished one is finished"
        );
        file.finish(begin(&more)).unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn a_directory_is_for_one_restore_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateFile::take(dir.path()).unwrap();
        let refused = StateFile::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another restore works in"), "{refused}");
        drop(first);
        StateFile::take(dir.path()).unwrap();
    }
}
