//! What a failed call to the queue means, and what an operator can do about it; pure.

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such queue for these credentials in this region.
    NoQueue,
    /// Credentials or policy must be mended by a person.
    Denied,
    /// The queue asks for less.
    Throttled,
    /// No answer.
    Unreachable,
    /// Anything else.
    Other,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {reason}")]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// As in the API and in policies: `ReceiveMessage`.
    pub(super) operation: &'static str,
    /// In words, with the service's own code if it gave one.
    pub(super) reason: String,
}

const THROTTLED: [&str; 6] = [
    "KmsThrottled",
    "OverLimit",
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

const DENIED: [&str; 15] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignatureException",
    "KmsAccessDenied",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// By the status and the code of an answer; neither means that there was none.
/// The codes: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>.
pub(super) fn classify(status: Option<u16>, code: Option<&str>) -> Kind {
    let Some(status) = status else { return Kind::Unreachable };
    // The older protocol's names begin with `AWS.SimpleQueueService.`.
    let code = code.map(|code| code.rsplit('.').next().unwrap_or(code));
    match (code, status) {
        (Some("QueueDoesNotExist" | "NonExistentQueue" | "InvalidAddress"), _) => Kind::NoQueue,
        (Some(code), _) if THROTTLED.contains(&code) => Kind::Throttled,
        (Some(code), _) if DENIED.contains(&code) => Kind::Denied,
        (_, 401 | 403) => Kind::Denied,
        (_, 429) => Kind::Throttled,
        _ => Kind::Other,
    }
}

impl Kind {
    /// The class in `evermirror_errors_total`.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::NoQueue => "sqs_no_queue",
            Self::Denied => "sqs_denied",
            Self::Throttled => "sqs_throttled",
            Self::Unreachable => "sqs_unreachable",
            Self::Other => "sqs_failed",
        }
    }
}

impl Failure {
    /// What a person can do.
    pub(super) fn advice(&self) -> String {
        match self.kind {
            Kind::NoQueue => "check queue_url and region in [intake.sqs]: there is no such queue, or not for \
                              these credentials"
                .to_owned(),
            Kind::Denied => format!(
                "check the credentials and region in [intake.sqs], and that their policy and the queue's allow sqs:{}",
                self.action()
            ),
            Kind::Throttled => {
                "wait; if it stays so, lower receivers in [intake.sqs] or ask for a higher quota".to_owned()
            }
            Kind::Unreachable => {
                "check queue_url and endpoint in [intake.sqs], and the way there (DNS, firewall, proxy)".to_owned()
            }
            Kind::Other => "look the code up in the service's documentation".to_owned(),
        }
    }

    /// The permission that the call needs: there is none for batches of their own.
    fn action(&self) -> &'static str {
        self.operation.strip_suffix("Batch").unwrap_or(self.operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_what_its_code_or_its_status_says() {
        for (status, code, kind) in [
            (Some(400), Some("QueueDoesNotExist"), Kind::NoQueue),
            (Some(400), Some("AWS.SimpleQueueService.NonExistentQueue"), Kind::NoQueue),
            (Some(404), Some("InvalidAddress"), Kind::NoQueue),
            (Some(403), Some("AccessDenied"), Kind::Denied),
            (Some(400), Some("AccessDeniedException"), Kind::Denied),
            (Some(403), Some("InvalidClientTokenId"), Kind::Denied),
            (Some(403), None, Kind::Denied),
            (Some(400), Some("RequestThrottled"), Kind::Throttled),
            (Some(429), None, Kind::Throttled),
            (Some(403), Some("OverLimit"), Kind::Throttled),
            (Some(500), Some("InternalFailure"), Kind::Other),
            (Some(400), Some("InvalidParameterValue"), Kind::Other),
            (None, None, Kind::Unreachable),
        ] {
            assert_eq!(classify(status, code), kind, "{status:?} {code:?}");
        }
    }

    #[test]
    fn the_advice_names_the_permission_that_is_missing() {
        let failure =
            Failure { kind: Kind::Denied, operation: "DeleteMessageBatch", reason: String::new() };
        assert!(failure.advice().ends_with("allow sqs:DeleteMessage"), "{}", failure.advice());
    }
}
