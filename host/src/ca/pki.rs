//! Certificates (RFC 5280): the root, the intermediate, and the leaf of each component version.
//!
//! P-256, since every common TLS client verifies it. A component's leaf carries its SPIFFE id as URI, and what was
//! admitted in three extensions under [`OID_ARC`]:
//!
//! | OID | content |
//! |---|---|
//! | `2.25.10258173800755431140.1` | SHA-256 of the component, OCTET STRING |
//! | `2.25.10258173800755431140.2` | the approved grants as JSON, UTF8String |
//! | `2.25.10258173800755431140.3` | the component's version, UTF8String |
//!
//! A host's leaf carries `spiffe://<trust domain>/host/<name>`, its name as DNS name, and under `….4` the services that it
//! may speak for (names with commas between them, or `*`), UTF8String.
//!
//! The arc is that of UUID 00000000-0000-0000-8e5c-5ab8be3f06e4 under joint-iso-itu-t(2) uuid(25), which needs no registration.

use super::file;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, string::Ia5String,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use wasmtime::{Result, error::Context as _, format_err};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The arc of the extensions in a component's certificate.
pub const OID_ARC: [u64; 3] = [2, 25, 0x8e5c_5ab8_be3f_06e4];
/// Under [`OID_ARC`]: the component's digest.
pub const OID_DIGEST: u64 = 1;
/// Under [`OID_ARC`]: the approved grants.
pub const OID_GRANTS: u64 = 2;
/// Under [`OID_ARC`]: the component's version.
pub const OID_VERSION: u64 = 3;
/// Under [`OID_ARC`]: the services that a host may speak for.
pub const OID_SERVICES: u64 = 4;

/// The root's certificate, in the authority's folder.
pub const ROOT_FILE: &str = "root.pem";
/// The intermediate's.
pub const INTERMEDIATE_FILE: &str = "intermediate.pem";
const ROOT_KEY_FILE: &str = "root.key.pem";

const DAY_S: i64 = 86_400;
const ROOT_DAYS: i64 = 3_650;
const INTERMEDIATE_DAYS: i64 = 1_825;
/// The intermediate is renewed when less than this is left of it.
const INTERMEDIATE_RENEW_DAYS: i64 = 400;
/// Certificates are valid from a minute before their making: clocks differ.
const BACKDATE_S: i64 = 60;
/// Largest grants, in bytes of JSON.
pub const GRANTS_BYTES_MAX: usize = 64 * 1024;

/// A certificate as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Lower-case hex.
    pub serial: String,
    pub subject: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    pub pem: String,
}

/// What a component's certificate says of it.
#[derive(Clone, Copy, Debug)]
pub struct LeafRequest<'a> {
    pub service: &'a str,
    pub version: &'a str,
    /// SHA-256.
    pub digest: &'a [u8],
    /// JSON.
    pub grants: &'a str,
    pub days: i64,
}

/// What a host's certificate says of it.
#[derive(Clone, Copy, Debug)]
pub struct HostRequest<'a> {
    pub host: &'a str,
    /// Names of services with commas between them, or `*`.
    pub services: &'a str,
    /// A certificate signing request (PKCS#10, PEM), of which the public key alone counts.
    pub csr: &'a str,
    pub days: i64,
}

/// Root and intermediate, and the intermediate's key where this host holds it.
pub struct Pki {
    folder: PathBuf,
    trust_domain: String,
    root: Certificate,
    intermediate: Certificate,
    /// None on a host that joined others.
    issuer: Option<Issuer<'static, KeyPair>>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("root", &self.root.serial)
            .field("intermediate", &self.intermediate.serial)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the authority's certificates in `folder`, making at the first start what is not there. Blocks.
    ///
    /// Where there are certificates without keys this host has joined others, and signs nothing.
    pub fn open(folder: &Path, trust_domain: &str, now_s: i64) -> Result<Self> {
        file::private_folder(folder)?;
        if has_joined(folder) {
            return Self::joined(folder, trust_domain);
        }
        let root_key = key(&folder.join(ROOT_KEY_FILE))?;
        let root_path = folder.join(ROOT_FILE);
        let root_params = root_params(trust_domain, now_s)?;
        let root_pem = text(file::read_or_create(&root_path, || {
            Ok(root_params.self_signed(&root_key)?.pem().into_bytes())
        })?)?;
        let root_issuer =
            Issuer::from_ca_cert_pem(&root_pem, &root_key).with_context(|| unusable(&root_path))?;

        let key = key(&folder.join("intermediate.key.pem"))?;
        let path = folder.join(INTERMEDIATE_FILE);
        let make = || -> Result<Vec<u8>> {
            Ok(intermediate_params(trust_domain, now_s)?
                .signed_by(&key, &root_issuer)?
                .pem()
                .into_bytes())
        };
        let mut intermediate = describe(&text(file::read_or_create(&path, make)?)?)
            .with_context(|| unusable(&path))?;
        if intermediate.not_after - now_s < INTERMEDIATE_RENEW_DAYS * DAY_S {
            // Renewed with the same key, so that the leaves it has signed stay good.
            file::replace(&path, &make()?)?;
            intermediate = describe(&text(file::read(&path)?.unwrap_or_default())?)?;
        }
        let issuer =
            Issuer::from_ca_cert_pem(&intermediate.pem, key).with_context(|| unusable(&path))?;
        let root = describe(&root_pem).with_context(|| unusable(&root_path))?;
        check_chain(&root, &intermediate).with_context(|| unusable(&path))?;
        Ok(Self {
            folder: folder.to_owned(),
            trust_domain: trust_domain.to_owned(),
            root,
            intermediate,
            issuer: Some(issuer),
        })
    }

    fn joined(folder: &Path, trust_domain: &str) -> Result<Self> {
        let certificate = |name: &str| -> Result<Certificate> {
            let path = folder.join(name);
            let pem = text(file::read(&path)?.unwrap_or_default())?;
            describe(&pem).with_context(|| unusable(&path))
        };
        let (root, intermediate) = (certificate(ROOT_FILE)?, certificate(INTERMEDIATE_FILE)?);
        check_chain(&root, &intermediate)
            .with_context(|| unusable(&folder.join(INTERMEDIATE_FILE)))?;
        Ok(Self {
            folder: folder.to_owned(),
            trust_domain: trust_domain.to_owned(),
            root,
            intermediate,
            issuer: None,
        })
    }

    /// Whether this host holds the key that signs certificates.
    pub fn issues(&self) -> bool {
        self.issuer.is_some()
    }

    fn issuer(&self) -> Result<&Issuer<'static, KeyPair>> {
        self.issuer.as_ref().context(
            "this host joined others and signs no certificates: the host with the certificate authority's keys does",
        )
    }

    pub fn root(&self) -> &Certificate {
        &self.root
    }

    pub fn intermediate(&self) -> &Certificate {
        &self.intermediate
    }

    /// `spiffe://<trust domain>/service/<name>`.
    pub fn spiffe_id(&self, service: &str) -> String {
        format!("spiffe://{}/service/{service}", self.trust_domain)
    }

    /// Signs the certificate of a component version. The key is the service's: made once, kept when renewed. Blocks.
    pub fn issue(&self, request: LeafRequest<'_>, now_s: i64) -> Result<Certificate> {
        wasmtime::ensure!(
            request.grants.len() <= GRANTS_BYTES_MAX,
            "the grants are larger than {GRANTS_BYTES_MAX} bytes"
        );
        let services = self.folder.join("services");
        file::private_folder(&services)?;
        let key = key(&services.join(format!("{}.key.pem", request.service)))?;
        let params = leaf_params(&self.spiffe_id(request.service), request, now_s)?;
        describe(&params.signed_by(&key, self.issuer()?)?.pem())
    }

    /// Signs the certificate of a host, whose key has never left it.
    pub fn issue_host(&self, request: HostRequest<'_>, now_s: i64) -> Result<Certificate> {
        let asked = CertificateSigningRequestParams::from_pem(request.csr)
            .context("the certificate signing request cannot be read")?;
        let params = host_params(&self.trust_domain, request, now_s)?;
        describe(&params.signed_by(&asked.public_key, self.issuer()?)?.pem())
    }

    /// Signs a certificate of the platform's own listeners for DNS names and addresses. Its key is made for it and is not
    /// kept on disk: the second of the answer, PKCS#8.
    pub fn issue_listener(
        &self,
        names: &[String],
        days: i64,
        now_s: i64,
    ) -> Result<(Certificate, Vec<u8>)> {
        let key = KeyPair::generate()?;
        let certificate = self.sign_listener(names, days, &key, now_s)?;
        Ok((certificate, key.serialize_der()))
    }

    /// The same for a key that has never left another host.
    pub fn issue_listener_for(
        &self,
        names: &[String],
        days: i64,
        csr: &str,
        now_s: i64,
    ) -> Result<Certificate> {
        let asked = CertificateSigningRequestParams::from_pem(csr)
            .context("the certificate signing request cannot be read")?;
        self.sign_listener(names, days, &asked.public_key, now_s)
    }

    fn sign_listener(
        &self,
        names: &[String],
        days: i64,
        key: &impl PublicKeyData,
        now_s: i64,
    ) -> Result<Certificate> {
        let params = listener_params(&self.trust_domain, names, days, now_s)?;
        describe(&params.signed_by(key, self.issuer()?)?.pem())
    }

    /// Signs a certificate revocation list; returns it as PEM.
    pub fn sign_crl(
        &self,
        number: u64,
        revoked: &[(String, i64)],
        next_update_s: i64,
        now_s: i64,
    ) -> Result<String> {
        let mut revoked_certs = Vec::with_capacity(revoked.len());
        for (serial, at) in revoked {
            revoked_certs.push(RevokedCertParams {
                serial_number: serial_number(serial)?,
                revocation_time: instant(*at)?,
                reason_code: Some(RevocationReason::PrivilegeWithdrawn),
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: instant(now_s)?,
            next_update: instant(next_update_s)?,
            crl_number: SerialNumber::from_slice(&minimal(&number.to_be_bytes())),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(self.issuer()?)?.pem()?)
    }
}

/// Whether the authority in `folder` is another host's.
pub fn has_joined(folder: &Path) -> bool {
    folder.join(ROOT_FILE).exists() && !folder.join(ROOT_KEY_FILE).exists()
}

/// The private key at `path`, made if it is not there.
fn key(path: &Path) -> Result<KeyPair> {
    let pem = file::read_or_create(path, || {
        Ok(KeyPair::generate()?.serialize_pem().into_bytes())
    })?;
    KeyPair::from_pem(&text(pem)?).with_context(|| unusable(path))
}

fn unusable(path: &Path) -> String {
    format!(
        "`{}` cannot be used; restore it, or delete the folder to start with a new authority",
        path.display()
    )
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| format_err!("the file is not PEM"))
}

fn instant(seconds: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| format_err!("{seconds} is no instant"))
}

/// Without leading zeros, but never empty.
fn minimal(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes
        .iter()
        .take_while(|byte| **byte == 0)
        .count()
        .min(bytes.len() - 1);
    bytes[zeros..].to_vec()
}

/// Whether a text is a serial number as this authority writes them: lower-case hex, at most 20 bytes.
pub fn is_serial(hex: &str) -> bool {
    serial_number(hex).is_ok() && !hex.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Parses a serial number in hex (RFC 5280: at most 20 bytes).
fn serial_number(hex: &str) -> Result<SerialNumber> {
    let bytes = super::from_hex(hex).filter(|bytes| (1..=20).contains(&bytes.len()));
    bytes
        .map(|bytes| SerialNumber::from_slice(&bytes))
        .ok_or_else(|| format_err!("`{hex}` is no serial number"))
}

/// A random positive serial number of 16 bytes (RFC 5280 §4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn base(common_name: &str, uri: &str, days: i64, now_s: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial());
    params.not_before = instant(now_s - BACKDATE_S)?;
    params.not_after = instant(now_s + days * DAY_S)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn root_params(trust_domain: &str, now_s: i64) -> Result<CertificateParams> {
    let mut params = base(
        &format!("{trust_domain} root"),
        &format!("spiffe://{trust_domain}"),
        ROOT_DAYS,
        now_s,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn intermediate_params(trust_domain: &str, now_s: i64) -> Result<CertificateParams> {
    let name = format!("{trust_domain} intermediate");
    let mut params = base(
        &name,
        &format!("spiffe://{trust_domain}"),
        INTERMEDIATE_DAYS,
        now_s,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(spiffe_id: &str, request: LeafRequest<'_>, now_s: i64) -> Result<CertificateParams> {
    let mut params = base(request.service, spiffe_id, request.days, now_s)?;
    params
        .subject_alt_names
        .push(SanType::DnsName(Ia5String::try_from(request.service)?));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.custom_extensions = vec![
        extension(OID_DIGEST, DER_OCTET_STRING, request.digest),
        extension(OID_GRANTS, DER_UTF8_STRING, request.grants.as_bytes()),
        extension(OID_VERSION, DER_UTF8_STRING, request.version.as_bytes()),
    ];
    Ok(params)
}

fn extension(leaf: u64, tag: u8, content: &[u8]) -> CustomExtension {
    let [a, b, c] = OID_ARC;
    CustomExtension::from_oid_content(&[a, b, c, leaf], der(tag, content))
}

fn host_params(
    trust_domain: &str,
    request: HostRequest<'_>,
    now_s: i64,
) -> Result<CertificateParams> {
    let uri = format!("spiffe://{trust_domain}/host/{}", request.host);
    let mut params = base(request.host, &uri, request.days, now_s)?;
    params
        .subject_alt_names
        .push(SanType::DnsName(Ia5String::try_from(request.host)?));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.custom_extensions = vec![extension(
        OID_SERVICES,
        DER_UTF8_STRING,
        request.services.as_bytes(),
    )];
    Ok(params)
}

fn listener_params(
    trust_domain: &str,
    names: &[String],
    days: i64,
    now_s: i64,
) -> Result<CertificateParams> {
    let uri = format!("spiffe://{trust_domain}/listener");
    let mut params = base("exprsn", &uri, days, now_s)?;
    for name in names {
        let name = match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                Ia5String::try_from(name.as_str())
                    .with_context(|| format!("`{name}` can be in no certificate"))?,
            ),
        };
        params.subject_alt_names.push(name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

pub(super) const DER_OCTET_STRING: u8 = 0x04;
pub(super) const DER_UTF8_STRING: u8 = 0x0c;

/// A primitive DER value: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut value = vec![tag];
    if length < 128 {
        value.push(length as u8);
    } else {
        let bytes = minimal(&length.to_be_bytes());
        value.push(0x80 | bytes.len() as u8);
        value.extend(bytes);
    }
    value.extend(content);
    value
}

/// What a PEM certificate says of itself.
fn describe(pem: &str) -> Result<Certificate> {
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|error| format_err!("not PEM: {error}"))?;
    let (_, x509) = X509Certificate::from_der(&parsed.contents)
        .map_err(|error| format_err!("not a certificate: {error}"))?;
    let common_name = x509
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    Ok(Certificate {
        serial: serial_hex(&x509),
        subject: super::certificate::spiffe_id(&x509)
            .filter(|_| !x509.is_ca())
            .unwrap_or_else(|| common_name.to_owned()),
        not_before: x509.validity().not_before.timestamp(),
        not_after: x509.validity().not_after.timestamp(),
        pem: pem.to_owned(),
    })
}

/// The serial number in lower-case hex, without DER's sign byte.
pub fn serial_hex(x509: &X509Certificate<'_>) -> String {
    super::hex(&minimal(x509.raw_serial()))
}

fn check_chain(root: &Certificate, intermediate: &Certificate) -> Result<()> {
    let parse = |pem: &str| {
        x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map(|(_, pem)| pem)
            .map_err(|error| format_err!("{error}"))
    };
    let (root, intermediate) = (parse(&root.pem)?, parse(&intermediate.pem)?);
    let (root, intermediate) = (root.parse_x509()?, intermediate.parse_x509()?);
    intermediate
        .verify_signature(Some(root.public_key()))
        .map_err(|_| format_err!("the root did not sign it"))
}
