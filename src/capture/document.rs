//! What is captured, as one JSON document with a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::means;

/// What [`Document::format`] says.
const FORMAT: &str = "evermirror-capture";
/// The version of this layout.
const VERSION: u32 = 1;

/// The settings of a store at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document {
    /// Always `evermirror-capture`.
    pub format: String,
    /// Of the layout; one that is not known is refused.
    pub version: u32,
    /// When, RFC 3339.
    pub taken: String,
    /// The evermirror that wrote it.
    pub evermirror: String,
    /// The store's endpoint.
    pub source: String,
    /// Whose software it ran.
    pub kind: String,
    /// The secret keys of users were left out.
    pub redacted: bool,
    /// Each bucket's settings, by name.
    pub buckets: BTreeMap<String, BTreeMap<String, Setting>>,
    /// Users, groups and policies: the files of the store's own export, by name.
    pub iam: Setting,
}

/// What is known of one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Setting {
    /// This is it: XML as a string, or JSON.
    Set {
        /// As the store says it.
        document: Value,
    },
    /// The store says that there is none.
    None,
    /// The store does not know such a thing.
    NotSupported,
    /// Nobody asked.
    NotAsked,
    /// It could not be read.
    Failed {
        /// Why.
        error: String,
    },
}

impl Setting {
    /// Whether both mean the same. Failures are all alike.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set { document: one }, Self::Set { document: two }) => {
                meaning(one) == meaning(two)
            }
            (Self::Failed { .. }, Self::Failed { .. }) => true,
            (one, other) => one == other,
        }
    }
}

/// A value in one spelling: what is marked as changed at some time is not a difference, nor is the order
/// of a list of words, which stores keep as sets.
pub(super) fn meaning(value: &Value) -> Value {
    match value {
        Value::String(text) if text.trim_start().starts_with('<') => Value::String(means(text)),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(meaning).collect();
            if list.iter().all(Value::is_string) {
                list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
            Value::Array(list)
        }
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(name, _)| *name != "updatedAt")
                .map(|(name, value)| (name.clone(), meaning(value)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

impl Document {
    /// An empty one, taken at `taken_ms`.
    pub(super) fn new(source: &str, kind: &str, redacted: bool, taken_ms: i64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            taken: moment(taken_ms).to_string(),
            evermirror: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.to_owned(),
            kind: kind.to_owned(),
            redacted,
            buckets: BTreeMap::new(),
            iam: Setting::NotAsked,
        }
    }

    /// Reads one. The error is a sentence without its end.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let head: Value =
            serde_json::from_slice(text).map_err(|error| format!("it is damaged: {error}"))?;
        if head.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err("it is no captured document of evermirror".to_owned());
        }
        let version = head.get("version").and_then(Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(format!(
                "its version is {version}, and this evermirror reads version {VERSION}"
            ));
        }
        serde_json::from_value(head).map_err(|error| format!("it is damaged: {error}"))
    }

    /// As it is written.
    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// What could not be read, each with where.
    pub fn failures(&self) -> Vec<String> {
        let buckets = self.buckets.iter().flat_map(|(bucket, settings)| {
            let bucket = bucket.escape_debug();
            let failed: Vec<_> = settings
                .iter()
                .filter_map(|(name, setting)| match setting {
                    Setting::Failed { error } => Some((name, error)),
                    Setting::Set { .. }
                    | Setting::None
                    | Setting::NotSupported
                    | Setting::NotAsked => None,
                })
                .collect();
            match failed.as_slice() {
                // The bucket itself, rather than its settings.
                [(_, error), rest @ ..]
                    if failed.len() == settings.len() && rest.iter().all(|(_, e)| e == error) =>
                {
                    vec![format!("bucket {bucket}: {error}")]
                }
                _ => failed
                    .iter()
                    .map(|(name, error)| format!("bucket {bucket}, {name}: {error}"))
                    .collect(),
            }
        });
        let iam = match &self.iam {
            Setting::Failed { error } => Some(format!("users and policies: {error}")),
            Setting::Set { .. } | Setting::None | Setting::NotSupported | Setting::NotAsked => None,
        };
        buckets.chain(iam).collect()
    }

    /// Whether both say the same, whenever they were taken and by whichever evermirror.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let same = |one: &BTreeMap<String, Setting>, two: &BTreeMap<String, Setting>| {
            one.len() == two.len()
                && one.iter().all(|(name, setting)| {
                    two.get(name).is_some_and(|other| setting.same_as(other))
                })
        };
        self.source == other.source
            && self.redacted == other.redacted
            && self.iam.same_as(&other.iam)
            && self.buckets.len() == other.buckets.len()
            && self
                .buckets
                .iter()
                .all(|(name, one)| other.buckets.get(name).is_some_and(|two| same(one, two)))
    }
}

/// `ms` milliseconds after the Unix epoch.
pub(super) fn moment(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(tags: &str, taken_ms: i64) -> Document {
        let mut document = Document::new("http://s:1", "MinIO", true, taken_ms);
        let tags = Setting::Set { document: Value::from(tags) };
        document.buckets.insert("b".into(), [("tags".to_owned(), tags)].into());
        document.iam = Setting::Failed { error: taken_ms.to_string() };
        document
    }

    #[test]
    fn only_what_is_set_makes_two_documents_differ() {
        let one = document("<T><A>1</A><B>2</B></T>", 1);
        assert!(one.same_as(&document("<T>\n<B>2</B><A>1</A></T>", 2)));
        assert!(!one.same_as(&document("<T><A>1</A></T>", 1)));
        assert_eq!(one.failures(), ["users and policies: 1"]);
        let (a, b) = (json!({"a": ["x", "y"]}), json!({"a": ["y", "x"], "updatedAt": "now"}));
        assert_eq!(meaning(&a), meaning(&b));
        assert_ne!(meaning(&json!([{"a": 1}, {"b": 2}])), meaning(&json!([{"b": 2}, {"a": 1}])));
    }

    #[test]
    fn a_bucket_that_cannot_be_used_is_one_failure_and_not_one_for_each_setting() {
        let mut one = document("<T/>", 1);
        one.iam = Setting::NotAsked;
        let failed = |error: &str| Setting::Failed { error: error.to_owned() };
        let settings = one.buckets.get_mut("b").unwrap();
        *settings = [("cors".to_owned(), failed("404")), ("tags".to_owned(), failed("404"))].into();
        assert_eq!(one.failures(), ["bucket b: 404"]);
        one.buckets.get_mut("b").unwrap().insert("policy".to_owned(), Setting::None);
        assert_eq!(one.failures(), ["bucket b, cors: 404", "bucket b, tags: 404"]);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_ours_is_refused() {
        let one = document("<T/>", 1);
        assert!(Document::parse(&one.text()).unwrap().same_as(&one));
        let newer =
            String::from_utf8(one.text()).unwrap().replace("\"version\": 1", "\"version\": 2");
        assert!(Document::parse(newer.as_bytes()).unwrap_err().contains("version is 2"));
        assert!(Document::parse(b"{}").unwrap_err().contains("no captured document"));
        let cut = one.text();
        assert!(Document::parse(&cut[..cut.len() / 2]).unwrap_err().contains("damaged"));
    }
}
