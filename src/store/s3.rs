//! The client of one store.

use std::time::Duration;

use http::HeaderMap;

use super::*;
use crate::config::settings::StoreSettings;

/// Why a store's client could not be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

/// The client of one store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store;

#[expect(unused_variables, clippy::unused_async, reason = "skeleton")]
impl Store {
    /// Builds the client.
    pub async fn connect(
        settings: &StoreSettings,
        request_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        unimplemented!()
    }
    /// Scheme, host and port.
    pub fn endpoint(&self) -> &str {
        unimplemented!()
    }
    /// The last `Server` header seen.
    pub fn server(&self) -> Option<String> {
        unimplemented!()
    }
    /// `get`.
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        options: GetOptions<'_>,
    ) -> Result<ObjectBody, StoreError> {
        unimplemented!()
    }
    /// `head`.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, StoreError> {
        unimplemented!()
    }
    /// `put`.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        headers: &HeaderMap,
        content_md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        unimplemented!()
    }
    /// `get_tags`.
    pub async fn get_tags(&self, bucket: &str, key: &str) -> Result<Tags, StoreError> {
        unimplemented!()
    }
    /// `put_tags`.
    pub async fn put_tags(&self, bucket: &str, key: &str, tags: &Tags) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// `delete_tags`.
    pub async fn delete_tags(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// `delete`.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// `delete_many`.
    pub async fn delete_many(&self, bucket: &str, keys: &[&str]) -> Vec<Result<(), StoreError>> {
        unimplemented!()
    }
    /// `create_multipart`.
    pub async fn create_multipart(
        &self,
        bucket: &str,
        key: &str,
        headers: &HeaderMap,
    ) -> Result<String, StoreError> {
        unimplemented!()
    }
    /// `upload_part`.
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        part: u32,
        content_md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        unimplemented!()
    }
    /// `complete_multipart`.
    pub async fn complete_multipart(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        parts: &[(u32, ETag)],
    ) -> Result<PutOutcome, StoreError> {
        unimplemented!()
    }
    /// `abort_multipart`.
    pub async fn abort_multipart(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// `list`.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        token: Option<&str>,
        max_keys: u16,
    ) -> Result<ListPage, StoreError> {
        unimplemented!()
    }
    /// `head_bucket`.
    pub async fn head_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// `create_bucket`.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
}
