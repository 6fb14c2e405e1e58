//! How many connections a listener has taken, and which of them was our own knock.
//!
//! Costs one addition and one read for each connection. Who knocks is known by its port, on an address of
//! this host: nobody else can have both while we do.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// What a listener has taken.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    taken: AtomicU64,
    /// The port that our knock comes from; 0 where none is under way.
    expected: AtomicU16,
    /// The port of the last knock that was taken.
    answered: AtomicU16,
}

/// A knock under way, until dropped.
#[derive(Debug)]
pub(crate) struct Expected<'a>(&'a Arrivals);

impl Arrivals {
    /// Counts a connection. True where it is the knock that is expected from `own`: whoever has taken it
    /// closes it, and that is all.
    pub(crate) fn take(&self, own: IpAddr, peer: impl FnOnce() -> Option<SocketAddr>) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Acquire);
        if expected == 0 {
            return false;
        }
        let from_us = |peer: SocketAddr| {
            peer.port() == expected && peer.ip().to_canonical() == own.to_canonical()
        };
        let is_knock = peer().is_some_and(from_us);
        if is_knock {
            self.answered.store(expected, Ordering::Release);
        }
        is_knock
    }

    /// Connections taken so far, knocks included.
    pub(crate) fn count(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Expects a knock from `port` until the returned value is dropped. One at a time.
    pub(crate) fn expect(&self, port: u16) -> Expected<'_> {
        self.answered.store(0, Ordering::Release);
        self.expected.store(port, Ordering::Release);
        Expected(self)
    }
}

impl Expected<'_> {
    /// True once it was taken.
    pub(crate) fn is_answered(&self) -> bool {
        let expected = self.0.expected.load(Ordering::Acquire);
        self.0.answered.load(Ordering::Acquire) == expected
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.0.expected.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_is_told_from_others_by_port_and_address() {
        let arrivals = Arrivals::default();
        let own = IpAddr::from([127, 0, 0, 1]);
        let peer = |address: &str| Some(address.parse().expect("an address"));
        let take = |address: &str| arrivals.take(own, || peer(address));
        assert!(!take("127.0.0.1:4711"), "none is expected");
        let knock = arrivals.expect(4711);
        assert!(!take("127.0.0.1:4712") && !take("127.0.0.2:4711"));
        assert!(!knock.is_answered());
        assert!(take("[::ffff:127.0.0.1]:4711") && knock.is_answered());
        drop(knock);
        assert!(!take("127.0.0.1:4711"), "it is over");
        assert!(!arrivals.expect(4711).is_answered(), "another one");
        assert_eq!(arrivals.count(), 5);
    }
}
