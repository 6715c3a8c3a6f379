//! exprsn-ca over real HTTP: tokens, certificates, the revocation list, the audit log.

use crate::harness::{Answer, Platform, Setup};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca"],
            ..Setup::default()
        })
    })
}

/// A token for exprsn-ca itself.
fn own(permissions: &Value) -> Value {
    json!({ "subject": "user:ada", "resource": "exprsn-ca/api/*", "permissions": permissions, "expiresIn": 600 })
}

fn issue(platform: &Platform, token: &str, claims: &Value) -> Answer {
    platform
        .call("ca", "POST", "/api/tokens")
        .token(token)
        .json(claims)
        .send()
}

#[track_caller]
fn issued(platform: &Platform, token: &str, claims: &Value) -> (String, Value) {
    let answer = issue(platform, token, claims).expect_status(201);
    let record = answer.json();
    assert_eq!(
        answer.header("location"),
        format!("/api/tokens/{}", record["id"].as_str().expect("an id"))
    );
    (
        record["token"].as_str().expect("a token").to_owned(),
        record,
    )
}

fn validate(platform: &Platform, question: &Value) -> Value {
    platform
        .call("ca", "POST", "/api/tokens/validate")
        .json(question)
        .send()
        .expect_status(200)
        .json()
}

fn reason(platform: &Platform, question: &Value) -> Value {
    validate(platform, question)["reason"].clone()
}

#[test]
fn an_issued_token_validates_for_what_it_is_for() {
    let platform = platform();
    let claims = json!({
        "subject": "service:exprsn-timeline",
        "resource": "http://localhost:3000/api/crl*",
        "permissions": { "read": true, "write": false },
        "audience": ["exprsn-ca"],
        "expiresIn": 60,
        "extra": { "scope": "openid" },
    });
    let (token, record) = issued(platform, &platform.operator(), &claims);
    assert_eq!(
        (&record["tokenType"], &record["expiresIn"]),
        (&json!("Bearer"), &json!(60))
    );
    assert_eq!(
        (&record["permissions"], &record["issuedBy"]),
        (&json!(["read"]), &json!("operator:local"))
    );

    let answer = validate(platform, &json!({ "token": token }));
    assert_eq!(
        (&answer["valid"], &answer["reason"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(
        (&answer["claims"]["sub"], &answer["claims"]["scope"]),
        (&json!("service:exprsn-timeline"), &json!("openid"))
    );
    let about = |resource: &str, permission: &str| {
        reason(
            platform,
            &json!({ "token": token, "resource": resource, "permission": permission }),
        )
    };
    assert_eq!(about("http://localhost:3000/api/crl", "read"), Value::Null);
    assert_eq!(about("exprsn-ca/api/crl", "read"), Value::Null);
    assert_eq!(about("exprsn-ca/api/crl", "write"), "permission");
    for other in [
        "exprsn-ca/api/audit",
        "exprsn-ca/api/crl/../audit",
        "http://localhost:3014/api/crl",
        "*",
        "?",
    ] {
        assert_eq!(about(other, "read"), "resource", "{other}");
    }
}

#[test]
fn what_is_not_a_good_token_is_told_apart_and_never_a_fault() {
    let platform = platform();
    let (token, _) = issued(platform, &platform.operator(), &own(&json!(["read"])));
    let (signed, signature) = token.rsplit_once('.').expect("a JWT");
    let reversed: String = signature.chars().rev().collect();
    // {"alg":"none","kid":"k","typ":"at+jwt"}
    let none = format!(
        "eyJhbGciOiJub25lIiwia2lkIjoiayIsInR5cCI6ImF0K2p3dCJ9.{}.",
        token.split('.').nth(1).expect("a payload")
    );
    for (bad, expected) in [
        ("...", "malformed"),
        ("", "malformed"),
        ("Robert'); DROP TABLE tokens;--", "malformed"),
        (none.as_str(), "malformed"),
        (&"x".repeat(9_000), "malformed"),
        (&format!("{signed}.{reversed}"), "bad-signature"),
    ] {
        assert_eq!(
            reason(platform, &json!({ "token": bad })),
            expected,
            "{bad}"
        );
    }
    let ask = |content_type: &str, body: &str| {
        platform
            .call("ca", "POST", "/api/tokens/validate")
            .body(content_type, body)
            .send()
    };
    // As curl sends it in the specification: JSON under the media type of a form.
    let curl = ask("application/x-www-form-urlencoded", r#"{"token": "..."}"#)
        .expect_status(200)
        .json();
    assert_eq!(
        (&curl["valid"], &curl["reason"]),
        (&json!(false), &json!("malformed"))
    );
    assert_eq!(
        ask(
            "application/x-www-form-urlencoded",
            &format!("token={token}")
        )
        .expect_status(200)
        .json()["valid"],
        true
    );
    ask("application/json", "{").expect_problem(400, "malformed JSON");
    ask("application/json", "{}").expect_problem(422, "/token");
    ask("application/json", r#"{"token":7}"#).expect_status(422);
    ask(
        "application/json",
        &format!(r#"{{"token":"{}"}}"#, "x".repeat(70_000)),
    )
    .expect_status(413);
}

#[test]
fn wrong_requests_for_tokens_name_the_field() {
    let platform = platform();
    let operator = platform.operator();
    let check = |change: Value, field: &str| {
        let mut claims = own(&json!(["read"]));
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        issue(platform, &operator, &claims).expect_problem(422, field);
    };
    check(json!({ "permissions": ["everything"] }), "/permissions");
    check(json!({ "permissions": [] }), "/permissions");
    check(json!({ "resource": "exprsn-ca/../x" }), "/resource");
    check(json!({ "resource": 7 }), "/resource");
    check(json!({ "expiresIn": 0 }), "/expiresIn");
    check(json!({ "expiresIn": 99_999_999_999i64 }), "/expiresIn");
    check(json!({ "maxUses": 0 }), "/maxUses");
    check(json!({ "subject": "root" }), "subject");
    check(json!({ "surprise": true }), "/surprise");
    check(json!({ "extra": { "sub": "user:other" } }), "`sub`");
}

#[test]
fn a_token_can_be_narrowed_but_never_widened() {
    let platform = platform();
    let (token, record) = issued(
        platform,
        &platform.operator(),
        &own(&json!(["read", "write"])),
    );
    let narrow =
        json!({ "resource": "exprsn-ca/api/components", "permissions": ["read"], "expiresIn": 60 });
    let (narrower, child) = issued(platform, &token, &narrow);
    assert_eq!(
        (&child["subject"], &child["parent"]),
        (&json!("user:ada"), &record["id"])
    );
    platform
        .call("ca", "GET", "/api/components")
        .token(&narrower)
        .send()
        .expect_status(200);
    platform
        .call("ca", "GET", "/api/certificates")
        .token(&narrower)
        .send()
        .expect_problem(403, "/api/certificates");

    let refused = |change: Value, expected: &str| {
        let mut wanted = narrow.clone();
        for (name, value) in change.as_object().expect("an object") {
            wanted[name] = value.clone();
        }
        issue(platform, &token, &wanted).expect_problem(403, expected);
    };
    refused(json!({ "subject": "operator:local" }), "subject");
    refused(json!({ "permissions": ["read", "admin"] }), "`admin`");
    refused(json!({ "resource": "*" }), "`*`");
    refused(
        json!({ "resource": ["exprsn-ca/api/components", "exprsn-auth/*"] }),
        "exprsn-auth",
    );
    refused(json!({ "expiresIn": 3_600 }), "outlive");
    refused(json!({ "extra": { "scope": "all" } }), "extra");
    issue(platform, &narrower, &narrow).expect_status(403);

    let mut once = own(&json!(["write"]));
    once["maxUses"] = json!(5);
    let (counted, _) = issued(platform, &platform.operator(), &once);
    let write = json!({ "resource": "exprsn-ca/api/components", "permissions": ["write"], "expiresIn": 60 });
    issue(platform, &counted, &write).expect_problem(403, "counted");
}

#[test]
fn revoking_a_token_revokes_what_was_narrowed_from_it() {
    let platform = platform();
    let operator = platform.operator();
    let (token, record) = issued(platform, &operator, &own(&json!(["read", "write"])));
    let narrow =
        json!({ "resource": "exprsn-ca/api/components", "permissions": ["read"], "expiresIn": 60 });
    let (narrower, child) = issued(platform, &token, &narrow);
    let (other, _) = issued(platform, &operator, &own(&json!(["read"])));

    let revoke = |by: &str, form: &[(&str, &str)]| {
        platform
            .call("ca", "POST", "/api/tokens/revoke")
            .token(by)
            .form(form)
            .send()
    };
    revoke(
        &other,
        &[("token", "x.y.z"), ("token_type_hint", "access_token")],
    )
    .expect_status(200);
    let id = record["id"].as_str().expect("an id");
    let (stranger, _) = issued(
        platform,
        &operator,
        &json!({ "subject": "user:eve", "resource": "*", "permissions": ["read"] }),
    );
    revoke(&stranger, &[("id", id)]).expect_problem(403, "your own tokens only");
    revoke(&operator, &[("id", "nobody's")]).expect_status(404);
    revoke(&operator, &[]).expect_problem(422, "/token");

    let answer = revoke(&token, &[("token", &token)])
        .expect_status(200)
        .json();
    assert_eq!(answer["revoked"], json!([record["id"], child["id"]]));
    for gone in [&token, &narrower] {
        assert_eq!(reason(platform, &json!({ "token": gone })), "revoked");
        platform
            .call("ca", "GET", "/api/components")
            .token(gone)
            .send()
            .expect_problem(401, "revoked");
    }
    assert_eq!(reason(platform, &json!({ "token": other })), Value::Null);
    let shown = platform
        .call("ca", "GET", &format!("/api/tokens/{id}"))
        .token(&operator)
        .send()
        .expect_status(200)
        .json();
    assert_eq!(shown["revokedBy"], "user:ada");
    assert!(shown.get("token").is_none(), "a token's text is not kept");
}

#[test]
fn introspection_says_nothing_of_what_is_not_active() {
    let platform = platform();
    let operator = platform.operator();
    let (token, record) = issued(platform, &operator, &own(&json!(["read"])));
    let ask = |token: &str| {
        let call = platform
            .call("ca", "POST", "/api/tokens/introspect")
            .token(&operator);
        call.form(&[("token", token), ("token_type_hint", "access_token")])
            .send()
            .expect_status(200)
            .json()
    };
    let active = ask(&token);
    assert_eq!(
        (&active["active"], &active["jti"], &active["scope"]),
        (&json!(true), &record["id"], &json!("read"))
    );
    assert_eq!(active["iss"], "https://ca.exprsn.local");
    assert_eq!(ask("x.y.z"), json!({ "active": false }));
    platform
        .call("ca", "POST", "/api/tokens/introspect")
        .form(&[("token", &token)])
        .send()
        .expect_status(401);
}

#[test]
fn anybody_can_verify_a_token_with_the_published_keys() {
    let platform = platform();
    let (token, _) = issued(platform, &platform.operator(), &own(&json!(["read"])));
    let keys = platform
        .call("ca", "GET", "/.well-known/jwks.json")
        .send()
        .expect_status(200)
        .json();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).expect("a JWKS");
    let kid = jsonwebtoken::decode_header(&token)
        .expect("a header")
        .kid
        .expect("a kid");
    let key =
        jsonwebtoken::DecodingKey::from_jwk(keys.find(&kid).expect("its key")).expect("a key");
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation)
        .expect("verified")
        .claims;
    assert_eq!(claims["sub"], "user:ada");
}

#[test]
fn lists_are_paged_and_refuse_strange_cursors() {
    let platform = platform();
    let operator = platform.operator();
    for _ in 0..3 {
        issued(platform, &operator, &own(&json!(["read"])));
    }
    let list = |path: &str| platform.call("ca", "GET", path).token(&operator).send();
    for path in ["/api/tokens", "/api/audit"] {
        let first = list(&format!("{path}?limit=2")).expect_status(200).json();
        assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
        let cursor = first["nextCursor"].as_str().expect("there are more");
        let second = list(&format!("{path}?limit=2&cursor={cursor}"))
            .expect_status(200)
            .json();
        assert_ne!(second["items"][0], first["items"][1]);
        list(&format!("{path}?cursor=nonsense")).expect_problem(400, "cursor");
        list(&format!("{path}?limit=0")).expect_problem(400, "limit");
    }
    assert!(
        list("/api/certificates?limit=2").expect_status(200).json()["items"]
            .as_array()
            .is_some()
    );
}

#[test]
fn certificates_chain_up_to_the_root() {
    let platform = platform();
    let components = platform
        .call("ca", "GET", "/api/components")
        .token(&platform.operator())
        .send()
        .expect_status(200)
        .json();
    let ca = components["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["service"] == "exprsn-ca")
        .expect("itself");
    assert_eq!(
        (&ca["live"], &ca["grants"]["ca"]["authority"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        ca["certificate"]["subject"],
        "spiffe://exprsn.local/service/exprsn-ca"
    );
    let get = |path: &str| {
        platform
            .call("ca", "GET", path)
            .send()
            .expect_status(200)
            .text()
    };
    let pem = |text: &str| {
        x509_parser::pem::parse_x509_pem(text.as_bytes())
            .expect("PEM")
            .1
    };
    let (root, intermediate) = (
        pem(&get("/api/certificates/root")),
        pem(&get("/api/certificates/intermediate")),
    );
    let leaf = pem(ca["certificate"]["pem"].as_str().expect("PEM"));
    let (root, intermediate) = (
        root.parse_x509().expect("X.509"),
        intermediate.parse_x509().expect("X.509"),
    );
    root.verify_signature(None).expect("signs itself");
    intermediate
        .verify_signature(Some(root.public_key()))
        .expect("signed by the root");
    leaf.parse_x509()
        .expect("X.509")
        .verify_signature(Some(intermediate.public_key()))
        .expect("signed by the intermediate");
}

#[test]
fn a_revoked_component_is_on_the_list_and_does_not_start_again() {
    let platform = Platform::start(&Setup {
        services: &["ca"],
        guests: &["hello"],
        ..Setup::default()
    });
    let get = |path: &str| {
        platform
            .call("ca", "GET", path)
            .token(&platform.operator())
            .send()
            .expect_status(200)
    };
    let crl = || {
        let der = platform
            .call("ca", "GET", "/api/crl")
            .send()
            .expect_status(200);
        assert_eq!(der.header("content-type"), "application/pkix-crl");
        let (_, list) = x509_parser::parse_x509_crl(&der.body).expect("a CRL");
        let number = list.crl_number().expect("a number").clone();
        (
            number,
            list.iter_revoked_certificates()
                .map(|entry| entry.raw_serial_as_string().replace(':', ""))
                .collect::<Vec<_>>(),
        )
    };
    let before = crl();
    assert!(before.1.is_empty());
    let certificates = get("/api/certificates").json();
    let certificates = certificates["items"].as_array().expect("items").clone();
    let serial = |subject: &str| {
        let found = certificates.iter().find(|item| {
            item["subject"]
                .as_str()
                .is_some_and(|text| text.ends_with(subject))
        });
        found.expect(subject)["serial"]
            .as_str()
            .expect("a serial")
            .to_owned()
    };
    let hello = serial("/service/exprsn-hello");
    let revoke = |serial: &str| {
        let call = platform
            .call("ca", "POST", &format!("/api/certificates/{serial}/revoke"))
            .token(&platform.operator());
        call.json(&json!({ "reason": "compromised" })).send()
    };
    revoke(&serial(" root")).expect_problem(409, "root");
    revoke("00ff").expect_status(404);
    let revoked = revoke(&hello).expect_status(200).json();
    assert_eq!(
        (&revoked["reason"], &revoked["revokedBy"]),
        (&json!("compromised"), &json!("operator:local"))
    );
    revoke(&hello).expect_problem(409, "already");

    let after = crl();
    assert!(after.0 > before.0, "the number does not rise");
    assert_eq!(after.1, [hello]);
    let pem = platform
        .call("ca", "GET", "/api/crl?format=pem")
        .send()
        .expect_status(200)
        .text();
    assert!(pem.starts_with("-----BEGIN X509 CRL-----"));
    let audit = get("/api/audit").json();
    assert_eq!(audit["items"][0]["action"], "certificate.revoked");

    platform.stop();
    assert!(platform.try_restart().is_err(), "a revoked component runs");
    let log = platform.log();
    assert!(
        log.contains("exprsn-hello is not admitted") && log.contains("revoked"),
        "{log}"
    );
}

#[test]
fn tampering_with_the_audit_log_is_found() {
    let platform = Platform::start(&Setup {
        services: &["ca"],
        ..Setup::default()
    });
    let verify = || {
        platform
            .call("ca", "GET", "/api/audit/verify")
            .token(&platform.operator())
            .send()
            .expect_status(200)
            .json()
    };
    for _ in 0..5 {
        issued(&platform, &platform.operator(), &own(&json!(["read"])));
    }
    let whole = verify();
    assert_eq!(
        (&whole["valid"], &whole["nextAfter"]),
        (&json!(true), &Value::Null)
    );
    assert!(
        whole["checked"]
            .as_i64()
            .is_some_and(|checked| checked >= 5),
        "{whole}"
    );

    let tamper = |sql: &str| {
        platform.stop();
        match platform.servers() {
            Some(servers) => servers.postgres.execute("exprsn_ca", sql),
            None => rusqlite::Connection::open(platform.data.join("sql/exprsn-ca.db"))
                .and_then(|database| database.execute_batch(sql))
                .expect("tampered"),
        }
        platform.restart();
        verify()
    };
    let changed = tamper("UPDATE audit SET actor = actor || 'x' WHERE seq = 2");
    assert_eq!(
        (&changed["valid"], &changed["brokenAt"]),
        (&json!(false), &json!(2)),
        "{changed}"
    );
    let restored =
        tamper("UPDATE audit SET actor = substr(actor, 1, length(actor) - 1) WHERE seq = 2");
    assert_eq!(restored["valid"], true, "{restored}");
    // Cut off at the end, with the head set back to what is left: only the seal tells.
    let cut = "UPDATE audit_head SET seq = seq - 1, hash = (SELECT previous_hash FROM audit ORDER BY seq DESC LIMIT 1);
        DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit);";
    let shortened = tamper(cut);
    assert_eq!(shortened["valid"], false, "{shortened}");
    assert!(
        shortened["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("seal")),
        "{shortened}"
    );
    // What is written afterwards does not cover it up.
    issued(&platform, &platform.operator(), &own(&json!(["read"])));
    let continued = verify();
    assert_eq!(continued["valid"], false, "{continued}");
    assert!(
        continued["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("before this entry")),
        "{continued}"
    );
}
