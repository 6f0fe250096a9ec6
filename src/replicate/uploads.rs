//! Multipart uploads in progress at the target, so that none is leaked.
//!
//! One small file per upload, written after it began and removed after it ended. A restart aborts
//! what it finds: the journal still has the key and will copy it anew. Only uploads that we began are
//! ever aborted. A death in the instant between the store's answer and our write leaks one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::store::{ErrorKind, Store};

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
    /// Aborts what an earlier process left, and is then ready for new uploads.
    pub(super) async fn recover(dir: &Path, target: &Store) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(dir).await?;
        let mut entries = tokio::fs::read_dir(dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            abort_left_over(&entry.path(), target).await?;
        }
        let next = u64::try_from(crate::clock::now_ms()).unwrap_or_default() << 16;
        Ok(Self { dir: dir.to_owned(), next: AtomicU64::new(next) })
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

/// Aborts one upload of an earlier process; its file stays when the target cannot be asked now.
async fn abort_left_over(file: &Path, target: &Store) -> std::io::Result<()> {
    let bytes = tokio::fs::read(file).await?;
    if let Ok(upload) = serde_json::from_slice::<Upload>(&bytes) {
        let result = target.abort_multipart(&upload.bucket, &upload.key, &upload.id).await;
        match result {
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::NoSuchBucket) => {
                tracing::warn!(%error, "An interrupted multipart upload could not be aborted; the next start tries again.");
                return Ok(());
            }
            Ok(()) | Err(_) => {
                tracing::info!(bucket = upload.bucket, key = %upload.key.escape_debug(), "An interrupted multipart upload was aborted.");
            }
        }
    }
    tokio::fs::remove_file(file).await
}
