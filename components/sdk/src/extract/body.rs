//! The raw extractors: body, headers, the request itself.

use super::FromRequest;
use crate::openapi::Operation;
use crate::problem::Result;
use crate::{Body, Headers, Request};

impl FromRequest for Body {
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(request.take_body())
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.raw_request_body();
        operation.problem(413);
    }
}

impl FromRequest for Headers {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(request.headers().clone())
    }
}

impl FromRequest for Request {
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(request.take())
    }
}

impl FromRequest for http::Method {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(request.method().clone())
    }
}
