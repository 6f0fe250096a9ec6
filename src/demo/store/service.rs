//! The S3 operations: each goes to `s3s-fs` under a blob name, before or after the index is asked.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, dto, s3_error};

use super::index::Query;
use super::rules::{check, check_write, encoder, header_tags, listed};
use super::rules::{part_range, parts_count, tag_count};
use super::whole::{Caller, Upload, WholeS3, Write, blob_name, request};
use crate::object::ObjectKey;
use crate::store::Tags;

/// What S3 gives an object that was put without a type.
const DEFAULT_TYPE: &str = "binary/octet-stream";

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for WholeS3 {
    async fn create_bucket(
        &self,
        req: S3Request<dto::CreateBucketInput>,
    ) -> Answer<dto::CreateBucketOutput> {
        self.inner.create_bucket(req).await.map_err(|error| {
            let exists = *error.code() == S3ErrorCode::BucketAlreadyExists;
            if exists { s3_error!(BucketAlreadyOwnedByYou) } else { error }
        })
    }

    async fn head_bucket(
        &self,
        req: S3Request<dto::HeadBucketInput>,
    ) -> Answer<dto::HeadBucketOutput> {
        self.inner.head_bucket(req).await
    }

    async fn list_buckets(
        &self,
        req: S3Request<dto::ListBucketsInput>,
    ) -> Answer<dto::ListBucketsOutput> {
        self.inner.list_buckets(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<dto::GetBucketLocationInput>,
    ) -> Answer<dto::GetBucketLocationOutput> {
        self.inner.get_bucket_location(req).await
    }

    /// Never versioned.
    async fn get_bucket_versioning(
        &self,
        req: S3Request<dto::GetBucketVersioningInput>,
    ) -> Answer<dto::GetBucketVersioningOutput> {
        self.need_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(dto::GetBucketVersioningOutput::default()))
    }

    async fn get_object(
        &self,
        req: S3Request<dto::GetObjectInput>,
    ) -> Answer<dto::GetObjectOutput> {
        let dto::GetObjectInput { bucket, key, range, part_number, .. } = req.input.clone();
        loop {
            let entry = self.locate(&bucket, &key).await?;
            check(&entry, req.input.if_match.as_ref(), req.input.if_none_match.as_ref())?;
            let range = match part_number {
                Some(part) => part_range(&entry, part)?,
                None => range,
            };
            let blob = dto::GetObjectInput {
                bucket: bucket.clone(),
                key: entry.blob.clone(),
                range,
                ..Default::default()
            };
            let mut answer = match self.inner.get_object(request(blob)).await {
                // Replaced between the two steps: read what is there now.
                Err(error)
                    if *error.code() == S3ErrorCode::NoSuchKey
                        && self.index().get(&bucket, &key) != Some(&entry) =>
                {
                    continue;
                }
                other => other?,
            };
            answer.output.tag_count = tag_count(&entry);
            answer.output.parts_count = part_number.and_then(|_| parts_count(&entry));
            answer.output.accept_ranges = Some("bytes".to_owned());
            return Ok(answer);
        }
    }

    async fn head_object(
        &self,
        req: S3Request<dto::HeadObjectInput>,
    ) -> Answer<dto::HeadObjectOutput> {
        let dto::HeadObjectInput { bucket, key, part_number, .. } = req.input;
        let entry = self.locate(&bucket, &key).await?;
        check(&entry, req.input.if_match.as_ref(), req.input.if_none_match.as_ref())?;
        let blob = dto::HeadObjectInput { bucket, key: entry.blob.clone(), ..Default::default() };
        let mut answer = self.inner.head_object(request(blob)).await?;
        if let Some(part) = part_number {
            if let Some(dto::Range::Int { first, last: Some(last) }) = part_range(&entry, part)? {
                answer.output.content_length = i64::try_from(last + 1 - first).ok();
            }
            answer.output.parts_count = parts_count(&entry);
        }
        if let Some(count) = tag_count(&entry) {
            answer.headers.insert("x-amz-tagging-count", HeaderValue::from(count));
        }
        Ok(answer)
    }

    async fn put_object(
        &self,
        mut req: S3Request<dto::PutObjectInput>,
    ) -> Answer<dto::PutObjectOutput> {
        let caller = Caller::of(&req);
        let key = ObjectKey::new(req.input.bucket.as_str(), req.input.key.as_str());
        self.need_bucket(&key.bucket).await?;
        let (matching, none) = (req.input.if_match.take(), req.input.if_none_match.take());
        check_write(self.index().get(&key.bucket, &key.key), matching.as_ref(), none.as_ref())?;
        let tags = header_tags(req.input.tagging.take().as_deref());
        req.input.content_type.get_or_insert_with(|| DEFAULT_TYPE.to_owned());
        let blob = blob_name();
        req.input.key.clone_from(&blob);
        let answer = match self.inner.put_object(req).await {
            Ok(answer) => answer,
            Err(error) => {
                self.drop_blob(&key.bucket, blob).await;
                return Err(error);
            }
        };
        let event = "s3:ObjectCreated:Put";
        self.commit(&caller, Write { key, blob, parts: Vec::new(), tags, event }).await?;
        Ok(answer)
    }

    async fn copy_object(
        &self,
        mut req: S3Request<dto::CopyObjectInput>,
    ) -> Answer<dto::CopyObjectOutput> {
        let caller = Caller::of(&req);
        let key = ObjectKey::new(req.input.bucket.as_str(), req.input.key.as_str());
        self.need_bucket(&key.bucket).await?;
        let dto::CopySource::Bucket { bucket: from, key: name, .. } = &mut req.input.copy_source
        else {
            return Err(s3_error!(NotImplemented));
        };
        let source = self.locate(from, name).await?;
        *name = source.blob.as_str().into();
        let replace = req.input.tagging_directive.take();
        let given = req.input.tagging.take();
        let tags = match replace {
            Some(d) if d.as_str() == dto::TaggingDirective::REPLACE => {
                header_tags(given.as_deref())
            }
            _ => source.tags,
        };
        let blob = blob_name();
        req.input.key.clone_from(&blob);
        let answer = self.inner.copy_object(req).await?;
        let event = "s3:ObjectCreated:Copy";
        self.commit(&caller, Write { key, blob, parts: source.parts, tags, event }).await?;
        Ok(answer)
    }

    /// A missing object is not an error; MinIO names that event `NoOP`.
    async fn delete_object(
        &self,
        req: S3Request<dto::DeleteObjectInput>,
    ) -> Answer<dto::DeleteObjectOutput> {
        self.need_bucket(&req.input.bucket).await?;
        let key = ObjectKey::new(req.input.bucket.as_str(), req.input.key.as_str());
        self.remove(&Caller::of(&req), &key, "s3:ObjectRemoved:NoOP").await?;
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    /// Like MinIO, sends a `Delete` event even for a key that never existed.
    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> Answer<dto::DeleteObjectsOutput> {
        let caller = Caller::of(&req);
        self.need_bucket(&req.input.bucket).await?;
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            let key = ObjectKey::new(req.input.bucket.as_str(), object.key.as_str());
            self.remove(&caller, &key, "s3:ObjectRemoved:Delete").await?;
            deleted.push(dto::DeletedObject { key: Some(object.key), ..Default::default() });
        }
        let deleted = (!req.input.delete.quiet.unwrap_or_default()).then_some(deleted);
        Ok(S3Response::new(dto::DeleteObjectsOutput { deleted, ..Default::default() }))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<dto::GetObjectTaggingInput>,
    ) -> Answer<dto::GetObjectTaggingOutput> {
        let entry = self.locate(&req.input.bucket, &req.input.key).await?;
        let tag = |(key, value)| dto::Tag { key: Some(key), value: Some(value) };
        let tag_set = entry.tags.into_iter().map(tag).collect();
        Ok(S3Response::new(dto::GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<dto::PutObjectTaggingInput>,
    ) -> Answer<dto::PutObjectTaggingOutput> {
        let caller = Caller::of(&req);
        let key = ObjectKey::new(req.input.bucket, req.input.key);
        let pair = |tag: dto::Tag| Some((tag.key?, tag.value.unwrap_or_default()));
        let tags = req.input.tagging.tag_set.into_iter().filter_map(pair).collect();
        self.tag(&caller, &key, tags, "s3:ObjectCreated:PutTagging").await?;
        Ok(S3Response::new(dto::PutObjectTaggingOutput::default()))
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<dto::DeleteObjectTaggingInput>,
    ) -> Answer<dto::DeleteObjectTaggingOutput> {
        let caller = Caller::of(&req);
        let key = ObjectKey::new(req.input.bucket, req.input.key);
        self.tag(&caller, &key, Tags::new(), "s3:ObjectCreated:DeleteTagging").await?;
        Ok(S3Response::new(dto::DeleteObjectTaggingOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> Answer<dto::ListObjectsV2Output> {
        let input = req.input;
        self.need_bucket(&input.bucket).await?;
        let after = match &input.continuation_token {
            Some(token) => hex::decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| s3_error!(InvalidArgument, "unknown continuation token"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let max_keys = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after: &after,
            max: usize::try_from(max_keys).unwrap_or_default(),
        };
        let page = self.index().list(&input.bucket, query);
        let encode = encoder(input.encoding_type.as_ref());
        let count = page.objects.len() + page.prefixes.len();
        let prefix = |name: String| dto::CommonPrefix { prefix: Some(encode(&name)) };
        Ok(S3Response::new(dto::ListObjectsV2Output {
            key_count: i32::try_from(count).ok(),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(hex::encode),
            contents: Some(page.objects.into_iter().map(|(k, e)| listed(encode(&k), e)).collect()),
            common_prefixes: Some(page.prefixes.into_iter().map(prefix).collect()),
            prefix: input.prefix.as_deref().map(&encode),
            delimiter: input.delimiter.as_deref().map(&encode),
            start_after: input.start_after.as_deref().map(&encode),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<dto::CreateMultipartUploadInput>,
    ) -> Answer<dto::CreateMultipartUploadOutput> {
        let dto::CreateMultipartUploadInput { bucket, key, .. } = &req.input;
        let upload = Upload {
            bucket: bucket.clone(),
            key: key.clone(),
            blob: blob_name(),
            tags: header_tags(req.input.tagging.as_deref()),
        };
        self.need_bucket(&upload.bucket).await?;
        req.input.content_type.get_or_insert_with(|| DEFAULT_TYPE.to_owned());
        req.input.key.clone_from(&upload.blob);
        let mut answer = self.inner.create_multipart_upload(req).await?;
        answer.output.key = Some(upload.key.clone());
        if let Some(id) = &answer.output.upload_id {
            self.uploads().insert(id.clone(), upload);
        }
        Ok(answer)
    }

    async fn upload_part(
        &self,
        mut req: S3Request<dto::UploadPartInput>,
    ) -> Answer<dto::UploadPartOutput> {
        let upload = self.upload(&req.input.upload_id, &req.input.bucket, &req.input.key)?;
        req.input.key = upload.blob;
        let md5 = req.input.content_md5.take();
        let answer = self.inner.upload_part(req).await?;
        let stored = answer.output.e_tag.as_ref().map_or("", dto::ETag::value);
        match md5.map(|given| BASE64.decode(given)) {
            None => Ok(answer),
            Some(Ok(given)) if hex::encode(&given) == stored => Ok(answer),
            Some(Ok(_)) => Err(s3_error!(BadDigest)),
            Some(Err(_)) => Err(s3_error!(InvalidDigest)),
        }
    }

    async fn upload_part_copy(
        &self,
        mut req: S3Request<dto::UploadPartCopyInput>,
    ) -> Answer<dto::UploadPartCopyOutput> {
        req.input.key = self.upload(&req.input.upload_id, &req.input.bucket, &req.input.key)?.blob;
        let dto::CopySource::Bucket { bucket, key, .. } = &mut req.input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        *key = self.locate(bucket, key).await?.blob.into();
        self.inner.upload_part_copy(req).await
    }

    async fn list_parts(
        &self,
        mut req: S3Request<dto::ListPartsInput>,
    ) -> Answer<dto::ListPartsOutput> {
        let upload = self.upload(&req.input.upload_id, &req.input.bucket, &req.input.key)?;
        req.input.key = upload.blob;
        let mut answer = self.inner.list_parts(req).await?;
        answer.output.key = Some(upload.key);
        if let Some(parts) = &mut answer.output.parts {
            parts.sort_by_key(|part| part.part_number);
        }
        Ok(answer)
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> Answer<dto::CompleteMultipartUploadOutput> {
        let caller = Caller::of(&req);
        let id = req.input.upload_id.clone();
        let upload = self.upload(&id, &req.input.bucket, &req.input.key)?;
        let key = ObjectKey::new(upload.bucket.as_str(), upload.key.as_str());
        let (matching, none) = (req.input.if_match.take(), req.input.if_none_match.take());
        check_write(self.index().get(&key.bucket, &key.key), matching.as_ref(), none.as_ref())?;
        let parts = self.part_sizes(&upload, &id).await?;
        let wanted = req.input.multipart_upload.iter().flat_map(|m| m.parts.iter().flatten());
        let parts = wanted
            .map(|part| part.part_number.and_then(|n| parts.get(&n).copied()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| s3_error!(InvalidPart))?;
        req.input.key.clone_from(&upload.blob);
        let mut output = self.inner.complete_multipart_upload(req).await?.output;
        if let Some(rest) = output.future.take() {
            output = rest.await?;
        }
        self.uploads().remove(&id);
        let event = "s3:ObjectCreated:CompleteMultipartUpload";
        let Upload { bucket, key: name, blob, tags } = upload;
        self.commit(&caller, Write { key, blob, parts, tags, event }).await?;
        let (bucket, key) = (Some(bucket), Some(name));
        Ok(S3Response::new(dto::CompleteMultipartUploadOutput { bucket, key, ..output }))
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<dto::AbortMultipartUploadInput>,
    ) -> Answer<dto::AbortMultipartUploadOutput> {
        let id = req.input.upload_id.clone();
        req.input.key = self.upload(&id, &req.input.bucket, &req.input.key)?.blob;
        let answer = self.inner.abort_multipart_upload(req).await?;
        self.uploads().remove(&id);
        Ok(answer)
    }
}

impl WholeS3 {
    fn upload(&self, id: &str, bucket: &str, key: &str) -> S3Result<Upload> {
        let found = self.uploads().get(id).cloned();
        found.filter(|u| u.bucket == bucket && u.key == key).ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// The sizes of the parts uploaded so far, by number.
    async fn part_sizes(&self, upload: &Upload, id: &str) -> S3Result<HashMap<i32, i64>> {
        let input = dto::ListPartsInput {
            bucket: upload.bucket.clone(),
            key: upload.blob.clone(),
            upload_id: id.to_owned(),
            ..Default::default()
        };
        let parts = self.inner.list_parts(request(input)).await?.output.parts;
        Ok(parts.into_iter().flatten().filter_map(|p| Some((p.part_number?, p.size?))).collect())
    }
}
