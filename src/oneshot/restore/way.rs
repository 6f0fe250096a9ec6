//! The settings of the way back: source and target change places. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{RestoreError, RestoreOptions};
use crate::config::Settings;
use crate::config::settings::{BucketSettings, DeletePolicy, StoreSettings, TargetSettings};
use crate::data_dir::DataDir;

/// So few keys are in memory at once; what is listed waits for them.
const MAX_PENDING: usize = 10_000;

/// The settings with which a replicator carries objects from the configured target to the
/// destination: each bucket's `source` is its name at the target, its `target` the destination's.
pub(super) fn back(
    settings: &Settings,
    options: &RestoreOptions,
) -> Result<Settings, RestoreError> {
    let known: BTreeSet<&str> = settings.buckets.iter().map(|b| b.source.as_str()).collect();
    if let Some(name) = options.map.keys().find(|name| !known.contains(name.as_str())) {
        return Err(RestoreError::Refused(format!(
            "--map {name}: it is not one of the source buckets to restore"
        )));
    }
    let buckets: Vec<_> = settings
        .buckets
        .iter()
        .map(|bucket| BucketSettings {
            source: bucket.target_name().to_owned(),
            target: Some(options.map.get(&bucket.source).unwrap_or(&bucket.source).clone()),
            deletes: DeletePolicy::Archive,
            ..bucket.clone()
        })
        .collect();
    let mut destinations = BTreeMap::new();
    for bucket in &buckets {
        if let Some(other) = destinations.insert(bucket.target_name(), &bucket.source) {
            return Err(RestoreError::Refused(format!(
                "{:?} and {other:?} would both be restored into {:?}",
                bucket.source,
                bucket.target_name()
            )));
        }
    }
    let destination = options.to.clone().unwrap_or_else(|| settings.source.clone());
    if same_store(&destination.endpoint, &settings.target.endpoint)
        && let Some(bucket) = buckets.iter().find(|b| destinations.contains_key(b.source.as_str()))
    {
        return Err(RestoreError::Refused(format!(
            "{:?} on {} would be read and written at once; give the destination another name with --map",
            bucket.source, destination.endpoint
        )));
    }
    let mut back = Settings {
        data_dir: state_dir(settings),
        source: settings.target.store(),
        target: target(destination),
        buckets,
        ..settings.clone()
    };
    back.replicate.max_pending_keys = back.replicate.max_pending_keys.min(MAX_PENDING);
    Ok(back)
}

/// Whether two endpoints are spelled as the same one. Two names of one host are not seen through.
pub(super) fn same_store(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// Where a restore keeps how far it came.
pub(super) fn state_dir(settings: &Settings) -> PathBuf {
    DataDir::at(&settings.data_dir).restore()
}

fn target(store: StoreSettings) -> TargetSettings {
    TargetSettings {
        endpoint: store.endpoint,
        region: store.region,
        access_key: store.access_key,
        secret_key: store.secret_key,
        session_token: store.session_token,
        access_key_file: store.access_key_file,
        secret_key_file: store.secret_key_file,
        path_style: store.path_style,
        ca_file: store.ca_file,
        storage_class: None,
        server_side_encryption: None,
        kms_key_id: None,
        create_buckets: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        toml::from_str(
            "data_dir = '/d'\n[source]\nendpoint = 'http://s:1'\n[target]\nendpoint = 'http://t:2'\n\
             server_side_encryption = 'AES256'\n\
             [[buckets]]\nsource = 'a'\ntarget = 'a-copy'\nexclude = ['tmp/']\n[[buckets]]\nsource = 'b'",
        )
        .unwrap()
    }

    #[test]
    fn source_and_target_change_places() {
        let options = RestoreOptions {
            map: [("b".to_owned(), "b-new".to_owned())].into(),
            ..RestoreOptions::default()
        };
        let back = back(&settings(), &options).unwrap();
        assert_eq!((&*back.source.endpoint, &*back.target.endpoint), ("http://t:2", "http://s:1"));
        assert_eq!(back.target.server_side_encryption, None);
        let names: Vec<_> =
            back.buckets.iter().map(|b| (b.source.as_str(), b.target_name())).collect();
        assert_eq!(names, [("a-copy", "a"), ("b", "b-new")]);
        assert!(!back.buckets[0].wants("tmp/x"));
    }

    #[test]
    fn a_bucket_that_is_not_configured_and_two_into_one_are_refused() {
        let unknown = [("c".to_owned(), "d".to_owned())].into();
        assert!(back(&settings(), &RestoreOptions { map: unknown, ..Default::default() }).is_err());
        let one = [("b".to_owned(), "a".to_owned())].into();
        assert!(back(&settings(), &RestoreOptions { map: one, ..Default::default() }).is_err());
    }
    #[test]
    fn the_live_copy_is_never_restored_into_itself() {
        let into = |map: &[(&str, &str)]| {
            let map = map.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
            let to = Some(StoreSettings {
                endpoint: "HTTP://t:2/".to_owned(),
                ..settings().target.store()
            });
            back(&settings(), &RestoreOptions { map, to, ..Default::default() })
        };
        assert!(into(&[]).unwrap_err().to_string().contains("\"b\""));
        assert!(into(&[("b", "a-copy")]).is_err());
        assert!(into(&[("b", "b-new")]).is_ok());
    }
}
