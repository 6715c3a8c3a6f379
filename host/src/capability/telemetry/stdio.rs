//! A guest's stdout and stderr as lines of the service's log.

use crate::{clock, store::ServiceContext, telemetry};
use exprsn_telemetry::{GUEST, Line, Severity, now_ns};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Bytes of one line that are kept together.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Where a guest's output goes.
#[derive(Clone)]
pub struct LogStream {
    service: Arc<ServiceContext>,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    pub fn new(service: Arc<ServiceContext>, stream: &'static str) -> Self {
        Self { service, stream, line: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().expect("no holder of this lock panics");
        for byte in bytes {
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                self.write_line(&line);
                line.clear();
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }
}

impl LogStream {
    /// A line counts as a log record does.
    fn write_line(&self, line: &[u8]) {
        let ServiceContext { name, allowance, .. } = &*self.service;
        if telemetry::admits(name, Severity::Info) && allowance.admit_record(name, clock::now_s(), line.len()) {
            let text = String::from_utf8_lossy(line);
            tracing::info!(target: "guest", service = %name, stream = self.stream, message = ?text);
            telemetry::telemetry().log(Line {
                time_ns: now_ns(),
                severity: Severity::Info,
                source: self.service.source.clone(),
                target: GUEST.into(),
                body: text.into_owned(),
                attributes: vec![("log.iostream".into(), self.stream.into())],
                trace_id: 0,
                span_id: 0,
            });
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
