//! The embedded store as the AWS SDK sees it.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, EncodingType};
use aws_sdk_s3::types::{ObjectIdentifier, Tag, Tagging};

use super::*;

struct Fixture {
    store: EmbeddedStore,
    client: Client,
    ledger: Arc<Ledger>,
    changes: mpsc::Receiver<Change>,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (sender, changes) = mpsc::channel(256);
    let ledger = Arc::new(Ledger::default());
    let (side, notifier) = (Side::Source, Some(sender));
    let watcher = Watcher { side, ledger: Arc::clone(&ledger), notifier };
    let store = EmbeddedStore::start(dir.path(), "someone", watcher).await.unwrap();
    let client = store.client();
    client.create_bucket().bucket("bkt").send().await.unwrap();
    Fixture { store, client, ledger, changes, _dir: dir }
}

const MD5_ABC: &str = "\"900150983cd24fb0d6963f7d28e17f72\"";
const MD5_ABC_BASE64: &str = "kAFQmDzST7DWlj99KOF/cg==";

#[tokio::test]
async fn an_object_keeps_its_bytes_headers_metadata_tags_and_etag() {
    let fixture = fixture().await;
    let client = &fixture.client;
    let put = client.put_object().bucket("bkt").key("a b").body(ByteStream::from_static(b"abc"));
    let put = put.content_type("text/plain").cache_control("no-cache").metadata("owner", "me");
    let put = put.tagging("k=v%20w&empty=").content_md5(MD5_ABC_BASE64).send().await.unwrap();
    assert_eq!(put.e_tag(), Some(MD5_ABC));

    let head = client.head_object().bucket("bkt").key("a b").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (Some(MD5_ABC), Some(3)));
    let get = client.get_object().bucket("bkt").key("a b").send().await.unwrap();
    assert_eq!(get.e_tag(), Some(MD5_ABC));
    assert_eq!(get.content_type(), Some("text/plain"));
    assert_eq!(get.cache_control(), Some("no-cache"));
    assert_eq!(get.metadata().unwrap()["owner"], "me");
    assert_eq!(get.tag_count(), Some(2));
    assert_eq!(get.body.collect().await.unwrap().into_bytes().as_ref(), b"abc");
    let list = client.list_objects_v2().bucket("bkt").encoding_type(EncodingType::Url);
    let list = list.send().await.unwrap();
    let listed = &list.contents()[0];
    assert_eq!(
        (listed.key(), listed.e_tag(), listed.size()),
        (Some("a%20b"), Some(MD5_ABC), Some(3))
    );
    let tags = client.get_object_tagging().bucket("bkt").key("a b").send().await.unwrap();
    let tags: Vec<_> = tags.tag_set().iter().map(|t| (t.key(), t.value())).collect();
    assert_eq!(tags, [("empty", ""), ("k", "v w")]);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_md5_says_is_never_visible() {
    let fixture = fixture().await;
    let client = &fixture.client;
    let put = client.put_object().bucket("bkt").key("k").body(ByteStream::from_static(b"abc"));
    put.send().await.unwrap();
    let put = client.put_object().bucket("bkt").key("k").body(ByteStream::from_static(b"abd"));
    let refused = put.content_md5(MD5_ABC_BASE64).send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("BadDigest"));
    let get = client.get_object().bucket("bkt").key("k").if_match(MD5_ABC).send().await.unwrap();
    assert_eq!(get.body.collect().await.unwrap().into_bytes().as_ref(), b"abc");
    let other = client.get_object().bucket("bkt").key("k").if_match("\"0\"").send().await;
    assert_eq!(other.unwrap_err().raw_response().unwrap().status().as_u16(), 412);
}

#[tokio::test]
async fn hostile_keys_are_distinct_objects_and_are_listed_as_they_are() {
    let fixture = fixture().await;
    let client = &fixture.client;
    let long = "k".repeat(1024);
    let mut keys = vec![
        "a",
        "a/",
        "a/b",
        "a//b",
        "a/./b",
        "a/../b",
        "../up",
        "/lead",
        "s p+c%20&?#=",
        "ü漢",
        "~*'()!",
        "ctl\u{1}\n\u{7f}",
        long.as_str(),
    ];
    for key in &keys {
        let body = ByteStream::from(key.as_bytes().to_vec());
        let put = client.put_object().bucket("bkt").key(*key).body(body).send().await;
        put.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
    }
    for key in &keys {
        let get = client.get_object().bucket("bkt").key(*key).send().await.unwrap();
        assert_eq!(get.body.collect().await.unwrap().into_bytes().as_ref(), key.as_bytes());
    }
    let mut listed = Vec::new();
    let pages = client.list_objects_v2().bucket("bkt").encoding_type(EncodingType::Url).max_keys(3);
    let mut pages = pages.into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page.unwrap().contents() {
            let key = percent_encoding::percent_decode_str(object.key().unwrap());
            listed.push(key.decode_utf8().unwrap().into_owned());
        }
    }
    keys.sort_unstable();
    assert_eq!(listed, keys);
}

#[tokio::test]
async fn a_multipart_object_can_be_read_part_by_part() {
    let fixture = fixture().await;
    let client = &fixture.client;
    let (first, last) = (vec![1_u8; 5 << 20], vec![2_u8; 10]);
    let upload = client.create_multipart_upload().bucket("bkt").key("m").tagging("a=b");
    let upload = upload.metadata("x", "y").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut done = CompletedMultipartUpload::builder();
    for (number, bytes) in [(1, &first), (2, &last)] {
        let part = client.upload_part().bucket("bkt").key("m").upload_id(id).part_number(number);
        let part = part.body(ByteStream::from(bytes.clone())).send().await.unwrap();
        let tag = part.e_tag().unwrap();
        done = done.parts(CompletedPart::builder().part_number(number).e_tag(tag).build());
    }
    let complete = client.complete_multipart_upload().bucket("bkt").key("m").upload_id(id);
    let complete = complete.multipart_upload(done.build()).send().await.unwrap();
    let etag = complete.e_tag().unwrap().to_owned();
    assert!(etag.ends_with("-2\""), "{etag}");

    let part = client.get_object().bucket("bkt").key("m").part_number(2).send().await.unwrap();
    assert_eq!((part.parts_count(), part.content_length()), (Some(2), Some(10)));
    assert_eq!((part.e_tag(), part.tag_count()), (Some(etag.as_str()), Some(1)));
    assert_eq!(part.metadata().unwrap()["x"], "y");
    assert_eq!(part.body.collect().await.unwrap().to_vec(), last);
    let head = client.head_object().bucket("bkt").key("m").part_number(1).send().await.unwrap();
    assert_eq!((head.parts_count(), head.content_length()), (Some(2), Some(5 << 20)));
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert!(client.get_object().bucket("bkt").key("m").part_number(3).send().await.is_err());
}

#[tokio::test]
async fn every_change_is_announced_in_order_and_noted() {
    let mut fixture = fixture().await;
    let (client, ledger) = (&fixture.client, &fixture.ledger);
    let body = || ByteStream::from_static(b"abc");
    client.put_object().bucket("bkt").key("k").body(body()).send().await.unwrap();
    client.copy_object().bucket("bkt").key("c").copy_source("bkt/k").send().await.unwrap();
    let tag = Tag::builder().key("t").value("1").build().unwrap();
    let tagging = Tagging::builder().tag_set(tag).build().unwrap();
    client.put_object_tagging().bucket("bkt").key("k").tagging(tagging).send().await.unwrap();
    client.delete_object_tagging().bucket("bkt").key("k").send().await.unwrap();
    client.delete_object().bucket("bkt").key("k").send().await.unwrap();
    client.delete_object().bucket("bkt").key("k").send().await.unwrap();
    let object = ObjectIdentifier::builder().key("c").build().unwrap();
    let delete = Delete::builder().objects(object).build().unwrap();
    client.delete_objects().bucket("bkt").delete(delete).send().await.unwrap();
    let mut seen = Vec::new();
    while let Ok(change) = fixture.changes.try_recv() {
        seen.push((change.event.trim_start_matches("s3:Object"), change.key.key.to_string()));
    }
    let expected = [
        ("Created:Put", "k"),
        ("Created:Copy", "c"),
        ("Created:PutTagging", "k"),
        ("Created:DeleteTagging", "k"),
        ("Removed:Delete", "k"),
        ("Removed:NoOP", "k"),
        ("Removed:Delete", "c"),
    ];
    assert_eq!(seen, expected.map(|(event, key)| (event, key.to_owned())));
    assert_eq!((ledger.totals().events, ledger.totals().pending), (7, 0));
    let gone = client.get_object().bucket("bkt").key("k").send().await.unwrap_err();
    assert_eq!(gone.into_service_error().meta().code(), Some("NoSuchKey"));
}

#[tokio::test]
async fn other_keys_and_other_buckets_are_refused() {
    let fixture = fixture().await;
    let (client, store) = (&fixture.client, &fixture.store);
    let missing = client.get_object().bucket("none").key("k").send().await.unwrap_err();
    assert_eq!(missing.into_service_error().meta().code(), Some("NoSuchBucket"));
    let put = client.put_object().bucket("none").key("k").body(ByteStream::from_static(b""));
    let put = put.send().await.unwrap_err();
    assert_eq!(put.into_service_error().meta().code(), Some("NoSuchBucket"));
    let stranger = Credentials::new(&store.access_key, "wrong", None, None, "test");
    let stranger = client.config().to_builder().credentials_provider(stranger).build();
    let refused = Client::from_conf(stranger).list_buckets().send().await.unwrap_err();
    assert_eq!(refused.into_service_error().meta().code(), Some("SignatureDoesNotMatch"));
}
