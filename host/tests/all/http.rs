//! The `http` capability and the listener before it: calls between services, hostile requests, big and broken bodies.

use crate::harness::{Platform, Setup};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

fn platform() -> &'static Platform {
    static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["hello", "relay"],
            ..Setup::default()
        })
    })
}

/// Sends bytes as they are and answers the first line of what comes back, and all of it.
fn raw(bytes: &[u8]) -> (String, String) {
    let origin = platform().origin("hello");
    let mut stream = TcpStream::connect(origin.strip_prefix("http://").expect("an origin"))
        .expect("a connection");
    stream
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.lines().next().unwrap_or_default().to_owned(), text)
}

#[test]
fn a_granted_call_reaches_the_other_service_and_names_the_caller() {
    let who = platform()
        .call("hello", "GET", "/pass/exprsn-relay/who")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(who["caller"], "exprsn-hello");
    assert_eq!(
        who["path"],
        serde_json::json!(["exprsn-hello", "exprsn-relay"])
    );
    assert!(who["user"].is_null(), "{who}");
}

#[test]
fn a_call_needs_the_permission_of_the_route_that_it_calls() {
    // The call grant covers the path, but gives `read` only, which is what GET stands for.
    platform()
        .call("hello", "GET", "/pass/exprsn-relay/admin")
        .send()
        .expect_problem(403, "does not include `admin`");
}

#[test]
fn a_route_that_is_not_declared_is_a_404_and_another_method_a_405() {
    platform()
        .call("hello", "GET", "/undeclared")
        .send()
        .expect_problem(404, "/undeclared");
    let answer = platform()
        .call("hello", "PUT", "/hello")
        .send()
        .expect_problem(405, "GET");
    assert_eq!(answer.header("allow"), "GET");
    let answer = platform()
        .call("hello", "OPTIONS", "/hello")
        .send()
        .expect_status(204);
    assert_eq!(answer.header("allow"), "GET");
    let answer = platform()
        .call("hello", "HEAD", "/hello")
        .send()
        .expect_status(200);
    assert!(answer.body.is_empty());
}

#[test]
fn a_body_is_echoed_whole_up_to_the_limit_and_refused_beyond_it() {
    let body: Vec<u8> = (0..1 << 20)
        .map(|index| u8::try_from(index % 251).expect("small"))
        .collect();
    let call = |body: Vec<u8>| {
        platform()
            .call("hello", "POST", "/echo")
            .body("application/octet-stream", body)
            .send()
    };
    assert_eq!(call(body.clone()).expect_status(200).body, body);
    let too_large = [body.as_slice(), b"x"].concat();
    call(too_large).expect_problem(413, "1048576");
}

#[test]
fn a_chunked_body_over_the_limit_is_refused_though_its_length_was_not_told() {
    let mut request = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..24 {
        request.extend(b"10000\r\n");
        request.extend(vec![b'x'; 0x10000]);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let (line, text) = raw(&request);
    assert!(line.contains("413"), "{text}");
}

#[test]
fn requests_that_could_mean_two_things_are_refused() {
    for request in [
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET http://b/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabc",
        "GET /hello HTTP/1.1\r\nHost: a\r\nBad Header: x\r\nConnection: close\r\n\r\n",
    ] {
        let (line, text) = raw(request.as_bytes());
        assert!(line.contains(" 400 "), "{request:?}: {text}");
    }
}

#[test]
fn a_caller_cannot_be_forged_by_headers() {
    let answer = platform()
        .call("hello", "GET", "/whoami")
        .header("x-exprsn-caller", "exprsn-ca")
        .header("exprsn-principal", "operator:local")
        .header("x-forwarded-user", "admin")
        .send();
    assert_eq!(answer.expect_status(200).json()["caller"], "anonymous");
}

#[test]
fn the_trace_of_a_request_is_kept_and_answered() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer = platform()
        .call("hello", "GET", "/whoami")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .send()
        .expect_status(200);
    assert_eq!(answer.header("x-request-id"), trace);
    assert_eq!(answer.json()["traceId"], trace);
}

#[test]
fn errors_when_limit_exceeded() {
    // One invocation at a time per core, nobody waits: of many at once some are served and the others told to come again.
    let platform = Platform::start(&Setup {
        guests: &["hostile"],
        config: "[service.exprsn-hostile.limits]\ninvocations_max = 1\nwaiting_max = 1\nwaiting_ms_max = 100\n",
        ..Setup::default()
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| platform.call("hostile", "GET", "/loop").send()))
            .collect();
        let answers: Vec<_> = calls
            .into_iter()
            .map(|call| call.join().expect("an answer"))
            .collect();
        for answer in answers.iter().filter(|answer| answer.status == 503) {
            assert_eq!(answer.header("retry-after"), "1", "{}", answer.text());
        }
        answers.iter().map(|answer| answer.status).collect()
    });
    assert!(
        statuses.contains(&503) && statuses.contains(&500),
        "{statuses:?}"
    );
    platform
        .call("hostile", "GET", "/calm")
        .send()
        .expect_status(200);
}
