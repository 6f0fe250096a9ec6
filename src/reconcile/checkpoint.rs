//! How far the passes of a bucket came, in one small file.
//!
//! **Promise.** After a crash, a pass goes on with the ranges that were left, and the next one knows
//! where to cut the key space. The file is replaced whole or not at all. It is a cache: without it, or
//! when it is damaged, a pass walks the whole bucket, which is always right.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::ranges::KeyRange;

/// After a day it is likely that more has changed than was left.
const LONGEST_MS: i64 = 24 * 60 * 60 * 1_000;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    /// The source's bucket.
    pub(super) bucket: String,
    /// When the pass began that is not finished; milliseconds since the Unix epoch.
    pub(super) began_ms: i64,
    /// The ranges that it has finished: their differences are in the journal.
    pub(super) done: Vec<KeyRange>,
    /// Where the last complete pass advised to cut the key space.
    pub(super) split_points: Vec<String>,
    /// When the last complete pass ended.
    pub(super) last_complete_ms: Option<i64>,
    /// What the last complete pass looked at.
    #[serde(default)]
    pub(super) looked: Option<Looked>,
}

/// Between these two sides, every object that was written before this time and is newer than its copy
/// has been marked for a look at its headers: the marks are in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looked {
    /// Both sides and which keys, in words: where the configuration changes, nothing was looked at.
    pub(super) between: String,
    /// On the source's clock, in milliseconds.
    pub(super) until_ms: i64,
}

impl Checkpoint {
    /// Reads the file of `bucket`; an empty checkpoint if there is none of use.
    pub(super) async fn load(dir: &Path, bucket: &str) -> Self {
        let text = match tokio::fs::read(path(dir, bucket)).await {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(bucket, %error, "The reconciler's checkpoint cannot be read; the whole bucket is walked.");
                }
                Vec::new()
            }
        };
        let read = serde_json::from_slice(&text).ok();
        read.filter(|read: &Self| read.bucket == bucket)
            .unwrap_or_else(|| Self { bucket: bucket.to_owned(), ..Self::default() })
    }

    /// Whether a pass that begins now can leave out what is done.
    pub(super) fn can_resume(&self, now_ms: i64) -> bool {
        let age = now_ms.saturating_sub(self.began_ms);
        !self.done.is_empty() && (0..=LONGEST_MS).contains(&age)
    }

    /// Replaces the file.
    pub(super) async fn save(&self, dir: &Path) -> io::Result<()> {
        let (path, json) = (path(dir, &self.bucket), serde_json::to_vec(self)?);
        let new = path.with_extension("new");
        let mut file = tokio::fs::File::create(&new).await?;
        file.write_all(&json).await?;
        file.sync_data().await?;
        tokio::fs::rename(&new, &path).await
    }
}

fn path(dir: &Path, bucket: &str) -> PathBuf {
    let name: String = form_urlencoded::byte_serialize(bucket.as_bytes()).collect();
    dir.join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(bucket: &str) -> Checkpoint {
        let range = KeyRange { start: None, end: Some("k\n\u{1F600}".to_owned()) };
        Checkpoint {
            bucket: bucket.to_owned(),
            began_ms: 1_000,
            done: vec![range],
            split_points: vec!["m".to_owned()],
            last_complete_ms: Some(500),
            looked: Some(Looked { between: "http://s:1 http://t:2/b".to_owned(), until_ms: 400 }),
        }
    }

    #[tokio::test]
    async fn what_was_saved_is_read_again_and_the_last_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        for bucket in ["b", "b/../c"] {
            let first = checkpoint(bucket);
            first.save(dir.path()).await.unwrap();
            assert_eq!(Checkpoint::load(dir.path(), bucket).await, first);
            let second = Checkpoint { began_ms: 2_000, ..first };
            second.save(dir.path()).await.unwrap();
            assert_eq!(Checkpoint::load(dir.path(), bucket).await, second);
        }
    }

    #[tokio::test]
    async fn a_damaged_file_or_that_of_another_bucket_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let empty = Checkpoint { bucket: "b".to_owned(), ..Checkpoint::default() };
        assert_eq!(Checkpoint::load(dir.path(), "b").await, empty);
        checkpoint("b").save(dir.path()).await.unwrap();
        let whole = std::fs::read(path(dir.path(), "b")).unwrap();
        let other = serde_json::to_vec(&checkpoint("c")).unwrap();
        for content in [&whole[..whole.len() / 2], b"", b"\0\0\0\0", &other] {
            std::fs::write(path(dir.path(), "b"), content).unwrap();
            assert_eq!(Checkpoint::load(dir.path(), "b").await, empty);
        }
    }

    #[tokio::test]
    async fn the_file_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let json =
            r#"{"bucket":"b","began_ms":0,"done":[],"split_points":["m"],"last_complete_ms":5}"#;
        std::fs::write(path(dir.path(), "b"), json).unwrap();
        let read = Checkpoint::load(dir.path(), "b").await;
        assert_eq!((read.last_complete_ms, read.looked), (Some(5), None));
    }

    #[test]
    fn an_old_or_future_or_empty_checkpoint_is_not_resumed() {
        let saved = checkpoint("b");
        assert!(saved.can_resume(1_000) && saved.can_resume(1_000 + LONGEST_MS));
        assert!(!saved.can_resume(1_001 + LONGEST_MS) && !saved.can_resume(999));
        assert!(!Checkpoint { done: Vec::new(), ..saved }.can_resume(1_000));
    }
}
