//! From serving to gone: what SIGTERM, or a hand-over to another process, sets in motion, and who is still
//! at work.

use crate::service::notify::Notifier;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Serving,
    /// Readiness says 503, everything is still served, answers ask clients to reconnect elsewhere.
    Notice,
    /// Another process takes new connections. Those of this one are served: each of HTTP/1 is closed with
    /// its next answer, those of HTTP/2 are told to go.
    HandedOver,
    /// No new connections; idle ones are closed; requests in flight are finished.
    Draining,
}

/// The process's phase and the number of requests in flight.
///
/// Invariant: phases only go forward.
#[derive(Debug)]
pub struct Lifecycle {
    phase: AtomicU8,
    in_flight: AtomicUsize,
    idle: Notify,
    /// True from [`Phase::HandedOver`] on; what accept loops and connections of HTTP/2 watch.
    stop: watch::Sender<bool>,
    /// True from [`Phase::Draining`] on; what idle connections of HTTP/1 watch.
    idle_end: watch::Sender<bool>,
    service: Notifier,
}

/// One request in flight; counts until dropped.
#[derive(Debug)]
pub struct InFlight(std::sync::Arc<Lifecycle>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new(Notifier::default())
    }
}

impl Lifecycle {
    /// The lifecycle of a process that tells `service` how it goes.
    pub fn new(service: Notifier) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            stop: watch::channel(false).0,
            idle_end: watch::channel(false).0,
            service,
        }
    }

    /// The service manager, if there is one.
    pub fn service(&self) -> &Notifier {
        &self.service
    }

    /// Where the process stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Notice,
            3 => Phase::HandedOver,
            _ => Phase::Draining,
        }
    }

    /// Goes forward to `phase`; going back has no effect.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if phase >= Phase::HandedOver {
            self.stop.send_replace(true);
        }
        if phase == Phase::Draining {
            self.idle_end.send_replace(true);
        }
    }

    /// Becomes true when no connection should be taken any more.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Becomes true when idle connections should close.
    pub fn idle_end(&self) -> watch::Receiver<bool> {
        self.idle_end.subscribe()
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Counts a request until the returned value is dropped.
    pub fn begin(self: &std::sync::Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(std::sync::Arc::clone(self))
    }

    /// Waits until no request is in flight, `longest` at most; how many are left then.
    pub async fn wait_idle(&self, longest: Duration) -> usize {
        let idle = async {
            loop {
                let notified = self.idle.notified();
                if self.in_flight() == 0 {
                    return;
                }
                notified.await;
            }
        };
        // Running out of time is one of the two ordinary ends.
        let _in_time = tokio::time::timeout(longest, idle).await;
        self.in_flight()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.phase() == Phase::Draining
        {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn phases_only_go_forward() {
        let lifecycle = Lifecycle::default();
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
        assert!(*lifecycle.stop().borrow() && *lifecycle.idle_end().borrow());
    }

    #[test]
    fn a_hand_over_ends_accepting_and_leaves_idle_connections_alone() {
        let lifecycle = Lifecycle::default();
        lifecycle.advance(Phase::Notice);
        assert!(!*lifecycle.stop().borrow());
        lifecycle.advance(Phase::HandedOver);
        assert!(*lifecycle.stop().borrow() && !*lifecycle.idle_end().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_request() {
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.advance(Phase::Draining);
        let (first, last) = (lifecycle.begin(), lifecycle.begin());
        let waiting = {
            let lifecycle = Arc::clone(&lifecycle);
            tokio::spawn(async move { lifecycle.wait_idle(Duration::from_secs(3600)).await })
        };
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(last);
        assert_eq!(waiting.await.expect("no panic"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_gives_up_and_says_how_many_are_left() {
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.advance(Phase::Draining);
        let _stuck = lifecycle.begin();
        assert_eq!(lifecycle.wait_idle(Duration::from_secs(1)).await, 1);
    }
}
