//! From a host to the patterns that match it, the most specific one first.

use super::SiteId;
use foldhash::fast::RandomState;
use hub_config::runtime::HostPattern;
use std::collections::HashMap;

/// Host patterns. The keys of both tables are the operator's, so a fast hash does: a client cannot
/// add colliding ones.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, SiteId, RandomState>,
    /// By suffix, which starts with a dot.
    wildcard: HashMap<Box<str>, SiteId, RandomState>,
    /// Length of the longest suffix, in bytes: longer ones of a host need not be looked up, so that a
    /// host of a hundred labels costs no hundred hashes.
    suffix_len_max: usize,
    any: Option<SiteId>,
}

impl Hosts {
    /// The site of a pattern, which becomes `next` where the pattern is new. `None` means any host.
    pub(super) fn insert(&mut self, pattern: Option<&HostPattern>, next: SiteId) -> SiteId {
        match pattern {
            None => *self.any.get_or_insert(next),
            Some(HostPattern::Exact(host)) => {
                *self.exact.entry(host.as_str().into()).or_insert(next)
            }
            Some(HostPattern::Wildcard(suffix)) => {
                self.suffix_len_max = self.suffix_len_max.max(suffix.len());
                *self.wildcard.entry(suffix.as_str().into()).or_insert(next)
            }
        }
    }

    /// Shows the sites of every pattern that matches `host` until `visit` is content.
    pub(super) fn walk<T>(
        &self,
        host: &str,
        visit: &mut impl FnMut(SiteId) -> Option<T>,
    ) -> Option<T> {
        if !self.exact.is_empty()
            && let Some(site) = self.exact.get(host)
            && let Some(found) = visit(*site)
        {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            for (dot, _) in host.match_indices('.') {
                // A wildcard stands for at least one label, and no label is empty.
                let suffix = &host[dot..];
                if dot > 0
                    && suffix.len() <= self.suffix_len_max
                    && let Some(site) = self.wildcard.get(suffix)
                    && let Some(found) = visit(*site)
                {
                    return Some(found);
                }
            }
        }
        self.any.and_then(visit)
    }
}
