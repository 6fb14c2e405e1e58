//! Peak EWMA: a moving average of latency that believes bad news at once and good news slowly.
//!
//! After the peak EWMA load of Twitter's Finagle (`com.twitter.finagle.loadbalancer.p2c`), and its
//! descendants in tower (`tower::load::PeakEwma`) and linkerd2-proxy. A sample above the estimate
//! replaces it; a sample below moves it with a weight that grows with the time since the last one, so
//! the result does not depend on how many requests there were. Without samples the estimate decays
//! towards zero, so that whoever was slow once is tried again.
//!
//! An [`Estimate`] fits in 64 bits, so that a caller can keep it in one atomic.

use std::time::Duration;

/// The rule by which estimates move: how fast old samples are forgotten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakEwma {
    /// One over the decay time, in ticks.
    per_tick: f32,
}

/// An estimate of latency at a point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// In nanoseconds. Seven decimal digits are plenty for an average.
    nanos: f32,
    /// When it was last moved, in ticks, modulo 2^32.
    tick: u32,
}

/// A tick is 2^14 ns, about 16 us: short beside any request that crosses a network, and 2^32 of them
/// last 19.5 hours. An endpoint that is idle for longer may seem to have been idle for that much less,
/// which at worst delays the decay of an old peak until its next sample.
const TICK_SHIFT: u32 = 14;

/// Clocks read on two threads differ a little, so a sample may be older than the estimate. Up to a
/// minute of that is taken for no time at all; anything more is time that has passed.
const TICKS_BACK_MAX: u32 = 60_000_000_000_u64.wrapping_shr(TICK_SHIFT) as u32;

impl PeakEwma {
    /// A rule under which the weight of a sample falls to 1/e in `decay`, which is at least a
    /// microsecond.
    pub fn new(decay: Duration) -> Self {
        let ticks = decay.as_secs_f32().max(1e-6) * 1e9 / (1_u32 << TICK_SHIFT) as f32;
        Self {
            per_tick: ticks.recip(),
        }
    }

    /// The estimate after a sample of `latency` at `now_ns`, in nanoseconds of the caller's clock.
    pub fn observe(&self, estimate: Estimate, latency: Duration, now_ns: u64) -> Estimate {
        let sample = nanos(latency);
        let tick = tick(now_ns);
        let elapsed = elapsed(estimate.tick, tick);
        if sample >= estimate.nanos {
            return Estimate {
                nanos: sample,
                tick: estimate.tick.wrapping_add(elapsed),
            };
        }
        let kept = self.kept(elapsed);
        Estimate {
            nanos: estimate.nanos * kept + sample * (1.0 - kept),
            tick: estimate.tick.wrapping_add(elapsed),
        }
    }

    /// What is left of the estimate at `now_ns`, in nanoseconds.
    #[inline]
    pub fn load(&self, estimate: Estimate, now_ns: u64) -> f32 {
        estimate.nanos * self.kept(elapsed(estimate.tick, tick(now_ns)))
    }

    /// The share of an old estimate that is left after `ticks`.
    #[inline]
    fn kept(&self, ticks: u32) -> f32 {
        let x = ticks as f32 * self.per_tick;
        // The first two terms of the series are off by less than one in 10,000 here, and spare a busy
        // endpoint the exponential.
        if x < 0.01 { 1.0 - x } else { (-x).exp() }
    }
}

impl Estimate {
    /// An estimate to begin with, as of `now_ns`.
    pub fn new(latency: Duration, now_ns: u64) -> Self {
        Self {
            nanos: nanos(latency),
            tick: tick(now_ns),
        }
    }

    /// As one number, for an atomic.
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.nanos.to_bits()) << 32 | u64::from(self.tick)
    }

    /// The inverse of [`Estimate::to_bits`].
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self {
            nanos: f32::from_bits((bits >> 32) as u32),
            tick: bits as u32,
        }
    }
}

fn nanos(latency: Duration) -> f32 {
    latency.as_secs_f32() * 1e9
}

#[inline]
fn tick(now_ns: u64) -> u32 {
    // Cut to 32 bits on purpose: only differences are used.
    (now_ns >> TICK_SHIFT) as u32
}

#[inline]
fn elapsed(from: u32, to: u32) -> u32 {
    let ticks = to.wrapping_sub(from);
    if ticks > u32::MAX - TICKS_BACK_MAX {
        0
    } else {
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn rule() -> PeakEwma {
        PeakEwma::new(Duration::from_secs(10))
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_peak_is_believed_at_once() {
        let calm = Estimate::new(ms(5), 0);
        let after = rule().observe(calm, ms(900), 1);
        assert_eq!(rule().load(after, 1), 900e6);
    }

    #[test]
    fn a_peak_fades_at_the_stated_rate_whatever_the_number_of_samples() {
        let peak = Estimate::new(ms(1_000), 0);
        let alone = rule().load(peak, 10_000 * MS);
        assert!((alone / 1e9 - (-1.0_f32).exp()).abs() < 1e-3, "{alone}");
        for samples in [1, 10, 1_000, 20_000] {
            let mut estimate = peak;
            for i in 1..=samples {
                estimate = rule().observe(estimate, ms(0), 10_000 * MS * i / samples);
            }
            let load = rule().load(estimate, 10_000 * MS);
            assert!(
                (load / alone - 1.0).abs() < 0.01,
                "{samples} samples: {load} for {alone}"
            );
        }
    }

    #[test]
    fn it_settles_at_the_latency_that_there_is() {
        let mut estimate = Estimate::new(ms(30), 0);
        let mut now = 0;
        for _ in 0..200_000 {
            now += MS / 2;
            estimate = rule().observe(estimate, ms(2), now);
        }
        assert!((rule().load(estimate, now) / 2e6 - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_sample_from_a_clock_that_is_behind_does_not_age_the_estimate() {
        let estimate = Estimate::new(ms(100), 5_000 * MS);
        let after = rule().observe(estimate, ms(1), 4_000 * MS);
        assert_eq!(after, estimate);
    }

    proptest! {
        #[test]
        fn an_estimate_stays_between_zero_and_the_largest_sample(
            samples in prop::collection::vec((0_u64..10_000, 0_u64..100_000 * MS), 1..200),
        ) {
            let mut estimate = Estimate::new(ms(30), 0);
            let (mut now, mut largest) = (0, 30_u64);
            for (latency, pause) in samples {
                now += pause;
                largest = largest.max(latency);
                estimate = rule().observe(estimate, ms(latency), now);
                let load = rule().load(estimate, now);
                prop_assert!(load.is_finite() && load >= 0.0);
                prop_assert!(load <= largest as f32 * 1e6 * 1.0001);
                prop_assert!(load >= latency as f32 * 1e6 * 0.9999);
                prop_assert!(rule().load(estimate, now + 1_000 * MS) <= load);
            }
        }

        #[test]
        fn bits_keep_everything(latency_ns in 0_u64..1 << 50, now: u64) {
            let estimate = Estimate::new(Duration::from_nanos(latency_ns), now);
            prop_assert_eq!(Estimate::from_bits(estimate.to_bits()), estimate);
        }
    }
}
