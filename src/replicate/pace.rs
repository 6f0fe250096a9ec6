//! The bandwidth limit: one budget of bytes per second over all copies.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep};

use crate::store::{ByteStream, PutBody, StoreError};

/// Hands out time slots for bytes; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pace(Option<Arc<Budget>>);

#[derive(Debug)]
struct Budget {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Pace {
    /// At most so many bytes per second; no limit if `None`.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self(bytes_per_second.filter(|rate| *rate > 0).map(|bytes_per_second| {
            Arc::new(Budget { bytes_per_second, free_at: Mutex::new(Instant::now()) })
        }))
    }

    /// Spreads a body over time. A body in memory waits once, a stream waits chunk by chunk.
    pub(super) async fn spread(&self, body: PutBody) -> PutBody {
        let Some(budget) = &self.0 else { return body };
        match body {
            PutBody::Bytes(bytes) => {
                tokio::time::sleep_until(budget.reserve(bytes.len())).await;
                PutBody::Bytes(bytes)
            }
            PutBody::Stream { body, length } => {
                let paced = Paced { body, budget: Arc::clone(budget), waiting: None };
                PutBody::Stream { body: paced.boxed_unsync(), length }
            }
        }
    }
}

impl Budget {
    /// Takes the next free slot for so many bytes and says when it begins.
    fn reserve(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now().max(*free_at);
        let nanos = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000)
            / u128::from(self.bytes_per_second);
        *free_at = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        start
    }
}

struct Paced {
    body: ByteStream,
    budget: Arc<Budget>,
    waiting: Option<(Pin<Box<Sleep>>, Frame<Bytes>)>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        if self.waiting.is_none() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            let start = self.budget.reserve(frame.data_ref().map_or(0, Bytes::len));
            self.waiting = Some((Box::pin(tokio::time::sleep_until(start)), frame));
        }
        if let Some((sleep, _)) = &mut self.waiting {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(self.waiting.take().map(|(_, frame)| Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_spread_at_the_configured_rate() {
        let pace = Pace::new(Some(1_000));
        let start = Instant::now();
        for _ in 0..5 {
            pace.spread(PutBody::Bytes(Bytes::from_static(&[0; 500]))).await;
        }
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
