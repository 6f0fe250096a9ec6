//! The fixtures' certificates, and HTTPS clients that trust their authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A file of `tests/fixtures/tls`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// A client that trusts the fixtures' authority and no other; it presents the certificate `identity`
/// (`client`, `stranger`), or none.
pub(crate) fn client(identity: Option<&str>) -> ClientConfig {
    let certificate = |name: &str| {
        CertificateDer::from_pem_file(fixture(&format!("{name}.pem"))).expect("a certificate")
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate("authority")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS")
        .with_root_certificates(roots);
    let Some(name) = identity else { return builder.with_no_client_auth() };
    let key = PrivateKeyDer::from_pem_file(fixture(&format!("{name}.key"))).expect("a key");
    builder.with_client_auth_cert(vec![certificate(name)], key).expect("they belong together")
}
