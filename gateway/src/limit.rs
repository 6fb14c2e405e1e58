//! Rate limits: rules, the table that remembers who has used how much, and what headers say of it.
//!
//! A rule is GCRA ([`hub_stats::gcra`]), so the state of one key is one point in time. All keys of all
//! rules (addresses, header values, subjects, routes, tenants on a route) share the [`Limiter`]'s
//! table, which is as large as configured from the start and never grows. A tenant's own quota is not
//! here but in its [`crate::tenant_state::TenantState`], where nothing can evict it.
//!
//! Rules are asked one after the other: address, tenant, route rules in declared order, bulkhead. The
//! first that refuses ends it, so later ones are not charged for a request that does not run. Earlier
//! ones are: a client that runs into a narrow rule still used up the wide one, as it does where each
//! layer is a machine of its own.
//!
//! Invariant: state is found by the rule's name and what it is by, not by its numbers. So a reload that
//! changes a rate applies at once, to the very clients that the old rate held.

mod table;

use hub_config::runtime::{Limit, LimitBy, Quota};
use hub_stats::gcra::{Gcra, Verdict};
use parking_lot::Mutex;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use table::Table;

/// Shards of the table, each with a lock of its own. A power of two, well above the number of threads
/// of any machine this runs on, so that two threads rarely want the same one.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 7;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rule, ready for use.
#[derive(Clone, Debug)]
pub struct RuleState {
    id: u64,
    by: LimitBy,
    gcra: Gcra,
}

/// What `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitState {
    /// Requests that may come at once.
    pub limit: u32,
    /// Requests of those that are left.
    pub remaining: u32,
    /// Whole seconds, rounded up, until all of them are there again.
    pub reset_seconds: u32,
}

/// What a limit says to a request, in the units of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    state: RateLimitState,
    retry_after_seconds: Option<u32>,
}

/// Remembers how much each key of each rule has used. One for the process; it outlives reloads.
///
/// Memory: 16 bytes a key, reserved at once, but backed by real memory only where keys fall.
/// Cost of a look: one keyed hash, one short lock, 128 bytes of the table.
#[derive(Debug)]
pub struct Limiter {
    shards: Box<[Shard]>,
    /// Random for the process, so that nobody outside can choose keys that meet in one place.
    seed: RandomState,
    evictions: AtomicU64,
}

/// 128 bytes, because processors fetch cache lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Table>);

// === impl RuleState ===

impl RuleState {
    /// Resolves a checked limit.
    pub fn new(limit: &Limit) -> Self {
        Self::from_parts(&limit.name, limit.by.clone(), gcra(&limit.quota))
    }

    /// What has a budget of its own.
    pub fn by(&self) -> &LimitBy {
        &self.by
    }

    fn from_parts(name: &str, by: LimitBy, gcra: Gcra) -> Self {
        // The same for every snapshot of the process. Names are the operator's, so this hash need not
        // be secret; the table's is.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        match &by {
            LimitBy::Address => hasher.write_u8(0),
            LimitBy::Tenant => hasher.write_u8(1),
            LimitBy::Route => hasher.write_u8(2),
            LimitBy::Identity => hasher.write_u8(3),
            LimitBy::Header(header) => header.as_str().hash(&mut hasher),
        }
        Self {
            id: hasher.finish(),
            by,
            gcra,
        }
    }
}

/// GCRA's parameters for a quota. Costs one division.
pub(crate) fn gcra(quota: &Quota) -> Gcra {
    Gcra::new(quota.requests, quota.period, quota.burst)
}

// === impl Decision ===

impl Decision {
    /// Puts a verdict into headers' units.
    pub(crate) fn new(gcra: &Gcra, verdict: Verdict) -> Self {
        let (remaining, reset, retry_after_seconds) = match verdict {
            Verdict::Allowed {
                remaining, reset, ..
            } => (remaining, reset, None),
            Verdict::Limited {
                remaining,
                reset,
                retry_after,
            } => (remaining, reset, Some(seconds(retry_after).max(1))),
        };
        Self {
            state: RateLimitState {
                limit: narrow(gcra.burst()),
                remaining: narrow(remaining),
                reset_seconds: seconds(reset),
            },
            retry_after_seconds,
        }
    }

    /// How much is left.
    pub fn state(&self) -> RateLimitState {
        self.state
    }

    /// `None` where the request may pass; else for `Retry-After`, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }
}

fn seconds(nanos: u64) -> u32 {
    narrow(nanos.div_ceil(NANOS_PER_SECOND))
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

// === impl RateLimitState ===

impl RateLimitState {
    /// True where a client would run into this limit before the other: fewer requests are left, or as
    /// many and they come back later.
    pub fn is_tighter_than(&self, other: &Self) -> bool {
        (self.remaining, std::cmp::Reverse(self.reset_seconds))
            < (other.remaining, std::cmp::Reverse(other.reset_seconds))
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter that remembers about `keys_max` keys (rounded up to the next 1,024).
    pub fn new(keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Shard(Mutex::new(Table::new(keys_per_shard(keys_max)))))
                .collect(),
            seed: RandomState::new(),
            evictions: AtomicU64::new(0),
        }
    }

    /// Holds one request of `key` to `rule` and, where it may pass, charges it. `now` is nanoseconds
    /// on the process's monotonic clock, never 0.
    pub fn check(&self, rule: &RuleState, key: &[u8], now: u64) -> Decision {
        self.charge(self.hash(rule, key), rule, now)
    }

    /// As [`Limiter::check`], for a key of several parts. Their lengths count, so that no two keys of
    /// different parts are one.
    pub fn check_parts(&self, rule: &RuleState, parts: &[&[u8]], now: u64) -> Decision {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u64(rule.id);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        self.charge(hasher.finish(), rule, now)
    }

    /// What [`Limiter::check`] would say, without charging anybody.
    pub fn peek(&self, rule: &RuleState, key: &[u8], now: u64) -> Decision {
        let hash = self.hash(rule, key);
        let verdict = self.shard(hash).lock().peek(hash, &rule.gcra, now);
        Decision::new(&rule.gcra, verdict)
    }

    /// Makes room for `keys_max` keys, more or fewer than before, and keeps who is in debt. Where
    /// there is no longer room for all, the smallest debts are forgotten and counted as evictions.
    /// One shard at a time is locked; without a change of size nothing happens.
    pub fn resize(&self, keys_max: usize) {
        let keys = keys_per_shard(keys_max);
        for shard in &self.shards {
            if shard.0.lock().keys_max() == Table::rounded(keys) {
                continue;
            }
            // Memory is taken and given back outside the lock, which is held for the move alone; touched,
            // because the system hands a page out when it is first written to.
            let mut fresh = Table::new(keys);
            fresh.touch();
            let evicted = {
                let mut table = shard.0.lock();
                let evicted = table.move_into(&mut fresh);
                std::mem::swap(&mut *table, &mut fresh);
                evicted
            };
            self.evictions.fetch_add(evicted, Ordering::Relaxed);
        }
    }

    /// Keys there is room for.
    pub fn keys_max(&self) -> usize {
        self.shards.iter().map(|s| s.0.lock().keys_max()).sum()
    }

    /// Keys that were forgotten while they still had something to pay, because the table was full.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn charge(&self, hash: u64, rule: &RuleState, now: u64) -> Decision {
        let (verdict, evicted) = self.shard(hash).lock().charge(hash, &rule.gcra, now);
        if evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        Decision::new(&rule.gcra, verdict)
    }

    fn hash(&self, rule: &RuleState, key: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u64(rule.id);
        hasher.write(key);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &Mutex<Table> {
        // The top bits; the table uses those below.
        &self.shards[(hash >> (64 - SHARD_BITS)) as usize].0
    }
}

fn keys_per_shard(keys_max: usize) -> usize {
    keys_max.div_ceil(SHARDS)
}

#[cfg(test)]
mod tests;
