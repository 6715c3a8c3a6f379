//! The wasmtime engine: one for the host, one of the same settings in each process that compiles.

use crate::config::{Limits, PlatformConfig};
use std::time::Duration;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
    error::Context as _,
};

/// How often the epoch advances, in milliseconds; the resolution of `cpu_ms_max`.
pub const EPOCH_TICK_MS: u64 = 10;

/// Address space reserved for each linear memory, so that bounds checks cost nothing.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// What the pool holds for each instance that may be alive, on average: most consist of one memory and a few tables.
const MEMORIES_PER_INSTANCE: u32 = 2;
const TABLES_PER_INSTANCE: u32 = 6;
/// Stack that host functions may use beyond what a guest may.
const HOST_STACK_BYTES: usize = 1_536 << 10;

/// What must be equal where code is compiled and where it runs.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_reservation_for_growth(0)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .parallel_compilation(true);
    config
}

/// The engine of a process that only compiles: no pool, so that its address space can be bounded.
pub fn compiling() -> Result<Engine> {
    Engine::new(&settings()).context("creating the compiling engine")
}

/// What instances of the services may consist of: the largest of their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub memory_bytes_max: usize,
    pub memories_max: usize,
    pub table_elements_max: usize,
    pub tables_max: usize,
    pub core_instances_max: usize,
}

impl Sizes {
    /// The larger of each.
    pub fn covering(self, limits: &Limits) -> Self {
        Self {
            memory_bytes_max: self.memory_bytes_max.max(limits.memory_bytes_max),
            memories_max: self.memories_max.max(limits.memories_max),
            table_elements_max: self.table_elements_max.max(limits.table_elements_max),
            tables_max: self.tables_max.max(limits.tables_max),
            core_instances_max: self.core_instances_max.max(limits.core_instances_max),
        }
    }

    /// Each as often as a manifest may ask for it.
    pub fn times(self, factor: u64) -> Self {
        let times =
            |size: usize| size.saturating_mul(usize::try_from(factor).unwrap_or(usize::MAX));
        Self {
            memory_bytes_max: times(self.memory_bytes_max).min(MEMORY_RESERVATION_BYTES as usize),
            memories_max: times(self.memories_max),
            table_elements_max: times(self.table_elements_max),
            tables_max: times(self.tables_max),
            core_instances_max: times(self.core_instances_max),
        }
    }
}

/// The engine that runs services, with a pool of `instances_max` instances that consist of no more than `sizes`.
pub fn running(config: &PlatformConfig, sizes: Sizes) -> Result<Engine> {
    let count = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let instances_max = config.instances_max;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances_max)
        .total_core_instances(instances_max.saturating_mul(count(sizes.core_instances_max)))
        .total_memories(instances_max.saturating_mul(MEMORIES_PER_INSTANCE))
        .total_tables(instances_max.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(instances_max.saturating_mul(2))
        .max_core_instances_per_component(count(sizes.core_instances_max))
        .max_memories_per_component(count(sizes.memories_max))
        .max_tables_per_component(count(sizes.tables_max))
        .max_memory_size(sizes.memory_bytes_max)
        .table_elements(sizes.table_elements_max)
        .max_unused_warm_slots(instances_max.min(200))
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    let mut settings = settings();
    settings
        .max_wasm_stack(config.stack_bytes_max)
        .async_stack_size(config.stack_bytes_max.saturating_add(HOST_STACK_BYTES))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&settings).context(
        "creating the engine; if address space is short, lower [platform] instances_max in platform.toml",
    )?;
    Ok(engine)
}

/// Advances the engine's epoch until the engine is dropped.
pub fn tick(engine: &Engine) -> Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(Duration::from_millis(EPOCH_TICK_MS));
            }
        })
        .context("starting the epoch thread")?;
    Ok(())
}
