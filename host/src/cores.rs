//! One current-thread runtime for each core: a request, its calls and its instances stay on theirs.

use crate::mesh;
use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::JoinHandle,
};
use tokio::{runtime::Handle, sync::oneshot};
use wasmtime::{Result, error::Context as _};

/// The runtimes that serve requests. Dropping them ends their threads.
pub struct Cores {
    cores: Vec<Core>,
    next: AtomicUsize,
}

struct Core {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Cores {
    /// Starts `count` runtimes; 0 is one for each of the machine's cores.
    pub fn start(count: usize) -> Result<Self> {
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = if count == 0 { available } else { count };
        let cores = (0..count).map(start_core).collect::<Result<_>>()?;
        Ok(Self {
            cores,
            next: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// Spawns a task on the core `index`.
    pub fn spawn_on<F>(&self, index: usize, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.cores[index].handle.spawn(task)
    }

    /// Spawns a task on the cores in turn.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn_on(self.next.fetch_add(1, Relaxed) % self.cores.len(), task)
    }
}

fn start_core(index: usize) -> Result<Core> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("starting the runtime of core {index}"))?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || {
            mesh::enter_core(index);
            // Sent or dropped: either way it is time to end.
            let _ = runtime.block_on(stopped);
        })
        .with_context(|| format!("starting the thread of core {index}"))?;
    Ok(Core {
        handle,
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Drop for Cores {
    fn drop(&mut self) {
        for core in &mut self.cores {
            drop(core.stop.take());
        }
        for core in &mut self.cores {
            if let Some(thread) = core.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
