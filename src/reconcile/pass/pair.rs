//! Both sides of a range, joined by key.

use super::{Pass, PassError, failed};
use crate::reconcile::board::WorkId;
use crate::reconcile::list::Listing;
use crate::reconcile::ranges::KeyRange;
use crate::store::ListedObject;

/// Both listings of a range, joined by key.
pub(super) struct Pair<'a> {
    pass: &'a Pass,
    id: WorkId,
    source: Listing,
    target: Listing,
    claimed: Option<String>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(pass: &'a Pass, id: WorkId, range: KeyRange) -> Self {
        let begin = if pass.in_one_piece() { Listing::from_the_beginning } else { Listing::new };
        let source = begin(pass.source.clone(), range.clone());
        let target = begin(pass.target.clone(), range);
        Self { pass, id, source, target, claimed: None }
    }

    /// What the two sides list under the next key.
    pub(super) async fn next(
        &mut self,
    ) -> Result<Option<(Option<ListedObject>, Option<ListedObject>)>, PassError> {
        loop {
            self.source.fill().await.map_err(|error| failed("source", error))?;
            self.target.fill().await.map_err(|error| failed("target", error))?;
            let (source, target) = (self.source.front(), self.target.front());
            let key = match (source, target) {
                (Some(source), Some(target)) => source.key.as_str().min(&target.key),
                (Some(one), None) | (None, Some(one)) => &one.key,
                (None, None) => return Ok(None),
            };
            if self.claimed.as_deref().is_some_and(|claimed| key <= claimed) {
                let ours = source.is_some_and(|object| object.key == key);
                let theirs = target.is_some_and(|object| object.key == key);
                let ours = if ours { self.source.pop() } else { None };
                return Ok(Some((ours, if theirs { self.target.pop() } else { None })));
            }
            self.claim();
        }
    }

    /// Claims what both sides have received, so that nobody cuts there.
    fn claim(&mut self) {
        let open = [&self.source, &self.target].into_iter().filter(|side| side.goes_on());
        let all = [&self.source, &self.target].into_iter();
        let Some(key) = open
            .filter_map(Listing::received)
            .min()
            .or_else(|| all.filter_map(Listing::received).max())
        else {
            return;
        };
        let goes_on = self.source.goes_on() || self.target.goes_on();
        let mut board = self.pass.board();
        let end = board.claim(self.id, key, goes_on).and_then(|range| range.end.clone());
        drop(board);
        self.claimed = Some(key.to_owned());
        if let Some(end) = end {
            self.source.shorten(&end);
            self.target.shorten(&end);
        }
        self.pass.changed.notify_waiters();
    }
}
