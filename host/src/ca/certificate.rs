//! Reading a component's certificate, and deciding whether it lets the component run.

use super::pki::{
    DER_OCTET_STRING, DER_UTF8_STRING, OID_ARC, OID_DIGEST, OID_GRANTS, OID_SERVICES, OID_VERSION,
    serial_hex,
};
use std::fmt;
use x509_parser::{
    asn1_rs::{FromDer, Oid},
    prelude::{GeneralName, X509Certificate},
};

/// A component's certificate, whose signature is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentCertificate {
    /// Lower-case hex.
    pub serial: String,
    /// `spiffe://<trust domain>/service/<name>`.
    pub spiffe_id: String,
    pub version: String,
    /// SHA-256, lower-case hex.
    pub digest: String,
    /// The approved grants, JSON.
    pub grants: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    pub pem: String,
}

/// Why a certificate does not let a component run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is no certificate of a component.
    Malformed(&'static str),
    /// This host's authority did not sign it.
    OtherAuthority,
    NotYetValid,
    Expired,
    Revoked,
    /// It is another service's.
    OtherService {
        certified: String,
    },
    /// It was issued for other bytes.
    OtherDigest {
        certified: String,
        found: String,
    },
    /// It was issued for other grants.
    OtherGrants,
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the certificate is malformed: {why}"),
            Self::OtherAuthority => {
                f.write_str("the certificate was not signed by this host's authority")
            }
            Self::NotYetValid => f.write_str("the certificate is not valid yet"),
            Self::Expired => f.write_str("the certificate has expired"),
            Self::Revoked => f.write_str("the certificate is revoked"),
            Self::OtherService { certified } => {
                write!(f, "the certificate is that of `{certified}`")
            }
            Self::OtherDigest { certified, found } => {
                write!(
                    f,
                    "the component has changed: its digest is {found}, and the certificate was issued for {certified}"
                )
            }
            Self::OtherGrants => {
                f.write_str("the approved grants differ from those in the certificate")
            }
        }
    }
}

impl std::error::Error for CertificateFault {}

impl ComponentCertificate {
    /// Reads a certificate and verifies that `issuer_pem` signed it. Validity and revocation are [`Self::check`]'s.
    pub fn parse(pem: &str, issuer_pem: &str) -> Result<Self, CertificateFault> {
        let malformed = CertificateFault::Malformed;
        let (_, der) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| malformed("not PEM"))?;
        let x509 = der
            .parse_x509()
            .map_err(|_| malformed("not an X.509 certificate"))?;
        let (_, issuer) = x509_parser::pem::parse_x509_pem(issuer_pem.as_bytes())
            .map_err(|_| malformed("no issuer"))?;
        let issuer = issuer.parse_x509().map_err(|_| malformed("no issuer"))?;
        let ours = x509.issuer() == issuer.subject()
            && x509.verify_signature(Some(issuer.public_key())).is_ok();
        if !ours {
            return Err(CertificateFault::OtherAuthority);
        }
        if x509.is_ca() {
            return Err(malformed("it is an authority's"));
        }
        let utf8 = |content: &[u8]| {
            String::from_utf8(content.to_vec()).map_err(|_| malformed("an extension is not UTF-8"))
        };
        Ok(Self {
            serial: serial_hex(&x509),
            spiffe_id: spiffe_id(&x509).ok_or(malformed("it has no SPIFFE id"))?,
            version: utf8(
                extension(&x509, OID_VERSION, DER_UTF8_STRING)
                    .ok_or(malformed("it names no version"))?,
            )?,
            digest: super::hex(
                extension(&x509, OID_DIGEST, DER_OCTET_STRING)
                    .ok_or(malformed("it has no digest"))?,
            ),
            grants: utf8(
                extension(&x509, OID_GRANTS, DER_UTF8_STRING)
                    .ok_or(malformed("it has no grants"))?,
            )?,
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            pem: pem.to_owned(),
        })
    }

    /// Whether it lets the component with this digest run as the service with this SPIFFE id.
    pub fn check(
        &self,
        spiffe_id: &str,
        digest: &str,
        revoked: bool,
        now_s: i64,
    ) -> Result<(), CertificateFault> {
        if revoked {
            return Err(CertificateFault::Revoked);
        }
        if now_s < self.not_before {
            return Err(CertificateFault::NotYetValid);
        }
        if now_s >= self.not_after {
            return Err(CertificateFault::Expired);
        }
        if self.spiffe_id != spiffe_id {
            return Err(CertificateFault::OtherService {
                certified: self.spiffe_id.clone(),
            });
        }
        if self.digest != digest {
            return Err(CertificateFault::OtherDigest {
                certified: self.digest.clone(),
                found: digest.to_owned(),
            });
        }
        Ok(())
    }
}

/// A host's certificate, whose signature the handshake of TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    pub host: String,
    /// The services that it may speak for; none is all.
    pub services: Option<Vec<String>>,
    /// Lower-case hex.
    pub serial: String,
    /// Seconds since the Unix epoch.
    pub not_after: i64,
}

impl HostCertificate {
    /// Reads a host's certificate (DER) of this trust domain. One of a component is none.
    pub fn parse(der: &[u8], trust_domain: &str) -> Result<Self, CertificateFault> {
        let malformed = CertificateFault::Malformed;
        let (_, x509) =
            X509Certificate::from_der(der).map_err(|_| malformed("not an X.509 certificate"))?;
        let id = spiffe_id(&x509).ok_or(malformed("it has no SPIFFE id"))?;
        let host = id
            .strip_prefix(&format!("spiffe://{trust_domain}/host/"))
            .ok_or(malformed("it is not a host's"))?;
        let services = extension(&x509, OID_SERVICES, DER_UTF8_STRING)
            .and_then(|services| std::str::from_utf8(services).ok())
            .ok_or(malformed("it names no services"))?;
        Ok(Self {
            host: host.to_owned(),
            services: (services != "*").then(|| services.split(',').map(str::to_owned).collect()),
            serial: serial_hex(&x509),
            not_after: x509.validity().not_after.timestamp(),
        })
    }

    /// Whether the host may call, and ask for certificates, as this service.
    pub fn may_speak_for(&self, service: &str) -> bool {
        let of = |services: &Vec<String>| services.iter().any(|one| one == service);
        self.services.as_ref().is_none_or(of)
    }
}

/// The certificate's only SPIFFE id, if it has exactly one URI name.
pub(super) fn spiffe_id(x509: &X509Certificate<'_>) -> Option<String> {
    let names = x509.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let id = uris.next().filter(|uri| uri.starts_with("spiffe://"))?;
    uris.next().is_none().then(|| id.to_owned())
}

/// The content of one of our extensions.
fn extension<'a>(x509: &X509Certificate<'a>, leaf: u64, tag: u8) -> Option<&'a [u8]> {
    let [a, b, c] = OID_ARC;
    let oid = Oid::from(&[a, b, c, leaf]).ok()?;
    let value: &'a [u8] = x509.get_extension_unique(&oid).ok()??.value;
    let (rest, any) = x509_parser::asn1_rs::Any::from_der(value).ok()?;
    let exact = rest.is_empty() && value.first() == Some(&tag);
    exact.then_some(any.data)
}

#[cfg(test)]
mod tests {
    use super::super::pki::{LeafRequest, Pki};
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;
    const DIGEST: [u8; 32] = [0xab; 32];

    fn pki(trust_domain: &str) -> (tempfile::TempDir, Pki) {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::open(&folder.path().join("ca"), trust_domain, NOW).expect("opened");
        (folder, pki)
    }

    fn request() -> LeafRequest<'static> {
        LeafRequest {
            service: "exprsn-notes",
            version: "1.2.3",
            digest: &DIGEST,
            grants: r#"{"sql":{}}"#,
            days: 90,
        }
    }

    #[test]
    fn a_leaf_says_what_was_admitted() {
        let (_folder, pki) = pki("exprsn.test");
        let issued = pki.issue(request(), NOW).expect("issued");
        assert_eq!(issued.subject, "spiffe://exprsn.test/service/exprsn-notes");
        let leaf = ComponentCertificate::parse(&issued.pem, &pki.intermediate().pem).expect("ours");
        assert_eq!(
            (leaf.version.as_str(), leaf.grants.as_str()),
            ("1.2.3", r#"{"sql":{}}"#)
        );
        assert_eq!(leaf.digest, "ab".repeat(32));
        assert_eq!(
            (leaf.serial.as_str(), leaf.not_after),
            (issued.serial.as_str(), NOW + 90 * DAY)
        );
        // Long grants need DER's long form of lengths.
        let long = format!("{{\"x\":\"{}\"}}", "y".repeat(5_000));
        let issued = pki
            .issue(
                LeafRequest {
                    grants: &long,
                    ..request()
                },
                NOW,
            )
            .expect("issued");
        assert_eq!(
            ComponentCertificate::parse(&issued.pem, &pki.intermediate().pem)
                .expect("ours")
                .grants,
            long
        );
    }

    #[test]
    fn each_refusal_has_its_own_reason() {
        let (_folder, pki) = pki("exprsn.test");
        let leaf = ComponentCertificate::parse(
            &pki.issue(request(), NOW).expect("issued").pem,
            &pki.intermediate().pem,
        )
        .expect("ours");
        let (id, digest) = (pki.spiffe_id("exprsn-notes"), "ab".repeat(32));
        assert_eq!(leaf.check(&id, &digest, false, NOW), Ok(()));
        assert_eq!(
            leaf.check(&id, &digest, true, NOW),
            Err(CertificateFault::Revoked)
        );
        assert_eq!(
            leaf.check(&id, &digest, false, NOW + 90 * DAY),
            Err(CertificateFault::Expired)
        );
        assert_eq!(
            leaf.check(&id, &digest, false, NOW - 2 * 60),
            Err(CertificateFault::NotYetValid)
        );
        assert!(matches!(
            leaf.check(&id, &"cd".repeat(32), false, NOW),
            Err(CertificateFault::OtherDigest { .. })
        ));
        let other = pki.spiffe_id("exprsn-ca");
        assert!(matches!(
            leaf.check(&other, &digest, false, NOW),
            Err(CertificateFault::OtherService { .. })
        ));
    }

    #[test]
    fn another_authority_of_the_same_name_is_refused() {
        let (_ours, ours) = pki("exprsn.test");
        let (_theirs, theirs) = pki("exprsn.test");
        let forged = theirs.issue(request(), NOW).expect("issued");
        let parse = |pem: &str| ComponentCertificate::parse(pem, &ours.intermediate().pem);
        assert_eq!(
            parse(&forged.pem).err(),
            Some(CertificateFault::OtherAuthority)
        );
        assert_eq!(
            parse(&ours.root().pem).err(),
            Some(CertificateFault::OtherAuthority)
        );
        assert_eq!(
            parse(&ours.intermediate().pem).err(),
            Some(CertificateFault::OtherAuthority)
        );
        assert!(matches!(
            parse("nonsense"),
            Err(CertificateFault::Malformed(_))
        ));
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart_and_renews_its_intermediate() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca");
        let open = |now| Pki::open(&path, "exprsn.test", now).expect("opened");
        let first = open(NOW);
        let leaf = first.issue(request(), NOW).expect("issued");
        let again = open(NOW + DAY);
        assert_eq!(
            (again.root(), again.intermediate()),
            (first.root(), first.intermediate())
        );

        let renewed = open(NOW + 1_500 * DAY);
        assert_eq!(renewed.root(), first.root());
        assert_ne!(renewed.intermediate(), first.intermediate());
        assert!(
            ComponentCertificate::parse(&leaf.pem, &renewed.intermediate().pem).is_ok(),
            "its key is the same"
        );
    }

    #[test]
    fn a_leaf_verifies_as_tls_clients_verify_it() {
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        use rustls::{
            RootCertStore,
            client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        };
        let (_folder, pki) = pki("exprsn.test");
        let leaf = pki.issue(request(), NOW).expect("issued");
        let der = |pem: &str| {
            CertificateDer::from(
                x509_parser::pem::parse_x509_pem(pem.as_bytes())
                    .expect("PEM")
                    .1
                    .contents,
            )
        };
        let mut roots = RootCertStore::empty();
        roots.add(der(&pki.root().pem)).expect("a root");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.into())
            .build()
            .expect("a verifier");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW as u64));
        let verify = |chain: &[CertificateDer<'static>], name: &'static str| {
            verifier.verify_server_cert(
                &der(&leaf.pem),
                chain,
                &ServerName::try_from(name).expect("a name"),
                &[],
                now,
            )
        };
        verify(&[der(&pki.intermediate().pem)], "exprsn-notes").expect("a good chain");
        assert!(verify(&[der(&pki.intermediate().pem)], "exprsn-ca").is_err());
        assert!(verify(&[], "exprsn-notes").is_err());
    }

    #[test]
    fn revocation_lists_are_signed_and_numbered() {
        let (_folder, pki) = pki("exprsn.test");
        let leaf = pki.issue(request(), NOW).expect("issued");
        let pem = pki
            .sign_crl(258, &[(leaf.serial.clone(), NOW)], NOW + DAY, NOW)
            .expect("signed");
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, crl) = x509_parser::parse_x509_crl(&der.contents).expect("a CRL");
        let (_, issuer) =
            x509_parser::pem::parse_x509_pem(pki.intermediate().pem.as_bytes()).expect("PEM");
        crl.verify_signature(issuer.parse_x509().expect("a certificate").public_key())
            .expect("its signature");
        assert_eq!(
            crl.crl_number().map(|number| number.to_string()).as_deref(),
            Some("258")
        );
        let entries: Vec<_> = crl
            .iter_revoked_certificates()
            .map(|entry| super::super::hex(entry.raw_serial()))
            .collect();
        assert_eq!(entries, [leaf.serial]);
        assert!(
            pki.sign_crl(1, &[("xyz".into(), NOW)], NOW + DAY, NOW)
                .is_err()
        );
        assert!(pki.sign_crl(1, &[], NOW - 1, NOW).is_err());
    }
}
