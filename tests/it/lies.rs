//! Duplicates, reorderings and lies in the event stream change nothing but the work.

use hyper::StatusCode;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::server::{Pair, on_every_pair};
use crate::support::writer::{Writer, seed};

const NAMES: [&str; 8] = [
    "ObjectCreated:Put",
    "ObjectCreated:Copy",
    "ObjectCreated:CompleteMultipartUpload",
    "ObjectCreated:PutTagging",
    "ObjectRemoved:Delete",
    "ObjectRemoved:DeleteMarkerCreated",
    "ObjectRemoved:NoOP",
    "SomethingNew:Tomorrow",
];

on_every_pair![
    lies_among_real_events_change_nothing,
    events_of_objects_that_never_existed_leave_no_trace,
    an_object_only_the_target_has_is_removed_when_an_event_names_it,
    an_event_of_another_bucket_touches_nothing,
];

async fn lies_among_real_events_change_nothing(pair: Pair) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let site = pair.site("lies").await;
    let mut writer = Writer::new(seed, &site.source, &site.bucket);
    for _ in 0..40 {
        for _ in 0..5 {
            writer.change().await;
        }
        // Any event name for any key, existing or not, many in one body and some of them twice.
        let mut lies: Vec<_> = (0..20)
            .map(|_| {
                let folder = random.random_range(0..6);
                let key = format!("dir {folder}/k+{}", random.random_range(0..30));
                events::record(NAMES[random.random_range(0..NAMES.len())], &site.bucket, &key)
            })
            .collect();
        lies.extend_from_within(..5);
        lies.shuffle(&mut random);
        assert_eq!(site.evermirror.post(events::body(&lies)).await.status, StatusCode::OK);
    }
    site.converges(LATER).await;
}

async fn events_of_objects_that_never_existed_leave_no_trace(pair: Pair) {
    let site = pair.site("never").await;
    site.put("real", "value").await;
    for number in 0..50 {
        let body = events::event("ObjectCreated:Put", &site.bucket, &format!("ghost {number}"));
        assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
    }
    site.converges(SOON).await;
    let keys: Vec<_> = site.target.list(&site.target_bucket).await.unwrap().into_keys().collect();
    assert_eq!(keys, ["real"]);
}

async fn an_object_only_the_target_has_is_removed_when_an_event_names_it(pair: Pair) {
    let site = pair.site("stray").await;
    site.put("real", "value").await;
    site.converges(SOON).await;
    site.target.put(&site.target_bucket, "stray", "nobody knows").await;
    let body = events::event("ObjectCreated:Put", &site.bucket, "stray");
    assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
    site.converges(SOON).await;
}

async fn an_event_of_another_bucket_touches_nothing(pair: Pair) {
    let site = pair.site("ours").await;
    // A bucket that exists at both stores, under names that evermirror was not told.
    site.source.create_bucket("ours-not-replicated").await;
    site.source.put("ours-not-replicated", "key", "theirs").await;
    for bucket in ["ours-not-replicated", "no-such-bucket", "ours-copy", "", "../ours"] {
        let body = events::event("ObjectCreated:Put", bucket, "key");
        assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
    }
    site.put("key", "ours").await;
    eventually("our key arrives", SOON, async || site.evermirror.idle().await).await;
    site.converges(SOON).await;
    assert!(site.target.list("ours-not-replicated").await.is_err(), "a bucket was made for it");
}
