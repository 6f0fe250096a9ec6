//! An application that never stops changing objects.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::s3::S3;

/// The seed of a random test: `EVERMIRROR_TEST_SEED`, or a fresh one; printed either way.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("EVERMIRROR_TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().expect("a number"));
    println!("EVERMIRROR_TEST_SEED={seed} repeats these choices");
    seed
}

/// Changes random objects of one bucket, one after the other.
#[derive(Debug)]
pub(crate) struct Writer {
    random: StdRng,
    store: S3,
    bucket: String,
    /// What it did.
    pub(crate) changes: usize,
}

impl Writer {
    pub(crate) fn new(seed: u64, store: &S3, bucket: &str) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, store: store.clone(), bucket: bucket.to_owned(), changes: 0 }
    }

    /// Changes objects until told to stop, beside the test; how many times.
    pub(crate) fn write_until(mut self, stop: &CancellationToken) -> JoinHandle<usize> {
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                self.change().await;
            }
            self.changes
        })
    }

    /// One change: mostly a put, sometimes a delete, tags or a multipart upload. Half of them are of a
    /// key that is written only once, so that no later change hides that this one was lost; the others
    /// are of few keys, so that changes of one key come close together.
    pub(crate) async fn change(&mut self) {
        self.changes += 1;
        if self.random.random() {
            let key = format!("once/{}", self.changes);
            return self.store.put(&self.bucket, &key, key.as_str()).await;
        }
        let key =
            format!("dir {}/k+{}", self.random.random_range(0..4), self.random.random_range(0..20));
        let length = self.random.random_range(0..20_000);
        let fill = self.random.random();
        match self.random.random_range(0..20) {
            0..4 => self.store.delete(&self.bucket, &key).await,
            4 => {
                let parts = [vec![fill; 5 << 20], vec![fill; length + 1]];
                self.store.put_parts(&self.bucket, &key, parts).await;
            }
            5..7 => {
                self.store.put(&self.bucket, &key, vec![fill; length]).await;
                self.store.tag(&self.bucket, &key, &[("change", &self.changes.to_string())]).await;
            }
            _ => self.store.put(&self.bucket, &key, vec![fill; length]).await,
        }
    }
}
