//! The one spelling of paths and queries: what goes over the wire is what is signed.
//!
//! S3 wants every byte except `A-Z a-z 0-9 - . _ ~` percent-encoded once, and `/` kept in paths only
//! ([AWS: signing](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html)).
//! Nothing is normalised: `//`, `.` and `..` are parts of a key like any other.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Appends `text` as a part of a path.
pub(super) fn push_path(to: &mut String, text: &str) {
    to.extend(utf8_percent_encode(text, PATH));
}

/// A query in canonical form: `name=value` joined by `&`, sorted by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(String);

impl Query {
    /// A query of one name without a value, which names a sub-resource (`tagging=`).
    pub(super) fn flag(name: &str) -> Self {
        Self::default().with(name, "")
    }

    /// Adds a pair; names must come in byte order, and the values of one name, since the signature is
    /// over the sorted query.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        debug_assert!(self.is_before(name, value), "{name}={value} is late");
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.extend(utf8_percent_encode(name, QUERY));
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, QUERY));
        self
    }

    /// Whether the last pair comes before this one.
    fn is_before(&self, name: &str, value: &str) -> bool {
        let Some((last, last_value)) = self.0.rsplit('&').next().and_then(|p| p.split_once('='))
        else {
            return true;
        };
        let value = utf8_percent_encode(value, QUERY).to_string();
        (last, last_value) < (name, &*value)
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Undoes the `encoding-type=url` of a listing; `None` if the result is not UTF-8.
///
/// MinIO writes a space as `+`, RustFS as `%20`, AWS either: form decoding fits all three.
pub(super) fn decode_listed(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(key: &str) -> String {
        let mut to = String::new();
        push_path(&mut to, key);
        to
    }

    #[test]
    fn a_path_keeps_every_byte_of_a_hostile_key() {
        for (key, encoded) in [
            ("//a/../.", "//a/../."),
            ("/a/", "/a/"),
            ("a%2Fb", "a%252Fb"),
            ("a+b c", "a%2Bb%20c"),
            ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
            ("\u{1}\n\u{7f}", "%01%0A%7F"),
            ("żółć", "%C5%BC%C3%B3%C5%82%C4%87"),
            ("-._~", "-._~"),
            ("*'()!:@$,;", "%2A%27%28%29%21%3A%40%24%2C%3B"),
        ] {
            assert_eq!(path(key), encoded, "{key:?}");
        }
    }

    #[test]
    fn a_query_is_canonical() {
        let query = Query::default().with("list-type", "2").with("prefix", "a/b c+");
        assert_eq!(query.as_str(), "list-type=2&prefix=a%2Fb%20c%2B");
        assert_eq!(Query::flag("tagging").as_str(), "tagging=");
    }

    #[test]
    fn a_listed_key_is_decoded_in_every_stores_spelling() {
        for spelled in ["a+b/%2B%C5%BC*", "a%20b%2F%2B%c5%bc%2A"] {
            assert_eq!(decode_listed(spelled).as_deref(), Some("a b/+ż*"));
        }
        assert_eq!(decode_listed("%FF"), None);
    }

    proptest! {
        #[test]
        fn an_encoded_key_is_a_path_that_http_accepts_and_decodes_to_itself(key in "\\PC{0,64}|.{0,64}") {
            let text = format!("/{}", path(&key));
            let uri: http::uri::PathAndQuery = text.parse().unwrap();
            prop_assert_eq!(uri.as_str(), &text);
            prop_assert_eq!(uri.query(), None);
            let decoded = percent_decode_str(&text).decode_utf8().unwrap();
            prop_assert_eq!(decoded, format!("/{key}"));
        }
    }
}
