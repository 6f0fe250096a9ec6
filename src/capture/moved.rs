//! What of a document fits one kind of store alone, where it is put back into another kind. Pure.

use serde_json::Value;

use super::document::{Document, Setting};
use super::iam::POLICIES;
use crate::store::BucketSetting;

/// The policies that MinIO and RustFS come with, each with its own text. The last three are RustFS's.
const BUILT_IN: [&str; 8] = [
    "consoleAdmin",
    "diagnostics",
    "readonly",
    "readwrite",
    "writeonly",
    "KMSAuditor",
    "KMSKeyAdministrator",
    "KMSKeyUser",
];

/// Takes out of `document`, as far as it is about `buckets` (all, if empty), what a store of the kind `to` has
/// or names in its own way; says what that is.
pub(super) fn fit(document: &mut Document, to: &str, buckets: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    if document.kind == to {
        return notes;
    }
    for (bucket, settings) in &mut document.buckets {
        let setting = settings.remove(BucketSetting::Notification.name());
        let chosen = buckets.is_empty() || buckets.contains(bucket);
        if chosen && matches!(setting, Some(Setting::Set { .. })) {
            notes.push(format!(
                "bucket {}: notification: its rules name targets of {}; `evermirror setup` makes those for evermirror, any others are yours to make",
                bucket.escape_debug(),
                document.kind
            ));
        }
    }
    if let Setting::Set { document: Value::Object(files) } = &mut document.iam
        && let Some(Value::Object(policies)) = files.get_mut(POLICIES)
    {
        policies.retain(|name, _| !BUILT_IN.contains(&name.as_str()));
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Document {
        let mut document = Document::new("http://s:1", "MinIO", false, 1);
        let set = |text: &str| Setting::Set { document: Value::from(text) };
        let settings = [("notification", "<N><A/></N>"), ("tags", "<T/>")];
        let settings = settings.map(|(name, text)| (name.to_owned(), set(text)));
        document.buckets.insert("b".into(), settings.clone().into());
        document.buckets.insert("other".into(), settings.into());
        let policies =
            json!({"policies.json": {"readonly": {}, "mine": {}}, "users.json": {"readonly": {}}});
        document.iam = Setting::Set { document: policies };
        document
    }

    #[test]
    fn the_same_kind_of_store_gets_everything() {
        let mut same = document();
        assert_eq!(fit(&mut same, "MinIO", &[]), Vec::<String>::new());
        assert!(same.same_as(&document()));
    }

    #[test]
    fn another_kind_keeps_its_own_policies_and_is_told_of_no_targets_that_it_does_not_have() {
        let mut moved = document();
        assert_eq!(fit(&mut moved, "RustFS", &[]).len(), 2);
        assert_eq!(moved.buckets["b"].keys().collect::<Vec<_>>(), ["tags"]);
        let Setting::Set { document: files } = &moved.iam else { panic!("it was there") };
        assert_eq!(*files, json!({"policies.json": {"mine": {}}, "users.json": {"readonly": {}}}));
        assert_eq!(fit(&mut document(), "RustFS", &["b".to_owned()]).len(), 1);
    }
}
