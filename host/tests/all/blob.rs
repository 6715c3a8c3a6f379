//! The `blob` capability as a guest has it: a guest that keeps objects as it is told.

use crate::harness::{Call, Platform, Setup, eventually};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::OnceLock};

const LIMITS: &str = "
[service.exprsn-blob.limits]
body_bytes_max = 536870912
cpu_ms_max = 60000
wall_ms_max = 120000
[capability.blob]
object_bytes_max = 300000000
value_bytes_max = 10000
name_bytes_max = 300
objects_max = 50
list_max = 3
streams_max = 4";

/// Objects of the guest, which `Setup` makes in the harness's data directory.
fn folder(platform: &Platform) -> PathBuf {
    platform.data.join("blob/exprsn-blob")
}

fn start() -> Platform {
    Platform::start(&Setup {
        guests: &["blob"],
        config: LIMITS,
        ..Setup::default()
    })
}

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let platform = start();
        for container in ["avatars", "tmp-1"] {
            expect(
                &platform,
                container,
                "",
                json!({ "call": "create" }),
                &Value::Null,
            );
        }
        platform
    })
}

fn wish(container: &str, name: &str, mut call: Value) -> Value {
    call["container"] = container.into();
    call["name"] = name.into();
    call
}

#[track_caller]
fn call(platform: &Platform, container: &str, name: &str, asked: Value) -> Value {
    platform
        .call("blob", "POST", "/call")
        .json(&wish(container, name, asked))
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn ok(platform: &Platform, container: &str, name: &str, asked: Value) -> Value {
    let answer = call(platform, container, name, asked.clone());
    assert!(answer["error"].is_null(), "{asked}: {answer}");
    answer["ok"].clone()
}

#[track_caller]
fn expect(platform: &Platform, container: &str, name: &str, asked: Value, answer: &Value) {
    assert_eq!(ok(platform, container, name, asked), *answer);
}

#[track_caller]
fn expect_error(container: &str, name: &str, asked: Value, texts: &[&str]) {
    let answer = call(platform(), container, name, asked.clone());
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{asked}: no error: {answer}"));
    for text in texts {
        assert!(error.contains(text), "{asked}: no `{text}` in {error}");
    }
}

fn put(content: &str) -> Value {
    json!({ "call": "put", "content": content, "contentType": "text/plain" })
}

fn get() -> Value {
    json!({ "call": "get" })
}

fn names(platform: &Platform, container: &str, prefix: &str) -> Value {
    ok(
        platform,
        container,
        "",
        json!({ "call": "list", "prefix": prefix }),
    )["names"]
        .clone()
}

fn sha256(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn objects_are_written_read_listed_copied_and_deleted() {
    let p = platform();
    let written = ok(p, "avatars", "jane/large", put("hello, world"));
    assert_eq!(written["sha256"], sha256(b"hello, world"));
    let read = ok(p, "avatars", "jane/large", get());
    assert_eq!(read["info"], written);
    assert_eq!(read["content"], "hello, world");
    let info = ok(p, "avatars", "jane/large", json!({ "call": "info" }));
    assert_eq!(
        (&info["size"], &info["contentType"]),
        (&json!(12), &json!("text/plain"))
    );
    let part = |offset: u64, length: Option<u64>| json!({ "call": "get", "offset": offset, "length": length });
    for (range, content) in [
        (part(7, None), "world"),
        (part(0, Some(5)), "hello"),
        (part(10, Some(100)), "ld"),
        (part(12, None), ""),
    ] {
        assert_eq!(ok(p, "avatars", "jane/large", range)["content"], content);
    }
    expect_error(
        "avatars",
        "jane/large",
        part(13, None),
        &["Invalid", "begins at 13"],
    );
    let copy = json!({ "call": "copy", "toContainer": "tmp-1", "toName": "copy" });
    let copied = ok(p, "avatars", "jane/large", copy);
    assert_eq!(
        (&copied["name"], &copied["sha256"]),
        (&json!("copy"), &written["sha256"])
    );
    for name in ["jane/a", "jane/b", "jane/c"] {
        ok(p, "avatars", name, put(name));
    }
    let list = |cursor: &Value, limit: Option<u32>| {
        let asked = json!({ "call": "list", "prefix": "jane/", "cursor": cursor, "limit": limit });
        ok(p, "avatars", "", asked)
    };
    let first = list(&Value::Null, None);
    assert_eq!(
        first["names"],
        json!(["jane/a", "jane/b", "jane/c"]),
        "list_max is 3"
    );
    let second = list(&first["next"], Some(1_000));
    assert_eq!(second, json!({ "names": ["jane/large"], "next": null }));
    for _ in 0..2 {
        expect(
            p,
            "avatars",
            "jane/large",
            json!({ "call": "delete" }),
            &Value::Null,
        );
    }
    expect_error("avatars", "jane/large", get(), &["NotFound", "jane/large"]);
    expect_error(
        "avatars",
        "",
        json!({ "call": "list", "cursor": "not a cursor" }),
        &["Invalid", "cursor"],
    );
}

#[test]
fn containers_come_and_go() {
    let p = platform();
    expect(p, "tmp-2", "", json!({ "call": "exists" }), &json!(false));
    expect_error("tmp-2", "x", put("1"), &["NotFound", "create it first"]);
    for _ in 0..2 {
        expect(p, "tmp-2", "", json!({ "call": "create" }), &Value::Null);
    }
    expect(p, "tmp-2", "", json!({ "call": "exists" }), &json!(true));
    let all = ok(p, "-", "", json!({ "call": "containers" }));
    assert!(
        all.as_array().expect("a list").contains(&json!("tmp-2")),
        "{all}"
    );
    ok(p, "tmp-2", "x", put("1"));
    let delete = || json!({ "call": "deleteContainer" });
    expect_error("tmp-2", "", delete(), &["Conflict", "not empty"]);
    ok(p, "tmp-2", "x", json!({ "call": "delete" }));
    expect(p, "tmp-2", "", delete(), &Value::Null);
    expect_error("tmp-2", "", delete(), &["NotFound"]);
}

#[test]
fn conditions_keep_writers_from_each_other() {
    let absent = || json!({ "call": "put", "content": "1", "ifAbsent": true });
    let etag = |etag: &Value| json!({ "call": "put", "content": "2", "ifEtag": etag });
    let first = ok(platform(), "avatars", "conditional", absent());
    expect_error("avatars", "conditional", absent(), &["Conflict", "already"]);
    ok(platform(), "avatars", "conditional", etag(&first["etag"]));
    expect_error(
        "avatars",
        "conditional",
        etag(&first["etag"]),
        &["Conflict", "changed"],
    );
}

#[test]
fn errors_when_not_granted() {
    let create = || json!({ "call": "create" });
    expect_error(
        "other",
        "",
        create(),
        &["AccessDenied", "add \\\"other\\\" to `write`"],
    );
    expect_error("public", "x", put("1"), &["AccessDenied", "`write`"]);
    expect_error("tmp-1", "x", get(), &["AccessDenied", "`read`"]);
    // A container that is not granted is denied whether it is there or not, and a copy needs both ends.
    expect_error("other", "x", get(), &["AccessDenied", "`read`"]);
    ok(platform(), "avatars", "mine", put("1"));
    let copy = |to: &str| json!({ "call": "copy", "toContainer": to, "toName": "x" });
    expect_error(
        "avatars",
        "mine",
        copy("public"),
        &["AccessDenied", "public"],
    );
    expect_error("tmp-1", "x", copy("avatars"), &["AccessDenied", "tmp-1"]);
    expect_error("other", "x", json!({ "call": "sum" }), &["AccessDenied"]);
    expect_error(
        "other",
        "x",
        json!({ "call": "fill", "chunks": 1 }),
        &["AccessDenied"],
    );
    let refused = Platform::prepare(&Setup {
        guests: &["blob"],
        config: "[service.exprsn-blob]\ngrants = { blob = \"refused\" }",
        ..Setup::default()
    });
    let output = refused.try_restart().expect_err("it does not start");
    let told = format!("{output}{}", refused.log());
    assert!(told.contains("exprsn:blob/containers@1.0.0"), "{told}");
    assert!(told.contains("which was refused"), "{told}");
}

#[test]
fn errors_when_limit_exceeded() {
    let limit = |name: &str, asked: Value, text: &str| {
        expect_error("avatars", name, asked, &["LimitExceeded", text]);
    };
    limit("x", put(&"x".repeat(10_001)), "value_bytes_max is 10000");
    limit(&"n".repeat(301), put("1"), "name_bytes_max is 300");
    // 300 MB in chunks of 64 KiB are 4577.7 of them: refused on arrival, and refused when announced.
    let announced = json!({ "call": "fill", "chunks": 1, "size": 300_000_001 });
    limit("x", announced, "object_bytes_max is 300000000");
    let full = start();
    ok(&full, "avatars", "", json!({ "call": "create" }));
    ok(&full, "avatars", "held", put("1"));
    let hold = |streams: usize| json!({ "call": "hold", "streams": streams });
    let held = ok(&full, "avatars", "held", hold(5));
    assert_eq!(held["held"], 4, "{held}");
    assert!(
        held["error"]
            .as_str()
            .is_some_and(|error| error.contains("streams_max is 4")),
        "{held}"
    );
    eventually("its streams end with the request", || {
        (ok(&full, "avatars", "held", hold(4))["error"].is_null()).then_some(())
    });
    ok(&full, "avatars", "held", json!({ "call": "delete" }));
    ok(&full, "tmp-1", "", json!({ "call": "create" }));
    for number in 0..50 {
        ok(&full, "tmp-1", &number.to_string(), put("1"));
    }
    let answer = call(&full, "tmp-1", "one more", put("1"));
    assert!(answer.to_string().contains("objects_max is 50"), "{answer}");
}

#[test]
fn names_are_names_whatever_they_look_like() {
    let hostile = [
        "../../../../etc/passwd",
        "..",
        ".",
        "/etc/passwd",
        "a/../../../tmp-1/x",
        "nul\0nul",
        "_partial",
        "%2e%2e%2f",
        "Case",
        "case",
        "\u{e9}",
        "e\u{301}",
        "\\..\\..",
        &"long".repeat(75),
    ];
    let p = start();
    ok(&p, "avatars", "", json!({ "call": "create" }));
    for name in hostile {
        ok(&p, "avatars", name, put(name));
    }
    for name in hostile {
        assert_eq!(ok(&p, "avatars", name, get())["content"], name);
    }
    let files = fs::read_dir(folder(&p).join("avatars")).expect("the container's folder");
    let files: Vec<String> = files
        .map(|file| {
            file.expect("an entry")
                .file_name()
                .into_string()
                .expect("ASCII")
        })
        .collect();
    assert_eq!(
        files.len(),
        hostile.len(),
        "each is one file of one folder: {files:?}"
    );
    let beside: Vec<_> = fs::read_dir(folder(&p)).expect("the folder").collect();
    assert_eq!(beside.len(), 2, "avatars and _partial: {beside:?}");
    for name in [
        "../avatars",
        "avatars/..",
        "_partial",
        ".",
        "AVATARS",
        "avatars\0",
    ] {
        let answer = call(&p, name, "x", put("1"));
        assert!(answer.to_string().contains("Invalid"), "{name}: {answer}");
    }
    // Links that somebody planted lead nowhere, now and after a restart.
    let secret = p.data.join("secret");
    fs::write(&secret, "secret").expect("a file");
    fs::remove_file(folder(&p).join("avatars/case")).expect("an object's file");
    std::os::unix::fs::symlink(&secret, folder(&p).join("avatars/case")).expect("a link");
    std::os::unix::fs::symlink(&p.data, folder(&p).join("tmp-9")).expect("a link");
    let answer = call(&p, "avatars", "case", get());
    assert!(answer.to_string().contains("Unavailable"), "{answer}");
    p.stop();
    p.restart();
    assert!(
        call(&p, "avatars", "case", get())
            .to_string()
            .contains("NotFound")
    );
    let answer = call(&p, "tmp-9", "secret", put("overwritten"));
    assert!(answer.to_string().contains("NotFound"), "{answer}");
    ok(&p, "avatars", "case", put("written over the link"));
    assert_eq!(fs::read_to_string(&secret).expect("the file"), "secret");
}

/// The memory of the host that is no cache of files, in bytes.
fn memory(platform: &Platform) -> u64 {
    let path = format!("/proc/{}/status", platform.pid());
    let status = fs::read_to_string(path).expect("the host runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        << 10
}

#[test]
fn large_objects_stream_through_flat_memory() {
    const CHUNKS: u64 = 3_200;
    const BYTES: u64 = CHUNKS * 65_536;
    let p = start();
    ok(&p, "avatars", "", json!({ "call": "create" }));
    ok(
        &p,
        "avatars",
        "warm",
        json!({ "call": "fill", "chunks": 100 }),
    );
    ok(&p, "avatars", "warm", json!({ "call": "sum" }));
    let before = memory(&p);
    let peak = std::sync::atomic::AtomicU64::new(before);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        use std::sync::atomic::Ordering::Relaxed;
        let watch = scope.spawn(|| {
            while !done.load(Relaxed) {
                peak.fetch_max(memory(&p), Relaxed);
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        });
        let written = ok(
            &p,
            "avatars",
            "large",
            json!({ "call": "fill", "chunks": CHUNKS, "size": BYTES }),
        );
        assert_eq!(written["size"], BYTES);
        let mut expected = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        (0..CHUNKS).for_each(|n| expected.update(&[n as u8; 65_536]));
        let expected: String = expected
            .finish()
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(written["sha256"], expected);
        let sum: u64 = (0..CHUNKS).map(|n| (n % 256) * 65_536).sum();
        let read = ok(&p, "avatars", "large", json!({ "call": "sum" }));
        assert_eq!(read, json!({ "bytes": BYTES, "sum": sum }));
        ok(
            &p,
            "avatars",
            "large",
            json!({ "call": "copy", "toContainer": "avatars", "toName": "copy" }),
        );
        // In and out as bodies, which never enter the guest.
        let (status, headers, mut reader, _) = p
            .call("blob", "GET", "/objects/avatars/copy")
            .open()
            .expect("an answer");
        assert_eq!(
            (status, &headers["content-length"]),
            (200, &BYTES.to_string().parse().expect("a value"))
        );
        let bytes = std::io::copy(&mut reader, &mut std::io::sink()).expect("the body");
        assert_eq!(bytes, BYTES);
        done.store(true, Relaxed);
        watch.join().expect("the watcher");
    });
    let grown = peak.into_inner().saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "{BYTES} bytes went through, and memory grew by {grown}"
    );
}

#[test]
fn a_body_becomes_an_object_and_an_object_a_body() {
    let p = platform();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let stored = p
        .call("blob", "PUT", "/objects/avatars/body")
        .body("image/png", content.clone())
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (&stored["size"], &stored["sha256"]),
        (&json!(3_000_000), &json!(sha256(&content)))
    );
    let answer = p
        .call("blob", "GET", "/objects/avatars/body")
        .send()
        .expect_status(200);
    assert_eq!(answer.header("content-type"), "image/png");
    assert!(answer.body == content);
    p.call("blob", "GET", "/objects/avatars/none")
        .send()
        .expect_status(404);
}

#[test]
fn what_breaks_off_leaves_what_was_there() {
    let p = start();
    ok(&p, "avatars", "", json!({ "call": "create" }));
    ok(&p, "avatars", "x", put("before"));
    let fill =
        |end: &str, size: u64| json!({ "call": "fill", "chunks": 20, "end": end, "size": size });
    let broken = call(&p, "avatars", "x", fill("break", 21 * 65_536));
    assert!(broken.to_string().contains("given up"), "{broken}");
    for size in [19 * 65_536, 21 * 65_536] {
        let wrong = call(&p, "avatars", "x", fill("complete", size));
        assert!(wrong.to_string().contains("Invalid"), "{wrong}");
    }
    let trapped = p
        .call("blob", "POST", "/call")
        .json(&wish("avatars", "x", fill("trap", 21 * 65_536)))
        .send();
    assert_eq!(trapped.status, 500, "{trapped:?}");
    // A client that hangs up in the middle of its body.
    let (host, port) = p
        .origin("blob")
        .trim_start_matches("http://")
        .split_once(':')
        .map(|(host, port)| (host.to_owned(), port.parse::<u16>().expect("a port")))
        .expect("host and port");
    let mut client = std::net::TcpStream::connect((host.as_str(), port)).expect("a connection");
    let head = format!(
        "PUT /objects/avatars/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n"
    );
    std::io::Write::write_all(&mut client, head.as_bytes()).expect("the head");
    std::io::Write::write_all(&mut client, &[1; 400_000]).expect("a part of the body");
    eventually("the object is being written", || {
        let partial = fs::read_dir(folder(&p).join("_partial")).ok()?;
        partial.count().checked_sub(1)
    });
    drop(client);
    eventually("nothing is being written", || {
        let partial = fs::read_dir(folder(&p).join("_partial")).ok()?;
        (partial.count() == 0).then_some(())
    });
    assert_eq!(ok(&p, "avatars", "x", get())["content"], "before");
    assert_eq!(names(&p, "avatars", ""), json!(["x"]));
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_what_was_not_leaves_nothing() {
    let p = start();
    ok(&p, "avatars", "", json!({ "call": "create" }));
    ok(&p, "avatars", "old", put("old"));
    std::thread::scope(|scope| {
        let hang = json!({ "call": "fill", "chunks": 100, "end": "hang" });
        let origin = format!("{}/call", p.origin("blob"));
        for name in ["new", "old"] {
            let asked = wish("avatars", name, hang.clone());
            let origin = origin.clone();
            scope.spawn(move || {
                let ended = Call::new("POST", &origin).json(&asked).try_send();
                assert!(ended.is_err(), "nobody can have answered: {ended:?}");
            });
        }
        eventually("both are being written", || {
            let partial = fs::read_dir(folder(&p).join("_partial")).ok()?;
            let bytes: u64 = partial
                .map(|file| {
                    file.and_then(|file| file.metadata())
                        .map_or(0, |file| file.len())
                })
                .sum();
            (bytes > 2 * 5_000_000).then_some(())
        });
        ok(&p, "avatars", "acknowledged", put("durable"));
        p.kill();
    });
    p.restart();
    assert_eq!(names(&p, "avatars", ""), json!(["acknowledged", "old"]));
    assert_eq!(ok(&p, "avatars", "old", get())["content"], "old");
    assert_eq!(
        ok(&p, "avatars", "acknowledged", get())["content"],
        "durable"
    );
    let partial = fs::read_dir(folder(&p).join("_partial")).expect("the folder");
    assert_eq!(partial.count(), 0, "what was half written is gone");
}

#[test]
fn errors_when_the_folder_is_away() {
    let p = start();
    ok(&p, "avatars", "", json!({ "call": "create" }));
    ok(&p, "avatars", "x", put("1"));
    // Not even root can write into a folder that is gone.
    fs::rename(folder(&p).join("_partial"), p.data.join("aside")).expect("it is renamed");
    fs::remove_dir(p.data.join("aside")).expect("it is removed");
    for asked in [put("2"), json!({ "call": "fill", "chunks": 3 })] {
        let answer = call(&p, "avatars", "x", asked);
        let told = answer.to_string();
        assert!(told.contains("Unavailable"), "{told}");
        assert!(
            !told.contains("os error") && !told.contains('/'),
            "the cause is for the log: {told}"
        );
    }
    assert!(p.log().contains("the objects are away"), "{}", p.log());
    assert_eq!(
        ok(&p, "avatars", "x", get())["content"],
        "1",
        "reading goes on"
    );
    p.stop();
    p.restart();
    ok(&p, "avatars", "x", put("2"));
    let refused = start();
    refused.stop();
    fs::remove_dir_all(refused.data.join("blob")).expect("it is removed");
    fs::write(refused.data.join("blob"), "no folder").expect("a file in its place");
    let output = refused.try_restart().expect_err("it does not start");
    let told = format!("{output}{}", refused.log());
    assert!(
        told.contains("objects in `") && told.contains("blob/exprsn-blob"),
        "{told}"
    );
}
