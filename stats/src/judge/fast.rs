//! The fast guard: totals of the last seconds beside thresholds. It sees within a second what nobody needs
//! statistics for.
//!
//! A rule is broken where a share is above the absolute threshold, and above so many times the other
//! colour's in the same window, and there are enough requests behind it. Both thresholds have to be
//! exceeded, so that an outage which hits both colours does not send traffic back and forth. The open
//! second counts too, so a caller that records more often than once a second is told earlier.

use super::Count;
use super::histogram::Histogram;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What one colour did in one second, or in a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// All requests, those that failed included.
    pub requests: u64,
    /// Answers of class 5xx, and others that say the same, such as an upgrade that is refused.
    pub server_errors: u64,
    /// Connections to an endpoint that were refused, or not made in time.
    pub connect_errors: u64,
    /// Requests that an endpoint accepted and did not answer in time.
    pub timeouts: u64,
    /// Latencies of the requests that were answered.
    pub latency: Histogram,
}

/// A threshold for a share of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Share of the window's requests (0 to 1) that is fine.
    pub share: f64,
    /// So many times the other colour's share is fine as well.
    pub relative: f64,
    /// Fewer events than this are no breach.
    pub events_min: u64,
}

/// Bounds of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Seconds that are added up, the open one included. 1 to 60. Default 5.
    pub window_seconds: u8,
    /// Fewer requests in the window than this are no breach. Default 20.
    pub requests_min: u64,
    /// Default 10 % and three times the other's, from 10 answers.
    pub server_errors: Threshold,
    /// Default 5 % and three times the other's, from 5 connections.
    pub connect_errors: Threshold,
    /// Default 5 % and three times the other's, from 5 requests.
    pub timeouts: Threshold,
    /// A p99 up to this is fine. Default 1 s.
    pub p99: Duration,
    /// So many times the other colour's p99 is fine as well. Default 4.
    pub p99_relative: f64,
    /// Fewer answers in the window than this have no p99. Default 200.
    pub p99_requests_min: u64,
    /// Seconds without any request that are no breach yet. Default 10.
    pub silent_seconds_max: u32,
}

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The share of answers of class 5xx.
    ServerErrors,
    /// The share of requests for which no connection was had.
    ConnectErrors,
    /// The share of requests that were not answered in time.
    Timeouts,
    /// The 99th percentile of latency, in seconds.
    P99,
}

/// What the guard says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing is broken.
    Ok,
    /// Roll back.
    Breach(Breach),
    /// Roll back: nothing says that the colour works.
    NoData {
        /// Seconds since its last request, or since the guard began.
        silent_seconds: u64,
        /// What would have been fine.
        silent_seconds_max: u32,
        /// Requests of the other colour in the window.
        other_requests: u64,
    },
}

/// A broken rule and its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breach {
    /// Which one.
    pub rule: Rule,
    /// The share, or the p99 in seconds.
    pub observed: f64,
    /// The most that would have been fine.
    pub allowed: f64,
    /// The colour's requests in the window, and those with the event; for the p99 those above `allowed`,
    /// to the width of a bucket.
    pub counts: Count,
    /// The same of the other colour.
    pub other: Count,
}

/// The guard of one colour beside the other.
#[derive(Clone, Debug)]
pub struct Guard {
    config: Config,
    began: u64,
    last_request: Option<u64>,
    /// Seconds in ascending order, at most as many as the window has.
    seconds: VecDeque<Second>,
}

type Events = fn(&Bucket) -> u64;

#[derive(Clone, Debug, Default)]
struct Second {
    at: u64,
    judged: Bucket,
    other: Bucket,
}

/// Longest window.
const WINDOW_MAX: u8 = 60;

impl Default for Config {
    fn default() -> Self {
        let threshold = |share, events_min| Threshold {
            share,
            relative: 3.0,
            events_min,
        };
        Self {
            window_seconds: 5,
            requests_min: 20,
            server_errors: threshold(0.10, 10),
            connect_errors: threshold(0.05, 5),
            timeouts: threshold(0.05, 5),
            p99: Duration::from_secs(1),
            p99_relative: 4.0,
            p99_requests_min: 200,
            silent_seconds_max: 10,
        }
    }
}

impl Guard {
    /// A guard that begins at second `now` of the caller's clock.
    pub fn new(config: Config, now: u64) -> Self {
        Self {
            config,
            began: now,
            last_request: None,
            seconds: VecDeque::new(),
        }
    }

    /// Adds what both colours did in second `now`. May be called several times for one second; what is
    /// older than the newest second counts for that one.
    pub fn record(&mut self, now: u64, judged: &Bucket, other: &Bucket) {
        let newest = self.seconds.back().map(|second| second.at);
        let at = newest.map_or(now, |newest| newest.max(now));
        if judged.requests > 0 {
            self.last_request = Some(at);
        }
        if newest != Some(at) {
            // The one that falls out of the window gives its buckets to the one that comes in.
            let window = usize::from(self.config.window_seconds.clamp(1, WINDOW_MAX));
            let reused = (self.seconds.len() >= window).then(|| self.seconds.pop_front());
            let mut second = reused.flatten().unwrap_or_default();
            second.clear(at);
            self.seconds.push_back(second);
        }
        if let Some(second) = self.seconds.back_mut() {
            second.judged.merge(judged);
            second.other.merge(other);
        }
    }

    /// What can be said at second `now`: of the window that ends with it. A few microseconds.
    pub fn verdict(&self, now: u64) -> Verdict {
        let window = u64::from(self.config.window_seconds.clamp(1, WINDOW_MAX));
        let (mut judged, mut other) = (Bucket::default(), Bucket::default());
        for second in &self.seconds {
            if second.at.saturating_add(window) > now {
                judged.merge(&second.judged);
                other.merge(&second.other);
            }
        }
        if let Some(breach) = self.breach(&judged, &other) {
            return Verdict::Breach(breach);
        }
        let silent_seconds = now.saturating_sub(self.last_request.unwrap_or(self.began));
        if silent_seconds > u64::from(self.config.silent_seconds_max) {
            return Verdict::NoData {
                silent_seconds,
                silent_seconds_max: self.config.silent_seconds_max,
                other_requests: other.requests,
            };
        }
        Verdict::Ok
    }

    fn breach(&self, judged: &Bucket, other: &Bucket) -> Option<Breach> {
        let config = &self.config;
        if judged.requests < config.requests_min {
            return None;
        }
        let shares: [(Rule, Threshold, Events); 3] = [
            (Rule::ConnectErrors, config.connect_errors, |bucket| {
                bucket.connect_errors
            }),
            (Rule::ServerErrors, config.server_errors, |bucket| {
                bucket.server_errors
            }),
            (Rule::Timeouts, config.timeouts, |bucket| bucket.timeouts),
        ];
        shares
            .into_iter()
            .find_map(|(rule, threshold, events)| {
                let count = |bucket: &Bucket| Count {
                    requests: bucket.requests,
                    events: events(bucket).min(bucket.requests),
                };
                let (counts, other) = (count(judged), count(other));
                let allowed = threshold.share.max(threshold.relative * other.share());
                let broken = counts.events >= threshold.events_min && counts.share() > allowed;
                broken.then_some(Breach {
                    rule,
                    observed: counts.share(),
                    allowed,
                    counts,
                    other,
                })
            })
            .or_else(|| self.slow(&judged.latency, &other.latency))
    }

    fn slow(&self, judged: &Histogram, other: &Histogram) -> Option<Breach> {
        let config = &self.config;
        if judged.count() < config.p99_requests_min {
            return None;
        }
        let observed = judged.quantile(0.99)?;
        let others = other.quantile(0.99).unwrap_or_default().as_secs_f64();
        let allowed = config.p99.as_secs_f64().max(config.p99_relative * others);
        let at = Duration::try_from_secs_f64(allowed).unwrap_or(Duration::MAX);
        let count = |histogram: &Histogram| Count {
            requests: histogram.count(),
            events: histogram.count_above(super::histogram::Edge::at_least(at)),
        };
        (observed.as_secs_f64() > allowed).then(|| Breach {
            rule: Rule::P99,
            observed: observed.as_secs_f64(),
            allowed,
            counts: count(judged),
            other: count(other),
        })
    }
}

// === impl Bucket ===

impl Bucket {
    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.server_errors = self.server_errors.saturating_add(other.server_errors);
        self.connect_errors = self.connect_errors.saturating_add(other.connect_errors);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.latency.merge(&other.latency);
    }
}

// === impl Second ===

impl Second {
    fn clear(&mut self, at: u64) {
        self.at = at;
        self.judged = Bucket::default();
        self.other = Bucket::default();
    }
}

// === impl Verdict ===

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerErrors => "answers of class 5xx, or upgrades refused",
            Self::ConnectErrors => "failures to connect",
            Self::Timeouts => "timeouts",
            Self::P99 => "p99 of latency",
        })
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            counts,
            other,
            ..
        } = self;
        match rule {
            Rule::P99 => write!(
                f,
                "{rule}: {:.0} ms where {:.0} ms are allowed; above that {counts} on this colour, {other} on the other",
                self.observed * 1e3,
                self.allowed * 1e3,
            ),
            Rule::ServerErrors | Rule::ConnectErrors | Rule::Timeouts => write!(
                f,
                "{rule}: {counts} where {:.3} % are allowed; {other} on the other colour",
                self.allowed * 100.0,
            ),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("within its bounds"),
            Self::Breach(breach) => breach.fmt(f),
            Self::NoData {
                silent_seconds,
                silent_seconds_max,
                other_requests,
            } => write!(
                f,
                "no request for {silent_seconds} s where {silent_seconds_max} s are allowed; \
                 {other_requests} on the other colour in the window"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(requests: u64, server_errors: u64) -> Bucket {
        Bucket {
            requests,
            server_errors,
            ..Bucket::default()
        }
    }

    fn answered(requests: u64, millis: u64) -> Bucket {
        let mut bucket = bucket(requests, 0);
        (0..requests).for_each(|_| bucket.latency.record(Duration::from_millis(millis)));
        bucket
    }

    /// Half a minute of health at 1,000 requests a second, 5 % on green.
    fn healthy() -> Guard {
        let mut guard = Guard::new(Config::default(), 0);
        for second in 0..30 {
            guard.record(second, &answered(50, 30), &answered(950, 30));
            assert_eq!(guard.verdict(second), Verdict::Ok);
        }
        guard
    }

    #[test]
    fn a_green_that_dies_in_the_middle_of_a_second_is_seen_when_that_second_ends() {
        let mut guard = healthy();
        guard.record(30, &bucket(25, 0), &bucket(475, 0));
        guard.record(
            30,
            &Bucket {
                connect_errors: 25,
                ..bucket(25, 0)
            },
            &bucket(475, 0),
        );
        let Verdict::Breach(breach) = guard.verdict(30) else {
            panic!("{}", guard.verdict(30))
        };
        assert_eq!(breach.rule, Rule::ConnectErrors);
        assert_eq!(
            breach.counts,
            Count {
                requests: 250,
                events: 25
            }
        );
    }

    #[test]
    fn fifty_percent_of_5xx_are_seen_in_about_a_second() {
        let mut guard = healthy();
        let mut requests = 0;
        while guard.verdict(30) == Verdict::Ok {
            guard.record(30, &bucket(2, 1), &bucket(38, 0));
            requests += 2;
        }
        assert!(requests <= 54, "{requests} requests, at 50 a second");
    }

    #[test]
    fn what_both_colours_have_is_no_breach() {
        let mut guard = healthy();
        for second in 30..40 {
            guard.record(second, &bucket(50, 25), &bucket(950, 400));
            assert_eq!(guard.verdict(second), Verdict::Ok);
        }
    }

    #[test]
    fn few_requests_are_no_breach() {
        let mut guard = Guard::new(Config::default(), 0);
        guard.record(0, &bucket(19, 19), &bucket(1_000, 0));
        assert_eq!(guard.verdict(0), Verdict::Ok);
        guard.record(0, &bucket(1, 1), &bucket(0, 0));
        assert!(matches!(guard.verdict(0), Verdict::Breach(_)));
    }

    #[test]
    fn few_events_are_no_breach() {
        let mut guard = Guard::new(Config::default(), 0);
        guard.record(0, &bucket(40, 9), &bucket(1_000, 0));
        assert_eq!(guard.verdict(0), Verdict::Ok);
    }

    #[test]
    fn a_p99_far_above_the_others_is_a_breach_and_one_as_slow_as_theirs_is_not() {
        let mut guard = healthy();
        for second in 30..35 {
            guard.record(second, &answered(50, 1_500), &answered(950, 1_500));
        }
        assert_eq!(guard.verdict(34), Verdict::Ok);
        let mut guard = healthy();
        guard.record(30, &answered(50, 1_500), &answered(950, 30));
        let Verdict::Breach(breach) = guard.verdict(30) else {
            panic!()
        };
        assert_eq!(breach.rule, Rule::P99);
        assert_eq!(
            breach.counts,
            Count {
                requests: 250,
                events: 50
            }
        );
    }

    #[test]
    fn silence_is_a_failure_also_from_the_beginning() {
        let guard = Guard::new(Config::default(), 100);
        assert_eq!(guard.verdict(110), Verdict::Ok);
        assert!(matches!(
            guard.verdict(111),
            Verdict::NoData {
                silent_seconds: 11,
                ..
            }
        ));
        let mut guard = healthy();
        for second in 30..40 {
            guard.record(second, &Bucket::default(), &bucket(950, 0));
            let silent = matches!(guard.verdict(second), Verdict::NoData { .. });
            assert_eq!(silent, second > 39);
        }
        guard.record(40, &Bucket::default(), &bucket(950, 0));
        assert_eq!(
            guard.verdict(40).to_string(),
            "no request for 11 s where 10 s are allowed; 4750 on the other colour in the window"
        );
    }

    #[test]
    fn explanations_hold_the_numbers() {
        let mut guard = healthy();
        guard.record(30, &bucket(50, 40), &bucket(950, 19));
        assert_eq!(
            guard.verdict(30).to_string(),
            "answers of class 5xx, or upgrades refused: 40 of 250 (16.000 %) where 10.000 % are allowed; \
             19 of 4750 (0.400 %) on the other colour"
        );
        let mut guard = healthy();
        guard.record(30, &answered(50, 2_000), &answered(950, 30));
        let shown = guard.verdict(30).to_string();
        assert!(
            shown.contains("where 1000 ms are allowed; above that 50 of 250 (20.000 %)"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_grow(
            steps in prop::collection::vec((any::<u64>(), any::<[u64; 4]>(), any::<[u64; 4]>()), 0..200),
            window_seconds: u8,
        ) {
            let config = Config { window_seconds, ..Config::default() };
            let mut guard = Guard::new(config, 7);
            let of = |[requests, server_errors, connect_errors, timeouts]: [u64; 4]| Bucket {
                requests, server_errors, connect_errors, timeouts, ..Bucket::default()
            };
            for (now, judged, other) in steps {
                guard.record(now, &of(judged), &of(other));
                prop_assert!(!guard.verdict(now).to_string().contains("NaN"));
                prop_assert!(guard.seconds.len() <= usize::from(WINDOW_MAX));
            }
        }
    }
}
