//! What two listings say of one key: pure.

use crate::dirty::Aspects;
use crate::object::ETag;
use crate::store::ListedObject;

/// The times of two stores are compared with this much doubt, beside their clocks' difference: HEAD
/// and `Date` know whole seconds only.
const DOUBT_MS: i64 = 1000;

/// Which half of an object differs, so that it must be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// The sizes.
    Size,
    /// The `ETag`s, which both stores would have made the same of the same bytes.
    ETag,
}

/// What the two listings say of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Finding {
    /// The content is the same: by `ETag`, or by a remembered pair of them.
    Same,
    /// Only at the source.
    Missing,
    /// Only at the target.
    Extra,
    /// The content differs.
    Different(Why),
    /// The content is the same, but the source's object was written after the target's, or [`Rules::closer`]
    /// asks for more than a listing shows: its metadata may have changed. A HEAD of both decides.
    Newer,
    /// The sizes are equal and the `ETag`s cannot be compared (other part sizes, KMS, opaque), nor
    /// is the pair remembered. A HEAD of both, or their bytes, decide.
    Unverifiable,
}

impl Finding {
    /// The name used in metrics, logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different(Why::Size) => "different_size",
            Self::Different(Why::ETag) => "different_etag",
            Self::Newer => "newer",
            Self::Unverifiable => "unverifiable",
        }
    }
}

impl Finding {
    /// What a worker is to look at; `None` if nothing has to be done. Where both sides have the object, it compares them
    /// first: the target's metadata may remember the source's tag, and the listings may be old.
    pub const fn repair(self) -> Option<Aspects> {
        match self {
            Self::Same => None,
            Self::Missing => Some(Aspects::CONTENT),
            Self::Extra => Some(Aspects::REMOVED),
            Self::Different(_) | Self::Newer | Self::Unverifiable => {
                Some(Aspects::CONTENT.with(Aspects::CHECK))
            }
        }
    }
}

/// Remembers which `ETag` the target gave to which source `ETag`, where the two cannot be equal.
pub trait Pairs: Send + Sync {
    /// Whether the target's object of this tag is a verified copy of the source's of that tag.
    fn knows(&self, key: &str, source: &ETag, target: &ETag) -> bool;

    /// Both sides list the same content under this key.
    fn agree(&self, _key: &str) {}
}

/// No pair is remembered.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPairs;

impl Pairs for NoPairs {
    fn knows(&self, _key: &str, _source: &ETag, _target: &ETag) -> bool {
        false
    }
}

impl<F: Fn(&str, &ETag, &ETag) -> bool + Send + Sync> Pairs for F {
    fn knows(&self, key: &str, source: &ETag, target: &ETag) -> bool {
        self(key, source, target)
    }
}

/// How two objects are compared.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The source's clock less the target's, as measured, in milliseconds.
    pub skew_ms: i64,
    /// A tag that looks like an MD5 may not be one on either side (SSE-KMS, SSE-C): a difference of
    /// tags proves nothing.
    pub opaque: bool,
    /// No object is the same by its listing alone, which shows neither headers nor tags.
    pub closer: bool,
    /// What was written before this time, in milliseconds on the source's clock, was looked at already
    /// if its content is the same: that it is newer than the target's says nothing. After a restore
    /// every object is.
    pub looked_until_ms: Option<i64>,
    /// The pairs that are remembered.
    pub pairs: &'a dyn Pairs,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("skew_ms", &self.skew_ms)
            .field("opaque", &self.opaque)
            .field("closer", &self.closer)
            .field("looked_until_ms", &self.looked_until_ms)
            .finish_non_exhaustive()
    }
}

/// Compares what the two sides list under one key; `None` is "not listed". Neither is [`Finding::Same`].
pub fn compare(
    source: Option<&ListedObject>,
    target: Option<&ListedObject>,
    rules: Rules<'_>,
) -> Finding {
    match (source, target) {
        (None, None) => Finding::Same,
        (Some(_), None) => Finding::Missing,
        (None, Some(_)) => Finding::Extra,
        (Some(source), Some(target)) => compare_both(source, target, rules),
    }
}

fn compare_both(source: &ListedObject, target: &ListedObject, rules: Rules<'_>) -> Finding {
    if source.size != target.size {
        return Finding::Different(Why::Size);
    }
    let equal = source.etag == target.etag && !source.etag.as_str().is_empty();
    if !equal && !rules.pairs.knows(&source.key, &source.etag, &target.etag) {
        return if !rules.opaque && same_kind(&source.etag, &target.etag) {
            Finding::Different(Why::ETag)
        } else {
            Finding::Unverifiable
        };
    }
    let written_ms = source.modified_ms.saturating_sub(rules.skew_ms);
    let newer = written_ms > target.modified_ms.saturating_add(DOUBT_MS);
    if rules.closer || newer && rules.looked_until_ms.is_none_or(|ms| source.modified_ms >= ms) {
        Finding::Newer
    } else {
        Finding::Same
    }
}

/// Whether the same bytes would have got the same tag on both sides: both are MD5s, or both name as
/// many parts, which is how evermirror copies.
fn same_kind(source: &ETag, target: &ETag) -> bool {
    match (source.parts(), target.parts()) {
        (Some(source), Some(target)) => source == target,
        (None, None) => source.md5().is_some() && target.md5().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "0cc175b9c0f1b6a831c399e269772661";
    const B: &str = "92eb5ffee6ae2fec3ad71c777531578f";
    const RULES: Rules<'_> =
        Rules { skew_ms: 0, opaque: false, closer: false, looked_until_ms: None, pairs: &NoPairs };

    fn object(etag: &str, size: u64, modified_ms: i64) -> ListedObject {
        ListedObject { key: "k".to_owned(), size, etag: ETag::new(etag), modified_ms }
    }

    fn tags(source: &str, target: &str, rules: Rules<'_>) -> Finding {
        compare(Some(&object(source, 1, 0)), Some(&object(target, 1, 0)), rules)
    }

    #[test]
    fn a_key_on_one_side_is_missing_or_extra() {
        let one = object(A, 1, 0);
        assert_eq!(compare(Some(&one), None, RULES), Finding::Missing);
        assert_eq!(compare(None, Some(&one), RULES), Finding::Extra);
    }

    #[test]
    fn sizes_decide_before_tags_and_pairs() {
        let known = |_: &str, _: &ETag, _: &ETag| true;
        let rules = Rules { pairs: &known, ..RULES };
        let found = compare(Some(&object(A, 1, 0)), Some(&object(A, 2, 0)), rules);
        assert_eq!(found, Finding::Different(Why::Size));
    }

    #[test]
    fn tags_prove_a_difference_only_where_they_are_made_alike() {
        let parts = |tag: &str, count: u32| format!("{tag}-{count}");
        assert_eq!(tags(A, A, RULES), Finding::Same);
        assert_eq!(tags(A, B, RULES), Finding::Different(Why::ETag));
        assert_eq!(tags(&parts(A, 3), &parts(A, 3), RULES), Finding::Same);
        assert_eq!(tags(&parts(A, 3), &parts(B, 3), RULES), Finding::Different(Why::ETag));
        assert_eq!(tags(&parts(A, 3), &parts(B, 4), RULES), Finding::Unverifiable);
        assert_eq!(tags(&parts(A, 3), A, RULES), Finding::Unverifiable);
        assert_eq!(tags(A, "opaque", RULES), Finding::Unverifiable);
        assert_eq!(tags("", "", RULES), Finding::Unverifiable);
        assert_eq!(tags(A, B, Rules { opaque: true, ..RULES }), Finding::Unverifiable);
    }

    #[test]
    fn a_remembered_pair_makes_unequal_tags_the_same() {
        let known = |key: &str, source: &ETag, target: &ETag| {
            (key, source.as_str(), target.as_str()) == ("k", A, B)
        };
        let rules = Rules { pairs: &known, ..RULES };
        assert_eq!(tags(A, B, rules), Finding::Same);
        assert_eq!(tags(B, A, rules), Finding::Different(Why::ETag));
    }

    #[test]
    fn newer_means_later_by_more_than_the_clocks_differ_and_a_second() {
        let at = |source_ms, skew_ms| {
            let (source, target) = (object(A, 1, source_ms), object(A, 1, 10_000));
            compare(Some(&source), Some(&target), Rules { skew_ms, ..RULES })
        };
        assert_eq!(at(11_000, 0), Finding::Same);
        assert_eq!(at(11_001, 0), Finding::Newer);
        assert_eq!(at(16_000, 5_000), Finding::Same);
        assert_eq!(at(16_001, 5_000), Finding::Newer);
        assert_eq!(at(6_000, -5_000), Finding::Same);
        assert_eq!(at(6_001, -5_000), Finding::Newer);
        assert_eq!(at(i64::MAX, i64::MIN), Finding::Newer);
    }

    #[test]
    fn what_was_looked_at_is_not_newer_again() {
        let at = |source_ms, looked_until_ms, closer| {
            let (source, target) = (object(A, 1, source_ms), object(A, 1, 10_000));
            let rules = Rules { closer, looked_until_ms, ..RULES };
            compare(Some(&source), Some(&target), rules)
        };
        assert_eq!(at(19_999, Some(20_000), false), Finding::Same);
        assert_eq!(at(20_000, Some(20_000), false), Finding::Newer);
        assert_eq!(at(10_500, Some(10_000), false), Finding::Same);
        assert_eq!(at(19_999, None, false), Finding::Newer);
        assert_eq!(at(19_999, Some(20_000), true), Finding::Newer);
    }

    #[test]
    fn a_closer_look_is_asked_for_what_would_be_the_same_and_for_nothing_else() {
        let closer = Rules { closer: true, ..RULES };
        assert_eq!(tags(A, A, closer), Finding::Newer);
        assert_eq!(tags(A, B, closer), Finding::Different(Why::ETag));
        assert_eq!(compare(None, Some(&object(A, 1, 0)), closer), Finding::Extra);
        assert_eq!(compare(None, None, closer), Finding::Same);
    }

    proptest! {
        #[test]
        fn what_differs_is_never_the_same(
            source in ("[ab]", 0_u64..3, -5_000_i64..5_000), target in ("[ab]", 0_u64..3, -5_000_i64..5_000),
            skew_ms in -3_000_i64..3_000,
        ) {
            let names = BTreeMap::from([("a", A), ("b", B)]);
            let side = |(tag, size, at): &(String, u64, i64)| object(names[tag.as_str()], *size, *at);
            let found = compare(Some(&side(&source)), Some(&side(&target)), Rules { skew_ms, ..RULES });
            let same = source.0 == target.0 && source.1 == target.1;
            let late = source.2 - target.2 > skew_ms + 1_000;
            prop_assert_eq!(found == Finding::Same, same && !late);
            prop_assert_eq!(found == Finding::Newer, same && late);
        }
    }
}
