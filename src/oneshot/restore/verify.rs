//! At the end: do both sides list the same?
//!
//! Every copy was proven when it was made; this finds what no copy was made of.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{BucketReport, Outcome, Report, RestoreError, Way};
use crate::config::settings::BucketSettings;
use crate::reconcile::merge::{Finding, NoPairs, Why};
use crate::reconcile::pass::{self, PassEvent, PassOptions};
use crate::store::ObjectHead;

/// So many differences are named.
const EXAMPLES: usize = 20;
const CHANNEL: usize = 256;

/// Compares what was to be restored with what is there, and writes the counts into the report.
pub(super) async fn verify(
    way: &Way,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<Outcome, RestoreError> {
    for (bucket, told) in way.settings.buckets.iter().zip(&mut report.buckets) {
        match stop.run_until_cancelled(verify_bucket(way, bucket, told)).await {
            Some(result) => result?,
            None => return Ok(Outcome::Interrupted),
        }
    }
    // A key that failed and was passed over is no success, whatever the listings say.
    let agree = report.failed.is_empty()
        && report.buckets.iter().all(|told| told.missing == 0 && told.different == 0);
    Ok(if agree { Outcome::Restored } else { Outcome::Differs })
}

async fn verify_bucket(
    way: &Way,
    bucket: &BucketSettings,
    told: &mut BucketReport,
) -> Result<(), RestoreError> {
    let wanted = bucket.clone();
    let options = PassOptions {
        source: (way.from.clone(), bucket.source.as_str().into()),
        target: (way.to.clone(), bucket.target_name().into()),
        prefix: Arc::clone(&way.prefix),
        filter: Arc::new(move |key| wanted.wants(key)),
        skew_ms: 0,
        opaque: false,
        closer: false,
        looked_until_ms: None,
        pairs: Arc::new(NoPairs),
        parallel: NonZeroUsize::new(way.settings.reconcile.parallel).unwrap_or(NonZeroUsize::MIN),
        split_points: Vec::new(),
        done: Vec::new(),
        requests_per_second: way.settings.reconcile.rate(),
    };
    let (sink, mut events) = mpsc::channel(CHANNEL);
    let judge = async {
        while let Some(event) = events.recv().await {
            let PassEvent::Difference(difference) = event else { continue };
            let mut finding = difference.finding;
            if finding == Finding::Different(Why::ETag)
                && encrypted(way, bucket, &difference.key).await
            {
                finding = Finding::Unverifiable;
            }
            match finding {
                Finding::Missing => told.missing += 1,
                Finding::Different(_) => told.different += 1,
                Finding::Unverifiable => told.unverifiable += 1,
                Finding::Extra => told.extra += 1,
                // Older than its copy and of the same content: a HEAD of both has found it equal.
                Finding::Newer | Finding::Same => {}
            }
            let is_bad = matches!(finding, Finding::Missing | Finding::Different(_));
            if is_bad && told.examples.len() < EXAMPLES {
                told.examples.push(format!(
                    "{}: {}",
                    difference.key.escape_debug(),
                    finding.name()
                ));
            }
        }
    };
    let (pass, ()) = tokio::join!(Box::pin(pass::run(options, sink)), judge);
    let pass = pass?;
    (told.objects, told.bytes) = (pass.source_objects, pass.source_bytes);
    Ok(())
}

/// Whether either side encrypts this object with KMS, so that its tag says nothing about the content.
async fn encrypted(way: &Way, bucket: &BucketSettings, key: &str) -> bool {
    let kms = |head: ObjectHead| {
        let value = head.headers.get("x-amz-server-side-encryption");
        value.and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("aws:kms"))
    };
    let (from, to) =
        tokio::join!(way.from.head(&bucket.source, key), way.to.head(bucket.target_name(), key));
    [from, to].into_iter().any(|head| head.is_ok_and(kms))
}
