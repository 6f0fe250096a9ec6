//! The status as it changes, by server-sent events: one `status` event a second.
//!
//! However many pages are open, the status is made twice a second at most. A stream ends when the listener
//! stops; the page then asks again until somebody answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{self, Stream};
use tokio::time::Instant;

use super::{Operations, Web};

/// The time between two events.
const EVERY: Duration = Duration::from_secs(1);
/// A status younger than this is shared.
const FRESH: Duration = Duration::from_millis(500);

/// The last status, as JSON; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<Option<Made>>>);

#[derive(Debug)]
struct Made {
    at: Instant,
    json: Arc<str>,
}

impl Latest {
    fn get(&self, operations: &dyn Operations) -> serde_json::Result<Arc<str>> {
        // Held while the status is made, so that it is made once; nothing in it waits.
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*latest
            && made.at.elapsed() < FRESH
        {
            return Ok(Arc::clone(&made.json));
        }
        let json: Arc<str> = serde_json::to_string(&operations.status())?.into();
        *latest = Some(Made { at: Instant::now(), json: Arc::clone(&json) });
        Ok(json)
    }
}

pub(super) async fn stream(
    State(web): State<Web>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold((web, Duration::ZERO), |(web, pause)| async move {
        web.stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
        match web.latest.get(&*web.operations) {
            Ok(json) => Some((Ok(Event::default().event("status").data(&*json)), (web, EVERY))),
            Err(error) => {
                tracing::error!(%error, "Failed to write the status.");
                None
            }
        }
    }))
}
