//! The reload thread.

use super::prepare::{self, Prepared, Ready};
use super::queue::Queue;
use super::{Options, Outcome, report};
use crate::control::low::{LowThread, NoResult, nice};
use crate::hub::Hub;
use crate::service;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::CERTIFICATES_APPLIED;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// How long the thread waits at most before it looks whether retired snapshots can be freed.
const SWEEP: Duration = Duration::from_millis(500);
/// How long a reload may wait for idle time. On a machine that has none this thread then does the work
/// itself, at a priority that gets something: a tenant that is to be shut out must be.
const PATIENCE: Duration = Duration::from_secs(5);
/// More retired snapshots than this are worth a line in the log.
const RETIRED_MANY: usize = 64;

pub(super) struct Worker {
    hub: Arc<Hub>,
    file: PathBuf,
    runtime: tokio::runtime::Handle,
    queue: Arc<Queue>,
    low: LowThread,
    /// Snapshots that requests may still hold. They are not freed by those, but from here.
    retired: Vec<Arc<Snapshot>>,
}

impl Worker {
    pub(super) fn new(
        hub: Arc<Hub>,
        file: PathBuf,
        runtime: tokio::runtime::Handle,
        queue: Arc<Queue>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            hub,
            file,
            runtime,
            queue,
            low: LowThread::start()?,
            retired: Vec::new(),
        })
    }

    pub(super) fn run(mut self) {
        nice(10);
        loop {
            let longest = (!self.retired.is_empty()).then_some(SWEEP);
            if let Some(mut batch) = self.queue.next(longest) {
                if !batch.options.dry_run {
                    service::reloading(&self.hub);
                }
                // Whoever waits for its end waits until all has been told of it.
                let running = Running(Arc::clone(&self.queue));
                let reloaded = catch_unwind(AssertUnwindSafe(|| self.reload(batch.options)));
                let outcome = reloaded.unwrap_or_else(|_| internal_error());
                report(&self.hub, &batch, &outcome);
                if !batch.options.dry_run {
                    service::reloaded(&self.hub, &outcome);
                }
                drop(running);
                for job in batch.jobs.drain(..) {
                    // Whoever asked may have given up waiting; the outcome is in the log.
                    let _asker_gone = job.done.send(outcome.clone());
                }
            }
            self.sweep();
        }
    }

    /// Has snapshots freed that nobody holds any more.
    fn sweep(&mut self) {
        self.retired.extend(self.queue.take_retired());
        for snapshot in std::mem::take(&mut self.retired) {
            let left = match Arc::try_unwrap(snapshot) {
                Ok(snapshot) => self.low.free(snapshot).err().map(Arc::new),
                Err(held) => Some(held),
            };
            self.retired.extend(left);
        }
        self.hub.set_retired(self.retired.len());
    }

    fn reload(&mut self, options: Options) -> Outcome {
        let began = Instant::now();
        let (hub, file, queue) = (
            Arc::clone(&self.hub),
            self.file.clone(),
            Arc::clone(&self.queue),
        );
        let work = move || prepare::prepare(&hub, &file, &queue, options);
        let prepared = match self.low.result(PATIENCE, work.clone()) {
            Ok(prepared) => prepared,
            Err(NoResult::Late) => work(),
            Err(NoResult::Panicked) => return internal_error(),
        };
        match prepared {
            Prepared::Done(outcome) => outcome,
            // Nobody else decides on colours until it is in force: what they are let in for still holds.
            Prepared::Ready(ready) => match self.admitted(&ready) {
                Ok(_turn) => self.commit(*ready, began),
                Err(problems) => Outcome::Rejected { problems },
            },
        }
    }

    /// Whether the colours may get requests that it brings into use. Short, but for rollouts' turn.
    fn admitted(&self, ready: &Ready) -> Result<Option<OwnedMutexGuard<()>>, Vec<String>> {
        let (Some(fence), Some(wanted)) = (self.queue.fence.get(), &ready.wanted) else {
            return Ok(None);
        };
        let admitted = fence.ledger.admits(&ready.next, wanted);
        fence.runtime.block_on(admitted).map(Some)
    }

    /// Puts it in force. Short, and nothing of it fails.
    fn commit(&mut self, ready: Ready, began: Instant) -> Outcome {
        let Ready {
            next,
            wanted: _,
            diff,
            gone,
            certificates,
            rotated,
            log,
        } = ready;
        next.clusters.start_health_checks(&self.runtime);
        for (listener, prepared) in certificates {
            if let Some(tls) = &self.hub.listeners[listener].tls {
                tls.commit(prepared);
            }
        }
        let (old, next) = self.hub.swap(&next);
        let took = began.elapsed();
        self.hub.after_swap(Some(&old), &next, &gone, log);
        if rotated {
            self.hub.metrics.certificates_read(CERTIFICATES_APPLIED);
        }
        self.retired.push(old);
        if self.retired.len() == RETIRED_MANY {
            tracing::warn!(
                retired = self.retired.len(),
                "requests hold many old configurations in memory: long streams, or reloads that come too often"
            );
        }
        Outcome::Applied {
            epoch: next.epoch,
            hash: next.config.hash.clone(),
            diff,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A reload is at work, until this is dropped.
struct Running(Arc<Queue>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_replace(false);
    }
}

/// After a panic, which is a mistake of this program. What is in force goes on, and so do reloads.
fn internal_error() -> Outcome {
    let problem = "an internal error stopped the reload; standard error says which";
    Outcome::Rejected {
        problems: vec![problem.into()],
    }
}
