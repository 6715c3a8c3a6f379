//! The `sockets` capability: TCP with and without TLS, to peers that the grant names.

use crate::harness::{Platform, Setup, eventually};
use crate::peer::{self, Certified};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{LazyLock, OnceLock, mpsc},
};

const LIMITS: &str = "[capability.sockets]
receive_bytes_max = 8
send_bytes_max = 4194304
call_ms_max = 20000
[service.exprsn-sockets.limits]
egress_connections_max = 3
";

/// The peers' certificate, which the platform trusts.
static CERTIFIED: LazyLock<Certified> = LazyLock::new(|| Certified::new(&["localhost"]));

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let trust = format!("[platform]\negress_ca_file = {:?}\n", CERTIFIED.ca_file());
        Platform::start(&Setup {
            guests: &["sockets"],
            config: &format!("{trust}{LIMITS}"),
            ..Setup::default()
        })
    })
}

/// What became of the connection and its steps.
#[track_caller]
fn talk(what: &Value) -> Value {
    let call = platform().call("sockets", "POST", "/talk").json(what);
    call.send().expect_status(200).json()
}

fn talk_to(port: u16, steps: &Value) -> Value {
    talk(&json!({ "host": "127.0.0.1", "port": port, "steps": steps }))["steps"].clone()
}

#[track_caller]
fn expect_error(answer: &Value, texts: &[&str]) {
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {answer}"));
    for text in texts {
        assert!(error.contains(text), "no `{text}` in {error}");
    }
}

fn lines(stream: &TcpStream) -> impl Iterator<Item = String> {
    let reader = BufReader::new(stream.try_clone().expect("a handle"));
    reader.lines().map_while(Result::ok)
}

#[test]
fn bytes_go_both_ways_until_both_have_ended() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("text");
        stream
            .write_all(all.to_uppercase().as_bytes())
            .expect("sent");
    });
    let steps = json!([
        { "send": "to " }, { "send": "be echoed" }, "shutdown",
        { "receive": 3 }, "receiveAll", { "receive": 3 }, { "send": "more" }, "peer", "secure",
    ]);
    let answers = talk_to(port, &steps);
    assert_eq!(answers[3]["ok"], "TO ", "{answers}");
    assert_eq!(answers[4]["ok"], "BE ECHOED", "{answers}");
    assert_eq!(answers[5], json!({ "ok": null }), "{answers}");
    expect_error(&answers[6], &["Unavailable"]);
    let ends = json!({ "local": "127.0.0.1", "ip": "127.0.0.1", "port": port });
    assert_eq!(
        (&answers[7]["ok"], &answers[8]["ok"]),
        (&ends, &json!(false))
    );
}

#[test]
fn tls_from_the_first_byte_is_with_the_host_that_was_asked_for() {
    let port = CERTIFIED.serve(|mut stream| {
        let mut bytes = [0; 4];
        if stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes).expect("sent");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let secure = |host: &str| {
        let steps =
            json!([{ "send": "ping" }, { "receive": 8 }, { "receive": 8 }, "secure", "startTls"]);
        talk(&json!({ "host": host, "port": port, "tls": true, "steps": steps }))
    };
    let answers = secure("LocalHost.")["steps"].clone();
    assert_eq!(answers[1]["ok"], "ping", "{answers}");
    assert_eq!(
        (&answers[2], &answers[3]),
        (&json!({ "ok": null }), &json!({ "ok": true }))
    );
    expect_error(&answers[4], &["Invalid", "secured already"]);
    // The same peer under a name that its certificate is not for.
    expect_error(&secure("127.0.0.1"), &["Unavailable", "for another name"]);
}

#[test]
fn an_issuer_that_nobody_trusts_is_refused() {
    let stranger = Certified::new(&["localhost"]);
    let port = stranger.serve(|mut stream| drop(stream.read(&mut [0])));
    let answer = talk(&json!({ "host": "localhost", "port": port, "tls": true }));
    expect_error(&answer, &["Unavailable", "issuer is not trusted"]);
}

#[test]
fn a_peer_that_speaks_no_tls_is_unavailable() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        let _ = stream.write_all(b"220 no TLS here\r\n");
        let _ = stream.read(&mut [0; 512]);
    });
    let answer = talk(&json!({ "host": "localhost", "port": port, "tls": true }));
    expect_error(&answer, &["Unavailable", "TLS failed"]);
}

#[test]
fn tls_begins_in_the_middle_as_for_smtp() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        stream.write_all(b"220 ready\r\n").expect("sent");
        assert_eq!(lines(&stream).next().as_deref(), Some("STARTTLS"));
        stream.write_all(b"220 go ahead\r\n").expect("sent");
        let mut secured = CERTIFIED.secure(stream);
        let mut line = [0; 6];
        secured.read_exact(&mut line).expect("a line");
        assert_eq!(&line, b"EHLO\r\n");
        secured.write_all(b"250 secret\r\n").expect("sent");
    });
    let steps = json!([
        { "line": 100 }, { "send": "STARTTLS\r\n" }, { "line": 100 }, "startTls",
        "secure", { "send": "EHLO\r\n" }, { "line": 100 },
    ]);
    let answers =
        talk(&json!({ "host": "localhost", "port": port, "steps": steps }))["steps"].clone();
    assert_eq!(answers[0]["ok"], "220 ready", "{answers}");
    assert_eq!(answers[2]["ok"], "220 go ahead", "{answers}");
    assert_eq!(answers[4]["ok"], true, "{answers}");
    assert_eq!(answers[6]["ok"], "250 secret", "{answers}");
}

#[test]
fn what_came_in_the_clear_does_not_pass_for_secured() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        stream
            .write_all(b"220 go\r\n250 injected\r\n")
            .expect("sent");
        let _ = stream.read(&mut [0; 512]);
    });
    // Both lines have come before TLS: the second one would be read as if it had come within.
    let steps = json!([{ "receive": 1 }, { "line": 100 }, "startTls"]);
    let answers = talk_to(port, &steps);
    assert_eq!(answers[1]["ok"], "20 go", "{answers}");
    assert!(answers[2]["error"].is_string(), "{answers}");
}

#[test]
fn errors_when_not_granted() {
    let refused =
        |host: &str, port: u16, tls: bool| talk(&json!({ "host": host, "port": port, "tls": tls }));
    for (host, tls) in [
        ("127.0.0.2", false),
        ("::1", false),
        ("169.254.169.254", false),
        ("smtp.other.org", false),
        // Covered as tcp, and not as tls.
        ("mail.example", true),
    ] {
        expect_error(
            &refused(host, 25, tls),
            &["AccessDenied", "[grants.sockets] connect"],
        );
    }
    let remedy = refused("smtp.other.org", 465, true);
    expect_error(&remedy, &["write \\\"tls://smtp.other.org:465\\\""]);
    let component = Platform::prepare(&Setup {
        guests: &["sockets"],
        config: "[service.exprsn-sockets]\ngrants = { sockets = \"refused\" }",
        ..Setup::default()
    });
    let output = component.try_restart().expect_err("it does not start");
    let told = format!("{output}{}", component.log());
    assert!(
        told.contains("it imports exprsn:sockets/tcp@1.0.0, which was refused"),
        "{told}"
    );
}

#[test]
fn odd_hosts_are_invalid() {
    for odd in [
        "",
        "127.1",
        "0x7f.1",
        "2130706433",
        "fe80::1%lo",
        "user@127.0.0.1",
        "127.0.0.1:25",
        "a b",
    ] {
        expect_error(&talk(&json!({ "host": odd, "port": 25 })), &["Invalid"]);
    }
    expect_error(
        &talk(&json!({ "host": "127.0.0.1", "port": 0 })),
        &["Invalid", "0 is no port"],
    );
    let nobody = talk(&json!({ "host": "no-such-host.example", "port": 25 }));
    expect_error(&nobody, &["Unavailable", "not known"]);
}

#[test]
fn errors_when_limit_exceeded() {
    let (gone, ended) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let port = peer::listen("127.0.0.1:0", move |mut stream| {
        let _ = stream.read(&mut [0]);
        let _ = gone.lock().expect("the lock").send(());
    });
    // A platform of its own: others connect while this one is full.
    let platform = Platform::start(&Setup {
        guests: &["sockets"],
        config: LIMITS,
        ..Setup::default()
    });
    let hold = || {
        let wish = json!({ "port": port, "count": 5 });
        platform
            .call("sockets", "POST", "/hold")
            .json(&wish)
            .send()
            .expect_status(200)
            .json()
    };
    let told = hold();
    let outcomes: Vec<_> = told
        .as_array()
        .expect("outcomes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(&outcomes[..3], ["open"; 3], "{told}");
    for refused in &outcomes[3..] {
        assert!(
            refused.contains("LimitExceeded")
                && refused.contains("egress_connections_max allows, 3"),
            "{refused}"
        );
    }
    for _ in 0..3 {
        ended
            .recv_timeout(crate::harness::PATIENCE)
            .expect("the invocation's end closes its connections");
    }
    eventually("their places are free", || {
        (hold()[2] == "open").then_some(())
    });
}

#[test]
fn one_call_moves_a_bounded_number_of_bytes() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        stream.write_all(&[b'x'; 20]).expect("sent");
        let _ = stream.read(&mut [0]);
    });
    let steps =
        json!([{ "receive": 1000 }, { "receive": 0 }, { "sendZeros": 4194305 }, { "send": "" }]);
    let answers = talk_to(port, &steps);
    assert!(
        answers[0]["ok"]
            .as_str()
            .is_some_and(|text| text.len() <= 8),
        "{answers}"
    );
    expect_error(&answers[1], &["Invalid", "bytes-max is 0"]);
    expect_error(
        &answers[2],
        &["LimitExceeded", "send_bytes_max allows, 4194304"],
    );
    assert_eq!(answers[3], json!({ "ok": null }));
}

#[test]
fn a_peer_that_is_not_there_or_leaves_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    expect_error(
        &talk(&json!({ "host": "127.0.0.1", "port": port })),
        &["Unavailable", "refused"],
    );
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        stream.write_all(b"bye").expect("sent");
    });
    let answers = talk_to(
        port,
        &json!([{ "line": 10 }, { "line": 10 }, { "receive": 8 }]),
    );
    expect_error(&answers[0], &["Unavailable", "ended before"]);
    assert_eq!(answers[2]["ok"], "bye", "what has come stays: {answers}");
}

#[test]
fn a_slow_peer_runs_into_the_timeout_and_the_connection_lives_on() {
    let port = peer::listen("127.0.0.1:0", |mut stream| {
        // Answers only when asked, which the guest does after its wait has timed out.
        let mut bytes = [0; 2];
        stream.read_exact(&mut bytes).expect("asked");
        stream.write_all(b"late").expect("sent");
        let _ = stream.read(&mut [0]);
    });
    let steps = json!([{ "timeoutMs": 100 }, { "receive": 8 }, { "timeoutMs": 20000 }, { "send": "go" }, { "receive": 8 }]);
    let answers = talk_to(port, &steps);
    expect_error(&answers[1], &["Timeout"]);
    assert_eq!(answers[4]["ok"], "late", "{answers}");
    // A peer that does not read: sending fills what is between, waits, and leaves the connection closed.
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let port = peer::listen("127.0.0.1:0", move |stream| {
        let _ = released
            .lock()
            .expect("the lock")
            .recv_timeout(crate::harness::PATIENCE);
        drop(stream);
    });
    let mut steps = vec![json!({ "timeoutMs": 300 })];
    steps.extend(vec![json!({ "sendZeros": 4194304 }); 4]);
    let answers = talk_to(port, &json!(steps));
    drop(release);
    expect_error(&answers[4], &["Unavailable", "closed"]);
    let late = answers.as_array().expect("answers").iter();
    let late = late.filter(|answer| {
        answer["error"]
            .as_str()
            .is_some_and(|error| error.contains("Timeout"))
    });
    assert_eq!(late.count(), 1, "{answers}");
}

/// Runs `exprsn component <verb> sockets --grant <grant>`.
#[track_caller]
fn component(platform: &Platform, verb: &str, grant: &str) {
    let arguments = ["component", verb, "sockets", "--grant", grant];
    let output = platform.command(&arguments).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
}

#[test]
fn a_revoked_grant_ends_the_use_of_an_open_connection() {
    let platform = Platform::start(&Setup {
        services: &["ca"],
        guests: &["sockets"],
        ..Setup::default()
    });
    for grant in ["sockets", "egress:tcp://127.0.0.1:*"] {
        let (greeted, greeting) = mpsc::channel();
        let (go, going) = mpsc::channel::<()>();
        let channels = std::sync::Mutex::new((greeted, going));
        let port = peer::listen("127.0.0.1:0", move |mut stream| {
            let channels = channels.lock().expect("the lock");
            let _ = stream.read_exact(&mut [0; 5]);
            let _ = channels.0.send(());
            let _ = channels.1.recv_timeout(crate::harness::PATIENCE);
            let _ = stream.write_all(b"x");
            let _ = stream.read(&mut [0]);
        });
        let talk = || {
            let steps = json!([{ "send": "hello" }, { "receive": 1 }, { "send": "more" }, { "receive": 1 }]);
            let wish = json!({ "host": "127.0.0.1", "port": port, "steps": steps });
            let call = platform.call("sockets", "POST", "/talk").json(&wish);
            call.send().expect_status(200).json()
        };
        std::thread::scope(|scope| {
            let talking = scope.spawn(talk);
            greeting
                .recv_timeout(crate::harness::PATIENCE)
                .expect("it is connected");
            component(&platform, "revoke", grant);
            go.send(()).expect("the peer waits");
            let answers = talking.join().expect("answers")["steps"].clone();
            assert_eq!(answers[0], json!({ "ok": null }), "{answers}");
            for denied in [&answers[2], &answers[3]] {
                expect_error(denied, &["AccessDenied", "was revoked"]);
            }
        });
        expect_error(&talk(), &["AccessDenied", "was revoked"]);
        component(&platform, "restore", grant);
        go.send(()).expect("the peer waits");
        assert_eq!(talk()["steps"][1]["ok"], "x", "{grant} is back");
    }
}

#[test]
fn the_invocations_deadline_ends_a_wait() {
    let (gone, ended) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let port = peer::listen("127.0.0.1:0", move |mut stream| {
        let _ = stream.read(&mut [0]);
        let _ = gone.lock().expect("the lock").send(());
    });
    let platform = Platform::start(&Setup {
        guests: &["sockets"],
        config: "[service.exprsn-sockets.limits]\nwall_ms_max = 500\n",
        ..Setup::default()
    });
    let wish = json!({ "host": "127.0.0.1", "port": port, "steps": [{ "receive": 8 }] });
    let answer = platform.call("sockets", "POST", "/talk").json(&wish).send();
    // The guest is told at the same moment at which its time is over; either way it ends, and the connection with it.
    if answer.status == 200 {
        expect_error(&answer.json()["steps"][0], &["Timeout"]);
    } else {
        answer.expect_problem(504, "did not answer in time");
    }
    ended
        .recv_timeout(crate::harness::PATIENCE)
        .expect("the connection is closed");
}

#[test]
fn the_checked_in_limits_are_the_defaults() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../platform.toml"));
    let text = text.expect("platform.toml");
    let defaults = exprsn::capability::sockets::Config::default();
    for (key, value) in &toml::Table::try_from(defaults).expect("serialises") {
        let line = format!("# {key} = {value}");
        assert!(
            text.contains(&line),
            "platform.toml does not document `{line}`"
        );
    }
}
