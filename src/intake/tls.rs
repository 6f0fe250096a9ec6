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
    use std::net::SocketAddr;

    use axum::Router;
    use rustls::ClientConfig;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
    }

    fn settings(client_ca_file: Option<&str>) -> TlsSettings {
        let client_ca_file = client_ca_file.map(file);
        TlsSettings { cert_file: file("server.pem"), key_file: file("server.key"), client_ca_file }
    }

    /// What a client with this certificate gets to hear: an answer's first line, or nothing.
    async fn ask(address: SocketAddr, identity: Option<&str>) -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificates("", &file("authority.pem")).unwrap().remove(0)).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = certificates("", &file(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        // With TLS 1.3 a refused client hears of it only when it reads.
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8(answer).unwrap().lines().next().map(str::to_owned)
    }

    async fn answers(settings: &TlsSettings) -> [bool; 3] {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = serve::bind(any, "intake.webhook.listen").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Some(acceptor(settings).unwrap());
        let (router, limits) = (Router::new(), serve::Limits::connections(8));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve::run(listener, tls, router, limits, stop.clone()));
        let mut heard = [false; 3];
        for (heard, identity) in heard.iter_mut().zip([None, Some("client"), Some("stranger")]) {
            *heard = ask(address, identity).await.is_some_and(|line| line.contains("404"));
        }
        stop.cancel();
        server.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn with_a_client_authority_only_its_clients_are_heard() {
        assert_eq!(answers(&settings(Some("authority.pem"))).await, [false, true, false]);
        assert_eq!(answers(&settings(None)).await, [true, true, true]);
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_named_with_its_setting() {
        let message = |settings| acceptor(&settings).map(drop).unwrap_err().to_string();
        let missing = message(TlsSettings { cert_file: file("none.pem"), ..settings(None) });
        assert!(missing.starts_with("failed to read intake.webhook.tls.cert_file"), "{missing}");
        let wrong = message(TlsSettings { key_file: file("server.pem"), ..settings(None) });
        assert!(wrong.contains("key_file") && wrong.contains("no private key"), "{wrong}");
        let other = message(TlsSettings { key_file: file("client.key"), ..settings(None) });
        assert!(other.starts_with("failed to set up TLS"), "{other}");
    }
}
