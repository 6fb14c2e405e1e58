//! What one tenant has used and is using: its quota, its bulkhead, its counters.
//!
//! One [`TenantState`] per tenant lives in an [`Arc`] across reloads, so a reload neither gives a tenant
//! a fresh burst nor loses its counts. All of it is atomics: no tenant waits for another, and two
//! requests of one tenant meet only on its own cache lines.

use crate::limit::{Decision, gcra};
use hub_config::runtime::{Colour, Quota};
use hub_core::{Reason, Refusal};
use hub_stats::gcra::{Gcra, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Classes of status that are counted apart.
pub const CLASSES: usize = 6;

/// Counters and limits of one tenant.
///
/// Memory: 128 bytes with the two counts of its [`Arc`]. Allocators that keep blocks of a power of two
/// on multiples of their size, as mimalloc and jemalloc do, so give each tenant cache lines of its own;
/// forcing that with `align(64)` would cost half as much again for 100,000 tenants.
#[derive(Debug, Default)]
pub struct TenantState {
    /// The quota's theoretical arrival time.
    tat: AtomicU64,
    /// The tolerance of the quota under which `tat` was stored; 0 before the first.
    tolerance: AtomicU64,
    requests: [AtomicU64; CLASSES],
    limited: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    in_flight: AtomicU32,
    /// Of these, those on each colour of any cluster.
    on: [AtomicU32; 2],
    websockets: AtomicU32,
    /// Fills the last of the 128 bytes.
    _rest: u32,
}

/// One place among a tenant's WebSocket sessions; given back on drop.
#[derive(Debug)]
#[must_use = "the place is given back as soon as this is dropped"]
pub struct WebSocketPlace(Arc<TenantState>);

/// One place among a tenant's requests in flight; given back on drop.
#[derive(Debug)]
#[must_use = "the place is given back as soon as this is dropped"]
pub struct Permit {
    state: Arc<TenantState>,
    colour: Option<Colour>,
}

/// What has been counted so far. Fields may differ by requests that ended while they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests finished, by class of status: 1xx, 2xx, 3xx, 4xx, 5xx, none.
    pub by_class: [u64; CLASSES],
    /// Requests refused by a limit of this tenant.
    pub limited: u64,
    /// Body bytes from clients.
    pub bytes_in: u64,
    /// Body bytes to clients.
    pub bytes_out: u64,
}

// === impl TenantState ===

impl TenantState {
    /// Holds one request to the tenant's quota and, where it may pass, charges it. `now` is nanoseconds
    /// on the process's monotonic clock.
    pub fn check_quota(&self, quota: &Quota, now: u64) -> Decision {
        let gcra = gcra(quota);
        Decision::new(&gcra, self.charge(&gcra, now))
    }

    /// What [`TenantState::check_quota`] would say, without charging the tenant.
    pub fn peek_quota(&self, quota: &Quota, now: u64) -> Decision {
        let gcra = gcra(quota);
        let tat = self.tat.load(Ordering::Relaxed);
        Decision::new(&gcra, gcra.step(self.under(&gcra, tat, now), now, 1))
    }

    /// Takes one of at most `in_flight_max` places (`None`: as many as come).
    ///
    /// # Errors
    /// [`Reason::TenantBusy`] where all are taken. Exact: a request that is turned away takes no
    /// place, not even for a moment, so it never turns another away.
    pub fn enter(state: &Arc<Self>, in_flight_max: Option<u32>) -> Result<Permit, Refusal> {
        // A limit of none is one of 4 billion, which memory runs out before.
        let most = in_flight_max.unwrap_or(u32::MAX);
        let taken =
            state
                .in_flight
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_flight| {
                    (in_flight < most).then_some(in_flight + 1)
                });
        match taken {
            Ok(_) => Ok(Permit {
                state: Arc::clone(state),
                colour: None,
            }),
            Err(_) => Err(Refusal::new(Reason::TenantBusy).retry_after(1)),
        }
    }

    /// Holds one request to quota and bulkhead, in this order: a request without a place is still
    /// charged, since a client that is turned away at once would otherwise ask again without end.
    ///
    /// # Errors
    /// [`Reason::TenantLimited`] or [`Reason::TenantBusy`], each with `Retry-After`.
    pub fn acquire(
        state: &Arc<Self>,
        quota: Option<&Quota>,
        in_flight_max: Option<u32>,
        now: u64,
    ) -> Result<Permit, Refusal> {
        if let Some(seconds) =
            quota.and_then(|quota| state.check_quota(quota, now).retry_after_seconds())
        {
            return Err(Refusal::new(Reason::TenantLimited).retry_after(seconds));
        }
        Self::enter(state, in_flight_max)
    }

    /// Takes one of at most `websockets_max` places (`None`: as many as come).
    ///
    /// # Errors
    /// [`Reason::TenantWebSockets`] where all are taken.
    pub fn open_websocket(
        state: &Arc<Self>,
        websockets_max: Option<u32>,
    ) -> Result<WebSocketPlace, Refusal> {
        let most = websockets_max.unwrap_or(u32::MAX);
        let next = |open: u32| (open < most).then_some(open + 1);
        let websockets = &state.websockets;
        match websockets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(WebSocketPlace(Arc::clone(state))),
            Err(_) => Err(Refusal::new(Reason::TenantWebSockets).retry_after(1)),
        }
    }

    /// Counts bytes that went through after a request was counted.
    pub fn transferred(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// Counts a finished request. `status` 0 means that the client got none.
    pub fn record(&self, status: u16, bytes_in: u64, bytes_out: u64, limited: bool) {
        let class = match status {
            100..=599 => usize::from(status / 100) - 1,
            _ => CLASSES - 1,
        };
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        // Most requests have nothing to add to some of these, and a load is cheaper than an addition.
        for (counter, amount) in [
            (&self.limited, u64::from(limited)),
            (&self.bytes_in, bytes_in),
            (&self.bytes_out, bytes_out),
        ] {
            if amount > 0 {
                counter.fetch_add(amount, Ordering::Relaxed);
            }
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests in flight on a colour, of whatever cluster.
    pub fn on(&self, colour: Colour) -> u32 {
        self.on[colour as usize].load(Ordering::Relaxed)
    }

    /// What has been counted so far.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            by_class: std::array::from_fn(|class| read(&self.requests[class])),
            limited: read(&self.limited),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
        }
    }

    fn charge(&self, gcra: &Gcra, now: u64) -> Verdict {
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let owed = self.under(gcra, tat, now);
            let verdict = gcra.step(owed, now, 1);
            let next = match verdict {
                Verdict::Allowed { tat, .. } => tat,
                Verdict::Limited { .. } => owed,
            };
            if next != tat {
                // Each failure means that another request of this tenant was judged meanwhile.
                if let Err(newer) =
                    self.tat
                        .compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed)
                {
                    tat = newer;
                    continue;
                }
            }
            if self.tolerance.load(Ordering::Relaxed) != gcra.tolerance() {
                self.tolerance.store(gcra.tolerance(), Ordering::Relaxed);
            }
            return verdict;
        }
    }

    /// The debt under `gcra`. It is cut to what `gcra` can hold only where the quota has changed since
    /// it was stored: cutting it always would let a request with an old `now` win budget back.
    fn under(&self, gcra: &Gcra, tat: u64, now: u64) -> u64 {
        if self.tolerance.load(Ordering::Relaxed) == gcra.tolerance() {
            tat
        } else {
            gcra.clamp(tat, now)
        }
    }
}

// === impl Permit ===

impl Permit {
    /// Counts the request on a colour until the permit is dropped.
    pub(crate) fn count_on(&mut self, colour: Colour) {
        self.uncount();
        self.colour = Some(colour);
        self.state.on[colour as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn uncount(&mut self) {
        if let Some(colour) = self.colour.take() {
            self.state.on[colour as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for WebSocketPlace {
    fn drop(&mut self) {
        self.0.websockets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.uncount();
        let before = self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "every permit has taken a place");
    }
}

// === impl Totals ===

impl Totals {
    /// Requests finished, whatever their status.
    pub fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Allowed { .. })
    }

    #[test]
    fn a_tenant_takes_two_cache_lines() {
        let counts = 2 * size_of::<usize>();
        assert_eq!(size_of::<TenantState>() + counts, 128);
    }

    #[test]
    fn threads_together_get_no_more_than_the_burst() {
        let state = TenantState::default();
        let gcra = Gcra::new(1, Duration::from_secs(1), 500);
        let passed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if allowed(state.charge(&gcra, SECOND)) {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 500);
    }

    #[test]
    fn a_changed_quota_applies_at_once() {
        let state = TenantState::default();
        let hourly = Gcra::new(1, Duration::from_secs(3_600), 3);
        while allowed(state.charge(&hourly, SECOND)) {}
        let faster = Gcra::new(10, Duration::from_secs(1), 1);
        assert!(
            !allowed(state.charge(&faster, SECOND)),
            "a reload is no fresh burst"
        );
        assert!(allowed(state.charge(&faster, SECOND + SECOND / 10)));
        assert!(!allowed(state.charge(&faster, SECOND + SECOND / 10)));
    }

    #[test]
    fn a_request_with_an_old_time_wins_nothing_back() {
        let state = TenantState::default();
        let gcra = Gcra::new(1, Duration::from_secs(1), 10);
        while allowed(state.charge(&gcra, 100 * SECOND)) {}
        assert!(!allowed(state.charge(&gcra, 90 * SECOND)));
        assert!(!allowed(state.charge(&gcra, 100 * SECOND)));
    }

    #[test]
    fn no_more_than_the_allowed_requests_are_in_flight_and_places_come_back() {
        let state = Arc::new(TenantState::default());
        let first = TenantState::enter(&state, Some(2)).expect("there are two places");
        let second = TenantState::enter(&state, Some(2)).expect("one is left");
        let refused = TenantState::enter(&state, Some(2)).expect_err("both are taken");
        assert_eq!(refused.reason, Reason::TenantBusy);
        assert_eq!(refused.retry_after_seconds, Some(1));
        assert_eq!(state.in_flight(), 2);
        drop(first);
        let _third = TenantState::enter(&state, Some(2)).expect("a place came back");
        drop(second);
        assert_eq!(state.in_flight(), 1);
        let _fourth = TenantState::enter(&state, None).expect("there is no limit");
    }

    #[test]
    fn threads_never_exceed_the_bulkhead_and_leave_it_empty() {
        let state = Arc::new(TenantState::default());
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if let Ok(_permit) = TenantState::enter(&state, Some(2)) {
                            most.fetch_max(state.in_flight(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
        assert_eq!(state.in_flight(), 0);
    }

    #[test]
    fn requests_are_counted_by_class_of_status() {
        let state = TenantState::default();
        for status in [101, 200, 204, 304, 404, 429, 500, 0, 999] {
            state.record(status, 10, 20, status == 429);
        }
        let totals = state.totals();
        assert_eq!(totals.by_class, [1, 2, 1, 2, 1, 2]);
        assert_eq!(totals.requests(), 9);
        assert_eq!(
            (totals.limited, totals.bytes_in, totals.bytes_out),
            (1, 90, 180)
        );
    }
}
