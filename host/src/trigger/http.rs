//! HTTP requests: a pool of instances for each service version and core, with admission before it.
//!
//! **Invariant:** an instance handles one request at a time, its response body included. A trap, an endless loop or an
//! exhausted limit therefore ends one request and nothing else. Reusing instances between requests keeps most of the
//! speed that handling several at once would give (TOOLCHAIN.md: 21,900 against 23,000 requests/s).

use super::turn::Turns;
use crate::{
    invocation::{Invocation, Trigger},
    panics::{Panicked, caught},
    problem::Problem,
    service::Version,
    store::{self, StoreState},
    telemetry::{Outcome, chain},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::{AsContextMut as _, PoolConcurrencyLimitError, Store, error::Context as _};
use wasmtime_wasi_http::{
    Error as HttpError, WasiHttpView as _,
    handler::{Prepared, Proxy, Request, Response},
};

/// How long an instance may go on after the client of a stream has gone, in milliseconds.
const ABANDONED_MS_MAX: u64 = 1_000;

/// The limit that is a client's timeout.
const WALL: &str = "wall_ms_max";

/// How a route bounds the response.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The response body may outlive the deadline.
    pub stream: bool,
    pub response_bytes_max: u64,
}

/// A request with everything that its worker needs.
struct Work {
    invocation: Arc<Invocation>,
    request: Request,
    bounds: Bounds,
    head: futures::channel::oneshot::Sender<wasmtime::Result<Response>>,
    failed: oneshot::Sender<Problem>,
    link: Arc<Link>,
    /// Held until the invocation has ended, its body included.
    _permit: OwnedSemaphorePermit,
}

/// What a response body and the worker behind it tell each other.
#[derive(Default)]
struct Link {
    /// The response's head has been handed out.
    responded: AtomicBool,
    /// The worker ended the invocation by force: the body is not whole.
    cut: AtomicBool,
    /// The body was dropped before its end.
    abandoned: Notify,
}

/// The instances of one service version on one core.
pub struct Pool {
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    waiting_max_time: Duration,
    turns: Arc<Turns>,
}

/// One that waits for its turn, until dropped: also when its client gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// None where as many wait as may.
    fn join(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Relaxed) < max).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Default)]
struct Idle {
    workers: Vec<(u64, oneshot::Sender<Work>)>,
    next_id: u64,
    closed: bool,
}

impl Pool {
    /// A pool that runs `concurrency` invocations at once and lets `waiting_max` wait for at most `waiting_ms_max`.
    pub fn new(concurrency: usize, waiting_max: usize, waiting_ms_max: u64) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(concurrency)),
            waiting: AtomicUsize::new(0),
            waiting_max,
            waiting_max_time: Duration::from_millis(waiting_ms_max),
            turns: Arc::default(),
        })
    }

    /// What the instances on this pool's core run in.
    pub(super) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Lets idle instances go, and keeps none from now on.
    pub fn close(&self) {
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        idle.closed = true;
        idle.workers.clear();
    }

    /// Keeps instances again after a [`Pool::close`].
    pub fn open(&self) {
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        idle.closed = false;
    }

    /// A turn, at once or after waiting; beyond the bounds a 503 that says when to come again.
    async fn admit(
        &self,
        version: &Version,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let busy = |detail: String| {
            version.metrics.shed.inc();
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1)
        };
        let Some(_waiting) = Waiting::join(&self.waiting, self.waiting_max) else {
            return Err(busy(format!(
                "{} is busy and its queue is full; try again",
                version.context.name
            )));
        };
        let patience = deadline.min(Instant::now() + self.waiting_max_time);
        let permit =
            tokio::time::timeout_at(patience.into(), self.permits.clone().acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy(format!(
                "{} is busy; no turn came up in time; try again",
                version.context.name
            ))),
        }
    }

    /// Hands work to an idle instance, the one used last first, or starts one.
    fn dispatch(self: &Arc<Self>, version: &Arc<Version>, mut work: Work) {
        loop {
            let worker = self
                .idle
                .lock()
                .expect("no holder of this lock panics")
                .workers
                .pop();
            let Some((_, worker)) = worker else { break };
            match worker.send(work) {
                Ok(()) => return,
                // It timed out just now.
                Err(returned) => work = returned,
            }
        }
        tokio::spawn(run_worker(self.clone(), version.clone(), work));
    }

    /// Registers an idle worker; none when the pool has closed.
    fn offer(&self) -> Option<(u64, oneshot::Receiver<Work>)> {
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        if idle.closed {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        idle.next_id += 1;
        let id = idle.next_id;
        idle.workers.push((id, sender));
        Some((id, receiver))
    }

    /// The next work for an instance that has just become idle; none when there was none for too long.
    async fn next_work(&self, idle_ms_max: u64) -> Option<Work> {
        let (id, mut next) = self.offer()?;
        match tokio::time::timeout(Duration::from_millis(idle_ms_max), &mut next).await {
            Ok(work) => work.ok(),
            Err(_) => {
                self.forget(id);
                next.close();
                // Work handed over in this very moment is not lost.
                next.try_recv().ok()
            }
        }
    }

    fn forget(&self, id: u64) {
        self.idle
            .lock()
            .expect("no holder of this lock panics")
            .workers
            .retain(|(known, _)| *known != id);
    }
}

/// Handles one request with an instance of `version` on core `core`.
///
/// Answers a problem where the service could not: 503 when it is too busy, 504 past the deadline, 500 after a trap,
/// 501 where the component answers no HTTP.
pub async fn handle(
    version: &Arc<Version>,
    core: usize,
    invocation: Arc<Invocation>,
    request: Request,
    bounds: Bounds,
) -> Response {
    let started = Instant::now();
    let answer = answer(version, core, invocation, request, bounds).await;
    let response = answer.unwrap_or_else(Problem::into_response);
    let outcome = match response.status() {
        status if status.is_server_error() => Outcome::Failure,
        status if status.is_client_error() => Outcome::Refused,
        _ => Outcome::Success,
    };
    version.ended(Trigger::Http, outcome, started.elapsed());
    response
}

async fn answer(
    version: &Arc<Version>,
    core: usize,
    invocation: Arc<Invocation>,
    request: Request,
    bounds: Bounds,
) -> Result<Response, Problem> {
    if version.proxy.is_none() {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "no-http-handler",
            format!("{} exports no wasi:http handler", version.context.name),
        ));
    }
    let pool = &version.pools[core];
    let permit = pool.admit(version, invocation.deadline).await?;
    let (head, received) = futures::channel::oneshot::channel();
    let (failed, failure) = oneshot::channel();
    let link = Arc::new(Link::default());
    pool.dispatch(
        version,
        Work {
            invocation,
            request,
            bounds,
            head,
            failed,
            link: link.clone(),
            _permit: permit,
        },
    );
    match received.await {
        Ok(Ok(response)) => {
            link.responded.store(true, Relaxed);
            Ok(response.map(|body| {
                ResponseBody {
                    body,
                    link,
                    sent: 0,
                    ended: false,
                    bounds,
                }
                .boxed_unsync()
            }))
        }
        // A component of WASI 0.2 that is stopped leaves an error here too; what stopped it is the better answer.
        Ok(Err(error)) => Err(failure
            .await
            .unwrap_or_else(|_| guest_error(version, &error))),
        Err(_) => Err(failure
            .await
            .unwrap_or_else(|_| internal("the service ended unexpectedly"))),
    }
}

/// The problem for an error code that the guest returned instead of a response.
fn guest_error(version: &Version, error: &wasmtime::Error) -> Problem {
    tracing::warn!(service = %version.context.name, error = chain(error), "the service answered with an error code");
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "service-error",
        format!("{} could not answer", version.context.name),
    )
}

fn internal(detail: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "service-failed", detail)
}

/// The life of an instance: request after request, until it fails, is worn out or is not needed.
async fn run_worker(pool: Arc<Pool>, version: Arc<Version>, first: Work) {
    let _alive = version.metrics.instance();
    let mut work = Some(first);
    while let Some(first) = work {
        work = serve(&pool, &version, first).await;
    }
}

/// Serves with one instance; answers with work in hand when the instance is worn out and a fresh one must take over.
async fn serve(pool: &Pool, version: &Arc<Version>, first: Work) -> Option<Work> {
    let mut store = store::new(version, first.invocation.clone());
    let deadline = first.invocation.deadline;
    let starting = instantiate(version, &mut store, deadline);
    let started = guarded(pool.turns.run(starting)).await;
    let proxy = match started {
        Ok(proxy) => proxy,
        Err(error) => {
            fail(version, &store, &error, first.failed);
            return None;
        }
    };
    let mut work = first;
    for _ in 0..version.context.limits.reuse_max.max(1) {
        store.data_mut().begin(work.invocation.clone());
        store.set_epoch_deadline(1);
        let (link, failed) = (work.link.clone(), work.failed);
        let call = Call {
            version,
            request: work.request,
            head: work.head,
            link: &link,
            bounds: work.bounds,
            deadline: work.invocation.deadline,
        };
        if let Err(error) = guarded(pool.turns.run(run(&mut store, &proxy, call))).await {
            link.cut.store(true, Relaxed);
            fail(version, &store, &error, failed);
            return None;
        }
        drop((failed, work._permit));
        work = pool.next_work(version.context.limits.idle_ms_max).await?;
    }
    Some(work)
}

/// Runs `future`; a panic of the host in it is an error that ends the one store that it worked on.
async fn guarded<T>(future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    caught(future)
        .await
        .unwrap_or_else(|panic| Err(panic.into()))
}

async fn instantiate(
    version: &Version,
    store: &mut Store<StoreState>,
    deadline: Instant,
) -> wasmtime::Result<Proxy> {
    let proxy = version
        .proxy
        .as_ref()
        .context("the component exports no HTTP handler")?;
    match tokio::time::timeout_at(deadline.into(), proxy.instantiate_async(store)).await {
        Ok(started) => started.context("starting an instance"),
        Err(_) => Err(Late.into()),
    }
}

/// Logs why an invocation failed and tells its client as much as is its business.
fn fail(
    version: &Version,
    store: &Store<StoreState>,
    error: &wasmtime::Error,
    failed: oneshot::Sender<Problem>,
) {
    if error.is::<Abandoned>() {
        tracing::debug!(service = %version.context.name, "the client left before the response's end");
        return;
    }
    if error.is::<Panicked>() {
        version.metrics.panics.inc();
    }
    let state = store.data();
    let trace = format!("{:032x}", state.invocation.trace.trace_id);
    let limit = if error.is::<Late>() {
        Some(WALL)
    } else {
        store::limit_of(state, error)
    };
    tracing::error!(service = %version.context.name, trace_id = trace, limit, error = chain(error), "an invocation failed");
    // The client may be gone, or have its response already.
    let _ = failed.send(told(version, error, limit, &trace));
}

/// The problem that a client reads of a failed invocation.
fn told(
    version: &Version,
    error: &wasmtime::Error,
    limit: Option<&'static str>,
    trace: &str,
) -> Problem {
    let name = &version.context.name;
    if error.is::<PoolConcurrencyLimitError>() {
        version.metrics.shed.inc();
        let detail = "as many instances are alive as [platform] instances_max allows; try again";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1);
    }
    match limit {
        Some(WALL) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline-exceeded",
            format!("{name} did not answer in time"),
        ),
        Some(limit) => internal(&format!(
            "{name} exceeded its limit {limit} and was stopped"
        ))
        .kind("limit-exceeded"),
        None => internal(&format!(
            "{name} failed and was stopped; the operator finds trace {trace} in the log"
        )),
    }
}

/// What [`run`] needs of a [`Work`].
struct Call<'a> {
    version: &'a Version,
    request: Request,
    head: futures::channel::oneshot::Sender<wasmtime::Result<Response>>,
    link: &'a Link,
    bounds: Bounds,
    deadline: Instant,
}

/// Runs one request to the end of its body and of what the guest does after it.
async fn run(store: &mut Store<StoreState>, proxy: &Proxy, call: Call<'_>) -> wasmtime::Result<()> {
    let Call {
        version,
        request,
        head,
        link,
        bounds,
        deadline,
    } = call;
    {
        let invocation = store.run_concurrent(async |accessor| {
            let prepared = accessor.with(|mut store| {
                Prepared::new(
                    store.as_context_mut(),
                    proxy,
                    request,
                    StoreState::http,
                    head,
                )
            })?;
            prepared.run(accessor, pending()).await?;
            poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            wasmtime::error::Ok(())
        });
        tokio::select! {
            biased;
            result = invocation => result.and_then(|result| result),
            exceeded = watch(version, link, bounds, deadline) => Err(exceeded),
        }
    }
}

/// Resolves when an invocation must be ended from outside: its time is over, or its client has gone.
async fn watch(
    version: &Version,
    link: &Link,
    bounds: Bounds,
    deadline: Instant,
) -> wasmtime::Error {
    let late = async {
        tokio::time::sleep_until(deadline.into()).await;
        if bounds.stream && link.responded.load(Relaxed) {
            pending::<()>().await;
        }
    };
    // What is no stream ends by its deadline anyway.
    let retired = async {
        match bounds.stream {
            true => version.retirement.over().await,
            false => pending().await,
        }
    };
    tokio::select! {
        () = late => Late.into(),
        () = retired => Abandoned.into(),
        () = link.abandoned.notified() => abandoned().await,
    }
}

async fn abandoned() -> wasmtime::Error {
    tokio::time::sleep(Duration::from_millis(ABANDONED_MS_MAX)).await;
    Abandoned.into()
}

/// The client of a response has gone, or its version has: the usual end of a live stream, and nobody's failure.
#[derive(Debug)]
struct Abandoned;

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client or the version left before the response's end")
    }
}

impl std::error::Error for Abandoned {}

/// The wall-clock deadline has passed.
#[derive(Debug)]
struct Late;

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it took longer than its limit wall_ms_max")
    }
}

impl std::error::Error for Late {}

/// A response body that is bounded, and that never passes for whole when it is not.
struct ResponseBody {
    body: wasmtime_wasi_http::WasiBody,
    link: Arc<Link>,
    sent: u64,
    ended: bool,
    bounds: Bounds,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            None if self.link.cut.load(Relaxed) => Some(Err(HttpError::HttpResponseIncomplete)),
            None => {
                self.ended = true;
                None
            }
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                let within = self.bounds.stream || self.sent <= self.bounds.response_bytes_max;
                if within {
                    Some(Ok(frame))
                } else {
                    Some(Err(HttpError::HttpResponseBodySize(Some(self.sent))))
                }
            }
            Some(Err(error)) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.link.abandoned.notify_one();
        }
    }
}
