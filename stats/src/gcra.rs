//! GCRA: a rate limit whose whole state is one point in time.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A; in its virtual scheduling form) keeps the
//! *theoretical arrival time* (TAT): when the budget would be full again if nothing more came. It
//! allows the same as a token bucket that holds `burst` tokens and refills evenly, but needs no
//! refill, no second number, and no clean-up: a TAT in the past is the same as none.
//!
//! All arithmetic is on whole nanoseconds, saturating, so no input overflows. The interval between two
//! requests is rounded down to a whole nanosecond: the rate that is held is never below the one asked
//! for, and above it by at most one part in `interval`, which is 0.1 % at a million requests a second.

use std::time::Duration;

/// The parameters of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Nanoseconds that one request costs; at least 1.
    interval: u64,
    /// Nanoseconds that the TAT may be ahead of now: the cost of `burst` requests.
    tolerance: u64,
}

/// What a limit says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass, if the caller stores `tat`.
    Allowed {
        /// The new theoretical arrival time, in nanoseconds of the caller's clock.
        tat: u64,
        /// Requests that could follow at once.
        remaining: u64,
        /// Nanoseconds until the whole burst is there again.
        reset: u64,
    },
    /// It may not pass, and nothing is to be stored.
    Limited {
        /// Requests of cost 1 that would pass at once; below the cost of the refused one.
        remaining: u64,
        /// Nanoseconds until the whole burst is there again.
        reset: u64,
        /// Nanoseconds after which the same request would pass, if nothing else comes; at least 1.
        /// `u64::MAX` where it costs more than the whole burst and never passes.
        retry_after: u64,
    },
}

impl Gcra {
    /// At most this much is ever on account, about 146 years: what keeps sums below `u64::MAX`.
    const TOLERANCE_MAX: u64 = 1 << 62;

    /// A limit of `requests` per `period`, with `burst` at once. A zero in `requests` or `burst`
    /// counts as 1: a limit that lets nothing pass is a refusal, not a limit.
    #[inline]
    pub fn new(requests: u32, period: Duration, burst: u32) -> Self {
        let period = nanoseconds(period);
        let interval = (period / u64::from(requests.max(1))).max(1);
        let tolerance = interval.saturating_mul(u64::from(burst.max(1)));
        Self {
            interval: interval.min(Self::TOLERANCE_MAX),
            tolerance: tolerance.min(Self::TOLERANCE_MAX),
        }
    }

    /// Judges a request that costs `cost` units at `now`, where `tat` was stored last (0: never).
    /// Both times are nanoseconds of one clock, below 2^63. A `now` that lies before an earlier one
    /// is judged by the same rule and gives nothing back.
    #[inline]
    pub fn step(&self, tat: u64, now: u64, cost: u32) -> Verdict {
        let price = self.interval.saturating_mul(u64::from(cost));
        let owed = tat.saturating_sub(now);
        let owed_next = owed.saturating_add(price);
        if owed_next <= self.tolerance {
            return Verdict::Allowed {
                tat: now.saturating_add(owed_next),
                remaining: (self.tolerance - owed_next) / self.interval,
                reset: owed_next,
            };
        }
        Verdict::Limited {
            remaining: self.tolerance.saturating_sub(owed) / self.interval,
            reset: owed,
            retry_after: if price > self.tolerance {
                u64::MAX
            } else {
                owed_next - self.tolerance
            },
        }
    }

    /// Charges `cost` units that were taken already, whether they were on account or not: the new TAT, and
    /// the nanoseconds after which nothing is owed beyond the burst. Times as in [`Gcra::step`].
    #[inline]
    pub fn charge(&self, tat: u64, now: u64, cost: u32) -> (u64, u64) {
        let price = self.interval.saturating_mul(u64::from(cost));
        let owed = tat
            .saturating_sub(now)
            .saturating_add(price)
            .min(Self::TOLERANCE_MAX);
        let wait = owed.saturating_sub(self.tolerance);
        (now.saturating_add(owed), wait)
    }

    /// The TAT that stands for the same debt under these parameters: never more than an empty budget.
    ///
    /// Only a change of parameters makes a difference, provided that `now` is not before the time at
    /// which `tat` was stored: a client that had used up a budget of ten a day is not kept waiting for
    /// days once the limit is ten a second.
    #[inline]
    pub fn clamp(&self, tat: u64, now: u64) -> u64 {
        tat.min(now.saturating_add(self.tolerance))
    }

    /// Requests that may come at once.
    #[inline]
    pub fn burst(&self) -> u64 {
        self.tolerance / self.interval
    }

    /// Nanoseconds that the TAT may be ahead of now. Two limits under which a TAT may lie equally far
    /// ahead have the same one.
    #[inline]
    pub fn tolerance(&self) -> u64 {
        self.tolerance
    }
}

/// Without the detour over 128 bits that [`Duration::as_nanos`] takes.
#[inline]
fn nanoseconds(period: Duration) -> u64 {
    period
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(period.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_taken_beyond_the_burst_has_to_be_waited_for() {
        let second = Duration::from_secs(1);
        let gcra = Gcra::new(10, second, 5);
        let (tat, wait) = gcra.charge(0, 1_000, 5);
        assert_eq!(wait, 0);
        let (tat, wait) = gcra.charge(tat, 1_000, 3);
        assert_eq!(wait, 300_000_000);
        assert_eq!(gcra.charge(tat, 1_000 + wait, 0).1, 0);
        assert!(matches!(
            gcra.step(tat, 1_000 + wait, 1),
            Verdict::Limited { .. }
        ));
    }

    /// A bucket that counts in billionths of a token per (requests / period), filled step by step and
    /// kept in 128 bits: slow and plain.
    struct Bucket {
        level: u128,
        full: u128,
        price: u128,
        filled_at: u64,
    }

    impl Bucket {
        fn new(requests: u32, period_ns: u64, burst: u32) -> Self {
            let price = u128::from((period_ns / u64::from(requests)).max(1));
            Self {
                level: price * u128::from(burst),
                full: price * u128::from(burst),
                price,
                filled_at: 0,
            }
        }

        fn take(&mut self, now: u64, cost: u32) -> bool {
            self.level = self.full.min(self.level + u128::from(now - self.filled_at));
            self.filled_at = now;
            let price = self.price * u128::from(cost);
            let enough = self.level >= price;
            if enough {
                self.level -= price;
            }
            enough
        }

        fn tokens(&self) -> u128 {
            self.level / self.price
        }
    }

    proptest! {
        #[test]
        fn it_allows_exactly_what_a_token_bucket_allows(
            requests in 1_u32..5_000,
            period_ms in 1_u64..100_000,
            burst in 1_u32..200,
            steps in prop::collection::vec((0_u64..3_000_000_000, 0_u32..4), 1..300),
            dense in any::<bool>(),
        ) {
            let gcra = Gcra::new(requests, Duration::from_millis(period_ms), burst);
            let mut bucket = Bucket::new(requests, period_ms * 1_000_000, burst);
            let (mut tat, mut now) = (0, 0);
            for (pause, cost) in steps {
                now += if dense { pause / 10_000 } else { pause };
                let free = bucket.take(now, cost);
                match gcra.step(tat, now, cost) {
                    Verdict::Allowed { tat: next, remaining, reset } => {
                        prop_assert!(free);
                        prop_assert_eq!(u128::from(remaining), bucket.tokens());
                        prop_assert_eq!(u128::from(reset), bucket.full - bucket.level);
                        tat = next;
                    }
                    Verdict::Limited { remaining, reset, retry_after } => {
                        prop_assert!(!free);
                        prop_assert_eq!(u128::from(remaining), bucket.tokens());
                        prop_assert_eq!(u128::from(reset), bucket.full - bucket.level);
                        let price = bucket.price * u128::from(cost);
                        if price <= bucket.full {
                            prop_assert_eq!(u128::from(retry_after), price - bucket.level);
                        } else {
                            prop_assert_eq!(retry_after, u64::MAX);
                        }
                    }
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_less_is_not(
            requests in 1_u32..1_000_000_000,
            period_ms in 1_u64..86_400_000,
            burst in 1_u32..1_000_000_000,
            now in 0_u64..1 << 62,
            ahead in 0_u64..1 << 61,
        ) {
            let gcra = Gcra::new(requests, Duration::from_millis(period_ms), burst);
            let tat = gcra.clamp(now + ahead, now);
            if let Verdict::Limited { retry_after, .. } = gcra.step(tat, now, 1) {
                let allowed = |at| matches!(gcra.step(tat, at, 1), Verdict::Allowed { .. });
                prop_assert!(allowed(now + retry_after));
                prop_assert!(!allowed(now + retry_after - 1));
            }
        }

        #[test]
        fn no_input_overflows(
            requests: u32,
            seconds: u64,
            nanos in 0_u32..1_000_000_000,
            burst: u32,
            tat: u64,
            now: u64,
            cost: u32,
        ) {
            let gcra = Gcra::new(requests, Duration::new(seconds, nanos), burst);
            let clamped = gcra.clamp(tat, now);
            for tat in [tat, clamped] {
                let _verdict = gcra.step(tat, now, cost);
            }
            prop_assert!(gcra.burst() >= 1);
        }

        #[test]
        fn an_older_now_gives_nothing_back(
            burst in 1_u32..50,
            times in prop::collection::vec(0_u64..2_000_000_000, 1..100),
        ) {
            let gcra = Gcra::new(10, Duration::from_secs(1), burst);
            let (mut tat, mut newest, mut allowed) = (0, 0, 0_u64);
            for now in times {
                newest = newest.max(now);
                if let Verdict::Allowed { tat: next, .. } = gcra.step(tat, now, 1) {
                    prop_assert!(next >= tat);
                    tat = next;
                    allowed += 1;
                }
            }
            prop_assert!(allowed <= u64::from(burst) + newest / 100_000_000);
        }
    }

    #[test]
    fn a_changed_limit_holds_at_once_in_both_directions() {
        let daily = Gcra::new(10, Duration::from_secs(86_400), 10);
        let fast = Gcra::new(10, Duration::from_secs(1), 10);
        let now = 1_000;
        let mut tat = 0;
        while let Verdict::Allowed { tat: next, .. } = daily.step(tat, now, 1) {
            tat = next;
        }
        tat = fast.clamp(tat, now);
        let Verdict::Limited { retry_after, .. } = fast.step(tat, now, 1) else {
            panic!("an empty budget stays empty");
        };
        assert_eq!(retry_after, 100_000_000);

        // What one second holds is next to nothing in a day: one passes only once it is repaid.
        let once_a_day = Gcra::new(1, Duration::from_secs(86_400), 1);
        let tat = once_a_day.clamp(tat, now);
        let Verdict::Limited { retry_after, .. } = once_a_day.step(tat, now, 1) else {
            panic!("a debt is not forgiven");
        };
        assert_eq!(retry_after, 1_000_000_000);
    }

    #[test]
    fn a_rate_beyond_the_clock_is_no_limit_in_practice_and_no_division_by_zero() {
        let gcra = Gcra::new(1_000_000_000, Duration::from_millis(1), 1);
        assert!(matches!(gcra.step(0, 10, 1), Verdict::Allowed { .. }));
        assert_eq!(gcra.burst(), 1);
    }
}
