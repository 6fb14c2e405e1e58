//! Tokens found good, so that one that comes again costs a hash and no signature check.

use hub_core::Identity;
use ring::digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// SHA-256 of a token. Nobody can make two tokens with the same one, so the token itself need not be
/// kept, and a dump of memory holds no credential of the past.
pub(super) type Digest = [u8; 32];

/// What a good token proved, and for how long.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) identity: Identity,
    /// First second in which it is valid, leeway included; seconds since 1970.
    pub(super) valid_from: u64,
    /// First second in which it is no longer valid, leeway included; seconds since 1970.
    pub(super) valid_until: u64,
    /// Version of the key set that checked it.
    pub(super) keys: u64,
}

/// A bounded cache in shards, each behind a lock that is held for one look-up.
///
/// A shard has two generations. New entries go to the young one; when that is full it becomes the old
/// one and the old one is dropped; an old entry that is used is young again. So what is in use stays,
/// and eviction costs nothing per entry but its freeing, for which no lock is held.
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Most entries of one generation of a shard; 0 turns the cache off.
    generation_max: usize,
}

#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

type Generation = HashMap<Digest, Arc<Verified>>;

const SHARDS: usize = 16;

pub(super) fn digest(token: &[u8]) -> Digest {
    digest::digest(&digest::SHA256, token)
        .as_ref()
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

// === impl Cache ===

impl Cache {
    /// A cache of at most `entries`. Fewer than 64 are kept in one shard, so that none rounds to zero.
    pub(super) fn new(entries: usize) -> Self {
        let shards = if entries < 64 { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            generation_max: if entries == 0 {
                0
            } else {
                (entries / shards / 2).max(1)
            },
        }
    }

    /// What is remembered under `digest`, if the same keys are still in force.
    pub(super) fn get(&self, digest: &Digest, keys: u64) -> Option<Arc<Verified>> {
        if self.generation_max == 0 {
            return None;
        }
        // Declared first, so dropped last: after the lock is let go.
        let _forgotten;
        let mut shard = self
            .shard(digest)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = match shard.young.get(digest) {
            Some(found) => Arc::clone(found),
            None => {
                let found = shard.old.remove(digest)?;
                _forgotten = shard.put(*digest, Arc::clone(&found), self.generation_max);
                found
            }
        };
        (found.keys == keys).then_some(found)
    }

    /// Remembers a good token.
    pub(super) fn put(&self, digest: Digest, verified: Arc<Verified>) {
        if self.generation_max > 0 {
            let mut shard = self
                .shard(&digest)
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let forgotten = shard.put(digest, verified, self.generation_max);
            drop(shard);
            drop(forgotten);
        }
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Shard> {
        &self.shards[usize::from(digest[0]) % self.shards.len()]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(len).sum()
    }
}

impl Shard {
    /// Gives what is forgotten, for the caller to drop once the lock is let go: it may be thousands of
    /// entries.
    #[must_use]
    fn put(
        &mut self,
        digest: Digest,
        verified: Arc<Verified>,
        generation_max: usize,
    ) -> Generation {
        let mut forgotten = Generation::new();
        if self.young.len() >= generation_max && !self.young.contains_key(&digest) {
            let young = std::mem::take(&mut self.young);
            forgotten = std::mem::replace(&mut self.old, young);
        }
        self.young.insert(digest, verified);
        forgotten
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries_max = self.generation_max * 2 * self.shards.len();
        f.debug_struct("Cache")
            .field("entries_max", &entries_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_core::IdentityMethod;

    fn verified(keys: u64) -> Arc<Verified> {
        let identity = Identity {
            subject: "s".into(),
            tenant: None,
            method: IdentityMethod::Jwt,
            expires: None,
        };
        Arc::new(Verified {
            identity,
            valid_from: 0,
            valid_until: 1,
            keys,
        })
    }

    fn nth(n: u32) -> Digest {
        digest(&n.to_be_bytes())
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        for bound in [1, 2, 63, 64, 1_000] {
            let cache = Cache::new(bound);
            for n in 0..5_000 {
                cache.put(nth(n), verified(1));
                let allowed = bound.max(2);
                assert!(cache.len() <= allowed, "{} of {bound}", cache.len());
            }
        }
    }

    #[test]
    fn what_is_used_stays_while_what_is_not_goes() {
        let cache = Cache::new(10);
        cache.put(nth(0), verified(1));
        for n in 1..1_000 {
            cache.put(nth(n), verified(1));
            assert!(cache.get(&nth(0), 1).is_some(), "after {n} others");
        }
        assert!(cache.get(&nth(1), 1).is_none());
    }

    #[test]
    fn other_keys_than_those_that_checked_it_forget_a_token() {
        let cache = Cache::new(10);
        cache.put(nth(0), verified(1));
        assert!(cache.get(&nth(0), 1).is_some());
        assert!(cache.get(&nth(0), 2).is_none());
    }

    #[test]
    fn no_entries_means_no_cache() {
        let cache = Cache::new(0);
        cache.put(nth(0), verified(1));
        assert!(cache.get(&nth(0), 1).is_none());
    }
}
