//! Who is connected: which connections have shown that they are welcome, and which make room for others.
//!
//! A *guest* is one connection. It is trusted from the first request on that a handler [admits](Guest::admit).
//! When all slots are taken, the oldest guest that is not trusted and has no request under way is asked to
//! leave, so that connections that send nothing, which needs no token, keep nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// One connection; a handler finds it in its request's extensions until it is admitted.
#[derive(Debug, Clone)]
pub struct Guest(Arc<State>);

#[derive(Debug)]
struct State {
    trusted: AtomicBool,
    /// Requests whose answers are not complete.
    requests: AtomicUsize,
    leave: CancellationToken,
}

impl Guest {
    /// A connection that is to end when `leave` is cancelled.
    pub(super) fn new(leave: CancellationToken) -> Self {
        let (trusted, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(State { trusted, requests, leave }))
    }

    /// A request over this connection carried the token, or there is none to carry: the connection keeps its
    /// slot from now on.
    pub fn admit(&self) {
        self.0.trusted.store(true, Ordering::Relaxed);
    }

    /// Cancelled when the connection is to end.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.0.leave
    }

    /// A request has begun; it lasts until the answer's body is dropped.
    pub(super) fn request(&self) -> UnderWay {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.0.trusted.load(Ordering::Relaxed)
    }

    fn may_go(&self) -> bool {
        !self.is_trusted() && self.0.requests.load(Ordering::Relaxed) == 0
    }
}

/// A request of a guest.
#[derive(Debug)]
pub(super) struct UnderWay(Guest);

impl UnderWay {
    /// The answer's body: when it is dropped, the request is over.
    pub(super) const fn body<B>(self, body: B) -> Answer<B> {
        Answer { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// All guests of one listener, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    last: u64,
    here: BTreeMap<u64, Guest>,
}

impl Guests {
    /// Adds a guest, who is here until the answer is dropped.
    pub(super) fn enter(&self, guest: Guest) -> Here {
        let mut list = self.list();
        list.last = list.last.saturating_add(1);
        let number = list.last;
        list.here.insert(number, guest);
        Here { guests: self.clone(), number }
    }

    /// Asks the oldest guest that may go to leave. Returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let mut list = self.list();
        let oldest = list.here.iter().find(|(_, guest)| guest.may_go()).map(|(number, _)| *number);
        let guest = oldest.and_then(|number| list.here.remove(&number));
        guest.is_some_and(|guest| {
            guest.0.leave.cancel();
            true
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest's place in the list.
#[derive(Debug)]
pub(super) struct Here {
    guests: Guests,
    number: u64,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.guests.list().here.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_stranger_leaves_and_nobody_who_was_admitted() {
        let guests = Guests::default();
        let all: Vec<_> = (0..4).map(|_| Guest::new(CancellationToken::new())).collect();
        let mut here: Vec<_> = all.iter().map(|guest| guests.enter(guest.clone())).collect();
        let gone = || all.iter().map(|guest| guest.leave().is_cancelled()).collect::<Vec<_>>();
        all[0].admit();
        let request = all[1].request();
        assert!(guests.make_room());
        assert_eq!(gone(), [false, false, true, false]);
        // It closes by itself before the next one comes.
        drop(here.remove(3));
        assert!(!guests.make_room());
        drop(request.body(()));
        assert!(guests.make_room());
        assert_eq!(gone(), [false, true, true, false]);
        assert!(!guests.make_room());
    }
}
