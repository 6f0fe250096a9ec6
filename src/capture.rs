//! `capture`: what a store holds beside objects, kept at the target, and put back from there.
//!
//! **Promise.** A captured document says of each bucket every setting of [`BucketSetting`], and of a MinIO
//! or RustFS its users, groups and policies. What the store does not know or does not have is written
//! down as such; what could not be read is named in the document and in the report. Secret keys are
//! kept only in a document that is encrypted. A document that says what the newest one says is not
//! written again. Putting back changes nothing that is there and otherwise, unless told to.
//!
//! **On an error** of one setting the others go on; a store that does not answer ends it, and nothing is
//! written. **On cancellation or a crash** a document is there whole or not at all; what was put back
//! stays, and the same command does the rest.

mod document;
mod iam;
mod moved;
mod people;
mod put_back;
mod report;
mod schedule;
mod seal;
mod vault;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::document::{Document, Setting};
pub use self::put_back::{PutBackOptions, put_back};
pub use self::report::{CaptureReport, PutBackReport};
pub use self::schedule::{CaptureStatus, Schedule};
use self::vault::Vault;
use crate::clock;
use crate::config::Settings;
use crate::config::settings::{CaptureSettings, CapturedBuckets};
use crate::store::{BucketSetting, SettingAnswer, Store, StoreError};
use crate::stores::Stores;
use crate::stores::{Unusable, patiently};

/// Why nothing was captured or put back, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A store refused what cannot be done without.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The same, of a side that is known.
    #[error(transparent)]
    Side(#[from] Unusable),
    /// A document is not what it should be.
    #[error("the captured document {place} cannot be used: {reason}")]
    Unreadable {
        /// Bucket and key, or file.
        place: String,
        /// Why.
        reason: String,
    },
    /// It was not begun.
    #[error("{0}")]
    Refused(String),
}

impl CaptureError {
    /// Says what to mend in the configuration of this side, where a store refused.
    fn of(side: &'static str) -> impl FnOnce(Self) -> Self {
        move |error| match error {
            Self::Store(refused) => Unusable::of(side)(refused).into(),
            Self::Side(_) | Self::Unreadable { .. } | Self::Refused(_) => error,
        }
    }
}

/// Captures the source's settings once and keeps the document at the target, unless `dry_run`. Gives the
/// document's text too, encrypted if a passphrase is configured.
pub async fn capture(
    stores: &Stores,
    settings: &Settings,
    dry_run: bool,
) -> Result<(CaptureReport, Vec<u8>), CaptureError> {
    let of = settings.capture.clone().unwrap_or_default();
    let now_ms = clock::now_ms();
    let document = read_store(&stores.source, settings, &of, now_ms).await;
    let document = document.map_err(CaptureError::of("source"))?;
    let mut report = report(&document, &of, dry_run);
    let plain = document.text();
    let text = vault::sealed(plain, of.passphrase.clone()).await.map_err(CaptureError::Refused)?;
    if dry_run {
        return Ok((report, text));
    }
    let vault = Vault::new(&stores.target, settings, &of);
    let kept = keep(&vault, &document, &text, now_ms, &mut report);
    kept.await.map_err(CaptureError::of("target"))?;
    Ok((report, text))
}

/// Writes the document, unless the newest one says the same.
async fn keep(
    vault: &Vault<'_>,
    document: &Document,
    text: &[u8],
    now_ms: i64,
    report: &mut CaptureReport,
) -> Result<(), CaptureError> {
    let last = vault.last().await?.filter(|(_, last)| last.same_as(document));
    report.unchanged = last.is_some();
    let complete = report.problems.is_empty();
    let key = match last {
        Some((key, _)) => key,
        None => vault.write(text.to_vec(), now_ms, complete).await?,
    };
    vault.checked(&key, now_ms).await?;
    report.document = Some(key);
    if !report.unchanged {
        vault.trim().await?;
    }
    Ok(())
}

fn report(document: &Document, of: &CaptureSettings, dry_run: bool) -> CaptureReport {
    let is_set = |setting: &&Setting| matches!(setting, Setting::Set { .. });
    let entities = if let Setting::Set { document: Value::Object(files) } = &document.iam {
        files.values().filter_map(Value::as_object).map(serde_json::Map::len).sum()
    } else {
        0
    };
    let count = |settings: &BTreeMap<_, _>| settings.values().filter(is_set).count();
    CaptureReport {
        source: document.source.clone(),
        dry_run,
        encrypted: of.passphrase.is_some(),
        buckets: document.buckets.iter().map(|(name, s)| (name.clone(), count(s))).collect(),
        entities,
        users: is_set(&&document.iam),
        problems: document.failures(),
        ..CaptureReport::default()
    }
}

/// Everything that the source says of itself.
async fn read_store(
    source: &Store,
    settings: &Settings,
    of: &CaptureSettings,
    now_ms: i64,
) -> Result<Document, CaptureError> {
    let names = match of.buckets {
        CapturedBuckets::Configured => settings.buckets.iter().map(|b| b.source.clone()).collect(),
        CapturedBuckets::All => patiently(|| source.buckets()).await?,
    };
    let mut buckets = BTreeMap::new();
    for name in names {
        let found = read_bucket(source, &name).await?;
        buckets.insert(name, found);
    }
    // Asked last, since the answers so far may tell it.
    let kind = source.kind().await;
    let redacted = of.passphrase.is_none();
    let mut document = Document::new(source.endpoint(), kind.name(), redacted, now_ms);
    document.buckets = buckets;
    if of.iam {
        document.iam = match patiently(|| source.export_iam(kind)).await {
            Ok(None) => Setting::NotSupported,
            Ok(Some(archive)) => match iam::unpack(archive) {
                Ok(mut assets) => {
                    if redacted {
                        iam::redact(&mut assets);
                    }
                    let files = assets.into_iter().map(|(name, file)| (name, Value::Object(file)));
                    Setting::Set { document: Value::Object(files.collect()) }
                }
                Err(error) => Setting::Failed { error },
            },
            Err(error) => failed(error)?,
        };
    }
    Ok(document)
}

/// Every setting of one bucket, by name.
async fn read_bucket(
    store: &Store,
    bucket: &str,
) -> Result<BTreeMap<String, Setting>, CaptureError> {
    // Asked first: a store may say of a bucket that is not there that it has no tags.
    let there = patiently(|| store.head_bucket(bucket)).await;
    let mut settings = BTreeMap::new();
    for setting in BucketSetting::ALL {
        let found = match &there {
            Ok(()) => match patiently(|| store.bucket_setting(bucket, setting)).await {
                Ok(answer) => setting_of(setting, answer),
                Err(error) => failed(error)?,
            },
            Err(error) => failed(error.clone())?,
        };
        settings.insert(setting.name().to_owned(), found);
    }
    Ok(settings)
}

/// A policy is kept as JSON, so that it can be read; all else as the store spells it.
fn setting_of(setting: BucketSetting, answer: SettingAnswer) -> Setting {
    match answer {
        SettingAnswer::Nothing => Setting::None,
        SettingAnswer::Unsupported => Setting::NotSupported,
        SettingAnswer::Set(text) if setting == BucketSetting::Policy => {
            match serde_json::from_str(&text) {
                Ok(document) => Setting::Set { document },
                Err(error) => {
                    Setting::Failed { error: format!("the store's answer is no JSON: {error}") }
                }
            }
        }
        SettingAnswer::Set(text) => Setting::Set { document: Value::String(text) },
    }
}

/// A refusal concerns one setting; a store that gives no answer concerns all.
fn failed(error: StoreError) -> Result<Setting, CaptureError> {
    if error.status.is_none() {
        return Err(error.into());
    }
    Ok(Setting::Failed { error: error.to_string() })
}
