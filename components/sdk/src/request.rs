//! A request as a handler sees it: nothing of it is copied out of the host before somebody asks.

use std::cell::OnceCell;
use std::rc::Rc;

use http::Method;

use crate::Body;
use crate::bindings::exprsn::ca::caller::{self, Invocation};
use crate::bindings::wasi::http::types::{self as wire};
use crate::body::{Content, End, HostBody};
use crate::headers::Headers;

/// An HTTP request.
///
/// Headers and body stay with the host until they are asked for. As an extractor it is the raw request, body included.
#[derive(Default)]
pub struct Request {
    method: Method,
    /// Path and query as sent.
    target: String,
    params: Vec<(String, String)>,
    headers: OnceCell<Headers>,
    wire: Option<wire::Request>,
    body: Body,
    invocation: OnceCell<Rc<Invocation>>,
}

impl Request {
    /// A request made by hand, for tests and for [`http::forward`](crate::http::forward).
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Headers::new().into(),
            ..Self::default()
        }
    }

    /// With a header field.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let mut headers = self.headers().clone();
        headers.append(name, value);
        self.headers = headers.into();
        self
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// With who is calling, which the host says otherwise.
    pub fn invocation(mut self, invocation: Invocation) -> Self {
        self.invocation = Rc::new(invocation).into();
        self
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as sent, percent-encoding included.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query as sent, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Path and query as sent.
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    /// The header fields, fetched from the host at the first call.
    pub fn headers(&self) -> &Headers {
        self.headers.get_or_init(|| {
            self.wire
                .as_ref()
                .map(|w| Headers(w.get_headers().copy_all()))
                .unwrap_or_default()
        })
    }

    /// The header fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut Headers {
        self.headers();
        self.headers
            .get_mut()
            .expect("the line above has fetched them")
    }

    /// The host and port that the client asked for (its `Host` field); none after the body was taken.
    pub fn authority(&self) -> Option<String> {
        self.wire
            .as_ref()
            .and_then(|wire| wire.get_authority())
            .or_else(|| self.headers().get("host").map(str::to_owned))
    }

    /// The values of the route's `{names}`, decoded, in their order.
    pub fn params(&self) -> &[(String, String)] {
        &self.params
    }

    /// Takes the body out of the request; what remains has none.
    pub fn take_body(&mut self) -> Body {
        if self.wire.is_none() {
            return std::mem::take(&mut self.body);
        }
        let length = self
            .headers()
            .get("content-length")
            .and_then(|value| value.parse().ok());
        let wire = self.wire.take().expect("checked above");
        let (_processed, processed) = crate::bindings::wit_future::new(|| Ok(()));
        let (stream, end) = wire::Request::consume_body(wire, processed);
        Body(Content::Host(HostBody {
            stream,
            end: End::Http(end),
            length,
        }))
    }

    /// Takes method, target, headers and body; what remains has no body.
    pub(crate) fn take(&mut self) -> Request {
        let body = self.take_body();
        Request {
            method: self.method.clone(),
            target: self.target.clone(),
            params: self.params.clone(),
            headers: self.headers().clone().into(),
            wire: None,
            body,
            invocation: self.invocation.clone(),
        }
    }

    /// Who is calling.
    pub fn caller(&self) -> &Rc<Invocation> {
        self.invocation.get_or_init(|| Rc::new(caller::current()))
    }

    pub(crate) fn set_params(&mut self, params: Vec<(String, String)>) {
        self.params = params;
    }

    pub(crate) fn set_method(&mut self, method: Method) {
        self.method = method;
    }

    pub(crate) fn from_wire(wire: wire::Request) -> Self {
        Self {
            method: method_from_wire(wire.get_method()),
            target: wire
                .get_path_with_query()
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
            wire: Some(wire),
            ..Self::default()
        }
    }
}

fn method_from_wire(method: wire::Method) -> Method {
    match method {
        wire::Method::Get => Method::GET,
        wire::Method::Head => Method::HEAD,
        wire::Method::Post => Method::POST,
        wire::Method::Put => Method::PUT,
        wire::Method::Delete => Method::DELETE,
        wire::Method::Connect => Method::CONNECT,
        wire::Method::Options => Method::OPTIONS,
        wire::Method::Trace => Method::TRACE,
        wire::Method::Patch => Method::PATCH,
        // A method that is no token matches no route and is answered 405.
        wire::Method::Other(name) => Method::from_bytes(name.as_bytes()).unwrap_or(Method::TRACE),
    }
}

pub(crate) fn method_to_wire(method: &Method) -> wire::Method {
    match *method {
        Method::GET => wire::Method::Get,
        Method::HEAD => wire::Method::Head,
        Method::POST => wire::Method::Post,
        Method::PUT => wire::Method::Put,
        Method::DELETE => wire::Method::Delete,
        Method::CONNECT => wire::Method::Connect,
        Method::OPTIONS => wire::Method::Options,
        Method::TRACE => wire::Method::Trace,
        Method::PATCH => wire::Method::Patch,
        ref other => wire::Method::Other(other.as_str().to_owned()),
    }
}
