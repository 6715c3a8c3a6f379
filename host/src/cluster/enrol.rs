//! Enrolment: how a host becomes one of a platform, and what it asks of the one that holds the certificate authority's keys.
//!
//! An invitation names where to enrol, the fingerprint of the platform's root, and a secret that is good for a number of
//! uses, one unless the operator says otherwise. The joining host makes its key, sends a request for its certificate, and
//! believes nobody whose certificate does not lead to that root.

use super::{
    Config, Peer,
    identity::{self, CERTIFICATE_FILE, Identity, SEAL_FILE},
    routes,
};
use crate::{
    ca::{
        Admission, Candidate, Issuer,
        pki::{Certificate, INTERMEDIATE_FILE, ROOT_FILE},
        private_folder, replace_file,
    },
    component::hex,
    telemetry::chain,
};
use ::aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpStream, runtime::Handle};
use wasmtime::{Result, bail, ensure, error::Context as _, format_err};

/// What an invitation's text begins with.
const PREFIX: &str = "exprsn-join.";
/// How long enrolment may take.
const ENROL_MAX: Duration = Duration::from_secs(20);

/// An invitation as the operator hands it on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Invited {
    /// `address:port` of the host to enrol at.
    pub at: String,
    /// Its name.
    pub host: String,
    /// SHA-256 of the platform's root, hex.
    pub root: String,
    pub id: String,
    /// Base64.
    pub secret: String,
}

impl Invited {
    /// The text to hand on. It is a secret.
    pub fn seal(&self) -> String {
        let json = serde_json::to_vec(self).expect("an invitation is text");
        format!("{PREFIX}{}", BASE64.encode(json))
    }

    fn open(text: &str) -> Result<Self> {
        let bytes = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|text| BASE64.decode(text).ok());
        let invited = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        invited.context(
            "the invitation is none: pass what `exprsn host invite` printed, whole, with --join or in EXPRSN_JOIN",
        )
    }
}

/// SHA-256 of a root's DER, in hex.
pub fn fingerprint(root_pem: &str) -> Result<String> {
    let der = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|error| format_err!("the root is no PEM: {error}"))?;
    Ok(hex(digest(&SHA256, &der).as_ref()))
}

/// Becomes a host of the platform that invites, and writes what makes it one into the authority's folder.
pub async fn enrol(folder: &Path, trust_domain: &str, token: &str, config: &Config) -> Result<()> {
    let invited = Invited::open(token)?;
    private_folder(folder)?;
    let name = identity::name(folder, config)?;
    let asked = routes::Enrol {
        id: invited.id.clone(),
        secret: invited.secret.clone(),
        host: name.clone(),
        csr: identity::request(folder, &name)?,
        trust_domain: trust_domain.to_owned(),
    };
    let asked = serde_json::to_value(asked)?;
    let told = tokio::time::timeout(ENROL_MAX, post(&invited, "/enrol", &asked)).await;
    let told = told.unwrap_or_else(|_| Err(format_err!("it did not answer within 20 s")));
    let enrolled: routes::Enrolled = told.with_context(|| {
        format!(
            "enrolling at {}: is that host running, and can it be reached from here?",
            invited.at
        )
    })?;
    ensure!(
        fingerprint(&enrolled.root)? == invited.root,
        "the host at {} has another root than the invitation says; take nothing from it",
        invited.at
    );
    let seal = BASE64
        .decode(&enrolled.seal)
        .context("the platform's seal key")?;
    let write = |name: &str, content: &[u8]| replace_file(&folder.join(name), content);
    write(SEAL_FILE, &seal)?;
    write(CERTIFICATE_FILE, enrolled.chain.as_bytes())?;
    write(INTERMEDIATE_FILE, enrolled.intermediate.as_bytes())?;
    // The last one: with it this host has joined.
    write(ROOT_FILE, enrolled.root.as_bytes())?;
    tracing::info!(
        host = name,
        at = invited.at,
        "this host has joined the platform"
    );
    Ok(())
}

/// Asks a host that is known by its root's fingerprint alone.
async fn post<T: serde::de::DeserializeOwned>(
    invited: &Invited,
    path: &str,
    body: &serde_json::Value,
) -> Result<T> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(ByRoot {
        fingerprint: invited.root.clone(),
        provider: provider.clone(),
    });
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choosing TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = TcpStream::connect(&invited.at)
        .await
        .context("connecting")?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from(invited.host.clone()).context("the host's name")?;
    let stream = connector
        .connect(name, stream)
        .await
        .context("the handshake")?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let request = http::Request::post(path)
        .header(http::header::HOST, &invited.host)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), routes::ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|error| format_err!("the answer broke off: {error}"))?
        .to_bytes();
    if !status.is_success() {
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        bail!(
            "it answered {status}: {}",
            problem["detail"].as_str().unwrap_or_default()
        );
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Believes a server whose chain is the platform's, known by the root's fingerprint. The chain must be sent with its root.
#[derive(Debug)]
struct ByRoot {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ours =
            |der: &&CertificateDer<'_>| hex(digest(&SHA256, der).as_ref()) == self.fingerprint;
        let root = intermediates.iter().find(ours).ok_or_else(|| {
            rustls::Error::General("the host does not show the root of the invitation".to_owned())
        })?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            self.provider.clone(),
        );
        let verifier = verifier
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The host that holds the certificate authority's keys, as one that joined asks it.
pub struct Seat {
    shared: exprsn_backends::shared::Shared,
    config: Config,
    /// Set once this host shows its certificate.
    identity: std::sync::OnceLock<Arc<Identity>>,
    handle: Handle,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl Seat {
    pub(super) fn new(shared: exprsn_backends::shared::Shared, config: &Config) -> Arc<Self> {
        Arc::new(Self {
            shared,
            config: config.clone(),
            identity: std::sync::OnceLock::new(),
            handle: Handle::current(),
        })
    }

    pub(super) fn show(&self, identity: Arc<Identity>) {
        let _ = self.identity.set(identity);
    }

    /// Asks for something; the error says which host could not be asked.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: serde_json::Value,
    ) -> Result<T> {
        let identity = self
            .identity
            .get()
            .context("this host shows no certificate yet")?;
        let hosts = self.shared.beat(None, 0, i64::MAX).await?.hosts;
        let is_seat =
            |lease: &&exprsn_backends::shared::Lease| super::HostState::parse(&lease.state).seat;
        let lease = hosts.iter().find(is_seat).context(
            "the host that holds the certificate authority's keys is not running: start it, then try again",
        )?;
        let peer = Peer::new(&lease.host, &lease.address, &self.config, identity.clone());
        let told = peer.ask(path, &body).await.with_context(|| {
            format!(
                "asking host {}, which holds the certificate authority's keys",
                lease.host
            )
        })?;
        Ok(serde_json::from_value(told)?)
    }

    /// Has another certificate signed for this host.
    pub(super) async fn renew(&self, identity: &Identity) -> Result<()> {
        let asked = serde_json::json!({ "csr": identity.request()? });
        let renewed: routes::Renewed = self.ask("/renew", asked).await?;
        identity.take(&renewed.chain)
    }
}

impl Issuer for Seat {
    fn admit(self: Arc<Self>, candidate: Candidate) -> BoxFuture<'static, Result<Admission>> {
        Box::pin(async move { self.ask("/admit", serde_json::to_value(candidate)?).await })
    }

    fn listener(&self, names: &[String], days: i64) -> Result<(Certificate, Vec<u8>)> {
        let key = rcgen::KeyPair::generate()?;
        let params = rcgen::CertificateParams::new(Vec::new())?;
        let csr = params.serialize_request(&key)?.pem()?;
        let asked = serde_json::json!({ "names": names, "days": days, "csr": csr });
        let signed: Certificate = self.handle.block_on(self.ask("/listener", asked))?;
        Ok((signed, key.serialize_der()))
    }
}

/// Keeps this host's certificate good until dropped.
pub(super) async fn keep_certified(identity: Arc<Identity>, seat: Option<Arc<Seat>>) {
    let mut tick = tokio::time::interval(Duration::from_secs(60));
    loop {
        tick.tick().await;
        if !identity.is_due(crate::clock::now_s()) {
            continue;
        }
        let renewed = match &seat {
            Some(seat) => seat.renew(&identity).await,
            None => {
                let identity = identity.clone();
                let renewed = tokio::task::spawn_blocking(move || identity.renew_alone()).await;
                renewed.unwrap_or_else(|error| Err(error.into()))
            }
        };
        if let Err(error) = renewed {
            tracing::error!(
                error = chain(&error),
                "this host's certificate could not be renewed; the present one serves on"
            );
        }
    }
}
