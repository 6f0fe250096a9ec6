//! Deleting many objects: in one request where the store and the keys allow it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use http::Method;
use http::header::CONTENT_TYPE;
use tokio::task::JoinSet;

use super::encode::Query;
use super::object::{md5, unreadable};
use super::request::Call;
use super::{ErrorKind, Store, StoreError, xml};

/// The most keys that one `DeleteObjects` takes.
const BATCH: usize = 1000;
/// The largest `DeleteResult`: a failure for every key, with both names escaped.
const MAX_RESULT: u64 = 16 << 20;
/// How many single deletes run at once.
const SINGLES: usize = 16;

type Outcome = Result<(), StoreError>;

impl Store {
    /// Deletes `keys`; the results come in their order. That there is no such object is success.
    ///
    /// Uses `DeleteObjects`, 1,000 keys at a time, and `DeleteObject` for keys that XML cannot carry
    /// and for stores that have nothing else.
    pub async fn delete_many(&self, bucket: &str, keys: &[&str]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        outcomes.resize_with(keys.len(), || None);
        let indexed = keys.iter().copied().enumerate();
        let (batched, mut single): (Vec<_>, Vec<_>) =
            indexed.partition(|(_, key)| xml::can_carry(key));
        for batch in batched.chunks(BATCH) {
            if self.inner().deletes_singly.load(Ordering::Relaxed) {
                single.extend_from_slice(batch);
                continue;
            }
            match self.delete_batch(bucket, batch).await {
                Batch::Done(done) => place(&mut outcomes, done),
                Batch::Singly => single.extend_from_slice(batch),
            }
        }
        place(&mut outcomes, self.delete_singly(bucket, &single).await);
        let lost = || self.inner().origin("DeleteObject", bucket, "");
        outcomes
            .into_iter()
            .map(|outcome| {
                let none = || Err(lost().error(ErrorKind::Transient, "the delete did not finish"));
                outcome.unwrap_or_else(none)
            })
            .collect()
    }

    async fn delete_batch(&self, bucket: &str, batch: &[(usize, &str)]) -> Batch {
        match self.try_batch(bucket, batch).await {
            Ok(Some(failures)) => Batch::Done(self.assign(bucket, batch, &failures)),
            Ok(None) => Batch::Singly,
            Err(error)
                if matches!(error.code.as_deref(), Some("NotImplemented" | "MethodNotAllowed"))
                    || matches!(error.status, Some(405 | 501)) =>
            {
                self.inner().deletes_singly.store(true, Ordering::Relaxed);
                Batch::Singly
            }
            // The store could not read this document; it can read each key.
            Err(error) if error.code.as_deref() == Some("MalformedXML") => Batch::Singly,
            Err(error) => Batch::Done(
                batch
                    .iter()
                    .map(|&(index, key)| {
                        (index, Err(StoreError { key: key.into(), ..error.clone() }))
                    })
                    .collect(),
            ),
        }
    }

    /// The failures by key; `None` if one is of a key that was not asked for, so that the store's
    /// reading of the keys cannot be trusted.
    async fn try_batch(
        &self,
        bucket: &str,
        batch: &[(usize, &str)],
    ) -> Result<Option<HashMap<String, xml::DeleteFailure>>, StoreError> {
        let document = xml::delete(batch.iter().map(|&(_, key)| key));
        let call = Call::new("DeleteObjects", Method::POST, bucket, "")
            .query(Query::flag("delete"))
            .header(CONTENT_TYPE, http::HeaderValue::from_static("application/xml"))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document);
        let answer = self.inner().send(call).await?;
        let origin = answer.origin.clone();
        let result = answer.document(MAX_RESULT).await?;
        let failures =
            xml::delete_failures(&result).map_err(|error| unreadable(&origin, &error))?;
        let asked: std::collections::HashSet<&str> = batch.iter().map(|&(_, key)| key).collect();
        if failures.iter().any(|failure| !asked.contains(failure.key.as_str())) {
            return Ok(None);
        }
        Ok(Some(failures.into_iter().map(|f| (f.key.clone(), f)).collect()))
    }

    fn assign(
        &self,
        bucket: &str,
        batch: &[(usize, &str)],
        failures: &HashMap<String, xml::DeleteFailure>,
    ) -> Vec<(usize, Outcome)> {
        let outcome = |key: &str| {
            let Some(failure) = failures.get(key) else { return Ok(()) };
            let origin = self.inner().origin("DeleteObjects", bucket, key);
            let error = origin.answered(200, Some(failure.code.clone()), Some(&failure.message));
            if error.kind == ErrorKind::NotFound { Ok(()) } else { Err(error) }
        };
        batch.iter().map(|&(index, key)| (index, outcome(key))).collect()
    }

    async fn delete_singly(&self, bucket: &str, keys: &[(usize, &str)]) -> Vec<(usize, Outcome)> {
        let mut done = Vec::with_capacity(keys.len());
        let mut running = JoinSet::new();
        for &(index, key) in keys {
            if running.len() >= SINGLES
                && let Some(Ok(outcome)) = running.join_next().await
            {
                done.push(outcome);
            }
            let (store, bucket, key) = (self.clone(), bucket.to_owned(), key.to_owned());
            running.spawn(async move { (index, store.delete(&bucket, &key).await) });
        }
        done.extend(running.join_all().await);
        done
    }
}

/// What became of one batch.
enum Batch {
    Done(Vec<(usize, Outcome)>),
    Singly,
}

fn place(outcomes: &mut [Option<Outcome>], done: Vec<(usize, Outcome)>) {
    for (index, outcome) in done {
        if let Some(slot) = outcomes.get_mut(index) {
            *slot = Some(outcome);
        }
    }
}
