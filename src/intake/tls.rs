//! The webhook's TLS: certificates from PEM files, read once at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::settings::TlsSettings;

/// TLS cannot be set up from the files that the settings name.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {setting} from {}: {source}", path.display())]
    Read {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("failed to use {setting}: {} holds no {what} in PEM format ({reason})", path.display())]
    Pem {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found.
        reason: String,
    },
    /// The certificate and the key do not belong together, or an authority is malformed.
    #[error("failed to set up TLS from intake.webhook.tls: {0}")]
    Refused(String),
}

/// Reads the files and makes an acceptor; with `client_ca_file`, one that admits only clients
/// with a certificate of that authority.
pub fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates("intake.webhook.tls.cert_file", &settings.cert_file)?;
    let setting = "intake.webhook.tls.key_file";
    let key = PrivateKeyDer::from_pem_slice(&read(setting, &settings.key_file)?)
        .map_err(pem_error(setting, &settings.key_file, "private key"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused(error.to_string()))?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("intake.webhook.tls.client_ca_file", path)? {
                roots.add(authority).map_err(|error| TlsError::Refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError::Refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Refused(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(setting, path)?;
    let bad = pem_error(setting, path, "certificate");
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => Err(bad(pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(error)),
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { setting, path: path.to_owned(), source })
}

fn pem_error(
    setting: &'static str,
    path: &Path,
    what: &'static str,
) -> impl FnOnce(pem::Error) -> TlsError {
    move |error| TlsError::Pem { setting, path: path.to_owned(), what, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_holds_no_certificate_is_named_with_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        let cert_file = dir.path().join("cert.pem");
        let settings = TlsSettings { key_file: cert_file.clone(), cert_file, client_ca_file: None };
        let message = || acceptor(&settings).map(drop).unwrap_err().to_string();
        assert!(
            message().starts_with("failed to read intake.webhook.tls.cert_file"),
            "{}",
            message()
        );
        std::fs::write(&settings.cert_file, "hello").unwrap();
        assert!(message().contains("holds no certificate"), "{}", message());
    }
}
