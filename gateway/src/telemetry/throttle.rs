//! A bound on how often something is said.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lets the first few events of each period pass and counts the rest.
#[derive(Debug)]
pub struct Throttle {
    per_period: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    /// At most `per_period` (at least 1) events in each `period`, which begins with its first event.
    pub fn new(per_period: u32, period: Duration) -> Self {
        Self {
            per_period: per_period.max(1),
            period,
            state: Mutex::new(State {
                began: None,
                passed: 0,
                held_back: 0,
            }),
        }
    }

    /// Asks for one event. `Some(n)`: it may pass, and `n` were held back since the last one that
    /// did. `None`: it is held back.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let fresh = state
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= self.period);
        if fresh {
            state.began = Some(now);
            state.passed = 0;
        }
        if state.passed < self.per_period {
            state.passed += 1;
            Some(std::mem::take(&mut state.held_back))
        } else {
            state.held_back += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_past_the_bound_are_held_back_and_told_with_the_next_that_passes() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.pass(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.pass(start + Duration::from_secs(10)), Some(2));
        assert_eq!(throttle.pass(start + Duration::from_secs(10)), Some(0));
        assert_eq!(throttle.pass(start + Duration::from_secs(10)), None);
    }
}
