//! Every open session of the process, by number, and what counts them by route. Whoever wants something of a
//! session leaves an order; nobody else touches its sockets.
//!
//! Bounded by the connections that listeners take, and by the configuration's routes.

use crate::lifecycle::Phase;
use crate::snapshot::{Snapshot, colour_name};
use crate::stages::pick;
use crate::telemetry::Scrape;
use crate::tenant_state::{TenantState, WebSocketPlace};
use hub_config::runtime::{Colour, OnSwitch, OnUpgrade, WebSocket};
use hub_core::names::{self, label};
use hub_core::{LocationId, Reason, Refusal, RequestId};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Parts of the table: opening and closing on many workers does not queue on one lock.
const SHARDS: usize = 16;
/// Codes of Close that are counted by themselves; the rest is `other`.
const CODES: [u16; 13] = [
    1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 1014,
];
/// Service restart: a client may come again at once.
const RESTART: u16 = 1012;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the application.
    In,
    /// From the application to the client.
    Out,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    last: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    routes: Mutex<BTreeMap<String, Arc<RouteCounters>>>,
}

/// What counts the sessions of a route. Outlives reloads.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    open: AtomicU32,
    opened: AtomicU64,
    /// By direction.
    messages: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    closed: [AtomicU64; CODES.len() + 1],
}

/// A session as others see it.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u64,
    pub(crate) about: About,
    pub(crate) opened: Instant,
    /// Messages and bytes, by direction.
    passed: [[AtomicU64; 2]; 2],
    inbox: Mutex<Inbox>,
}

/// What is known of a session when it opens.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) request_id: RequestId,
    pub(crate) route: Box<str>,
    pub(crate) cluster: Box<str>,
    pub(crate) colour: Colour,
    pub(crate) endpoint: Box<str>,
    pub(crate) tenant: Option<LocationId>,
    pub(crate) client: IpAddr,
    pub(crate) settings: Arc<WebSocket>,
}

#[derive(Debug, Default)]
struct Inbox {
    order: Option<Order>,
    /// Epoch of the snapshot that was followed last.
    followed: u64,
    /// The session has not seen the order, or that it was withdrawn.
    is_new: bool,
    waker: Option<Waker>,
}

/// What a session is to do: close, at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) cause: Cause,
    pub(crate) at: Instant,
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

/// Why a session is to close; of two, the greater one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Its tenant is on the other colour now.
    Switch,
    /// Another process has taken over.
    Upgrade,
    /// The process ends.
    Stop,
    /// An operator wants it to.
    Operator,
    /// Its tenant is not served any more.
    Tenant,
    /// The process does not wait any longer: it ends without a Close.
    Cut,
}

/// Which sessions are meant: those that are all of this.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    pub(crate) session: Option<u64>,
    pub(crate) tenant: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) colour: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// Takes a session from the table when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<crate::hub::Hub>,
    pub(crate) entry: Arc<Entry>,
}

/// A place among the sessions of a route and of a tenant; given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) route: Arc<RouteCounters>,
    _tenant: Option<WebSocketPlace>,
}

// === impl Registry ===

impl Registry {
    /// The counters of a route, the same ones as long as it is configured. Takes a lock: for building
    /// snapshots.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteCounters> {
        let mut routes = self.routes.lock();
        Arc::clone(routes.entry(name.to_owned()).or_default())
    }

    /// Drops the series of routes for which `keep` is false.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.routes.lock().retain(|name, _| keep(name));
    }

    /// Ends all at once and without a Close.
    pub(crate) fn cut(&self) {
        let at = Instant::now();
        self.each(|entry| {
            entry.order(Order {
                cause: Cause::Cut,
                at,
                code: 1006,
                reason: "",
            });
        });
    }

    /// Adds a session, which is where it is by the snapshot of the epoch `followed`.
    pub(crate) fn open(hub: &Arc<crate::hub::Hub>, about: About, followed: u64) -> Ticket {
        let registry = &hub.websockets;
        let number = registry.last.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            number,
            about,
            opened: Instant::now(),
            passed: Default::default(),
            inbox: Mutex::new(Inbox {
                followed,
                ..Inbox::default()
            }),
        });
        registry
            .shard(number)
            .lock()
            .insert(number, Arc::clone(&entry));
        Ticket {
            hub: Arc::clone(hub),
            entry,
        }
    }

    fn shard(&self, number: u64) -> &Mutex<HashMap<u64, Arc<Entry>>> {
        &self.shards[(number % SHARDS as u64) as usize]
    }

    fn each(&self, mut see: impl FnMut(&Entry)) {
        for shard in &self.shards {
            shard.lock().values().for_each(|entry| see(entry));
        }
    }

    /// Sessions that are open.
    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The routing in force is another one: sessions whose tenant has moved do what their route says, and
    /// those whose tenant has come back stay.
    pub(crate) fn rerouted(&self, snapshot: &Snapshot) {
        let clusters: HashMap<&str, usize> = snapshot
            .config
            .clusters
            .iter()
            .enumerate()
            .map(|(index, cluster)| (cluster.name.as_str(), index))
            .collect();
        self.each(|entry| {
            entry.follow(snapshot, clusters.get(&*entry.about.cluster).copied());
        });
    }

    /// Has a session that has just been added do what all others were told while it was not there.
    pub(crate) fn catch_up(hub: &crate::hub::Hub, entry: &Entry) {
        let snapshot = hub.snapshot();
        let mut clusters = snapshot.config.clusters.iter();
        let cluster = clusters.position(|cluster| cluster.name == *entry.about.cluster);
        entry.follow(&snapshot, cluster);
        let phase = hub.lifecycle().phase();
        if phase >= Phase::HandedOver {
            entry.leave_to_successor(Instant::now());
        }
        if phase == Phase::Draining {
            entry.stop(Instant::now(), Duration::ZERO);
        }
    }

    /// Another process has taken over: sessions of routes that drain then are closed over their jitter.
    pub(crate) fn handed_over(&self) {
        let now = Instant::now();
        self.each(|entry| entry.leave_to_successor(now));
    }

    /// The process ends: all are closed, over `spread` at most.
    pub(crate) fn stop(&self, spread: Duration) {
        let now = Instant::now();
        self.each(|entry| entry.stop(now, spread));
    }

    /// Closes the sessions that are meant, spread over that long; how many they are.
    pub(crate) fn close(&self, which: &Which, code: u16, spread: Duration) -> usize {
        let now = Instant::now();
        let mut count = 0;
        self.each(|entry| {
            if which.means(entry) {
                count += 1;
                entry.order(Order {
                    cause: Cause::Operator,
                    at: now + spread.mul_f64(rand::random()),
                    code,
                    reason: "closed by the operator",
                });
            }
        });
        count
    }

    /// The sessions that are meant, `limit` of them at most and the oldest first, and how many they are; and
    /// what was counted by route.
    pub(crate) fn show(&self, which: &Which, limit: usize) -> Value {
        let mut oldest = BinaryHeap::new();
        let mut count = 0;
        for shard in &self.shards {
            for entry in shard.lock().values() {
                if which.means(entry) {
                    count += 1;
                    oldest.push(Arc::clone(entry));
                    if oldest.len() > limit {
                        oldest.pop();
                    }
                }
            }
        }
        let sessions = oldest.into_sorted_vec();
        let sessions: Vec<_> = sessions.iter().map(|entry| entry.show()).collect();
        let routes = self.routes.lock();
        let routes: Vec<_> = routes
            .iter()
            .filter(|(route, _)| which.route.as_ref().is_none_or(|wanted| wanted == *route))
            .map(|(route, counters)| counters.show(route))
            .collect();
        json!({"routes": routes, "matching": count, "sessions": sessions})
    }

    /// Adds all series to a scrape.
    pub(crate) fn scrape(&self, scrape: &mut Scrape) {
        let routes = self.routes.lock();
        for (route, counters) in routes.iter() {
            let route = (label::ROUTE, route.as_str());
            scrape.gauge(
                names::WEBSOCKETS_OPEN,
                "WebSocket sessions that are open.",
                &[route],
                f64::from(counters.open.load(Ordering::Relaxed)),
            );
            scrape.counter(
                names::WEBSOCKETS_OPENED_TOTAL,
                "WebSocket sessions that were opened.",
                &[route],
                counters.opened.load(Ordering::Relaxed),
            );
            for (at, closed) in counters.closed.iter().enumerate() {
                let count = closed.load(Ordering::Relaxed);
                if count > 0 {
                    let code = &code_name(at);
                    scrape.counter(
                        names::WEBSOCKETS_CLOSED_TOTAL,
                        "WebSocket sessions that have ended, by the code of the Close; 1006 where there was none.",
                        &[route, (label::CODE, code)],
                        count,
                    );
                }
            }
            for (at, direction) in ["in", "out"].into_iter().enumerate() {
                let labels = [route, (label::DIRECTION, direction)];
                scrape.counter(
                    names::WEBSOCKET_MESSAGES_TOTAL,
                    "WebSocket messages passed on: `in` from clients, `out` to them.",
                    &labels,
                    counters.messages[at].load(Ordering::Relaxed),
                );
                scrape.counter(
                    names::WEBSOCKET_BYTES_TOTAL,
                    "Bytes of WebSocket frames, heads included: `in` from clients, `out` to them.",
                    &labels,
                    counters.bytes[at].load(Ordering::Relaxed),
                );
            }
        }
    }
}

// === impl RouteCounters ===

impl RouteCounters {
    /// So much went through.
    pub(crate) fn passed(&self, direction: Direction, messages: u64, bytes: u64) {
        let at = direction as usize;
        self.messages[at].fetch_add(messages, Ordering::Relaxed);
        self.bytes[at].fetch_add(bytes, Ordering::Relaxed);
    }

    /// As the admin API shows them.
    fn show(&self, route: &str) -> Value {
        let closed = self.closed.iter().enumerate();
        let closed: BTreeMap<String, u64> = closed
            .map(|(at, count)| (code_name(at), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        json!({
            "route": route,
            "open": self.open.load(Ordering::Relaxed),
            "opened": self.opened.load(Ordering::Relaxed),
            "messages_in": self.messages[0].load(Ordering::Relaxed),
            "messages_out": self.messages[1].load(Ordering::Relaxed),
            "bytes_in": self.bytes[0].load(Ordering::Relaxed),
            "bytes_out": self.bytes[1].load(Ordering::Relaxed),
            "closed": closed,
        })
    }

    /// A session has ended.
    pub(crate) fn closed(&self, code: u16) {
        let at = CODES.iter().position(|known| *known == code);
        self.closed[at.unwrap_or(CODES.len())].fetch_add(1, Ordering::Relaxed);
    }
}

/// The name of a place in [`CODES`].
fn code_name(at: usize) -> String {
    CODES
        .get(at)
        .map_or_else(|| "other".to_owned(), u16::to_string)
}

// === impl Cause ===

impl Cause {
    /// As operators read it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Upgrade => "upgrade",
            Self::Stop => "stop",
            Self::Operator => "operator",
            Self::Tenant => "tenant",
            Self::Cut => "cut",
        }
    }
}

// === impl Which ===

impl Which {
    fn means(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|one| one == has);
        self.session.is_none_or(|number| number == entry.number)
            && self.tenant.as_ref().is_none_or(|one| {
                entry
                    .about
                    .tenant
                    .as_ref()
                    .is_some_and(|id| id.as_str() == one)
            })
            && is(&self.route, &entry.about.route)
            && is(&self.cluster, &entry.about.cluster)
            && is(&self.colour, colour_name(entry.about.colour))
            && is(&self.endpoint, &entry.about.endpoint)
    }

    /// Nothing is said, so all are meant.
    pub(crate) fn is_any(&self) -> bool {
        let Self {
            session,
            tenant,
            route,
            cluster,
            colour,
            endpoint,
        } = self;
        session.is_none()
            && [tenant, route, cluster, colour, endpoint]
                .iter()
                .all(|one| one.is_none())
    }
}

// === impl Place ===

impl Place {
    /// Takes one, where the route and the tenant have any left.
    ///
    /// # Errors
    /// [`Reason::TooManyWebSockets`] and [`Reason::TenantWebSockets`].
    pub(crate) fn take(
        route: &Arc<RouteCounters>,
        on_route_max: Option<u32>,
        tenant: Option<(&Arc<TenantState>, Option<u32>)>,
    ) -> Result<Self, Refusal> {
        let tenant = tenant
            .map(|(state, most)| TenantState::open_websocket(state, most))
            .transpose()?;
        let most = on_route_max.unwrap_or(u32::MAX);
        let next = |open: u32| (open < most).then_some(open + 1);
        let taken = route
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if taken.is_err() {
            return Err(Refusal::new(Reason::TooManyWebSockets).retry_after(1));
        }
        Ok(Self {
            route: Arc::clone(route),
            _tenant: tenant,
        })
    }

    /// The session is open.
    pub(crate) fn opened(&self) {
        self.route.opened.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.route.open.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Entry ===

impl Entry {
    /// Does what its route says where its tenant is on the other colour of its cluster, and ends where there is no
    /// such tenant any more. A snapshot that is not newer than the last one changes nothing: reloads and rollouts
    /// come from different threads.
    fn follow(&self, snapshot: &Snapshot, cluster: Option<usize>) {
        {
            let mut inbox = self.inbox.lock();
            if snapshot.epoch <= inbox.followed {
                return;
            }
            inbox.followed = snapshot.epoch;
        }
        let tenants = &snapshot.config.tenants;
        let tenant = self
            .about
            .tenant
            .as_ref()
            .map(|id| tenants.get(id.as_ref()));
        if tenant.is_some_and(|found| found.is_none_or(|tenant| !tenants[tenant].enabled)) {
            return self.order(Order {
                cause: Cause::Tenant,
                at: Instant::now() + self.about.settings.jitter.mul_f64(rand::random()),
                code: 1008,
                reason: "the location is not served any more",
            });
        }
        // A reload may have removed it; its sessions may end by themselves.
        let Some(cluster) = cluster else { return };
        let spread = match self.about.settings.on_switch {
            OnSwitch::Pin => return,
            OnSwitch::Drain => self.about.settings.jitter,
            OnSwitch::Cut => Duration::ZERO,
        };
        let wanted = pick::colour_on(snapshot, cluster, tenant.flatten(), self.about.client);
        if wanted == self.about.colour {
            self.withdraw(Cause::Switch);
        } else {
            self.order(Order {
                cause: Cause::Switch,
                at: Instant::now() + spread.mul_f64(rand::random()),
                code: RESTART,
                reason: "the application is exchanged",
            });
        }
    }

    fn leave_to_successor(&self, now: Instant) {
        if self.about.settings.on_upgrade == OnUpgrade::Drain {
            self.order(Order {
                cause: Cause::Upgrade,
                at: now + self.about.settings.jitter.mul_f64(rand::random()),
                code: RESTART,
                reason: "the gateway is exchanged",
            });
        }
    }

    fn stop(&self, now: Instant, spread: Duration) {
        let spread = self.about.settings.jitter.min(spread);
        self.order(Order {
            cause: Cause::Stop,
            at: now + spread.mul_f64(rand::random()),
            code: RESTART,
            reason: "the gateway ends",
        });
    }

    /// Leaves an order and wakes the session. Of two, the sooner moment and the greater cause count; of two of
    /// one cause the first, or the jitter would shrink with each, but for an operator's.
    fn order(&self, order: Order) {
        self.inbox.lock().add(order);
    }

    /// So much went through since the last time.
    pub(crate) fn passed(&self, direction: Direction, messages: u64, bytes: u64) {
        let [all, sum] = &self.passed[direction as usize];
        all.fetch_add(messages, Ordering::Relaxed);
        sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// As the admin API shows it.
    fn show(&self) -> Value {
        let number = |direction: Direction, at: usize| {
            self.passed[direction as usize][at].load(Ordering::Relaxed)
        };
        let order = self.inbox.lock().order;
        json!({
            "session": self.number,
            "request_id": self.about.request_id.to_string(),
            "tenant": self.about.tenant.as_ref().map(LocationId::as_str),
            "route": self.about.route,
            "cluster": self.about.cluster,
            "colour": colour_name(self.about.colour),
            "endpoint": self.about.endpoint,
            "client": self.about.client,
            "age_seconds": self.opened.elapsed().as_secs(),
            "messages_in": number(Direction::In, 0),
            "messages_out": number(Direction::Out, 0),
            "bytes_in": number(Direction::In, 1),
            "bytes_out": number(Direction::Out, 1),
            "closes_for": order.map(|order| order.cause.as_str()),
        })
    }

    /// Takes an order of this cause back.
    fn withdraw(&self, cause: Cause) {
        let mut inbox = self.inbox.lock();
        if inbox.order.is_some_and(|known| known.cause == cause) {
            inbox.change(None);
        }
    }

    /// What is ordered, where that is new. Whoever orders next wakes `waker`.
    pub(crate) fn look(&self, waker: &Waker) -> Option<Option<Order>> {
        let mut inbox = self.inbox.lock();
        match &mut inbox.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        std::mem::take(&mut inbox.is_new).then_some(inbox.order)
    }
}

impl Inbox {
    /// See [`Entry::order`].
    fn add(&mut self, order: Order) {
        let both = match self.order {
            None => order,
            Some(known) if known.cause == order.cause && order.cause != Cause::Operator => return,
            Some(known) => {
                let told = if known.cause > order.cause {
                    known
                } else {
                    order
                };
                let at = known.at.min(order.at);
                Order { at, ..told }
            }
        };
        if self.order != Some(both) {
            self.change(Some(both));
        }
    }

    fn change(&mut self, order: Option<Order>) {
        self.order = order;
        self.is_new = true;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// By age: the oldest is the least.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number.cmp(&other.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let number = self.entry.number;
        let shard = self.hub.websockets.shard(number);
        let mut shard = shard.lock();
        shard.remove(&number);
        // After many have left, their table must not stay behind.
        if shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(cause: Cause, after: u64) -> Order {
        static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        Order {
            cause,
            at: *BEGAN + Duration::from_secs(after),
            code: RESTART,
            reason: "",
        }
    }

    fn inbox(orders: &[Order]) -> Inbox {
        let mut inbox = Inbox::default();
        orders.iter().for_each(|order| inbox.add(*order));
        inbox
    }

    #[test]
    fn one_cause_has_one_moment_but_for_an_operator_s() {
        // Else the jitter would shrink with each reload.
        let twice = inbox(&[order(Cause::Switch, 9), order(Cause::Switch, 1)]);
        assert_eq!(twice.order, Some(order(Cause::Switch, 9)));
        let asked = inbox(&[order(Cause::Operator, 9), order(Cause::Operator, 1)]);
        assert_eq!(asked.order, Some(order(Cause::Operator, 1)));
    }

    #[test]
    fn of_two_causes_the_greater_is_told_and_the_sooner_moment_counts() {
        let sooner = inbox(&[order(Cause::Switch, 9), order(Cause::Stop, 1)]);
        assert_eq!(sooner.order, Some(order(Cause::Stop, 1)));
        let later = inbox(&[order(Cause::Switch, 1), order(Cause::Stop, 9)]);
        assert_eq!(later.order, Some(order(Cause::Stop, 1)));
        let lesser = inbox(&[order(Cause::Stop, 9), order(Cause::Switch, 1)]);
        assert_eq!(lesser.order, Some(order(Cause::Stop, 1)));
    }
}
