//! How many keys are worked on at once: additive increase, multiplicative decrease.
//!
//! [`Window`] is the pure rule, after TCP's: it doubles from one towards the last size that worked,
//! then grows by one per window of successes, and shrinks when the stores push back. [`Limit`]
//! is the gate that workers pass.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A store that pushes back does so to everything in flight; that counts once.
const ONE_PUSH_BACK: Duration = Duration::from_secs(1);
const SHRINK: f64 = 0.7;

/// The number of keys that may be in flight.
#[derive(Debug, Clone, Copy)]
struct Window {
    size: f64,
    threshold: f64,
    max: f64,
}

impl Window {
    fn new(max: usize) -> Self {
        let max = f64::from(u32::try_from(max).unwrap_or(u32::MAX)).max(1.0);
        Self { size: max, threshold: max, max }
    }

    fn succeeded(&mut self) {
        let step = if self.size < self.threshold { 1.0 } else { 1.0 / self.size };
        self.size = (self.size + step).min(self.max);
    }

    fn pushed_back(&mut self) {
        self.size = (self.size * SHRINK).max(1.0);
        self.threshold = self.size;
    }

    fn restarted(&mut self) {
        self.threshold = (self.size / 2.0).max(1.0);
        self.size = 1.0;
    }

    fn admits(&self, in_flight: u64) -> bool {
        in_flight < self.whole()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the largest u32"
    )]
    fn whole(&self) -> u64 {
        self.size.max(1.0) as u64
    }
}

#[derive(Debug)]
struct State {
    window: Window,
    in_flight: u64,
    last_push_back: Option<Instant>,
}

/// The gate in front of the workers of one lane.
#[derive(Debug)]
pub(super) struct Limit {
    state: Mutex<State>,
    freed: Notify,
}

/// Leave to work on one key; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Limit);

impl Limit {
    pub(super) fn new(max: usize) -> Self {
        let state = State { window: Window::new(max), in_flight: 0, last_push_back: None };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }

    /// Waits until one more key may be in flight. One task at a time may wait.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.window.admits(state.in_flight) {
                    state.in_flight += 1;
                    return Permit(self);
                }
            }
            freed.await;
        }
    }

    /// Whether all that are in flight may be: then a permit may go on to another key.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.in_flight <= state.window.whole()
    }

    /// The number that may be in flight now.
    pub(super) fn size(&self) -> u64 {
        self.state().window.whole()
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        let before = state.window.whole();
        state.window.succeeded();
        let grown = state.window.whole() > before;
        drop(state);
        if grown {
            self.freed.notify_one();
        }
    }

    /// A store answered 429, 503 or not at all.
    pub(super) fn pushed_back(&self) {
        let mut state = self.state();
        if state.last_push_back.is_none_or(|at| at.elapsed() >= ONE_PUSH_BACK) {
            state.last_push_back = Some(Instant::now());
            state.window.pushed_back();
        }
    }

    /// A store was away and is back: begin with one.
    pub(super) fn restarted(&self) {
        self.state().window.restarted();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Permit<'a> {
    /// Hands the permit over to another task, which takes it up with [`Permit::kept`].
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }

    /// Takes up a permit that was kept.
    pub(super) const fn kept(limit: &'a Limit) -> Self {
        Self(limit)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        drop(state);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shrinks_on_push_back_and_never_below_one() {
        let mut window = Window::new(10);
        window.pushed_back();
        assert!((window.size - 7.0).abs() < 1e-9);
        for _ in 0..50 {
            window.pushed_back();
        }
        assert!(window.admits(0) && !window.admits(1));
    }

    #[test]
    fn a_window_doubles_up_to_its_threshold_then_grows_by_one_a_round() {
        let mut window = Window::new(64);
        window.restarted();
        assert!(!window.admits(1));
        (0..31).for_each(|_| window.succeeded());
        assert!((window.size - 32.0).abs() < 1e-9);
        (0..32).for_each(|_| window.succeeded());
        assert!(window.size > 32.9 && window.size <= 33.0);
        (0..100_000).for_each(|_| window.succeeded());
        assert!(window.admits(63) && !window.admits(64));
    }

    #[tokio::test]
    async fn a_permit_goes_on_to_another_key_only_while_the_window_has_room_for_it() {
        let limit = Limit::new(2);
        let (_first, second) = (limit.acquire().await, limit.acquire().await);
        assert!(limit.has_room());
        limit.pushed_back();
        assert!(!limit.has_room());
        drop(second);
        assert!(limit.has_room());
    }

    #[tokio::test]
    async fn no_more_keys_than_the_window_are_in_flight() {
        let limit = Limit::new(2);
        let first = limit.acquire().await;
        let _second = limit.acquire().await;
        let mut third = std::pin::pin!(limit.acquire());
        assert!(futures_poll(&mut third).await.is_none());
        drop(first);
        assert!(futures_poll(&mut third).await.is_some());
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
