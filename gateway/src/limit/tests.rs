use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

const SECOND: u64 = NANOS_PER_SECOND;

fn rule(name: &str, requests: u32, burst: u32) -> RuleState {
    let gcra = Gcra::new(requests, Duration::from_secs(1), burst);
    RuleState::from_parts(name, LimitBy::Address, gcra)
}

fn passes(decision: Decision) -> bool {
    decision.retry_after_seconds().is_none()
}

#[test]
fn each_key_of_each_rule_has_a_budget_of_its_own() {
    let limiter = Limiter::new(1_024);
    let (narrow, wide) = (rule("narrow", 1, 1), rule("wide", 1, 2));
    assert!(passes(limiter.check(&narrow, b"a", SECOND)));
    assert!(!passes(limiter.check(&narrow, b"a", SECOND)));
    assert!(passes(limiter.check(&narrow, b"b", SECOND)));
    assert!(passes(limiter.check(&wide, b"a", SECOND)));
    assert!(passes(limiter.check(&wide, b"a", SECOND)));
    assert!(!passes(limiter.check(&wide, b"a", SECOND)));
}

#[test]
fn a_rule_that_is_by_something_else_starts_afresh() {
    let limiter = Limiter::new(1_024);
    let by_address = rule("same", 1, 1);
    let by_identity = RuleState::from_parts("same", LimitBy::Identity, by_address.gcra);
    assert!(passes(limiter.check(&by_address, b"key", SECOND)));
    assert!(passes(limiter.check(&by_identity, b"key", SECOND)));
}

#[test]
fn headers_count_down_and_tell_when_to_come_back() {
    let limiter = Limiter::new(1_024);
    let rule = rule("r", 2, 4);
    let state = |remaining, reset_seconds| RateLimitState {
        limit: 4,
        remaining,
        reset_seconds,
    };
    for (remaining, reset_seconds) in [(3, 1), (2, 1), (1, 2), (0, 2)] {
        let decision = limiter.check(&rule, b"k", SECOND);
        assert_eq!(decision.state(), state(remaining, reset_seconds));
        assert_eq!(decision.retry_after_seconds(), None);
    }
    let refused = limiter.check(&rule, b"k", SECOND);
    assert_eq!(refused.state(), state(0, 2));
    assert_eq!(
        refused.retry_after_seconds(),
        Some(1),
        "half a second is rounded up"
    );
}

#[test]
fn the_tighter_of_two_limits_is_the_one_a_client_meets_first() {
    let state = |remaining, reset_seconds| RateLimitState {
        limit: 10,
        remaining,
        reset_seconds,
    };
    assert!(state(1, 1).is_tighter_than(&state(2, 60)));
    assert!(state(1, 60).is_tighter_than(&state(1, 1)));
    assert!(!state(1, 1).is_tighter_than(&state(1, 1)));
}

#[test]
fn a_changed_rate_applies_at_once_to_the_same_clients() {
    let limiter = Limiter::new(1_024);
    let hourly = RuleState::from_parts(
        "r",
        LimitBy::Address,
        Gcra::new(1, Duration::from_secs(3_600), 5),
    );
    for _ in 0..5 {
        assert!(passes(limiter.check(&hourly, b"k", SECOND)));
    }
    assert!(!passes(limiter.check(&hourly, b"k", SECOND)));
    let faster = rule("r", 10, 5);
    let refused = limiter.check(&faster, b"k", SECOND);
    assert_eq!(refused.retry_after_seconds(), Some(1));
    assert!(passes(limiter.check(&faster, b"k", SECOND + SECOND / 10)));
}

#[test]
fn a_request_with_an_old_time_wins_nothing_back() {
    let limiter = Limiter::new(1_024);
    let rule = rule("r", 1, 10);
    for _ in 0..10 {
        assert!(passes(limiter.check(&rule, b"k", 100 * SECOND)));
    }
    for _ in 0..5 {
        assert!(!passes(limiter.check(&rule, b"k", 90 * SECOND)));
    }
    assert!(!passes(limiter.check(&rule, b"k", 100 * SECOND)));
}

#[test]
fn keys_of_other_parts_have_budgets_of_their_own() {
    let limiter = Limiter::new(1_024);
    let rule = rule("r", 1, 1);
    let keys: [&[&[u8]]; 4] = [
        &[b"jwt", b"a", b"1"],
        &[b"jwt", b"b", b"1"],
        &[b"api_key", b"a", b"1"],
        &[b"jwt", b"a1", b""],
    ];
    for key in keys {
        assert!(passes(limiter.check_parts(&rule, key, SECOND)), "{key:?}");
        assert!(!passes(limiter.check_parts(&rule, key, SECOND)), "{key:?}");
    }
}

#[test]
fn looking_charges_nobody() {
    let limiter = Limiter::new(1_024);
    let rule = rule("r", 1, 1);
    for _ in 0..5 {
        assert!(passes(limiter.peek(&rule, b"k", SECOND)));
    }
    assert!(passes(limiter.check(&rule, b"k", SECOND)));
    assert!(!passes(limiter.peek(&rule, b"k", SECOND)));
}

#[test]
fn resizing_keeps_those_in_debt() {
    // So roomy that nine keys in one bucket of eight are not to be expected in a billion runs.
    let limiter = Limiter::new(65_536);
    let rule = rule("r", 1, 1);
    let keys: Vec<_> = (0..2_000_u32).map(u32::to_le_bytes).collect();
    for key in &keys {
        assert!(passes(limiter.check(&rule, key, SECOND)));
    }
    assert_eq!(limiter.evictions(), 0);
    for size in [262_144, 65_536] {
        limiter.resize(size);
        assert_eq!(limiter.keys_max(), size);
        assert_eq!(limiter.evictions(), 0);
        for key in &keys {
            assert!(!passes(limiter.peek(&rule, key, SECOND)));
        }
    }
    limiter.resize(1_024);
    let held = keys
        .iter()
        .filter(|key| !passes(limiter.peek(&rule, *key, SECOND)))
        .count();
    assert_eq!(limiter.evictions() + held as u64, 2_000);
    assert!(held > 900, "{held} of 1,024 places hold somebody");
}

#[test]
fn a_flood_of_keys_is_bounded_and_counted() {
    let limiter = Limiter::new(4_096);
    let rule = rule("r", 1, 1);
    for key in 0..100_000_u32 {
        limiter.check(&rule, &key.to_le_bytes(), SECOND + u64::from(key));
    }
    assert_eq!(limiter.keys_max(), 4_096);
    assert!(limiter.evictions() >= 100_000 - 4_096);
}

#[test]
fn threads_together_get_no_more_than_the_burst() {
    let limiter = Limiter::new(1_024);
    let rule = rule("r", 1, 1_000);
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if passes(limiter.check(&rule, b"k", SECOND)) {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1_000);
}

proptest! {
    /// With room to spare, the table says what an unbounded map of the same rule would say.
    #[test]
    fn the_table_is_a_map_while_there_is_room(
        steps in prop::collection::vec((0_u8..20, 0_u64..2 * SECOND), 1..300),
        requests in 1_u32..10,
        burst in 1_u32..10,
    ) {
        let limiter = Limiter::new(1 << 16);
        let rule = rule("r", requests, burst);
        let mut map: HashMap<u8, u64> = HashMap::new();
        let mut now = SECOND;
        for (key, pause) in steps {
            now += pause;
            let tat = map.entry(key).or_default();
            let verdict = rule.gcra.step(*tat, now, 1);
            if let Verdict::Allowed { tat: next, .. } = verdict {
                *tat = next;
            }
            let decision = limiter.check(&rule, &[key], now);
            prop_assert_eq!(decision, Decision::new(&rule.gcra, verdict));
        }
        prop_assert_eq!(limiter.evictions(), 0);
    }
}
