//! Multipart uploads in progress at the target, so that none is leaked.
//!
//! One small file per upload, written after it began and removed after it ended. A restart aborts
//! what it finds: the journal still has the key and will copy it anew. Only uploads that we began are
//! ever aborted. A death in the instant between the store's answer and our write leaks one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{ErrorKind, Store};

/// The wait before uploads that could not be aborted are tried again.
const AGAIN: Duration = Duration::from_mins(1);

/// An upload, as its file names it.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    id: String,
}

/// The directory of upload files.
#[derive(Debug)]
pub(super) struct Uploads {
    dir: PathBuf,
    next: AtomicU64,
}

/// One upload in progress.
#[derive(Debug)]
pub(super) struct Begun {
    file: PathBuf,
    /// The target's id of the upload.
    pub(super) upload_id: String,
}

impl Uploads {
    /// Ready for new uploads; also names the notes that an earlier process left, for
    /// [`abort_left_overs`].
    pub(super) async fn open(dir: &Path) -> std::io::Result<(Self, Vec<PathBuf>)> {
        tokio::fs::create_dir_all(dir).await?;
        let mut left = Vec::new();
        let mut entries = tokio::fs::read_dir(dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            left.push(entry.path());
        }
        let next = u64::try_from(crate::clock::now_ms()).unwrap_or_default() << 16;
        Ok((Self { dir: dir.to_owned(), next: AtomicU64::new(next) }, left))
    }

    /// Remembers an upload that has just begun.
    pub(super) async fn begun(&self, bucket: &str, key: &str, upload_id: String) -> Begun {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let file = self.dir.join(name);
        let upload = Upload { bucket: bucket.into(), key: key.into(), id: upload_id };
        // Losing this file (a full disk) risks a leaked upload after a crash, never a wrong object.
        let bytes = serde_json::to_vec(&upload).unwrap_or_default();
        if let Err(error) = tokio::fs::write(&file, bytes).await {
            tracing::warn!(file = %file.display(), %error, "The note of a multipart upload could not be written; a crash now would leave the upload behind at the target.");
        }
        Begun { file, upload_id: upload.id }
    }

    /// Forgets an upload that was completed or aborted.
    pub(super) async fn ended(&self, begun: &Begun) {
        if let Err(error) = tokio::fs::remove_file(&begun.file).await {
            tracing::debug!(file = %begun.file.display(), %error, "The note of an ended upload could not be removed.");
        }
    }
}

/// Aborts what an earlier process left, beside the work of this one: a target that does not answer
/// must not hold up the start. What cannot be aborted now is tried again.
pub(super) async fn abort_left_overs(mut left: Vec<PathBuf>, target: Store) {
    let mut told = false;
    while !left.is_empty() {
        let mut later = Vec::new();
        for file in left {
            match abort_left_over(&file, &target).await {
                Ok(true) => {}
                Ok(false) => later.push(file),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "The note of a multipart upload cannot be used; the upload may be left behind at the target.");
                }
            }
        }
        if !later.is_empty() && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                uploads = later.len(),
                "Interrupted multipart uploads could not be aborted; this is tried again."
            );
        }
        left = later;
        if !left.is_empty() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Aborts one upload of an earlier process; false, and its file stays, when the target cannot do it now.
async fn abort_left_over(file: &Path, target: &Store) -> std::io::Result<bool> {
    let bytes = tokio::fs::read(file).await?;
    if let Ok(upload) = serde_json::from_slice::<Upload>(&bytes) {
        let result = target.abort_multipart(&upload.bucket, &upload.key, &upload.id).await;
        match result {
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::NoSuchBucket) => {
                tracing::debug!(%error, "An interrupted multipart upload could not be aborted now.");
                return Ok(false);
            }
            Ok(()) | Err(_) => {
                tracing::info!(bucket = upload.bucket, key = %upload.key.escape_debug(), "An interrupted multipart upload was aborted.");
            }
        }
    }
    tokio::fs::remove_file(file).await.map(|()| true)
}
