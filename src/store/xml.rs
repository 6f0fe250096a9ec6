//! The XML of S3: small answers read, small requests written.
//!
//! An answer is read as its elements in the order in which they end, each with its path of names
//! (`Error/Code`) and its text. S3's flat documents need no more. A document that stops before its
//! root element ends is an error, so a cut answer is never taken for a short one.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesRef, Event};

use super::Tags;
use crate::object::ETag;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum XmlError {
    #[error("not UTF-8")]
    Encoding,
    #[error("{0}")]
    Syntax(#[from] quick_xml::Error),
    #[error("incomplete document")]
    Incomplete,
}

/// Calls `each` with the path and the text of every element, when it ends.
pub(super) fn read(document: &[u8], mut each: impl FnMut(&str, String)) -> Result<(), XmlError> {
    let text = std::str::from_utf8(document).map_err(|_| XmlError::Encoding)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut path = String::new();
    let mut content = String::new();
    let mut complete = false;
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(start.local_name().into_inner());
                content.clear();
            }
            Event::Text(part) => content.push_str(&part.xml10_content()),
            Event::CData(part) => content.push_str(&part.xml10_content()),
            Event::GeneralRef(part) => push_reference(&mut content, &part)?,
            Event::End(_) => {
                each(&path, std::mem::take(&mut content));
                path.truncate(path.rfind('/').unwrap_or(0));
                complete |= path.is_empty();
            }
            Event::Eof if complete && path.is_empty() => return Ok(()),
            Event::Eof => return Err(XmlError::Incomplete),
            Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
    }
}

/// `&amp;`, `&#34;`; a reference that S3 does not use stays as it is.
fn push_reference(to: &mut String, reference: &BytesRef<'_>) -> Result<(), XmlError> {
    if let Some(character) = reference.resolve_char_ref()? {
        to.push(character);
    } else {
        let name = reference.xml10_content();
        match resolve_predefined_entity(&name) {
            Some(text) => to.push_str(text),
            None => _ = write!(to, "&{name};"),
        }
    }
    Ok(())
}

/// The text of the first element with this path.
pub(super) fn text_of(document: &[u8], wanted: &str) -> Result<Option<String>, XmlError> {
    let mut found = None;
    read(document, |path, text| {
        if path == wanted && found.is_none() {
            found = Some(text);
        }
    })?;
    Ok(found)
}

/// A document in one spelling: its elements in order of their spelling, no name spaces, no white space
/// between elements. `Name(children or text)`, the text with backslashes before brackets and backslashes.
pub(super) fn canonical(document: &[u8]) -> Result<String, XmlError> {
    // The finished elements at each depth that their parent has not taken up yet.
    let mut levels: Vec<Vec<String>> = Vec::new();
    read(document, |path, text| {
        let depth = path.split('/').count();
        levels.resize_with(levels.len().max(depth + 1), Vec::new);
        let mut children = levels.get_mut(depth).map(std::mem::take).unwrap_or_default();
        children.sort_unstable();
        let content = if children.is_empty() {
            text.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)")
        } else {
            children.concat()
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some(level) = levels.get_mut(depth - 1) {
            level.push(format!("{name}({content})"));
        }
    })?;
    Ok(levels.into_iter().next().unwrap_or_default().concat())
}

/// The body of an error answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// Where the bucket lives, on a redirect.
    pub(super) region: Option<String>,
}

/// Reads an error as far as it can be read: proxies answer HTML, and a cut error is still an error. What
/// administrators ask of MinIO is refused in JSON, with the same names.
pub(super) fn error_body(document: &[u8]) -> ErrorBody {
    let mut body = ErrorBody::default();
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(document) {
        let text = |name| json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        (body.code, body.message) = (text("Code"), text("Message"));
        return body;
    }
    let _unreadable = read(document, |path, text| match path {
        "Error/Code" => body.code = Some(text),
        "Error/Message" => body.message = Some(text),
        "Error/Region" => body.region = Some(text),
        _ => {}
    });
    body
}

/// Reads a `Tagging` document.
pub(super) fn tags(document: &[u8]) -> Result<Tags, XmlError> {
    let mut tags = Tags::new();
    let mut key = String::new();
    read(document, |path, text| match path {
        "Tagging/TagSet/Tag/Key" => key = text,
        "Tagging/TagSet/Tag/Value" => _ = tags.insert(std::mem::take(&mut key), text),
        _ => {}
    })?;
    Ok(tags)
}

/// Writes a `Tagging` document.
pub(super) fn tagging(tags: &Tags) -> String {
    let mut to = String::from("<Tagging><TagSet>");
    for (key, value) in tags {
        let (key, value) = (escape(key.as_str()), escape(value.as_str()));
        _ = write!(to, "<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    }
    to.push_str("</TagSet></Tagging>");
    to
}

/// Writes a `CompleteMultipartUpload` document.
pub(super) fn parts(parts: &[(u32, ETag)]) -> String {
    let mut to = String::from("<CompleteMultipartUpload>");
    for (number, etag) in parts {
        let etag = escape(etag.as_str());
        _ = write!(
            to,
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
        );
    }
    to.push_str("</CompleteMultipartUpload>");
    to
}

/// Whether XML 1.0 can carry `key` in a way that every parser gives back unchanged.
///
/// [XML 1.0](https://www.w3.org/TR/xml/#charsets) has no way to write most control characters, not
/// even by reference, and parsers disagree about tabs and line ends.
pub(super) fn can_carry(key: &str) -> bool {
    !key.chars().any(|c| matches!(c, '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}'))
}

/// Writes a quiet `Delete` document; every key is one that [`can_carry`] allows.
pub(super) fn delete<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut to = String::from("<Delete><Quiet>true</Quiet>");
    for key in keys {
        _ = write!(to, "<Object><Key>{}</Key></Object>", escape(key));
    }
    to.push_str("</Delete>");
    to
}

/// One key that `DeleteObjects` could not delete.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeleteFailure {
    pub(super) key: String,
    pub(super) code: String,
    pub(super) message: String,
}

/// Reads the failures in a `DeleteResult` document.
pub(super) fn delete_failures(document: &[u8]) -> Result<Vec<DeleteFailure>, XmlError> {
    let mut failures = Vec::new();
    let mut failure = DeleteFailure::default();
    read(document, |path, text| match path {
        "DeleteResult/Error/Key" => failure.key = text,
        "DeleteResult/Error/Code" => failure.code = text,
        "DeleteResult/Error/Message" => failure.message = text,
        "DeleteResult/Error" => failures.push(std::mem::take(&mut failure)),
        _ => {}
    })?;
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_body_gives_its_code_and_message() {
        let body = error_body(
            b"<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>a &lt;b&gt; &#34;c&#34;</Message></Error>",
        );
        assert_eq!(body.code.as_deref(), Some("NoSuchKey"));
        assert_eq!(body.message.as_deref(), Some("a <b> \"c\""));
        let body = error_body(br#"{"Code":"XMinioAdminNoSuchGroup","Message":"none","HostId":1}"#);
        assert_eq!(body.code.as_deref(), Some("XMinioAdminNoSuchGroup"));
        assert_eq!(body.message.as_deref(), Some("none"));
    }

    #[test]
    fn an_error_body_that_is_cut_or_not_xml_gives_what_it_has() {
        let cut = error_body(b"<Error><Code>SlowDown</Code><Mess");
        assert_eq!(cut.code.as_deref(), Some("SlowDown"));
        assert_eq!(error_body(b"<html><p>bad gateway<br></html>"), ErrorBody::default());
        assert_eq!(error_body(b"\xff\xfe"), ErrorBody::default());
        assert_eq!(error_body(b""), ErrorBody::default());
    }

    #[test]
    fn a_document_that_stops_early_is_not_taken_for_a_short_one() {
        for cut in ["", "<DeleteResult>", "<DeleteResult><Error><Key>a</Key></Error>", "  "] {
            assert!(delete_failures(cut.as_bytes()).is_err(), "{cut:?}");
        }
        assert_eq!(delete_failures(b"<DeleteResult/>").unwrap(), []);
    }

    #[test]
    fn the_failures_of_a_delete_are_told_apart() {
        let failures = delete_failures(
            b"<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Error><Key>a&amp;b </Key>\
              <Code>AccessDenied</Code><Message>no</Message></Error><Error><Key>c</Key><Code>SlowDown</Code>\
              </Error></DeleteResult>",
        )
        .unwrap();
        assert_eq!(failures.len(), 2);
        assert_eq!((failures[0].key.as_str(), failures[0].code.as_str()), ("a&b ", "AccessDenied"));
        assert_eq!((failures[1].key.as_str(), failures[1].message.as_str()), ("c", ""));
    }

    #[test]
    fn keys_with_control_characters_are_not_put_into_xml() {
        for key in ["a\u{1}", "a\nb", "\r", "\t", "\u{ffff}", "\0"] {
            assert!(!can_carry(key), "{key:?}");
        }
        for key in ["a b", "<&>\"'", "]]>", "\u{85}", "ż", " lead"] {
            assert!(can_carry(key), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn a_delete_document_names_exactly_the_keys(keys in prop::collection::vec(".{1,40}", 0..8)) {
            let keys: Vec<_> = keys.into_iter().filter(|key| can_carry(key)).collect();
            let document = delete(keys.iter().map(String::as_str));
            let mut read_back = Vec::new();
            read(document.as_bytes(), |path, text| {
                if path == "Delete/Object/Key" {
                    read_back.push(text);
                }
            }).unwrap();
            prop_assert_eq!(read_back, keys);
        }

        #[test]
        fn tags_survive_their_document(tags in prop::collection::btree_map("[^\\p{Cc}]{1,20}", "[^\\p{Cc}]{0,20}", 0..5)) {
            prop_assert_eq!(super::tags(tagging(&tags).as_bytes()).unwrap(), tags);
        }

        #[test]
        fn reading_never_panics(document in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = read(&document, |_, _| {});
            error_body(&document);
        }
    }
}
