//! The bytes of an object on their way from one store to the other.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::StoreError;

/// Any body that a PUT can stream; its errors say which store failed to deliver.
pub type ByteStream = UnsyncBoxBody<Bytes, StoreError>;

/// The body of a GET.
#[derive(Debug)]
pub struct ObjectStream {
    inner: Incoming,
}

impl ObjectStream {
    /// Reads everything into memory.
    pub async fn bytes(self) -> Result<Bytes, StoreError> {
        unimplemented!()
    }
}

impl Body for ObjectStream {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        unimplemented!()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
