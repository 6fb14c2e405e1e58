//! One upstream address: how it fares, and the request that was sent to it.

use super::health::{Health, Machine, Thresholds, Transition};
use hub_config::runtime::{Colour, EndpointAddress};
use hub_stats::ewma::{Estimate, PeakEwma};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What a new endpoint is taken to answer in: slower than most, so that a new one is not flooded, yet
/// soon tried, because others carry requests. tower and linkerd2-proxy begin with the same.
const LATENCY_FIRST: Duration = Duration::from_millis(30);

/// In this time the weight of an old sample falls to 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// A failure counts as an answer that took this long, or twice what the endpoint takes anyway. Without
/// it, an endpoint that fails at once would look like the fastest of all and draw all the traffic.
const FAILURE_LATENCY_MIN: Duration = Duration::from_secs(1);

/// A failure never counts as more than this, so that an endpoint that failed often is tried again a
/// minute or two after it has recovered.
const FAILURE_LATENCY_MAX: Duration = Duration::from_secs(30);

/// Longest error kept for views, in bytes.
const ERROR_BYTES_MAX: usize = 200;

static RULE: LazyLock<PeakEwma> = LazyLock::new(|| PeakEwma::new(DECAY));

/// One endpoint of one colour of one cluster. Lives as long as any snapshot or request that names it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Endpoint {
    // What every pick reads and every request writes, in one cache line that no other endpoint shares.
    latency: AtomicU64,
    in_flight: AtomicU32,
    health: AtomicU8,
    measured: AtomicBool,
    /// Where the endpoint's clock starts.
    born: Instant,
    name: String,
    address: EndpointAddress,
    checked: Mutex<Checked>,
}

/// What the checks found.
#[derive(Debug, Default)]
struct Checked {
    machine: Machine,
    last_change: Option<SystemTime>,
    last_error: Option<String>,
    /// Number of the check that may report. One that was stopped may still have a result in hand.
    reporter: u64,
}

/// An endpoint as the admin API shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointView {
    /// False where its checks have failed.
    pub healthy: bool,
    /// True where a check has had a result.
    pub checked: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// The peak EWMA of its latency to the first byte, failures included as penalties; `None` before
    /// its first request.
    pub latency: Option<Duration>,
    /// When its health last changed.
    pub last_change: Option<SystemTime>,
    /// Why its last check failed; `None` once one has succeeded.
    pub last_error: Option<String>,
}

/// A request on its way to an endpoint. Counts as in flight until dropped.
///
/// A pick that is dropped without [`Pick::succeed`] or [`Pick::fail`] says nothing of the endpoint, as
/// where a client goes away.
#[derive(Debug)]
#[must_use = "the request counts as in flight until this is dropped"]
pub struct Pick {
    endpoint: Arc<Endpoint>,
    cluster: usize,
    colour: Colour,
    index: usize,
    judged: bool,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(name: String, address: EndpointAddress) -> Self {
        Self {
            latency: AtomicU64::new(Estimate::new(LATENCY_FIRST, 0).to_bits()),
            in_flight: AtomicU32::new(0),
            health: AtomicU8::new(Health::Unknown as u8),
            measured: AtomicBool::new(false),
            born: Instant::now(),
            name,
            address,
            checked: Mutex::default(),
        }
    }

    /// As the configuration writes it: the label in metrics and views.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn address(&self) -> &EndpointAddress {
        &self.address
    }

    /// What the checks say.
    pub fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Relaxed))
    }

    /// True where it takes traffic: it is healthy, or nobody has looked.
    pub fn is_usable(&self) -> bool {
        self.health.load(Ordering::Relaxed) != Health::Unhealthy as u8
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Everything an operator sees of it.
    pub fn view(&self) -> EndpointView {
        let (last_change, last_error) = {
            let checked = self.checked.lock();
            (checked.last_change, checked.last_error.clone())
        };
        let health = self.health();
        let measured = self.measured.load(Ordering::Relaxed);
        EndpointView {
            healthy: health != Health::Unhealthy,
            checked: health != Health::Unknown,
            in_flight: self.in_flight(),
            latency: measured.then(|| self.latency(Instant::now())),
            last_change,
            last_error,
        }
    }

    /// What a request would add to: the latency expected now, times the requests that would then be in
    /// flight. Nanoseconds.
    ///
    /// An endpoint that was never measured and has nothing to do weighs nothing: it gets one request at
    /// once, which measures it. By the assumption alone a fast neighbour would keep it out for a minute.
    pub(super) fn load(&self, now: Instant) -> f32 {
        let in_flight = self.in_flight();
        if in_flight == 0 && !self.measured.load(Ordering::Relaxed) {
            return 0.0;
        }
        let estimate = Estimate::from_bits(self.latency.load(Ordering::Relaxed));
        RULE.load(estimate, self.nanos(now)) * (in_flight as f32 + 1.0)
    }

    fn latency(&self, now: Instant) -> Duration {
        let estimate = Estimate::from_bits(self.latency.load(Ordering::Relaxed));
        Duration::from_nanos(RULE.load(estimate, self.nanos(now)) as u64)
    }

    fn observe(&self, latency: Duration, now: Instant) {
        let now = self.nanos(now);
        // The first sample takes the place of the assumption, which is no sample. Two first ones at a
        // time: one of them is lost, which hurts nobody.
        if !self.measured.load(Ordering::Relaxed) {
            let first = Estimate::new(latency, now);
            self.latency.store(first.to_bits(), Ordering::Relaxed);
            self.measured.store(true, Ordering::Relaxed);
            return;
        }
        let mut bits = self.latency.load(Ordering::Relaxed);
        loop {
            let next = RULE.observe(Estimate::from_bits(bits), latency, now);
            match self.latency.compare_exchange_weak(
                bits,
                next.to_bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(newer) => bits = newer,
            }
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        // 584 years fit.
        now.saturating_duration_since(self.born).as_nanos() as u64
    }

    /// Lets a new check report, and no older one from now on. The number is the check's own.
    pub(super) fn begin_checks(&self, reporter: u64) {
        self.checked.lock().reporter = reporter;
    }

    /// Forgets what checks found: nobody looks any more, so the endpoint is as good as new.
    pub(super) fn end_checks(&self) {
        let mut checked = self.checked.lock();
        *checked = Checked::default();
        self.health.store(Health::Unknown as u8, Ordering::Relaxed);
    }

    /// Takes the result of a check; what changed, if anything. The results of a check that was replaced
    /// are ignored.
    pub(super) fn report(
        &self,
        reporter: u64,
        outcome: Result<(), String>,
        thresholds: Thresholds,
        at: SystemTime,
    ) -> Option<Transition> {
        let mut checked = self.checked.lock();
        if checked.reporter != reporter {
            return None;
        }
        let transition = checked.machine.step(outcome.is_ok(), thresholds);
        checked.last_error = outcome.err().map(|mut error| {
            error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
            error
        });
        if let Some(transition) = transition {
            checked.last_change = Some(at);
            self.health.store(transition.to as u8, Ordering::Relaxed);
        }
        transition
    }
}

// === impl Pick ===

impl Pick {
    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        cluster: usize,
        colour: Colour,
        index: usize,
    ) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint: Arc::clone(endpoint),
            cluster,
            colour,
            index,
            judged: false,
        }
    }

    /// Position of the cluster in the configuration.
    pub fn cluster(&self) -> usize {
        self.cluster
    }

    /// The colour.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// Position of the endpoint in its colour of the configuration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint's name as configured.
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// The endpoint answered: `latency` from sending the request to the first byte. Only the first
    /// verdict on a pick counts.
    pub fn succeed(&mut self, latency: Duration, now: Instant) {
        if !std::mem::replace(&mut self.judged, true) {
            self.endpoint.observe(latency, now);
        }
    }

    /// The endpoint could not be reached, broke off, did not answer in time, or answered that it cannot
    /// serve. Only the first verdict
    /// on a pick counts.
    pub fn fail(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.judged, true) {
            let usual = self.endpoint.latency(now);
            let penalty = (usual * 2).clamp(FAILURE_LATENCY_MIN, FAILURE_LATENCY_MAX);
            self.endpoint.observe(penalty, now);
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        let before = self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "every pick was counted");
    }
}
