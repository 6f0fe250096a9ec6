//! What a pass counts.

use std::time::Duration;

use crate::policy::CANARY;
use crate::reconcile::merge::Finding;
use crate::store::ListedObject;

/// What a pass found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Objects that the source listed.
    pub source_objects: u64,
    /// Those of them that are evermirror's own, with which `doctor` tries a bucket: they say nothing of it.
    pub own_objects: u64,
    /// The bytes of all.
    pub source_bytes: u64,
    /// Objects that the target listed.
    pub target_objects: u64,
    /// Keys by finding.
    pub same: u64,
    /// Only at the source.
    pub missing: u64,
    /// Only at the target.
    pub extra: u64,
    /// Content that differs.
    pub different: u64,
    /// Metadata that may differ.
    pub newer: u64,
    /// What a listing cannot tell.
    pub unverifiable: u64,
    /// A store was found not to honour `start-after`, which listing in ranges rests on. Every key was
    /// compared all the same, but nothing may be deleted by such a pass.
    pub start_ignored: bool,
    /// Where the next pass may cut the key space; a bounded number, evenly spaced.
    pub split_points: Vec<String>,
    /// How many ranges it took.
    pub ranges: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl PassReport {
    /// Adds what another worker counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.source_objects += other.source_objects;
        self.own_objects += other.own_objects;
        self.source_bytes += other.source_bytes;
        self.target_objects += other.target_objects;
        self.same += other.same;
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.newer += other.newer;
        self.unverifiable += other.unverifiable;
        self.ranges += other.ranges;
        self.start_ignored |= other.start_ignored;
    }

    /// Counts one key.
    pub(super) fn count(
        &mut self,
        finding: Finding,
        source: Option<&ListedObject>,
        target: Option<&ListedObject>,
    ) {
        self.source_objects += u64::from(source.is_some());
        let own = source.is_some_and(|object| object.key.ends_with(CANARY));
        self.own_objects += u64::from(own);
        self.source_bytes += source.map_or(0, |object| object.size);
        self.target_objects += u64::from(target.is_some());
        *match finding {
            Finding::Same => &mut self.same,
            Finding::Missing => &mut self.missing,
            Finding::Extra => &mut self.extra,
            Finding::Different(_) => &mut self.different,
            Finding::Newer => &mut self.newer,
            Finding::Unverifiable => &mut self.unverifiable,
        } += 1;
    }
}
