//! What an answer's status and S3 error code ask of the caller: a table, and nothing else.

use super::ErrorKind;

/// Classifies a failed answer. A known code decides; else the status does. `status` is 200 when the
/// error came inside a success (`CompleteMultipartUpload`, one key of `DeleteObjects`).
///
/// Codes: [AWS](https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), and those
/// that start with `XMinio` from MinIO.
pub(super) fn classify(status: u16, code: Option<&str>) -> ErrorKind {
    code.and_then(by_code).unwrap_or_else(|| by_status(status))
}

fn by_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" | "NoSuchTagSet" | "NoSuchTagSetError"
        | "NotFound" => ErrorKind::NotFound,
        "NoSuchBucket" => ErrorKind::NoSuchBucket,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "XMinioServerBusy"
        | "ServerBusy" => ErrorKind::Throttled,
        "InternalError"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "RequestTimeTooSkewed"
        | "OperationAborted"
        | "OperationTimedOut"
        | "RequestTimedOut"
        | "ClientDisconnected"
        | "SlowDownConn"
        | "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "XMinioServerNotInitialized"
        | "XMinioBackendDown"
        | "XMinioRequestTimedOut" => ErrorKind::Transient,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "XMinioInvalidIAMCredentials" => ErrorKind::Denied,
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XMinioContentSHA256Mismatch"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "InvalidPart" => ErrorKind::Corrupt,
        "PreconditionFailed" | "ConditionalRequestConflict" => ErrorKind::Changed,
        "MethodNotAllowed"
        | "NotImplemented"
        | "InvalidRequest"
        | "InvalidArgument"
        | "EntityTooLarge"
        | "EntityTooSmall"
        | "KeyTooLongError"
        | "InvalidBucketName"
        | "InvalidTag"
        | "MetadataTooLarge"
        | "MissingContentLength"
        | "MalformedXML"
        | "InvalidPartOrder"
        | "InvalidStorageClass"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "XMinioInvalidObjectName" => ErrorKind::Invalid,
        _ => return None,
    })
}

fn by_status(status: u16) -> ErrorKind {
    match status {
        404 => ErrorKind::NotFound,
        412 => ErrorKind::Changed,
        401 | 403 | 407 => ErrorKind::Denied,
        429 | 503 => ErrorKind::Throttled,
        200 | 408 | 409 | 425 => ErrorKind::Transient,
        300..=499 | 501 | 505 => ErrorKind::Invalid,
        _ => ErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_asks_for_the_right_thing() {
        use ErrorKind::*;
        for (status, code, kind) in [
            (404, Some("NoSuchKey"), NotFound),
            (404, Some("NoSuchUpload"), NotFound),
            (404, None, NotFound),
            (404, Some("NoSuchBucket"), NoSuchBucket),
            (503, Some("SlowDown"), Throttled),
            (503, Some("SlowDownWrite"), Throttled),
            (503, None, Throttled),
            (429, None, Throttled),
            (429, Some("SomethingNew"), Throttled),
            (503, Some("ServiceUnavailable"), Transient),
            (503, Some("XMinioServerNotInitialized"), Transient),
            (500, Some("InternalError"), Transient),
            (200, Some("InternalError"), Transient),
            (200, Some("SomethingNew"), Transient),
            (400, Some("RequestTimeout"), Transient),
            (403, Some("RequestTimeTooSkewed"), Transient),
            (409, Some("OperationAborted"), Transient),
            (507, Some("XMinioStorageFull"), Transient),
            (400, Some("QuotaExceeded"), Transient),
            (500, None, Transient),
            (502, None, Transient),
            (504, None, Transient),
            (408, None, Transient),
            (403, Some("AccessDenied"), Denied),
            (403, Some("InvalidAccessKeyId"), Denied),
            (403, Some("SignatureDoesNotMatch"), Denied),
            (400, Some("ExpiredToken"), Denied),
            (400, Some("InvalidToken"), Denied),
            (401, None, Denied),
            (403, None, Denied),
            (400, Some("BadDigest"), Corrupt),
            (400, Some("InvalidDigest"), Corrupt),
            (400, Some("IncompleteBody"), Corrupt),
            (400, Some("InvalidPart"), Corrupt),
            (400, Some("XMinioContentSHA256Mismatch"), Corrupt),
            (400, Some("XAmzContentSHA256Mismatch"), Corrupt),
            (412, Some("PreconditionFailed"), Changed),
            (412, None, Changed),
            (405, Some("MethodNotAllowed"), Invalid),
            (501, Some("NotImplemented"), Invalid),
            (400, Some("InvalidRequest"), Invalid),
            (400, Some("EntityTooLarge"), Invalid),
            (400, Some("KeyTooLongError"), Invalid),
            (400, None, Invalid),
            (301, Some("PermanentRedirect"), Invalid),
            (307, None, Invalid),
            (411, None, Invalid),
            (501, None, Invalid),
        ] {
            assert_eq!(classify(status, code), kind, "{status} {code:?}");
        }
    }
}
