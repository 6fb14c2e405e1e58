//! What evidence is worth where events come in bursts.

use crate::judge::Count;

/// How much more the events of blue vary from second to second than if they came independently.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bursts {
    last: Count,
    all: Count,
    seconds: u32,
    observed: f64,
    expected: f64,
}

impl Bursts {
    /// Seconds before the variation is believed.
    const SECONDS_MIN: u32 = 20;
    /// Errors that come ten at a time count for one; more than that is not discounted.
    const MOST: f64 = 10.0;

    /// Compares with the second before, so that a rate that changes slowly is no burst (J. von Neumann
    /// 1941: mean square successive difference).
    pub(super) fn observe(&mut self, now: Count) {
        if now.requests == 0 {
            return;
        }
        self.all.add(now);
        let (last, share) = (self.last, self.all.share());
        if last.requests > 0 {
            let inverse = (now.requests as f64).recip() + (last.requests as f64).recip();
            let variance = share * (1.0 - share).max(0.0);
            // A second in which hardly an event is expected says hardly anything.
            let events = share / inverse;
            let trust = events / (1.0 + events);
            self.observed += trust * (now.share() - last.share()).powi(2) / inverse;
            self.expected += trust * variance;
            self.seconds = self.seconds.saturating_add(1);
        }
        self.last = now;
    }

    /// One over the index of dispersion: what evidence is worth where events come in bursts (a
    /// quasi-likelihood, R. Wedderburn 1974). Never above 1.
    pub(super) fn weight(&self) -> f64 {
        if self.seconds < Self::SECONDS_MIN || self.expected <= 0.0 {
            return 1.0;
        }
        (self.observed / self.expected)
            .clamp(1.0, Self::MOST)
            .recip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn weight(each: u64, seconds: u32) -> f64 {
        let mut rng = SmallRng::seed_from_u64(4);
        let mut bursts = Bursts::default();
        for _ in 0..seconds {
            let starts = (0..1_000).filter(|_| rng.random_bool(0.003)).count() as u64;
            bursts.observe(Count {
                requests: 1_000,
                events: starts * each,
            });
        }
        bursts.weight()
    }

    #[test]
    fn events_that_come_alone_count_in_full_and_those_that_come_in_fours_count_for_a_quarter() {
        assert!(weight(1, 600) > 0.9, "{}", weight(1, 600));
        assert!((weight(4, 600) - 0.25).abs() < 0.05, "{}", weight(4, 600));
    }

    #[test]
    fn nothing_is_believed_of_a_few_seconds() {
        assert_eq!(weight(10, 20), 1.0);
        assert_eq!(Bursts::default().weight(), 1.0);
    }
}
