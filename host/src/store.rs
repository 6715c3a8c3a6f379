//! The state of one store: what one instance of a service holds while it runs, and the limits on it.

use crate::{
    allowance::Allowance, capability::Lent, config::Limits, invocation::Invocation, mesh::Hooks,
    name::ServiceName, trigger::turn::running_for, withheld::InForce,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use wasmtime::{
    ResourceLimiter, Store, Trap, UpdateDeadline,
    component::{ResourceTable, ResourceTableError},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What all stores of one service version share.
#[derive(Debug)]
pub struct ServiceContext {
    pub name: ServiceName,
    pub version: String,
    /// What its spans and lines of the log say that they are about.
    pub source: Arc<exprsn_telemetry::Source>,
    pub limits: Limits,
    /// What all stores of the version may use together.
    pub allowance: Allowance,
    /// What the grants lend, linked only where granted. Asked for only after [`ServiceContext::check`].
    pub lent: Lent,
    /// Which of the grants are in force now.
    pub in_force: InForce,
    /// When this version went live.
    pub started: Instant,
}

impl ServiceContext {
    /// Whether `scope` of a grant of this kind may be used now; the error is the text of an `access-denied`.
    ///
    /// Every host function asks before it does anything. Where nothing is withheld: two loads.
    #[inline]
    pub fn check(&self, kind: &'static str, scope: &str) -> Result<(), String> {
        self.in_force.check(kind, scope)
    }
}

/// The data of one store. One invocation at a time runs in a store, so that a fault harms that invocation alone.
pub struct StoreState {
    pub table: ResourceTable,
    pub service: Arc<ServiceContext>,
    /// The invocation being handled now.
    pub invocation: Arc<Invocation>,
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) hooks: Hooks,
    pub(crate) budget: Budget,
    pub(crate) handover: Handover,
}

/// Table entries of wasmtime's own for each handle that a guest may hold: tasks, waitables and both ends of streams.
const ENTRIES_PER_HANDLE: usize = 4;

/// What is counted when the epoch ticks.
const TICK: Duration = Duration::from_millis(crate::engine::EPOCH_TICK_MS);

/// Random bytes that one call may ask for.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// The limits that wasmtime asks about while a store runs.
#[derive(Debug)]
pub struct Budget {
    memory_bytes: Share,
    table_elements: Share,
    core_instances_max: usize,
    memories_max: usize,
    tables_max: usize,
    /// How long this invocation has computed, and how long it may.
    pub(crate) computed: Duration,
    pub(crate) computing_max: Duration,
    /// The first limit that was hit, for the error's text.
    pub(crate) exceeded: Option<&'static str>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: Share::of(limits.memory_bytes_max),
            table_elements: Share::of(limits.table_elements_max),
            core_instances_max: limits.core_instances_max,
            memories_max: limits.memories_max,
            tables_max: limits.tables_max,
            computed: Duration::ZERO,
            computing_max: Duration::from_millis(limits.cpu_ms_max),
            exceeded: None,
        }
    }

    /// Starts an invocation with an unspent budget of time.
    pub(crate) fn renew(&mut self) {
        self.computed = Duration::ZERO;
        self.exceeded = None;
    }
}

/// How much of a bound is used by all memories, or all tables, of a store.
#[derive(Debug)]
struct Share {
    used: usize,
    max: usize,
    /// The growth that was allowed last, in case it fails after all.
    last: usize,
}

impl Share {
    fn of(max: usize) -> Self {
        Self {
            used: 0,
            max,
            last: 0,
        }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current);
        let used = self.used.saturating_add(more);
        let within = used <= self.max;
        if within {
            (self.used, self.last) = (used, more);
        }
        within
    }

    fn undo(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last));
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let within = self.memory_bytes.grow(current, desired);
        if !within {
            self.exceeded = Some("memory_bytes_max");
        }
        Ok(within)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(
            error = crate::telemetry::chain(&error),
            "a memory did not grow"
        );
        self.memory_bytes.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let within = self.table_elements.grow(current, desired);
        if !within {
            self.exceeded = Some("table_elements_max");
        }
        Ok(within)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(
            error = crate::telemetry::chain(&error),
            "a table did not grow"
        );
        self.table_elements.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.core_instances_max
    }

    fn memories(&self) -> usize {
        self.memories_max
    }

    fn tables(&self) -> usize {
        self.tables_max
    }
}

/// A limit was passed in a call of the host; a trap with this ends the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded(pub &'static str);

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it exceeded its limit {}", self.0)
    }
}

impl std::error::Error for Exceeded {}

/// The limit that an invocation failed of, if it was one: what the store noted, or what the error says.
pub fn limit_of(state: &StoreState, error: &wasmtime::Error) -> Option<&'static str> {
    if let Some(Exceeded(limit)) = error.downcast_ref() {
        return Some(limit);
    }
    if error.downcast_ref() == Some(&Trap::StackOverflow) {
        return Some("stack_bytes_max");
    }
    if error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(ResourceTableError::Full)))
    {
        return Some("resources_max");
    }
    // These have no public type.
    let told = |text: &str| error.chain().any(|cause| cause.to_string().contains(text));
    for (text, limit) in [
        (
            "fuel allocated for hostcalls has been exhausted",
            "hostcall_bytes_max",
        ),
        ("store handle limit exceeded", "resources_max"),
        ("instance count too high", "core_instances_max"),
        ("memory count too high", "memories_max"),
        ("table count too high", "tables_max"),
    ] {
        if told(text) {
            return Some(limit);
        }
    }
    state.budget.exceeded
}

/// What all calls under way of one instance have handed to the host together. One that never awaits its calls must not
/// fill the host's memory.
#[derive(Clone, Debug)]
pub struct Handover {
    all: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Handover {
    fn new(bytes_max: usize) -> Self {
        Self {
            all: Arc::default(),
            bytes_max,
        }
    }

    /// Counts the `bytes` of a call's arguments until the value drops, when the call has ended. The error names the limit.
    pub fn take(&self, bytes: usize) -> Result<Handed, String> {
        let before = self.all.fetch_add(bytes, Relaxed);
        let handed = Handed {
            bytes,
            all: self.all.clone(),
        };
        if before.saturating_add(bytes) <= self.bytes_max {
            return Ok(handed);
        }
        Err(format!(
            "calls under way hold {before} bytes and this one {bytes}, and hostcall_bytes_max is {}",
            self.bytes_max
        ))
    }
}

/// The arguments of a call under way.
#[derive(Debug)]
pub struct Handed {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl WasiView for StoreState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for StoreState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

impl StoreState {
    fn new(
        context: &Arc<ServiceContext>,
        mesh: &Arc<crate::mesh::Mesh>,
        invocation: Arc<Invocation>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(context.limits.resources_max);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(context.limits.header_bytes_max);
        Self {
            table,
            wasi: crate::capability::telemetry::baseline(context, RANDOM_BYTES_MAX),
            http,
            hooks: Hooks::new(mesh.clone(), context.clone(), invocation.clone()),
            budget: Budget::new(&context.limits),
            service: context.clone(),
            invocation,
            handover: Handover::new(context.limits.hostcall_bytes_max),
        }
    }

    /// Starts the next invocation in this store.
    pub(crate) fn begin(&mut self, invocation: Arc<Invocation>) {
        self.budget.renew();
        self.hooks.begin(invocation.clone());
        self.invocation = invocation;
    }
}

/// A store for `version`, bounded in memory and time, for its first invocation.
pub fn new(version: &crate::service::Version, invocation: Arc<Invocation>) -> Store<StoreState> {
    let state = StoreState::new(&version.context, &version.mesh, invocation);
    let limits = &version.context.limits;
    let mut store = Store::new(&version.engine, state);
    store.set_hostcall_fuel(limits.hostcall_bytes_max);
    store.set_max_component_handles(limits.resources_max);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(limits.resources_max.saturating_mul(ENTRIES_PER_HANDLE));
    }
    store.limiter(|state| &mut state.budget);
    store.epoch_deadline_callback(|mut context| {
        let budget = &mut context.data_mut().budget;
        // The epoch goes on while an instance waits, so a tick that finds it just resumed is none of its computing; and
        // no more than a tick counts, because the rest was this thread's wait for a processor.
        budget.computed += running_for().unwrap_or(TICK).min(TICK);
        if budget.computed > budget.computing_max {
            budget.exceeded = Some("cpu_ms_max");
            return Err(Exceeded("cpu_ms_max").into());
        }
        // Others on this core get their turn between ticks, what the network has for it included: a plain yield would
        // come back before the network is asked.
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store.set_epoch_deadline(1);
    store
}
