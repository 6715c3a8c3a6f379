//! Admission: what a component is and asks for, who vouches for it, what the operator approves, and what follows from it.

use crate::harness::{Answer, Platform, Setup, built, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

const NAME: &str = "exprsn-stranger";

fn stranger() -> PathBuf {
    built("guests").join(format!("{NAME}.wasm"))
}

fn run(platform: &Platform, arguments: &[&str]) -> Output {
    let output = platform.command(arguments).output();
    output.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeeds(platform: &Platform, arguments: &[&str]) -> String {
    let output = run(platform, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}{}",
        text(&output.stdout),
        text(&output.stderr),
        platform.log()
    );
    text(&output.stdout)
}

#[track_caller]
fn succeeds_with_json(platform: &Platform, arguments: &[&str]) -> Value {
    let stdout = succeeds(platform, arguments);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[track_caller]
fn fails(platform: &Platform, arguments: &[&str], code: i32, expected: &str) {
    let output = run(platform, arguments);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(
        told.contains(expected),
        "{arguments:?}: no `{expected}` in {told}"
    );
}

/// The component with some bytes replaced by as many others.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(stranger()).expect("the guest is built");
    let mut at = 0;
    let found: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "`{from}` is not in the component");
    for start in found {
        if start >= at {
            bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
            at = start + to.len();
        }
    }
    bytes
}

fn folder(platform: &Platform) -> &Path {
    platform
        .data
        .parent()
        .expect("the data directory lies in a folder")
}

/// A file beside the platform's data directory, where commands run.
fn written(platform: &Platform, name: &str, bytes: &[u8]) -> String {
    let path = folder(platform).join(name);
    fs::write(&path, bytes).expect("the file is written");
    path.to_str().expect("a path").to_owned()
}

fn start() -> Platform {
    Platform::start(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    })
}

/// A platform for tests that run nothing of what they send.
fn shared() -> &'static Platform {
    static SHARED: OnceLock<Platform> = OnceLock::new();
    SHARED.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca"],
            ..Setup::default()
        })
    })
}

/// What became of a use of a grant.
fn used(platform: &Platform, what: &str) -> Value {
    let answer = platform
        .call("stranger", "POST", &format!("/use/{what}"))
        .send();
    answer.expect_status(200).json()
}

#[track_caller]
fn is_done(platform: &Platform, what: &str) {
    assert_eq!(used(platform, what), json!({ "done": true }), "{what}");
}

#[track_caller]
fn is_denied(platform: &Platform, what: &str) {
    let answer = used(platform, what);
    assert!(answer["denied"].is_string(), "{what}: {answer}");
}

fn send(platform: &Platform, bytes: impl Into<Vec<u8>>) -> Answer {
    platform
        .call("ca", "POST", "/api/components/files")
        .token(&platform.operator())
        .body("application/wasm", bytes)
        .send()
}

fn admit(platform: &Platform, body: &Value) -> Answer {
    platform
        .call("ca", "POST", "/api/components")
        .token(&platform.operator())
        .json(body)
        .send()
}

fn as_requested() -> Value {
    json!({ "cache": "as-requested", "events": "as-requested", "http": "as-requested", "queue": "as-requested",
        "sql": "as-requested", "telemetry": "as-requested" })
}

/// Actions in the audit log, the newest first, with their details.
fn audited(platform: &Platform) -> Vec<Value> {
    let log = platform
        .call("ca", "GET", "/api/audit?limit=100")
        .token(&platform.operator());
    let log = log.send().expect_status(200).json();
    log["items"].as_array().expect("entries").clone()
}

#[test]
fn a_person_and_a_program_can_judge_a_component_without_a_platform() {
    let platform = Platform::prepare(&Setup::default());
    let file = stranger();
    let file = file.to_str().expect("a path");
    let told = succeeds(&platform, &["component", "inspect", file]);
    for expected in [
        "exprsn-stranger 1.0.0: Test guest: a third party's component\n",
        "signer         none: nobody vouches for it\n",
        "called for     http, jobs\n",
        "migrations     0001_init.sql\n",
        "sql        reads and writes a database of its own, and no other\n",
        "for exprsn:sql/database@1.0.0\n",
        "queue      works on the jobs of stranger-a\n",
        "adds jobs to stranger-a, stranger-b\n",
        "http       calls exprsn-relay (GET on /*) as itself\n",
        "calls addresses outside the platform: http://127.0.0.1:9\n",
        "for wasi:http/client@0.3.0; it can do without\n",
        "POST  /use/{*what}   anybody\n",
        "jobs of stranger-a: 4 at once, 2 attempts, 30 s each\n",
        "cpu_ms_max            6000  more than the default of      5000\n",
        "memory_bytes_max  33554432  less than the default of  67108864",
    ] {
        assert!(told.contains(expected), "no {expected:?} in:\n{told}");
    }
    let json = succeeds_with_json(&platform, &["component", "inspect", file, "--json"]);
    assert_eq!(
        (&json["name"], &json["signer"]),
        (&json!(NAME), &Value::Null)
    );
    assert_eq!(json["size"], fs::metadata(file).expect("there").len());
    let grants = json["grants"].as_array().expect("grants");
    let optional: Vec<_> = grants
        .iter()
        .filter(|grant| grant["optional"] == true)
        .map(|grant| grant["capability"].as_str().expect("a name"))
        .collect();
    assert_eq!(optional, ["cache", "events", "http"]);
    fails(
        &platform,
        &["component", "inspect", "nowhere.wasm"],
        1,
        "cannot read component `nowhere.wasm`",
    );
    let garbage = written(&platform, "garbage.wasm", b"garbage");
    fails(
        &platform,
        &["component", "inspect", &garbage],
        1,
        "not a WebAssembly component",
    );
}

#[test]
fn a_signature_is_made_shown_and_broken_by_one_byte() {
    let platform = Platform::prepare(&Setup::default());
    let key = succeeds(&platform, &["component", "keygen", "publisher.pem"]);
    let key = key.trim();
    assert_eq!(key.len(), 64, "the public key alone is printed: {key}");
    let private = folder(&platform).join("publisher.pem");
    let mode = fs::metadata(&private).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fails(
        &platform,
        &["component", "keygen", "publisher.pem"],
        1,
        "name another file",
    );

    let component = written(
        &platform,
        "stranger.wasm",
        &fs::read(stranger()).expect("built"),
    );
    let sign = ["component", "sign", &component, "--key", "publisher.pem"];
    let signed = run(&platform, &sign);
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    let secret = fs::read_to_string(&private).expect("readable");
    let secret = secret.lines().nth(1).expect("PEM").to_owned();
    assert!(!format!("{}{}", text(&signed.stdout), text(&signed.stderr)).contains(&secret));
    let inspect = ["component", "inspect", &component, "--json"];
    let first = succeeds_with_json(&platform, &inspect);
    assert_eq!(first["signer"]["key"], key);
    succeeds(&platform, &sign);
    assert_eq!(
        succeeds_with_json(&platform, &inspect)["digest"],
        first["digest"],
        "signed twice"
    );

    let mut bytes = fs::read(&component).expect("readable");
    bytes[1_000] ^= 1;
    written(&platform, "stranger.wasm", &bytes);
    let output = run(&platform, &["component", "inspect", &component]);
    let told = text(&output.stderr);
    assert!(
        !output.status.success() && told.contains(&component),
        "{told}"
    );

    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).expect("opened");
    fails(&platform, &sign, 1, "chmod 600");
}

#[test]
fn only_an_administrator_decides() {
    let platform = shared();
    let claims = json!({ "subject": "user:ada", "resource": "exprsn-ca/*", "permissions": ["read", "write"], "expiresIn": 600 });
    let issued = platform
        .call("ca", "POST", "/api/tokens")
        .token(&platform.operator())
        .json(&claims)
        .send()
        .expect_status(201)
        .json();
    let token = issued["token"].as_str().expect("a token");
    for (method, path) in [
        ("POST", "/api/components/files"),
        ("GET", "/api/components/files/00"),
        ("POST", "/api/components"),
        ("POST", "/api/components/exprsn-ca/revocations"),
        ("DELETE", "/api/components/exprsn-ca/revocations"),
        ("GET", "/api/publishers"),
        ("POST", "/api/publishers"),
        ("DELETE", "/api/publishers/00"),
    ] {
        platform
            .call("ca", method, path)
            .token(token)
            .json(&json!({}))
            .send()
            .expect_status(403);
    }
    platform
        .call("ca", "GET", "/api/components")
        .token(token)
        .send()
        .expect_status(200);
}

#[test]
fn what_is_no_component_or_too_large_is_refused() {
    let platform = shared();
    send(platform, "garbage").expect_problem(422, "not a WebAssembly component");
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    send(platform, core_module).expect_problem(422, "core WebAssembly module");
    let mut cut = fs::read(stranger()).expect("built");
    cut.truncate(cut.len() / 2);
    send(platform, cut).expect_status(422);
    let declared = platform
        .call("ca", "POST", "/api/components/files")
        .token(&platform.operator())
        .body("application/wasm", vec![0; (128 << 20) + 1]);
    // The host may end the connection while there is still more to come.
    if let Ok(answer) = declared.try_send() {
        answer.expect_status(413);
    }
    let left = fs::read_dir(platform.data.join("components")).expect("the library");
    let partial = left.filter(|entry| {
        let path = entry.as_ref().expect("an entry").path();
        path.extension().is_none_or(|extension| extension != "wasm")
    });
    assert_eq!(partial.count(), 0, "something of it was left behind");
}

#[test]
fn a_decision_needs_a_signer_whom_somebody_trusts_and_an_answer_to_everything() {
    let platform = shared();
    // Another name than the other tests have, so that no earlier decision answers for it.
    let bytes = replaced("name = \"exprsn-stranger\"", "name = \"exprsn-unheardo\"");
    let digest = send(platform, bytes).expect_status(201).json()["digest"].clone();
    let ask = |approve: Value, allow: bool| {
        admit(
            platform,
            &json!({ "digest": digest, "approve": approve, "allowUnsigned": allow }),
        )
    };
    ask(as_requested(), false).expect_problem(422, "nobody has signed it");
    let mut partly = as_requested();
    partly.as_object_mut().expect("an object").remove("sql");
    ask(partly, true).expect_problem(422, "it asks for `sql`, and nobody has answered");
    admit(
        platform,
        &json!({ "digest": digest, "allowUnsigned": true }),
    )
    .expect_problem(422, "nobody has answered");
    let with = |name: &str, answer: Value| {
        let mut answers = as_requested();
        answers[name] = answer;
        answers
    };
    ask(with("sql", json!("refused")), true).expect_problem(
        422,
        "it imports exprsn:sql/database@1.0.0, which was refused",
    );
    ask(with("queue", json!({ "produce": ["other"] })), true)
        .expect_problem(422, "more than was asked for");
    ask(with("queue", json!({ "surprise": true })), true).expect_problem(422, "surprise");
    ask(with("sql", json!("yes")), true).expect_problem(422, "as-requested");
    ask(with("blob", json!({})), true).expect_status(422);
    let unknown = "0".repeat(64);
    admit(
        platform,
        &json!({ "digest": unknown, "allowUnsigned": true }),
    )
    .expect_problem(422, "not in the library");
    let found = platform
        .call("ca", "GET", "/api/components")
        .token(&platform.operator())
        .send()
        .json();
    let items = found["items"].as_array().expect("items");
    assert!(
        items.iter().all(|one| one["digest"] != digest),
        "it was admitted all the same"
    );
}

#[test]
fn one_byte_of_an_admitted_file_is_refused_by_name() {
    let platform = shared();
    let bytes = replaced("version = \"1.0.0\"", "version = \"1.0.8\"");
    let digest = send(platform, bytes).expect_status(201).json()["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let decision = json!({ "digest": digest, "approve": as_requested(), "allowUnsigned": true });
    let admitted = admit(platform, &decision).expect_status(201).json();
    assert_eq!(
        (&admitted["live"], &admitted["decision"]["trust"]),
        (&json!(false), &json!("unsigned"))
    );
    let path = platform
        .data
        .join("components")
        .join(format!("{digest}.wasm"));
    let mut bytes = fs::read(&path).expect("in the library");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("tampered with");
    admit(platform, &decision).expect_problem(422, "was changed after it was taken in");
    let shown = platform.call("ca", "GET", &format!("/api/components/files/{digest}"));
    shown
        .token(&platform.operator())
        .send()
        .expect_problem(422, &digest);
}

#[test]
fn publishers_are_kept_by_key_and_audited() {
    let platform = shared();
    let key = "ab".repeat(32);
    let trust = |name: &str, key: &str| {
        let call = platform
            .call("ca", "POST", "/api/publishers")
            .token(&platform.operator());
        call.json(&json!({ "name": name, "key": key })).send()
    };
    trust("acme", &key).expect_status(201);
    trust("acme", &"cd".repeat(32)).expect_problem(409, "trusted already");
    trust("other", &key).expect_status(409);
    trust("bad", "xyz").expect_problem(422, "/key");
    let listed = succeeds(platform, &["publisher", "list"]);
    assert!(
        listed.contains("acme") && listed.contains(&key) && listed.contains("operator:local"),
        "{listed}"
    );
    succeeds(platform, &["publisher", "remove", &key]);
    fails(
        platform,
        &["publisher", "remove", &key],
        1,
        "there is no publisher",
    );
    let actions: Vec<_> = audited(platform)
        .iter()
        .map(|entry| entry["action"].clone())
        .collect();
    for action in ["publisher.trusted", "publisher.removed"] {
        assert!(actions.contains(&json!(action)), "{actions:?}");
    }
}

#[test]
fn a_signed_component_of_a_trusted_publisher_is_installed_listed_audited_and_survives() {
    let platform = start();
    let key = succeeds(&platform, &["component", "keygen", "acme.pem"]);
    let key = key.trim().to_owned();
    let file = written(
        &platform,
        "stranger.wasm",
        &fs::read(stranger()).expect("built"),
    );
    fails(&platform, &["component", "install", &file], 1, "--yes");
    fails(
        &platform,
        &["component", "install", &file, "--yes"],
        1,
        "nobody has signed it",
    );
    succeeds(
        &platform,
        &["component", "sign", &file, "--key", "acme.pem"],
    );
    fails(
        &platform,
        &["component", "install", &file, "--yes"],
        1,
        "not a trusted publisher",
    );
    succeeds(&platform, &["publisher", "trust", "acme", &key]);
    let inspected = succeeds(&platform, &["component", "inspect", &file]);
    assert!(inspected.contains("(trusted: acme)"), "{inspected}");

    let installed = succeeds_with_json(
        &platform,
        &["component", "install", &file, "--yes", "--json"],
    );
    assert_eq!(installed["swap"]["outcome"], "live", "{installed}");
    let digest = installed["admitted"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    for what in ["sql", "cache", "events/stranger.a", "queue/stranger-b"] {
        is_done(&platform, what);
    }
    is_done(&platform, "queue/stranger-a");
    eventually("its job was worked on", || {
        (used(&platform, "notes")["count"] == 1).then_some(())
    });

    let listed = succeeds_with_json(&platform, &["component", "list", "--json"]);
    let listed = listed.as_array().expect("a list");
    let own = listed
        .iter()
        .find(|one| one["service"] == NAME)
        .expect("it is listed");
    assert_eq!(
        (
            &own["publisher"],
            &own["live"],
            &own["decision"]["by"],
            &own["decision"]["trust"],
            &own["signer"]
        ),
        (
            &json!("acme"),
            &json!(true),
            &json!("operator:local"),
            &json!("publisher"),
            &json!(key)
        )
    );
    let bundled = listed
        .iter()
        .find(|one| one["service"] == "exprsn-ca")
        .expect("listed");
    assert_eq!(
        (&bundled["decision"], &bundled["live"]),
        (&Value::Null, &json!(true))
    );
    let table = succeeds(&platform, &["component", "list"]);
    assert!(
        table.contains("acme") && table.contains("platform.toml"),
        "{table}"
    );
    let entry = audited(&platform)
        .into_iter()
        .find(|entry| {
            entry["action"] == "component.admitted" && entry["details"]["service"] == NAME
        })
        .expect("it is in the audit log");
    assert_eq!(
        (&entry["actor"], &entry["details"]["digest"]),
        (&json!("operator:local"), &json!(digest))
    );
    let verified = platform
        .call("ca", "GET", "/api/audit/verify")
        .token(&platform.operator())
        .send()
        .json();
    assert_eq!(verified["valid"], true, "{verified}");

    platform.kill();
    platform.restart();
    is_done(&platform, "sql");
    let listed = succeeds_with_json(&platform, &["component", "list", "--json"]);
    let own = listed
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["service"] == NAME);
    let own = own.expect("it is listed");
    assert_eq!(
        (&own["digest"], &own["live"]),
        (&json!(digest), &json!(true))
    );
}

#[test]
fn what_is_approved_is_what_it_can_do() {
    let platform = start();
    let file = stranger();
    let file = file.to_str().expect("a path");
    fails(
        &platform,
        &[
            "component",
            "install",
            file,
            "--yes",
            "--allow-unsigned",
            "--refuse",
            "sql",
        ],
        1,
        "it imports exprsn:sql/database@1.0.0, which was refused",
    );
    fails(
        &platform,
        &["component", "install", file, "--yes", "--refuse", "blob"],
        1,
        "does not ask for `blob`",
    );
    let narrower = "queue={produce=[\"stranger-a\"]}";
    let install = [
        "component",
        "install",
        file,
        "--yes",
        "--allow-unsigned",
        "--refuse",
        "cache",
        "--refuse",
        "http",
        "--grant",
        narrower,
        "--json",
    ];
    let installed = succeeds_with_json(&platform, &install);
    let admitted = &installed["admitted"];
    assert_eq!(admitted["refused"], json!(["cache", "http"]));
    assert_eq!(
        admitted["grants"]["queue"],
        json!({ "produce": ["stranger-a"], "consume": [], "manage": [] })
    );
    assert_eq!(
        (&admitted["decision"]["trust"], &admitted["signer"]),
        (&json!("unsigned"), &Value::Null)
    );
    is_done(&platform, "sql");
    is_done(&platform, "events/stranger.a");
    for denied in ["cache", "call/exprsn-ca", "queue/stranger-b"] {
        is_denied(&platform, denied);
    }
    is_done(&platform, "queue/stranger-a");

    // Approved again with more, and swapped: the certificate says what counts.
    let digest = admitted["digest"].as_str().expect("a digest").to_owned();
    let answers = written(
        &platform,
        "answers.toml",
        b"cache = \"refused\"\nhttp = \"refused\"\n[queue]\nproduce = [\"stranger-b\"]\n",
    );
    let approved = succeeds(
        &platform,
        &[
            "component",
            "approve",
            &digest,
            "--yes",
            "--allow-unsigned",
            "--answers",
            &answers,
        ],
    );
    assert!(
        approved.contains("admitted exprsn-stranger 1.0.0"),
        "{approved}"
    );
    is_denied(&platform, "queue/stranger-b");
    let swap = platform.call("setup", "POST", &format!("/api/services/{NAME}/swap"));
    swap.token(&platform.operator())
        .json(&json!({ "digest": digest }))
        .send()
        .expect_status(200);
    is_done(&platform, "queue/stranger-b");
    is_denied(&platform, "queue/stranger-a");
}

#[test]
fn platform_toml_narrows_and_refuses_too() {
    let platform = Platform::start(&Setup {
        services: &["ca"],
        guests: &["stranger"],
        config: "[service.exprsn-stranger.grants]\ncache = \"refused\"\nqueue = { produce = [\"stranger-b\"] }",
        ..Setup::default()
    });
    for denied in ["cache", "queue/stranger-a"] {
        is_denied(&platform, denied);
    }
    for allowed in ["sql", "queue/stranger-b"] {
        is_done(&platform, allowed);
    }
    let refused = Platform::prepare(&Setup {
        services: &["ca"],
        guests: &["stranger"],
        config: "[service.exprsn-stranger.grants]\nqueue = { produce = [\"*\"] }",
        ..Setup::default()
    });
    assert!(refused.try_restart().is_err());
    let log = refused.log();
    assert!(
        log.contains("produce: \"*\" is more than was asked for")
            && log.contains("[service.exprsn-stranger]"),
        "{log}"
    );
}

#[test]
fn what_was_tampered_with_does_not_start_and_the_others_do() {
    let platform = start();
    let file = stranger();
    let install = [
        "component",
        "install",
        file.to_str().expect("a path"),
        "--yes",
        "--allow-unsigned",
        "--json",
    ];
    let installed = succeeds_with_json(&platform, &install);
    let digest = installed["admitted"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    platform.stop();
    let path = platform
        .data
        .join("components")
        .join(format!("{digest}.wasm"));
    let mut bytes = fs::read(&path).expect("in the library");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("tampered with");
    platform.restart();
    platform
        .call("ca", "GET", "/health")
        .send()
        .expect_status(200);
    assert!(
        platform
            .call("stranger", "POST", "/use/sql")
            .try_send()
            .map_or(true, |answer| answer.status == 503)
    );
    eventually("the reason is logged", || {
        platform
            .log()
            .contains("was changed after it was taken in")
            .then_some(())
    });
}
