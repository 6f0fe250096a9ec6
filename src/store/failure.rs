//! How a failed call becomes a [`StoreError`]: which request it was, and what went wrong in words.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, InvalidMessage, OtherError};

use super::classify::classify;
use super::permission::permission;
use super::{ErrorKind, Side, StoreError};

/// Which request: enough to name it in an error, long after it was sent.
#[derive(Debug, Clone)]
pub struct CallSite {
    pub(super) operation: &'static str,
    pub(super) side: Side,
    pub(super) endpoint: Arc<str>,
    pub(super) bucket: Box<str>,
    pub(super) key: Box<str>,
}

impl CallSite {
    /// The object is not what it was a moment ago: start over.
    pub fn changed(&self, message: impl Into<String>) -> StoreError {
        self.error(ErrorKind::Changed, message)
    }

    /// The content is not what it should be.
    pub fn corrupt(&self, message: impl Into<String>) -> StoreError {
        self.error(ErrorKind::Corrupt, message)
    }

    /// The store, or the path to it, has a fault that may pass.
    pub fn transient(&self, message: impl Into<String>) -> StoreError {
        self.error(ErrorKind::Transient, message)
    }

    /// A failure without an answer, or in the middle of one.
    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> StoreError {
        StoreError {
            kind,
            operation: self.operation,
            side: self.side,
            endpoint: Arc::clone(&self.endpoint),
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            status: None,
            code: None,
            message: message.into(),
            by_s3: false,
            maybe_applied: false,
        }
    }

    /// A failure that the store itself reported.
    pub(super) fn answered(
        &self,
        status: u16,
        code: Option<String>,
        message: Option<&str>,
    ) -> StoreError {
        let kind = classify(status, code.as_deref());
        let mut text = status.to_string();
        let message = message.map(|message| message.trim_end_matches('.'));
        for part in [code.as_deref(), message].into_iter().flatten() {
            text.push_str(if text.len() == 3 { " " } else { ": " });
            text.extend(part.chars().flat_map(char::escape_debug));
        }
        // Wrong keys are refused by other codes. HEAD has no body, so AWS gives it none.
        let lacks = match code.as_deref() {
            Some("AccessDenied") => permission(self.operation),
            None if status == 403 => permission(self.operation),
            Some(_) | None => None,
        };
        if let Some(permission) = lacks {
            text.push_str("; this needs ");
            text.push_str(permission);
        }
        // What Go's servers and nginx answer to plain HTTP on a port that wants TLS.
        if status == 400 && code.is_none() && self.endpoint.starts_with("http://") {
            text.push_str(" without a reason, as a port answers that wants https://");
        }
        StoreError { status: Some(status), code, ..self.error(kind, text) }
    }
}

/// The error's cause for people: the innermost one says what happened, the outer ones only where.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    let mut io = None;
    for cause in causes(error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return describe_tls(tls);
        }
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>()
            && hyper.is_incomplete_message()
        {
            return "connection closed before the answer was complete".to_owned();
        }
        io = io.or_else(|| cause.downcast_ref().map(io::Error::kind));
        innermost = cause;
    }
    match io {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(io::ErrorKind::BrokenPipe) => "connection closed while sending".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) => "connection closed while receiving".to_owned(),
        Some(io::ErrorKind::TimedOut) => "connecting timed out".to_owned(),
        _ => innermost.to_string(),
    }
}

fn describe_tls(error: &rustls::Error) -> String {
    if let rustls::Error::InvalidCertificate(reason) = error {
        return format!("certificate not trusted: {}", describe_certificate(reason));
    }
    if *error == rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) {
        return "TLS failed: the server does not speak TLS on this port, which asks for http://"
            .to_owned();
    }
    format!("TLS failed: {error}")
}

fn describe_certificate(reason: &CertificateError) -> String {
    if *reason == CertificateError::UnknownIssuer {
        return "nobody whom this machine trusts has signed it; ca_file names the PEM file of its issuer"
            .to_owned();
    }
    // It would show the error within as Rust spells it.
    if let CertificateError::Other(OtherError(error)) = reason {
        let error = error.to_string();
        return match error.as_str() {
            "CaUsedAsEndEntity" => {
                "it is the certificate of an authority, not of a server".to_owned()
            }
            _ => error,
        };
    }
    reason.to_string()
}

/// The error and everything behind it. An `io::Error` shows what it wraps only through `get_ref`.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static)),
        None => error.source(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> CallSite {
        CallSite {
            operation: "PutObject",
            side: Side::Target,
            endpoint: "http://h:9000".into(),
            bucket: "b".into(),
            key: "a\n".into(),
        }
    }

    #[test]
    fn an_error_says_what_failed_where_and_why() {
        let error = origin().answered(403, Some("SignatureDoesNotMatch".into()), Some("bad\nkey"));
        assert_eq!(error.kind, ErrorKind::Denied);
        assert_eq!(
            error.to_string(),
            "PutObject b/a\\n on http://h:9000: 403 SignatureDoesNotMatch: bad\\nkey"
        );
        let stopped = origin().answered(404, Some("NoSuchKey".into()), Some("Gone."));
        assert_eq!(stopped.message, "404 NoSuchKey: Gone", "what follows begins with a semicolon");
        let bare = origin().answered(502, None, None);
        assert_eq!(bare.to_string(), "PutObject b/a\\n on http://h:9000: 502");
    }

    #[test]
    fn a_refusal_names_the_permission_that_is_missing() {
        let refused = |status, code: Option<&str>| {
            origin().answered(status, code.map(str::to_owned), None).message
        };
        let message = refused(403, Some("AccessDenied"));
        assert!(message.contains("this needs s3:PutObject"), "{message}");
        assert!(refused(200, Some("AccessDenied")).contains("s3:PutObject"));
        assert!(refused(403, None).contains("s3:PutObject"));
        assert!(!refused(403, Some("InvalidAccessKeyId")).contains("s3:"));
    }

    #[test]
    fn an_untrusted_certificate_is_called_that() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::new(io::ErrorKind::InvalidData, tls);
        let text = describe(&error);
        assert!(
            text.starts_with("certificate not trusted: ") && text.contains("ca_file"),
            "{text}"
        );
    }

    #[test]
    fn a_port_of_the_other_protocol_is_called_that() {
        let tls = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        let text = describe(&io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(text.contains("does not speak TLS") && text.contains("http://"), "{text}");
        let plain = origin().answered(400, None, None).message;
        assert!(plain.contains("https://"), "{plain}");
        assert_eq!(origin().answered(400, Some("BadDigest".into()), None).message, "400 BadDigest");
    }

    #[test]
    fn a_refused_connection_is_called_that() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(describe(&error), "connection refused");
    }
}
