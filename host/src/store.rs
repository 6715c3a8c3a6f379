//! The state of one store: what one instance of a service holds while it runs, and the limits on it.

use crate::{
    capability::Lent, config::Limits, invocation::Invocation, mesh::Hooks, name::ServiceName,
    withheld::InForce,
};
use std::{sync::Arc, time::Instant};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What all stores of one service version share.
#[derive(Debug)]
pub struct ServiceContext {
    pub name: ServiceName,
    pub version: String,
    pub limits: Limits,
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
}

/// The limits that wasmtime asks about while a store runs.
#[derive(Debug)]
pub struct Budget {
    memory_bytes_max: usize,
    table_elements_max: usize,
    /// Epoch ticks that this invocation has computed through, and how many it may.
    pub(crate) ticks: u64,
    pub(crate) ticks_max: u64,
    /// The first limit that was hit, for the error's text.
    pub(crate) exceeded: Option<&'static str>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            ticks: 0,
            ticks_max: limits
                .cpu_ms_max
                .div_ceil(crate::engine::EPOCH_TICK_MS)
                .max(1),
            exceeded: None,
        }
    }

    /// Starts an invocation with an unspent budget of time.
    pub(crate) fn renew(&mut self) {
        self.ticks = 0;
        self.exceeded = None;
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let within = desired <= self.memory_bytes_max;
        if !within {
            self.exceeded = Some("memory_bytes_max");
        }
        Ok(within)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let within = desired <= self.table_elements_max;
        if !within {
            self.exceeded = Some("table_elements_max");
        }
        Ok(within)
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
        Self {
            table,
            wasi: crate::capability::telemetry::baseline(&context.name),
            http: WasiHttpCtx::new(),
            hooks: Hooks::new(mesh.clone(), context.clone(), invocation.clone()),
            budget: Budget::new(&context.limits),
            service: context.clone(),
            invocation,
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
    let mut store = Store::new(&version.engine, state);
    store.limiter(|state| &mut state.budget);
    store.epoch_deadline_callback(|mut context| {
        let budget = &mut context.data_mut().budget;
        budget.ticks += 1;
        if budget.ticks > budget.ticks_max {
            budget.exceeded = Some("cpu_ms_max");
            wasmtime::bail!("it computed for longer than its limit cpu_ms_max");
        }
        // Others on this core get their turn between ticks.
        Ok(UpdateDeadline::Yield(1))
    });
    store.set_epoch_deadline(1);
    store
}
