//! What rollouts do, as metrics. The driver counts, and scrapes read; requests never come here.

use super::gate::Check;
use super::judge::Ruling;
use super::machine::Name;
use crate::telemetry::Scrape;
use hub_core::names::{self, label};
use hub_stats::judge::fast::Rule;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Why a rollout went back, or was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The colour could not be prepared.
    Prepare,
    /// It did not pass its gate.
    Gate,
    /// Too many 5xx.
    ServerErrors,
    /// Too many connections that could not be made.
    ConnectErrors,
    /// Too many requests without an answer in time.
    Timeouts,
    /// A p99 that is too long.
    P99,
    /// Nothing was heard of the colour.
    Silence,
    /// The sequential test of failures.
    Failures,
    /// The sequential test of latency.
    Latency,
    /// The judges saw too little.
    NoVerdict,
    /// An operator aborted it.
    Operator,
    /// The gateway kept restarting.
    Restarts,
}

/// Longest flips that are counted apart, in seconds.
const FLIP_BOUNDS: [f64; 8] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.1, 1.0];

const VERDICTS: [&str; 3] = ["undecided", "pass", "fail"];

/// Counters of all clusters that have had a rollout in this process, as many as its driver has records of.
/// Those of a cluster that the configuration does not have (any more) are kept and not shown: its rollout
/// may still go on, and where the cluster comes back, its counters must not be lower than they were.
#[derive(Debug, Default)]
pub struct RolloutMetrics(Mutex<Series>);

#[derive(Debug, Default)]
struct Series {
    by_cluster: BTreeMap<String, Counters>,
    configured: HashSet<String>,
}

#[derive(Debug, Default)]
struct Counters {
    stands: Option<(Name, u64)>,
    transitions: BTreeMap<Name, u64>,
    rollbacks: BTreeMap<Cause, u64>,
    verdicts: [u64; VERDICTS.len()],
    gate_failures: [u64; Check::ALL.len()],
    flips: [u64; FLIP_BOUNDS.len() + 1],
    flip_seconds: f64,
    samples_lost: u64,
    /// What the present rollout's watch told last.
    samples_seen_lost: u64,
}

// === impl Cause ===

impl Cause {
    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Gate => "gate",
            Self::ServerErrors => "server_errors",
            Self::ConnectErrors => "connect_errors",
            Self::Timeouts => "timeouts",
            Self::P99 => "p99",
            Self::Silence => "silence",
            Self::Failures => "failures",
            Self::Latency => "latency",
            Self::NoVerdict => "no_verdict",
            Self::Operator => "operator",
            Self::Restarts => "restarts",
        }
    }
}

impl From<Rule> for Cause {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::ServerErrors => Self::ServerErrors,
            Rule::ConnectErrors => Self::ConnectErrors,
            Rule::Timeouts => Self::Timeouts,
            Rule::P99 => Self::P99,
        }
    }
}

// === impl RolloutMetrics ===

impl RolloutMetrics {
    /// Where the cluster's rollout stands.
    pub(super) fn stands(&self, cluster: &str, phase: Name, epoch: u64) {
        self.of(cluster, |counters| counters.stands = Some((phase, epoch)));
    }

    /// It went from one phase to another, or was written down anew; where that was a step back, by `cause`.
    pub(super) fn went(&self, cluster: &str, from: Name, to: Name, cause: Cause) {
        if from == to {
            return;
        }
        let is_back = |name| matches!(name, Name::RollingBack | Name::RolledBack | Name::Frozen);
        self.of(cluster, |counters| {
            *counters.transitions.entry(to).or_default() += 1;
            if is_back(to) && !is_back(from) {
                *counters.rollbacks.entry(cause).or_default() += 1;
            }
        });
    }

    /// The judges were asked.
    pub(super) fn ruled(&self, cluster: &str, ruling: &Ruling) {
        let verdict = match ruling {
            Ruling::Undecided => 0,
            Ruling::Pass => 1,
            Ruling::Fail(..) => 2,
        };
        self.of(cluster, |counters| counters.verdicts[verdict] += 1);
    }

    /// So many samples of the present rollout came to no judge.
    pub(super) fn lost(&self, cluster: &str, samples: u64) {
        self.of(cluster, |counters| {
            // A watch counts from nought.
            let new = samples.checked_sub(counters.samples_seen_lost);
            counters.samples_lost += new.unwrap_or(samples);
            counters.samples_seen_lost = samples;
        });
    }

    /// A check kept the gate shut.
    pub(super) fn gate_failed(&self, cluster: &str, check: Check) {
        self.of(cluster, |counters| {
            counters.gate_failures[check as usize] += 1
        });
    }

    /// A routing came into force so long after it was on disk.
    pub(super) fn flipped(&self, cluster: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = FLIP_BOUNDS.partition_point(|bound| *bound < seconds);
        self.of(cluster, |counters| {
            counters.flips[bucket] += 1;
            counters.flip_seconds += seconds;
        });
    }

    fn of(&self, cluster: &str, count: impl FnOnce(&mut Counters)) {
        let mut series = self.0.lock();
        count(series.by_cluster.entry(cluster.to_owned()).or_default());
    }

    /// From now on these are the clusters that are shown.
    pub fn configure<'c>(&self, clusters: impl Iterator<Item = &'c str>) {
        self.0.lock().configured = clusters.map(str::to_owned).collect();
    }

    /// Adds all series to a scrape.
    pub fn scrape(&self, scrape: &mut Scrape) {
        let series = self.0.lock();
        for (cluster, counters) in &series.by_cluster {
            if series.configured.contains(cluster) {
                counters.scrape(cluster, scrape);
            }
        }
    }
}

// === impl Counters ===

impl Counters {
    fn scrape(&self, cluster: &str, scrape: &mut Scrape) {
        let of_cluster = (label::CLUSTER, cluster);
        if let Some((phase, epoch)) = self.stands {
            for name in Name::ALL {
                scrape.gauge(
                    names::ROLLOUT_PHASE,
                    "1 for the phase in which the cluster's rollout is, 0 for the others.",
                    &[of_cluster, (label::PHASE, name.as_str())],
                    if name == phase { 1.0 } else { 0.0 },
                );
            }
            #[expect(clippy::cast_precision_loss, reason = "2^53 rollouts are enough")]
            scrape.gauge(
                names::ROLLOUT_EPOCH,
                "How often the cluster's routing has changed.",
                &[of_cluster],
                epoch as f64,
            );
        }
        for (phase, count) in &self.transitions {
            scrape.counter(
                names::ROLLOUT_TRANSITIONS_TOTAL,
                "Steps of rollouts into a phase.",
                &[of_cluster, (label::PHASE, phase.as_str())],
                *count,
            );
        }
        for (cause, count) in &self.rollbacks {
            scrape.counter(
                names::ROLLOUT_ROLLBACKS_TOTAL,
                "Rollouts that went back or were given up, by cause.",
                &[of_cluster, (label::REASON, cause.as_str())],
                *count,
            );
        }
        for (verdict, count) in VERDICTS.iter().zip(self.verdicts) {
            scrape.counter(
                names::ROLLOUT_VERDICTS_TOTAL,
                "What the judges said each time they were asked.",
                &[of_cluster, (label::OUTCOME, verdict)],
                count,
            );
        }
        for check in Check::ALL {
            scrape.counter(
                names::ROLLOUT_GATE_FAILURES_TOTAL,
                "Checks that kept a gate shut.",
                &[of_cluster, (label::CHECK, check.as_str())],
                self.gate_failures[check as usize],
            );
        }
        scrape.counter(
            names::ROLLOUT_SAMPLES_LOST_TOTAL,
            "Requests of the present rollout that its judges did not hear of, since they came too fast.",
            &[of_cluster],
            self.samples_lost,
        );
        scrape.histogram(
            names::ROLLOUT_FLIP_SECONDS,
            "From a routing on disk to the routing in force.",
            &[of_cluster],
            &FLIP_BOUNDS,
            &self.flips,
            self.flip_seconds,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Name, RolloutMetrics, Scrape};

    fn shown(metrics: &RolloutMetrics) -> String {
        let mut scrape = Scrape::default();
        metrics.scrape(&mut scrape);
        String::from_utf8(scrape.into_text()).expect("text")
    }

    #[test]
    fn a_cluster_that_was_removed_is_not_shown_and_counts_on_where_it_comes_back() {
        let metrics = RolloutMetrics::default();
        metrics.configure(["app", "other"].into_iter());
        let goes_back = || metrics.went("app", Name::Canary, Name::RollingBack, Cause::P99);
        goes_back();
        metrics.configure(["other"].into_iter());
        // The driver goes on with its rollout all the same.
        goes_back();
        metrics.stands("app", Name::RolledBack, 2);
        metrics.stands("other", Name::Bake, 1);
        let text = shown(&metrics);
        assert!(
            !text.contains("\"app\"") && text.contains("\"other\""),
            "{text}"
        );
        metrics.configure(["app"].into_iter());
        let text = shown(&metrics);
        assert!(text.contains("reason=\"p99\"} 2"), "{text}");
    }
}
