//! The rules by which pages are believed: pure.

use std::collections::VecDeque;

use super::bound::Widths;
use crate::reconcile::ranges::KeyRange;
use crate::store::{ListPage, ListedObject};

/// So many pages without a new key may follow each other: a store passes over what was deleted, and
/// may have much of that, but a continuation that leads nowhere would otherwise be followed for ever.
pub(super) const BARREN: u32 = 10_000;

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PageStart {
    /// Behind a key; at the beginning if there is none.
    After(Option<String>),
    /// This key alone, if it is there.
    Only(String),
    /// Where the page before said.
    Token(String),
}

impl PageStart {
    pub(super) fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            Self::After(_) | Self::Only(_) => None,
        }
    }
}

/// What makes a listing useless.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Order { previous: String, key: String },
    Start { key: String },
    Circle,
}

/// What a page added.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) objects: VecDeque<ListedObject>,
    pub(super) next: Option<PageStart>,
    /// It had a key behind all that were known.
    pub(super) found: bool,
    /// The end of the range was reached.
    pub(super) past: bool,
}

/// What is left of the range, and the rules by which pages are believed.
#[derive(Debug)]
pub(super) struct Order {
    /// The last key received, or where the range begins.
    pub(super) last: Option<String>,
    /// Where it ends, included.
    pub(super) end: Option<String>,
    /// The last key of the page that the next token belongs to, whether or not it was new.
    page_end: Option<String>,
    /// Pages since the last new key.
    barren: u32,
    /// A page was taken.
    begun: bool,
    /// What its keys have shown of the folders on the way to the last one.
    pub(super) widths: Widths,
}

impl Order {
    pub(super) fn over(range: KeyRange) -> Self {
        Self {
            last: range.start,
            end: range.end,
            page_end: None,
            barren: 0,
            begun: false,
            widths: Widths::default(),
        }
    }

    /// Takes the page that was asked for at `asked`.
    ///
    /// Keys up to the last one are dropped, since stores include `start-after`, or ignore it when it
    /// is asked for behind the last page. A page that says it is the last one is believed only when asking
    /// behind its last key gives nothing new: RustFS #3217 ended a listing in the middle.
    pub(super) fn accept(&mut self, asked: &PageStart, page: ListPage) -> Result<Step, Fault> {
        let mut step = Step::default();
        let mut previous: Option<&str> = None;
        for object in &page.objects {
            if let Some(previous) = previous.filter(|previous| *previous >= &*object.key) {
                return Err(Fault::Order {
                    previous: previous.to_owned(),
                    key: object.key.clone(),
                });
            }
            previous = Some(&object.key);
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        if let (true, PageStart::After(Some(start)), Some(first)) =
            (begins, asked, page.objects.first())
            && first.key < *start
        {
            return Err(Fault::Start { key: first.key.clone() });
        }
        // A token goes on behind the last page, whose last key may come again.
        let before = self.page_end.take().filter(|_| asked.token().is_some());
        if let (Some(before), Some(first)) = (&before, page.objects.first())
            && first.key < *before
        {
            return Err(Fault::Order { previous: before.clone(), key: first.key.clone() });
        }
        self.page_end = page.objects.last().map(|object| object.key.clone()).or(before);
        if page.next.is_some() && page.next.as_deref() == asked.token() {
            return Err(Fault::Circle);
        }
        step.objects = page.objects.into();
        if let Some(last) = &self.last {
            let known = step.objects.partition_point(|object| object.key <= *last);
            step.objects.drain(..known);
        }
        for object in &step.objects {
            self.widths.pass(&object.key);
        }
        let new = step.objects.back().map(|object| object.key.clone());
        step.found = new.is_some();
        self.barren = if step.found { 0 } else { self.barren + 1 };
        if self.barren > BARREN {
            return Err(Fault::Circle);
        }
        self.last = new.or(self.last.take());
        step.past = match (&self.end, &self.last) {
            (Some(end), Some(last)) => last >= end,
            _ => false,
        };
        if let Some(end) = &self.end {
            let kept = step.objects.partition_point(|object| object.key <= *end);
            step.objects.truncate(kept);
        }
        step.next = match page.next {
            _ if step.past => None,
            Some(token) => Some(PageStart::Token(token)),
            None => step.found.then(|| PageStart::After(self.last.clone())),
        };
        Ok(step)
    }
}
