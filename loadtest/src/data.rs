//! Objects at the source, notifications about them, and the proof that a copy is complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use evermirror::store::{GetOptions, ListQuery, ListedObject, PutBody, Store};
use http::{HeaderMap, HeaderValue, header};
use tokio::task::JoinSet;

use crate::http::Connection;
use crate::servers::TOKEN;

/// The size of every object, but for the large ones.
pub(crate) const OBJECT_SIZE: usize = 4096;
/// The size of every part of a large one: what many clients upload by.
pub(crate) const PART_SIZE: usize = 16 << 20;

/// What every object's key begins with.
pub(crate) const PREFIX: &str = "warehouse/";

/// The key of the object of this number: of a length that is usual for data files.
pub(crate) fn key(number: usize) -> String {
    format!("{PREFIX}orders/day={:02}/part-{number:08}-b9c1.parquet", number % 31)
}

/// The content of the object of this number: no two are equal, so that a mix-up shows.
pub(crate) fn content(number: usize, size: usize) -> Bytes {
    number.to_le_bytes().repeat(size.div_ceil(size_of::<usize>())).into_iter().take(size).collect()
}

/// Puts the object of this number.
pub(crate) async fn put(store: &Store, bucket: &str, number: usize) -> anyhow::Result<()> {
    put_at(store, bucket, &key(number), content(number, OBJECT_SIZE)).await
}

/// Puts an object.
pub(crate) async fn put_at(
    store: &Store,
    bucket: &str,
    key: &str,
    content: Bytes,
) -> anyhow::Result<()> {
    store.put(bucket, key, &headers(), None, PutBody::Bytes(content)).await?;
    Ok(())
}

/// Uploads a large object of so many parts.
pub(crate) async fn put_large(
    store: &Store,
    bucket: &str,
    number: usize,
    parts: usize,
) -> anyhow::Result<()> {
    let key = key(number);
    let upload = store.create_multipart(bucket, &key, &headers()).await?;
    let mut done = Vec::new();
    for part in 1..=u32::try_from(parts)? {
        // Neither two objects nor two parts are alike.
        let seed = (u64::try_from(number)? << 32) | u64::from(part);
        let words = (0..PART_SIZE as u64 / 8).map(|word| word.wrapping_add(1).wrapping_mul(!seed));
        let content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let body = PutBody::Bytes(content.into());
        let put = store.upload_part(bucket, &key, &upload, part, None, body).await?;
        done.push((part, put.etag.context("a part without an ETag")?));
    }
    store.complete_multipart(bucket, &key, &upload, &done).await?;
    Ok(())
}

/// Reads every large object once. What was just written is not in the memory of a server that writes past
/// it, and whoever came first would read the disk for all the others.
pub(crate) async fn warm(
    store: &Store,
    bucket: &str,
    objects: usize,
    parts: usize,
) -> anyhow::Result<()> {
    let numbers = Numbers::below(objects);
    crew(4, || {
        let (store, bucket, numbers) = (store.clone(), bucket.to_owned(), numbers.clone());
        async move {
            for number in numbers {
                for part in 1..=u32::try_from(parts)? {
                    let part = GetOptions { part: Some(part), ..GetOptions::default() };
                    store.get(&bucket, &key(number), part).await?.body.bytes().await?;
                }
            }
            Ok(())
        }
    })
    .await
}

fn headers() -> HeaderMap {
    let kind = HeaderValue::from_static("application/octet-stream");
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
}

/// The numbers below an end, each given once to one of many workers.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    next: Arc<AtomicUsize>,
    end: usize,
}

impl Numbers {
    /// From 0 on.
    pub(crate) fn below(end: usize) -> Self {
        Self { next: Arc::default(), end }
    }
}

impl Iterator for Numbers {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end).then_some(number)
    }
}

/// Runs this many workers to their ends. The first error ends all.
pub(crate) async fn crew<F>(workers: usize, worker: impl Fn() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut tasks: JoinSet<_> = (0..workers).map(|_| worker()).collect();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Puts the objects below `count`, each of so many bytes.
pub(crate) async fn seed(
    store: &Store,
    bucket: &str,
    count: usize,
    size: usize,
) -> anyhow::Result<()> {
    let numbers = Numbers::below(count);
    crew(32, || {
        let (store, bucket, numbers) = (store.clone(), bucket.to_owned(), numbers.clone());
        async move {
            for number in numbers {
                put_at(&store, &bucket, &key(number), content(number, size)).await?;
            }
            Ok(())
        }
    })
    .await
}

/// Every object of a bucket, and what is taken from each.
async fn listing<T>(
    store: &Store,
    bucket: &str,
    take: impl Fn(&ListedObject) -> T,
) -> anyhow::Result<BTreeMap<String, T>> {
    let (mut objects, mut token) = (BTreeMap::new(), None);
    loop {
        let page = store
            .list(bucket, &ListQuery { token: token.as_deref(), ..ListQuery::default() })
            .await?;
        objects.extend(page.objects.into_iter().map(|o| (o.key.clone(), take(&o))));
        match page.next {
            Some(next) => token = Some(next),
            None => return Ok(objects),
        }
    }
}

/// Fails unless both buckets hold the same keys with the same `ETag`s, which are returned: work left
/// undone is no speed.
pub(crate) async fn equal(
    source: (&Store, &str),
    target: (&Store, &str),
) -> anyhow::Result<BTreeMap<String, String>> {
    agree(source, target, |object| object.etag.as_str().to_owned()).await
}

/// Fails unless both buckets hold the same keys with the same sizes.
pub(crate) async fn same_sizes(
    source: (&Store, &str),
    target: (&Store, &str),
) -> anyhow::Result<BTreeMap<String, u64>> {
    agree(source, target, |object| object.size).await
}

async fn agree<T: PartialEq>(
    (source, bucket): (&Store, &str),
    (target, copy): (&Store, &str),
    take: impl Fn(&ListedObject) -> T,
) -> anyhow::Result<BTreeMap<String, T>> {
    let original = listing(source, bucket, &take).await?;
    let copied = listing(target, copy, &take).await?;
    if original != copied {
        bail!("{copy} is no copy: {} objects of {}", copied.len(), original.len());
    }
    Ok(original)
}

/// Deletes every object of a bucket.
pub(crate) async fn clear(store: &Store, bucket: &str) -> anyhow::Result<()> {
    let objects = listing(store, bucket, |_| ()).await?;
    delete(store, bucket, objects.into_keys().collect()).await
}

/// Deletes one object by itself, and several in one request for every thousand.
pub(crate) async fn delete(store: &Store, bucket: &str, keys: Vec<String>) -> anyhow::Result<()> {
    if let [key] = keys.as_slice() {
        return Ok(store.delete(bucket, key).await?);
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let outcomes = store.delete_many(bucket, &keys).await;
    Ok(outcomes.into_iter().collect::<Result<(), _>>()?)
}

/// Makes the notifications of one run; no two are alike, because evermirror drops duplicates.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    bucket: String,
    run: u32,
    size: usize,
    /// How many different keys they are about.
    keys: usize,
}

impl Notifier {
    /// `run` tells the notifications of one run from those of another about the same keys.
    pub(crate) fn new(bucket: &str, run: u32) -> Self {
        Self { bucket: bucket.to_owned(), run, size: OBJECT_SIZE, keys: usize::MAX }
    }

    /// The same about objects of another size.
    pub(crate) fn of_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// The same about so many objects, again and again.
    pub(crate) fn of_keys(self, keys: usize) -> Self {
        Self { keys, ..self }
    }

    /// What MinIO posts after a PUT of the object of this number, field by field as captured in
    /// tests/fixtures/notifications.
    pub(crate) fn body(&self, number: usize) -> Bytes {
        let (bucket, key, size) = (&self.bucket, key(number % self.keys), self.size);
        let encoded: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
        let id = format!("{:08X}{number:08X}", self.run);
        Bytes::from(format!(
            r#"{{"EventName":"s3:ObjectCreated:Put","Key":"{bucket}/{key}","Records":[{{"eventVersion":"2.0","eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-23T14:32:34.430Z","eventName":"s3:ObjectCreated:Put","userIdentity":{{"principalId":"loadtest"}},"requestParameters":{{"principalId":"loadtest","region":"","sourceIPAddress":"127.0.0.1"}},"responseElements":{{"x-amz-id-2":"b579e948d2e5702e164c32dc2ee6bccdd15881638345d119b6b0a2f85eb5a5ff","x-amz-request-id":"{id}","x-minio-deployment-id":"883f150b-3e6b-4763-8fc1-a67f9edceda4","x-minio-origin-endpoint":"http://127.0.0.1:9000"}},"s3":{{"s3SchemaVersion":"1.0","configurationId":"Config","bucket":{{"name":"{bucket}","ownerIdentity":{{"principalId":"loadtest"}},"arn":"arn:aws:s3:::{bucket}"}},"object":{{"key":"{encoded}","size":{size},"eTag":"9dd4e461268c8034f5c8564e155c67a6","contentType":"application/octet-stream","userMetadata":{{"content-type":"application/octet-stream"}},"sequencer":"{id}"}}}},"source":{{"host":"127.0.0.1","port":"","userAgent":"MinIO (linux; amd64) minio-go/v7.0.95"}}}}]}}"#
        ))
    }

    /// Posts the notifications below `count` over this many connections; each must be acknowledged.
    pub(crate) async fn post(
        &self,
        port: u16,
        count: usize,
        connections: usize,
    ) -> anyhow::Result<()> {
        let (numbers, token) = (Numbers::below(count), authorization()?);
        crew(connections, || {
            let (this, numbers, token) = (self.clone(), numbers.clone(), token.clone());
            async move {
                let mut connection = Connection::open(port).await?;
                for number in numbers {
                    connection.post("/events", &token, this.body(number)).await?;
                }
                Ok(())
            }
        })
        .await
    }
}

/// The header that proves a notification to evermirror.
pub(crate) fn authorization() -> anyhow::Result<HeaderValue> {
    Ok(HeaderValue::try_from(format!("Bearer {TOKEN}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_the_json_that_it_should_be() {
        let body = Notifier::new("b", 7).body(42);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["Key"], format!("b/{}", key(42)));
        let object = &json["Records"][0]["s3"]["object"];
        let decoded: String = form_urlencoded::parse(object["key"].as_str().unwrap().as_bytes())
            .map(|(key, _)| key.into_owned())
            .collect();
        assert_eq!(decoded, key(42));
    }

    #[test]
    fn no_two_objects_and_no_two_notifications_are_alike() {
        assert_ne!(content(1, 9), content(2, 9));
        assert_eq!(content(1, 9).len(), 9);
        assert_ne!(key(1), key(2));
        assert_ne!(Notifier::new("b", 1).body(1), Notifier::new("b", 2).body(1));
    }
}
