//! The host's ends of a guest's streams: chunks of an object on their way out and in.

use super::types;
use crate::store::ServiceContext;
use bytes::Bytes;
use futures::{channel::mpsc, stream::BoxStream};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::{
    Result, StoreContextMut,
    component::{
        Destination, FutureConsumer, Source, StreamConsumer, StreamProducer, StreamResult,
        VecBuffer,
    },
};

/// Most bytes that are taken from a guest at once.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// An object's chunks, handed to the guest as it has room for them.
pub(super) struct Outgoing {
    pub chunks: BoxStream<'static, Result<Bytes, types::Error>>,
    /// Told after the last chunk how it ended.
    pub end: Option<oneshot::Sender<Result<(), types::Error>>>,
    pub context: Arc<ServiceContext>,
    pub container: String,
    pub _permit: OwnedSemaphorePermit,
}

impl Outgoing {
    fn end(&mut self, how: Result<(), types::Error>) -> StreamResult {
        if let Some(end) = self.end.take() {
            // The guest may have dropped its end; then nobody asks.
            let _ = end.send(how);
        }
        StreamResult::Dropped
    }
}

impl<D> StreamProducer<D> for Outgoing {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        if let Err(denied) = self.context.check("blob", &self.container) {
            return Poll::Ready(Ok(self.end(Err(types::Error::AccessDenied(denied)))));
        }
        match self.chunks.as_mut().poll_next(context) {
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            next => Poll::Ready(Ok(match ready!(next) {
                Some(Ok(chunk)) => {
                    destination.set_buffer(Vec::from(chunk).into());
                    StreamResult::Completed
                }
                Some(Err(error)) => self.end(Err(error)),
                None => self.end(Ok(())),
            })),
        }
    }
}

/// The guest's chunks, taken one at a time as the backend has room for them.
pub(super) struct Incoming(pub mpsc::Sender<Bytes>);

impl<D: 'static> StreamConsumer<D> for Incoming {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        match self.0.poll_ready(context) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            // The write has failed: its error is the call's answer.
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => {}
        }
        let mut source = source.as_direct(store);
        let there = source.remaining();
        if there.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let chunk = Bytes::copy_from_slice(&there[..there.len().min(CHUNK_BYTES_MAX)]);
        source.mark_read(chunk.len());
        Poll::Ready(Ok(match self.0.start_send(chunk) {
            Ok(()) => StreamResult::Completed,
            Err(_) => StreamResult::Dropped,
        }))
    }
}

/// Whether the guest has said that the content is complete.
pub(super) struct Verdict(pub Option<oneshot::Sender<bool>>);

impl<D> FutureConsumer<D> for Verdict {
    type Item = bool;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        store: StoreContextMut<D>,
        mut source: Source<'_, bool>,
        _finish: bool,
    ) -> Poll<Result<()>> {
        let mut complete = None;
        source.read(store, &mut complete)?;
        if let (Some(complete), Some(verdict)) = (complete, self.0.take()) {
            // The call may have ended with an error.
            let _ = verdict.send(complete);
        }
        Poll::Ready(Ok(()))
    }
}
