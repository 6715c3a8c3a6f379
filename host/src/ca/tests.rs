//! Tests of admission, revocation and the operator's token, through the whole authority.

use super::*;
use std::os::unix::fs::PermissionsExt;

const NEVER: i64 = 4_000_000_000;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a name")
}

fn open(data: &Path) -> Arc<Authority> {
    Authority::open(data, "exprsn.test").expect("opened")
}

#[tokio::test]
async fn the_same_admission_keeps_its_certificate_and_another_gets_its_own() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let notes = name("exprsn-notes");
    let (a, b) = ("aa".repeat(32), "bb".repeat(32));
    let first = authority
        .admit(&notes, "1.0.0", &a, "{}")
        .await
        .expect("admitted");
    assert_eq!(first.spiffe_id, "spiffe://exprsn.test/service/exprsn-notes");
    assert_eq!(
        authority
            .admit(&notes, "1.0.0", &a, "{}")
            .await
            .expect("admitted"),
        first
    );
    drop(authority);

    let authority = open(data.path());
    assert_eq!(
        authority
            .admit(&notes, "1.0.0", &a, "{}")
            .await
            .expect("admitted"),
        first,
        "a restart changed it"
    );
    let regranted = authority
        .admit(&notes, "1.0.0", &a, r#"{"sql":{}}"#)
        .await
        .expect("admitted");
    assert_ne!(regranted.serial, first.serial);
    let rebuilt = authority
        .admit(&notes, "1.0.1", &b, r#"{"sql":{}}"#)
        .await
        .expect("admitted");
    assert_eq!(
        (rebuilt.digest.as_str(), rebuilt.version.as_str()),
        (b.as_str(), "1.0.1")
    );

    let admissions = authority.admissions().await.expect("listed");
    assert_eq!(admissions.len(), 3);
    let live: Vec<_> = admissions
        .iter()
        .filter(|admission| admission.live)
        .map(|admission| &admission.certificate.serial)
        .collect();
    assert_eq!(live, [&rebuilt.serial]);
    assert!(matches!(
        authority.verify(&notes, &a, &rebuilt.pem),
        Err(CertificateFault::OtherDigest { .. })
    ));
    assert!(matches!(
        authority.verify(&name("exprsn-ca"), &b, &rebuilt.pem),
        Err(CertificateFault::OtherService { .. })
    ));
    assert!(authority.admit(&notes, "1", "xyz", "{}").await.is_err());
}

#[tokio::test]
async fn a_revoked_component_is_not_admitted_again() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let (notes, digest) = (name("exprsn-notes"), "aa".repeat(32));
    let certificate = authority
        .admit(&notes, "1.0.0", &digest, "{}")
        .await
        .expect("admitted");
    let mut changes = authority.revocations();
    let serial = certificate.serial.clone();
    let pem = authority
        .sign_crl(1, vec![(serial.clone(), 1)], NEVER)
        .await
        .expect("signed")
        .expect("its number is new");
    assert!(pem.starts_with("-----BEGIN X509 CRL-----"));
    assert!(changes.has_changed().expect("alive") && *changes.borrow_and_update() == 1);
    assert_eq!(
        authority.verify(&notes, &digest, &certificate.pem).err(),
        Some(CertificateFault::Revoked)
    );

    let again = authority
        .sign_crl(1, vec![("00ff".into(), 1)], NEVER)
        .await
        .expect("answered");
    assert_eq!(
        (again, authority.is_revoked("00ff")),
        (None, false),
        "a number was used twice"
    );
    authority
        .sign_crl(2, Vec::new(), NEVER)
        .await
        .expect("signed")
        .expect("its number is new");
    assert!(authority.is_revoked(&serial), "a later list took it back");
    drop(authority);

    let authority = open(data.path());
    assert!(authority.is_revoked(&serial));
    for grants in ["{}", r#"{"sql":{}}"#] {
        let error = authority
            .admit(&notes, "1.0.0", &digest, grants)
            .await
            .expect_err("revoked")
            .to_string();
        assert!(
            error.contains("exprsn-notes") && error.contains("revoked") && error.contains(&digest),
            "{error}"
        );
    }
    authority
        .admit(&notes, "1.0.1", &"bb".repeat(32), "{}")
        .await
        .expect("another build is admitted");
}

#[tokio::test]
async fn the_ca_itself_is_pinned() {
    let data = tempfile::tempdir().expect("a folder");
    let (ca, a, b) = (name(CA_SERVICE), "aa".repeat(32), "bb".repeat(32));
    let authority = open(data.path());
    authority
        .admit(&ca, "1.0.0", &a, "{}")
        .await
        .expect("pinned at first use");
    let error = authority
        .admit(&ca, "1.0.0", &b, "{}")
        .await
        .expect_err("changed")
        .to_string();
    assert!(
        error.contains(&a) && error.contains(&b) && error.contains("[capability.ca]"),
        "{error}"
    );
    drop(authority);

    let options = Options {
        pin: Pin::Follow,
        ..Options::default()
    };
    let authority = Authority::open_with(data.path(), "exprsn.test", &options).expect("opened");
    authority
        .admit(&ca, "1.0.0", &b, "{}")
        .await
        .expect("followed");
    drop(authority);
    open(data.path())
        .admit(&ca, "1.0.0", &b, "{}")
        .await
        .expect("pinned anew");
}

#[tokio::test]
async fn another_data_folder_is_another_authority() {
    let (ours, theirs) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (notes, digest) = (name("exprsn-notes"), "aa".repeat(32));
    let foreign = open(theirs.path())
        .admit(&notes, "1", &digest, "{}")
        .await
        .expect("admitted");
    let ours = open(ours.path());
    assert_eq!(
        ours.verify(&notes, &digest, &foreign.pem).err(),
        Some(CertificateFault::OtherAuthority)
    );
}

#[tokio::test]
async fn the_operator_token_opens_everything_to_its_owner_alone() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let path = data.path().join(OPERATOR_TOKEN_FILE);
    assert_eq!(
        std::fs::metadata(&path)
            .expect("written")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let token = std::fs::read_to_string(&path).expect("text");
    let principal = authority
        .authenticate(&token, clock::now_s())
        .await
        .expect("good");
    assert_eq!(
        (principal.kind, &*principal.subject),
        (PrincipalKind::Operator, "local")
    );
    for permission in Permission::ALL {
        authority
            .authorise(&principal, &name("exprsn-ca"), "/api/tokens", permission)
            .expect("may do everything");
    }
    let later = authority
        .authenticate(&token, clock::now_s() + OPERATOR_TOKEN_S + 1)
        .await
        .expect_err("expired");
    assert_eq!(later.kind(), "expired");
    open(data.path());
    assert_ne!(
        std::fs::read_to_string(&path).expect("text"),
        token,
        "a start writes it anew"
    );
}

#[tokio::test]
async fn urls_in_resources_mean_services() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let now_s = clock::now_s();
    let claims = Claims {
        resources: vec!["http://localhost:3014/api/notifications/*".into()],
        expires_at: now_s + 60,
        ..claims::tests::claims()
    };
    let (token, _) = authority.tokens().mint(claims, now_s).expect("minted");
    let decide = async |service: &str, path: &str| {
        let principal = authority.authenticate(&token, now_s).await.expect("good");
        authority.authorise(&principal, &name(service), path, Permission::Write)
    };
    assert!(
        decide("exprsn-herald", "/api/notifications/send")
            .await
            .is_err(),
        "nobody has said what the URL means"
    );
    authority.resolve_with(Arc::new(|authority| {
        (authority == "localhost:3014").then(|| name("exprsn-herald"))
    }));
    assert_eq!(
        decide("exprsn-herald", "/api/notifications/send").await,
        Ok(())
    );
    assert!(
        decide("exprsn-timeline", "/api/notifications/send")
            .await
            .is_err()
    );
}

#[test]
fn options_are_checked() {
    let options: Options =
        toml::from_str("certificate_days = 30\npin = \"follow\"").expect("options");
    assert_eq!(
        (
            options.certificate_days,
            options.pin,
            options.token_key_days
        ),
        (30, Pin::Follow, 90)
    );
    assert!(toml::from_str::<Options>("certificate_day = 30").is_err());
    assert!(toml::from_str::<Options>("pin = \"maybe\"").is_err());
}
