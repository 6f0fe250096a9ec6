//! The bodies of notifications: read within bounds of size, time and memory.
//!
//! **Promise.** All bodies that are being read, or wait for the journal, together take no more memory than the
//! budget; one that finds no room waits for a bounded time. Only bodies of authenticated senders come here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a body may take to arrive, and before that may wait for room.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of bodies in memory at once, or one of the largest that is accepted.
const BUDGET: u32 = 64 << 20;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is longer than allowed: at least so many bytes.
    TooLarge(usize),
    /// It did not arrive in time.
    Late,
    /// The sender hung up or broke the protocol.
    Broken,
    /// Too many others were being read.
    NoRoom,
}

/// The memory that bodies may take.
#[derive(Debug)]
pub(super) struct Bodies {
    /// A permit is a byte.
    room: Arc<Semaphore>,
    /// The largest accepted body, in bytes.
    max: u32,
}

/// A body, and its part of the budget for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) room: OwnedSemaphorePermit,
}

impl Bodies {
    /// For bodies of at most `max_body` bytes.
    pub(super) fn new(max_body: usize) -> Self {
        Self::within(BUDGET, max_body)
    }

    pub(super) fn within(budget: u32, max_body: usize) -> Self {
        let max = u32::try_from(max_body).unwrap_or(u32::MAX);
        let bytes = usize::try_from(budget.max(max)).unwrap_or(usize::MAX);
        Self { room: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))), max }
    }

    /// Room for a body of so many bytes.
    pub(super) async fn room(&self, bytes: u32) -> Result<OwnedSemaphorePermit, Unread> {
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        match tokio::time::timeout(DEADLINE, room).await {
            Ok(Ok(room)) => Ok(room),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Unread::NoRoom),
        }
    }

    /// Reads a request's body.
    pub(super) async fn read(&self, request: Request) -> Result<Held, Unread> {
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let length = match announced.map(|length| (length, u32::try_from(length))) {
            None => self.max,
            Some((_, Ok(length))) if length <= self.max => length,
            Some((length, _)) => return Err(Unread::TooLarge(length)),
        };
        let mut room = self.room(length).await?;
        let max = usize::try_from(self.max).unwrap_or(usize::MAX);
        let body: Limited<Body> = Limited::new(request.into_body(), max);
        match tokio::time::timeout(DEADLINE, body.collect()).await {
            Ok(Ok(body)) => {
                let bytes = body.to_bytes();
                drop(room.split(room.num_permits().saturating_sub(bytes.len())));
                Ok(Held { bytes, room })
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Unread::TooLarge(max.saturating_add(1)))
            }
            Ok(Err(_)) => Err(Unread::Broken),
            Err(_) => Err(Unread::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(length: Option<usize>, body: &'static [u8]) -> Request {
        let request = Request::post("/");
        let request = match length {
            Some(length) => request.header(CONTENT_LENGTH, length),
            None => request,
        };
        request.body(Body::from(body)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_room_in_memory_and_for_a_bounded_time() {
        let bodies = Bodies::within(100, 100);
        let others = bodies.room(96).await.unwrap();
        let small = bodies.read(request(Some(4), b"1234")).await.unwrap();
        assert_eq!(small.bytes, "1234".as_bytes());
        assert_eq!(bodies.read(request(Some(1), b"1")).await.unwrap_err(), Unread::NoRoom);
        let mut waiting = Box::pin(bodies.read(request(Some(5), b"12345")));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop((others, small));
        assert_eq!(waiting.await.unwrap().bytes, "12345".as_bytes());
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_keeps_only_the_room_that_it_needs() {
        let bodies = Bodies::within(100, 100);
        let body = bodies.read(request(None, b"12345")).await.unwrap();
        assert_eq!(body.room.num_permits(), 5);
        assert_eq!(bodies.room.available_permits(), 95);
        drop(body);
        assert_eq!(bodies.room.available_permits(), 100);
    }

    #[tokio::test]
    async fn the_largest_body_always_fits_into_the_budget_and_a_larger_one_is_not_read() {
        let bodies = Bodies::within(1, 5);
        assert_eq!(bodies.read(request(None, b"12345")).await.unwrap().bytes.len(), 5);
        for length in [Some(6), Some(usize::MAX), None] {
            let unread = bodies.read(request(length, b"123456")).await.unwrap_err();
            assert_eq!(unread, Unread::TooLarge(length.unwrap_or(6)));
        }
        assert_eq!(bodies.room.available_permits(), 5);
    }
}
