//! What one process shares: the snapshot in force and the state that outlives snapshots.

use crate::front::listener::BoundListener;
use crate::lifecycle::{InFlight, Lifecycle, Phase};
use crate::limit::Limiter;
use crate::snapshot::{Snapshot, colour_name};
use crate::switch::metrics::RolloutMetrics;
use crate::switch::plan::Routing;
use crate::switch::traffic::Switchboard;
use crate::telemetry::access_log::Prepared as PreparedLog;
use crate::telemetry::metrics::RouteKey;
use crate::telemetry::{
    AccessLog, Metrics, ProcessLog, Refusals, Scrape, TenantCounters, TenantGate, TenantTotals,
    UpstreamMetrics,
};
use crate::tenant_state::TenantState;
use crate::websocket::registry::Registry;
use arc_swap::{ArcSwap, Guard};
use hub_config::runtime::{Colour, Listener};
use hub_core::names::{self, label};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// State that every snapshot of the process uses.
#[derive(Debug)]
pub struct Shared {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: AccessLog,
    /// The limiter's table.
    pub limiter: Limiter,
    /// Refused requests, for `explain`.
    pub refusals: Refusals,
    /// Connections to upstreams.
    pub upstreams: UpstreamMetrics,
    /// The process's own log.
    pub process_log: ProcessLog,
    /// Which tenants have metrics under their own name.
    pub tenant_gate: Mutex<TenantGate>,
    /// Names of the bound listeners, in order.
    pub listener_names: Vec<String>,
    /// Who gets which colour.
    pub switchboard: Switchboard,
    /// What rollouts do.
    pub rollouts: RolloutMetrics,
    /// Open WebSockets.
    pub websockets: Registry,
}

/// One gateway process.
#[derive(Debug)]
pub struct Hub {
    snapshot: ArcSwap<Snapshot>,
    shared: Shared,
    pub(crate) listeners: Vec<Arc<BoundListener>>,
    lifecycle: Arc<Lifecycle>,
    started: Instant,
    retired: AtomicUsize,
}

impl std::ops::Deref for Hub {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    /// Settings of the bound listeners, in the order in which they were bound. A reload that would
    /// add or remove one has been refused before.
    pub(crate) fn in_bound_order(&self, listeners: &[Arc<Listener>]) -> Vec<Arc<Listener>> {
        self.listener_names
            .iter()
            .filter_map(|name| listeners.iter().find(|l| l.name == *name))
            .map(Arc::clone)
            .collect()
    }
}

impl Hub {
    pub(crate) fn new(
        first: Snapshot,
        shared: Shared,
        listeners: Vec<Arc<BoundListener>>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(first),
            shared,
            listeners,
            lifecycle,
            started: Instant::now(),
            retired: AtomicUsize::new(0),
        }
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The snapshot in force, for a short look.
    pub(crate) fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Puts `next` in force, with the routing of this moment. Hands back what was in force and what is. The
    /// caller drops the old one where that costs nobody anything: freeing 100,000 tenants takes
    /// milliseconds.
    pub(crate) fn swap(&self, next: &Arc<Snapshot>) -> (Arc<Snapshot>, Arc<Snapshot>) {
        let mut changing = self.switchboard.change();
        let routing = changing.routing(&next.config);
        let epoch = self.snapshot.load().epoch + 1;
        let next = Arc::new(next.with_routing(epoch, routing));
        let old = self.snapshot.swap(Arc::clone(&next));
        drop(changing);
        self.websockets.rerouted(&next);
        (old, next)
    }

    /// Puts a cluster's routing in force and hands back the snapshot that was, for the reload thread to
    /// free, and when the routing before was closed, where this is another one. Requests that have seen the
    /// old routing and not yet entered it are sent to the new one.
    pub(crate) fn reroute(
        &self,
        cluster: &str,
        routing: Routing,
        epoch: u64,
    ) -> (Arc<Snapshot>, Option<Instant>) {
        let mut changing = self.switchboard.change();
        let closed_at = changing.decide(cluster, routing, epoch);
        let present = self.snapshot.load_full();
        let routing = changing.routing(&present.config);
        let next = Arc::new(present.with_routing(present.epoch + 1, routing));
        let old = self.snapshot.swap(Arc::clone(&next));
        drop(changing);
        self.websockets.rerouted(&next);
        (old, closed_at)
    }

    /// Brings what lives beside snapshots in line with the one in force: bounds, levels, targets, and
    /// metrics of what is `gone`. `old` is the one before; what did not change is left alone.
    pub(crate) fn after_swap(
        &self,
        old: Option<&Snapshot>,
        new: &Snapshot,
        gone: &[RouteKey],
        log: Option<PreparedLog>,
    ) {
        let config = &new.config;
        self.metrics
            .snapshot_taken(new.taken_at, config.tenants.len());
        self.metrics.remove_routes(gone);
        let clusters: HashSet<&str> = config.clusters.iter().map(|c| c.name.as_str()).collect();
        self.upstreams.retain(|cluster| clusters.contains(cluster));
        self.rollouts.configure(clusters.iter().copied());
        let sockets = config.routes.iter().filter(|one| one.websocket.is_some());
        let sockets: HashSet<&str> = sockets.map(|one| one.name.as_str()).collect();
        self.websockets.retain(|route| sockets.contains(route));
        let Some(old) = old.map(|old| &old.config) else {
            // Everything was made from the first configuration.
            return;
        };
        self.limiter.resize(config.limiter_keys_max);
        if old.gateway.log_level != config.gateway.log_level {
            self.process_log.set_level(config.gateway.log_level);
        }
        self.refusals.set_capacity(config.admin.refusals_remembered);
        self.tenant_gate
            .lock()
            .set_places_max(config.tenant_labels_max);
        if old.access_log != config.access_log {
            let settings = &config.access_log;
            self.access_log
                .commit(log, settings.queue_lines, settings.flush_interval);
        }
    }

    /// Snapshots that are no longer in force and still held by requests.
    pub(crate) fn set_retired(&self, count: usize) {
        self.retired.store(count, Ordering::Relaxed);
    }

    /// All metrics as text. Linear in routes and tenants with traffic.
    pub(crate) fn scrape(&self) -> Vec<u8> {
        self.metrics.encode()
    }

    /// Has metrics of the snapshot in force, and of what lives beside it, added to every scrape.
    pub(crate) fn join_scrapes(self: &Arc<Self>) {
        // Weak, because the metrics are part of the hub.
        let hub = Arc::downgrade(self);
        self.metrics.register_scrape(move |scrape| {
            if let Some(hub) = hub.upgrade() {
                hub.add_to(scrape);
            }
        });
    }

    fn add_to(&self, scrape: &mut Scrape) {
        self.access_log.scrape(scrape);
        self.upstreams.scrape(scrape);
        self.rollouts.scrape(scrape);
        self.websockets.scrape(scrape);
        scrape.counter(
            names::LIMITER_EVICTIONS_TOTAL,
            "Keys forgotten by the limiter while they still counted, because its table was full.",
            &[],
            self.limiter.evictions(),
        );
        self.add_certificates(scrape);
        let retired = self.retired.load(Ordering::Relaxed);
        scrape.gauge(
            names::SNAPSHOTS_RETIRED,
            "Snapshots that are no longer in force and still held by requests.",
            &[],
            u32::try_from(retired).map_or(f64::INFINITY, f64::from),
        );
        // Taken under the gate's lock: of two scrapes at once, the one that comes second must not bring
        // the older snapshot, or tenants that the first has met would seem to be gone.
        let mut gate = self.tenant_gate.lock();
        let snapshot = self.snapshot();
        add_endpoints(&snapshot, scrape);
        add_plugins(&snapshot, scrape);
        let tenants = snapshot.config.tenants.iter();
        let counted = tenants.map(|(index, tenant)| CountedTenant {
            id: tenant.id.as_str(),
            state: snapshot.tenant(index),
        });
        gate.scrape(Instant::now(), counted, scrape);
    }

    /// Adds when each certificate in use expires. Read anew each time, so that one that is no longer
    /// in use leaves no series behind, whose time would come and worry somebody.
    fn add_certificates(&self, scrape: &mut Scrape) {
        let tls = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        let certificates = tls.flat_map(|tls| tls.certificates());
        // Listeners may share a file.
        let by_file: BTreeMap<_, _> = certificates
            .map(|certificate| (certificate.file, certificate.not_after_unix_seconds))
            .collect();
        for (file, seconds) in by_file {
            #[expect(clippy::cast_precision_loss, reason = "seconds of any year are exact")]
            scrape.gauge(
                names::TLS_CERTIFICATE_EXPIRY_SECONDS,
                "When the certificate expires, in seconds since 1970.",
                &[(label::FILE, &file.to_string_lossy())],
                seconds as f64,
            );
        }
    }

    /// Where the process stands.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Counts a request in flight.
    pub(crate) fn begin(&self) -> InFlight {
        self.lifecycle.begin()
    }

    /// True where clients should go elsewhere for their next request.
    pub(crate) fn asks_clients_to_leave(&self) -> bool {
        self.lifecycle.phase() >= Phase::Notice
    }

    /// Nanoseconds on the clock that limits run on.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        // 584 years fit. One hour is added so that a fresh limiter is never younger than its period.
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(3_600_000_000_000)
    }
}

/// Adds the health of every endpoint.
fn add_endpoints(snapshot: &Snapshot, scrape: &mut Scrape) {
    for (index, cluster) in snapshot.config.clusters.iter().enumerate() {
        for colour in [Colour::Blue, Colour::Green] {
            for endpoint in snapshot.clusters.endpoints(index, colour) {
                scrape.gauge(
                    names::ENDPOINT_HEALTHY,
                    "1 where the endpoint takes traffic.",
                    &[
                        (label::CLUSTER, &cluster.name),
                        (label::COLOUR, colour_name(colour)),
                        (label::ENDPOINT, endpoint.name()),
                    ],
                    if endpoint.is_usable() { 1.0 } else { 0.0 },
                );
            }
        }
    }
}

/// Adds what plugins count.
fn add_plugins(snapshot: &Snapshot, scrape: &mut Scrape) {
    for (name, plugin) in snapshot.plugins() {
        for (outcome, count) in plugin.counters() {
            scrape.counter(
                names::JWKS_FETCHES_TOTAL,
                "Fetches of keys, by plugin and outcome.",
                &[(label::PLUGIN, name), (label::OUTCOME, outcome)],
                count,
            );
        }
    }
}

/// A tenant's counters under its name.
struct CountedTenant<'s> {
    id: &'s str,
    state: &'s TenantState,
}

impl TenantCounters for CountedTenant<'_> {
    fn id(&self) -> &str {
        self.id
    }

    fn read(&self) -> TenantTotals {
        let totals = self.state.totals();
        TenantTotals {
            requests: totals.by_class,
            limited: totals.limited,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
        }
    }
}
