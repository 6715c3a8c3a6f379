//! Making commits durable: a thread that writes the log to disk once for all who committed meanwhile.
//!
//! SQLite at `synchronous=FULL` would write to disk within each commit, while the next transaction waits. Here a commit
//! only appends to the log (`synchronous=NORMAL`), the writer goes on, and whoever committed is answered when the log is
//! on disk. What was answered is as durable as with `FULL`; what is visible to readers may be durable a moment later.

use super::{Error, Statistics};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

/// Commits that may wait for the disk; the writer waits where there are more.
const WAITING_MAX: usize = 1_024;

/// Told whether what was committed before is on disk.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

enum Work {
    Answer(Answer),
    End,
}

/// The queue of those who wait for the disk.
#[derive(Clone)]
pub(super) struct Flusher {
    work: mpsc::SyncSender<Work>,
    failed: Arc<AtomicBool>,
    log: Arc<File>,
}

impl Flusher {
    /// Makes what has been written so far durable and starts the thread. The log exists already.
    pub(super) fn start(
        path: &Path,
        name: &str,
        statistics: Arc<Statistics>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let log = Arc::new(File::open(log_path(path))?);
        log.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let (work, queue) = mpsc::sync_channel(WAITING_MAX);
        let failed = Arc::new(AtomicBool::new(false));
        let flusher = Self {
            work,
            failed: failed.clone(),
            log: log.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("f-{name}"));
        let thread = thread.spawn(move || serve(&queue, &log, &failed, &statistics))?;
        Ok((flusher, thread))
    }

    /// Has `answer` called when all that was committed before is on disk; drops it where the thread has ended.
    pub(super) fn flush(&self, answer: Answer) {
        let _ = self.work.send(Work::Answer(answer));
    }

    /// Whether the disk has refused once: what is in the log from then on may be lost, so nothing more goes there.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// The log's length in bytes.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Ends the thread after what waits.
    pub(super) fn end(&self) {
        let _ = self.work.send(Work::End);
    }
}

/// SQLite's log beside the file.
fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn serve(queue: &mpsc::Receiver<Work>, log: &File, failed: &AtomicBool, statistics: &Statistics) {
    let mut ended = false;
    while !ended {
        let Ok(first) = queue.recv() else { return };
        let mut answers = Vec::new();
        for work in std::iter::once(first).chain(queue.try_iter().take(WAITING_MAX)) {
            match work {
                Work::Answer(answer) => answers.push(answer),
                Work::End => ended = true,
            }
        }
        if answers.is_empty() {
            continue;
        }
        // After a failure the system may report the next attempt a success without having written anything.
        if !failed.load(Ordering::SeqCst) {
            match log.sync_data() {
                Ok(()) => statistics.flushed(),
                Err(error) => {
                    tracing::error!(%error, "the disk refuses the database's log; writes fail until the host is restarted");
                    failed.store(true, Ordering::SeqCst);
                }
            }
        }
        for answer in answers {
            answer(if failed.load(Ordering::SeqCst) {
                Err(Error::Undurable)
            } else {
                Ok(())
            });
        }
    }
}
