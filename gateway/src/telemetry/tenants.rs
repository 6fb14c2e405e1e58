//! The cardinality gate: tenants in metrics, without a series for each of 100,000.
//!
//! Requests add to their tenant's own counters and know nothing of this. At scrape time the gate
//! reads all of them and hands each tenant's increase to one series: the tenant's own where it holds
//! one of a bounded number of places, else `other`. Places are given to whoever has traffic first;
//! when all are taken, an election at most once a minute gives them to the busiest. Whoever holds a
//! place keeps it unless a challenger is clearly busier, because each change ends one series and
//! starts another.
//!
//! Invariant: a series never goes down while it is shown, whatever the counters do: a tenant may be
//! removed, and may come back from nought.
//! Invariant: every increase that was read went to exactly one series. So what is shown, plus what
//! was shown by series that ended ([`TenantGate::retired`]), is the sum of all counters.
//!
//! What a tenant was shown with is not added to `other` when it loses its place: `rate()` would see
//! months of its traffic arrive there within one scrape.

use super::metrics::{Scrape, StatusClass};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hub_core::{names, names::label};
use std::time::{Duration, Instant};

/// Label of all tenants without a place. A tenant of this very name is part of it.
pub const OTHER: &str = "other";

/// Least time between two elections.
const TERM: Duration = Duration::from_secs(60);

/// A challenger takes a place with more than this many times the holder's requests ...
const LEAD_FACTOR: u64 = 2;

/// ... and this many on top, so that a handful of requests at night changes nothing.
const LEAD_REQUESTS: u64 = 10;

/// What one tenant's counters say. Each only grows, until the tenant is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantTotals {
    /// Requests finished, in the order of [`StatusClass::ALL`].
    pub requests: [u64; StatusClass::COUNT],
    /// Requests refused by a limit.
    pub limited: u64,
    /// Body bytes from clients.
    pub bytes_in: u64,
    /// Body bytes to clients.
    pub bytes_out: u64,
}

/// Counters of one tenant, as the gate reads them.
pub trait TenantCounters {
    /// The tenant's id.
    fn id(&self) -> &str;

    /// What has been counted so far.
    fn read(&self) -> TenantTotals;
}

impl<T: TenantCounters + ?Sized> TenantCounters for &T {
    fn id(&self) -> &str {
        (**self).id()
    }

    fn read(&self) -> TenantTotals {
        (**self).read()
    }
}

/// Decides which tenants have series of their own. One for the process; it outlives reloads.
///
/// Memory: about 150 bytes for each tenant that has had traffic and still exists.
#[derive(Debug)]
pub struct TenantGate {
    places_max: usize,
    /// Tenants with traffic that were there at the last scrape.
    seen: HashMap<String, Seen, RandomState>,
    places: Vec<Place>,
    other: TenantTotals,
    retired: TenantTotals,
    elected_at: Option<Instant>,
    scrape: u64,
}

/// What is remembered of a tenant between scrapes.
#[derive(Debug, Default)]
struct Seen {
    totals: TenantTotals,
    /// Requests since the last election.
    requests: u64,
    /// Number of the last scrape that had this tenant.
    scrape: u64,
    /// Its position in `places`.
    place: Option<u32>,
}

/// A series of its own.
#[derive(Debug)]
struct Place {
    id: String,
    shown: TenantTotals,
}

impl TenantGate {
    /// A gate with places for `places_max` tenants. None, and all are `other`.
    pub fn new(places_max: usize) -> Self {
        Self {
            places_max,
            seen: HashMap::default(),
            places: Vec::new(),
            other: TenantTotals::default(),
            retired: TenantTotals::default(),
            elected_at: None,
            scrape: 0,
        }
    }

    /// Changes the number of places. With fewer, the quietest holders lose theirs at the next
    /// scrape.
    pub fn set_places_max(&mut self, places_max: usize) {
        self.places_max = places_max;
    }

    /// What was shown by series that ended.
    pub fn retired(&self) -> TenantTotals {
        self.retired
    }

    /// Reads `tenants` (each id once) and adds their series to `scrape`.
    pub fn scrape(
        &mut self,
        now: Instant,
        tenants: impl IntoIterator<Item = impl TenantCounters>,
        scrape: &mut Scrape,
    ) {
        self.update(now, tenants);
        for place in &self.places {
            show(&place.id, &place.shown, scrape);
        }
        if self.other != TenantTotals::default() {
            show(OTHER, &self.other, scrape);
        }
    }

    /// Hands every increase since the last time to a series, then sees who should have one.
    fn update(&mut self, now: Instant, tenants: impl IntoIterator<Item = impl TenantCounters>) {
        self.scrape += 1;
        let free = self.places_max.saturating_sub(self.places.len());
        let mut newcomers = Vec::new();
        for tenant in tenants {
            let totals = tenant.read();
            if totals == TenantTotals::default() {
                continue;
            }
            let id = tenant.id();
            let seen = self.seen.entry_ref(id).or_default();
            let increase = totals.since(&seen.totals);
            seen.totals = totals;
            seen.scrape = self.scrape;
            seen.requests += increase.requests_sum();
            if let Some(place) = seen.place {
                self.places[place as usize].shown.add(&increase);
            } else if free > 0 && id != OTHER && increase != TenantTotals::default() {
                newcomers.push((increase, id.to_owned()));
            } else {
                self.other.add(&increase);
            }
        }
        self.forget_the_gone();
        self.admit(newcomers, free);
        while self.places.len() > self.places_max {
            self.retire_quietest();
        }
        match self.elected_at {
            Some(at) if now.saturating_duration_since(at) < TERM => {}
            Some(_) => {
                self.elect();
                self.elected_at = Some(now);
            }
            None => self.elected_at = Some(now),
        }
    }

    /// Forgets tenants that this scrape did not have.
    fn forget_the_gone(&mut self) {
        let scrape = self.scrape;
        let gone = self.seen.extract_if(|_, seen| seen.scrape != scrape);
        let mut vacated: Vec<u32> = gone.filter_map(|(_, seen)| seen.place).collect();
        // From the last to the first, so that filling a gap from the end moves no gap.
        vacated.sort_unstable_by(|one, other| other.cmp(one));
        for place in vacated {
            self.vacate(place);
        }
    }

    /// Gives the free places to newcomers, the busiest where there are too many. Theirs is the
    /// increase that made them known, since nothing of it has been shown elsewhere.
    fn admit(&mut self, mut newcomers: Vec<(TenantTotals, String)>, free: usize) {
        if newcomers.len() > free {
            newcomers.select_nth_unstable_by(free, |one, other| {
                let busiest_first = other.0.requests_sum().cmp(&one.0.requests_sum());
                busiest_first.then_with(|| one.1.cmp(&other.1))
            });
        }
        for (rank, (increase, id)) in newcomers.into_iter().enumerate() {
            if rank < free {
                self.occupy(id, increase);
            } else {
                self.other.add(&increase);
            }
        }
    }

    /// Lets the busiest without a place challenge the quietest holders, and starts counting anew.
    fn elect(&mut self) {
        let mut challengers: Vec<(u64, &str)> = self
            .seen
            .iter()
            .filter(|(id, seen)| seen.place.is_none() && seen.requests > 0 && *id != OTHER)
            .map(|(id, seen)| (seen.requests, id.as_str()))
            .collect();
        let busiest_first =
            |one: &(u64, &str), other: &(u64, &str)| other.0.cmp(&one.0).then(one.1.cmp(other.1));
        if challengers.len() > self.places.len() && !self.places.is_empty() {
            challengers.select_nth_unstable_by(self.places.len() - 1, busiest_first);
            challengers.truncate(self.places.len());
        }
        challengers.sort_unstable_by(busiest_first);
        let challengers: Vec<(u64, String)> = challengers
            .into_iter()
            .map(|(requests, id)| (requests, id.to_owned()))
            .collect();
        let mut holders: Vec<(u64, String)> = self
            .places
            .iter()
            .map(|place| (self.requests_of(&place.id), place.id.clone()))
            .collect();
        holders.sort_unstable();
        for ((requests, challenger), (least, holder)) in challengers.into_iter().zip(holders) {
            if requests
                <= least
                    .saturating_mul(LEAD_FACTOR)
                    .saturating_add(LEAD_REQUESTS)
            {
                // The next challenger is no busier, and the next holder no quieter.
                break;
            }
            if let Some(place) = self
                .seen
                .get_mut(&holder)
                .and_then(|seen| seen.place.take())
            {
                self.vacate(place);
                // From nought, which a scrape sees before anything is added.
                self.occupy(challenger, TenantTotals::default());
            }
        }
        for seen in self.seen.values_mut() {
            seen.requests = 0;
        }
    }

    fn retire_quietest(&mut self) {
        let quietest = self
            .places
            .iter()
            .map(|place| (self.requests_of(&place.id), place.id.clone()))
            .min();
        if let Some((_, id)) = quietest
            && let Some(place) = self.seen.get_mut(&id).and_then(|seen| seen.place.take())
        {
            self.vacate(place);
        }
    }

    fn requests_of(&self, id: &str) -> u64 {
        self.seen.get(id).map_or(0, |seen| seen.requests)
    }

    fn occupy(&mut self, id: String, shown: TenantTotals) {
        let place = u32::try_from(self.places.len()).expect("places are fewer than 2^32");
        let seen = self.seen.get_mut(&id);
        seen.expect("only tenants of this scrape get a place").place = Some(place);
        self.places.push(Place { id, shown });
    }

    /// Ends the series at `place` and moves the last one there. The tenant's own entry is the
    /// caller's to change.
    fn vacate(&mut self, place: u32) {
        let ended = self.places.swap_remove(place as usize);
        self.retired.add(&ended.shown);
        if let Some(moved) = self.places.get(place as usize) {
            let seen = self.seen.get_mut(&moved.id);
            seen.expect("holders of places are remembered").place = Some(place);
        }
    }
}

fn show(tenant: &str, totals: &TenantTotals, scrape: &mut Scrape) {
    let name = (label::TENANT, tenant);
    for (class, count) in StatusClass::ALL.iter().zip(totals.requests) {
        let help = "Requests finished, by tenant and class of status.";
        let labels = [name, (label::STATUS, class.as_str())];
        scrape.counter(names::TENANT_REQUESTS_TOTAL, help, &labels, count);
    }
    let help = "Requests refused by a limit, by tenant.";
    scrape.counter(names::TENANT_LIMITED_TOTAL, help, &[name], totals.limited);
    for (direction, bytes) in [("in", totals.bytes_in), ("out", totals.bytes_out)] {
        let help = "Body bytes from (in) and to (out) clients, by tenant.";
        let labels = [name, (label::DIRECTION, direction)];
        scrape.counter(names::TENANT_BYTES_TOTAL, help, &labels, bytes);
    }
}

// === impl TenantTotals ===

impl TenantTotals {
    /// Finished requests of every class.
    pub fn requests_sum(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// The increase since `earlier`. Where any counter went down the tenant was made anew, and all
    /// it has counted is increase.
    fn since(&self, earlier: &Self) -> Self {
        let mut increase = *self;
        let pairs = increase.fields_mut().into_iter().zip(earlier.fields());
        for (now, then) in pairs {
            match now.checked_sub(then) {
                Some(difference) => *now = difference,
                None => return *self,
            }
        }
        increase
    }

    fn add(&mut self, increase: &Self) {
        for (sum, more) in self.fields_mut().into_iter().zip(increase.fields()) {
            *sum = sum.saturating_add(more);
        }
    }

    fn fields(&self) -> [u64; StatusClass::COUNT + 3] {
        let [a, b, c, d, e, f] = self.requests;
        [
            a,
            b,
            c,
            d,
            e,
            f,
            self.limited,
            self.bytes_in,
            self.bytes_out,
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; StatusClass::COUNT + 3] {
        let [a, b, c, d, e, f] = &mut self.requests;
        let (limited, bytes_in, bytes_out) =
            (&mut self.limited, &mut self.bytes_in, &mut self.bytes_out);
        [a, b, c, d, e, f, limited, bytes_in, bytes_out]
    }
}

#[cfg(test)]
mod tests;
