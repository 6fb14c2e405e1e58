//! A thread for work that must cost requests nothing: it runs where nobody else wants the processor.
//!
//! Measured on Linux 6.18 with a data thread that is busy 40 % of one processor's time: beside a thread
//! of nice 10 its 99th percentile grows by a millisecond and more, since the scheduler lets a thread
//! finish its slice; beside one of nice 19 it does not. The price is that on a machine without any
//! idle time this thread hardly runs, so whoever needs a result waits for a while and then does the
//! work itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Pieces of work that may wait.
const QUEUE: usize = 16;

type Task = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Debug)]
pub(super) struct LowThread {
    tasks: SyncSender<Task>,
}

/// Why there is no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoResult {
    /// It was not done in time, or cannot be begun. What comes of it later is dropped over there.
    Late,
    /// It panicked.
    Panicked,
}

impl LowThread {
    pub(super) fn start() -> std::io::Result<Self> {
        let (tasks, queue) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("reload-low".into())
            .spawn(move || {
                nice(19);
                run(&queue);
            })?;
        Ok(Self { tasks })
    }

    /// Runs `work` there and waits for its result, though not longer than `longest`.
    pub(super) fn result<T: Send + 'static>(
        &self,
        longest: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (done, result) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let is_given_up = Arc::clone(&given_up);
        let task = Box::new(move || {
            if !is_given_up.load(Ordering::Relaxed) {
                // Whoever asked may give up meanwhile; then the result is dropped here.
                drop(done.send(work()));
            }
        });
        if self.tasks.try_send(task).is_err() {
            return Err(NoResult::Late);
        }
        result.recv_timeout(longest).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                given_up.store(true, Ordering::Relaxed);
                NoResult::Late
            }
            RecvTimeoutError::Disconnected => NoResult::Panicked,
        })
    }

    /// Frees a value there; gives it back where too much waits already.
    pub(super) fn free<T: Send + 'static>(&self, value: T) -> Result<(), T> {
        let place = Arc::new(parking_lot::Mutex::new(Some(value)));
        let task: Task = Box::new({
            let place = Arc::clone(&place);
            move || drop(place.lock().take())
        });
        match self.tasks.try_send(task) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                place.lock().take().map_or(Ok(()), Err)
            }
        }
    }
}

fn run(queue: &Receiver<Task>) {
    while let Ok(task) = queue.recv() {
        // The panic's message is on standard error; the work's own channel tells whoever waits.
        if catch_unwind(AssertUnwindSafe(task)).is_err() {
            tracing::error!("work of a reload panicked");
        }
    }
}

/// Lets others go first, by so much. On Linux a nice value belongs to the thread.
pub(super) fn nice(value: i32) {
    // Not being allowed to is no reason not to work.
    if let Err(error) = rustix::process::setpriority_process(None, value) {
        tracing::warn!(%error, "a thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_panic_is_told_and_the_thread_goes_on() {
        let low = LowThread::start().expect("a thread");
        let failed = low.result(LONG, || panic!("as it must"));
        assert_eq!(failed, Err::<(), _>(NoResult::Panicked));
        assert_eq!(low.result(LONG, || 7), Ok(7));
    }

    /// Keeps the thread busy until the gate is dropped.
    fn occupy(low: &LowThread) -> SyncSender<()> {
        let (began, begun) = sync_channel(0);
        let (gate, opened) = sync_channel::<()>(0);
        let task: Task = Box::new(move || {
            began.send(()).expect("somebody waits");
            let _opened_or_dropped = opened.recv();
        });
        low.tasks.send(task).expect("the thread lives");
        begun.recv().expect("it begins");
        gate
    }

    #[test]
    fn what_was_given_up_before_it_began_is_not_begun() {
        let low = LowThread::start().expect("a thread");
        let gate = occupy(&low);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let late = low.result(Duration::ZERO, move || {
            begins.store(true, Ordering::Relaxed)
        });
        assert_eq!(late, Err(NoResult::Late));
        drop(gate);
        assert_eq!(low.result(LONG, || 7), Ok(7));
        assert!(!begun.load(Ordering::Relaxed));
    }

    #[test]
    fn what_cannot_be_freed_there_comes_back() {
        let low = LowThread::start().expect("a thread");
        let _gate = occupy(&low);
        let back = (0..=QUEUE).find_map(|number| low.free(number).err());
        assert_eq!(back, Some(QUEUE));
    }

    #[test]
    fn it_runs_at_the_lowest_priority() {
        let low = LowThread::start().expect("a thread");
        let there = low.result(LONG, || rustix::process::getpriority_process(None));
        assert_eq!(there, Ok(Ok(19)));
    }
}
