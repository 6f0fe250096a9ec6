//! The bytes of an object on their way from one store to the other.
//!
//! Promise: a stream that ends without an error has given every byte. It fails when the connection
//! is cut, when no byte arrives for the request timeout while someone is waiting for one, and when
//! it ends before the announced length. Dropping it early closes the connection; nothing else is held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::failure::{CallSite, describe};
use super::{ErrorKind, StoreError};

/// Any body that a PUT can stream; its errors say which store failed to deliver.
pub type ByteStream = UnsyncBoxBody<Bytes, StoreError>;

/// The body of an answer. Its error names the request that it answers.
#[derive(Debug)]
pub struct ObjectStream {
    inner: Incoming,
    /// Bytes still to come; `None` if the answer did not say.
    remaining: Option<u64>,
    stall: Duration,
    /// Set while someone waits for a byte.
    waiting: bool,
    timer: Option<Pin<Box<Sleep>>>,
    origin: CallSite,
}

impl ObjectStream {
    pub(super) fn new(inner: Incoming, stall: Duration, origin: CallSite) -> Self {
        let remaining = inner.size_hint().exact();
        Self { inner, remaining, stall, waiting: false, timer: None, origin }
    }

    /// Reads everything into memory.
    pub async fn bytes(self) -> Result<Bytes, StoreError> {
        self.bytes_up_to(u64::MAX).await
    }

    /// Reads everything into memory, at most `limit` bytes; more is an error.
    pub(super) async fn bytes_up_to(mut self, limit: u64) -> Result<Bytes, StoreError> {
        let announced = self.remaining.unwrap_or(0).min(limit);
        let Some(first) = self.next_bytes().await? else { return Ok(Bytes::new()) };
        if self.remaining == Some(0) && first.len() as u64 <= limit {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        all.extend_from_slice(&first);
        while let Some(next) = self.next_bytes().await? {
            all.extend_from_slice(&next);
            if all.len() as u64 > limit {
                let message = format!("the answer is longer than {limit} bytes");
                return Err(self.origin.error(ErrorKind::Invalid, message));
            }
        }
        Ok(all.freeze())
    }

    /// The next bytes as they arrive; `None` at the end.
    pub(super) async fn next_bytes(&mut self) -> Result<Option<Bytes>, StoreError> {
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// No frame is there: fails if none has come for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<StoreError> {
        let deadline = Instant::now() + self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        let message = format!("no data for {:?}", self.stall);
        Poll::Ready(self.origin.error(ErrorKind::Transient, message))
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let (Some(remaining), Some(data)) = (&mut self.remaining, frame.data_ref()) {
            *remaining = remaining.saturating_sub(data.len() as u64);
        }
    }
}

impl Body for ObjectStream {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        let next = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(next) => next,
            Poll::Pending => return this.poll_stall(cx).map(|error| Some(Err(error))),
        };
        this.waiting = false;
        Poll::Ready(match next {
            Some(Ok(frame)) => {
                this.count(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                Some(Err(this.origin.error(ErrorKind::Transient, describe(&error))))
            }
            None => match this.remaining {
                Some(missing @ 1..) => {
                    let message = format!("the answer ended {missing} bytes early");
                    Some(Err(this.origin.error(ErrorKind::Corrupt, message)))
                }
                _ => None,
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
