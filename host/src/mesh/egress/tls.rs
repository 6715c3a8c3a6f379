//! TLS outside: which roots are trusted, and what a failure is called.

use super::{Refusal, destination::Host};
use rustls::{
    CertificateError, ClientConfig, Error as TlsError, RootCertStore,
    pki_types::{CertificateDer, IpAddr, ServerName, pem::PemObject as _},
};
use std::{io, path::Path, sync::Arc};
use tokio_rustls::TlsConnector;
use wasmtime::{Result, ensure, error::Context as _, format_err};

/// HTTP/2 as ALPN names it.
pub const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Both ways of beginning TLS.
pub struct Tls {
    /// For bytes that the host does not understand.
    pub stream: TlsConnector,
    /// For HTTP, of which either version is offered.
    pub http: TlsConnector,
}

impl Tls {
    /// Trusts the public roots, and the certificates in the PEM file `ca_file` unless its name is empty.
    pub fn new(ca_file: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if !ca_file.is_empty() {
            add(&mut roots, Path::new(ca_file))
                .with_context(|| format!("[platform] egress_ca_file = {ca_file:?}"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choosing versions of TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = config.clone();
        http.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self {
            stream: Arc::new(config).into(),
            http: Arc::new(http).into(),
        })
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let pem = std::fs::read(path).map_err(|error| format_err!("cannot read it: {error}"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format_err!("it is no PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format_err!("a certificate in it cannot be trusted: {error}"))?;
        count += 1;
    }
    ensure!(count > 0, "there is no certificate in it");
    Ok(())
}

/// The name that the peer's certificate must be for.
pub fn server_name(host: &Host) -> Result<ServerName<'static>, Refusal> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress(IpAddr::from(*address))),
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|_| Refusal::Tls(format!("`{name}` can be in no certificate"))),
    }
}

/// Why TLS did not come about.
pub fn refusal(error: &io::Error) -> Refusal {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>())
    {
        Some(TlsError::InvalidCertificate(why)) => Refusal::Certificate(certificate(why)),
        Some(error) => Refusal::Tls(error.to_string()),
        None => Refusal::of(error),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "its issuer is not trusted".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        other => TlsError::InvalidCertificate(other.clone()).to_string(),
    }
}
