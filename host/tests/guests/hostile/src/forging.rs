//! Pretends: headers that mean two things, callers that it is not, addresses that are not for it.

use exprsn_sdk::bindings::wasi::http::types::Fields;
use exprsn_sdk::prelude::*;
use serde_json::Value as Any;

pub fn routes(router: Router) -> Router {
    router
        .get("/fields", fields)
        .get("/short", short)
        .get("/many-headers/{count}", many_headers)
        .get("/forge", forge)
        .post("/egress", egress)
        .post("/connect", connect)
        .post("/objects", objects)
}

/// Header fields that the host must not let a guest make, and what it said to each.
async fn fields() -> AnyJson {
    let forged: &[(&str, &[u8])] = &[
        ("transfer-encoding", b"chunked"),
        ("connection", b"keep-alive"),
        ("upgrade", b"websocket"),
        ("host", b"exprsn-ca"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("x-split", b"a\r\nx-injected: b"),
        ("x-split", b"a\nb"),
        ("x-nul", b"a\0b"),
        ("x name", b"a"),
        ("x-name\r\nx-injected", b"a"),
        ("", b"a"),
    ];
    let said: Vec<String> = forged
        .iter()
        .map(|(name, value)| {
            let made = Fields::from_list(&[((*name).to_owned(), value.to_vec())]);
            format!("{name:?}: {}", made.is_ok())
        })
        .collect();
    let twice = Fields::from_list(&[
        ("content-length".to_owned(), b"1".to_vec()),
        ("content-length".to_owned(), b"2".to_vec()),
    ]);
    AnyJson(json!({ "said": said, "twoLengths": twice.is_ok() }))
}

/// Says that five bytes come and sends ten: the rest would be the beginning of another answer.
async fn short() -> Response {
    let chunks = exprsn_sdk::stream::iter([Ok(b"01234".to_vec()), Ok(b"HTTP/".to_vec())]);
    Response::ok()
        .header("content-type", "text/plain")
        .header("content-length", "5")
        .body(Body::from_stream(chunks))
}

async fn many_headers(Path(count): Path<usize>) -> Response {
    let mut response = Response::ok();
    for index in 0..count {
        response = response.header(&format!("x-{index}"), "x".repeat(100));
    }
    response
}

/// Calls another service and claims to be somebody else.
async fn forge() -> Result<AnyJson> {
    let answer = http::get("http://exprsn-hello/whoami")
        .header("authorization", "Bearer e30.e30.e30")
        .header("x-exprsn-caller", "exprsn-ca")
        .header("x-exprsn-user", "operator:local")
        .header("x-forwarded-for", "127.0.0.1")
        .header("x-forwarded-user", "admin")
        .header("forwarded", "for=127.0.0.1;by=exprsn-nexus")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .send()
        .await?;
    Ok(AnyJson(answer.json().await?))
}

/// Tries to reach a URL and says what came of it.
async fn egress(AnyJson(url): AnyJson) -> AnyJson {
    let url = url.as_str().unwrap_or_default().to_owned();
    let said: Any = match http::get(url).timeout_ms(2_000).send().await {
        Ok(answer) => json!(format!("reached: {}", answer.status())),
        Err(error) => json!(format!("{error:?}")),
    };
    AnyJson(said)
}

/// Tries to open a connection to a host and says what came of it.
async fn connect(AnyJson(host): AnyJson) -> AnyJson {
    let host = host.as_str().unwrap_or_default().to_owned();
    AnyJson(match sockets::Connection::connect(&host, 80).await {
        Ok(_) => json!("reached"),
        Err(error) => json!(format!("{error:?}")),
    })
}

/// Writes an object of each name, and says what of them is listed then and what comes back.
async fn objects(AnyJson(names): AnyJson) -> Result<AnyJson> {
    blob::create_container("loot").await?;
    let names: Vec<String> = names
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let mut said = Vec::new();
    for name in &names {
        let written = blob::put("loot", name, blob::Write::default(), name.as_bytes());
        if let Err(error) = written.await {
            said.push(json!(format!("{error:?}")));
            continue;
        }
        let (_, content) = blob::get("loot", name, None).await?;
        said.push(json!(content == name.as_bytes()));
    }
    let listed = blob::list("loot", "", None, None).await?;
    let listed: Vec<String> = listed
        .objects
        .into_iter()
        .map(|object| object.name)
        .collect();
    Ok(AnyJson(json!({ "said": said, "listed": listed })))
}
