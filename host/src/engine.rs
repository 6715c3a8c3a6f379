//! The wasmtime engine: one for the host, one of the same settings in each process that compiles.

use crate::config::PlatformConfig;
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

/// Core instances, memories and tables that one component may consist of. CPython's has 14 instances and two tables,
/// one more instance for each native extension; SpiderMonkey's has four and two.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 100;
const TABLES_PER_COMPONENT_MAX: u32 = 20;

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

/// The engine that runs services, with a pool of `instances_max` instances.
///
/// The pool is made once, before anybody knows what will be installed, so its ceilings are the operator's. They cost
/// address space, of which a process has 128 TiB: 4 GiB for each memory whatever its ceiling, 8 bytes for each element of
/// each table. Pages are the kernel's until they are written to.
pub fn running(platform: &PlatformConfig) -> Result<Engine> {
    let instances_max = platform.instances_max;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances_max)
        .total_core_instances(instances_max.saturating_mul(4))
        .total_memories(instances_max)
        .total_tables(instances_max.saturating_mul(3))
        .total_stacks(instances_max.saturating_mul(2))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_memory_size(platform.pool_memory_bytes_max)
        .table_elements(platform.pool_table_elements_max)
        .max_unused_warm_slots(instances_max.min(200))
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).context(
        "creating the engine; if address space is short, lower [platform] instances_max or pool_table_elements_max in platform.toml",
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
