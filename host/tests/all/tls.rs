//! TLS of the listeners: certificates of the platform's own authority and of files, replaced while they serve.

use crate::harness::{PATIENCE, Platform, Setup, eventually};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::Arc,
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for `name` by an authority of its own, in PEM: root, certificate, key.
fn issued(name: &str) -> [String; 3] {
    let root_key = rcgen::KeyPair::generate().expect("a key");
    let mut root = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).expect("signed");
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    [certificate.pem(), leaf.pem(), key.serialize_pem()]
}

fn tcp(platform: &Platform) -> TcpStream {
    let origin = platform.origin("hello");
    let stream = TcpStream::connect(origin.trim_start_matches("http://")).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A handshake that trusts `root` alone and offers the protocols `alpn`.
fn open(platform: &Platform, root: &str, name: &str, alpn: &[&str]) -> Result<Stream, String> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(client, tcp(platform));
    while stream.conn.is_handshaking() {
        let done = stream.conn.complete_io(&mut stream.sock);
        done.map_err(|error| error.to_string())?;
    }
    Ok(stream)
}

/// The status line of the answer to a request on an open connection.
fn ask(stream: &mut Stream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

fn shown(stream: &Stream) -> Vec<u8> {
    let certificates = stream.conn.peer_certificates().expect("certificates");
    certificates[0].to_vec()
}

fn hang_up(platform: &Platform) {
    let pid = platform.pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.expect("kill is there").success());
}

#[test]
fn the_platforms_own_certificate_serves_both_versions_of_http_and_the_command_line() {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup"],
        guests: &["hello"],
        config: "[tls]\nsource = \"platform\"\n",
        ..Setup::default()
    });
    let root = fs::read_to_string(platform.data.join("ca/root.pem")).expect("a root");
    let address = platform.address.to_string();
    let mut one = open(&platform, &root, &address, &["http/1.1"]).expect("a handshake");
    assert_eq!(ask(&mut one, "/hello"), "HTTP/1.1 200 OK");
    assert_eq!(
        ask(&mut one, "/hello"),
        "HTTP/1.1 200 OK",
        "it is kept open"
    );
    let two = open(&platform, &root, "localhost", &["h2", "http/1.1"]).expect("a handshake");
    assert_eq!(two.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert!(open(&platform, &root, "elsewhere.example", &[]).is_err());

    let health = platform.command(&["health", "--json"]).output();
    let health = health.expect("exprsn runs");
    assert!(health.status.success(), "{health:?}");
    let health: Value = serde_json::from_slice(&health.stdout).expect("JSON");
    assert!(health.to_string().contains("exprsn-setup"), "{health}");
    let issue = [
        "token",
        "issue",
        "--subject",
        "user:ada",
        "--permissions",
        "read",
    ];
    let issued = platform.command(&issue).output().expect("exprsn runs");
    assert!(issued.status.success(), "{issued:?}");

    // A signal has another one made; who is connected stays connected.
    let before = shown(&one);
    hang_up(&platform);
    eventually("another certificate is shown", || {
        let now = open(&platform, &root, "localhost", &[]).expect("a handshake");
        (shown(&now) != before).then_some(())
    });
    assert_eq!(ask(&mut one, "/hello"), "HTTP/1.1 200 OK");
}

#[test]
fn certificates_from_files_are_replaced_while_they_serve() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let write = |certificate: &str, key: &str| {
        fs::write(path("key.pem"), key).expect("written");
        fs::write(path("certificate.pem"), certificate).expect("written");
    };
    let [first_root, first, first_key] = issued("exprsn.test");
    let [second_root, second, second_key] = issued("exprsn.test");
    write(&first, &first_key);
    let config = format!(
        "[tls]\nsource = \"files\"\ncertificate_file = {:?}\nkey_file = {:?}\nnames = [\"exprsn.test\"]\ncheck_ms = 50\n",
        path("certificate.pem"),
        path("key.pem"),
    );
    let platform = Platform::start(&Setup {
        guests: &["hello"],
        config: &config,
        ..Setup::default()
    });
    let open = |root: &str| open(&platform, root, "exprsn.test", &["http/1.1"]);
    let mut kept = open(&first_root).expect("a handshake");
    assert_eq!(ask(&mut kept, "/hello"), "HTTP/1.1 200 OK");
    assert!(open(&second_root).is_err());

    // A key of another certificate: what is in use stays so, and the log says why.
    fs::write(path("key.pem"), &second_key).expect("written");
    eventually("the log tells", || {
        let log = platform.log();
        log.contains("the key is not that of the certificate")
            .then_some(())
    });
    open(&first_root).expect("the one before goes on serving");

    write(&second, &second_key);
    eventually("the other certificate is shown", || open(&second_root).ok());
    assert!(open(&first_root).is_err());
    assert_eq!(
        ask(&mut kept, "/hello"),
        "HTTP/1.1 200 OK",
        "who is connected stays connected"
    );
}

#[test]
fn who_does_not_speak_tls_is_let_go() {
    let platform = Platform::start(&Setup {
        guests: &["hello"],
        config: "[tls]\nsource = \"platform\"\nhandshake_ms_max = 200\n",
        ..Setup::default()
    });
    let mut plain = tcp(&platform);
    plain
        .write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("HTTP/1.1"), "{text}");
    let mut silent = tcp(&platform);
    assert_eq!(
        silent.read(&mut [0; 1]).expect("the end, not the timeout"),
        0
    );
}

#[test]
fn what_cannot_be_used_is_named_at_start() {
    let refused = |config: &str| {
        let platform = Platform::prepare(&Setup {
            guests: &["hello"],
            config,
            ..Setup::default()
        });
        platform.try_restart().expect_err("it does not start") + &platform.log()
    };
    let told = refused("[tls]\nsource = \"files\"\n");
    assert!(
        told.contains("[tls]") && told.contains("certificate_file"),
        "{told}"
    );
    let absent = Path::new("/nonexistent/certificate.pem");
    let told = refused(&format!(
        "[tls]\nsource = \"files\"\ncertificate_file = {absent:?}\nkey_file = {absent:?}\n"
    ));
    assert!(
        told.contains("cannot read `/nonexistent/certificate.pem`"),
        "{told}"
    );
    let told = refused("[tls]\nsource = \"paltform\"\n");
    assert!(
        told.contains("paltform") && told.contains("platform"),
        "{told}"
    );
}
