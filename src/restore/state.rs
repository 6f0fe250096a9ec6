//! How far a restore came, on disk: what a later one with the same request goes on from.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RestoreError;

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
}

/// The file of the state.
#[derive(Debug)]
pub(super) struct StateFile(PathBuf);

impl StateFile {
    /// The file in `dir`, which need not be there.
    pub(super) fn at(dir: &Path) -> Self {
        Self(dir.join("progress.json"))
    }

    /// The file in `dir`, which is created.
    pub(super) fn create(dir: &Path) -> Result<Self, RestoreError> {
        fs::create_dir_all(dir).map_err(|error| RestoreError::io("create", dir, error))?;
        Ok(Self::at(dir))
    }

    /// What an earlier restore with this request left. Another one's, or one that cannot be read, is
    /// none: then the destination is looked at as if nothing had happened.
    pub(super) fn load(&self, request: &Request) -> Result<Option<State>, RestoreError> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RestoreError::io("read", &self.0, error)),
        };
        let state: Option<State> = serde_json::from_slice(&text).ok();
        Ok(state.filter(|state| state.request == *request))
    }

    /// Replaces the state, durably: a crash leaves the old one or the new one.
    pub(super) fn save(&self, state: &State) -> Result<(), RestoreError> {
        let new = self.0.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            file.sync_data()?;
            fs::rename(&new, &self.0)
        };
        write().map_err(|error| RestoreError::io("write", &self.0, error))
    }

    /// Forgets a restore that is complete.
    pub(super) fn remove(&self) -> Result<(), RestoreError> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RestoreError::io("remove", &self.0, error))
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
        let file = StateFile::create(&dir.path().join("restore")).unwrap();
        let asked = request(Some("2h ago"));
        assert!(file.load(&asked).unwrap().is_none());
        let after = Some("k\n".to_owned());
        let state = State {
            request: asked.clone(),
            at_ms: Some(7),
            class: 1,
            bucket: 0,
            after,
            seen: 3,
            settled: 9,
        };
        file.save(&state).unwrap();
        let loaded = file.load(&asked).unwrap().unwrap();
        assert_eq!((loaded.at_ms, loaded.after), (Some(7), state.after));
        assert!(file.load(&request(None)).unwrap().is_none());
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(file.load(&asked).unwrap().is_none());
    }
}
