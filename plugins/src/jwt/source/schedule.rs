//! When the next fetch is due. Pure: time and randomness are arguments.

use std::time::{Duration, Instant};

/// The pace of fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jwt) struct Timing {
    /// From one good fetch to the next.
    pub(in crate::jwt) interval: Duration,
    /// Least time from the end of a good fetch to an early one.
    pub(in crate::jwt) early_min: Duration,
    /// After the first failure. It doubles with each that follows, up to `interval`.
    pub(in crate::jwt) backoff_min: Duration,
}

/// The pace's memory.
#[derive(Debug)]
pub(super) struct Schedule {
    timing: Timing,
    due: Instant,
    /// End of the last fetch; `None` before the first.
    last: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

// === impl Schedule ===

impl Schedule {
    /// The first fetch is due at once.
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            due: now,
            last: None,
            failures: 0,
        }
    }

    /// Time until the next fetch; zero when it is due.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Brings the next fetch forward. While fetches fail the backoff stays: a flood of odd tokens must
    /// not become a flood of fetches on a server in trouble.
    pub(super) fn ask_early(&mut self) {
        if let (Some(last), 0) = (self.last, self.failures) {
            self.due = self.due.min(last + self.timing.early_min);
        }
    }

    /// Notes the end of a fetch. `random` spreads what follows over the upper half of the backoff, or
    /// the upper tenth of the interval, so that many gateways do not come together.
    pub(super) fn ended(&mut self, good: bool, now: Instant, random: u32) {
        let share = f64::from(random) / f64::from(u32::MAX);
        let wait = if good {
            self.failures = 0;
            self.timing.interval.mul_f64(0.9 + 0.1 * share)
        } else {
            let doubled = self
                .timing
                .backoff_min
                .saturating_mul(1 << self.failures.min(16));
            self.failures = self.failures.saturating_add(1);
            doubled.min(self.timing.interval).mul_f64(0.5 + 0.5 * share)
        };
        self.last = Some(now);
        self.due = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timing() -> Timing {
        Timing {
            interval: 300 * SECOND,
            early_min: 30 * SECOND,
            backoff_min: SECOND,
        }
    }

    #[test]
    fn the_first_fetch_is_due_at_once_and_the_next_after_the_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(timing(), start);
        assert_eq!(schedule.wait(start), Duration::ZERO);
        schedule.ended(true, start, u32::MAX);
        assert_eq!(schedule.wait(start), 300 * SECOND);
        schedule.ended(true, start, 0);
        assert_eq!(schedule.wait(start), 270 * SECOND);
    }

    #[test]
    fn early_fetches_keep_their_distance_however_often_they_are_asked_for() {
        let start = Instant::now();
        let mut schedule = Schedule::new(timing(), start);
        schedule.ended(true, start, u32::MAX);
        for _ in 0..1_000 {
            schedule.ask_early();
        }
        assert_eq!(schedule.wait(start), 30 * SECOND);
        schedule.ended(true, start + 30 * SECOND, u32::MAX);
        assert_eq!(schedule.wait(start + 30 * SECOND), 300 * SECOND);
    }

    #[test]
    fn failures_back_off_up_to_the_interval_and_a_success_ends_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new(timing(), start);
        let mut waits = Vec::new();
        for _ in 0..40 {
            schedule.ended(false, start, u32::MAX);
            schedule.ask_early();
            waits.push(schedule.wait(start).as_secs());
        }
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(waits[10..].iter().all(|wait| *wait == 300));
        schedule.ended(true, start, u32::MAX);
        schedule.ended(false, start, 0);
        assert_eq!(schedule.wait(start), SECOND / 2);
    }

    proptest! {
        #[test]
        fn no_two_fetches_are_closer_than_the_least_distance(
            steps in proptest::collection::vec((any::<bool>(), any::<u32>(), 0_u64..5_000, any::<bool>()), 1..200)
        ) {
            let mut now = Instant::now();
            let mut schedule = Schedule::new(timing(), now);
            let mut last: Option<Instant> = None;
            for (good, random, millis, early) in steps {
                now += Duration::from_millis(millis);
                if early {
                    schedule.ask_early();
                }
                if schedule.wait(now).is_zero() {
                    if let Some(last) = last {
                        prop_assert!(now - last >= SECOND / 2);
                    }
                    schedule.ended(good, now, random);
                    last = Some(now);
                }
            }
        }
    }
}
