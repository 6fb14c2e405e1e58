//! Every metric of the gateway, and the text that Prometheus reads.
//!
//! What changes with requests lies in [`Sharded`] counters behind handles that are resolved when a
//! snapshot is built, so a request looks nothing up. What changes rarely is a plain metric of a
//! registry of our own. What others count for themselves they show through
//! [`Metrics::register_scrape`].
//!
//! Why not `prometheus::Histogram` on the hot path: its counters are shared by all threads. See
//! `benches/telemetry.rs` for both, side by side.

mod scrape;

pub use scrape::Scrape;

use super::process;
use super::shards::Sharded;
use foldhash::fast::RandomState;
use hub_core::{Reason, names, names::label};
use parking_lot::{Mutex, RwLock};
use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the duration histogram, in seconds: from a cached answer on the same machine to
/// the longest that anything is waited for.
pub const DURATION_BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// The same in nanoseconds, so that the hot path compares integers.
const DURATION_BOUNDS_NS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS.len() + 1;
/// Layout of a route's counters: status classes, histogram buckets, sum of nanoseconds.
const FIRST_BUCKET: usize = StatusClass::COUNT;
const SUM_NS: usize = FIRST_BUCKET + BUCKETS;
const ROUTE_COUNTERS: usize = SUM_NS + 1;

/// Outcomes of [`Metrics::certificates_read`]: new ones are in force, or could not be.
pub const CERTIFICATES_APPLIED: &str = "applied";
/// See [`CERTIFICATES_APPLIED`].
pub const CERTIFICATES_REJECTED: &str = "rejected";

/// Class of the status that a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusClass {
    /// 101, which ends a request by changing the protocol.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
    /// No answer was sent, or one with a status that HTTP does not know.
    None,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadOutcome {
    /// A new snapshot is in force.
    Applied,
    /// Nothing differed.
    Unchanged,
    /// The configuration has faults; nothing changed.
    Rejected,
    /// Listeners differ, which only a restart can change; nothing changed.
    NeedsUpgrade,
}

/// How an upgrade of the binary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpgradeOutcome {
    /// This process took over from another one.
    Committed,
    /// This process was to hand over and went on.
    Aborted,
}

/// Counters of one (route, cluster, colour).
#[derive(Debug)]
pub struct RouteMetrics {
    counters: Sharded<ROUTE_COUNTERS>,
}

/// Connections of one listener. Open ones are opened less closed.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    counters: Sharded<2>,
}

/// Names of one (route, cluster, colour). `-` stands for what is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    route: Box<str>,
    cluster: Box<str>,
    colour: Box<str>,
}

/// Adds series to a scrape.
type ScrapeFn = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// All metrics of one gateway. There is no global one, so tests run side by side.
pub struct Metrics {
    registry: Registry,
    started: Sharded<1>,
    refusals: Sharded<{ Reason::ALL.len() }>,
    /// Bounded by the configuration: see [`Metrics::remove_routes`].
    routes: Mutex<HashMap<RouteKey, Arc<RouteMetrics>, RandomState>>,
    /// Bounded by the configuration: listeners do not change while the process lives.
    listeners: Mutex<HashMap<Box<str>, Arc<ListenerMetrics>>>,
    scrapes: RwLock<Vec<ScrapeFn>>,
    handshake_failures: IntCounterVec,
    certificate_reloads: IntCounterVec,
    reloads: IntCounterVec,
    upgrades: IntCounterVec,
    snapshot_timestamp: Gauge,
    tenants: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name, help, label| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label]);
            let metric = metric.expect("names and labels are constants and well formed");
            registry
                .register(Box::new(metric.clone()))
                .expect("each name is registered once");
            metric
        };
        let reloads = counters(
            names::RELOADS_TOTAL,
            "Reloads of the configuration, by outcome.",
            label::OUTCOME,
        );
        for outcome in ReloadOutcome::ALL {
            // From nought on, so that the first one shows as an increase.
            reloads.with_label_values(&[outcome.as_str()]);
        }
        let upgrades = counters(
            names::UPGRADES_TOTAL,
            "Upgrades of the binary, by outcome.",
            label::OUTCOME,
        );
        for outcome in [UpgradeOutcome::Committed, UpgradeOutcome::Aborted] {
            upgrades.with_label_values(&[outcome.as_str()]);
        }
        let handshake_failures = counters(
            names::TLS_HANDSHAKE_FAILURES_TOTAL,
            "TLS handshakes that failed, by reason.",
            label::REASON,
        );
        let certificate_reloads = counters(
            names::TLS_CERTIFICATE_RELOADS_TOTAL,
            "Reads of certificate files, by outcome.",
            label::OUTCOME,
        );
        for outcome in [CERTIFICATES_APPLIED, CERTIFICATES_REJECTED] {
            certificate_reloads.with_label_values(&[outcome]);
        }
        let snapshot_timestamp = Gauge::new(
            names::SNAPSHOT_TIMESTAMP_SECONDS,
            "When the snapshot in force was taken, in seconds since 1970.",
        )
        .expect("the name is a constant and well formed");
        let tenants = IntGauge::new(names::TENANTS, "Tenants in the snapshot in force.")
            .expect("the name is a constant and well formed");
        let gauges: [Box<dyn prometheus::core::Collector>; 2] = [
            Box::new(snapshot_timestamp.clone()),
            Box::new(tenants.clone()),
        ];
        for gauge in gauges {
            registry
                .register(gauge)
                .expect("each name is registered once");
        }
        Self {
            registry,
            started: Sharded::default(),
            refusals: Sharded::default(),
            routes: Mutex::default(),
            listeners: Mutex::default(),
            scrapes: RwLock::default(),
            handshake_failures,
            certificate_reloads,
            reloads,
            upgrades,
            snapshot_timestamp,
            tenants,
        }
    }

    /// The counters of a (route, cluster, colour), the same ones for as long as they are retained.
    /// Takes a lock: for building snapshots, not for requests.
    pub fn route(&self, route: &str, cluster: &str, colour: &str) -> Arc<RouteMetrics> {
        let key = RouteKey::new(route, cluster, colour);
        Arc::clone(self.routes.lock().entry(key).or_insert_with(|| {
            Arc::new(RouteMetrics {
                counters: Sharded::default(),
            })
        }))
    }

    /// Drops the series of these, which the snapshot in force has no more, so that what was removed does
    /// not stay for ever. Requests that still run on the old snapshot count into the void.
    pub fn remove_routes(&self, gone: &[RouteKey]) {
        if gone.is_empty() {
            return;
        }
        let mut routes = self.routes.lock();
        for key in gone {
            routes.remove(key);
        }
    }

    /// The connection counters of a listener. Takes a lock: for start-up, not for connections.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut listeners = self.listeners.lock();
        Arc::clone(listeners.entry(name.into()).or_default())
    }

    /// Counts a request that begins.
    #[inline]
    pub fn started(&self) {
        self.started.add(0, 1);
    }

    /// Counts a request that the gateway itself refused.
    #[inline]
    pub fn refused(&self, reason: Reason) {
        self.refusals.add(reason as usize, 1);
    }

    /// Requests refused for `reason` so far.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refusals.sums()[reason as usize]
    }

    /// Counts a TLS handshake that failed. `reason` is a label, hence a constant. Takes a read lock.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.with_label_values(&[reason]).inc();
    }

    /// Counts a read of certificate files. `outcome` is a label, hence a constant.
    pub fn certificates_read(&self, outcome: &'static str) {
        self.certificate_reloads.with_label_values(&[outcome]).inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts an upgrade.
    pub fn upgraded(&self, outcome: UpgradeOutcome) {
        self.upgrades.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Notes when the snapshot in force was taken, and how many tenants it has.
    pub fn snapshot_taken(&self, at: SystemTime, tenants: usize) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.snapshot_timestamp.set(since.as_secs_f64());
        self.tenants.set(i64::try_from(tenants).unwrap_or(i64::MAX));
    }

    /// Has `scrape` called at each scrape, for as long as the process lives. It must not call
    /// [`Metrics::encode`] or this function.
    pub fn register_scrape(&self, scrape: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        self.scrapes.write().push(Box::new(scrape));
    }

    /// Everything, in the text format that [`CONTENT_TYPE`] names. For the control plane's thread:
    /// the time it takes grows with the number of routes that saw traffic.
    pub fn encode(&self) -> Vec<u8> {
        let mut scrape = Scrape::default();
        for family in self.registry.gather() {
            scrape.family(family);
        }
        let help = "Requests begun.";
        scrape.counter(
            names::REQUESTS_STARTED_TOTAL,
            help,
            &[],
            self.started.sums()[0],
        );
        for (reason, refused) in Reason::ALL.iter().zip(self.refusals.sums()) {
            let help = "Requests refused by the gateway itself, by reason.";
            let labels = [(label::REASON, reason.code())];
            scrape.counter(names::REFUSALS_TOTAL, help, &labels, refused);
        }
        self.scrape_listeners(&mut scrape);
        self.scrape_routes(&mut scrape);
        process::scrape(&mut scrape);
        for function in self.scrapes.read().iter() {
            function(&mut scrape);
        }
        scrape.into_text()
    }

    fn scrape_listeners(&self, scrape: &mut Scrape) {
        let mut listeners: Vec<(Box<str>, Arc<ListenerMetrics>)> = {
            let listeners = self.listeners.lock();
            let copies = listeners.iter();
            copies
                .map(|(name, metrics)| (name.clone(), Arc::clone(metrics)))
                .collect()
        };
        listeners.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, metrics) in listeners {
            let (opened, closed) = metrics.totals();
            let labels = [(label::LISTENER, &*name)];
            let help = "Downstream connections accepted, by listener.";
            scrape.counter(names::CONNECTIONS_OPENED_TOTAL, help, &labels, opened);
            let help = "Downstream connections closed, by listener.";
            scrape.counter(names::CONNECTIONS_CLOSED_TOTAL, help, &labels, closed);
        }
    }

    fn scrape_routes(&self, scrape: &mut Scrape) {
        // Copied, so that a reload never waits for the encoding of ten thousand routes.
        let mut routes: Vec<_> = {
            let routes = self.routes.lock();
            let copy = |(key, metrics): (&RouteKey, &Arc<_>)| (key.clone(), Arc::clone(metrics));
            routes.iter().map(copy).collect()
        };
        routes.sort_by(|one, other| one.0.cmp(&other.0));
        for (key, metrics) in routes {
            metrics.scrape(&key, scrape);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

// === impl RouteKey ===

impl RouteKey {
    /// A key of these names.
    pub fn new(route: &str, cluster: &str, colour: &str) -> Self {
        Self {
            route: route.into(),
            cluster: cluster.into(),
            colour: colour.into(),
        }
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// Counts a finished request. Two additions and a sum in the calling thread's own cache lines.
    #[inline]
    pub fn finished(&self, status: StatusClass, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_NS.partition_point(|bound| *bound < ns);
        let counters = self.counters.block();
        counters[status as usize].fetch_add(1, Ordering::Relaxed);
        counters[FIRST_BUCKET + bucket].fetch_add(1, Ordering::Relaxed);
        counters[SUM_NS].fetch_add(ns, Ordering::Relaxed);
    }

    /// Finished requests by class of status, in the order of [`StatusClass::ALL`].
    pub fn requests(&self) -> [u64; StatusClass::COUNT] {
        let sums = self.counters.sums();
        std::array::from_fn(|class| sums[class])
    }

    /// Shows nothing until the first request is done: most routes of a large configuration are
    /// quiet, and each would cost more than twenty lines.
    fn scrape(&self, key: &RouteKey, scrape: &mut Scrape) {
        let sums = self.counters.sums();
        let buckets = &sums[FIRST_BUCKET..SUM_NS];
        if buckets.iter().all(|count| *count == 0) {
            return;
        }
        let names = [
            (label::ROUTE, &*key.route),
            (label::CLUSTER, &*key.cluster),
            (label::COLOUR, &*key.colour),
        ];
        for (class, count) in StatusClass::ALL.iter().zip(&sums) {
            let labels = [
                names[0],
                names[1],
                names[2],
                (label::STATUS, class.as_str()),
            ];
            let help = "Requests finished, by route, cluster, colour and class of status.";
            scrape.counter(names::REQUESTS_TOTAL, help, &labels, *count);
        }
        let seconds = Duration::from_nanos(sums[SUM_NS]).as_secs_f64();
        let help = "Seconds from the first byte of the head to the end of the answer.";
        let bounds = &DURATION_BOUNDS;
        scrape.histogram(
            names::REQUEST_SECONDS,
            help,
            &names,
            bounds,
            buckets,
            seconds,
        );
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// Counts a connection that was accepted.
    pub fn opened(&self) {
        self.counters.add(0, 1);
    }

    /// Counts a connection that is gone.
    pub fn closed(&self) {
        self.counters.add(1, 1);
    }

    /// Opened and closed so far.
    pub fn totals(&self) -> (u64, u64) {
        let [opened, closed] = self.counters.sums();
        (opened, closed)
    }
}

// === impl StatusClass ===

impl StatusClass {
    /// Number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// Every class, in the order in which arrays by class hold them.
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

    /// The class of `status`; 0 stands for no answer.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }

    /// As the label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::None => "none",
        }
    }
}

// === impl UpgradeOutcome ===

impl UpgradeOutcome {
    /// As the label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }
}

// === impl ReloadOutcome ===

impl ReloadOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [
        Self::Applied,
        Self::Unchanged,
        Self::Rejected,
        Self::NeedsUpgrade,
    ];

    /// As the label and the admin API have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::NeedsUpgrade => "needs_upgrade",
        }
    }
}

#[cfg(test)]
mod tests;
