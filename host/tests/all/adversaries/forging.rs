//! Forgeries: what a guest or a client says of itself, of where a message ends, and of where it goes, is not believed.

use super::{hostile, platform, while_innocents_are_served};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
};

/// Sends bytes as they are and answers all that comes back.
fn raw(service: &str, bytes: &[u8]) -> String {
    let origin = platform().origin(service);
    let mut stream = TcpStream::connect(origin.trim_start_matches("http://")).expect("connected");
    stream
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request whose rest is another one, for whoever reads its length wrongly.
fn smuggling(headers: &str) -> String {
    format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    )
}

#[test]
fn requests_with_two_lengths_are_refused_and_nothing_is_read_behind_them() {
    while_innocents_are_served(|_| {
        for headers in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\nContent-Length: 6\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
        ] {
            let answer = raw("hello", smuggling(headers).as_bytes());
            assert!(answer.starts_with("HTTP/1.1 400"), "{headers:?}: {answer}");
            assert!(!answer.contains("smuggled"), "{headers:?}: {answer}");
        }
        // The chunks count, and what comes behind them is not read: the connection ends (RFC 9112, 6.1).
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            let answer = raw("hello", smuggling(headers).as_bytes());
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1,
                "{headers:?}: {answer}"
            );
            assert!(
                answer.contains("connection: close"),
                "{headers:?}: {answer}"
            );
        }
    });
}

#[test]
fn authorities_that_are_not_the_services_own_change_nothing() {
    while_innocents_are_served(|_| {
        for (target, host, status) in [
            ("http://exprsn-ca/hello", "a", "400"),
            ("http://a@b/hello", "b", "400"),
            ("https://a/hello", "a", "200"),
            (
                "http://exprsn-broker:3902/hello",
                "exprsn-broker:3902",
                "200",
            ),
        ] {
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = raw("hello", request.as_bytes());
            // Whatever it names: it came to this port, and this service answers, or nobody.
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{target}: {answer}"
            );
            assert_eq!(answer.contains("\"hello\""), status == "200", "{answer}");
        }
    });
}

#[test]
fn a_guest_makes_no_header_that_splits_or_reframes_a_message() {
    while_innocents_are_served(|_| {
        let told = hostile("GET", "/fields", &Value::Null);
        for said in told["said"].as_array().expect("a list") {
            let said = said.as_str().expect("a text");
            assert!(
                said.ends_with(": false"),
                "the host let a guest make {said}"
            );
        }
        assert_eq!(told["twoLengths"], false);
    });
}

#[test]
fn a_guest_whose_body_differs_from_its_length_cannot_begin_a_further_answer() {
    while_innocents_are_served(|_| {
        let answer = raw(
            "hostile",
            b"GET /short HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(!body.contains("HTTP/"), "{answer}");
    });
}

#[test]
fn headers_beyond_their_limit_are_no_answer() {
    while_innocents_are_served(|platform| {
        platform
            .call("hostile", "GET", "/many-headers/50")
            .send()
            .expect_status(200);
        let answer = platform.call("hostile", "GET", "/many-headers/1000").send();
        assert!(answer.status >= 500, "{}", answer.status);
    });
}

#[test]
fn claims_of_a_guest_do_not_make_it_somebody_else() {
    while_innocents_are_served(|_| {
        let who = hostile("GET", "/forge", &Value::Null);
        assert_eq!(who["caller"], "service", "{who}");
        assert_eq!(who["subject"], "exprsn-hostile", "{who}");
        assert!(who["user"].is_null(), "{who}");
        assert_eq!(who["path"], json!(["exprsn-hostile", "exprsn-hello"]));
        assert_ne!(who["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736", "{who}");
    });
}

#[test]
fn claims_of_a_client_do_not_make_it_somebody_else() {
    while_innocents_are_served(|platform| {
        let call = platform
            .call("hello", "GET", "/whoami")
            .header("x-exprsn-caller", "exprsn-ca")
            .header("x-exprsn-user", "operator:local")
            .header("x-forwarded-user", "admin")
            .header(
                "x-forwarded-client-cert",
                "URI=spiffe://exprsn.local/service/exprsn-ca",
            )
            .header("forwarded", "for=127.0.0.1;by=exprsn-nexus");
        let who = call.send().expect_status(200).json();
        assert_eq!(who["caller"], "anonymous", "{who}");
        assert!(who["user"].is_null(), "{who}");
        let token = platform
            .call("hello", "GET", "/read")
            .token("e30.e30.e30")
            .send();
        token.expect_status(401);
    });
}

#[test]
fn addresses_inside_are_not_reached_by_a_pattern() {
    while_innocents_are_served(|_| {
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://[fd00:ec2::254]/latest/meta-data/",
            "http://127.0.0.1:1/",
            "http://10.0.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::ffff:169.254.169.254]/",
            "http://localhost:1/",
        ] {
            let said = hostile("POST", "/egress", &json!(url)).to_string();
            assert!(!said.contains("reached"), "{url}: {said}");
            let refused = ["Denied", "Unavailable", "Invalid"]
                .iter()
                .any(|text| said.contains(text));
            assert!(refused, "{url}: {said}");
        }
        // What is served here is reached by a call grant alone.
        let said = hostile("POST", "/egress", &json!("http://exprsn-broker/health")).to_string();
        assert!(said.contains("Denied"), "{said}");
    });
}

#[test]
fn connections_inside_are_not_reached_by_a_pattern() {
    while_innocents_are_served(|_| {
        for host in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "127.0.0.1",
            "2852039166",
            "0xa9fea9fe",
            "localhost",
            "10.0.0.1",
        ] {
            let said = hostile("POST", "/connect", &json!(host)).to_string();
            let refused = ["Denied", "Unavailable", "Invalid"]
                .iter()
                .any(|text| said.contains(text));
            assert!(refused, "{host}: {said}");
        }
    });
}

/// Paths below `folder` whose own name contains `text`.
fn named(folder: &Path, text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let inner = if path.is_dir() {
                named(&path, text)
            } else {
                Vec::new()
            };
            let own = entry.file_name().to_string_lossy().contains(text);
            own.then_some(path).into_iter().chain(inner)
        })
        .collect()
}

#[test]
fn names_of_objects_lead_nowhere_else() {
    while_innocents_are_served(|platform| {
        let names = [
            "../forged",
            "../../forged",
            "../../../../../../../tmp/forged",
            "/tmp/forged",
            "..\\..\\forged",
            "%2e%2e%2fforged",
            "a/../../forged",
            "./forged",
            "..",
            ".",
            "forged\u{0}.txt",
            "con",
            "..;/forged",
        ];
        let told = hostile("POST", "/objects", &json!(names));
        let said = told["said"].as_array().expect("a list");
        let taken: Vec<&str> = names
            .iter()
            .zip(said)
            .filter(|(_, said)| {
                let refused = said.as_str().is_some_and(|said| said.contains("Invalid"));
                assert!(refused || **said == json!(true), "{said}");
                !refused
            })
            .map(|(name, _)| *name)
            .collect();
        assert!(taken.contains(&"../../forged"), "{told}");
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        assert_eq!(told["listed"], json!(sorted), "each is its own object");
        let root = platform.data.parent().expect("the platform's folder");
        let objects = platform.data.join("blob");
        let found = named(root, "forged");
        assert!(!found.is_empty(), "they are files of the host's");
        assert!(
            found.iter().all(|path| path.starts_with(&objects)),
            "{found:?}"
        );
        assert!(!Path::new("/tmp/forged").exists());
    });
}
