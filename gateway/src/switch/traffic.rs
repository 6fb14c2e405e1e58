//! Who gets which colour now, and who is still on which.
//!
//! Each change of a cluster's routing makes a new [`Generation`]. A request enters the generation that it
//! finds and holds it to its end, so a colour is drained when the generations before the present one
//! have nobody on it. A generation that was replaced is closed: who comes late, with a snapshot from
//! before, is sent to the present one.
//!
//! Invariant: once a generation is closed and [`Generation::on`] has said 0, it stays 0. Entering adds
//! first and looks for the end second, closing ends first and counts second.

use super::plan::{Routing, WHOLE};
use super::watch::{Ending, Sample, Watch};
use crate::telemetry::shards::thread_number;
use arc_swap::ArcSwapOption;
use hub_config::runtime::{Colour, Config};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Counts of one generation and colour are split over so many cache lines.
const SHARDS: usize = 8;
/// Closed generations of one cluster that are remembered while requests hold them. Past it the oldest
/// is no longer waited for.
const CLOSED_MAX: usize = 64;

/// One routing of one cluster.
#[derive(Debug)]
pub struct Generation {
    /// Who gets which colour.
    pub routing: Routing,
    /// Counts changes of the cluster's routing.
    pub epoch: u64,
    /// By shard, then colour.
    counts: [Count; SHARDS],
    closed: AtomicBool,
    left: Notify,
    /// Who judges which new colour by what happens here.
    watch: ArcSwapOption<(Colour, Arc<Watch>)>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Count([AtomicUsize; 2]);

/// One request on one colour; leaves when dropped.
#[derive(Debug)]
#[must_use = "the colour is left as soon as this is dropped"]
pub struct Guard {
    generation: Arc<Generation>,
    colour: Colour,
    shard: usize,
}

/// The present routing of each cluster, by its name. Outlives snapshots.
#[derive(Debug, Default)]
pub struct Switchboard {
    clusters: Mutex<BTreeMap<String, Circuit>>,
}

#[derive(Debug)]
struct Circuit {
    present: Arc<Generation>,
    /// Some requests are still in these.
    closed: Vec<Arc<Generation>>,
    /// A rollout has decided on the routing, and the configured colour does not count any more.
    decided: bool,
}

/// The switchboard while nobody else may change it: a snapshot is put in force under it.
#[derive(Debug)]
pub struct Changing<'b>(MutexGuard<'b, BTreeMap<String, Circuit>>);

fn index(colour: Colour) -> usize {
    match colour {
        Colour::Blue => 0,
        Colour::Green => 1,
    }
}

// === impl Generation ===

impl Generation {
    /// A routing that nobody has entered.
    pub fn new(routing: Routing, epoch: u64) -> Self {
        Self {
            routing,
            epoch,
            counts: Default::default(),
            closed: AtomicBool::new(false),
            left: Notify::new(),
            watch: ArcSwapOption::empty(),
        }
    }

    /// The colour of a tenant of this cluster, or of a client without one, who is known by `who`.
    pub fn colour(&self, cluster: &str, tenant: Option<&str>, who: &[u8]) -> Colour {
        if self.routing.canary.is_none() {
            return self.routing.active;
        }
        self.routing.colour(tenant, place(cluster, who))
    }

    /// Counts a request on `colour`; `None` where the generation was replaced.
    pub fn enter(self: &Arc<Self>, colour: Colour) -> Option<Guard> {
        let shard = thread_number() % SHARDS;
        let guard = Guard {
            generation: Arc::clone(self),
            colour,
            shard,
        };
        self.counts[shard].0[index(colour)].fetch_add(1, Ordering::SeqCst);
        // Dropping the guard takes it back.
        (!self.closed.load(Ordering::SeqCst)).then_some(guard)
    }

    /// From now on `watch` hears of requests; `to` is the new colour.
    pub fn watch_with(&self, to: Colour, watch: Arc<Watch>) {
        self.watch.store(Some(Arc::new((to, watch))));
    }

    /// Nobody hears of requests any more.
    pub fn stop_watching(&self) {
        self.watch.store(None);
    }

    /// True while a rollout is under way.
    pub fn is_watched(&self) -> bool {
        self.watch.load().is_some()
    }

    /// Where a request may go that `failed` failed: from the new colour of a rollout to the old one, as
    /// long as clients are on the new one and the old one is kept.
    pub fn fallback(&self, failed: Colour) -> Option<(Colour, Arc<Watch>)> {
        let watch = self.watch.load();
        let (to, watch) = watch.as_deref()?;
        (failed == *to && self.routing.reaches(*to)).then(|| (to.other(), Arc::clone(watch)))
    }

    /// Requests on `colour`.
    pub fn on(&self, colour: Colour) -> usize {
        let counts = self.counts.iter();
        counts
            .map(|count| count.0[index(colour)].load(Ordering::SeqCst))
            .sum()
    }

    /// Lets nobody in any more. The result is not before the last entry: who was let in had read that it
    /// is open, which is before the write below, and the clock is read behind that.
    fn close(&self) -> Instant {
        self.closed.store(true, Ordering::SeqCst);
        let closed_at = Instant::now();
        self.left.notify_waiters();
        closed_at
    }

    /// Waits until nobody is on `colour`. For closed generations.
    async fn drained(&self, colour: Colour) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.on(colour) == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Guard {
    /// One more on the same colour, also where nobody new is let in.
    pub fn another(&self) -> Self {
        let count = &self.generation.counts[self.shard].0[index(self.colour)];
        count.fetch_add(1, Ordering::SeqCst);
        Self {
            generation: Arc::clone(&self.generation),
            ..*self
        }
    }

    /// See [`Generation::fallback`], from the colour that the request is on.
    pub fn fallback(&self) -> Option<(Colour, Arc<Watch>)> {
        self.generation.fallback(self.colour)
    }

    /// A place on `colour`, which [`Guard::fallback`] told: in the request's own generation, or where that
    /// was replaced, in the present one. `None` where the colour was let go meanwhile.
    pub fn move_to(&self, colour: Colour, board: &Switchboard, cluster: &str) -> Option<Self> {
        let mut generation = Arc::clone(&self.generation);
        loop {
            let guard = generation.enter(colour);
            // Entered first and looked second, as whoever lets the colour go does it the other way round.
            if !generation.routing.reaches(colour) && generation.fallback(colour.other()).is_none()
            {
                return None;
            }
            if guard.is_some() {
                return guard;
            }
            generation = board.present(cluster)?;
        }
    }

    /// Tells the judges, where there are some, how the request ended. `who` is the tenant's id, or the
    /// client's address.
    pub fn tell(&self, cluster: &str, id: &[u8], latency: Duration, ending: Ending) {
        let watch = self.generation.watch.load();
        let Some(watch) = watch.as_deref() else {
            return;
        };
        let (to, watch) = watch;
        watch.tell(Sample {
            who: who(id),
            latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
            place: place(cluster, id),
            epoch: self.generation.epoch,
            on_new: self.colour == *to,
            ending,
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let count = &self.generation.counts[self.shard].0[index(self.colour)];
        let before = count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "every guard was counted");
        if before == 1 && self.generation.closed.load(Ordering::SeqCst) {
            self.generation.left.notify_waiters();
        }
    }
}

/// A place among [`WHOLE`], the same in every process. The cluster is part of it, so that no tenant is
/// the first of every canary.
fn place(cluster: &str, id: &[u8]) -> u16 {
    let hash = hash(cluster.as_bytes().iter().chain([&0]).chain(id));
    u16::try_from(hash % u64::from(WHOLE)).expect("less than the whole")
}

/// A number for a tenant's id, or for a client's address.
pub(super) fn who(id: &[u8]) -> u64 {
    hash(id.iter())
}

/// FNV-1a, then the finalizer of SplitMix64, since FNV leaves the upper bits of short texts alike.
fn hash<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

// === impl Switchboard ===

impl Switchboard {
    /// Nobody else changes it while the result lives.
    pub fn change(&self) -> Changing<'_> {
        Changing(self.clusters.lock())
    }

    /// The present routing of a cluster; `None` where no snapshot has had it.
    pub fn present(&self, cluster: &str) -> Option<Arc<Generation>> {
        let clusters = self.clusters.lock();
        clusters
            .get(cluster)
            .map(|circuit| Arc::clone(&circuit.present))
    }

    /// True once a rollout has decided on a cluster's routing; until then its configured colour counts.
    pub fn is_decided(&self, cluster: &str) -> bool {
        let clusters = self.clusters.lock();
        clusters.get(cluster).is_some_and(|circuit| circuit.decided)
    }

    /// Requests that are on a colour of a cluster, in all generations.
    pub fn on(&self, cluster: &str, colour: Colour) -> usize {
        let clusters = self.clusters.lock();
        clusters.get(cluster).map_or(0, |circuit| {
            circuit.present.on(colour)
                + circuit
                    .closed
                    .iter()
                    .map(|one| one.on(colour))
                    .sum::<usize>()
        })
    }

    /// Waits until no request from before the present routing is on `colour`.
    pub async fn drained(&self, cluster: &str, colour: Colour) {
        let closed = {
            let clusters = self.clusters.lock();
            clusters
                .get(cluster)
                .map_or_else(Vec::new, |circuit| circuit.closed.clone())
        };
        for generation in closed {
            generation.drained(colour).await;
        }
    }
}

impl Changing<'_> {
    /// The present routing of each cluster of a configuration. A cluster that no rollout has decided on
    /// goes by its configured colour.
    pub fn routing(&mut self, config: &Config) -> Arc<[Arc<Generation>]> {
        // What a rollout has decided counts again when a cluster comes back.
        self.0.retain(|name, circuit| {
            circuit.decided || config.clusters.iter().any(|cluster| cluster.name == *name)
        });
        let mut present = |name: &str, active: Colour| {
            let circuit = self
                .0
                .entry(name.to_owned())
                .or_insert_with(|| Circuit::new(Generation::new(Routing::all(active), 0), false));
            if !circuit.decided && circuit.present.routing.active != active {
                let epoch = circuit.present.epoch;
                circuit.replace(Generation::new(Routing::all(active), epoch));
            }
            Arc::clone(&circuit.present)
        };
        let clusters = config.clusters.iter();
        clusters
            .map(|cluster| present(&cluster.name, cluster.active))
            .collect()
    }

    /// Decides on a cluster's routing. Takes effect with the next snapshot; until then requests that come
    /// are sent on to it already. Tells when the routing before it was closed: no request has picked its
    /// colour by that one since. `None` where nothing changes.
    pub fn decide(&mut self, cluster: &str, routing: Routing, epoch: u64) -> Option<Instant> {
        let generation = Generation::new(routing, epoch);
        let Some(circuit) = self.0.get_mut(cluster) else {
            self.0
                .insert(cluster.to_owned(), Circuit::new(generation, true));
            return None;
        };
        circuit.decided = true;
        let present = &circuit.present;
        let changes = present.routing != generation.routing || present.epoch != epoch;
        changes.then(|| circuit.replace(generation))
    }
}

impl Circuit {
    fn new(present: Generation, decided: bool) -> Self {
        Self {
            present: Arc::new(present),
            closed: Vec::new(),
            decided,
        }
    }

    /// Puts `next` in place, and tells when what was there was closed.
    fn replace(&mut self, next: Generation) -> Instant {
        let old = std::mem::replace(&mut self.present, Arc::new(next));
        let closed_at = old.close();
        self.closed.retain(|one| {
            [Colour::Blue, Colour::Green]
                .iter()
                .any(|colour| one.on(*colour) > 0)
        });
        if self.closed.len() == CLOSED_MAX {
            self.closed.remove(0);
        }
        self.closed.push(old);
        closed_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::plan::Stage;

    fn canary(share: u16) -> Generation {
        Generation::new(
            Routing::canary(Colour::Blue, Colour::Green, &Stage::of(share)),
            1,
        )
    }

    #[test]
    fn a_share_that_grows_only_adds_tenants_and_takes_about_its_part() {
        let moved = |share: u16| -> Vec<usize> {
            let generation = canary(share);
            (0..20_000)
                .filter(|number| {
                    let tenant = format!("tenant{number}");
                    generation.colour("app", Some(&tenant), tenant.as_bytes()) == Colour::Green
                })
                .collect()
        };
        let mut before: Vec<usize> = Vec::new();
        for share in [100, 500, 2_500, 5_000, 9_999] {
            let now = moved(share);
            assert!(
                before
                    .iter()
                    .all(|tenant| now.binary_search(tenant).is_ok())
            );
            let expected = 2.0 * f64::from(share);
            let off = (now.len() as f64 - expected).abs();
            // Five standard deviations of a binomial count.
            assert!(
                off < 5.0 * expected.sqrt(),
                "{share}: {} of {expected}",
                now.len()
            );
            before = now;
        }
    }

    #[test]
    fn the_place_of_a_tenant_is_the_same_in_every_process() {
        assert_eq!(place("app", b"ve9EPM428h8vShlRW1KT"), 1_076);
        assert_ne!(
            place("app", b"ve9EPM428h8vShlRW1KT"),
            place("api", b"ve9EPM428h8vShlRW1KT")
        );
    }

    #[test]
    fn who_comes_late_is_not_let_in_and_leaves_no_trace() {
        let board = Switchboard::default();
        board.change().decide("app", Routing::all(Colour::Blue), 1);
        let old = board.present("app").expect("decided");
        let first = old.enter(Colour::Blue).expect("it is open");
        let green = || board.change().decide("app", Routing::all(Colour::Green), 2);
        assert!(green().is_some());
        assert!(green().is_none(), "the same again closes nothing");
        assert!(old.enter(Colour::Blue).is_none());
        assert_eq!(board.on("app", Colour::Blue), 1);
        drop(first);
        assert_eq!(board.on("app", Colour::Blue), 0);
    }

    #[tokio::test]
    async fn a_colour_is_drained_when_its_last_request_ends() {
        let board = Switchboard::default();
        board.change().decide("app", Routing::all(Colour::Blue), 1);
        let old = board.present("app").expect("decided");
        let guards = [(); 3].map(|()| old.enter(Colour::Blue).expect("it is open"));
        board.change().decide("app", Routing::all(Colour::Green), 2);
        let new = board.present("app").expect("decided");
        // Whoever is pinned to the old colour from now on does not count.
        let _pinned = new.enter(Colour::Blue).expect("it is open");
        let mut drained = tokio_test_poll(board.drained("app", Colour::Blue));
        for guard in guards {
            assert!(!drained.is_ready().await);
            drop(guard);
        }
        assert!(drained.is_ready().await);
    }

    /// A future that can be asked whether it is ready.
    struct Asked<F>(std::pin::Pin<Box<F>>);

    fn tokio_test_poll<F: Future<Output = ()>>(future: F) -> Asked<F> {
        Asked(Box::pin(future))
    }

    impl<F: Future<Output = ()>> Asked<F> {
        async fn is_ready(&mut self) -> bool {
            std::future::poll_fn(|cx| std::task::Poll::Ready(self.0.as_mut().poll(cx).is_ready()))
                .await
        }
    }

    #[test]
    fn threads_that_enter_while_it_is_closed_are_all_counted_or_all_turned_away() {
        let board = Switchboard::default();
        for round in 0..200 {
            board
                .change()
                .decide("app", Routing::all(Colour::Blue), round);
            let old = board.present("app").expect("decided");
            std::thread::scope(|scope| {
                let enters = || {
                    let mut last = None;
                    loop {
                        let begun = Instant::now();
                        match old.enter(Colour::Blue) {
                            Some(guard) => drop(guard),
                            None => return last,
                        }
                        last = Some(begun);
                    }
                };
                let threads = [(); 3].map(|()| scope.spawn(enters));
                let closed_at = board
                    .change()
                    .decide("app", Routing::all(Colour::Green), round)
                    .expect("it changes");
                for thread in threads {
                    let last = thread.join().expect("nothing panics");
                    assert!(last <= Some(closed_at), "somebody came in after the end");
                }
            });
            assert_eq!(old.on(Colour::Blue), 0);
        }
    }
}
