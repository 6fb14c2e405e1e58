//! Connections to upstreams: made, failed, and requests that tried another endpoint.

use super::Scrape;
use hub_core::names::{self, label};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one colour of one cluster. Connecting is rare beside requests, so plain atomics do.
#[derive(Debug, Default)]
pub struct UpstreamCounters {
    connected: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    fell_back: AtomicU64,
    over_budget: AtomicU64,
}

/// Counters of all clusters. Outlives reloads; bounded by the configuration.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    by_colour: Mutex<BTreeMap<(String, &'static str), Arc<UpstreamCounters>>>,
}

impl UpstreamCounters {
    /// A new connection was made.
    pub fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection could not be made.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request tried another endpoint.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// This colour failed a request, which the old one got.
    pub fn fell_back(&self) {
        self.fell_back.fetch_add(1, Ordering::Relaxed);
    }

    /// As [`UpstreamCounters::fell_back`], but the budget was spent.
    pub fn over_budget(&self) {
        self.over_budget.fetch_add(1, Ordering::Relaxed);
    }
}

impl UpstreamMetrics {
    /// The counters of a colour, the same ones as long as the cluster exists. Takes a lock: for
    /// building snapshots.
    pub fn counters(&self, cluster: &str, colour: &'static str) -> Arc<UpstreamCounters> {
        let mut by_colour = self.by_colour.lock();
        Arc::clone(by_colour.entry((cluster.to_owned(), colour)).or_default())
    }

    /// Drops the series of clusters for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.by_colour
            .lock()
            .retain(|(cluster, _), _| keep(cluster));
    }

    /// Adds all series to a scrape.
    pub fn scrape(&self, scrape: &mut Scrape) {
        let by_colour = self.by_colour.lock();
        for ((cluster, colour), counters) in by_colour.iter() {
            for (outcome, counter) in [
                ("connected", &counters.connected),
                ("failed", &counters.failed),
            ] {
                scrape.counter(
                    names::UPSTREAM_CONNECTS_TOTAL,
                    "Connections to upstreams, by outcome.",
                    &[
                        (label::CLUSTER, cluster),
                        (label::COLOUR, colour),
                        (label::OUTCOME, outcome),
                    ],
                    counter.load(Ordering::Relaxed),
                );
            }
            scrape.counter(
                names::UPSTREAM_RETRIES_TOTAL,
                "Requests that tried another endpoint because they could not connect.",
                &[(label::CLUSTER, cluster), (label::COLOUR, colour)],
                counters.retried.load(Ordering::Relaxed),
            );
            for (outcome, counter) in [
                ("sent", &counters.fell_back),
                ("over_budget", &counters.over_budget),
            ] {
                scrape.counter(
                    names::COLOUR_RETRIES_TOTAL,
                    "Requests that this colour failed in a rollout, sent to the old colour or not.",
                    &[
                        (label::CLUSTER, cluster),
                        (label::COLOUR, colour),
                        (label::OUTCOME, outcome),
                    ],
                    counter.load(Ordering::Relaxed),
                );
            }
        }
    }
}
