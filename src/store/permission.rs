//! Which permission an operation needs, as AWS IAM and MinIO's policies name it.

/// The actions that a policy must allow for `operation`, for people. `None` for what no policy names.
///
/// Source: the "Permissions" section of each operation in the
/// [AWS API reference](https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html).
/// A HEAD of a key that is not there is refused rather than answered 404 without `s3:ListBucket`.
pub(super) fn permission(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "HeadBucket" | "ListObjectsV2" => "s3:ListBucket",
        "ListObjectVersions" => "s3:ListBucketVersions",
        "GetObject" => "s3:GetObject (s3:GetObjectVersion for an older version)",
        "HeadObject" => "s3:GetObject, and s3:ListBucket to be told that a key is not there",
        "GetObjectTagging" => {
            "s3:GetObjectTagging (s3:GetObjectVersionTagging for an older version)"
        }
        "PutObject" | "CreateMultipartUpload" => "s3:PutObject, and s3:PutObjectTagging for tags",
        "UploadPart" | "CompleteMultipartUpload" => "s3:PutObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "PutObjectTagging" => "s3:PutObjectTagging",
        "DeleteObjectTagging" => "s3:DeleteObjectTagging",
        "DeleteObject" | "DeleteObjects" => "s3:DeleteObject",
        "CreateBucket" => "s3:CreateBucket",
        "GetBucketVersioning" => "s3:GetBucketVersioning",
        "ListBuckets" => "s3:ListAllMyBuckets",
        "GetBucketPolicy" => "s3:GetBucketPolicy",
        "PutBucketPolicy" => "s3:PutBucketPolicy",
        "DeleteBucketPolicy" => "s3:DeleteBucketPolicy",
        "GetBucketLifecycleConfiguration" => "s3:GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => {
            "s3:PutLifecycleConfiguration"
        }
        "GetBucketEncryption" => "s3:GetEncryptionConfiguration",
        "PutBucketEncryption" | "DeleteBucketEncryption" => "s3:PutEncryptionConfiguration",
        "GetBucketTagging" => "s3:GetBucketTagging",
        "PutBucketTagging" | "DeleteBucketTagging" => "s3:PutBucketTagging",
        "GetBucketCors" => "s3:GetBucketCors",
        "PutBucketCors" | "DeleteBucketCors" => "s3:PutBucketCors",
        "PutObjectLockConfiguration" => "s3:PutBucketObjectLockConfiguration",
        "ExportIAM" => "admin:ExportIAM",
        "ImportIAM" => "admin:ImportIAM",
        "SetGroupStatus" => "admin:EnableGroup",
        "UpdateGroupMembers" => "admin:AddUserToGroup",
        "PutBucketVersioning" => "s3:PutBucketVersioning",
        "GetObjectLockConfiguration" => "s3:GetBucketObjectLockConfiguration",
        "GetBucketNotificationConfiguration" => "s3:GetBucketNotification",
        "PutBucketNotificationConfiguration" => "s3:PutBucketNotification",
        _ => return None,
    })
}
