//! Calls of services on other hosts: the least busy first, and another one where that is safe.
//!
//! What was certainly not begun is tried elsewhere, whatever it is. What may have been begun is tried elsewhere only where
//! doing it twice is doing it once ([`Call::may_repeat`]).

use super::call::Call;
use crate::{
    cluster::{Cluster, Envelope, Peer, Reached},
    listener::Arrival,
    name::ServiceName,
};
use http::StatusCode;
use std::{collections::VecDeque, sync::Arc};
use wasmtime_wasi_http::{Error as HttpError, handler::Response};

/// Calls a service that runs on other hosts.
pub async fn call(
    cluster: &Cluster,
    to: &ServiceName,
    call: &mut Call,
    arrival: &Arrival,
) -> Result<Response, HttpError> {
    let mut candidates: VecDeque<Arc<Peer>> = cluster.directory().candidates(to).into();
    let authority = call
        .uri()
        .authority()
        .map_or_else(|| to.to_string(), ToString::to_string);
    let envelope = |arrival: &Arrival| Envelope::of(to, &authority, arrival).seal();
    let mut last = None;
    for _ in 0..cluster.config.attempts_max {
        let Some(peer) = candidates.pop_front() else {
            break;
        };
        let Some(request) = call.next() else { break };
        let reached = peer.call(request, &envelope(arrival)).await;
        cluster.calls().count(&peer.name, reached.outcome());
        match reached {
            // A host that answers 503 did nothing, or what may be done again.
            Reached::Answered(answer)
                if answer.status() == StatusCode::SERVICE_UNAVAILABLE
                    && call.may_repeat()
                    && !candidates.is_empty() =>
            {
                last = Some(Ok(answer));
            }
            Reached::Answered(answer) => return Ok(answer),
            Reached::Untouched(request) => {
                tracing::debug!(host = peer.name, service = %to, "a call was not begun; another host is tried");
                call.give_back(request);
                last = Some(Err(HttpError::ConnectionRefused));
            }
            Reached::Lost(reason) => {
                tracing::warn!(host = peer.name, service = %to, reason, "a call to another host was lost");
                last = Some(Err(HttpError::ConnectionTerminated));
                if !call.may_repeat() {
                    break;
                }
            }
        }
    }
    last.unwrap_or(Err(HttpError::DestinationUnavailable))
}
