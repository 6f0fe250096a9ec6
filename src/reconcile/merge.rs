//! What two listings say of one key: pure.

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
    /// The content is the same, but the source's object was written after the target's: its metadata
    /// may have changed. A HEAD of both decides.
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

/// Remembers which `ETag` the target gave to which source `ETag`, where the two cannot be equal.
pub trait Pairs: Send + Sync {
    /// Whether the target's object of this tag is a verified copy of the source's of that tag.
    fn knows(&self, key: &str, source: &ETag, target: &ETag) -> bool;
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
    /// The pairs that are remembered.
    pub pairs: &'a dyn Pairs,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (skew_ms, opaque) = (self.skew_ms, self.opaque);
        f.debug_struct("Rules").field("skew_ms", &skew_ms).field("opaque", &opaque).finish()
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
    if written_ms > target.modified_ms.saturating_add(DOUBT_MS) {
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
