//! How many keys are worked on at once: additive increase, multiplicative decrease.
//!
//! [`Window`] is the pure rule, after TCP's: it doubles from one towards the last size that worked,
//! then grows by one per window of successes, and shrinks when the stores push back. [`Limit`]
//! is the gate that workers pass.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::workqueue::Share;

/// A store that pushes back does so to everything in flight; that counts once.
const ONE_PUSH_BACK: Duration = Duration::from_secs(1);
const SHRINK: f64 = 0.7;
/// Of several buckets, one may fill the window; this part of it, rounded up, is there in addition for the
/// others.
const SPARE_PART: u64 = 8;

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
    /// There are several buckets, so one must leave permits for the others.
    several: bool,
    freed: Notify,
}

/// Leave to work on one key; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Limit);

impl Limit {
    /// At most `max` keys in flight, and an eighth more when there are `several` buckets.
    pub(super) fn new(max: usize, several: bool) -> Self {
        let state = State { window: Window::new(max), in_flight: 0, last_push_back: None };
        Self { state: Mutex::new(state), several, freed: Notify::new() }
    }

    /// Waits until one more key may be in flight. One task at a time may wait.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.in_flight < self.most(&state.window) {
                    state.in_flight += 1;
                    return Permit(self);
                }
            }
            freed.await;
        }
    }

    /// What the buckets may share, if all that are in flight may be: then a permit may go on to another
    /// key.
    pub(super) fn room(&self) -> Option<Share> {
        let state = self.state();
        (state.in_flight <= self.most(&state.window)).then(|| self.share_of(&state.window))
    }

    /// What the buckets may share now.
    pub(super) fn share(&self) -> Share {
        self.share_of(&self.state().window)
    }

    /// The number that may be in flight now.
    pub(super) fn size(&self) -> u64 {
        self.state().window.whole()
    }

    /// Returns whether more may be in flight than before.
    pub(super) fn succeeded(&self) -> bool {
        let mut state = self.state();
        let before = state.window.whole();
        state.window.succeeded();
        let grown = state.window.whole() > before;
        drop(state);
        if grown {
            self.freed.notify_one();
        }
        grown
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

    fn most(&self, window: &Window) -> u64 {
        window.whole() + self.spare(window)
    }

    /// A single bucket has no one to share with, and this gate is all it passes.
    fn share_of(&self, window: &Window) -> Share {
        if self.several {
            Share { window: window.whole(), spare: self.spare(window) }
        } else {
            Share::ALL
        }
    }

    fn spare(&self, window: &Window) -> u64 {
        if self.several { window.whole().div_ceil(SPARE_PART) } else { 0 }
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
        assert_eq!(window.whole(), 1);
    }

    #[test]
    fn a_window_doubles_up_to_its_threshold_then_grows_by_one_a_round() {
        let mut window = Window::new(64);
        window.restarted();
        assert_eq!(window.whole(), 1);
        (0..31).for_each(|_| window.succeeded());
        assert!((window.size - 32.0).abs() < 1e-9);
        (0..32).for_each(|_| window.succeeded());
        assert!(window.size > 32.9 && window.size <= 33.0);
        (0..100_000).for_each(|_| window.succeeded());
        assert_eq!(window.whole(), 64);
    }

    #[tokio::test]
    async fn a_permit_goes_on_to_another_key_only_while_the_window_has_room_for_it() {
        let limit = Limit::new(2, false);
        let (_first, second) = (limit.acquire().await, limit.acquire().await);
        assert!(limit.room().is_some());
        limit.pushed_back();
        assert!(limit.room().is_none());
        drop(second);
        assert!(limit.room().is_some());
    }

    #[tokio::test]
    async fn no_more_keys_than_the_window_are_in_flight() {
        let limit = Limit::new(2, false);
        let first = limit.acquire().await;
        let _second = limit.acquire().await;
        let mut third = std::pin::pin!(limit.acquire());
        assert!(futures_poll(&mut third).await.is_none());
        drop(first);
        assert!(futures_poll(&mut third).await.is_some());
    }

    #[test]
    fn with_several_buckets_an_eighth_more_is_there_for_the_others() {
        let window = |max, several| Limit::new(max, several).share();
        assert_eq!(window(64, true), Share { window: 64, spare: 8 });
        assert_eq!(window(1, true), Share { window: 1, spare: 1 });
        assert_eq!(window(64, false), Share::ALL);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
