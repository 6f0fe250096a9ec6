//! The bearer token of the webhook and of the acting web calls.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A token, kept as its SHA-256 so that comparing takes the same time whatever is presented.
#[derive(Clone)]
pub struct BearerToken {
    digest: [u8; 32],
    verbatim: bool,
}

impl BearerToken {
    /// One word is expected after `Bearer `; a text of two words (`Basic dXNl…`) is expected as it is,
    /// because that is how MinIO and RustFS send an `auth_token` of two words.
    pub fn new(token: &SecretString) -> Self {
        let token = token.expose_secret().trim();
        Self { digest: Sha256::digest(token).into(), verbatim: token.contains(' ') }
    }

    /// Whether the request carries the token.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let value = value.as_bytes().trim_ascii();
        let presented = if self.verbatim { Some(value) } else { after_bearer(value) };
        presented.is_some_and(|p| {
            let digest: [u8; 32] = Sha256::digest(p).into();
            digest.ct_eq(&self.digest).into()
        })
    }
}

fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii_start())
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(token: &str, header: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in header {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        BearerToken::new(&SecretString::from(token)).admits(&headers)
    }

    #[test]
    fn only_the_token_is_admitted() {
        assert!(admits("t0ken", &["Bearer t0ken"]));
        assert!(admits("t0ken\n", &["bearer t0ken"]));
        assert!(admits("Basic abc", &["Basic abc"]));
        for wrong in [
            &[][..],
            &[""],
            &["t0ken"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer t0ke"],
            &["Bearer t0kenn"],
            &["Basic t0ken"],
            &["Bearer t0ken", "Bearer t0ken"],
        ] {
            assert!(!admits("t0ken", wrong), "{wrong:?}");
        }
        assert!(!admits("Basic abc", &["Bearer Basic abc"]));
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = BearerToken::new(&SecretString::from("t0ken"));
        assert_eq!(format!("{token:?}"), "BearerToken(hidden)");
    }
}
