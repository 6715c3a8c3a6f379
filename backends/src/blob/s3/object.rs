//! What an object's headers say of it.

use super::{
    client::{Answer, Client, Request},
    key,
};
use crate::blob::{
    backend::{CONTENT_TYPE_DEFAULT, Info},
    name::ObjectName,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode, header};

const SHA256: &str = "x-amz-meta-exprsn-sha256";
const NAME: &str = "x-amz-meta-exprsn-name";

/// What describes an object that is written.
pub(super) fn describing(
    name: &ObjectName,
    content_type: &str,
    sha256: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut headers = vec![("content-type", content_type.to_owned())];
    if let Some(sha256) = sha256 {
        headers.push((SHA256, sha256.to_owned()));
    }
    if key::is_long(name) {
        headers.push((NAME, URL_SAFE_NO_PAD.encode(name.as_str())));
    }
    headers
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What an answer says of the object `name`; none where it lacks what every server says.
pub(super) fn info(name: ObjectName, headers: &HeaderMap) -> Option<Info> {
    let whole = text(headers, "content-range").and_then(|range| range.rsplit('/').next());
    let size = whole.or_else(|| text(headers, "content-length"))?;
    let modified = text(headers, "last-modified")?;
    let content_type = text(headers, header::CONTENT_TYPE.as_str());
    Some(Info {
        name,
        size: size.parse().ok()?,
        content_type: content_type.unwrap_or(CONTENT_TYPE_DEFAULT).to_owned(),
        etag: unquoted(text(headers, "etag")?).to_owned(),
        sha256: text(headers, SHA256).map(str::to_owned),
        modified_ms: chrono::DateTime::parse_from_rfc2822(modified)
            .ok()?
            .timestamp_millis(),
    })
}

fn unquoted(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// The name of an object whose key is `key`, as its metadata says; none where it is another's.
fn long_name(end: &str, headers: &HeaderMap) -> Option<ObjectName> {
    let spelt = URL_SAFE_NO_PAD.decode(text(headers, NAME)?).ok()?;
    let name = ObjectName::parse(std::str::from_utf8(&spelt).ok()?, usize::MAX).ok()?;
    (key::of_name(&name) == end).then_some(name)
}

fn head(key: String) -> Request {
    Request {
        method: Method::HEAD,
        key,
        repeatable: true,
        ..Request::default()
    }
}

fn unsaid() -> super::client::Fault {
    super::client::Fault::Lost(std::io::Error::other("what the server says is no object"))
}

impl Client {
    /// What is at a key; none where nothing is.
    pub async fn stat(&self, key: String, name: &ObjectName) -> Answer<Option<Info>> {
        match self.ask(&head(key)).await {
            Ok((headers, _)) => info(name.clone(), &headers).ok_or_else(unsaid).map(Some),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// What is at a key that ends in a digest; none where nothing of ours is.
    pub async fn stat_long(&self, container: &str, end: &str) -> Answer<Option<Info>> {
        match self.ask(&head(format!("{container}{end}"))).await {
            Ok((headers, _)) => Ok(long_name(end, &headers).and_then(|name| info(name, &headers))),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Whether anything is at a key.
    pub async fn is_there(&self, key: String) -> Answer<bool> {
        match self.ask(&head(key)).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}
