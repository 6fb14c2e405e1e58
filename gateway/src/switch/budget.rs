//! How many requests may be tried a second time, on the old colour of a rollout.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Calls of [`Budget::earn`] that count: ten seconds at four a second.
const WINDOW: usize = 40;
/// What a retry costs. A request earns [`EARNED`], so a fifth of the requests may be retried.
const COST: i64 = 10;
const EARNED: i64 = 2;
/// What is earned in a window though nobody asks: a hundred retries.
const FLOOR: i64 = 100 * COST;
/// What a rollout begins with, when nothing is known of its cluster's traffic yet: two thousand retries.
const FIRST: i64 = 2_000 * COST;

/// A fifth of a retry for each request and ten a second, of which at most ten seconds' worth is saved up; and
/// two thousand once at the beginning. A colour that is dead for everyone is given up within two seconds, and until then this
/// covers its requests, while one that stays half bad cannot have the old colour do its work for it.
#[derive(Debug)]
pub struct Budget {
    left: AtomicI64,
    closed: AtomicBool,
    /// Requests by call, the last [`WINDOW`] of them.
    seen: Mutex<VecDeque<i64>>,
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: AtomicI64::new(FIRST),
            closed: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }
}

impl Budget {
    /// Takes one retry out; false where none is left.
    pub fn take(&self) -> bool {
        let spend = |left: i64| (left >= COST).then_some(left - COST);
        !self.closed.load(Ordering::SeqCst)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
                .is_ok()
    }

    /// So many requests ended since the last call. To be called four times a second.
    pub fn earn(&self, requests: usize) {
        let requests = i64::try_from(requests).unwrap_or(i64::MAX / EARNED / 2);
        let mut seen = self.seen.lock();
        seen.push_back(requests);
        if seen.len() > WINDOW {
            seen.pop_front();
        }
        let most = FLOOR + EARNED * seen.iter().sum::<i64>();
        let earned = FLOOR / WINDOW as i64 + EARNED * requests;
        let add = |left: i64| Some((left + earned).min(most.max(left)));
        // The closure always gives a value.
        let _before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Nothing may be tried on the old colour any more: it would not find its schema.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &Budget) -> usize {
        (0..1_000_000).take_while(|_| budget.take()).count()
    }

    #[test]
    fn two_thousand_may_be_tried_again_before_anybody_asked() {
        let budget = Budget::default();
        budget.earn(0);
        assert_eq!(taken(&budget), 2_000);
        // And ten a second from then on.
        for _ in 0..4 {
            budget.earn(0);
        }
        assert_eq!(taken(&budget), 10);
    }

    #[test]
    fn a_fifth_of_ten_seconds_may_be_tried_again_at_once_and_no_more_however_long_it_was_quiet() {
        let budget = Budget::default();
        for _ in 0..400 {
            budget.earn(250);
        }
        assert_eq!(taken(&budget), 100 + 2_000);
        // A colour that goes on failing gets a fifth of what comes, and the floor.
        for _ in 0..4 {
            budget.earn(250);
        }
        assert_eq!(taken(&budget), 10 + 200);
    }

    #[test]
    fn what_is_closed_gives_nothing() {
        let budget = Budget::default();
        budget.close();
        assert!(!budget.take());
    }
}
