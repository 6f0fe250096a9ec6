//! What S3 says about conditions, parts, tags and listings: pure functions on an entry.

use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::{S3Result, dto, s3_error};

use super::index::Entry;
use crate::store::Tags;

/// What `encoding-type=url` leaves as it is.
const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The conditions of a write, of which `entry` is the object before it.
pub(super) fn check_write(
    entry: Option<&Entry>,
    matching: Option<&dto::ETagCondition>,
    none: Option<&dto::ETagCondition>,
) -> S3Result<()> {
    let refused = match entry {
        Some(entry) => {
            none.is_some_and(|c| holds(entry, c)) || matching.is_some_and(|c| !holds(entry, c))
        }
        None => matching.is_some(),
    };
    if refused { Err(s3_error!(PreconditionFailed)) } else { Ok(()) }
}

/// The conditions of a read.
pub(super) fn check(
    entry: &Entry,
    matching: Option<&dto::ETagCondition>,
    none: Option<&dto::ETagCondition>,
) -> S3Result<()> {
    if matching.is_some_and(|c| !holds(entry, c)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if none.is_some_and(|c| holds(entry, c)) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn holds(entry: &Entry, condition: &dto::ETagCondition) -> bool {
    condition.as_etag().is_none_or(|tag| tag.value() == entry.etag)
}

/// The bytes of one part; an object put in one piece is its own part 1. `None`: there are no bytes.
pub(super) fn part_range(entry: &Entry, number: i32) -> S3Result<Option<dto::Range>> {
    let whole = [entry.size];
    let parts = if entry.parts.is_empty() { whole.as_slice() } else { &entry.parts };
    let position = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    let (before, size) = position
        .and_then(|n| Some((parts.get(..n)?.iter().sum::<i64>(), *parts.get(n)?)))
        .ok_or_else(|| s3_error!(InvalidRange))?;
    let first = u64::try_from(before).unwrap_or_default();
    let size = u64::try_from(size).unwrap_or_default();
    Ok((size > 0).then(|| dto::Range::Int { first, last: Some(first + size - 1) }))
}

pub(super) fn parts_count(entry: &Entry) -> Option<i32> {
    i32::try_from(entry.parts.len()).ok().filter(|n| *n > 0)
}

pub(super) fn tag_count(entry: &Entry) -> Option<i32> {
    i32::try_from(entry.tags.len()).ok().filter(|n| *n > 0)
}

/// `x-amz-tagging` is a query string.
pub(super) fn header_tags(header: Option<&str>) -> Tags {
    form_urlencoded::parse(header.unwrap_or_default().as_bytes()).into_owned().collect()
}

pub(super) fn listed(key: String, entry: Entry) -> dto::Object {
    let since_epoch = Duration::from_millis(entry.modified_ms.max(0).unsigned_abs());
    dto::Object {
        key: Some(key),
        e_tag: Some(dto::ETag::Strong(entry.etag)),
        size: Some(entry.size),
        last_modified: Some((UNIX_EPOCH + since_epoch).into()),
        storage_class: Some(dto::ObjectStorageClass::from_static(
            dto::ObjectStorageClass::STANDARD,
        )),
        ..Default::default()
    }
}

pub(super) fn encoder(encoding: Option<&dto::EncodingType>) -> impl Fn(&str) -> String + use<> {
    let url = encoding.is_some_and(|e| e.as_str() == dto::EncodingType::URL);
    move |name| {
        if url { utf8_percent_encode(name, UNRESERVED).to_string() } else { name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: i64, parts: &[i64]) -> Entry {
        let (blob, etag) = ("b".to_owned(), "e".to_owned());
        Entry { blob, size, etag, modified_ms: 0, parts: parts.to_vec(), tags: Tags::new() }
    }

    #[test]
    fn a_part_is_its_own_bytes_and_an_object_in_one_piece_is_its_part_1() {
        let range = |size, parts: &[i64], number| part_range(&entry(size, parts), number).ok();
        let bytes = |first, last| Some(Some(dto::Range::Int { first, last: Some(last) }));
        assert_eq!(range(30, &[10, 20], 1), bytes(0, 9));
        assert_eq!(range(30, &[10, 20], 2), bytes(10, 29));
        assert_eq!(range(7, &[], 1), bytes(0, 6));
        assert_eq!(range(0, &[], 1), Some(None));
        for (parts, number) in [(&[10, 20][..], 3), (&[], 2), (&[], 0), (&[], -1)] {
            assert_eq!(range(30, parts, number), None);
        }
    }

    #[test]
    fn conditions_are_those_of_s3() {
        let (e, other) = (dto::ETag::Strong("e".to_owned()), dto::ETag::Strong("o".to_owned()));
        let (e, other) = (dto::ETagCondition::ETag(e), dto::ETagCondition::ETag(other));
        let any = dto::ETagCondition::Any;
        let entry = entry(1, &[]);
        assert!(check(&entry, Some(&e), Some(&other)).is_ok());
        assert!(check(&entry, Some(&other), None).is_err());
        assert!(check(&entry, None, Some(&e)).is_err());
        assert!(check_write(Some(&entry), Some(&e), None).is_ok());
        assert!(check_write(Some(&entry), Some(&other), None).is_err());
        assert!(check_write(Some(&entry), None, Some(&any)).is_err());
        assert!(check_write(None, None, Some(&any)).is_ok());
        assert!(check_write(None, Some(&any), None).is_err());
    }
}
