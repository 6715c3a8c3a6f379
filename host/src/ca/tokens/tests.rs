//! Tests of tokens, among them the attacks of RFC 8725.

use super::super::{
    claims::tests::claims,
    key::{Algorithm, SigningKey, generate},
    ring::KeyRing,
    vault::Vault,
};
use super::*;
use crate::invocation::Permission;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::json;
use std::path::Path;

const ISSUER: &str = "https://ca.exprsn.test";
const NOW: i64 = 1_500;

fn ring(folder: &Path, now_s: i64) -> Result<KeyRing> {
    KeyRing::open(&Vault::alone(folder), folder, Algorithm::EdDsa, now_s)
}

fn open(folder: &Path) -> Tokens {
    let ring = ring(&folder.join("ring"), 1).expect("a ring");
    let (ledger, remembered) = Ledger::open(&folder.join("host.db"), None, NOW).expect("a ledger");
    Tokens::new(ISSUER.into(), ring, ledger, &remembered, 1 << 20, NOW).expect("opened")
}

fn rejection(tokens: &Tokens, token: &str, now_s: i64) -> Option<Rejection> {
    let verdict = tokens.examine(token, now_s);
    let again = tokens.examine(token, now_s);
    assert_eq!(
        verdict.rejection, again.rejection,
        "the cache changed the verdict"
    );
    verdict.rejection
}

/// A token with this header and payload, signed by `key`.
fn forge(key: &SigningKey, header: &serde_json::Value, payload: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL.encode(header.to_string()),
        BASE64URL.encode(payload)
    );
    let signature = key.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", BASE64URL.encode(signature))
}

#[tokio::test]
async fn a_minted_token_is_good_in_its_time_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (token, minted) = tokens.mint(claims(), NOW).expect("minted");
    assert_eq!(minted, claims());
    let verdict = tokens.examine(&token, NOW);
    let verified = verdict.token.expect("claims");
    assert_eq!((verdict.rejection, &verified.claims), (None, &claims()));
    assert_eq!(
        (verified.principal.kind, &*verified.principal.subject),
        (PrincipalKind::User, "42")
    );
    assert!(verified.principal.permissions.contains(Permission::Write));
    assert_eq!(rejection(&tokens, &token, 1_999), None);
    assert_eq!(rejection(&tokens, &token, 2_000), Some(Rejection::Expired));
    assert_eq!(rejection(&tokens, &token, 1_000 - CLOCK_SKEW_S), None);
    assert_eq!(
        rejection(&tokens, &token, 1_000 - CLOCK_SKEW_S - 1),
        Some(Rejection::NotYetValid)
    );
    assert!(
        tokens.examine(&token, 2_000).token.is_some(),
        "an expired token's claims are known"
    );
}

#[tokio::test]
async fn forgeries_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (token, _) = tokens.mint(claims(), NOW).expect("minted");
    let parts: Vec<&str> = token.split('.').collect();
    let payload = claims().to_payload(ISSUER);
    let ours = tokens.ring.load().signing().kid().to_owned();
    let stranger = SigningKey::from_pkcs8(
        Algorithm::EdDsa,
        &generate(Algorithm::EdDsa).expect("a key"),
    )
    .expect("read");
    let check = |token: &str, expected: &str| {
        let found = rejection(&tokens, token, NOW).map_or("accepted", Rejection::kind);
        assert_eq!(found, expected, "{token}");
        assert!(
            tokens.examine(token, NOW).token.is_none(),
            "claims of a forged token"
        );
    };

    let header = |kid: &str| json!({ "alg": "EdDSA", "kid": kid, "typ": "at+jwt" });
    check(&forge(&stranger, &header(&ours), &payload), "bad-signature");
    check(
        &forge(&stranger, &header(stranger.kid()), &payload),
        "bad-signature",
    );
    let mut raised = claims();
    raised.permissions = raised.permissions.with(Permission::Admin);
    check(
        &format!(
            "{}.{}.{}",
            parts[0],
            BASE64URL.encode(raised.to_payload(ISSUER)),
            parts[2]
        ),
        "bad-signature",
    );
    check(&format!("{token}="), "bad-signature");
    check(&format!("{}.{}.", parts[0], parts[1]), "bad-signature");

    let embedded = json!({ "alg": "EdDSA", "kid": ours, "typ": "at+jwt", "jwk": stranger.jwk() });
    check(&forge(&stranger, &embedded, &payload), "malformed");
    let none = BASE64URL.encode(json!({ "alg": "none", "kid": ours, "typ": "at+jwt" }).to_string());
    check(&format!("{none}.{}.", parts[1]), "malformed");
    check(&format!("{none}.{}.{}", parts[1], parts[2]), "malformed");
    // Key confusion: the public key, which everybody knows, as the secret of an HMAC.
    let ring = tokens.ring.load();
    let confused =
        BASE64URL.encode(json!({ "alg": "HS256", "kid": ours, "typ": "at+jwt" }).to_string());
    let signed = format!("{confused}.{}", parts[1]);
    let secret =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, ring.signing().public_key());
    let tag = aws_lc_rs::hmac::sign(&secret, signed.as_bytes());
    check(&format!("{signed}.{}", BASE64URL.encode(tag)), "malformed");

    check(
        &format!("{token}{}", "A".repeat(jws::TOKEN_BYTES_MAX)),
        "malformed",
    );
    check("", "malformed");
    check("not a token", "malformed");
}

#[tokio::test]
async fn even_our_own_signature_does_not_excuse_the_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let ring = tokens.ring.load();
    let header = json!({ "alg": "EdDSA", "kid": ring.signing().kid(), "typ": "at+jwt" });
    let payload = String::from_utf8(claims().to_payload(ISSUER)).expect("UTF-8");
    let check = |payload: &str, expected: &str| {
        let found = rejection(
            &tokens,
            &forge(ring.signing(), &header, payload.as_bytes()),
            NOW,
        )
        .map_or("accepted", Rejection::kind);
        assert_eq!(found, expected, "{payload}");
    };
    check(&payload, "accepted");
    check(
        &payload.replacen('{', r#"{"sub":"user:1","#, 1),
        "malformed",
    );
    check(&payload.replace("user:42", "root"), "malformed");
    check(&payload.replace("2000", "\"2000\""), "malformed");
    check(
        &payload.replace(ISSUER, "https://ca.elsewhere.test"),
        "wrong-issuer",
    );
    check("[]", "malformed");
}

#[tokio::test]
async fn revocation_takes_effect_at_once_and_outlasts_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (token, _) = tokens.mint(claims(), NOW).expect("minted");
    let (other, _) = tokens
        .mint(
            Claims {
                id: "token-2".into(),
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    assert_eq!(rejection(&tokens, &token, NOW), None);
    tokens.revoke("token-1", 2_000, NOW).await.expect("revoked");
    assert_eq!(rejection(&tokens, &token, NOW), Some(Rejection::Revoked));
    assert_eq!(rejection(&tokens, &other, NOW), None);
    tokens
        .revoke("long-gone", 10, NOW)
        .await
        .expect("nothing to do");
    drop(tokens);

    let tokens = open(folder.path());
    assert_eq!(rejection(&tokens, &token, NOW), Some(Rejection::Revoked));
    assert_eq!(rejection(&tokens, &other, NOW), None);
}

#[tokio::test]
async fn uses_are_counted_exactly_and_outlast_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (token, _) = tokens
        .mint(
            Claims {
                uses_max: Some(3),
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    let verified = tokens.examine(&token, NOW).token.expect("good");
    let outcomes =
        futures::future::join_all((0..10).map(|_| tokens.count_use(&verified, NOW))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert!(outcomes.iter().all(|outcome| matches!(
        outcome,
        Ok(()) | Err(Refusal::Rejected(Rejection::Exhausted))
    )));
    assert_eq!(rejection(&tokens, &token, NOW), Some(Rejection::Exhausted));
    drop(tokens);

    let tokens = open(folder.path());
    assert_eq!(rejection(&tokens, &token, NOW), Some(Rejection::Exhausted));
    assert_eq!(rejection(&tokens, &token, 2_000), Some(Rejection::Expired));
    let (unlimited, _) = tokens
        .mint(
            Claims {
                id: "token-2".into(),
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    let unlimited = tokens.examine(&unlimited, NOW).token.expect("good");
    for _ in 0..5 {
        tokens
            .count_use(&unlimited, NOW)
            .await
            .expect("not counted");
    }
}

#[tokio::test]
async fn mint_fills_in_and_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (_, minted) = tokens
        .mint(
            Claims {
                id: String::new(),
                issued_at: 0,
                not_before: 0,
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    assert_eq!(
        (minted.id.len(), minted.issued_at, minted.not_before),
        (36, NOW, NOW)
    );
    let check = |claims: Claims, expected: &str| {
        let error = tokens.mint(claims, NOW).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    check(
        Claims {
            issued_at: 1,
            not_before: 1,
            expires_at: NOW,
            ..claims()
        },
        "past",
    );
    check(
        Claims {
            expires_at: NOW + LIFETIME_S_MAX + 1,
            ..claims()
        },
        "ahead",
    );
    check(
        Claims {
            resources: vec!["exprsn-a/../b".into()],
            ..claims()
        },
        "exprsn-a/../b",
    );
    let long = (0..64)
        .map(|n| format!("exprsn-herald/{n}/{}/*", "x".repeat(200)))
        .collect();
    check(
        Claims {
            resources: long,
            ..claims()
        },
        "longer than",
    );
}

#[tokio::test]
async fn a_rotated_key_verifies_on_until_it_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (old, _) = tokens.mint(claims(), NOW).expect("minted");
    tokens.replace_ring(
        KeyRing::add(
            &Vault::alone(folder.path()),
            &folder.path().join("ring"),
            Algorithm::EdDsa,
            NOW,
        )
        .expect("rotated"),
    );
    let (new, _) = tokens
        .mint(
            Claims {
                id: "token-2".into(),
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    assert_ne!(
        old.split('.').next(),
        new.split('.').next(),
        "another key signs"
    );
    assert_eq!(
        (rejection(&tokens, &old, NOW), rejection(&tokens, &new, NOW)),
        (None, None)
    );
    assert_eq!(tokens.jwks()["keys"].as_array().map(Vec::len), Some(2));
    tokens.replace_ring(ring(&folder.path().join("another"), NOW).expect("a ring"));
    assert_eq!(rejection(&tokens, &old, NOW), Some(Rejection::BadSignature));
}

#[tokio::test]
async fn service_tokens_are_reused_and_renewed() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let name = |text: &str| ServiceName::parse(text).expect("a name");
    let (timeline, herald) = (name("exprsn-timeline"), name("exprsn-herald"));
    let write = Permissions::NONE.with(Permission::Write);
    let mint = |target: &ServiceName, now| {
        tokens
            .service_token(&timeline, target, write, now)
            .expect("minted")
    };
    let first = mint(&herald, NOW);
    assert_eq!(mint(&herald, NOW + 200), first);
    assert_ne!(mint(&herald, NOW + 241), first);
    assert_ne!(mint(&timeline, NOW), first);
    let verified = tokens.examine(&first, NOW).token.expect("good");
    assert_eq!(
        (verified.principal.kind, &*verified.principal.subject),
        (PrincipalKind::Service, "exprsn-timeline")
    );
    assert_eq!(
        *verified.principal.resources,
        ["exprsn-herald/*".to_owned()]
    );
}

#[tokio::test]
async fn another_implementation_reads_our_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let (token, _) = tokens
        .mint(
            Claims {
                audience: vec!["exprsn-herald".into()],
                ..claims()
            },
            NOW,
        )
        .expect("minted");
    let jwk = serde_json::from_value(tokens.jwks()["keys"][0].clone()).expect("a JWK");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&["exprsn-herald"]);
    validation.validate_exp = false;
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
    let decoded =
        jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).expect("verified");
    assert_eq!(decoded.claims["permissions"], json!(["read", "write"]));
    assert_eq!(decoded.header.typ.as_deref(), Some("at+jwt"));
}

/// Figures for the report: `cargo test --release -p exprsn --lib ca::tokens -- --nocapture figures`.
#[tokio::test]
async fn figures_of_verification_are_within_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = open(folder.path());
    let rounds = 20_000u32;
    let (token, _) = tokens.mint(claims(), NOW).expect("minted");
    let per = |started: std::time::Instant| started.elapsed() / rounds;
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(tokens.verify_signature(&token).is_ok());
    }
    let uncached = per(started);
    tokens.examine(&token, NOW);
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(tokens.examine(&token, NOW).rejection);
    }
    let cached = per(started);
    println!("verify: uncached {uncached:?}, cached {cached:?}");
    assert!(cached < uncached, "the cache is no use");
}
