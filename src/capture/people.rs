//! Users, groups and policies, put back into a store.
//!
//! The stores' import does most of it. It refuses an archive as a whole for one policy that it does not
//! understand, so then each policy comes by itself; and it forgets that a group was switched off, and leaves in
//! a group whoever is there, so that is said afterwards. What fails is told, and the rest goes on.

use super::iam::{self, Assets, Change, GroupStep};
use super::report::PutBackReport;
use super::{CaptureError, Document, Setting};
use crate::store::{Store, StoreError, StoreKind};
use crate::stores::patiently;

/// A store, and what it says of its users, groups and policies.
pub(super) struct People<'a> {
    to: &'a Store,
    kind: StoreKind,
    captured: Assets,
    there: Assets,
    change: Change,
}

impl<'a> People<'a> {
    /// Compares those of the document with those of the store; `None` if the document has none that can be
    /// used, or the store cannot have any.
    pub(super) async fn compare(
        to: &'a Store,
        kind: StoreKind,
        document: &Document,
        report: &mut PutBackReport,
    ) -> Result<Option<Self>, CaptureError> {
        let Setting::Set { document } = &document.iam else { return Ok(None) };
        let captured: Assets = match serde_json::from_value(document.clone()) {
            Ok(captured) => captured,
            Err(error) => {
                report.problems.push(format!("users and policies cannot be used: {error}"));
                return Ok(None);
            }
        };
        let Some(there) = patiently(|| to.export_iam(kind)).await? else {
            report.problems.push("users and policies: the destination has no such things".into());
            return Ok(None);
        };
        let there = iam::unpack(there).map_err(CaptureError::Refused)?;
        let change = iam::compare(&captured, &there);
        let words = |entities: &[iam::Entity]| entities.iter().map(iam::words).collect::<Vec<_>>();
        report.changes.extend(words(&change.missing));
        report.conflicts.extend(words(&change.differing));
        report.need_secrets.extend(words(&change.need_secrets));
        report.notes.extend(change.left_out.iter().cloned());
        report.same += change.same;
        Ok(Some(Self { to, kind, captured, there, change }))
    }

    /// Writes what is missing and what differs; gives what failed.
    pub(super) async fn put(&self) -> Result<Vec<String>, CaptureError> {
        let entities = [&*self.change.missing, &*self.change.differing].concat();
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let mut problems = Vec::new();
        let chosen = iam::only(&self.captured, &entities);
        match self.import(&chosen).await? {
            Err(error) if error.status.is_some_and(|status| status < 500) => {
                for part in iam::parts(&chosen) {
                    if let Err(error) = self.import(&part).await? {
                        problems.push(format!("{}: {error}", iam::summary(&part)));
                    }
                }
            }
            Err(error) => problems.push(format!("users and policies: {error}")),
            Ok(()) => {}
        }
        for step in iam::group_steps(&self.captured, &self.there, &entities) {
            if let Err(error) = self.settle(&step).await {
                problems.push(format!("group {}: {error}", step.group.escape_debug()));
            }
        }
        Ok(problems)
    }

    /// Whether the store took it; an archive that cannot be made is another error.
    async fn import(&self, assets: &Assets) -> Result<Result<(), StoreError>, CaptureError> {
        let archive = iam::pack(assets).map_err(CaptureError::Refused)?;
        Ok(self.to.import_iam(self.kind, archive).await)
    }

    async fn settle(&self, step: &GroupStep) -> Result<(), StoreError> {
        if !step.strangers.is_empty() {
            self.to.remove_from_group(self.kind, &step.group, &step.strangers).await?;
        }
        self.to.set_group_status(self.kind, &step.group, step.enabled).await
    }

    /// What the store does not say as it was captured.
    pub(super) async fn not_equal(&self) -> Result<Vec<String>, CaptureError> {
        let there = patiently(|| self.to.export_iam(self.kind)).await?;
        let there = there.map_or(Ok(Assets::new()), iam::unpack).map_err(CaptureError::Refused)?;
        let change = iam::compare(&self.captured, &there);
        Ok(change.missing.iter().chain(&change.differing).map(iam::words).collect())
    }
}
