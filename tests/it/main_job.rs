//! Everything that happens to objects at a source arrives at the target.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::MetadataDirective;

use crate::support::compare::picture;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::hostile;
use crate::support::ours::store;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::Setup;

on_every_pair![
    puts_and_overwrites_arrive,
    a_multipart_object_keeps_its_parts_and_its_etag,
    server_side_copies_arrive,
    a_change_of_metadata_alone_arrives,
    changes_of_tags_alone_arrive,
    an_object_that_is_replaced_loses_its_old_tags_and_metadata,
    deletes_arrive_one_by_one_and_in_bulk,
    objects_that_only_one_side_may_list_are_copied_and_stay,
    a_key_that_is_deleted_and_put_again_is_there,
    a_versioned_source_is_mirrored_in_its_latest_state,
    empty_objects_and_folder_markers_arrive,
    hostile_keys_arrive_with_all_their_headers_and_tags,
];

async fn puts_and_overwrites_arrive(pair: Pair) {
    let site = pair.site("puts").await;
    for number in 0..40 {
        site.put(&format!("dir/{number}"), format!("first {number}")).await;
    }
    site.converges(SOON).await;
    for number in 0..40 {
        site.put(&format!("dir/{number}"), format!("second, and longer, {number}")).await;
    }
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 40);
}

async fn a_multipart_object_keeps_its_parts_and_its_etag(pair: Pair) {
    let site = pair.site("multipart").await;
    let uneven = [vec![1; 5 << 20], vec![2; (6 << 20) + 1], vec![3; 5 << 20], vec![4; 1]];
    let etag = site.source.put_parts(&site.bucket, "uneven", uneven).await;
    assert!(etag.contains("-4"), "{etag}");
    site.source.put_parts(&site.bucket, "one part", [vec![5; 100]]).await;
    site.source.put_parts(&site.bucket, "replaced", [vec![6; 5 << 20], vec![7; 9]]).await;
    site.converges(SOON).await;
    site.source.put_parts(&site.bucket, "replaced", [vec![8; 6 << 20], vec![9; 9]]).await;
    site.put("uneven", "small again").await;
    site.converges(SOON).await;
    for key in ["uneven", "one part", "replaced"] {
        let left = site.target.unfinished_uploads(&site.target_bucket, key).await;
        assert_eq!(left, 0, "uploads of {key:?} are left at the target");
    }
}

async fn server_side_copies_arrive(pair: Pair) {
    let site = pair.site("copies").await;
    site.put("original", "content").await;
    site.source.tag(&site.bucket, "original", &[("kind", "original")]).await;
    let call = site.source.client.copy_object().bucket(&site.bucket).key("a copy");
    call.copy_source("copies/original").send().await.unwrap();
    site.converges(SOON).await;
    assert!(site.target.list(&site.target_bucket).await.unwrap().contains_key("a copy"));
}

async fn a_change_of_metadata_alone_arrives(pair: Pair) {
    let site = pair.site("metadata").await;
    site.put("object", "content").await;
    site.converges(SOON).await;
    let call = site.source.client.copy_object().bucket(&site.bucket).key("object");
    call.copy_source("metadata/object")
        .metadata_directive(MetadataDirective::Replace)
        .content_type("text/markdown")
        .cache_control("max-age=60")
        .metadata("owner", "someone else")
        .send()
        .await
        .unwrap();
    site.converges(SOON).await;
}

async fn changes_of_tags_alone_arrive(pair: Pair) {
    let site = pair.site("tags").await;
    let tags = async || site.target.tags(&site.target_bucket, "object").await;
    site.put("object", "content").await;
    site.converges(SOON).await;
    site.source.tag(&site.bucket, "object", &[("a", "1"), ("b +=._:/@-", "2 +=._:/@-")]).await;
    site.converges(SOON).await;
    assert_eq!(tags().await.len(), 2);
    site.source.tag(&site.bucket, "object", &[("a", "3")]).await;
    site.converges(SOON).await;
    assert_eq!(tags().await.len(), 1);
    let call = site.source.client.delete_object_tagging().bucket(&site.bucket).key("object");
    call.send().await.unwrap();
    site.converges(SOON).await;
    assert_eq!(tags().await.len(), 0);
}

async fn an_object_that_is_replaced_loses_its_old_tags_and_metadata(pair: Pair) {
    let site = pair.site("replaced").await;
    let call = site.source.client.put_object().bucket(&site.bucket).key("object");
    let call = call.metadata("old", "yes").tagging("old=yes").content_type("text/old");
    call.body(ByteStream::from_static(b"old")).send().await.unwrap();
    site.converges(SOON).await;
    site.put("object", "new").await;
    site.converges(SOON).await;
    assert_eq!(site.target.tags(&site.target_bucket, "object").await.len(), 0);
}

async fn deletes_arrive_one_by_one_and_in_bulk(pair: Pair) {
    let site = pair.site("deletes").await;
    let keys: Vec<_> = (0..60).map(|number| format!("d/{number} +%")).collect();
    for key in &keys {
        site.put(key, key.as_str()).await;
    }
    site.converges(SOON).await;
    site.delete(&keys[0]).await;
    site.delete("never existed").await;
    site.converges(SOON).await;
    site.source.delete_all(&site.bucket, &keys[1..50]).await;
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 10);
}

async fn a_key_that_is_deleted_and_put_again_is_there(pair: Pair) {
    let site = pair.site("again").await;
    site.walked().await;
    // A source that lists nothing any more would have its deletes held.
    site.put("another", "stays").await;
    for round in 0..20 {
        site.put("key", format!("round {round}")).await;
        site.delete("key").await;
    }
    site.converges(SOON).await;
    site.put("key", "for good").await;
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 2);
}

async fn a_versioned_source_is_mirrored_in_its_latest_state(pair: Pair) {
    // Its only object comes and goes.
    let settings = vec![("BUCKETS__0__MAY_BE_EMPTY", "true".to_owned())];
    let setup = Setup { versioned: true, settings, ..Setup::default() };
    let site = pair.shared().await.site("versioned", setup).await;
    let there = async || site.target.list(&site.target_bucket).await.unwrap();
    let versions = async || {
        let call = site.source.client.list_object_versions().bucket(&site.bucket).prefix("key");
        call.send().await.unwrap()
    };
    let remove = async |version: &str| {
        let call = site.source.client.delete_object().bucket(&site.bucket).key("key");
        call.version_id(version).send().await.unwrap();
    };
    site.put("key", "version one").await;
    site.put("key", "version two").await;
    site.put("key", "version three").await;
    site.converges(SOON).await;

    site.delete("key").await;
    site.converges(SOON).await;
    assert_eq!(there().await.len(), 0, "a delete marker hides the object");

    // Undelete: the store names this event after the marker, as if the object were gone.
    let marker = versions().await.delete_markers()[0].version_id().unwrap().to_owned();
    remove(&marker).await;
    site.converges(SOON).await;
    assert_eq!(there().await["key"].size, 13);

    // The delete of an old version: the event says that the key was removed.
    let oldest = versions().await.versions()[2].version_id().unwrap().to_owned();
    remove(&oldest).await;
    site.converges(SOON).await;
    assert_eq!(there().await["key"].size, 13);

    // The delete of the current version uncovers the one before it.
    let newest = versions().await.versions()[0].version_id().unwrap().to_owned();
    remove(&newest).await;
    site.converges(SOON).await;
    assert_eq!(there().await["key"].size, 11);
}

async fn empty_objects_and_folder_markers_arrive(pair: Pair) {
    // RustFS 1.0.1 answers 503 to a key that is named like its bucket, and "empty" is a key.
    let site = pair.site("empties").await;
    for key in ["empty", "folder/", "folder/empty", "deep/er/"] {
        site.put(key, "").await;
    }
    site.put("folder with content/", "a marker that is not empty").await;
    site.converges(SOON).await;
    site.delete("folder/").await;
    site.converges(SOON).await;
    let there = site.target.list(&site.target_bucket).await.unwrap();
    assert_eq!(there.len(), 4, "{there:?}");
    assert!(there.contains_key("folder/empty"), "the marker took its folder's content along");
}

async fn hostile_keys_arrive_with_all_their_headers_and_tags(pair: Pair) {
    let site = pair.site("hostile").await;
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (number, key) in pair.hostile_keys().into_iter().enumerate() {
        let body = format!("object {number}").into_bytes();
        let call = site.source.client.put_object().bucket(&site.bucket).key(&key);
        let call = call
            .content_type(format!("text/x-{number}; charset=\"utf-8\""))
            .content_encoding("identity, x-none")
            .content_language("de-AT, rm")
            .content_disposition(format!("attachment; filename=\"n {number}%20+.txt\""))
            .cache_control("max-age=31536000, immutable")
            .expires(DateTime::from_secs(1_900_000_000))
            .metadata("number", number.to_string())
            .metadata("with-signs", "a=b&c=\"d\" +%20; e, f")
            .metadata("UPPER_and.dots", "  spaces inside  it")
            .tagging(format!("number={number}&signs=a%2Bb%20c%3D%2F%40&empty="));
        match call.body(ByteStream::from(body)).send().await {
            Ok(_) => accepted.push(key),
            Err(error) => {
                let service = error.into_service_error();
                refused.push(format!("{key:?}: {:?}", service.meta().code()));
            }
        }
    }
    println!("refused by the source itself: {}\n{}", refused.len(), refused.join("\n"));
    assert!(accepted.len() >= 200, "only {} keys were accepted", accepted.len());
    // A bucket that is emptied to the last object would look wiped.
    site.put("this one stays", "value").await;
    site.converges(LATER).await;

    // The comparison reads what both sides list, and MinIO does not list all: once more by name.
    for key in &accepted {
        let ours = picture(&site.source, &site.bucket, key).await.unwrap();
        let theirs = picture(&site.target, &site.target_bucket, key).await.unwrap();
        assert_eq!(ours, theirs, "{key:?}");
    }
    // One object stays: a bucket that is emptied altogether looks wiped, and its deletes are held.
    site.put("one that stays", "here").await;
    for key in &accepted {
        site.delete(key).await;
    }
    site.converges(LATER).await;
    for key in &accepted {
        let left = picture(&site.target, &site.target_bucket, key).await;
        assert!(left.is_err(), "{key:?} is deleted at the source and left at the target");
    }
}

/// With the other headers of an answer these are more than 100, for which few clients have room.
const MUCH_METADATA: u32 = 120;

/// Not with RustFS, which as a server may have no more room than a client.
#[tokio::test(flavor = "multi_thread")]
async fn more_metadata_than_clients_have_room_for_arrives() {
    let servers = Pair::MINIO.shared().await;
    let site = servers.site("much-metadata", Setup::default()).await;
    let body = ByteStream::from_static(b"content");
    let call = site.source.client.put_object().bucket(&site.bucket).key("much").body(body);
    // MinIO takes 2 KiB of it, prefixes included.
    let metadata = |n: u32| (format!("m{n}"), (n % 10).to_string());
    let add = |call: PutObjectFluentBuilder, n| call.metadata(metadata(n).0, metadata(n).1);
    (0..MUCH_METADATA).fold(call, add).send().await.unwrap();
    let target = store(&servers.target.endpoint()).await;
    let copy = eventually("it is at the target", SOON, async || {
        target.head(&site.target_bucket, "much").await.map_err(|error| error.to_string())
    });
    let headers = copy.await.headers;
    for (name, value) in (0..MUCH_METADATA).map(metadata) {
        assert_eq!(headers[format!("x-amz-meta-{name}")], value);
    }
}

async fn objects_that_only_one_side_may_list_are_copied_and_stay(pair: Pair) {
    let settings = vec![("RECONCILE__INTERVAL", "1s".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = pair.shared().await.site("unlisted", setup).await;
    let keys = hostile::UNLISTED_BY_MINIO.into_iter().chain(["case", "dir", "stays"]);
    let keys: Vec<_> = keys.collect();
    for key in &keys {
        site.put(key, *key).await;
    }
    let same = async || {
        for key in &keys {
            let ours = picture(&site.source, &site.bucket, key).await?;
            let theirs = picture(&site.target, &site.target_bucket, key).await?;
            if ours != theirs {
                return Err(format!("{key:?} differs"));
            }
        }
        Ok(())
    };
    eventually("all are copied", SOON, same).await;
    let passes = "evermirror_reconcile_passes_total{outcome=\"complete\"}";
    let before = site.evermirror.metric(passes).await.unwrap_or_default();
    eventually("both sides are compared again and again", SOON, async || {
        let now = site.evermirror.metric(passes).await.unwrap_or_default();
        (now >= before + 3.0).then_some(()).ok_or(format!("{now} after {before}"))
    })
    .await;
    eventually("nothing is left to do", SOON, async || site.evermirror.idle().await).await;
    assert_eq!(same().await, Ok(()), "what one side does not list was deleted at the other");
}
