use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Seconds that are kept apart; a run lasts an hour at most.
const SECONDS_MAX: usize = 3_601;

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Expected status and body.
    Ok,
    /// No connection could be made.
    Refused,
    /// The connection broke before the answer was complete.
    Reset,
    /// No complete answer in time.
    Timeout,
    /// An unexpected 4xx.
    Status4xx,
    /// An unexpected 5xx.
    Status5xx,
    /// The body ended before its `Content-Length`.
    ShortBody,
    /// Another status, another body, or something that is not HTTP.
    WrongAnswer,
}

/// How many requests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Outcome::ALL.len()]);

/// One second of a run. A request belongs to the second in which it was due (open loop) or sent
/// (closed loop).
#[derive(Clone, Debug)]
pub struct Second {
    /// What came of its requests.
    pub counts: Counts,
    /// Successes by class.
    pub ok_by_class: Vec<u64>,
    /// Latencies in microseconds, to two digits.
    pub latency_us: Histogram<u32>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// What came of all requests.
    pub counts: Counts,
    /// Latencies of all requests in microseconds, whatever came of them, to three digits.
    pub latency_us: Histogram<u64>,
    /// The same, second by second from [`Report::since`]. Seconds without a request are empty.
    pub seconds: Vec<Second>,
    /// Open loop: requests sent long after they were due. They are in the counts as well.
    pub late: u64,
    /// Open loop: requests never sent, because too many were waiting already.
    pub unsent: u64,
    /// Connections made.
    pub connects: u64,
    /// Start of the measured time.
    pub since: Instant,
    /// Length of the measured time.
    pub elapsed: Duration,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
        Self::Status4xx,
        Self::Status5xx,
        Self::ShortBody,
        Self::WrongAnswer,
    ];

    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status4xx => "4xx",
            Self::Status5xx => "5xx",
            Self::ShortBody => "short_body",
            Self::WrongAnswer => "wrong_answer",
        }
    }
}

impl Counts {
    /// How many ended like this.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// Successes.
    pub fn ok(&self) -> u64 {
        self.get(Outcome::Ok)
    }

    /// All that did not succeed.
    pub fn failed(&self) -> u64 {
        self.all() - self.ok()
    }

    /// All.
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// The kinds of failure that there were, as `reset 3, 5xx 1`; empty if there were none.
    pub fn failures(&self) -> String {
        let failures = Outcome::ALL.into_iter().filter(|kind| *kind != Outcome::Ok);
        let shown = failures
            .filter(|kind| self.get(*kind) > 0)
            .map(|kind| format!("{} {}", kind.as_str(), self.get(kind)));
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Second {
    fn new(classes: usize) -> Self {
        Self {
            counts: Counts::default(),
            ok_by_class: vec![0; classes],
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)
                .expect("constant bounds that the histogram allows"),
        }
    }
}

impl Report {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            counts: Counts::default(),
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("constant bounds that the histogram allows"),
            seconds: Vec::new(),
            late: 0,
            unsent: 0,
            connects: 0,
            since,
            elapsed: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, one: &Done, classes: usize) {
        self.counts.0[one.outcome as usize] += 1;
        let latency_us = u64::try_from(one.latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latency_us.saturating_record(latency_us);
        self.late += u64::from(one.late);
        // A request from before the last `take` that ends now has no second of its own here.
        let Some(since) = one.due.checked_duration_since(self.since) else {
            return;
        };
        let index = usize::try_from(since.as_secs()).unwrap_or(SECONDS_MAX);
        if index >= SECONDS_MAX {
            return;
        }
        while self.seconds.len() <= index {
            self.seconds.push(Second::new(classes));
        }
        let second = &mut self.seconds[index];
        second.counts.0[one.outcome as usize] += 1;
        second.latency_us.saturating_record(latency_us);
        if one.outcome == Outcome::Ok
            && let Some(count) = second.ok_by_class.get_mut(usize::from(one.class))
        {
            *count += 1;
        }
    }

    /// Requests that succeeded, a second.
    pub fn ok_per_second(&self) -> f64 {
        self.counts.ok() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Latency in microseconds that `percent` (0 to 100) of the requests did not exceed; 0 where
    /// there were none.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        self.latency_us.value_at_percentile(percent)
    }

    /// The same over some of the seconds, by index; `None` where they hold no request.
    pub fn percentile_us_of(
        &self,
        seconds: impl IntoIterator<Item = usize>,
        percent: f64,
    ) -> Option<u64> {
        let mut sum: Option<Histogram<u64>> = None;
        for second in seconds.into_iter().filter_map(|at| self.seconds.get(at)) {
            let sum = sum.get_or_insert_with(|| {
                Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)
                    .expect("constant bounds that the histogram allows")
            });
            for step in second.latency_us.iter_recorded() {
                let value = step.value_iterated_to();
                sum.saturating_record_n(value, u64::from(step.count_at_value()));
            }
        }
        let sum = sum.filter(|sum| !sum.is_empty())?;
        Some(sum.value_at_percentile(percent))
    }
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) class: u16,
    pub(super) due: Instant,
    pub(super) latency: Duration,
    pub(super) late: bool,
}
