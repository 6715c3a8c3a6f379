//! The exporter: a thread of its own that sends batches, tries again what may be, and gives up what may not.

use crate::{
    config::{Config, Signal},
    metrics, otlp,
    queue::Queue,
    record::{Line, Source, Span},
    resource::Process,
    transport::{Answer, Transport},
};
use bytes::Bytes;
use prost::Message as _;
use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The wait before the first further try; it doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait between tries, unless the collector asks for more.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

thread_local! {
    static EXPORTS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the exporter's thread. What it logs is not sent, or it would never come to rest.
pub(crate) fn is_exporter() -> bool {
    EXPORTS.get()
}

/// Answers all metrics in the OpenMetrics text format.
pub type Gather = Box<dyn Fn() -> String + Send + Sync>;

/// What became of records of one signal.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sent: AtomicU64,
    lost: AtomicU64,
}

/// What became of all records of one signal so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the collector.
    pub sent: u64,
    /// For which there was no room.
    pub dropped: u64,
    /// That the collector refused, or could not be given in time.
    pub lost: u64,
}

/// What recorders and the exporter share.
pub(crate) struct Shared {
    pub spans: Queue<Arc<Span>>,
    pub lines: Queue<Arc<Line>>,
    pub gather: OnceLock<Gather>,
    pub host: Arc<Source>,
    tallies: [Tally; 3],
    started_ns: u64,
}

impl Shared {
    pub fn new(config: &Config, host: Arc<Source>) -> Self {
        Self {
            spans: Queue::new(config.queue_max, config.batch_max),
            lines: Queue::new(config.queue_max, config.batch_max),
            gather: OnceLock::new(),
            host,
            tallies: Default::default(),
            started_ns: crate::record::now_ns(),
        }
    }

    pub fn counts(&self, signal: Signal) -> Counts {
        let tally = &self.tallies[signal as usize];
        Counts {
            sent: tally.sent.load(Relaxed),
            lost: tally.lost.load(Relaxed),
            dropped: match signal {
                Signal::Traces => self.spans.dropped(),
                Signal::Logs => self.lines.dropped(),
                Signal::Metrics => 0,
            },
        }
    }
}

/// The exporter's thread, as those see it who stop it.
pub(crate) struct Exporter {
    stop: watch::Sender<bool>,
    stopped: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Exporter {
    /// Starts it.
    pub fn start(config: &Config, shared: Arc<Shared>) -> Result<Self, String> {
        let transport = Transport::new(config)?;
        let (stop, stopping) = watch::channel(false);
        let (done, stopped) = std::sync::mpsc::channel();
        let task = Task {
            process: Process::new(config),
            config: config.clone(),
            transport,
            shared,
            stopping,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("starting the exporter: {error}"))?;
        let run = move || {
            EXPORTS.set(true);
            runtime.block_on(task.run());
            // Nobody may be waiting for it.
            let _ = done.send(());
        };
        std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(run)
            .map_err(|error| format!("starting the exporter: {error}"))?;
        Ok(Self {
            stop,
            stopped: stopped.into(),
        })
    }

    /// Has it send what waits, for at most `max`.
    pub fn stop(&self, max: Duration) {
        self.stop.send_replace(true);
        if let Ok(stopped) = self.stopped.lock() {
            // Whether it was done in time or not: the process ends.
            let _ = stopped.recv_timeout(max);
        }
    }
}

struct Task {
    config: Config,
    process: Process,
    transport: Transport,
    shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
}

impl Task {
    /// Each signal for itself, so that none waits for another.
    async fn run(self) {
        let encode_spans = |spans: &[Arc<Span>]| otlp::traces(&self.process, spans).encode_to_vec();
        let encode_lines = |lines: &[Arc<Line>]| otlp::logs(&self.process, lines).encode_to_vec();
        tokio::join!(
            self.pump(Signal::Traces, &self.shared.spans, encode_spans),
            self.pump(Signal::Logs, &self.shared.lines, encode_lines),
            self.measure(),
        );
    }

    /// Sends what is queued, batch by batch, until the end.
    async fn pump<T>(
        &self,
        signal: Signal,
        queue: &Queue<Arc<T>>,
        encode: impl Fn(&[Arc<T>]) -> Vec<u8>,
    ) {
        if !self.config.sends(signal) {
            return;
        }
        let wait = Duration::from_millis(self.config.batch_ms.max(1));
        loop {
            let last = self.rest(wait, queue.batch()).await;
            loop {
                let batch = queue.take();
                if !batch.is_empty() {
                    let message = encode(&batch).into();
                    self.send(signal, message, batch.len() as u64).await;
                }
                if !(queue.has_batch() || last && !batch.is_empty()) {
                    break;
                }
            }
            if last {
                return;
            }
        }
    }

    /// Sends metrics now and then, and at the end.
    async fn measure(&self) {
        if !self.config.sends(Signal::Metrics) || self.config.metrics_ms == 0 {
            return;
        }
        let wait = Duration::from_millis(self.config.metrics_ms);
        loop {
            let last = self.rest(wait, std::future::pending()).await;
            if let Some(gather) = self.shared.gather.get() {
                let times = (self.shared.started_ns, crate::record::now_ns());
                let host = &self.shared.host;
                let (request, points) = metrics::request(&self.process, host, &gather(), times);
                self.send(Signal::Metrics, request.encode_to_vec().into(), points)
                    .await;
            }
            if last {
                return;
            }
        }
    }

    /// Waits until it is time, or there is enough to do, or the end has come, which is answered.
    async fn rest(&self, wait: Duration, enough: impl Future<Output = ()>) -> bool {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => true,
            () = enough => false,
            () = tokio::time::sleep(wait) => false,
        }
    }

    /// Sends a batch, again and again where that may help.
    async fn send(&self, signal: Signal, message: Bytes, records: u64) {
        let tally = &self.shared.tallies[signal as usize];
        let until = Instant::now() + Duration::from_millis(self.config.retry_ms_max);
        let mut backoff = BACKOFF_FIRST;
        let kind = signal.as_str();
        loop {
            match self.transport.send(signal, &message).await {
                Answer::Taken { rejected, message } => {
                    let rejected = rejected.min(records);
                    tally.sent.fetch_add(records - rejected, Relaxed);
                    tally.lost.fetch_add(rejected, Relaxed);
                    if rejected > 0 || !message.is_empty() {
                        tracing::warn!(
                            signal = kind,
                            rejected,
                            message,
                            "the collector did not take all"
                        );
                    }
                    return;
                }
                Answer::Later { after, why } => {
                    let wait = after.unwrap_or_else(|| jittered(backoff));
                    let stopping = *self.stopping.borrow();
                    if stopping || Instant::now() + wait > until {
                        tally.lost.fetch_add(records, Relaxed);
                        tracing::warn!(signal = kind, records, reason = why, "telemetry is lost");
                        return;
                    }
                    tracing::debug!(signal = kind, reason = why, "telemetry is sent again later");
                    self.rest(wait, std::future::pending()).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Answer::Refused(why) => {
                    tally.lost.fetch_add(records, Relaxed);
                    tracing::warn!(signal = kind, records, reason = why, "telemetry is refused");
                    return;
                }
            }
        }
    }
}

/// Between half of it and all, so that hosts do not come back together.
fn jittered(wait: Duration) -> Duration {
    let half = wait / 2;
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    half + half * random / 255
}
