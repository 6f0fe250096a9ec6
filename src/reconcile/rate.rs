//! How fast pages may be asked for.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many turns a second over all clones; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Rate(Option<Arc<Slots>>);

#[derive(Debug)]
struct Slots {
    every: Duration,
    free_at: Mutex<Instant>,
}

impl Rate {
    /// At most `per_second` turns a second, evenly spread; no limit if `None`.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self(per_second.map(|rate| {
            let every = Duration::from_secs(1) / rate.get();
            Arc::new(Slots { every, free_at: Mutex::new(Instant::now()) })
        }))
    }

    /// Waits for the next turn. A turn that is given up while waiting is lost, which harms nobody.
    pub async fn turn(&self) {
        let Some(slots) = &self.0 else { return };
        tokio::time::sleep_until(slots.reserve()).await;
    }
}

impl Slots {
    fn reserve(&self) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now().max(*free_at);
        *free_at = start + self.every;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spread_evenly_over_a_second() {
        let rate = Rate::new(NonZeroU32::new(4));
        let begin = Instant::now();
        for _ in 0..9 {
            rate.clone().turn().await;
        }
        assert_eq!(begin.elapsed().as_millis(), 2_000);
        let free = Rate::new(None);
        free.turn().await;
        assert_eq!(begin.elapsed().as_millis(), 2_000);
    }
}
