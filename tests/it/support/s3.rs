//! The oracle: an S3 client that shares no code with evermirror's hot path.

use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, Delete, EncodingType, Event,
    NotificationConfiguration, ObjectIdentifier, QueueConfiguration, Tag, Tagging,
    VersioningConfiguration,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use percent_encoding::percent_decode_str;

use super::minio::{ACCESS_KEY, SECRET_KEY};
use super::tls::fixture;

/// A store, seen through the AWS SDK. Its calls panic on errors, except where they return one.
#[derive(Debug, Clone)]
pub(crate) struct S3 {
    /// For calls that only one test needs.
    pub(crate) client: Client,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) size: i64,
    pub(crate) etag: String,
}

fn said(error: &(impl std::error::Error + 'static)) -> String {
    DisplayErrorContext(error).to_string()
}

impl S3 {
    /// A client of `endpoint`, with path style and the credentials of all test servers. By HTTPS it
    /// trusts the fixtures' authority.
    pub(crate) fn new(endpoint: &str) -> Self {
        Self::with_keys(endpoint, ACCESS_KEY, SECRET_KEY)
    }

    /// The same, as somebody else.
    pub(crate) fn with_keys(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let builder = aws_smithy_http_client::Builder::new();
        let http_client = if endpoint.starts_with("https:") {
            let authority = std::fs::read(fixture("authority.pem")).expect("a fixture");
            let trusted = TrustStore::empty().with_pem_certificate(authority);
            let context = TlsContext::builder().with_trust_store(trusted).build().expect("TLS");
            let provider = Provider::Rustls(CryptoMode::Ring);
            builder.tls_provider(provider).tls_context(context).build_https()
        } else {
            builder.build_http()
        };
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "tests"))
            .force_path_style(true)
            .http_client(http_client)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .build();
        Self { client: Client::from_conf(config) }
    }

    pub(crate) async fn create_bucket(&self, bucket: &str) {
        self.client.create_bucket().bucket(bucket).send().await.unwrap();
    }

    /// Sends this bucket's notifications to the targets that `arns` name.
    pub(crate) async fn notify(&self, bucket: &str, arns: &[String]) {
        self.try_notify(bucket, arns).await.unwrap();
    }

    /// The same; the store may refuse it.
    pub(crate) async fn try_notify(&self, bucket: &str, arns: &[String]) -> Result<(), String> {
        // RustFS has families of their own for what MinIO tells as creations and removals.
        let rustfs = ["s3:ObjectTagging:*", "s3:LifecycleExpiration:*"];
        let queues = arns.iter().map(|arn| {
            let more = if arn.starts_with("arn:rustfs:") { &rustfs[..] } else { &[] };
            let names = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"].iter().chain(more);
            QueueConfiguration::builder()
                .queue_arn(arn)
                .set_events(Some(names.map(|name| Event::from(*name)).collect()))
                .build()
                .unwrap()
        });
        let configuration = NotificationConfiguration::builder()
            .set_queue_configurations(Some(queues.collect()))
            .build();
        self.client
            .put_bucket_notification_configuration()
            .bucket(bucket)
            .notification_configuration(configuration)
            .send()
            .await
            .map(drop)
            .map_err(|error| said(&error))
    }

    pub(crate) async fn enable_versioning(&self, bucket: &str) {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = self.client.put_bucket_versioning().bucket(bucket);
        call.versioning_configuration(on).send().await.unwrap();
    }

    /// A plain PUT.
    pub(crate) async fn put(&self, bucket: &str, key: &str, body: impl Into<Vec<u8>>) {
        let put = self.try_put(bucket, key, body).await;
        put.unwrap_or_else(|error| panic!("PUT {bucket}/{}: {error}", key.escape_debug()));
    }

    /// A plain PUT that the store may refuse.
    pub(crate) async fn try_put(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<(), String> {
        let body = ByteStream::from(body.into());
        let call = self.client.put_object().bucket(bucket).key(key).body(body);
        call.send().await.map(drop).map_err(|error| said(&error))
    }

    /// A multipart upload of `parts`, in order; the tag of the whole.
    pub(crate) async fn put_parts(
        &self,
        bucket: &str,
        key: &str,
        parts: impl IntoIterator<Item = Vec<u8>>,
    ) -> String {
        let begun = self.client.create_multipart_upload().bucket(bucket).key(key);
        let begun = begun.content_type("application/x-parts").metadata("made", "in parts");
        let begun = begun.send().await.unwrap();
        let id = begun.upload_id().unwrap();
        let mut done = Vec::new();
        for (number, part) in (1..).zip(parts) {
            let call = self.client.upload_part().bucket(bucket).key(key).upload_id(id);
            let sent = call.part_number(number).body(part.into()).send().await.unwrap();
            done.push(
                CompletedPart::builder().part_number(number).e_tag(sent.e_tag().unwrap()).build(),
            );
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let call = self.client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
        call.multipart_upload(all).send().await.unwrap().e_tag().unwrap().to_owned()
    }

    pub(crate) async fn tag(&self, bucket: &str, key: &str, tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(name, value)| Tag::builder().key(*name).value(*value).build());
        let tags = tags.collect::<Result<_, _>>().unwrap();
        let tagging = Tagging::builder().set_tag_set(Some(tags)).build().unwrap();
        let call = self.client.put_object_tagging().bucket(bucket).key(key);
        call.tagging(tagging).send().await.unwrap();
    }

    pub(crate) async fn tags(&self, bucket: &str, key: &str) -> BTreeMap<String, String> {
        let call = self.client.get_object_tagging().bucket(bucket).key(key);
        let answer = call.send().await.unwrap();
        answer.tag_set().iter().map(|tag| (tag.key().into(), tag.value().into())).collect()
    }

    pub(crate) async fn delete(&self, bucket: &str, key: &str) {
        self.client.delete_object().bucket(bucket).key(key).send().await.unwrap();
    }

    /// One `DeleteObjects` call.
    pub(crate) async fn delete_all(&self, bucket: &str, keys: &[String]) {
        let names = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build());
        let names = names.collect::<Result<_, _>>().unwrap();
        let delete = Delete::builder().set_objects(Some(names)).quiet(true).build().unwrap();
        let answer = self.client.delete_objects().bucket(bucket).delete(delete).send().await;
        assert_eq!(answer.unwrap().errors(), []);
    }

    /// Every object, by key. Keys are asked for in URL form, because XML 1.0 cannot carry control
    /// characters, and decoded here.
    pub(crate) async fn list(&self, bucket: &str) -> Result<BTreeMap<String, Listed>, String> {
        let mut all = BTreeMap::new();
        let mut token = None;
        loop {
            let call =
                self.client.list_objects_v2().bucket(bucket).encoding_type(EncodingType::Url);
            let page = call.set_continuation_token(token).send().await.map_err(|e| said(&e))?;
            for object in page.contents() {
                let encoded = object.key().unwrap().replace('+', " ");
                let key = percent_decode_str(&encoded).decode_utf8().unwrap().into_owned();
                let etag = object.e_tag().unwrap().to_owned();
                all.insert(key, Listed { size: object.size().unwrap(), etag });
            }
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub(crate) async fn unfinished_uploads(&self, bucket: &str, key: &str) -> usize {
        // MinIO lists uploads only under the whole key.
        let call = self.client.list_multipart_uploads().bucket(bucket).prefix(key);
        call.send().await.unwrap().uploads().len()
    }
}
