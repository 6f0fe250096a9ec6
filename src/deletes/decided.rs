//! Which deletes at the target a person decided about in `run`, or has yet to decide: its objects stay.
//!
//! Read from the `data_dir` of `run`, which may be at work meanwhile; nothing is written there. What a person
//! decides while a command runs it need not know of. **On error** nothing may be deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::book::BrakeBook;
use super::discarded::Discards;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::dirty::Aspects;
use crate::journal::peek::first_unfinished;
use crate::remembered::Kept;
use crate::shelf::Shelf;

const HELD: &str = "`evermirror run` holds deletes in this bucket for a person to decide about (see \
`evermirror deletes list`)";
const UNSEEN: &str = "a person discarded deletes in this bucket that `evermirror run` has not looked at yet; \
let it run until nothing is pending";

/// What was decided, and what was not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletes {
    /// Objects that a person wants to stay.
    pub(crate) kept: Kept,
    /// Buckets whose deletes are held, by their names at the source, and why.
    pub(crate) brakes: BTreeMap<Arc<str>, Arc<str>>,
    /// Those of them in which a person discarded deletes of keys that nobody knows yet: nothing may be approved there.
    unseen: BTreeSet<Arc<str>>,
}

impl Deletes {
    /// Reads what `run` has written down.
    pub(crate) async fn read(settings: &Settings) -> anyhow::Result<Self> {
        let dir = settings.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || {
            let deletes = Self::of(&dir);
            deletes.with_context(|| {
                format!(
                    "failed to read in {} which deletes `evermirror run` holds and which a person discarded; \
                     nothing was changed. Make it readable for this command",
                    dir.display()
                )
            })
        });
        read.await?
    }

    fn of(dir: &Path) -> anyhow::Result<Self> {
        let dir = DataDir::at(dir);
        let (mut brakes, mut unseen) = (BTreeMap::new(), BTreeSet::new());
        let unfinished = first_unfinished(&dir.journal())?;
        for (bucket, until) in Discards::peek(&dir.discards())? {
            if until > unfinished {
                unseen.insert(bucket.into());
            }
        }
        // What was set aside is covered whatever its record's number is.
        Shelf::peek(&dir.deferred(), |dirty| {
            if dirty.aspects.has(Aspects::DISCARDED) {
                unseen.insert(dirty.key.bucket);
            }
        })?;
        for (bucket, brake) in BrakeBook::peek(&dir.brakes())? {
            if let Some(on) = brake.on {
                brakes.insert(bucket, on.reason);
            }
        }
        let held: Arc<str> = HELD.into();
        Shelf::peek(&dir.held(), |dirty| {
            brakes.insert(dirty.key.bucket, Arc::clone(&held));
        })?;
        let reason = Arc::<str>::from(UNSEEN);
        brakes.extend(unseen.iter().map(|bucket| (Arc::clone(bucket), Arc::clone(&reason))));
        Ok(Self { kept: Kept::read(&dir.reconcile())?, brakes, unseen })
    }

    /// A person approves what this command finds: what holds deletes does so no more, but for deletes that a person
    /// discarded before.
    pub(crate) fn approve(&mut self) {
        self.brakes.retain(|bucket, _| self.unseen.contains(bucket));
    }

    /// Those buckets: what was approved there, also for an earlier command, is so no more.
    pub(crate) fn unseen(&self) -> Arc<BTreeSet<Arc<str>>> {
        Arc::new(self.unseen.clone())
    }

    /// Whether deletes in this source bucket can be approved.
    pub(crate) fn can_approve(&self, bucket: &str) -> bool {
        !self.unseen.contains(bucket)
    }

    /// Whether a person wants this object of a source bucket to stay. In doubt it stays.
    pub(crate) fn keeps(&self, bucket: &str, key: &str) -> bool {
        self.kept.has(bucket, key).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::{Aspects, DirtyKey, Origin};
    use crate::object::ObjectKey;
    use crate::remembered::Remembered;

    #[tokio::test]
    async fn what_run_holds_and_what_a_person_discarded_is_read_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let none = Deletes::of(&dir.join("nowhere")).unwrap();
        assert!(none.brakes.is_empty() && !none.keeps("b", "k") && !dir.join("nowhere").exists());

        let (shelf, _) = Shelf::open(dir.join("held"), 64 << 20).await.unwrap();
        let dirty = DirtyKey {
            key: ObjectKey::new("held", "k"),
            aspects: Aspects::REMOVED,
            origin: Origin::Live,
            since_ms: 1,
            size: None,
        };
        shelf.put(&[dirty.clone(), dirty]).await.unwrap();
        let remembered = Remembered::open(&dir.join("reconcile")).unwrap();
        remembered.keep("b", "k").unwrap();
        let deletes = Deletes::of(dir).unwrap();
        assert_eq!(deletes.brakes.keys().map(|b| &**b).collect::<Vec<_>>(), ["held"]);
        assert!(deletes.keeps("b", "k") && !deletes.keeps("b", "other"));
        shelf.close().await;
    }

    #[test]
    fn what_was_discarded_and_not_looked_at_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let discards = Discards::open(&dir.path().join("discards"), 9).unwrap();
        assert!(Deletes::of(dir.path()).unwrap().brakes.is_empty());
        discards.record("done", 1).unwrap();
        discards.record("unseen", 7).unwrap();
        let deletes = Deletes::of(dir.path()).unwrap();
        let named: Vec<_> = deletes.brakes.keys().map(|bucket| &**bucket).collect();
        assert_eq!(named, ["unseen"], "the journal is at 1");
    }

    #[test]
    fn an_approval_for_one_command_takes_back_no_discard_that_nobody_has_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let discards = Discards::open(&dir.path().join("discards"), 9).unwrap();
        discards.record("unseen", 7).unwrap();
        let mut deletes = Deletes::of(dir.path()).unwrap();
        deletes.brakes.insert("held".into(), "a burst".into());
        deletes.approve();
        let named: Vec<_> = deletes.brakes.keys().map(|bucket| &**bucket).collect();
        assert_eq!(named, ["unseen"]);
        assert!(deletes.can_approve("held") && !deletes.can_approve("unseen"));
    }
}
