use super::connection::{Answer, Connection, Failure};
use super::record::{Done, Outcome, Report};
use super::{Ask, Settings};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Longest run.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// Most connections of a run.
const CONNECTIONS_MAX: usize = 20_000;
/// Pause after a connection could not be made, so that a server that is down is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

type Generator = dyn Fn(u64, &mut Vec<u8>) -> Ask + Send + Sync;

/// A run that is under way. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

/// Starts a closed loop on the current tokio runtime. `generator` gets the request's number, counted
/// from 0, and an empty buffer to write the request into.
pub fn closed(
    settings: Settings,
    generator: impl Fn(u64, &mut Vec<u8>) -> Ask + Send + Sync + 'static,
) -> Running {
    start(settings, Arc::new(generator), None)
}

/// Starts an open loop of `rate` requests a second (more than 0, at most a million) on the current
/// tokio runtime, and a thread that keeps the time: tokio's timers tick in milliseconds, which would
/// be added to every latency.
pub fn open(
    settings: Settings,
    rate: f64,
    generator: impl Fn(u64, &mut Vec<u8>) -> Ask + Send + Sync + 'static,
) -> Running {
    start(
        settings,
        Arc::new(generator),
        Some(rate.clamp(0.001, 1_000_000.0)),
    )
}

struct Shared {
    settings: Settings,
    started: Instant,
    ends: Instant,
    stopped: AtomicBool,
    /// Number of the next request.
    next: AtomicU64,
    report: Mutex<Report>,
    /// Open loop: requests that are due, by number and time, and one permit for each.
    due: Mutex<VecDeque<(u64, Instant)>>,
    due_permits: Semaphore,
}

fn start(mut settings: Settings, generator: Arc<Generator>, rate: Option<f64>) -> Running {
    settings.connections = settings.connections.clamp(1, CONNECTIONS_MAX);
    settings.duration_max = settings.duration_max.min(DURATION_MAX);
    settings.classes = settings.classes.clamp(1, 1_024);
    let started = Instant::now();
    let shared = Arc::new(Shared {
        ends: started + settings.duration_max,
        started,
        stopped: AtomicBool::new(false),
        next: AtomicU64::new(0),
        report: Mutex::new(Report::new(started)),
        due: Mutex::new(VecDeque::with_capacity(settings.queue_max)),
        due_permits: Semaphore::new(0),
        settings,
    });
    let mut workers = JoinSet::new();
    for _ in 0..shared.settings.connections {
        let worker = Worker {
            shared: Arc::clone(&shared),
            generator: Arc::clone(&generator),
            connection: None,
            request: Vec::with_capacity(1_024),
        };
        if rate.is_some() {
            workers.spawn(worker.open_loop());
        } else {
            workers.spawn(worker.closed_loop());
        }
    }
    if let Some(rate) = rate {
        let pacer = Arc::clone(&shared);
        // Not joined: it ends by itself within one pause of the run's end.
        std::thread::spawn(move || pace(&pacer, rate));
    }
    Running { shared, workers }
}

impl Running {
    /// What was measured since the start or the last `take`, and starts anew. The first one throws
    /// the warm-up away.
    pub fn take(&self) -> Report {
        self.shared.take()
    }

    /// Waits until the run ends by itself, and returns what was measured since the last `take`.
    pub async fn finished(mut self) -> Report {
        while self.workers.join_next().await.is_some() {}
        let left = std::mem::take(&mut *self.shared.due()).len();
        self.shared.report().unsent += left as u64;
        self.shared.take()
    }

    /// Ends the run: nothing more is sent, what is in flight is waited for (at most the request
    /// timeout).
    pub async fn stop(self) -> Report {
        self.shared.stop();
        self.finished().await
    }
}

#[cfg(test)]
impl Running {
    /// Reads how many due requests wait for a connection.
    pub(super) fn due_for_tests(&self) -> impl Fn() -> usize + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.due().len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

// === impl Shared ===

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.due_permits.close();
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || Instant::now() >= self.ends
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        // A panicking generator must not hide what was measured before.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, VecDeque<(u64, Instant)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Report {
        let now = Instant::now();
        let mut report = std::mem::replace(&mut *self.report(), Report::new(now));
        report.elapsed = now - report.since;
        report
    }
}

/// Makes requests due at their times until the run is over.
fn pace(shared: &Shared, rate: f64) {
    let due_at = |number: u64| shared.started + Duration::from_secs_f64(number as f64 / rate);
    let mut number = 0_u64;
    while !shared.is_over() && number < shared.settings.requests_max {
        let now = Instant::now();
        let mut added = 0;
        let mut unsent = 0;
        {
            let mut queue = shared.due();
            while number < shared.settings.requests_max && due_at(number) <= now {
                if queue.len() < shared.settings.queue_max {
                    queue.push_back((number, due_at(number)));
                    added += 1;
                } else {
                    unsent += 1;
                }
                number += 1;
            }
        }
        shared.due_permits.add_permits(added);
        if unsent > 0 {
            shared.report().unsent += unsent;
        }
        // The cap keeps the end of the run from being slept through at low rates.
        let pause = due_at(number).saturating_duration_since(Instant::now());
        std::thread::sleep(pause.min(Duration::from_millis(50)));
    }
    // A run that ends by count still owes what is queued; one that ends by time does not, and the
    // rest is counted as unsent.
    while !shared.is_over() && !shared.due().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    shared.stop();
}

struct Worker {
    shared: Arc<Shared>,
    generator: Arc<Generator>,
    connection: Option<Connection>,
    request: Vec<u8>,
}

impl Worker {
    async fn closed_loop(mut self) {
        while !self.shared.is_over() {
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.shared.settings.requests_max {
                return;
            }
            let outcome = self.one(number, Instant::now(), false).await;
            if outcome == Outcome::Refused {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    async fn open_loop(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Ok(permit) = shared.due_permits.acquire().await {
            permit.forget();
            let Some((number, due)) = shared.due().pop_front() else {
                continue;
            };
            let late = due.elapsed() > shared.settings.late_after;
            self.one(number, due, late).await;
        }
    }

    /// Sends one request and counts it; its latency runs from `due`.
    async fn one(&mut self, number: u64, due: Instant, late: bool) -> Outcome {
        self.request.clear();
        let ask = (self.generator)(number, &mut self.request);
        let timeout = self.shared.settings.request_timeout;
        let answered = tokio::time::timeout(timeout, self.exchange(&ask)).await;
        let outcome = match answered {
            Ok(Ok(answer)) => {
                if !answer.keepalive {
                    self.connection = None;
                }
                judge(&ask, &answer)
            }
            Ok(Err(failure)) => {
                self.connection = None;
                match failure {
                    Failure::Refused => Outcome::Refused,
                    Failure::Reset => Outcome::Reset,
                    Failure::ShortBody => Outcome::ShortBody,
                    Failure::Malformed => Outcome::WrongAnswer,
                }
            }
            Err(_) => {
                self.connection = None;
                Outcome::Timeout
            }
        };
        let done = Done {
            outcome,
            class: ask.class,
            due,
            latency: due.elapsed(),
            late,
        };
        self.shared
            .report()
            .add(&done, self.shared.settings.classes);
        outcome
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        // A server may close an idle connection at any time (RFC 9112, 9.5): not a failed request.
        let usable = self.connection.take().filter(|known| !known.is_stale());
        let connection = match usable {
            Some(known) => self.connection.insert(known),
            None => {
                self.shared.report().connects += 1;
                let fresh = Connection::connect(self.shared.settings.address, None).await?;
                self.connection.insert(fresh)
            }
        };
        connection.exchange(&self.request, ask.body).await
    }
}

fn judge(ask: &Ask, answer: &Answer) -> Outcome {
    if answer.status == ask.status {
        return if answer.body_matches {
            Outcome::Ok
        } else {
            Outcome::WrongAnswer
        };
    }
    match answer.status {
        400..500 => Outcome::Status4xx,
        500..600 => Outcome::Status5xx,
        _ => Outcome::WrongAnswer,
    }
}
