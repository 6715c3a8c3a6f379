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

fn candidate(digest: &str) -> Candidate {
    Candidate {
        service: name("exprsn-notes"),
        version: "1.0.0".to_owned(),
        digest: digest.to_owned(),
        grants: "{}".to_owned(),
        refused: vec!["cache".to_owned()],
        signer: Some("ab".repeat(32)),
        decided: Decided::Caller,
    }
}

#[tokio::test]
async fn why_a_component_may_not_run_is_told_apart() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let (notes, a, b) = (name("exprsn-notes"), "aa".repeat(32), "bb".repeat(32));
    let refused = async |authority: &Authority, digest: &str, now_s: i64, expected: &[&str]| {
        let error = authority.admitted_at(&notes, digest, now_s).await;
        let error = error.expect_err("refused").to_string();
        for text in expected {
            assert!(error.contains(text), "no `{text}` in: {error}");
        }
    };
    let now_s = clock::now_s();
    refused(
        &authority,
        &a,
        now_s,
        &["exprsn-notes", "never admitted", "install"],
    )
    .await;
    let certificate = authority.admit_as(candidate(&a)).await.expect("admitted");
    assert_eq!(
        authority.admitted(&notes, &a).await.expect("admitted"),
        certificate
    );
    refused(&authority, &b, now_s, &[&a, &b, "one byte"]).await;
    let expired = certificate.not_after + 1;
    refused(&authority, &a, expired, &["expired", "component approve"]).await;
    refused(
        &authority,
        &a,
        certificate.not_before - 1,
        &["not valid yet"],
    )
    .await;

    // Another authority's host.db beside our keys.
    let theirs = tempfile::tempdir().expect("a folder");
    drop(open(theirs.path()));
    drop(authority);
    std::fs::remove_dir_all(data.path().join("ca")).expect("removed");
    std::fs::rename(theirs.path().join("ca"), data.path().join("ca")).expect("moved");
    let authority = open(data.path());
    refused(
        &authority,
        &a,
        now_s,
        &["not signed by this host's authority"],
    )
    .await;

    let certificate = authority
        .admit_as(candidate(&a))
        .await
        .expect("admitted anew");
    authority
        .sign_crl(1, vec![(certificate.serial, 1)], NEVER)
        .await
        .expect("signed");
    refused(&authority, &a, now_s, &["revoked", "another build"]).await;
}

#[tokio::test]
async fn an_admission_in_its_last_third_is_renewed_and_the_newest_one_counts() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let (notes, digest) = (name("exprsn-notes"), "aa".repeat(32));
    let first = authority
        .admit_as(candidate(&digest))
        .await
        .expect("admitted");
    let late = first.not_after - 10 * DAY_S;
    let renewed = authority
        .admitted_at(&notes, &digest, late)
        .await
        .expect("renewed");
    assert_ne!(renewed.serial, first.serial);
    assert!(renewed.not_after > first.not_after);
    let again = authority
        .admitted_at(&notes, &digest, late)
        .await
        .expect("admitted");
    assert_eq!(again, renewed, "renewed once");
    let admissions = authority.admissions().await.expect("listed");
    assert_eq!(admissions.len(), 2);
    assert_eq!(
        (
            admissions[0].decided,
            &admissions[0].refused,
            admissions[0].live
        ),
        (Decided::Caller, &vec!["cache".to_owned()], false)
    );

    let narrower = Candidate {
        grants: r#"{"sql":{}}"#.to_owned(),
        ..candidate(&digest)
    };
    let other = authority.admit_as(narrower).await.expect("admitted");
    drop(authority);
    let admitted = open(data.path())
        .admitted(&notes, &digest)
        .await
        .expect("admitted");
    assert_eq!(admitted, other, "decided in the same second, and later");
}

#[tokio::test]
async fn what_is_withheld_outlives_a_restart() {
    let data = tempfile::tempdir().expect("a folder");
    let authority = open(data.path());
    let notes = name("exprsn-notes");
    let withholding = |grant: &str| Withholding {
        grant: grant.to_owned(),
        by: "operator:local".to_owned(),
        reason: Some("floods".to_owned()),
    };
    let withheld = |authority: &Authority| authority.withheld().of(&notes).list();
    let grants = vec![withholding("sql"), withholding("queue:notes-*")];
    authority.withhold(&notes, grants).await.expect("withheld");
    assert_eq!(withheld(&authority), ["sql", "queue:notes-*"]);
    let bad = authority
        .withhold(&notes, vec![withholding("surprise")])
        .await;
    assert!(matches!(bad, Err(NotAdmitted::Invalid(text)) if text.contains("surprise")));
    drop(authority);

    let authority = open(data.path());
    assert_eq!(withheld(&authority), ["queue:notes-*", "sql"]);
    let listed = authority.withheld_grants().await.expect("listed");
    assert_eq!(listed[1], ("exprsn-notes".to_owned(), withholding("sql")));
    authority
        .withhold(&notes, Vec::new())
        .await
        .expect("restored");
    drop(authority);
    assert!(withheld(&open(data.path())).is_empty());
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_brought_up_to_date() {
    let data = tempfile::tempdir().expect("a folder");
    let (notes, digest) = (name("exprsn-notes"), "aa".repeat(32));
    let first = open(data.path())
        .admit(&notes, "1.0.0", &digest, "{}")
        .await
        .expect("admitted");
    let file = rusqlite::Connection::open(data.path().join("host.db")).expect("opened");
    file.execute_batch(
        "ALTER TABLE admissions DROP COLUMN decided; ALTER TABLE admissions DROP COLUMN refused;
         ALTER TABLE admissions DROP COLUMN signer; DROP TABLE withheld_grants;",
    )
    .expect("as it was before");
    drop(file);
    let authority = open(data.path());
    assert_eq!(
        authority.admitted(&notes, &digest).await.expect("admitted"),
        first
    );
    assert_eq!(
        authority.admissions().await.expect("listed")[0].decided,
        Decided::Configuration
    );
    authority
        .admit_as(candidate(&"bb".repeat(32)))
        .await
        .expect("admitted");
}
