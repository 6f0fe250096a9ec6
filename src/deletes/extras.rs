//! The keys that only the target has, set aside until the end of the pass shows what to do with them.
//!
//! A plain temporary file, so that their number costs no memory. It need not survive a crash: only a
//! complete pass may delete, and after a crash there is a new one. On error the pass fails, and
//! deletes nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};

use super::delayed::written_since;
use super::verdict::{Case, Verdict, judge};
use crate::clock;
use crate::store::{ErrorKind, Store, StoreError};

/// So many extras that did not come while the pass ran are enough to let a person decide.
const ENOUGH: usize = 1_000;
/// HEADs of the source at once.
const HEADS: usize = 32;

/// Why the extras of a pass cannot be judged: nothing is deleted then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtrasError {
    /// The source does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list cannot be read.
    #[error("failed to set keys aside in data_dir: {0}")]
    List(#[from] io::Error),
}

/// What becomes of the extras of a pass that took `took` and has ended now: one judgement for `run`, `sync` and
/// its dry run. Before they pull the brake the source is asked which of them came while the pass ran:
/// after it was listed, and copied before the target was.
pub(crate) async fn judge_extras(
    mut case: Case<'_>,
    source: (&Store, &str),
    keys: impl AsyncFnOnce() -> io::Result<Keys>,
    took: Duration,
) -> Result<Verdict, ExtrasError> {
    let verdict = judge(&case);
    if !matches!(verdict, Verdict::Hold(_)) || case.brake.is_some() {
        return Ok(verdict);
    }
    case.came = came(source, keys().await?, took).await?;
    Ok(judge(&case))
}

/// How many of the extras were put at the source since the pass began. An older object that the listing left out is
/// another matter, whatever the source says of it now. Asks no further than [`ENOUGH`] that did not come.
async fn came(
    (source, bucket): (&Store, &str),
    mut keys: Keys,
    took: Duration,
) -> Result<u64, ExtrasError> {
    let (mut came, mut others) = (0, 0_usize);
    let ended = tokio::time::Instant::now();
    while others < ENOUGH {
        let page = keys.page(HEADS).await?;
        if page.is_empty() {
            break;
        }
        let heads = page.iter().map(|key| source.head(bucket, key));
        for head in join_all(heads).await {
            let since_ms = clock::signed_millis(took + ended.elapsed());
            match head {
                // In doubt it did not come: then a person decides.
                Ok(head) if written_since(&head.headers, since_ms) == Some(true) => came += 1,
                Ok(_) => others += 1,
                Err(error) if error.kind == ErrorKind::NotFound => others += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(came)
}

/// A list of keys on disk; the file is there from the first key until this is dropped.
#[derive(Debug)]
pub(crate) struct Extras {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Extras {
    /// An empty list, which will use this file.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, count: 0 }
    }

    /// Adds a key.
    pub(crate) async fn push(&mut self, key: &str) -> io::Result<()> {
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            self.file.insert(BufWriter::new(options.open(&self.path).await?))
        };
        file.write_u64_le(key.len() as u64).await?;
        file.write_all(key.as_bytes()).await?;
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Begins to read them from the first on, in the order in which they came.
    pub(crate) async fn read(&mut self) -> io::Result<Keys> {
        let Some(file) = &mut self.file else { return Ok(Keys::of(Vec::new())) };
        file.flush().await?;
        let file = File::open(&self.path).await?;
        Ok(Keys(Place::File(BufReader::new(file), self.count)))
    }
}

impl Drop for Extras {
    fn drop(&mut self) {
        if self.count > 0 {
            // What stays is truncated by the next pass.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// The keys of a list.
#[derive(Debug)]
pub(crate) struct Keys(Place);

#[derive(Debug)]
enum Place {
    Memory(std::vec::IntoIter<String>),
    /// With how many are left.
    File(BufReader<File>, u64),
}

impl Keys {
    /// Keys that are in memory.
    pub(crate) fn of(keys: Vec<String>) -> Self {
        Self(Place::Memory(keys.into_iter()))
    }

    /// The next `limit` keys, fewer at the end, none behind it.
    pub(crate) async fn page(&mut self, limit: usize) -> io::Result<Vec<String>> {
        let (file, left) = match &mut self.0 {
            Place::Memory(keys) => return Ok(keys.take(limit).collect()),
            Place::File(file, left) => (file, left),
        };
        let mut page = Vec::new();
        while *left > 0 && page.len() < limit {
            let length = file.read_u64_le().await?;
            let mut key = String::new();
            let read = (&mut *file).take(length).read_to_string(&mut key).await?;
            if read as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            page.push(key);
            *left -= 1;
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_come_back_in_order_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("extras");
        let mut extras = Extras::new(path.clone());
        assert!(extras.read().await.unwrap().page(9).await.unwrap().is_empty());
        let keys: Vec<_> = (0..1_000).map(|n| format!("\n{n}\u{1F600}{}", "k".repeat(n))).collect();
        for key in &keys {
            extras.push(key).await.unwrap();
        }
        assert_eq!(extras.count(), 1_000);
        let mut list = extras.read().await.unwrap();
        let mut read = Vec::new();
        loop {
            let page = list.page(300).await.unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        assert_eq!(read, keys);
        drop(extras);
        assert!(!path.exists());
    }
}
