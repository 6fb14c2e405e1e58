//! The engine that needs no server: SQLite, one file, one thread.
//!
//! Every call is a job for one thread that owns the connection, because SQLite writes one transaction
//! at a time anyway and a worker of the async runtime must not wait for a disk. The queue has a bound;
//! where it is full, the call fails at once and says so, since a caller that waits behind hundreds of
//! fsyncs is better off knowing.
//!
//! Several processes may have the same file open, as while a new binary takes over from an old one:
//! the journal is a write-ahead log, every write takes SQLite's lock for its whole transaction, and
//! whoever finds it taken waits for [`Options::busy_timeout`].

mod ledgers;
mod open;

use crate::rollout::{Entry, HISTORY_KEPT};
use crate::{OpenProblem, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Name of the database in its directory.
pub const FILE_NAME: &str = "hub.db";

/// What can be chosen when a database is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Calls that may wait for the thread; at least 1. Default 256.
    pub queue_max: usize,
    /// Longest wait for another process that writes. Default 5 s.
    pub busy_timeout: Duration,
    /// Entries that a cluster's history keeps; an append drops what is older. At least 1, default
    /// [`HISTORY_KEPT`].
    pub history_max: u32,
}

/// The ledgers in one SQLite file. Clones share the thread; the last one to go lets it finish what is
/// queued, and waits for it.
#[derive(Clone, Debug)]
pub struct Embedded {
    worker: Arc<Worker>,
    history_max: u32,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Debug)]
struct Worker {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    refused: AtomicU64,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_max: 256,
            busy_timeout: Duration::from_secs(5),
            history_max: HISTORY_KEPT,
        }
    }
}

// === impl Embedded ===

impl Embedded {
    /// Opens [`FILE_NAME`] in a directory. Where they are missing, makes the directory with mode 0700
    /// and the file with mode 0600. Brings an older schema up to date. Blocks while it reads the whole
    /// file once, to find damage now and not in the middle of a rollout.
    ///
    /// # Errors
    /// [`StoreError::Open`], with what is wrong.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, StoreError> {
        let mut connection = open::open(directory, options)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(options.queue_max.max(1));
        let thread = std::thread::Builder::new()
            .name("hub-store".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|error| StoreError::Open {
                path: directory.to_owned(),
                problem: OpenProblem::Failed(error.into()),
            })?;
        Ok(Self {
            worker: Arc::new(Worker {
                jobs: Some(jobs),
                thread: Some(thread),
                refused: AtomicU64::new(0),
            }),
            history_max: options.history_max.max(1),
        })
    }

    /// The newest rollout entry of each cluster in a directory that a gateway has open, read from beside it:
    /// nothing is made, changed or brought up to date. `None` where that cannot be done. Blocks.
    pub fn peek(directory: &Path) -> Option<Vec<Entry>> {
        let path = directory.join(FILE_NAME);
        // Without it a reader would have to make it.
        if !directory.join(format!("{FILE_NAME}-shm")).exists() {
            return None;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).ok()?;
        ledgers::newest_entries(&connection).ok()
    }

    /// Calls that were refused because the queue was full, since it was opened.
    pub fn refused_total(&self) -> u64 {
        self.worker.refused.load(Ordering::Relaxed)
    }

    /// Runs a job on the thread and waits for its answer. A job whose caller has gone before it
    /// started is left out; one that has started runs to its end.
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !answer.is_closed() {
                // Where the caller has gone meanwhile, nobody misses the answer.
                answer.send(job(connection)).ok();
            }
        });
        let jobs = self
            .worker
            .jobs
            .as_ref()
            .expect("the sender lives as long as the worker");
        jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.worker.refused.fetch_add(1, Ordering::Relaxed);
                StoreError::unavailable(format!(
                    "{} calls wait for the database already",
                    jobs.max_capacity()
                ))
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answered.await.map_err(|_| stopped())?
    }
}

// === impl Worker ===

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // Where it has panicked, its message is on stderr already, and every caller was told.
            thread.join().ok();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::unavailable("the database's thread has ended; its last words are on stderr")
}

/// The message of SQLite, and nothing of its types.
fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::unavailable(error)
}
