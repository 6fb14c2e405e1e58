//! The access log: one JSON object a line for each request, written by one thread.
//!
//! A request formats its line straight into its thread's shard, under a lock that is held for that
//! long and no longer. The writer takes a shard's whole buffer by exchanging it for an empty one,
//! each flush interval, or sooner when a shard is half full. So a line costs
//! neither an allocation nor a wake-up. A channel costs both: at usual rates its reader has gone to
//! sleep before the next line comes, and waking it takes longer than formatting the line.
//!
//! Invariant: `log` never waits for a disk or a pipe. Where every shard is full the line is dropped
//! and counted.
//! Lines of one thread stay in order unless its shard overflows into another; otherwise `ts` tells.

mod json;
mod output;
mod record;
mod websocket;

pub use record::{PATH_BYTES_MAX, Record, SecondText, USER_AGENT_BYTES_MAX};
pub use websocket::WebSocketRecord;

use super::metrics::Scrape;
use super::shards::thread_number;
use hub_config::runtime::LogTarget;
use hub_core::names;
use output::{Output, Sink};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Most shards. Past that many threads, shards are shared, and a lock is held too briefly to matter.
const SHARDS_MAX: usize = 16;
/// Most bytes that wait, for each line that may: a common line has half as many.
const BYTES_PER_LINE: usize = 1024;
/// A buffer above this is made smaller again once it is mostly empty.
const BUFFER_KEPT: usize = 1 << 20;

/// The access log. Dropping it asks the writer to finish, without waiting; see
/// [`AccessLog::shutdown`].
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    thread: thread::Thread,
}

#[derive(Debug)]
struct Shared {
    /// A power of two of them.
    shards: Box<[Shard]>,
    enabled: AtomicBool,
    reopen: AtomicBool,
    stopping: AtomicBool,
    settings: Mutex<Settings>,
    counters: Counters,
    done: Mutex<bool>,
    is_done: Condvar,
}

/// What the writer goes by.
#[derive(Debug)]
struct Settings {
    flush_interval: Duration,
    /// Taken by the writer after it has emptied the shards into the old one.
    output: Option<Output>,
}

/// A target that is open and not yet written to.
#[derive(Debug)]
pub struct Prepared(Output);

/// What became of lines.
#[derive(Debug, Default)]
struct Counters {
    lines: AtomicU64,
    drops: AtomicU64,
    errors: AtomicU64,
}

/// Two cache lines each, so that threads do not disturb their neighbours.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Buffer>);

/// Lines that wait.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: usize,
    lines_max: usize,
    /// The writer has been woken for this buffer.
    woken: bool,
    /// The writer has come for the last time.
    closed: bool,
    second: SecondText,
}

/// What ends up as a line.
pub trait Line {
    /// Appends the line, its newline included.
    fn put_line(&self, out: &mut Vec<u8>, second: &mut SecondText);
}

// === impl AccessLog ===

impl AccessLog {
    /// Opens `target` and starts the writer. At most `queue_lines` lines, and 1 KiB for each of them
    /// in all, wait for it; none longer than `flush_interval` while it keeps up.
    ///
    /// # Errors
    /// Where the file cannot be opened or the thread cannot be started.
    pub fn start(
        target: &LogTarget,
        queue_lines: usize,
        flush_interval: Duration,
    ) -> io::Result<Self> {
        let output = Output::open(target)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shards = cores.next_power_of_two().min(SHARDS_MAX);
        let shared = Arc::new(Shared {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            enabled: AtomicBool::new(!matches!(target, LogTarget::Off)),
            reopen: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            settings: Mutex::new(Settings {
                flush_interval,
                output: None,
            }),
            counters: Counters::default(),
            done: Mutex::new(false),
            is_done: Condvar::new(),
        });
        shared.set_queue(queue_lines);
        let writer = thread::Builder::new().name("access-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(Sink::new(output))
        })?;
        Ok(Self {
            shared,
            thread: writer.thread().clone(),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Opens a new target, so that one that cannot be opened is known before anything is changed.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn prepare(target: &LogTarget) -> io::Result<Prepared> {
        Output::open(target).map(Prepared)
    }

    /// Takes new settings, as after a reload; without a new target the old one goes on. Lines that
    /// wait go to the old target or the new one.
    pub fn commit(&self, target: Option<Prepared>, queue_lines: usize, flush_interval: Duration) {
        let enabled = target
            .as_ref()
            .map(|Prepared(output)| !matches!(output, Output::Off));
        {
            let mut settings = self.shared.settings.lock();
            settings.flush_interval = flush_interval;
            if let Some(Prepared(output)) = target {
                settings.output = Some(output);
            }
        }
        if let Some(enabled) = enabled {
            self.shared.enabled.store(enabled, Ordering::Relaxed);
        }
        self.shared.set_queue(queue_lines);
        self.thread.unpark();
    }

    /// Logs what has ended. Never waits for the target and, once buffers have grown, allocates
    /// nothing.
    pub fn log(&self, line: &impl Line) {
        if !self.shared.enabled.load(Ordering::Relaxed) {
            return;
        }
        let shards = &self.shared.shards;
        let first = thread_number();
        // The thread's own shard nearly always has room. Others are tried before a line is dropped,
        // so that one busy thread may use the whole queue.
        for step in 0..shards.len() {
            let shard = &shards[(first + step) & (shards.len() - 1)];
            let mut buffer = shard.0.lock();
            if buffer.is_full() {
                continue;
            }
            let wake = buffer.push(line);
            drop(buffer);
            if wake {
                self.thread.unpark();
            }
            return;
        }
        self.shared.counters.drops.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens the file anew before the next flush, whether or not it was renamed.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.shared.counters.lines.load(Ordering::Relaxed)
    }

    /// Lines dropped so far: the queue was full, or the target could not be written.
    pub fn drops(&self) -> u64 {
        self.shared.counters.drops.load(Ordering::Relaxed)
    }

    /// Attempts to open or write that failed so far.
    pub fn errors(&self) -> u64 {
        self.shared.counters.errors.load(Ordering::Relaxed)
    }

    /// Adds the log's own series.
    pub fn scrape(&self, scrape: &mut Scrape) {
        let help = "Access-log lines written.";
        scrape.counter(names::LOG_LINES_TOTAL, help, &[], self.lines());
        let help = "Access-log lines dropped: the queue was full or the target failed.";
        scrape.counter(names::LOG_DROPS_TOTAL, help, &[], self.drops());
        let help = "Failed attempts to open or write the access log.";
        scrape.counter(names::LOG_ERRORS_TOTAL, help, &[], self.errors());
    }

    /// Writes what was logged before this call, and ends the writer; what is logged later is counted
    /// as dropped. False where that took longer than `longest`, because a pipe is full, say; then
    /// the writer is left behind.
    pub fn shutdown(&self, longest: Duration) -> bool {
        self.stop();
        {
            let mut done = self.shared.done.lock();
            let waiting = |done: &mut bool| !*done;
            self.shared
                .is_done
                .wait_while_for(&mut done, waiting, longest);
            if !*done {
                return false;
            }
        }
        match self.writer.lock().take() {
            Some(writer) => writer.join().is_ok(),
            None => true,
        }
    }

    fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Shared ===

impl Shared {
    /// Spreads `lines` over the shards.
    fn set_queue(&self, lines: usize) {
        let (each, more) = (lines / self.shards.len(), lines % self.shards.len());
        for (place, shard) in self.shards.iter().enumerate() {
            shard.0.lock().lines_max = each + usize::from(place < more);
        }
    }

    /// The writer's life.
    fn run(&self, mut sink: Sink) {
        let mut spare = Vec::new();
        loop {
            let flush_interval = self.settings.lock().flush_interval;
            if !self.stopping.load(Ordering::Acquire) {
                thread::park_timeout(flush_interval);
            }
            // Read before the shards are, so that everything logged before it was set is written.
            let stopping = self.stopping.load(Ordering::Acquire);
            let reopen = self.reopen.swap(false, Ordering::AcqRel);
            sink.follow(reopen, &self.counters);
            for shard in &self.shards {
                shard.0.lock().take(&mut spare, stopping);
                if !spare.is_empty() {
                    sink.write(&spare, &self.counters);
                    empty(&mut spare);
                }
            }
            if stopping {
                break;
            }
            let output = self.settings.lock().output.take();
            if let Some(output) = output {
                sink.replace(output);
            }
        }
        *self.done.lock() = true;
        self.is_done.notify_all();
    }
}

/// Clears a buffer, and gives memory back that a burst needed and the usual traffic does not.
fn empty(buffer: &mut Vec<u8>) {
    let used = buffer.len();
    buffer.clear();
    if buffer.capacity() > BUFFER_KEPT && used < buffer.capacity() / 8 {
        buffer.shrink_to(buffer.capacity() / 2);
    }
}

// === impl Buffer ===

impl Buffer {
    fn is_full(&self) -> bool {
        self.closed
            || self.lines >= self.lines_max
            || self.bytes.len() >= self.lines_max * BYTES_PER_LINE
    }

    /// Adds a line; true where the writer should be woken, which happens once a buffer.
    fn push(&mut self, line: &impl Line) -> bool {
        line.put_line(&mut self.bytes, &mut self.second);
        self.lines += 1;
        let half = self.lines * 2 >= self.lines_max
            || self.bytes.len() * 2 >= self.lines_max * BYTES_PER_LINE;
        half && !std::mem::replace(&mut self.woken, true)
    }

    /// Exchanges the bytes for the empty `spare`. With `close`, nothing is taken any more.
    fn take(&mut self, spare: &mut Vec<u8>, close: bool) {
        std::mem::swap(&mut self.bytes, spare);
        self.lines = 0;
        self.woken = false;
        self.closed |= close;
    }
}

#[cfg(test)]
mod tests;
