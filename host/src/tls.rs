//! TLS of the platform's own listeners: where their certificate comes from, and how another takes its place while they
//! serve.
//!
//! **Invariant:** a certificate that cannot be used never replaces one that is in use.

use crate::{ca::Authority, clock, telemetry::chain};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpStream, signal::unix};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use wasmtime::{Result, ensure, error::Context as _, format_err};

/// Protocols that are offered, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
const DAY_S: i64 = 86_400;

/// `[tls]`: what the platform's listeners speak.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the certificate comes from.
    pub source: Source,
    /// PEM: the certificate, then its issuers. For `files`.
    pub certificate_file: String,
    /// PEM: the private key. For `files`.
    pub key_file: String,
    /// DNS names and addresses: those of the certificate that the platform makes; of one from files, the one that the
    /// command line expects comes first.
    pub names: Vec<String>,
    /// How long the platform's certificate is valid; it is followed by another when a third of that is left.
    pub certificate_days: u16,
    /// How often files and validity are looked at, in milliseconds. SIGHUP has them looked at now.
    pub check_ms: u64,
    /// How long a client may take for its handshake, in milliseconds.
    pub handshake_ms_max: u64,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// There is none: listeners speak plain HTTP.
    Off,
    /// Two PEM files of the operator's.
    Files,
    /// The platform's certificate authority, whose root is `<data>/ca/root.pem`.
    Platform,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: Source::Off,
            certificate_file: String::new(),
            key_file: String::new(),
            names: Vec::new(),
            certificate_days: 30,
            check_ms: 10_000,
            handshake_ms_max: 10_000,
        }
    }
}

impl Config {
    /// `https` where listeners speak TLS.
    pub fn scheme(&self) -> &'static str {
        match self.source {
            Source::Off => "http",
            Source::Files | Source::Platform => "https",
        }
    }

    /// The names in the platform's certificate.
    fn names(&self, listen: IpAddr) -> Vec<String> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        let mut names = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        let listen = listen.to_string();
        if !names.contains(&listen) && !matches!(listen.as_str(), "0.0.0.0" | "::") {
            names.push(listen);
        }
        names
    }
}

/// What listeners need to speak TLS.
#[derive(Debug)]
pub struct Tls {
    config: Config,
    listen: IpAddr,
    authority: Arc<Authority>,
    acceptor: Acceptor,
    current: Arc<Current>,
    handshake_max: Duration,
}

struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<Loaded>);

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// Seconds since the Unix epoch.
    not_after: i64,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl Tls {
    /// Loads the certificate; none where `[tls]` is off. The error names the key or the file at fault. Blocks.
    pub fn open(
        config: &Config,
        authority: &Arc<Authority>,
        listen: IpAddr,
    ) -> Result<Option<Arc<Self>>> {
        if config.source == Source::Off {
            return Ok(None);
        }
        ensure!(
            config.certificate_days > 0 && config.check_ms > 0 && config.handshake_ms_max > 0,
            "[tls] certificate_days, check_ms and handshake_ms_max must be at least 1"
        );
        let loaded = load(config, authority, listen).context("[tls] cannot be used")?;
        let current = Arc::new(Current(ArcSwap::from_pointee(loaded)));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("choosing versions of TLS")?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        server.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Some(Arc::new(Self {
            config: config.clone(),
            listen,
            authority: authority.clone(),
            acceptor: Acceptor(Arc::new(server).into()),
            current,
            handshake_max: Duration::from_millis(config.handshake_ms_max),
        })))
    }

    /// A client's handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = self.acceptor.0.accept(stream);
        tokio::time::timeout(self.handshake_max, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Follows the files or the calendar until it is dropped: another certificate serves the connections that come then.
    pub async fn keep(self: Arc<Self>) -> Result<()> {
        let mut hangup =
            unix::signal(unix::SignalKind::hangup()).context("listening for SIGHUP")?;
        let mut interval = tokio::time::interval(Duration::from_millis(self.config.check_ms));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = interval.tick() => false,
                _ = hangup.recv() => true,
            };
            let tls = self.clone();
            tokio::task::spawn_blocking(move || tls.look(asked, clock::now_s()))
                .await
                .context("looking at the certificate panicked")?;
        }
    }

    /// Takes another certificate where there is one to take. Blocks.
    fn look(&self, asked: bool, now_s: i64) {
        let left_s = self.current.0.load().not_after - now_s;
        let renew = left_s < i64::from(self.config.certificate_days) * DAY_S / 3;
        if self.config.source == Source::Platform && !renew && !asked {
            return;
        }
        match load(&self.config, &self.authority, self.listen) {
            Ok(loaded) => self.take(loaded),
            Err(error) => tracing::error!(
                error = chain(&error),
                "[tls]: the certificate on disk cannot be used; the one before goes on serving"
            ),
        }
        if left_s < 0 {
            tracing::error!("[tls]: the certificate in use has expired");
        }
    }

    fn take(&self, loaded: Loaded) {
        if self.current.0.load().key.cert == loaded.key.cert {
            return;
        }
        let not_after = loaded.not_after;
        self.current.0.store(Arc::new(loaded));
        tracing::info!(not_after, "[tls]: another certificate is in use");
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn load(config: &Config, authority: &Authority, listen: IpAddr) -> Result<Loaded> {
    match config.source {
        Source::Off => Err(format_err!("source is off")),
        Source::Files => from_files(&config.certificate_file, &config.key_file),
        Source::Platform => from_platform(config, authority, listen),
    }
}

fn from_files(certificate: &str, key: &str) -> Result<Loaded> {
    let missing = |name: &str, value: &str| {
        ensure!(!value.is_empty(), "source = \"files\" needs {name}");
        Ok(())
    };
    missing("certificate_file", certificate)?;
    missing("key_file", key)?;
    let read = |path: &str| {
        std::fs::read(Path::new(path)).map_err(|error| format_err!("cannot read `{path}`: {error}"))
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain =
        chain.map_err(|error| format_err!("`{certificate}` is no PEM of certificates: {error}"))?;
    let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| format_err!("`{key}` is no PEM of a private key: {error}"))?;
    loaded(chain, key_der)
        .with_context(|| format!("certificate_file `{certificate}` and key_file `{key}`"))
}

fn from_platform(config: &Config, authority: &Authority, listen: IpAddr) -> Result<Loaded> {
    let names = config.names(listen);
    let days = i64::from(config.certificate_days);
    let (leaf, key) = authority.issue_listener(&names, days, clock::now_s())?;
    let pem = [leaf.pem.as_str(), authority.intermediate().pem.as_str()].concat();
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| format_err!("the certificate just made: {error}"))?;
    loaded(chain, PrivatePkcs8KeyDer::from(key).into())
}

/// The pair, if the key is the certificate's.
fn loaded(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Loaded> {
    let leaf = chain.first().context("there is no certificate in it")?;
    let (_, x509) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format_err!("its first certificate cannot be read: {error}"))?;
    let not_after = x509.validity().not_after.timestamp();
    let key = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| format_err!("the key is not that of the certificate: {error}"))?;
    Ok(Loaded {
        key: Arc::new(key),
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_from_files_is_checked_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let ((a, a_key), (_, b_key)) = (pair("a.example"), pair("b.example"));
        write("a.pem", &a);
        write("a.key", &a_key);
        write("b.key", &b_key);
        write("text", "no certificate");
        assert!(from_files(&path("a.pem"), &path("a.key")).is_ok());
        for (certificate, key, expected) in [
            ("a.pem", "b.key", "not that of the certificate"),
            ("text", "a.key", "no certificate in it"),
            ("a.pem", "text", "no PEM of a private key"),
            ("absent", "a.key", "cannot read"),
        ] {
            let error = from_files(&path(certificate), &path(key)).unwrap_err();
            assert!(chain(&error).contains(expected), "{}", chain(&error));
        }
        let error = from_files("", "").unwrap_err();
        assert!(error.to_string().contains("certificate_file"), "{error}");
    }

    #[test]
    fn the_platforms_names_are_this_machines_unless_others_are_named() {
        let mut config = Config::default();
        let names = config.names([10, 0, 0, 7].into());
        assert_eq!(names, ["localhost", "127.0.0.1", "::1", "10.0.0.7"]);
        assert_eq!(config.names([0, 0, 0, 0].into()).len(), 3);
        config.names = vec!["exprsn.example".to_owned()];
        assert_eq!(config.names([10, 0, 0, 7].into()), ["exprsn.example"]);
    }
}
