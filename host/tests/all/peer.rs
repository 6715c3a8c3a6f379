//! Hosts outside, for tests of what leaves the platform: a web server, a plain peer, a peer with a certificate.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

/// Listens on `address` and hands each connection to `serve` in a thread of its own.
pub fn listen(
    address: impl ToSocketAddrs,
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind(address).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream
                .set_read_timeout(Some(crate::harness::PATIENCE))
                .expect("a timeout");
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// A request's head as it came; none when the connection ended.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Answers a request; `fields` are lines of their own, each with its end.
pub fn answer(stream: &mut impl Write, status: &str, body: &str, fields: &str) {
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    );
    let _ = stream.flush();
}

/// A web server on a port of its own: `/echo` answers with the request's head, `/redirect/URL` leads to the URL,
/// `/together` answers when two such requests have come.
pub struct WebServer {
    pub port: u16,
    requests: Arc<AtomicUsize>,
}

impl WebServer {
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    pub fn start_on(address: &str) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let together = Arc::new((Mutex::new(0), Condvar::new()));
        let count = requests.clone();
        let port = listen(address, move |mut stream| {
            while let Some(head) = read_head(&mut stream) {
                count.fetch_add(1, SeqCst);
                serve(&mut stream, &head, &together);
            }
        });
        Self { port, requests }
    }

    /// Requests that have come.
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

fn serve(stream: &mut TcpStream, head: &str, together: &(Mutex<usize>, Condvar)) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    if let Some(url) = path.strip_prefix("/redirect/") {
        return answer(stream, "302 Found", "", &format!("location: {url}\r\n"));
    }
    if path == "/together" {
        let (count, come) = together;
        let mut count = count.lock().expect("the lock");
        *count += 1;
        come.notify_all();
        let waited = come.wait_timeout_while(count, crate::harness::PATIENCE, |count| *count < 2);
        drop(waited.expect("the lock"));
    }
    answer(stream, "200 OK", head, "");
}

/// A certificate for some names, by an authority of its own whose file others can trust.
pub struct Certified {
    config: Arc<ServerConfig>,
    folder: tempfile::TempDir,
}

impl Certified {
    pub fn new(names: &[&str]) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: another authority of the same name would be taken for it, with a wrong signature.
        let name = uuid::Uuid::new_v4().to_string();
        authority.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &authority))
            .expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
        Self {
            config: Arc::new(config),
            folder,
        }
    }

    /// The file of the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The server's side of TLS on a connection.
    pub fn secure(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        secure(&self.config, stream)
    }

    /// A server that speaks TLS from the first byte.
    pub fn serve(
        &self,
        serve: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
    ) -> u16 {
        let config = self.config.clone();
        listen("127.0.0.1:0", move |stream| serve(secure(&config, stream)))
    }
}

fn secure(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(config.clone()).expect("a connection");
    StreamOwned::new(connection, stream)
}
