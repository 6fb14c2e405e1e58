//! One shard of the limiter's memory: a fixed number of keys, found in constant time.
//!
//! A key may live in one set only, of [`WAYS`] entries. An entry is the key's 64-bit hash and its
//! theoretical arrival time. One whose time has come says no more than one that is absent, so it is
//! free to be overwritten: nothing needs to be swept. Where all entries of a set are live, the one
//! with the smallest debt goes; it has the least to gain.
//!
//! Two keys with the same 64-bit hash share a budget. With 16 million keys that happens to any two of
//! them once in about 100,000 processes, and nobody can bring it about, since the hash is keyed.

use hub_stats::gcra::{Gcra, Verdict};

/// Entries of a set: 128 bytes, hashes and times. With live keys in 80 % of all entries, a set of 8 has
/// no room for one key in 15, a set of 4 for one in 8.
const WAYS: usize = 8;

/// Hashes, then times. One array of integers, because `vec!` asks the allocator for zeroed memory only
/// for types it knows to be zero, and such memory costs nothing until it is written to.
type Set = [u64; 2 * WAYS];

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    sets: Vec<Set>,
    /// The latest time that this shard was asked at. Time never runs backwards for a key, even where
    /// one request's clock was read before another's, so that [`Gcra::clamp`] forgives nobody.
    now: u64,
}

/// Where a key is, or would be.
enum Place {
    /// At this entry.
    Here(usize),
    /// At this entry, which is free or has the smallest debt of its set.
    Instead(usize),
}

impl Table {
    /// Room for at least `keys` keys, and for one set at the least.
    pub(super) fn new(keys: usize) -> Self {
        Self {
            sets: vec![[0; 2 * WAYS]; keys.div_ceil(WAYS).max(1)],
            now: 0,
        }
    }

    /// The room that [`Table::new`] makes for `keys`.
    pub(super) fn rounded(keys: usize) -> usize {
        keys.div_ceil(WAYS).max(1) * WAYS
    }

    /// Keys there is room for.
    pub(super) fn keys_max(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Judges and charges one request of the key; true where that cost another key its debt.
    pub(super) fn charge(&mut self, hash: u64, gcra: &Gcra, now: u64) -> (Verdict, bool) {
        self.now = self.now.max(now);
        let now = self.now;
        let set = self.set(hash);
        let set = &mut self.sets[set];
        let place = find(set, hash);
        let owed = match place {
            Place::Here(way) => gcra.clamp(set[WAYS + way], now),
            Place::Instead(_) => 0,
        };
        let verdict = gcra.step(owed, now, 1);
        let stored = match verdict {
            Verdict::Allowed { tat, .. } => tat,
            Verdict::Limited { .. } => owed,
        };
        match place {
            Place::Here(way) => {
                set[WAYS + way] = stored;
                (verdict, false)
            }
            Place::Instead(way) => {
                let evicted = set[WAYS + way] > now;
                set[way] = hash;
                set[WAYS + way] = stored;
                (verdict, evicted)
            }
        }
    }

    /// Judges without charging.
    pub(super) fn peek(&self, hash: u64, gcra: &Gcra, now: u64) -> Verdict {
        let now = self.now.max(now);
        let set = &self.sets[self.set(hash)];
        let tat = match find(set, hash) {
            Place::Here(way) => gcra.clamp(set[WAYS + way], now),
            Place::Instead(_) => 0,
        };
        gcra.step(tat, now, 1)
    }

    /// Has the system back the memory of an empty table.
    pub(super) fn touch(&mut self) {
        /// Sets in the smallest page there is.
        const STEP: usize = 4096 / size_of::<Set>();
        for set in self.sets.iter_mut().step_by(STEP) {
            // Nought again; hidden, so that the write is not left out.
            set[0] = std::hint::black_box(0);
        }
    }

    /// Copies every live entry; how many live ones found no room.
    pub(super) fn move_into(&self, other: &mut Self) -> u64 {
        other.now = self.now;
        let mut evicted = 0;
        for set in &self.sets {
            for way in 0..WAYS {
                let (hash, tat) = (set[way], set[WAYS + way]);
                if tat <= self.now {
                    continue;
                }
                let place = other.set(hash);
                let target = &mut other.sets[place];
                let (Place::Here(free) | Place::Instead(free)) = find(target, hash);
                evicted += u64::from(target[WAYS + free] > self.now);
                if target[WAYS + free] < tat {
                    target[free] = hash;
                    target[WAYS + free] = tat;
                }
            }
        }
        evicted
    }

    fn set(&self, hash: u64) -> usize {
        // Spreads the low 32 bits over any number of sets without a division.
        let spread = (hash & 0xffff_ffff) * self.sets.len() as u64;
        (spread >> 32) as usize
    }
}

/// Looks a key up in its set.
fn find(set: &Set, hash: u64) -> Place {
    let mut least = 0;
    for way in 0..WAYS {
        if set[way] == hash {
            return Place::Here(way);
        }
        if set[WAYS + way] < set[WAYS + least] {
            least = way;
        }
    }
    Place::Instead(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn once_a_second() -> Gcra {
        Gcra::new(1, Duration::from_secs(1), 1)
    }

    fn passes(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Allowed { .. })
    }

    #[test]
    fn a_full_set_forgets_the_smallest_debt_and_says_so() {
        let mut table = Table::new(WAYS);
        for key in 1..=WAYS as u64 {
            let (verdict, evicted) = table.charge(key, &once_a_second(), SECOND + key);
            assert!(passes(verdict) && !evicted);
        }
        let (verdict, evicted) = table.charge(99, &once_a_second(), SECOND + 100);
        assert!(passes(verdict) && evicted);
        // The first key had the smallest debt; all others are still held.
        for key in 2..=WAYS as u64 {
            assert!(
                !passes(table.peek(key, &once_a_second(), SECOND + 100)),
                "{key}"
            );
        }
        assert!(passes(table.peek(1, &once_a_second(), SECOND + 100)));
    }

    #[test]
    fn an_entry_whose_time_has_come_is_overwritten_without_counting() {
        let mut table = Table::new(WAYS);
        for key in 1..=WAYS as u64 {
            table.charge(key, &once_a_second(), SECOND);
        }
        let (_, evicted) = table.charge(99, &once_a_second(), 2 * SECOND);
        assert!(!evicted);
    }

    #[test]
    fn the_hash_zero_is_a_key_like_any_other() {
        let mut table = Table::new(WAYS);
        assert!(passes(table.charge(0, &once_a_second(), SECOND).0));
        assert!(!passes(table.charge(0, &once_a_second(), SECOND).0));
    }

    #[test]
    fn moving_to_less_room_keeps_the_largest_debts() {
        let mut large = Table::new(8 * WAYS);
        // Eight keys for each of the eight sets.
        let spread = (1 << 32) / 64;
        for key in 0..64 {
            large.charge(key * spread, &once_a_second(), SECOND + key);
        }
        let live: u64 = 64;
        let mut small = Table::new(WAYS);
        let evicted = large.move_into(&mut small);
        assert_eq!(evicted, live - WAYS as u64);
        for key in 64 - WAYS as u64..64 {
            assert!(
                !passes(small.peek(key * spread, &once_a_second(), SECOND + 64)),
                "{key}"
            );
        }
    }
}
