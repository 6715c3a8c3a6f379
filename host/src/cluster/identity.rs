//! This host's certificate, and how it and others show theirs.
//!
//! **Invariant:** a connection between hosts is one by mutual TLS, between certificates of this platform's authority that
//! are hosts' and not revoked. One without a certificate reaches what enrols a host, and nothing else.

use super::{Config, config::is_host_name, memory::SEAL_KEY_BYTES};
use crate::{
    ca::{
        Authority, HostCertificate,
        pki::{Certificate, HostRequest},
        secret_file,
    },
    clock,
};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use wasmtime::{Result, error::Context as _, format_err};

/// The certificate of this host with those of its issuers, in the authority's folder.
pub const CERTIFICATE_FILE: &str = "host.pem";
/// Its key.
pub const KEY_FILE: &str = "host.key.pem";
/// What secrets in the shared memory are sealed with.
pub const SEAL_FILE: &str = "seal.key";
/// The name that this host made for itself.
const NAME_FILE: &str = "host.name";
const DAY_S: i64 = 86_400;

/// Makes what this host needs to remember together with others: the seal key, where it is the first, and its name. Blocks
/// for some disk accesses.
pub fn prepare(folder: &Path, config: &Config) -> Result<(Vec<u8>, String)> {
    crate::ca::private_folder(folder)?;
    let seal = secret_file(&folder.join(SEAL_FILE), || {
        Ok(rand::random::<[u8; SEAL_KEY_BYTES]>().to_vec())
    })?;
    Ok((seal, name(folder, config)?))
}

/// The host's name: the one given, or the one made at the first start.
pub fn name(folder: &Path, config: &Config) -> Result<String> {
    if let Some(given) = config.given_name()? {
        return Ok(given);
    }
    let made = secret_file(&folder.join(NAME_FILE), || {
        Ok(format!("host-{:08x}", rand::random::<u32>()).into_bytes())
    })?;
    let name = String::from_utf8(made)
        .ok()
        .filter(|name| is_host_name(name));
    name.with_context(|| {
        format!(
            "`{}` holds no name; delete it",
            folder.join(NAME_FILE).display()
        )
    })
}

/// A request for this host's certificate (PKCS#10, PEM), with its key, which is made if it is not there.
pub fn request(folder: &Path, name: &str) -> Result<String> {
    let key = key(folder)?;
    let params = CertificateParams::new(vec![name.to_owned()])?;
    Ok(params.serialize_request(&key)?.pem()?)
}

fn key(folder: &Path) -> Result<KeyPair> {
    let path = folder.join(KEY_FILE);
    let pem = secret_file(&path, || {
        Ok(KeyPair::generate()?.serialize_pem().into_bytes())
    })?;
    let pem = String::from_utf8(pem).map_err(|_| format_err!("the file is not PEM"));
    KeyPair::from_pem(&pem?).with_context(|| {
        format!(
            "`{}` cannot be used; delete it and join anew",
            path.display()
        )
    })
}

/// This host's certificate in use, and the ends of connections that show it.
pub struct Identity {
    folder: PathBuf,
    name: String,
    trust_domain: String,
    authority: Arc<Authority>,
    days: i64,
    current: ArcSwap<Ends>,
}

/// Both ends of connections.
pub struct Ends {
    pub connector: TlsConnector,
    pub acceptor: TlsAcceptor,
    serial: String,
    not_after: i64,
}

impl Identity {
    /// Loads this host's certificate; a host that signs itself makes one. Blocks.
    pub fn open(
        folder: &Path,
        authority: &Arc<Authority>,
        config: &Config,
        name: &str,
        trust_domain: &str,
    ) -> Result<Arc<Self>> {
        let days = i64::from(config.certificate_days);
        if authority.issues() {
            self_certify(folder, authority, name, days)?;
        }
        let ends = load(folder)?;
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            trust_domain: trust_domain.to_owned(),
            authority: authority.clone(),
            days,
            current: ArcSwap::from_pointee(ends),
        }))
    }

    /// The ends of connections that begin now.
    pub fn ends(&self) -> Arc<Ends> {
        self.current.load_full()
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What secrets in the shared memory are sealed with. Reads a file.
    pub fn seal(&self) -> Result<Vec<u8>> {
        let path = self.folder.join(SEAL_FILE);
        fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
    }

    /// Whether another certificate is needed soon.
    pub fn is_due(&self, now_s: i64) -> bool {
        now_s >= self.current.load().not_after - self.days * DAY_S / 3
    }

    /// What this host asks to have signed.
    pub fn request(&self) -> Result<String> {
        request(&self.folder, &self.name)
    }

    /// Makes another certificate, on a host that signs itself. Blocks.
    pub fn renew_alone(&self) -> Result<()> {
        self_certify(&self.folder, &self.authority, &self.name, self.days)?;
        self.reload()
    }

    /// Takes the certificate, with those of its issuers, that was signed for this host. Blocks.
    pub fn take(&self, chain: &str) -> Result<()> {
        crate::ca::replace_file(&self.folder.join(CERTIFICATE_FILE), chain.as_bytes())?;
        self.reload()
    }

    fn reload(&self) -> Result<()> {
        self.current.store(Arc::new(load(&self.folder)?));
        tracing::info!(host = self.name, "this host shows another certificate");
        Ok(())
    }

    /// Whether a host's certificate was revoked.
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.authority.is_revoked(serial)
    }

    /// Whether this host was removed from the platform.
    pub fn is_removed(&self) -> bool {
        self.is_revoked(&self.current.load().serial)
    }

    /// Whose certificate this is; the error says why it is not good, although its signature is.
    pub fn peer(&self, der: &[u8]) -> Result<HostCertificate> {
        let certificate = HostCertificate::parse(der, &self.trust_domain)
            .map_err(|fault| format_err!("{fault}"))?;
        if self.authority.is_revoked(&certificate.serial) {
            return Err(format_err!(
                "the certificate of host {} is revoked",
                certificate.host
            ));
        }
        Ok(certificate)
    }
}

/// Signs this host's own certificate.
fn self_certify(folder: &Path, authority: &Authority, name: &str, days: i64) -> Result<()> {
    let csr = request(folder, name)?;
    let asked = HostRequest {
        host: name,
        services: "*",
        csr: &csr,
        days,
    };
    let issued = authority.issue_host(asked, clock::now_s())?;
    let chain = chain_of(&issued, authority);
    crate::ca::replace_file(&folder.join(CERTIFICATE_FILE), chain.as_bytes())
}

/// A host's certificate with those of its issuers, the root included: who enrols knows its fingerprint alone.
pub fn chain_of(leaf: &Certificate, authority: &Authority) -> String {
    let (intermediate, root) = (authority.intermediate(), authority.root());
    [leaf, intermediate, root]
        .map(|one| one.pem.as_str())
        .concat()
}

fn load(folder: &Path) -> Result<Ends> {
    let read = |name: &str| -> Result<Vec<u8>> {
        let path = folder.join(name);
        fs::read(&path).with_context(|| {
            format!(
                "cannot read `{}`; delete the data directory and join anew",
                path.display()
            )
        })
    };
    let certificates = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format_err!("no PEM of certificates: {error}"))
    };
    let chain = certificates(&read(CERTIFICATE_FILE)?)?;
    let leaf = chain.first().context("host.pem holds no certificate")?;
    let (_, x509) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format_err!("host.pem cannot be read: {error}"))?;
    let not_after = x509.validity().not_after.timestamp();
    let serial = crate::ca::pki::serial_hex(&x509);
    let mut roots = RootCertStore::empty();
    for root in certificates(&read(crate::ca::pki::ROOT_FILE)?)? {
        roots.add(root).context("root.pem cannot be a root")?;
    }
    let roots = Arc::new(roots);
    let key = || -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(&read(KEY_FILE)?)
            .map_err(|error| format_err!("host.key.pem is no private key: {error}"))
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choosing TLS 1.3")?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key()?)
        .context("host.key.pem is not that of host.pem")?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()
        .context("verifying hosts")?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choosing TLS 1.3")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key()?)
        .context("host.key.pem is not that of host.pem")?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Ends {
        connector: Arc::new(client).into(),
        acceptor: Arc::new(server).into(),
        serial,
        not_after,
    })
}
