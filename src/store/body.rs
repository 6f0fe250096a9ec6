//! The body of a request, and how far it has been sent.
//!
//! Promise: a store sees a complete request only if the whole body was there. The last piece of a
//! stream is held back until the stream has ended without an error and at the announced length.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{ByteStream, PutBody, StoreError};

/// Bodies in memory are handed over in pieces of this size, so that progress can be seen.
const PIECE: usize = 256 << 10;

/// How far a body has been taken by the connection; shared with whoever waits for the answer.
#[derive(Debug, Default)]
pub(super) struct SentBytes {
    left: AtomicU64,
    starved: AtomicBool,
}

impl SentBytes {
    fn of(length: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(length), starved: AtomicBool::new(false) })
    }

    /// Bytes not yet taken.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// The connection would take more, but the stream has nothing to give: its own limit applies.
    pub(super) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }
}

/// Why a body could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The stream failed; its error names the store that was read.
    #[error("{0}")]
    Stream(Box<StoreError>),
    /// The stream was shorter or longer than announced.
    #[error("the body is {0} than announced")]
    Length(&'static str),
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// In memory; empty bodies too.
    Bytes { data: Bytes, progress: Option<Arc<SentBytes>> },
    /// From another store. `body` is `None` once it has ended.
    Stream { body: Option<ByteStream>, last: Option<Bytes>, progress: Arc<SentBytes> },
}

impl RequestBody {
    /// An empty body.
    pub(super) const fn empty() -> Self {
        Self::Bytes { data: Bytes::new(), progress: None }
    }

    /// The body of a PUT.
    pub(super) fn of(body: PutBody) -> Self {
        match body {
            PutBody::Bytes(data) => Self::bytes(data),
            PutBody::Stream { body, length } => {
                Self::Stream { body: Some(body), last: None, progress: SentBytes::of(length) }
            }
        }
    }

    /// A body in memory.
    pub(super) fn bytes(data: Bytes) -> Self {
        let progress = (data.len() > PIECE).then(|| SentBytes::of(data.len() as u64));
        Self::Bytes { data, progress }
    }

    /// Its length; for one that is being sent, what is left of it.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes { data, .. } => data.len() as u64,
            Self::Stream { progress, .. } => progress.left(),
        }
    }

    /// How far it has been sent, for bodies that take time.
    pub(super) fn progress(&self) -> Option<Arc<SentBytes>> {
        match self {
            Self::Bytes { progress, .. } => progress.clone(),
            Self::Stream { progress, .. } => Some(Arc::clone(progress)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Bytes { data, .. } if data.is_empty() => Poll::Ready(None),
            Self::Bytes { data, progress } => {
                let piece = data.split_to(data.len().min(PIECE));
                if let Some(progress) = progress {
                    progress.left.store(data.len() as u64, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Stream { body, last, progress } => {
                let next = poll_piece(body, last, progress, cx);
                progress.starved.store(next.is_pending(), Ordering::Relaxed);
                next.map_ok(Frame::data)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A stream says so by ending, even one of no bytes: that it ends is what must be seen.
        matches!(self, Self::Bytes { data, .. } if !data.has_remaining())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

/// The next piece of a stream; the last one only once the stream has ended at its length.
fn poll_piece(
    stream: &mut Option<ByteStream>,
    last: &mut Option<Bytes>,
    progress: &SentBytes,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    while let Some(body) = stream {
        let frame = match ready!(Pin::new(body).poll_frame(cx)) {
            None => {
                *stream = None;
                break;
            }
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Stream(Box::new(error))))),
        };
        let Ok(data) = frame.into_data() else { continue };
        match progress.left().checked_sub(data.len() as u64) {
            _ if data.is_empty() => {}
            _ if last.is_some() => return Poll::Ready(Some(Err(BodyError::Length("longer")))),
            None => return Poll::Ready(Some(Err(BodyError::Length("longer")))),
            Some(0) => *last = Some(data),
            Some(left) => {
                progress.left.store(left, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
    if let Some(last) = last.take() {
        progress.left.store(0, Ordering::Relaxed);
        return Poll::Ready(Some(Ok(last)));
    }
    Poll::Ready((progress.left() > 0).then_some(Err(BodyError::Length("shorter"))))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use proptest::prelude::*;

    use super::*;
    use crate::store::ErrorKind;
    use crate::store::Side;
    use crate::store::failure::CallSite;

    /// Gives its frames one by one, with pauses between them.
    struct Script(Vec<Option<Result<Bytes, StoreError>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = StoreError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            if let Some(step) = self.0.remove(0) {
                Poll::Ready(Some(step.map(Frame::data)))
            } else {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn cut() -> StoreError {
        let bucket = "b".into();
        let origin = CallSite {
            operation: "GetObject",
            side: Side::Source,
            endpoint: "s".into(),
            bucket,
            key: "k".into(),
        };
        origin.error(ErrorKind::Transient, "connection reset")
    }

    fn sent(
        steps: Vec<Option<Result<Bytes, StoreError>>>,
        length: u64,
    ) -> (Vec<u8>, Option<BodyError>, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let body = Script(steps).boxed_unsync();
            let mut body = RequestBody::of(PutBody::Stream { body, length });
            let mut data = Vec::new();
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => data.extend_from_slice(frame.data_ref().unwrap()),
                    Err(error) => return (data, Some(error), body.length()),
                }
            }
            let left = body.length();
            assert!(body.frame().await.is_none(), "a body that has ended stays so");
            (data, None, left)
        })
    }

    proptest! {
        #[test]
        fn a_body_is_complete_only_if_the_stream_ended_at_its_length(
            pieces in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..8),
            error_at in prop::option::of(0_usize..9),
            more in 0_u64..3,
            fewer in 0_u64..3,
        ) {
            let whole: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
            let length = (whole.len() as u64 + more).saturating_sub(fewer);
            let mut steps: Vec<_> = pieces.iter().map(|p| p.clone().map(|p| Ok(Bytes::from(p)))).collect();
            let failing = error_at.is_some_and(|at| at <= steps.len());
            if let Some(at) = error_at.filter(|at| *at <= steps.len()) {
                steps.insert(at, Some(Err(cut())));
            }
            let (data, error, left) = sent(steps, length);
            if !failing && length == whole.len() as u64 {
                prop_assert!(error.is_none());
                prop_assert_eq!(data, whole);
                prop_assert_eq!(left, 0);
            } else {
                prop_assert!(error.is_some());
                prop_assert!(length == 0 || (data.len() as u64) < length, "a whole body was sent");
                prop_assert_eq!(left, length - data.len() as u64);
            }
        }
    }

    #[test]
    fn the_error_of_the_stream_comes_through() {
        let (_, error, _) = sent(vec![Some(Ok(Bytes::from_static(b"ab"))), Some(Err(cut()))], 4);
        let Some(BodyError::Stream(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.operation, "GetObject");
    }

    #[test]
    fn a_large_body_in_memory_shows_its_progress() {
        let data = Bytes::from(vec![7; PIECE * 2 + 1]);
        let mut body = RequestBody::bytes(data.clone());
        let progress = body.progress().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(body.frame()).unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), progress.left()), (PIECE, PIECE as u64 + 1));
        let rest = runtime.block_on(body.collect()).unwrap().to_bytes();
        assert_eq!([first, rest].concat(), data);
        assert_eq!(progress.left(), 0);
        let none = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        assert!(!RequestBody::of(PutBody::Stream { body: none, length: 0 }).is_end_stream());
    }
}
