//! From a text to a tenant's position with as few cache misses as can be.
//!
//! A look-up among 100,000 random keys is bound by memory, so what decides it is how many lines it waits
//! for, one after the other. Ids and slugs are short: they stand in the table itself, with all that the
//! data plane asks first, in half a cache line. That is one line for the table's control bytes and one for
//! the key. A table of positions would add the tenant's entry and its text: measured with random ids on a
//! machine whose second-level cache holds neither, 220 ns instead of 90.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::BuildHasher;

/// Texts, each with a tenant's position. The keys are the operator's, so a fast hash with a random seed
/// does: a client cannot add colliding ones.
///
/// There is no way to make room beforehand, since a guess that is too high costs every look-up: in a table
/// of twice the size they take 40 ns more. Growing costs a few milliseconds in all.
#[derive(Debug, Default)]
pub(super) struct Keys {
    slots: HashTable<Slot>,
    hasher: RandomState,
}

/// What is known of a key without looking at its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) enabled: bool,
}

/// Half a cache line, and never across two.
#[derive(Debug)]
#[repr(align(32))]
struct Slot {
    index: u32,
    enabled: bool,
    /// Of the key as a whole, in bytes.
    len: u8,
    /// The key, if it is not longer. If it is, the whole stands with the tenant only.
    start: [u8; SHORT_MAX],
}

/// Longest key that stands in the table, in bytes. Ids as GoHighLevel writes them have 20.
const SHORT_MAX: usize = 26;

const _: () = assert!(size_of::<Slot>() == 32, "two slots share a cache line");

impl Keys {
    /// Adds a key of at most 255 bytes, unless it is there already: then gives its tenant's position.
    /// `whole` tells a key by its tenant's position.
    pub(super) fn insert<'k>(
        &mut self,
        key: &str,
        index: u32,
        enabled: bool,
        whole: impl Fn(u32) -> &'k str,
    ) -> Result<(), u32> {
        let hash = |key: &[u8]| self.hasher.hash_one(key);
        let key = key.as_bytes();
        let short = key.len().min(SHORT_MAX);
        let mut start = [0; SHORT_MAX];
        start[..short].copy_from_slice(&key[..short]);
        let slot = Slot {
            index,
            enabled,
            len: u8::try_from(key.len()).expect("ids have 64 bytes at most, slugs 63"),
            start,
        };
        let entry = self.slots.entry(
            hash(key),
            |slot| slot.is(key, &whole),
            |slot| hash(slot.short().unwrap_or_else(|| whole(slot.index).as_bytes())),
        );
        match entry {
            Entry::Occupied(taken) => Err(taken.get().index),
            Entry::Vacant(free) => {
                free.insert(slot);
                Ok(())
            }
        }
    }

    /// Takes a key out again.
    pub(super) fn remove<'k>(&mut self, key: &str, whole: impl Fn(u32) -> &'k str) {
        let key = key.as_bytes();
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.slots.find_entry(hash, |slot| slot.is(key, &whole)) {
            found.remove();
        }
    }

    /// Finds a key. `whole` tells a key by its tenant's position, and is asked for long ones only.
    pub(super) fn find<'k>(&self, key: &str, whole: impl Fn(u32) -> &'k str) -> Option<Found> {
        let key = key.as_bytes();
        let slot = self
            .slots
            .find(self.hasher.hash_one(key), |slot| slot.is(key, &whole))?;
        Some(Found {
            index: slot.index,
            enabled: slot.enabled,
        })
    }
}

impl Slot {
    fn is<'k>(&self, key: &[u8], whole: &impl Fn(u32) -> &'k str) -> bool {
        usize::from(self.len) == key.len()
            && match self.short() {
                Some(short) => short == key,
                None => whole(self.index).as_bytes() == key,
            }
    }

    /// The key, unless it is long.
    fn short(&self) -> Option<&[u8]> {
        self.start.get(..usize::from(self.len))
    }
}
