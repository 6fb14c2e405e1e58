//! From a text to a tenant's position, without waiting for memory.
//!
//! A look-up among 100,000 random keys is bound by memory, so what decides it is what it must wait for.
//! Here that is a table of four bytes a key, with its control bytes 640 kB for 100,000, which stays in a
//! core's own cache: hashing leads to the position, and a caller can go on with it. The key itself stands
//! beside, by position, and is compared too, but nothing waits for that: a processor runs ahead of a
//! comparison that has always come out equal. Keys that stood in the table itself, half a cache line
//! each, made every look-up wait for the shared cache, or for memory where neighbours had taken that
//! (docs/performance.md has the figures).

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::BuildHasher;

/// Texts, each with a tenant's position. The keys are the operator's, so a fast hash with a random seed
/// does: a client cannot add colliding ones.
///
/// There is no way to make room beforehand, since a guess that is too high costs every look-up: a table
/// of twice the size leaves the core's cache. Growing costs a few milliseconds in all.
#[derive(Debug, Default)]
pub(super) struct Keys {
    slots: HashTable<Slot>,
    /// By position.
    texts: Vec<Text>,
    hasher: RandomState,
}

/// What is known of a key without looking at its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) enabled: bool,
}

/// From the lowest bit: the position, whether the tenant is enabled, and some bits of the key's hash,
/// which keep other keys' texts from being read.
#[derive(Clone, Copy, Debug)]
struct Slot(u32);

/// Bits of a position.
const INDEX_BITS: u32 = 20;
const ENABLED: u32 = 1 << INDEX_BITS;
const TAG_SHIFT: u32 = INDEX_BITS + 1;

/// Half a cache line, and never across two.
#[derive(Clone, Debug)]
#[repr(align(32))]
struct Text {
    /// Of the key as a whole, in bytes; 0 where the position has no key.
    len: u8,
    /// The key, if it is not longer. If it is, the whole stands with the tenant only.
    start: [u8; SHORT_MAX],
}

/// Longest key that stands beside the table, in bytes. Ids as GoHighLevel writes them have 20.
const SHORT_MAX: usize = 31;

const _: () = assert!(size_of::<Text>() == 32, "two texts share a cache line");

impl Keys {
    /// Adds a key of 1 to 255 bytes, unless it is there already: then gives its tenant's position.
    /// `index` is below 2^20, and no other key has it; `whole` tells a key by its tenant's position.
    pub(super) fn insert<'k>(
        &mut self,
        key: &str,
        index: u32,
        enabled: bool,
        whole: impl Fn(u32) -> &'k str,
    ) -> Result<(), u32> {
        let key = key.as_bytes();
        let (texts, hasher) = (&self.texts, &self.hasher);
        let hash = hasher.hash_one(key);
        let entry = self.slots.entry(
            hash,
            |slot| slot.is(hash, key, texts, &whole),
            |slot| {
                let index = slot.found().index;
                let short = texts[index as usize].short();
                hasher.hash_one(short.unwrap_or_else(|| whole(index).as_bytes()))
            },
        );
        match entry {
            Entry::Occupied(taken) => return Err(taken.get().found().index),
            Entry::Vacant(free) => free.insert(Slot::new(hash, index, enabled)),
        };
        let at = index as usize;
        if self.texts.len() <= at {
            self.texts.resize(at + 1, Text::NONE);
        }
        self.texts[at] = Text::new(key);
        Ok(())
    }

    /// Takes a key out again.
    pub(super) fn remove<'k>(&mut self, key: &str, whole: impl Fn(u32) -> &'k str) {
        let key = key.as_bytes();
        let hash = self.hasher.hash_one(key);
        let same = |slot: &Slot| slot.is(hash, key, &self.texts, &whole);
        if let Ok(found) = self.slots.find_entry(hash, same) {
            let (slot, _) = found.remove();
            self.texts[slot.found().index as usize] = Text::NONE;
        }
    }

    /// Finds a key. `whole` tells a key by its tenant's position, and is asked for long ones only.
    pub(super) fn find<'k>(&self, key: &str, whole: impl Fn(u32) -> &'k str) -> Option<Found> {
        let key = key.as_bytes();
        let hash = self.hasher.hash_one(key);
        let same = |slot: &Slot| slot.is(hash, key, &self.texts, &whole);
        self.slots.find(hash, same).map(|slot| slot.found())
    }
}

impl Slot {
    fn new(hash: u64, index: u32, enabled: bool) -> Self {
        assert!(
            index < 1 << INDEX_BITS,
            "the check bounds the tenants' number"
        );
        let enabled = if enabled { ENABLED } else { 0 };
        Self(Self::tag(hash) | enabled | index)
    }

    /// Bits of the hash that the table itself does not look at: it takes the lowest and the highest.
    fn tag(hash: u64) -> u32 {
        ((hash >> 32) as u32) << TAG_SHIFT
    }

    fn found(self) -> Found {
        Found {
            index: self.0 & (ENABLED - 1),
            enabled: self.0 & ENABLED != 0,
        }
    }

    fn is<'k>(
        self,
        hash: u64,
        key: &[u8],
        texts: &[Text],
        whole: &impl Fn(u32) -> &'k str,
    ) -> bool {
        self.0 >> TAG_SHIFT == Self::tag(hash) >> TAG_SHIFT && {
            let index = self.found().index;
            let text = &texts[index as usize];
            usize::from(text.len) == key.len()
                && match text.short() {
                    Some(short) => short == key,
                    None => whole(index).as_bytes() == key,
                }
        }
    }
}

impl Text {
    const NONE: Self = Self {
        len: 0,
        start: [0; SHORT_MAX],
    };

    fn new(key: &[u8]) -> Self {
        let short = key.len().min(SHORT_MAX);
        let mut start = [0; SHORT_MAX];
        start[..short].copy_from_slice(&key[..short]);
        let len = u8::try_from(key.len()).expect("ids have 64 bytes at most, slugs 63");
        Self { len, start }
    }

    /// The key, unless it is long.
    fn short(&self) -> Option<&[u8]> {
        self.start.get(..usize::from(self.len))
    }
}
