//! Between the host and the router: requests in, responses out, jobs and events.

use std::cell::OnceCell;
use std::future::Future;

use futures_util::StreamExt;
use http::StatusCode;
use wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamWriter};

use crate::bindings::exprsn::{events, queue};
use crate::bindings::wasi::http::types::{self as wire, ErrorCode, Trailers};
use crate::bindings::{wit_future, wit_stream};
use crate::body::{BodyStream, Content, End};
use crate::{Body, Events, Headers, Jobs, Request, Response, Router};

type Ending = Result<Option<Trailers>, ErrorCode>;

thread_local! {
    /// Built at the instance's first request and kept for the others.
    static ROUTER: OnceCell<&'static Router> = const { OnceCell::new() };
}

/// Answers a request; called by what [`export!`](crate::export) makes.
pub async fn serve(
    routes: fn() -> Router,
    request: wire::Request,
) -> Result<wire::Response, ErrorCode> {
    let router: &'static Router =
        ROUTER.with(|cell| *cell.get_or_init(|| Box::leak(Box::new(routes()))));
    to_wire(router.handle(Request::from_wire(request)).await)
}

/// Does a job; called by what [`export!`](crate::export) makes.
pub async fn work(
    jobs: fn() -> Jobs,
    job: queue::types::Job,
) -> Result<Option<String>, queue::types::Failure> {
    jobs().handle(job).await.map_err(|error| {
        let (reason, retry) = error.into_parts();
        queue::types::Failure { reason, retry }
    })
}

/// Takes an event; called by what [`export!`](crate::export) makes.
pub async fn receive(
    events: fn() -> Events,
    event: events::types::Event,
) -> Result<(), events::types::Failure> {
    events().handle(event).await.map_err(|error| {
        let (reason, retry) = error.into_parts();
        events::types::Failure { reason, retry }
    })
}

/// Runs a future after the response, within the same invocation and its deadline.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    wit_bindgen::spawn_local(future);
}

fn to_wire(response: Response) -> Result<wire::Response, ErrorCode> {
    let Response {
        status,
        mut headers,
        content,
    } = response;
    let has_body = status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !status.is_informational();
    if let Some(length) = content
        .length()
        .filter(|_| has_body && !headers.contains("content-length"))
    {
        headers.append("content-length", length.to_string());
    }
    let fields = fields(&headers)?;
    let (contents, trailers) = send_body(content);
    let (response, _sent) = wire::Response::new(fields, contents, trailers);
    if status != StatusCode::OK && response.set_status_code(status.as_u16()).is_err() {
        return Err(ErrorCode::InternalError(Some(format!(
            "{status} is not a status"
        ))));
    }
    Ok(response)
}

fn fields(headers: &Headers) -> Result<wire::Fields, ErrorCode> {
    wire::Fields::from_list(&headers.0).map_err(|error| {
        crate::log::error!(
            "a response has an invalid header field",
            error = format!("{error:?}")
        );
        ErrorCode::InternalError(Some("invalid header field".to_owned()))
    })
}

/// The stream of a body and what ends it. What this component writes is written after the function has returned.
pub(crate) fn send_body(body: Body) -> (Option<StreamReader<u8>>, FutureReader<Ending>) {
    if let Content::Host(body) = body.0 {
        return (Some(body.stream), ending(body.end));
    }
    // A writer dropped unused writes this default.
    let (ending, end) = wit_future::new(|| Ok(None));
    let contents = match body.0 {
        Content::Empty | Content::Host(_) => None,
        Content::Bytes(bytes) if bytes.is_empty() => None,
        Content::Bytes(bytes) => {
            let (mut writer, reader) = wit_stream::new();
            spawn(async move {
                writer.write_all(bytes).await;
            });
            Some(reader)
        }
        Content::Stream(chunks) => {
            let (writer, reader) = wit_stream::new();
            spawn(pump(chunks, writer, ending));
            return (Some(reader), end);
        }
    };
    (contents, end)
}

/// A body's end as a message's. An object's is passed on when it comes.
fn ending(end: End) -> FutureReader<Ending> {
    let read = match end {
        End::Http(end) => return end,
        End::Blob(read) => read,
    };
    let (ending, end) = wit_future::new(|| Ok(None));
    spawn(async move {
        let how = read.await.map(|()| None);
        let how = how.map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))));
        // The recipient may have gone.
        let _ = ending.write(how).await;
    });
    end
}

async fn pump(mut chunks: BodyStream, mut writer: StreamWriter<u8>, ending: FutureWriter<Ending>) {
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(bytes) => {
                let left = writer.write_all(bytes).await;
                if !left.is_empty() {
                    // The recipient has gone.
                    return;
                }
            }
            Err(problem) => {
                drop(writer);
                // The recipient may have gone too; there is nobody else to tell.
                let _ = ending
                    .write(Err(ErrorCode::InternalError(Some(problem.to_string()))))
                    .await;
                return;
            }
        }
    }
}
