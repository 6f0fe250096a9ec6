//! What is called rarely, through `aws-sdk-s3`: creating a bucket, and finding credentials.

use std::path::Path;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::failure::{CallSite, describe};
use super::{ErrorKind, StoreError};
use crate::config::settings::StoreSettings;

/// The SDK's client, for calls on buckets.
pub(super) type Client = aws_sdk_s3::Client;

/// The AWS default chain: environment, profile, web identity, container, instance.
pub(crate) async fn default_chain(region: &str) -> Result<SharedCredentialsProvider, String> {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http_client(None)?)
        .load()
        .await
        .credentials_provider()
        .ok_or_else(|| "the AWS default chain gives no credentials".to_owned())
}

/// The SDK's client for one store.
pub(super) fn client(
    settings: &StoreSettings,
    provider: SharedCredentialsProvider,
) -> Result<aws_sdk_s3::Client, String> {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&settings.endpoint)
        .region(Region::new(settings.region.clone()))
        .force_path_style(settings.path_style)
        .credentials_provider(provider)
        .http_client(http_client(settings.ca_file.as_deref())?)
        .build();
    Ok(aws_sdk_s3::Client::from_conf(config))
}

/// Creates `bucket` in `region`, its objects lockable if `lock` says so, which can never be changed; that
/// we own it already is success.
pub(super) async fn create_bucket(
    client: &aws_sdk_s3::Client,
    region: &str,
    lock: bool,
    origin: &CallSite,
) -> Result<(), StoreError> {
    // The default region is the one that must not be named.
    let place = (region != "us-east-1").then(|| {
        let constraint = BucketLocationConstraint::from(region);
        CreateBucketConfiguration::builder().location_constraint(constraint).build()
    });
    let request = client.create_bucket().bucket(&*origin.bucket);
    let request = request.set_object_lock_enabled_for_bucket(lock.then_some(true));
    let Err(error) = request.set_create_bucket_configuration(place).send().await else {
        return Ok(());
    };
    if matches!(error.as_service_error(), Some(CreateBucketError::BucketAlreadyOwnedByYou(_))) {
        return Ok(());
    }
    Err(match error.raw_response().map(|raw| raw.status().as_u16()) {
        Some(status) => origin.answered(status, error.code().map(str::to_owned), error.message()),
        None => origin.error(ErrorKind::Transient, describe(&error)),
    })
}

/// HTTP and HTTPS for a client of the SDK, trusting `ca_file` besides the system's authorities.
pub(crate) fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        trust.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| format!("TLS: {error}"))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https())
}
