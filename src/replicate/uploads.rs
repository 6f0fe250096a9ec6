//! Multipart uploads in progress at the target, so that none is leaked.
//!
//! One small file per upload, written after it began and removed after it ended. An upload that failed
//! and could not be aborted is tried again beside the work; a restart aborts what it finds: the journal
//! still has the key and will copy it anew. Only uploads that we began are ever aborted, so one leaks
//! if the store's answer to its begin is lost, or if we die before its file is written.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::store::{ErrorKind, Store};

/// The wait before uploads that could not be aborted are tried again.
const AGAIN: Duration = Duration::from_secs(15);

/// So many are aborted at once.
const ABORTS: usize = 8;

/// At most so many of this process's uploads wait to be aborted; a restart finds the others.
const WAITING: usize = 1_000;

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
    abandoned: mpsc::Sender<PathBuf>,
}

/// Uploads that are to be aborted: what an earlier process left, and what this one abandons.
#[derive(Debug)]
pub(super) struct LeftOver {
    earlier: Vec<PathBuf>,
    abandoned: mpsc::Receiver<PathBuf>,
}

/// One upload in progress.
#[derive(Debug)]
pub(super) struct Begun {
    file: PathBuf,
    /// The target's id of the upload.
    pub(super) upload_id: String,
}

impl Uploads {
    /// Ready for new uploads, with the list of what is to be aborted, for [`LeftOver::abort`].
    pub(super) async fn open(dir: &Path) -> std::io::Result<(Self, LeftOver)> {
        tokio::fs::create_dir_all(dir).await?;
        let (mut earlier, mut next) = (Vec::new(), 0);
        let mut entries = tokio::fs::read_dir(dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            // No note of an earlier process is overwritten.
            next = next.max(number.map_or(0, |number| number.saturating_add(1)));
            earlier.push(entry.path());
        }
        let (sender, abandoned) = mpsc::channel(WAITING);
        let uploads = Self { dir: dir.to_owned(), next: AtomicU64::new(next), abandoned: sender };
        Ok((uploads, LeftOver { earlier, abandoned }))
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

    /// Hands over an upload that could not be aborted by the one who began it. It goes on being tried.
    pub(super) fn abandoned(&self, begun: Begun) {
        if let Err(error) = self.abandoned.try_send(begun.file) {
            tracing::debug!(%error, "An interrupted multipart upload is left to the next start, which finds its note.");
        }
    }

    /// Forgets an upload that was completed or aborted.
    pub(super) async fn ended(&self, begun: &Begun) {
        if let Err(error) = tokio::fs::remove_file(&begun.file).await {
            tracing::debug!(file = %begun.file.display(), %error, "The note of an ended upload could not be removed.");
        }
    }
}

impl LeftOver {
    /// Aborts them, beside the work: a target that does not answer must not hold up the start. What
    /// cannot be aborted now is tried again, until the uploads' owner is gone.
    pub(super) async fn abort(self, target: Store) {
        let Self { earlier: mut left, mut abandoned } = self;
        let mut told = false;
        loop {
            if left.is_empty() {
                told = false;
                let Some(file) = abandoned.recv().await else { return };
                left.push(file);
            }
            while let Ok(file) = abandoned.try_recv() {
                left.push(file);
            }
            left = abort_all(left, &target).await;
            if left.is_empty() {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    uploads = left.len(),
                    "Interrupted multipart uploads could not be aborted; this is tried again."
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Tries each once, several at a time: one bucket that does not answer holds up few others. Returns those that must
/// be tried again.
async fn abort_all(left: Vec<PathBuf>, target: &Store) -> Vec<PathBuf> {
    let tries = left.into_iter().map(async |file| match abort(&file, target).await {
        Ok(true) => None,
        Ok(false) => Some(file),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "The note of a multipart upload cannot be used; the upload may be left behind at the target.");
            None
        }
    });
    stream::iter(tries).buffer_unordered(ABORTS).filter_map(future::ready).collect().await
}

/// Aborts one upload; false, and its file stays, when the target cannot do it now.
async fn abort(file: &Path, target: &Store) -> std::io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_note_of_an_earlier_process_is_overwritten_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for number in 0..3 {
            let (uploads, left) = Uploads::open(dir.path()).await.unwrap();
            assert_eq!(left.earlier.len(), number);
            files.push(uploads.begun("b", "k", format!("upload {number}")).await.file);
        }
        files.dedup();
        assert!(files.len() == 3 && files.iter().all(|file| file.exists()));
    }
}
