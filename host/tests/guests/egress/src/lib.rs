//! Egress: asks hosts outside as it is told, tricks included, and says plainly what came back.

use exprsn_sdk::bindings::wasi::http::client;
use exprsn_sdk::bindings::wasi::http::types::{self as wire, Method as Verb, Scheme};
use exprsn_sdk::bindings::wit_future;
use exprsn_sdk::prelude::*;
use serde_json::Value as Any;

/// A request, in the words of `wasi:http`: nothing is put right before the host sees it.
#[derive(Clone, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
struct Fetch {
    #[serde(default)]
    secure: bool,
    #[serde(default = "get")]
    method: String,
    authority: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
struct Fetches {
    all: Vec<Fetch>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn routes() -> Router {
    Router::new("Exprsn Egress", env!("CARGO_PKG_VERSION"))
        .post("/fetch", one)
        .post("/fetches", several)
}

async fn one(Json(fetch): Json<Fetch>) -> AnyJson {
    AnyJson(told(fetch).await)
}

/// Asks all at once.
async fn several(Json(fetches): Json<Fetches>) -> AnyJson {
    AnyJson(
        exprsn_sdk::join_all(fetches.all.into_iter().map(told))
            .await
            .into(),
    )
}

async fn told(fetch: Fetch) -> Any {
    match ask(fetch).await {
        Ok(answer) => answer,
        Err(error) => json!({ "error": error }),
    }
}

async fn ask(fetch: Fetch) -> Result<Any, String> {
    let headers: Vec<_> = fetch
        .headers
        .into_iter()
        .map(|(name, value)| (name, value.into_bytes()))
        .collect();
    let fields = wire::Fields::from_list(&headers).map_err(|error| format!("fields: {error:?}"))?;
    let (_, end) = wit_future::new(|| Ok(None));
    let (request, _sent) = wire::Request::new(fields, None, end, None);
    let method = match fetch.method.as_str() {
        "GET" => Verb::Get,
        "CONNECT" => Verb::Connect,
        "OPTIONS" => Verb::Options,
        other => Verb::Other(other.to_owned()),
    };
    let scheme = if fetch.secure {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let malformed = |what: &'static str| move |()| format!("malformed {what}");
    request.set_method(&method).map_err(malformed("method"))?;
    request
        .set_scheme(Some(&scheme))
        .map_err(malformed("scheme"))?;
    request
        .set_authority(Some(&fetch.authority))
        .map_err(malformed("authority"))?;
    request
        .set_path_with_query(Some(&fetch.path))
        .map_err(malformed("path"))?;
    let response = client::send(request)
        .await
        .map_err(|code| format!("{code:?}"))?;
    let status = response.get_status_code();
    let headers: serde_json::Map<String, Any> = response
        .get_headers()
        .copy_all()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned().into()))
        .collect();
    let (_processed, processed) = wit_future::new(|| Ok(()));
    let (stream, _end) = wire::Response::consume_body(response, processed);
    let body = stream.collect().await;
    Ok(json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(&body) }))
}

exprsn_sdk::export!(http = routes);
