//! wasi:http 0.2, in and out: requests with their bodies in memory.

use crate::{
    Answer, Twins,
    bindings::{
        exports::wasi::http::incoming_handler,
        wasi::{
            http::{
                outgoing_handler,
                types::{
                    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest,
                    OutgoingResponse, ResponseOutparam, Scheme,
                },
            },
            io::streams::StreamError,
        },
    },
    told,
};
use serde_json::json;

/// Most bytes that one write may take without asking for room first.
const WRITE_BYTES_MAX: usize = 4096;

impl incoming_handler::Guest for Twins {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let body = request
            .consume()
            .map(|body| read(&body))
            .unwrap_or_default();
        let answer = match crate::answer(&path, &body) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        let headers = Fields::new();
        let json = b"application/json".to_vec();
        headers
            .append("content-type", &json)
            .expect("a header that anybody may set");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        write(body, answer.to_string().as_bytes());
    }
}

/// Calls another service and answers its status and its body.
pub fn get(service: &str, path: &str) -> Answer {
    let request = OutgoingRequest::new(Fields::new());
    let bad = |()| "not a request".to_owned();
    request.set_scheme(Some(&Scheme::Http)).map_err(bad)?;
    request.set_authority(Some(service)).map_err(bad)?;
    request.set_path_with_query(Some(path)).map_err(bad)?;
    let future = outgoing_handler::handle(request, None).map_err(told)?;
    future.subscribe().block();
    let response = future
        .get()
        .and_then(Result::ok)
        .ok_or("no response after it was ready")?
        .map_err(told)?;
    let status = response.status();
    let body = response
        .consume()
        .map(|body| read(&body))
        .unwrap_or_default();
    Ok(json!({ "status": status, "body": String::from_utf8_lossy(&body) }))
}

fn read(body: &IncomingBody) -> Vec<u8> {
    let stream = body.stream().expect("the stream is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return bytes,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn write(body: OutgoingBody, bytes: &[u8]) {
    let stream = body.write().expect("the stream is taken once");
    for chunk in bytes.chunks(WRITE_BYTES_MAX) {
        stream
            .blocking_write_and_flush(chunk)
            .expect("the host takes the body");
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("the whole body was written");
}
